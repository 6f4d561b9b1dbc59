//! What is estimated and written down beside the work keeps no batch waiting.

use std::time::Duration;

use tidegate::scheduler::event::EventKind;

use crate::support::place::{Place, row};
use crate::support::run::{Run, backfill, make_items, touched};

#[tokio::test(flavor = "multi_thread")]
async fn an_update_goes_on_while_nothing_can_be_written_down() {
    let place = Place::postgres().await;
    make_items(&place, 100).await;
    let patient = |options: &mut tidegate_database::Options| options.postgres.lock_timeout = Duration::from_mins(10);
    let database = place.open_with(patient);
    database.prepare().await.unwrap();
    assert!(database.enqueue(&row("fill")).await.unwrap());
    // Whoever writes what the host does, or its history, waits for this; whoever reads does not.
    let (other, connection) = tokio_postgres::connect(&place.url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    other.batch_execute("begin; lock table tidegate_state, tidegate_history in exclusive mode").await.unwrap();
    // Long enough for several looks at the queue.
    let handler = backfill("touched = touched + 1 + (select 0 from (select pg_sleep(0.03)) as slept)");
    let mut run = Run::with(database).define("fill", handler);
    run.settings.max_batch_size = 1;
    let mut running = run.for_ever().start();
    let finished = |event: &EventKind| matches!(event, EventKind::UpdateFinished { .. }).then_some(());
    running.next("the end of the update", finished).await;
    assert_eq!(touched(&place).await, ["1|100"]);
    other.batch_execute("rollback").await.unwrap();
    let story = running.stop().await;
    assert_eq!(story.history().await.len(), 101, "what could not be written then is written later");
}
