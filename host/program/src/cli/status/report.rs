//! What `status` tells, as data: the shape of its JSON.

use std::time::SystemTime;

use serde::Serialize;
use tidegate::scheduler::database::{Activity, Holder, LaneWork, Measured, Pause, QueueRow, Work, unix_ms};
use tidegate::scheduler::report::{Doing, Snapshot, UpdatePace};
use tidegate::scheduler::update_state::{LaneState, Stand, Stands, UpdateState};
use tidegate_admin::api::view::{KeptRows, Shadow, SkippedRows};

/// The whole of it.
#[derive(Debug, Serialize)]
pub(super) struct StatusReport {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    pub version: u32,
    /// In the configuration's order.
    pub databases: Vec<DatabaseReport>,
}

impl StatusReport {
    pub(super) fn new(databases: Vec<DatabaseReport>) -> Self {
        Self { version: 1, databases }
    }
}

/// One database.
#[derive(Debug, Serialize)]
pub(super) struct DatabaseReport {
    pub name: String,
    /// "SQLite" or "PostgreSQL".
    pub system: String,
    /// Why nothing is known of it, where nothing is.
    pub error: Option<String>,
    /// The queue's table.
    pub queue_table: String,
    /// False where that table is missing, as it is until something is queued or a host ran; also where an error says
    /// that nothing is known.
    pub queue_table_exists: bool,
    /// The host that works on it.
    pub runner: Option<RunnerReport>,
    /// What keeps that host from writing at this moment, or, where there is none, a host from starting: at least as the
    /// user who looks.
    pub obstacle: Option<String>,
    /// What that host said last that it does.
    pub activity: Option<ActivityReport>,
    /// The same of its other lanes.
    pub lanes: Vec<LaneReport>,
    /// Where no host works on it: the last fault of the controller of the last host.
    pub last_fault: Option<FaultReport>,
    /// The pause that is stored, where one is.
    pub pause: Option<PauseReport>,
    /// The queue's rows, in their order.
    pub updates: Vec<UpdateReport>,
    /// The updates that have skipped rows, queued or not.
    pub skipped: Vec<SkippedRows>,
    /// What that host has measured there, and of its machine.
    pub signals: Vec<SignalReport>,
    /// The triggers that keep the rows of updates, queued or not.
    pub kept: Vec<KeptRows>,
}

/// A signal's reading.
#[derive(Debug, Serialize)]
pub(super) struct SignalReport {
    pub name: String,
    pub value: f64,
    /// The unit of the value; empty where it has none.
    pub unit: String,
    /// How old it is.
    pub age_ms: u64,
}

/// The host that works on a database.
#[derive(Debug, Serialize)]
pub(super) struct RunnerReport {
    /// The machine's name.
    pub host: String,
    /// The process's number there.
    pub pid: u32,
}

/// What a host does.
#[derive(Debug, Serialize)]
pub(super) struct ActivityReport {
    /// The update in hand.
    pub update: Option<String>,
    /// What it does with it.
    pub state: LaneState,
    /// Why, where it waits; with "running", why it rests between two batches.
    pub reason: Option<String>,
    /// The controller that sets the pace, and where it is a fallback, what it stands in for.
    pub controller: String,
    /// While its fallback is in force, when the controller is tried again.
    pub controller_retry: Option<RetryReport>,
    /// The controller's last fault, with its hint.
    pub fault: Option<String>,
    /// The estimate that batch sizes are made from.
    pub average_items_per_ms: Option<f64>,
    /// The controllers that are asked beside it and decide nothing.
    pub shadows: Vec<Shadow>,
    /// When the host wrote this, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// What a host does in a lane that is not the first.
#[derive(Debug, Serialize)]
pub(super) struct LaneReport {
    pub lane: String,
    #[serde(flatten)]
    pub activity: ActivityReport,
}

/// When a controller is tried again.
#[derive(Debug, Serialize)]
pub(super) struct RetryReport {
    /// For which update.
    pub update: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// What of that is left; 0 while it is tried.
    pub in_ms: u64,
}

/// What was last wrong with a controller.
#[derive(Debug, Serialize)]
pub(super) struct FaultReport {
    /// The controller, and where it was a fallback, what it stood in for.
    pub controller: String,
    /// The fault, with its hint.
    pub fault: String,
    /// When the host wrote this, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// A pause.
#[derive(Debug, Serialize)]
pub(super) struct PauseReport {
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    pub reason: Option<String>,
}

impl From<Holder> for RunnerReport {
    fn from(holder: Holder) -> Self {
        let Holder { host, pid } = holder;
        Self { host, pid }
    }
}

impl ActivityReport {
    fn of(work: Work, at_ms: i64) -> Self {
        Self {
            update: work.update_name,
            state: work.state,
            reason: work.reason,
            controller: work.controller,
            controller_retry: work.controller_retry.map(|next| RetryReport::new(next.update_name, next.at_ms)),
            fault: work.fault,
            average_items_per_ms: work.items_per_ms,
            shadows: work.shadows.into_iter().map(Shadow::from).collect(),
            at_ms,
        }
    }
}

impl RetryReport {
    pub(super) fn new(update: String, at_ms: i64) -> Self {
        let in_ms = u64::try_from(at_ms.saturating_sub(unix_ms(SystemTime::now()))).unwrap_or_default();
        Self { update, at_ms, in_ms }
    }
}

impl From<Pause> for PauseReport {
    fn from(pause: Pause) -> Self {
        let Pause { since_ms, reason } = pause;
        Self { since_ms, reason }
    }
}

impl DatabaseReport {
    /// A database that could not be looked at.
    pub(super) fn unavailable(database: &tidegate_config::Database, error: String) -> Self {
        Self { error: Some(error), ..Self::without_queue(database) }
    }

