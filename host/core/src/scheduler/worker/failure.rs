//! What failed, whose trouble it is, what is remembered of it, and what comes next.

use std::time::{Duration, SystemTime};

use super::super::attempt::{Interruption, Phase};
use super::super::database::{Failure, QueueRow, unix_ms};
use super::super::event::EventKind;
use super::super::update_state::UpdateState;
use super::{PutOff, Worker};
use crate::update::{ErrorClass, SqlError, UpdateError};

impl Worker {
    /// Records a failure, and has nobody held up by it but those whose trouble it is.
    pub(super) async fn note_failure(
        &mut self,
        row: &QueueRow,
        error: &UpdateError,
        phase: Phase,
    ) -> Result<(), Interruption> {
        if error.class().ends_lease() {
            return Err(Interruption::LeaseLost(error.to_string()));
        }
        match (phase, error) {
            (Phase::Connect, UpdateError::Sql(error)) => self.note_refusal(row, error),
            _ => self.note_failed(row, error, phase).await,
        }
        self.note_trouble();
        Ok(())
    }

    /// The database lets no batch begin: no update's doing, and none is tried for a while.
    fn note_refusal(&mut self, row: &QueueRow, error: &SqlError) {
        if self.means.with.settings.until_done && error.class == ErrorClass::Permanent {
            self.hopeless = Some(error.clone());
        }
        let wait = self.refusal_backoff.after_failure();
        let why = error.told();
        self.stands(UpdateState::BackingOff, Some(why.clone()));
        self.barred = Some(PutOff::new(wait, why.clone()));
        self.refused = Some(why.clone());
        let event = if error.class == ErrorClass::Transient {
            // It is there, and busy with others: told where it is met.
            let detail = error.detail.clone();
            EventKind::TransientFailure { update_name: row.update_name.clone(), error: why, detail, retry_in: wait }
        } else {
            self.common.note_locked_out(&self.lane, true);
            EventKind::Unavailable { error: why, retry_in: wait }
        };
        self.emit(event);
    }

    /// The database let a batch begin.
    pub(super) fn note_begun(&mut self) {
        self.refusal_backoff.reset();
        self.refused = None;
        self.common.note_locked_out(&self.lane, false);
    }

    async fn note_failed(&mut self, row: &QueueRow, error: &UpdateError, phase: Phase) {
        let name = &row.update_name;
        let transient = error.class() != ErrorClass::Permanent;
        let before = row.failure.as_ref().map_or(0, |failure| failure.attempts);
        let attempts = if transient { before } else { before + 1 };
        // Progress that cannot be read does not become readable by trying, nor does a definition become the one before, nor a
        // wrong row right, nor what is refused allowed.
        let hopeless = matches!(
            error,
            UpdateError::Progress { .. }
                | UpdateError::Redefined { .. }
                | UpdateError::Unverified { .. }
                | UpdateError::Refused { .. }
                | UpdateError::TooManySkipped { .. }
        );
        let quarantined = !transient && (hopeless || attempts >= self.means.with.settings.max_attempts);
        let code = error.code().map(str::to_owned);
        let at_ms = unix_ms(SystemTime::now());
        let failure = Failure { attempts, error: error.told(), code, at_ms, quarantined };
        if let Err(error) = self.common.record(row, &failure).await {
            tracing::warn!(update = name, %error, "a failure could not be recorded yet");
        }
        self.common.state().roster.fail(name, failure.clone());
        if error.class() == ErrorClass::Connection {
            // The rest of the queue had better know at once whether the database is there.
            self.common.state().refreshed = None;
        }
        if phase == Phase::Handler && error.is_of_size() {
            self.pace(name).shrink.after_transient_failure();
        }
        let wait = self.put_off(name, failure.error.clone());
        self.stands(UpdateState::BackingOff, Some(failure.error.clone()));
        self.report_failure(row, failure, error.detail().map(str::to_owned), transient, wait);
        if quarantined {
            self.common.state().is_outdated = true;
            self.paces.remove(name);
            self.current = None;
        }
    }

    /// Tells what is in the way, where the database will not take a word of it.
    pub(super) fn note_trouble(&self) {
        self.common.note_trouble(&self.lane, self.refused.as_ref());
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
