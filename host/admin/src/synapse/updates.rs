//! What the requests do.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::answer::Refusal as Refused;
use crate::jobs::ParameterError;
use crate::state::{Site, State};
use tidegate::scheduler::board::{DatabaseBoard, LeaseState, Totals};
use tidegate::scheduler::ledger::Actor;
use tidegate::scheduler::operations::{NewUpdates, Refusal};

#[derive(Serialize)]
pub(super) struct Status {
    enabled: bool,
    /// By database name.
    current_updates: BTreeMap<String, CurrentUpdate>,
}

#[derive(Serialize)]
struct CurrentUpdate {
    name: String,
    total_item_count: u64,
    total_duration_ms: f64,
    average_items_per_ms: Option<f64>,
}

#[derive(Serialize)]
pub(super) struct Enabled {
    enabled: bool,
}

/// Nothing to say.
#[derive(Serialize)]
pub(super) struct Done {}

/// What runs now; no database is asked.
pub(super) fn status(state: &State) -> Status {
    let current_updates = state.board().read(|databases| {
        let in_hand = databases.iter().filter_map(|(name, board)| Some((name.clone(), current_update(board)?)));
        in_hand.collect()
    });
    Status { enabled: is_enabled(state), current_updates }
}

fn current_update(board: &DatabaseBoard) -> Option<CurrentUpdate> {
    // One a database, as in Synapse: that of the first lane.
    let name = board.first.in_hand.as_ref()?.update_name.clone();
    let Totals { items, duration, items_per_ms, .. } = board.totals.get(&name).copied().unwrap_or_default();
    Some(CurrentUpdate {
        name,
        total_item_count: items,
        total_duration_ms: duration.as_secs_f64() * 1e3,
        average_items_per_ms: items_per_ms,
    })
}

/// Whether nothing is paused.
pub(super) fn enabled(state: &State) -> Enabled {
    Enabled { enabled: is_enabled(state) }
}

/// A pause that is stored in a database counts where this host is that database's runner. Of the others it was last
/// told when it was, and of what it would find it learns when it takes over.
fn is_enabled(state: &State) -> bool {
    let holds = |board: &DatabaseBoard| board.lease == LeaseState::Runner && board.pause.is_some();
    let is_paused_here = |site: &Site| state.control().pause_of(&site.name).is_some();
    state.control().is_enabled()
        && !state.sites().iter().any(is_paused_here)
        && !state.board().read(|databases| databases.values().any(holds))
}

/// Pauses this host until it restarts, or lifts every pause, stored ones included.
pub(super) async fn set_enabled(state: &State, body: &Map<String, Value>, actor: &Actor) -> Result<Enabled, Refused> {
    let enabled = match body.get("enabled") {
        None => true,
        Some(Value::Bool(enabled)) => *enabled,
        Some(_) => return Err(Refused::invalid("'enabled' parameter must be a boolean")),
    };
    match enabled {
        false => state.pause_all_until_restart(actor).await,
        true => {
            for (site, resumed) in state.resume_all(actor).await {
                resumed.map_err(|error| failed(site, &error))?;
            }
        }
    }
    Ok(Enabled { enabled })
}

/// Queues the rows of a job.
pub(super) async fn start_job(state: &State, body: &Map<String, Value>, actor: &Actor) -> Result<Done, Refused> {
    let name = body.get("job_name").ok_or_else(|| Refused::missing(&["job_name"]))?;
    let live = state.live();
    let job = name.as_str().and_then(|name| live.jobs.get(name)).ok_or_else(|| Refused::invalid("Invalid job_name"))?;
    let rows = job.new_rows(body).map_err(|error| match error {
        ParameterError::Missing(names) => Refused::missing(&names),
        ParameterError::WrongType(parameter) => {
            let article = if parameter.kind.as_str() == "integer" { "an" } else { "a" };
            Refused::invalid(format!("'{}' must be {article} {}", parameter.name, parameter.kind.as_str()))
        }
    })?;
    let site = match &job.database {
        Some(name) => state.site(name),
        None => state.sites().first(),
    };
    let site = site.ok_or_else(|| Refused::invalid(format!("Job {} has no database.", job.name)))?;
    let known = site.known_as(actor.clone());
    let operations = state.operations(&known);
    let new = NewUpdates { rows, force: false };
    let queued = match operations.admit(&new, &state.handlers(site)).await {
        Ok(()) => operations.enqueue_together(&new.rows).await,
        Err(error) => Err(error),
    };
    queued.map(|()| Done {}).map_err(|error| match error {
        Refusal::Undefined(update) => Refused::invalid(format!(
            "Job {} queues update {update}, which is not defined for database {}.",
            job.name, site.name
        )),
        Refusal::Refused { reason, .. } => {
            Refused::invalid(format!("Job {} is not done by tidegate: {reason}", job.name))
        }
        Refusal::AlreadyQueued(_) => {
            Refused::invalid(format!("Job {} is already in queue of background updates.", job.name))
        }
        error @ Refusal::Database(_) => failed(site, &error),
        error => Refused::invalid(format!("Job {} cannot be queued: {error}.", job.name)),
    })
}

fn failed(site: &Site, error: &Refusal) -> Refused {
    tracing::warn!(database = %site.name, %error, "a request to the API failed");
    Refused::failed(format!("Database {} did not do it: {error}", site.name))
}
