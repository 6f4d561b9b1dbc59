//! The job that Synapse alone can do.

use reqwest::StatusCode;
use serde_json::json;

use super::{folder, queue};
use crate::admin::synapse::START_JOB;
use crate::support::api::{ADMIN, Api};
use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::until;

const REASON: &str =
    "events are signed with the server's signing key, which Synapse alone has: let Synapse run this job";

on_both! {
    async fn signing_events_again_is_refused_with_the_reason(place: Place) {
        let api = Api::start_in(folder(place, "poll_interval_ms = 20", "here.example", &[])).await;
        let answer = api.post(START_JOB, ADMIN, json!({ "job_name": "event_resign" })).await;
        let error = format!("Job event_resign is not done by tidegate: {REASON}");
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.json()["error"], error);

        let path = "/api/v1/databases/master/updates";
        let answer = api.post(path, ADMIN, json!({ "name": "event_resign" })).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.json()["detail"], format!("\"name\": tidegate does not do update \"event_resign\": {REASON}"));

        let (said, code) = api.folder.tidegate(&["enqueue", "event_resign"]).await;
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(&format!("tidegate does not do update \"event_resign\": {REASON}")), "{said}");
        assert!(queue(place).await.is_empty());

        // A row that the application queued waits for nothing: it is told, and blocks no other.
        place.prepared().await.enqueue(&row("event_resign")).await.unwrap();
        until("it is quarantined", async || {
            let queue = api.get(path, ADMIN).await.text;
            queue.contains("quarantined") && queue.contains("which Synapse alone has")
        })
        .await;
        assert_eq!(queue(place).await, ["event_resign {}"]);
    }
}
