//! One host runs, another stands by, and takes over from one that is killed or frozen.

use std::time::{Duration, Instant};

use super::{
    ENDLESS, PATIENCE, WITHOUT_SLEEP, drag, dragging, each_touched_once, moved_on, queue_touch, touch_dragged, touching,
};
use crate::support::binary::{Folder, Process};
use crate::support::on_both;
use crate::support::place::Place;

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

/// A machine that was suspended, say: the server gives its lease to another, and it knows nothing of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_frozen_and_lost_its_lease_does_nothing_more() {
    let place = &Place::postgres().await;
    queue_touch(place, 500).await;
    let folder = touching(place, "sleep_enabled = false\nmax_batch_size = 100", touch_dragged(place).await);
    drag(place, ENDLESS).await;
    let (mut first, mut second) = runner_and_standby(&folder).await;
    dragging(place).await;
    first.signal("STOP");
    let (lease, left) = (processes(place, "lease").await, processes(place, "batch").await);
    assert_eq!((lease.len(), left.len()), (1, 1), "{lease:?}, {left:?}");
    // Its connections stay open, and so the server goes on with its statement.
    place.run(&format!("select pg_terminate_backend({})", lease[0])).await;
    let since = Instant::now();
    second.says(WORKING, PATIENCE).await;
    assert!(since.elapsed() < TAKEOVER, "took over after {:?}: {}", since.elapsed(), second.said());
    assert!(is_gone(place, &left[0]).await, "the statement of the first host runs while the second works");
    dragging(place).await;
    first.signal("CONT");
    first.says("lease lost", PATIENCE).await;
    first.says(&format!("standing by: process {} on ", second.id()), PATIENCE).await;
    drag(place, 0).await;
    assert_eq!(second.end(PATIENCE).await, 0, "{}", second.said());
    first.repeats(WORKING, 2, PATIENCE).await;
    each_touched_once(place, 500).await.unwrap();
}
