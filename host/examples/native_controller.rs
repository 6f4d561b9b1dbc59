//! A controller written in Rust: it lets an update run while the application is quiet, and holds it while it is busy.
//!
//! What the application is doing is shared with the controller as a number of requests in flight. A controller is asked
//! before each batch; where it answers "wait", it is asked again after that time, and the reason stands in the events
//! and in `status`.
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::controller::{Admission, Controller, Fault, Iteration, Native, Outcome, Subject};
use tidegate::scheduler::event::EventKind;
use tidegate::update::{Delete, DeleteDefinition};
use tidegate::{DatabaseSpec, Host};
use tidegate_sqlite::Sqlite;
use tokio::sync::broadcast::error::RecvError;

/// More requests than this at once, and updates wait.
const BUSY: u32 = 10;

/// Requests that the application is serving.
type InFlight = Arc<AtomicU32>;

/// Holds updates while the application is busy.
struct Considerate {
    in_flight: InFlight,
}

#[async_trait]
impl Controller for Considerate {
    async fn on_update(&mut self, _: &Subject) -> Result<Box<dyn Iteration>, Fault> {
        Ok(Box::new(Turn { in_flight: Arc::clone(&self.in_flight) }))
    }

    // The first batch of an update whose cost is unknown is better small.
    async fn default_batch_size(&mut self, _: &str, _: &str) -> Result<Option<u32>, Fault> {
        Ok(Some(50))
    }
}

/// One iteration.
struct Turn {
    in_flight: InFlight,
}

#[async_trait]
impl Iteration for Turn {
    async fn enter(&mut self) -> Result<Admission, Fault> {
        let requests = self.in_flight.load(Ordering::Relaxed);
        if requests <= BUSY {
            return Ok(Admission::Run(Duration::from_millis(100)));
        }
        let reason = format!("the application serves {requests} requests");
        Ok(Admission::Wait { duration: Duration::from_millis(50), reason })
    }

    async fn exit(&mut self, outcome: &Outcome) -> Result<(), Fault> {
        if let Outcome::Failed(error) = outcome {
            println!("a batch failed: {error}");
        }
        Ok(())
    }
}

/// A database with a thousand sessions, most of them over, and the update queued.
fn application(path: &Path) -> rusqlite::Result<()> {
    let connection = rusqlite::Connection::open(path)?;
    connection.execute_batch(
        "CREATE TABLE sessions (id INTEGER PRIMARY KEY, over INTEGER NOT NULL);
         WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000)
         INSERT INTO sessions (id, over) SELECT n, n % 10 > 0 FROM numbers;
         CREATE TABLE background_updates (
             update_name TEXT NOT NULL UNIQUE, progress_json TEXT NOT NULL, depends_on TEXT,
             ordering INT NOT NULL DEFAULT 0
         );
         INSERT INTO background_updates (update_name, progress_json) VALUES ('sessions_over', '{}');",
    )
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    application(&path)?;

    let in_flight = InFlight::new(AtomicU32::new(25));
    let for_controller = Arc::clone(&in_flight);
    let considerate = Native::new("considerate", move |_| Considerate { in_flight: Arc::clone(&for_controller) });
    let sessions_over = Delete::new(DeleteDefinition {
        table: "sessions".into(),
        key: vec!["id".to_owned()],
        filter: "over = 1".to_owned(),
    });
    let database =
        DatabaseSpec::new("master", Sqlite::at(&path)).update("sessions_over", sessions_over).controller(considerate);
    let host = Host::builder().database(database).until_done().build()?;

    // The application has less to do from the moment at which the update is first held.
    let mut events = host.events().subscribe();
    let calming_down = tokio::spawn(async move {
        let mut held = 0;
        loop {
            let event = match events.recv().await {
                Ok(event) => event,
                // It was too slow, and the oldest are lost.
                Err(RecvError::Lagged(_)) => continue,
                // The host is gone: what happened last was received before.
                Err(RecvError::Closed) => break,
            };
            if let EventKind::Held { update_name, reason, .. } = &event.kind {
                println!("{update_name} waits: {reason}");
                in_flight.store(3, Ordering::Relaxed);
                held += 1;
            }
        }
        held
    });
    let summaries = host.run(std::future::pending()).await;
    let held = calming_down.await?;

    let connection = rusqlite::Connection::open(&path)?;
    let left: i64 = connection.query_row("SELECT count(*) FROM sessions", [], |row| row.get(0))?;
    println!("{summaries:?}; held {held} times; {left} sessions are left");
    if held > 0 && left == 100 { Ok(()) } else { Err("the update was not held, or not done".into()) }
}
