//! What was done to updates, by whom and when: entries that nobody changes any more, and what they say of an update.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::database::{Database, Holder, IterationOutcome, QueueRow};
use crate::update::SqlError;
use crate::update::approval::awaits_approval;

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Actor(String);

impl Actor {
    /// The most characters of a name that are kept.
    const LONGEST: usize = 200;

    /// A host, of its own accord.
    pub fn host(Holder { host, pid }: &Holder) -> Self {
        Self::new(format!("host {host} process {pid}"))
    }

    /// Whoever runs a command: a user of a machine.
    pub fn user(user: &str, machine: &str) -> Self {
        Self::new(format!("user {user} on {machine}"))
    }

    /// Whoever has a token of this name.
    pub fn token(name: &str) -> Self {
        Self::new(format!("token {name}"))
    }

    /// Somebody who wrote to the queue's table without tidegate.
    pub fn sql() -> Self {
        Self("sql".to_owned())
    }

    /// Nobody who is known: it was so when the ledger was made.
    pub fn before() -> Self {
        Self("before the ledger".to_owned())
    }

    fn new(text: String) -> Self {
        // PostgreSQL knows no NUL.
        Self(text.chars().filter(|c| *c != '\0').take(Self::LONGEST).collect())
    }

    /// The words that stand in the ledger.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The update came into the queue.
    Queued,
    /// Its first batch was committed.
    Started,
    /// Its last batch was committed.
    Finished,
    /// A batch failed, and that counts.
    Failed,
    /// The queue goes on without it.
    Quarantined,
    /// It is tried again as if it had never failed.
    Retried,
    /// No batch begins from then on, of any update.
    Paused,
    /// They begin again.
    Resumed,
    /// It was taken out of the queue.
    Cancelled,
    /// It goes on under another definition than it began with.
    Accepted,
    /// It stopped for somebody to approve of it.
    AwaitsApproval,
    /// Somebody has approved of it.
    Approved,
}

impl Action {
    /// Each of them.
    pub const ALL: [Self; 12] = [
        Self::Queued,
        Self::Started,
        Self::Finished,
        Self::Failed,
        Self::Quarantined,
        Self::Retried,
        Self::Paused,
        Self::Resumed,
        Self::Cancelled,
        Self::Accepted,
        Self::AwaitsApproval,
        Self::Approved,
    ];

    /// The word for it in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Started => "started",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Quarantined => "quarantined",
            Self::Retried => "retried",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Cancelled => "cancelled",
            Self::Accepted => "accepted",
            Self::AwaitsApproval => "awaits-approval",
            Self::Approved => "approved",
        }
    }
}

/// Something that is to be written into the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// What was done.
    pub action: Action,
    /// Items of the whole update, where it finished.
    pub items: Option<u64>,
    /// How long the batch took that both began and ended an update, in seconds.
    pub seconds: Option<f64>,
    /// The digest of the definition.
    pub definition: Option<String>,
    /// What else there is to say: a reason, an error, what changed.
    pub words: Option<String>,
}

impl Note {
    /// That something was done, and no more.
    pub fn of(action: Action) -> Self {
        Self { action, items: None, seconds: None, definition: None, words: None }
    }

    /// The same with words.
    pub fn saying(self, words: impl Into<String>) -> Self {
        Self { words: Some(words.into()), ..self }
    }
}

/// An entry of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its number: later entries have higher ones, with gaps.
    pub id: i64,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The update; `None` of a pause.
    pub update_name: Option<String>,
    /// What was done, as [`Action::as_str`] has it. A later tidegate may know more.
    pub action: String,
    /// Who did it.
    pub by: String,
    /// Items of the whole update, where it finished.
    pub items: Option<u64>,
    /// From its start to its end, in seconds, where it finished.
    pub seconds: Option<f64>,
    /// The digest of the definition, where it finished.
    pub definition: Option<String>,
    /// What else there is to say.
    pub words: Option<String>,
}

impl Entry {
    /// True where it is an entry of this.
    pub fn is(&self, action: Action) -> bool {
        self.action == action.as_str()
    }
}

/// Which entries are wanted: the newest, as they come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Of this update alone.
    pub update_name: Option<&'a str>,
    /// Older than the entry of this number.
    pub before: Option<i64>,
    /// True for those alone that say whether an update is in the queue.
    pub presence: bool,
}

/// How an update stands, for whoever waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Completion {
    /// It is finished.
    Done,
    /// It is not finished, and nothing is known to be in its way for good.
    Pending,
    /// It is quarantined, or was taken out of the queue before it was finished.
    Failed,
    /// It was never queued, as far as anything tells.
    NeverQueued,
}

/// How an update stands, since when, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletionReport {
    /// How.
    pub completion: Completion,
    /// When it was finished, in milliseconds since the Unix epoch.
    pub finished_ms: Option<i64>,
    /// What there is to say of it.
    pub words: String,
}

impl CompletionReport {
    fn new(completion: Completion, words: impl Into<String>) -> Self {
        Self { completion, finished_ms: None, words: words.into() }
    }
}

/// How an update stands by the queue, the ledger, and, where that knows nothing, the history.
///
/// # Errors
/// Whatever the database says.
pub async fn completion(database: &dyn Database, update_name: &str) -> Result<CompletionReport, SqlError> {
    // The row is looked for before the ledger is read: an entry is written where the row comes or goes.
    for last in [false, true] {
        let queue = database.look().await?.unwrap_or_default();
        if let Some(row) = queue.rows.iter().find(|row| row.update_name == update_name) {
            return Ok(of_row(row));
        }
        let wanted = Wanted { update_name: Some(update_name), presence: true, ..Wanted::default() };
        let Some(entry) = database.ledger(&wanted, 1).await?.into_iter().next() else { break };
        if entry.is(Action::Finished) {
            let words = format!("finished ({})", entry.by);
            return Ok(CompletionReport {
                finished_ms: Some(entry.at_ms),
                ..CompletionReport::new(Completion::Done, words)
            });
        }
        if entry.is(Action::Cancelled) {
            return Ok(CompletionReport::new(
                Completion::Failed,
                format!("cancelled by {} before it was finished", entry.by),
            ));
        }
        // Queued between the two looks, or taken out by SQL with no host to see it.
        if last {
            return Ok(CompletionReport::new(Completion::Failed, "its row was removed by SQL before it was finished"));
        }
    }
    let records = database.history(Some(update_name), 1).await?;
    let Some(record) = records.first().filter(|record| record.outcome == IterationOutcome::Finished) else {
        return Ok(CompletionReport::new(Completion::NeverQueued, "never queued"));
    };
    // Whole: a batch takes less than 2^63 ms.
    #[expect(clippy::cast_possible_truncation)]
    let finished_ms = Some(record.started_ms.saturating_add(record.duration_ms as i64));
    let words =
        "finished before there was a ledger: its row is gone, and the history's last iteration of it finished it";
    Ok(CompletionReport { finished_ms, ..CompletionReport::new(Completion::Done, words) })
}

fn of_row(row: &QueueRow) -> CompletionReport {
    match &row.failure {
        Some(failure) if failure.quarantined => {
            CompletionReport::new(Completion::Failed, format!("quarantined: {}", failure.error))
        }
        Some(failure) => {
            CompletionReport::new(Completion::Pending, format!("queued; it last failed: {}", failure.error))
        }
        None => {
            let awaits = awaits_approval(&row.progress).map(|reason| format!("; awaiting approval: {reason}"));
            CompletionReport::new(Completion::Pending, format!("queued{}", awaits.unwrap_or_default()))
        }
    }
}
