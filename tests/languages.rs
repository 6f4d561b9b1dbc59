//! The tutorials and the controllers in the languages whose tools come from package registries: `make test-languages`. Not
//! a part of `make test`, and a binary of its own for that.

#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/results.rs"]
mod results;
#[path = "support/tutorial.rs"]
mod tutorial;

use std::path::{Path, PathBuf};
use std::process::Command;

use results::comes_through_and_comes_out_the_same;
use tidegate_testing::Bench;
use tutorial::follow;

#[test]
fn the_tutorial_in_javascript_works_as_it_is_written() {
    follow("javascript");
}

#[test]
fn the_tutorial_in_python_works_as_it_is_written() {
    follow("python");
}

#[test]
fn the_tutorial_in_assemblyscript_works_as_it_is_written() {
    follow("assemblyscript");
}

#[test]
fn the_tutorial_in_go_works_as_it_is_written() {
    follow("go");
}

#[test]
fn the_tutorial_in_zig_works_as_it_is_written() {
    follow("zig");
}

/// The component of a controller of `guests/`, built by its Makefile.
fn built(name: &str) -> PathBuf {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests");
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(&guests)
        .arg(name)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL");
    let made = make.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    guests.join("target/components").join(name).with_extension("wasm")
}

/// Takes a controller through every standard scenario, with this setting.
fn test_in_each_standard_scenario(name: &str, (key, value): (&str, &str)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bench = runtime.block_on(Bench::load(built(name))).unwrap();
    comes_through_and_comes_out_the_same(name, &bench.with_setting(key, value));
}

