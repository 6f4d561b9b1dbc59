//! The slices of a batch: it ends when its time is up, whatever its items cost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde_json::{Map, json};
use tidegate::pace::Estimator;
use tidegate::scheduler::database::{IterationOutcome, NewRow, Record, unix_ms};
use tidegate::scheduler::event::EventKind;
use tidegate::update::sql::{Sql, System};
use tidegate::update::{Budget, Handler, Mode, Next, Progress, Step, UpdateError};

use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::run::{Run, backfill, make_items, touch, touched};

/// Touches each item once; from this one on that costs some 20 ms at least, whatever the machine: by sleeping, or by so much
/// work.
fn dear_from(place: &Place, first: u32) -> Arc<dyn Handler> {
    let work = place.either(
        "(WITH RECURSIVE c(i) AS (SELECT items.id UNION ALL SELECT i + 1 FROM c WHERE i < items.id + 200000) \
         SELECT count(*) > 0 FROM c)",
        "(SELECT 1 FROM pg_sleep(0.02 + 0 * id))",
    );
    backfill(&format!("touched = touched + CASE WHEN id < {first} THEN 1 ELSE {work} END"))
}

/// What each iteration did; none may fail.
fn items(records: &[&Record]) -> Vec<u64> {
    let failed: Vec<_> = records.iter().filter_map(|record| record.error.as_ref()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    records.iter().map(|record| record.items).collect()
}

/// Notes the size of each slice.
struct Sizes(Mutex<Vec<u64>>);

#[async_trait]
impl Handler for Sizes {
    fn mode(&self, _: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::Batched)
    }

    async fn run(&self, _: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        self.0.lock().unwrap().push(budget.items);
        let slices = progress.0.get("slices").and_then(serde_json::Value::as_u64).unwrap_or_default() + 1;
        let next = Progress(Map::from_iter([("slices".to_owned(), json!(slices))]));
        Ok(Step::new(budget.items, if slices < 4 { Next::Continue(next) } else { Next::Finished }))
    }
}

/// Touches its items one by one, and waits for ever before the last of several: for what no database is asked.
struct WaitsElsewhere;

#[async_trait]
impl Handler for WaitsElsewhere {
    fn mode(&self, _: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::Batched)
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let from = progress.0.get("id").and_then(serde_json::Value::as_u64).unwrap_or_default();
        for item in 1..=budget.items {
            if item > 1 && item == budget.items {
                std::future::pending::<()>().await;
            }
            sql.execute(&format!("UPDATE items SET touched = touched + 1 WHERE id = {}", from + item), &[]).await?;
        }
        let id = from + budget.items;
        let next = Progress(Map::from_iter([("id".to_owned(), json!(id))]));
        Ok(Step::new(budget.items, if id < 4 { Next::Continue(next) } else { Next::Finished }))
    }
}

