//! `run --record` and `controller replay`, as an operator and an author use them.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::lines;
use crate::assert_told;
use crate::controllers::{assert_done, site_with_batches};
use crate::guests::built;
use crate::support::command::Site;
use crate::support::components::Guest;
use crate::support::on_both;
use crate::support::place::Place;
use crate::support::run::make_items;

/// What a replay prints of fuel depends on the compiler of the guest.
const MASKS: &[(&str, &str)] = &[
    (r"fuel: [\d,]+ recorded, [\d,]+ now", "fuel: [fuel] recorded, [fuel] now"),
    (r"[\d,]+ calls of", "[n] calls of"),
];

/// The updates of the demo, small: a backfill, the index after it, and a deletion.
async fn demo(place: &Place) -> Site {
    make_items(place, 1_000).await;
    place.recommended().await;
    let site = Site::new(&format!(
        r#"
[[database]]
url = "{}"

[[controller]]
name = "steady"
path = "{}"

[controller.settings]
background_update_duration_ms = "100"
sleep_duration_ms = "1"

[[update]]
name = "fill"
kind = "backfill"
table = "items"
key = "id"
set = "touched = touched + 1"

[[update]]
name = "fill_index"
kind = "create-index"
table = "items"
index = "by_touched"
columns = ["touched"]

[[update]]
name = "prune"
kind = "delete"
table = "items"
key = "id"
where = "id % 2 = 0"
"#,
        place.url,
        built("rust-steady").display(),
    ));
    for arguments in
        [&["enqueue", "fill"][..], &["enqueue", "fill_index", "--depends-on", "fill"], &["enqueue", "prune"]]
    {
        let told = site.tidegate(arguments).await;
        assert_eq!(told.code, 0, "{}", told.all());
    }
    site
}

