//! What is told of a database: whether it answers, what stands still and why, and what the host does.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::super::PARTING_LIMIT;
use super::super::choice::Standing;
use super::super::database::{Activity, Failure, LaneWork, QueueRow, Work, unix_ms};
use super::super::event::EventKind;
use super::super::lanes::Lanes;
use super::Common;
use crate::update::SqlError;

/// How long writing down what the host does may take.
const WRITING_LIMIT: Duration = Duration::from_secs(2);
/// How often signals alone are a reason to write down what the host does, in milliseconds.
const SIGNALS_INTERVAL_MS: i64 = 5_000;

impl Common {
    pub(in super::super) fn is_paused(&self) -> bool {
        let stored = self.state().pause.is_some();
        !self.control.is_enabled() || stored || self.control.pause_of(&self.name).is_some()
    }

    /// True where it was told that updates are paused.
    pub(in super::super) fn was_paused(&self) -> bool {
        self.state().paused
    }

    pub(super) fn note_pause(&self) {
        let paused = self.is_paused();
        if std::mem::replace(&mut self.state().paused, paused) != paused {
            let reason = self.pause_reason();
            self.emit(if paused { EventKind::Paused { reason } } else { EventKind::Resumed });
        }
    }

    /// Why updates are paused, where somebody said so.
    pub(in super::super) fn pause_reason(&self) -> Option<String> {
        let stored = self.state().pause.as_ref().and_then(|pause| pause.reason.clone());
        stored.or_else(|| self.control.pause_of(&self.name)?)
    }

    /// Tells which rows cannot run, where that has changed. Rows that merely wait for others are in good order.
    pub(super) fn note_blocked(&self) {
        let in_order = |standing: &Standing| matches!(standing, Standing::Ready | Standing::DependsOn(_));
        let mut state = self.state();
        let rows = state.roster.iter();
        let blocked: Vec<(String, String)> = rows
            .filter(|(_, standing)| !in_order(standing))
            .filter_map(|(row, standing)| Some((row.update_name.clone(), standing.explain(row)?)))
            .collect();
        if blocked != state.blocked {
            state.blocked.clone_from(&blocked);
            drop(state);
            self.emit(EventKind::Blocked { rows: blocked });
        }
    }

    pub(in super::super) fn note_unavailable(&self, error: &SqlError) -> Duration {
        let mut state = self.state();
        let retry_in = state.backoff.after_failure();
        state.unavailable = true;
        drop(state);
        self.emit(EventKind::Unavailable { error: error.to_string(), retry_in });
        retry_in
    }

    /// Tells that the database does not answer, where that was not told yet.
    pub(in super::super) fn note_silent(&self, error: &SqlError, retry_in: Duration) {
        if !std::mem::replace(&mut self.state().unavailable, true) {
            self.emit(EventKind::Unavailable { error: error.to_string(), retry_in });
        }
    }

    pub(in super::super) fn note_available(&self) {
        let mut state = self.state();
        state.backoff.reset();
        state.answered = true;
        if std::mem::take(&mut state.unavailable) && state.locked_out.is_empty() {
            drop(state);
            self.emit(EventKind::Available);
        }
    }

    /// Takes note that the database lets no batch begin in a lane, or that one has begun.
    pub(in super::super) fn note_locked_out(&self, lane: &Arc<str>, locked_out: bool) {
        let mut state = self.state();
        if locked_out {
            state.locked_out.insert(Arc::clone(lane));
        } else if state.locked_out.remove(lane) && state.locked_out.is_empty() && !state.unavailable {
            drop(state);
            self.emit(EventKind::Available);
        }
    }

    /// Records a failure, or keeps it in mind until the database takes it: what it counts for must not depend on that.
    pub(in super::super) async fn record(&self, row: &QueueRow, failure: &Failure) -> Result<(), SqlError> {
        let recorded = self.database.record_failure(&row.update_name, &row.progress, failure).await;
        let mut state = self.state();
        match recorded {
            Ok(()) => drop(state.unrecorded.remove(&row.update_name)),
            Err(_) => {
                state.unrecorded.insert(row.update_name.clone(), (row.progress.clone(), failure.clone()));
            }
        }
        recorded
    }

