//! `[background_updates]`: how fast, how much at once, how often.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::update;
use crate::support::binary::Folder;
use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::run::{make_items, touched};
use crate::support::until;

/// A liveness bound.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs an update of 200 items with these settings; the history's records.
async fn records(place: &Place, settings: &str) -> Vec<Value> {
    make_items(place, 200).await;
    place.prepared().await.enqueue(&row("touch")).await.unwrap();
    let folder = Folder::new(place, settings, "", &update("touched = touched + 1"));
    let (said, code) = folder.tidegate(&["run", "--until-done"]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(touched(place).await, ["1|200"]);
    let rows = place.rows("select record from tidegate_history order by id").await;
    rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}

on_both! {
    async fn the_built_in_policy_aims_and_sleeps_as_configured(place: Place) {
        for (settings, target, slept) in [
            ("sleep_enabled = false\nsleep_duration_ms = 60000", 100, 0.0),
            ("sleep_duration_ms = 30\nbackground_update_duration_ms = 7", 7, 30.0),
            ("sleep_duration_ms = 60", 100, 60.0),
        ] {
            for record in records(&place.another().await, settings).await {
                assert_eq!(record["target_ms"], target, "{settings}: {record}");
                assert!(record["waited_ms"].as_f64().unwrap() >= slept, "{settings}: {record}");
                assert_eq!(record["wait_reason"].is_null(), slept == 0.0, "{settings}: {record}");
            }
        }
    }

    async fn batches_are_as_large_as_configured(place: Place) {
        for (sizes, expected) in [
            ("default_batch_size = 30\nmin_batch_size = 90\nmax_batch_size = 90", [30, 90, 90]),
            ("default_batch_size = 10\nmin_batch_size = 95\nmax_batch_size = 95", [10, 95, 95]),
            ("default_batch_size = 70\nmin_batch_size = 90\nmax_batch_size = 50", [50, 50, 50]),
        ] {
            let settings = format!("sleep_enabled = false\nestimator = \"synapse\"\n{sizes}");
            let records = records(&place.another().await, &settings).await;
            let asked: Vec<_> = records.iter().take(3).map(|record| record["batch_size"].as_u64().unwrap()).collect();
            assert_eq!(asked, expected, "{sizes}");
        }
        // The least counts where the target leaves less, and nothing else makes batches as large.
        let later = async |least: u64| {
            let settings = format!(
                "sleep_enabled = false\nbackground_update_duration_ms = 1\ndefault_batch_size = 1\nmin_batch_size = {least}"
            );
            let records = records(&place.another().await, &settings).await;
            records.iter().skip(1).map(|record| record["batch_size"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        let slices = records(&place.another().await, "sleep_enabled = false\nmax_batch_size = 50").await;
        assert!(slices.iter().all(|record| record["batch_size"].as_u64().unwrap() <= 50), "{slices:?}");
        let (small, large) = (later(10).await, later(150).await);
        assert!(small.iter().all(|size| *size >= 10) && small.iter().any(|size| *size < 150), "{small:?}");
        assert!(!large.is_empty() && large.iter().all(|size| *size >= 150), "{large:?}");
    }

    async fn an_update_fails_as_often_as_configured(place: Place) {
        for max_attempts in [1, 2] {
            let place = place.another().await;
            make_items(&place, 10).await;
            place.prepared().await.enqueue(&row("touch")).await.unwrap();
            let settings = format!("sleep_enabled = false\nmax_attempts = {max_attempts}");
            let folder = Folder::new(&place, &settings, "", &update("touched = null"));
            let (said, code) = folder.tidegate(&["run", "--until-done"]).await;
            assert_eq!(code, 3, "{said}");
            let failed = place.rows("select count(*) from tidegate_history").await;
            assert_eq!(failed, [max_attempts.to_string()], "{said}");
        }
    }
}

/// Queues an update for an idle host so often, each time once the last one is done; how long that takes.
async fn rounds(place: &Place, poll_interval_ms: u32, rounds: u32) -> Duration {
    place.prepared().await;
    let settings = format!("sleep_enabled = false\npoll_interval_ms = {poll_interval_ms}");
    let folder = Folder::new(place, &settings, "", "[[update]]\nname = \"nothing\"\nkind = \"noop\"\n");
    let mut host = folder.start(&["run"]);
    host.says("the queue is empty", PATIENCE).await;
    let since = Instant::now();
    for _ in 0..rounds {
        // Without a command, which would wake the host.
        place.run("insert into background_updates (update_name, progress_json) values ('nothing', '{}')").await;
        let queue = "select update_name from background_updates";
        until("it is done", async || place.rows(queue).await.is_empty()).await;
    }
    since.elapsed()
}

/// Three rounds span two whole intervals, so that a long one has a least time; a short one has time to spare, however
/// slow the machine.
#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_looked_at_as_often_as_configured() {
    let (seldom, often) = (Place::sqlite(), Place::sqlite());
    assert!(rounds(&seldom, 1_000, 3).await >= Duration::from_secs(1), "it did not wait");
    let quick = rounds(&often, 10, 20).await;
    assert!(quick < Duration::from_secs(15), "20 rounds of 10 ms took {quick:?}");
}
