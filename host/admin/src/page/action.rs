//! What the page's buttons do: the same as the commands of the same names.

use axum::extract::{Form, Path, State as Extracted};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};

use super::session::{Notice, is_sealed};
use super::{Page, refuse, render};
use crate::state::{Site, State};
use tidegate::scheduler::acceptance::Unaccepted;
use tidegate::scheduler::operations::{Did, Failed, Refusal};

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
    let Some(actor) = visitor.actor.as_ref().filter(|_| visitor.steers()) else {
        return refuse("Steering takes an admin's token.");
    };
    if !is_sealed(&visitor, &fields.seal, &headers) {
        return refuse("This was not sent by a page of your session; reload the page and try again.");
    }
    let site = page.state.site(&fields.database).map(|site| site.known_as(actor.clone()));
    let done = match (what.as_str(), site.as_ref(), &fields.update) {
        ("reload", ..) => reload(&page.state).await,
        (_, None, _) => Err(format!("There is no database \"{}\".", fields.database)),
        ("cancel", Some(site), Some(update)) => cancel(&page.state, site, update).await,
        (what, Some(site), update) => {
            let done = match (what, update) {
                ("pause", _) => pause(&page.state, site).await,
                ("resume", _) => resume(&page.state, site).await,
                ("run-now", _) => run_now(&page.state, site),
                ("retry", Some(update)) => retry(&page.state, site, update).await,
                ("retry-skipped", Some(update)) => retry_skipped(&page.state, site, update).await,
                ("approve", Some(update)) => approve(&page.state, site, update).await,
                ("accept", Some(update)) => accept(&page.state, site, update).await,
                _ => return (StatusCode::NOT_FOUND, render::refusal("There is no such button.")).into_response(),
            };
            done.map_err(|error| words(site, error))
        }
    };
    let notice = match done {
        Ok(text) => Notice { text, good: true },
        Err(text) => Notice { text, good: false },
    };
    page.sessions.leave_notice(&visitor, notice);
    page.viewer.forget().await;
    Redirect::to("/").into_response()
}

/// Why a thing was not done, in a sentence.
fn words(site: &Site, error: Refusal) -> String {
    match error {
        Refusal::Database(error) => format!("The database refused: {error}"),
        Refusal::Undefined(update) => format!("Nothing defines {update}."),
        Refusal::NotQueued(update) => format!("{update} is not queued."),
        Refusal::Unaccepted(Unaccepted::CannotGoOn { update_name, source }) => {
            format!("{update_name} cannot go on: {source}.")
        }
        Refusal::StillRuns(error) => {
            format!("{error}. It is asked to leave off, and is taken out once what it does can be interrupted.")
        }
        error @ Refusal::WholeHostPaused => {
            format!("{} stays paused, for {error}: POST /api/v1/resume resumes them.", site.name)
        }
        error => format!("{}: {error}.", site.name),
    }
}

async fn reload(state: &State) -> Result<String, String> {
    let wrong = |wrong: Vec<String>| format!("Nothing was reloaded: {}", wrong.join("; "));
    state.reload().await.map_err(wrong)?;
    Ok("The configuration and the controllers were reloaded.".to_owned())
}

async fn pause(state: &State, site: &Site) -> Result<String, Refusal> {
    let goes_on = state.operations(site).pause(Some("paused on the page".to_owned())).await?;
    let goes_on: String = goes_on
        .iter()
        .map(|name| format!(" {name} runs in one go and goes on to its end, unless it is cancelled."))
        .collect();
    Ok(format!("{} is paused, until it is resumed.{goes_on}", site.name))
}

async fn resume(state: &State, site: &Site) -> Result<String, Refusal> {
    state.operations(site).resume().await?;
    Ok(format!("{} goes on.", site.name))
}

fn run_now(state: &State, site: &Site) -> Result<String, Refusal> {
    Ok(match state.operations(site).run_now()? {
        (update, Did::RunNow) => format!("{update} runs now."),
        (update, _) => format!("{update} does not wait."),
    })
}

async fn retry(state: &State, site: &Site, update: &str) -> Result<String, Refusal> {
    let retried = state.operations(site).retry(Failed::Named(&[update.to_owned()])).await?;
    match retried.first() {
        Some((_, Did::Retried)) => Ok(format!("{update} is tried again.")),
        Some(_) => Ok(format!("{update} has not failed.")),
        None => Err(Refusal::NotQueued(update.to_owned())),
    }
}

async fn retry_skipped(state: &State, site: &Site, update: &str) -> Result<String, Refusal> {
    Ok(match state.operations(site).retry_skipped(update, &state.handlers(site)).await? {
        Did::Queued => format!("{update} is queued, to try again the rows that it skipped."),
        Did::Retried => format!("{update} is tried again."),
        Did::NothingSkipped => format!("{update} has skipped no row."),
        _ => format!("{update} is still at work, and left as it is."),
    })
}

async fn approve(state: &State, site: &Site, update: &str) -> Result<String, Refusal> {
    Ok(match state.operations(site).approve(update).await? {
        true => format!("{update} goes on."),
        false => format!("{update} does not await approval."),
    })
}

async fn accept(state: &State, site: &Site, update: &str) -> Result<String, Refusal> {
    Ok(match state.operations(site).accept(update, &state.handlers(site)).await? {
        Some(changes) => format!("{update} goes on under the definition of now: {changes}."),
        None => format!("The definition of {update} is the one that it began with."),
    })
}

async fn cancel(state: &State, site: &Site, update: &str) -> Result<String, String> {
    let gone = state.operations(site).cancel(&[update.to_owned()], false).await.map_err(|error| match error {
        Refusal::Dependents(names) => {
            format!("{update} stays: {} depend on it. Cancel them first.", names.join(", "))
        }
        other => words(site, other),
    })?;
    match gone.is_empty() {
        true => Err(words(site, Refusal::NotQueued(update.to_owned()))),
        false => Ok(format!("{update} is out of the queue.")),
    }
}
