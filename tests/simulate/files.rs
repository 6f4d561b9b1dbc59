//! What a scenario's file can say, and what is said of one that is wrong.

use std::path::Path;
use std::time::Duration;

use tidegate_simulate::Candidate;
use tidegate_simulate::simulate;
use tidegate_testing::{Bench, parse_scenario};

use super::scenario;
use crate::support::components::Guest;

#[test]
fn mistakes_are_told_with_their_place_and_what_to_do() {
    let text = r#"version = 2
nmae = "x"
start = 2026-03-28

[[update]]
items = -1
cost = [{ at_ms = 5 }]
failure = [{ from_ms = 5, until_ms = 5, class = "transitory" }]

[[update]]
name = "twice"

[[update]]
name = "twice"

[load]
step = [{ at_ms = 0, value = 1.5 }]

[[signal]]
nmae = "lag"

[[action]]
at_ms = 1
do = "reboot"

[[action]]
do = "retry"

[expect]
fuel_per_call = 5
never_runs = [{ daily = "22-6" }, { from = 2026-03-28T00:00:00Z }]
held_while = [{ signal = "lag", above = 1 }]
"#;
    let errors = parse_scenario(text, Path::new("bad.toml")).unwrap_err();
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!("mistakes_in_a_scenario", told.join("\n"));
    for text in ["", "version = 1", "version = 1\n[[update]"] {
        assert!(parse_scenario(text, Path::new("bad.toml")).is_err(), "{text}");
    }
}

/// The moments at which batches began, in milliseconds.
fn begun(text: &str) -> Vec<u128> {
    let run = simulate(&Candidate::BuiltIn, &scenario(text), None).unwrap();
    run.seen.batches.iter().map(|batch| batch.at.as_millis()).collect()
}

const TEXT: &str = "version = 1\n[host]\nsleep_enabled = false\ndefault_batch_size = 10\nmin_batch_size = 10\n\
                    background_update_duration_ms = 10\n[[update]]\nname = \"u\"\nitems = 40\ncost_ms = 1\nbatch_ms = 0\n";

#[test]
fn time_passes_as_the_scenario_says() {
    assert_eq!(begun(TEXT), [0, 10, 20, 30]);
    assert_eq!(begun(&format!("{TEXT}queued_at_ms = 500\n")), [500, 510, 520, 530]);
    // From 10 ms on an item costs twice as much; what is too much shows in the next batch.
    assert_eq!(begun(&format!("{TEXT}cost = [{{ at_ms = 10, factor = 2 }}]\n")), [0, 10, 30, 50]);
    // Half of the server is the foreground's.
    assert_eq!(begun(&format!("{TEXT}[load]\nstep = [{{ at_ms = 0, value = 0.5 }}]\n")), [0, 20, 40, 60]);
    assert_eq!(begun(&format!("{TEXT}[[stall]]\nfrom_ms = 15\nuntil_ms = 115\n")), [0, 10, 120, 130]);
    // Paused before the third batch, looked at again within a second.
    let paused = format!("{TEXT}[[action]]\nat_ms = 15\ndo = \"pause\"\n[[action]]\nat_ms = 5_000\ndo = \"resume\"\n");
    let begun = begun(&paused);
    assert_eq!((begun[1], begun[2]), (10, 5_000), "{begun:?}");
}

/// The moments at which batches of an update began, in milliseconds.
fn begun_of(update_name: &str, text: &str) -> Vec<u128> {
    let run = simulate(&Candidate::BuiltIn, &scenario(text), None).unwrap();
    let batches = run.seen.batches.iter().filter(|batch| batch.update_name == update_name);
    batches.map(|batch| batch.at.as_millis()).collect()
}

#[test]
fn what_fails_is_tried_again_when_it_is_due_and_the_others_run_meanwhile() {
    // A batch of m fails after 5 ms, four times.
    let failing = "failure = [{ from_ms = 0, until_ms = 60_000, times = 4, class = \"connection\" }]\n";
    let text = TEXT.replace("\"u\"\nitems = 40", "\"m\"\nitems = 10") + failing;
    let text = format!("{text}[[update]]\nname = \"n\"\nitems = 100\ncost_ms = 1\nbatch_ms = 0\n");
    assert_eq!(begun_of("m", &text), [0, 255, 760, 1_765, 3_770]);
    assert_eq!(begun_of("n", &text), [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]);
    // Of two that were begun the first by the queue's order goes on; what is queued meanwhile waits for their end.
    let longer = text.replace("items = 100\n", "items = 1_000\n");
    let queued = format!("{longer}[[update]]\nname = \"c\"\nitems = 10\nbatch_ms = 0\nqueued_at_ms = 50\n");
    assert_eq!(begun_of("m", &queued)[..2], [0, 255]);
    let (ends, c) = (begun_of("n", &queued), begun_of("c", &queued));
    assert!(c[0] > *ends.last().unwrap(), "{c:?} {ends:?}");
    // Whose failure is forgotten does not wait for its time: the queue is looked at within a second.
    let retried = format!("{text}[[action]]\nat_ms = 2_000\ndo = \"retry\"\nupdate = \"m\"\n");
    let begun = begun_of("m", &retried);
    assert!(begun[4] <= 3_000, "{begun:?}");
}

/// A guest that writes the wall clock's and the monotonic clock's seconds into its batch size would be hard to read:
/// this one waits as many milliseconds as the signal says, so that what it read shows in the moments.
#[tokio::test]
async fn a_guest_reads_the_signals_of_the_scenario() {
    let mut guest = Guest::new().fields("(global $entered (mut i32) (i32.const 0))");
    let database = guest.text("master");
    let lag = guest.text("lag");
    let reason = guest.text("as told");
    let guest = guest.enter(format!(
        "(local $reading i32)
         (global.set $entered (i32.add (global.get $entered) (i32.const 1)))
         (if (i32.and (global.get $entered) (i32.const 1)) (then
           (local.set $reading (call $signal {database} {lag}))
           (if (local.get $reading) (then
             (return (call $wait (i32.trunc_f64_u (f64.load (local.get $reading))) {reason}))))
           (return (call $wait (i32.const 77) {reason}))))
         (call $run (i32.const 10))"
    ));
    let bench = Bench::from_bytes(guest.component()).await.unwrap();
    let signal = "[[signal]]\nname = \"lag\"\nevery_ms = 100\n\
                  step = [{ at_ms = 0, value = 200 }, { at_ms = 300, value = 300 }]\n\
                  loss = [{ from_ms = 450, until_ms = 10_000, gone = true }]\n";
    let trial = bench.run(&scenario(&format!("{TEXT}{signal}"))).unwrap();
    let waits: Vec<Duration> = trial.run.seen.holds.iter().map(|hold| hold.duration).collect();
    // Entered at 0, 210, 420 (all before the loss), 730 and later.
    let ms: Vec<u128> = waits.iter().map(Duration::as_millis).collect();
    assert_eq!(ms, [200, 200, 300, 77]);
}
