//! What is worth a line: events in words, and a controller's fault that comes again and again only now and then.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use tidegate::controller::{Callback, FaultKind};
use tidegate::scheduler::event::{Event, EventKind};

use super::words::words;
use crate::cli::output::inline;

/// A fault of one kind in one callback is told once in this time: a guest could have a new one in each iteration.
const FAULT_EVERY: Duration = Duration::from_secs(60);

/// What was told already.
#[derive(Default)]
pub(super) struct News {
    /// By place, kind and callback.
    faults: HashMap<(String, FaultKind, Callback), Told>,
    /// By database: the rows of which it was told that they cannot run.
    blocked: HashMap<String, HashSet<String>>,
}

struct Told {
    at: SystemTime,
    /// Faults since then, which were not told.
    untold: u64,
}

impl News {
    /// An event as a line, where it is worth one.
    pub(super) fn line(&mut self, event: &Event) -> Option<String> {
        if event.lane.is_some() && matches!(event.kind, EventKind::Idle { remaining: 0, .. }) {
            // An empty lane beside another is no news.
            return None;
        }
        let untold = self.untold_before(event)?;
        let words = match &event.kind {
            EventKind::Blocked { rows } => words(&self.newly_blocked(&event.database, rows))?,
            EventKind::Failure { update_name, retry_in: None, .. } => {
                self.blocked.entry(event.database.clone()).or_default().insert(update_name.clone());
                words(&event.kind)?
            }
            kind => words(kind)?,
        };
        let place = inline(&event.place());
        Some(match untold {
            0 => format!("{place}: {words}"),
            1 => format!("{place}: {words}\n  once more since this was last told"),
            untold => format!("{place}: {words}\n  {untold} times more since this was last told"),
        })
    }

    /// The rows of which nothing was told yet.
    fn newly_blocked(&mut self, database: &str, rows: &[(String, String)]) -> EventKind {
        let names = rows.iter().map(|(name, _)| name.clone()).collect();
        let told = self.blocked.insert(database.to_owned(), names).unwrap_or_default();
        EventKind::Blocked { rows: rows.iter().filter(|(name, _)| !told.contains(name)).cloned().collect() }
    }

    /// How many events like this one were not told; `None` where this one is not to be told either.
    fn untold_before(&mut self, event: &Event) -> Option<u64> {
        let EventKind::ControllerFault { fault, .. } = &event.kind else { return Some(0) };
        let key = (event.place(), fault.kind, fault.callback);
        let untold = match self.faults.get_mut(&key) {
            Some(told) if event.at.duration_since(told.at).is_ok_and(|since| since < FAULT_EVERY) => {
                told.untold += 1;
                return None;
            }
            Some(told) => told.untold,
            None => 0,
        };
        self.faults.insert(key, Told { at: event.at, untold: 0 });
        Some(untold)
    }
}
