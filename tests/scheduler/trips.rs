//! How often a batch waits for a PostgreSQL server.

use std::sync::Arc;

use tidegate::update::sql::System;
use tidegate::update::{
    Batch, BatchDefinition, Copy, CopyColumn, CopyDefinition, CopySource, Delete, DeleteDefinition, Handler, OnConflict,
};

use crate::support::place::{Place, row};
use crate::support::run::{Run, make_items, touch, touched};
use crate::support::trips::{Counted, Way};

const ROWS: u32 = 3_000;
const BATCH: u64 = 100;

/// The trips of a batch of the plainest kind, on a place without tables.
pub async fn of_touching(place: &Place) -> u32 {
    make_items(place, ROWS).await;
    let cost = usual(&counted(place, touch()).await);
    assert_eq!(touched(place).await, ["1|3000"]);
    cost.trips
}

/// What a batch in the middle of an update costs, the same for nearly all of them.
async fn cost(place: &Place, handler: Arc<dyn Handler>) -> Counted {
    let counted = counted(place, handler).await;
    // The last one finds that no rows are left.
    assert_eq!(counted.len() as u64, u64::from(ROWS) / BATCH + 1, "{counted:?}");
    usual(&counted)
}

async fn counted(place: &Place, handler: Arc<dyn Handler>) -> Vec<Counted> {
    let way = Way::to(&place.url, "batch").await;
    let mut run = Run::on(&place.by_way_of(way.url.clone()), &[row("fill")]).await.define("fill", handler);
    run.settings.max_batch_size = BATCH;
    let story = run.until_done().await;
    assert_eq!(story.remaining(), []);
    way.counted()
}

fn usual(counted: &[Counted]) -> Counted {
    let mut all: Vec<(u32, u32)> = counted.iter().map(|each| (each.trips, each.statements)).collect();
    all.sort_unstable();
    let (trips, statements) = all[all.len() / 2];
    Counted { trips, statements }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_takes_three_trips_to_the_server() {
    let place = Place::postgres().await;
    make_items(&place, ROWS).await;
    place.run("create table target (id bigint primary key)").await;
    let once = Counted { trips: 3, statements: 5 };
    // Begin and lock the row; find the end and change the rows; write the progress and commit.
    assert_eq!(cost(&place, touch()).await, once, "backfill");
    assert_eq!(touched(&place).await, ["1|3000"]);
    let items = || tidegate::update::sql::TableName::from("items");
    let copy = Copy::new(CopyDefinition {
        table: items(),
        key: vec!["id".to_owned()],
        into: "target".into(),
        columns: vec![CopyColumn { target: "id".to_owned(), source: CopySource::SameName }],
        filter: None,
        on_conflict: OnConflict::Error,
    });
    assert_eq!(cost(&place, Arc::new(copy)).await, once, "copy");
    assert_eq!(place.rows("select count(*) from target").await, ["3000"]);
    // What somebody else wrote may have done anything to the session, which is made anew: nothing is prepared. Begin and lock
    // the row; find the end; execute what is written there; make the session anew, write the progress and commit.
    let sql = "UPDATE items SET touched = touched + 1 WHERE :range".to_owned();
    let sql = format!("{sql}; DELETE FROM target WHERE :range; {sql}");
    let batch = Batch::new(BatchDefinition { table: items(), key: vec!["id".to_owned()], sql }, System::Postgres);
    assert_eq!(cost(&place, Arc::new(batch)).await, Counted { trips: 4, statements: 9 }, "batch");
    assert_eq!(touched(&place).await, ["3|3000"]);
    assert_eq!(place.rows("select count(*) from target").await, ["0"]);
    let delete =
        Delete::new(DeleteDefinition { table: items(), key: vec!["id".to_owned()], filter: "true".to_owned() });
    assert_eq!(cost(&place, Arc::new(delete)).await, once, "delete");
    assert_eq!(place.rows("select count(*) from items").await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_against_one_statement_is_done_with_two() {
    // A rule that does something besides cannot be part of another statement, nor can a trigger be trusted to skip no row.
    for against in [
        "create rule besides as on update to items do also notify seen",
        "create function mend() returns trigger language plpgsql as 'begin return new; end'; \
         create trigger mends before update on items for each row execute function mend()",
        "create table below () inherits (items)",
    ] {
        let place = Place::postgres().await;
        make_items(&place, ROWS).await;
        place.run(against).await;
        let found = cost(&place, touch()).await;
        assert!(found.trips > 3 && found.trips <= 8, "{against}: {found:?}");
        assert_eq!(touched(&place).await, ["1|3000"], "{against}");
    }
}
