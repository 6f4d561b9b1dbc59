//! What stands in a queue and in tidegate's own tables.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::activity::Activity;
use crate::controller::Outcome;
use crate::update::keep::Keep;

/// The queue of a database at one moment.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// Its rows, in order of (ordering, update_name).
    pub rows: Vec<QueueRow>,
    /// The stored pause, where there is one.
    pub pause: Option<Pause>,
    /// What the running host last said of itself.
    pub activity: Option<Activity>,
    /// The triggers of the database that keep updates' rows.
    pub kept: Vec<Keep>,
    /// How many keys updates have skipped, by name, queued or not.
    pub skipped: BTreeMap<String, u64>,
}

/// A row of the queue, and what tidegate remembers of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QueueRow {
    /// `update_name`.
    pub update_name: String,
    /// `progress_json`, as it stands there.
    pub progress: String,
    /// `depends_on`; an empty text counts as none.
    pub depends_on: Option<String>,
    /// `ordering`.
    pub ordering: i64,
    /// Its failures since the last success.
    pub failure: Option<Failure>,
    /// Why the row cannot be worked on as it stands there, in words: on SQLite any bytes can stand anywhere. Its name is
    /// one to show then, and not the one in the table.
    pub problem: Option<String>,
    /// How many keys it has skipped.
    pub skipped: u64,
    /// How many keys were skipped by what it depends on: it waits for them.
    pub skipped_before: u64,
    /// True where it does not: see [`Queue::accept_skipped`].
    pub accepts_skipped: bool,
}

/// A key that an update has skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The update.
    pub update_name: String,
    /// The key: a JSON array with the text of each of its columns.
    pub key: String,
    /// The database's own code for what was in the way, where it has one.
    pub code: Option<String>,
    /// What was in the way, without values of rows.
    pub message: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// What a batch changes in the keys that its update has skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The keys that were tried again: those behind the first, up to the second; `None` for all.
    pub tried: Option<(Option<String>, Option<String>)>,
    /// The keys that are skipped.
    pub skipped: Vec<Skipped>,
}

impl Resolved {
    /// True where nothing changes.
    pub fn is_empty(&self) -> bool {
        self.tried.is_none() && self.skipped.is_empty()
    }
}

impl Queue {
    /// Lets rows run though keys of what they depend on were skipped, where they accept that.
    pub fn accept_skipped(&mut self, accepts: &dyn Fn(&str) -> bool) {
        let waiting = self.rows.iter_mut().filter(|row| row.depends_on.is_some());
        for row in waiting.filter(|row| accepts(&row.update_name)) {
            (row.skipped_before, row.accepts_skipped) = (0, true);
        }
    }

    /// How many keys the update of a name has skipped.
    pub fn skipped_by(&self, update_name: &str) -> u64 {
        self.skipped.get(update_name).copied().unwrap_or(0)
    }
}

/// A row to be queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRow {
    /// `update_name`.
    pub update_name: String,
    /// `progress_json`.
    pub progress: String,
    /// `depends_on`.
    pub depends_on: Option<String>,
    /// `ordering`.
    pub ordering: i64,
}

/// Updates that are in the queue already, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlreadyQueued(pub Vec<String>);

/// What went wrong with an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Failures in a row that count; transient ones do not.
    pub attempts: u32,
    /// The last error, transient or not.
    pub error: String,
    /// The database's own code for it, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// True once the queue goes on without it.
    pub quarantined: bool,
}

/// A pause that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// Why, as whoever paused it said.
    pub reason: Option<String>,
}

/// What is to be known of a batch that runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Situation {
    /// True where somebody asked for its update to be taken out of the queue.
    pub withdrawn: bool,
    /// Who keeps it waiting: process, application, user, since when.
    pub in_the_way: Vec<String>,
    /// True where that can be written down meanwhile.
    pub writable: bool,
}

/// What came of an iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IterationOutcome {
    /// Its batch was committed, and more is to be done.
    Completed,
    /// Its batch was committed, and was the last of its update.
    Finished,
    /// Its batch failed and was rolled back.
    Failed,
    /// Its batch was given up and rolled back.
    Cancelled,
}

impl IterationOutcome {
    /// Every one.
    pub const ALL: [IterationOutcome; 4] = [
        IterationOutcome::Completed,
        IterationOutcome::Finished,
        IterationOutcome::Failed,
        IterationOutcome::Cancelled,
    ];

    /// As it is told and written, and as the label of a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            IterationOutcome::Completed => "completed",
            IterationOutcome::Finished => "finished",
            IterationOutcome::Failed => "failed",
            IterationOutcome::Cancelled => "cancelled",
        }
    }

    /// True where its batch was committed.
    pub fn is_committed(self) -> bool {
        matches!(self, IterationOutcome::Completed | IterationOutcome::Finished)
    }
}

impl fmt::Display for IterationOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<&Outcome> for IterationOutcome {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Completed(batch) if batch.finished => IterationOutcome::Finished,
            Outcome::Completed(_) => IterationOutcome::Completed,
            Outcome::Failed(_) => IterationOutcome::Failed,
            Outcome::Cancelled => IterationOutcome::Cancelled,
        }
    }
}

/// One iteration, as the history keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The update.
    pub update_name: String,
    /// When its batch began, in milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// True where the update happened in one go.
    pub one_shot: bool,
    /// The controller that set the pace.
    pub controller: String,
    /// The target duration in milliseconds, where a batch ran.
    pub target_ms: Option<u64>,
    /// Items asked for.
    pub batch_size: u64,
    /// Items processed; 0 where the batch was rolled back.
    pub items: u64,
    /// How long the batch took in milliseconds, its commit included, waiting not.
    pub duration_ms: f64,
    /// How long the controller made it wait before, in milliseconds.
    pub waited_ms: f64,
    /// The reason that the controller last gave for waiting.
    pub wait_reason: Option<String>,
    /// What came of it.
    pub outcome: IterationOutcome,
    /// The error, where it failed.
    pub error: Option<String>,
    /// What an operator should know of the batch, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Fuel that the controller used in the iteration, where it is measured.
    pub fuel: Option<u64>,
}

impl Record {
    /// True where its batch was committed.
    pub fn is_committed(&self) -> bool {
        self.outcome.is_committed()
    }
}
