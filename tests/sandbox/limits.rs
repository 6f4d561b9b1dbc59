//! Every limit is looked at: raised or lowered, it changes what happens.

use std::sync::Arc;
use std::time::Duration;

use tidegate::controller::{FaultKind, Source};
use tidegate_wasm::{ComponentSource, Limits};

use super::{Kept, first_fault, iterate, limits, load_within};
use crate::support::components::{Guest, sleeper};

/// A guest, the limits it keeps, the limits it does not, and the fault that this is.
type Case = (&'static str, Guest, Limits, Limits, FaultKind);

fn cases() -> Vec<Case> {
    let count_down = |from: u32, body: &str| {
        format!(
            "(local $left i32) (local.set $left (i32.const {from}))
             (loop $again {body}
               (local.set $left (i32.sub (local.get $left) (i32.const 1)))
               (br_if $again (local.get $left)))"
        )
    };
    let recursive = "(func $down (param i32) (result i32)
        (if (result i32) (local.get 0)
          (then (i32.add (call $down (i32.sub (local.get 0) (i32.const 1))) (i32.const 1)))
          (else (i32.const 0))))";
    let run = "(call $run (i32.const 1))";
    vec![
        (
            "fuel_per_call",
            Guest::new().enter(format!("{} {run}", count_down(1_000, "nop"))),
            Limits { fuel_per_call: 100_000, ..limits() },
            Limits { fuel_per_call: 1_000, ..limits() },
            FaultKind::OutOfFuel,
        ),
        (
            "deadline",
            sleeper().enter(format!("(call $sleep (i64.const 200)) {run}")),
            limits(),
            Limits { deadline: Duration::from_millis(100), ..limits() },
            FaultKind::Deadline,
        ),
        (
            "memory_bytes",
            Guest::new().enter(format!("(drop (memory.grow (i32.const 8))) {run}")),
            Limits { memory_bytes: 10 << 16, ..limits() },
            Limits { memory_bytes: 9 << 16, ..limits() },
            FaultKind::Memory,
        ),
        (
            "table_elements",
            Guest::new().fields("(table 500 funcref)"),
            Limits { table_elements: 600, ..limits() },
            Limits { table_elements: 499, ..limits() },
            FaultKind::Memory,
        ),
        (
            "instances",
            Guest::new(),
            Limits { instances: 10, ..limits() },
            Limits { instances: 1, ..limits() },
            FaultKind::Memory,
        ),
        (
            "stack_bytes",
            Guest::new().fields(recursive).enter(format!("(drop (call $down (i32.const 2000))) {run}")),
            Limits { stack_bytes: 1 << 20, ..limits() },
            Limits { stack_bytes: 16 << 10, ..limits() },
            FaultKind::Stack,
        ),
        (
            "data_bytes",
            Guest::new().enter(format!("(call $log (i32.const 2) (i32.const 65536) (i32.const 5000)) {run}")),
            Limits { data_bytes: 5_000, ..limits() },
            Limits { data_bytes: 4_999, ..limits() },
            FaultKind::DataSize,
        ),
        (
            "handles",
            Guest::new().on_update(format!("{} (call $iteration)", count_down(20, "(drop (call $new (i32.const 1)))"))),
            Limits { handles: 30, ..limits() },
            Limits { handles: 15, ..limits() },
            FaultKind::Handles,
        ),
    ]
}

#[tokio::test]
async fn each_limit_is_kept_to() {
    for (name, guest, kept, exceeded, kind) in cases() {
        assert_eq!(first_fault(&guest, kept).await, Ok(()), "{name}");
        let fault = first_fault(&guest, exceeded).await.unwrap_err();
        assert_eq!(fault.kind, kind, "{name}: {fault}");
        assert!(fault.kind.loses_instance(), "{name}");
    }
}

#[tokio::test]
async fn limits_of_the_log_cut_and_drop_and_are_no_fault() {
    let guest = Guest::new().enter(
        "(call $log (i32.const 2) (i32.const 65536) (i32.const 100))
         (call $log (i32.const 2) (i32.const 65536) (i32.const 100))
         (call $run (i32.const 1))",
    );
    for (log_lines_per_second, log_line_bytes, lines, escaped) in [(100, 4_096, 2, true), (1, 50, 1, false)] {
        let artifact = load_within(&guest, Limits { log_lines_per_second, log_line_bytes, ..limits() }).await.unwrap();
        let kept = Arc::new(Kept::default());
        let source = ComponentSource::new("paced", artifact).with_log(kept.clone());
        let mut controller = source.start("master").await.unwrap();
        assert_eq!(iterate(&mut *controller).await, Ok(()));
        let mut texts = kept.texts();
        let dropped = texts.pop_if(|text| text == "… 1 line dropped, more than 1 in a second").is_some();
        assert_eq!((texts.len(), dropped), (lines, lines == 1));
        assert_eq!(texts[0].ends_with("[cut]"), !escaped, "{}", texts[0]);
    }
}

#[test]
fn the_defaults_are_the_documented_ones() {
    insta::assert_debug_snapshot!(Limits::default());
}
