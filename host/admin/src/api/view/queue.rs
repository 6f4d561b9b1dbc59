//! A queue and its updates. The database is asked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Process, Totals, outcome, state};
use crate::api::problem::Problem;
use crate::{Site, State};
use tidegate::scheduler::board::{Ended, LeaseState};
use tidegate::scheduler::database::{IterationOutcome, Pause, QueueRow, Record, Skipped, unix_ms};
use tidegate::scheduler::report::{Doing, Snapshot, UpdatePace, look};
use tidegate::scheduler::update_state::{Stand, Stands, UpdateState};
use tidegate::update::SqlError;
use tidegate::update::keep::Keep;

/// The queue of a database at this moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Queue {
    /// The database.
    #[schema(example = "master")]
    pub database: String,
    /// False where the queue's table is missing, as it is until something is queued or a host ran.
    pub queue_table_exists: bool,
    /// The host that works on it.
    pub runner: Option<Process>,
    /// What keeps that host from writing at this moment, or, where there is none, a host from starting: at least as the
    /// user who looks.
    pub obstacle: Option<String>,
    /// The pause that is stored in the database, where one is.
    pub pause: Option<StoredPause>,
    /// The queue's rows, in their order.
    pub updates: Vec<QueuedUpdate>,
    /// The updates that have skipped rows, queued or not, by name.
    pub skipped: Vec<SkippedRows>,
    /// The last updates that ended under the host that answers since it started, the newest first; at most 50.
    pub ended: Vec<EndedUpdate>,
    /// The triggers that keep the rows of updates, queued or not, as these make them.
    #[serde(default)]
    pub kept: Vec<KeptRows>,
}

/// The triggers of a table that keep an update's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptRows {
    /// The update.
    #[schema(example = "messages_search_body")]
    pub update: String,
    /// The table.
    #[schema(example = "messages")]
    pub table: String,
    /// The triggers' names.
    pub triggers: Vec<String>,
    /// When they were made.
    #[schema(example = 1_700_000_000_000_i64)]
    pub made_at_ms: i64,
    /// False where somebody has disabled one: rows that are written are not kept.
    pub enabled: bool,
}

/// A pause that is stored, and outlasts restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoredPause {
    /// Since when.
    #[schema(example = 1_700_000_000_000_i64)]
    pub since_ms: i64,
    /// Why, where whoever paused it said so.
    #[schema(example = "maintenance")]
    pub reason: Option<String>,
}

/// How many rows an update has skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkippedRows {
    /// The update.
    #[schema(example = "messages_search_body")]
    pub name: String,
    /// Keys whose rows the database refused, and that were not tried again with success since.
    #[schema(example = 3)]
    pub rows: u64,
}

/// A key that an update has skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkippedKey {
    /// The text of each of its columns.
    #[schema(example = json!(["4711"]))]
    pub key: Vec<String>,
    /// The database's own code: an SQLSTATE, or SQLite's name of the result.
    #[schema(example = "23514")]
    pub code: Option<String>,
    /// What the database said, without values of rows.
    #[schema(example = "new row for relation \"items\" violates check constraint \"items_check\"")]
    pub message: String,
    /// When.
    #[schema(example = 1_700_000_000_000_i64)]
    pub at_ms: i64,
}

impl From<Skipped> for SkippedKey {
    fn from(skipped: Skipped) -> Self {
        let key = serde_json::from_str(&skipped.key).unwrap_or_else(|_| vec![skipped.key]);
        Self { key, code: skipped.code, message: skipped.message, at_ms: skipped.at_ms }
    }
}

impl SkippedRows {
    /// What a queue says of them.
    pub fn of(skipped: BTreeMap<String, u64>) -> Vec<Self> {
        skipped.into_iter().map(|(name, rows)| Self { name, rows }).collect()
    }
}

