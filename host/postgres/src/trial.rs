//! A transaction that is rolled back in any case, and what the server says of it meanwhile.
//!
//! The server counts the rows that each table's transaction changes (`pg_stat_xact_user_tables`), triggers, cascades, rules and
//! partitions included; what was counted before in the same session is subtracted. Its locks say which sequences were drawn
//! from, and which tables were changed whose rows nobody counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidegate::update::cells::{integer, text};

use async_trait::async_trait;

use super::held::Held;
use super::settings::Isolation;
use tidegate::scheduler::database::{Interrupt, RowCounts, Seen, TableChange, TrialTransaction};
use tidegate::scheduler::trial::Lock;
use tidegate::update::Opening;
use tidegate::update::sql::{Sql, SqlError};

/// What the transaction, and what stands uncounted of the session's earlier ones, did to tables.
const COUNTS: &str = "\
select x.relid::bigint, x.relid::regclass::text, x.n_tup_ins, x.n_tup_upd, x.n_tup_del
from pg_catalog.pg_stat_xact_user_tables x where x.n_tup_ins + x.n_tup_upd + x.n_tup_del > 0";

/// The size of everything that has files, but of what others have locked: a look at its size would wait for them.
const SIZES: &str = "\
select c.oid::bigint, pg_catalog.pg_relation_size(c.oid),
       coalesce((select i.indrelid from pg_catalog.pg_index i where i.indexrelid = c.oid), c.oid)::bigint
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm', 'i', 't') and c.relpersistence <> 't'
  and n.nspname not in ('pg_catalog', 'information_schema')
  and not exists (select from pg_catalog.pg_locks l where l.relation = c.oid and l.mode = 'AccessExclusiveLock'
      and l.pid <> pg_catalog.pg_backend_pid())";

/// Which table each TOAST table belongs to.
const TOASTS: &str = "\
select c.reltoastrelid::bigint, c.oid::bigint from pg_catalog.pg_class c where c.reltoastrelid <> 0";

/// The locks of the transaction on what is the application's.
const LOCKS: &str = "\
select c.oid::bigint, c.oid::regclass::text, c.relkind::text, l.mode
from pg_catalog.pg_locks l join pg_catalog.pg_class c on c.oid = l.relation
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where l.pid = pg_catalog.pg_backend_pid() and l.granted and l.locktype = 'relation'
  and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
  and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
order by 2, 4";

/// How far the write-ahead log has come, and whether rows are counted.
const LOG: &str = "\
select (pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_catalog.pg_lsn)::bigint,
       pg_catalog.current_setting('track_counts')";

/// A transaction that is only ever rolled back.
pub(super) struct Trial {
    held: Held,
    before: Before,
}

/// What was there before.
#[derive(Default)]
struct Before {
    counts: BTreeMap<i64, RowCounts>,
    sizes: BTreeMap<i64, i64>,
    log: i64,
}

impl Trial {
    /// Begins it, as the batch of a handler that needs it opened so.
    pub(super) async fn begin(mut held: Held, opening: Opening) -> Result<Self, SqlError> {
        let isolation = match opening {
            Opening::Snapshot | Opening::Rebuild if !held.connection().serializable => Isolation::Snapshot,
            _ => Isolation::Usual,
        };
        // Statements of others may deallocate what is prepared. What they set is undone with the transaction, and nobody uses
        // the connection afterwards.
        held.connection().prepare_nothing();
        held.begin_with(isolation, "select 1", &[]).await?;
        Ok(Self { held, before: Before::default() })
    }

    async fn counts(&mut self) -> Result<BTreeMap<i64, (String, RowCounts)>, SqlError> {
        let rows = self.held.query(COUNTS, &[]).await?;
        let counted = rows.iter().map(|row| {
            let [inserted, updated, deleted] = [2, 3, 4].map(|at| u64::try_from(integer(row, at)).unwrap_or(0));
            (integer(row, 0), (text(row, 1).to_owned(), RowCounts { inserted, updated, deleted }))
        });
        Ok(counted.collect())
    }

    /// The sizes of relations, each with the table that it is an index of, or itself.
    async fn sizes(&mut self) -> Result<Vec<(i64, i64, i64)>, SqlError> {
        let rows = self.held.query(SIZES, &[]).await?;
        Ok(rows.iter().map(|row| (integer(row, 0), integer(row, 1), integer(row, 2))).collect())
    }

