//! A host inside a program that has other things to do: its events are followed, it is paused and resumed, updates are
//! queued while it runs, and it is stopped in good order in the middle of its work. A second host then goes on where the
//! first one stopped.
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate::controller::BuiltIn;
use tidegate::scheduler::End;
use tidegate::scheduler::database::{Database, Holder, NewRow, Open};
use tidegate::scheduler::event::{Event, EventKind};
use tidegate::update::{Backfill, BackfillDefinition};
use tidegate::{BuildError, DatabaseSpec, Host, HostBuilder};
use tidegate_sqlite::Sqlite;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;

/// A database with ten thousand items.
fn application(path: &Path) -> rusqlite::Result<()> {
    let connection = rusqlite::Connection::open(path)?;
    connection.execute_batch(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, touched INTEGER NOT NULL DEFAULT 0);
         WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 10000)
         INSERT INTO items (id) SELECT n FROM numbers;",
    )
}

/// A host whose batches are small, so that there are many.
fn builder(database: &Arc<dyn Database>) -> HostBuilder {
    let touch_items = Backfill::new(BackfillDefinition {
        table: "items".into(),
        key: vec!["id".to_owned()],
        set: "touched = touched + 1".to_owned(),
        filter: None,
    });
    let database = DatabaseSpec::new("master", Arc::clone(database))
        .update("touch_items", touch_items)
        .built_in(BuiltIn { sleep: Some(Duration::from_millis(10)), target: Duration::from_millis(10) });
    Host::builder().database(database).max_batch_size(500).shutdown_grace(Duration::from_secs(2))
}

/// Follows the events to their end; tells when two batches were committed.
async fn follow(mut events: Receiver<Arc<Event>>, two_batches: oneshot::Sender<()>) -> u64 {
    let (mut batches, mut two_batches) = (0, Some(two_batches));
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            // It was too slow, and the oldest are lost.
            Err(RecvError::Lagged(_)) => continue,
            // The host is gone: what happened last was received before.
            Err(RecvError::Closed) => break,
        };
        if let EventKind::IterationEnded { record, .. } = &event.kind {
            batches += 1;
            println!(
                "{}: {} of {} items in {} ms",
                event.database, record.items, record.batch_size, record.duration_ms
            );
        }
        if batches == 2
            && let Some(two_batches) = two_batches.take()
        {
            // An error would mean that nobody waits for it any more.
            let _ = two_batches.send(());
        }
    }
    batches
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    application(&path)?;
    let database = Box::new(Sqlite::at(&path)).open(&Holder::this_process())?;
    database.prepare().await?;

    // Mistakes are found before anything runs.
    let twice = builder(&database).database(DatabaseSpec::new("master", Sqlite::at("other.db"))).build();
    assert_eq!(twice.err(), Some(BuildError::DatabaseTwice { database: "master".to_owned() }));

    let host = builder(&database).build()?;
    let (two_batches, when_two_batches) = oneshot::channel();
    let following = tokio::spawn(follow(host.events().subscribe(), two_batches));
    let control = host.control();

    // The host finds an empty queue; the update is queued while it runs, and the wake-up spares it the wait for the next
    // look. A paused host starts no batch.
    control.set_enabled(false);
    let (stop, when_stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(host.run(async {
        // An error counts as a word to stop, too.
        let _ = when_stopped.await;
    }));
    let row = NewRow { update_name: "touch_items".into(), progress: "{}".into(), depends_on: None, ordering: 0 };
    database.enqueue(&row).await?;
    control.set_enabled(true);

    when_two_batches.await?;
    // The batch in hand is ended; the host has given everything up once `run` returns.
    drop(stop);
    let summaries = running.await?;
    let batches = following.await?;
    let left = database.queue().await?.rows;
    println!("{summaries:?} after {batches} batches; {} row is left: {:?}", left.len(), left[0].progress);
    assert_eq!(summaries[0].end, End::Stopped);
    assert_eq!(left.len(), 1);

    let summaries = builder(&database).until_done().build()?.run(std::future::pending()).await;
    assert_eq!(summaries[0].end, End::Done { remaining: vec![] });
    let connection = rusqlite::Connection::open(&path)?;
    let wrong: i64 = connection.query_row("SELECT count(*) FROM items WHERE touched <> 1", [], |row| row.get(0))?;
    println!("{wrong} items were not touched exactly once");
    if wrong == 0 { Ok(()) } else { Err("items were touched twice, or not at all".into()) }
}