on_both! {
    async fn a_recorded_demo_asked_of_the_same_controller_shows_no_difference(place: Place) {
        let site = demo(place).await;
        let run = site.tidegate(&["run", "--until-done", "--record", "trace.jsonl"]).await;
        assert!(run.code == 0 && run.err.contains("recording the controllers' calls to trace.jsonl"), "{}", run.all());
        let component = built("rust-steady").display().to_string();
        let same = site.tidegate(&["controller", "replay", &component, "trace.jsonl"]).await;
        assert_told!(MASKS, "the_same_controller", same.all());
        // To the last unit of fuel.
        let json = site.tidegate(&["controller", "replay", &component, "trace.jsonl", "--json"]).await;
        let json: Value = serde_json::from_str(&json.out).unwrap();
        assert!(json["calls"].as_u64().unwrap() > 10, "{json}");
        assert_eq!(json["recorded_fuel"], json["fuel"], "{json}");
        assert_eq!((&json["not_asked"], &json["lost"], &json["complete"]), (&0.into(), &0.into(), &true.into()));
    }

    async fn a_recorded_demo_asked_of_another_controller_names_the_first_difference(place: Place) {
        let site = demo(place).await;
        let run = site.tidegate(&["run", "--until-done", "--record", "trace.jsonl"]).await;
        assert_eq!(run.code, 0, "{}", run.all());
        let component = built("rust-steady").display().to_string();
        let changed = ["controller", "replay", &component, "trace.jsonl", "--set", "background_update_duration_ms=50"];
        let told = site.tidegate(&changed).await;
        assert_eq!(told.code, 4);
        let masks: Vec<_> = MASKS.iter().copied().chain([(r"otherwise \d+ times", "otherwise [n] times"), (r"target \d+", "target [n]")]).collect();
        assert_told!(&masks, "another_target", told.all());
        // Another component altogether: it never waits, and has no batch sizes of its own.
        site.write("eager.wasm", Guest::new().component());
        let eager = site.tidegate(&["controller", "replay", "eager.wasm", "trace.jsonl", "--json"]).await;
        assert_eq!(eager.code, 4);
        let json: Value = serde_json::from_str(&eager.out).unwrap();
        let first = &json["differences"][0];
        assert_eq!((&first["line"], &first["change"]), (&4.into(), &"admission".into()), "{json}");
        assert_eq!((&first["database"], &first["update"]), (&"master".into(), &"fill".into()));
        assert_eq!((&first["recorded"], &first["now"]), (&"wait 1 ms: sleep between iterations".into(), &"run, 100 ms".into()));
        // And one that is at fault where the recorded one was not: it is asked on as a host would.
        let trap = Guest::new().enter("unreachable").component();
        site.write("trap.wasm", &trap);
        let trap = site.tidegate(&["controller", "replay", "trap.wasm", "trace.jsonl", "--json"]).await;
        let json: Value = serde_json::from_str(&trap.out).unwrap();
        assert_eq!(json["differences"][0]["change"], "fault", "{json}");
        assert!(json["differences"][0]["now"].as_str().unwrap().starts_with("trap: "), "{json}");
        assert!(json["not_asked"].as_u64().unwrap() > 0, "{json}");
    }

    async fn a_trace_tells_all_that_was_asked_and_answered(place: Place) {
        let mut guest = Guest::new();
        let (reason, error) = (guest.text("not yet"), guest.text("as told"));
        // Waits once, then runs; every third exit returns an error; the fourth enter of an instance traps.
        let guest = guest
            .fields("(global $enters (mut i32) (i32.const 0)) (global $exits (mut i32) (i32.const 0))")
            .enter(format!(
                "(global.set $enters (i32.add (global.get $enters) (i32.const 1)))
                 (if (i32.eq (global.get $enters) (i32.const 5)) (then unreachable))
                 (if (result i32) (i32.eq (global.get $enters) (i32.const 1))
                   (then (call $wait (i32.const 3) {reason})) (else (call $run (i32.const 70))))"
            ))
            .exit(format!(
                "(global.set $exits (i32.add (global.get $exits) (i32.const 1)))
                 (if (result i32) (i32.eq (global.get $exits) (i32.const 2))
                   (then (call $error {error})) (else (call $done)))"
            ))
            .min_batch_size("(i32.const 40)");
        let more = "fallback = \"default\"\nmax_faults = 1000\n[controller.settings]\nsecret = \"of the operator\"\n[controller.limits]\nfuel_per_call = 123456\n";
        let site = site_with_batches(place, &guest.component(), more, 40).await;
        let run = site.tidegate(&["run", "--until-done", "--record", "trace.jsonl"]).await;
        assert_eq!(run.code, 0, "{}", run.all());
        assert_done(place, "recorded").await;
        let trace = site.path().join("trace.jsonl");
        assert_eq!(std::fs::metadata(&trace).unwrap().permissions().mode() & 0o777, 0o600);
        let lines = lines(&trace);
        let header = &lines[0];
        assert_eq!((&header["tidegate_trace"], &header["wit"]), (&1.into(), &"0.1.0".into()));
        assert_eq!(header["tidegate"], env!("CARGO_PKG_VERSION"));
        let controller = &header["controllers"][0];
        assert_eq!((&controller["name"], &controller["databases"][0]), (&"guest".into(), &"master".into()));
        assert_eq!((&controller["settings"]["secret"], &controller["limits"]["fuel_per_call"]), (&"of the operator".into(), &123_456.into()));
        assert_eq!(controller["sha256"].as_str().unwrap().len(), 64);
        let calls: Vec<&Value> = lines.iter().filter(|line| line["line"] == "call").collect();
        let told: Vec<String> = calls.iter().take(16).map(|call| {
            let told = if call["fault"].is_null() { call["answer"].to_string() } else { call["fault"]["kind"].to_string() };
            format!("{} {} {} {}", call["instance"], call["iteration"], call["call"].as_str().unwrap(), told)
        }).collect();
        insta::assert_snapshot!("calls", told.join("\n"));
        assert!(calls.iter().all(|call| call["database"] == "master" && call["controller"] == "guest"));
        assert!(calls.iter().all(|call| call["call"] == "start" || call["update"] == "touch_items"));
        let exit = calls.iter().find(|call| call["call"] == "exit").unwrap();
        let completed = &exit["outcome"]["completed"];
        assert_eq!((&completed["items"], &completed["batch_size"]), (&40.into(), &40.into()), "{exit}");
        assert!(completed["duration_ns"].as_u64().unwrap() > 0 && exit["fuel"].as_u64().unwrap() > 0, "{exit}");
        let end = lines.last().unwrap();
        assert_eq!((&end["line"], &end["calls"], &end["lost"]), (&"end".into(), &calls.len().into(), &0.into()));
        // Losses of instances and errors come again as they were.
        let again = site.tidegate(&["controller", "replay", "guest.wasm", "trace.jsonl"]).await;
        assert!(again.code == 0 && again.out.contains("no difference"), "{}", again.all());
    }

    async fn a_run_of_the_built_in_policy_can_be_asked_of_a_first_controller(place: Place) {
        let site = demo(place).await;
        let file = site.path().join("tidegate.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let (before, after) = (text.find("[[controller]]").unwrap(), text.find("[[update]]").unwrap());
        let fast = "[background_updates]\nsleep_duration_ms = 1\n\n";
        site.write("tidegate.toml", format!("{fast}{}{}", &text[..before], &text[after..]));
        let run = site.tidegate(&["run", "--until-done", "--record", "trace.jsonl"]).await;
        assert_eq!(run.code, 0, "{}", run.all());
        let component = built("rust-steady").display().to_string();
        let same = ["controller", "replay", &component, "trace.jsonl", "--set", "sleep_duration_ms=1"];
        let told = site.tidegate(&same).await;
        // The built-in policy leaves batch sizes to the configuration, and this controller does not. It also sleeps a whole
        // sleep after each batch, and the built-in policy a part of it after a short last one.
        assert!(told.code == 4 && told.out.contains("recorded: as configured"), "{}", told.all());
        let differences = told.out.lines().find(|line| line.starts_with("differences: ")).unwrap();
        assert!(differences.contains("batch size "), "{}", told.all());
    }

    async fn a_reload_stands_in_the_trace_where_it_happened(place: Place) {
        let site = site_with_batches(place, &Guest::new().component(), "[controller.settings]\npace = \"first\"\n", 100).await;
        site.tidegate(&["cancel", "touch_items"]).await;
        let mut host = site.start(&["run", "--record", "trace.jsonl"]);
        let patience = std::time::Duration::from_secs(30);
        host.says("working on this database", patience).await;
        let text = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
        site.write("tidegate.toml", text.replace("first", "second"));
        host.signal("HUP");
        host.says("reloaded the configuration", patience).await;
        site.tidegate(&["enqueue", "touch_items"]).await;
        host.says("finished", patience).await;
        host.signal("TERM");
        assert_eq!(host.end(patience).await, 0, "{}", host.said());
        let lines = lines(&site.path().join("trace.jsonl"));
        let kinds: Vec<&str> = lines.iter().take(4).map(|line| line["line"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["header", "reload", "call", "call"]);
        assert_eq!(lines[0]["controllers"][0]["settings"]["pace"], "first");
        assert_eq!(lines[1]["controllers"][0]["settings"]["pace"], "second");
        let again = site.tidegate(&["controller", "replay", "guest.wasm", "trace.jsonl"]).await;
        assert!(again.code == 0 && again.out.contains("no difference"), "{}", again.all());
    }
}
