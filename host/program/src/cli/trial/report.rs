//! What was found: the shape of the JSON, and what it comes to for the whole table.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tidegate::scheduler::database::RowCounts;
use tidegate::update::trial::{ColumnChange, Fate, RowChange};

use super::attempt::Done;
use super::refused::Refused;

/// The shape of the JSON.
#[derive(Serialize)]
pub(super) struct Report {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    pub(super) version: u32,
    /// In the configuration's order of databases.
    pub(super) tried: Vec<Told>,
}

/// What was found on a database.
#[derive(Serialize)]
pub(super) struct Told {
    pub(super) database: String,
    pub(super) update: String,
    /// True where it was done as a whole, and not in a batch.
    pub(super) whole: bool,
    pub(super) batches: Vec<Batch>,
    /// What it comes to for all rows; null where nobody knows how many there are, and for what was done as a whole.
    pub(super) estimate: Option<Whole>,
    pub(super) stays: Stays,
}

/// A batch that was done and undone.
#[derive(Serialize)]
pub(super) struct Batch {
    /// Where it began.
    pub(super) at: String,
    pub(super) items: u64,
    pub(super) took_ms: f64,
    /// How long its transaction was open.
    pub(super) held_ms: f64,
    /// The table of `rows`.
    pub(super) table: Option<String>,
    pub(super) rows: Vec<Row>,
    /// The rows that the database refuses, where the update skips such.
    pub(super) skipped: Vec<Skipped>,
    /// Every table whose rows changed.
    pub(super) tables: Vec<Table>,
    pub(super) locks: Vec<Lock>,
    pub(super) log_bytes: Option<u64>,
    pub(super) growth_bytes: u64,
    pub(super) notes: Vec<String>,
    #[serde(skip)]
    page: u64,
}

#[derive(Serialize)]
pub(super) struct Row {
    /// The key's columns with their values.
    pub(super) key: BTreeMap<String, String>,
    /// "inserted", "updated" or "deleted".
    pub(super) fate: &'static str,
    pub(super) columns: Vec<Column>,
    #[serde(skip)]
    pub(super) named: String,
}

#[derive(Serialize)]
pub(super) struct Skipped {
    /// Its key, in the order of its columns.
    pub(super) key: Vec<String>,
    /// The database's own code for what is in the way.
    pub(super) code: Option<String>,
    /// What is in the way, with the values that the database tells.
    pub(super) message: String,
}

#[derive(Serialize)]
pub(super) struct Column {
    pub(super) name: String,
    /// null for NULL, and for a row that was not there.
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Table {
    pub(super) table: String,
    /// null where the database does not count rows of such a table.
    pub(super) inserted: Option<u64>,
    pub(super) updated: Option<u64>,
    pub(super) deleted: Option<u64>,
    pub(super) note: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Lock {
    pub(super) relation: String,
    pub(super) kind: &'static str,
    pub(super) mode: String,
}

/// What it comes to for all rows of the table, by what the batches came to.
#[derive(Serialize)]
pub(super) struct Whole {
    /// Rows of the table.
    pub(super) rows: u64,
    /// Where that is from.
    pub(super) rows_source: &'static str,
    /// The time of the batches alone, without what a controller waits between them.
    pub(super) took_ms: Range,
    pub(super) tables: Vec<TableRange>,
    pub(super) log_bytes: Option<Range>,
    pub(super) log_source: &'static str,
    pub(super) growth_bytes: Range,
    pub(super) growth_source: &'static str,
}

#[derive(Serialize)]
pub(super) struct TableRange {
    pub(super) table: String,
    pub(super) inserted: Range,
    pub(super) updated: Range,
    pub(super) deleted: Range,
}

/// By all batches together, and by those that came to the least and the most a row.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Range {
    pub(super) least: u64,
    pub(super) estimate: u64,
    pub(super) most: u64,
}

/// What a rollback does not undo.
#[derive(Serialize)]
pub(super) struct Stays {
    /// Sequences that have moved on.
    pub(super) sequences: Vec<String>,
    /// Row versions that autovacuum will clear away (PostgreSQL).
    pub(super) dead_rows: u64,
}

impl Told {
    pub(super) fn new(database: &str, update: &str, whole: bool, rows: Option<f64>, done: Vec<(String, Done)>) -> Self {
        let seen = || done.iter().map(|(_, done)| &done.seen);
        let sequences: BTreeSet<String> = seen().flat_map(|seen| seen.sequences.iter().cloned()).collect();
        let stays =
            Stays { sequences: sequences.into_iter().collect(), dead_rows: seen().map(|seen| seen.dead_rows).sum() };
        let sources = seen().next().map_or(("", ""), |seen| (seen.log_source, seen.growth_source));
        let batches: Vec<Batch> = done.into_iter().map(|(at, done)| Batch::new(at, done)).collect();
        let estimate = match rows.filter(|_| !whole) {
            Some(rows) => Whole::new(rows, &batches, sources),
            None => None,
        };
        Self { database: database.to_owned(), update: update.to_owned(), whole, batches, estimate, stays }
    }
}

impl Batch {
    fn new(at: String, done: Done) -> Self {
        let Done { items, took, held, table, rows, skipped, seen, notes } = done;
        let count = |rows: Option<RowCounts>, which: fn(RowCounts) -> u64| rows.map(which);
        let tables = seen.changes.into_iter().map(|change| Table {
            table: change.table,
            inserted: count(change.rows, |rows| rows.inserted),
            updated: count(change.rows, |rows| rows.updated),
            deleted: count(change.rows, |rows| rows.deleted),
            note: change.note,
        });
        let locks = seen.locks.into_iter();
        Self {
            at,
            items,
            took_ms: took.as_secs_f64() * 1e3,
            held_ms: held.as_secs_f64() * 1e3,
            table,
            rows: rows.into_iter().map(Row::from).collect(),
            skipped: skipped.into_iter().map(Skipped::from).collect(),
            tables: tables.collect(),
            locks: locks.map(|lock| Lock { relation: lock.relation, kind: lock.kind, mode: lock.mode }).collect(),
            log_bytes: seen.log,
            growth_bytes: seen.growth,
            notes,
            page: seen.page,
        }
    }

