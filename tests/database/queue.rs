//! The queue table, and what tidegate remembers beside it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tidegate::controller::ShadowReport;
use tidegate::scheduler::database::{
    Activity, AlreadyQueued, ControllerRetry, Failure, IterationOutcome, LaneWork, Measured, NewRow, Pause, Record,
    Work, unix_ms,
};
use tidegate::scheduler::update_state::{LaneState, UpdateState};
use tidegate::update::ErrorClass;
use tidegate::update::sql::System;

use crate::support::place::{Place, begin, holder, row};

/// Makes PostgreSQL refuse to write to what `queue` reads, even a statement that changes no row.
const REFUSE_WRITING: &str = "
    create function refuse() returns trigger language plpgsql as $$ begin raise 'somebody writes'; end $$;
    create trigger refuse before insert or update or delete on background_updates execute function refuse();
    create trigger refuse before insert or update or delete on tidegate_failures execute function refuse();
    create trigger refuse before insert or update or delete on tidegate_state execute function refuse();";

const DAY: Duration = Duration::from_hours(24);

fn failure(attempts: u32) -> Failure {
    Failure {
        attempts,
        error: "no such column".to_owned(),
        code: Some("SQLITE_ERROR".to_owned()),
        at_ms: 1_700_000_000_000,
        quarantined: attempts > 4,
    }
}

fn record(update_name: &str, started: SystemTime) -> Record {
    Record {
        update_name: update_name.to_owned(),
        started_ms: unix_ms(started),
        one_shot: false,
        controller: "built in".to_owned(),
        target_ms: Some(100),
        batch_size: 100,
        items: 99,
        duration_ms: 12.5,
        waited_ms: 1_000.0,
        wait_reason: Some("hot".to_owned()),
        outcome: IterationOutcome::Completed,
        error: None,
        notes: Vec::new(),
        fuel: Some(1_234),
    }
}

