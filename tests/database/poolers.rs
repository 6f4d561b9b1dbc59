//! PostgreSQL through PgBouncer: in session mode all is as without it; in the others no host works, none takes a lease, and
//! none leaves anything behind in sessions that the application is given next.

use std::sync::Arc;

use tidegate::database::{Options, open};
use tidegate::scheduler::database::{Database, LeaseAttempt};
use tidegate::update::ErrorClass;
use tidegate::update::sql::SqlError;
use tokio::task::JoinSet;

use crate::crash::{PATIENCE, each_touched_once, moved_on, queue_touch, touching};
use crate::support::pgbouncer::Pooler;
use crate::support::place::{Place, begin, holder, row};
use crate::support::postgres::connect;
use crate::support::until;

const ROWS: u32 = 20_000;

/// Batches of which there are many.
const SETTINGS: &str = "sleep_duration_ms = 10\npoll_interval_ms = 50\n\
                        default_batch_size = 100\nmin_batch_size = 100\nmax_batch_size = 100";

/// What hosts lock among a database's advisory locks, of all sessions.
const LEASES: &str = "select count(*) from pg_locks where locktype = 'advisory' \
                      and database = (select oid from pg_database where datname = current_database())";

fn through(pooler: &Pooler, place: &Place) -> Arc<dyn Database> {
    open(&pooler.url(&place.url), Options::new(holder(1))).unwrap()
}

fn refused(error: &SqlError, mode: &str) {
    let words = format!("is a connection pooler in {mode} mode");
    assert!(error.class == ErrorClass::Connection && error.message.contains(&words), "{error}");
}

