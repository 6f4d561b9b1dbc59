//! Hosts killed, frozen and overtaken while several workers do one table (PostgreSQL).

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{
    ENDLESS, PATIENCE, Random, drag, dragging, each_touched_once, moved_on, progress, queue_touch, touch_dragged,
    touch_slowly, touching,
};
use crate::support::binary::Folder;
use crate::support::place::Place;
use crate::support::until;

const ROWS: u32 = 150_000;
const KILLS: usize = 12;

/// Small targets, so that as many kills meet a commit as meet a statement.
const SETTINGS: &str =
    "sleep_enabled = false\nbackground_update_duration_ms = 20\ndefault_batch_size = 400\nmax_batch_size = 2000";

/// A folder in which so many work on the update `touch`.
fn shared(place: &Place, background: &str, set: &str, workers: u32) -> Folder {
    let folder = touching(place, background, set);
    folder.reconfigure("kind = \"backfill\"", &format!("kind = \"backfill\"\nworkers = {workers}"));
    folder
}

/// Writes down each change of an item, whoever makes it.
async fn log_changes(place: &Place) {
    place
        .run(
            "create table log (id bigint); create function log() returns trigger language plpgsql as \
             'begin insert into log select id from changed; return null; end'; \
             create trigger logs after update on items referencing new table as changed \
             for each statement execute function log()",
        )
        .await;
}

/// What is left by the progress: the keys behind each first, up to each second.
fn left(progress: &str) -> Vec<(i64, i64)> {
    let json: Value = serde_json::from_str(progress).unwrap();
    let key = |value: &Value| value[0].as_str().unwrap().parse::<i64>().unwrap();
    match json["ranges"].as_array() {
        Some(ranges) => ranges.iter().map(|range| (key(&range["after"]), key(&range["to"]))).collect(),
        None => vec![(json["after"].get(0).map_or(0, |_| key(&json["after"])), i64::from(ROWS))],
    }
}

/// How many items are done, by the progress.
async fn done(place: &Place) -> i64 {
    let left = progress(place).await.map_or_else(Vec::new, |progress| left(&progress));
    i64::from(ROWS) - left.iter().map(|(after, to)| to - after).sum::<i64>()
}

/// Whether the items that are touched are those that are not left by the progress of the same moment; and in how many parts
/// the rest is.
async fn in_agreement(place: &Place) -> Result<usize, String> {
    let select = "select (select progress_json from background_updates where update_name = 'touch'), \
                  (select string_agg(id || ' ' || touched, ',' order by id) from items)";
    let rows = place.rows(select).await;
    let (progress, items) = rows[0].rsplit_once('|').unwrap();
    let left = if progress.is_empty() { Vec::new() } else { left(progress) };
    for item in items.split(',') {
        let (id, touched) = item.split_once(' ').unwrap();
        let id: i64 = id.parse().unwrap();
        let wanted = if left.iter().any(|(after, to)| *after < id && id <= *to) { "0" } else { "1" };
        if touched != wanted {
            return Err(format!("item {id} is touched {touched} times, and the progress is {progress}"));
        }
    }
    Ok(left.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_killed_with_several_at_work_loses_nothing() {
    let place = &Place::postgres().await;
    queue_touch(place, ROWS).await;
    log_changes(place).await;
    let folder = shared(place, SETTINGS, touch_slowly(place), 3);
    let mut random = Random::seeded();
    let mut most = 0;
    for kill in 1..=KILLS {
        let before = progress(place).await;
        let mut host = folder.start(&["run", "--until-done"]);
        moved_on(place, before.as_deref()).await;
        // At a seeded instant, and sooner where the machine is so fast that the work would be over before the last one.
        let instant = Instant::now() + random.duration(Duration::from_millis(400));
        let share = i64::from(ROWS) * kill as i64 / (KILLS as i64 + 2);
        while Instant::now() < instant && done(place).await < share {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        host.kill();
        // What the server had before it noticed is done or undone by now.
        until("the server has noticed", async || {
            place
                .rows(
                    "select 1 from pg_stat_activity where datname = current_database() \
                     and application_name like 'tidegate/%/batch.%' and state <> 'idle'",
                )
                .await
                .is_empty()
        })
        .await;
        match in_agreement(place).await {
            Ok(parts) => most = most.max(parts),
            Err(problem) => panic!("after kill {kill}: {problem}\n{}", host.said()),
        }
    }
    assert!(most > 2, "never were there several parts");
    let mut last = folder.start(&["run", "--until-done"]);
    assert_eq!(last.end(PATIENCE).await, 0, "{}", last.said());
    each_touched_once(place, ROWS).await.unwrap();
    assert_eq!(place.rows("select count(*), count(distinct id) from log").await, [format!("{ROWS}|{ROWS}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_from_several() {
    let place = &Place::postgres().await;
    queue_touch(place, 20_000).await;
    log_changes(place).await;
    let folder = shared(place, "sleep_duration_ms = 50\nmax_batch_size = 100", "touched = touched + 1", 3);
    for end in ["kill", "stop"] {
        let before = progress(place).await;
        let mut first = folder.start(&["run"]);
        first.says("working on this database", PATIENCE).await;
        let mut second = folder.start(&["run"]);
        second.says("standing by", PATIENCE).await;
        moved_on(place, before.as_deref()).await;
        until("it is in parts", async || progress(place).await.is_some_and(|progress| progress.contains("ranges")))
            .await;
        let since = Instant::now();
        match end {
            "kill" => first.kill(),
            _ => first.signal("STOP"),
        }
        second.says("working on this database", PATIENCE).await;
        assert!(since.elapsed() < Duration::from_secs(12), "{:?}: {}", since.elapsed(), second.said());
        if end == "stop" {
            first.signal("CONT");
            first.says("lease lost", PATIENCE).await;
            first.says("standing by", PATIENCE).await;
        }
        let found = progress(place).await;
        moved_on(place, found.as_deref()).await;
        first.kill();
        second.kill();
    }
    let mut last = folder.start(&["run", "--until-done"]);
    assert_eq!(last.end(PATIENCE).await, 0, "{}", last.said());
    each_touched_once(place, 20_000).await.unwrap();
    assert_eq!(place.rows("select count(*), count(distinct id) from log").await, ["20000|20000"]);
}

/// Each of them has a statement at work when the host is frozen.
#[tokio::test(flavor = "multi_thread")]
async fn what_several_left_running_ends_before_the_standby_works() {
    let place = &Place::postgres().await;
    queue_touch(place, 20_000).await;
    let folder = shared(place, "sleep_enabled = false\nmax_batch_size = 100", touch_dragged(place).await, 3);
    let mut first = folder.start(&["run"]);
    until("it is in parts", async || progress(place).await.is_some_and(|progress| progress.contains("ranges"))).await;
    drag(place, ENDLESS).await;
    dragging(place).await;
    let busy = "select count(*) from pg_stat_activity where datname = current_database() and state = 'active' \
                and application_name like 'tidegate/%/batch.%' and query like '%UPDATE \"%'";
    until("all are at work", async || place.rows(busy).await[0] == "3").await;
    let mut second = folder.start(&["run", "--until-done"]);
    second.says("standing by", PATIENCE).await;
    first.signal("STOP");
    second.says("working on this database", PATIENCE).await;
    drag(place, 0).await;
    assert_eq!(second.end(PATIENCE).await, 0, "{}", second.said());
    first.signal("CONT");
    first.says("lease lost", PATIENCE).await;
    each_touched_once(place, 20_000).await.unwrap();
    first.kill();
}
