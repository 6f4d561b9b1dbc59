//! Databases whose controllers take long to compile, beside others that do not wait for them.

use std::path::Path;
use std::time::Duration;

use crate::support::api::{Api, WITHOUT_TOKENS};
use crate::support::binary::Folder;
use crate::support::components::{Guest, of_many_locals};
use crate::support::place::{Place, row};
use crate::support::run::{make_items, touched};
use crate::support::until;

/// A liveness bound.
const PATIENCE: Duration = Duration::from_secs(120);

const TOUCH: &str = "[[update]]\nname = \"touch\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\n\
                     set = \"touched = touched + 1\"\n";

/// The process in which a host compiles a component, stopped.
async fn halted_compiler(host: u32) -> u32 {
    let compiler = || {
        let mut processes = std::fs::read_dir("/proc").unwrap();
        processes.find_map(|entry| compiler(&entry.ok()?.path(), host))
    };
    until("a component is being compiled", async || compiler().is_some()).await;
    let pid = compiler().unwrap();
    signal(pid, "STOP");
    pid
}

/// The number of a process that compiles for a host.
fn compiler(process: &Path, host: u32) -> Option<u32> {
    let pid = process.file_name()?.to_str()?.parse().ok()?;
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    let command = std::fs::read_to_string(process.join("cmdline")).ok()?;
    (status.contains(&format!("PPid:\t{host}\n")) && command.contains("compile-component")).then_some(pid)
}

fn signal(pid: u32, name: &str) {
    let sent = std::process::Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    assert!(sent.success(), "kill -s {name} {pid}");
}

async fn place_with_an_update() -> Place {
    let place = Place::sqlite();
    make_items(&place, 10).await;
    place.prepared().await.enqueue(&row("touch")).await.unwrap();
    place
}

/// A folder with two databases, the first paced by a component that is compiled by now, the second by one that takes all
/// day; and the cache that its host is to be given.
async fn folder(first: &Place, second: &Place) -> (Folder, tempfile::TempDir) {
    let controller = |name: &str, database: &str| {
        format!("[[controller]]\nname = \"{name}\"\npath = \"{name}.wasm\"\ndatabases = [\"{database}\"]\n")
    };
    let (quick, slow) = (controller("quick", "master"), controller("slow", "second"));
    let rest =
        format!("[[database]]\nname = \"second\"\nurl = \"{}\"\n{TOUCH}{quick}{slow}{WITHOUT_TOKENS}", second.url);
    let folder = Folder::new(first, "sleep_enabled = false\npoll_interval_ms = 50", "", &rest);
    let cache = tempfile::tempdir().unwrap();
    folder.write("quick.wasm", Guest::new().component());
    folder.write("slow.wasm", Guest::new().component());
    folder.start_with(&["check"], &[variable(&cache)]).end(PATIENCE).await;
    folder.write("slow.wasm", of_many_locals(40_000));
    (folder, cache)
}

fn variable(cache: &tempfile::TempDir) -> (&str, &str) {
    ("CACHE_DIRECTORY", cache.path().to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_starts_while_another_databases_controller_is_being_compiled() {
    let (first, second) = (place_with_an_update().await, place_with_an_update().await);
    let (folder, cache) = folder(&first, &second).await;
    let host = folder.start_with(&["run"], &[variable(&cache)]);
    let mut api = Api::of(folder, host).await;
    let pid = halted_compiler(api.process.id()).await;

    until("the other database is done", async || touched(&first).await == ["1|10"]).await;
    assert_eq!(touched(&second).await, ["0|10"]);
    let slow = async |api: &Api| api.get("/api/v1/controllers", "").await.json()["controllers"][1].clone();
    let told = slow(&api).await;
    assert_eq!((&told["live"], &told["fault"]), (&false.into(), &serde_json::Value::Null), "{told}");
    assert_eq!(told["not_live_because"], "it is being compiled");
    assert!(api.get("/", "").await.text.contains("being compiled"));

    signal(pid, "KILL");
    api.process.says("second: working on this database", PATIENCE).await;
    api.process.says("second: controller slow: it cannot be loaded", PATIENCE).await;
    until("the second is done, at the fallback's pace", async || touched(&second).await == ["1|10"]).await;
    let told = slow(&api).await;
    assert!(told["fault"]["message"].as_str().unwrap().contains("the compiler's process ended"), "{told}");
    api.process.signal("TERM");
    assert_eq!(api.process.end(PATIENCE).await, 0, "{}", api.process.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_ends_while_a_controller_is_being_compiled() {
    let (first, second) = (place_with_an_update().await, place_with_an_update().await);
    let (folder, cache) = folder(&first, &second).await;
    let mut host = folder.start_with(&["run"], &[variable(&cache)]);
    host.says("second: waits for controller slow", PATIENCE).await;
    let pid = halted_compiler(host.id()).await;
    until("the other database is done", async || touched(&first).await == ["1|10"]).await;
    host.signal("TERM");
    assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
    assert_eq!(touched(&second).await, ["0|10"]);
    // Of one that is not waited for yet there is no command line any more.
    let command = format!("/proc/{pid}/cmdline");
    until("the compiler is gone", async || std::fs::read(&command).unwrap_or_default().is_empty()).await;
}
