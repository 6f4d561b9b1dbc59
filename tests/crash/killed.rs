//! Hosts killed at any instant.

use std::time::{Duration, Instant};

use super::{
    PATIENCE, Random, each_touched_once, in_agreement, moved_on, progress, queue_touch, touch_slowly, touching,
};
use crate::support::binary::Folder;
use crate::support::on_both;
use crate::support::place::Place;

const ROWS: u32 = 200_000;
const KILLS: usize = 20;

/// Small targets, so that as many kills meet a commit as meet a statement.
const SETTINGS: &str =
    "sleep_enabled = false\nbackground_update_duration_ms = 20\ndefault_batch_size = 400\nmax_batch_size = 2000";

on_both! {
    async fn a_killed_host_loses_nothing(place: Place) {
        let since = Instant::now();
        queue_touch(place, ROWS).await;
        let folder = touching(place, SETTINGS, touch_slowly(place));
        let mut random = Random::seeded();
        // At seeded instants, and sooner where the machine is so fast that the work would be over before the last one.
        for kill in 1..=KILLS {
            if kill % 4 == 0 {
                while_it_starts(&folder, &mut random).await;
            }
            let before = progress(place).await;
            let mut host = folder.start(&["run", "--until-done"]);
            moved_on(place, before.as_deref()).await;
            let instant = Instant::now() + random.duration(Duration::from_millis(250));
            let share = ROWS as usize * kill / (KILLS + 2);
            while Instant::now() < instant && done(place).await < share {
                tokio::time::sleep(Duration::from_millis(5).min(instant.saturating_duration_since(Instant::now()))).await;
            }
            tokio::time::sleep(random.duration(Duration::from_millis(5))).await;
            host.kill();
            match in_agreement(place).await {
                Ok((_, true)) => {}
                Ok((_, false)) => panic!("the work was over at kill {kill}: it is too little"),
                Err(problem) => panic!("after kill {kill}: {problem}\n{}", host.said()),
            }
        }
        let (done, _) = in_agreement(place).await.unwrap();
        println!("{KILLS} kills within {done} items, {:?}", since.elapsed());
        let mut last = folder.start(&["run", "--until-done"]);
        assert_eq!(last.end(PATIENCE).await, 0, "{}", last.said());
        each_touched_once(place, ROWS).await.unwrap();
        println!("all in {:?}", since.elapsed());
    }
}

/// How many items are done; all, where the update is finished.
async fn done(place: &Place) -> usize {
    let Some(progress) = progress(place).await else { return ROWS as usize };
    let progress: serde_json::Value = serde_json::from_str(&progress).unwrap();
    progress["items"].as_u64().unwrap_or_default() as usize
}

/// The journal mode that `check` recommends: a commit is another thing there.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_host_loses_nothing_of_a_database_with_a_write_ahead_log() {
    let place = Place::sqlite();
    place.run("pragma journal_mode = wal").await;
    a_killed_host_loses_nothing(&place).await;
    assert_eq!(place.rows("pragma journal_mode").await, ["wal"]);
}

/// Kills a host that may have come no further than its configuration, or its lease.
async fn while_it_starts(folder: &Folder, random: &mut Random) {
    let mut host = folder.start(&["run", "--until-done"]);
    tokio::time::sleep(random.duration(Duration::from_millis(100))).await;
    host.kill();
}
