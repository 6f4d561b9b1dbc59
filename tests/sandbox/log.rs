//! What controllers write.

use std::sync::Arc;

use tidegate::controller::Source;
use tidegate_wasm::{ComponentSource, LogSource};

use super::{Kept, enter, iterate, load, source};
use crate::support::components::{Guest, printer};

/// Runs one iteration of a guest and gives what it wrote, up to the end of its instance.
async fn written_by(guest: &Guest) -> Arc<Kept> {
    let kept = Arc::new(Kept::default());
    let source = ComponentSource::new("paced", load(guest).await.unwrap()).with_log(kept.clone());
    let mut controller = source.start("master").await.unwrap();
    // A guest may well trap after it has written.
    let _ = iterate(&mut *controller).await;
    kept
}

#[tokio::test]
async fn lines_carry_who_wrote_them_where_and_how_grave_they_are() {
    let mut guest = printer();
    let texts = ["trace", "warning", "printed\r\nin pieces", " and no end", "panicked\n"].map(|text| guest.text(text));
    let [trace, warning, printed, rest, panicked] = texts;
    let guest = guest
        .on_update(format!("(call $log (i32.const 0) {trace}) (call $log (i32.const 3) {warning}) (call $iteration)"))
        .enter(format!("(call $print {printed}) (call $print {rest}) (call $print_error {panicked}) unreachable"));
    let lines = written_by(&guest).await.lines();
    assert!(lines.iter().all(|line| line.controller == "paced" && line.database == "master"));
    let lines: Vec<_> = lines.iter().map(|line| format!("{} {} {}", line.level, line.source, line.text)).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn a_line_cannot_forge_another_one() {
    let mut guest = Guest::new();
    let text = guest.text("all is well\n2026-01-01 ERROR the disk is gone\r\x1b[2K\u{2028}");
    let kept = written_by(&guest.enter(format!("(call $log (i32.const 2) {text}) (call $run (i32.const 1))"))).await;
    assert_eq!(kept.texts(), [r"all is well\n2026-01-01 ERROR the disk is gone\r\u{1b}[2K\u{2028}"]);
}

/// A guest that writes ten thousand lines in one call.
fn of_ten_thousand_lines() -> Guest {
    let mut guest = Guest::new();
    let text = guest.text("again");
    guest.enter(format!(
        "(local $left i32) (local.set $left (i32.const 10000))
         (loop $again
           (call $log (i32.const 2) {text})
           (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
         (call $run (i32.const 1))"
    ))
}

#[tokio::test]
async fn ten_thousand_lines_in_one_call_are_few_lines_and_a_count() {
    let guest = of_ten_thousand_lines();
    let lines = written_by(&guest).await.lines();
    let (told, written): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.source == LogSource::Sandbox);
    let dropped: usize = told.iter().map(|line| line.text.split(' ').nth(1).unwrap().parse::<usize>().unwrap()).sum();
    assert_eq!(written.len() + dropped, 10_000);
    // A hundred for each second that it took, on however slow a machine.
    assert!(!told.is_empty() && written.len() <= 100 * (told.len() + 1), "{} {}", written.len(), told.len());
}

#[tokio::test]
async fn what_a_call_dropped_is_told_when_it_is_over_and_not_when_the_instance_is() {
    let guest = of_ten_thousand_lines();
    let kept = Arc::new(Kept::default());
    let source = source(&guest).await.with_log(kept.clone());
    let mut controller = source.start("master").await.unwrap();
    let (iteration, answer) = enter(&mut *controller).await;
    assert!(answer.is_ok());
    let last = kept.lines().pop().unwrap();
    assert_eq!(last.source, LogSource::Sandbox, "{}", last.text);
    assert!(last.text.ends_with(" lines dropped, more than 100 in a second"), "{}", last.text);
    drop(iteration);
}
