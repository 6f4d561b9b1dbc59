//! What is remembered of a walk's table between two batches, and how it is known that it still holds.
//!
//! The description of a table costs as much as a small batch. So it stays in mind with a token, which is another one as soon
//! as the description may be: each batch that goes by what is remembered compares the token in the same transaction, and
//! before it changes a row. What is remembered is of one connection: behind another there may be another database.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::range::Key;
use super::{Walk, pin};
use crate::update::sql::{Sql, SqlError, System, Table, TableKind, Value};
use crate::update::{ErrorClass, UpdateError};

/// What is remembered of a walk's table.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    known: Option<Known>,
    /// The columns, from the first on, that were the same at both ends of the last batch.
    common: usize,
    /// True where the table had tables below it, of which no token tells.
    above_others: bool,
    /// True where the database refused a statement that does all at once.
    apart: bool,
}

/// What is known of a walk's table.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) table: Arc<Table>,
    pub(super) key: Key,
    /// The types of the columns that the definition names.
    pub(super) named: Arc<BTreeMap<String, String>>,
    /// What must still be so; `None` where that cannot be told.
    pub(super) token: Option<Value>,
    /// True where it was described in this very call.
    fresh: bool,
    connection: Option<u64>,
}

impl Known {
    /// True where it is remembered, and may not hold any more.
    pub(super) fn is_remembered(&self) -> bool {
        !self.fresh
    }

    /// True where the rows can be changed by a part of a greater statement.
    pub(super) fn takes_parts(&self) -> bool {
        let Table { guarded, followed, rules, children, kind, .. } = *self.table;
        !guarded && !followed && !rules && children == 0 && kind == TableKind::Plain
    }
}

impl Memory {
    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is known: it does not hold any more.
    pub(super) fn forget(&self) {
        self.remembered().known = None;
    }

    /// The columns that were the same at both ends of the last batch, and so may be at those of the next.
    pub(super) fn common(&self) -> usize {
        self.remembered().common
    }

    /// True where each statement is to be executed by itself.
    pub(super) fn keeps_apart(&self) -> bool {
        self.remembered().apart
    }

    pub(super) fn note_common(&self, common: usize) {
        self.remembered().common = common;
    }
}

impl Walk {
    /// What is known of the table: what is remembered of it, or how it is described now.
    pub(super) async fn known(&self, sql: &mut dyn Sql) -> Result<Known, UpdateError> {
        let connection = sql.connection();
        let remembered = self.memory.remembered().known.clone();
        if let Some(known) = remembered.filter(|known| connection.is_some() && known.connection == connection) {
            return Ok(known);
        }
        let dialect = sql.dialect();
        // Asked for first: what changes meanwhile makes it another.
        let above_others = self.memory.remembered().above_others;
        let token = match connection {
            Some(_) if !above_others => sql.query(&dialect.token(&self.table), &[]).await?.into_iter().next(),
            _ => None,
        };
        let token = token.and_then(|row| row.into_iter().next()).filter(|token| *token != Value::Null);
        let (table, key) = self.ground(sql).await?;
        let named = Arc::new(pin::columns(&self.definition, dialect.system(), &table));
        // What triggers a table below has, the token does not tell.
        let token = token.filter(|_| table.children == 0);
        let known = Known { table: Arc::new(table), key, named, token, fresh: true, connection };
        self.memory.remembered().above_others = known.table.children > 0;
        if known.token.is_some() {
            self.memory.remembered().known = Some(Known { fresh: false, ..known.clone() });
        }
        Ok(known)
    }

    /// What came of going by what is remembered: an error may be due to that, and the next attempt describes the table anew.
    pub(super) fn by_memory<T>(
        &self,
        known: &Known,
        system: System,
        result: Result<T, UpdateError>,
    ) -> Result<T, UpdateError> {
        let Err(error) = result else { return result };
        // What values are to blame for the table is not.
        if error.is_of_rows() {
            return Err(error);
        }
        self.memory.forget();
        let UpdateError::Sql(error) = error else { return Err(error) };
        let is_refused = system == System::Postgres && error.code.as_deref() == Some(NOT_SUPPORTED);
        // A rule of the table that rows are copied into, say.
        let is_new = is_refused && known.takes_parts() && !std::mem::replace(&mut self.memory.remembered().apart, true);
        let is_due = is_new || known.is_remembered() && is_about_names(system, error.code.as_deref());
        if !is_due {
            return Err(error.into());
        }
        let message =
            format!("{} (table \"{}\" may have been altered, and is looked at anew)", error.message, self.table);
        Err(SqlError { class: ErrorClass::Transient, message, ..error }.into())
    }
}

/// SQLSTATE of what PostgreSQL does not do.
const NOT_SUPPORTED: &str = "0A000";

/// True for what a database says of a statement that speaks of what is not there any more, or is of another type.
fn is_about_names(system: System, code: Option<&str>) -> bool {
    system == System::Postgres && code.is_some_and(|code| code.starts_with("42") || code == NOT_SUPPORTED)
}
