//! Queues: what is in them, and how they are changed. A change is written to the database, as the command line does it,
//! and the host looks at once.

use axum::http::StatusCode;
use axum::{Json, extract};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::caller::{Admin, Viewer};
use super::extract::{AtDatabase, AtUpdate, Body, DatabasePath, Query, UpdatePath, Wanted, there_is};
use super::problem::{Kind, LookingAt, Problem, Searching, SteeringIfPossible, SteeringWithBody, SteeringWithQuery};
use super::view::{self, Did, Done, Results};
use crate::{Site, State};
use tidegate::scheduler::acceptance::Unaccepted;
use tidegate::scheduler::choice::Unfit;
use tidegate::scheduler::database::NewRow;
use tidegate::scheduler::operations::{Failed, NewUpdates, Refusal};

/// The queue of a database
///
/// Asks the database. `done`, `items_per_s` and `time_left_ms` are told of the first 100 rows and of the one in hand.
#[utoipa::path(
    get,
    path = "/databases/{database}/updates",
    tag = "updates",
    params(DatabasePath),
    responses((status = 200, description = "The queue.", body = view::Queue), LookingAt)
)]
pub(super) async fn queue(
    _: Viewer,
    AtDatabase(site): AtDatabase,
    extract::State(state): extract::State<State>,
) -> Result<Json<view::Queue>, Problem> {
    view::Queue::of(&state, &site).await.map(Json)
}

/// How much of an update is wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Depth {
    /// Iterations, the newest.
    #[serde(default = "some_iterations")]
    #[param(minimum = 0, maximum = 1_000, default = 20, example = 20)]
    iterations: u32,
}

fn some_iterations() -> u32 {
    20
}

/// One update, with its last iterations
#[utoipa::path(
    get,
    path = "/databases/{database}/updates/{update}",
    tag = "updates",
    params(UpdatePath, Depth),
    responses((status = 200, description = "The update.", body = view::Defined), Searching)
)]
pub(super) async fn update(
    _: Viewer,
    AtUpdate(site, update): AtUpdate,
    Query(Depth { iterations }): Query<Depth>,
    extract::State(state): extract::State<State>,
) -> Result<Json<view::Defined>, Problem> {
    const MOST: u32 = 1_000;
    if iterations > MOST {
        return Err(Problem::new(Kind::BadQuery, format!("\"iterations\" is {iterations}, and at most {MOST}")));
    }
    let found = view::Defined::of(&state, &site, &update, iterations).await?;
    found.map(Json).ok_or_else(|| {
        let detail = format!("nobody knows an update {update:?} on database \"{}\"", site.name);
        Problem::new(Kind::UnknownUpdate, detail).hint(defined(&state, &site))
    })
}

/// An update to be queued.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUpdate {
    /// The update's name.
    #[schema(min_length = 1, max_length = 500, example = "messages_search_body")]
    name: String,
    /// The progress to begin at; without, from the beginning.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({}))]
    progress: serde_json::Map<String, serde_json::Value>,
    /// The update that it waits for, which has to be queued.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 500, example = json!(null))]
    depends_on: Option<String>,
    /// Its place: lower ones run first, and those of one place in the order of their names.
    #[serde(default)]
    #[schema(example = 0)]
    ordering: i32,
    /// True to queue also what the configuration does not define, at progress that its kind does not know, and behind
    /// what is not queued.
    #[serde(default)]
    #[schema(example = false)]
    force: bool,
}

impl Wanted for NewUpdate {}

