//! What a guest read while it was recorded, it reads again.

use std::io::BufReader;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate::controller::{Callback, Witness};
use tidegate_simulate::trace::{Change, Reader, Recorder, Replay, ReplayReport};
use tidegate_wasm::{Artifact, ComponentSource, LoadOptions, Reading, SignalReader};

use super::lines;
use crate::guests::built;
use crate::support::components::Guest;
use crate::support::place::{Place, row};
use crate::support::run::{Run, make_items, touch};

/// A signal that is another at each reading.
#[derive(Default)]
pub struct Rising(AtomicU64);

impl SignalReader for Rising {
    fn read(&self, _: &str, signal: &str) -> Option<Reading> {
        let value = self.0.fetch_add(1, Ordering::Relaxed) as f64 + 0.1;
        (signal == "load").then_some(Reading { value, age: Duration::from_millis(7) })
    }
}

/// Aims at as many milliseconds as the signal says, or at 999 where there is none.
pub fn follower(signal: &str) -> Guest {
    let mut guest = Guest::new();
    let names = format!("{} {}", guest.text("master"), guest.text(signal));
    guest.fields("(global $found (mut i32) (i32.const 0))").enter(format!(
        "(global.set $found (call $signal {names}))
         (if (result i32) (global.get $found)
           (then (call $run (i32.trunc_f64_u (f64.load (global.get $found)))))
           (else (call $run (i32.const 999))))"
    ))
}

/// Records a run of a component, and asks another in its place.
async fn recorded(component: Vec<u8>, folder: &std::path::Path) -> std::path::PathBuf {
    let place = Place::sqlite();
    make_items(&place, 50).await;
    let path = folder.join("trace.jsonl");
    let trace = Recorder::create(&path, true, Vec::new()).unwrap();
    let artifact = Artifact::from_bytes(component, &LoadOptions::default()).await.unwrap();
    let settings = vec![("windows".to_owned(), "00:00-24:00".to_owned())];
    let source = ComponentSource::new("guest", artifact).with_settings(settings);
    let source = source.with_signals(Arc::new(Rising::default()));
    let mut run = Run::on(&place, &[row("fill")]).await.define("fill", touch());
    run.settings.max_batch_size = 5;
    run.witnesses.push(Arc::new(trace.clone()) as Arc<dyn Witness>);
    run.controller(Arc::new(source)).until_done().await;
    let finished = trace.finish(Duration::from_secs(20)).await;
    assert_eq!((finished.lost, finished.error), (0, None));
    path
}

async fn replayed(component: Vec<u8>, path: &std::path::Path) -> ReplayReport {
    let mut reader = Reader::new(BufReader::new(std::fs::File::open(path).unwrap())).unwrap();
    let settings = vec![("windows".to_owned(), "00:00-24:00".to_owned())];
    let mut replay = Replay::new(component, settings, None);
    replay.begin(&reader.header().controllers);
    while let Some((number, line)) = reader.next_line().unwrap() {
        replay.take(number, line).await.unwrap();
    }
    replay.report()
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_are_those_of_then() {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(follower("load").component(), folder.path()).await;
    let lines = lines(&path);
    let reads: Vec<_> = lines.iter().filter_map(|line| line["signals"].as_array()).flatten().collect();
    assert_eq!(reads.len(), 11, "{reads:?}");
    assert_eq!(reads[3]["value"], 3.1);
    assert_eq!(
        (&reads[3]["signal"], &reads[3]["age_ms"], &reads[3]["database"]),
        (&"load".into(), &7.into(), &"master".into())
    );
    let report = replayed(follower("load").component(), &path).await;
    assert!(report.differences.is_empty() && report.unrecorded_signals.is_empty(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_was_not_read_then_is_the_last_recorded_one_or_none_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(follower("load").component(), folder.path()).await;
    // Another signal, of which nothing is known.
    let report = replayed(follower("lag").component(), &path).await;
    assert_eq!(report.unrecorded_signals["lag"], 11);
    assert_eq!((report.differences[0].change, report.differences[0].now.as_str()), (Change::Target, "run, 999 ms"));
    // The same, in another callback: as it was when it was last read.
    let mut guest = Guest::new();
    let names = format!("{} {}", guest.text("master"), guest.text("load"));
    let earlier = guest
        .fields("(global $target (mut i32) (i32.const 0)) (global $found (mut i32) (i32.const 0))")
        .on_update(format!(
            "(global.set $found (call $signal {names}))
             (global.set $target (if (result i32) (global.get $found)
               (then (i32.trunc_f64_u (f64.load (global.get $found)))) (else (i32.const 500))))
             (call $iteration)"
        ))
        .enter("(call $run (global.get $target))");
    let report = replayed(earlier.component(), &path).await;
    assert_eq!(report.unrecorded_signals["load"], 11);
    let targets: Vec<&str> = report.differences.iter().map(|difference| difference.now.as_str()).collect();
    assert_eq!(targets[..3], ["run, 500 ms", "run, 0 ms", "run, 1 ms"], "{targets:?}");
}

/// `rust-office-hours` reads the time of day: hours later it still decides as it did.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_day_is_that_of_then() {
    let folder = tempfile::tempdir().unwrap();
    let component = std::fs::read(built("rust-office-hours")).unwrap();
    let path = recorded(component.clone(), folder.path()).await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.matches("wall_clock_ns").count() >= 10, "{text}");
    let report = replayed(component, &path).await;
    assert!(report.differences.is_empty(), "{report:?}");
    assert_eq!(report.fuel, report.recorded_fuel);
    let asked = lines(&path).iter().filter(|line| line["call"] == serde_json::json!(Callback::Enter)).count();
    assert!(asked >= 10);
}

/// The hash maps of a guest in Rust are seeded by what WASI gives it; this one aims at what it was given.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_and_random_numbers_come_again() {
    const RANDOM: &str = "
package wasi:random@0.2.0 {
  interface random { get-random-u64: func() -> u64; }
  interface insecure-seed { insecure-seed: func() -> tuple<u64, u64>; }
}
package wasi:clocks@0.2.0 {
  interface monotonic-clock { now: func() -> u64; }
}
";
    let guest = Guest::new()
        .import(
            r#"(import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))
               (import "wasi:random/insecure-seed@0.2.0" "insecure-seed" (func $seed (param i32)))
               (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))"#,
            "import wasi:random/random@0.2.0; import wasi:random/insecure-seed@0.2.0; import wasi:clocks/monotonic-clock@0.2.0;",
            RANDOM,
        )
        .enter(
            "(call $seed (i32.const 200))
             (call $run (i32.and (i32.const 0xffff) (i32.wrap_i64
               (i64.xor (i64.load (i32.const 200)) (i64.xor (call $random) (call $now))))))",
        )
        .component();
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(guest.clone(), folder.path()).await;
    let recorded = lines(&path);
    let targets: std::collections::BTreeSet<_> =
        recorded.iter().filter_map(|line| line["answer"]["run_ms"].as_u64()).collect();
    assert!(targets.len() > 5, "{targets:?}");
    assert!(recorded[1]["random_seed"].as_str().is_some_and(|seed| seed.len() == 32), "{}", recorded[1]);
    let report = replayed(guest, &path).await;
    assert!(report.differences.is_empty() && report.calls > 30, "{report:?}");
}
