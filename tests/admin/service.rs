//! The host as a service: what the service manager is told, what SIGHUP does, what is logged.

use std::collections::BTreeSet;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::api::{ADMIN, Api, VIEWER, with_tokens};
use crate::support::binary::{Folder, Process};
use crate::support::place::{Place, row};
use crate::support::run::{make_items, touched};
use crate::support::{on_both, until};

const PATIENCE: Duration = Duration::from_secs(30);
const TOUCH: &str = "[[update]]\nname = \"touch\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\n\
                     set = \"touched = touched + 1\"\n";
const SMALL: &str = "default_batch_size = 10\nmax_batch_size = 10\nsleep_duration_ms = 5\n";
const COMPONENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guests/target/components/rust-steady.wasm");

fn contrib(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../contrib")).join(name)
}

/// Items committed so far, as the metrics have it.
async fn items(api: &Api) -> f64 {
    let text = api.get("/metrics", VIEWER).await.text;
    let sample =
        text.lines().find_map(|line| line.strip_prefix("tidegate_items_total{database=\"master\",update=\"touch\"} "));
    sample.map_or(0.0, |number| number.parse().unwrap())
}

async fn goes_on(api: &Api) {
    let before = items(api).await;
    until("more items are committed", async || items(api).await > before).await;
}

