//! One host runs, another stands by, and takes over from one that is killed or frozen.

use std::time::{Duration, Instant};

use tidegate::update::sql::System;

use super::{
    ENDLESS, PATIENCE, WITHOUT_SLEEP, drag, dragging, each_touched_once, moved_on, progress, queue_touch,
    touch_dragged, touching,
};
use crate::support::binary::{Folder, Process};
use crate::support::on_both;
use crate::support::pgbouncer::Pooler;
use crate::support::place::Place;
use crate::support::postgres::server;
use crate::support::proxy::Proxy;

/// Within this time of the first host's end the second one works.
const TAKEOVER: Duration = Duration::from_secs(10);

const WORKING: &str = "working on this database";

/// Batches small and far between, so that there is time to do something to a host.
const GENTLE: &str = "sleep_duration_ms = 100\nmax_batch_size = 20";

/// A host that works, and one that stands by for it.
async fn runner_and_standby(folder: &Folder) -> (Process, Process) {
    let mut first = folder.start(&["run"]);
    first.says(WORKING, PATIENCE).await;
    let mut second = folder.start(&["run", "--until-done"]);
    second.says(&format!("standing by: process {} on ", first.id()), PATIENCE).await;
    assert!(!second.said().contains(WORKING), "{}", second.said());
    (first, second)
}

/// Waits for the takeover, and for the end of the work.
async fn takes_over(second: &mut Process, since: Instant) {
    second.says(WORKING, PATIENCE).await;
    println!("took over in {:?}", since.elapsed());
    assert!(since.elapsed() < TAKEOVER, "took over after {:?}: {}", since.elapsed(), second.said());
    assert_eq!(second.end(PATIENCE).await, 0, "{}", second.said());
}

on_both! {
    async fn a_standby_takes_over_from_a_killed_host(place: Place) {
        queue_touch(place, 1_000).await;
        let folder = touching(place, GENTLE, "touched = touched + 1");
        let (mut first, mut second) = runner_and_standby(&folder).await;
        moved_on(place, Some("{}")).await;
        first.kill();
        takes_over(&mut second, Instant::now()).await;
        assert!(second.said().contains("touch: finished"), "{}", second.said());
        each_touched_once(place, 1_000).await.unwrap();
    }

    async fn a_standby_takes_over_from_a_host_killed_amid_a_long_batch(place: Place) {
        queue_touch(place, 1_000).await;
        let folder = touching(place, WITHOUT_SLEEP, touch_dragged(place).await);
        drag(place, ENDLESS).await;
        let (mut first, mut second) = runner_and_standby(&folder).await;
        dragging(place).await;
        first.kill();
        let since = Instant::now();
        drag(place, 0).await;
        takes_over(&mut second, since).await;
        each_touched_once(place, 1_000).await.unwrap();
    }

    async fn a_host_that_was_stopped_at_rest_is_overtaken(place: Place) {
        let folder = touching(place, RESTING, "touched = touched + 1");
        stopped_at_rest(place, &folder).await;
    }
}

/// The server's processes that hold a lease (`lease`), or serve the batches of the host that holds it (`batch`).
async fn processes(place: &Place, role: &str) -> Vec<String> {
    place
        .rows(&format!(
            "select b.pid from pg_stat_activity b where b.datname = current_database() \
             and b.application_name like 'tidegate/%/{role}%' and exists (\
               select from pg_locks l join pg_stat_activity a using (pid) \
               where l.locktype = 'advisory' and l.granted and a.datname = current_database() \
               and regexp_replace(a.application_name, '/[^/]*$', '') = regexp_replace(b.application_name, '/[^/]*$', ''))"
        ))
        .await
}

/// Whether a process of the server has ended.
async fn is_gone(place: &Place, process: &str) -> bool {
    place.rows(&format!("select 1 from pg_stat_activity where pid = {process}")).await.is_empty()
}

/// The processes of a host that was killed may live on for a while, and the statement that they run must not.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_host_left_running_on_the_server_has_ended_before_the_standby_works() {
    let place = &Place::postgres().await;
    queue_touch(place, 500).await;
    let folder = touching(place, WITHOUT_SLEEP, touch_dragged(place).await);
    drag(place, ENDLESS).await;
    let (mut first, mut second) = runner_and_standby(&folder).await;
    dragging(place).await;
    let left = processes(place, "batch").await;
    assert_eq!(left.len(), 1, "{left:?}");
    first.kill();
    let since = Instant::now();
    // The batches of the second last as well: were the statement of the first waited for, it would be in vain.
    second.says(WORKING, PATIENCE).await;
    assert!(since.elapsed() < TAKEOVER, "took over after {:?}: {}", since.elapsed(), second.said());
    assert!(is_gone(place, &left[0]).await, "the statement of the first host runs while the second works");
    drag(place, 0).await;
    assert_eq!(second.end(PATIENCE).await, 0, "{}", second.said());
    each_touched_once(place, 500).await.unwrap();
}

