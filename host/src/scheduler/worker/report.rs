//! What the loop tells: events, and the activity that `status` reads.

use std::time::{Duration, SystemTime};

use super::super::choice::Standing;
use super::super::database::{Activity, ControllerRetry, unix_ms};
use super::super::event::EventKind;
use super::Worker;
use crate::controller::supervisor::Notice;
use crate::controller::{Fallback, Shadow};
use crate::update::SqlError;

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
