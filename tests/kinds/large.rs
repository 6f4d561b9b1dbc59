//! Walks over a large table whose rows lie in no order: each batch reads its own rows, whatever PostgreSQL's statistics say.

use tidegate::update::sql::System;
use tidegate::update::{
    Backfill, BackfillDefinition, Batch, BatchDefinition, Copy, CopyColumn, CopyDefinition, CopySource, Delete,
    DeleteDefinition, Handler, OnConflict,
};

use super::subject::{Driven, Subject, UPDATE, names, table};
use crate::support::place::Place;
use crate::support::postgres::{Server, Settings};

const ROWS: u64 = 1_000_000;
const ITEMS: u64 = 1_000;
/// What a batch reads at most: each of its rows once to find the last and once to change it, some of them in vain where the
/// batch goes on to another value of the key's first column, and what the host asks beside. All of the table has some 45,000
/// pages, and an index some 2,700.
const BUFFERS: u64 = 3 * ITEMS;
/// After so many executions PostgreSQL makes one plan for all values.
const EXECUTIONS: usize = 6;

/// Rows of 300 bytes and more: the first column of a key is the same in all of them, one of ten, or its own in each.
const MAKE: &str = "CREATE UNLOGGED TABLE wide (one integer NOT NULL, few integer NOT NULL, many integer NOT NULL, \
        serial integer NOT NULL, pad text) WITH (autovacuum_enabled = off);
    CREATE UNIQUE INDEX ON wide (one, serial); CREATE UNIQUE INDEX ON wide (few, serial);
    CREATE UNIQUE INDEX ON wide (many, serial); CREATE UNIQUE INDEX ON wide (serial);
    CREATE TABLE target (serial integer NOT NULL);";

/// The rows from a number to another, in the order of a hash.
fn insert(from: u64, to: u64) -> String {
    format!(
        "INSERT INTO wide SELECT 1, n % 10, n, n, repeat('x', 300) FROM generate_series({from}, {to}) AS n \
         ORDER BY hashint4(n)"
    )
}

/// The kinds that walk, each with a condition that no row meets: what is counted is what they read.
fn handlers(key: &[&str]) -> Vec<Box<dyn Handler>> {
    let (wide, key) = (table("wide"), names(key));
    let filter = "pad = 'nothing'".to_owned();
    let (set, columns) =
        ("pad = 'y'".to_owned(), vec![CopyColumn { target: "serial".to_owned(), source: CopySource::SameName }]);
    vec![
        Box::new(Backfill::new(BackfillDefinition {
            table: wide.clone(),
            key: key.clone(),
            set,
            filter: Some(filter.clone()),
        })),
        Box::new(Delete::new(DeleteDefinition { table: wide.clone(), key: key.clone(), filter: filter.clone() })),
        Box::new(Copy::new(CopyDefinition {
            table: wide.clone(),
            key: key.clone(),
            into: table("target"),
            columns,
            filter: Some("serial < 0".to_owned()),
            on_conflict: OnConflict::Ignore,
        })),
        Box::new(Batch::new(
            BatchDefinition { table: wide, key, sql: format!("UPDATE wide SET pad = 'y' WHERE {filter} AND :range") },
            System::Postgres,
        )),
    ]
}

/// Pages that statements have read since they were last counted.
async fn buffers(subject: &Subject) -> u64 {
    let read = "SELECT sum(shared_blks_hit + shared_blks_read)::bigint::text FROM pg_stat_statements \
                WHERE query LIKE '%wide%' AND query NOT LIKE '%pg_stat%'";
    let read = subject.value(read).await.parse().unwrap();
    subject.rows("SELECT pg_stat_statements_reset()::text").await;
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn every_batch_in_the_middle_of_a_large_table_reads_its_own_rows() {
    let server = Server::start(&Settings {
        parameters: vec![
            ("shared_preload_libraries", "pg_stat_statements".to_owned()),
            ("pg_stat_statements.track", "all".to_owned()),
            ("autovacuum", "off".to_owned()),
            ("max_wal_size", "2GB".to_owned()),
        ],
        ..Settings::default()
    });
    let place = Place::on(&server).await;
    place.run(MAKE).await;
    place.run("CREATE EXTENSION pg_stat_statements").await;
    // Statistics of when the table was small, and then those of now.
    place.run(&insert(1, 1_000)).await;
    place.run("ANALYZE wide").await;
    place.run(&insert(1_001, ROWS)).await;
    let database = place.prepared().await;
    let subject = Subject::with(place, database);
    for statistics in ["old", "new"] {
        if statistics == "new" {
            subject.script("ANALYZE wide").await;
        }
        for (key, places) in [
            (&["serial"][..], &[&["0"][..], &["500000"]][..]),
            (&["one", "serial"], &[&["1", "0"], &["1", "500000"]]),
            // Behind the middle, and where a batch goes from one value to the next.
            (&["few", "serial"], &[&["5", "500000"], &["4", "995000"]]),
            (&["many", "serial"], &[&["500000", "500000"]]),
        ] {
            for (kind, handler) in handlers(key).iter().enumerate() {
                for place in places {
                    let read = batches(&subject, &**handler, place).await;
                    let most = read.iter().max().unwrap();
                    let what = format!("kind {kind}, key {key:?} from {place:?}, {statistics} statistics: {read:?}");
                    assert!(*most <= BUFFERS, "{what}");
                }
            }
        }
    }
}

/// The pages that each of some batches from a place on reads.
async fn batches(subject: &Subject, handler: &dyn Handler, from: &[&str]) -> Vec<u64> {
    subject.script("DELETE FROM background_updates").await;
    subject.enqueue().await;
    let mut driven = Driven::default();
    subject.batch(handler, ITEMS, &mut driven).await.unwrap();
    buffers(subject).await;
    let from = serde_json::to_string(from).unwrap();
    let mut read = Vec::new();
    for execution in 0..EXECUTIONS {
        if execution % 2 == 0 {
            subject
                .script(&format!(
                    "UPDATE background_updates SET progress_json = jsonb_set(progress_json::jsonb, '{{after}}', '{from}')::text"
                ))
                .await;
        }
        subject.batch(handler, ITEMS, &mut driven).await.unwrap();
        read.push(buffers(subject).await);
    }
    assert!(driven.items.iter().all(|items| *items == ITEMS), "{:?}", driven.items);
    assert_eq!(subject.rows("SELECT update_name FROM background_updates").await, [UPDATE]);
    read
}