/// A machine that was suspended, say: its connections stay open, and so the server goes on with its statement.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_stopped_amid_a_batch_does_nothing_more() {
    for pooled in [false, true] {
        let place = &Place::postgres().await;
        let pooler = pooled.then(|| Pooler::start(&place.url, "transaction", ""));
        let way = pooler.as_ref().map_or_else(|| place.url.clone(), |pooler| pooler.url(&place.url));
        queue_touch(place, 500).await;
        let settings = "sleep_enabled = false\nmax_batch_size = 100";
        let folder = touching(&place.by_way_of(way), settings, touch_dragged(place).await);
        drag(place, ENDLESS).await;
        let (mut first, mut second) = runner_and_standby(&folder).await;
        dragging(place).await;
        first.signal("STOP");
        let since = Instant::now();
        let left = place.rows(BATCHES).await;
        assert_eq!(left.len(), 1, "{left:?}");
        second.says(WORKING, PATIENCE).await;
        assert!(since.elapsed() < TAKEOVER, "took over after {:?}: {}", since.elapsed(), second.said());
        assert!(is_gone(place, &left[0]).await, "the statement of the first host runs while the second works");
        dragging(place).await;
        first.signal("CONT");
        gives_way(&mut first, &second).await;
        drag(place, 0).await;
        assert_eq!(second.end(PATIENCE).await, 0, "{}", second.said());
        first.repeats(WORKING, 2, PATIENCE).await;
        each_touched_once(place, 500).await.unwrap();
    }
}

/// The server's processes that are in the middle of a batch.
const BATCHES: &str = "select pid from pg_stat_activity where datname = current_database() and xact_start is not null \
                       and application_name like 'tidegate/%/batch.%'";

/// Who was overtaken says so, and stands by.
async fn gives_way(first: &mut Process, second: &Process) {
    first.says("lease lost", PATIENCE).await;
    first.says(&format!("standing by: process {} on ", second.id()), PATIENCE).await;
}

/// Batches far between, so that a host rests nearly always.
const RESTING: &str = "sleep_duration_ms = 700\nmax_batch_size = 50";

/// Batches small and one after the other, so that a host is nearly always in one.
const BUSY: &str = "sleep_duration_ms = 1\nmax_batch_size = 1";

/// Stops a host while it rests.
async fn stop_at_rest(place: &Place, host: &Process) {
    for _ in 0..100 {
        moved_on(place, progress(place).await.as_deref()).await;
        host.signal("STOP");
        if !is_amid_a_batch(place).await {
            return;
        }
        host.signal("CONT");
    }
    panic!("it never rests: {}", host.said());
}

