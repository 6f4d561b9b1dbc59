//! An event of the scheduler as JSON. Its shape, by kind, is a promise; new kinds may come at any time.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::controller::word;
use super::{ControllerFault, Iteration, Process, Used, ms};
use tidegate::controller::ShadowNotice;
use tidegate::scheduler::database::unix_ms;
use tidegate::scheduler::event::{Event, EventKind};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "1700000000000-17",
    "at_ms": 1_700_000_004_000_i64,
    "database": "master",
    "kind": "held",
    "update": "messages_search_body",
    "duration_ms": 500,
    "reason": "replicas are 1200 ms behind",
    "controller": "office-hours",
    "rest": true
}))]
pub struct HostEvent {
    /// The host's start, a hyphen, and a number: 1 for the first event of the host, then without a gap, over all
    /// databases.
    pub id: String,
    /// When.
    pub at_ms: i64,
    /// The database that it happened to.
    pub database: String,
    /// The lane that it happened in; left out for the first, and for what is about the database as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// What.
    #[serde(flatten)]
    pub data: EventData,
}

/// What happened, told apart by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EventData {
    /// This host works on the database from now on.
    LeaseAcquired {},
    /// Another host works on the database; this one stands by.
    StandingBy {
        /// Which, where that is known.
        runner: Option<Process>,
    },
    /// This host does not work on the database any more; what ran was rolled back.
    LeaseLost {
        /// Why.
        reason: String,
    },
    /// The database does not answer.
    Unavailable {
        /// What it, or the network, said.
        error: String,
        /// When it will be tried again.
        retry_in_ms: u64,
    },
    /// The database answers again.
    Available {},
    /// The lane is no more: the configuration that was loaded has none of its name.
    LaneClosed {},
    /// An update was chosen.
    UpdateStarted {
        /// The update.
        update: String,
        /// True where it happens in one go.
        one_shot: bool,
    },
    /// The controller answered that the update waits.
    Held {
        /// The update.
        update: String,
        /// For how long.
        duration_ms: u64,
        /// Why.
        reason: String,
        /// The controller, or what stands in for it.
        controller: String,
        /// True where this is no more than the rest between two batches: the built-in policy's sleep, or a wait of less
        /// than two seconds in all.
        rest: bool,
    },
    /// A batch begins.
    BatchStarted {
        /// The update.
        update: String,
        /// Items asked for.
        items_asked: u64,
        /// How long it is to take; `null` for a one-shot.
        target_ms: Option<u64>,
        /// True where the update happens in one go.
        one_shot: bool,
    },
    /// An iteration is over, whatever came of it.
    IterationEnded {
        /// The update.
        update: String,
        /// All about it.
        iteration: Iteration,
        /// The estimate that batch sizes are made from, where a batch was committed.
        average_items_per_ms: Option<f64>,
    },
    /// How far the update in hand has come, estimated every few seconds.
    Progress {
        /// The update.
        update: String,
        /// The part that is done, 0.0 to 1.0.
        done: f64,
        /// What is left at the pace until now, waiting included.
        time_left_ms: Option<u64>,
    },
    /// A batch that takes long waits for others, or does so no longer.
    InTheWay {
        /// The update.
        update: String,
        /// Who: process, application, user, since when. Empty where nobody is any more.
        who: Vec<String>,
    },
    /// A batch failed in a way that trying again may mend.
    TransientFailure {
        /// The update.
        update: String,
        /// The error.
        error: String,
        /// When it is tried again.
        retry_in_ms: u64,
    },
    /// A batch failed in a way that counts.
    Failure {
        /// The update.
        update: String,
        /// The error.
        error: String,
        /// Failures in a row so far.
        attempts: u32,
        /// When it is tried again; `null` where it is quarantined now.
        retry_in_ms: Option<u64>,
    },
    /// An update is done and its row gone.
    UpdateFinished {
        /// The update.
        update: String,
    },
    /// A committed batch left something that an operator should know.
    Noted {
        /// The update.
        update: String,
        /// What, in a sentence.
        note: String,
    },
    /// An update has stopped for somebody to approve of it.
    AwaitsApproval {
        /// The update.
        update: String,
        /// Why it stopped, in words.
        reason: String,
    },
    /// How many work on an update at once from now on.
    Workers {
        /// The update.
        update: String,
        /// How many.
        workers: u64,
    },
    /// An update's row was withdrawn or changed by somebody else.
    UpdateMoved {
        /// The update.
        update: String,
        /// True where the row is gone.
        gone: bool,
    },
    /// A controller sets the pace from now on.
    ControllerLoaded {
        /// The controller, or what stands in for it.
        controller: String,
        /// False when the host starts.
        reloaded: bool,
    },
    /// What a controller's calls used since this was last told.
    ControllerUsed {
        /// The controller.
        controller: String,
        /// What.
        used: Used,
    },
    /// The controller is at fault.
    ControllerFault {
        /// The controller.
        controller: String,
        /// What.
        fault: ControllerFault,
        /// Faults in a row so far.
        in_a_row: u32,
    },
    /// The fallback took over from the controller.
    Fallback {
        /// The controller.
        controller: String,
        /// "default" or "hold".
        fallback: String,
        /// Why.
        reason: String,
        /// For which update the controller is tried again; `null` where it takes a reload.
        retry_update: Option<String>,
        /// After how long it is.
        retry_in_ms: Option<u64>,
    },
    /// The controller is tried again while its fallback is in force.
    ControllerTried {
        /// The controller.
        controller: String,
        /// The update that it is tried for.
        update: String,
    },
    /// The controller failed again where it was tried: its fallback stays in force.
    ControllerPutOff {
        /// The controller.
        controller: String,
        /// The update that it was tried for.
        update: String,
        /// Why.
        reason: String,
        /// After how long it is tried again for this update.
        retry_in_ms: u64,
    },
    /// The controller came back: its fallback is over.
    ControllerBack {
        /// The controller.
        controller: String,
    },
    /// A shadow was asked what the live controller was asked, and answered.
    ShadowDecided {
        /// The shadow.
        controller: String,
        /// The update.
        update: String,
        /// What both were asked: the callback.
        callback: String,
        /// What the live controller answered, in words.
        live: String,
        /// What the shadow answered, in words.
        shadow: String,
        /// True where these are not the same.
        differs: bool,
    },
    /// A shadow is at fault.
    ShadowFault {
        /// The shadow.
        controller: String,
        /// What.
        fault: ControllerFault,
        /// Faults in a row so far.
        in_a_row: u32,
    },
    /// A shadow is not asked for now.
    ShadowGivenUp {
        /// The shadow.
        controller: String,
        /// Why.
        reason: String,
        /// After how long it is asked again about this update; `null` where it takes a reload.
        retry_in_ms: Option<u64>,
    },
    /// A shadow is asked as before, for it answered without a fault.
    ShadowBack {
        /// The shadow.
        controller: String,
    },
    /// A shadow was behind, and not asked what the live controller was.
    ShadowBehind {
        /// The shadow.
        controller: String,
        /// Calls that it was not asked.
        calls: u64,
    },
    /// What a shadow's calls used since this was last told.
    ShadowUsed {
        /// The shadow.
        controller: String,
        /// What.
        used: Used,
    },
    /// Rows that cannot run: told each time that the set changes.
    Blocked {
        /// Each row.
        rows: Vec<BlockedRow>,
    },
    /// Updates are paused.
    Paused {
        /// Why, where whoever paused them said so.
        reason: Option<String>,
    },
    /// Updates run again.
    Resumed {},
    /// Nothing is left that can run.
    Idle {
        /// Rows that remain in the queue.
        remaining: u64,
    },
    /// The host stops work on this database.
    Stopped {},
}

