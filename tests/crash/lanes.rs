//! Hosts killed while they work in several lanes, with another that stands by.

use std::time::Duration;

use super::{PATIENCE, Random, each_touched_once, in_agreement, in_agreement_on, queue_touch, touch_slowly};
use crate::support::binary::Folder;
use crate::support::on_both;
use crate::support::place::{Place, row};

const ROWS: u32 = 60_000;
const KILLS: usize = 6;

const SETTINGS: &str =
    "sleep_enabled = false\nbackground_update_duration_ms = 20\ndefault_batch_size = 200\nmax_batch_size = 1000";

/// What each host knows: `touch` in the first lane, and `touch_others` in another.
fn folder(place: &Place) -> Folder {
    let set = touch_slowly(place);
    let (first, second) = (toml::Value::from(set), toml::Value::from(set.replace("items.", "others.")));
    let update = |name: &str, lane: &str, table: &str, set: &toml::Value| {
        format!(
            "[[update]]\nname = \"{name}\"\nlane = \"{lane}\"\nkind = \"backfill\"\ntable = \"{table}\"\nkey = \"id\"\nset = {set}\n"
        )
    };
    let updates = update("touch", "main", "items", &first) + &update("touch_others", "beside", "others", &second);
    Folder::new(place, SETTINGS, "", &updates)
}

/// Both walks agree with what they have done; true while one of them is not over.
async fn agree(place: &Place) -> Result<bool, String> {
    let first = in_agreement(place).await?;
    let second = in_agreement_on(place, "others", "touch_others").await?;
    Ok(first.1 || second.1)
}

async fn items(place: &Place) -> (u64, u64) {
    let count = async |table: &str| -> u64 {
        place.rows(&format!("select count(*) from {table} where touched > 0")).await[0].parse().unwrap()
    };
    (count("items").await, count("others").await)
}

on_both! {
    async fn hosts_killed_while_they_work_in_two_lanes_lose_nothing(place: Place) {
        queue_touch(place, ROWS).await;
        place.run("create table others (id bigint primary key not null, touched int not null default 0)").await;
        place.run("insert into others (id) select id from items").await;
        let database = place.prepared().await;
        database.enqueue(&row("touch_others")).await.unwrap();
        database.close().await;
        let folder = folder(place);
        let mut random = Random::seeded();
        let mut hosts = [folder.start(&["run"]), folder.start(&["run"])];
        for kill in 1..=KILLS {
            // Each of the two lanes has moved on under whoever works.
            let before = items(place).await;
            crate::support::until("both lanes move on", async || {
                let now = items(place).await;
                now.0 > before.0 && now.1 > before.1
            })
            .await;
            tokio::time::sleep(random.duration(Duration::from_millis(50))).await;
            hosts[kill % 2].kill();
            if let Err(problem) = agree(place).await {
                panic!("after kill {kill}: {problem}\n{}", hosts[kill % 2].said());
            }
            hosts[kill % 2] = folder.start(&["run"]);
        }
        assert!(agree(place).await.unwrap(), "the work was over before the last kill: it is too little");
        hosts.iter_mut().for_each(|host| host.kill());
        let mut last = folder.start(&["run", "--until-done"]);
        assert_eq!(last.end(PATIENCE).await, 0, "{}", last.said());
        each_touched_once(place, ROWS).await.unwrap();
        let others = place.rows("select touched, count(*) from others group by touched").await;
        assert_eq!(others, [format!("1|{ROWS}")]);
    }
}