/// Queue an update
///
/// One that is queued already stays as it is, which is no error.
#[utoipa::path(
    post,
    path = "/databases/{database}/updates",
    tag = "updates",
    params(DatabasePath),
    request_body(content = NewUpdate, content_type = "application/json"),
    responses(
        (status = 201, description = "It is queued.", body = Results),
        (status = 200, description = "It was queued already, and stays as it was.", body = Results),
        SteeringWithBody
    )
)]
pub(super) async fn enqueue(
    _: Admin,
    AtDatabase(site): AtDatabase,
    extract::State(state): extract::State<State>,
    Body(new): Body<NewUpdate>,
) -> Result<(StatusCode, Json<Results>), Problem> {
    let operations = state.operations(&site);
    let row = NewRow {
        update_name: new.name.clone(),
        progress: serde_json::Value::Object(new.progress).to_string(),
        depends_on: new.depends_on,
        ordering: new.ordering.into(),
    };
    let new = NewUpdates { rows: vec![row], force: new.force };
    operations.admit(&new, &state.handlers(&site)).await.map_err(|error| not_queueable(&state, &site, error))?;
    let queued = operations.enqueue(&new.rows).await.map_err(|error| refused(&state, &site, error))?;
    let status = if queued.contains(&Did::Queued) { StatusCode::CREATED } else { StatusCode::OK };
    let names = new.rows.into_iter().map(|row| row.update_name);
    let results = names.zip(queued).map(|(name, did)| done(&site, Some(name), did)).collect();
    Ok((status, Json(Results { results })))
}

/// What is wrong with an update that is to be queued, by the keys of the body.
fn not_queueable(state: &State, site: &Site, error: Refusal) -> Problem {
    let (detail, hint) = match error {
        Refusal::Undefined(update) => (
            format!("\"name\": there is no definition of update {update:?} on database \"{}\"", site.name),
            format!("{}; `\"force\": true` queues it all the same", defined(state, site)),
        ),
        error @ Refusal::Refused { .. } => {
            (format!("\"name\": {error}"), "`\"force\": true` queues it all the same, and it is quarantined".to_owned())
        }
        Refusal::Progress { source, .. } => (
            format!("\"progress\": {}", source.in_full()),
            "leave \"progress\" out to begin at the beginning, or take it from an earlier run of the update".to_owned(),
        ),
        Refusal::Dependency { depends_on, because: Unfit::NotQueued } => (
            format!("\"depends_on\": {depends_on:?} is not queued on database \"{}\"", site.name),
            "queue that one first; or send `\"force\": true`".to_owned(),
        ),
        error @ Refusal::Dependency { .. } => {
            (format!("\"depends_on\": {error}"), "let it depend on something else, or on nothing".to_owned())
        }
        other => return refused(state, site, other),
    };
    Problem::new(Kind::Invalid, detail).hint(hint)
}

/// What to cancel besides.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Reach {
    /// True to cancel also whatever depends on it, directly or not.
    #[serde(default)]
    #[param(default = false)]
    with_dependents: bool,
}

/// Take an update out of the queue
///
/// What it has done until then stays; a batch that runs is rolled back or is the last. Refused with 409 while others
/// depend on it, unless `with_dependents` says to cancel them too.
#[utoipa::path(
    delete,
    path = "/databases/{database}/updates/{update}",
    tag = "updates",
    params(UpdatePath, Reach),
    responses((status = 200, description = "It is out of the queue.", body = Results), SteeringWithQuery)
)]
pub(super) async fn cancel(
    _: Admin,
    AtUpdate(site, update): AtUpdate,
    Query(Reach { with_dependents }): Query<Reach>,
    extract::State(state): extract::State<State>,
) -> Result<Json<Results>, Problem> {
    let cancelled = state.operations(&site).cancel(std::slice::from_ref(&update), with_dependents).await;
    let cancelled = cancelled.map_err(|error| match error {
        Refusal::Dependents(dependents) => {
            let detail = format!("what depends on {update:?} would run without it; nothing was cancelled");
            Problem::new(Kind::DependentsInTheWay, detail)
                .hint("`?with_dependents=true` cancels them too")
                .errors(dependents)
        }
        other => refused(&state, &site, other),
    })?;
    if cancelled.is_empty() {
        return Err(refused(&state, &site, Refusal::NotQueued(update)));
    }
    let done = cancelled.into_iter().map(|name| done(&site, Some(name), Did::Cancelled));
    Ok(Json(Results { results: done.collect() }))
}

/// What of an update is to be tried again.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Again {
    /// True to try only the rows that it skipped: it is queued for these.
    #[serde(default)]
    #[param(default = false)]
    skipped: bool,
}

