//! Ready and due: what fails is put off, and nobody else is held up by it; what is no update's trouble is none's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::controller::BuiltIn;
use tidegate::scheduler::End;
use tidegate::scheduler::database::IterationOutcome;
use tidegate::scheduler::event::EventKind;
use tidegate::update::sql::{ErrorClass, Sql, SqlError};
use tidegate::update::{Budget, Handler, Mode, Noop, Progress, Step, UpdateError};

use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::run::{Run, Running, make_items, touch, touched};

/// Fails, in a way that trying again may mend, for as long as another update is queued.
struct After(&'static str);

#[async_trait]
impl Handler for After {
    fn mode(&self, _: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::Batched)
    }

    async fn run(&self, sql: &mut dyn Sql, _: &Progress, _: Budget) -> Result<Step, UpdateError> {
        let queued = format!("select 1 from background_updates where update_name = '{}'", self.0);
        match sql.query(&queued, &[]).await?.is_empty() {
            true => Ok(Step::finished(1)),
            false => Err(SqlError::new(ErrorClass::Transient, "not now").into()),
        }
    }
}

/// Fails with this error, once.
struct FailsOnce {
    error: SqlError,
    failed: AtomicBool,
}

#[async_trait]
impl Handler for FailsOnce {
    fn mode(&self, _: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::Batched)
    }

    async fn run(&self, _: &mut dyn Sql, _: &Progress, _: Budget) -> Result<Step, UpdateError> {
        match self.failed.swap(true, Ordering::SeqCst) {
            true => Ok(Step::finished(0)),
            false => Err(self.error.clone().into()),
        }
    }
}

fn refused(kind: &EventKind) -> Option<String> {
    match kind {
        EventKind::Unavailable { error, .. } => Some(error.clone()),
        _ => None,
    }
}

fn committed(kind: &EventKind) -> Option<()> {
    matches!(kind, EventKind::IterationEnded { record, .. } if record.is_committed()).then_some(())
}

/// A hundred batches for a thousand rows, with time between them for others to do something.
fn slowly(mut run: Run) -> Run {
    run.settings.max_batch_size = 10;
    run.supervision.builtin.sleep = Some(Duration::from_millis(20));
    run
}

/// The role cannot open a session any more, and its session for batches is gone.
async fn expire(place: &Place, role: &str) {
    place.run(&format!("alter role {role} nologin")).await;
    let batches = "application_name like 'tidegate/%/batch.%'";
    let end = format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}' and {batches}");
    place.run(&end).await;
}

async fn refused_again(running: &mut Running) -> String {
    running.next("a batch that cannot begin", refused).await
}

/// The sizes of the batches, in order.
fn sizes(events: &[EventKind]) -> Vec<u64> {
    let size = |kind: &EventKind| match kind {
        EventKind::BatchStarted { batch_size, .. } => Some(*batch_size),
        _ => None,
    };
    events.iter().filter_map(size).collect()
}

on_both! {
    async fn a_failure_that_may_pass_holds_up_nobody_else(place: Place) {
        make_items(place, 300).await;
        let run = Run::on(place, &[row("a"), row("b"), row("c")]).await;
        let run = run.define("a", Arc::new(After("c"))).define("b", touch()).define("c", touch());
        let story = run.until_done().await;
        assert_eq!(story.finished(), ["b", "c", "a"]);
        assert_eq!(touched(place).await, ["2|300"]);
        let failures: Vec<_> = story.history().await.into_iter().filter(|record| record.outcome == IterationOutcome::Failed).collect();
        assert!(failures.iter().all(|record| record.update_name == "a") && !failures.is_empty(), "{failures:?}");
    }

    async fn only_what_size_can_mend_makes_the_next_batch_smaller(place: Place) {
        let coded = |code: &str| SqlError::new(ErrorClass::Transient, "no").with_code(code);
        let lost = SqlError::new(ErrorClass::Connection, "no").with_code("57P01");
        let cases = [
            (coded("57014"), 50),
            (coded("55P03"), 50),
            (coded("40P01"), 50),
            (coded("SQLITE_BUSY_SNAPSHOT"), 50),
            (coded("25006"), 100),
            (coded("SQLITE_IOERR_READ"), 100),
            (lost, 100),
        ];
        for (error, tried_again) in cases {
            let told = format!("{error:?}");
            let once = FailsOnce { error, failed: AtomicBool::new(false) };
            let story = Run::on(place, &[row("a")]).await.define("a", Arc::new(once)).until_done().await;
            assert_eq!((story.remaining(), sizes(&story.events)), (vec![], vec![100, tried_again]), "{told}");
        }
    }

    async fn thousands_of_rows_that_do_nothing_are_neither_slept_nor_looked_through(place: Place) {
        const ROWS: usize = 4_000;
        place.recommended().await;
        let database = place.prepared().await;
        let names: Vec<String> = (0..ROWS).map(|number| format!("u{number:05}")).collect();
        let rows: Vec<_> = names.iter().map(|name| row(name)).collect();
        database.enqueue_all(&rows).await.unwrap().unwrap();
        let mut run = names.iter().fold(Run::with(database), |run, name| run.define(name, Arc::new(Noop)));
        // A target that none of them takes, however busy the machine is.
        run.supervision.builtin = BuiltIn { target: Duration::from_secs(60), ..BuiltIn::default() };
        run.settings.poll_interval = Duration::from_secs(1);
        let story = run.until_done().await;
        assert_eq!(story.end, End::Done { remaining: vec![] });
        assert_eq!(story.finished(), names, "in their order");
        let rests = story.events.iter().filter(|kind| matches!(kind, EventKind::Held { .. })).count();
        assert_eq!(rests, 1, "the one before the first batch");
        if let Some(looked_through) = place.looked_through("background_updates").await {
            // Once a second at most, and not once for each row.
            assert!(looked_through < (ROWS * ROWS / 10) as u64, "{looked_through} rows were read");
        }
    }
}

