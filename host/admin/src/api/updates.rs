//! Queues: what is in them, and how they are changed. A change is written to the database, as the command line does it,
//! and the host looks at once.

use axum::http::StatusCode;
use axum::{Json, extract};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::caller::{Admin, Viewer};
use super::extract::{AtDatabase, AtUpdate, Body, DatabasePath, Query, UpdatePath, Wanted, name, there_is};
use super::problem::{
    Kind, LookingAt, Problem, Searching, Steering, SteeringIfPossible, SteeringWithBody, SteeringWithQuery,
};
use super::view::{self, Did, Done, Results};
use crate::steer::{self, NotAccepted};
use crate::{Site, State};
use tidegate::scheduler::acceptance::Unaccepted;
use tidegate::scheduler::board::{InHand, LeaseState, Phase};
use tidegate::scheduler::choice::{Unfit, check_dependency, dependents};
use tidegate::scheduler::database::NewRow;
use tidegate::scheduler::withdrawal::Withdrawal;
use tidegate::update::{Progress, SqlError};

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
    name("update", &new.name)?;
    new.depends_on.iter().try_for_each(|other| name("update that it depends on", other))?;
    if !new.force {
        check_definition(&state, &site, &new)?;
    }
    let prepared = site.database.prepare().await;
    prepared.map_err(|error| refused(&site, &error))?;
    if let Some(other) = &new.depends_on {
        check_dependency_on(&site, &new, other).await?;
    }
    let row = NewRow {
        update_name: new.name.clone(),
        progress: serde_json::Value::Object(new.progress).to_string(),
        depends_on: new.depends_on,
        ordering: new.ordering.into(),
    };
    let queued = site.database.enqueue(&row).await.map_err(|error| refused(&site, &error))?;
    state.control().wake();
    let (status, did) = match queued {
        true => (StatusCode::CREATED, Did::Queued),
        false => (StatusCode::OK, Did::AlreadyQueued),
    };
    Ok((status, one(&site, new.name, did)))
}

/// Refuses what would never run.
fn check_definition(state: &State, site: &Site, new: &NewUpdate) -> Result<(), Problem> {
    let live = state.live();
    let handler = live.handlers.get(&site.name).and_then(|handlers| handlers.get(&new.name));
    let Some(handler) = handler else {
        let detail = format!("\"name\": there is no definition of update {:?} on database \"{}\"", new.name, site.name);
        let hint = format!("{}; `\"force\": true` queues it all the same", defined(state, site));
        return Err(Problem::new(Kind::Invalid, detail).hint(hint));
    };
    let progress = serde_json::Value::Object(new.progress.clone()).to_string();
    let known = Progress::parse(&progress).and_then(|progress| handler.mode(&progress));
    known.map(|_| ()).map_err(|error| {
        Problem::new(Kind::Invalid, format!("\"progress\": {}", error.in_full()))
            .hint("leave \"progress\" out to begin at the beginning, or take it from an earlier run of the update")
    })
}

async fn check_dependency_on(site: &Site, new: &NewUpdate, other: &str) -> Result<(), Problem> {
    let queue = site.database.queue().await.map_err(|error| refused(site, &error))?;
    let refused = |why: String, hint: &'static str| Err(Problem::new(Kind::Invalid, why).hint(hint));
    match check_dependency(&queue.rows, &[&new.name], other, new.force) {
        Ok(()) => Ok(()),
        Err(Unfit::NotQueued) => refused(
            format!("\"depends_on\": {other:?} is not queued on database \"{}\"", site.name),
            "queue that one first; or send `\"force\": true`",
        ),
        Err(Unfit::Cycle(way)) => {
            let first = way.first().cloned().unwrap_or_default();
            refused(
                format!("\"depends_on\": each would wait for the next: {} -> {first}", way.join(" -> ")),
                "let it depend on something else, or on nothing",
            )
        }
    }
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
    let queue = site.database.look().await.map_err(|error| refused(&site, &error))?.unwrap_or_default();
    if !queue.rows.iter().any(|row| row.update_name == update) {
        return Err(not_queued(&site, &update));
    }
    let named = [update];
    let dependents = dependents(&queue.rows, &named);
    if !dependents.is_empty() && !with_dependents {
        let detail = format!("what depends on {:?} would run without it; nothing was cancelled", named[0]);
        return Err(Problem::new(Kind::DependentsInTheWay, detail)
            .hint("`?with_dependents=true` cancels them too")
            .errors(dependents));
    }
    let names = [&named[..], &dependents].concat();
    let cancelled = steer::cancel(&state, &site, &names).await.map_err(|error| match error {
        Withdrawal::Sql(error) => refused(&site, &error),
        error @ Withdrawal::Runs { .. } => Problem::new(Kind::StillRuns, error.to_string())
            .hint("it is asked to leave off, and is taken out once what it does can be interrupted"),
    })?;
    let done = cancelled.into_iter().map(|name| done(&site, Some(name), Did::Cancelled));
    Ok(Json(Results { results: done.collect() }))
}

