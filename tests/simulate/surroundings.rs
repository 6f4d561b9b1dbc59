//! What a guest meets in a simulation: another clock, another chance, and fuel that alone decides.

use std::time::Duration;

use tidegate::controller::FaultKind;
use tidegate_simulate::SimulationError;
use tidegate_testing::{Bench, Trial};

use super::scenario;
use crate::guests::built;
use crate::support::components::{Guest, WASI, sleeper};

const UPDATE: &str = "[[update]]\nname = \"u\"\nitems = 200\ncost_ms = 1\n";

fn begun(trial: &Trial) -> Vec<u64> {
    trial.run.seen.batches.iter().map(|batch| batch.at.as_secs()).collect()
}

#[tokio::test]
async fn hours_of_a_time_zone_are_kept_over_a_change_of_its_clocks() {
    let bench = Bench::load(built("rust-office-hours")).await.unwrap();
    let bench = bench.with_setting("windows", "mon-sun 22:00-06:00").with_setting("time_zone", "Europe/Berlin");
    // Noon of the day before the change, and of the day after: 22:00 in Berlin is at 21:00Z, and then at 20:00Z.
    let text = format!(
        "version = 1\nstart = 2026-03-28T12:00:00Z\nlongest_ms = 172_800_000\n{UPDATE}\
         [[update]]\nname = \"v\"\nitems = 200\nqueued_at_ms = 86_400_000\n\
         [expect]\nno_fault = true\nfinished_within_ms = 172_800_000\nnever_runs = [{{ daily = \"06:00-20:00\" }}]\n"
    );
    let trial = bench.run(&scenario(&text)).unwrap();
    trial.assert_met();
    let begun = begun(&trial);
    let hour = |seconds: u64| seconds / 3_600;
    assert_eq!((hour(begun[0]), hour(begun[begun.len() - 1])), (9, 24 + 8), "{begun:?}");
}

/// Waits as many milliseconds as chance says, up to 65,535.
fn gambler() -> Guest {
    let wasi =
        format!("{WASI}\npackage wasi:random@0.2.0 {{ interface random {{ get-random-u64: func() -> u64; }} }}\n");
    let mut guest = Guest::new()
        .import(
            r#"(import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))"#,
            "import wasi:random/random@0.2.0;",
            &wasi,
        )
        .fields("(global $entered (mut i32) (i32.const 0))");
    let reason = guest.text("a gamble");
    guest.enter(format!(
        "(global.set $entered (i32.xor (global.get $entered) (i32.const 1)))
         (if (global.get $entered) (then
           (return (call $wait (i32.and (i32.wrap_i64 (call $random)) (i32.const 65535)) {reason}))))
         (call $run (i32.const 50))"
    ))
}

#[tokio::test]
async fn chance_comes_from_the_seed() {
    let bench = Bench::from_bytes(gambler().component()).await.unwrap();
    let waits = |seed: u64| -> Vec<Duration> {
        let trial = bench.run(&scenario(&format!("version = 1\nseed = {seed}\n{UPDATE}"))).unwrap();
        trial.run.seen.holds.iter().map(|hold| hold.duration).collect()
    };
    assert_eq!(waits(1), waits(1));
    assert_ne!(waits(1), waits(2));
    let distinct: std::collections::BTreeSet<_> = waits(1).into_iter().collect();
    assert!(distinct.len() > 1, "{distinct:?}");
}

#[tokio::test]
async fn a_guest_that_sleeps_passes_its_deadline_in_virtual_time() {
    let bench =
        Bench::from_bytes(sleeper().enter("(call $sleep (i64.const 60000)) (call $run (i32.const 50))").component());
    let trial =
        bench.await.unwrap().run(&scenario(&format!("version = 1\n{UPDATE}[expect]\nno_fault = true\n"))).unwrap();
    let fault = &trial.run.seen.faults[0];
    // The limit of a call is 5 s.
    assert_eq!((fault.fault.kind, fault.at), (FaultKind::Deadline, Duration::from_secs(5)));
    let naps =
        Bench::from_bytes(sleeper().enter("(call $sleep (i64.const 3000)) (call $run (i32.const 50))").component());
    let trial =
        naps.await.unwrap().run(&scenario(&format!("version = 1\n{UPDATE}[expect]\nno_fault = true\n"))).unwrap();
    trial.assert_met();
    assert_eq!(begun(&trial)[0], 3);
}

