//! Who keeps a batch waiting, wherever a host tells of it.

use std::time::Duration;

use tidegate::update::sql::System;

use super::UPDATES;
use crate::support::api::{Api, WITHOUT_TOKENS};
use crate::support::place::{Place, row};
use crate::support::run::{make_items, touched};
use crate::support::{on_both, until};

/// A liveness bound.
const PATIENCE: Duration = Duration::from_secs(60);

on_both! {
    async fn whoever_holds_a_lock_is_named_by_the_log_the_api_the_page_and_the_metrics(place: Place) {
        make_items(place, 25).await;
        place.prepared().await.enqueue(&row("touch_items")).await.unwrap();
        let lock: Box<dyn Send> = match place.system() {
            System::Sqlite => {
                // One who writes, and lets others read.
                let connection = rusqlite::Connection::open(place.file()).unwrap();
                connection.execute_batch("begin immediate").unwrap();
                Box::new(connection)
            }
            System::Postgres => place.lock_items().await,
        };
        let mut api = Api::start(place, "sleep_enabled = false\npoll_interval_ms = 50\n", &format!("{WITHOUT_TOKENS}{UPDATES}")).await;
        // On SQLite it is this process that holds the lock, on PostgreSQL one of the server's.
        let own = format!("process {} (", std::process::id());
        let who = place.either(&own, "process ");
        api.process.says(&format!("touch_items: waits for {who}"), PATIENCE).await;
        let told = async |path: &str, words: &str| api.get(path, "").await.text.contains(words);
        let waits = format!("waits for {who}");
        until("the API tells it", async || told("/api/v1/databases/master", &waits).await).await;
        until("the metrics tell it", async || told("/metrics", "tidegate_batch_waits_for{database=\"master\"} 1").await)
            .await;
        until("the page tells it", async || told("/", &waits).await).await;
        drop(lock);
        until("it goes on", async || touched(place).await == ["1|25"]).await;
        until("nobody is in the way", async || told("/metrics", "tidegate_batch_waits_for{database=\"master\"} 0").await)
            .await;
    }
}
