//! Events as lines of the log: an iteration and what a shadow makes of it at debug; where the log is all there is, because it is JSON, also what
//! becomes of updates, at info, and what a person should look at, at warn.

use tidegate::controller::ShadowNotice;
use tidegate::scheduler::event::{Event, EventKind, Observer};

use super::words::words;
use crate::cli::output;

/// Logs every event under the target `tidegate::run`.
pub(super) struct Trace;

impl Observer for Trace {
    fn see(&self, event: &Event) {
        let database = event.database.as_str();
        if let EventKind::IterationEnded { record, .. } = &event.kind {
            tracing::debug!(
                target: "tidegate::run",
                database,
                update = record.update_name,
                outcome = record.outcome.as_str(),
                batch_size = record.batch_size,
                items = record.items,
                target_ms = record.target_ms,
                duration_ms = record.duration_ms,
                waited_ms = record.waited_ms,
                wait_reason = record.wait_reason,
                controller = record.controller,
                fuel = record.fuel,
                error = record.error,
                "iteration"
            );
            return;
        }
        if let EventKind::Shadow { controller, notice } = &event.kind {
            log_shadow(database, controller, notice);
        }
        // People are told by the display.
        if !output::is_logged() {
            return;
        }
        let Some(words) = words(&event.kind) else { return };
        match &event.kind {
            EventKind::Unavailable { .. }
            | EventKind::LeaseLost { .. }
            | EventKind::TransientFailure { .. }
            | EventKind::InTheWay { .. }
            | EventKind::Failure { .. }
            | EventKind::ControllerFault { .. }
            | EventKind::Fallback { .. }
            | EventKind::ControllerPutOff { .. }
            | EventKind::Shadow { .. }
            | EventKind::Blocked { .. } => tracing::warn!(target: "tidegate::run", database, "{words}"),
            _ => tracing::info!(target: "tidegate::run", database, "{words}"),
        }
    }
}

fn log_shadow(database: &str, shadow: &str, notice: &ShadowNotice) {
    match notice {
        ShadowNotice::Decided { update_name, callback, live, shadow: answer, differs } => tracing::debug!(
            target: "tidegate::run",
            database,
            shadow,
            update = update_name,
            %callback,
            live,
            answer,
            differs,
            "shadow"
        ),
        ShadowNotice::Behind { calls } => {
            tracing::debug!(target: "tidegate::run", database, shadow, calls, "a shadow is behind and was not asked");
        }
        ShadowNotice::Fault { .. } | ShadowNotice::GivenUp { .. } | ShadowNotice::Back | ShadowNotice::Used(_) => {}
    }
}