/// A row of a queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueuedUpdate {
    /// The update.
    #[schema(example = "messages_search_body")]
    pub name: String,
    /// How it stands.
    #[schema(schema_with = state)]
    pub state: UpdateState,
    /// What holds it, in words.
    #[schema(example = "replicas are 1200 ms behind")]
    pub reason: Option<String>,
    /// The update that it waits for.
    pub depends_on: Option<String>,
    /// Its place: lower ones run first.
    #[schema(example = 0)]
    pub ordering: i64,
    /// `progress_json` as it stands there, a text.
    #[schema(example = "{\"last\":[\"125000\"]}")]
    pub progress: String,
    /// The part that is done, 0.0 to 1.0, estimated.
    #[schema(minimum = 0, maximum = 1, example = 0.42)]
    pub done: Option<f64>,
    /// Items per second over the last iterations, waiting included, while it is running.
    #[schema(example = 12_300.0)]
    pub items_per_s: Option<f64>,
    /// What is left, at that pace.
    #[schema(example = 47_000)]
    pub time_left_ms: Option<u64>,
    /// Failures in a row that count.
    #[schema(example = 0)]
    pub attempts: u32,
    /// The last error since the last success.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at_ms: Option<i64>,
}

/// An update that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndedUpdate {
    /// The update.
    #[schema(example = "messages_search_body_index")]
    pub name: String,
    /// When.
    #[schema(example = 1_700_000_000_000_i64)]
    pub ended_at_ms: i64,
    /// True where it is done; false where somebody took it out of the queue while it was in hand.
    pub finished: bool,
}

/// An update by its name, whether it is queued or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Defined {
    /// The database.
    #[schema(example = "master")]
    pub database: String,
    /// The update.
    #[schema(example = "messages_search_body")]
    pub name: String,
    /// True where the configuration defines it.
    pub defined: bool,
    /// Its row in the queue, where it is queued.
    pub queued: Option<QueuedUpdate>,
    /// What the host that answers did for it since it started.
    pub totals: Option<Totals>,
    /// Its last iterations of the last seven days, the newest first. They are written down once a second.
    pub iterations: Vec<Iteration>,
    /// Keys that it has skipped, as many at most as iterations are asked for, in the order of their JSON.
    pub skipped: Vec<SkippedKey>,
}

/// One iteration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Iteration {
    /// When its batch began.
    #[schema(example = 1_700_000_000_000_i64)]
    pub started_at_ms: i64,
    /// True where the update happened in one go.
    pub one_shot: bool,
    /// The controller that answered, and where it was a fallback, what it stood in for.
    #[schema(example = "steady")]
    pub controller: String,
    /// What it answered in the end: to run a batch of this duration; `null` for a one-shot.
    #[schema(example = 100)]
    pub target_ms: Option<u64>,
    /// Items asked for.
    #[schema(example = 1_230)]
    pub items_asked: u64,
    /// Items done; 0 where the batch was rolled back.
    #[schema(example = 1_230)]
    pub items_done: u64,
    /// How long the batch took, its commit included, waiting not.
    #[schema(example = 104.2)]
    pub took_ms: f64,
    /// How long the controller made it wait before.
    #[schema(example = 500.0)]
    pub held_ms: f64,
    /// Why, in the controller's last words.
    #[schema(example = "replicas are 1200 ms behind")]
    pub held_reason: Option<String>,
    /// What came of it; "finished" is the last of its update.
    #[schema(schema_with = outcome)]
    pub outcome: IterationOutcome,
    /// The error, where it failed.
    pub error: Option<String>,
    /// What an operator should know of the batch, a sentence each.
    pub notes: Vec<String>,
    /// Fuel that the controller used, where it is measured.
    #[schema(example = 1_043)]
    pub fuel: Option<u64>,
}

impl Queue {
    /// The queue of a database.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn of(state: &State, site: &Site) -> Result<Self, Problem> {
        Self::read(state, site).await.map_err(|error| Problem::database(&site.name, &error))
    }

    async fn read(state: &State, site: &Site) -> Result<Self, SqlError> {
        let handlers = state.live().handlers.get(&site.name).cloned().unwrap_or_default();
        let board = state.board().database(&site.name).unwrap_or_default();
        let ended = board.ended.iter().rev().map(EndedUpdate::from).collect();
        let snapshot = look(&*site.database, &handlers).await?;
        let obstacle = site.database.obstacle().await?;
        let Some(snapshot) = snapshot else {
            return Ok(Self { database: site.name.clone(), obstacle, ended, ..Self::default() });
        };
        let Snapshot { queue, runner, paces } = snapshot;
        let here = board.lease == LeaseState::Runner;
        let doing = match (here, &queue.activity) {
            (true, _) => Doing::seen(&board),
            // A host that was killed leaves its last words behind.
            (false, Some(activity)) if runner.as_ref() == Some(&activity.holder) => Doing::told(activity),
            (false, _) => Vec::new(),
        };
        let in_force = state.pause_in_force(&site.name, &board, queue.pause.as_ref());
        let stands = Stands::new(&doing, in_force.as_ref());
        let how = stands.of_all(&queue.rows, &|name| handlers.contains_key(name));
        let updates = queue.rows.into_iter().zip(how).map(|(row, stand)| {
            let pace = paces.get(&row.update_name).copied().unwrap_or_default();
            // Nor has anything while the database cannot be written to.
            let stuck = stands.doing(&row.update_name).is_some_and(|doing| doing.stuck);
            let pace = UpdatePace { items_per_ms: pace.items_per_ms.filter(|_| obstacle.is_none() && !stuck), ..pace };
            QueuedUpdate::of(row, stand, pace)
        });
        Ok(Self {
            queue_table_exists: true,
            updates: updates.collect(),
            skipped: SkippedRows::of(queue.skipped),
            database: site.name.clone(),
            runner: runner.map(Process::from),
            obstacle,
            pause: queue.pause.map(|Pause { since_ms, reason }| StoredPause { since_ms, reason }),
            ended,
            kept: queue.kept.into_iter().map(KeptRows::from).collect(),
        })
    }
}