on_both! {
    async fn cheap_items_before_dear_ones_let_no_batch_run_away(place: Place) {
        make_items(place, 20_200).await;
        let mut run = Run::on(place, &[row("a")]).await.define("a", dear_from(place, 20_001));
        run.supervision.builtin.target = Duration::from_millis(100);
        run.supervision.min_batch_size = 1;
        let story = run.until_done().await;
        assert_eq!(touched(place).await, ["1|20200"]);
        let (mut from, mut dear) = (0, Vec::new());
        for items in items(&story.iterations()) {
            from += items;
            dear.push(from.saturating_sub(20_000).min(items));
        }
        // 120 ms are over after six dear items, or a few more on a machine that works fast; what is cut off is undone.
        assert!(dear.iter().all(|items| *items <= 20), "{dear:?}");
        // Each batch but those in which something was cut off does what fits; how much work fits depends on the machine.
        let slept = place.system() == System::Postgres;
        assert!(!slept || dear.iter().filter(|items| **items > 0).count() < 140, "{dear:?}");
    }

    async fn a_handler_that_waits_for_something_else_is_cut_off_and_gets_fewer_items(place: Place) {
        make_items(place, 4).await;
        let mut run = Run::on(place, &[row("a")]).await.define("a", Arc::new(WaitsElsewhere));
        run.supervision.builtin.target = Duration::from_millis(100);
        (run.supervision.default_batch_size, run.supervision.min_batch_size) = (4, 1);
        let story = run.until_done().await;
        let done = items(&story.iterations());
        assert_eq!(touched(place).await, ["1|4"], "{done:?}");
        assert_eq!(done.iter().sum::<u64>(), 4, "{done:?}");
    }

    async fn a_batch_that_is_cut_off_keeps_what_was_done_before(place: Place) {
        make_items(place, 600).await;
        let mut run = Run::on(place, &[row("a")]).await.define("a", dear_from(place, 301));
        run.supervision.builtin.target = Duration::from_millis(100);
        (run.supervision.default_batch_size, run.supervision.min_batch_size) = (100, 1);
        let story = run.until_done().await;
        assert_eq!(touched(place).await, ["1|600"]);
        let items = items(&story.iterations());
        match place.system() {
            // 100 at first, and more while these are cheap; of a slice that reaches the dear ones more than fit.
            System::Postgres => assert!((100..=300).contains(&items[0]), "{items:?}"),
            // An interrupted statement undoes the transaction: what is known to go through is done again.
            System::Sqlite => assert!((1..=100).contains(&items[0]), "{items:?}"),
        }
    }

    async fn the_least_counts_within_the_bounds_of_the_operator(place: Place) {
        make_items(place, 500).await;
        let run = |min: u32, cut_off: u64| async move {
            let mut run = Run::on(place, &[row("a")]).await.define("a", dear_from(place, 1));
            run.supervision.builtin.target = Duration::from_millis(1);
            (run.supervision.default_batch_size, run.supervision.min_batch_size) = (1, min);
            run.settings.cut_off = Duration::from_millis(cut_off);
            items(&run.until_done().await.iterations())
        };
        let least = run(10, 60_000).await;
        let (_, whole) = least[1..].split_last().unwrap();
        assert!(!whole.is_empty() && whole.iter().all(|items| *items == 10), "{least:?}");
        let bounded = run(400, 400).await;
        // The last one may find that nothing is left.
        let (_, bounded) = bounded.split_last().unwrap();
        // 400 ms are over after 20 items.
        assert!(bounded.iter().all(|items| (1..=30).contains(items)), "{bounded:?}");
        assert_eq!(touched(place).await, ["2|500"]);
    }

    async fn a_host_that_starts_goes_by_what_the_history_says(place: Place) {
        for (known, expected) in [(0, 100..=100), (8, 101..=7_500)] {
            let place = &place.another().await;
            let begun = NewRow { progress: r#"{"slices": 3}"#.to_owned(), ..row("a") };
            let sizes = Arc::new(Sizes(Mutex::default()));
            let mut run = Run::on(place, &[begun]).await.define("a", sizes.clone());
            run.supervision.builtin.target = Duration::from_millis(100);
            let record = Arc::new(Record {
                update_name: "a".to_owned(),
                started_ms: unix_ms(SystemTime::now()),
                one_shot: false,
                controller: "built-in".to_owned(),
                target_ms: Some(100),
                batch_size: 10_000,
                items: 10_000,
                duration_ms: 100.0,
                waited_ms: 0.0,
                wait_reason: None,
                outcome: IterationOutcome::Completed,
                error: None,
                notes: Vec::new(),
                fuel: None,
            });
            run.database.add_history(&vec![record; known]).await.unwrap();
            run.until_done().await;
            let sizes = sizes.0.lock().unwrap().clone();
            // What it took to open the transaction is no time for items.
            assert!(sizes.len() == 1 && expected.contains(&sizes[0]), "{known} iterations in the history: {sizes:?}");
        }
    }

    async fn a_batch_by_synapses_formula_is_one_slice(place: Place) {
        let sizes = Arc::new(Sizes(Mutex::default()));
        let mut run = Run::on(place, &[row("a")]).await.define("a", sizes.clone());
        run.settings.estimator = Estimator::Synapse;
        (run.supervision.default_batch_size, run.settings.max_batch_size) = (70, 1_000);
        let records = run.until_done().await;
        assert_eq!(sizes.0.lock().unwrap()[0], 70);
        assert_eq!(records.iterations().len(), 4);
    }

    async fn slices_make_one_batch(place: Place) {
        let sizes = Arc::new(Sizes(Mutex::default()));
        let mut run = Run::on(place, &[row("a")]).await.define("a", sizes.clone());
        run.supervision.builtin.target = Duration::from_secs(10);
        let story = run.until_done().await;
        let sizes = sizes.0.lock().unwrap().clone();
        assert_eq!(sizes, [100, 400, 1_600, 6_400], "each is at most four times as large as the one before");
        let iterations = story.iterations();
        assert_eq!((iterations.len(), iterations[0].items, iterations[0].batch_size), (1, 8_500, 8_500));
    }

    async fn a_batch_is_at_most_as_large_as_the_operator_says(place: Place) {
        make_items(place, 1_000).await;
        let mut run = Run::on(place, &[row("a")]).await.define("a", touch());
        run.settings.max_batch_size = 300;
        run.supervision.builtin.target = Duration::from_secs(10);
        assert_eq!(items(&run.until_done().await.iterations()), [300, 300, 300, 100]);
        assert_eq!(touched(place).await, ["1|1000"]);
    }
}

/// An item that somebody has locked keeps those before it from nobody: they are committed, and wait for no lock's limit.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_before_a_locked_row_is_committed() {
    let place = Place::postgres().await;
    make_items(&place, 1_000).await;
    let mut run = Run::on(&place, &[row("a")]).await.define("a", touch());
    run.supervision.builtin.target = Duration::from_millis(100);
    run.settings.max_attempts = 1_000;
    let lock = place.hold("select * from items where id = 500 for update").await;
    let mut running = run.start();
    let failed = |kind: &EventKind| matches!(kind, EventKind::TransientFailure { .. }).then_some(());
    running.next("the lock's limit", failed).await;
    assert_eq!(place.rows("select count(*) >= 100 from items where touched = 1").await, ["t"]);
    drop(lock);
    running.end().await;
    assert_eq!(touched(&place).await, ["1|1000"]);
}

