//! Events as lines, where there is no terminal to draw on: a line for what is news, and one on each update's pace
//! every few seconds.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tidegate::scheduler::event::{Event, EventKind};

use super::pace::Pace;
use super::words::words;

/// Between two lines on the pace of one database's update.
const PACE_EVERY: Duration = Duration::from_secs(5);

/// What the lines need to remember.
#[derive(Default)]
pub(super) struct Plain {
    /// By database: its update in hand, and when its pace was last told.
    in_hand: BTreeMap<String, (Pace, SystemTime)>,
}

impl Plain {
    /// The lines for an event.
    pub(super) fn lines(&mut self, event: &Event) -> Vec<String> {
        let Event { at, database, kind } = event;
        if let EventKind::UpdateStarted { update_name, one_shot } = kind {
            self.in_hand.insert(database.clone(), (Pace::new(update_name, *one_shot), *at));
        }
        let mut lines: Vec<String> = words(kind).map(|words| format!("{database}: {words}")).into_iter().collect();
        if let Some((pace, told)) = self.in_hand.get_mut(database) {
            let held = pace.take_in(kind);
            let is_pace = matches!(kind, EventKind::IterationEnded { .. } | EventKind::Progress { .. });
            let due = is_pace && at.duration_since(*told).is_ok_and(|since| since >= PACE_EVERY);
            if held || due {
                lines.push(format!("{database}: {}: {}", pace.update_name, pace.describe()));
                *told = *at;
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests;
