//! The standard scenarios: what is shipped comes through them, and every run of them comes out the same.

use tidegate_config::STANDARD;
use tidegate_testing::{Bench, standard};

use crate::guests::{built, minimal};
use crate::support::results::comes_through_and_comes_out_the_same;

#[tokio::test]
async fn steady() {
    comes_through_and_comes_out_the_same("rust-steady", &Bench::load(built("rust-steady")).await.unwrap());
}

#[tokio::test]
async fn office_hours() {
    let bench = Bench::load(built("rust-office-hours")).await.unwrap();
    // Hours that leave a part of every day out, in a time zone whose clocks are changed.
    let windows = "mon-sun 00:00-11:00, mon-sun 12:00-24:00";
    comes_through_and_comes_out_the_same(
        "rust-office-hours",
        &bench.with_setting("windows", windows).with_setting("time_zone", "Europe/Berlin"),
    );
}

#[tokio::test]
async fn lag_guard() {
    comes_through_and_comes_out_the_same("rust-lag-guard", &Bench::load(built("rust-lag-guard")).await.unwrap());
}

#[tokio::test]
async fn gentle() {
    // Batches as long as the others': with its shortest ones a day of the scenarios has a million iterations.
    let bench = Bench::load(built("rust-gentle")).await.unwrap().with_setting("shortest_batch_ms", "100");
    comes_through_and_comes_out_the_same("rust-gentle", &bench);
}

#[tokio::test]
async fn fixed() {
    comes_through_and_comes_out_the_same("c-fixed", &Bench::load(built("c-fixed")).await.unwrap());
}

#[tokio::test]
async fn minimal_in_text() {
    comes_through_and_comes_out_the_same("wat-minimal", &Bench::from_bytes(minimal()).await.unwrap());
}

#[tokio::test]
async fn another_seed_is_another_run() {
    let bench = Bench::load(built("c-fixed")).await.unwrap();
    let mut scenario = standard("noisy-cost").unwrap();
    let one = bench.run(&scenario).unwrap();
    scenario.seed += 1;
    assert_ne!(one.run.seen.batches, bench.run(&scenario).unwrap().run.seen.batches);
}

#[test]
fn there_are_twenty_and_each_is_called_as_its_file_is() {
    assert_eq!(STANDARD.len(), 20);
    for (name, _) in STANDARD {
        assert_eq!(standard(name).map(|scenario| scenario.name).as_deref(), Some(*name));
    }
}
