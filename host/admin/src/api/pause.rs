//! Pausing and resuming, until the host restarts or for good.

use std::time::SystemTime;

use axum::{Json, extract};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::Admin;
use super::extract::{AtDatabase, Body, DatabasePath, Wanted, text};
use super::problem::{Kind, Problem, SteeringAll, SteeringHost, SteeringIfPossible, SteeringWithBody};
use super::updates::done;
use super::view::{Did, Results};
use crate::{Site, State};
use tidegate::scheduler::database::{self, unix_ms};
use tidegate::update::SqlError;

/// A pause.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NewPause {
    /// True to store it in the database: then it outlasts restarts and holds for every host. False: it is this host's
    /// alone, until it restarts; another host may take over then.
    #[schema(example = true)]
    persist: bool,
    /// Why, for whoever looks.
    #[schema(max_length = 1_000, example = "maintenance")]
    reason: Option<String>,
}

impl Wanted for NewPause {
    fn without_body() -> Option<Self> {
        Some(Self::default())
    }
}

impl NewPause {
    fn check(&self) -> Result<(), Problem> {
        const LONGEST: usize = 1_000;
        let Some(reason) = &self.reason else { return Ok(()) };
        if reason.chars().count() > LONGEST {
            return Err(Problem::new(Kind::Invalid, format!("\"reason\" is longer than {LONGEST} characters")));
        }
        text("reason", reason)
    }
}

/// Pause one database
///
/// No batch begins from now on; one that runs is finished. Without a body: until the host restarts.
#[utoipa::path(
    post,
    path = "/databases/{database}/pause",
    tag = "databases",
    params(DatabasePath),
    request_body(content = Option<NewPause>, content_type = "application/json"),
    responses((status = 200, description = "It is paused.", body = Results), SteeringWithBody)
)]
pub(super) async fn pause(
    _: Admin,
    AtDatabase(site): AtDatabase,
    extract::State(state): extract::State<State>,
    Body(new): Body<NewPause>,
) -> Result<Json<Results>, Problem> {
    new.check()?;
    on_each(&state, std::slice::from_ref(&site), Some(&new)).await
}

/// Pause all databases
///
/// No batch begins from now on; those that run are finished. Without a body: until the host restarts.
#[utoipa::path(
    post,
    path = "/pause",
    tag = "host",
    request_body(content = Option<NewPause>, content_type = "application/json"),
    responses((status = 200, description = "They are paused.", body = Results), SteeringAll)
)]
pub(super) async fn pause_all(
    _: Admin,
    extract::State(state): extract::State<State>,
    Body(new): Body<NewPause>,
) -> Result<Json<Results>, Problem> {
    new.check()?;
    on_each(&state, state.sites(), Some(&new)).await
}

/// Resume one database
///
/// Lifts every pause of it, stored or not. 409 where the whole host was paused by way of Synapse's API: then all are
/// resumed, or none.
#[utoipa::path(
    post,
    path = "/databases/{database}/resume",
    tag = "databases",
    params(DatabasePath),
    responses((status = 200, description = "It goes on.", body = Results), SteeringIfPossible)
)]
pub(super) async fn resume(
    _: Admin,
    AtDatabase(site): AtDatabase,
    extract::State(state): extract::State<State>,
) -> Result<Json<Results>, Problem> {
    if !state.control().is_enabled() && state.sites().len() > 1 {
        return Err(Problem::new(Kind::WholeHostPaused, "all databases of this host are paused until it restarts")
            .hint(format!("POST {}/resume resumes all of them", super::ROOT)));
    }
    let results = on_each(&state, std::slice::from_ref(&site), None).await?;
    if !state.control().is_enabled() {
        state.control().set_enabled(true);
    }
    Ok(results)
}

/// Resume all databases
///
/// Lifts every pause, stored or not.
#[utoipa::path(
    post,
    path = "/resume",
    tag = "host",
    responses((status = 200, description = "They go on.", body = Results), SteeringHost)
)]
pub(super) async fn resume_all(
    _: Admin,
    extract::State(state): extract::State<State>,
) -> Result<Json<Results>, Problem> {
    state.control().set_enabled(true);
    on_each(&state, state.sites(), None).await
}

/// Pauses or resumes each of some databases. One that does not answer keeps no other from being paused or resumed.
async fn on_each(state: &State, sites: &[Site], pause: Option<&NewPause>) -> Result<Json<Results>, Problem> {
    let mut results = Vec::new();
    let mut errors = Vec::new();
    let did = if pause.is_some() { Did::Paused } else { Did::Resumed };
    for site in sites {
        match on(state, site, pause).await {
            Ok(()) => results.push(done(site, None, did)),
            Err(error) => errors.push((site, error)),
        }
    }
    state.control().wake();
    match &errors[..] {
        [] => Ok(Json(Results { results })),
        [(site, error), ..] => {
            let all = errors.iter().map(|(site, error)| format!("database \"{}\": {error}", site.name));
            Err(Problem::database(&site.name, error)
                .hint("`errors` names the databases where nothing was done; on others it was")
                .errors(all.collect()))
        }
    }
}

async fn on(state: &State, site: &Site, pause: Option<&NewPause>) -> Result<(), SqlError> {
    match pause {
        Some(NewPause { persist: true, reason }) => {
            let stored = database::Pause { since_ms: unix_ms(SystemTime::now()), reason: reason.clone() };
            site.database.prepare().await?;
            site.database.set_pause(Some(&stored)).await?;
        }
        Some(NewPause { persist: false, reason }) => state.control().set_pause(&site.name, Some(reason.clone())),
        None => {
            site.database.prepare().await?;
            site.database.set_pause(None).await?;
            state.control().set_pause(&site.name, None);
        }
    }
    state.board().note_pause(&site.name, pause.map(|pause| pause.reason.clone()));
    Ok(())
}
