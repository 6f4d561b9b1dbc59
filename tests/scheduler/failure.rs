//! Batches that fail, and what is kept of them: nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::scheduler::End;
use tidegate::scheduler::database::IterationOutcome;
use tidegate::scheduler::event::EventKind;
use tidegate::update::sql::Sql;
use tidegate::update::{Budget, Handler, Mode, Next, Progress, Step, UpdateError};

use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::recorder::Recorder;
use crate::support::run::{Run, make_items, touch, touched};
use crate::support::until;

/// Touches an item, then does as it is told.
struct Odd {
    calls: AtomicU32,
    then: fn(u32) -> Result<Step, UpdateError>,
}

impl Odd {
    fn new(then: fn(u32) -> Result<Step, UpdateError>) -> Arc<Self> {
        Arc::new(Self { calls: AtomicU32::new(0), then })
    }
}

#[async_trait]
impl Handler for Odd {
    fn mode(&self, _: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::Batched)
    }

    async fn run(&self, sql: &mut dyn Sql, _: &Progress, _: Budget) -> Result<Step, UpdateError> {
        sql.execute("update items set touched = touched + 1 where id = 1", &[]).await?;
        (self.then)(self.calls.fetch_add(1, Ordering::SeqCst))
    }
}

/// Sleeps in the database until it is interrupted.
struct Endless;

#[async_trait]
impl Handler for Endless {
    fn mode(&self, _: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::Batched)
    }

    async fn run(&self, sql: &mut dyn Sql, _: &Progress, _: Budget) -> Result<Step, UpdateError> {
        sql.execute("update items set touched = touched + 1", &[]).await?;
        let endless = match sql.dialect().system() {
            tidegate::update::sql::System::Sqlite => {
                "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
            }
            tidegate::update::sql::System::Postgres => "select count(*) from pg_sleep(600)",
        };
        sql.query(endless, &[]).await?;
        Ok(finished())
    }
}

fn finished() -> Step {
    Step::finished(1)
}

