//! What a batch is done in: a transaction that is open, or a session outside of any.

use std::sync::Arc;

use async_trait::async_trait;

use super::lanes::Lanes;
use super::ledger::{Actor, Note};
use super::parts::{Merge, PartCommit};
use crate::update::Opening;
use crate::update::sql::{Sql, SqlError};

/// A batch that is to begin.
#[derive(Debug, Clone, Copy)]
pub struct Planned<'a> {
    /// The lane whose connection it takes.
    pub lane: &'a str,
    /// The update.
    pub update_name: &'a str,
    /// The progress that it was planned from, as its row had it.
    pub progress: &'a str,
    /// How its handler needs the transaction to be opened.
    pub opening: Opening,
}

impl<'a> Planned<'a> {
    /// One in the first lane, which asks for nothing.
    pub fn of(update_name: &'a str, progress: &'a str) -> Self {
        Self { lane: Lanes::FIRST, update_name, progress, opening: Opening::default() }
    }
}

/// Whether a batch can go on from the progress that it was planned from.
pub enum Begin {
    /// It can, in this transaction.
    Ready(Box<dyn Transaction>),
    /// Somebody moved on: the row's progress is another now, or the row is gone (`None`). Nothing is open.
    Moved(Option<String>),
    /// It cannot, where batches of other updates may: somebody else has its row locked for longer than one waits, or what
    /// its handler asked for failed. Nothing is open. What keeps every batch from beginning is an error.
    Failed(SqlError),
}

/// The open transaction of a batch. Dropped, it is rolled back.
#[async_trait]
pub trait Transaction: Sql {
    /// Has an entry written into the ledger by the commit: it is there if and only if what the batch did is.
    fn note(&mut self, note: Note) {
        let _ = note;
    }

    /// Has the ledger name somebody else than the host.
    fn known_as(&mut self, actor: Actor) {
        let _ = actor;
    }

    /// Writes the row's new progress, or deletes the row (`None`), and commits.
    ///
    /// # Errors
    /// Whatever the database says. With class [`Connection`](crate::update::ErrorClass::Connection) it is not known
    /// whether the commit happened; with any other it did not.
    async fn commit(self: Box<Self>, progress: Option<&str>) -> Result<(), SqlError>;

    /// Locks the row, has `merge` say what is to be written in place of what stands there now, writes that and commits: for a
    /// batch that [`Database::begin_part`](super::database::Database::begin_part) opened.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    async fn commit_part(self: Box<Self>, merge: Merge<'_>) -> Result<PartCommit, SqlError> {
        let _ = merge;
        Err(SqlError::permanent("this database has one writer, and an update is done in one part"))
    }

    /// Marks where the transaction stands, for [`Transaction::undo`]. An earlier mark is forgotten.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn mark(&mut self) -> Result<(), SqlError>;

    /// Undoes what came after the mark, a statement that was interrupted among it. False where nothing of the transaction is
    /// left: it is to be rolled back.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn undo(&mut self) -> Result<bool, SqlError>;

    /// Has the session be as the host made it, whatever statements of others did to it: statements on tidegate's own tables
    /// follow.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn tidy_session(&mut self) -> Result<(), SqlError> {
        Ok(())
    }

    /// Rolls everything back.
    ///
    /// # Errors
    /// Whatever the database says; the server rolls back all the same, once it has noticed.
    async fn rollback(self: Box<Self>) -> Result<(), SqlError>;

    /// A handle that interrupts the statement in hand from elsewhere; it fails with class
    /// [`Interrupted`](crate::update::ErrorClass::Interrupted).
    fn interrupter(&self) -> Arc<dyn Interrupt>;

    /// This transaction as something that takes SQL.
    fn as_sql(&mut self) -> &mut dyn Sql;
}

/// A session outside any transaction.
#[async_trait]
pub trait Session: Sql {
    /// A handle that interrupts the statement in hand from elsewhere.
    fn interrupter(&self) -> Arc<dyn Interrupt>;

    /// This session as something that takes SQL.
    fn as_sql(&mut self) -> &mut dyn Sql;
}

/// Interrupts a statement that runs.
#[async_trait]
pub trait Interrupt: Send + Sync {
    /// Asks the database to give the statement up; harmless where none runs.
    async fn interrupt(&self);

    /// True while a statement runs, also one whose answer nobody awaits any more.
    fn statement_runs(&self) -> bool;
}
