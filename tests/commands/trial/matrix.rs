//! Every kind of update, on every layout of its table, with everything that can happen around it.
//!
//! In each cell the whole table is tried in one batch, and everything is as it was. Then the update is done, and by the rows
//! that are there before and after it is told which tables changed, and by how many rows: what was told has to be just that.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::Value;
use tidegate::update::sql::System;

use super::schemas::{Cell, ROWS, cells};
use super::{catalogue, done, dump, site, tried};
use crate::support::place::Place;

type Dump = BTreeMap<String, BTreeSet<String>>;

/// Row versions that came, and by how many rows a table grew: of each table that changed.
type Changed = BTreeMap<String, Option<(i64, i64)>>;

/// What a dump says.
fn really(before: &Dump, after: &Dump) -> Changed {
    let changed = after.iter().filter(|(table, rows)| before[*table] != **rows);
    let counted = changed.map(|(table, rows)| {
        let came = rows.difference(&before[table]).count() as i64;
        let counts = (came, rows.len() as i64 - before[table].len() as i64);
        // Nobody counts the rows of a virtual table.
        (table.clone(), (table != "words").then_some(counts))
    });
    counted.collect()
}

/// What `try` says.
fn as_told(tried: &Value) -> Changed {
    let mut told = Changed::new();
    for table in tried["batches"][0]["tables"].as_array().unwrap() {
        let [inserted, updated, deleted] = ["inserted", "updated", "deleted"].map(|what| table[what].as_i64());
        let counts = inserted.zip(updated).zip(deleted);
        let counts = counts.map(|((inserted, updated), deleted)| (inserted + updated, inserted - deleted));
        told.insert(table["table"].as_str().unwrap().to_owned(), counts);
    }
    told
}

/// What is wrong in a cell.
async fn judge(cell: Cell) -> Result<(), String> {
    let place = match cell.system {
        System::Sqlite => Place::sqlite(),
        System::Postgres => Place::postgres().await,
    };
    place.run(&cell.schema()).await;
    let site = site(&place, &cell.definition());
    let before = (dump(&place).await, catalogue(&place).await);
    let small = tried(&site, &["--rows", "10", "--at", "0%,50%,random"]).await;
    let told = tried(&site, &["--rows", "1000", "--at", "0%"]).await;
    let after = (dump(&place).await, catalogue(&place).await);
    if before != after {
        return Err(format!("something stays: {before:?} became {after:?}"));
    }
    for batch in small["batches"].as_array().unwrap().iter().chain([&told["batches"][0]]) {
        if batch["items"] == 0 || batch["took_ms"].as_f64().is_none() {
            return Err(format!("a batch of no rows: {batch}"));
        }
    }
    // Where rows have no numbers, no place is known but the first.
    let first = |batch: usize| small["batches"][batch]["rows"][0]["key"]["k"].as_str()?.parse::<u32>().ok();
    let known = cell.kind == "backfill" && cell.layout != "without_rowid";
    if known && (first(0) != Some(1) || !first(1).is_some_and(|middle| (ROWS / 3..ROWS * 2 / 3).contains(&middle))) {
        return Err(format!("the places are elsewhere: {small}"));
    }
    done(&site).await;
    let (really, told_changed) = (really(&before.0, &dump(&place).await), as_told(&told));
    if really != told_changed {
        return Err(format!("told {told_changed:?}, and what happened is {really:?}"));
    }
    // The rows of the update's own table, one by one.
    let rows = told["batches"][0]["rows"].as_array().unwrap();
    let fates: BTreeSet<&str> = rows.iter().map(|row| row["fate"].as_str().unwrap()).collect();
    let (fate, count) = match cell.kind {
        "backfill" | "batch" => ("updated", ROWS),
        "copy" => ("inserted", ROWS),
        "delete" => ("deleted", ROWS / 2),
        _ => ("deleted", ROWS - 39),
    };
    if fates != BTreeSet::from([fate]) || rows.len() != count as usize {
        return Err(format!("{} rows are {fates:?}, and not {count} {fate}", rows.len()));
    }
    Ok(())
}

async fn judge_all(system: System) {
    let only = std::env::var("TIDEGATE_CELL").unwrap_or_default();
    let named = |cell: &Cell| format!("{}/{}/{}", cell.kind, cell.layout, cell.side);
    let cells = cells(system).into_iter().filter(|cell| named(cell).contains(&only));
    let judged = stream::iter(cells).map(|cell| async move { (named(&cell), judge(cell).await) });
    let judged: Vec<_> = judged.buffer_unordered(4).collect().await;
    let wrong: Vec<String> =
        judged.iter().filter_map(|(cell, judged)| Some(format!("{cell}: {}", judged.as_ref().err()?))).collect();
    assert!(!judged.is_empty() && wrong.is_empty(), "{} of {} cells:\n{}", wrong.len(), judged.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_is_what_happens_and_nothing_stays_on_sqlite() {
    judge_all(System::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_is_what_happens_and_nothing_stays_on_postgres() {
    judge_all(System::Postgres).await;
}
