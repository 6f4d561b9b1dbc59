//! What an operator sees of a controller at fault; and that its updates are done by the fallback.

use super::{ITEMS, assert_done, site};
use crate::assert_told;
use crate::support::components::Guest;
use crate::support::place::Place;
use crate::support::run::touched;

/// On a slow machine there is time for lines on the pace.
const MASKS: &[(&str, &str)] = &[(r"(?m)^master: touch_items: \d[^\n]*\n", "")];

const ENDLESS: &str = "(loop $again (br $again)) unreachable";
const BOMB: &str = "(loop $again (drop (memory.grow (i32.const 16))) (br $again)) unreachable";

/// A controller that does this in one callback, for each callback.
fn in_each_callback(bad: &str) -> Vec<(String, Guest)> {
    let guest = Guest::new().fields(&format!("(func $misbehave (result i32) {bad})"));
    let cases = [
        ("on-update", guest.clone().on_update("(call $misbehave)")),
        ("enter", guest.clone().enter("(call $misbehave)")),
        ("exit", guest.clone().exit("(call $misbehave)")),
        ("the destructor", guest.clone().dtor("(drop (call $misbehave))")),
        ("default-batch-size", guest.clone().default_batch_size("(call $misbehave)")),
        ("min-batch-size", guest.min_batch_size("(call $misbehave)")),
    ];
    cases.map(|(callback, guest)| (format!("in {callback}"), guest)).into()
}

/// A controller that returns an error from one callback, for each that can.
fn with_an_error() -> Vec<(String, Guest)> {
    let mut guest = Guest::new();
    let error = format!("(call $error {})", guest.text("the moon is full"));
    let cases = [
        ("from on-update", guest.clone().on_update(&error)),
        ("from enter", guest.clone().enter(&error)),
        ("from exit", guest.exit(&error)),
    ];
    cases.map(|(callback, guest)| (callback.to_owned(), guest)).into()
}

/// Files that are no controller for this host.
fn unusable() -> Vec<(String, Vec<u8>)> {
    let missing_import = Guest::new()
        .import(
            r#"(import "acme:secrets/vault@1.0.0" "open" (func $open))"#,
            "import acme:secrets/vault@1.0.0;",
            "package acme:secrets@1.0.0 { interface vault { open: func(); } }",
        )
        .enter("(call $open) (call $run (i32.const 1))");
    vec![
        ("a missing import".to_owned(), missing_import.component()),
        ("a core module".to_owned(), wat::parse_str("(module)").unwrap()),
        ("garbage".to_owned(), b"hello, world!".to_vec()),
        ("another version of the contract".to_owned(), Guest::new().edit("@0.1.0", "@0.2.0").component()),
    ]
}

/// Runs each until all is done, and tells what was seen of it.
async fn runs(cases: Vec<(String, Guest)>) -> String {
    let mut report = String::new();
    for (case, guest) in cases {
        report += &run(&Place::sqlite(), &case, &guest.component()).await;
    }
    report
}

/// Runs a component until all is done, and tells what was seen of it.
async fn run(place: &Place, case: &str, component: &[u8]) -> String {
    let site = site(place, component, "").await;
    let told = site.tidegate(&["run", "--until-done"]).await;
    assert_eq!(told.code, 0, "{case}: {}", told.all());
    assert_done(place, case).await;
    format!("## {case}\n{}\n\n", told.all())
}

#[tokio::test]
async fn an_endless_loop() {
    assert_told!(MASKS, "endless_loop", runs(in_each_callback(ENDLESS)).await);
}

#[tokio::test]
async fn a_memory_bomb() {
    assert_told!(MASKS, "memory_bomb", runs(in_each_callback(BOMB)).await);
}

#[tokio::test]
async fn a_trap_in_each_callback() {
    assert_told!(MASKS, "trap", runs(in_each_callback("unreachable")).await);
}

#[tokio::test]
async fn an_error_from_each_callback() {
    assert_told!(MASKS, "error", runs(with_an_error()).await);
}

#[tokio::test]
async fn some_of_them_on_postgres() {
    let mut report = String::new();
    let wanted = ["in enter", "in exit", "in the destructor", "in min-batch-size", "from exit"];
    for (case, guest) in in_each_callback("unreachable").into_iter().chain(with_an_error()) {
        if wanted.contains(&case.as_str()) {
            report += &run(&Place::postgres().await, &case, &guest.component()).await;
        }
    }
    for (case, component) in unusable().into_iter().take(1) {
        report += &run(&Place::postgres().await, &case, &component).await;
    }
    assert_told!(MASKS, "postgres", report);
}

