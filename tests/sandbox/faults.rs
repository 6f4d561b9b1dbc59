//! What goes wrong in a callback: which fault it is, what its message says, and whether the instance lives on.

use std::time::Duration;

use futures_util::FutureExt;
use tidegate::controller::{Admission, FaultKind, Source};
use tidegate_wasm::{ComponentSource, Limits};

use super::{completed, enter, first_fault, iterate, limits, load, load_within, shown, source, start, subject};
use crate::support::components::{Guest, WASI, printer, sleeper};

/// A guest that does something bad in one callback, for each callback.
fn in_each_callback(bad: &str) -> [Guest; 6] {
    let guest = Guest::new().fields(&format!("(func $misbehave (result i32) {bad})"));
    [
        guest.clone().on_update("(call $misbehave)"),
        guest.clone().enter("(call $misbehave)"),
        guest.clone().exit("(call $misbehave)"),
        guest.clone().dtor("(drop (call $misbehave))"),
        guest.clone().default_batch_size("(call $misbehave)"),
        guest.min_batch_size("(call $misbehave)"),
    ]
}

async fn faults_of_each_callback(bad: &str) -> String {
    let mut faults = Vec::new();
    for guest in in_each_callback(bad) {
        faults.push(first_fault(&guest, limits()).await.unwrap_err().to_string());
    }
    faults.join("\n")
}

#[tokio::test]
async fn a_trap_in_any_callback_is_a_fault_that_names_it() {
    insta::assert_snapshot!("trap_in_each_callback", faults_of_each_callback("unreachable").await);
}

#[tokio::test]
async fn long_names_of_functions_are_cut_each_by_itself() {
    let (outer, inner) = ("o".repeat(20_000), "i".repeat(120));
    let guest = Guest::new()
        .fields(&format!("(func ${inner} (result i32) unreachable) (func ${outer} (result i32) (call ${inner}))"));
    let fault = first_fault(&guest.enter(format!("(call ${outer})")), limits()).await.unwrap_err();
    let cut = format!("{}… [cut]", "o".repeat(111));
    let expected =
        format!("wasm `unreachable` instruction executed, in `{inner}` called from `{cut}` called from `enter`");
    assert_eq!(fault.message, expected);
}

#[tokio::test]
async fn what_a_guest_wrote_to_standard_error_before_it_trapped_stands_in_the_fault() {
    let mut guest = printer();
    let before = guest.text("of an earlier call\n");
    let panic = guest.text("\nthread '<unnamed>' panicked at src/lib.rs:3:5:\nno \u{1b}[2Jhours\r\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\nunended");
    let out = guest.text("not this\n");
    let guest = guest
        .on_update(format!("(call $print_error {before}) (call $iteration)"))
        .enter(format!("(call $print_error {panic}) (call $print {out}) unreachable"));
    let fault = first_fault(&guest, limits()).await.unwrap_err();
    let expected = "wasm `unreachable` instruction executed, in `enter`; it wrote: thread '<unnamed>' panicked at \
                    src/lib.rs:3:5: no \\u{1b}[2Jhours unended";
    assert_eq!((fault.kind, fault.message.as_str()), (FaultKind::Trap, expected));
    // Where a limit was the end of it, the limit is what there is to tell.
    let endless = guest.enter(format!("(call $print_error {panic}) (loop $l (br $l)) unreachable"));
    let fault = first_fault(&endless, limits()).await.unwrap_err();
    assert!(fault.kind == FaultKind::OutOfFuel && !fault.message.contains("panicked"), "{fault}");
}

#[tokio::test]
async fn of_much_that_a_guest_wrote_the_last_lines_stand_in_the_fault() {
    let mut guest = printer();
    let (long, short) = (guest.text(&format!("{}\n", "x".repeat(4_000))), guest.text("short\n"));
    let guest = guest.fields("(global $left (mut i32) (i32.const 50))").enter(format!(
        "(loop $again (call $print_error {long})
               (br_if $again (global.set $left (i32.sub (global.get $left) (i32.const 1))) (global.get $left)))
             (call $print_error {short}) unreachable"
    ));
    let fault = first_fault(&guest, limits()).await.unwrap_err();
    assert!(fault.message.len() <= 4_096 && fault.message.ends_with("… [cut] short"), "{fault}");
    assert_eq!(fault.message.matches("[cut]").count(), 7, "{fault}");
}

