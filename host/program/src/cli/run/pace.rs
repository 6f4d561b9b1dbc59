//! The pace of the update that a database has in hand, gathered from events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tidegate::scheduler::database::Record;
use tidegate::scheduler::event::EventKind;

use crate::cli::output;
use tidegate::scheduler::report::{RECENT, throughput};

/// An update in hand.
#[derive(Debug, Default)]
pub(super) struct RunPace {
    pub update_name: String,
    one_shot: bool,
    /// The part that is done, 0.0 to 1.0, and what is left, as they were last estimated.
    done: Option<f64>,
    left: Option<Duration>,
    /// The last iterations, the newest last.
    recent: VecDeque<Arc<Record>>,
    /// Items since it was taken in hand.
    items: u64,
    /// Why the controller lets it wait, where that is more than a rest between batches.
    pub held: Option<String>,
    /// What else keeps it from going on. The news has told it.
    stalled: Option<String>,
}

impl RunPace {
    pub(super) fn new(update_name: &str, one_shot: bool) -> Self {
        Self { update_name: update_name.to_owned(), one_shot, ..Self::default() }
    }

    /// Takes in what happened.
    pub(super) fn take_in(&mut self, kind: &EventKind) {
        match kind {
            EventKind::Progress { done, eta, .. } => {
                self.done = Some(*done);
                self.left = *eta;
            }
            EventKind::IterationEnded { record, .. } => {
                self.items += record.items;
                self.recent.push_back(Arc::clone(record));
                if self.recent.len() > RECENT as usize {
                    self.recent.pop_front();
                }
            }
            EventKind::BatchStarted { one_shot, .. } => {
                (self.held, self.stalled, self.one_shot) = (None, None, *one_shot);
            }
            EventKind::Held { reason, rest: false, .. } => self.held = Some(output::inline(reason)),
            EventKind::Paused { .. } => self.stalled = Some("paused".to_owned()),
            EventKind::Unavailable { error, .. } => {
                self.stalled = Some(format!("unavailable: {}", output::inline(error)))
            }
            EventKind::TransientFailure { error, .. } | EventKind::Failure { error, retry_in: Some(_), .. } => {
                self.stalled = Some(format!("to be tried again: {}", output::inline(error)));
            }
            EventKind::Resumed | EventKind::Available => self.stalled = None,
            _ => {}
        }
    }

    /// True where it does not go on, and has no pace therefore.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    /// The part that is done, 0.0 to 1.0.
    pub(super) fn done(&self) -> Option<f64> {
        self.done
    }

    /// How far it is and how fast, on one line: "42 %, 48s left, 12,000/s, batch of 1,200 in 98ms of 100ms, 110,400
    /// items".
    pub(super) fn describe(&self) -> String {
        match (self.done, self.held.as_ref().or(self.stalled.as_ref())) {
            (Some(done), None) if !self.one_shot => format!("{}, {}", output::percent(done), self.details()),
            _ => self.details(),
        }
    }

    /// The same without the part that is done. A narrow terminal cuts its end off, so that what matters most is first.
    pub(super) fn details(&self) -> String {
        if let Some(reason) = &self.stalled {
            return reason.clone();
        }
        if let Some(reason) = &self.held {
            return format!("held: {reason}");
        }
        if self.one_shot {
            return "in one go, which may take long".to_owned();
        }
        let left = self.left.map(|left| format!("{} left", output::duration(left)));
        let rate = throughput(self.recent.iter().map(AsRef::as_ref)).map(output::rate);
        let batch = self.recent.back().filter(|record| record.items > 0).map(|record| batch(record));
        let items = Some(format!("{} items", output::count(self.items)));
        [left, rate, batch, items].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// A batch beside its target: "batch of 1,200 in 98ms of 100ms".
fn batch(record: &Record) -> String {
    let took = Duration::from_secs_f64(record.duration_ms.max(0.0) / 1_000.0);
    let took = format!("batch of {} in {}", output::count(record.batch_size), output::duration(took));
    match record.target_ms {
        Some(target) => format!("{took} of {}", output::duration(Duration::from_millis(target))),
        None => took,
    }
}
