//! PostgreSQL's faults: what each is taken for, and what is left after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate::scheduler::database::{Begin, Database, Lease, LeaseAttempt, Planned};
use tidegate::update::sql::{SqlError, Value};
use tidegate::update::{ErrorClass, Opening};

use crate::support::place::{Place, begin, holder, row};
use crate::support::postgres::{Server, Settings};
use crate::support::until;

const KILL_BATCHES: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
                            where datname = current_database() and application_name like 'tidegate/%/batch.%'";
const KILL_LEASES: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
                           where datname = current_database() and application_name like 'tidegate/%/lease.%'";
const LEASE_LOCKS: &str = "select 1 from pg_locks where locktype = 'advisory' \
                           and database = (select oid from pg_database where datname = current_database())";
const RUNNING: &str = "select count(*) from pg_stat_activity where datname = current_database() \
                       and state = 'active' and query like 'select pg_sleep%'";

async fn lease(database: &dyn Database, number: u32) -> Box<dyn Lease> {
    match database.try_lease(&holder(number)).await.unwrap() {
        LeaseAttempt::Held(lease) => lease,
        LeaseAttempt::Taken(by) => panic!("taken by {by:?}"),
    }
}

/// A place with the updates `a` and `b` queued and a table `items` with two rows.
async fn ready() -> (Place, Arc<dyn Database>) {
    let place = Place::postgres().await;
    let database = place.prepared().await;
    for name in ["a", "b"] {
        database.enqueue(&row(name)).await.unwrap();
    }
    place.run("create table items (id int primary key, n int not null); insert into items values (1, 0), (2, 0)").await;
    (place, database)
}

