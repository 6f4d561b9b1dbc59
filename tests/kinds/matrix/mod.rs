//! The conformance matrix: each kind of update on each schema of each database, with an application that inserts, edits and
//! deletes rows all the while. Each cell is right by SQL of the test's own, or refused, or stops at the rows that it cannot
//! change, as the schema's data say.
//!
//! `TIDEGATE_SEED` sets the seed; `TIDEGATE_CELL` names cells to do alone, each as `kind/schema/database/seed`, of which
//! parts may be left out at the end or be "*".

mod cell;
mod plain;
mod schemas;
mod update;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use tidegate::update::sql::System;

use self::cell::{Cell, Outcome, ROLE, Without, system_name};
use self::update::Kind;
use crate::support::pgbouncer::Pooler;
use crate::support::place::Place;
use crate::support::postgres;

const SEED: u64 = 7;
/// Cells that are done at the same time.
const AT_ONCE: usize = 6;

/// All cells, of which `wanted` says which to do.
fn cells(seed: u64, wanted: &str) -> Vec<Cell> {
    let parts: Vec<&str> = wanted.split('/').collect();
    let wants = |part: usize, name: &str| parts.get(part).is_none_or(|wanted| ["", "*", name].contains(wanted));
    let seed = parts.get(3).and_then(|seed| seed.parse().ok()).unwrap_or(seed);
    let mut cells = Vec::new();
    for system in [System::Sqlite, System::Postgres] {
        for schema in schemas::of(system) {
            for kind in Kind::ALL {
                if wants(0, kind.name()) && wants(1, schema.name) && wants(2, system_name(system)) {
                    cells.push(Cell { kind, schema, system, seed });
                }
            }
        }
    }
    cells
}

