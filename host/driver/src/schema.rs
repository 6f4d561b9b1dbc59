//! How the tables are made and migrated. The queue table is Synapse's: made where it is missing, never altered.

use super::ledger::LEDGER;
use super::skipped::{self, SKIPPED};
use super::tables::Tables;
use tidegate::update::sql::{Sql, SqlError, System, Value};

/// The version of tidegate's own tables that this tidegate makes and works with.
const VERSION: i64 = 1;
/// What hosts that migrate at the same time lock on PostgreSQL, among the database's advisory locks: an arbitrary number.
const MIGRATION_LOCK: i64 = 0x0d1b_5a37_46e2_90c4;

/// tidegate's own tables. The version's comes last: where it is there, the others were made before it.
pub const OWN_TABLES: [&str; 7] =
    ["tidegate_failures", "tidegate_state", "tidegate_history", LEASE, SKIPPED, LEDGER, "tidegate_version"];
/// Those that hosts of before did not make: whoever only looks does without.
const LATER: [&str; 3] = [LEASE, SKIPPED, LEDGER];
/// The one that tells who works here.
pub const LEASE: &str = "tidegate_lease";

/// What stands between a database and its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// Nothing: all tables are there.
    Yes,
    /// Tables are missing or old.
    No,
}

/// Which tables are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// The queue's.
    pub queue_table: bool,
    /// tidegate's own, of whichever version this tidegate can read.
    pub own_tables: bool,
    /// The one of keys that were skipped.
    pub skipped: bool,
}

/// What [`Tables::migrate`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Migrated {
    /// Nothing: another process is at it right now.
    Busy,
    /// It made what was missing, which is this.
    Made(Vec<String>),
}

impl Tables {
    /// Looks which tables are there.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn made(&self, sql: &mut dyn Sql) -> Result<Made, SqlError> {
        let missing = self.missing(sql).await?;
        let own_tables = self.known_version(sql).await? > 0 && missing.iter().all(|table| LATER.contains(table));
        let skipped = own_tables && !missing.contains(&SKIPPED);
        Ok(Made { own_tables, skipped, queue_table: exists(sql, &self.name).await? })
    }

    /// Reads whether [`Tables::migrate`] has anything to do, so that a host which finds all in place needs no lock and
    /// no right to create tables.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn inspect(&self, sql: &mut dyn Sql) -> Result<Prepared, SqlError> {
        let version = self.known_version(sql).await?;
        let ready = version == VERSION && self.missing(sql).await?.is_empty() && exists(sql, &self.name).await?;
        Ok(if ready { Prepared::Yes } else { Prepared::No })
    }

    /// Makes what is missing, in the transaction that `sql` is in.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn migrate(&self, sql: &mut dyn Sql) -> Result<Migrated, SqlError> {
        // Polled rather than waited for: whoever waits holds a snapshot, which would hold up another host's
        // CREATE INDEX CONCURRENTLY. SQLite's transaction is a lock already.
        if sql.dialect().system() == System::Postgres {
            let locked = sql.query("select pg_try_advisory_xact_lock($1)", &[MIGRATION_LOCK.into()]).await?;
            if locked.first().and_then(|row| row.first()).and_then(Value::as_integer) != Some(1) {
                return Ok(Migrated::Busy);
            }
        }
        let mut made = Vec::new();
        if !exists(sql, &self.name).await? {
            let create = format!(
                "create table {} (update_name text not null unique, progress_json text not null, depends_on text, \
                 ordering int not null default 0)",
                self.quoted
            );
            sql.execute(&create, &[]).await?;
            made.push(self.name.clone());
        }
        for table in self.missing(sql).await? {
            sql.script(&self.first_version_of(table, sql.dialect().system())).await?;
            made.push(table.to_owned());
        }
        if self.known_version(sql).await? < VERSION {
            sql.execute(&format!("insert into {}tidegate_version (version) values ({VERSION})", self.schema), &[])
                .await?;
        }
        if made.iter().any(|table| table == LEDGER) {
            self.begin_ledger(sql).await?;
        }
        Ok(Migrated::Made(made))
    }

    /// Those of tidegate's own tables that are not there.
    async fn missing(&self, sql: &mut dyn Sql) -> Result<Vec<&'static str>, SqlError> {
        let mut missing = Vec::new();
        for table in OWN_TABLES {
            if !exists(sql, table).await? {
                missing.push(table);
            }
        }
        Ok(missing)
    }

    /// Makes one of tidegate's own tables as version 1 has it. Columns are named rather than positional everywhere, so that
    /// later versions can add some.
    fn first_version_of(&self, table: &str, system: System) -> String {
        let schema = self.schema;
        let columns = match table {
            SKIPPED => &skipped::columns(system),
            "tidegate_failures" => {
                "queue text not null, update_name text not null, progress text not null, failure text not null, \
                 primary key (queue, update_name)"
            }
            "tidegate_state" => "queue text not null, key text not null, value text not null, primary key (queue, key)",
            "tidegate_history" => {
                let identity = match system {
                    System::Sqlite => "integer primary key",
                    System::Postgres => "bigint generated always as identity primary key",
                };
                return format!(
                    "create table {schema}tidegate_history (id {identity}, queue text not null, update_name text not null, \
                     started_ms bigint not null, record text not null);
                     create index {schema}tidegate_history_started on tidegate_history (queue, started_ms);
                     create index {schema}tidegate_history_update on tidegate_history (queue, update_name, id)"
                );
            }
            LEDGER => return super::ledger::first_version(schema, system),
            LEASE => {
                // Renewed each second, on a page with room for it. What changes when another takes it is in a unique index:
                // PostgreSQL lets a batch's lock on the row stand in the way of that, and not of a renewal.
                let (expiry, options) = match system {
                    System::Sqlite => ("", ""),
                    System::Postgres => (", session int, expires timestamptz not null", " with (fillfactor = 10)"),
                };
                return format!(
                    "create table {schema}tidegate_lease (queue text not null primary key, epoch bigint not null, \
                     holder text not null{expiry}){options};
                     create unique index {schema}tidegate_lease_epoch on tidegate_lease (queue, epoch)"
                );
            }
            _ => "version bigint not null",
        };
        format!("create table {schema}{table} ({columns})")
    }

    /// The version of the tables that are there, where this tidegate knows it; 0 where there are none.
    async fn known_version(&self, sql: &mut dyn Sql) -> Result<i64, SqlError> {
        if !exists(sql, "tidegate_version").await? {
            return Ok(0);
        }
        let rows = sql.query(&format!("select version from {}tidegate_version", self.schema), &[]).await?;
        let version = rows.first().and_then(|row| row.first()).and_then(Value::as_integer).unwrap_or(0);
        if version > VERSION {
            return Err(SqlError::permanent(format!(
                "tidegate's tables in this database were made by a newer tidegate (tables version {version}, this one \
                 knows {VERSION}): use that tidegate or a newer one"
            )));
        }
        Ok(version)
    }
}

/// Whether a table (or a view in its place) is found under a name that is not qualified, temporary ones on SQLite aside.
///
/// # Errors
/// Whatever the database says.
pub async fn exists(sql: &mut dyn Sql, name: &str) -> Result<bool, SqlError> {
    let (select, value) = match sql.dialect().system() {
        System::Sqlite => (
            "select 1 from main.sqlite_schema where type in ('table', 'view') and name = ?1 collate nocase",
            Value::from(name),
        ),
        System::Postgres => {
            ("select 1 where to_regclass($1::text) is not null", Value::from(sql.dialect().quote(name)))
        }
    };
    Ok(!sql.query(select, &[value]).await?.is_empty())
}
