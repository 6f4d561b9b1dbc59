//! What is measured of a PostgreSQL server.

use std::sync::Arc;
use std::time::Duration;

use tidegate::update::sql::TableName;

use super::{LIMIT, age, error, fails, reads, sampled, sampled_at, value};
use crate::support::place::Place;
use crate::support::postgres::{self, Server, Settings};
use crate::support::run::make_items;
use crate::support::until;

async fn connect(place: &Place) -> tokio_postgres::Client {
    postgres::connect(&place.url).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_replay_is_paused_lags_and_catches_up() {
    let primary = Server::start(&Settings::default());
    let place = Place::on(&primary).await;
    make_items(&place, 10).await;
    let sampling = sampled(&place, |_| ());
    fails(&sampling, "replication-lag", "no standby is connected").await;
    let replica = primary.replica();
    let standby = replica.connect_to(&place.url).await;
    reads(&sampling, "replication-lag-bytes", |bytes| bytes == 0.0).await;
    reads(&sampling, "replication-lag", |ms| ms == 0.0).await;
    standby.batch_execute("select pg_wal_replay_pause()").await.unwrap();
    place.run("insert into items (id) select generate_series(1001, 3000)").await;
    reads(&sampling, "replication-lag-bytes", |bytes| bytes > 50_000.0).await;
    // Whatever the standby says or does not say meanwhile.
    for lag in [300.0, 1_000.0, 1_500.0] {
        reads(&sampling, "replication-lag", |ms| ms > lag).await;
    }
    standby.batch_execute("select pg_wal_replay_resume()").await.unwrap();
    reads(&sampling, "replication-lag-bytes", |bytes| bytes == 0.0).await;
    reads(&sampling, "replication-lag", |ms| ms == 0.0).await;
    drop(standby);
    drop(replica);
    fails(&sampling, "replication-lag", "no standby is connected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_itself_says_that_it_is_one() {
    let primary = Server::start(&Settings::default());
    let place = Place::on(&primary).await;
    let replica = primary.replica();
    let sampling = sampled_at(&replica.url_of(&place.url), |_| ());
    reads(&sampling, "active-sessions", |sessions| sessions == 0.0).await;
    for name in ["wal-rate", "replication-lag", "replication-lag-bytes", "checkpoint-pressure"] {
        fails(&sampling, name, "the server is a standby itself").await;
        assert_eq!(value(&sampling, name), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_wait_for_a_lock_are_counted_and_tidegates_own_are_not() {
    let place = Place::postgres().await;
    make_items(&place, 10).await;
    let sampling = sampled(&place, |_| ());
    reads(&sampling, "waiting-sessions", |sessions| sessions == 0.0).await;
    let lock = place.lock_items().await;
    let (one, ours) = (connect(&place).await, connect(&place).await);
    ours.batch_execute("set application_name = 'tidegate/machine.example/7/batch'").await.unwrap();
    let waiting = [one, ours].map(|session| {
        tokio::spawn(async move { session.batch_execute("update items set touched = 7 where id = 1").await })
    });
    let locks = "select count(*) from pg_locks where not granted";
    until("both wait", async || place.rows(locks).await == ["2"]).await;
    reads(&sampling, "waiting-sessions", |sessions| sessions == 1.0).await;
    reads(&sampling, "active-sessions", |sessions| sessions == 1.0).await;
    reads(&sampling, "oldest-transaction", |ms| ms > 100.0).await;
    drop(lock);
    for session in waiting {
        session.await.unwrap().unwrap();
    }
    for name in ["waiting-sessions", "active-sessions", "oldest-transaction"] {
        reads(&sampling, name, |count| count == 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_shows_as_bytes_and_presses_towards_a_checkpoint() {
    let server = Server::start(&Settings {
        parameters: vec![("max_wal_size", "64MB".to_owned()), ("min_wal_size", "32MB".to_owned())],
        ..Settings::default()
    });
    let place = Place::on(&server).await;
    make_items(&place, 10).await;
    place.run("checkpoint").await;
    let sampling = sampled(&place, |_| ());
    reads(&sampling, "checkpoint-pressure", |share| share < 0.1).await;
    let writer = tokio::spawn(async move {
        for from in 1..8 {
            let rows = format!("insert into items (id) select generate_series({0}, {0} + 19999)", from * 20_000);
            place.run(&rows).await;
        }
        place
    });
    reads(&sampling, "wal-rate", |rate| rate > 100_000.0).await;
    let _place = writer.await.unwrap();
    reads(&sampling, "checkpoint-pressure", |share| (0.1..1.0).contains(&share)).await;
    reads(&sampling, "wal-rate", |rate| rate < 100_000.0).await;
}

/// An autovacuum worker that has been slowed down, at a table of dead rows.
#[tokio::test(flavor = "multi_thread")]
async fn autovacuum_is_seen_on_the_table_in_hand_and_on_no_other() {
    let server = Server::start(&Settings {
        parameters: vec![
            ("autovacuum_naptime", "1s".to_owned()),
            ("autovacuum_vacuum_cost_delay", "100ms".to_owned()),
            ("autovacuum_vacuum_cost_limit", "1".to_owned()),
        ],
        ..Settings::default()
    });
    let place = Place::on(&server).await;
    make_items(&place, 20_000).await;
    place.run("create table others (id int)").await;
    let about = |table: Option<&'static str>| {
        sampled(&place, |options| options.table_in_hand = Arc::new(move || table.map(TableName::from)))
    };
    let [items, others, none, gone] = [Some("items"), Some("others"), None, Some("gone")].map(about);
    reads(&items, "autovacuum", |at_it| at_it == 0.0).await;
    place.run("delete from items").await;
    reads(&items, "autovacuum", |at_it| at_it == 1.0).await;
    assert_eq!(value(&others, "autovacuum"), Some(0.0));
    fails(&none, "autovacuum", "no update is in hand").await;
    fails(&gone, "autovacuum", "there is no table gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_feels_a_lock_on_its_row_and_holds_nothing_itself() {
    let place = Place::postgres().await;
    let sampling = sampled(&place, |options| options.probe_writes = true);
    let limit = LIMIT.as_secs_f64() * 1e3;
    reads(&sampling, "probe-latency", |ms| ms < limit / 2.0).await;
    let holder = connect(&place).await;
    holder.batch_execute("begin; select 1 from tidegate_probe for update").await.unwrap();
    reads(&sampling, "probe-latency", |ms| ms >= limit * 0.9).await;
    assert_eq!(error(&sampling, "probe-latency").filter(|error| !error.starts_with("no answer")), None);
    holder.batch_execute("rollback").await.unwrap();
    reads(&sampling, "probe-latency", |ms| ms < limit / 2.0).await;
    // None of the samplers' sessions is ever in a transaction that lasts.
    let lasting = "select count(*) from pg_stat_activity where datname = current_database() \
                   and application_name like 'tidegate/%' and xact_start < clock_timestamp() - interval '1 s'";
    assert_eq!(place.rows(lasting).await, ["0"]);
    let names = place.rows("select distinct application_name from pg_stat_activity where datname = current_database()");
    let names = names.await;
    for role in ["signals", "probe"] {
        let name = format!("tidegate/machine.example/1/{role}");
        assert!(names.contains(&name), "{names:?}");
    }
}

/// The middle one of a number of readings, each taken anew.
async fn median(sampling: &tidegate::signal::Sampling) -> f64 {
    let mut latencies = Vec::new();
    while latencies.len() < 11 {
        tokio::time::sleep(2 * super::OFTEN).await;
        latencies.extend(value(sampling, "probe-latency"));
    }
    latencies.sort_by(f64::total_cmp);
    latencies[5]
}

/// On a machine that does other things meanwhile a single comparison would say little: the median is to rise to the
/// triple while the clients are at it, at some time, and to fall below that again once they are gone.
#[tokio::test(flavor = "multi_thread")]
async fn the_probes_latency_rises_under_pgbench() {
    let server = Server::start(&Settings::default());
    let place = Place::on(&server).await;
    let sampling = sampled(&place, |_| ());
    server.pgbench(&place.url, &["-i", "-q"]).wait().unwrap();
    reads(&sampling, "probe-latency", |_| true).await;
    let quiet = median(&sampling).await;
    let mut load = server.pgbench(&place.url, &["-S", "-c", "64", "-j", "2", "-T", "60"]);
    reads(&sampling, "active-sessions", |sessions| sessions > 0.0).await;
    until("the latency has risen", async || median(&sampling).await > 3.0 * quiet).await;
    load.kill().unwrap();
    load.wait().unwrap();
    until("the latency has fallen", async || median(&sampling).await < 3.0 * quiet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_see_others_says_what_to_grant() {
    let server = Server::start(&Settings::default());
    let place = Place::on(&server).await;
    make_items(&place, 10).await;
    place.run("create role small login").await;
    let replica = primary_with_a_standby(&server).await;
    let _other = connect(&place).await;
    let sampling = sampled_at(&place.url.replace("postgres@", "small@"), |options| {
        options.table_in_hand = Arc::new(|| Some(TableName::from("items")));
    });
    let hidden = ["active-sessions", "waiting-sessions", "oldest-transaction", "replication-lag", "autovacuum"];
    for name in hidden {
        fails(&sampling, name, "grant it pg_monitor").await;
        assert_eq!(value(&sampling, name), None);
    }
    reads(&sampling, "checkpoint-pressure", |_| true).await;
    reads(&sampling, "probe-latency", |_| true).await;
    place.run("grant pg_monitor to small").await;
    for name in hidden {
        reads(&sampling, name, |_| true).await;
        until("it fails no more", async || error(&sampling, name).is_none()).await;
    }
    drop(replica);
}

async fn primary_with_a_standby(server: &Server) -> Server {
    let replica = server.replica();
    let standbys = Place::on(server).await;
    until("the standby streams", async || {
        standbys.rows("select state from pg_stat_replication").await == ["streaming"]
    })
    .await;
    replica
}

/// A session of the server's stands still, as on a disk that hangs: it is left alone, and another one takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_hangs_lets_its_signals_age_until_another_takes_its_place() {
    let place = Place::postgres().await;
    let sampling = sampled(&place, |_| ());
    reads(&sampling, "active-sessions", |_| true).await;
    reads(&sampling, "probe-latency", |_| true).await;
    let session = "select pid from pg_stat_activity where datname = current_database() \
                   and application_name like 'tidegate/%/signals'";
    let pid = place.rows(session).await.remove(0);
    let kill = |signal: &str| {
        let sent = std::process::Command::new("/bin/sh").args(["-c", &format!("kill -s {signal} {pid}")]).status();
        assert!(sent.unwrap().success());
    };
    kill("STOP");
    fails(&sampling, "active-sessions", "no answer within 300 ms").await;
    assert!(age(&sampling, "active-sessions").unwrap() >= LIMIT);
    reads(&sampling, "probe-latency", |_| true).await;
    assert_eq!(error(&sampling, "probe-latency"), None, "the probe does not wait for it");
    until("another session takes its place", async || error(&sampling, "active-sessions").is_none()).await;
    assert!(place.rows(session).await.iter().any(|other| *other != pid));
    kill("CONT");
}

/// An index is built concurrently while everything is sampled: no session of the samplers is in its way.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_built_concurrently_while_all_is_sampled() {
    let place = Place::postgres().await;
    make_items(&place, 5_000).await;
    let sampling = sampled(&place, |options| options.probe_writes = true);
    reads(&sampling, "probe-latency", |_| true).await;
    for number in 0..5 {
        let build = place.run(match number % 2 {
            0 => "create index concurrently items_touched on items (touched)",
            _ => "drop index concurrently items_touched",
        });
        assert!(tokio::time::timeout(Duration::from_secs(30), build).await.is_ok(), "the index is waited for in vain");
    }
}
