//! Lanes: updates that go on beside each other, under one lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::controller::{
    Admission, BuiltIn, Controller, Fault, Iteration, Outcome, Source, Subject, SupervisorSettings,
};
use tidegate::scheduler::board::Phase;
use tidegate::scheduler::event::EventKind;
use tidegate::update::sql::Sql;
use tidegate::update::{Budget, Handler, Mode, Progress, Step, UpdateError};
use tokio::sync::watch;

use crate::support::place::{Place, row};
use crate::support::run::{Run, make_items, row_after, touch, touched};
use crate::support::{on_both, until};

/// Goes on in one go until it is let through, outside of any transaction.
struct Gate {
    open: watch::Receiver<bool>,
    runs: Arc<AtomicU32>,
}

#[async_trait]
impl Handler for Gate {
    fn mode(&self, _: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::OneShotOutside)
    }

    async fn run(&self, _: &mut dyn Sql, _: &Progress, _: Budget) -> Result<Step, UpdateError> {
        Err(UpdateError::Failed("it has no batches".to_owned()))
    }

    async fn run_outside(&self, _: &mut dyn Sql, _: &Progress) -> Result<Step, UpdateError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let _ = self.open.clone().wait_for(|open| *open).await;
        Ok(Step::finished(1))
    }
}

/// A gate, what opens it, and how often it was run.
fn gate() -> (Arc<dyn Handler>, watch::Sender<bool>, Arc<AtomicU32>) {
    let (opener, open) = watch::channel(false);
    let runs = Arc::new(AtomicU32::new(0));
    (Arc::new(Gate { open, runs: runs.clone() }), opener, runs)
}

/// Holds one update for ever, and lets the others run.
struct Holding {
    update_name: &'static str,
    started: Arc<AtomicU32>,
}

#[async_trait]
impl Source for Holding {
    fn name(&self) -> &str {
        "holding"
    }

    async fn start(&self, _: &str) -> Result<Box<dyn Controller>, Fault> {
        self.started.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Holder(self.update_name)))
    }
}

