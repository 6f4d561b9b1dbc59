//! Two hosts made to run at once, which no lease keeps apart: the comparison of progress alone does, and without it
//! the tests notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::controller::{Admission, Controller, Fault, Iteration, Outcome, Source, Subject};
use tidegate::scheduler::database::Record;
use tidegate::scheduler::event::EventKind;
use tidegate_database::Switches;
use tokio::sync::Barrier;
use tokio::time::timeout;

use super::each_touched_once;
use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::run::{Run, Story, make_items, touch};

const ROWS: u32 = 2_000;

/// Lets a batch begin only when the other host is about to begin one too, so that both are planned from the same
/// progress; and goes on only when the other one has ended its batch too.
#[derive(Clone)]
struct InStep {
    meeting: Arc<Barrier>,
    /// For how many iterations more this host waits for the other one.
    left: Arc<AtomicUsize>,
}

impl InStep {
    async fn meet(&self) {
        timeout(Duration::from_secs(30), self.meeting.wait()).await.expect("the other host has left off");
    }
}

#[async_trait]
impl Source for InStep {
    fn name(&self) -> &str {
        "in step"
    }

    async fn start(&self, _: &str) -> Result<Box<dyn Controller>, Fault> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Controller for InStep {
    async fn on_update(&mut self, _: &Subject) -> Result<Box<dyn Iteration>, Fault> {
        let meets = self.left.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        Ok(Box::new(Step(meets.then(|| self.clone()))))
    }
}

/// An iteration, in step with the other host's or by itself.
struct Step(Option<InStep>);

#[async_trait]
impl Iteration for Step {
    async fn enter(&mut self) -> Result<Admission, Fault> {
        if let Some(in_step) = &self.0 {
            in_step.meet().await;
        }
        Ok(Admission::Run(Duration::from_millis(20)))
    }

    async fn exit(&mut self, _: &Outcome) -> Result<(), Fault> {
        if let Some(in_step) = &self.0 {
            in_step.meet().await;
        }
        Ok(())
    }
}

/// Runs two hosts at once over [`ROWS`] items; for `iterations` each keeps in step with the other.
async fn two_at_once(place: &Place, skip_progress_comparison: bool, iterations: usize) -> [Story; 2] {
    make_items(place, ROWS).await;
    place.prepared().await.enqueue(&row("touch")).await.unwrap();
    let meeting = Arc::new(Barrier::new(2));
    let host = || {
        let switches = Switches { lease_always: true, skip_progress_comparison, ..Switches::default() };
        let mut run = Run::with(place.open_with(|options| options.switches = switches));
        run.settings.max_batch_size = 50;
        let in_step = InStep { meeting: meeting.clone(), left: Arc::new(AtomicUsize::new(iterations)) };
        run.define("touch", touch()).controller(Arc::new(in_step)).start()
    };
    let (one, two) = (host(), host());
    let (one, two) = tokio::join!(one.end(), two.end());
    [one, two]
}

/// Batches that were committed, and those that were refused because the other host had been there before.
fn outcomes(stories: &[Story]) -> (usize, usize) {
    let committed = |record: &&Record| record.is_committed();
    let moved = |kind: &&EventKind| matches!(kind, EventKind::UpdateMoved { .. });
    let committed = stories.iter().map(|story| story.iterations().into_iter().filter(committed).count()).sum();
    (committed, stories.iter().map(|story| story.events.iter().filter(moved).count()).sum())
}

on_both! {
    async fn without_the_comparison_of_progress_two_hosts_do_work_twice(place: Place) {
        two_at_once(place, true, 1).await;
        let problem = each_touched_once(place, ROWS).await.unwrap_err();
        assert!(problem.contains("\"2|"), "{problem}");
    }

    async fn the_comparison_of_progress_keeps_two_hosts_apart(place: Place) {
        let stories = two_at_once(place, false, usize::MAX).await;
        each_touched_once(place, ROWS).await.unwrap();
        // Each batch was begun by both, and one of the two was told no.
        let (committed, refused) = outcomes(&stories);
        assert!(committed >= ROWS as usize / 50 && refused == committed, "{committed} committed, {refused} refused");
    }
}
