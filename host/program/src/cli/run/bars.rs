//! Events on a terminal: a bar for each update in hand with its pace beneath, and above the bars a line for what is
//! news.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tidegate::scheduler::event::{Event, EventKind};

use super::news::News;
use super::pace::RunPace;
use crate::cli::output::inline;

/// The bar's length: tenths of a percent.
const WHOLE: u64 = 1_000;

/// What a bar looks like while nobody knows how far its update has come, and when somebody does.
const UNKNOWN: &str = "{spinner} {prefix:.bold}\n    {wide_msg}";
const KNOWN: &str = "{spinner} {prefix:.bold} {bar:30} {percent} %\n    {wide_msg}";

/// A database, and a lane that is not its first.
type Key = (String, Option<Arc<str>>);

/// The bars there are.
pub(super) struct Bars {
    all: MultiProgress,
    news: News,
    /// By database and lane: the update in hand there.
    in_hand: BTreeMap<Key, (RunPace, ProgressBar)>,
}

impl Bars {
    pub(super) fn new(all: MultiProgress) -> Self {
        Self { all, news: News::default(), in_hand: BTreeMap::new() }
    }

    /// Shows an event.
    pub(super) fn show(&mut self, event: &Event) {
        let Event { database, lane, kind, .. } = event;
        let key = (database.clone(), lane.clone());
        if let Some(line) = self.news.line(event) {
            // A terminal that is gone is no reason to stop working.
            let _ = self.all.println(line);
        }
        match kind {
            EventKind::UpdateStarted { update_name, one_shot } => {
                self.take_away(&key);
                let bar = self.all.add(bar(&event.place(), update_name));
                self.in_hand.insert(key.clone(), (RunPace::new(update_name, *one_shot), bar));
            }
            EventKind::UpdateFinished { .. }
            | EventKind::UpdateMoved { gone: true, .. }
            | EventKind::Failure { retry_in: None, .. }
            | EventKind::LaneClosed
            | EventKind::Idle { .. } => self.take_away(&key),
            EventKind::LeaseLost { .. } | EventKind::Stopped => {
                let all: Vec<Key> = self.in_hand.keys().filter(|(of, _)| of == database).cloned().collect();
                all.iter().for_each(|key| self.take_away(key));
            }
            _ => {}
        }
        if let Some((pace, bar)) = self.in_hand.get_mut(&key) {
            pace.take_in(kind);
            draw(bar, pace);
        }
    }

    fn take_away(&mut self, key: &Key) {
        if let Some((_, bar)) = self.in_hand.remove(key) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }
}

/// A bar for an update of which nothing is known yet.
fn bar(place: &str, update_name: &str) -> ProgressBar {
    /// How often the spinner turns, so that one sees that the host is alive during a long statement.
    const TURN: Duration = Duration::from_millis(200);
    let bar = ProgressBar::new(WHOLE).with_prefix(inline(&format!("{place}: {update_name}")));
    bar.set_style(style(UNKNOWN));
    bar.enable_steady_tick(TURN);
    bar
}

fn draw(bar: &ProgressBar, pace: &RunPace) {
    if let Some(done) = pace.done() {
        bar.set_style(style(KNOWN));
        bar.set_position((done.clamp(0.0, 1.0) * WHOLE as f64) as u64);
    }
    bar.set_message(pace.details());
}

fn style(template: &str) -> ProgressStyle {
    // The test below sees to it that both parse.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_parse() {
        assert!([UNKNOWN, KNOWN].iter().all(|template| ProgressStyle::with_template(template).is_ok()));
    }
}
