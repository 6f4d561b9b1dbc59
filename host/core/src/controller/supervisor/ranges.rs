//! Numbers that a controller may answer, and what those beyond are taken for.

use std::time::Duration;

use super::Supervisor;
use crate::controller::{Callback, Fault, FaultKind};

/// The largest number: those above are wrong in some guests' languages.
pub(super) const LARGEST: u32 = (1 << 31) - 1;

impl Supervisor {
    pub(super) fn out_of_range(&mut self, callback: Callback, message: String) {
        self.note(&Fault { kind: FaultKind::OutOfRange, callback, message });
    }

    pub(super) fn target_in_range(&mut self, target: Duration) -> Duration {
        let most = self.settings.max_target;
        if target <= most {
            return target;
        }
        let (given, most_ms) = (target.as_millis(), most.as_millis());
        self.out_of_range(Callback::Enter, format!("target duration {given} ms, cut to {most_ms} ms"));
        most
    }

    pub(super) fn wait_in_range(&mut self, wait: Duration) -> Duration {
        let most = Duration::from_millis(LARGEST.into());
        if wait <= most {
            return wait;
        }
        let (given, most_ms) = (wait.as_millis(), most.as_millis());
        self.out_of_range(Callback::Enter, format!("a wait of {given} ms, cut to {most_ms} ms"));
        most
    }

    pub(super) fn batch_size(
        &mut self,
        answer: Result<Option<u32>, Fault>,
        callback: Callback,
        configured: u32,
        most: u32,
    ) -> Option<u32> {
        let nearest = match answer {
            Ok(None) => return Some(configured),
            Ok(Some(0)) => 1,
            Ok(Some(size)) if size > most => most,
            Ok(Some(size)) => return Some(size),
            Err(fault) => {
                self.fault(fault);
                return None;
            }
        };
        let given = answer.ok().flatten().unwrap_or_default();
        self.out_of_range(callback, format!("batch size {given}, counted as {nearest}"));
        Some(nearest)
    }
}
