//! What was found, as people read it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use indicatif::HumanBytes;

use super::super::output::{count, duration, inline};
use super::report::{Batch, Column, Range, Row, Skipped, Table, Told, Whole};

/// Rows of a batch that are shown.
const SHOWN: usize = 3;

/// What was found on a database.
pub(super) fn told(told: &Told) -> String {
    let mut text = format!(
        "update \"{}\" on database \"{}\": tried, and rolled back\n",
        inline(&told.update),
        inline(&told.database)
    );
    for batch in &told.batches {
        let _ = write!(text, "\n{}", self::batch(batch, told.whole));
    }
    text.push_str(&whole(told));
    text.push_str(&stays(told));
    text.trim_end().to_owned()
}

fn batch(batch: &Batch, whole: bool) -> String {
    let took = milliseconds(batch.took_ms);
    let mut text = match whole {
        true => format!("as a whole: {took}, locks held for {}\n", milliseconds(batch.held_ms)),
        false => format!(
            "at {}: {} in {took}, locks held for {}\n",
            inline(&batch.at),
            number(batch.items, "row"),
            milliseconds(batch.held_ms)
        ),
    };
    if let Some(table) = &batch.table {
        let changed = batch.rows.len() as u64;
        let _ = writeln!(text, "  {}: {} of the batch changed", inline(table), number(changed, "row"));
        for row in batch.rows.iter().take(SHOWN) {
            text.push_str(&self::row(row));
        }
        if let Some(more) = changed.checked_sub(SHOWN as u64).filter(|more| *more > 0) {
            let _ = writeln!(text, "    … and {} more (all of them with --json)", count(more));
        }
    }
    if !batch.skipped.is_empty() {
        let skipped = batch.skipped.len() as u64;
        let _ = writeln!(text, "  refused by the database, and would be skipped: {}", number(skipped, "row"));
        for Skipped { key, code, message } in batch.skipped.iter().take(SHOWN) {
            let code = code.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
            let _ = writeln!(text, "    key {}: {}", inline(&key.join(", ")), inline(&format!("{message}{code}")));
        }
        if let Some(more) = skipped.checked_sub(SHOWN as u64).filter(|more| *more > 0) {
            let _ = writeln!(text, "    … and {} more (all of them with --json)", count(more));
        }
    }
    let _ = writeln!(text, "  tables changed: {}", listed(batch.tables.iter().map(table), "none"));
    let mut locks: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for lock in batch.locks.iter().filter(|lock| !lock.kind.ends_with("index")) {
        locks.entry(&lock.relation).or_default().push(&lock.mode);
    }
    let locks = locks.into_iter().map(|(relation, modes)| format!("{} ({})", inline(relation), modes.join(", ")));
    let _ = writeln!(text, "  locks: {}", listed(locks, "none"));
    let log = batch.log_bytes.map_or_else(|| "not known".to_owned(), |log| a_row(log, batch.items));
    let _ = writeln!(text, "  log: {log}; growth: {}", HumanBytes(batch.growth_bytes));
    for note in &batch.notes {
        let _ = writeln!(text, "  note: {}", inline(note));
    }
    text
}

fn row(row: &Row) -> String {
    let mut text = format!("    {}: {}\n", inline(&row.named), row.fate);
    for Column { name, before, after } in &row.columns {
        let value = |value: &Option<String>| value.as_ref().map_or_else(|| "NULL".to_owned(), |value| quoted(value));
        let change = match row.fate {
            "inserted" => value(after),
            "deleted" => value(before),
            _ => format!("{} -> {}", value(before), value(after)),
        };
        let _ = writeln!(text, "      {}: {change}", inline(name));
    }
    text
}

fn table(table: &Table) -> String {
    let mut parts: Vec<String> = [(table.inserted, "inserted"), (table.updated, "updated"), (table.deleted, "deleted")]
        .into_iter()
        .filter_map(|(rows, what)| Some(format!("{} {what}", count(rows.filter(|rows| *rows > 0)?))))
        .collect();
    parts.extend(table.note.iter().map(|note| inline(note)));
    format!("{} ({})", inline(&table.table), parts.join(", "))
}

fn whole(told: &Told) -> String {
    let Some(Whole { rows, rows_source, took_ms, tables, log_bytes, log_source, growth_bytes, growth_source }) =
        &told.estimate
    else {
        return match told.whole {
            true => String::new(),
            false => "\nthe whole table: how many rows it has is not known; run ANALYZE\n".to_owned(),
        };
    };
    let mut text = format!("\nthe whole table: about {} ({rows_source})\n", number(*rows, "row"));
    let time = |ms: u64| duration(Duration::from_millis(ms));
    let bytes = |bytes: u64| HumanBytes(bytes).to_string();
    let _ = writeln!(text, "  time: {}, without pauses between batches", range(*took_ms, time));
    for table in tables {
        let each = [(table.inserted, "inserted"), (table.updated, "updated"), (table.deleted, "deleted")];
        for (changed, what) in each.into_iter().filter(|(changed, _)| changed.most > 0) {
            let _ = writeln!(text, "  rows {what} in {}: {}", inline(&table.table), range(changed, count));
        }
    }
    match log_bytes {
        Some(log) => drop(writeln!(text, "  log: {} ({log_source})", range(*log, bytes))),
        None => drop(writeln!(text, "  log: not known ({log_source})")),
    }
    let _ = writeln!(text, "  growth: {} ({growth_source})", range(*growth_bytes, bytes));
    text
}

fn stays(told: &Told) -> String {
    let mut stays: Vec<String> =
        told.stays.sequences.iter().map(|name| format!("sequence {} has moved on", inline(name))).collect();
    if told.stays.dead_rows > 0 {
        stays.push(format!("{} for autovacuum to clear away", number(told.stays.dead_rows, "dead row version")));
    }
    format!("\nwhat stays behind: {}\n", listed(stays.into_iter(), "nothing"))
}

/// A value as it stands in a line, told from NULL and from others by its quotation marks.
fn quoted(value: &str) -> String {
    format!("'{}'", inline(value))
}

fn range(range: Range, told: impl Fn(u64) -> String) -> String {
    let Range { least, estimate, most } = range;
    match least == most {
        true => told(estimate),
        false => format!("{} ({} to {})", told(estimate), told(least), told(most)),
    }
}

fn a_row(bytes: u64, items: u64) -> String {
    match bytes.checked_div(items) {
        Some(each) => format!("{each} bytes a row"),
        None => HumanBytes(bytes).to_string(),
    }
}

fn number(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

fn listed(parts: impl Iterator<Item = String>, none: &str) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { none.to_owned() } else { parts.join(", ") }
}

fn milliseconds(milliseconds: f64) -> String {
    match milliseconds < 10.0 {
        true => format!("{milliseconds:.1}ms"),
        false => duration(Duration::try_from_secs_f64(milliseconds / 1e3).unwrap_or_default()),
    }
}
