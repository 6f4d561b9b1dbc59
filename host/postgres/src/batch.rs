//! The transaction of a batch.

use std::sync::Arc;

use async_trait::async_trait;

use super::held::Held;
use tidegate::scheduler::database::{Interrupt, Merge, PartCommit, Transaction};
use tidegate::scheduler::ledger::{Actor, Note};
use tidegate::update::sql::{Answer, Ask, Dialect, Row, Sql, SqlError, Value};
use tidegate_driver::handle::{self, row_vanished};
use tidegate_driver::ledger::Notes;
use tidegate_driver::tables::{LockedRow, Tables};

const DIVISION_BY_ZERO: &str = "22012";
/// Divides by zero where the transaction is not the one that was marked any more.
const STILL_OPEN: &str = "select 1 / coalesce((current_setting('tidegate.batch', true) = 'open')::int, 0)";

/// The open transaction of a batch.
pub(super) struct Batch {
    pub(super) held: Held,
    /// True where statements that the host did not write were executed.
    pub(super) foreign: bool,
    /// Makes the session what the host made it, whatever statements of others did to it.
    pub(super) tidied: String,
    /// True where there is a savepoint of the host's own.
    pub(super) marked: bool,
    pub(super) update_name: String,
    /// Writes the progress: parameter 1 is the update's name, parameter 2 the progress.
    pub(super) write: LockedRow,
    /// Deletes the row: parameter 1 is the update's name.
    pub(super) delete: LockedRow,
    /// What its commit tells the ledger.
    pub(super) notes: Notes,
    pub(super) tables: Tables,
    /// Locks the row and reads its progress: parameter 1 is the update's name.
    pub(super) lock: String,
}

#[async_trait]
impl Sql for Batch {
    fn dialect(&self) -> Arc<dyn Dialect> {
        self.held.dialect()
    }

    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, SqlError> {
        self.held.execute(sql, parameters).await
    }

    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, SqlError> {
        self.held.query(sql, parameters).await
    }

    async fn script(&mut self, sql: &str) -> Result<(), SqlError> {
        self.held.script(sql).await
    }

    fn shares_session(&self) -> bool {
        self.held.shares_session()
    }

    fn connection(&self) -> Option<u64> {
        Sql::connection(&self.held)
    }

    async fn ask(&mut self, statements: Vec<Ask>) -> Result<Vec<Answer>, SqlError> {
        self.held.ask(statements).await
    }

    fn expect_foreign(&mut self) {
        self.foreign = true;
        self.held.connection().prepare_nothing();
    }
}

impl Batch {
    /// What undoes in the transaction what statements of others did to the session, so that the progress is written where the
    /// host means to write it, and no later batch meets their settings. An error where they ended the transaction.
    async fn tidy(&mut self) -> Result<String, SqlError> {
        let tidied = format!("{}; select set_config('tidegate.batch', 'open', true)", self.tidied);
        if !self.held.shares_session() {
            return Ok(format!("{STILL_OPEN}; {tidied}"));
        }
        self.held.script(STILL_OPEN).await.map_err(|error| self.explained(error))?;
        self.held.keep_before().await?;
        Ok(tidied)
    }

    fn explained(&self, error: SqlError) -> SqlError {
        match error.code.as_deref() {
            Some(DIVISION_BY_ZERO) => row_vanished(&self.update_name),
            _ => error,
        }
    }
}

#[async_trait]
impl Transaction for Batch {
    fn note(&mut self, note: Note) {
        self.notes.add(note);
    }

    fn known_as(&mut self, actor: Actor) {
        self.notes.known_as(actor);
    }

    async fn commit(mut self: Box<Self>, progress: Option<&str>) -> Result<(), SqlError> {
        let tidy = if self.foreign { Some(self.tidy().await?) } else { None };
        let mut values = vec![Value::from(self.update_name.as_str())];
        let statement = match progress {
            Some(progress) => {
                values.push(progress.into());
                &self.write
            }
            None => &self.delete,
        };
        let sql = statement.with(&self.notes, &self.tables, &mut values);
        let committed = self.held.commit_with(tidy.as_deref(), &sql, &values).await;
        if !self.foreign && committed.is_ok() {
            self.held.connection().prepare_again();
        }
        committed.map_err(|error| self.explained(error))
    }

    async fn commit_part(mut self: Box<Self>, merge: Merge<'_>) -> Result<PartCommit, SqlError> {
        self.tidy_session().await?;
        let lock = std::mem::take(&mut self.lock);
        let found = self.held.query(&lock, &[Value::from(self.update_name.as_str())]).await?;
        let found = found.into_iter().next().and_then(|row| row.into_iter().next());
        let progress = match &found {
            Some(Value::Text(found)) => merge(found),
            _ => None,
        };
        let Some(progress) = progress else {
            self.rollback().await?;
            return Ok(PartCommit::Moved { gone: found.is_none() });
        };
        self.commit(Some(&progress)).await?;
        Ok(PartCommit::Committed(progress))
    }

    async fn mark(&mut self) -> Result<(), SqlError> {
        self.held.script(handle::mark(self.marked)).await?;
        self.marked = true;
        Ok(())
    }

    async fn undo(&mut self) -> Result<bool, SqlError> {
        if self.marked {
            self.held.undo().await?;
        }
        Ok(self.marked)
    }

    async fn tidy_session(&mut self) -> Result<(), SqlError> {
        if self.foreign {
            let tidied = self.tidy().await?;
            self.held.script(&tidied).await.map_err(|error| self.explained(error))?;
            self.foreign = false;
        }
        Ok(())
    }

    async fn rollback(mut self: Box<Self>) -> Result<(), SqlError> {
        self.held.end("rollback").await
    }

    fn interrupter(&self) -> Arc<dyn Interrupt> {
        self.held.interrupter()
    }

    fn as_sql(&mut self) -> &mut dyn Sql {
        self
    }
}
