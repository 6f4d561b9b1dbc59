//! The ledger, and how updates stand that somebody requires.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use tidegate::scheduler::ledger::{Completion, CompletionReport, Entry};

/// Entries of a ledger, the newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Ledger {
    /// The entries.
    pub entries: Vec<LedgerEntry>,
    /// What to send as `before` for the next, older ones; null where there are none.
    pub next_before: Option<i64>,
}

impl Ledger {
    /// A page of at most `limit` entries, of which one more was asked for.
    pub fn page(mut entries: Vec<Entry>, limit: usize) -> Self {
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next_before = entries.last().filter(|_| more).map(|entry| entry.id);
        Self { entries: entries.into_iter().map(LedgerEntry::from).collect(), next_before }
    }
}

/// What was done, by whom and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LedgerEntry {
    /// Its number: later entries have higher ones, with gaps.
    #[schema(example = 17)]
    pub id: i64,
    /// When.
    #[schema(example = 1_700_000_000_000_i64)]
    pub at_ms: i64,
    /// The update; null of a pause.
    #[schema(example = "messages_search_body")]
    pub update: Option<String>,
    /// "queued", "started", "finished", "failed", "quarantined", "retried", "paused", "resumed", "cancelled", "accepted",
    /// "awaits-approval" or "approved".
    #[schema(example = "finished")]
    pub action: String,
    /// Who: "token NAME", "user NAME on MACHINE", "host MACHINE process NUMBER", "sql" where somebody wrote to the queue's table
    /// without tidegate, or "before the ledger".
    #[schema(example = "host tide-1 process 4242")]
    pub by: String,
    /// Items of the whole update, where it finished and counts any.
    pub items: Option<u64>,
    /// From its first batch to its last, in seconds, where it finished.
    pub seconds: Option<f64>,
    /// The digest of the definition, where it finished and has one.
    pub definition: Option<String>,
    /// What else there is to say: a reason, an error, what changed.
    pub words: Option<String>,
}

impl From<Entry> for LedgerEntry {
    fn from(entry: Entry) -> Self {
        let Entry { id, at_ms, update_name, action, by, items, seconds, definition, words } = entry;
        Self { id, at_ms, update: update_name, action, by, items, seconds, definition, words }
    }
}

/// Whether updates are done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Required {
    /// That of the update that stands worst.
    pub state: RequiredState,
    /// Each update on each database that knows it, in the order of the names.
    pub updates: Vec<RequiredUpdate>,
}

/// How an update stands, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RequiredState {
    /// It is finished.
    Done,
    /// It is queued.
    Pending,
    /// It is defined, and was never queued.
    NotQueued,
    /// It is quarantined, or was taken out of the queue before it was finished.
    Failed,
    /// It was never queued, and nothing defines it.
    Unknown,
}

/// Whether an update is done on a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequiredUpdate {
    /// The update.
    #[schema(example = "messages_search_body")]
    pub name: String,
    /// The database; null where none knows the update.
    #[schema(example = "master")]
    pub database: Option<String>,
    /// How it stands.
    pub state: RequiredState,
    /// When it was finished.
    pub finished_at_ms: Option<i64>,
    /// How that is known, in words.
    #[schema(example = "finished (host tide-1 process 4242)")]
    pub words: String,
}

impl RequiredUpdate {
    /// How an update stands on a database, where that knows it.
    pub fn of(name: &str, database: &str, report: CompletionReport, is_defined: bool) -> Option<Self> {
        let state = match report.completion {
            Completion::Done => RequiredState::Done,
            Completion::Pending => RequiredState::Pending,
            Completion::Failed => RequiredState::Failed,
            Completion::NeverQueued if is_defined => RequiredState::NotQueued,
            Completion::NeverQueued => return None,
        };
        Some(Self {
            name: name.to_owned(),
            database: Some(database.to_owned()),
            state,
            finished_at_ms: report.finished_ms,
            words: report.words,
        })
    }

    /// An update that no database knows.
    pub fn unknown(name: &str) -> Self {
        let words = "never queued, and nothing defines it".to_owned();
        Self { name: name.to_owned(), database: None, state: RequiredState::Unknown, finished_at_ms: None, words }
    }
}

impl Required {
    /// What comes of updates.
    pub fn of(updates: Vec<RequiredUpdate>) -> Self {
        let state = updates.iter().map(|update| update.state).max().unwrap_or(RequiredState::Done);
        Self { state, updates }
    }
}
