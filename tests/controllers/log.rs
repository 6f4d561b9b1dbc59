//! What a controller says, as it reaches the operator.

use super::{assert_done, site_with_batches};
use crate::assert_told;
use crate::support::components::Guest;
use crate::support::place::Place;

/// The lines of the log that came from a controller.
fn from_controllers(err: &str) -> String {
    err.lines().filter(|line| line.contains("tidegate::controller")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn lines_have_the_controllers_name_and_cannot_pass_for_others() {
    let mut guest = Guest::new();
    let hostile = guest.text("first\n2030-01-01 ERROR tidegate: the disk is full\x1b[2J\r");
    let long = guest.text(&"é".repeat(3_000));
    let (key, absent) = (guest.text("greeting"), guest.text("absent"));
    let on_update = format!(
        "(call $log (i32.const 3) {hostile}) (call $log (i32.const 4) {long})
         (call $log (i32.const 2) (i32.load (call $setting {key})) (i32.load offset=4 (call $setting {key})))
         (if (call $setting {absent}) (then unreachable))
         (call $log (i32.const 1) {key}) (call $iteration)"
    );
    let place = Place::sqlite();
    // One batch, and so one iteration.
    let component = guest.on_update(on_update).default_batch_size("(i32.const 5000)").component();
    let site = site_with_batches(&place, &component, "[controller.settings]\ngreeting = \"hello\"\n", 5_000).await;
    let told = site.tidegate(&["--log", "info", "run", "--until-done"]).await;
    assert_done(&place, "log").await;
    let masks = &[("é{2000,}", "[é…]")];
    assert_told!(masks, "log", from_controllers(&told.err));
    let longest = told.err.lines().map(str::len).max().unwrap();
    assert!((4_096..4_500).contains(&longest), "{longest}");
}

#[tokio::test]
async fn a_flood_is_cut_off_and_counted() {
    let mut guest = Guest::new().fields("(global $left (mut i32) (i32.const 0))");
    let line = guest.text("drip");
    let on_update = format!(
        "(global.set $left (i32.const 1000))
         (loop $again
           (call $log (i32.const 4) {line})
           (br_if $again (global.set $left (i32.sub (global.get $left) (i32.const 1))) (global.get $left)))
         (call $iteration)"
    );
    let place = Place::sqlite();
    let component = guest.on_update(on_update).default_batch_size("(i32.const 5000)").component();
    let site = site_with_batches(&place, &component, "", 5_000).await;
    let told = site.tidegate(&["run", "--until-done"]).await;
    assert_done(&place, "flood").await;
    let lines = from_controllers(&told.err);
    // A second may begin in the middle of the flood.
    let drips = lines.matches(": drip ").count();
    assert!((100..=300).contains(&drips), "{drips}");
    assert!(
        lines.lines().last().unwrap().contains("lines dropped, more than 100 in a second database=\"master\""),
        "{lines}"
    );
}
