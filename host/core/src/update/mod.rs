//! Background updates: what a handler is, and one file for each kind that a configuration can define.
//!
//! A handler is given a position, a budget and a transaction, does a part of its update, and says how far it came. It
//! knows neither the driver behind the transaction nor the controller that set the budget.

pub mod approval;
mod ask;
mod assign;
mod backfill;
mod batch;
pub mod cells;
mod constraint;
mod copy;
mod create_index;
mod delete;
mod error;
mod explain;
mod field;
pub mod keep;
mod names;
mod noop;
pub mod parts;
mod placeholder;
pub mod plan;
mod reach;
mod refuse;
pub mod scan;
mod script;
pub mod settings;
pub mod sql;
mod sql_error;
mod surroundings;
pub mod tolerance;
mod transform;
pub mod trial;
mod validate;
mod validate_and_delete;
mod verify;
mod walk;

use std::fmt;

use async_trait::async_trait;
use serde_json::{Map, Value as Json};

pub use approval::{Canary, Gate, Gated};
pub use backfill::{Backfill, BackfillDefinition};
pub use batch::{Batch, BatchDefinition};
pub use constraint::ConstraintKind;
pub use copy::{Copy, CopyColumn, CopyDefinition, CopySource, OnConflict};
pub use create_index::{CreateIndex, CreateIndexDefinition, IndexParts};
pub use delete::{Delete, DeleteDefinition};
pub use error::UpdateError;
pub use keep::{Kept, Unkeep, UnkeepDefinition};
pub use noop::Noop;
pub use plan::{Plan, Planned};
pub use reach::{OnSkip, Reach};
pub use refuse::Refuse;
pub use script::{Script, ScriptDefinition};
pub use settings::{Setting, Settings};
pub use sql::{Dialect, ErrorClass, Sql, SqlError};
pub use tolerance::{LeftBehind, PassedOver, Tolerance, Tolerant};
pub use transform::{
    Cell, Cells, RowFunction, RowOutcome, Transform, TransformDefinition, TransformFault, Transformer, cells_of,
};
pub use trial::Trial;
pub use validate::{ValidateConstraint, ValidateConstraintDefinition};
pub use validate_and_delete::{ValidateAndDelete, ValidateAndDeleteDefinition};
pub use verify::{VERIFY, Verified, is_verification, verification};
pub use walk::accept_definition;

/// The lane of all updates that are put in no other.
pub const FIRST_LANE: &str = "main";

/// How an update stands between two batches: the object in its row's `progress_json`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress(pub Map<String, Json>);

impl Progress {
    /// Reads the text of `progress_json`.
    ///
    /// # Errors
    /// [`UpdateError::Progress`] where it is not a JSON object.
    pub fn parse(text: &str) -> Result<Self, UpdateError> {
        let unreadable = |problem: String| UpdateError::Progress {
            problem: format!("progress \"{}\" cannot be understood: {problem}", shorten(text)),
            detail: None,
        };
        match serde_json::from_str(text) {
            Ok(Json::Object(object)) => Ok(Self(object)),
            Ok(_) => Err(unreadable("it is JSON, but not an object".to_owned())),
            Err(error) => Err(unreadable(format!("it is not JSON: {error}"))),
        }
    }

    /// The error of a handler that cannot go on from here. The problem is told to everybody; the progress itself, in which
    /// the keys of rows may stand, is its [detail](UpdateError::detail).
    pub fn refuse(&self, problem: impl fmt::Display) -> UpdateError {
        let detail = Some(format!("it is {}", shorten(&self.to_json())));
        UpdateError::Progress { problem: format!("the progress cannot be understood: {problem}"), detail }
    }

    /// As [`Progress::refuse`], for a problem that speaks of what stands in the progress.
    pub fn refuse_shape(&self, problem: impl fmt::Display) -> UpdateError {
        let detail = Some(format!("{problem}; it is {}", shorten(&self.to_json())));
        UpdateError::Progress {
            problem: "the progress is not of a shape that this kind of update writes".to_owned(),
            detail,
        }
    }

    /// The items that it counts; 0 where it counts none. Of one that verifies they are the rows that were looked at.
    pub fn items(&self) -> u64 {
        let looked = || self.0.get(VERIFY)?.get("looked");
        self.0.get("items").or_else(looked).and_then(Json::as_u64).unwrap_or(0)
    }

