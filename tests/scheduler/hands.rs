//! Several workers on one table (PostgreSQL).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidegate::controller::Admission;
use tidegate::scheduler::event::EventKind;
use tidegate::update::sql::System;
use tidegate::update::{
    Backfill, BackfillDefinition, Batch, BatchDefinition, Handler, OnSkip, Reach, ValidateAndDelete,
    ValidateAndDeleteDefinition,
};

use crate::support::place::{Place, row};
use crate::support::recorder::{Recorder, wait};
use crate::support::run::{Run, Running, Story, make_items, row_after, touched};
use crate::support::until;

fn fill(set: &str, filter: Option<&str>, workers: usize) -> Arc<dyn Handler> {
    let definition = BackfillDefinition {
        table: "items".into(),
        key: vec!["id".to_owned()],
        set: set.to_owned(),
        filter: filter.map(str::to_owned),
    };
    Arc::new(Backfill::new(definition).with_workers(workers))
}

/// Each item is touched once more, by so many.
fn touch(workers: usize) -> Arc<dyn Handler> {
    fill("touched = touched + 1", None, workers)
}

/// How many were told to be at work, each time that this changed.
fn workers(story: &Story) -> Vec<usize> {
    let told = story.events.iter().filter_map(|event| match event {
        EventKind::Workers { workers, .. } => Some(*workers),
        _ => None,
    });
    told.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_do_each_row_once() {
    let place = Place::postgres().await;
    make_items(&place, 30_000).await;
    place
        .run(
            "create table log (id bigint, process int); create function log() returns trigger language plpgsql as \
             'begin insert into log values (new.id, pg_backend_pid()); return null; end'; \
             create trigger logs after update on items for each row execute function log()",
        )
        .await;
    let story = Run::on(&place, &[row("fill")]).await.define("fill", touch(2)).until_done().await;
    assert_eq!(story.remaining(), []);
    assert_eq!(touched(&place).await, ["1|30000"]);
    assert_eq!(
        place.rows("select count(*), count(distinct id), count(distinct process) from log").await,
        ["30000|30000|2"]
    );
    assert!(workers(&story).contains(&2), "{:?}", workers(&story));
    assert_eq!(story.finished(), ["fill"]);
    let items: u64 = story.iterations().iter().map(|record| record.items).sum();
    assert_eq!(items, 30_000);
    assert_eq!(story.history().await.len(), story.iterations().len());
}

/// A host on a table of so many items, in batches of 100 at most, until `change` has changed it.
async fn on_items(place: &Place, rows: u32, handler: Arc<dyn Handler>) -> Run {
    make_items(place, rows).await;
    let mut run = Run::on(place, &[row("fill")]).await.define("fill", handler);
    run.settings.max_batch_size = 100;
    run
}

/// Waits until so many are at work.
async fn at_work(running: &mut Running, wanted: usize) {
    let told = |kind: &EventKind| match kind {
        EventKind::Workers { workers, .. } if *workers == wanted => Some(()),
        _ => None,
    };
    running.next("workers", told).await;
}

async fn committed(running: &mut Running) {
    let ended = |kind: &EventKind| match kind {
        EventKind::IterationEnded { record, .. } if record.is_committed() => Some(()),
        _ => None,
    };
    running.next("a batch", ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_worker_has_a_controller_of_its_own() {
    let place = Place::postgres().await;
    // The second iteration that is entered waits until the host ends it: the others go on.
    let recorder = Recorder::new(|entered| match entered {
        3 => wait(Duration::from_secs(600)),
        _ => Admission::Run(Duration::from_millis(20)),
    });
    let run = on_items(&place, 30_000, touch(3)).await.controller(Arc::new(recorder.clone())).for_ever();
    let mut running = run.start();
    at_work(&mut running, 3).await;
    for _ in 0..50 {
        committed(&mut running).await;
    }
    let story = running.stop().await;
    let calls = recorder.calls();
    let count = |what: &str| calls.iter().filter(|call| call.starts_with(what)).count();
    // Each batch is an iteration; each iteration ends once. Where the stop comes between its entry and its batch,
    // it ends as cancelled, and no batch is told.
    assert_eq!(count("on-update"), count("close"), "{calls:?}");
    assert_eq!(count("enter -> run"), count("exit"), "{calls:?}");
    assert_eq!(count("exit") - count("exit cancelled"), story.iterations().len(), "{calls:?}");
    assert_eq!(count("enter -> wait"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_fails_is_met_by_one_alone_until_it_is_quarantined() {
    let place = Place::postgres().await;
    let run = on_items(&place, 20_000, touch(3)).await;
    place
        .run(
            "create function fail() returns trigger language plpgsql as \
             'begin raise exception ''no''; end'; \
             create trigger fails before update on items for each row when (new.id = 15000) execute function fail()",
        )
        .await;
    let database = run.database.clone();
    let story = run.until_done().await;
    let [("fill", why)] = story.remaining()[..] else { panic!("{:?}", story.remaining()) };
    assert!(why.starts_with("quarantined after 2 attempts: "), "{why}");
    let failures = story.events.iter().filter(|event| matches!(event, EventKind::Failure { .. })).count();
    assert_eq!(failures, 2, "each time that one alone met it");
    assert_eq!(place.rows("select count(*) from items where touched > 1").await, ["0"]);
    // It stays quarantined for a host that comes later.
    let again = Run::with(database.clone()).define("fill", touch(3)).until_done().await;
    assert_eq!(again.iterations().len(), 0);
    place.run("drop trigger fails on items").await;
    assert!(database.forget_failures("fill").await.unwrap());
    let story = Run::with(database).define("fill", touch(3)).until_done().await;
    assert_eq!(story.remaining(), []);
    assert_eq!(touched(&place).await, ["1|20000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_in_the_way_of_one_worker_does_not_hold_the_others_up() {
    let place = Place::postgres().await;
    let mut run = on_items(&place, 20_000, touch(2)).await;
    run.database = place.open_with(|options| options.postgres.lock_timeout = Duration::from_millis(100));
    let mut running = run.start();
    at_work(&mut running, 2).await;
    // In the last of the parts, which nobody has taken yet, or in one that somebody works on.
    let lock = place.hold("select from items where id in (3, 19000) for update").await;
    let left = "select count(*) from items where touched = 0";
    until("all is done but what is locked", async || place.rows(left).await[0].parse::<u32>().unwrap() <= 5_200).await;
    drop(lock);
    let story = running.end().await;
    assert_eq!(story.remaining(), []);
    assert_eq!(touched(&place).await, ["1|20000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_all_of_them() {
    let place = Place::postgres().await;
    let mut running = on_items(&place, 20_000, touch(2)).await.start();
    at_work(&mut running, 2).await;
    committed(&mut running).await;
    running.control.set_enabled(false);
    running.next("the pause", |kind| matches!(kind, EventKind::Paused { .. }).then_some(())).await;
    let board = running.board.clone();
    until("one is left", async || {
        board.read(|databases| databases["master"].in_hand().all(|in_hand| in_hand.workers == 1))
    })
    .await;
    let before = touched(&place).await;
    assert!(before.len() > 1, "it was over too soon: {before:?}");
    // Nobody is at work any more: whatever was in hand has ended.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(touched(&place).await, before);
    running.control.set_enabled(true);
    at_work(&mut running, 2).await;
    let story = running.end().await;
    assert_eq!(story.remaining(), []);
    assert_eq!(touched(&place).await, ["1|20000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_is_cancelled_is_left_by_all_of_them() {
    let place = Place::postgres().await;
    let run = on_items(&place, 20_000, touch(3)).await;
    let database = run.database.clone();
    let mut running = run.start();
    at_work(&mut running, 3).await;
    assert_eq!(database.cancel(&["fill".to_owned()]).await.unwrap(), ["fill"]);
    let story = running.end().await;
    assert_eq!(story.remaining(), []);
    assert_eq!(story.finished(), Vec::<&str>::new());
    let gone = story.events.iter().filter(|event| matches!(event, EventKind::UpdateMoved { gone: true, .. })).count();
    assert_eq!(gone, 1);
    assert_eq!(workers(&story).last(), Some(&1));
    let touched = touched(&place).await;
    assert!(touched.len() == 2 && touched[1].starts_with("1|"), "{touched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_queued_anew_is_begun_anew() {
    let place = Place::postgres().await;
    let mut running = on_items(&place, 20_000, touch(3)).await.start();
    at_work(&mut running, 3).await;
    // As if somebody began again by hand: each row that is done by now is done once more.
    place
        .run(
            "begin; create table before as select id, touched from items where false; \
             update background_updates set progress_json = '{}'; insert into before select id, touched from items; commit",
        )
        .await;
    let story = running.end().await;
    assert_eq!(story.remaining(), []);
    let wrong = "select count(*) from items i join before b using (id) where i.touched <> b.touched + 1";
    assert_eq!(place.rows(wrong).await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_or_fewer_workers_go_on_where_others_left_off() {
    let place = Place::postgres().await;
    let run = on_items(&place, 30_000, touch(1)).await;
    let database = run.database.clone();
    let mut running = run.start();
    for _ in 0..5 {
        committed(&mut running).await;
    }
    assert_eq!(workers(&running.stop().await), Vec::<usize>::new());
    let with = |workers: usize| {
        let mut run = Run::with(database.clone()).define("fill", touch(workers));
        run.settings.max_batch_size = 100;
        run
    };
    let mut running = with(4).start();
    at_work(&mut running, 4).await;
    committed(&mut running).await;
    let story = running.stop().await;
    assert_eq!(workers(&story).last(), Some(&1));
    let progress = place.rows("select progress_json from background_updates").await.remove(0);
    let parts = tidegate::update::parts::parts(&tidegate::update::Progress::parse(&progress).unwrap()).len();
    assert!(parts > 4, "{progress}");
    let mut running = with(2).start();
    at_work(&mut running, 2).await;
    committed(&mut running).await;
    running.stop().await;
    // One alone does one part after the other.
    let story = with(1).until_done().await;
    assert_eq!(story.remaining(), []);
    assert_eq!(workers(&story), Vec::<usize>::new());
    assert_eq!(touched(&place).await, ["1|30000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_triggers_skip_are_counted_over_all_parts() {
    let place = Place::postgres().await;
    let definition = BackfillDefinition {
        table: "items".into(),
        key: vec!["id".to_owned()],
        set: "touched = touched + 1".to_owned(),
        filter: None,
    };
    let reach = Reach { on_skip: OnSkip::Ignore, ..Reach::default() };
    let handler = Backfill::new(definition).reaching(reach).with_workers(2);
    let run = on_items(&place, 20_000, Arc::new(handler)).await;
    place
        .run(
            "create function skip() returns trigger language plpgsql as 'begin return null; end'; \
             create trigger skips before update on items for each row when (new.id % 1000 = 0) execute function skip()",
        )
        .await;
    let story = run.until_done().await;
    assert_eq!(story.remaining(), []);
    assert_eq!(touched(&place).await, ["0|20", "1|19980"]);
    let told = |event: &EventKind| match event {
        EventKind::Noted { note, .. } => note.starts_with("left out 20 rows in all").then_some(()),
        _ => None,
    };
    assert!(story.events.iter().any(|event| told(event).is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_moves_rows_to_another_part_fails_the_batch() {
    let place = Place::postgres().await;
    let mut run = on_items(&place, 20_000, touch(2)).await;
    run.settings.max_attempts = 1;
    place
        .run(
            "create function move() returns trigger language plpgsql as \
             'begin if new.id = 2700 then new.id := 699; end if; return new; end'; \
             create trigger moves before update on items for each row execute function move(); \
             delete from items where id = 699",
        )
        .await;
    let story = run.until_done().await;
    let [("fill", why)] = story.remaining()[..] else { panic!("{:?}", story.remaining()) };
    assert!(why.contains("moved 1 row of the batch to another part of the walk (id)"), "{why}");
    assert_eq!(place.rows("select count(*) from items where touched > 1").await, ["0"]);
}

/// An application that inserts, deletes and moves rows meanwhile: what it left alone is done once.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_may_do_with_its_rows_what_it_likes() {
    let place = Place::postgres().await;
    let run = on_items(&place, 40_000, touch(3)).await;
    place
        .run(
            "alter table items add original bigint; update items set original = id; alter table items add seen boolean",
        )
        .await;
    let mut running = run.start();
    at_work(&mut running, 3).await;
    let mut random: u64 = 7;
    while !running.task.is_finished() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (id, far) = (random >> 33 & 0x7fff, 100_000 + (random >> 20 & 0xff_ffff));
        place
            .run(&format!(
                "delete from items where id = {id}; \
                 update items set seen = true, id = {far} where id = {id} + 1 and not exists (select from items where id = {far}); \
                 update items set seen = true, id = -{far} where id = {id} + 2 and not exists (select from items where id = -{far}); \
                 insert into items (id, touched, seen) values ({id}, 1, true) on conflict do nothing"
            ))
            .await;
    }
    let story = running.end().await;
    assert_eq!(story.remaining(), []);
    let left_alone = "select touched, count(*) > 30000 from items where seen is null group by touched";
    assert_eq!(place.rows(left_alone).await, ["1|t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_and_constraints_are_worked_on_by_several_too() {
    let place = Place::postgres().await;
    make_items(&place, 20_000).await;
    place
        .run(
            "update items set touched = -1 where id % 10 = 0; \
             alter table items add constraint positive check (touched >= 0) not valid; \
             create table log (id bigint); create function log() returns trigger language plpgsql as \
             'begin insert into log values (coalesce(new.id, old.id)); return old; end'; \
             create trigger logs after update or delete on items for each row execute function log()",
        )
        .await;
    let sql = "update items set touched = touched + 1 where :range".to_owned();
    let batch = BatchDefinition { table: "items".into(), key: vec!["id".to_owned()], sql };
    let constraint = ValidateAndDeleteDefinition {
        table: "items".into(),
        constraint: "positive".to_owned(),
        check: None,
        unique_columns: vec!["id".to_owned()],
    };
    let mut run = Run::on(&place, &[row("valid"), row_after("fill", "valid")]).await;
    // However fast the machine is, its first batch does not do all.
    run.settings.max_batch_size = 500;
    let story = run
        .define("valid", Arc::new(ValidateAndDelete::new(constraint).with_workers(2)))
        .define("fill", Arc::new(Batch::new(batch, System::Postgres).with_workers(2)))
        .until_done()
        .await;
    assert_eq!(story.remaining(), []);
    // What is left of the last part may be cut again, so that each has two workers at least once.
    let shared = story.events.iter().filter_map(|event| match event {
        EventKind::Workers { update_name, workers: 2 } => Some(update_name.as_str()),
        _ => None,
    });
    assert_eq!(shared.collect::<BTreeSet<_>>(), BTreeSet::from(["fill", "valid"]), "{:?}", workers(&story));
    assert_eq!(touched(&place).await, ["1|18000"]);
    assert_eq!(place.rows("select count(*), count(distinct id) from log").await, ["20000|20000"]);
    assert_eq!(place.rows("select convalidated from pg_constraint where conname = 'positive'").await, ["t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_several_cannot_do_are_refused() {
    let place = Place::postgres().await;
    make_items(&place, 100).await;
    for (sql, why) in [
        ("update items set touched = 1 where :range; delete from items where :range and id = 3", "several statements"),
        ("update items set touched = 1 where (:after is null or id > :after) and id <= :upto", "does not use :range"),
    ] {
        let batch = BatchDefinition { table: "items".into(), key: vec!["id".to_owned()], sql: sql.to_owned() };
        let mut run = Run::on(&place, &[]).await;
        run.database.cancel(&["fill".to_owned()]).await.unwrap();
        run.database.enqueue(&row("fill")).await.unwrap();
        run.settings.max_attempts = 1;
        let handler = Batch::new(batch, System::Postgres).with_workers(2);
        let story = run.define("fill", Arc::new(handler)).until_done().await;
        let [("fill", told)] = story.remaining()[..] else { panic!("{:?}", story.remaining()) };
        assert!(told.contains(why) && told.contains("leave \"workers\" out"), "{told}");
    }
    let place = Place::sqlite();
    let mut run = on_items(&place, 100, touch(2)).await;
    run.settings.max_attempts = 1;
    let story = run.until_done().await;
    let [("fill", told)] = story.remaining()[..] else { panic!("{:?}", story.remaining()) };
    assert!(told.contains("one writer at a time"), "{told}");
}
