//! How a host becomes the one runner of a database, and ceases to be it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::super::End;
use super::super::database::{Lease, LeaseAttempt, Queue};
use super::super::event::EventKind;
use super::{PARTING_LIMIT, Worker};
use crate::update::{ErrorClass, SqlError};

/// A standby tries for the lease at least this often: a takeover is to be a matter of seconds.
const STANDBY_INTERVAL: Duration = Duration::from_secs(1);

/// How long an attempt at the lease may take: longer than anything takes that has an end of its own. It is told long before
/// that the database does not answer.
const ACQUISITION_LIMIT: Duration = Duration::from_secs(120);
const ACQUISITION_SILENCE: Duration = Duration::from_secs(15);

impl Worker {
    /// Makes the tables and waits for the lease.
    pub(super) async fn acquire(&mut self) -> Result<Box<dyn Lease>, End> {
        let mut standing_by = false;
        loop {
            if self.control.is_stopping() {
                return Err(End::Stopped);
            }
            let control = self.control.clone();
            let attempt = tokio::select! {
                biased;
                () = control.stopped() => return Err(End::Stopped),
                attempt = self.try_acquire() => attempt,
            };
            let wait = match attempt {
                Ok(LeaseAttempt::Held(lease)) => return Ok(lease),
                Ok(LeaseAttempt::Taken(holder)) => {
                    if self.settings.until_done
                        && let Some(remaining) = self.nothing_can_run()
                    {
                        return Err(End::Done { remaining });
                    }
                    if !standing_by {
                        self.emit(EventKind::StandingBy { holder });
                        standing_by = true;
                    }
                    self.settings.poll_interval.min(STANDBY_INTERVAL)
                }
                Err(error) if self.settings.until_done && !standing_by && !self.is_worth_waiting_for(&error) => {
                    return Err(End::Failed(error));
                }
                Err(error) => {
                    let wait = self.note_unavailable(&error);
                    if self.forget_if_replaced().await {
                        let _ = timeout(PARTING_LIMIT, self.workload.database.close()).await;
                    }
                    wait
                }
            };
            tokio::select! {
                biased;
                () = self.control.stopped() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// A host that is to end by itself does not wait for a database that never answered or that refuses it.
    fn is_worth_waiting_for(&self, error: &SqlError) -> bool {
        match error.class {
            ErrorClass::Transient | ErrorClass::Interrupted | ErrorClass::Overtaken => true,
            ErrorClass::Connection | ErrorClass::Replaced => self.answered,
            ErrorClass::Permanent => false,
        }
    }

    async fn try_acquire(&mut self) -> Result<LeaseAttempt, SqlError> {
        let (database, holder, until_done) =
            (Arc::clone(&self.workload.database), self.settings.holder.clone(), self.settings.until_done);
        let mut attempt = pin!(async move {
            database.prepare().await?;
            let attempt = database.try_lease(&holder).await?;
            let is_taken = matches!(attempt, LeaseAttempt::Taken(_));
            let queue = if is_taken && until_done { Some(database.queue().await?) } else { None };
            Ok((attempt, queue))
        });
        let mut tried = timeout(ACQUISITION_SILENCE, &mut attempt).await;
        if tried.is_err() {
            // Each wait in it has an end, and they may come to much.
            let left = ACQUISITION_LIMIT.saturating_sub(ACQUISITION_SILENCE);
            if !std::mem::replace(&mut self.unavailable, true) {
                let error = silence(ACQUISITION_SILENCE).to_string();
                self.emit(EventKind::Unavailable { error, retry_in: left });
            }
            tried = timeout(left, attempt).await;
        }
        let Ok(tried) = tried else {
            // What hangs is not to hang the next attempt.
            let _ = timeout(PARTING_LIMIT, self.workload.database.close()).await;
            return Err(silence(ACQUISITION_LIMIT));
        };
        let (attempt, queue) = tried?;
        if let Some(queue) = queue {
            self.take_in(queue);
        }
        self.note_available();
        Ok(attempt)
    }

    /// Forgets what is known of a database where another has taken its place: nothing of it is true of that one.
    pub(super) async fn forget_if_replaced(&mut self) -> bool {
        if !self.workload.database.is_replaced() {
            return false;
        }
        self.take_in(Queue::default());
        self.paces.clear();
        self.unrecorded.clear();
        (self.barred, self.refused) = (None, None);
        self.idle_told = false;
        if timeout(PARTING_LIMIT, self.history.forget()).await.is_err() {
            tracing::debug!("the history is being written, to a database that does not answer");
        }
        true
    }

    pub(super) async fn leave(&mut self, lease: Box<dyn Lease>) {
        self.end_aside().await;
        let last_words = self.last_words();
        match timeout(PARTING_LIMIT, self.workload.database.set_activity(last_words.as_ref())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the last word on this host's activity was not written"),
            Err(_) => tracing::debug!("the last word on this host's activity was not written in time"),
        }
        lease.release().await;
    }
}

/// A database that does not answer.
fn silence(limit: Duration) -> SqlError {
    SqlError::new(ErrorClass::Connection, format!("the database has not answered for {} s", limit.as_secs()))
}
