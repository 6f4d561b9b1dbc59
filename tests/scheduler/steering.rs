//! Pausing, stopping, withdrawing, standing by.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidegate::scheduler::End;
use tidegate::scheduler::database::{LeaseAttempt, Pause};
use tidegate::scheduler::event::EventKind;
use tidegate::update::sql::Sql;
use tidegate::update::{Budget, Handler, Mode, Progress, Step, UpdateError};

use crate::support::place::{Place, holder, row};
use crate::support::recorder::{Recorder, wait};
use crate::support::run::{Run, Running, make_items, touch, touched};
use crate::support::{on_both, until};

const DAYS: Duration = Duration::from_secs(24 * 24 * 3_600);

/// Longer than a lease lasts that nobody renews.
const BLOCKED: Duration = Duration::from_secs(9);

/// Blocks the thread that it runs on, as no handler should.
struct Blocking;

#[async_trait]
impl Handler for Blocking {
    fn mode(&self, _: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::Batched)
    }

    async fn run(&self, _: &mut dyn Sql, _: &Progress, _: Budget) -> Result<Step, UpdateError> {
        std::thread::sleep(BLOCKED);
        Ok(Step::finished(1))
    }
}

/// A wait between batches, so that there is a between.
fn short() -> Duration {
    Duration::from_millis(30)
}

/// Waits before each batch.
fn gentle() -> Arc<Recorder> {
    Arc::new(Recorder::new(|entered| match entered % 2 {
        0 => wait(short()),
        _ => tidegate::controller::Admission::Run(Duration::from_millis(20)),
    }))
}

async fn held(running: &mut Running) {
    running.next("a wait", |kind| matches!(kind, EventKind::Held { .. }).then_some(())).await;
}

async fn paused(running: &mut Running) {
    running.next("the pause", |kind| matches!(kind, EventKind::Paused { .. }).then_some(())).await;
}

async fn committed(running: &mut Running) -> u64 {
    running
        .next("a batch", |kind| match kind {
            EventKind::IterationEnded { record, .. } => Some(record.items),
            _ => None,
        })
        .await
}