/// The role that updates are done as, where that is not the superuser.
async fn make_role() {
    let place = Place::postgres().await;
    let client = postgres::connect(&place.url).await;
    client
        .batch_execute(&format!(
            "DO $$ BEGIN CREATE ROLE {ROLE} LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        ))
        .await
        .unwrap();
}

/// Does cells, several at once, each on a database that no other uses meanwhile.
async fn run(cells: Vec<Cell>, without: Without) -> Vec<(Cell, Result<Outcome, String>)> {
    if cells.iter().any(|cell| cell.system == System::Postgres) {
        make_role().await;
    }
    let waiting = Arc::new(Mutex::new(VecDeque::from(cells)));
    let workers = (0..AT_ONCE).map(|_| {
        let waiting = Arc::clone(&waiting);
        tokio::spawn(async move {
            let (mut done, mut kept) = (Vec::new(), None);
            loop {
                let Some(cell) = waiting.lock().unwrap().pop_front() else { return done };
                let place = match cell.system {
                    System::Sqlite => Arc::new(Place::sqlite()),
                    System::Postgres => match &kept {
                        Some(place) => Arc::clone(place),
                        None => Arc::clone(kept.insert(Arc::new(Place::postgres().await))),
                    },
                };
                done.push((cell, cell.run(place, without).await));
            }
        })
    });
    let mut done = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        done.extend(worker.await.unwrap());
    }
    done
}

/// The table of all outcomes: a line for each schema, a column for each kind.
fn table(done: &[(Cell, Result<Outcome, String>)]) -> String {
    let mut lines: BTreeMap<(&str, &str), BTreeMap<&str, &str>> = BTreeMap::new();
    for (cell, outcome) in done {
        let word = match outcome {
            Ok(Outcome::Right) => "ok",
            Ok(Outcome::Refused) => "refused",
            Ok(Outcome::Stopped) => "stops",
            Ok(Outcome::Skipped) => "-",
            Err(_) => "FAIL",
        };
        lines.entry((system_name(cell.system), cell.schema.name)).or_default().insert(cell.kind.name(), word);
    }
    let mut table = format!("{:<42}", "");
    Kind::ALL.iter().for_each(|kind| write!(table, "{:<20}", kind.name()).unwrap());
    for ((system, schema), words) in lines {
        write!(table, "\n{:<42}", format!("{system} {schema}")).unwrap();
        for kind in Kind::ALL {
            write!(table, "{:<20}", words.get(kind.name()).unwrap_or(&"")).unwrap();
        }
    }
    table
}

fn failures(done: &[(Cell, Result<Outcome, String>)]) -> String {
    let failed = done.iter().filter_map(|(cell, outcome)| Some((cell, outcome.as_ref().err()?)));
    failed.map(|(cell, error)| format!("\nTIDEGATE_CELL=\"{cell}\":\n  {error}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn every_kind_is_right_on_every_schema_or_says_why_not() {
    let wanted = std::env::var("TIDEGATE_CELL").unwrap_or_default();
    let seed = std::env::var("TIDEGATE_SEED").map_or(SEED, |seed| seed.parse().expect("TIDEGATE_SEED is a number"));
    let cells = cells(seed, &wanted);
    assert!(!cells.is_empty(), "no cell is called \"{wanted}\"");
    println!("seed {}", cells[0].seed);
    let done = run(cells, Without::Nothing).await;
    println!("{}", table(&done));
    let failures = failures(&done);
    assert!(failures.is_empty(), "{failures}");
}

/// Without a session of its own, and with neighbours who set the sessions that it is given to whatever leads astray.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn every_kind_is_right_through_a_pooler_in_transaction_mode() {
    const SCHEMAS: [&str; 8] =
        ["plain", "quoted", "child", "rls-forced", "rls-bypassed", "trigger-skips", "key-composite", "key-timestamptz"];
    let wanted = std::env::var("TIDEGATE_CELL").unwrap_or_default();
    let mut cells = cells(SEED, &wanted);
    // An index is built through no such pooler.
    cells.retain(|cell| {
        let known = SCHEMAS.contains(&cell.schema.name) || !wanted.is_empty();
        cell.system == System::Postgres && cell.kind != Kind::CreateIndex && known
    });
    let lines = "default_pool_size = 3\nserver_round_robin = 1\nmax_client_conn = 1000\nserver_login_retry = 0";
    let pooler = Pooler::start(&Place::postgres().await.url, "transaction", lines);
    let done = run(cells, Without::Session(pooler.port())).await;
    println!("{}", table(&done));
    let failures = failures(&done);
    assert!(failures.is_empty(), "{failures}");
}

/// What the matrix says of cells where a safety measure is taken out; more seeds are tried where it says nothing, since who
/// writes when is for the machine to decide.
async fn found(without: Without, wanted: &str) -> String {
    const SEEDS: u64 = 10;
    for seed in SEED..SEED + SEEDS {
        let failures = failures(&run(cells(seed, wanted), without).await);
        if !failures.is_empty() {
            return failures;
        }
    }
    panic!("the matrix does not notice that {without:?} is taken out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_walk_without_its_end_is_found() {
    for (cell, wrong) in [
        ("backfill/plain/sqlite", "a row was changed that came in beyond the walk's end"),
        ("backfill/plain/postgres", "a row was changed that came in beyond the walk's end"),
        ("copy/plain/sqlite", "a row was copied that came in beyond the walk's end"),
        ("copy/plain/postgres", "a row was copied that came in beyond the walk's end"),
    ] {
        let found = found(Without::End, cell).await;
        assert!(found.contains(wrong), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn policies_that_hide_rows_are_found() {
    for (cell, wrong) in [
        ("backfill/rls-enabled/postgres", "a row was left as it was"),
        ("delete/rls-forced/postgres", "a row was not deleted"),
        ("copy/rls-enabled/postgres", "a row was not copied"),
        ("sql/rls-enabled/postgres", "a note was not moved"),
    ] {
        let found = found(Without::RowSecurity, cell).await;
        assert!(found.contains(wrong), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn statements_that_see_different_rows_are_found() {
    for cell in ["batch/plain/postgres", "sql/plain/postgres"] {
        let found = found(Without::Snapshot, cell).await;
        let lost =
            ["what the application wrote last is not there", "a note was moved and is there still, or its row is gone"];
        assert!(lost.iter().any(|lost| found.contains(lost)), "{found}");
    }
}
