//! How the tables are made and migrated. The queue table is Synapse's: made where it is missing, never altered.

use super::tables::Tables;
use crate::update::sql::{Sql, SqlError, System, Value};

/// The version of tidegate's own tables that this tidegate makes and works with.
const VERSION: i64 = 1;
/// What hosts that migrate at the same time lock on PostgreSQL, among the database's advisory locks: an arbitrary number.
const MIGRATION_LOCK: i64 = 0x0d1b_5a37_46e2_90c4;

/// What stands between a database and its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// Nothing: all tables are there.
    Yes,
    /// Tables are missing or old.
    No,
}

/// Which tables are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    /// The queue's.
    pub(crate) queue_table: bool,
    /// tidegate's own, of whichever version this tidegate can read.
    pub(crate) own_tables: bool,
}

impl Tables {
    /// Looks which tables are there.
    pub(crate) async fn made(&self, sql: &mut dyn Sql) -> Result<Made, SqlError> {
        Ok(Made { own_tables: known_version(sql).await? > 0, queue_table: exists(sql, &self.name).await? })
    }

    /// Reads whether [`Tables::migrate`] has anything to do, so that a host which finds all in place needs no lock and
    /// no right to create tables.
    pub(crate) async fn inspect(&self, sql: &mut dyn Sql) -> Result<Prepared, SqlError> {
        let version = known_version(sql).await?;
        let ready = version == VERSION && exists(sql, &self.name).await?;
        Ok(if ready { Prepared::Yes } else { Prepared::No })
    }

    /// Makes what is missing, in the transaction that `sql` is in. False where another process is at it right now.
    pub(crate) async fn migrate(&self, sql: &mut dyn Sql) -> Result<bool, SqlError> {
        // Polled rather than waited for: whoever waits holds a snapshot, which would hold up another host's
        // CREATE INDEX CONCURRENTLY. SQLite's transaction is a lock already.
        if sql.dialect().system() == System::Postgres {
            let locked = sql.query("select pg_try_advisory_xact_lock($1)", &[MIGRATION_LOCK.into()]).await?;
            if locked.first().and_then(|row| row.first()).and_then(Value::as_integer) != Some(1) {
                return Ok(false);
            }
        }
        if self.inspect(sql).await? == Prepared::Yes {
            return Ok(true);
        }
        if !exists(sql, &self.name).await? {
            let create = format!(
                "create table {} (update_name text not null unique, progress_json text not null, depends_on text, \
                 ordering int not null default 0)",
                self.quoted
            );
            sql.execute(&create, &[]).await?;
        }
        if version(sql).await? < 1 {
            sql.script(&first_version(sql.dialect().system())).await?;
        }
        Ok(true)
    }
}

/// The tables of version 1. Named rather than positional everywhere, so that later versions can add columns.
fn first_version(system: System) -> String {
    let identity = match system {
        System::Sqlite => "integer primary key",
        System::Postgres => "bigint generated always as identity primary key",
    };
    format!(
        "create table tidegate_version (version bigint not null);
         create table tidegate_failures (
             queue text not null, update_name text not null, progress text not null, failure text not null,
             primary key (queue, update_name)
         );
         create table tidegate_state (
             queue text not null, key text not null, value text not null, primary key (queue, key)
         );
         create table tidegate_history (
             id {identity}, queue text not null, update_name text not null, started_ms bigint not null,
             record text not null
         );
         create index tidegate_history_started on tidegate_history (queue, started_ms);
         create index tidegate_history_update on tidegate_history (queue, update_name, id);
         insert into tidegate_version (version) values (1);"
    )
}

/// The version of the tables that are there; 0 where there are none.
async fn version(sql: &mut dyn Sql) -> Result<i64, SqlError> {
    if !exists(sql, "tidegate_version").await? {
        return Ok(0);
    }
    let rows = sql.query("select version from tidegate_version", &[]).await?;
    Ok(rows.first().and_then(|row| row.first()).and_then(Value::as_integer).unwrap_or(0))
}

/// The same, where this tidegate knows that version.
async fn known_version(sql: &mut dyn Sql) -> Result<i64, SqlError> {
    let version = version(sql).await?;
    if version > VERSION {
        return Err(SqlError::permanent(format!(
            "tidegate's tables in this database were made by a newer tidegate (tables version {version}, this one \
             knows {VERSION}): use that tidegate or a newer one"
        )));
    }
    Ok(version)
}

/// Whether a table (or a view in its place) is found under a name that is not qualified.
pub(super) async fn exists(sql: &mut dyn Sql, name: &str) -> Result<bool, SqlError> {
    let (select, value) = match sql.dialect().system() {
        System::Sqlite => (
            "select 1 from sqlite_schema where type in ('table', 'view') and name = ?1 collate nocase",
            Value::from(name),
        ),
        System::Postgres => {
            ("select 1 where to_regclass($1::text) is not null", Value::from(sql.dialect().quote(name)))
        }
    };
    Ok(!sql.query(select, &[value]).await?.is_empty())
}
