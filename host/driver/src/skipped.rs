//! The table of the keys that updates have skipped: made, written and read.

use std::collections::{BTreeMap, BTreeSet};

use tidegate::scheduler::database::{Resolved, Skipped};
use tidegate::update::cells::{integer, text};
use tidegate::update::sql::{Row, Sql, SqlError, System, Value};

use super::tables::Tables;

/// The table's name.
pub const SKIPPED: &str = "tidegate_skipped";
/// Keys written by one statement at most.
const WRITTEN_AT_ONCE: usize = 50;
/// Keys looked up by one statement at most.
const ASKED_AT_ONCE: usize = 500;

/// Its columns. A key is JSON: an array with the text of each column. It is ordered by its bytes on both databases.
pub(super) fn columns(system: System) -> String {
    let bytes = match system {
        System::Sqlite => "",
        System::Postgres => " collate \"C\"",
    };
    format!(
        "queue text not null, update_name text not null, key text{bytes} not null, code text, message text not null, \
         at_ms bigint not null, primary key (queue, update_name, key)"
    )
}

impl Tables {
    /// What is added to a reading of the state: how many keys each update has skipped. Parameter `queue` is the queue's.
    pub(super) fn counting_skipped(&self, queue: &str) -> String {
        format!(
            "union all select '{COUNT}' || update_name, cast(count(*) as text) from {}{SKIPPED} where queue = {queue} \
             group by update_name",
            self.schema
        )
    }

    /// See [`Database::resolve_skipped`](tidegate::scheduler::database::Database::resolve_skipped).
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn resolve_skipped(
        &self,
        sql: &mut dyn Sql,
        update_name: &str,
        resolved: &Resolved,
    ) -> Result<(), SqlError> {
        if let Some((after, upto)) = &resolved.tried {
            self.forget_skipped_between(sql, update_name, after.as_deref(), upto.as_deref()).await?;
        }
        for chunk in resolved.skipped.chunks(WRITTEN_AT_ONCE) {
            let mut values = Vec::with_capacity(chunk.len() * 6);
            let mut places = Vec::with_capacity(chunk.len());
            for Skipped { key, code, message, at_ms, .. } in chunk {
                let first = values.len() + 1;
                let numbers: Vec<String> = (first..first + 6).map(|number| sql.dialect().parameter(number)).collect();
                places.push(format!("({})", numbers.join(", ")));
                values.extend([self.queue_value(), Value::from(update_name), Value::from(key.as_str())]);
                values.push(code.as_deref().map_or(Value::Null, Value::from));
                values.extend([Value::from(message.as_str()), Value::from(*at_ms)]);
            }
            let insert = format!(
                "insert into {}{SKIPPED} (queue, update_name, key, code, message, at_ms) values {} on conflict \
                 (queue, update_name, key) do update set code = excluded.code, message = excluded.message, \
                 at_ms = excluded.at_ms",
                self.schema,
                places.join(", ")
            );
            sql.execute(&insert, &values).await?;
        }
        Ok(())
    }

    /// Forgets the keys behind one of them, up to another.
    async fn forget_skipped_between(
        &self,
        sql: &mut dyn Sql,
        update_name: &str,
        after: Option<&str>,
        upto: Option<&str>,
    ) -> Result<(), SqlError> {
        let mut values = vec![self.queue_value(), Value::from(update_name)];
        let dialect = sql.dialect();
        let mut delete = format!(
            "delete from {}{SKIPPED} where queue = {} and update_name = {}",
            self.schema,
            dialect.parameter(1),
            dialect.parameter(2)
        );
        for (operator, key) in [(">", after), ("<=", upto)] {
            if let Some(key) = key {
                values.push(Value::from(key));
                delete.push_str(&format!(" and key {operator} {}", dialect.parameter(values.len())));
            }
        }
        sql.execute(&delete, &values).await.map(drop)
    }

    /// See [`Database::skipped`](tidegate::scheduler::database::Database::skipped).
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn skipped(
        &self,
        sql: &mut dyn Sql,
        update_name: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Skipped>, SqlError> {
        let dialect = sql.dialect();
        let mut values = vec![self.queue_value(), Value::from(update_name), Value::from(i64::from(limit))];
        let behind = match after {
            Some(after) => {
                values.push(Value::from(after));
                format!("and key > {}", dialect.parameter(4))
            }
            None => String::new(),
        };
        let select = format!(
            "select key, coalesce(code, ''), message, at_ms from {}{SKIPPED} where queue = {} and update_name = {} {behind} \
             order by key limit {}",
            self.schema,
            dialect.parameter(1),
            dialect.parameter(2),
            dialect.parameter(3)
        );
        let rows = sql.query(&select, &values).await?;
        Ok(rows.into_iter().map(|row| of(update_name, &row)).collect())
    }
}

impl Tables {
    /// See [`Database::skipped_among`](tidegate::scheduler::database::Database::skipped_among).
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn skipped_among(
        &self,
        sql: &mut dyn Sql,
        update_name: &str,
        keys: &[String],
    ) -> Result<BTreeSet<String>, SqlError> {
        let (dialect, mut found) = (sql.dialect(), BTreeSet::new());
        for chunk in keys.chunks(ASKED_AT_ONCE) {
            let places: Vec<String> = (3..3 + chunk.len()).map(|number| dialect.parameter(number)).collect();
            let mut values = vec![self.queue_value(), Value::from(update_name)];
            values.extend(chunk.iter().map(|key| Value::from(key.as_str())));
            let select = format!(
                "select key from {}{SKIPPED} where queue = {} and update_name = {} and key in ({})",
                self.schema,
                dialect.parameter(1),
                dialect.parameter(2),
                places.join(", ")
            );
            let rows = sql.query(&select, &values).await?;
            found.extend(rows.iter().map(|row| text(row, 0).to_owned()));
        }
        Ok(found)
    }
}

/// What a row of [`Tables::counting_skipped`] begins with; the update's name follows.
const COUNT: &str = "skipped/";

/// Takes in a row of [`Tables::counting_skipped`]; false where it is another's.
pub(super) fn counted(key: &str, value: &str, into: &mut BTreeMap<String, u64>) -> bool {
    match (key.strip_prefix(COUNT), value.parse()) {
        (Some(update_name), Ok(number)) => {
            into.insert(update_name.to_owned(), number);
            true
        }
        _ => false,
    }
}

fn of(update_name: &str, row: &Row) -> Skipped {
    Skipped {
        update_name: update_name.to_owned(),
        key: text(row, 0).to_owned(),
        code: Some(text(row, 1).to_owned()).filter(|code| !code.is_empty()),
        message: text(row, 2).to_owned(),
        at_ms: integer(row, 3),
    }
}
