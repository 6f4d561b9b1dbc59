//! A database as this host sees it, from what it keeps in memory: no database is asked.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Process, exact_ms, ms, state};
use crate::{Site, State};
use tidegate::scheduler::board::{self, ControllerBoard, DatabaseBoard, InHand, LaneBoard, LeaseState, Phase};
use tidegate::scheduler::database::{Holder, unix_ms};
use tidegate::scheduler::report::Doing;
use tidegate::scheduler::update_state::{Stand, UpdateState};

/// All databases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Databases {
    /// In the configuration's order.
    pub databases: Vec<Database>,
}

/// A database, as the host that answers sees it at this moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Database {
    /// Its name in the configuration.
    #[schema(example = "master")]
    pub name: String,
    /// "SQLite" or "PostgreSQL".
    #[schema(example = "PostgreSQL")]
    pub system: String,
    /// The table of its queue.
    #[schema(example = "background_updates")]
    pub queue_table: String,
    /// Whether this host works on it.
    pub lease: Lease,
    /// The host that works on it, where that is known.
    pub runner: Option<Process>,
    /// Why it did not answer when it was last asked, where it did not.
    pub unavailable: Option<String>,
    /// True where no batch begins until somebody resumes it.
    pub paused: bool,
    /// Why, where whoever paused it said so.
    pub pause_reason: Option<String>,
    /// True where this host is paused there and forgets so when it restarts; another pause may be stored besides.
    pub paused_until_restart: bool,
    /// The update that this host has in hand, in the first lane.
    pub in_hand: Option<UpdateInHand>,
    /// The other lanes, each with what is done in it.
    pub lanes: Vec<Lane>,
    /// Rows that cannot run, and why.
    pub blocked: Vec<super::BlockedRow>,
    /// Who sets its pace, in the first lane.
    pub controller: DatabaseController,
    /// The controllers that are asked beside it and decide nothing.
    pub shadows: Vec<super::Shadow>,
    /// What this host did there since it started, by update.
    pub totals: Vec<Totals>,
    /// When this host last committed a batch there.
    pub last_progress_at_ms: Option<i64>,
}

/// A lane that is not the first, and what is done in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Lane {
    /// The lane.
    #[schema(example = "indexes")]
    pub lane: String,
    /// The update that this host has in hand there.
    pub in_hand: Option<UpdateInHand>,
    /// Who sets the pace there.
    pub controller: DatabaseController,
    /// The controllers that are asked beside it and decide nothing.
    pub shadows: Vec<super::Shadow>,
}

/// Whether a host works on a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Lease {
    /// It does.
    Runner,
    /// Another does, and this one stands by.
    Standby,
    /// It has not asked yet, or has given up.
    None,
}

/// An update that a host has in hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UpdateInHand {
    /// The update.
    #[schema(example = "messages_search_body")]
    pub update: String,
    /// True where it happens in one go.
    pub one_shot: bool,
    /// Since when.
    #[schema(example = 1_700_000_000_000_i64)]
    pub since_ms: i64,
    /// What happens with it.
    #[schema(schema_with = state)]
    pub state: UpdateState,
    /// Why, where it waits.
    #[schema(example = "replicas are 1200 ms behind")]
    pub reason: Option<String>,
    /// When that began.
    pub state_since_ms: i64,
    /// How long it waits from then on, where it does.
    pub wait_ms: Option<u64>,
    /// Items asked for, while a batch runs.
    pub items_asked: Option<u64>,
    /// How long the batch that runs is to take; `null` for a one-shot.
    pub target_ms: Option<u64>,
    /// The part that is done, 0.0 to 1.0, estimated.
    #[schema(minimum = 0, maximum = 1, example = 0.42)]
    pub done: Option<f64>,
    /// What was left when that was estimated, at the pace until then, waiting included.
    pub time_left_ms: Option<u64>,
    /// The estimate that batch sizes are made from.
    pub average_items_per_ms: Option<f64>,
}

/// Who sets a database's pace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatabaseController {
    /// The controller, or what stands in for one; `null` until this host works there.
    #[schema(example = "steady")]
    pub name: Option<String>,
    /// "default" or "hold", where a fallback took over from it.
    pub fallback: Option<String>,
    /// Why it did.
    pub fallback_reason: Option<String>,
    /// For which update the controller is tried again; `null` where there is no fallback, where it takes a reload, or
    /// where no update waits for it.
    pub retry_update: Option<String>,
    /// When it is, in the past while it is.
    pub retry_at_ms: Option<i64>,
    /// The last fault, with its hint.
    pub last_fault: Option<String>,
    /// When that was.
    pub last_fault_at_ms: Option<i64>,
}

/// What was done for one update since a host started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// The update.
    #[schema(example = "messages_search_body")]
    pub update: String,
    /// Items of committed batches.
    #[schema(example = 125_000)]
    pub items: u64,
    /// Committed batches.
    #[schema(example = 98)]
    pub iterations: u64,
    /// Iterations that failed or were cancelled.
    #[schema(example = 0)]
    pub failures: u64,
    /// How long the committed batches took, waiting not included.
    #[schema(example = 10_204.5)]
    pub duration_ms: f64,
    /// Items per millisecond: the estimate that batch sizes are made from; `null` until an item was counted.
    #[schema(example = 12.3)]
    pub average_items_per_ms: Option<f64>,
}

