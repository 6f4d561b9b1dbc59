#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::path::Path;

use tidegate::scheduler::database::{Activity, ControllerRetry, Failure, Holder, Pause, Queue, QueueRow, Work};
use tidegate::scheduler::report::{Snapshot, UpdatePace};
use tidegate::scheduler::update_state::{LaneState, UpdateState};
use tidegate::update::sql::Estimate;
use tidegate_config::Config;

use super::super::report::{self, DatabaseReport, RetryReport, SignalReport, StatusReport};

fn configured() -> tidegate_config::Database {
    let text = "[[database]]\nurl = \"sqlite:app.db\"\n";
    Config::parse(text, Path::new("tidegate.toml"), &|_| None).unwrap().databases.remove(0)
}

fn row(name: &str, depends_on: &str) -> QueueRow {
    QueueRow {
        update_name: name.to_owned(),
        progress: "{}".to_owned(),
        depends_on: Some(depends_on.to_owned()),
        ..QueueRow::default()
    }
}

fn failed(mut row: QueueRow, attempts: u32, quarantined: bool) -> QueueRow {
    let error = "no such column: bodi".to_owned();
    row.failure = Some(Failure { attempts, error, code: None, at_ms: 1_700_000_000_000, quarantined });
    row
}

fn holder() -> Holder {
    Holder { host: "tide-1".to_owned(), pid: 4242 }
}

fn activity(state: UpdateState, reason: Option<&str>) -> Activity {
    Activity {
        holder: holder(),
        first: Work {
            update_name: Some("fill_search_body".to_owned()),
            state: LaneState::Update(state),
            reason: reason.map(str::to_owned),
            controller: "office-hours".to_owned(),
            items_per_ms: Some(12.3),
            done: Some(0.43),
            eta_ms: Some(47_000),
            ..Work::default()
        },
        lanes: Vec::new(),
        at_ms: 1_700_000_000_000,
        signals: Vec::new(),
    }
}

/// A queue with a row of each kind, the first in hand.
fn full(activity: Activity, pause: Option<Pause>, runner: Option<Holder>) -> DatabaseReport {
    let unreadable = QueueRow { progress: "not json".to_owned(), ..row("unreadable", "") };
    let rows = vec![
        row("fill_search_body", ""),
        row("index_search_body", "fill_search_body"),
        failed(row("drop_spam", ""), 2, false),
        failed(row("bad", ""), 5, true),
        row("x", "y"),
        row("y", "x"),
        row("of_another_program", ""),
        unreadable,
    ];
    let pace = UpdatePace { estimate: Some(Estimate { done: 0.425, rows: 1_000_000.0 }), items_per_ms: Some(12.3) };
    let snapshot = Snapshot {
        queue: Queue { rows, pause, activity: Some(activity), ..Queue::default() },
        runner,
        paces: HashMap::from([("fill_search_body".to_owned(), pace)]),
    };
    report::database(&configured(), snapshot, &|name| name != "of_another_program")
}

fn rendered(database: DatabaseReport) -> String {
    super::report(&StatusReport::new(vec![database]))
}

#[test]
fn each_row_says_how_it_stands() {
    insta::assert_snapshot!(rendered(full(activity(UpdateState::Running, None), None, Some(holder()))));
}

#[test]
fn a_held_update_says_why_and_a_controller_its_last_fault() {
    let mut held = activity(UpdateState::Held, Some("outside 22:00 to 06:00"));
    held.first.fault = Some("out of fuel in enter: 10000000 used".to_owned());
    insta::assert_snapshot!(rendered(full(held, None, Some(holder()))));
}

#[test]
fn a_controller_that_is_tried_again_says_when() {
    let next_try = ControllerRetry { update_name: "fill\nbody".to_owned(), at_ms: 1_700_000_000_000 };
    let mut held = activity(UpdateState::Held, Some("at fault"));
    held.first.controller_retry = Some(next_try);
    let mut database = full(held, None, Some(holder()));
    for (in_ms, expected) in [(0, "now"), (7_250, "in 7.2s"), (280_000, "in 5m")] {
        database.activity.as_mut().unwrap().controller_retry.as_mut().unwrap().in_ms = in_ms;
        let told = super::report(&StatusReport::new(vec![database]));
        let line = format!("  controller: office-hours\n  the controller is tried again for fill\\nbody {expected}\n");
        assert!(told.contains(&line), "{told}");
        database = full(activity(UpdateState::Held, None), None, Some(holder()));
        database.activity.as_mut().unwrap().controller_retry = Some(RetryReport::new("fill\nbody".to_owned(), 0));
    }
}

#[test]
fn what_was_measured_stands_in_a_line_and_what_is_old_says_so() {
    let signal = |name: &str, value: f64, unit: &str, age_ms: u64| SignalReport {
        name: name.to_owned(),
        value,
        unit: unit.to_owned(),
        age_ms,
    };
    let signals = vec![
        signal("replication-lag", 1_234.5, "ms", 700),
        signal("waiting-sessions", 3.0, "sessions", 90_000),
        signal("depth\u{7}", 0.25, "", 4_999),
    ];
    let database = DatabaseReport { signals, ..full(activity(UpdateState::Running, None), None, Some(holder())) };
    let line = rendered(database).lines().find(|line| line.contains("signals")).map(str::to_owned);
    let told = "  signals: replication-lag 1,235 ms, waiting-sessions 3 sessions (2m ago), depth\\u{7} 0.25";
    assert_eq!(line.as_deref(), Some(told));
}

#[test]
fn a_pause_says_why_and_a_dead_host_is_not_taken_at_its_last_word() {
    let pause = Pause { since_ms: 1_700_000_000_000, reason: Some("maintenance".to_owned()) };
    insta::assert_snapshot!(rendered(full(activity(UpdateState::Running, None), Some(pause), None)));
}

#[test]
fn an_empty_queue_and_a_database_out_of_reach() {
    let snapshot = Snapshot { queue: Queue::default(), runner: None, paces: HashMap::new() };
    let empty = report::database(&configured(), snapshot, &|_| true);
    let unreachable = DatabaseReport::unavailable(&configured(), "connection refused".to_owned());
    insta::assert_snapshot!(super::report(&StatusReport::new(vec![empty, unreachable])));
}

#[test]
fn json_has_the_documented_shape() {
    let report = StatusReport::new(vec![full(activity(UpdateState::Running, None), None, Some(holder()))]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
}
