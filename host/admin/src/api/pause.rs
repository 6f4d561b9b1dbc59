//! Pausing and resuming, until the host restarts or for good.

use axum::{Json, extract};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::Admin;
use super::extract::{AtDatabase, Body, DatabasePath, Wanted, text};
use super::problem::{Kind, Problem, SteeringAll, SteeringHost, SteeringIfPossible, SteeringWithBody};
use super::updates::{done, refused};
use super::view::{Did, Done, Results};
use crate::{Site, State};
use tidegate::scheduler::operations::Refusal;

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
    pause_each(&state, std::slice::from_ref(&site), &new).await
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
    Admin(actor): Admin,
    extract::State(state): extract::State<State>,
    Body(new): Body<NewPause>,
) -> Result<Json<Results>, Problem> {
    new.check()?;
    pause_each(&state, &state.sites_of(&actor), &new).await
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
    state.operations(&site).resume().await.map_err(|error| refused(&state, &site, error))?;
    Ok(Json(Results { results: vec![done(&site, None, Did::Resumed)] }))
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
    Admin(actor): Admin,
    extract::State(state): extract::State<State>,
) -> Result<Json<Results>, Problem> {
    let resumed = state.resume_all(&actor).await.into_iter();
    answer(&state, resumed.map(|(site, outcome)| (site, outcome.map(|()| done(site, None, Did::Resumed)))))
}

/// Pauses each of some databases. One that does not answer keeps no other from being paused.
async fn pause_each(state: &State, sites: &[Site], new: &NewPause) -> Result<Json<Results>, Problem> {
    let paused = sites.iter().map(|site| async move {
        let operations = state.operations(site);
        let goes_on = match new.persist {
            true => operations.pause(new.reason.clone()).await,
            false => {
                operations.pause_until_restart(new.reason.clone()).await;
                Ok(Vec::new())
            }
        };
        (site, goes_on.map(|goes_on| Done { goes_on, ..done(site, None, Did::Paused) }))
    });
    answer(state, join_all(paused).await)
}

/// What was done, or where it was not.
fn answer<'a>(
    state: &State,
    outcomes: impl IntoIterator<Item = (&'a Site, Result<Done, Refusal>)>,
) -> Result<Json<Results>, Problem> {
    let mut results = Vec::new();
    let mut errors = Vec::new();
    for (site, outcome) in outcomes {
        match outcome {
            Ok(done) => results.push(done),
            Err(error) => errors.push((site, error)),
        }
    }
    let all = errors.iter().map(|(site, error)| format!("database \"{}\": {error}", site.name)).collect();
    match errors.into_iter().next() {
        None => Ok(Json(Results { results })),
        Some((site, error)) => Err(refused(state, site, error)
            .hint("`errors` names the databases where nothing was done; on others it was")
            .errors(all)),
    }
}
