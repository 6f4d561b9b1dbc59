//! What failed, whose trouble it is, what is remembered of it, and what comes next.

use std::time::{Duration, SystemTime};

use super::super::attempt::{Interruption, Phase};
use super::super::database::{Failure, Lease, QueueRow, unix_ms};
use super::super::event::EventKind;
use super::{PutOff, Worker};
use crate::update::{ErrorClass, SqlError, UpdateError};

impl Worker {
    /// Records a failure, and has nobody held up by it but those whose trouble it is.
    pub(super) async fn note_failure(
        &mut self,
        row: &QueueRow,
        error: &UpdateError,
        phase: Phase,
        lease: &mut dyn Lease,
    ) -> Result<(), Interruption> {
        if error.class().ends_lease() {
            return Err(Interruption::LeaseLost(error.to_string()));
        }
        match (phase, error) {
            (Phase::Connect, UpdateError::Sql(error)) => self.note_refusal(row, error),
            _ => self.note_failed(row, error, phase).await,
        }
        lease.note(self.trouble().as_deref()).await;
        Ok(())
    }

    /// The database lets no batch begin: no update's doing, and none is tried for a while.
    fn note_refusal(&mut self, row: &QueueRow, error: &SqlError) {
        if self.settings.until_done && error.class == ErrorClass::Permanent {
            self.hopeless = Some(error.clone());
        }
        let wait = self.refusal_backoff.after_failure();
        let why = error.to_string();
        self.set_state("backing off", Some(why.clone()));
        self.barred = Some(PutOff::new(wait, why.clone()));
        self.refused = Some(why.clone());
        let event = if error.class == ErrorClass::Transient {
            // It is there, and busy with others: told where it is met.
            let detail = error.detail.clone();
            EventKind::TransientFailure { update_name: row.update_name.clone(), error: why, detail, retry_in: wait }
        } else {
            self.locked_out = true;
            EventKind::Unavailable { error: why, retry_in: wait }
        };
        self.emit(event);
    }

    /// The database let a batch begin.
    pub(super) fn note_begun(&mut self) {
        self.refusal_backoff.reset();
        self.refused = None;
        if std::mem::take(&mut self.locked_out) && !self.unavailable {
            self.emit(EventKind::Available);
        }
    }

    async fn note_failed(&mut self, row: &QueueRow, error: &UpdateError, phase: Phase) {
        let name = &row.update_name;
        let transient = error.class() != ErrorClass::Permanent;
        let before = row.failure.as_ref().map_or(0, |failure| failure.attempts);
        let attempts = if transient { before } else { before + 1 };
        // Progress that cannot be read does not become readable by trying, nor does a definition become the one before.
        let hopeless = matches!(error, UpdateError::Progress { .. } | UpdateError::Redefined { .. });
        let quarantined = !transient && (hopeless || attempts >= self.settings.max_attempts);
        let code = error.code().map(str::to_owned);
        let at_ms = unix_ms(SystemTime::now());
        let failure = Failure { attempts, error: error.told(), code, at_ms, quarantined };
        if let Err(error) = self.record(row, &failure).await {
            tracing::warn!(update = name, %error, "a failure could not be recorded yet");
        }
        self.roster.fail(name, failure.clone());
        if error.class() == ErrorClass::Connection {
            // The rest of the queue had better know at once whether the database is there.
            self.refreshed = None;
        }
        if phase == Phase::Handler && error.is_of_size() {
            self.pace(name).shrink.after_transient_failure();
        }
        let wait = self.put_off(name, failure.error.clone());
        self.set_state("backing off", Some(failure.error.clone()));
        self.report_failure(row, failure, error.detail().map(str::to_owned), transient, wait);
        if quarantined {
            self.is_outdated = true;
            self.paces.remove(name);
            self.current = None;
        }
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
    pub(super) fn trouble(&self) -> Option<String> {
        self.refused.clone().or_else(|| self.unrecorded.values().next().map(|(_, failure)| failure.error.clone()))
    }

    /// Counts the failures that the database did not take to their rows, and offers them again.
    pub(super) async fn record_late(&mut self) {
        let mut unrecorded = std::mem::take(&mut self.unrecorded);
        let rows: Vec<QueueRow> = unrecorded.keys().filter_map(|name| self.roster.get(name)).cloned().collect();
        for row in rows {
            // Of a row that is gone or moved on nothing is kept, as in the database.
            let kept = unrecorded.remove(&row.update_name).filter(|(progress, _)| *progress == row.progress);
            let Some((_, failure)) = kept else { continue };
            if let Err(error) = self.record(&row, &failure).await {
                tracing::debug!(update = row.update_name, %error, "a failure still could not be recorded");
            }
            self.roster.fail(&row.update_name, failure);
        }
    }

    fn report_failure(
        &self,
        row: &QueueRow,
        failure: Failure,
        detail: Option<String>,
        transient: bool,
        wait: Duration,
    ) {
        let update_name = row.update_name.clone();
        let Failure { attempts, error, quarantined, .. } = failure;
        self.emit(if transient {
            EventKind::TransientFailure { update_name, error, detail, retry_in: wait }
        } else {
            let retry_in = (!quarantined).then_some(wait);
            EventKind::Failure { update_name, error, detail, attempts, retry_in }
        });
    }
}