/// Runs a controller through a scenario: its own, or a standard one, with this setting besides.
fn test_guest(name: &str, scenario: &str, setting: &str) -> String {
    let component = built(name);
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests");
    let mut test = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
    test.current_dir(guests.join(name)).env("XDG_CACHE_HOME", shared).env("COLUMNS", "100").env_remove("RUST_LOG");
    let component = component.to_str().unwrap();
    let arguments = ["--log", "error", "controller", "test", component, scenario, "--set", setting];
    let tested = test.args(arguments).output().unwrap();
    [tested.stdout, tested.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat()
}

#[test]
fn a_canary_goes_at_full_speed_once_its_small_batches_succeeded() {
    let told = test_guest("js-canary", "scenario.toml", "canary_batches=10");
    assert!(told.contains("js-canary: passed; finished at 0:00:26.622, 50,000 items in 280 batches"), "{told}");
    let told = test_guest("js-canary", "failure-burst", "canary_batches=10");
    assert!(told.contains("failure-burst: passed"), "{told}");
    // Without the canary there are fewer, larger batches.
    let told = test_guest("js-canary", "scenario.toml", "canary_batches=0");
    assert!(told.contains("50,000 items in 26"), "{told}");
    let told = test_guest("js-canary", "scenario.toml", "canary_batches=ten");
    assert!(told.contains("setting `canary_batches` is \"ten\", not a number"), "{told}");
    test_in_each_standard_scenario("js-canary", ("canary_batches", "10"));
}

#[test]
fn a_budget_is_kept_whatever_an_item_costs() {
    let told = test_guest("as-budget", "scenario.toml", "items_per_second=1000");
    assert!(told.contains("as-budget: passed; finished at 0:01:40"), "{told}");
    let told = test_guest("as-budget", "cost-steps", "items_per_second=1000");
    assert!(told.contains("cost-steps: passed"), "{told}");
    // Half the budget takes twice as long, which is longer than the scenario allows.
    let told = test_guest("as-budget", "scenario.toml", "items_per_second=500");
    assert!(told.contains("FAIL  finished_within_ms: finished at 0:03:20"), "{told}");
    let told = test_guest("as-budget", "scenario.toml", "items_per_second=0");
    assert!(told.contains("setting `items_per_second` is 0: nothing would ever run"), "{told}");
    test_in_each_standard_scenario("as-budget", ("items_per_second", "1000"));
}

#[test]
fn the_pace_in_zig_is_synapses() {
    let told = test_guest("zig-steady", "scenario.toml", "sleep_duration_ms=1000");
    assert!(told.contains("zig-steady: passed; finished at 0:01:53.276, 20,000 items in 103 batches"), "{told}");
    let told = test_guest("zig-steady", "restart", "sleep_duration_ms=1000");
    assert!(told.contains("restart: passed"), "{told}");
    let told = test_guest("zig-steady", "scenario.toml", "sleep_enabled=false");
    assert!(told.contains("zig-steady: passed; finished at 0:00:1"), "{told}");
    let told = test_guest("zig-steady", "scenario.toml", "sleep_enabled=maybe");
    assert!(told.contains("setting `sleep_enabled` is \"maybe\", not true or false"), "{told}");
    test_in_each_standard_scenario("zig-steady", ("sleep_duration_ms", "1000"));
}

#[test]
fn the_guard_in_python_decides_as_the_one_in_rust_does() {
    let told = test_guest("py-lag-guard", "scenario.toml", "max_waiting_sessions=3");
    assert!(told.contains("py-lag-guard: passed; finished at 0:05:36.887, 200,000 items in 1,027 batches"), "{told}");
    // The times of `rust-lag-guard` in the book's page of results.
    for (scenario, finished) in
        [("lag-spikes", "0:02:25.844"), ("dead-signal", "0:11:12.719"), ("lost-signal", "0:06:31.815")]
    {
        let told = test_guest("py-lag-guard", scenario, "max_waiting_sessions=3");
        assert!(told.contains(&format!("{scenario}: passed; finished at {finished}")), "{told}");
    }
    let told = test_guest("py-lag-guard", "scenario.toml", "max_replication_lag_ms=much");
    assert!(told.contains("setting `max_replication_lag_ms` is \"much\", neither a number of 0 or more nor"), "{told}");
    let told = test_guest("py-lag-guard", "scenario.toml", "resume_replication_lag_ms=1001");
    assert!(told.contains("is 1001, more than `max_replication_lag_ms`, which is 1000"), "{told}");
    test_in_each_standard_scenario("py-lag-guard", ("max_waiting_sessions", "3"));
}

#[test]
fn the_budget_in_go_is_the_one_in_assemblyscript() {
    let told = test_guest("go-budget", "scenario.toml", "items_per_second=1000");
    assert!(told.contains("go-budget: passed; finished at 0:01:40.234, 100,000 items in 227 batches"), "{told}");
    let told = test_guest("go-budget", "cost-steps", "items_per_second=1000");
    assert!(told.contains("cost-steps: passed; finished at 0:02:36.480"), "{told}");
    let told = test_guest("go-budget", "scenario.toml", "items_per_second=500");
    assert!(told.contains("FAIL  finished_within_ms: finished at 0:03:20"), "{told}");
    let told = test_guest("go-budget", "scenario.toml", "items_per_second=0");
    assert!(told.contains("setting `items_per_second` is 0: nothing would ever run"), "{told}");
    test_in_each_standard_scenario("go-budget", ("items_per_second", "1000"));
}

/// What is the contract in a language is the same in the template and in the controllers.
#[test]
fn guests_carry_the_contract_and_what_speaks_it_as_the_templates_do() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    for guest in ["js-canary", "as-budget", "zig-steady", "py-lag-guard", "go-budget"] {
        assert_eq!(read(&format!("guests/{guest}/wit/controller.wit")), read("wit/controller.wit"), "{guest}");
    }
    for (guest, template, file) in [
        ("as-budget", "assemblyscript", "contract.ts"),
        ("as-budget", "assemblyscript", "exports.ts"),
        ("as-budget", "assemblyscript", "names.mjs"),
        ("zig-steady", "zig", "contract.zig"),
        ("zig-steady", "zig", "requirements.txt"),
        ("py-lag-guard", "python", "requirements.txt"),
        ("go-budget", "go", "contract.go"),
        ("go-budget", "go", "wasi.wat"),
        ("go-budget", "go", "requirements.txt"),
    ] {
        let (copy, original) =
            (read(&format!("guests/{guest}/{file}")), read(&format!("host/templates/{template}/{file}")));
        assert_eq!(copy, original, "{guest}/{file}");
    }
}
