//! The guests that decide by signals, on live databases, through the program.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::guests::built;
use crate::support::binary::{Folder, Process};
use crate::support::command::Site;
use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::postgres::{Server, Settings, connect};
use crate::support::run::{make_items, touched};
use crate::support::until;

/// A liveness bound.
const PATIENCE: Duration = Duration::from_secs(60);

const BACKGROUND: &str = "poll_interval_ms = 50\nmax_batch_size = 10\nmin_batch_size = 10\ndefault_batch_size = 10\n";

const TOUCH: &str = "[[update]]\nname = \"touch\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = \"touched = touched + 1\"\n";

/// A folder in which this guest paces an update of so many items.
async fn folder(place: &Place, items: u32, guest: &str, settings: &str, signals: &str) -> Folder {
    make_items(place, items).await;
    place.recommended().await;
    place.prepared().await.enqueue(&row("touch")).await.unwrap();
    let controller =
        format!("[[controller]]\nname = \"guest\"\npath = \"guest.wasm\"\n[controller.settings]\n{settings}\n");
    let folder = Folder::new(place, BACKGROUND, "", &format!("{TOUCH}{controller}{signals}"));
    folder.write("guest.wasm", std::fs::read(built(guest)).unwrap());
    folder
}

async fn touched_items(place: &Place) -> u64 {
    place.rows("select count(*) from items where touched > 0").await[0].parse().unwrap()
}

async fn stop(mut host: Process) {
    host.signal("TERM");
    assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
    assert!(!host.said().contains("controller guest:"), "{}", host.said());
}