/// The lines of a log in JSON. Anything else is an error.
fn logged(host: &Process) -> Vec<Value> {
    host.said()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

on_both! {
    async fn sighup_reloads_all_or_nothing_while_an_update_runs(place: Place) {
        make_items(place, 20_000).await;
        place.prepared().await.enqueue(&row("touch")).await.unwrap();
        let mut api = Api::start_in(Folder::new(place, SMALL, "", &format!("{TOUCH}{}", with_tokens()))).await;
        goes_on(&api).await;
        let good = api.folder.configuration();

        api.folder.configure(&good.replace("sleep_duration_ms = 5", "sleep_duration_ms = \"often\""));
        api.process.signal("HUP");
        api.process.says("the old one stays in force", PATIENCE).await;
        api.process.says("\"sleep_duration_ms\"", PATIENCE).await;
        goes_on(&api).await;

        let broken = api.folder.path().join("broken.wasm");
        std::fs::write(&broken, "no component").unwrap();
        let controller = |path: &str| format!("{good}[[controller]]\nname = \"steady\"\npath = \"{path}\"\n");
        api.folder.configure(&controller("broken.wasm"));
        api.process.signal("HUP");
        api.process.says("controller \"steady\": ", PATIENCE).await;
        api.process.repeats("the old one stays in force", 2, PATIENCE).await;
        goes_on(&api).await;

        api.folder.configure(&good.replace("name = \"master\"", "name = \"other\""));
        api.process.signal("HUP");
        api.process.says("database \"other\" is new, and cannot be added by a reload", PATIENCE).await;
        api.process.says("database \"master\" is gone, and cannot be given up by a reload", PATIENCE).await;
        goes_on(&api).await;

        let steady = format!("{}[controller.settings]\nsleep_duration_ms = 5\n", controller(COMPONENT));
        api.folder.configure(&steady.replace("max_batch_size = 10", "max_batch_size = 1000"));
        api.process.signal("HUP");
        api.process.says("reloaded: controller steady sets the pace", PATIENCE).await;
        api.process.says("reloaded the configuration and the controllers", PATIENCE).await;
        goes_on(&api).await;
        until("the update is done", async || items(&api).await >= 20_000.0).await;
        assert_eq!(touched(place).await, ["1|20000"]);
        assert!(api.process.ended().is_none(), "{}", api.process.said());
    }

    async fn a_log_in_json_has_a_line_for_each_iteration_and_nothing_else_stands_in_it(place: Place) {
        make_items(place, 50).await;
        place.prepared().await.enqueue(&row("touch")).await.unwrap();
        let controller = format!("[[controller]]\nname = \"steady\"\npath = \"{COMPONENT}\"\n");
        let settings = "[controller.settings]\nsleep_enabled = false\n";
        let folder = Folder::new(place, "max_batch_size = 30\n", "", &format!("{TOUCH}{controller}{settings}{}", with_tokens()));
        let filter = "warn,tidegate=info,tidegate::run=debug";
        let mut host = folder.start(&["--log-format", "json", "--log", filter, "run", "--until-done"]);
        assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
        let lines = logged(&host);
        let iterations: Vec<_> = lines.iter().filter(|line| line["message"] == "iteration").collect();
        assert_eq!(iterations[0]["level"], "DEBUG");
        assert_eq!((&iterations[0]["update"], &iterations[0]["items"]), (&"touch".into(), &30.into()));
        assert_eq!(iterations.last().unwrap()["outcome"], "finished");
        let says = |text: &str| lines.iter().filter(|line| line["message"] == text && line["level"] == "INFO").count();
        assert_eq!((says("touch: started"), says("touch: finished")), (1, 1), "{}", host.said());
    }
}

/// A configuration that never ends, as one on a disk that does not answer: a reload waits for it, the end does not.
#[tokio::test]
async fn a_reload_that_hangs_keeps_no_host_from_ending() {
    let mut api = Api::start(&Place::sqlite(), "", &with_tokens()).await;
    let file = api.folder.path().join("tidegate.toml");
    std::fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    api.process.signal("HUP");
    // Opened for writing without waiting, a pipe is there once somebody reads it.
    let writer = std::sync::OnceLock::new();
    until("the host reads it", async || {
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let opened = std::fs::OpenOptions::new().write(true).custom_flags(nonblock).open(&file);
        opened.is_ok_and(|pipe| writer.set(pipe).is_ok())
    })
    .await;
    assert_eq!(api.get("/api/v1/host", VIEWER).await.status, 200);
    api.process.signal("TERM");
    assert_eq!(api.process.end(PATIENCE).await, 0, "{}", api.process.said());
}

#[tokio::test]
async fn a_service_manager_is_told_of_the_start_of_life_of_reloads_and_of_the_end() {
    let place = Place::sqlite();
    let folder = Folder::new(&place, "", "", &with_tokens());
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = tokio::task::spawn_blocking(move || {
        let (mut told, mut text) = (BTreeSet::new(), [0; 1_024]);
        while !told.contains("STOPPING=1") {
            let length = socket.recv(&mut text).expect("the service manager is told nothing more");
            let lines = String::from_utf8_lossy(&text[..length]).into_owned();
            told.extend(lines.lines().map(|line| line.split("USEC=").next().unwrap().to_owned()));
        }
        told
    });
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
    let mut host = folder.start_with(&["run"], &variables);
    host.says("the API listens on", PATIENCE).await;
    host.says("working on this database", PATIENCE).await;
    host.signal("HUP");
    host.says("reloaded the configuration and the controllers", PATIENCE).await;
    host.signal("TERM");
    assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
    let told: Vec<String> = told.await.unwrap().into_iter().collect();
    assert_eq!(told, ["MONOTONIC_", "READY=1", "RELOADING=1", "STOPPING=1", "WATCHDOG=1"]);
}

#[tokio::test]
async fn an_admin_is_a_viewer_too() {
    let place = Place::sqlite();
    let api = Api::start(&place, "", &with_tokens()).await;
    assert_eq!(api.get("/metrics", ADMIN).await.status, 200);
}

#[test]
fn the_alerts_are_rules_to_prometheus() {
    let checked =
        Command::new("promtool").args(["check", "rules"]).arg(contrib("prometheus/tidegate.rules.yml")).output();
    let checked = checked.expect("promtool: `make setup` installs it");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// The names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("tidegate_") && word.matches('_').count() >= 1).map(str::to_owned).collect()
}

#[test]
fn dashboard_and_alerts_are_about_metrics_that_exist() {
    let described = include_str!("../../host/admin/src/metrics.rs");
    let known = metrics_in(described);
    let used = |name: &str| metrics_in(&std::fs::read_to_string(contrib(name)).unwrap());
    for name in used("grafana/tidegate.json").union(&used("prometheus/tidegate.rules.yml")) {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        assert!(known.contains(family), "nobody serves {name}");
    }
}

#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(contrib("grafana/tidegate.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let rules: Vec<Value> = targets
        .map(|target| target["expr"].as_str().unwrap().replace("$__rate_interval", "5m"))
        .enumerate()
        .map(|(number, expr)| serde_json::json!({"record": format!("panel:{number}"), "expr": expr}))
        .collect();
    assert!(!rules.is_empty());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dashboard.yml");
    // YAML takes JSON as it is.
    std::fs::write(&file, serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()).unwrap();
    let checked = Command::new("promtool").args(["check", "rules"]).arg(&file).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
