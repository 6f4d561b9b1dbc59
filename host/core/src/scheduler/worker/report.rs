//! What a lane tells: events, and what `status` reads of it.

use super::super::activity::Work;
use super::super::database::{ControllerRetry, unix_ms};
use super::super::event::EventKind;
use super::super::update_state::{LaneState, UpdateState};
use super::Worker;
use crate::controller::supervisor::Notice;
use crate::controller::{Fallback, Shadow, Supervisor};

impl Worker {
    pub(super) fn emit(&self, kind: EventKind) {
        self.common.events.emit_in(&self.common.name, &self.lane, kind);
    }

    /// Changes what this lane is said to do, and gives what comes of that.
    pub(super) fn tell<T>(&self, change: impl FnOnce(&mut Work) -> T) -> T {
        self.common.tell(&self.lane, change)
    }

    /// Says how the update in hand stands.
    pub(super) fn stands(&self, state: UpdateState, reason: Option<String>) {
        self.set_state(LaneState::Update(state), reason);
    }

    pub(super) fn set_state(&self, state: LaneState, reason: Option<String>) {
        self.tell(|work| (work.state, work.reason) = (state, reason));
    }

    /// Tells what the controller used since this was last told; the fuel of it comes back, where it is measured.
    pub(super) fn report_usage(&mut self) -> Option<u64> {
        let Self { supervisor, common, lane, .. } = self;
        usage_of(supervisor, |kind| common.events.emit_in(&common.name, lane, kind))
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
        let controller = self.supervisor.describe();
        let controller_retry = self
            .supervisor
            .next_try()
            .map(|next| ControllerRetry { update_name: next.update_name.clone(), at_ms: unix_ms(next.at) });
        let shadows = self.shadows.iter().map(Shadow::report).collect();
        let fault = self.supervisor.last_fault().map(|fault| format!("{fault} (hint: {})", fault.kind.hint()));
        self.tell(|work| {
            (work.controller, work.controller_retry) = (controller, controller_retry);
            (work.shadows, work.fault) = (shadows, fault);
        });
    }
}

/// Tells what a controller used since this was last told; the fuel of it comes back, where it is measured.
pub(super) fn usage_of(supervisor: &mut Supervisor, emit: impl FnOnce(EventKind)) -> Option<u64> {
    let usage = supervisor.take_usage()?;
    if usage.calls > 0 {
        emit(EventKind::ControllerUsed { controller: supervisor.name().to_owned(), usage });
    }
    Some(usage.fuel)
}
