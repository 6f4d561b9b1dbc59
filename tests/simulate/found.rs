//! Bad policies, which the standard scenarios find, with the first moment at which each showed.

use tidegate_simulate::{Scenario, Verdict};
use tidegate_testing::{Bench, standard};

use super::scenario;
use crate::guests::built;
use crate::support::components::Guest;

/// The verdict on an expectation that was not met.
fn unmet(bench: &Bench, scenario: &Scenario, expectation: &str) -> Verdict {
    let trial = bench.run(scenario).unwrap();
    let found = trial.unmet().find(|verdict| verdict.expectation == expectation).cloned();
    found.unwrap_or_else(|| panic!("{expectation} was met: {:?}", trial.verdicts))
}

#[tokio::test]
async fn an_endless_loop_for_one_update_name_alone() {
    let hostile = Bench::load(built("hostile")).await.unwrap();
    let bench = hostile.with_setting("misbehave", "loop").with_setting("update", "event_search");
    bench.run(&standard("calm").unwrap()).unwrap().assert_met();
    let verdict = unmet(&bench, &standard("odd-names").unwrap(), "no_fault");
    let first = verdict.first.unwrap();
    assert_eq!(first.update.as_deref(), Some("event_search"));
    assert!(first.what.starts_with("out of fuel in enter"), "{first}");
}

#[tokio::test]
async fn a_leak_of_a_kibibyte_a_call() {
    let hostile = Bench::load(built("hostile")).await.unwrap();
    let bench = hostile.with_setting("misbehave", "leak").with_setting("amount", "1024");
    let verdict = unmet(&bench, &standard("tiny-updates").unwrap(), "memory_growth_bytes_at_most");
    let first = verdict.first.unwrap();
    // An enter for each update, an update every 1.5 s: 4 MiB are gone after 4,096 of them, and a thousand calls that
    // an instance has to get warm.
    assert!((4_096..6_000).contains(&(first.at_ms / 1_500)), "{first}");
}

/// Whose on-update turns a loop for each update that it was ever asked about.
fn remembering() -> Guest {
    Guest::new().fields("(global $updates (mut i32) (i32.const 0))").on_update(
        "(local $left i32)
         (global.set $updates (i32.add (global.get $updates) (i32.const 1)))
         (local.set $left (global.get $updates))
         (loop $again
           (local.set $left (i32.sub (local.get $left) (i32.const 1)))
           (br_if $again (local.get $left)))
         (call $iteration)",
    )
}

#[tokio::test]
async fn fuel_that_grows_with_the_number_of_updates() {
    let bench = Bench::from_bytes(remembering().component()).await.unwrap();
    let verdict = unmet(&bench, &standard("tiny-updates").unwrap(), "fuel_growth_at_most");
    let first = verdict.first.unwrap();
    assert!(first.what.starts_with("on-update uses ") && first.at_ms > 150_000, "{first}");
}

const SMALL: &str = "version = 1\n[[update]]\nname = \"u\"\nitems = 1_000\ncost_ms = 1\n";

#[tokio::test]
async fn each_expectation_can_fail_and_tells_when_it_did() {
    let mut guest = Guest::new();
    let reason = guest.text("not yet");
    // Waits ten seconds before the first batch, and runs batches of 100 ms.
    let guest = guest.fields("(global $waited (mut i32) (i32.const 0))").enter(format!(
        "(if (i32.eqz (global.get $waited))
           (then (global.set $waited (i32.const 1)) (return (call $wait (i32.const 10000) {reason}))))
         (call $run (i32.const 100))"
    ));
    let bench = Bench::from_bytes(guest.component()).await.unwrap();
    let signal = "[[signal]]\nname = \"lag\"\nstep = [{ at_ms = 0, value = 5 }]\n";
    let cases = [
        ("fuel_per_call_at_most = 1", "fuel_per_call_at_most", 0),
        ("memory_bytes_at_most = 1", "memory_bytes_at_most", 0),
        ("finished_within_ms = 10_500", "finished_within_ms", 10_500),
        ("mean_over_target_at_most = 0.5", "mean_over_target_at_most", 10_000),
        ("p95_over_target_at_most = 0.9", "p95_over_target_at_most", 10_000),
        ("foreground_latency_ms_below = 5", "foreground_latency_ms_below", 0),
        ("never_runs = [{ daily = \"11:00-12:01\" }]", "never_runs", 10_000),
        ("never_runs = [{ daily = \"23:00-12:01\" }]", "never_runs", 10_000),
        (
            "never_runs = [{ from = 2026-01-05T12:00:00Z, until = \"2026-01-05T13:00:00+01:00\" }, \
             { from = 2026-01-05T12:00:10Z, until = 2026-01-05T12:00:11Z }]",
            "",
            0,
        ),
        ("held_while = [{ signal = \"lag\", above = 4 }]", "held_while", 10_000),
    ];
    for (expectation, key, at_ms) in cases {
        let text = format!("{SMALL}{signal}[expect]\n{expectation}\n");
        if key.is_empty() {
            // The first window is empty, and refused.
            assert!(tidegate_testing::parse_scenario(&text, std::path::Path::new("s.toml")).is_err());
            continue;
        }
        let verdict = unmet(&bench, &scenario(&text), key);
        assert_eq!(verdict.first.map(|first| first.at_ms), Some(at_ms), "{expectation}");
    }
    let met = "no_fault = true\nexit_for_every_run = true\nfinished_within_ms = 12_000\nmean_over_target_at_most = 1.1\n\
               foreground_latency_ms_below = 8\nnever_runs = [{ daily = \"12:01-11:00\" }]\n\
               held_while = [{ signal = \"lag\", above = 5 }]";
    bench.run(&scenario(&format!("{SMALL}{signal}[expect]\n{met}\n"))).unwrap().assert_met();
}

#[tokio::test]
async fn a_run_without_an_exit_is_no_fault_where_the_instance_was_lost() {
    let bench = Bench::from_bytes(Guest::new().min_batch_size("unreachable").component()).await.unwrap();
    let trial = bench.run(&scenario(&format!("{SMALL}[expect]\nexit_for_every_run = true\n"))).unwrap();
    trial.assert_met();
    assert!(trial.run.seen.runs > trial.run.seen.exits);
    assert!(trial.run.seen.fallback.is_some() && trial.run.finished_at.is_some());
}
