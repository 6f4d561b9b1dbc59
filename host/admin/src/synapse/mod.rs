//! Synapse's admin API of background updates, so that a program written for it needs no change:
//! <https://element-hq.github.io/synapse/latest/usage/administration/admin_api/background_updates.html>.
//!
//! The order of the checks is Synapse's: path, method, token, body, the body's fields. Paths are compared here as they
//! were sent, not by the router, which would decode them and answer in words of its own.

mod answer;
mod body;
mod token;
mod updates;

use axum::Router;
use axum::body::Body;
use axum::extract::{self, Request};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use percent_encoding::percent_decode_str;
use serde_json::Map;

use super::access::Role;
use super::state::State;
use answer::Refusal;
use tidegate::scheduler::ledger::Actor;

/// The routes: all that is below `/_synapse`, known or not.
pub(super) fn routes() -> Router<State> {
    ["/_synapse", "/_synapse/", "/_synapse/{*path}"]
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, any(handle)))
}

/// What no route is for: a client that wrote Synapse's paths in another way hears what Synapse would say.
pub(super) async fn elsewhere(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    body::discard(body.into_data_stream()).await;
    let path = percent_decode_str(parts.uri.path()).decode_utf8_lossy();
    if path.trim_start_matches('/').starts_with("_synapse") {
        // There is nothing to read in it.
        return answer::of(Err(Refusal::unknown_path()), true);
    }
    StatusCode::NOT_FOUND.into_response()
}

/// What a client can want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Status,
    IsEnabled,
    SetEnabled,
    StartJob,
}

impl Action {
    /// # Errors
    /// A path that is not there, or a method that it does not have.
    fn of(method: &Method, path: &str) -> Result<Self, Refusal> {
        let endpoint = path.strip_prefix("/_synapse/admin/v1/background_updates/").unwrap_or_default();
        match (endpoint, method) {
            ("status", &Method::GET | &Method::HEAD) => Ok(Action::Status),
            ("enabled", &Method::GET | &Method::HEAD) => Ok(Action::IsEnabled),
            ("enabled", &Method::POST) => Ok(Action::SetEnabled),
            ("start_job", &Method::POST) => Ok(Action::StartJob),
            ("status" | "enabled" | "start_job", _) => Err(Refusal::unknown_method()),
            _ => Err(Refusal::unknown_path()),
        }
    }

    fn only_reads(self) -> bool {
        matches!(self, Action::Status | Action::IsEnabled)
    }
}

async fn handle(extract::State(state): extract::State<State>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if parts.method == Method::OPTIONS {
        body::discard(body.into_data_stream()).await;
        return answer::preflight(any_origin(&state));
    }
    let answered = answered(&state, &parts, body).await;
    answer::of(answered, any_origin(&state))
}

/// Whether pages of any origin may read the answers, as with Synapse: only where a token is asked for, since a page has
/// none. Without tokens any page in a browser on this machine could read what the host does.
fn any_origin(state: &State) -> bool {
    !state.live().access.is_without_tokens()
}

/// The body of an answer.
async fn answered(state: &State, parts: &Parts, body: Body) -> Result<String, Refusal> {
    let action = Action::of(&parts.method, parts.uri.path());
    let action = action.and_then(|action| authorize(state, parts, action).map(|actor| (action, actor)));
    let said = match &action {
        Ok((action, _)) if !action.only_reads() => body::object(parts, body).await?,
        // A client that is still sending would not see the answer.
        _ => {
            body::discard(body.into_data_stream()).await;
            Map::new()
        }
    };
    match action? {
        (Action::Status, _) => answer::json(&updates::status(state)),
        (Action::IsEnabled, _) => answer::json(&updates::enabled(state)),
        (Action::SetEnabled, Some(actor)) => answer::json(&updates::set_enabled(state, &said, &actor).await?),
        (Action::StartJob, Some(actor)) => answer::json(&updates::start_job(state, &said, &actor).await?),
        (Action::SetEnabled | Action::StartJob, None) => Err(Refusal::without_tokens()),
    }
}

/// Whether a client may: an admin may everything, as with Synapse nobody else may anything. Without any token
/// configured everybody who can connect may look. Whom the ledger names for it comes back.
fn authorize(state: &State, parts: &Parts, action: Action) -> Result<Option<Actor>, Refusal> {
    let live = state.live();
    if live.access.is_without_tokens() {
        return if action.only_reads() { Ok(None) } else { Err(Refusal::without_tokens()) };
    }
    let token = token::of(parts)?;
    match live.access.role_of(&token) {
        Some(Role::Admin) => Ok(live.access.actor(&token)),
        Some(Role::Viewer) => Err(Refusal::not_admin()),
        None => Err(Refusal::unknown_token()),
    }
}
