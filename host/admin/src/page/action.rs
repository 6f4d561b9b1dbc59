//! What the page's buttons do: the same as the commands of the same names.

use std::time::SystemTime;

use axum::extract::{Form, Path, State as Extracted};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};

use super::session::{Notice, is_sealed};
use super::{Page, refuse, render};
use crate::state::{Site, State};
use crate::steer::{self, NotAccepted};
use tidegate::scheduler::acceptance::Unaccepted;
use tidegate::scheduler::database::{Pause, unix_ms};
use tidegate::scheduler::withdrawal::Withdrawal;
use tidegate::update::SqlError;

/// What a button's form sends.
#[derive(serde::Deserialize)]
pub(super) struct Fields {
    #[serde(default)]
    seal: String,
    #[serde(default)]
    database: String,
    update: Option<String>,
}

/// Does what a button says, and shows the page again.
pub(super) async fn act(
    Extracted(page): Extracted<Page>,
    Path(what): Path<String>,
    headers: HeaderMap,
    Form(fields): Form<Fields>,
) -> Response {
    let Some(visitor) = page.sessions.visitor(&page.state.live().access, &headers) else {
        return Redirect::to("/login").into_response();
    };
    if !visitor.steers() {
        return refuse("Steering takes an admin's token.");
    }
    if !is_sealed(&visitor, &fields.seal, &headers) {
        return refuse("This was not sent by a page of your session; reload the page and try again.");
    }
    let done = match (what.as_str(), page.state.site(&fields.database), &fields.update) {
        ("reload", ..) => reload(&page.state).await,
        (_, None, _) => Err(format!("There is no database \"{}\".", fields.database)),
        ("pause", Some(site), _) => pause(&page.state, site).await,
        ("resume", Some(site), _) => resume(&page.state, site).await,
        ("run-now", Some(site), _) => {
            page.state.control().hurry(&site.name);
            Ok(format!("{} is looked at now.", site.name))
        }
        ("retry", Some(site), Some(update)) => retry(&page.state, site, update).await,
        ("accept", Some(site), Some(update)) => accept(&page.state, site, update).await,
        ("cancel", Some(site), Some(update)) => cancel(&page.state, site, update).await,
        _ => return (StatusCode::NOT_FOUND, render::refusal("There is no such button.")).into_response(),
    };
    let notice = match done {
        Ok(text) => Notice { text, good: true },
        Err(text) => Notice { text, good: false },
    };
    page.sessions.leave_notice(&visitor, notice);
    page.viewer.forget().await;
    Redirect::to("/").into_response()
}

fn words(error: &SqlError) -> String {
    format!("The database refused: {error}")
}

async fn reload(state: &State) -> Result<String, String> {
    let wrong = |wrong: Vec<String>| format!("Nothing was reloaded: {}", wrong.join("; "));
    state.reload().await.map_err(wrong)?;
    Ok("The configuration and the controllers were reloaded.".to_owned())
}

async fn pause(state: &State, site: &Site) -> Result<String, String> {
    let pause = Pause { since_ms: unix_ms(SystemTime::now()), reason: Some("paused on the page".to_owned()) };
    site.database.prepare().await.map_err(|error| words(&error))?;
    site.database.set_pause(Some(&pause)).await.map_err(|error| words(&error))?;
    state.board().note_pause(&site.name, Some(pause.reason));
    state.control().wake();
    Ok(format!("{} is paused, until it is resumed.", site.name))
}

async fn resume(state: &State, site: &Site) -> Result<String, String> {
    let control = state.control();
    if !control.is_enabled() && state.sites().len() > 1 {
        let all = "all databases of this host are paused until it restarts: POST /api/v1/resume resumes them";
        return Err(format!("{} stays paused, for {all}.", site.name));
    }
    site.database.prepare().await.map_err(|error| words(&error))?;
    site.database.set_pause(None).await.map_err(|error| words(&error))?;
    state.board().note_pause(&site.name, None);
    control.set_pause(&site.name, None);
    if !control.is_enabled() {
        control.set_enabled(true);
    }
    control.wake();
    Ok(format!("{} goes on.", site.name))
}

async fn retry(state: &State, site: &Site, update: &str) -> Result<String, String> {
    let forgotten = site.database.forget_failures(update).await.map_err(|error| words(&error))?;
    state.control().hurry(&site.name);
    match forgotten {
        true => Ok(format!("{update} is tried again.")),
        false => Err(format!("{update} has not failed.")),
    }
}

async fn accept(state: &State, site: &Site, update: &str) -> Result<String, String> {
    match steer::accept_definition(state, site, update).await {
        Ok(Some(changes)) => Ok(format!("{update} goes on under the definition of now: {changes}.")),
        Ok(None) => Err(format!("The definition of {update} is the one that it began with.")),
        Err(NotAccepted::NotQueued) => Err(format!("{update} is not queued.")),
        Err(NotAccepted::Undefined) => Err(format!("Nothing defines {update}.")),
        Err(NotAccepted::Because(Unaccepted::Sql(error))) => Err(words(&error)),
        Err(NotAccepted::Because(Unaccepted::CannotGoOn { source, .. })) => {
            Err(format!("{update} cannot go on: {source}."))
        }
        Err(NotAccepted::Because(error @ Unaccepted::Moved(_))) => Err(format!("{error}.")),
    }
}

async fn cancel(state: &State, site: &Site, update: &str) -> Result<String, String> {
    let queue = site.database.look().await.map_err(|error| words(&error))?.unwrap_or_default();
    let dependents = queue.rows.iter().filter(|row| row.depends_on.as_deref() == Some(update));
    let dependents: Vec<&str> = dependents.map(|row| row.update_name.as_str()).collect();
    if !dependents.is_empty() {
        let names = dependents.join(", ");
        return Err(format!("{update} stays: {names} depend on it. Cancel them first."));
    }
    let gone = steer::cancel(state, site, &[update.to_owned()]).await.map_err(|error| match error {
        Withdrawal::Sql(error) => words(&error),
        error @ Withdrawal::Runs { .. } => {
            format!("{error}. It is asked to leave off, and is taken out once what it does can be interrupted.")
        }
    })?;
    match gone.is_empty() {
        true => Err(format!("{update} is not queued.")),
        false => Ok(format!("{update} is out of the queue.")),
    }
}