/// Batches follow each other without a rest: an application that waits for the lock comes by it all the same.
#[tokio::test(flavor = "multi_thread")]
async fn others_come_to_write_on_sqlite_while_batches_follow_each_other() {
    let place = Place::sqlite();
    place.recommended().await;
    make_items(&place, 300).await;
    place.run("create table app (id integer primary key)").await;
    let mut run = Run::on(&place, &[row("a")]).await.define("a", dear_from(&place, 1));
    run.supervision.builtin.target = Duration::from_millis(100);
    run.supervision.min_batch_size = 1;
    let file = place.file().clone();
    let running = run.start();
    let over = Arc::new(AtomicBool::new(false));
    let ends = over.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let application = rusqlite::Connection::open(file).unwrap();
        application.busy_timeout(Duration::from_secs(60)).unwrap();
        let mut writes = 0;
        while !ends.load(Ordering::Relaxed) {
            application.execute("insert into app default values", ()).unwrap();
            writes += i32::from(!ends.load(Ordering::Relaxed));
            // Seldom, as an application writes: who writes at once again keeps the host waiting.
            std::thread::sleep(Duration::from_millis(20));
        }
        writes
    });
    running.end().await;
    over.store(true, Ordering::Relaxed);
    let writes = writing.await.unwrap();
    assert_eq!(touched(&place).await, ["1|300"]);
    // It has room about twice a second, and all of this takes six at least.
    assert!(writes >= 6, "{writes} writes");
}