impl Databases {
    /// All databases of a host.
    pub fn of(state: &State) -> Self {
        Self { databases: state.sites().iter().map(|site| Database::of(state, site)).collect() }
    }
}

impl Database {
    /// A database of a host.
    pub fn of(state: &State, site: &Site) -> Self {
        let board = state.board().database(&site.name).unwrap_or_default();
        let here = state.control().pause_of(&site.name);
        let disabled = !state.control().is_enabled();
        let pause = state.pause_of(&site.name, &board);
        let (lease, runner) = match &board.lease {
            LeaseState::Runner => (Lease::Runner, Some(Holder::this_process())),
            LeaseState::StandingBy(holder) => (Lease::Standby, holder.clone()),
            LeaseState::None => (Lease::None, None),
        };
        Self {
            name: site.name.clone(),
            system: site.system.clone(),
            queue_table: site.queue_table.clone(),
            lease,
            runner: runner.map(Process::from),
            unavailable: board.unavailable.clone(),
            paused: pause.is_some(),
            pause_reason: pause.clone().flatten(),
            paused_until_restart: here.is_some() || disabled,
            in_hand: board.first.in_hand.as_ref().map(|in_hand| UpdateInHand::of(in_hand, &board, pause.as_ref())),
            lanes: board.lanes.iter().map(|(name, lane)| Lane::of(name, lane, &board, pause.as_ref())).collect(),
            blocked: board.blocked.iter().map(super::BlockedRow::of).collect(),
            controller: DatabaseController::of(&board.first.controller),
            shadows: shadows(&board.first.controller),
            totals: board.totals.iter().map(|(name, totals)| Totals::of(name, totals)).collect(),
            last_progress_at_ms: board.last_progress.map(unix_ms),
        }
    }
}

impl UpdateInHand {
    fn of(in_hand: &InHand, board: &DatabaseBoard, pause: Option<&Option<String>>) -> Self {
        let doing = Doing::seen_in_hand(in_hand);
        let Stand { state, reason } = Stand::begun(&doing, pause);
        let update_name = doing.update_name;
        let (wait, batch, target) = match &in_hand.phase {
            Phase::Between => (in_hand.rest.as_ref().map(|(duration, _)| *duration), None, None),
            Phase::Running { batch_size, target } => (None, Some(*batch_size), *target),
            Phase::Held { duration, .. } | Phase::BackingOff { duration, .. } => (Some(*duration), None, None),
        };
        Self {
            average_items_per_ms: board.totals.get(&update_name).and_then(|totals| totals.items_per_ms),
            update: update_name,
            one_shot: in_hand.one_shot,
            since_ms: unix_ms(in_hand.since),
            state,
            reason,
            state_since_ms: unix_ms(in_hand.phase_since),
            wait_ms: wait.map(ms),
            items_asked: batch,
            target_ms: target.map(ms),
            done: in_hand.done,
            time_left_ms: in_hand.eta.map(ms),
        }
    }
}

impl Lane {
    fn of(name: &str, lane: &LaneBoard, board: &DatabaseBoard, pause: Option<&Option<String>>) -> Self {
        Self {
            lane: name.to_owned(),
            in_hand: lane.in_hand.as_ref().map(|in_hand| UpdateInHand::of(in_hand, board, pause)),
            controller: DatabaseController::of(&lane.controller),
            shadows: shadows(&lane.controller),
        }
    }
}

fn shadows(controller: &ControllerBoard) -> Vec<super::Shadow> {
    controller.shadows.values().map(|shadow| shadow.report.clone().into()).collect()
}

impl DatabaseController {
    fn of(controller: &ControllerBoard) -> Self {
        let in_force = controller.fallback.as_ref();
        let retry = in_force.and_then(|in_force| in_force.retry.as_ref());
        let last = controller.faults.back();
        Self {
            name: controller.name.clone(),
            fallback: in_force.map(|in_force| in_force.fallback.clone()),
            fallback_reason: in_force.map(|in_force| in_force.reason.clone()),
            retry_update: retry.map(|retry| retry.update_name.clone()),
            retry_at_ms: retry.map(|retry| unix_ms(retry.at)),
            last_fault: last.map(|(_, fault)| format!("{fault} (hint: {})", fault.kind.hint())),
            last_fault_at_ms: last.map(|(at, _)| unix_ms(*at)),
        }
    }
}

impl Totals {
    /// The totals of an update.
    pub(super) fn of(update: &str, totals: &board::Totals) -> Self {
        Self {
            update: update.to_owned(),
            items: totals.items,
            iterations: totals.iterations,
            failures: totals.failures,
            duration_ms: exact_ms(totals.duration),
            average_items_per_ms: totals.items_per_ms,
        }
    }
}