#[tokio::test]
async fn an_endless_loop_in_any_callback_runs_out_of_fuel() {
    insta::assert_snapshot!(
        "endless_loop_in_each_callback",
        faults_of_each_callback("(loop $again (br $again)) unreachable").await
    );
}

#[tokio::test]
async fn an_error_returned_is_a_fault_that_carries_its_message() {
    let mut guest = Guest::new();
    let text = guest.text("the moon is full");
    let error = format!("(call $error {text})");
    let cases = [guest.clone().on_update(&error), guest.clone().enter(&error), guest.exit(&error)];
    let mut faults = Vec::new();
    for guest in cases {
        let fault = first_fault(&guest, limits()).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::ErrorReturned);
        faults.push(shown(&fault));
    }
    insta::assert_snapshot!("error_returned", faults.join("\n"));
}

#[tokio::test]
async fn an_error_returned_keeps_the_instance_and_its_memory() {
    let mut guest = Guest::new().fields("(global $entered (mut i32) (i32.const 0))");
    let text = guest.text("not the first time");
    let guest = guest.enter(format!(
        "(global.set $entered (i32.add (global.get $entered) (i32.const 1)))
         (if (result i32) (i32.eq (global.get $entered) (i32.const 1))
           (then (call $error {text})) (else (call $run (global.get $entered))))"
    ));
    let mut controller = start(&guest).await;
    let (_, first) = enter(&mut *controller).await;
    assert_eq!(first.unwrap_err().kind, FaultKind::ErrorReturned);
    let (_, second) = enter(&mut *controller).await;
    assert_eq!(second, Ok(Admission::Run(Duration::from_millis(2))));
}

#[tokio::test]
async fn a_message_of_the_guest_is_cut_and_cannot_forge_lines() {
    let mut guest = Guest::new();
    let text = guest.text(&format!("first\nERROR second\x1b[2J{}", "é".repeat(4_000)));
    let fault = first_fault(&guest.clone().enter(format!("(call $error {text})")), limits()).await.unwrap_err();
    assert!(fault.message.starts_with(r"first\nERROR second\u{1b}[2Jéé"), "{fault}");
    assert!(fault.message.ends_with("éé… [cut]") && fault.message.len() <= 4_096, "{fault}");

    let mut controller = start(&guest.enter(format!("(call $wait (i32.const 5) {text})"))).await;
    let (_, answer) = enter(&mut *controller).await;
    let Ok(Admission::Wait { duration, reason }) = answer else { panic!("{answer:?}") };
    assert_eq!(duration, Duration::from_millis(5));
    assert_eq!(reason, fault.message);
}