on_both! {
    async fn a_pause_takes_effect_before_the_next_batch_and_is_lifted_again(place: Place) {
        make_items(place, 1_000).await;
        let mut run = Run::on(place, &[row("a")]).await.define("a", touch()).controller(gentle());
        run.settings.max_batch_size = 50;
        let database = run.database.clone();
        let mut running = run.start();
        committed(&mut running).await;
        running.control.set_enabled(false);
        paused(&mut running).await;
        // The host writes down that it is paused once it has come to rest.
        until("the host rests", async || {
            let activity = database.queue().await.unwrap().activity;
            activity.is_some_and(|activity| activity.first.state.words() == "paused")
        })
        .await;
        running.control.set_enabled(true);
        let story = running.end().await;
        let position = |wanted: fn(&EventKind) -> bool| story.events.iter().position(wanted).unwrap();
        let paused = position(|kind| matches!(kind, EventKind::Paused { .. }));
        let resumed = position(|kind| matches!(kind, EventKind::Resumed));
        let batch = |kind: &EventKind| matches!(kind, EventKind::BatchStarted { .. });
        assert!(!story.events[paused..resumed].iter().any(batch), "a batch ran during the pause");
        assert!(story.events[resumed..].iter().any(batch), "no batch was left to run after the pause");
        assert_eq!(touched(place).await, ["1|1000"]);
    }

    async fn a_stored_pause_holds_hosts_that_start_later_until_it_is_lifted(place: Place) {
        make_items(place, 200).await;
        let run = Run::on(place, &[row("a")]).await.define("a", touch());
        let database = run.database.clone();
        let pause = Pause { since_ms: 5, reason: Some("deploying".to_owned()) };
        database.set_pause(Some(&pause)).await.unwrap();
        let mut running = run.start();
        let reason = running.next("the pause", |kind| match kind {
            EventKind::Paused { reason } => Some(reason.clone()),
            _ => None,
        }).await;
        assert_eq!(reason.as_deref(), Some("deploying"));
        database.set_pause(None).await.unwrap();
        running.end().await;
        assert_eq!(touched(place).await, ["1|200"]);
    }

    async fn a_pause_ends_a_wait_of_24_days_without_an_exit(place: Place) {
        make_items(place, 10).await;
        let recorder = Recorder::waiting(DAYS);
        let run = Run::on(place, &[row("a")]).await.define("a", touch()).controller(Arc::new(recorder.clone()));
        let mut running = run.start();
        held(&mut running).await;
        running.control.set_enabled(false);
        paused(&mut running).await;
        let story = running.stop().await;
        assert_eq!(story.end, End::Stopped);
        assert_eq!(recorder.calls(), ["on-update a master false", "enter -> wait", "close"]);
    }

    async fn a_stop_ends_a_wait_of_24_days_without_an_exit(place: Place) {
        make_items(place, 10).await;
        let recorder = Recorder::waiting(DAYS);
        let run = Run::on(place, &[row("a")]).await.define("a", touch()).controller(Arc::new(recorder.clone()));
        let mut running = run.start();
        held(&mut running).await;
        assert_eq!(running.stop().await.end, End::Stopped);
        assert_eq!(recorder.calls(), ["on-update a master false", "enter -> wait", "close"]);
    }

    async fn a_row_withdrawn_and_queued_again_is_in_hand_again_when_it_runs(place: Place) {
        make_items(place, 10).await;
        let run = Run::on(place, &[row("a")]).await.define("a", touch()).for_ever();
        let run = run.controller(Arc::new(Recorder::waiting(DAYS)));
        let database = run.database.clone();
        let mut running = run.start();
        let gone = |kind: &EventKind| matches!(kind, EventKind::UpdateMoved { gone: true, .. }).then_some(());
        for _ in 0..3 {
            running.next("it is in hand", |kind| matches!(kind, EventKind::UpdateStarted { .. }).then_some(())).await;
            held(&mut running).await;
            let in_hand = running.board.database("master").unwrap().first.in_hand.map(|in_hand| in_hand.update_name);
            assert_eq!(in_hand.as_deref(), Some("a"));
            database.cancel(&["a".to_owned()]).await.unwrap();
            running.next("it is gone", gone).await;
            running.next("nothing is left", |kind| matches!(kind, EventKind::Idle { .. }).then_some(())).await;
            let board = running.board.database("master").unwrap();
            assert_eq!((board.first.in_hand, board.ended.back().map(|ended| ended.finished)), (None, Some(false)));
            assert!(database.enqueue(&row("a")).await.unwrap());
        }
        running.stop().await;
        assert_eq!(touched(place).await, ["0|10"]);
    }

    async fn a_row_withdrawn_during_a_wait_is_left_alone(place: Place) {
        make_items(place, 10).await;
        let recorder = Recorder::waiting(DAYS);
        let run = Run::on(place, &[row("a")]).await.define("a", touch()).controller(Arc::new(recorder.clone()));
        let database = run.database.clone();
        let mut running = run.start();
        held(&mut running).await;
        assert_eq!(database.cancel(&["a".to_owned()]).await.unwrap(), ["a"]);
        assert_eq!(running.end().await.remaining(), []);
        assert_eq!(recorder.calls(), ["on-update a master false", "enter -> wait", "close"]);
        assert_eq!(touched(place).await, ["0|10"]);
    }

    async fn the_calls_of_an_updates_whole_life_come_in_order(place: Place) {
        make_items(place, 250).await;
        let recorder = Recorder::new(|entered| match entered {
            0..3 => wait(Duration::ZERO),
            _ => tidegate::controller::Admission::Run(Duration::ZERO),
        });
        let run = Run::on(place, &[row("a")]).await.define("a", touch()).controller(Arc::new(recorder.clone()));
        run.until_done().await;
        assert_eq!(recorder.calls(), [
            "on-update a master false", "enter -> wait", "enter -> wait", "enter -> wait", "enter -> run",
            "exit completed 100 of 100", "close",
            "on-update a master false", "enter -> run", "exit completed 100 of 100", "close",
            "on-update a master false", "enter -> run", "exit finished 50", "close",
        ]);
    }

    async fn of_two_hosts_one_runs_and_the_other_takes_over(place: Place) {
        make_items(place, 600).await;
        let mut first = Run::on(place, &[row("a")]).await.define("a", touch()).controller(gentle()).for_ever();
        first.settings.max_batch_size = 50;
        let mut first = first.start();
        committed(&mut first).await;
        let mut second = Run::with(place.open()).define("a", touch()).start();
        second.next("a standby", |kind| matches!(kind, EventKind::StandingBy { .. }).then_some(())).await;
        first.stop().await;
        let story = second.end().await;
        assert_eq!(story.finished(), ["a"]);
        assert_eq!(touched(place).await, ["1|600"]);
    }

    async fn a_standby_ends_once_the_other_host_has_left_nothing_to_do(place: Place) {
        make_items(place, 400).await;
        let mut first = Run::on(place, &[row("a")]).await.define("a", touch()).controller(gentle()).for_ever();
        first.settings.max_batch_size = 100;
        let mut first = first.start();
        committed(&mut first).await;
        let story = Run::with(place.open()).define("a", touch()).until_done().await;
        assert_eq!(story.remaining(), []);
        assert!(story.iterations().is_empty());
        first.stop().await;
        assert_eq!(touched(place).await, ["1|400"]);
    }

    async fn a_lock_on_the_table_does_not_keep_a_host_from_stopping(place: Place) {
        make_items(place, 2_000).await;
        let run = Run::on(place, &[row("a")]).await.define("a", touch()).controller(gentle()).for_ever();
        let mut run = run;
        run.settings.max_batch_size = 10;
        run.settings.shutdown_grace = Duration::from_millis(100);
        let mut running = run.start();
        committed(&mut running).await;
        let lock = place.lock_items().await;
        running
            .next("what the lock does to the host", |kind| {
                matches!(kind, EventKind::TransientFailure { .. } | EventKind::Unavailable { .. }).then_some(())
            })
            .await;
        let stopped = tokio::time::timeout(Duration::from_secs(15), running.stop()).await;
        assert_eq!(stopped.expect("the host waits for the lock").end, End::Stopped);
        drop(lock);
    }

    async fn a_handler_that_blocks_its_thread_costs_no_lease(place: Place) {
        let mut running = Run::on(place, &[row("a")]).await.define("a", Arc::new(Blocking)).start();
        running.next("the batch", |kind| matches!(kind, EventKind::BatchStarted { .. }).then_some(())).await;
        let (other, since) = (place.open(), std::time::Instant::now());
        while since.elapsed() < BLOCKED * 3 / 4 {
            let attempt = other.try_lease(&holder(2)).await.unwrap();
            assert!(matches!(attempt, LeaseAttempt::Taken(_)), "taken over after {:?}", since.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let story = running.end().await;
        assert_eq!(story.finished(), ["a"]);
        let lost = story.events.iter().find(|kind| matches!(kind, EventKind::LeaseLost { .. }));
        assert!(lost.is_none(), "{lost:?}");
        other.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_file_that_another_takes_the_place_of_is_opened_anew() {
    let place = &Place::sqlite();
    make_items(place, 200).await;
    let recorder = Recorder::new(|entered| match entered {
        0 => wait(DAYS),
        _ => tidegate::controller::Admission::Run(Duration::from_millis(20)),
    });
    let run = Run::on(place, &[row("a")]).await.define("a", touch()).controller(Arc::new(recorder));
    let mut running = run.start();
    held(&mut running).await;
    let copy = place.file().with_extension("copy");
    std::fs::copy(place.file(), &copy).unwrap();
    std::fs::rename(&copy, place.file()).unwrap();
    let reason = running
        .next("the loss of the lease", |kind| match kind {
            EventKind::LeaseLost { reason } => Some(reason.clone()),
            _ => None,
        })
        .await;
    assert!(reason.contains("was replaced by another"), "{reason}");
    assert_eq!(running.end().await.remaining(), []);
    assert_eq!(touched(place).await, ["1|200"], "of the file that is in place now");
}