/// Try an update again, as if it had never failed
///
/// Lifts its quarantine. Where it waits for its next attempt, the wait is over. With `skipped` it is queued for the rows that it
/// skipped, and for no others; where it is still at work, it is left as it is.
#[utoipa::path(
    post,
    path = "/databases/{database}/updates/{update}/retry",
    tag = "updates",
    params(UpdatePath, Again),
    responses((status = 200, description = "It is tried again, or had not failed.", body = Results), SteeringWithQuery)
)]
pub(super) async fn retry(
    _: Admin,
    AtUpdate(site, update): AtUpdate,
    Query(Again { skipped }): Query<Again>,
    extract::State(state): extract::State<State>,
) -> Result<Json<Results>, Problem> {
    if skipped {
        let did = state.operations(&site).retry_skipped(&update, &state.handlers(&site)).await;
        let did = did.map_err(|error| refused(&state, &site, error))?;
        return Ok(Json(Results { results: vec![done(&site, Some(update), did)] }));
    }
    let retried = state.operations(&site).retry(Failed::Named(std::slice::from_ref(&update))).await;
    let retried = retried.map_err(|error| refused(&state, &site, error))?;
    if retried.is_empty() {
        return Err(refused(&state, &site, Refusal::NotQueued(update)));
    }
    let results = retried.into_iter().map(|(name, did)| done(&site, Some(name), did)).collect();
    Ok(Json(Results { results }))
}

/// Accept the definition of now for an update that began with another one
///
/// The rows that are left are done under the definition that is in force, and the update is tried again; what was done under
/// the one before stays as it is. 409 where a table, a key or a type of the key changed: the place of the walk would mean
/// nothing.
#[utoipa::path(
    post,
    path = "/databases/{database}/updates/{update}/accept",
    tag = "updates",
    params(UpdatePath),
    responses((status = 200, description = "It goes on, or its definition had not changed.", body = Results), SteeringIfPossible)
)]
pub(super) async fn accept(
    _: Admin,
    AtUpdate(site, update): AtUpdate,
    extract::State(state): extract::State<State>,
) -> Result<Json<Results>, Problem> {
    let changes = state.operations(&site).accept(&update, &state.handlers(&site)).await;
    let changes = changes.map_err(|error| refused(&state, &site, error))?;
    let result = if changes.is_some() { Did::Accepted } else { Did::Unchanged };
    Ok(Json(Results { results: vec![Done { changes, ..done(&site, Some(update), result) }] }))
}

/// Drop the triggers that keep the rows of an update
///
/// The update need not be defined any more. One that is queued has its triggers until it is done. No lock is waited for for long:
/// where somebody is in the way, the problem names who, and it can be tried again.
#[utoipa::path(
    post,
    path = "/databases/{database}/updates/{update}/unkeep",
    tag = "updates",
    params(UpdatePath),
    responses((status = 200, description = "They are dropped.", body = Results), SteeringIfPossible)
)]
pub(super) async fn unkeep(
    _: Admin,
    AtUpdate(site, update): AtUpdate,
    extract::State(state): extract::State<State>,
) -> Result<Json<Results>, Problem> {
    let dropped = state.operations(&site).unkeep(&update).await;
    dropped.map_err(|error| refused(&state, &site, error))?;
    Ok(Json(Results { results: vec![done(&site, Some(update), Did::Unkept)] }))
}

/// Approve of an update that has stopped for it
///
/// It stopped after its first rows (`canary`) or before them (`max_rows`), and goes on to its end.
#[utoipa::path(
    post,
    path = "/databases/{database}/updates/{update}/approve",
    tag = "updates",
    params(UpdatePath),
    responses((status = 200, description = "It goes on, or did not wait for approval.", body = Results), SteeringIfPossible)
)]
pub(super) async fn approve(
    _: Admin,
    AtUpdate(site, update): AtUpdate,
    extract::State(state): extract::State<State>,
) -> Result<Json<Results>, Problem> {
    let approved = state.operations(&site).approve(&update).await;
    let approved = approved.map_err(|error| refused(&state, &site, error))?;
    let result = if approved { Did::Approved } else { Did::NotAwaiting };
    Ok(Json(Results { results: vec![done(&site, Some(update), result)] }))
}