#[tokio::test]
async fn a_file_that_cannot_be_loaded_leaves_the_work_to_the_fallback() {
    let mut report = String::new();
    for (case, component) in unusable() {
        report += &run(&Place::sqlite(), &case, &component).await;
    }
    assert_told!(MASKS, "unusable", report);
}

#[tokio::test]
async fn check_tells_of_a_file_that_cannot_be_loaded() {
    let mut report = String::new();
    for (case, component) in unusable() {
        let place = Place::sqlite();
        let site = site(&place, &component, "").await;
        let told = site.tidegate(&["check"]).await;
        assert_eq!(told.code, 2, "{case}: {}", told.all());
        report += &format!("## {case}\n{}\n\n", told.all());
    }
    assert_told!(MASKS, "check", report);
}

#[tokio::test]
async fn a_controller_that_is_not_there() {
    let place = Place::sqlite();
    let site = site(&place, b"", "").await;
    std::fs::remove_file(site.path().join("guest.wasm")).unwrap();
    let check = site.tidegate(&["check"]).await;
    let run = site.tidegate(&["run", "--until-done"]).await;
    assert_eq!((check.code, run.code), (2, 0));
    assert_done(&place, "a controller that is not there").await;
    assert_told!(MASKS, "not_there", format!("## check\n{}\n\n## run\n{}\n", check.all(), run.all()));
}

#[tokio::test]
async fn a_wrong_digest_holds_whatever_the_fallback() {
    let places = [Place::sqlite(), Place::postgres().await];
    for place in &places {
        let more = format!("fallback = \"default\"\nsha256 = \"{}\"\n", "0f".repeat(32));
        let site = site(place, &Guest::new().component(), &more).await;
        let run = site.tidegate(&["run", "--until-done"]).await;
        assert_eq!(run.code, 3, "{}", run.all());
        assert_eq!(touched(place).await, [format!("0|{ITEMS}")], "a row was touched");
        let check = site.tidegate(&["check"]).await;
        assert_eq!(check.code, 2);
        let report = format!("## run\n{}\n\n## check\n{}\n", run.all(), check.all());
        assert_told!(MASKS, "wrong_digest", report);
    }
}

#[tokio::test]
async fn the_fallback_hold_holds_and_says_why() {
    let place = Place::sqlite();
    let guest = Guest::new().enter("unreachable");
    let site = site(&place, &guest.component(), "fallback = \"hold\"\nmax_faults = 2\n").await;
    let run = site.tidegate(&["run", "--until-done"]).await;
    assert_eq!(run.code, 3, "{}", run.all());
    assert_eq!(touched(&place).await, [format!("0|{ITEMS}")], "a row was touched");
    // What holds is told again every few seconds.
    let masks = [MASKS, &[(r"(?m)^master: touch_items: held: [^\n]*\n", "")]].concat();
    assert_told!(&masks, "fallback_hold", run.all());
}

#[tokio::test]
async fn numbers_out_of_range_in_each_iteration_are_told_once() {
    let place = Place::sqlite();
    let guest = Guest::new()
        .enter("(call $run (i32.const 60001))")
        .default_batch_size("(i32.const 0)")
        .min_batch_size("(i32.const -1)");
    let site = site(&place, &guest.component(), "").await;
    let run = site.tidegate(&["run", "--until-done"]).await;
    assert_eq!(run.code, 0, "{}", run.all());
    assert_done(&place, "out of range").await;
    assert_told!(MASKS, "out_of_range", run.all());
}

/// Somebody who looks after the work is over can still see that its controller was at fault.
#[tokio::test]
async fn the_last_fault_is_seen_after_the_host_has_ended() {
    let place = Place::sqlite();
    let mut guest = Guest::new();
    let error = format!("(call $error {})", guest.text("the moon\u{1b}[2J is\nfull"));
    let site = site(&place, &guest.exit(&error).component(), "").await;
    assert_eq!(site.tidegate(&["run", "--until-done"]).await.code, 0);
    assert_told!(MASKS, "last_fault", site.tidegate(&["status"]).await.all());
    let json: serde_json::Value = serde_json::from_str(&site.tidegate(&["status", "--json"]).await.out).unwrap();
    let database = &json["databases"][0];
    assert_eq!((&database["activity"], &database["runner"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    assert!(database["last_fault"]["fault"].as_str().unwrap().contains("the moon"), "{database}");
}
