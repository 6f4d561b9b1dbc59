//! The transaction of a batch.

use std::sync::Arc;

use async_trait::async_trait;

use super::held::Held;
use crate::database::handle::{self, row_vanished};
use crate::scheduler::database::{Interrupt, Transaction};
use crate::update::sql::{Dialect, Row, Sql, SqlError, Value};

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
    pub(super) write: String,
    /// Deletes the row: parameter 1 is the update's name.
    pub(super) delete: String,
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

    fn expect_foreign(&mut self) {
        self.foreign = true;
    }
}

impl Batch {
    /// Undoes in the transaction what statements of others did to the session, so that the progress is written where the
    /// host means to write it, and no later batch meets their settings.
    async fn tidy(&mut self) -> Result<(), SqlError> {
        self.held.connection().forget_all();
        let open = "select current_setting('tidegate.batch', true)";
        let rows = self.held.query(open, &[]).await?;
        if rows.first().and_then(|row| row.first()).and_then(Value::as_text) != Some("open") {
            return Err(row_vanished(&self.update_name));
        }
        self.held.keep_before().await?;
        let tidied = format!("{}; select set_config('tidegate.batch', 'open', true)", self.tidied);
        self.held.script(&tidied).await
    }
}

#[async_trait]
impl Transaction for Batch {
    async fn commit(mut self: Box<Self>, progress: Option<&str>) -> Result<(), SqlError> {
        const DIVISION_BY_ZERO: &str = "22012";
        if self.foreign {
            self.tidy().await?;
        }
        let mut values = vec![Value::from(self.update_name.as_str())];
        let sql = match progress {
            Some(progress) => {
                values.push(progress.into());
                &self.write
            }
            None => &self.delete,
        };
        let committed = self.held.commit_with(sql, &values).await;
        committed.map_err(|error| match error.code.as_deref() {
            Some(DIVISION_BY_ZERO) => row_vanished(&self.update_name),
            _ => error,
        })
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