struct Holder(&'static str);

#[async_trait]
impl Controller for Holder {
    async fn on_update(&mut self, subject: &Subject) -> Result<Box<dyn Iteration>, Fault> {
        Ok(Box::new(Held(subject.update_name == self.0)))
    }
}

struct Held(bool);

#[async_trait]
impl Iteration for Held {
    async fn enter(&mut self) -> Result<Admission, Fault> {
        Ok(match self.0 {
            true => Admission::Wait { duration: Duration::from_secs(86_400), reason: "not today".to_owned() },
            false => Admission::Run(Duration::from_millis(20)),
        })
    }

    async fn exit(&mut self, _: &Outcome) -> Result<(), Fault> {
        Ok(())
    }
}

/// A second table like `items`.
async fn make_others(place: &Place, rows: u32) {
    make_items(place, rows).await;
    place.run("create table others (id bigint primary key not null, touched int not null default 0)").await;
    place.run("insert into others (id) select id from items").await;
}

async fn touched_others(place: &Place) -> Vec<String> {
    place.rows("select touched, count(*) from others group by touched order by touched").await
}

fn touch_others() -> Arc<dyn Handler> {
    use tidegate::update::sql::TableName;
    use tidegate::update::{Backfill, BackfillDefinition};
    Arc::new(Backfill::new(BackfillDefinition {
        table: TableName { schema: None, name: "others".to_owned() },
        key: vec!["id".to_owned()],
        set: "touched = touched + 1".to_owned(),
        filter: None,
    }))
}

/// Small batches with time between them.
fn slowly(mut run: Run) -> Run {
    run.settings.max_batch_size = 50;
    let builtin = BuiltIn { sleep: Some(Duration::from_millis(5)), target: Duration::from_millis(20) };
    run.supervision = SupervisorSettings { builtin, ..SupervisorSettings::default() };
    run
}

fn started(name: &'static str) -> impl Fn(&EventKind) -> Option<()> {
    move |kind| matches!(kind, EventKind::BatchStarted { update_name, .. } if update_name == name).then_some(())
}

fn finished(name: &'static str) -> impl Fn(&EventKind) -> Option<()> {
    move |kind| matches!(kind, EventKind::UpdateFinished { update_name } if update_name == name).then_some(())
}

on_both! {
    async fn updates_in_two_lanes_go_on_beside_each_other(place: Place) {
        make_others(place, 1_000).await;
        let run = Run::on(place, &[row("a"), row("b")]).await.define("a", touch()).define("b", touch_others());
        let story = slowly(run.lane("b", "second")).until_done().await;
        assert!(story.remaining().is_empty());
        assert_eq!((touched(place).await, touched_others(place).await), (vec!["1|1000".to_owned()], vec!["1|1000".to_owned()]));
        let order: Vec<&str> = story.iterations().iter().map(|record| record.update_name.as_str()).collect();
        let (first_a, first_b) = (order.iter().position(|name| *name == "a"), order.iter().position(|name| *name == "b"));
        let last = |of: &str| order.iter().rposition(|name| *name == of);
        assert!(first_a < last("b") && first_b < last("a"), "one after the other: {order:?}");
    }

    async fn an_update_waits_for_one_in_another_lane(place: Place) {
        make_others(place, 500).await;
        let rows = [row("a"), row_after("b", "a"), row_after("c", "b"), row_after("d", "c")];
        let run = Run::on(place, &rows).await.define("a", touch()).define("b", touch_others()).define("c", touch());
        let run = run.define("d", touch_others()).lane("b", "second").lane("d", "third");
        let story = slowly(run).until_done().await;
        assert_eq!(story.finished(), ["a", "b", "c", "d"]);
        assert_eq!((touched(place).await, touched_others(place).await), (vec!["2|500".to_owned()], vec!["2|500".to_owned()]));
    }

    async fn a_host_ends_by_itself_once_nothing_can_run_in_any_lane(place: Place) {
        make_others(place, 200).await;
        let rows = [row("nobody defines it"), row("a"), row_after("b", "a"), row_after("never", "nobody defines it")];
        let run = Run::on(place, &rows).await.define("a", touch()).define("b", touch_others()).define("never", touch());
        let story = slowly(run.lane("b", "second").lane("never", "third")).until_done().await;
        assert_eq!(story.finished(), ["a", "b"]);
        let remaining = [("never", "waits for nobody defines it"), ("nobody defines it", "no definition")];
        let mut told = story.remaining();
        told.sort_unstable();
        assert_eq!(told, remaining);
    }

    async fn a_controller_that_holds_one_lane_holds_no_other(place: Place) {
        make_others(place, 500).await;
        let instances = Arc::new(AtomicU32::new(0));
        let controller = Holding { update_name: "a", started: instances.clone() };
        let run = Run::on(place, &[row("a"), row("b")]).await.define("a", touch()).define("b", touch_others());
        let mut running = run.lane("b", "second").for_ever().controller(Arc::new(controller)).start();
        running.next("the end of what nobody holds", finished("b")).await;
        let board = running.board.clone();
        let in_hand = || board.database("master").and_then(|board| board.first.in_hand);
        until("the other is held", async || in_hand().is_some_and(|held| matches!(held.phase, Phase::Held { .. }))).await;
        assert_eq!(in_hand().map(|held| held.update_name), Some("a".to_owned()));
        assert_eq!(instances.load(Ordering::SeqCst), 2, "each lane has an instance of its own");
        running.stop().await;
        assert_eq!((touched(place).await, touched_others(place).await), (vec!["0|500".to_owned()], vec!["1|500".to_owned()]));
    }

    async fn a_stop_ends_all_lanes(place: Place) {
        make_others(place, 2_000).await;
        let run = Run::on(place, &[row("a"), row("b")]).await.define("a", touch()).define("b", touch_others());
        let mut running = slowly(run.lane("b", "second").for_ever()).start();
        running.next("a batch", started("a")).await;
        running.next("a batch in the other lane", started("b")).await;
        running.stop().await;
        // Each row once or not at all, and what the progress says is where the next host goes on.
        let run = Run::with(place.prepared().await).define("a", touch()).define("b", touch_others());
        let story = run.lane("a", "second").until_done().await;
        assert!(story.remaining().is_empty());
        assert_eq!((touched(place).await, touched_others(place).await), (vec!["1|2000".to_owned()], vec!["1|2000".to_owned()]));
    }

    async fn an_update_put_in_another_lane_goes_on_there(place: Place) {
        make_others(place, 2_000).await;
        let run = Run::on(place, &[row("a"), row("b")]).await.define("a", touch()).define("b", touch_others());
        let run = slowly(run.lane("b", "second"));
        let mut replacement = run.replacement();
        replacement.lanes = tidegate::scheduler::Lanes::default();
        replacement.lanes.put("a", "third");
        let mut running = run.start();
        running.next("a batch in the first lane", started("a")).await;
        running.next("a batch in the second lane", started("b")).await;
        running.control.reload("master", replacement);
        running.next("the end of the second lane", |kind| matches!(kind, EventKind::LaneClosed).then_some(())).await;
        let story = running.end().await;
        assert!(story.remaining().is_empty());
        assert_eq!((touched(place).await, touched_others(place).await), (vec!["1|2000".to_owned()], vec!["1|2000".to_owned()]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_in_one_go_for_long_holds_nobody_up() {
    let place = Place::postgres().await;
    make_items(&place, 1_000).await;
    let (gate, opener, runs) = gate();
    let run = Run::on(&place, &[row("long"), row("a")]).await.define("long", gate).define("a", touch());
    let mut running = slowly(run.lane("long", "indexes")).start();
    running.next("what takes long", started("long")).await;
    running.next("the end of the other", finished("a")).await;
    assert_eq!(touched(&place).await, ["1|1000"]);
    assert!(running.board.database("master").unwrap().lanes["indexes"].in_hand.is_some(), "it still runs");
    opener.send_replace(true);
    let story = running.end().await;
    assert!(story.remaining().is_empty());
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_in_one_go_is_not_begun_again_in_another_lane() {
    let place = Place::postgres().await;
    make_items(&place, 1_000).await;
    let (gate, opener, runs) = gate();
    let run = Run::on(&place, &[row("long"), row("a")]).await.define("long", gate).define("a", touch());
    let run = slowly(run.lane("long", "indexes").lane("a", "fill"));
    let mut replacement = run.replacement();
    replacement.lanes = tidegate::scheduler::Lanes::default();
    replacement.lanes.put("a", "fill");
    let mut running = run.start();
    running.next("what takes long", started("long")).await;
    running.control.reload("master", replacement);
    let reloaded = |kind: &EventKind| matches!(kind, EventKind::ControllerLoaded { reloaded: true, .. }).then_some(());
    running.next("the reload of a lane", reloaded).await;
    running.next("the reload of the other lane", reloaded).await;
    running.next("the end of the other", finished("a")).await;
    opener.send_replace(true);
    let story = running.end().await;
    assert!(story.remaining().is_empty());
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}
