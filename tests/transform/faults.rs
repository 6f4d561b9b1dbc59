//! Components that misbehave: each fault on each database, in the first batch and in a later one. Nothing is written, and the
//! row to blame is named.

use std::time::Duration;

use tidegate::update::UpdateError;
use tidegate_wasm::{HandlerLimits, Limits};

use super::{component, component_that, transform};
use crate::kinds::subject::{Driven, Subject, UPDATE};

/// A deed of the component's, and what is told of it.
const DEEDS: &[(&str, &str)] = &[
    ("trap", "trap: wasm `unreachable`"),
    ("loop", "out of fuel"),
    ("few", "answered 0 outcomes for 1 rows"),
    ("many", "answered 2 outcomes for 1 rows"),
    ("boolean", "it gave a boolean for column \"b\""),
    ("other", "it gave a value of another type for column \"b\""),
    ("columns", "it gave 0 values for 1 column"),
    ("utf8", "in transform: trap"),
    ("huge", "too much data: passed more than"),
    ("memory", "memory limit: wanted"),
    ("deep", "stack overflow"),
    ("fail", "the component failed a row"),
];

const ROWS: u32 = 40;
const BATCH: u64 = 8;

fn limits() -> HandlerLimits {
    let call = Limits { deadline: Duration::from_secs(20), ..HandlerLimits::default().call };
    HandlerLimits { call, fuel_per_row: 100_000 }
}

/// Fuel for a hundred megabytes, which is not what is to be short.
fn limits_of(deed: &str) -> HandlerLimits {
    let limits = limits();
    let fuel_per_call = if ["huge", "memory"].contains(&deed) { 1 << 40 } else { limits.call.fuel_per_call };
    HandlerLimits { call: Limits { fuel_per_call, ..limits.call }, ..limits }
}

async fn items(subject: &Subject) {
    subject
        .script("DROP TABLE IF EXISTS items; CREATE TABLE items (id integer PRIMARY KEY NOT NULL, a text, b text)")
        .await;
    let rows: Vec<String> = (1..=ROWS).map(|id| format!("({id}, 'row {id}')")).collect();
    subject.script(&format!("INSERT INTO items (id, a) VALUES {}", rows.join(", "))).await;
    subject.database.cancel(&[UPDATE.to_owned()]).await.unwrap();
    subject.enqueue().await;
}

/// The rows that are written, and whether each is right.
async fn written(subject: &Subject) -> Vec<String> {
    subject.rows("SELECT count(b), count(CASE WHEN b = upper(a) THEN 1 END), coalesce(max(CASE WHEN b IS NOT NULL THEN id END), 0) FROM items").await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_writes_nothing_and_names_the_row() {
    for subject in Subject::each().await {
        for (deed, told) in DEEDS {
            // A hundred megabytes take a while, wherever they are.
            let poisoned: &[u32] = if ["huge", "memory"].contains(deed) { &[13] } else { &[1, 13, ROWS] };
            for &poisoned in poisoned {
                items(&subject).await;
                let when = format!("row {poisoned}");
                let bytes = if *deed == "memory" { "200000000" } else { "100000000" };
                let settings = [("deed", *deed), ("when", when.as_str()), ("bytes", bytes)];
                let handler =
                    transform(&["a"], &["b"], &settings, component("hostile-transform", &settings, limits_of(deed)));
                assert_eq!(subject.problems(&handler).await, "", "{deed}");
                let (name, mut driven) = (format!("{deed}, row {poisoned}, {}", subject.system), Driven::default());
                let mut items = BATCH;
                let error = loop {
                    match subject.batch(&handler, items, &mut driven).await {
                        Ok(step) => assert!(step.is_some(), "{name}: it went through"),
                        // As a host does where trying took long.
                        Err(error) if error.is_of_size() => items = (items / 2).max(1),
                        Err(error) => break error,
                    }
                };
                assert!(error.to_string().contains(told), "{name}: {error}");
                assert!(
                    matches!(&error, UpdateError::Detailed { detail, .. } if detail.contains(&format!("id = {poisoned}"))),
                    "{name}: {error:?}"
                );
                assert!(!error.told().contains(&when), "what everybody is told holds a value: {}", error.told());
                // Whole batches before that one, as the progress says; and of a slice that was made smaller the rows before.
                let [all, right, last] = <[u32; 3]>::try_from(numbers(&written(&subject).await[0])).unwrap();
                assert!(all == right && all == last && last < poisoned, "{name}: {all} {right} {last}");
                let progress = subject.progress().await.unwrap();
                let after: serde_json::Value = serde_json::from_str(&progress).unwrap();
                let after = after["after"][0].as_str().map_or(0, |after| after.parse().unwrap());
                assert_eq!(after, last, "{name}: {progress}");
                // A fault is narrowed down to its row; what is said of one row needs no narrowing.
                let is_fault = !["boolean", "other", "columns", "fail"].contains(deed);
                let before = if is_fault { poisoned - 1 } else { (poisoned - 1) / BATCH as u32 * BATCH as u32 };
                assert_eq!(last, before, "{name}");
                // The same row without the fault, by the component that was accepted.
                subject.script(&format!("UPDATE items SET a = 'mended' WHERE id = {poisoned}")).await;
                while subject.batch(&handler, BATCH, &mut driven).await.unwrap().is_some() {}
                assert_eq!(written(&subject).await, [format!("{ROWS}|{ROWS}|{ROWS}")], "{name}");
            }
        }
    }
}

fn numbers(row: &str) -> Vec<u32> {
    row.split('|').map(|number| number.parse().unwrap()).collect()
}

/// A limit of each kind: on answers that are no fault of memory, and on the time of a call that fuel would allow.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_passes_and_how_long_it_takes_is_bounded() {
    let defaults = HandlerLimits::default();
    let small = HandlerLimits { call: Limits { data_bytes: 64 << 10, ..defaults.call.clone() }, ..defaults.clone() };
    let call = Limits { deadline: Duration::from_millis(300), fuel_per_call: u64::MAX / 4, ..defaults.call };
    let slow = HandlerLimits { call, ..defaults };
    for subject in Subject::each().await {
        for (deed, limits, told) in [
            ("huge", small.clone(), "too much data: passed more than 65536 bytes"),
            ("loop", slow.clone(), "deadline passed: took longer than 300 ms"),
        ] {
            items(&subject).await;
            let settings = [("deed", deed), ("when", "row 1"), ("bytes", "100000")];
            let handler = transform(&["a"], &["b"], &settings, component("hostile-transform", &settings, limits));
            let error = subject.batch(&handler, 1, &mut Driven::default()).await.unwrap_err();
            assert!(error.to_string().contains(told), "{deed}: {error}");
            assert_eq!(written(&subject).await, ["0|0|0"], "{deed}");
        }
        // Much goes in: in several calls, and out again.
        items(&subject).await;
        subject.script("UPDATE items SET a = 'x' || a || replace('----------', '-', '0123456789012345678901234567890123456789')").await;
        let by = component("rust-upper", &[], small.clone());
        let driven = subject.drive_queued(&transform(&["a"], &["b"], &[], by), 100).await.unwrap();
        assert_eq!(driven.total(), u64::from(ROWS));
        assert_eq!(written(&subject).await, [format!("{ROWS}|{ROWS}|{ROWS}")]);
    }
}

