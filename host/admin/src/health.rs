//! Whether the host lives, and whether it works: for whoever starts and stops it.

use axum::Router;
use axum::extract;
use axum::http::StatusCode;
use axum::routing::get;

use super::state::State;
use tidegate::scheduler::board::LeaseState;

/// The routes.
pub(super) fn routes() -> Router<State> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

/// The process answers.
async fn healthz() -> &'static str {
    "ok\n"
}

/// The host is the runner of a database that answers.
async fn readyz(extract::State(state): extract::State<State>) -> (StatusCode, String) {
    let lines: Vec<(bool, String)> = state.board().read(|databases| {
        let of = |name: &str| {
            let Some(database) = databases.get(name) else { return (false, "not asked yet".to_owned()) };
            match (&database.lease, &database.unavailable) {
                (_, Some(_)) => (false, "does not answer".to_owned()),
                (LeaseState::Runner, None) => (true, "this host works on it".to_owned()),
                (LeaseState::StandingBy(_), None) => (false, "another host works on it".to_owned()),
                (LeaseState::None, None) => (false, "not asked yet".to_owned()),
            }
        };
        state
            .sites()
            .iter()
            .map(|site| {
                let (ready, why) = of(&site.name);
                (ready, format!("{}: {why}\n", site.name))
            })
            .collect()
    });
    let ready = lines.iter().any(|(ready, _)| *ready) && !state.control().is_stopping();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, lines.into_iter().map(|(_, line)| line).collect())
}
