//! Rests, and the looks at the queue that are taken meanwhile.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::attempt::Interruption;
use super::super::database::QueueRow;
use super::super::runner::Tenure;
use super::{Rest, Worker};
use crate::update::parts::Part;
use crate::update::{Progress, SqlError};

impl Worker {
    /// Rests for `duration`, however long, before a batch of this row, looking at the queue meanwhile.
    pub(super) async fn rest_on(
        &mut self,
        row: &QueueRow,
        duration: Duration,
        tenure: &mut Tenure,
    ) -> Result<Rest, Interruption> {
        let until = Instant::now() + duration;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.hurry_if_told() || left.is_zero() {
                return Ok(Rest::Over);
            }
            if self.has_replacement() || self.common.is_leaving() {
                return Ok(Rest::Overtaken);
            }
            let due = self.common.until_refresh();
            if due.is_zero()
                && let Err(error) = self.refresh_unless_told(tenure).await?
            {
                // A database that does not answer is no reason to end the rest; it is asked again before a batch.
                tracing::debug!(%error, "the queue could not be read");
                self.common.state().refreshed = Some(Instant::now());
                continue;
            }
            // Another lane may have looked.
            self.catch_up().await;
            if self.common.was_paused() || !self.is_as_planned(row) {
                return Ok(Rest::Overtaken);
            }
            if !due.is_zero() {
                self.rest(left.min(due), tenure).await?;
            }
        }
    }

    /// True where the row is still queued with the progress it had.
    pub(super) fn is_as_planned(&self, row: &QueueRow) -> bool {
        let state = self.common.state();
        let Some(queued) = state.roster.get(&row.update_name) else { return false };
        // Others may have gone on with other parts.
        let stands = |part: &Part| Progress::parse(&queued.progress).is_ok_and(|found| part.stands_in(&found));
        queued.progress == row.progress || self.part.as_ref().is_some_and(stands)
    }

    /// Rests until then, or until the next look at the queue is due.
    pub(super) async fn rest_until(&mut self, until: Instant, tenure: &mut Tenure) -> Result<(), Interruption> {
        let left = until.saturating_duration_since(Instant::now());
        self.rest(left.min(self.common.until_refresh()), tenure).await
    }

    /// Rests for as long as the queue is left alone, and has it read then.
    pub(super) async fn rest_until_refresh(&mut self, tenure: &mut Tenure) -> Result<(), Interruption> {
        self.rest(self.common.refresh_interval(), tenure).await?;
        if self.looks == self.common.looks() {
            self.common.state().refreshed = None;
        }
        Ok(())
    }

    /// Rests for `duration` at most; a wake-up ends it early, and has the queue read anew.
    pub(super) async fn rest(&mut self, duration: Duration, tenure: &mut Tenure) -> Result<(), Interruption> {
        tokio::select! {
            // Of what is due at one moment always the same first, so that a simulation comes out the same each time.
            biased;
            () = self.common.control.stopped() => return Err(Interruption::Stopping),
            reason = tenure.lost() => return Err(Interruption::LeaseLost(reason)),
            // The senders live as long as `self.common`, so that an error cannot be.
            _ = self.wakes.changed() => self.common.state().refreshed = None,
            _ = self.stirs.changed() => {}
            () = sleep(duration) => {}
        }
        Ok(())
    }

    /// Looks at the queue, unless the host must leave off first: a database may take long to answer.
    pub(super) async fn refresh_unless_told(
        &mut self,
        tenure: &mut Tenure,
    ) -> Result<Result<(), SqlError>, Interruption> {
        let control = self.common.control.clone();
        let refreshed = tokio::select! {
            biased;
            refreshed = self.refresh() => refreshed,
            () = control.stopped() => return Err(Interruption::Stopping),
            reason = tenure.lost() => return Err(Interruption::LeaseLost(reason)),
        };
        self.note_trouble();
        Ok(refreshed)
    }

    /// Reads the queue, and writes what this host does where that has changed.
    async fn refresh(&mut self) -> Result<(), SqlError> {
        self.common.read().await?;
        self.notice_look();
        self.common.look_after().await;
        // What this has stirred it knows.
        self.stirs.mark_unchanged();
        self.tell_look().await;
        Ok(())
    }

    /// Takes notice of a look at the queue that another lane has taken.
    pub(super) async fn catch_up(&mut self) {
        if self.looks != self.common.looks() {
            self.notice_look();
            self.tell_look().await;
        }
    }

    fn notice_look(&mut self) {
        self.looks = self.common.looks();
        self.forget_tries();
        self.forget_waits();
        let state = self.common.state();
        let mut gone: Vec<String> =
            self.paces.keys().filter(|name| state.roster.get(name).is_none()).cloned().collect();
        drop(state);
        gone.sort_unstable();
        gone.iter().for_each(|name| self.note_gone(name));
    }

    async fn tell_look(&mut self) {
        self.take_aside().await;
        // A shadow may have answered after the last iteration.
        self.report_controller();
        self.look_aside().await;
    }
}