/// Try an update again, as if it had never failed
///
/// Lifts its quarantine. Where it waits for its next attempt, the wait is over.
#[utoipa::path(
    post,
    path = "/databases/{database}/updates/{update}/retry",
    tag = "updates",
    params(UpdatePath),
    responses((status = 200, description = "It is tried again, or had not failed.", body = Results), Steering)
)]
pub(super) async fn retry(
    _: Admin,
    AtUpdate(site, update): AtUpdate,
    extract::State(state): extract::State<State>,
) -> Result<Json<Results>, Problem> {
    let queue = site.database.look().await.map_err(|error| refused(&site, &error))?.unwrap_or_default();
    if !queue.rows.iter().any(|row| row.update_name == update) {
        return Err(not_queued(&site, &update));
    }
    site.database.prepare().await.map_err(|error| refused(&site, &error))?;
    let forgotten = site.database.forget_failures(&update).await.map_err(|error| refused(&site, &error))?;
    let board = state.board().database(&site.name).unwrap_or_default();
    if board.put_off.contains_key(&update) {
        state.control().hurry(&site.name);
    } else {
        state.control().wake();
    }
    Ok(one(&site, update, if forgotten { Did::Retried } else { Did::NotFailed }))
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
    let changes = steer::accept_definition(&state, &site, &update).await.map_err(|error| match error {
        NotAccepted::NotQueued => not_queued(&site, &update),
        NotAccepted::Undefined => {
            Problem::new(Kind::CannotGoOn, format!("nothing defines update {update:?} of database \"{}\"", site.name))
                .hint(defined(&state, &site))
        }
        NotAccepted::Because(Unaccepted::Sql(error)) => refused(&site, &error),
        NotAccepted::Because(error @ Unaccepted::Moved(_)) => {
            Problem::new(Kind::CannotGoOn, error.to_string()).hint("try again")
        }
        NotAccepted::Because(Unaccepted::CannotGoOn { source, .. }) => {
            Problem::new(Kind::CannotGoOn, source.to_string())
                .hint("put back what changed; or cancel the update and queue it again to begin anew")
        }
    })?;
    let result = if changes.is_some() { Did::Accepted } else { Did::Unchanged };
    Ok(Json(Results { results: vec![Done { changes, ..done(&site, Some(update), result) }] }))
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
    let view = view::Database::of(&state, &site);
    let board = state.board().database(&site.name).unwrap_or_default();
    let nothing =
        |why: &str, hint: &str| Problem::new(Kind::NothingInHand, format!("\"{}\": {why}", site.name)).hint(hint);
    if view.paused {
        return Err(nothing("updates are paused", "resume them first"));
    }
    // Of a hurry that ended no wait, the next one would take advantage.
    let waits = |in_hand: &&InHand| {
        in_hand.rest.is_some() || matches!(in_hand.phase, Phase::Held { .. } | Phase::BackingOff { .. })
    };
    let waiting = board.in_hand().find(waits);
    let Some(in_hand) = waiting.or_else(|| board.in_hand().next()) else {
        if let Some(update) = board.put_off.into_keys().next() {
            state.control().hurry(&site.name);
            return Ok(one(&site, update, Did::RunNow));
        }
        return Err(match board.lease {
            LeaseState::Runner => nothing("nothing in the queue can run", "the queue tells why"),
            _ => nothing("this host does not work on it", "ask the host that does, which the queue names"),
        });
    };
    if waiting.is_some() {
        state.control().hurry(&site.name);
    } else {
        state.control().wake();
    }
    Ok(one(&site, in_hand.update_name.clone(), if waiting.is_some() { Did::RunNow } else { Did::Running }))
}

fn refused(site: &Site, error: &SqlError) -> Problem {
    Problem::database(&site.name, error)
}

fn not_queued(site: &Site, update: &str) -> Problem {
    Problem::new(Kind::UnknownUpdate, format!("update {update:?} is not queued on database \"{}\"", site.name))
        .hint(format!("GET {}/databases/{}/updates tells what is", super::ROOT, site.name))
}

/// A hint that names the updates that are defined.
fn defined(state: &State, site: &Site) -> String {
    let live = state.live();
    let mut known: Vec<String> =
        live.handlers.get(&site.name).map(|known| known.keys().cloned().collect()).unwrap_or_default();
    known.sort();
    format!("of definitions, {}", there_is(&known))
}

fn one(site: &Site, update: String, did: Did) -> Json<Results> {
    Json(Results { results: vec![done(site, Some(update), did)] })
}

/// One thing done on a database.
pub(super) fn done(site: &Site, update: Option<String>, result: Did) -> Done {
    Done { database: site.name.clone(), update, result, changes: None }
}
