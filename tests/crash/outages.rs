//! The database gone, its connections cut, its lock taken, in the middle of a run.

use std::time::Duration;

use super::{
    PATIENCE, Random, each_touched_once, in_agreement, moved_on, progress, queue_touch, touch_slowly, touching,
};
use crate::support::binary::Folder;
use crate::support::place::Place;
use crate::support::postgres::{Server, Settings};

const ROWS: u32 = 200_000;

const SETTINGS: &str =
    "sleep_enabled = false\nbackground_update_duration_ms = 50\ndefault_batch_size = 1000\nmax_batch_size = 2000";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_started_again_finds_the_host_waiting() {
    let server = Server::start(&Settings { fsync: true, ..Settings::default() });
    let place = &Place::on(&server).await;
    queue_touch(place, ROWS).await;
    let folder = touching(place, SETTINGS, touch_slowly(place));
    let mut host = folder.start(&["run", "--until-done"]);
    for (end, outage) in [Server::stop, Server::kill, Server::stop].into_iter().zip(1..) {
        // After an outage as before it, whether the lease has outlasted it or not.
        moved_on(place, progress(place).await.as_deref()).await;
        let told = host.said().matches("unavailable: ").count();
        end(&server);
        host.repeats("unavailable: ", told + 1, PATIENCE).await;
        server.start_again();
        let (_, queued) = in_agreement(place).await.unwrap();
        assert!(queued, "the work was over at outage {outage}: it is too little");
    }
    assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
    each_touched_once(place, ROWS).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_cost_nothing_but_time() {
    const CUTS: u32 = 15;
    let place = &Place::postgres().await;
    queue_touch(place, ROWS).await;
    let folder = touching(place, SETTINGS, touch_slowly(place));
    let mut random = Random::seeded();
    let mut host = folder.start(&["run", "--until-done"]);
    let mut cut_amid_a_batch = 0;
    for cut in 0..CUTS {
        moved_on(place, progress(place).await.as_deref()).await;
        tokio::time::sleep(random.duration(Duration::from_millis(30))).await;
        // Every third time all connections, the lease's among them.
        let role = if cut % 3 == 2 { "" } else { "batch." };
        let states = place
            .rows(&format!(
                "select state, pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() \
                 and application_name like 'tidegate/%/{role}%'"
            ))
            .await;
        cut_amid_a_batch += usize::from(states.iter().any(|state| !state.starts_with("idle|")));
        in_agreement(place).await.unwrap_or_else(|problem| panic!("after cut {cut}: {problem}\n{}", host.said()));
    }
    assert!(progress(place).await.is_some(), "the work was over before the last cut: it is too little");
    assert!(cut_amid_a_batch > CUTS as usize / 4, "only {cut_amid_a_batch} of {CUTS} cuts met a batch");
    assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
    each_touched_once(place, ROWS).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_lock_held_by_others_holds_the_work_and_is_named() {
    let place = &Place::sqlite();
    queue_touch(place, 20_000).await;
    let set = toml::Value::from(touch_slowly(place));
    let update =
        format!("[[update]]\nname = \"touch\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = {set}\n");
    // With a sleep between batches, so that another process gets the lock at all.
    let settings = "sleep_duration_ms = 50\nmax_batch_size = 400";
    let folder = Folder::new(place, settings, "busy_timeout_ms = 100", &update);
    let mut host = folder.start(&["run", "--until-done"]);
    moved_on(place, Some("{}")).await;
    let other = rusqlite::Connection::open(place.file()).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let (done, _) = in_agreement(place).await.unwrap();
    host.says("touch: database is locked", PATIENCE).await;
    let (status, code) = folder.tidegate(&["status"]).await;
    assert!(code == 0 && status.contains("cannot be written to: database is locked"), "{code}: {status}");
    assert_eq!(in_agreement(place).await, Ok((done, true)));
    assert!(host.ended().is_none(), "{}", host.said());
    other.execute_batch("rollback").unwrap();
    assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
    each_touched_once(place, 20_000).await.unwrap();
}