#[tokio::test]
async fn each_way_to_use_too_much_has_its_own_fault() {
    let recursive = "(func $down (param i32) (result i32)
        (i32.add (call $down (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))";
    let cases = [
        ("endless loop", Guest::new().enter("(loop $again (br $again)) unreachable")),
        (
            "memory bomb",
            Guest::new().enter("(loop $again (drop (memory.grow (i32.const 16))) (br $again)) unreachable"),
        ),
        (
            "two memories",
            Guest::new()
                .fields("(memory $other 1)")
                .enter("(drop (memory.grow $other (i32.const 500))) (drop (memory.grow (i32.const 525))) unreachable"),
        ),
        (
            "table bomb",
            Guest::new().fields("(table $table 1 funcref)").enter(
                "(loop $again (drop (table.grow $table (ref.null func) (i32.const 1000))) (br $again)) unreachable",
            ),
        ),
        ("stack overflow", Guest::new().fields(recursive).enter("(call $down (i32.const 0))")),
        (
            "one long line",
            Guest::new()
                .pages(40)
                .enter("(call $log (i32.const 2) (i32.const 65536) (i32.const 2000000)) (call $run (i32.const 1))"),
        ),
        ("one long answer", Guest::new().pages(40).enter("(call $error (i32.const 65536) (i32.const 2000000))")),
        (
            "many long lines",
            Guest::new().fields("(global $left (mut i32) (i32.const 300))").enter(
                "(loop $again
               (call $log (i32.const 2) (i32.const 65536) (i32.const 4096))
               (br_if $again (global.set $left (i32.sub (global.get $left) (i32.const 1))) (global.get $left)))
             (call $run (i32.const 1))",
            ),
        ),
        (
            "2,000 handles",
            Guest::new().fields("(global $left (mut i32) (i32.const 2000))").on_update(
                "(loop $again
               (drop (call $new (i32.const 1)))
               (br_if $again (global.set $left (i32.sub (global.get $left) (i32.const 1))) (global.get $left)))
             (call $iteration)",
            ),
        ),
        (
            "2,000 handles of WASI",
            sleeper().fields("(global $left (mut i32) (i32.const 2000))").enter(
                "(loop $again
                   (drop (call $subscribe (i64.const 0)))
                   (br_if $again (global.set $left (i32.sub (global.get $left) (i32.const 1))) (global.get $left)))
                 (call $run (i32.const 1))",
            ),
        ),
    ];
    let mut faults = Vec::new();
    for (name, guest) in cases {
        let fault = first_fault(&guest, limits()).await.unwrap_err();
        faults.push(format!("{name}\n{}", shown(&fault)));
    }
    insta::assert_snapshot!("too_much", faults.join("\n\n"));
}

#[tokio::test]
async fn growth_that_a_memory_s_own_maximum_forbids_counts_for_nothing() {
    let guest = Guest::new().fields("(memory $small 1 2) (global $left (mut i32) (i32.const 20))").enter(
        "(loop $again
           (if (i32.ne (memory.grow $small (i32.const 100)) (i32.const -1)) (then unreachable))
           (br_if $again (global.set $left (i32.sub (global.get $left) (i32.const 1))) (global.get $left)))
         (call $run (i32.const 1))",
    );
    assert_eq!(first_fault(&guest, limits()).await, Ok(()));
}

#[tokio::test]
async fn a_bad_access_a_bad_division_and_a_bad_answer_are_traps() {
    let exit = Guest::new()
        .import(
            r#"(import "wasi:cli/exit@0.2.0" "exit" (func $leave (param i32)))"#,
            "import wasi:cli/exit@0.2.0;",
            WASI,
        )
        .enter("(call $leave (i32.const 1)) unreachable");
    let mut not_utf8 = Guest::new();
    let text = not_utf8.text("é");
    let cut_in_half = text.replace("(i32.const 2)", "(i32.const 1)");
    let cases = [
        Guest::new().enter("(i32.load (i32.const -4))"),
        Guest::new().enter("(i32.div_u (i32.const 1) (i32.const 0))"),
        Guest::new().enter("(call $answer (i32.const 9) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))"),
        not_utf8.enter(format!("(call $log (i32.const 2) {cut_in_half}) (call $run (i32.const 1))")),
        exit,
    ];
    let mut faults = Vec::new();
    for guest in cases {
        let fault = first_fault(&guest, limits()).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Trap);
        faults.push(fault.to_string());
    }
    insta::assert_snapshot!("traps", faults.join("\n"));
}

#[tokio::test]
async fn sleep_inside_a_callback_ends_at_the_deadline() {
    let guest = sleeper().enter("(call $sleep (i64.const 3600000)) (call $run (i32.const 1))");
    let limits = Limits { deadline: Duration::from_millis(50), ..Limits::default() };
    insta::assert_snapshot!("sleeps_an_hour", shown(&first_fault(&guest, limits).await.unwrap_err()));
}

