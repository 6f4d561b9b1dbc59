//! `[[database]]`: the queue table, and how long is waited for what.

use std::time::Duration;

use super::update;
use crate::support::binary::Folder;
use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::run::{make_items, touched};

/// A liveness bound.
const PATIENCE: Duration = Duration::from_secs(60);

const SETTINGS: &str = "sleep_enabled = false";

async fn queued(place: &Place) {
    make_items(place, 200).await;
    place.prepared().await.enqueue(&row("touch")).await.unwrap();
}

on_both! {
    async fn the_queue_is_the_configured_table(place: Place) {
        queued(place).await;
        let updates = update("touched = touched + 1");
        let elsewhere = Folder::new(place, SETTINGS, "queue_table = \"elsewhere\"", &updates);
        assert_eq!(elsewhere.tidegate(&["run", "--until-done"]).await.1, 0);
        assert_eq!(touched(place).await, ["0|200"], "nothing stands in that queue");
        let here = Folder::new(place, SETTINGS, "queue_table = \"background_updates\"", &updates);
        assert_eq!(here.tidegate(&["run", "--until-done"]).await.1, 0);
        assert_eq!(touched(place).await, ["1|200"]);
    }
}

/// A table that is locked for long: of two timeouts the shorter one ends the batch, and says its name.
#[tokio::test(flavor = "multi_thread")]
async fn whichever_timeout_is_shorter_strikes() {
    for (timeouts, words) in [
        ("lock_timeout_ms = 100\nstatement_timeout_ms = 60000", "canceling statement due to lock timeout"),
        ("lock_timeout_ms = 60000\nstatement_timeout_ms = 100", "canceling statement due to statement timeout"),
    ] {
        let place = Place::postgres().await;
        queued(&place).await;
        let lock = place.lock_items().await;
        let folder = Folder::new(&place, SETTINGS, timeouts, &update("touched = touched + 1"));
        let mut host = folder.start(&["run", "--until-done"]);
        host.says(words, PATIENCE).await;
        drop(lock);
        assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
        assert_eq!(touched(&place).await, ["1|200"]);
    }
}

/// The statement of a batch tells what holds in its own session.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_have_the_configured_timeouts() {
    for (timeouts, expected) in [
        ("", "2s|1min|1min"),
        ("lock_timeout_ms = 3000\nstatement_timeout_ms = 4000\nidle_in_transaction_timeout_ms = 5000", "3s|4s|5s"),
    ] {
        let place = Place::postgres().await;
        queued(&place).await;
        place.run("alter table items add column seen text").await;
        let settings = ["lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"];
        let seen = settings.map(|name| format!("current_setting('{name}')")).join(" || '|' || ");
        let folder = Folder::new(&place, SETTINGS, timeouts, &update(&format!("seen = {seen}")));
        let (said, code) = folder.tidegate(&["run", "--until-done"]).await;
        assert_eq!(code, 0, "{said}");
        assert_eq!(place.rows("select distinct seen from items").await, [expected]);
    }
}

/// With little patience a lock of others is told at once; with much it is waited for, and nobody hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_file_is_waited_for_as_long_as_configured() {
    for (busy_timeout_ms, is_told) in [(50, true), (60_000, false)] {
        let place = Place::sqlite();
        queued(&place).await;
        let folder = Folder::new(
            &place,
            SETTINGS,
            &format!("busy_timeout_ms = {busy_timeout_ms}"),
            &update("touched = touched + 1"),
        );
        let lock = place.lock_items().await;
        let mut host = folder.start(&["run"]);
        match is_told {
            true => host.says("database is locked", PATIENCE).await,
            // The lock is the fault that is injected, and lasts forty times as long as the other patience.
            false => tokio::time::sleep(Duration::from_secs(2)).await,
        }
        drop(lock);
        host.says("touch: finished", PATIENCE).await;
        assert_eq!(host.said().contains("database is locked"), is_told, "{}", host.said());
        assert_eq!(touched(&place).await, ["1|200"]);
    }
}
