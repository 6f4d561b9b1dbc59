//! A guest in every standard scenario, and the book's page of what becomes of it.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidegate_config::STANDARD;
use tidegate_simulate::figures;
use tidegate_simulate::judge::time;
use tidegate_testing::{Bench, standard};

/// Where the book tells what became of each guest in each scenario.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/results.md");

const HEADINGS: &str = "| scenario | finished at | worst overshoot | foreground latency | fuel per iteration |\n\
                        | --- | --- | --- | --- | --- |";

/// Takes a guest through every standard scenario twice: each call, each batch, each reading has to be the same. What the
/// book tells of it has to be so, the fuel aside, which the compiler of the guest decides.
pub fn comes_through_and_comes_out_the_same(guest: &str, bench: &Bench) {
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
