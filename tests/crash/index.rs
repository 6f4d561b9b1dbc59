//! CREATE INDEX CONCURRENTLY, which waits for every snapshot in its database: no standby may hold one.

use std::time::Duration;

use crate::support::binary::{Folder, Process};
use crate::support::place::{Place, row};
use crate::support::run::make_items;
use crate::support::until;

use super::PATIENCE;

/// The bound on an index build of seconds while a standby stands by.
const BUILT: Duration = Duration::from_secs(30);

const BUILDING: &str = "select phase from pg_stat_progress_create_index where datname = current_database()";

/// Two hosts on a database with a table of `rows` items and a function that takes 0.1 s a call.
async fn two_hosts(place: &Place, rows: u32) -> (Process, Process) {
    make_items(place, rows).await;
    place
        .run(
            "create function slowly(n bigint) returns bigint language plpgsql immutable as \
             $$ begin perform pg_sleep(0.1); return n; end $$",
        )
        .await;
    let update = "[[update]]\nname = \"index\"\nkind = \"create-index\"\ntable = \"items\"\n\
                  index = \"items_slowly\"\nexpressions = [\"slowly(id)\"]\n";
    let folder = Folder::new(place, "sleep_enabled = false", "", update);
    let mut first = folder.start(&["run"]);
    first.says("working on this database", PATIENCE).await;
    let mut second = folder.start(&["run"]);
    second.says("standing by", PATIENCE).await;
    place.prepared().await.enqueue(&row("index")).await.unwrap();
    (first, second)
}

/// When the standby last asked for the lease.
async fn last_poll(place: &Place, standby: &Process) -> Vec<String> {
    place
        .rows(&format!(
            "select query_start from pg_stat_activity where datname = current_database() \
             and application_name like 'tidegate/%/{}/lease.%'",
            standby.id()
        ))
        .await
}

async fn valid(place: &Place) -> Vec<String> {
    place.rows("select indisvalid from pg_index where indexrelid = to_regclass('items_slowly')").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_built_while_a_standby_stands_by() {
    let place = &Place::postgres().await;
    let (mut first, second) = two_hosts(place, 40).await;
    until("the index is being built", async || !place.rows(BUILDING).await.is_empty()).await;
    let before = last_poll(place, &second).await;
    until("the standby asks again", async || last_poll(place, &second).await != before).await;
    assert!(!place.rows(BUILDING).await.is_empty(), "the standby was to ask while the index is built");
    first.says("index: finished", BUILT).await;
    assert_eq!(valid(place).await, ["t"]);
    assert!(!second.said().contains("working on"), "{}", second.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_waits_for_a_transaction_of_others_and_for_nobody_else() {
    let place = &Place::postgres().await;
    let (other, connection) = tokio_postgres::connect(&place.url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    other.batch_execute("begin isolation level repeatable read; select 1").await.unwrap();
    let (mut first, _second) = two_hosts(place, 3).await;
    until("the build waits", async || place.rows(BUILDING).await == ["waiting for old snapshots"]).await;
    assert!(!first.said().contains("index: finished"), "{}", first.said());
    other.batch_execute("commit").await.unwrap();
    first.says("index: finished", BUILT).await;
    assert_eq!(valid(place).await, ["t"]);
}

/// The build of a killed host goes on in the server until it is ended; what it leaves is an invalid index.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_a_killed_host_left_half_built_is_built_anew() {
    let place = &Place::postgres().await;
    let (mut first, mut second) = two_hosts(place, 40).await;
    until("the index is being built", async || !place.rows(BUILDING).await.is_empty()).await;
    first.kill();
    second.says("working on this database", Duration::from_secs(10)).await;
    second.says("index: finished", BUILT).await;
    assert_eq!(valid(place).await, ["t"]);
    let indexes = place.rows("select relname from pg_class where relkind = 'i' and relname like 'items_slowly%'").await;
    assert_eq!(indexes, ["items_slowly"]);
}

/// Nobody lives whom the server would miss: its build goes on until whoever takes over ends it.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_a_stopped_host_left_half_built_is_built_anew() {
    let place = &Place::postgres().await;
    let (mut first, mut second) = two_hosts(place, 120).await;
    until("the index is being built", async || !place.rows(BUILDING).await.is_empty()).await;
    first.signal("STOP");
    second.says("working on this database", Duration::from_secs(10)).await;
    second.says("index: finished", PATIENCE).await;
    first.signal("CONT");
    first.says("lease lost", PATIENCE).await;
    first.says(&format!("standing by: process {} on ", second.id()), PATIENCE).await;
    assert!(!first.said().contains("index: finished"), "{}", first.said());
    assert_eq!(valid(place).await, ["t"]);
    let indexes = place.rows("select relname from pg_class where relkind = 'i' and relname like 'items_slowly%'").await;
    assert_eq!(indexes, ["items_slowly"]);
}
