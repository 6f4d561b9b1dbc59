//! The history: iterations taken from the event stream and written down, some at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::database::{Database, Record};
use super::event::{Event, EventKind};

/// How often rows are written: what a killed host may lose of its history (never of its work).
const INTERVAL: Duration = Duration::from_secs(1);

/// Rows kept in memory for a database that does not take them.
const MOST_KEPT: usize = 100_000;

/// Writes the iterations of one database to its history until `done` resolves, then what is left.
pub(super) async fn write_down(
    name: String,
    database: Arc<dyn Database>,
    mut events: Receiver<Arc<Event>>,
    mut done: oneshot::Receiver<()>,
) {
    let mut kept = Vec::new();
    let mut ticks = interval_at(Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => keep(&mut kept, &name, &event),
                Err(RecvError::Lagged(lost)) => tracing::warn!(database = name, lost, "the history fell behind"),
                Err(RecvError::Closed) => break,
            },
            _ = ticks.tick() => flush(&name, &*database, &mut kept).await,
            _ = &mut done => break,
        }
    }
    loop {
        match events.try_recv() {
            Ok(event) => keep(&mut kept, &name, &event),
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    flush(&name, &*database, &mut kept).await;
}

fn keep(kept: &mut Vec<Record>, name: &str, event: &Event) {
    if event.database == name
        && kept.len() < MOST_KEPT
        && let EventKind::IterationEnded { record, .. } = &event.kind
    {
        kept.push(record.clone());
    }
}

async fn flush(name: &str, database: &dyn Database, kept: &mut Vec<Record>) {
    if kept.is_empty() {
        return;
    }
    match database.add_history(kept).await {
        Ok(()) => kept.clear(),
        Err(error) => tracing::warn!(database = name, %error, "the history could not be written yet"),
    }
}