#[tokio::test]
async fn a_machine_that_is_too_slow_ends_the_run_and_is_no_fault_of_the_guest() {
    let endless = Guest::new().enter("(loop $again (br $again)) (unreachable)").component();
    let limits = "[limits]\nfuel_per_call = 9_000_000_000_000_000_000\ndeadline_ms = 20\n";
    let ended = Bench::from_bytes(endless).await.unwrap().run(&scenario(&format!("version = 1\n{limits}{UPDATE}")));
    assert_eq!(ended, Err(SimulationError::TooSlow { deadline: Duration::from_millis(20) }));
}

#[tokio::test]
async fn an_instance_is_driven_by_hand() {
    let mut guest = Guest::new();
    let database = guest.text("master");
    let lag = guest.text("lag");
    let reason = guest.text("lag");
    let guest = guest.enter(format!(
        "(if (f64.gt (f64.load (call $signal {database} {lag})) (f64.const 10))
           (then (return (call $wait (i32.const 250) {reason}))))
         (call $log (i32.const 2) {reason})
         (call $run (i32.const 80))"
    ));
    let bench = Bench::from_bytes(guest.component()).await.unwrap().with_signal("lag", 50.0, Duration::ZERO);
    let mut controller = bench.start().await.unwrap();
    let mut iteration = controller.on_update("u").await.unwrap();
    let waits =
        tidegate::controller::Admission::Wait { duration: Duration::from_millis(250), reason: "lag".to_owned() };
    assert_eq!(iteration.enter().await, Ok(waits));
    controller.set_signal("lag", 5.0, Duration::ZERO);
    assert_eq!(iteration.enter().await, Ok(tidegate::controller::Admission::Run(Duration::from_millis(80))));
    iteration.complete(10, Duration::from_millis(70)).await.unwrap();
    let callbacks: Vec<String> = controller.calls().iter().map(|call| call.callback.to_string()).collect();
    assert_eq!(callbacks, ["start", "on-update", "enter", "enter", "exit", "the destructor"]);
    assert!(controller.calls().iter().skip(1).all(|call| call.fuel > 0 && call.grown_bytes == 0));
    assert_eq!(controller.lines()[0].text, "lag");
    assert_eq!(controller.default_batch_size("u").await, Ok(None));
}

/// The fallback lets it run for some minutes; then comes the next.
#[tokio::test]
async fn a_controller_at_fault_over_one_update_is_tried_again_with_a_growing_delay_and_for_another_at_once() {
    let bench = Bench::load(built("hostile")).await.unwrap();
    let bench = bench.with_setting("misbehave", "error").with_setting("in", "enter").with_setting("update", "a");
    let text = "version = 1\nlongest_ms = 400_000\n[[update]]\nname = \"a\"\nitems = 20_000\ncost_ms = 1\n\
                [[update]]\nname = \"b\"\nitems = 1_000\ncost_ms = 1\n";
    let trial = bench.run(&scenario(text)).unwrap();
    let seen = &trial.run.seen;
    let faults: Vec<u64> = seen.faults.iter().map(|fault| fault.at.as_secs()).collect();
    // The built-in policy sleeps a second and runs for a tenth of one: a try waits for the end of that.
    assert_eq!(faults, [0, 0, 0, 6, 17, 38, 78, 159]);
    assert!(seen.faults.iter().all(|fault| fault.update_name == "a"), "{:?}", seen.faults);
    assert_eq!(seen.fallback.as_ref().map(|(at, _)| at.as_millis()), Some(750));
    let [(a, _), (b, _)] = &seen.finished[..] else { panic!("{:?}", seen.finished) };
    assert!(seen.back.is_some_and(|back| *a < back && back < *b), "{a:?} {b:?} {:?}", seen.back);
    assert!(*b - *a < Duration::from_secs(2), "the built-in policy would have slept between the batches of b");
}
