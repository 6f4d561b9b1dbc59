//! What a controller is asked and told, and what it is given.

use std::sync::Arc;
use std::time::Duration;

use tidegate::controller::{Admission, CompletedBatch, Outcome, Source, Subject};
use tidegate_wasm::{ComponentSource, Reading, SignalReader};

use super::{Kept, completed, enter, iterate, load, start, subject};
use crate::support::components::Guest;

#[tokio::test]
async fn a_controller_answers_run_and_wait() {
    let mut guest = Guest::new().fields("(global $entered (mut i32) (i32.const 0))");
    let reason = guest.text("replication lag 2400 ms > 1000 ms");
    let guest = guest.enter(format!(
        "(if (i32.eqz (global.get $entered))
           (then (global.set $entered (i32.const 1)) (return (call $wait (i32.const 250) {reason}))))
         (call $run (i32.const 80))"
    ));
    let mut controller = start(&guest).await;
    let mut iteration = controller.on_update(&subject()).await.unwrap();
    let reason = "replication lag 2400 ms > 1000 ms".to_owned();
    assert_eq!(iteration.enter().await, Ok(Admission::Wait { duration: Duration::from_millis(250), reason }));
    assert_eq!(iteration.enter().await, Ok(Admission::Run(Duration::from_millis(80))));
    assert_eq!(iteration.exit(&completed()).await, Ok(()));
    assert_eq!(iteration.close().await, Ok(()));
}

#[tokio::test]
async fn numbers_of_the_guest_are_passed_on_as_they_are() {
    let guest = Guest::new().enter("(call $run (i32.const -1))").min_batch_size("(i32.const 0)");
    let mut controller = start(&guest).await;
    let (_, answer) = enter(&mut *controller).await;
    assert_eq!(answer, Ok(Admission::Run(Duration::from_millis(u64::from(u32::MAX)))));
    assert_eq!(controller.min_batch_size("u", "d").await, Ok(Some(0)));
}

#[tokio::test]
async fn a_controller_is_told_which_update_it_is() {
    let guest = Guest::new().on_update(
        "(call $log (i32.const 2) (local.get $update) (local.get $update_length))
         (call $log (local.get $one_shot) (local.get $db) (local.get $db_length))
         (call $iteration)",
    );
    let kept = Arc::new(Kept::default());
    let source = ComponentSource::new("paced", load(&guest).await.unwrap()).with_log(kept.clone());
    let mut controller = source.start("master").await.unwrap();
    let subject = Subject { update_name: "naïve".into(), database_name: "state".into(), one_shot: true };
    controller.on_update(&subject).await.unwrap();
    let told: Vec<_> = kept.lines().iter().map(|line| format!("{} {}", line.level, line.text)).collect();
    assert_eq!(told, ["INFO naïve", "DEBUG state"]);
}

/// What exit was told: the outcome, and either two numbers, a duration and a flag, or a text.
#[tokio::test]
async fn a_controller_is_told_how_an_iteration_ended() {
    let mut guest = Guest::new();
    let wrong = guest.text("not what was expected");
    let expect = |condition: &str| {
        Guest::exit(
            guest.clone(),
            format!("(if (i32.eqz {condition}) (then (return (call $error {wrong})))) (call $done)"),
        )
    };
    let all = |conditions: &[&str]| {
        conditions.iter().fold("(i32.const 1)".to_owned(), |all, next| format!("(i32.and {all} {next})"))
    };
    let batch =
        CompletedBatch { items: 1 << 40, batch_size: 100, duration: Duration::from_micros(12_500), finished: true };
    let cases = [
        (
            Outcome::Completed(batch),
            all(&[
                "(i32.eq (local.get $outcome) (i32.const 0))",
                "(i32.eq (local.get $a) (i32.const 2147483647))",
                "(i32.eq (local.get $b) (i32.const 100))",
                "(f64.eq (local.get $duration) (f64.const 12.5))",
                "(local.get $finished)",
            ]),
        ),
        (
            Outcome::Failed("deadlock".to_owned()),
            all(&[
                "(i32.eq (local.get $outcome) (i32.const 1))",
                "(i32.eq (local.get $b) (i32.const 8))",
                "(i32.eq (i32.load8_u (local.get $a)) (i32.const 100))",
            ]),
        ),
        (Outcome::Cancelled, all(&["(i32.eq (local.get $outcome) (i32.const 2))"])),
    ];
    for (outcome, condition) in cases {
        let mut controller = start(&expect(&condition)).await;
        let (mut iteration, _) = enter(&mut *controller).await;
        assert_eq!(iteration.exit(&outcome).await, Ok(()), "{outcome:?}");
    }
}

