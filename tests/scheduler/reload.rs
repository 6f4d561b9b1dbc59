//! Other definitions, another controller and other settings while a host runs.

use std::sync::Arc;
use std::time::Duration;

use tidegate::controller::{Admission, Callback, Fault, FaultKind, Policy};
use tidegate::scheduler::board::{LeaseState, Phase};
use tidegate::scheduler::event::EventKind;

use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::recorder::Recorder;
use crate::support::run::{Run, backfill, make_items, touch, touched};

const LONG: Duration = Duration::from_secs(24 * 86_400);

fn reloaded(kind: &EventKind) -> Option<String> {
    match kind {
        EventKind::ControllerLoaded { controller, reloaded: true } => Some(controller.clone()),
        _ => None,
    }
}

fn held(kind: &EventKind) -> Option<()> {
    matches!(kind, EventKind::Held { .. }).then_some(())
}

on_both! {
    async fn a_reload_lets_the_iteration_in_hand_end_with_the_controller_that_entered_it(place: Place) {
        make_items(place, 2_000).await;
        let (first, second) = (Recorder::running(), Recorder::running());
        let mut run = Run::on(place, &[row("touch")]).await.define("touch", touch()).controller(Arc::new(first.clone()));
        run.settings.max_batch_size = 400;
        let mut replacement = run.replacement();
        replacement.policy = Policy::Controller(Arc::new(second.clone()));
        let mut running = run.start();
        running
            .next("a batch", |kind| matches!(kind, EventKind::BatchStarted { .. }).then_some(()))
            .await;
        running.control.reload("master", replacement);
        running.next("the reload", reloaded).await;
        let story = running.end().await;
        assert_eq!(story.finished(), ["touch"]);
        assert_eq!(touched(place).await, ["1|2000"]);
        for calls in [first.calls(), second.calls()] {
            let count = |what: &str| calls.iter().filter(|call| call.starts_with(what)).count();
            assert!(count("enter -> run") > 0, "{calls:?}");
            assert_eq!(count("enter -> run"), count("exit"), "{calls:?}");
            assert_eq!(count("on-update"), count("close"), "{calls:?}");
        }
    }

    async fn a_reload_ends_a_wait_without_exit(place: Place) {
        make_items(place, 10).await;
        let waiting = Recorder::waiting(LONG);
        let run = Run::on(place, &[row("touch")]).await.define("touch", touch()).controller(Arc::new(waiting.clone()));
        let mut replacement = run.replacement();
        replacement.policy = Policy::BuiltIn;
        let mut running = run.start();
        running.next("the wait", held).await;
        running.control.reload("master", replacement);
        let story = running.end().await;
        assert_eq!(story.finished(), ["touch"]);
        assert_eq!(waiting.calls(), ["on-update touch master false", "enter -> wait", "close"]);
        assert_eq!(touched(place).await, ["1|10"]);
    }

    async fn a_reload_brings_new_definitions_and_ends_a_fallback(place: Place) {
        make_items(place, 10).await;
        let mut run = Run::on(place, &[row("later")]).await.for_ever();
        let fault = Fault { kind: FaultKind::Unreadable, callback: Callback::Load, message: "gone".to_owned() };
        run.policy = Policy::Broken { name: "broken".to_owned(), fault };
        let mended = Recorder::running();
        let mut replacement = run.replacement();
        replacement.handlers.insert("later".to_owned(), touch());
        replacement.policy = Policy::Controller(Arc::new(mended.clone()));
        let mut running = run.start();
        running.next("idleness", |kind| matches!(kind, EventKind::Idle { .. }).then_some(())).await;
        let before = running.board.database("master").unwrap();
        assert_eq!(before.blocked.len(), 1, "{:?}", before.blocked);
        assert!(before.first.controller.fallback.is_some());
        running.control.reload("master", replacement);
        assert_eq!(running.next("the reload", reloaded).await, "recorder");
        running.next("the end", |kind| matches!(kind, EventKind::UpdateFinished { .. }).then_some(())).await;
        let after = running.board.database("master").unwrap();
        assert_eq!((after.first.controller.fallback, after.first.controller.faults.len()), (None, 0));
        assert_eq!(after.totals["later"].items, 10);
        running.stop().await;
        assert_eq!(touched(place).await, ["1|10"]);
    }

    async fn who_is_in_a_hurry_has_the_controller_asked_again_at_once(place: Place) {
        make_items(place, 10).await;
        let recorder = Recorder::new(|before| match before {
            0 => crate::support::recorder::wait(LONG),
            _ => Admission::Run(Duration::from_millis(20)),
        });
        let run = Run::on(place, &[row("touch")]).await.define("touch", touch()).controller(Arc::new(recorder.clone()));
        let mut running = run.start();
        running.next("the wait", held).await;
        let board = running.board.database("master").unwrap();
        assert_eq!(board.lease, LeaseState::Runner);
        let phase = board.first.in_hand.unwrap().phase;
        assert_eq!(phase, Phase::Held { duration: LONG, reason: "because".to_owned() });
        running.control.hurry("master");
        assert_eq!(running.end().await.finished(), ["touch"]);
        assert_eq!(touched(place).await, ["1|10"]);
    }

    async fn who_is_in_a_hurry_has_what_failed_tried_again_at_once(place: Place) {
        make_items(place, 10).await;
        let mut run = Run::on(place, &[row("touch")]).await.define("touch", backfill("touched = nowhere"));
        run.settings.max_attempts = 12;
        let mut running = run.start();
        // Twelve failures in a row are seven minutes of backoff.
        for attempt in 1..=12 {
            let failed = |kind: &EventKind| match kind {
                EventKind::Failure { attempts, .. } => Some(*attempts),
                _ => None,
            };
            assert_eq!(running.next("a failure", failed).await, attempt);
            running.control.hurry("master");
        }
        let story = running.end().await;
        assert_eq!(story.remaining().len(), 1);
    }
}
