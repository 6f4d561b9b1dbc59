//! The SQL of failures: one stands by the progress at which it came about, and says nothing of another.

use tidegate::scheduler::database::Failure;
use tidegate::scheduler::ledger::{Action, Note};
use tidegate::update::sql::{Sql, SqlError};

use crate::tables::{Tables, p, to_json};

impl Tables {
    /// Forgets the failures of rows that are gone, made progress or were queued anew.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn forget_stale(&self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        self.note_released(sql).await?;
        let delete = format!(
            "delete from {}tidegate_failures as f where queue = {} and not exists (select 1 from {} q where \
             q.update_name = f.update_name and cast(q.progress_json as text) = f.progress)",
            self.schema,
            p(sql, 1),
            self.quoted
        );
        sql.execute(&delete, &[self.queue_value()]).await.map(drop)
    }

    /// See [`Database::record_failure`](tidegate::scheduler::database::Database::record_failure).
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn record_failure(
        &self,
        sql: &mut dyn Sql,
        update_name: &str,
        progress: &str,
        failure: &Failure,
    ) -> Result<(), SqlError> {
        let upsert = format!(
            "insert into {}tidegate_failures (queue, update_name, progress, failure) values ({}, {}, {}, {}) \
             on conflict (queue, update_name) do update set progress = excluded.progress, failure = excluded.failure",
            self.schema,
            p(sql, 1),
            p(sql, 2),
            p(sql, 3),
            p(sql, 4)
        );
        self.lock_ledger(sql).await?;
        let before = self.failure(sql, update_name, progress).await?;
        let values = [self.queue_value(), update_name.into(), progress.into(), to_json(failure)?];
        sql.execute(&upsert, &values).await?;
        let (attempts, quarantined) = before.map_or((0, false), |before| (before.attempts, before.quarantined));
        let counts = failure.attempts > attempts;
        let is_new = [(Action::Failed, counts), (Action::Quarantined, failure.quarantined && !quarantined)];
        let notes = is_new.into_iter().filter(|(_, is_new)| *is_new);
        let notes: Vec<Note> = notes.map(|(action, _)| Note::of(action).saying(&failure.error)).collect();
        self.append(sql, Some(update_name), &notes, &self.by).await
    }

    /// The failure of a row with this progress, where one is stored.
    async fn failure(&self, sql: &mut dyn Sql, name: &str, progress: &str) -> Result<Option<Failure>, SqlError> {
        let select = format!(
            "select failure from {}tidegate_failures where queue = {} and update_name = {} and progress = {}",
            self.schema,
            p(sql, 1),
            p(sql, 2),
            p(sql, 3)
        );
        let rows = sql.query(&select, &[self.queue_value(), name.into(), progress.into()]).await?;
        // What another version wrote counts as none.
        Ok(rows.first().and_then(|row| serde_json::from_str(row.first()?.as_text()?).ok()))
    }

    /// See [`Database::forget_failures`](tidegate::scheduler::database::Database::forget_failures).
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn retry(&self, sql: &mut dyn Sql, update_name: &str) -> Result<bool, SqlError> {
        self.lock_ledger(sql).await?;
        let forgotten = self.forget_failures(sql, update_name).await?;
        if forgotten {
            self.append(sql, Some(update_name), &[Note::of(Action::Retried)], &self.by).await?;
        }
        Ok(forgotten)
    }

    /// See [`Database::clear_failures`](tidegate::scheduler::database::Database::clear_failures).
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn forget_failures(&self, sql: &mut dyn Sql, update_name: &str) -> Result<bool, SqlError> {
        let (schema, queue, name) = (self.schema, p(sql, 1), p(sql, 2));
        let delete = format!("delete from {schema}tidegate_failures where queue = {queue} and update_name = {name}");
        Ok(sql.execute(&delete, &[self.queue_value(), update_name.into()]).await? > 0)
    }
}
