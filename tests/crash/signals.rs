//! Told to stop, and how a run ends.

use std::time::Duration;

use tidegate::update::sql::System;

use super::{
    ENDLESS, PATIENCE, drag, dragging, each_touched_once, in_agreement, progress, queue_touch, touch_dragged, touching,
};
use crate::support::binary::Folder;
use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::run::make_items;
use crate::support::until;

/// An end that waits for nothing, on a machine that is busy.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A host that starts now gets the lease at its first attempt, and finishes the work.
async fn another_finishes(place: &Place, folder: &Folder, rows: u32) {
    let mut another = folder.start(&["run", "--until-done"]);
    assert_eq!(another.end(PATIENCE).await, 0, "{}", another.said());
    assert!(!another.said().contains("standing by"), "{}", another.said());
    each_touched_once(place, rows).await.unwrap();
}

/// Nobody is said to work on the database.
async fn nobody_works(folder: &Folder) {
    let (said, code) = folder.tidegate(&["status"]).await;
    assert!(code == 0 && said.contains("no host works on it"), "{code}: {said}");
}

on_both! {
    async fn a_batch_in_hand_is_completed_within_the_grace_of_a_signal(place: Place) {
        queue_touch(place, 300).await;
        let settings = "sleep_enabled = false\nmax_batch_size = 100\nbatch_cut_off_ms = 60000\nshutdown_grace_ms = 60000";
        let folder = touching(place, settings, touch_dragged(place).await);
        drag(place, 20_000_000).await;
        let mut host = folder.start(&["run"]);
        dragging(place).await;
        host.signal("TERM");
        host.says("told to terminate", AT_ONCE).await;
        if place.system() == System::Postgres {
            assert_eq!(progress(place).await.as_deref(), Some("{}"), "it is still at work");
            drag(place, 0).await;
        }
        assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
        assert_eq!(in_agreement(place).await, Ok((100, true)), "{}", host.said());
        nobody_works(&folder).await;
        drag(place, 0).await;
        another_finishes(place, &folder, 300).await;
    }

    async fn a_batch_that_outlasts_the_grace_of_a_signal_is_rolled_back(place: Place) {
        queue_touch(place, 300).await;
        let settings = "sleep_enabled = false\nshutdown_grace_ms = 200";
        let folder = touching(place, settings, touch_dragged(place).await);
        drag(place, ENDLESS).await;
        let mut host = folder.start(&["run", "--until-done"]);
        dragging(place).await;
        host.signal("INT");
        assert_eq!(host.end(AT_ONCE).await, 0, "{}", host.said());
        assert!(host.said().contains("interrupted: ending the batches that run"), "{}", host.said());
        assert_eq!(in_agreement(place).await, Ok((0, true)));
        nobody_works(&folder).await;
        drag(place, 0).await;
        another_finishes(place, &folder, 300).await;
    }

    async fn a_signal_ends_a_wait_of_a_day(place: Place) {
        queue_touch(place, 300).await;
        let waiting = touching(place, "sleep_duration_ms = 86400000", "touched = touched + 1");
        let mut host = waiting.start(&["run"]);
        until("it rests", async || waiting.tidegate(&["status"]).await.0.contains("running: resting between batches")).await;
        host.signal("TERM");
        assert_eq!(host.end(AT_ONCE).await, 0, "{}", host.said());
        assert_eq!(in_agreement(place).await, Ok((0, true)));
        nobody_works(&waiting).await;
        let folder = touching(place, "sleep_enabled = false", "touched = touched + 1");
        another_finishes(place, &folder, 300).await;
    }

    async fn a_signal_ends_a_standby(place: Place) {
        queue_touch(place, 300).await;
        let folder = touching(place, "sleep_duration_ms = 86400000", "touched = touched + 1");
        let mut first = folder.start(&["run"]);
        first.says("working on this database", PATIENCE).await;
        let mut standby = folder.start(&["run"]);
        standby.says("standing by", PATIENCE).await;
        standby.signal("TERM");
        assert_eq!(standby.end(AT_ONCE).await, 0, "{}", standby.said());
        assert!(first.ended().is_none(), "{}", first.said());
    }

    async fn a_host_ends_at_a_signal_however_it_logs(place: Place) {
        queue_touch(place, 300).await;
        let folder = touching(place, "sleep_duration_ms = 86400000", "touched = touched + 1");
        let logs: [&[&str]; 4] =
            [&[], &["--log", "debug"], &["--log-format", "json"], &["--log-format", "json", "--log", "trace"]];
        for log in logs {
            for signal in ["TERM", "INT"] {
                let start = || folder.start(&[log, &["run"]].concat());
                let mut first = start();
                first.says("working on this database", PATIENCE).await;
                let mut standby = start();
                standby.says("standing by", PATIENCE).await;
                for host in [&mut standby, &mut first] {
                    host.signal(signal);
                    assert_eq!(host.end(AT_ONCE).await, 0, "{log:?}, SIG{signal}: {}", host.said());
                }
            }
        }
        assert_eq!(in_agreement(place).await, Ok((0, true)));
    }

    async fn a_second_signal_ends_the_host_at_once(place: Place) {
        queue_touch(place, 300).await;
        let settings = "sleep_enabled = false\nshutdown_grace_ms = 600000";
        let folder = touching(place, settings, touch_dragged(place).await);
        drag(place, ENDLESS).await;
        let mut host = folder.start(&["run"]);
        dragging(place).await;
        host.signal("TERM");
        host.says("once more to end at once", AT_ONCE).await;
        assert!(host.ended().is_none(), "it has 10 minutes: {}", host.said());
        host.signal("TERM");
        assert_eq!(host.end(AT_ONCE).await, 130, "{}", host.said());
        drag(place, 0).await;
        another_finishes(place, &folder, 300).await;
    }

    async fn a_run_until_done_tells_by_its_exit_code_whether_rows_remain(place: Place) {
        make_items(place, 300).await;
        let database = place.prepared().await;
        for name in ["touch", "unknown", "wrong"] {
            database.enqueue(&row(name)).await.unwrap();
        }
        database.close().await;
        let update = |name: &str, set: &str| {
            format!("[[update]]\nname = \"{name}\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = \"{set}\"\n")
        };
        let updates = update("touch", "touched = touched + 1") + &update("wrong", "absent = 1");
        let folder = Folder::new(place, "sleep_enabled = false\nmax_attempts = 2", "", &updates);
        let mut host = folder.start(&["run", "--until-done"]);
        assert_eq!(host.end(PATIENCE).await, 3, "{}", host.said());
        let absent = place.either("no such column: absent", "column \"absent\" of relation \"items\" does not exist");
        for reason in [
            "2 rows remain that cannot run".to_owned(),
            "unknown on master: no definition".to_owned(),
            format!("wrong on master: quarantined after 2 attempts: {absent}"),
        ] {
            assert!(host.said().contains(&reason), "no \"{reason}\" in {}", host.said());
        }
        place.run("delete from background_updates").await;
        let mut host = folder.start(&["run", "--until-done"]);
        assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
        each_touched_once(place, 300).await.unwrap();
    }
}