on_both! {
    async fn a_failed_batch_leaves_nothing_and_is_told_to_the_controller(place: Place) {
        make_items(place, 1).await;
        let recorder = Recorder::running();
        let fails_once = Odd::new(|call| match call {
            0 => Err(UpdateError::Failed("not today".to_owned())),
            _ => Ok(finished()),
        });
        let run = Run::on(place, &[row("a")]).await.define("a", fails_once).controller(Arc::new(recorder.clone()));
        let story = run.until_done().await;
        assert_eq!(story.remaining(), []);
        assert_eq!(touched(place).await, ["1|1"]);
        assert_eq!(recorder.calls(), [
            "on-update a master false", "enter -> run", "exit failed not today", "close",
            "on-update a master false", "enter -> run", "exit finished 1", "close",
        ]);
        let outcomes: Vec<_> = story.history().await.into_iter().map(|record| (record.outcome, record.error)).collect();
        assert_eq!(outcomes, [(IterationOutcome::Failed, Some("not today".to_owned())), (IterationOutcome::Finished, None)]);
    }

    async fn a_handler_that_panics_is_quarantined_and_the_host_goes_on(place: Place) {
        make_items(place, 1).await;
        let run = Run::on(place, &[row("a"), row("b")]).await;
        let story = run.define("a", Odd::new(|_| panic!("oh no"))).define("b", touch()).until_done().await;
        assert_eq!(story.remaining(), [("a", "quarantined after 2 attempts: the handler panicked")]);
        let detail = |kind: &EventKind| match kind {
            EventKind::Failure { detail, .. } => detail.clone(),
            _ => None,
        };
        assert_eq!(story.events.iter().find_map(detail).as_deref(), Some("oh no"));
        assert_eq!(touched(place).await, ["1|1"]);
    }

    async fn a_failure_that_the_database_does_not_take_counts_all_the_same(place: Place) {
        make_items(place, 1).await;
        let mut run = Run::on(place, &[row("a"), row("b")]).await.define("a", Odd::new(|_| {
            Err(UpdateError::Failed("not today".to_owned()))
        })).define("b", touch()).for_ever();
        run.settings.max_attempts = 3;
        place.run(place.either(
            "create trigger deaf before insert on tidegate_failures begin select raise(abort, 'deaf'); end",
            "create function deaf() returns trigger language plpgsql as $$ begin raise 'deaf'; end $$; \
             create trigger deaf before insert on tidegate_failures for each row execute function deaf()",
        )).await;
        let mut running = run.start();
        // The queue goes on without it.
        running.next("the other's end", |kind| matches!(kind, EventKind::UpdateFinished { .. }).then_some(())).await;
        let attempts = running.next("the quarantine", |kind| match kind {
            EventKind::Failure { attempts, retry_in: None, .. } => Some(*attempts),
            _ => None,
        }).await;
        assert_eq!(attempts, 3);
        // Once the database listens again, it hears of it.
        let recorded = "select update_name from tidegate_failures where failure like '%\"attempts\":3%' \
                        and failure like '%\"quarantined\":true%'";
        let none: [String; 0] = [];
        assert_eq!(place.rows("select update_name from tidegate_failures").await, none);
        place.run(place.either("drop trigger deaf", "drop trigger deaf on tidegate_failures")).await;
        until("the failure is recorded", async || place.rows(recorded).await == ["a"]).await;
        running.stop().await;
        assert_eq!(touched(place).await, ["1|1"]);
    }

    async fn a_batch_without_progress_is_a_failure(place: Place) {
        make_items(place, 1).await;
        let stuck = Odd::new(|_| Ok(Step::new(1, Next::Continue(Progress::default()))));
        let story = Run::on(place, &[row("a")]).await.define("a", stuck).until_done().await;
        let wanted = "quarantined after 2 attempts: the batch made no progress: it ended where it began";
        assert_eq!(story.remaining(), [("a", wanted)]);
        assert_eq!(touched(place).await, ["0|1"]);
    }

    async fn a_batch_that_outlasts_the_grace_of_a_stop_is_rolled_back(place: Place) {
        make_items(place, 5).await;
        let recorder = Recorder::running();
        let run = Run::on(place, &[row("a")]).await.define("a", Arc::new(Endless));
        let mut run = run.controller(Arc::new(recorder.clone()));
        run.settings.shutdown_grace = Duration::from_millis(100);
        let mut running = run.start();
        running.next("a batch", |kind| matches!(kind, EventKind::BatchStarted { .. }).then_some(())).await;
        assert_eq!(running.stop().await.end, End::Stopped);
        assert_eq!(recorder.calls(), ["on-update a master false", "enter -> run", "exit cancelled", "close"]);
        assert_eq!(touched(place).await, ["0|5"]);
        assert_eq!(place.rows("select update_name, progress_json from background_updates").await, ["a|{}"]);
    }

    async fn a_row_withdrawn_between_entering_and_its_batch_is_not_worked_on(place: Place) {
        make_items(place, 5).await;
        let (withdrawn, when_withdrawn) = std::sync::mpsc::channel();
        let when_withdrawn = std::sync::Mutex::new(when_withdrawn);
        let recorder = Recorder::new(move |_| {
            when_withdrawn.lock().unwrap().recv().unwrap();
            tidegate::controller::Admission::Run(Duration::from_millis(20))
        });
        let run = Run::on(place, &[row("a")]).await.define("a", touch()).controller(Arc::new(recorder.clone()));
        let database = run.database.clone();
        let mut running = run.start();
        running.next("the update", |kind| matches!(kind, EventKind::UpdateStarted { .. }).then_some(())).await;
        database.cancel(&["a".to_owned()]).await.unwrap();
        withdrawn.send(()).unwrap();
        assert_eq!(running.end().await.remaining(), []);
        assert_eq!(recorder.calls(), ["on-update a master false", "enter -> run", "exit cancelled", "close"]);
        assert_eq!(touched(place).await, ["0|5"]);
    }
}
