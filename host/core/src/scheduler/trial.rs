//! A batch done for a look at what it does: in a transaction that is rolled back in any case.

use std::sync::Arc;

use async_trait::async_trait;

use super::database::Interrupt;
use crate::update::sql::{Sql, SqlError};

/// A transaction that is only ever rolled back, and what happens in it is watched. It touches neither the lease nor the queue
/// nor any table of tidegate's own, and needs none of these. Dropped, it is rolled back.
#[async_trait]
pub trait TrialTransaction: Send {
    /// From here on what happens is told by [`TrialTransaction::seen`].
    ///
    /// # Errors
    /// Whatever the database says.
    async fn watch(&mut self) -> Result<(), SqlError>;

    /// Has done by now what is put off until the commit.
    ///
    /// # Errors
    /// Whatever the database would say at the commit.
    async fn settle(&mut self) -> Result<(), SqlError> {
        Ok(())
    }

    /// What has happened since [`TrialTransaction::watch`], what the database would do at the commit included.
    ///
    /// # Errors
    /// Whatever the database says; among others what it would say at the commit.
    async fn seen(&mut self) -> Result<Seen, SqlError>;

    /// Rolls everything back.
    ///
    /// # Errors
    /// Whatever the database says; it rolls back all the same.
    async fn rollback(self: Box<Self>) -> Result<(), SqlError>;

    /// A handle that interrupts the statement in hand from elsewhere.
    fn interrupter(&self) -> Arc<dyn Interrupt>;

    /// This transaction as something that takes SQL.
    fn as_sql(&mut self) -> &mut dyn Sql;
}

/// What happened in a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The tables whose rows changed, in the order of their names.
    pub changes: Vec<TableChange>,
    /// The locks that it holds until its end.
    pub locks: Vec<Lock>,
    /// Sequences that it has drawn from: those do not go back.
    pub sequences: Vec<String>,
    /// Bytes written to the database's log; `None` where that cannot be found out.
    pub log: Option<u64>,
    /// Where that number is from, in words.
    pub log_source: &'static str,
    /// Bytes by which the database's files grew.
    pub growth: u64,
    /// Where that number is from, in words.
    pub growth_source: &'static str,
    /// What that is counted in: bytes of a page.
    pub page: u64,
    /// Row versions that the database has to clear away once this is rolled back.
    pub dead_rows: u64,
    /// What else there is to know of it.
    pub notes: Vec<String>,
}

/// What became of a table's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableChange {
    /// The table, as SQL names it.
    pub table: String,
    /// How many rows; `None` where the database does not tell.
    pub rows: Option<RowCounts>,
    /// What to know of it: that it is a virtual table, say.
    pub note: Option<String>,
}

/// Rows that were changed, each as often as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowCounts {
    /// Inserted.
    pub inserted: u64,
    /// Updated.
    pub updated: u64,
    /// Deleted.
    pub deleted: u64,
}

/// A lock that is held.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lock {
    /// What is locked, as SQL names it.
    pub relation: String,
    /// What that is: "table", "index", ….
    pub kind: &'static str,
    /// How, in the database's own word.
    pub mode: String,
}