    /// The text for `progress_json`.
    pub fn to_json(&self) -> String {
        // A map of JSON is JSON: there is nothing to fail.
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

/// A text short enough for a message.
fn shorten(text: &str) -> String {
    const LONGEST: usize = 200;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST).chain("…".chars()).collect()
}

/// How the next iteration of an update is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In batches, each in a transaction together with the progress that it makes.
    Batched,
    /// In one go, in a transaction together with its progress.
    OneShot,
    /// In one go, in statements that no transaction can hold (CREATE INDEX CONCURRENTLY): at least once, so
    /// idempotent, its progress written afterwards.
    OneShotOutside,
}

impl Mode {
    /// True where the update happens in one go and may take long: what a controller is told.
    pub fn is_one_shot(self) -> bool {
        self != Mode::Batched
    }
}

/// How the transaction of a batch is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Opening {
    /// Each statement sees what is committed by then: for one statement, and for those that lock tables before they read.
    /// Where the database's own default is stricter, that is what counts.
    #[default]
    EachStatement,
    /// All statements see the same rows: what others commit meanwhile makes the batch fail and be done again (PostgreSQL).
    Snapshot,
    /// Tables are dropped and renamed, and rows that refer to them are left alone; what refers to nothing afterwards is
    /// an error (SQLite).
    Rebuild,
}

/// How much a handler may do in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Items to process at most (rows that tie with the last one may come on top). 1 or more.
    pub items: u64,
}

/// What a handler did in one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Items processed.
    pub items: u64,
    /// Where the update stands now.
    pub next: Next,
    /// What an operator should know of it, a sentence each: they go into the log and the history once the batch is
    /// committed.
    pub notes: Vec<String>,
}

impl Step {
    /// A step that leaves the update at `next`, with nothing to note.
    pub fn new(items: u64, next: Next) -> Self {
        Self { items, next, notes: Vec::new() }
    }

    /// The step that ends an update.
    pub fn finished(items: u64) -> Self {
        Self::new(items, Next::Finished)
    }

    /// The same step with these notes besides.
    pub fn noting(mut self, notes: impl IntoIterator<Item = String>) -> Self {
        self.notes.extend(notes);
        self
    }
}

/// Where an update stands after a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// More is to be done, from here on. Equal to where the step began, it is an error: nothing may loop for ever.
    Continue(Progress),
    /// The update is done; its row leaves the queue.
    Finished,
}

/// One background update's work, on one database. Its own memory must not matter: all that it knows of earlier
/// batches is their progress.
#[async_trait]
pub trait Handler: Send + Sync {
    /// How the iteration that starts at `progress` is to be run.
    ///
    /// # Errors
    /// [`UpdateError::Progress`] where the progress has a shape that this handler never wrote.
    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError>;

    /// The digest of the definition, for the ledger to tell later whether it was another; `None` where there is none.
    fn digest(&self) -> Option<String> {
        None
    }

    /// Why the update is not done at all; `None` where it is. One that is refused is not to be queued.
    fn refusal(&self) -> Option<&str> {
        None
    }

    /// True where the host looks whether the definition fits the database before its first iteration of the update, in this
    /// mode. What happens in one transaction, or in statements that the database refuses as a whole, needs no look.
    fn is_vetted(&self, mode: Mode) -> bool {
        mode == Mode::Batched
    }

    /// How the transaction is to be opened.
    fn opening(&self) -> Opening {
        Opening::default()
    }

    /// How many may work on it at once, where the database lets them: each on a part of its own.
    fn workers(&self) -> usize {
        1
    }

    /// The same progress with what is left cut into so many [`parts`], or fewer; `None` where it is not to be cut, because
    /// little is left or it has not begun. Nothing is changed.
    ///
    /// # Errors
    /// Whatever the database says, and [`UpdateError::Progress`].
    async fn cut(&self, sql: &mut dyn Sql, progress: &Progress, parts: usize) -> Result<Option<Progress>, UpdateError> {
        let _ = (sql, progress, parts);
        Ok(None)
    }

    /// Does a slice of a batch, or the whole of a one-shot, inside the batch's transaction. The host may call it
    /// several times for one batch, each time with the progress that the last call returned.
    ///
    /// # Errors
    /// Any error rolls the whole batch back.
    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError>;

    /// Does the same where a progress of [`verification`] says that rows are looked at: those that were `left` behind are no
    /// wrong ones.
    ///
    /// # Errors
    /// Any error rolls the whole batch back.
    async fn verify(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
        budget: Budget,
        left: &dyn LeftBehind,
    ) -> Result<Step, UpdateError> {
        let _ = left;
        self.run(sql, progress, budget).await
    }

