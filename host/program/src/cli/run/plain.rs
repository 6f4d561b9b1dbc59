//! Events as lines, where there is no terminal to draw on: a line for what is news, and one on each update's pace
//! every few seconds.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tidegate::scheduler::event::{Event, EventKind};

use super::news::News;
use super::pace::RunPace;
use crate::cli::output::inline;

/// Between two lines on the pace of one database's update, and between two on what holds it.
const PACE_EVERY: Duration = Duration::from_secs(5);
/// Between two lines on a hold for the same reason: some controllers wait before each batch.
const HOLD_EVERY: Duration = Duration::from_secs(60);

/// What the lines need to remember.
#[derive(Default)]
pub(super) struct Plain {
    news: News,
    /// By place.
    in_hand: BTreeMap<String, InHand>,
}

/// An update in hand.
struct InHand {
    pace: RunPace,
    /// When its pace was last told, or what holds it.
    told: SystemTime,
    /// What was last told to hold it, and when.
    hold: Option<(String, SystemTime)>,
}

impl InHand {
    fn new(update_name: &str, one_shot: bool, at: SystemTime) -> Self {
        Self { pace: RunPace::new(update_name, one_shot), told: at, hold: None }
    }

    /// Takes in what happened. True where it is time for a line.
    fn take_in(&mut self, kind: &EventKind, at: SystemTime) -> bool {
        let is = |since: SystemTime, least: Duration| at.duration_since(since).is_ok_and(|passed| passed >= least);
        self.pace.take_in(kind);
        let due = match kind {
            EventKind::Held { .. } => match (&self.pace.held, &self.hold) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(reason), Some((told, when))) => is(*when, if reason == told { HOLD_EVERY } else { PACE_EVERY }),
            },
            // A failure is news, and so is whatever else lets it stand still.
            EventKind::IterationEnded { record, .. } if record.error.is_some() => false,
            EventKind::IterationEnded { .. } | EventKind::Progress { .. } => {
                !self.pace.is_stalled() && is(self.told, PACE_EVERY)
            }
            _ => false,
        };
        if due {
            self.told = at;
            self.hold = self.pace.held.clone().map(|reason| (reason, at)).or(self.hold.take());
        }
        due
    }
}

impl Plain {
    /// The lines for an event.
    pub(super) fn lines(&mut self, event: &Event) -> Vec<String> {
        let Event { at, kind, .. } = event;
        let place = event.place();
        if let EventKind::UpdateStarted { update_name, one_shot } = kind {
            self.in_hand.insert(place.clone(), InHand::new(update_name, *one_shot, *at));
        }
        let mut lines: Vec<String> = self.news.line(event).into_iter().collect();
        if let Some(in_hand) = self.in_hand.get_mut(&place)
            && in_hand.take_in(kind, *at)
        {
            let pace = &in_hand.pace;
            lines.push(format!("{}: {}: {}", inline(&place), inline(&pace.update_name), pace.describe()));
        }
        lines
    }
}

#[cfg(test)]
mod tests;
