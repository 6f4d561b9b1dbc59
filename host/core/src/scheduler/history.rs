//! The history: iterations gathered as they end and written down, some at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::database::{Database, Record};
use super::event::{Event, EventKind, Observer};
use crate::update::ErrorClass;

/// How often rows are written: what a killed host may lose of its history (never of its work).
const INTERVAL: Duration = Duration::from_secs(1);

/// Rows kept in memory for a database that does not take them.
const MOST_KEPT: usize = 100_000;

/// The iterations of one database that are not written down yet.
///
/// They are gathered where they end: a task that is woken for each would cost as much as a short iteration does, and a
/// subscriber to the events would have them all kept for it.
pub(super) struct History {
    database_name: String,
    kept: Mutex<Vec<Arc<Record>>>,
    /// Held while rows are being written; true once it was told that they cannot be, until they can.
    writing: tokio::sync::Mutex<bool>,
}

impl Observer for History {
    fn see(&self, event: &Event) {
        if let EventKind::IterationEnded { record, .. } = &event.kind
            && event.database == self.database_name
        {
            let mut kept = self.kept();
            if kept.len() < MOST_KEPT {
                kept.push(Arc::clone(record));
            }
        }
    }
}

impl History {
    /// That of a database from now on.
    pub(super) fn of(database_name: &str) -> Arc<Self> {
        Arc::new(Self {
            database_name: database_name.to_owned(),
            kept: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        })
    }

    /// Writes it down until `done` resolves, then what is left.
    pub(super) async fn write_down(self: Arc<Self>, database: Arc<dyn Database>, mut done: oneshot::Receiver<()>) {
        let mut ticks = interval_at(Instant::now() + INTERVAL, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => self.flush(&*database).await,
                _ = &mut done => break,
            }
        }
        self.flush(&*database).await;
    }

    /// Forgets what is not written down yet: it is about a database that is not there any more.
    pub(super) async fn forget(&self) {
        let _writing = self.writing.lock().await;
        self.kept().clear();
    }

    async fn flush(&self, database: &dyn Database) {
        let mut told = self.writing.lock().await;
        let records = std::mem::take(&mut *self.kept());
        if records.is_empty() {
            return;
        }
        match database.add_history(&records).await {
            Ok(()) => *told = false,
            // Of what was done elsewhere nothing belongs to what is there now.
            Err(error) if error.class == ErrorClass::Replaced => {}
            Err(error) => {
                // Once: it is tried again each second.
                if std::mem::replace(&mut *told, true) {
                    tracing::debug!(database = self.database_name, %error, "the history still could not be written");
                } else {
                    tracing::warn!(database = self.database_name, %error, "the history could not be written yet");
                }
                self.keep(records);
            }
        }
    }

    /// Keeps rows that could not be written.
    fn keep(&self, mut records: Vec<Arc<Record>>) {
        // Before what has come since; the latest go where it is too much.
        let mut kept = self.kept();
        records.append(&mut kept);
        records.truncate(MOST_KEPT);
        *kept = records;
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Record>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