    /// A database that has no queue yet.
    pub(super) fn without_queue(database: &tidegate_config::Database) -> Self {
        Self {
            name: database.name.clone(),
            system: database.target.system().to_string(),
            error: None,
            queue_table: database.queue_table.clone(),
            queue_table_exists: false,
            runner: None,
            obstacle: None,
            activity: None,
            lanes: Vec::new(),
            last_fault: None,
            pause: None,
            updates: Vec::new(),
            skipped: Vec::new(),
            signals: Vec::new(),
            kept: Vec::new(),
        }
    }
}

/// One row of a queue.
#[derive(Debug, Serialize)]
pub(super) struct UpdateReport {
    pub name: String,
    pub state: UpdateState,
    /// What holds it, in words.
    pub reason: Option<String>,
    pub depends_on: Option<String>,
    pub ordering: i64,
    /// `progress_json`, as it stands there.
    pub progress: String,
    /// The part that is done, 0.0 to 1.0, estimated.
    pub done: Option<f64>,
    /// Items per second over the last iterations, waiting included, where it is running.
    pub items_per_s: Option<f64>,
    /// What is left at that pace.
    pub time_left_ms: Option<u64>,
    /// Failures in a row that count.
    pub attempts: u32,
    pub last_error: Option<String>,
    /// In milliseconds since the Unix epoch.
    pub last_error_at_ms: Option<i64>,
}

/// The report on a database.
pub(super) fn database(
    database: &tidegate_config::Database,
    snapshot: Snapshot,
    defined: &dyn Fn(&str) -> bool,
) -> DatabaseReport {
    let Snapshot { queue, runner, paces } = snapshot;
    // A host leaves its last words behind, which say nothing of what is done now.
    let last_fault = queue.activity.as_ref().filter(|_| runner.is_none()).and_then(last_fault);
    let activity = queue.activity.filter(|activity| runner.as_ref() == Some(&activity.holder));
    let signals = activity.as_ref().map(measured).unwrap_or_default();
    let doing = activity.as_ref().map(Doing::told).unwrap_or_default();
    let pause = queue.pause.as_ref().map(|pause| pause.reason.clone());
    let stands = Stands::new(&doing, pause.as_ref());
    let how = stands.of_all(&queue.rows, defined);
    let updates = queue.rows.into_iter().zip(how).map(|(row, stand)| {
        let pace = paces.get(&row.update_name).copied().unwrap_or_default();
        // Whatever the pace of an update was that others keep waiting, it is none now.
        let stuck = stands.doing(&row.update_name).is_some_and(|doing| doing.stuck);
        let pace = UpdatePace { items_per_ms: pace.items_per_ms.filter(|_| !stuck), ..pace };
        update(row, stand, pace)
    });
    let (activity, lanes) = match activity {
        Some(Activity { first, lanes, at_ms, .. }) => {
            let of = |LaneWork { lane, work }| LaneReport { lane, activity: ActivityReport::of(work, at_ms) };
            (Some(ActivityReport::of(first, at_ms)), lanes.into_iter().map(of).collect())
        }
        None => (None, Vec::new()),
    };
    DatabaseReport {
        queue_table_exists: true,
        updates: updates.collect(),
        skipped: SkippedRows::of(queue.skipped),
        runner: runner.map(RunnerReport::from),
        activity,
        lanes,
        last_fault,
        pause: queue.pause.map(PauseReport::from),
        kept: queue.kept.into_iter().map(KeptRows::from).collect(),
        signals,
        ..DatabaseReport::without_queue(database)
    }
}

/// What a host measured when it last wrote down what it does: older now by the time since then.
fn measured(activity: &Activity) -> Vec<SignalReport> {
    let since = unix_ms(SystemTime::now()).saturating_sub(activity.at_ms).try_into().unwrap_or(0);
    let signals = activity.signals.iter().cloned();
    signals
        .map(|Measured { name, value, unit, age_ms }| SignalReport {
            name,
            value,
            unit,
            age_ms: age_ms.saturating_add(since),
        })
        .collect()
}

fn last_fault(activity: &Activity) -> Option<FaultReport> {
    let (_, work) = activity.works().find(|(_, work)| work.fault.is_some())?;
    Some(FaultReport { controller: work.controller.clone(), fault: work.fault.clone()?, at_ms: activity.at_ms })
}

fn update(row: QueueRow, Stand { state, reason }: Stand, pace: UpdatePace) -> UpdateReport {
    // What stands still has no pace, however fast it once went.
    let pace = UpdatePace { items_per_ms: pace.items_per_ms.filter(|_| state == UpdateState::Running), ..pace };
    let (attempts, last_error, last_error_at_ms) = match row.failure {
        Some(failure) => (failure.attempts, Some(failure.error), Some(failure.at_ms)),
        None => (0, None, None),
    };
    UpdateReport {
        name: row.update_name,
        state,
        reason,
        depends_on: row.depends_on.filter(|name| !name.is_empty()),
        ordering: row.ordering,
        progress: row.progress,
        done: pace.estimate.map(|estimate| estimate.done),
        items_per_s: pace.items_per_ms.map(|rate| rate * 1_000.0),
        time_left_ms: pace.time_left().and_then(|left| left.as_millis().try_into().ok()),
        attempts,
        last_error,
        last_error_at_ms,
    }
}