#[tokio::test]
async fn settings_arrive_one_by_one_and_all_at_once() {
    let mut guest = Guest::new();
    let (known, unknown) = (guest.text("region"), guest.text("planet"));
    let guest = guest.enter(format!(
        "(local $value i32)
         (local.set $value (call $setting {known}))
         (call $log (i32.const 2) (i32.load (local.get $value)) (i32.load offset=4 (local.get $value)))
         (if (call $setting {unknown}) (then unreachable))
         (local.set $value (call $settings))
         (call $log (i32.load offset=4 (local.get $value))
           (i32.load offset=24 (i32.load (local.get $value))) (i32.load offset=28 (i32.load (local.get $value))))
         (call $run (i32.const 1))"
    ));
    let kept = Arc::new(Kept::default());
    let settings = vec![("region".to_owned(), "nörd".to_owned()), ("tier".to_owned(), "gold".to_owned())];
    let source =
        ComponentSource::new("paced", load(&guest).await.unwrap()).with_log(kept.clone()).with_settings(settings);
    let mut controller = source.start("master").await.unwrap();
    enter(&mut *controller).await.1.unwrap();
    // The level of the second line is the number of settings: 2 is info.
    let told: Vec<_> = kept.lines().iter().map(|line| format!("{} {}", line.level, line.text)).collect();
    assert_eq!(told, ["INFO nörd", "INFO gold"]);
}

struct Lag;

impl SignalReader for Lag {
    fn read(&self, database_name: &str, signal: &str) -> Option<Reading> {
        let known = (database_name, signal) == ("master", "replication-lag");
        known.then_some(Reading { value: 1_234.5, age: Duration::from_millis(70) })
    }
}

#[tokio::test]
async fn signals_are_read_with_their_age() {
    let mut guest = Guest::new();
    let (database, lag, other) = (guest.text("master"), guest.text("replication-lag"), guest.text("moon"));
    let guest = guest.enter(format!(
        "(local $at i32)
         (if (call $signal {database} {other}) (then unreachable))
         (local.set $at (call $signal {database} {lag}))
         (if (i32.eqz (local.get $at)) (then (return (call $run (i32.const 0)))))
         (call $run (i32.add (i32.load offset=8 (local.get $at)) (i32.trunc_f64_u (f64.load (local.get $at)))))"
    ));
    let artifact = load(&guest).await.unwrap();
    let answers = [
        (ComponentSource::new("paced", artifact.clone()), 0),
        (ComponentSource::new("paced", artifact).with_signals(Arc::new(Lag)), 1_304),
    ];
    for (source, ms) in answers {
        let mut controller = source.start("master").await.unwrap();
        assert_eq!(enter(&mut *controller).await.1, Ok(Admission::Run(Duration::from_millis(ms))));
    }
}

#[tokio::test]
async fn usage_is_measured_from_one_question_to_the_next() {
    let mut controller =
        start(&Guest::new().enter("(drop (memory.grow (i32.const 3))) (call $run (i32.const 1))")).await;
    iterate(&mut *controller).await.unwrap();
    let first = controller.take_usage().unwrap();
    assert_eq!((first.calls, first.peak_memory), (4, 5 << 16));
    assert!((10..10_000).contains(&first.fuel), "{first:?}");
    let idle = controller.take_usage().unwrap();
    assert_eq!((idle.calls, idle.fuel, idle.peak_memory), (0, 0, 5 << 16));
    iterate(&mut *controller).await.unwrap();
    assert_eq!(controller.take_usage().unwrap().peak_memory, 8 << 16);
}
