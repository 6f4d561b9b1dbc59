//! Hosts killed at any instant while a component has the rows: each row is counted once.

use std::time::Duration;

use crate::crash::{PATIENCE, each_touched_once, in_agreement, moved_on, progress, queue_touch};
use crate::guests::built;
use crate::support::binary::Folder;
use crate::support::on_both;
use crate::support::place::Place;

const ROWS: u32 = 60_000;
const KILLS: u64 = 20;
const SETTINGS: &str =
    "sleep_enabled = false\nbackground_update_duration_ms = 20\ndefault_batch_size = 200\nmax_batch_size = 600";

on_both! {
    async fn a_killed_host_counts_no_row_twice(place: Place) {
        queue_touch(place, ROWS).await;
        let component = toml::Value::from(built("hostile-transform").display().to_string());
        let update = format!(
            "[[update]]\nname = \"touch\"\nkind = \"transform\"\ntable = \"items\"\nkey = \"id\"\nread = [\"touched\"]\n\
             write = [\"touched\"]\ncomponent = {component}\n[update.settings]\ndeed = \"count\"\n"
        );
        let folder = Folder::new(place, SETTINGS, "", &update);
        for kill in 1..=KILLS {
            let before = progress(place).await;
            let mut host = folder.start(&["run", "--until-done"]);
            moved_on(place, before.as_deref()).await;
            // At instants that differ, by a sequence that has no period to speak of.
            tokio::time::sleep(Duration::from_micros(kill * kill * 7_919 % 30_000)).await;
            host.kill();
            let (_, queued) = in_agreement(place).await.unwrap_or_else(|problem| panic!("after kill {kill}: {problem}\n{}", host.said()));
            assert!(queued, "the work was over at kill {kill}: it is too little");
        }
        let mut last = folder.start(&["run", "--until-done"]);
        assert_eq!(last.end(PATIENCE).await, 0, "{}", last.said());
        each_touched_once(place, ROWS).await.unwrap();
    }
}
