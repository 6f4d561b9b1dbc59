//! What happened, in words.

use tidegate::controller::ShadowNotice;
use tidegate::scheduler::event::EventKind;

use crate::cli::output::{duration, inline};

/// An event in words; `None` for what is only part of an update's pace.
pub(super) fn words(kind: &EventKind) -> Option<String> {
    Some(match kind {
        EventKind::LeaseAcquired => "working on this database".to_owned(),
        EventKind::StandingBy { holder: Some(holder) } => {
            format!("standing by: process {} on {} works on this database", holder.pid, inline(&holder.host))
        }
        EventKind::StandingBy { holder: None } => "standing by: another host works on this database".to_owned(),
        EventKind::LeaseLost { reason } => format!("lease lost: {}", inline(reason)),
        EventKind::Unavailable { error, retry_in } => {
            format!("unavailable: {}; trying again in {}", inline(error), duration(*retry_in))
        }
        EventKind::Available => "available again".to_owned(),
        EventKind::UpdateStarted { update_name, one_shot: true } => {
            format!("{}: started, in one go", inline(update_name))
        }
        EventKind::UpdateStarted { update_name, one_shot: false } => format!("{}: started", inline(update_name)),
        EventKind::InTheWay { who, .. } if who.is_empty() => return None,
        EventKind::InTheWay { update_name, who } => {
            format!("{}: waits for {}", inline(update_name), inline(&who.join(", ")))
        }
        EventKind::TransientFailure { update_name, error, detail, retry_in } => {
            let (name, error, detail) = (inline(update_name), inline(error), in_detail(detail.as_deref()));
            format!("{name}: {error}; trying again in {}{detail}", duration(*retry_in))
        }
        EventKind::Failure { update_name, error, detail, attempts, retry_in } => {
            let (name, error, detail) = (inline(update_name), inline(error), in_detail(detail.as_deref()));
            let told = match (retry_in, attempts) {
                (Some(retry_in), _) => {
                    format!("{name}: failed (attempt {attempts}): {error}; trying again in {}", duration(*retry_in))
                }
                (None, 1) => format!("{name}: quarantined after 1 attempt: {error}"),
                (None, _) => format!("{name}: quarantined after {attempts} attempts: {error}"),
            };
            format!("{told}{detail}")
        }
        EventKind::UpdateFinished { update_name } => format!("{}: finished", inline(update_name)),
        EventKind::Noted { update_name, note } => format!("{}: {}", inline(update_name), inline(note)),
        EventKind::AwaitsApproval { update_name, reason } => {
            let name = inline(update_name);
            format!("{name}: awaiting approval: {}; `tidegate approve {name}` has it go on", inline(reason))
        }
        EventKind::UpdateMoved { update_name, gone: true } => {
            format!("{}: withdrawn from the queue", inline(update_name))
        }
        EventKind::UpdateMoved { update_name, gone: false } => {
            format!("{}: somebody else moved it on", inline(update_name))
        }
        EventKind::ControllerFault { controller, fault, .. } => {
            format!("controller {}: {}\n  hint: {}", inline(controller), inline(&fault.to_string()), fault.kind.hint())
        }
        EventKind::Fallback { controller, fallback, reason, retry } => {
            let effect = match fallback.as_str() {
                "hold" => "updates are held until it is mended",
                _ => "the built-in policy takes over",
            };
            let retry = retry.as_ref().map(|(update_name, wait)| {
                format!("; the controller is tried again for {} in {}", inline(update_name), duration(*wait))
            });
            let (controller, reason, retry) = (inline(controller), inline(reason), retry.unwrap_or_default());
            format!("controller {controller}: {reason}; {effect} (fallback \"{fallback}\"){retry}")
        }
        EventKind::ControllerTried { controller, update_name } => {
            format!("controller {}: tried again, for {}", inline(controller), inline(update_name))
        }
        EventKind::ControllerPutOff { controller, update_name, reason, retry_in } => {
            let (controller, reason, update_name) = (inline(controller), inline(reason), inline(update_name));
            format!("controller {controller}: {reason}; tried again for {update_name} in {}", duration(*retry_in))
        }
        EventKind::ControllerBack { controller } => {
            format!("controller {}: it came back, and sets the pace again", inline(controller))
        }
        EventKind::Shadow { controller, notice } => return shadow(controller, notice),
        EventKind::ControllerLoaded { controller, reloaded: true } => {
            format!("reloaded: controller {controller} sets the pace")
        }
        EventKind::Blocked { rows } if rows.is_empty() => return None,
        EventKind::Blocked { rows } => {
            let rows: Vec<_> =
                rows.iter().map(|(name, reason)| format!("{} ({})", inline(name), inline(reason))).collect();
            format!("cannot run: {}", rows.join(", "))
        }
        EventKind::Paused { reason: Some(reason) } => format!("paused: {}", inline(reason)),
        EventKind::Paused { reason: None } => "paused".to_owned(),
        EventKind::Resumed => "resumed".to_owned(),
        EventKind::Idle { remaining: 0, elsewhere: 0 } => "the queue is empty".to_owned(),
        EventKind::Idle { remaining: 0, .. } => "this lane is empty".to_owned(),
        EventKind::Idle { remaining: 1, .. } => "nothing can run; 1 row remains".to_owned(),
        EventKind::Idle { remaining, .. } => format!("nothing can run; {remaining} rows remain"),
        EventKind::LaneClosed => "closed: the configuration has no such lane any more".to_owned(),
        EventKind::Stopped => "stopped".to_owned(),
        _ => return None,
    })
}

/// What the log alone is told of an error, on a line of its own.
fn in_detail(detail: Option<&str>) -> String {
    detail.map(|detail| format!("\n  detail: {}", inline(detail))).unwrap_or_default()
}

/// What a shadow decides is for the log and for the counters.
fn shadow(controller: &str, notice: &ShadowNotice) -> Option<String> {
    let controller = inline(controller);
    match notice {
        ShadowNotice::Fault { fault, .. } => {
            Some(format!("shadow {controller}: {}\n  hint: {}", inline(&fault.to_string()), fault.kind.hint()))
        }
        ShadowNotice::GivenUp { reason, retry_in: None } => {
            Some(format!("shadow {controller}: {}; it is not asked any more until a reload", inline(reason)))
        }
        ShadowNotice::GivenUp { reason, retry_in: Some(retry_in) } => {
            Some(format!("shadow {controller}: {}; it is asked again in {}", inline(reason), duration(*retry_in)))
        }
        ShadowNotice::Back => Some(format!("shadow {controller}: it came back")),
        ShadowNotice::Decided { .. } | ShadowNotice::Behind { .. } | ShadowNotice::Used(_) => None,
    }
}
