//! Rests, and the looks at the queue that are taken meanwhile.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::attempt::Interruption;
use super::super::database::{Lease, QueueRow};
use super::{LONGEST_REFRESH, Rest, Worker};
use crate::update::SqlError;

impl Worker {
    /// Rests for `duration`, however long, before a batch of this row, looking at the queue meanwhile.
    pub(super) async fn rest_on(
        &mut self,
        row: &QueueRow,
        duration: Duration,
        lease: &mut dyn Lease,
    ) -> Result<Rest, Interruption> {
        let until = Instant::now() + duration;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.control.take_hurry(&self.workload.name) {
                self.hurry();
                return Ok(Rest::Over);
            }
            if left.is_zero() {
                return Ok(Rest::Over);
            }
            if self.control.has_replacement(&self.workload.name) {
                return Ok(Rest::Overtaken);
            }
            let due = self.refreshed.map_or(Duration::ZERO, |at| self.refresh_interval().saturating_sub(at.elapsed()));
            if due.is_zero() {
                match self.refresh_unless_told(lease).await? {
                    Ok(()) if self.paused || !self.is_as_planned(row) => return Ok(Rest::Overtaken),
                    Ok(()) => {}
                    // A database that does not answer is no reason to end the rest; it is asked again before a batch.
                    Err(error) => {
                        tracing::debug!(%error, "the queue could not be read");
                        self.refreshed = Some(Instant::now());
                    }
                }
                continue;
            }
            self.rest(left.min(due), lease).await?;
        }
    }

    /// True where the row is still queued with the progress it had.
    pub(super) fn is_as_planned(&self, row: &QueueRow) -> bool {
        self.roster.get(&row.update_name).is_some_and(|queued| queued.progress == row.progress)
    }

    /// Rests until then, or until the next look at the queue is due.
    pub(super) async fn rest_until(&mut self, until: Instant, lease: &mut dyn Lease) -> Result<(), Interruption> {
        let look = self.refreshed.map_or(Duration::ZERO, |at| self.refresh_interval().saturating_sub(at.elapsed()));
        let left = until.saturating_duration_since(Instant::now());
        self.rest(left.min(look), lease).await
    }

    pub(super) async fn rest_until_refresh(&mut self, lease: &mut dyn Lease) -> Result<(), Interruption> {
        let interval = self.refresh_interval();
        self.rest(interval, lease).await?;
        self.refreshed = None;
        Ok(())
    }

    /// Rests for `duration` at most; a wake-up ends it early, and has the queue read anew.
    pub(super) async fn rest(&mut self, duration: Duration, lease: &mut dyn Lease) -> Result<(), Interruption> {
        tokio::select! {
            // Of what is due at one moment always the same first, so that a simulation comes out the same each time.
            biased;
            () = self.control.stopped() => return Err(Interruption::Stopping),
            reason = lease.lost() => return Err(Interruption::LeaseLost(reason)),
            // The sender lives as long as `self.control`, so that an error cannot be.
            _ = self.wakes.changed() => self.refreshed = None,
            () = sleep(duration) => {}
        }
        Ok(())
    }

    pub(super) fn refresh_interval(&self) -> Duration {
        self.settings.poll_interval.min(LONGEST_REFRESH)
    }

    pub(super) fn is_refresh_due(&self) -> bool {
        self.refreshed.is_none_or(|at| at.elapsed() >= self.refresh_interval())
    }

    /// As [`Worker::refresh`], but given up where the host must leave off: a database may take long to answer.
    pub(super) async fn refresh_unless_told(
        &mut self,
        lease: &mut dyn Lease,
    ) -> Result<Result<(), SqlError>, Interruption> {
        let control = self.control.clone();
        let refreshed = tokio::select! {
            biased;
            refreshed = self.refresh() => refreshed,
            () = control.stopped() => return Err(Interruption::Stopping),
            reason = lease.lost() => return Err(Interruption::LeaseLost(reason)),
        };
        lease.note(self.trouble().as_deref()).await;
        Ok(refreshed)
    }

    /// Reads the queue, and writes what this host does where that has changed.
    pub(super) async fn refresh(&mut self) -> Result<(), SqlError> {
        let queue = self.workload.database.queue().await?;
        self.take_in(queue);
        self.forget_tries();
        self.forget_waits();
        let mut gone: Vec<String> = self.paces.keys().filter(|name| self.roster.get(name).is_none()).cloned().collect();
        gone.sort_unstable();
        gone.iter().for_each(|name| self.note_gone(name));
        self.record_late().await;
        self.refreshed = Some(Instant::now());
        self.note_available();
        self.note_pause();
        self.note_blocked();
        self.take_aside().await;
        // A shadow may have answered after the last iteration.
        self.report_controller();
        self.look_aside().await;
        Ok(())
    }
}