    /// Counts the failures that the database did not take to their rows, and offers them again.
    pub(super) async fn record_late(&self) {
        let (mut unrecorded, rows) = {
            let mut state = self.state();
            let unrecorded = std::mem::take(&mut state.unrecorded);
            let rows = unrecorded.keys().filter_map(|name| state.roster.get(name)).cloned();
            let rows: Vec<QueueRow> = rows.collect();
            (unrecorded, rows)
        };
        for row in rows {
            // Of a row that is gone or moved on nothing is kept, as in the database.
            let kept = unrecorded.remove(&row.update_name).filter(|(progress, _)| *progress == row.progress);
            let Some((_, failure)) = kept else { continue };
            if let Err(error) = self.record(&row, &failure).await {
                tracing::debug!(update = row.update_name, %error, "a failure still could not be recorded");
            }
            self.state().roster.fail(&row.update_name, failure);
        }
    }

    /// True where a failure of this update waits to be recorded.
    pub(in super::super) fn is_unrecorded(&self, update_name: &str) -> bool {
        self.state().unrecorded.contains_key(update_name)
    }

    pub(in super::super) fn forget_unrecorded(&self, update_name: &str) {
        self.state().unrecorded.remove(update_name);
    }

    /// Tells the lease what is in the way of a lane, where the database will not take a word of it.
    pub(in super::super) fn note_trouble(&self, lane: &Arc<str>, refused: Option<&String>) {
        let mut state = self.state();
        match refused {
            Some(refused) => drop(state.troubles.insert(Arc::clone(lane), refused.clone())),
            None => drop(state.troubles.remove(lane)),
        }
        let unrecorded = || state.unrecorded.values().next().map(|(_, failure)| failure.error.clone());
        let trouble = state.troubles.values().next().cloned().or_else(unrecorded);
        drop(state);
        self.trouble.send_if_modified(|told| {
            let is_new = *told != trouble;
            *told = trouble;
            is_new
        });
    }

    /// Changes what a lane is said to do, and gives what comes of that.
    pub(in super::super) fn tell<T>(&self, lane: &Arc<str>, change: impl FnOnce(&mut Work) -> T) -> T {
        change(self.state().works.entry(Arc::clone(lane)).or_default())
    }

    /// What this host does.
    fn activity(&self) -> Activity {
        let signals = self.control.measured(&self.name);
        let state = self.state();
        let mut works = state.works.clone();
        let first = works.remove(Lanes::FIRST).unwrap_or_default();
        let others = works.into_iter().map(|(lane, work)| LaneWork { lane: lane.to_string(), work });
        let holder = state.means.with.settings.holder.clone();
        Activity { holder, first, lanes: others.collect(), at_ms: unix_ms(SystemTime::now()), signals }
    }

    /// Writes down what this host does, where it is not what was last written. What the host measures is written along;
    /// where an update is in hand, so that the database is written to anyway, also for its own sake, now and then.
    pub(in super::super) async fn write_activity(&self) {
        let mut written = self.written.lock().await;
        let now = self.activity();
        if let Some(written) = &*written {
            let as_before = Activity { at_ms: written.at_ms, signals: written.signals.clone(), ..now.clone() };
            let is_told = now.signals.is_empty() || now.works().all(|(_, work)| work.update_name.is_none());
            if *written == as_before && (is_told || now.at_ms - written.at_ms < SIGNALS_INTERVAL_MS) {
                return;
            }
        }
        match timeout(WRITING_LIMIT, self.database.set_activity(Some(&now))).await {
            Ok(Ok(())) => *written = Some(now),
            Ok(Err(error)) => tracing::debug!(%error, "this host's activity could not be written"),
            Err(_) => tracing::debug!("this host's activity could not be written in time"),
        }
    }

    /// Under another lease it is written anew what this host does.
    pub(in super::super) async fn forget_written(&self) {
        *self.written.lock().await = None;
    }

    /// Writes down what is to be known of this host once it has left.
    pub(in super::super) async fn write_last_words(&self) {
        let last_words = self.activity().last_words();
        match timeout(PARTING_LIMIT, self.database.set_activity(last_words.as_ref())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the last word on this host's activity was not written"),
            Err(_) => tracing::debug!("the last word on this host's activity was not written in time"),
        }
    }
}
