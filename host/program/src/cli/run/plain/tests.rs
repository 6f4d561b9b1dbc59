#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tidegate::controller::{Callback, Fault, FaultKind};
use tidegate::scheduler::database::{IterationOutcome, Record};
use tidegate::scheduler::event::{Event, EventKind};

use super::Plain;

const UPDATE: &str = "fill_search_body";

fn name() -> String {
    UPDATE.to_owned()
}

/// The lines for events at these milliseconds.
fn lines(events: Vec<(u64, EventKind)>) -> String {
    let mut plain = Plain::default();
    let lines = events.into_iter().flat_map(|(at_ms, kind)| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at_ms);
        plain.lines(&Event { number: 1, at, database: "master".to_owned(), lane: None, kind })
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn started() -> EventKind {
    EventKind::UpdateStarted { update_name: name(), one_shot: false }
}

fn batch() -> EventKind {
    EventKind::BatchStarted {
        update_name: name(),
        batch_size: 1_200,
        target: Some(Duration::from_millis(100)),
        one_shot: false,
    }
}

fn ended() -> EventKind {
    let record = Record {
        update_name: name(),
        started_ms: 0,
        one_shot: false,
        controller: "default".to_owned(),
        target_ms: Some(100),
        batch_size: 1_200,
        items: 1_200,
        duration_ms: 98.4,
        waited_ms: 1.6,
        wait_reason: None,
        outcome: IterationOutcome::Completed,
        error: None,
        notes: Vec::new(),
        fuel: None,
    };
    EventKind::IterationEnded { record: Arc::new(record), items_per_ms: Some(12.2) }
}

fn held(seconds: u64, reason: &str) -> EventKind {
    let duration = Duration::from_secs(seconds);
    let (update_name, controller, reason) = (name(), name(), reason.to_owned());
    EventKind::Held { update_name, controller, duration, reason, rest: seconds < 2 }
}

#[test]
fn a_life_from_start_to_finish_with_its_pace_every_five_seconds() {
    let mut events = vec![(0, EventKind::LeaseAcquired), (0, started())];
    for iteration in 0..100 {
        events.push((iteration * 110, batch()));
        events.push((iteration * 110 + 100, ended()));
        if iteration == 70 {
            let eta = Some(Duration::from_secs(48));
            events.push((iteration * 110 + 100, EventKind::Progress { update_name: name(), done: 0.429, eta }));
        }
    }
    events.push((12_000, EventKind::UpdateFinished { update_name: name() }));
    events.push((12_000, EventKind::Idle { remaining: 0, elsewhere: 0 }));
    events.push((12_000, EventKind::Stopped));
    insta::assert_snapshot!(lines(events));
}

#[test]
fn a_hold_is_told_once_until_its_reason_changes_or_a_batch_runs() {
    insta::assert_snapshot!(lines(vec![
        (0, started()),
        (0, held(1, "a moment")),
        (1_000, held(60, "outside 22:00 to 06:00")),
        (61_000, held(60, "outside 22:00 to 06:00")),
        (121_000, held(60, "replication lag 2400 ms > 1000 ms")),
        (181_000, batch()),
        (181_100, ended()),
        (181_200, held(60, "replication lag 2400 ms > 1000 ms")),
    ]));
}

#[test]
fn what_holds_before_each_batch_is_told_once_a_minute_and_a_reason_that_changes_every_five_seconds() {
    let mut events = vec![(0, started())];
    for iteration in 0..40 {
        events.push((iteration * 3_000, held(3, "replicas lag")));
    }
    for iteration in 40..45 {
        events.push((iteration * 3_000, held(3, &format!("replication lag {iteration} ms > 10 ms"))));
    }
    insta::assert_snapshot!(lines(events));
}

#[test]
fn a_fault_in_each_iteration_is_told_once_a_minute() {
    let fault = |callback, message: String| EventKind::ControllerFault {
        controller: "office-hours".to_owned(),
        fault: Fault { kind: FaultKind::OutOfRange, callback, message },
        in_a_row: 0,
    };
    let events = (0..1_000).flat_map(|iteration| {
        let at = iteration * 100;
        let target = fault(Callback::Enter, format!("target duration {} ms, cut to 60000 ms", 60_001 + iteration));
        [(at, target), (at, fault(Callback::MinBatchSize, "batch size 0, counted as 1".to_owned()))]
    });
    insta::assert_snapshot!(lines(events.collect()));
}

#[test]
fn whatever_goes_wrong_is_told() {
    let error = || "no such column: bodi".to_owned();
    let retry_in = Some(Duration::from_secs(2));
    let fault = Fault { kind: FaultKind::OutOfFuel, callback: Callback::Enter, message: "10000000 used".to_owned() };
    let controller = || "office-hours".to_owned();
    insta::assert_snapshot!(lines(vec![
        (0, EventKind::StandingBy { holder: None }),
        (0, started()),
        (
            1,
            EventKind::TransientFailure {
                update_name: name(),
                error: "database is locked".to_owned(),
                detail: None,
                retry_in: Duration::from_millis(250)
            }
        ),
        (
            2,
            EventKind::Failure {
                update_name: name(),
                error: error(),
                detail: Some("Key (x)=(1) is not there.".to_owned()),
                attempts: 1,
                retry_in
            }
        ),
        (3, EventKind::Failure { update_name: name(), error: error(), detail: None, attempts: 5, retry_in: None }),
        (4, EventKind::ControllerFault { controller: controller(), fault, in_a_row: 1 }),
        (
            5,
            EventKind::Fallback {
                controller: controller(),
                fallback: "default".to_owned(),
                reason: "3 faults in a row".to_owned(),
                retry: Some((name(), Duration::from_secs(5)))
            }
        ),
        (6, EventKind::ControllerTried { controller: controller(), update_name: name() }),
        (
            6,
            EventKind::ControllerPutOff {
                controller: controller(),
                update_name: name(),
                reason: "4 faults in a row".to_owned(),
                retry_in: Duration::from_secs(10)
            }
        ),
        (6, EventKind::ControllerBack { controller: controller() }),
        (
            6,
            EventKind::Fallback {
                controller: controller(),
                fallback: "hold".to_owned(),
                reason: "it cannot be loaded".to_owned(),
                retry: None
            }
        ),
        (6, EventKind::Blocked { rows: vec![("b".to_owned(), "waits for a".to_owned())] }),
        (7, EventKind::UpdateMoved { update_name: name(), gone: true }),
        (8, EventKind::Unavailable { error: "connection refused".to_owned(), retry_in: Duration::from_secs(20) }),
        (9, EventKind::Available),
        (10, EventKind::Paused { reason: Some("maintenance".to_owned()) }),
        (11, EventKind::Resumed),
        (12, EventKind::Idle { remaining: 2, elsewhere: 0 }),
        (13, EventKind::LeaseLost { reason: "the connection is gone".to_owned() }),
    ]));
}
