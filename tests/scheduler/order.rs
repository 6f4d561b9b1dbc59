//! Which update runs when, and what remains.

use tidegate::pace::Estimator;
use tidegate::scheduler::End;
use tidegate::scheduler::database::{IterationOutcome, NewRow};
use tidegate::scheduler::event::EventKind;

use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::recorder::Recorder;
use crate::support::run::{Run, backfill, make_items, row_after, touch, touched};
use crate::support::until;

on_both! {
    async fn a_queue_runs_in_order_and_leaves_nothing(place: Place) {
        make_items(place, 1_000).await;
        let rows = [
            row_after("a", "c"),
            NewRow { ordering: 2, ..row("b") },
            NewRow { ordering: 1, ..row("c") },
            row("d"),
        ];
        let run = ["a", "b", "c", "d"].iter().fold(Run::on(place, &rows).await, |run, name| run.define(name, touch()));
        let story = run.until_done().await;
        assert_eq!(story.end, End::Done { remaining: vec![] });
        assert_eq!(story.finished(), ["d", "c", "a", "b"]);
        assert_eq!(touched(place).await, ["4|1000"]);
    }

    async fn a_queue_table_that_was_dropped_is_made_again(place: Place) {
        make_items(place, 300).await;
        let run = Run::on(place, &[row("a")]).await.define("a", touch()).define("b", touch()).for_ever();
        let database = run.database.clone();
        let mut running = run.start();
        let finished = |kind: &EventKind| matches!(kind, EventKind::UpdateFinished { .. }).then_some(());
        running.next("the first end", finished).await;
        place.run("drop table background_updates").await;
        let there = place.either(
            "select count(*) from sqlite_schema where name = 'background_updates'",
            "select count(*) from pg_class where relname = 'background_updates'",
        );
        until("the table is there", async || place.rows(there).await == ["1"]).await;
        assert!(database.enqueue(&row("b")).await.unwrap());
        running.next("the second end", finished).await;
        running.stop().await;
        assert_eq!(touched(place).await, ["2|300"]);
    }

    async fn an_update_in_hand_is_finished_before_one_that_was_queued_meanwhile(place: Place) {
        make_items(place, 500).await;
        let run = Run::on(place, &[row("m")]).await.define("m", touch()).define("a", touch());
        let database = run.database.clone();
        let mut running = run.start();
        running.next("a batch", |kind| batch_started(kind, "m")).await;
        database.enqueue(&row("a")).await.unwrap();
        let story = running.end().await;
        assert_eq!(story.finished(), ["m", "a"]);
    }

    async fn rows_that_cannot_run_are_named_and_hold_up_nobody_else(place: Place) {
        make_items(place, 300).await;
        let bad = |name: &str, progress: &str| NewRow { progress: progress.to_owned(), ..row(name) };
        let rows = [
            row("a_without_definition"),
            row_after("b_after_it", "a_without_definition"),
            row_after("c_cycle", "d_cycle"),
            row_after("d_cycle", "c_cycle"),
            bad("e_not_json", "not json"),
            bad("f_list", "[1]"),
            row("g_fails"),
            row("z_fine"),
        ];
        let define = |run: Run, names: &[&str]| names.iter().fold(run, |run, name| run.define(name, touch()));
        let names = ["b_after_it", "c_cycle", "d_cycle", "e_not_json", "f_list", "z_fine"];
        let run = define(Run::on(place, &rows).await, &names);
        let story = run.define("g_fails", backfill("absent = 1")).until_done().await;
        assert_eq!(story.finished(), ["z_fine"]);
        let remaining = story.remaining();
        let fails = place.either(
            "quarantined after 2 attempts: no such column: absent",
            "quarantined after 2 attempts: column \"absent\" of relation \"items\" does not exist",
        );
        assert_eq!(remaining.len(), 7);
        for (found, wanted) in remaining.iter().zip([
            ("a_without_definition", "no definition"),
            ("b_after_it", "waits for a_without_definition"),
            ("c_cycle", "in a dependency cycle: c_cycle -> d_cycle -> c_cycle"),
            ("d_cycle", "in a dependency cycle: d_cycle -> c_cycle -> d_cycle"),
            ("e_not_json", "quarantined after 1 attempt: progress \"not json\" cannot be understood: it is not JSON"),
            ("f_list", "quarantined after 1 attempt: progress \"[1]\" cannot be understood: it is JSON, but not an object"),
            ("g_fails", fails),
        ]) {
            assert_eq!(found.0, wanted.0);
            assert!(found.1.starts_with(wanted.1), "{} is not {}", found.1, wanted.1);
        }

        // The causes mended, and the quarantined ones let out: everything that is left runs.
        place.run("update background_updates set progress_json = '{}', depends_on = null").await;
        let database = place.prepared().await;
        database.forget_failures("g_fails").await.unwrap();
        let names = ["a_without_definition", "b_after_it", "c_cycle", "d_cycle", "e_not_json", "f_list", "g_fails"];
        let story = define(Run::with(database), &names).until_done().await;
        assert_eq!(story.end, End::Done { remaining: vec![] });
        assert_eq!(touched(place).await, ["8|300"]);
    }

    async fn a_table_that_somebody_else_made_is_worked_on_as_it_is(place: Place) {
        make_items(place, 300).await;
        place.run(
            "create table background_updates (update_name text not null unique, progress_json text not null, \
             depends_on text, ordering int not null default 0); \
             insert into background_updates (update_name, progress_json, depends_on) \
             values ('second', '{}', 'first'), ('first', '{}', '')"
        ).await;
        let before = place.queue_table().await;
        let run = Run::on(place, &[]).await.define("first", touch()).define("second", touch());
        assert_eq!(run.until_done().await.finished(), ["first", "second"]);
        assert_eq!(touched(place).await, ["2|300"]);
        assert_eq!(place.queue_table().await, before);
    }

    async fn the_history_tells_each_iteration(place: Place) {
        make_items(place, 1_000).await;
        let mut run = Run::on(place, &[row("a")]).await.define("a", touch()).controller(recorder());
        run.settings.max_batch_size = 100;
        let story = run.until_done().await;
        let history = story.history().await;
        let iterations: Vec<_> = story.iterations().into_iter().cloned().collect();
        assert_eq!(history, iterations);
        assert_eq!(history.iter().map(|record| record.items).sum::<u64>(), 1_000);
        let (last, first) = (history.last().unwrap(), &history[0]);
        assert_eq!(first.batch_size, 100);
        assert_eq!((first.controller.as_str(), first.target_ms, first.outcome), ("recorder", Some(20), IterationOutcome::Completed));
        assert_eq!(last.outcome, IterationOutcome::Finished);
    }

    async fn by_synapses_formula_the_first_batch_is_the_configured_one_and_no_batch_passes_the_maximum(place: Place) {
        make_items(place, 2_000).await;
        let mut run = Run::on(place, &[row("a")]).await.define("a", touch());
        run.supervision.default_batch_size = 7;
        run.supervision.min_batch_size = 1_000_000;
        (run.settings.max_batch_size, run.settings.estimator) = (400, Estimator::Synapse);
        let sizes: Vec<u64> = run.until_done().await.iterations().iter().map(|record| record.batch_size).collect();
        assert_eq!(sizes, [7, 400, 400, 400, 400, 400]);
        assert_eq!(touched(place).await, ["1|2000"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_that_a_program_stored_as_bytes_is_understood_on_sqlite() {
    let place = &Place::sqlite();
    make_items(place, 300).await;
    let run = Run::on(place, &[row("b")]).await.define("a", touch()).define("b", touch());
    place.run("insert into background_updates (update_name, progress_json) values ('a', x'7b7d')").await;
    assert_eq!(run.until_done().await.finished(), ["a", "b"]);
    assert_eq!(touched(place).await, ["2|300"]);
}

fn recorder() -> std::sync::Arc<Recorder> {
    std::sync::Arc::new(Recorder::running())
}

fn batch_started(kind: &tidegate::scheduler::event::EventKind, name: &str) -> Option<()> {
    match kind {
        tidegate::scheduler::event::EventKind::BatchStarted { update_name, .. } if update_name == name => Some(()),
        _ => None,
    }
}