    fn of<'a>(&'a self, table: &str) -> Option<&'a Table> {
        self.tables.iter().find(|found| found.table == table)
    }
}

impl From<Refused> for Skipped {
    fn from(Refused { key, error }: Refused) -> Self {
        Self { key, code: error.code().map(str::to_owned), message: error.in_full() }
    }
}

impl From<RowChange> for Row {
    fn from(change: RowChange) -> Self {
        let named = change.key.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ");
        let fate = match change.fate {
            Fate::Inserted => "inserted",
            Fate::Updated => "updated",
            Fate::Deleted => "deleted",
        };
        let columns = change.columns.into_iter();
        let columns = columns.map(|ColumnChange { name, before, after }| Column { name, before, after }).collect();
        Self { key: change.key.into_iter().collect(), fate, columns, named }
    }
}

impl Whole {
    /// `None` where no batch had a row.
    fn new(rows: f64, batches: &[Batch], (log_source, growth_source): (&'static str, &'static str)) -> Option<Self> {
        let batches: Vec<&Batch> = batches.iter().filter(|batch| batch.items > 0).collect();
        if batches.is_empty() {
            return None;
        }
        let range = |of: &dyn Fn(&Batch) -> f64| Range::of(rows, &batches, of, 0.0);
        let tables: BTreeSet<&String> = batches
            .iter()
            .flat_map(|batch| &batch.tables)
            .filter(|table| table.updated.is_some())
            .map(|table| &table.table)
            .collect();
        let counted = |table: &str, which: fn(&Table) -> Option<u64>| {
            range(&|batch| batch.of(table).and_then(which).unwrap_or(0) as f64)
        };
        let tables = tables.into_iter().map(|table| TableRange {
            table: table.clone(),
            inserted: counted(table, |table| table.inserted),
            updated: counted(table, |table| table.updated),
            deleted: counted(table, |table| table.deleted),
        });
        let log = batches.iter().all(|batch| batch.log_bytes.is_some());
        let page = batches.iter().map(|batch| batch.page).max().unwrap_or(0);
        Some(Self {
            rows: rows.round() as u64,
            rows_source: "the database's statistics, or the range of the key where there are none",
            took_ms: range(&|batch| batch.took_ms),
            tables: tables.collect(),
            log_bytes: log.then(|| range(&|batch| batch.log_bytes.unwrap_or(0) as f64)),
            log_source,
            // A page more or less is chance.
            growth_bytes: Range::of(rows, &batches, &|batch| batch.growth_bytes as f64, page as f64),
            growth_source,
        })
    }
}

impl Range {
    /// What `of` a batch is for so many rows; what each batch tells may be wrong by `chance`.
    fn of(rows: f64, batches: &[&Batch], of: &dyn Fn(&Batch) -> f64, chance: f64) -> Self {
        let each = |change: f64| {
            batches.iter().map(move |batch| (of(batch) + change).max(0.0) / batch.items as f64).collect::<Vec<f64>>()
        };
        let all = batches.iter().map(|batch| of(batch)).sum::<f64>();
        let items = batches.iter().map(|batch| batch.items as f64).sum::<f64>();
        let whole = |a_row: f64| (a_row * rows).round() as u64;
        Self {
            least: whole(each(-chance).into_iter().fold(f64::INFINITY, f64::min)),
            estimate: whole(all / items),
            most: whole(each(chance).into_iter().fold(0.0, f64::max)),
        }
    }
}