/// What `status` says of the update, once it says these words.
async fn status_says(folder: &Folder, words: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = folder.tidegate(&["status"]).await.0;
        if said.contains(words) {
            return said;
        }
        assert!(Instant::now() < deadline, "no \"{words}\" in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_guard_holds_while_the_replica_is_behind_and_goes_on_when_it_has_caught_up() {
    let primary = Server::start(&Settings::default());
    let place = Place::on(&primary).await;
    let replica = primary.replica();
    let standby = replica.connect_to(&place.url).await;
    let settings = "max_replication_lag_ms = 500\ncheck_ms = 100\nrest_ms = 20\n";
    let folder = folder(&place, 2_000, "rust-lag-guard", settings, "[signals]\ninterval_ms = 100\n").await;
    let host = folder.start(&["run"]);
    until("it works", async || touched_items(&place).await > 0).await;
    standby.batch_execute("select pg_wal_replay_pause()").await.unwrap();
    let said = status_says(&folder, "held: replication-lag is").await;
    assert!(said.contains(" ms, more than 500 ms"), "{said}");
    assert!(said.contains("  signals: ") && said.contains("replication-lag "), "{said}");
    let before = touched_items(&place).await;
    assert!(before < 2_000, "it was not held in time");
    // Each look is another one, and the lag grows.
    until("the host looks again", async || status_says(&folder, "held: replication-lag is").await != said).await;
    assert_eq!(touched_items(&place).await, before, "it went on while it was held");
    standby.batch_execute("select pg_wal_replay_resume()").await.unwrap();
    until("it is done", async || touched(&place).await == ["1|2000"]).await;
    until("the queue is empty", async || place.rows("select count(*) from background_updates").await == ["0"]).await;
    stop(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_guard_holds_while_sessions_wait_for_a_lock_and_refuses_to_run_blind() {
    let place = Place::postgres().await;
    place.run("create table others (id int)").await;
    let settings = "max_replication_lag_ms = \"off\"\nmax_waiting_sessions = 0\ncheck_ms = 100\nrest_ms = 20\n";
    let folder = folder(&place, 100_000, "rust-lag-guard", settings, "[signals]\ninterval_ms = 100\n").await;
    let host = folder.start(&["run"]);
    until("it works", async || touched_items(&place).await > 0).await;
    let (holder, waiting) = (connect(&place.url).await, connect(&place.url).await);
    holder.batch_execute("begin; lock table others").await.unwrap();
    let waiting = tokio::spawn(async move { waiting.batch_execute("insert into others values (1)").await });
    status_says(&folder, "held: waiting-sessions is 1, more than 0").await;
    holder.batch_execute("rollback").await.unwrap();
    waiting.await.unwrap().unwrap();
    let before = touched_items(&place).await;
    until("it goes on", async || touched_items(&place).await > before).await;
    stop(host).await;
    // Of a server without a standby there is no lag to be read.
    folder.reconfigure("max_replication_lag_ms = \"off\"", "max_replication_lag_ms = 1000");
    let host = folder.start(&["run"]);
    status_says(&folder, "held: replication-lag was never read").await;
    stop(host).await;
}

/// The last iterations: what part of the time each got, and why the rest before it was made.
async fn shares(place: &Place) -> Vec<(f64, String)> {
    let rows = place.rows("select record from tidegate_history order by id desc limit 3").await;
    let records = rows.iter().map(|row| serde_json::from_str::<Value>(row).unwrap());
    let share = |record: Value| {
        let ms = |key: &str| record[key].as_f64().unwrap();
        let took = ms("duration_ms");
        (took / (took + ms("waited_ms")), record["wait_reason"].as_str().unwrap_or_default().to_owned())
    };
    records.map(share).collect()
}

async fn until_share(place: &Place, what: &str, holds: impl Fn(f64, &str) -> bool) {
    until(what, async || {
        let shares = shares(place).await;
        !shares.is_empty() && shares.iter().all(|(share, why)| holds(*share, why))
    })
    .await;
}

const GENTLE: &str = "target_latency_ms = 100\ntarget_ms = 10\n";

on_both! {
    /// As fast as may be, slow under load, and fast again: the load is what a file says.
    async fn gentle_slows_down_under_load_and_comes_back(place: Place) {
        let own = "[[signal]]\nname = \"latency\"\nkind = \"file\"\npath = \"latency\"\ninterval_ms = 100\n";
        let folder = folder(place, 100_000, "rust-gentle", &format!("{GENTLE}signal = \"latency\"\n"), own).await;
        folder.write("latency", "3\n");
        let host = folder.start(&["run"]);
        until_share(place, "it gets much of the time", |share, _| share > 0.3).await;
        folder.write("latency", "400\n");
        until_share(place, "it slows down", |share, why| {
            share < 0.1 && why.starts_with("foreground latency 400 ms > 100 ms: updates get ")
        })
        .await;
        folder.write("latency", "3\n");
        until_share(place, "it gets much of the time again", |share, _| share > 0.3).await;
        stop(host).await;
    }
}

/// The same with the probe itself, whose row somebody keeps locked.
#[tokio::test(flavor = "multi_thread")]
async fn gentle_goes_by_what_the_probe_feels() {
    let place = Place::postgres().await;
    let signals = "[signals]\ninterval_ms = 100\ntimeout_ms = 400\nprobe_write = true\n";
    let folder = folder(&place, 100_000, "rust-gentle", GENTLE, signals).await;
    let host = folder.start(&["run"]);
    until_share(&place, "it gets much of the time", |share, _| share > 0.3).await;
    let holder = connect(&place.url).await;
    holder.batch_execute("begin; select 1 from tidegate_probe for update").await.unwrap();
    until_share(&place, "it slows down", |share, why| {
        share < 0.1 && why.starts_with("foreground latency 4") && why.contains(" ms > 100 ms: updates get ")
    })
    .await;
    holder.batch_execute("rollback").await.unwrap();
    until_share(&place, "it gets much of the time again", |share, _| share > 0.3).await;
    stop(host).await;
}

/// What comes with each of them, on virtual time.
#[tokio::test(flavor = "multi_thread")]
async fn they_come_through_their_scenarios() {
    for guest in ["rust-lag-guard", "rust-gentle"] {
        let scenario = format!("{}/../../guests/{guest}/scenario.toml", env!("CARGO_MANIFEST_DIR"));
        let component = built(guest);
        let site = Site::new("");
        let told = site.tidegate(&["controller", "test", component.to_str().unwrap(), &scenario]).await;
        assert_eq!(told.code, 0, "{}", told.all());
        // Without the bounds that it is about, the same scenario is not met.
        let blind = if guest == "rust-gentle" { "target_latency_ms=1000" } else { "max_replication_lag_ms=off" };
        let component = component.to_str().unwrap();
        let told = site.tidegate(&["controller", "test", component, &scenario, "--set", blind]).await;
        assert_eq!(told.code, 4, "{}", told.all());
    }
}