    /// By how much the files of these tables have grown, with their indexes and what is stored apart.
    async fn growth(&mut self, tables: &BTreeSet<i64>) -> Result<u64, SqlError> {
        let toasts = self.held.query(TOASTS, &[]).await?;
        let toasts: BTreeMap<i64, i64> = toasts.iter().map(|row| (integer(row, 0), integer(row, 1))).collect();
        let mut growth = 0;
        for (relation, size, of) in self.sizes().await? {
            let table = toasts.get(&of).copied().unwrap_or(of);
            let Some(before) = self.before.sizes.get(&relation).filter(|_| tables.contains(&table)) else { continue };
            growth += u64::try_from(size - before).unwrap_or(0);
        }
        Ok(growth)
    }
}

#[async_trait]
impl TrialTransaction for Trial {
    async fn watch(&mut self) -> Result<(), SqlError> {
        let counts = self.counts().await?.into_iter().map(|(table, (_, counts))| (table, counts)).collect();
        let sizes = self.sizes().await?.into_iter().map(|(relation, size, _)| (relation, size)).collect();
        let log = self.held.query(LOG, &[]).await?;
        self.before = Before { counts, sizes, log: log.first().map_or(0, |row| integer(row, 0)) };
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), SqlError> {
        let settled = self.held.script("set constraints all immediate").await;
        settled.map_err(|error| SqlError { deferred: true, ..error })
    }

    async fn seen(&mut self) -> Result<Seen, SqlError> {
        self.settle().await?;
        let log = self.held.query(LOG, &[]).await?;
        let mut changed = BTreeMap::new();
        let mut dead_rows = 0;
        for (relation, (table, now)) in self.counts().await? {
            let before = self.before.counts.get(&relation).copied().unwrap_or_default();
            let rows = RowCounts {
                inserted: now.inserted.saturating_sub(before.inserted),
                updated: now.updated.saturating_sub(before.updated),
                deleted: now.deleted.saturating_sub(before.deleted),
            };
            if rows != RowCounts::default() {
                dead_rows += rows.inserted + rows.updated;
                changed.insert(relation, TableChange { table, rows: Some(rows), note: None });
            }
        }
        let (mut locks, mut sequences, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let is_counted = log.first().map(|row| text(row, 1).to_owned()).as_deref() == Some("on");
        if !is_counted {
            notes.push(
                "the server counts no rows (track_counts is off): which tables changed is told by their locks"
                    .to_owned(),
            );
        }
        for row in &self.held.query(LOCKS, &[]).await? {
            let (relation, name, kind, mode) =
                (integer(row, 0), text(row, 1).to_owned(), text(row, 2).to_owned(), text(row, 3).to_owned());
            let note = match (kind.as_str(), mode.as_str()) {
                ("f", "RowExclusiveLock") => "a table of another server, whose rows nobody counts here",
                ("r" | "m", "AccessExclusiveLock") => "emptied, altered or made anew",
                ("r", "RowExclusiveLock") if !is_counted => "changed, or to be changed",
                _ => "",
            };
            if !note.is_empty() {
                let change = TableChange { table: name.clone(), rows: None, note: None };
                changed.entry(relation).or_insert(change).note = Some(note.to_owned());
            }
            match kind.as_str() {
                "S" => sequences.push(name),
                kind => locks.push(Lock { relation: name, kind: words(kind), mode }),
            }
        }
        sequences.dedup();
        let growth = self.growth(&changed.keys().copied().collect()).await?;
        let mut changes: Vec<TableChange> = changed.into_values().collect();
        changes.sort_by(|one, other| one.table.cmp(&other.table));
        let log = log.first().map_or(0, |row| integer(row, 0)) - self.before.log;
        Ok(Seen {
            changes,
            locks,
            sequences,
            log: u64::try_from(log).ok(),
            log_source: "write-ahead log, by pg_current_wal_insert_lsn() before and after: with what others wrote meanwhile",
            growth,
            page: 8192,
            growth_source: "sizes of the tables, their indexes and TOAST, in pages of 8 KiB",
            dead_rows,
            notes,
        })
    }

    async fn rollback(mut self: Box<Self>) -> Result<(), SqlError> {
        self.held.end("rollback").await
    }

    fn interrupter(&self) -> Arc<dyn Interrupt> {
        self.held.interrupter()
    }

    fn as_sql(&mut self) -> &mut dyn Sql {
        &mut self.held
    }
}

/// What a relation is.
fn words(kind: &str) -> &'static str {
    match kind {
        "r" => "table",
        "p" => "partitioned table",
        "i" => "index",
        "I" => "partitioned index",
        "v" => "view",
        "m" => "materialized view",
        "f" => "foreign table",
        "c" => "type",
        _ => "relation",
    }
}
