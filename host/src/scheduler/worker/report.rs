//! What the loop tells: events, and the activity that `status` reads.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout};

use super::super::choice::Standing;
use super::super::database::{Activity, ControllerRetry, unix_ms};
use super::super::event::EventKind;
use super::{ESTIMATE_INTERVAL, ESTIMATE_LIMIT, Worker};
use crate::controller::supervisor::Notice;
use crate::controller::{Fallback, Shadow};
use crate::pace::eta;
use crate::update::sql::Estimate;
use crate::update::{Progress, SqlError, UpdateError};

/// How often signals alone are a reason to write down what the host does, in milliseconds.
const SIGNALS_INTERVAL_MS: i64 = 5_000;

impl Worker {
    pub(super) fn emit(&self, kind: EventKind) {
        self.events.emit(&self.workload.name, kind);
    }

    pub(super) fn note_pause(&mut self) {
        let paused = self.is_paused();
        if paused != self.paused {
            let reason = self.pause_reason();
            self.emit(if paused { EventKind::Paused { reason } } else { EventKind::Resumed });
        }
        self.paused = paused;
    }

    /// Why updates are paused, where somebody said so.
    pub(super) fn pause_reason(&self) -> Option<String> {
        let stored = self.pause.as_ref().and_then(|pause| pause.reason.clone());
        stored.or_else(|| self.control.pause_of(&self.workload.name)?)
    }

    /// Tells which rows cannot run, where that has changed. Rows that merely wait for others are in good order.
    pub(super) fn note_blocked(&mut self) {
        let in_order = |standing: &Standing| matches!(standing, Standing::Ready | Standing::DependsOn(_));
        let rows = self.roster.iter();
        let blocked: Vec<(String, String)> = rows
            .filter(|(_, standing)| !in_order(standing))
            .filter_map(|(row, standing)| Some((row.update_name.clone(), standing.explain(row)?)))
            .collect();
        if blocked != self.blocked {
            self.blocked.clone_from(&blocked);
            self.emit(EventKind::Blocked { rows: blocked });
        }
    }

    pub(super) fn note_unavailable(&mut self, error: &SqlError) -> Duration {
        let retry_in = self.database_backoff.after_failure();
        self.unavailable = true;
        self.emit(EventKind::Unavailable { error: error.to_string(), retry_in });
        retry_in
    }

    pub(super) fn note_available(&mut self) {
        self.database_backoff.reset();
        self.answered = true;
        if std::mem::take(&mut self.unavailable) && !self.locked_out {
            self.emit(EventKind::Available);
        }
    }

    pub(super) fn set_state(&mut self, state: &str, reason: Option<String>) {
        state.clone_into(&mut self.activity.state);
        self.activity.reason = reason;
    }

    /// Estimates, now and then, how far the update in hand has come.
    pub(super) async fn estimate(&mut self) {
        if self.estimated.is_some_and(|at| at.elapsed() < ESTIMATE_INTERVAL) {
            return;
        }
        let Some(update_name) = self.current.clone() else { return };
        self.estimated = Some(Instant::now());
        // An estimate that has to wait for somebody's lock is not worth the wait.
        let estimate = timeout(ESTIMATE_LIMIT, self.estimate_of(&update_name)).await;
        match estimate.unwrap_or(Ok(None)) {
            Ok(Some(Estimate { done, rows })) => {
                let pace = self.pace(&update_name);
                let rate = pace.items as f64 / (pace.since.elapsed().as_secs_f64() * 1e3);
                let eta = eta((1.0 - done) * rows, rate);
                self.activity.done = Some(done);
                self.activity.eta_ms = eta.map(|eta| eta.as_millis().try_into().unwrap_or(u64::MAX));
                self.emit(EventKind::Progress { update_name, done, eta });
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(update = update_name, %error, "its progress could not be estimated"),
        }
    }

    async fn estimate_of(&mut self, update_name: &str) -> Result<Option<Estimate>, UpdateError> {
        let row = self.roster.get(update_name);
        let handler = self.workload.handlers.get(update_name);
        let (Some(row), Some(handler)) = (row, handler) else { return Ok(None) };
        let progress = Progress::parse(&row.progress)?;
        let mut session = self.workload.database.inspect().await?;
        handler.estimate(session.as_sql(), &progress).await
    }

    /// Writes what this host does, where it is not what was last written. What it measures is written along; where an
    /// update is in hand, so that the database is written to anyway, also for its own sake, now and then.
    pub(super) async fn write_activity(&mut self) {
        self.activity.put_off = self.told_put_off();
        let (signals, at_ms) = (self.control.measured(&self.workload.name), unix_ms(SystemTime::now()));
        if let Some(written) = &self.activity_written {
            let as_before =
                Activity { at_ms: written.at_ms, signals: written.signals.clone(), ..self.activity.clone() };
            let is_told = signals.is_empty() || self.activity.update_name.is_none();
            if *written == as_before && (is_told || at_ms - written.at_ms < SIGNALS_INTERVAL_MS) {
                return;
            }
        }
        let now = Activity { at_ms, signals, ..self.activity.clone() };
        match self.workload.database.set_activity(Some(&now)).await {
            Ok(()) => self.activity_written = Some(now),
            Err(error) => tracing::debug!(%error, "this host's activity could not be written"),
        }
    }

    /// Tells what the controller used since this was last told; the fuel of it comes back, where it is measured.
    pub(super) fn report_usage(&mut self) -> Option<u64> {
        let usage = self.supervisor.take_usage()?;
        if usage.calls > 0 {
            self.emit(EventKind::ControllerUsed { controller: self.supervisor.name().to_owned(), usage });
        }
        Some(usage.fuel)
    }

    /// What stays on record of a host that leaves: its controller's last fault, where there was one.
    pub(super) fn last_words(&self) -> Option<Activity> {
        self.activity.fault.is_some().then(|| Activity {
            update_name: None,
            state: "stopped".to_owned(),
            reason: None,
            controller_retry: None,
            items_per_ms: None,
            done: None,
            eta_ms: None,
            put_off: Vec::new(),
            at_ms: unix_ms(SystemTime::now()),
            ..self.activity.clone()
        })
    }

    /// Passes on what the supervisor noticed.
    pub(super) fn report_controller(&mut self) {
        for notice in self.supervisor.take_notices() {
            let controller = self.supervisor.name().to_owned();
            self.emit(match notice {
                Notice::Fault { fault, in_a_row } => EventKind::ControllerFault { controller, fault, in_a_row },
                Notice::Fallback { fallback, reason, retry } => {
                    let fallback = match fallback {
                        Fallback::Default => "default",
                        Fallback::Hold => "hold",
                    };
                    EventKind::Fallback { controller, fallback: fallback.to_owned(), reason, retry }
                }
                Notice::Tried { update_name } => EventKind::ControllerTried { controller, update_name },
                Notice::PutOff { update_name, reason, retry_in } => {
                    EventKind::ControllerPutOff { controller, update_name, reason, retry_in }
                }
                Notice::Back => EventKind::ControllerBack { controller },
            });
        }
        self.activity.controller = self.supervisor.describe();
        self.activity.controller_retry = self
            .supervisor
            .next_try()
            .map(|next| ControllerRetry { update_name: next.update_name.clone(), at_ms: unix_ms(next.at) });
        self.activity.shadows = self.shadows.iter().map(Shadow::report).collect();
        self.activity.fault =
            self.supervisor.last_fault().map(|fault| format!("{fault} (hint: {})", fault.kind.hint()));
    }
}
