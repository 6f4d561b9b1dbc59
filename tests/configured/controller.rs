//! Limits of a controller: with one value it keeps within them, with another it does not.

use crate::controllers::{ITEMS, assert_done, site_with_batches};
use crate::guests::built;
use crate::support::command::Told;
use crate::support::components::Guest;
use crate::support::place::Place;

/// Runs the controller that misbehaves as `settings` say, in a file with these lines under `[[controller]]` and
/// `[controller.limits]`, until all is done: whatever the limits, the work is.
async fn run(settings: &str, controller: &str, limits: &str) -> Told {
    let place = Place::sqlite();
    let component = std::fs::read(built("hostile")).unwrap();
    let more = format!("{controller}\n[controller.settings]\n{settings}\n[controller.limits]\n{limits}\n");
    let site = site_with_batches(&place, &component, &more, ITEMS).await.sharing_what_is_compiled();
    let told = site.tidegate(&["--log", "info", "run", "--until-done"]).await;
    assert_eq!(told.code, 0, "{}", told.all());
    assert_done(&place, settings).await;
    told
}

/// A limit, what is misbehaved, a value that allows it, one that does not, and the fault that this is.
const LIMITS: &[(&str, &str, u64, u64, &str)] = &[
    ("fuel_per_call", "misbehave = 'loop'\namount = 10000", 1_000_000, 20_000, "out of fuel in enter"),
    ("deadline_ms", "misbehave = 'sleep'\namount = 300", 60_000, 100, "deadline passed in enter"),
    (
        "memory_bytes",
        "misbehave = 'memory'\namount = 4000000\ncall = 1",
        16_000_000,
        4_000_000,
        "memory limit in enter",
    ),
    ("table_elements", "", 1_000, 1, "memory limit in start: wanted"),
    ("instances", "", 20, 1, "memory limit in start: wanted more than 1 core instances"),
    ("stack_bytes", "misbehave = 'recursion'\namount = 5000", 1_048_576, 16_384, "stack overflow in enter"),
    ("data_bytes", "misbehave = 'log-line'\namount = 5000", 10_000, 4_000, "too much data in enter"),
    ("handles", "misbehave = 'handles'\namount = 20\ncall = 1", 30, 15, "too many handles in enter"),
];

#[tokio::test]
async fn each_limit_strikes_where_it_is_lowered() {
    for (limit, settings, enough, too_little, fault) in LIMITS {
        let told = run(settings, "", &format!("{limit} = {enough}")).await;
        assert!(!told.err.contains("controller guest: "), "{limit} = {enough}: {}", told.all());
        let told = run(settings, "max_faults = 1", &format!("{limit} = {too_little}")).await;
        assert!(told.err.contains(&format!("controller guest: {fault}")), "{limit} = {too_little}: {}", told.all());
        let hint = told.err.lines().find(|line| line.starts_with("  hint: ")).unwrap_or_default();
        assert!(hint.contains(&format!("`{limit}`")) && hint.contains("[controller.limits]"), "{limit}: {hint}");
    }
}

#[tokio::test]
async fn limits_of_the_log_drop_and_cut_where_they_are_lowered() {
    for (limit, settings, enough, too_little, shown) in [
        ("log_lines_per_second", "misbehave = 'log'\namount = 10\ncall = 1", 100, 1, "lines dropped"),
        ("log_line_bytes", "misbehave = 'log-line'\namount = 500\ncall = 1", 600, 400, "… [cut]"),
    ] {
        for (value, is_shown) in [(enough, false), (too_little, true)] {
            let told = run(settings, "", &format!("{limit} = {value}")).await;
            assert_eq!(told.err.contains(shown), is_shown, "{limit} = {value}: {}", told.all());
            assert!(!told.err.contains("controller guest: "), "{limit} = {value}: {}", told.all());
        }
    }
}

#[tokio::test]
async fn patience_with_a_controller_is_as_long_as_configured() {
    for (max_faults, told_of) in
        [(1, "1 fault in a row; the built-in policy"), (3, "3 faults in a row; the built-in policy")]
    {
        let told = run("misbehave = 'trap'", &format!("max_faults = {max_faults}"), "").await;
        assert!(told.err.contains(told_of), "{}", told.all());
    }
    // A controller that recovers in time keeps its place.
    let told = run("misbehave = 'error'\ncall = 1", "max_faults = 2", "").await;
    assert!(!told.err.contains("takes over"), "{}", told.all());
}

#[tokio::test]
async fn a_target_is_cut_to_the_configured_one() {
    for (most, is_cut) in [(2_000, true), (3_000, false)] {
        let place = Place::sqlite();
        let component = std::fs::read(built("hostile")).unwrap();
        let more = "[controller.settings]\nmisbehave = 'target'\namount = 3000\n";
        let site = site_with_batches(&place, &component, more, ITEMS).await.sharing_what_is_compiled();
        let configuration = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
        let header = "[background_updates]\n";
        site.write(
            "tidegate.toml",
            configuration.replace(header, &format!("{header}max_target_duration_ms = {most}\n")),
        );
        let told = site.tidegate(&["run", "--until-done"]).await;
        assert_done(&place, "target").await;
        let fault = format!("value out of range in enter: target duration 3000 ms, cut to {most} ms");
        assert_eq!(told.err.contains(&fault), is_cut, "{}", told.all());
    }
}

#[tokio::test]
async fn the_least_that_a_controller_asks_for_is_bounded() {
    let greedy = Guest::new().enter("(call $run (i32.const 0))").min_batch_size("(i32.const 400)").component();
    // Each item takes a millisecond at least, and 50 ms are over after 50 of them.
    let dear = "touched + (WITH RECURSIVE c(i) AS (SELECT items.id UNION ALL SELECT i + 1 FROM c WHERE i < items.id + 30000) \
                SELECT count(*) > 0 FROM c)";
    for (settings, set, least, most, is_cut) in [
        ("max_min_batch_size = 1000", "touched + 1", 400, 400, false),
        ("max_min_batch_size = 300", "touched + 1", 300, 300, true),
        ("batch_cut_off_ms = 60000\nmax_min_batch_size = 120", dear, 120, 120, true),
        ("batch_cut_off_ms = 50", dear, 1, 80, false),
    ] {
        let place = Place::sqlite();
        let site = site_with_batches(&place, &greedy, "", ITEMS).await.sharing_what_is_compiled();
        let configuration = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
        let header = "[background_updates]\n";
        let configuration = configuration.replace(header, &format!("{header}{settings}\n"));
        site.write("tidegate.toml", configuration.replace("touched + 1", set));
        let told = site.tidegate(&["run", "--until-done"]).await;
        assert_done(&place, settings).await;
        let fault = "value out of range in min-batch-size: batch size 400, counted as";
        assert_eq!(told.err.contains(fault), is_cut, "{}", told.all());
        let rows = place.rows("select json_extract(record, '$.items') from tidegate_history order by id").await;
        let items: Vec<u64> = rows.iter().map(|items| items.parse().unwrap()).collect();
        let (_, later) = items[..items.len() - 1].split_first().unwrap();
        assert!(!later.is_empty() && later.iter().all(|items| (least..=most).contains(items)), "{settings}: {items:?}");
    }
}
