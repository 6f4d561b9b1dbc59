//! A wait of 24 days, as an operator lives through it.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use super::{PACE, hostile};
use crate::assert_told;
use crate::controllers::{ITEMS, assert_done};
use crate::support::api::{Answer, WITHOUT_TOKENS, client};
use crate::support::binary::Process;
use crate::support::command::Site;
use crate::support::place::Place;
use crate::support::run::touched;
use crate::support::{on_both, until};

/// A liveness bound.
const PATIENCE: Duration = Duration::from_secs(60);

/// 24 days, in milliseconds.
const DAYS_24: u64 = 24 * 24 * 3_600 * 1_000;

/// The systems differ by name, and what holds is told again every few seconds. The API is there for the test alone.
const MASKS: &[(&str, &str)] = &[
    (r"(?m)^the API listens on [^\n]*\n", ""),
    (r"\((?:SQLite|PostgreSQL)\)", "([system])"),
    (r"(master: touch_items: held: as told\n)+", "$1"),
    PACE,
    (r"(?m) +$", ""),
];

/// The status, once it has these words: a running host writes its own every second.
async fn status(site: &Site, words: &str) -> String {
    let told = Mutex::new(String::new());
    until(words, async || {
        let status = site.tidegate(&["status"]).await.all();
        let has_them = status.contains(words);
        *told.lock().unwrap() = status;
        has_them
    })
    .await;
    told.into_inner().unwrap()
}

/// How long a running host says that it waits.
async fn wait_ms(host: &Process) -> Value {
    let said = host.said();
    let (_, after) = said.split_once("the API listens on ").unwrap();
    let address = after.lines().next().unwrap();
    let asked = client().get(format!("{address}/api/v1/databases/master")).send().await.unwrap();
    Answer::of(asked).await.json()["in_hand"]["wait_ms"].clone()
}

on_both! {
    async fn a_wait_of_24_days_is_told_and_a_pause_in_it_ends_it(place: Place) {
        let site = hostile(place, "misbehave = 'wait'\ncall = 1", "").await;
        let configuration = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
        site.write("tidegate.toml", format!("{configuration}\n{WITHOUT_TOKENS}"));
        let mut host = site.start(&["run"]);
        host.says("the API listens on ", PATIENCE).await;
        host.says("touch_items: held: as told", PATIENCE).await;
        assert_eq!(wait_ms(&host).await, DAYS_24);
        let held = status(&site, "held").await;
        site.tidegate(&["pause"]).await;
        // A pause that is lifted before the host has seen it would be none.
        host.says("paused", PATIENCE).await;
        let paused = status(&site, ", paused").await;
        assert_eq!(touched(place).await, [format!("0|{ITEMS}")], "a row was touched");
        site.tidegate(&["resume"]).await;
        host.says("the queue is empty", PATIENCE).await;
        host.signal("TERM");
        assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
        assert_done(place, "24 days").await;
        let told = format!("## held\n{held}\n\n## paused\n{paused}\n\n## run\n{}\n", host.said());
        assert_told!(MASKS, "wait_of_24_days", told);
    }
}