async fn is_amid_a_batch(place: &Place) -> bool {
    match place.system() {
        System::Sqlite => {
            let other = rusqlite::Connection::open(place.file()).unwrap();
            other.busy_timeout(Duration::ZERO).unwrap();
            other.execute_batch("begin immediate; rollback").is_err()
        }
        System::Postgres => !place.rows(BATCHES).await.is_empty(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_behind_a_pooler_that_was_stopped_is_overtaken() {
    for mode in ["session", "transaction"] {
        let place = &Place::postgres().await;
        let pooler = Pooler::start(&place.url, mode, "");
        let folder = touching(&place.by_way_of(pooler.url(&place.url)), RESTING, "touched = touched + 1");
        stopped_at_rest(place, &folder).await;
    }
}

/// Stopped between two batches for half a minute, a host is overtaken, and does nothing more.
async fn stopped_at_rest(place: &Place, folder: &Folder) {
    queue_touch(place, 3_000).await;
    let (mut first, mut second) = runner_and_standby(folder).await;
    stop_at_rest(place, &first).await;
    let since = Instant::now();
    second.says(WORKING, PATIENCE).await;
    assert!(since.elapsed() < TAKEOVER, "took over after {:?}: {}", since.elapsed(), second.said());
    while since.elapsed() < STOPPED {
        moved_on(place, progress(place).await.as_deref()).await;
    }
    first.signal("CONT");
    gives_way(&mut first, &second).await;
    assert_eq!(first.said().matches(WORKING).count(), 1, "{}", first.said());
    assert_eq!(second.end(PATIENCE).await, 0, "{}", second.said());
    first.repeats(WORKING, 2, PATIENCE).await;
    each_touched_once(place, 3_000).await.unwrap();
}

/// The database's write lock is in its hands: a standby can do nothing but say so.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_stopped_amid_a_batch_on_sqlite_is_named() {
    let place = &Place::sqlite();
    queue_touch(place, 300).await;
    let folder = touching(place, "sleep_enabled = false\nmax_batch_size = 100", touch_dragged(place).await);
    drag(place, 5_000_000).await;
    let (mut first, mut second) = runner_and_standby(&folder).await;
    dragging(place).await;
    first.signal("STOP");
    let named = format!("process {} on ", first.id());
    second.says("which works on this database, has given no sign of life for", PATIENCE).await;
    assert!(second.said().contains(&named) && !second.said().contains(WORKING), "{}", second.said());
    first.signal("CONT");
    moved_on(place, Some("{}")).await;
    assert!(!first.said().contains("lease lost") && !second.said().contains(WORKING), "{}", first.said());
    first.kill();
    let since = Instant::now();
    drag(place, 0).await;
    takes_over(&mut second, since).await;
    each_touched_once(place, 300).await.unwrap();
}

/// How long a host is stopped, or cut off.
const STOPPED: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_network_falls_silent_is_overtaken() {
    // Between two batches mostly, and in their middle.
    for settings in [RESTING, BUSY] {
        let place = &Place::postgres().await;
        falls_silent(place, server().port, settings).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_behind_a_pooler_whose_network_falls_silent_is_overtaken() {
    for (mode, settings) in [("session", RESTING), ("transaction", RESTING), ("transaction", BUSY)] {
        let place = &Place::postgres().await;
        let pooler = Pooler::start(&place.url, mode, "");
        falls_silent(place, pooler.port(), settings).await;
    }
}

/// A host works by way of a network that drops all packets after a while, to this port; and one stands by for it.
async fn falls_silent(place: &Place, port: u16, settings: &str) {
    queue_touch(place, 3_000).await;
    let proxy = Proxy::start(port).await;
    let behind = touching(&place.by_way_of(proxy.url(&place.url)), settings, "touched = touched + 1");
    let mut first = behind.start(&["run"]);
    first.says(WORKING, PATIENCE).await;
    let direct = touching(place, settings, "touched = touched + 1");
    let mut second = direct.start(&["run", "--until-done"]);
    second.says(&format!("standing by: process {} on ", first.id()), PATIENCE).await;
    moved_on(place, Some("{}")).await;
    proxy.silence(true);
    let since = Instant::now();
    second.says(WORKING, PATIENCE).await;
    assert!(since.elapsed() < TAKEOVER, "took over after {:?}: {}", since.elapsed(), second.said());
    first.says("lease lost: it could not be renewed", PATIENCE).await;
    let cut_off = since.elapsed();
    first.says("unavailable", PATIENCE).await;
    println!("lease lost after {cut_off:?}, unavailable after {:?}", since.elapsed());
    let works = second.ended().is_none();
    proxy.silence(false);
    if works {
        first.says(&format!("standing by: process {} on ", second.id()), PATIENCE).await;
    }
    assert_eq!(second.end(PATIENCE).await, 0, "{}", second.said());
    first.repeats(WORKING, 2, PATIENCE).await;
    each_touched_once(place, 3_000).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_cut_off_and_alone_goes_on_once_it_is_back() {
    let place = &Place::postgres().await;
    queue_touch(place, 3_000).await;
    let proxy = Proxy::start(server().port).await;
    let folder = touching(&place.by_way_of(proxy.url(&place.url)), RESTING, "touched = touched + 1");
    let mut host = folder.start(&["run"]);
    moved_on(place, Some("{}")).await;
    proxy.silence(true);
    host.says("lease lost: it could not be renewed", PATIENCE).await;
    proxy.silence(false);
    host.repeats(WORKING, 2, PATIENCE).await;
    assert!(!host.said().contains("standing by"), "{}", host.said());
    moved_on(place, progress(place).await.as_deref()).await;
}

/// The grace of a stop is over once, whatever does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_host_that_is_cut_off() {
    let place = &Place::postgres().await;
    queue_touch(place, 3_000).await;
    // As it works; once it knows; and while it looks for a way back.
    for waits_for in [None, Some("lease lost"), Some("unavailable")] {
        let proxy = Proxy::start(server().port).await;
        let settings = "sleep_duration_ms = 100\nmax_batch_size = 1\nshutdown_grace_ms = 2000";
        let folder = touching(&place.by_way_of(proxy.url(&place.url)), settings, "touched = touched + 1");
        let mut host = folder.start(&["run"]);
        moved_on(place, progress(place).await.as_deref()).await;
        proxy.silence(true);
        if let Some(words) = waits_for {
            host.says(words, PATIENCE).await;
        }
        host.signal("TERM");
        let since = Instant::now();
        assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
        assert!(since.elapsed() < Duration::from_secs(15), "ended after {:?}: {}", since.elapsed(), host.said());
        println!("ended {:?} after the signal: {waits_for:?}", since.elapsed());
    }
}
