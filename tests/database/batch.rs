//! A batch: its transaction, the progress that it compares and commits, its interruption.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::scheduler::database::{Begin, Database};
use tidegate::update::ErrorClass;
use tidegate::update::sql::{System, Value};

use crate::support::place::{Place, begin, row};
use crate::support::until;

/// A prepared database with the update `a` queued and an empty table `items (n)`.
async fn ready(place: &Place) -> Arc<dyn Database> {
    let database = place.prepared().await;
    database.enqueue(&row("a")).await.unwrap();
    place.run("create table items (n integer not null)").await;
    database
}

async fn items(place: &Place) -> Vec<String> {
    place.rows("select n from items order by n").await
}

const INSERT: &str = "insert into items (n) values (1)";

/// Takes long, and ends within seconds where nobody stops it.
fn slow(place: &Place) -> &str {
    place.either(
        "with recursive c(n) as (select 1 union all select n + 1 from c where n < 100000000) select max(n) from c",
        "select pg_sleep(20)",
    )
}

const SLEEPS: &str = "select 1 from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";

crate::support::on_both! {
    async fn rows_and_progress_commit_together(place: Place) {
        let database = ready(place).await;
        let mut batch = begin(&*database, "a", "{}").await;
        assert_eq!(batch.execute(INSERT, &[]).await.unwrap(), 1);
        assert!(items(place).await.is_empty(), "seen before it was committed");
        batch.commit(Some("{\"after\":1}")).await.unwrap();
        assert_eq!(items(place).await, ["1"]);
        assert_eq!(database.progress("a").await.unwrap().as_deref(), Some("{\"after\":1}"));
        assert_eq!(place.rows("select progress_json from background_updates").await, ["{\"after\":1}"]);
    }

    async fn a_finished_update_leaves_the_queue_with_its_last_rows(place: Place) {
        let database = ready(place).await;
        let mut batch = begin(&*database, "a", "{}").await;
        batch.execute(INSERT, &[]).await.unwrap();
        batch.commit(None).await.unwrap();
        assert_eq!(items(place).await, ["1"]);
        assert_eq!(database.progress("a").await.unwrap(), None);
        assert!(place.rows("select * from background_updates").await.is_empty());
    }

    async fn a_batch_rolled_back_leaves_nothing(place: Place) {
        let database = ready(place).await;
        let mut batch = begin(&*database, "a", "{}").await;
        batch.execute(INSERT, &[]).await.unwrap();
        batch.rollback().await.unwrap();
        assert!(items(place).await.is_empty());
        begin(&*database, "a", "{}").await.rollback().await.unwrap();
    }

    async fn a_batch_dropped_leaves_nothing(place: Place) {
        let database = ready(place).await;
        let mut batch = begin(&*database, "a", "{}").await;
        batch.execute(INSERT, &[]).await.unwrap();
        drop(batch);
        let mut next = begin(&*database, "a", "{}").await;
        assert!(next.query("select n from items", &[]).await.unwrap().is_empty());
        next.rollback().await.unwrap();
        assert!(items(place).await.is_empty());
    }

    async fn a_batch_dropped_amid_a_statement_does_not_hold_up_the_next(place: Place) {
        let database = ready(place).await;
        let mut batch = begin(&*database, "a", "{}").await;
        batch.execute(INSERT, &[]).await.unwrap();
        let cut_short = tokio::time::timeout(Duration::from_millis(100), batch.query(slow(place), &[])).await;
        assert!(cut_short.is_err(), "the statement was to be slow");
        drop(batch);
        let since = Instant::now();
        let mut next = begin(&*database, "a", "{}").await;
        assert!(next.query("select n from items", &[]).await.unwrap().is_empty());
        assert!(since.elapsed() < Duration::from_secs(8), "waited {:?}", since.elapsed());
        next.commit(Some("{\"n\":1}")).await.unwrap();
    }

    async fn a_batch_does_not_begin_where_its_row_has_moved(place: Place) {
        let database = ready(place).await;
        place.run("update background_updates set progress_json = '{\"n\":2}'").await;
        for planned in ["{}", "{\"n\": 2}"] {
            match database.begin("a", planned).await.unwrap() {
                Begin::Moved(found) => assert_eq!(found.as_deref(), Some("{\"n\":2}")),
                Begin::Ready(_) | Begin::Failed(_) => panic!("began from {planned}"),
            }
        }
        assert!(matches!(database.begin("unknown", "{}").await.unwrap(), Begin::Moved(None)));
        // Nothing is left open: another connection can write.
        place.run("update background_updates set progress_json = '{}'").await;
        begin(&*database, "a", "{}").await.commit(None).await.unwrap();
    }

    async fn of_two_hosts_one_does_each_batch(place: Place) {
        const BATCHES: i64 = 40;
        let database = ready(place).await;
        place.run("update background_updates set progress_json = '0'").await;
        let hosts = [database, place.prepared().await].map(|database| tokio::spawn(work_until(database, BATCHES)));
        let mut done = 0;
        for host in hosts {
            done += host.await.unwrap();
        }
        assert_eq!(done, BATCHES);
        let expected: Vec<String> = (1..=BATCHES).map(|n| n.to_string()).collect();
        let mut found = items(place).await;
        found.sort_by_key(|n| n.parse::<i64>().unwrap());
        assert_eq!(found, expected);
    }

    async fn a_statement_that_fails_is_reported_and_the_batch_leaves_nothing(place: Place) {
        let database = ready(place).await;
        let mut batch = begin(&*database, "a", "{}").await;
        batch.execute(INSERT, &[]).await.unwrap();
        let error = batch.execute("insert into items (n) values (null)", &[]).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Permanent);
        assert_eq!(error.code.as_deref(), Some(place.either("SQLITE_CONSTRAINT_NOTNULL", "23502")));
        batch.rollback().await.unwrap();
        assert!(items(place).await.is_empty());
    }

    async fn an_update_cannot_end_its_own_transaction(place: Place) {
        let database = ready(place).await;
        for script in ["commit", "commit; begin", "rollback; begin"] {
            let mut batch = begin(&*database, "a", "{}").await;
            batch.script(script).await.unwrap();
            let error = batch.commit(Some("{\"n\":1}")).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::Permanent, "{script}: {error}");
            assert!(error.message.contains("ended the transaction"), "{script}: {error}");
            assert_eq!(database.progress("a").await.unwrap().as_deref(), Some("{}"), "{script}");
        }
    }

    async fn an_interrupted_statement_says_so(place: Place) {
        let database = ready(place).await;
        let mut batch = begin(&*database, "a", "{}").await;
        batch.execute(INSERT, &[]).await.unwrap();
        let interrupter = batch.interrupter();
        let since = Instant::now();
        let interrupt = async {
            // On SQLite a statement that is given to the thread can be interrupted; PostgreSQL has to have begun it.
            if place.system() == System::Postgres {
                until("the statement runs", async || !place.rows(SLEEPS).await.is_empty()).await;
            }
            interrupter.interrupt().await;
        };
        let (slept, ()) = tokio::join!(batch.query(slow(place), &[]), interrupt);
        let error = slept.unwrap_err();
        assert_eq!(error.class, ErrorClass::Interrupted, "{error}");
        assert!(since.elapsed() < Duration::from_secs(8), "it took {:?}", since.elapsed());
        batch.rollback().await.unwrap();
        assert!(items(place).await.is_empty());
    }

    async fn an_interruption_harms_nothing_else(place: Place) {
        let database = ready(place).await;
        let mut batch = begin(&*database, "a", "{}").await;
        let interrupter = batch.interrupter();
        interrupter.interrupt().await;
        batch.execute(INSERT, &[]).await.unwrap();
        batch.commit(Some("{\"n\":1}")).await.unwrap();
        for _ in 0..20 {
            let (_, queue) = tokio::join!(interrupter.interrupt(), database.queue());
            queue.unwrap();
        }
    }

    async fn what_the_database_refuses_to_wait_for_is_transient(place: Place) {
        place.prepared().await.enqueue(&row("a")).await.unwrap();
        let impatient = place.open_with(|options| {
            options.sqlite.busy_timeout = Duration::from_millis(50);
            options.postgres.lock_timeout = Duration::from_millis(50);
        });
        impatient.prepare().await.unwrap();
        let other = place.prepared().await;
        let batch = begin(&*other, "a", "{}").await;
        let error = match impatient.begin("a", "{}").await {
            // Others' rows are not locked, on PostgreSQL.
            Ok(Begin::Failed(error)) if place.system() == System::Postgres => error,
            Err(error) if place.system() == System::Sqlite => error,
            begun => panic!("the row is locked: {:?}", begun.map(drop)),
        };
        assert_eq!((error.class, error.code.as_deref()), (ErrorClass::Transient, Some(place.either("SQLITE_BUSY", "55P03"))));
        batch.rollback().await.unwrap();
        begin(&*impatient, "a", "{}").await.commit(None).await.unwrap();
    }

    async fn values_arrive_as_they_were_sent(place: Place) {
        let database = ready(place).await;
        let mut session = database.session().await.unwrap();
        let create = place.either(
            "create table v (i integer, r real, t text, b blob)",
            "create table v (i bigint, r double precision, t text, b bytea)",
        );
        session.execute(create, &[]).await.unwrap();
        let p = |n| session.dialect().parameter(n);
        let insert = format!("insert into v values ({}, {}, {}, {})", p(1), p(2), p(3), p(4));
        let rows = [
            vec![Value::Integer(i64::MIN), Value::Real(0.1), Value::from("tide 'n\" gate ✓"), Value::Blob(vec![0, 255])],
            vec![Value::Null, Value::Null, Value::Null, Value::Null],
            vec![Value::Integer(i64::MAX), Value::Real(-1e300), Value::from(""), Value::Blob(vec![])],
        ];
        for row in &rows {
            assert_eq!(session.execute(&insert, row).await.unwrap(), 1);
        }
        assert_eq!(session.query("select i, r, t, b from v", &[]).await.unwrap(), rows);
        assert_eq!(session.execute("update v set t = 'x' where i is not null", &[]).await.unwrap(), 2);
        let returned = session.query("delete from v where i is null returning t", &[]).await.unwrap();
        assert_eq!(returned, [vec![Value::Null]]);
        assert_eq!(session.query("select t from v where 1 = 0", &[]).await.unwrap(), Vec::<Vec<Value>>::new());
        let error = session.execute(&insert, &rows[0][..2]).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Permanent);
    }

    async fn a_session_is_outside_any_transaction(place: Place) {
        let database = ready(place).await;
        let mut session = database.session().await.unwrap();
        session.execute(INSERT, &[]).await.unwrap();
        assert_eq!(items(place).await, ["1"]);
        session.script("begin; insert into items (n) values (2)").await.unwrap();
        drop(session);
        // What it left open is gone, and so is the session itself.
        begin(&*database, "a", "{}").await.commit(None).await.unwrap();
        assert_eq!(items(place).await, ["1"]);
    }

    async fn a_closed_database_opens_anew(place: Place) {
        let database = ready(place).await;
        database.close().await;
        begin(&*database, "a", "{}").await.commit(None).await.unwrap();
        database.close().await;
        database.close().await;
        assert!(database.queue().await.unwrap().rows.is_empty());
    }

    async fn switched_off_the_comparison_lets_anything_pass(place: Place) {
        ready(place).await;
        let careless = place.open_with(|options| options.switches.skip_progress_comparison = true);
        assert!(matches!(careless.begin("a", "never").await.unwrap(), Begin::Ready(_)));
    }
}

/// Does batches until `batches` are done by whomever; returns how many it did itself.
async fn work_until(database: Arc<dyn Database>, batches: i64) -> i64 {
    let mut mine = 0;
    loop {
        let planned = database.progress("a").await.unwrap().unwrap();
        let done: i64 = planned.parse().unwrap();
        if done == batches {
            return mine;
        }
        if let Begin::Ready(mut batch) = database.begin("a", &planned).await.unwrap() {
            let insert = format!("insert into items (n) values ({})", batch.dialect().parameter(1));
            batch.execute(&insert, &[Value::Integer(done + 1)]).await.unwrap();
            batch.commit(Some(&(done + 1).to_string())).await.unwrap();
            mine += 1;
        }
    }
}
