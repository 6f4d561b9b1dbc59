//! Hosts killed while they take batches apart.

use std::time::{Duration, Instant};

use super::{does, fill, items, site};
use crate::support::on_both;
use crate::support::place::Place;

const ROWS: u32 = 60_000;
const NTH: u32 = 100;
const KILLS: u32 = 20;

/// At this instant: rows done twice or more, rows done behind the progress, rows that are not done before it and not named, rows
/// named that are done, rows named behind the progress, keys named, rows of the queue.
fn state() -> String {
    let after = "coalesce((select cast(JSON as bigint) from background_updates where progress_json <> '{}'), 0)";
    "select (select count(*) from items where n > 1), (select count(*) from items where n > 0 and id > AFTER), \
         (select count(*) from items where n = 0 and id <= AFTER and '[\"' || id || '\"]' not in (select key from tidegate_skipped)), \
         (select count(*) from items where n > 0 and '[\"' || id || '\"]' in (select key from tidegate_skipped)), \
         (select count(*) from items where id > AFTER and '[\"' || id || '\"]' in (select key from tidegate_skipped)), \
         (select count(*) from tidegate_skipped), (select count(*) from background_updates)"
    .replace("AFTER", after)
}

on_both! {
    async fn a_host_killed_inside_a_halving_names_each_row_once_and_loses_none(place: Place) {
        items(place, ROWS, NTH).await;
        let site = site(place, &fill("b = a, n = n + 1", "max_skipped = 10000"));
        does(&site, &["enqueue", "fill"]).await;
        // A commit takes its time, so that kills meet it.
        place.run(place.either(
            "select 1",
            "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.03); return null; end $$; \
             create constraint trigger slow after update on background_updates deferrable initially deferred \
             for each row execute function slow()",
        )).await;
        let json = place.either("json_extract(progress_json, '$.after[0]')", "(progress_json::json->'after'->>0)");
        let state = state().replace("JSON", json);
        let mut random = 0x5eed_u64;
        let mut named = 0;
        for kill in 1..=KILLS {
            let mut host = site.start(&["run", "--until-done"]);
            // At a seeded instant after it has begun, and sooner where the work would be over before the last kill.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let before = place.rows("select progress_json from background_updates").await;
            let began = Instant::now();
            while place.rows("select progress_json from background_updates").await == before {
                assert!(began.elapsed() < Duration::from_secs(60), "{}", host.said());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_micros((random >> 40) % 40_000)).await;
            host.kill();
            let rows = place.rows(&state).await;
            let numbers: Vec<u32> = rows[0].split('|').map(|number| number.parse().unwrap()).collect();
            assert_eq!(numbers[..5], [0, 0, 0, 0, 0], "after kill {kill}: {rows:?}");
            if numbers[6] == 0 {
                assert!(kill > KILLS / 2, "the work was over at kill {kill}: it is too little");
                break;
            }
            named = named.max(numbers[5]);
        }
        assert!(named > 0, "nothing was named while hosts were killed");
        does(&site, &["run", "--until-done"]).await;
        let last = "select (select count(*) from items where n = 1 and a > 0), (select count(*) from items where n = 0 and a < 0), \
                    (select count(*) from tidegate_skipped), (select count(distinct key) from tidegate_skipped)";
        let bad = ROWS / NTH;
        assert_eq!(place.rows(last).await, [format!("{}|{bad}|{bad}|{bad}", ROWS - bad)]);
    }
}
