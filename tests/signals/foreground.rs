//! What the foreground feels, measured while batches run, and the gentle pace that goes by it.

use std::time::Duration;

use serde_json::Value;
use tidegate::update::sql::System;

use crate::support::binary::{Folder, Process};
use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::run::make_items;
use crate::support::until;

/// A liveness bound.
const PATIENCE: Duration = Duration::from_secs(60);

/// An update whose rows cost so much that it is not over before all was seen.
fn touch(place: &Place) -> String {
    let dear =
        place.either("hex(randomblob(4000 + id % 2))", "sha512(convert_to(repeat(id::text, 1000), 'UTF8'))::text");
    format!(
        "[[update]]\nname = \"touch\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\n\
         set = \"touched = touched + 1 + 0 * length({dear})\"\n"
    )
}

/// More than any batch adds.
const MUCH: &str = "allowed_excess_ms = 60000\n";
/// Less than any batch adds.
const LITTLE: &str = "allowed_excess_percent = 1\nallowed_excess_ms = 0.001\n";

/// A folder for an update of many items that has this in `[background_updates]`. Whoever writes waits for its batches: on
/// SQLite as everybody does, on PostgreSQL for the row that the probe writes.
async fn folder(place: &Place, background: &str) -> Folder {
    make_items(place, 400_000).await;
    place.recommended().await;
    place.prepared().await.enqueue(&row("touch")).await.unwrap();
    if place.system() == System::Postgres {
        place.run("create table tidegate_probe (id bigint primary key, probed_at timestamptz not null)").await;
        place.run("insert into tidegate_probe values (1, now())").await;
        place
            .run(
                "create function in_the_way() returns trigger language plpgsql as $$ begin \
                 perform 1 from tidegate_probe for update; return null; end $$",
            )
            .await;
        place
            .run("create trigger in_the_way before update on items for each statement execute function in_the_way()")
            .await;
    }
    let background = format!("poll_interval_ms = 50\nmin_batch_size = 1\n{background}");
    Folder::new(place, &background, "", &format!("[signals]\nprobe_interval_ms = 10\n{}", touch(place)))
}

/// The last iterations.
async fn last(place: &Place, limit: u32) -> Vec<Value> {
    let rows = place.rows(&format!("select record from tidegate_history order by id desc limit {limit}")).await;
    rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}

/// Waits for a reason to rest that this holds for, among those of the last iterations.
async fn until_rests(place: &Place, what: &str, holds: impl Fn(&str) -> bool) -> String {
    let found = async || {
        let records = last(place, 10).await;
        records.iter().filter_map(|record| record["wait_reason"].as_str().map(str::to_owned)).find(|why| holds(why))
    };
    until(what, async || found().await.is_some()).await;
    // It may have changed meanwhile; what it was is asked for.
    found().await.unwrap_or_default()
}

async fn stop(mut host: Process) {
    host.signal("TERM");
    assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
}

on_both! {
    /// The same batches do the same to whoever writes; what of that is allowed decides.
    async fn a_gentle_pace_follows_what_batches_do_to_the_foreground(place: Place) {
        let bounds = "least_duty_percent = 7\nmost_duty_percent = 60\nshortest_batch_ms = 5\n";
        let gentle = format!("pace = \"gentle\"\n[background_updates.gentle]\n{bounds}{MUCH}");
        let folder = folder(place, &gentle).await;
        let host = folder.start(&["run"]);
        let why = until_rests(place, "it gets the most", |why| why.ends_with("updates get 60 % of the time")).await;
        assert!(why.starts_with("foreground latency ") && why.contains(" ms <= "), "{why}");
        let first = place.rows("select record from tidegate_history order by id limit 1").await;
        let first: Value = serde_json::from_str(&first[0]).unwrap();
        assert_eq!(first["wait_reason"], "listening to the foreground before the first batch");
        until("batches grow", async || {
            last(place, 5).await.iter().any(|record| record["target_ms"].as_u64() > Some(5))
        })
        .await;
        folder.reconfigure(MUCH, LITTLE);
        host.signal("HUP");
        let why = until_rests(place, "it gets the least", |why| why.ends_with("updates get 7.0 % of the time")).await;
        assert!(why.starts_with("foreground latency ") && why.contains(" ms > "), "{why}");
        assert_eq!(last(place, 1).await[0]["target_ms"], 5);
        let said = folder.tidegate(&["status"]).await.0;
        assert!(said.contains("default (gentle)") && said.contains("foreground-latency"), "{said}");
        until("status says why it rests", async || {
            let said = folder.tidegate(&["status"]).await.0;
            said.contains("resting between batches: foreground latency ")
        })
        .await;
        // Steady again, and back.
        folder.reconfigure("pace = \"gentle\"\n", "pace = \"steady\"\nsleep_duration_ms = 30\n");
        let bounds = format!("[background_updates.gentle]\n{bounds}{LITTLE}");
        folder.reconfigure(&bounds, "");
        host.signal("HUP");
        until_rests(place, "it is steady", |why| why == "sleep between iterations").await;
        folder.reconfigure("pace = \"steady\"\n", "pace = \"gentle\"\n");
        host.signal("HUP");
        until_rests(place, "it is gentle again", |why| why.starts_with("foreground latency ")).await;
        stop(host).await;
    }

    /// A probe that is never done often enough tells nothing.
    async fn without_a_probe_a_gentle_pace_is_as_steady_as_configured(place: Place) {
        let folder = folder(place, "pace = \"gentle\"\nsleep_duration_ms = 30\n").await;
        folder.reconfigure("probe_interval_ms = 10", "probe_interval_ms = 3600000");
        let host = folder.start(&["run"]);
        let words = "the foreground's latency was never read: batches and sleeps as by default";
        until_rests(place, "it says so", |why| why == words).await;
        assert_eq!(last(place, 1).await[0]["target_ms"], 100);
        stop(host).await;
    }
}