#[tokio::test]
async fn work_that_fuel_would_allow_ends_at_the_deadline_and_lets_others_run_meanwhile() {
    let guest = Guest::new().enter("(loop $again (br $again)) unreachable");
    let limits = Limits { fuel_per_call: u64::MAX, deadline: Duration::from_millis(300), ..Limits::default() };
    // This runtime has one thread, so that the other task advances only where the guest yields.
    let other = tokio::spawn(async {
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
    });
    let fault = first_fault(&guest, limits).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Deadline);
    assert!(other.is_finished());
}

/// With tokio's clock at rest no timer strikes: the deadline is looked at by the guest's own interruptions, too.
#[tokio::test(start_paused = true)]
async fn work_ends_at_the_deadline_on_a_runtime_whose_timers_come_late() {
    let guest = Guest::new().enter("(loop $again (br $again)) unreachable");
    let limits = Limits { fuel_per_call: u64::MAX, deadline: Duration::from_millis(300), ..Limits::default() };
    assert_eq!(first_fault(&guest, limits).await.unwrap_err().kind, FaultKind::Deadline);
}

#[tokio::test]
async fn an_instance_that_trapped_is_never_called_again() {
    let mut controller = start(&Guest::new().enter("unreachable").min_batch_size("(i32.const 1)")).await;
    let (mut iteration, answer) = enter(&mut *controller).await;
    let first = answer.unwrap_err();
    let calls = controller.take_usage().unwrap().calls;
    let later = [
        iteration.exit(&completed()).await.unwrap_err(),
        controller.min_batch_size("u", "d").await.unwrap_err(),
        controller.on_update(&subject()).await.map(drop).unwrap_err(),
    ];
    for fault in later {
        assert_eq!(fault.kind, first.kind);
        assert!(fault.message.starts_with("the instance was lost in enter: "), "{fault}");
    }
    // Nothing is left whose destructor could run.
    assert_eq!(iteration.close().await, Ok(()));
    assert_eq!((calls, controller.take_usage().unwrap().calls), (2, 0));
}

#[tokio::test]
async fn an_instance_whose_call_was_given_up_is_lost() {
    let mut controller = start(&sleeper().enter("(call $sleep (i64.const 3600000)) (call $run (i32.const 1))")).await;
    let mut iteration = controller.on_update(&subject()).await.unwrap();
    assert!(iteration.enter().now_or_never().is_none());
    insta::assert_snapshot!("given_up", iteration.exit(&completed()).await.unwrap_err());
}

#[tokio::test]
async fn a_fresh_instance_starts_after_a_trap_and_remembers_nothing() {
    let guest = Guest::new().fields("(global $calls (mut i32) (i32.const 0))").enter(
        "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
             (if (i32.gt_u (global.get $calls) (i32.const 1)) (then unreachable))
             (call $run (global.get $calls))",
    );
    let source = source(&guest).await;
    for _ in 0..3 {
        let mut controller = source.start("master").await.unwrap();
        assert_eq!(iterate(&mut *controller).await, Ok(()));
        assert_eq!(iterate(&mut *controller).await.unwrap_err().kind, FaultKind::Trap);
    }
}

#[tokio::test]
async fn databases_have_instances_of_their_own() {
    let guest = Guest::new()
        .fields("(global $calls (mut i32) (i32.const 0))")
        .enter("(global.set $calls (i32.add (global.get $calls) (i32.const 1))) (call $run (global.get $calls))");
    let source = ComponentSource::new("paced", load(&guest).await.unwrap());
    let mut master = source.start("master").await.unwrap();
    let mut state = source.start("state").await.unwrap();
    for calls in 1..3 {
        for controller in [&mut master, &mut state] {
            let (_, answer) = enter(&mut **controller).await;
            assert_eq!(answer, Ok(Admission::Run(Duration::from_millis(calls))));
        }
    }
}

#[tokio::test]
async fn iterations_that_are_closed_do_not_add_up() {
    let limits = Limits { handles: 10, ..limits() };
    let artifact = load_within(&Guest::new(), limits).await.unwrap();
    let mut controller = ComponentSource::new("paced", artifact).start("master").await.unwrap();
    for _ in 0..100 {
        iterate(&mut *controller).await.unwrap();
    }
}