fn class(error: &SqlError) -> (ErrorClass, &str) {
    (error.class, error.code.as_deref().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_transient() {
    let (place, database) = ready().await;
    let other = place.prepared().await;
    let (mut one, mut two) = (begin(&*database, "a", "{}").await, begin(&*other, "b", "{}").await);
    one.execute("update items set n = 1 where id = 1", &[]).await.unwrap();
    two.execute("update items set n = 2 where id = 2", &[]).await.unwrap();
    let crossed = tokio::join!(
        one.execute("update items set n = 1 where id = 2", &[]),
        two.execute("update items set n = 2 where id = 1", &[])
    );
    let (failed, left) = match crossed {
        (Err(error), Ok(_)) => (error, two),
        (Ok(_), Err(error)) => (error, one),
        other => panic!("{other:?}"),
    };
    assert_eq!(class(&failed), (ErrorClass::Transient, "40P01"));
    assert!(failed.detail.is_some() && !failed.message.contains("detail:"), "{failed}");
    left.commit(None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serialization_failure_is_transient() {
    let (place, _) = ready().await;
    place
        .run(
            "do $$ begin execute 'alter database ' || current_database() || \
               ' set default_transaction_isolation = ''repeatable read'''; end $$",
        )
        .await;
    let (database, other) = (place.prepared().await, place.prepared().await);
    let mut batch = begin(&*database, "a", "{}").await;
    batch.query("select n from items", &[]).await.unwrap();
    let mut quicker = begin(&*other, "b", "{}").await;
    quicker.execute("update items set n = n + 1", &[]).await.unwrap();
    quicker.commit(None).await.unwrap();
    let error = batch.execute("update items set n = n + 1", &[]).await.unwrap_err();
    assert_eq!(class(&error), (ErrorClass::Transient, "40001"));
    // What comes after the first error is told as that error.
    let after = batch.execute("select 1", &[]).await.unwrap_err();
    assert_eq!(after, error);
    assert_eq!(batch.commit(Some("{\"n\":1}")).await.unwrap_err(), error);
    assert_eq!(database.progress("a").await.unwrap().as_deref(), Some("{}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_timeout_is_transient_and_spares_one_shots() {
    let (place, _) = ready().await;
    let impatient = place.open_with(|options| options.postgres.statement_timeout = Duration::from_millis(60));
    for _ in 0..2 {
        let mut batch = begin(&*impatient, "a", "{}").await;
        let error = batch.query("select pg_sleep(10)", &[]).await.unwrap_err();
        assert_eq!(class(&error), (ErrorClass::Transient, "57014"));
        drop(batch);
        let mut session = impatient.session().await.unwrap();
        session.query("select pg_sleep(0.2)", &[]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_connection_is_told_and_replaced() {
    let (place, database) = ready().await;
    let mut batch = begin(&*database, "a", "{}").await;
    batch.execute("update items set n = 5", &[]).await.unwrap();
    place.run(KILL_BATCHES).await;
    let error = batch.execute("update items set n = 6", &[]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Connection, "{error}");
    drop(batch);
    let batch = begin(&*database, "a", "{}").await;
    place.run(KILL_BATCHES).await;
    assert_eq!(batch.commit(Some("{\"n\":1}")).await.unwrap_err().class, ErrorClass::Connection);
    assert_eq!(database.progress("a").await.unwrap().as_deref(), Some("{}"));
    // A connection that dies between two batches is nobody's business.
    begin(&*database, "a", "{}").await.rollback().await.unwrap();
    place.run(KILL_BATCHES).await;
    begin(&*database, "a", "{}").await.commit(None).await.unwrap();
    assert_eq!(place.rows("select n from items").await, ["0", "0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_left_idle_is_ended_by_the_server() {
    let (place, _) = ready().await;
    let open = |limit| place.open_with(|options| options.postgres.idle_in_transaction_timeout = limit);
    let (patient, sleepy) = (open(Duration::from_secs(3_600)), open(Duration::from_millis(50)));
    let idle_for_longer = begin(&*patient, "b", "{}").await;
    let batch = begin(&*sleepy, "a", "{}").await;
    until("the server has ended the session", || async {
        place.rows("select 1 from pg_stat_activity where datname = current_database() and application_name like '%/batch.%'")
            .await
            .len()
            == 1
    })
    .await;
    idle_for_longer.commit(None).await.unwrap();
    let error = batch.commit(Some("{\"n\":1}")).await.unwrap_err();
    assert_eq!(class(&error), (ErrorClass::Connection, "25P03"), "{error}");
    begin(&*sleepy, "a", "{}").await.commit(None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_outlasts_its_connection() {
    let (place, first) = ready().await;
    let second = place.prepared().await;
    let mut held = lease(&*first, 1).await;
    let epoch = place.rows("select epoch from tidegate_lease").await;
    for _ in 0..3 {
        let before = place.rows("select session from tidegate_lease").await;
        place.run(KILL_LEASES).await;
        until("another session has it", async || place.rows("select session from tidegate_lease").await != before)
            .await;
    }
    assert!(matches!(second.try_lease(&holder(2)).await.unwrap(), LeaseAttempt::Taken(Some(by)) if by == holder(1)));
    assert!(tokio::time::timeout(Duration::ZERO, held.lost()).await.is_err(), "lost");
    assert_eq!(place.rows("select epoch from tidegate_lease").await, epoch);
    begin(&*first, "a", "{}").await.commit(None).await.unwrap();
    held.release().await;
    lease(&*second, 2).await.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_nobody_looks_after_is_taken_over() {
    let (place, first) = ready().await;
    let second = place.prepared().await;
    let held = lease(&*first, 1).await;
    let mut batch = begin(&*first, "a", "{}").await;
    batch.execute("update items set n = 7", &[]).await.unwrap();
    let left_running = tokio::spawn(async move { batch.query("select pg_sleep(60)", &[]).await });
    until("the statement runs", || async { place.rows(RUNNING).await == ["1"] }).await;
    assert!(matches!(second.try_lease(&holder(2)).await.unwrap(), LeaseAttempt::Taken(Some(by)) if by == holder(1)));

    drop(held);
    until("the session is gone", async || place.rows(LEASE_LOCKS).await.is_empty()).await;
    let taken_over = lease(&*second, 2).await;
    assert_eq!(place.rows(RUNNING).await, ["0"], "the predecessor's statement still runs");
    let error = left_running.await.unwrap().unwrap_err();
    assert_eq!(class(&error), (ErrorClass::Connection, "57P01"));
    assert_eq!(place.rows("select n from items").await, ["0", "0"]);
    let refused = first.begin("a", "{}").await.err().expect("no batch");
    assert_eq!(refused.class, ErrorClass::Overtaken, "{refused}");
    taken_over.release().await;
}

/// What a host of before locks, and the name that its session has.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_knows_the_lock_alone_and_this_one_exclude_each_other() {
    let (place, database) = ready().await;
    let held = lease(&*database, 1).await;
    let key = format!("select (classid::bigint << 32) | objid::bigint {}", LEASE_LOCKS.trim_start_matches("select 1"));
    let key = place.rows(&key).await.remove(0);
    let older = crate::support::postgres::connect(&place.url).await;
    let take =
        format!("set application_name = 'tidegate/older.example/7/lease'; select pg_try_advisory_lock({key})::text");
    let took = async || {
        let answer = older.simple_query(&take).await.unwrap();
        answer
            .iter()
            .any(|row| matches!(row, tokio_postgres::SimpleQueryMessage::Row(row) if row.get(0) == Some("true")))
    };
    assert!(!took().await, "it was to be refused");
    held.release().await;
    assert!(took().await, "it was to be had");
    let older_holder = tidegate::scheduler::database::Holder { host: "older.example".to_owned(), pid: 7 };
    let LeaseAttempt::Taken(by) = database.try_lease(&holder(1)).await.unwrap() else {
        panic!("the lease was to be had")
    };
    assert_eq!(by, Some(older_holder.clone()));
    assert_eq!(database.lease_holder().await.unwrap(), Some(older_holder));
    drop(older);
    until("the older host has gone", async || place.rows(LEASE_LOCKS).await.is_empty()).await;
    lease(&*database, 1).await.release().await;
}

/// Whoever takes over may not be allowed to end what the predecessor has left: its session keeps the lock that hosts of
/// before know, and the row alone is the lease, until the lock is to be had.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_taken_over_by_a_role_that_may_end_nothing() {
    let (place, first) = ready().await;
    let role = format!("modest_{}", place.url.rsplit('/').next().unwrap());
    place
        .run(&format!(
            "create role {role} login; grant select, insert, update, delete on background_updates, tidegate_failures, \
             tidegate_state, tidegate_history, tidegate_skipped, tidegate_lease to {role}; grant select on tidegate_version to {role}"
        ))
        .await;
    let url = place.url.replace("postgres@", &format!("{role}@"));
    let second = tidegate_database::open(&url, tidegate_database::Options::new(holder(2))).unwrap();
    let held = lease(&*first, 1).await;
    assert!(matches!(second.try_lease(&holder(2)).await.unwrap(), LeaseAttempt::Taken(Some(by)) if by == holder(1)));
    // As if it had been stopped: another epoch is what a renewal would undo.
    place.run("update tidegate_lease set epoch = epoch + 1, expires = clock_timestamp() - interval '1 second'").await;
    let taken_over = lease(&*second, 2).await;
    assert_eq!(second.lease_holder().await.unwrap(), Some(holder(2)));
    assert_eq!(first.begin("a", "{}").await.err().expect("no batch").class, ErrorClass::Overtaken);
    begin(&*second, "a", "{}").await.commit(None).await.unwrap();
    // The first one notices, and lets go of the lock.
    let locked = "select 1 from tidegate_lease l join pg_locks k on k.pid = l.session and k.locktype = 'advisory'";
    until("the lock is taken too", async || !place.rows(locked).await.is_empty()).await;
    held.release().await;
    assert!(matches!(first.try_lease(&holder(1)).await.unwrap(), LeaseAttempt::Taken(Some(by)) if by == holder(2)));
    taken_over.release().await;
    second.close().await;
    place.run(&format!("drop owned by {role}; drop role {role}")).await;
}

/// Nobody can take the lease from a batch whose transaction is open; but it can be renewed.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_keeps_its_lease_until_it_has_ended() {
    let (place, database) = ready().await;
    let held = lease(&*database, 1).await;
    let other = crate::support::postgres::connect(&place.url).await;
    let take = "set lock_timeout = 100; update tidegate_lease set epoch = epoch + 1";
    for opening in [Opening::EachStatement, Opening::Snapshot] {
        let Begin::Ready(batch) = database.begin_as(&Planned { opening, ..Planned::of("a", "{}") }).await.unwrap()
        else {
            panic!("moved on")
        };
        let refused = other.batch_execute(take).await.unwrap_err();
        assert_eq!(refused.code(), Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE), "{refused}");
        let before = place.rows("select expires from tidegate_lease").await;
        until("it is renewed", async || place.rows("select expires from tidegate_lease").await != before).await;
        batch.rollback().await.unwrap();
    }
    other.batch_execute(take).await.unwrap();
    for opening in [Opening::EachStatement, Opening::Snapshot] {
        let refused = database.begin_as(&Planned { opening, ..Planned::of("a", "{}") }).await.err().expect("no batch");
        assert_eq!(refused.class, ErrorClass::Overtaken, "{refused}");
    }
    held.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_follows_another_gives_no_lease() {
    let server = Server::start(&Settings::default());
    let place = Place::on(&server).await;
    place.prepared().await.enqueue(&row("a")).await.unwrap();
    let replica = server.replica();
    let followed = place.by_way_of(replica.url_of(&place.url));
    until("the queue has arrived", async || {
        !followed.rows("select 1 from pg_class where relname = 'tidegate_version'").await.is_empty()
    })
    .await;
    until("the row has arrived", async || !followed.rows("select 1 from background_updates").await.is_empty()).await;
    let error = followed.open().try_lease(&holder(1)).await.err().expect("no lease");
    assert!(error.class == ErrorClass::Connection && error.message.contains("the server is a standby"), "{error}");
    let folder = crate::crash::touching(&followed, "", "touched = touched + 1");
    let mut host = folder.start(&["run"]);
    host.says("unavailable: the server is a standby", crate::crash::PATIENCE).await;
    assert!(!host.said().contains("working on"), "{}", host.said());
    host.signal("TERM");
    assert_eq!(host.end(crate::crash::PATIENCE).await, 0, "{}", host.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_item_is_lost_or_done_twice_while_connections_die() {
    const BATCHES: i64 = 60;
    const DONE: &str = "select count(*) from done";
    let (place, _) = ready().await;
    place.run("update background_updates set progress_json = '0'; create table done (n int not null)").await;
    let place = Arc::new(place);
    let working = Arc::new(AtomicBool::new(true));
    let hosts: Vec<_> = (0..2).map(|_| tokio::spawn(work(place.open(), BATCHES))).collect();
    let killer = tokio::spawn({
        let (place, working) = (Arc::clone(&place), Arc::clone(&working));
        async move {
            let mut killed = 0;
            while working.load(Ordering::SeqCst) {
                killed += place.rows(KILL_BATCHES).await.len();
                let done = place.rows(DONE).await;
                until("another batch is done", async || {
                    !working.load(Ordering::SeqCst) || place.rows(DONE).await != done
                })
                .await;
            }
            killed
        }
    });
    for host in hosts {
        host.await.unwrap();
    }
    working.store(false, Ordering::SeqCst);
    assert!(killer.await.unwrap() > 0, "nothing was killed");
    let expected: Vec<String> = (1..=BATCHES).map(|n| n.to_string()).collect();
    assert_eq!(place.rows("select n from done order by n").await, expected);
}

/// Does batches until all are done by whomever, whatever happens to the connections.
async fn work(database: Arc<dyn Database>, batches: i64) {
    loop {
        let done: i64 = match database.progress("a").await {
            Ok(progress) => progress.unwrap().parse().unwrap(),
            Err(error) => panic!("{error}"),
        };
        if done == batches {
            return;
        }
        match one_batch(&*database, done).await {
            Err(error) if error.class == ErrorClass::Permanent => panic!("{error}"),
            _ => {}
        }
    }
}

async fn one_batch(database: &dyn Database, done: i64) -> Result<(), SqlError> {
    if let Begin::Ready(mut batch) = database.begin("a", &done.to_string()).await? {
        batch.execute("insert into done values ($1)", &[Value::Integer(done + 1)]).await?;
        batch.commit(Some(&(done + 1).to_string())).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_is_found_again() {
    let server = Server::start(&Settings { fsync: true, ..Settings::default() });
    let place = Place::on(&server).await;
    let database = place.prepared().await;
    database.enqueue(&row("a")).await.unwrap();
    let mut held = lease(&*database, 1).await;
    begin(&*database, "a", "{}").await.commit(Some("{\"n\":1}")).await.unwrap();
    let open = begin(&*database, "a", "{\"n\":1}").await;
    server.kill();
    tokio::time::timeout(Duration::from_secs(10), held.lost()).await.expect("noticed");
    assert_eq!(open.commit(None).await.unwrap_err().class, ErrorClass::Connection);
    assert_eq!(database.queue().await.unwrap_err().class, ErrorClass::Connection);
    assert_eq!(database.begin("a", "{}").await.err().unwrap().class, ErrorClass::Connection);
    server.start_again();
    assert_eq!(database.queue().await.unwrap().rows[0].progress, "{\"n\":1}");
    begin(&*database, "a", "{\"n\":1}").await.commit(None).await.unwrap();
    lease(&*database, 1).await.release().await;
    // In good order it ends all the same, and the handle's connections with it.
    server.stop();
    server.start_again();
    assert!(database.queue().await.unwrap().rows.is_empty());
}