impl QueuedUpdate {
    fn of(row: QueueRow, Stand { state, reason }: Stand, pace: UpdatePace) -> Self {
        // What stands still has no pace, however fast it once went.
        let pace = UpdatePace { items_per_ms: pace.items_per_ms.filter(|_| state == UpdateState::Running), ..pace };
        let failure = row.failure;
        Self {
            name: row.update_name,
            state,
            reason,
            depends_on: row.depends_on.filter(|name| !name.is_empty()),
            ordering: row.ordering,
            progress: row.progress,
            done: pace.estimate.map(|estimate| estimate.done),
            items_per_s: pace.items_per_ms.map(|rate| rate * 1_000.0),
            time_left_ms: pace.time_left().map(super::ms),
            attempts: failure.as_ref().map_or(0, |failure| failure.attempts),
            last_error: failure.as_ref().map(|failure| failure.error.clone()),
            last_error_at_ms: failure.map(|failure| failure.at_ms),
        }
    }
}

impl From<Keep> for KeptRows {
    fn from(keep: Keep) -> Self {
        let Keep { update, table, triggers, made_ms, enabled, .. } = keep;
        Self { update, table, triggers, made_at_ms: made_ms, enabled }
    }
}

impl From<&Ended> for EndedUpdate {
    fn from(ended: &Ended) -> Self {
        Self { name: ended.update_name.clone(), ended_at_ms: unix_ms(ended.at), finished: ended.finished }
    }
}

impl From<Record> for Iteration {
    fn from(record: Record) -> Self {
        Self {
            started_at_ms: record.started_ms,
            one_shot: record.one_shot,
            controller: record.controller,
            target_ms: record.target_ms,
            items_asked: record.batch_size,
            items_done: record.items,
            took_ms: record.duration_ms,
            held_ms: record.waited_ms,
            held_reason: record.wait_reason,
            outcome: record.outcome,
            error: record.error,
            notes: record.notes,
            fuel: record.fuel,
        }
    }
}

impl Defined {
    /// An update with its last iterations; `None` where nobody knows the name.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn of(state: &State, site: &Site, name: &str, iterations: u32) -> Result<Option<Self>, Problem> {
        let queue = Queue::of(state, site).await?;
        let records = site.database.history(Some(name), iterations).await;
        let records = records.map_err(|error| Problem::database(&site.name, &error))?;
        let defined = state.live().handlers.get(&site.name).is_some_and(|handlers| handlers.contains_key(name));
        let queued = queue.updates.into_iter().find(|update| update.name == name);
        let skipped = site.database.skipped(name, None, iterations).await;
        let skipped = skipped.map_err(|error| Problem::database(&site.name, &error))?;
        if !defined && queued.is_none() && records.is_empty() && skipped.is_empty() {
            return Ok(None);
        }
        let board = state.board().database(&site.name).unwrap_or_default();
        Ok(Some(Self {
            database: site.name.clone(),
            name: name.to_owned(),
            defined,
            queued,
            totals: board.totals.get(name).map(|totals| Totals::of(name, totals)),
            iterations: records.into_iter().map(Iteration::from).collect(),
            skipped: skipped.into_iter().map(SkippedKey::from).collect(),
        }))
    }
}
