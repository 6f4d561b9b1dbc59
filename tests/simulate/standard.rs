//! The standard scenarios: what is shipped comes through them, and every run of them comes out the same.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidegate::config::STANDARD;
use tidegate::simulate::figures;
use tidegate::simulate::judge::time;
use tidegate::testing::{Bench, standard};

use crate::guests::{built, minimal};

/// Where the book tells what became of each guest in each scenario.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/results.md");

const HEADINGS: &str = "| scenario | finished at | worst overshoot | foreground latency | fuel per iteration |\n\
                        | --- | --- | --- | --- | --- |";

/// Takes a guest through every standard scenario twice: each call, each batch, each reading has to be the same. What the
/// book tells of it has to be so, the fuel aside, which the compiler of the guest decides.
fn comes_through_and_comes_out_the_same(guest: &str, bench: &Bench) {
    let mut rows = Vec::new();
    for (name, _) in STANDARD {
        let scenario = standard(name).unwrap_or_else(|| panic!("{name} cannot be read"));
        let trial = bench.run(&scenario).unwrap();
        trial.assert_met();
        let again = bench.run(&scenario).unwrap();
        assert!(trial == again, "{name} came out differently");
        let figures = figures(&trial.run);
        let finished = time(Duration::from_millis(figures.finished_at_ms.unwrap()));
        let (worst, foreground) = (figures.worst_over_target, figures.foreground_p95_ms);
        rows.push((
            format!("| `{name}` | {finished} | {worst:.1} × | {foreground:.1} ms |"),
            format!(" {} |", figures.fuel_per_iteration),
        ));
    }
    compare_with_the_book(guest, &rows);
}

fn compare_with_the_book(guest: &str, rows: &[(String, String)]) {
    static BOOK: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let book = fs::read_to_string(RESULTS).unwrap();
    let heading = format!("## `{guest}`\n");
    let (before, section) = book.split_once(&heading).unwrap_or_else(|| panic!("{RESULTS} has no section on {guest}"));
    let (section, after) = section.split_once("\n## ").map_or((section, None), |(own, rest)| (own, Some(rest)));
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        let rows: Vec<String> = rows.iter().map(|(row, fuel)| format!("{row}{fuel}")).collect();
        let after = after.map_or(String::new(), |rest| format!("\n## {rest}"));
        let text = section.split("\n| ").next().unwrap().trim_end();
        fs::write(RESULTS, format!("{before}{heading}{text}\n\n{HEADINGS}\n{}\n{after}", rows.join("\n"))).unwrap();
        return;
    }
    for (row, _) in rows {
        assert!(section.contains(row), "docs/src/results.md is stale: `INSTA_UPDATE=always` mends it: {row}");
    }
}

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
    comes_through_and_comes_out_the_same("rust-gentle", &Bench::load(built("rust-gentle")).await.unwrap());
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