crate::support::on_both! {
    async fn tables_are_made_where_they_are_missing(place: Place) {
        let database = place.prepared().await;
        assert!(database.queue().await.unwrap().rows.is_empty());
        place.run("insert into background_updates (update_name, progress_json) values ('a', '{}')").await;
        let rows = place.rows("select update_name, progress_json, depends_on, ordering from background_updates").await;
        assert_eq!(rows, ["a|{}||0"]);
        let twice = "insert into background_updates (update_name, progress_json) values ('b', null)";
        let refused = database.session().await.unwrap().execute(twice, &[]).await.unwrap_err();
        assert_eq!(refused.class, ErrorClass::Permanent);
    }

    async fn an_existing_queue_table_is_left_as_it_is(place: Place) {
        place.run(
            "create table background_updates (update_name text not null, progress_json text not null, \
             depends_on text, ordering int not null default 0, \
             constraint background_updates_uniqueness unique (update_name)); \
             insert into background_updates (update_name, progress_json, ordering) values ('old', '{\"n\":1}', 7)",
        )
        .await;
        let before = place.queue_table().await;
        assert!(!before.is_empty());
        let database = place.prepared().await;
        database.prepare().await.unwrap();
        assert_eq!(database.queue().await.unwrap().rows[0].update_name, "old");
        assert!(database.enqueue(&row("new")).await.unwrap());
        assert_eq!(place.queue_table().await, before);
    }

    async fn any_number_of_hosts_make_the_tables_at_once(place: Place) {
        let handles: Vec<_> = (0..8).map(|_| place.open()).collect();
        for prepared in join_all(handles.iter().map(|handle| handle.prepare())).await {
            prepared.unwrap();
        }
        assert_eq!(place.rows("select version from tidegate_version").await, ["1"]);
    }

    async fn tables_of_a_newer_tidegate_are_refused(place: Place) {
        place.prepared().await;
        place.run("update tidegate_version set version = 7").await;
        let error = place.open().prepare().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Permanent);
        assert!(error.message.contains("made by a newer tidegate (tables version 7, this one knows 1)"), "{error}");
    }

    async fn queueing_twice_changes_nothing(place: Place) {
        let database = place.prepared().await;
        let first = NewRow { progress: "{\"after\":3}".to_owned(), ordering: 2, ..row("a") };
        assert!(database.enqueue(&first).await.unwrap());
        assert!(!database.enqueue(&row("a")).await.unwrap());
        assert_eq!(place.rows("select progress_json, ordering from background_updates").await, ["{\"after\":3}|2"]);
    }

    async fn rows_of_a_job_are_queued_together_or_not_at_all(place: Place) {
        let database = place.prepared().await;
        let job = ["a", "b", "c"].map(row);
        let queued = async || place.rows("select update_name from background_updates order by update_name").await;

        database.enqueue(&NewRow { ordering: 4, ..row("b") }).await.unwrap();
        database.record_failure("b", "{}", &failure(5)).await.unwrap();
        assert_eq!(database.enqueue_all(&job).await.unwrap(), Err(AlreadyQueued(vec!["b".to_owned()])));
        assert_eq!(queued().await, ["b"]);
        let left = &database.queue().await.unwrap().rows[0];
        assert_eq!((left.ordering, left.failure.as_ref()), (4, Some(&failure(5))));

        database.cancel(&["b".to_owned()]).await.unwrap();
        assert_eq!(database.enqueue_all(&job).await.unwrap(), Ok(()));
        assert_eq!(queued().await, ["a", "b", "c"]);
        assert_eq!(database.enqueue_all(&[]).await.unwrap(), Ok(()));
    }

    async fn a_job_is_queued_by_one_of_many(place: Place) {
        place.prepared().await;
        let handles: Vec<_> = (0..6).map(|_| place.open()).collect();
        let job = ["a", "b", "c"].map(row);
        let attempts = join_all(handles.iter().map(|handle| handle.enqueue_all(&job))).await;
        let queued = attempts.into_iter().filter(|attempt| attempt.as_ref().unwrap().is_ok()).count();
        assert_eq!(queued, 1);
        assert_eq!(place.rows("select count(*) from background_updates").await, ["3"]);
    }

    async fn rows_come_in_order(place: Place) {
        let database = place.prepared().await;
        for (name, ordering) in [("b", 1), ("Z", 1), ("a_b", 0), ("aC", 0), ("é", -1), ("a", 1)] {
            database.enqueue(&NewRow { ordering, ..row(name) }).await.unwrap();
        }
        database.enqueue(&NewRow { depends_on: Some(String::new()), ordering: 9, ..row("last") }).await.unwrap();
        database.enqueue(&NewRow { depends_on: Some("a".to_owned()), ordering: 10, ..row("end") }).await.unwrap();
        let rows = database.queue().await.unwrap().rows;
        let names: Vec<_> = rows.iter().map(|row| row.update_name.as_str()).collect();
        assert_eq!(names, ["é", "aC", "a_b", "Z", "a", "b", "last", "end"]);
        assert_eq!((&rows[6].depends_on, rows[7].depends_on.as_deref()), (&None, Some("a")));
    }

    async fn cancelled_rows_leave_together(place: Place) {
        let database = place.prepared().await;
        for name in ["a", "b", "c"] {
            database.enqueue(&row(name)).await.unwrap();
        }
        database.record_failure("a", "{}", &failure(1)).await.unwrap();
        let names = ["a".to_owned(), "unknown".to_owned(), "c".to_owned()];
        assert_eq!(database.cancel(&names).await.unwrap(), ["a", "c"]);
        assert_eq!(place.rows("select update_name from background_updates").await, ["b"]);
        assert!(place.rows("select * from tidegate_failures").await.is_empty());
    }

    async fn a_failure_lasts_as_long_as_its_row_stands_still(place: Place) {
        let database = place.prepared().await;
        for name in ["still", "moved", "gone", "requeued"] {
            database.enqueue(&row(name)).await.unwrap();
            database.record_failure(name, "{}", &failure(1)).await.unwrap();
            database.record_failure(name, "{}", &failure(5)).await.unwrap();
        }
        let failures = |queue: tidegate::scheduler::database::Queue| -> Vec<_> {
            queue.rows.into_iter().filter_map(|row| row.failure.map(|found| (row.update_name, found.attempts))).collect()
        };
        assert_eq!(failures(database.queue().await.unwrap()).len(), 4);

        place.run("update background_updates set progress_json = '{\"n\":1}' where update_name = 'moved'").await;
        place.run("delete from background_updates where update_name = 'gone'").await;
        database.cancel(&["requeued".to_owned()]).await.unwrap();
        database.enqueue(&row("requeued")).await.unwrap();

        assert_eq!(failures(database.queue().await.unwrap()), [("still".to_owned(), 5)]);
        assert_eq!(place.rows("select update_name from tidegate_failures").await, ["still"]);

        // Queued anew by somebody else, it starts afresh.
        place.run("insert into background_updates (update_name, progress_json) values ('gone', '{}')").await;
        assert_eq!(failures(database.queue().await.unwrap()).len(), 1);

        assert!(database.forget_failures("still").await.unwrap());
        assert!(!database.forget_failures("still").await.unwrap());
        assert!(failures(database.queue().await.unwrap()).is_empty());
    }

    async fn queueing_an_update_anew_clears_its_failures_even_unseen(place: Place) {
        let database = place.prepared().await;
        database.enqueue(&row("a")).await.unwrap();
        database.record_failure("a", "{}", &failure(5)).await.unwrap();
        place.run("delete from background_updates").await;
        assert!(database.enqueue(&row("a")).await.unwrap());
        assert_eq!(database.queue().await.unwrap().rows[0].failure, None);
    }

    async fn a_success_ends_a_row_of_failures(place: Place) {
        let database = place.prepared().await;
        database.enqueue(&row("a")).await.unwrap();
        database.record_failure("a", "{}", &failure(2)).await.unwrap();
        begin(&*database, "a", "{}").await.commit(Some("{\"after\":1}")).await.unwrap();
        assert_eq!(database.queue().await.unwrap().rows[0].failure, None);
        assert!(place.rows("select * from tidegate_failures").await.is_empty());
    }

    async fn looking_at_the_queue_writes_nothing(place: Place) {
        let database = place.prepared().await;
        database.enqueue(&row("a")).await.unwrap();
        database.record_failure("a", "{}", &failure(2)).await.unwrap();
        database.queue().await.unwrap();
        // SQLite tells a connection whether another one has written; PostgreSQL is made to refuse.
        let sqlite = (place.system() == System::Sqlite).then(|| rusqlite::Connection::open(place.file()).unwrap());
        let version = || {
            let ask = |sqlite: &rusqlite::Connection| sqlite.query_row("pragma data_version", [], |row| row.get(0));
            sqlite.as_ref().map(|sqlite| ask(sqlite).unwrap())
        };
        let before: Option<i64> = version();
        if place.system() == System::Postgres {
            place.run(REFUSE_WRITING).await;
        }
        for _ in 0..5 {
            database.queue().await.unwrap();
        }
        assert_eq!(version(), before);
    }

    async fn a_pause_is_kept_and_lifted(place: Place) {
        let database = place.prepared().await;
        let pause = Pause { since_ms: 5, reason: Some("night shift".to_owned()) };
        database.set_pause(Some(&Pause { since_ms: 1, reason: None })).await.unwrap();
        database.set_pause(Some(&pause)).await.unwrap();
        database.close().await;
        assert_eq!(place.prepared().await.queue().await.unwrap().pause, Some(pause));
        database.set_pause(None).await.unwrap();
        database.set_pause(None).await.unwrap();
        assert_eq!(database.queue().await.unwrap().pause, None);
    }

    async fn the_activity_is_there_for_others_to_read(place: Place) {
        let database = place.prepared().await;
        let first = Work {
            put_off: Vec::new(),
            one_shot_since_ms: Some(12_345),
            in_the_way: vec!["process 7".to_owned()],
            update_name: Some("a".to_owned()),
            state: LaneState::Update(UpdateState::Running),
            reason: None,
            controller: "built in".to_owned(),
            controller_retry: Some(ControllerRetry { update_name: "a".to_owned(), at_ms: 99 }),
            fault: None,
            items_per_ms: Some(0.25),
            done: Some(0.25),
            eta_ms: Some(1_500),
            shadows: vec![ShadowReport::new("tomorrow")],
        };
        let lanes = vec![LaneWork { lane: "indexes".to_owned(), work: Work { done: Some(0.5), ..first.clone() } }];
        let signals = vec![Measured { name: "load".to_owned(), value: 0.5, unit: String::new(), age_ms: 7 }];
        let activity = Activity { holder: holder(4), first, lanes, at_ms: 77, signals };
        database.set_activity(Some(&activity)).await.unwrap();
        let other = place.prepared().await;
        assert_eq!(other.queue().await.unwrap().activity, Some(activity));
        database.set_activity(None).await.unwrap();
        assert_eq!(other.queue().await.unwrap().activity, None);
    }

    async fn history_is_kept_for_seven_days_the_newest_first(place: Place) {
        let now = SystemTime::now();
        let database = place.prepared().await;
        let old: Vec<_> = (0..120).map(|_| Arc::new(record("old", now - 8 * DAY))).collect();
        let young = [record("a", now - 6 * DAY), record("b", now), record("a", now)];
        let shared = young.clone().map(Arc::new);
        database.add_history(&[]).await.unwrap();
        // The first call has pruned already; the next handle prunes again.
        database.add_history(&old).await.unwrap();
        assert_eq!(place.rows("select count(*) from tidegate_history").await, ["120"]);
        let database = place.prepared().await;
        database.add_history(&shared).await.unwrap();
        let mut newest_first = young.to_vec();
        newest_first.reverse();
        assert_eq!(database.history(None, 100).await.unwrap(), newest_first);
        assert_eq!(database.history(None, 2).await.unwrap(), newest_first[..2]);
        assert_eq!(database.history(Some("b"), 9).await.unwrap(), young[1..2]);
        assert_eq!(database.history(Some("old"), 9).await.unwrap(), []);
    }

    async fn queue_tables_are_kept_apart(place: Place) {
        let database = place.prepared().await;
        let other = place.open_with(|options| options.queue_table = "tide's \"own\" updates".to_owned());
        other.prepare().await.unwrap();
        database.enqueue(&row("a")).await.unwrap();
        other.enqueue(&row("a")).await.unwrap();
        other.enqueue(&row("b")).await.unwrap();
        other.record_failure("a", "{}", &failure(1)).await.unwrap();
        other.set_pause(Some(&Pause { since_ms: 1, reason: None })).await.unwrap();
        other.add_history(&[Arc::new(record("a", SystemTime::now()))]).await.unwrap();
        let queue = database.queue().await.unwrap();
        assert_eq!((queue.rows.len(), &queue.rows[0].failure, &queue.pause), (1, &None, &None));
        assert_eq!(database.history(None, 9).await.unwrap(), []);
        let queue = other.queue().await.unwrap();
        assert_eq!((queue.rows.len(), queue.rows[0].failure.is_some(), queue.pause.is_some()), (2, true, true));
    }
}
