//! One table: what the controller does, and what comes of it.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::Value;

use super::{PACE, hostile};
use crate::assert_told;
use crate::controllers::assert_done;
use crate::support::on_both;
use crate::support::place::Place;

/// Work is over before its deadline on however slow a machine, but where the deadline is what is tried.
const PATIENT: &str = "deadline_ms = 60000";

const MASKS: &[(&str, &str)] = &[PACE, ("(?:as told ){20,}", "as told [many times] ")];

/// What is misbehaved, in which way, within which limits.
const CASES: &[(&str, &str, &str)] = &[
    ("target 0", "misbehave = 'target'", PATIENT),
    ("target 2^32-1", "misbehave = 'target'\namount = 4294967295", PATIENT),
    ("a first batch of 0", "misbehave = 'batch-size'\nin = 'default-batch-size'\ntarget_ms = 0", PATIENT),
    ("a first batch of 2^32-1", "misbehave = 'batch-size'\nin = 'default-batch-size'\namount = 4294967295", PATIENT),
    ("a later batch of 0", "misbehave = 'batch-size'\nin = 'min-batch-size'\ncall = 1\ntarget_ms = 0", PATIENT),
    ("later batches of 2^32-1", "misbehave = 'batch-size'\nin = 'min-batch-size'\namount = 4294967295", PATIENT),
    ("a wait of 0", "misbehave = 'wait'\namount = 0\ncall = 1", PATIENT),
    ("a reason of 1 MiB", "misbehave = 'reason'\ncall = 1", PATIENT),
    ("a reason of more than 1 MiB", "misbehave = 'reason'\namount = 1048577", PATIENT),
    ("an error of 1 MiB", "misbehave = 'error'\namount = 1048576", PATIENT),
    ("2,000 handles", "misbehave = 'handles'", PATIENT),
    ("a loop without end", "misbehave = 'loop'", PATIENT),
    // With less fuel, because a host that is built for tests takes its time over each call.
    ("a loop of host calls without end", "misbehave = 'host-calls'", "deadline_ms = 60000\nfuel_per_call = 1000000"),
    ("recursion without end", "misbehave = 'recursion'", PATIENT),
    ("memory without end", "misbehave = 'memory'", PATIENT),
    ("a leak in each call", "misbehave = 'leak'\namount = 20480", "deadline_ms = 60000\nmemory_bytes = 1179648"),
    ("a sleep of an hour inside enter", "misbehave = 'sleep'", "deadline_ms = 200"),
    ("an exit of the whole guest", "misbehave = 'exit'", PATIENT),
    ("a text that lies outside of memory", "misbehave = 'bad-pointer'", PATIENT),
    ("a text that is not UTF-8", "misbehave = 'bad-text'", PATIENT),
    ("an iteration that does not exist", "misbehave = 'bad-handle'\nin = 'on-update'", PATIENT),
    ("an answer that lies outside of memory", "misbehave = 'bad-answer'", PATIENT),
    ("another update's misbehaviour", "misbehave = 'trap'\nupdate = 'another'", PATIENT),
];

/// Runs one case until all is done; tells what the operator saw, and what the history keeps of it.
async fn outcome(place: &Place, case: &str, settings: &str, limits: &str) -> String {
    let site = hostile(place, settings, limits).await;
    let told = site.tidegate(&["run", "--until-done"]).await;
    assert_eq!(told.code, 0, "{case}: {}", told.all());
    assert_done(place, case).await;
    format!("## {case}\n{}\n{}\n\n", told.all(), kept(place).await)
}

/// What the history keeps, without what depends on the machine.
async fn kept(place: &Place) -> String {
    let rows = place.rows("select record from tidegate_history order by id").await;
    let records: Vec<Value> = rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    let all = |key: &str| {
        let values = records.iter().map(|record| match &record[key] {
            Value::String(text) if text.len() > 40 => {
                format!("{}… of {} bytes, ends {:?}", &text[..15], text.len(), &text[text.len() - 20..])
            }
            value => value.to_string(),
        });
        values.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
    };
    let (first, second) = (&records[0]["batch_size"], &records[1]["batch_size"]);
    format!(
        "first batches {first}, {second}; targets {}; reasons {}; outcomes {}; controllers {}",
        all("target_ms"),
        all("wait_reason"),
        all("outcome"),
        all("controller")
    )
}

on_both! {
    async fn each_extreme_has_the_outcome_that_is_promised_and_each_row_is_touched_once(place: Place) {
        let mut report = String::new();
        // A few at a time: most of their time goes by in waiting.
        for cases in CASES.chunks(3) {
            let outcomes = cases.iter().map(async |(case, settings, limits)| {
                outcome(&place.another().await, case, settings, limits).await
            });
            report += &join_all(outcomes).await.concat();
        }
        assert_told!(MASKS, "extremes", report);
    }

    async fn ten_thousand_lines_in_one_call_are_few_lines_and_a_count(place: Place) {
        let site = hostile(place, "misbehave = 'log'\ncall = 1", PATIENT).await;
        let told = site.tidegate(&["--log", "info", "run", "--until-done"]).await;
        assert_done(place, "log").await;
        let lines = told.err.lines().filter(|line| line.contains("tidegate::controller"));
        let (told_of, written): (Vec<_>, Vec<_>) = lines.partition(|line| line.contains("source=sandbox"));
        let count = |line: &&str| line.split_once("… ").unwrap().1.split(' ').next().unwrap().parse::<usize>().unwrap();
        let dropped: usize = told_of.iter().map(count).sum();
        // A hundred for each second that it took, on however slow a machine.
        assert!(written.len() >= 100 && written.len() <= 100 * (told_of.len() + 1), "{}", told.all());
        assert_eq!(written.len() + dropped, 10_000, "{}", told.all());
        assert!(!told.err.contains("controller guest: "), "{}", told.all());
    }

    async fn whatever_would_lead_out_of_the_sandbox_is_refused_and_is_no_fault(place: Place) {
        let site = hostile(place, "misbehave = 'outside'\ncall = 1", PATIENT).await;
        let told = site.tidegate(&["--log", "info", "run", "--until-done"]).await;
        assert_done(place, "outside").await;
        assert!(!told.err.contains("controller guest: "), "{}", told.all());
        let lines = told.err.lines().filter_map(|line| line.split_once("tidegate::controller::guest: "));
        assert_told!(&[], "outside", lines.map(|(_, line)| line).collect::<Vec<_>>().join("\n"));
    }
}
