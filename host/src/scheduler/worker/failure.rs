//! A batch that failed: what is remembered of it, and what comes next.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::super::attempt::Interruption;
use super::super::database::{Failure, Lease, QueueRow, unix_ms};
use super::super::event::EventKind;
use super::Worker;
use crate::update::{ErrorClass, SqlError, UpdateError};

/// Failures in a row, of a kind that others are to blame for, after which an update gives way to the rest of the queue.
const GIVES_WAY_AFTER: u32 = 3;

impl Worker {
    /// Records a failure and waits before the next try.
    pub(super) async fn note_failure(
        &mut self,
        row: &QueueRow,
        error: &UpdateError,
        lease: &mut dyn Lease,
    ) -> Result<(), Interruption> {
        if error.class() == ErrorClass::Replaced {
            return Err(Interruption::LeaseLost(error.to_string()));
        }
        let transient = error.class() != ErrorClass::Permanent;
        let before = row.failure.as_ref().map_or(0, |failure| failure.attempts);
        let attempts = if transient { before } else { before + 1 };
        // Progress that cannot be read does not become readable by trying, nor does a definition become the one before.
        let hopeless = matches!(error, UpdateError::Progress { .. } | UpdateError::Redefined { .. });
        let quarantined = !transient && (hopeless || attempts >= self.settings.max_attempts);
        let code = match error {
            UpdateError::Sql(error) => error.code.clone(),
            _ => None,
        };
        let at_ms = unix_ms(SystemTime::now());
        let failure = Failure { attempts, error: error.to_string(), code, at_ms, quarantined };
        if let Err(error) = self.record(row, &failure).await {
            tracing::warn!(update = row.update_name, %error, "a failure could not be recorded yet");
        }
        lease.note(self.trouble()).await;
        let pace = self.pace(&row.update_name);
        let wait = pace.backoff.after_failure();
        if transient {
            pace.shrink.after_transient_failure();
            pace.hindered += 1;
        }
        let lasts = transient && error.class() == ErrorClass::Transient && pace.hindered >= GIVES_WAY_AFTER;
        self.refreshed = None;
        self.report_failure(row, failure, transient, wait);
        if quarantined {
            self.paces.remove(&row.update_name);
            self.current = None;
            return Ok(());
        }
        if lasts && self.is_waited_for(row) {
            self.giving_way.insert(row.update_name.clone(), Instant::now() + wait);
            self.current = None;
            return Ok(());
        }
        self.giving_way.remove(&row.update_name);
        self.set_state("backing off", Some(error.to_string()));
        self.rest_on(row, wait, lease).await.map(|_| ())
    }

    /// Records a failure, or keeps it in mind until the database takes it: what it counts for must not depend on that.
    async fn record(&mut self, row: &QueueRow, failure: &Failure) -> Result<(), SqlError> {
        let recorded = self.workload.database.record_failure(&row.update_name, &row.progress, failure).await;
        match recorded {
            Ok(()) => drop(self.unrecorded.remove(&row.update_name)),
            Err(_) => {
                self.unrecorded.insert(row.update_name.clone(), (row.progress.clone(), failure.clone()));
            }
        }
        recorded
    }

    /// What is in the way, where the database will not take a word of it.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.unrecorded.values().next().map(|(_, failure)| failure.error.as_str())
    }

    /// Counts the failures that the database did not take to their rows, and offers them again.
    pub(super) async fn record_late(&mut self) {
        let mut unrecorded = std::mem::take(&mut self.unrecorded);
        let rows: Vec<QueueRow> =
            self.queue.rows.iter().filter(|row| unrecorded.contains_key(&row.update_name)).cloned().collect();
        for row in rows {
            // Of a row that is gone or moved on nothing is kept, as in the database.
            let kept = unrecorded.remove(&row.update_name).filter(|(progress, _)| *progress == row.progress);
            let Some((_, failure)) = kept else { continue };
            if let Err(error) = self.record(&row, &failure).await {
                tracing::debug!(update = row.update_name, %error, "a failure still could not be recorded");
            }
            if let Some(row) = self.queue.rows.iter_mut().find(|queued| queued.update_name == row.update_name) {
                row.failure = Some(failure);
            }
        }
    }

    fn report_failure(&self, row: &QueueRow, failure: Failure, transient: bool, wait: Duration) {
        let update_name = row.update_name.clone();
        let Failure { attempts, error, quarantined, .. } = failure;
        self.emit(if transient {
            EventKind::TransientFailure { update_name, error, retry_in: wait }
        } else {
            EventKind::Failure { update_name, error, attempts, retry_in: (!quarantined).then_some(wait) }
        });
    }
}
