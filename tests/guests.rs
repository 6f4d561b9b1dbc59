//! The controllers of `guests/`, built from their sources and run as an operator would.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use tidegate::controller::{Admission, Controller, Fault, FaultKind, Outcome, Source, Subject};
use tidegate_wasm::{Artifact, ComponentSource, LoadOptions};

use crate::support::components::{CONTRACT, component};

/// The component of a controller, built anew where its sources are newer. Each is built once, whatever the tests.
pub fn built(name: &str) -> PathBuf {
    static BUILT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests");
    let mut built = BUILT.lock().unwrap();
    if !built.contains(name) {
        // Where the host is built is not where guests are.
        let make =
            Command::new("make").arg("-C").arg(&guests).arg(name).env_remove("CARGO_TARGET_DIR").output().unwrap();
        assert!(make.status.success(), "see guests/install-tools.sh\n{}", String::from_utf8_lossy(&make.stderr));
        built.insert(name.to_owned());
    }
    guests.join("target/components").join(name).with_extension("wasm")
}

/// The component of `wat-minimal`, made by the libraries of the tool that its README names: `component embed` and
/// `component new`.
pub fn minimal() -> Vec<u8> {
    component(include_str!("../guests/wat-minimal/minimal.wat"), CONTRACT, "controller")
}

async fn start(name: &str, settings: &[(&str, &str)]) -> Box<dyn Controller> {
    let artifact = Artifact::load(&built(name), &LoadOptions::default()).await.unwrap();
    let is_granted = |import: &String| {
        import.starts_with("tidegate:controller/")
            || name == "rust-office-hours" && import.starts_with("wasi:clocks/wall-clock@")
    };
    assert!(artifact.imports().iter().all(is_granted), "{:?}", artifact.imports());
    let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ComponentSource::new(name, artifact).with_settings(settings).start("master").await.unwrap()
}

/// The answers of `enter` up to `run`, in one iteration.
async fn iterate(controller: &mut dyn Controller) -> Result<Vec<Admission>, Fault> {
    let subject = Subject { update_name: "u".to_owned(), database_name: "master".to_owned(), one_shot: false };
    let mut iteration = controller.on_update(&subject).await?;
    let mut answers = vec![iteration.enter().await?];
    while matches!(answers.last(), Some(Admission::Wait { .. })) {
        answers.push(iteration.enter().await?);
    }
    iteration.exit(&Outcome::Failed("deadlock".to_owned())).await?;
    iteration.close().await?;
    Ok(answers)
}

fn run(ms: u64) -> Admission {
    Admission::Run(Duration::from_millis(ms))
}

fn sleep(ms: u64) -> Admission {
    Admission::Wait { duration: Duration::from_millis(ms), reason: "sleep between iterations".to_owned() }
}

#[tokio::test]
async fn steady_sleeps_before_each_iteration_as_synapse_does() {
    let mut controller = start("rust-steady", &[]).await;
    for _ in 0..2 {
        assert_eq!(iterate(&mut *controller).await, Ok(vec![sleep(1_000), run(100)]));
    }
    assert_eq!(controller.default_batch_size("u", "master").await, Ok(Some(100)));
    assert_eq!(controller.min_batch_size("u", "master").await, Ok(Some(100)));
}

#[tokio::test]
async fn steady_does_as_its_settings_say() {
    let settings = [("sleep_duration_ms", "20"), ("background_update_duration_ms", "50"), ("min_batch_size", "7")];
    let mut controller = start("rust-steady", &settings).await;
    assert_eq!(iterate(&mut *controller).await, Ok(vec![sleep(20), run(50)]));
    assert_eq!(controller.min_batch_size("u", "master").await, Ok(Some(7)));
    let mut awake = start("rust-steady", &[("sleep_enabled", "false"), ("default_batch_size", "9")]).await;
    assert_eq!(iterate(&mut *awake).await, Ok(vec![run(100)]));
    assert_eq!(awake.default_batch_size("u", "master").await, Ok(Some(9)));
}

#[tokio::test]
async fn fixed_runs_at_once_and_leaves_batch_sizes_to_the_host() {
    for (settings, target) in [(&[][..], 100), (&[("target_ms", "2147483647")][..], 2_147_483_647)] {
        let mut controller = start("c-fixed", settings).await;
        assert_eq!(iterate(&mut *controller).await, Ok(vec![run(target)]));
        assert_eq!(controller.default_batch_size("u", "master").await, Ok(None));
        assert_eq!(controller.min_batch_size("u", "master").await, Ok(None));
    }
}

