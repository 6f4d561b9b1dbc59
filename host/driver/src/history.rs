//! The SQL of the history: the iterations of a queue's updates, the newest first, for a week.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tidegate::scheduler::database::{Record, unix_ms};
use tidegate::update::sql::{Sql, SqlError};

use crate::tables::{Tables, from_json, p, text, to_json};

/// How long an iteration stays in the history.
const RETENTION: Duration = Duration::from_hours(7 * 24);
/// Old iterations deleted at once at most: what is left of a long standstill goes bit by bit.
const PRUNED_AT_ONCE: usize = 10_000;
/// Iterations inserted by one statement at most.
const INSERTED_AT_ONCE: usize = 50;

impl Tables {
    /// Adds iterations to the history.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn add_history(&self, sql: &mut dyn Sql, records: &[Arc<Record>]) -> Result<(), SqlError> {
        for chunk in records.chunks(INSERTED_AT_ONCE) {
            let mut values = Vec::with_capacity(chunk.len() * 4);
            let mut places = Vec::with_capacity(chunk.len());
            for record in chunk {
                let n = values.len();
                places.push(format!("({}, {}, {}, {})", p(sql, n + 1), p(sql, n + 2), p(sql, n + 3), p(sql, n + 4)));
                values.push(self.queue_value());
                values.push(record.update_name.as_str().into());
                values.push(record.started_ms.into());
                values.push(to_json(&**record)?);
            }
            let insert = format!(
                "insert into {}tidegate_history (queue, update_name, started_ms, record) values {}",
                self.schema,
                places.join(", ")
            );
            sql.execute(&insert, &values).await?;
        }
        Ok(())
    }

    /// Drops iterations that are older than the retention. True where some may be left.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn prune_history(&self, sql: &mut dyn Sql, now: SystemTime) -> Result<bool, SqlError> {
        let delete = format!(
            "delete from {schema}tidegate_history where id in (select id from {schema}tidegate_history where queue = {} \
             and started_ms < {} order by started_ms limit {PRUNED_AT_ONCE})",
            p(sql, 1),
            p(sql, 2),
            schema = self.schema,
        );
        let oldest = now.checked_sub(RETENTION).unwrap_or(SystemTime::UNIX_EPOCH);
        let deleted = sql.execute(&delete, &[self.queue_value(), unix_ms(oldest).into()]).await?;
        Ok(deleted >= PRUNED_AT_ONCE as u64)
    }

    /// See [`Database::history`](tidegate::scheduler::database::Database::history).
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn history(
        &self,
        sql: &mut dyn Sql,
        update_name: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Record>, SqlError> {
        if !self.made(sql).await?.own_tables {
            return Ok(Vec::new());
        }
        let mut values = vec![self.queue_value(), i64::from(limit).into()];
        let mut only = String::new();
        if let Some(name) = update_name {
            values.push(name.into());
            only = format!("and update_name = {}", p(sql, 3));
        }
        let select = format!(
            "select record from {}tidegate_history where queue = {} {only} order by id desc limit {}",
            self.schema,
            p(sql, 1),
            p(sql, 2)
        );
        let rows = sql.query(&select, &values).await?;
        rows.iter().map(|row| from_json("record", text(row, 0)?)).collect()
    }
}