/// The row before it and the row behind it may be read by a component that was told to keep rows, and stay as they were.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_kept_stay_as_they_are() {
    for subject in Subject::each().await {
        items(&subject).await;
        subject.script("UPDATE items SET b = 'before'").await;
        let settings = [("deed", "keep"), ("when", "row 7")];
        let by = component("hostile-transform", &settings, limits());
        subject.drive_queued(&transform(&["a"], &["b"], &settings, by), 6).await.unwrap();
        assert_eq!(subject.rows("SELECT id, b FROM items WHERE b IS DISTINCT FROM upper(a)").await, ["7|before"]);
    }
}

/// What a component sees of the world: nothing but a clock and chance, which are always the same unless its definition asks
/// for the machine's.
#[tokio::test(flavor = "multi_thread")]
async fn a_component_sees_nothing_of_the_world() {
    let subject = Subject::sqlite().await;
    let mut seen = Vec::new();
    for impure in [false, false, true, true] {
        items(&subject).await;
        let by = component_that("hostile-transform", &[("deed", "world")], limits(), impure);
        subject.drive_queued(&transform(&["a"], &["b"], &[], by), 100).await.unwrap();
        seen.push(subject.rows("SELECT b FROM items WHERE id = 1").await.remove(0));
    }
    assert!(seen[0].starts_with("0 ") && seen[0] == seen[1], "{seen:?}");
    assert!(!seen[2].starts_with("0 ") && seen[2] != seen[3], "{seen:?}");
    for seen in seen {
        assert!(seen.contains("file: false, variables: 0, network: Err("), "{seen}");
    }
}

/// What a component writes before it traps is for the operator's log alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_words_of_a_panic_are_told_to_the_operator_alone() {
    let subject = Subject::sqlite().await;
    items(&subject).await;
    let settings = [("deed", "trap"), ("when", "row 1")];
    let handler = transform(&["a"], &["b"], &settings, component("hostile-transform", &settings, limits()));
    let error = subject.batch(&handler, 1, &mut Driven::default()).await.unwrap_err();
    assert!(!error.told().contains("as told"), "{}", error.told());
    assert!(error.in_full().contains("it wrote: ") && error.in_full().contains("as told"), "{}", error.in_full());
}

/// A definition that names another component, or other settings, does not go on with what was begun.
#[tokio::test(flavor = "multi_thread")]
async fn another_component_is_refused_until_somebody_accepts_it() {
    for subject in Subject::each().await {
        items(&subject).await;
        let begun = transform(&["a"], &["b"], &[], component("rust-upper", &[], limits()));
        subject.batch(&begun, BATCH, &mut Driven::default()).await.unwrap();
        let another = transform(&["a"], &["b"], &[], component("hostile-transform", &[], limits()));
        let error = subject.batch(&another, BATCH, &mut Driven::default()).await.unwrap_err();
        assert!(
            matches!(&error, UpdateError::Redefined { changes } if changes.starts_with("component was \"")),
            "{error}"
        );
        let set = [("deed", "secret")];
        let settings = transform(&["a"], &["b"], &set, component("rust-upper", &set, limits()));
        let error = subject.batch(&settings, BATCH, &mut Driven::default()).await.unwrap_err();
        let told = error.to_string();
        assert!(told.contains("settings was left out and is \"") && !told.contains("secret"), "{told}");
        while subject.batch(&begun, BATCH, &mut Driven::default()).await.unwrap().is_some() {}
        assert_eq!(written(&subject).await, [format!("{ROWS}|{ROWS}|{ROWS}")]);
    }
}
