//! The history: iterations taken from the event stream and written down, some at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::database::{Database, Record};
use super::event::{Event, EventKind};

/// How often rows are written: what a killed host may lose of its history (never of its work).
const INTERVAL: Duration = Duration::from_secs(1);

/// How often events are gathered: well before the stream forgets them.
const GATHERING: Duration = Duration::from_millis(250);

/// Rows kept in memory for a database that does not take them.
const MOST_KEPT: usize = 100_000;

/// Writes the iterations of one database to its history until `done` resolves, then what is left.
///
/// Events are gathered now and then, and not one by one as they come: to be woken for each would cost as much as a short
/// iteration does.
pub(super) async fn write_down(
    name: String,
    database: Arc<dyn Database>,
    mut events: Receiver<Arc<Event>>,
    mut done: oneshot::Receiver<()>,
) {
    let mut kept = Vec::new();
    let mut written = Instant::now();
    let mut ticks = interval_at(Instant::now() + GATHERING, GATHERING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {}
            _ = &mut done => break,
        }
        gather(&mut kept, &name, &mut events);
        if written.elapsed() >= INTERVAL {
            flush(&name, &*database, &mut kept).await;
            written = Instant::now();
        }
    }
    gather(&mut kept, &name, &mut events);
    flush(&name, &*database, &mut kept).await;
}

/// Takes what has happened since this was last done.
fn gather(kept: &mut Vec<Record>, name: &str, events: &mut Receiver<Arc<Event>>) {
    loop {
        match events.try_recv() {
            Ok(event) => keep(kept, name, event),
            Err(TryRecvError::Lagged(lost)) => tracing::warn!(database = name, lost, "the history fell behind"),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return,
        }
    }
}

fn keep(kept: &mut Vec<Record>, name: &str, event: Arc<Event>) {
    if event.database != name || kept.len() >= MOST_KEPT || !matches!(event.kind, EventKind::IterationEnded { .. }) {
        return;
    }
    // Where nobody else listens, or all others have heard it, the record need not be copied.
    if let EventKind::IterationEnded { record, .. } = Arc::unwrap_or_clone(event).kind {
        kept.push(record);
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
