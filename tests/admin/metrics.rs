//! `/metrics`, held against what happened and against Prometheus' own tool.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use reqwest::Method;

use crate::support::api::{Answer, Api, VIEWER, with_tokens};
use crate::support::place::{Place, row};
use crate::support::run::make_items;
use crate::support::{on_both, until};

/// The samples of a text: name and labels, and the value.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// What promtool says of a text; empty where nothing is wrong with it.
fn promtool(text: &str) -> String {
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: `make setup` installs it");
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

on_both! {
    async fn the_metrics_say_what_happened(place: Place) {
        make_items(place, 1_000).await;
        let database = place.prepared().await;
        database.enqueue(&row("touch")).await.unwrap();
        database.enqueue(&row("unknown")).await.unwrap();
        let updates = "[[update]]\nname = \"touch\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\n\
                       set = \"touched = touched + 1\"\n";
        let component = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guests/target/components/rust-steady.wasm");
        let controller = format!(
            "[[controller]]\nname = \"steady\"\npath = \"{component}\"\n[controller.settings]\nsleep_duration_ms = 20\n"
        );
        let api = Api::start(place, "max_batch_size = 300\n", &format!("{updates}{controller}{}", with_tokens())).await;
        let finished = "tidegate_iterations_total{database=\"master\",outcome=\"finished\",update=\"touch\"}";
        until("the update is done", async || {
            samples(&api.get("/metrics", VIEWER).await.text).get(finished) == Some(&1.0)
        })
        .await;
        let answer = api.get("/metrics", VIEWER).await;
        assert_eq!(answer.content_type, "text/plain; version=0.0.4");
        assert_eq!(promtool(&answer.text), "");
        let samples = samples(&answer.text);
        let of = |name: &str| samples.get(name).copied().unwrap_or_else(|| panic!("no {name} in {}", answer.text));
        assert_eq!(of("tidegate_items_total{database=\"master\",update=\"touch\"}"), 1_000.0);
        let completed = "tidegate_iterations_total{database=\"master\",outcome=\"completed\",update=\"touch\"}";
        let batches = of(completed) + 1.0;
        assert_eq!(of("tidegate_batch_duration_seconds_count{database=\"master\",update=\"touch\"}"), batches);
        assert!(of("tidegate_batch_duration_seconds_sum{database=\"master\",update=\"touch\"}") > 0.0);
        assert_eq!(of("tidegate_queue_rows{database=\"master\",state=\"undefined\"}"), 1.0);
        assert_eq!(of("tidegate_queue_rows{database=\"master\",state=\"pending\"}"), 0.0);
        assert_eq!(of("tidegate_lease_state{database=\"master\",state=\"runner\"}"), 1.0);
        assert_eq!(of("tidegate_database_up{database=\"master\"}"), 1.0);
        assert_eq!(of("tidegate_paused{database=\"master\"}"), 0.0);
        // on-update, enter, a batch size, exit and the end of the handle, each iteration.
        assert!(of("tidegate_controller_calls_total{controller=\"steady\",database=\"master\"}") >= 5.0 * batches);
        assert!(of("tidegate_controller_fuel_total{controller=\"steady\",database=\"master\"}") > 0.0);
        assert!(of("tidegate_controller_peak_memory_bytes{controller=\"steady\",database=\"master\"}") >= 65_536.0);
        assert_eq!(samples.iter().filter(|(name, _)| name.starts_with("tidegate_build_info")).count(), 1);
    }
}

#[tokio::test]
async fn who_has_no_token_sees_no_metrics_where_there_are_tokens() {
    let place = Place::sqlite();
    let api = Api::start(&place, "", &with_tokens()).await;
    let answer = Answer::of(api.request(Method::GET, "/metrics").send().await.unwrap()).await;
    assert_eq!(answer.status, 401);
    assert_eq!(api.get("/metrics", "another").await.status, 401);
    assert_eq!(api.get("/metrics", VIEWER).await.status, 200);
}