/// A row that cannot run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlockedRow {
    /// The update.
    #[schema(example = "of_another_program")]
    pub update: String,
    /// Why it cannot.
    #[schema(example = "no definition")]
    pub reason: String,
}

impl BlockedRow {
    /// A row and the reason.
    pub(super) fn of((update, reason): &(String, String)) -> Self {
        Self { update: update.clone(), reason: reason.clone() }
    }
}

impl HostEvent {
    /// An event of a host that started at `started_at_ms`.
    pub fn of(event: &Event, started_at_ms: i64) -> Self {
        Self {
            id: format!("{started_at_ms}-{}", event.number),
            at_ms: unix_ms(event.at),
            database: event.database.clone(),
            lane: event.lane.as_deref().map(str::to_owned),
            data: data(event),
        }
    }
}

fn data(event: &Event) -> EventData {
    match event.kind.clone() {
        EventKind::LeaseAcquired => EventData::LeaseAcquired {},
        EventKind::StandingBy { holder } => EventData::StandingBy { runner: holder.map(Process::from) },
        EventKind::LeaseLost { reason } => EventData::LeaseLost { reason },
        EventKind::Unavailable { error, retry_in } => EventData::Unavailable { error, retry_in_ms: ms(retry_in) },
        EventKind::Available => EventData::Available {},
        EventKind::LaneClosed => EventData::LaneClosed {},
        EventKind::UpdateStarted { update_name: update, one_shot } => EventData::UpdateStarted { update, one_shot },
        EventKind::Held { update_name: update, controller, duration, reason, rest } => {
            EventData::Held { update, duration_ms: ms(duration), reason, controller, rest }
        }
        EventKind::BatchStarted { update_name: update, batch_size, target, one_shot } => {
            EventData::BatchStarted { update, items_asked: batch_size, target_ms: target.map(ms), one_shot }
        }
        EventKind::IterationEnded { record, items_per_ms } => EventData::IterationEnded {
            update: record.update_name.clone(),
            iteration: Iteration::from(Arc::unwrap_or_clone(record)),
            average_items_per_ms: items_per_ms,
        },
        EventKind::Progress { update_name: update, done, eta } => {
            EventData::Progress { update, done, time_left_ms: eta.map(ms) }
        }
        EventKind::InTheWay { update_name: update, who } => EventData::InTheWay { update, who },
        EventKind::TransientFailure { update_name: update, error, detail: _, retry_in } => {
            EventData::TransientFailure { update, error, retry_in_ms: ms(retry_in) }
        }
        EventKind::Failure { update_name: update, error, detail: _, attempts, retry_in } => {
            EventData::Failure { update, error, attempts, retry_in_ms: retry_in.map(ms) }
        }
        EventKind::UpdateFinished { update_name: update } => EventData::UpdateFinished { update },
        EventKind::Noted { update_name: update, note } => EventData::Noted { update, note },
        EventKind::AwaitsApproval { update_name: update, reason } => EventData::AwaitsApproval { update, reason },
        EventKind::Workers { update_name: update, workers } => EventData::Workers { update, workers: workers as u64 },
        EventKind::UpdateMoved { update_name: update, gone } => EventData::UpdateMoved { update, gone },
        EventKind::ControllerLoaded { controller, reloaded } => EventData::ControllerLoaded { controller, reloaded },
        EventKind::ControllerUsed { controller, usage } => {
            EventData::ControllerUsed { controller, used: Used::from(usage) }
        }
        EventKind::ControllerFault { controller, fault, in_a_row } => {
            EventData::ControllerFault { controller, fault: ControllerFault::of(event.at, &fault), in_a_row }
        }
        EventKind::Fallback { controller, fallback, reason, retry } => {
            let (retry_update, retry_in) = retry.unzip();
            EventData::Fallback { controller, fallback, reason, retry_update, retry_in_ms: retry_in.map(ms) }
        }
        EventKind::ControllerTried { controller, update_name: update } => {
            EventData::ControllerTried { controller, update }
        }
        EventKind::ControllerPutOff { controller, update_name: update, reason, retry_in } => {
            EventData::ControllerPutOff { controller, update, reason, retry_in_ms: ms(retry_in) }
        }
        EventKind::ControllerBack { controller } => EventData::ControllerBack { controller },
        EventKind::Shadow { controller, notice } => shadow(event, controller, notice),
        EventKind::Blocked { rows } => EventData::Blocked { rows: rows.iter().map(BlockedRow::of).collect() },
        EventKind::Paused { reason } => EventData::Paused { reason },
        EventKind::Resumed => EventData::Resumed {},
        EventKind::Idle { remaining, .. } => EventData::Idle { remaining: remaining as u64 },
        EventKind::Stopped => EventData::Stopped {},
    }
}

fn shadow(event: &Event, controller: String, notice: ShadowNotice) -> EventData {
    match notice {
        ShadowNotice::Decided { update_name: update, callback, live, shadow, differs } => {
            EventData::ShadowDecided { controller, update, callback: word(&callback), live, shadow, differs }
        }
        ShadowNotice::Fault { fault, in_a_row } => {
            EventData::ShadowFault { controller, fault: ControllerFault::of(event.at, &fault), in_a_row }
        }
        ShadowNotice::GivenUp { reason, retry_in } => {
            EventData::ShadowGivenUp { controller, reason, retry_in_ms: retry_in.map(ms) }
        }
        ShadowNotice::Back => EventData::ShadowBack { controller },
        ShadowNotice::Behind { calls } => EventData::ShadowBehind { controller, calls },
        ShadowNotice::Used(usage) => EventData::ShadowUsed { controller, used: Used::from(usage) },
    }
}