    /// Takes away what [`Handler::run_outside`] has left where it was interrupted and its update is not to go on. Says
    /// what stays, in a sentence for an operator, where something does.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn abandon(&self, sql: &mut dyn Sql) -> Result<Option<String>, UpdateError> {
        let _ = sql;
        Ok(None)
    }

    /// Does a one-shot outside any transaction; called where [`Handler::mode`] says [`Mode::OneShotOutside`].
    ///
    /// # Errors
    /// Any error counts as a failed iteration. What was done until then stays, and the next call meets it.
    async fn run_outside(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Step, UpdateError> {
        let _ = (sql, progress);
        Err(UpdateError::Failed("this handler has nothing to run outside a transaction".to_owned()))
    }

    /// How far the update has come, cheaply; `None` where that cannot be told.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<sql::Estimate>, UpdateError> {
        let _ = (sql, progress);
        Ok(None)
    }

    /// What there is to know of this update's definition, seen from the database; empty where nothing is.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let _ = sql;
        Ok(Vec::new())
    }

    /// What a typical batch of `budget`, or the one-shot, would do from `progress` on, and how the database would go
    /// about it. Nothing is changed. `None` where the handler does not tell.
    ///
    /// Asked only where [`Handler::check`] found no error.
    ///
    /// # Errors
    /// Whatever the database says, and [`UpdateError::Progress`].
    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Option<Plan>, UpdateError> {
        let _ = (sql, progress, budget);
        Ok(None)
    }

    /// How many rows may be left behind that the database refuses; `None` where the first such ends the batch.
    fn tolerance(&self) -> Option<Tolerance> {
        None
    }

    /// True where it runs though rows of what it depends on were left behind.
    fn accepts_skipped(&self) -> bool {
        false
    }

    /// Passes over the next key, and changes nothing; `None` where there is no such thing here.
    ///
    /// # Errors
    /// Whatever the database says, and [`UpdateError::Progress`].
    async fn pass_over(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<PassedOver>, UpdateError> {
        let _ = (sql, progress);
        Ok(None)
    }

    /// Does the rows of one key, wherever the update is: one that was passed over.
    ///
    /// # Errors
    /// Any error rolls back what was done for this key.
    async fn run_key(&self, sql: &mut dyn Sql, key: &[String]) -> Result<(), UpdateError> {
        let _ = (sql, key);
        Err(UpdateError::Failed("updates of this kind skip no rows, and have none to try again".to_owned()))
    }

    /// Why the rows of this update cannot be looked at again; `None` where they can, by a progress of [`verification`].
    ///
    /// # Errors
    /// Whatever the database says.
    async fn unverifiable(&self, sql: &mut dyn Sql) -> Result<Option<Problem>, UpdateError> {
        let _ = sql;
        let message = "updates of this kind are not verified: nothing that they promise can be looked up";
        Ok(Some(Problem::error("kind", message, "look at the rows by a query of your own")))
    }

    /// How the update can be tried ([`Database::begin_trial`](crate::scheduler::database::Database::begin_trial)): by which batch of
    /// `budget`, where one begins so far into the walk, 0.0 to 1.0. Asked in the transaction in which it is to be done; nothing
    /// is changed.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn trial(&self, sql: &mut dyn Sql, place: f64, budget: Budget) -> Result<Trial, UpdateError> {
        let _ = (sql, place, budget);
        Ok(Trial::Refused(Problem::error(
            "kind",
            "its handler does not tell what a batch is about",
            "run it on a copy of the database",
        )))
    }
}

/// How grave a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The update cannot run, or would harm rows.
    Error,
    /// The update runs, and probably not as it was meant.
    Warning,
    /// Everything is in order, and this is good to know.
    Note,
}

/// Something to know about a definition, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How grave it is.
    pub severity: Severity,
    /// The definition's key that is wrong: "table", "key", ….
    pub field: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Problem {
    /// What keeps the update from running.
    pub fn error(field: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { severity: Severity::Error, field, message: message.into(), hint: hint.into() }
    }

    /// What the update can run with, and probably should not.
    pub fn warning(field: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(field, message, hint) }
    }

    /// What is in order, and good to know.
    pub fn note(field: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { severity: Severity::Note, ..Self::error(field, message, hint) }
    }

    /// True where the update must not run.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