/// What a session of the server's is set to, as an application meets it that is given it next.
async fn settings(url: &str) -> Vec<String> {
    let select = "select string_agg(name || '=' || setting, ' ' order by name) from pg_settings \
                  where source = 'session' and name <> 'application_name' and name <> 'client_encoding'";
    let mut found = Vec::new();
    for _ in 0..4 {
        let rows = connect(url).await.simple_query(select).await.unwrap();
        found.extend(rows.iter().filter_map(|row| match row {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        }));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_gives_no_session_is_told_and_left_as_it_was() {
    // However it chooses among its sessions, and however few there are; and where options are dropped on the way.
    let choices = ["", "default_pool_size = 1", "server_round_robin = 1", "ignore_startup_parameters = options"];
    for (mode, lines) in ["transaction", "statement"].iter().flat_map(|mode| choices.map(|lines| (*mode, lines))) {
        let place = &Place::postgres().await;
        queue_touch(place, 10).await;
        let pooler = Pooler::start(&place.url, mode, lines);
        let url = pooler.url(&place.url);
        let before = settings(&url).await;
        let database = through(&pooler, place);
        refused(&database.prepare().await.unwrap_err(), mode);
        refused(&database.try_lease(&holder(1)).await.err().expect("no lease"), mode);
        refused(&database.queue().await.unwrap_err(), mode);
        refused(&database.begin("touch", "{}").await.err().expect("no batch"), mode);
        let folder = touching(&place.by_way_of(url.clone()), SETTINGS, "touched = touched + 1");
        for (arguments, expected) in [(&["check"][..], 2), (&["run", "--until-done"][..], 1)] {
            let (said, code) = folder.tidegate(arguments).await;
            assert!(
                code == expected && said.contains(&format!("is a connection pooler in {mode} mode")),
                "{code}: {said}"
            );
            assert!(
                said.contains("hint: name the PostgreSQL server itself in the `url`, or a pool in session mode"),
                "{said}"
            );
        }
        assert_eq!((place.rows(LEASES).await, settings(&url).await), (vec!["0".to_owned()], before), "{mode}, {lines}");
        each_touched_once(place, 10).await.unwrap_err();
    }
}

/// Others use the pooler's sessions meanwhile, so that none is free for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_pooler_is_found_out_too() {
    for lines in ["default_pool_size = 3", "default_pool_size = 3\nserver_round_robin = 1"] {
        let place = &Place::postgres().await;
        place.prepared().await.close().await;
        let pooler = Pooler::start(&place.url, "transaction", lines);
        let mut application = JoinSet::new();
        for number in 0..6 {
            let client = connect(&pooler.url(&place.url)).await;
            application.spawn(async move {
                loop {
                    // Each as often as no other.
                    client.simple_query(&format!("select pg_sleep(0.000{})", 5 + number % 5)).await.unwrap();
                }
            });
        }
        for _ in 0..20 {
            refused(&through(&pooler, place).prepare().await.unwrap_err(), "transaction");
        }
        assert_eq!(place.rows(LEASES).await, ["0"]);
        application.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_through_a_pooler_in_session_mode_take_turns() {
    let place = &Place::postgres().await;
    queue_touch(place, ROWS).await;
    let pooler = Pooler::start(&place.url, "session", "");
    let folder = touching(&place.by_way_of(pooler.url(&place.url)), SETTINGS, "touched = touched + 1");
    let mut first = folder.start(&["run", "--until-done"]);
    first.says("working on this database", PATIENCE).await;
    let mut second = folder.start(&["run", "--until-done"]);
    second.says("standing by: process", PATIENCE).await;
    moved_on(place, Some("{}")).await;
    assert_eq!(place.rows(LEASES).await, ["1"]);
    // The pooler gives the session to others only after it has let go of all.
    first.kill();
    second.says("working on this database", PATIENCE).await;
    assert_eq!(second.end(PATIENCE).await, 0, "{}", second.said());
    each_touched_once(place, ROWS).await.unwrap();
    until("no lease is left", async || place.rows(LEASES).await == ["0"]).await;
}

/// A stop in good order leaves no lease in a session that stays open.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_given_back_to_a_pooler() {
    // Without a reset between two clients it is only the host who can.
    let place = &Place::postgres().await;
    let pooler = Pooler::start(&place.url, "session", "server_reset_query =");
    let database = through(&pooler, place);
    database.prepare().await.unwrap();
    database.enqueue(&row("a")).await.unwrap();
    let LeaseAttempt::Held(lease) = database.try_lease(&holder(1)).await.unwrap() else { panic!("taken") };
    begin(&*database, "a", "{}").await.commit(None).await.unwrap();
    assert_eq!(place.rows(LEASES).await, ["1"]);
    lease.release().await;
    assert_eq!(place.rows(LEASES).await, ["0"]);
    database.close().await;
}

/// The lock stays in a session that was not reset: whoever is given that session next does not take it to be his own.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_somebody_left_behind_is_nobodys() {
    let place = &Place::postgres().await;
    let pooler = Pooler::start(&place.url, "session", "server_reset_query =\ndefault_pool_size = 5");
    let database = through(&pooler, place);
    database.prepare().await.unwrap();
    let LeaseAttempt::Held(lease) = database.try_lease(&holder(1)).await.unwrap() else { panic!("taken") };
    drop(lease);
    database.close().await;
    until("the session is free", async || {
        let idle = "select count(*) from pg_stat_activity where state = 'active' and datname = current_database()";
        place.rows(idle).await == ["1"]
    })
    .await;
    for _ in 0..5 {
        let next = through(&pooler, place);
        match next.try_lease(&holder(2)).await {
            Ok(LeaseAttempt::Taken(_)) => {}
            Ok(LeaseAttempt::Held(_)) => panic!("a lease that was taken twice"),
            Err(error) => assert!(error.message.contains("the lease's session holds the lease already"), "{error}"),
        }
        next.close().await;
    }
}

/// Were a pooler not found out, a lease would still be taken once, and given back, or not be had.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_was_not_found_out_gives_no_lease_twice() {
    for lines in ["default_pool_size = 1", "", "server_round_robin = 1"] {
        let place = &Place::postgres().await;
        place.prepared().await.enqueue(&row("a")).await.unwrap();
        let pooler = Pooler::start(&place.url, "transaction", lines);
        let trusting = |number| {
            let mut options = Options::new(holder(number));
            options.switches.trust_sessions = true;
            open(&pooler.url(&place.url), options).unwrap()
        };
        let (one, other) = (trusting(1), trusting(2));
        let mut leases = Vec::new();
        for database in [&one, &other, &one, &other] {
            match database.try_lease(&holder(1)).await {
                Ok(LeaseAttempt::Held(lease)) => leases.push(lease),
                // Whatever is met in the sessions of others: what was prepared is not there, or the lease is held there already.
                Ok(LeaseAttempt::Taken(_)) | Err(_) => {}
            }
            assert!(leases.len() < 2, "two leases at once: {lines}");
        }
        for lease in leases {
            assert_eq!(place.rows(LEASES).await, ["1"]);
            lease.release().await;
        }
        assert_eq!(place.rows(LEASES).await, ["0"], "{lines}");
        for database in [one, other] {
            database.close().await;
        }
    }
}
