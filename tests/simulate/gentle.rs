//! The built-in policy's gentle pace on the simulator: the same rule and the same loop, against a foreground that is
//! modelled.

use std::time::Duration;

use tidegate_config::parse_scenario;
use tidegate_simulate::{Candidate, Run, simulate};

/// A foreground that takes a third of the server, and two thirds from 25 s to 45 s; a batch takes another third.
fn run(host: &str, items: u32, more: &str) -> Run {
    let text = format!(
        "version = 1\n[host]\nmin_batch_size = 1\n{host}\n[load]\nlatency_ms = 4\nbatch_share = 0.3\n\
         step = [{{ at_ms = 0, value = 0.3 }}, {{ at_ms = 25_000, value = 0.6 }}, {{ at_ms = 45_000, value = 0.3 }}]\n\
         [[update]]\nname = \"u\"\nitems = {items}\ncost_ms = 0.1\nbatch_ms = 0.2\n\
         [[signal]]\nname = \"probe-latency\"\nforeground = true\nevery_ms = 250\n{more}"
    );
    let scenario = parse_scenario(&text, std::path::Path::new("gentle.toml"));
    let scenario = scenario.unwrap_or_else(|errors| panic!("{errors:?}"));
    simulate(&Candidate::BuiltIn, &scenario, None).unwrap()
}

/// With batches that are longer than usual, so that there are fewer of them.
const GENTLE: &str = "pace = \"gentle\"\n[host.gentle]\nshortest_batch_ms = 30\n";

/// The part of a time in which batches ran.
fn duty(run: &Run, from_s: u64, until_s: u64) -> f64 {
    let (from, until) = (Duration::from_secs(from_s), Duration::from_secs(until_s));
    let within = run.seen.batches.iter().filter(|batch| (from..until).contains(&batch.at));
    within.filter_map(|batch| batch.duration).map(|duration| duration.as_secs_f64()).sum::<f64>()
        / (until - from).as_secs_f64()
}

/// The foreground's mean latency in a time, in milliseconds.
fn latency(run: &Run, from_s: u64, until_s: u64) -> f64 {
    let (from, until) = (Duration::from_secs(from_s), Duration::from_secs(until_s));
    let points = run.foreground.points.iter().filter(|(at, _)| (from..until).contains(at));
    let values: Vec<f64> = points.map(|(_, value)| *value).collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn it_gives_the_foreground_what_it_needs_and_takes_what_is_left() {
    let gentle = run(GENTLE, 140_000, "");
    let (calm, busy, again) = (duty(&gentle, 12, 25), duty(&gentle, 33, 45), duty(&gentle, 57, 67));
    // A quarter more than by itself is what is allowed: where a batch adds three quarters, a third of the time.
    assert!((0.25..0.42).contains(&calm), "{calm}");
    // It adds three times as much to a foreground that is busy already.
    assert!(busy < calm / 2.0, "{busy}, {calm}");
    assert!((again - calm).abs() < 0.08, "{again}, {calm}");
    // Without rests it would be felt; at the defaults it takes several times as long.
    let steady = run("sleep_enabled = false", 140_000, "");
    let (felt, otherwise) = (latency(&gentle, 12, 18), latency(&steady, 12, 18));
    assert!(felt < otherwise * 0.8, "{felt}, {otherwise}");
    let time = |run: &Run| run.finished_at.unwrap();
    assert!(time(&gentle) * 2 < time(&run("", 140_000, "")), "{:?}", time(&gentle));
}

#[test]
fn at_night_it_takes_all_that_it_may() {
    let night = run(&format!("{GENTLE}most_duty_percent = 95\nallowed_excess_ms = 50\n"), 140_000, "");
    let duty = duty(&night, 12, 18);
    assert!((0.8..0.95).contains(&duty), "{duty}");
    let longest = night.seen.batches.iter().filter_map(|batch| batch.duration).max().unwrap();
    assert!(longest > Duration::from_millis(80), "{longest:?}: batches grow");
}

#[test]
fn readings_that_grow_old_mean_care_and_none_means_the_defaults() {
    let lost = run(GENTLE, 65_000, "loss = [{ from_ms = 20_000, until_ms = 40_000 }]\n");
    let (before, meanwhile) = (duty(&lost, 15, 20), duty(&lost, 26, 40));
    assert!(before > 0.2 && meanwhile < 0.03, "{before}, {meanwhile}");
    let gone = run(GENTLE, 20_000, "loss = [{ from_ms = 0, until_ms = 86_400_000, gone = true }]\n");
    let plain = duty(&gone, 5, 15);
    assert!((0.08..0.12).contains(&plain), "{plain}");
}

#[test]
fn it_rests_no_longer_than_configured() {
    let longest = |text: &str| {
        let bounds =
            format!("{GENTLE}least_duty_percent = 1\nallowed_excess_percent = 1\nallowed_excess_ms = 0\n{text}");
        let run = run(&bounds, 10_000, "");
        run.seen.holds.iter().map(|hold| hold.duration).max().unwrap()
    };
    assert_eq!(longest("longest_sleep_ms = 500"), Duration::from_millis(500));
    assert!(longest("") > Duration::from_millis(2_500));
}
