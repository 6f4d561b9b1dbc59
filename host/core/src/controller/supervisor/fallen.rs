//! The fallback while it is in force: why, and when the controller is tried again for which update.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Fallback, Supervisor};
use crate::pace::Backoff;

/// The controller is tried again after this, then after twice as long, up to [`LONGEST_DELAY`].
const FIRST_DELAY: Duration = Duration::from_secs(5);
const LONGEST_DELAY: Duration = Duration::from_secs(5 * 60);

/// One who wants to end waits for as many tries for an update, and for no more.
const TRIES_WORTH_WAITING_FOR: u32 = 2;

/// When a controller is tried again, and for which update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextTry {
    /// The update.
    pub update_name: String,
    /// When, by the clock that waits go by.
    pub due: Instant,
    /// The same by the wall clock, as it stood when that was fixed.
    pub at: SystemTime,
}

impl NextTry {
    /// Of this update, now.
    pub(super) fn now(update_name: &str) -> Self {
        Self { update_name: update_name.to_owned(), due: Instant::now(), at: SystemTime::now() }
    }

    fn after(self, delay: Duration) -> Self {
        Self { due: self.due + delay, at: self.at + delay, ..self }
    }
}

/// A controller that its fallback stands in for.
pub(super) struct Fallen {
    reason: String,
    /// False where there is nothing to try again.
    is_tried: bool,
    /// By the updates that the controller failed for since the fallback took over.
    tries: BTreeMap<String, Tries>,
}

struct Tries {
    backoff: Backoff,
    /// Tries that failed.
    failed: u32,
    next: NextTry,
}

impl Fallen {
    pub(super) fn new(reason: String, is_tried: bool) -> Self {
        Self { reason, is_tried, tries: BTreeMap::new() }
    }

    /// Why the fallback is in force.
    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    /// Has the fallback be in force for this reason from now on.
    pub(super) fn give_reason(&mut self, reason: String) {
        self.reason = reason;
    }

    /// True where the controller is to be tried for this update: at once for one that it has not failed for, after a
    /// delay for others.
    pub(super) fn is_due(&self, update_name: &str) -> bool {
        self.is_tried && self.tries.get(update_name).is_none_or(|tries| tries.next.due <= Instant::now())
    }

    pub(super) fn is_hopeless(&self, update_name: &str) -> bool {
        let failed = self.tries.get(update_name).map_or(0, |tries| tries.failed);
        !self.is_tried || failed >= TRIES_WORTH_WAITING_FOR
    }

    /// Takes note that the controller failed for this update: how long it is not tried for it.
    pub(super) fn put_off(&mut self, update_name: &str) -> Duration {
        let known = self.tries.remove(update_name);
        let failed = known.as_ref().map_or(0, |tries| tries.failed + 1);
        let mut backoff = known.map_or_else(|| Backoff::new(FIRST_DELAY, LONGEST_DELAY), |tries| tries.backoff);
        let delay = backoff.after_failure();
        let next = NextTry::now(update_name).after(delay);
        self.tries.insert(update_name.to_owned(), Tries { backoff, failed, next });
        delay
    }

    /// The try that is due first.
    pub(super) fn next_try(&self) -> Option<&NextTry> {
        self.tries.values().map(|tries| &tries.next).min_by_key(|next| next.due)
    }

    pub(super) fn hurry(&mut self) {
        for (update_name, tries) in &mut self.tries {
            tries.next = NextTry::now(update_name);
        }
    }

    pub(super) fn retain(&mut self, can_run: impl Fn(&str) -> bool) {
        self.tries.retain(|update_name, _| can_run(update_name));
    }
}

/// The fallback, as those who run iterations ask of it.
impl Supervisor {
    /// True while the fallback is in force.
    pub fn has_fallen_back(&self) -> bool {
        self.fallen.is_some()
    }

    /// True while the controller is tried again.
    pub fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// True where the fallback would hold this update now.
    pub fn holds(&self, update_name: &str) -> bool {
        let held = self.fallen.as_ref().filter(|_| self.fallback() == Fallback::Hold);
        held.is_some_and(|fallen| !fallen.is_due(update_name))
    }

    /// True where the controller is not tried again for this update, whatever happens, or was so often since the fallback
    /// took over that one who wants to end need not wait for it.
    pub fn is_hopeless(&self, update_name: &str) -> bool {
        self.fallen.as_ref().is_some_and(|fallen| fallen.is_hopeless(update_name))
    }

    /// When, and for which update, the controller is tried again next, or since when it is; `None` where nothing waits for
    /// that.
    pub fn next_try(&self) -> Option<&NextTry> {
        self.trial.as_ref().or_else(|| self.fallen.as_ref()?.next_try())
    }

    /// Has the controller tried again at once.
    pub fn hurry(&mut self) {
        if let Some(fallen) = &mut self.fallen {
            fallen.hurry();
        }
    }

    /// Forgets when the controller is to be tried for updates that cannot run now: should they run again, it is tried at
    /// once.
    pub fn retain_tries(&mut self, can_run: impl Fn(&str) -> bool) {
        if let Some(fallen) = &mut self.fallen {
            fallen.retain(can_run);
        }
    }
}