/// What a role, whose sessions stay, cannot do any more is to open another.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_expires_is_no_updates_failure() {
    let place = &Place::postgres().await;
    make_items(place, 1_000).await;
    let (own, role) = place.as_own_role().await;
    let run = Run::on(&own, &[row("a"), row("b")]).await.define("a", touch()).define("b", touch());
    let mut running = slowly(run).for_ever().start();
    running.next("a batch", committed).await;
    expire(place, &role).await;
    for _ in 0..4 {
        let error = refused_again(&mut running).await;
        assert!(error.contains("is not permitted to log in"), "{error}");
        assert!(error.ends_with("(permanent, SQLSTATE 28000)"), "{error}");
    }
    let counted =
        "select count(*) from tidegate_failures where failure like '%log in%' or failure not like '%\"attempts\":0%'";
    assert_eq!(place.rows(counted).await, ["0"]);
    assert_eq!(running.board.database("master").unwrap().unavailable.map(|error| error.contains("log in")), Some(true));
    place.run(&format!("alter role {role} login")).await;
    running.next("that it is there again", |kind| matches!(kind, EventKind::Available).then_some(())).await;
    for name in ["a", "b"] {
        running
            .next("the end", |kind| {
                matches!(kind, EventKind::UpdateFinished { update_name } if update_name == name).then_some(())
            })
            .await;
    }
    running.stop().await;
    assert_eq!(touched(place).await, ["2|1000"]);
}

/// A host that is to end by itself does not wait for what will not pass by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_expires_ends_a_host_that_is_to_end() {
    let place = &Place::postgres().await;
    make_items(place, 1_000).await;
    let (own, role) = place.as_own_role().await;
    let mut running = slowly(Run::on(&own, &[row("a")]).await.define("a", touch())).start();
    running.next("a batch", committed).await;
    expire(place, &role).await;
    let End::Failed(error) = running.end().await.end else { panic!("it did not fail") };
    assert!(error.to_string().contains("is not permitted to log in"), "{error}");
    assert_eq!(place.rows("select count(*) from tidegate_failures where failure like '%log in%'").await, ["0"]);
    assert_eq!(place.rows("select update_name from background_updates").await, ["a"]);
}

/// Somebody's lock on one row of the queue is in the way of that row alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_a_row_of_the_queue_holds_up_that_row_alone() {
    let place = &Place::postgres().await;
    make_items(place, 300).await;
    place.prepared().await.close().await;
    let database = place.open_with(|options| options.postgres.lock_timeout = Duration::from_millis(100));
    for name in ["a", "b"] {
        database.enqueue(&row(name)).await.unwrap();
    }
    let other = crate::support::postgres::connect(&place.url).await;
    other.batch_execute("begin; select * from background_updates where update_name = 'a' for update").await.unwrap();
    let run = Run::with(database).define("a", touch()).define("b", touch());
    let mut running = run.start();
    let finished = |kind: &EventKind| match kind {
        EventKind::UpdateFinished { update_name } => Some(update_name.clone()),
        _ => None,
    };
    assert_eq!(running.next("the first end", finished).await, "b");
    other.batch_execute("rollback").await.unwrap();
    assert_eq!(running.next("the second end", finished).await, "a");
    let story = running.end().await;
    let of_a = |kind: &EventKind| matches!(kind, EventKind::BatchStarted { update_name, .. } if update_name == "a");
    let started: Vec<EventKind> = story.events.iter().filter(|kind| of_a(kind)).cloned().collect();
    assert!(sizes(&started).iter().take_while(|size| **size == 100).count() >= 2, "no batch was made smaller for it");
    assert_eq!(touched(place).await, ["2|300"]);
}

/// A commit that meets a conflict is tried again as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_at_the_commit_makes_no_batch_smaller() {
    let place = &Place::postgres().await;
    make_items(place, 1_000).await;
    place
        .run(
            "create sequence commits; \
             create function conflict() returns trigger language plpgsql as $$ begin \
             if nextval('commits') = 1 then raise 'conflict' using errcode = '40001'; end if; return null; end $$; \
             create constraint trigger conflict after update on items deferrable initially deferred \
             for each row when (new.id = 50) execute function conflict()",
        )
        .await;
    let mut run = Run::on(place, &[row("a")]).await.define("a", touch());
    run.settings.max_batch_size = 100;
    let story = run.until_done().await;
    assert_eq!(story.remaining(), []);
    assert_eq!(story.iterations().first().map(|record| record.outcome), Some(IterationOutcome::Failed));
    assert!(sizes(&story.events).iter().all(|size| *size == 100), "{:?}", sizes(&story.events));
    assert_eq!(touched(place).await, ["1|1000"]);
}
