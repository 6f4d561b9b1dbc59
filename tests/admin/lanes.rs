//! What is done in each lane, wherever a host tells of it.

use super::UPDATES;
use crate::support::api::{Api, WITHOUT_TOKENS};
use crate::support::place::{Place, row};
use crate::support::run::make_items;
use crate::support::{on_both, until};

const SECOND: &str = "\n[[update]]\nname = \"second\"\nlane = \"beside\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\n\
                      set = \"touched = touched + 1\"\n";

on_both! {
    async fn each_lane_is_told_of_by_the_api_the_metrics_the_page_and_status(place: Place) {
        make_items(place, 25).await;
        let database = place.prepared().await;
        for name in ["touch_items", "second"] {
            database.enqueue(&row(name)).await.unwrap();
        }
        // Each lane sleeps before its first batch, and stays so.
        let rest = format!("{WITHOUT_TOKENS}{UPDATES}{SECOND}");
        let api = Api::start(place, "sleep_duration_ms = 86_400_000\npoll_interval_ms = 50\n", &rest).await;
        let look = async || api.get("/api/v1/databases/master", "").await.json();
        until("both are in hand", async || {
            let now = look().await;
            now["in_hand"]["update"] == "touch_items" && now["lanes"][0]["in_hand"]["update"] == "second"
        })
        .await;
        let now = look().await;
        assert_eq!(now["lanes"][0]["lane"], "beside");
        assert_eq!(now["lanes"][0]["controller"]["name"], "default");
        let told = async |path: &str, words: &str| {
            let text = api.get(path, "").await.text;
            assert!(text.contains(words), "{path} has no {words}: {text}");
        };
        told("/metrics", "tidegate_lane_busy{database=\"master\",lane=\"beside\"} 1").await;
        told("/metrics", "tidegate_lane_busy{database=\"master\",lane=\"main\"} 1").await;
        told("/metrics", "tidegate_queue_rows{database=\"master\",state=\"running\"} 2").await;
        told("/", "Lane beside").await;
        told("/_synapse/admin/v1/background_updates/status", "\"name\":\"touch_items\"").await;
        let synapse = api.get("/_synapse/admin/v1/background_updates/status", "").await.json();
        assert_eq!(synapse["current_updates"].as_object().unwrap().len(), 1, "{synapse}");
        until("status tells of both", async || {
            let status = api.folder.tidegate(&["status"]).await.0;
            status.contains("lane beside: running") && status.contains(", second")
        })
        .await;
    }
}