/// Run the update in hand now
///
/// Ends the wait that it is in, once: its controller is asked again now, or after a failure it is tried again now. The
/// order of the queue stays as it is. 409 where this host has nothing in hand there, or is paused.
#[utoipa::path(
    post,
    path = "/databases/{database}/run-now",
    tag = "updates",
    params(DatabasePath),
    responses((status = 200, description = "Its wait is over, or it does not wait.", body = Results), SteeringIfPossible)
)]
pub(super) async fn run_now(
    _: Admin,
    AtDatabase(site): AtDatabase,
    extract::State(state): extract::State<State>,
) -> Result<Json<Results>, Problem> {
    let (update, did) = state.operations(&site).run_now().map_err(|error| refused(&state, &site, error))?;
    Ok(Json(Results { results: vec![done(&site, Some(update), did)] }))
}

/// Why a thing was not done, as a problem.
pub(super) fn refused(state: &State, site: &Site, error: Refusal) -> Problem {
    let on_it = |error: &Refusal| format!("\"{}\": {error}", site.name);
    match error {
        Refusal::Database(error) => Problem::database(&site.name, &error),
        Refusal::NotQueued(update) => {
            Problem::new(Kind::UnknownUpdate, format!("update {update:?} is not queued on database \"{}\"", site.name))
                .hint(format!("GET {}/databases/{}/updates tells what is", super::ROOT, site.name))
        }
        Refusal::StillRuns(error) => Problem::new(Kind::StillRuns, error.to_string())
            .hint("it is asked to leave off, and is taken out once what it does can be interrupted"),
        Refusal::Undefined(update) => {
            Problem::new(Kind::CannotGoOn, format!("nothing defines update {update:?} of database \"{}\"", site.name))
                .hint(defined(state, site))
        }
        Refusal::Unaccepted(Unaccepted::CannotGoOn { source, .. }) => {
            Problem::new(Kind::CannotGoOn, source.to_string())
                .hint("put back what changed; or cancel the update and queue it again to begin anew")
        }
        Refusal::Unaccepted(error) => Problem::new(Kind::CannotGoOn, error.to_string()).hint("try again"),
        Refusal::WholeHostPaused => Problem::new(Kind::WholeHostPaused, error.to_string())
            .hint(format!("POST {}/resume resumes all of them", super::ROOT)),
        Refusal::StillQueued(ref update) => {
            Problem::new(Kind::CannotGoOn, error.to_string()).hint(format!("wait for it, or cancel {update} first"))
        }
        Refusal::NotKept(_) => Problem::new(Kind::CannotGoOn, error.to_string()).hint("the queue shows what is kept"),
        Refusal::Moved(_) => Problem::new(Kind::CannotGoOn, error.to_string()).hint("look at it, and try again"),
        Refusal::Paused => Problem::new(Kind::NothingInHand, on_it(&error)).hint("resume them first"),
        Refusal::NothingInHand => Problem::new(Kind::NothingInHand, on_it(&error)).hint("the queue tells why"),
        Refusal::NotTheRunner => {
            Problem::new(Kind::NothingInHand, on_it(&error)).hint("ask the host that does, which the queue names")
        }
        Refusal::Busy(_) => Problem::new(Kind::Database, on_it(&error)).hint("wait until it is done, or cancel it"),
        Refusal::Dependents(dependents) => {
            Problem::new(Kind::DependentsInTheWay, "others depend on it").errors(dependents)
        }
        Refusal::Name(_)
        | Refusal::DependencyName(_)
        | Refusal::Progress { .. }
        | Refusal::Refused { .. }
        | Refusal::Dependency { .. }
        | Refusal::AlreadyQueued(_) => Problem::new(Kind::Invalid, error.to_string()),
    }
}

/// A hint that names the updates that are defined.
fn defined(state: &State, site: &Site) -> String {
    let mut known: Vec<String> = state.handlers(site).into_keys().collect();
    known.sort();
    format!("of definitions, {}", there_is(&known))
}

/// One thing done on a database.
pub(super) fn done(site: &Site, update: Option<String>, result: Did) -> Done {
    Done { database: site.name.clone(), update, result, changes: None, goes_on: Vec::new() }
}