#[tokio::test]
async fn minimal_runs_at_once_imports_nothing_and_leaves_batch_sizes_to_the_host() {
    let artifact = Artifact::from_bytes(minimal(), &LoadOptions::default()).await.unwrap();
    assert!(artifact.imports().is_empty(), "{:?}", artifact.imports());
    let mut controller = ComponentSource::new("minimal", artifact).start("master").await.unwrap();
    for _ in 0..2 {
        assert_eq!(iterate(&mut *controller).await, Ok(vec![run(100)]));
    }
    assert_eq!(controller.default_batch_size("u", "master").await, Ok(None));
    assert_eq!(controller.min_batch_size("u", "master").await, Ok(None));
}

/// Fuel of the calls of one iteration, which waits where it is outside its hours.
async fn fuel_of_an_iteration(controller: &mut dyn Controller) -> u64 {
    let subject = Subject { update_name: "u".to_owned(), database_name: "master".to_owned(), one_shot: false };
    let mut iteration = controller.on_update(&subject).await.unwrap();
    iteration.enter().await.unwrap();
    iteration.close().await.unwrap();
    controller.take_usage().unwrap().fuel
}

/// The calendar itself is tested where it is written; here is that it runs on little fuel, and by the host's clock.
#[tokio::test]
async fn office_hours_are_always_or_never_by_the_hosts_clock_and_on_little_fuel() {
    let always = [("windows", "mon-fri 00:00-24:00, sat-sun 00:00-24:00"), ("time_zone", "Europe/Berlin")];
    let mut controller = start("rust-office-hours", &[always[0], always[1], ("target_ms", "70")]).await;
    assert_eq!(iterate(&mut *controller).await, Ok(vec![run(70)]));
    let windows = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].map(|day| format!("{day} 00:00-00:01"));
    let many = vec![windows.join(", "); 7].join(", ");
    for (windows, most) in [(always[0].1, 200_000), (many.as_str(), 1_000_000)] {
        let mut controller = start("rust-office-hours", &[("windows", windows), always[1]]).await;
        let first = fuel_of_an_iteration(&mut *controller).await;
        let later = fuel_of_an_iteration(&mut *controller).await;
        assert!(later < first && first < most, "{first}, then {later}");
    }
}

#[tokio::test]
async fn a_setting_that_does_not_parse_is_named_and_nothing_runs() {
    let cases = [
        ("rust-steady", "sleep_enabled", "maybe"),
        ("rust-steady", "min_batch_size", "-1"),
        ("c-fixed", "target_ms", "2147483648"),
        ("c-fixed", "target_ms", ""),
        ("rust-office-hours", "target_ms", "100"),
        ("rust-lag-guard", "max_replication_lag_ms", "much"),
        ("rust-gentle", "target_latency_ms", "-1"),
        ("rust-office-hours", "windows", "mon-fry 22:00-06:00"),
        ("rust-office-hours", "windows", "22:00-"),
    ];
    let mut faults = Vec::new();
    for (guest, key, value) in cases {
        let mut controller = start(guest, &[(key, value)]).await;
        let fault = iterate(&mut *controller).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::ErrorReturned);
        faults.push(fault.to_string());
    }
    insta::assert_snapshot!("settings_that_do_not_parse", faults.join("\n"));
}

/// The gentle pace is one rule: a guest's copy can be built alone, and is changed together with the host's.
#[test]
fn the_gentle_guest_has_the_hosts_own_rule() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    assert_eq!(read("guests/rust-gentle/src/gentle.rs"), read("host/core/src/pace/gentle.rs"));
}

#[test]
fn guests_carry_the_contract_as_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let contract = std::fs::read_to_string(root.join("wit/controller.wit")).unwrap();
    let all =
        ["rust-steady", "rust-office-hours", "rust-lag-guard", "rust-gentle", "c-fixed", "wat-minimal", "hostile"];
    for guest in all {
        let copy = std::fs::read_to_string(root.join("guests").join(guest).join("wit/controller.wit")).unwrap();
        assert_eq!(copy, contract, "{guest}");
    }
    let contract = std::fs::read_to_string(root.join("wit/handler.wit")).unwrap();
    for guest in ["rust-upper", "hostile-transform"] {
        let copy = std::fs::read_to_string(root.join("guests").join(guest).join("wit/handler.wit")).unwrap();
        assert_eq!(copy, contract, "{guest}");
    }
}
