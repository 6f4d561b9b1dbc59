//! `tidegate controller check`, `test` and `fuel`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::guests::built;
use crate::support::components::Guest;

fn tidegate(folder: &TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("controller").args(arguments).current_dir(folder).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(built("rust-steady"), folder.path().join("steady.wasm")).unwrap();
    folder
}

#[test]
fn test_prints_the_same_each_time_and_writes_what_it_is_asked_for() {
    let folder = folder();
    let arguments = ["test", "steady.wasm", "cost-steps", "--svg", "charts", "--junit", "junit.xml"];
    let first = tidegate(&folder, &arguments);
    assert!(first.status.success(), "{first:?}");
    insta::assert_snapshot!("controller_test", out(&first));
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let written = (read("charts/cost-steps.svg"), read("junit.xml"));
    assert!(written.0.starts_with("<svg") && written.0.contains("batch size, items"), "{}", written.0);
    assert!(written.1.contains("<testcase name=\"no_fault\""), "{}", written.1);
    let second = tidegate(&folder, &arguments);
    assert_eq!((out(&first), written), (out(&second), (read("charts/cost-steps.svg"), read("junit.xml"))));
    let json = tidegate(&folder, &["test", "steady.wasm", "cost-steps", "--json"]);
    let object: Value = serde_json::from_str(&out(&json)).unwrap();
    assert_eq!((&object["version"], &object["passed"]), (&Value::from(1), &Value::from(true)));
    assert_eq!(object["scenarios"][0]["figures"]["items"], 60_000);
}

#[test]
fn pictures_stay_in_their_folder_and_leave_each_other_alone() {
    let folder = folder();
    for (file, name) in [("a.toml", "../out"), ("b.toml", "../out"), ("c.toml", "...")] {
        let text = format!("version = 1\nname = \"{name}\"\n[[update]]\nname = \"u\"\n");
        fs::write(folder.path().join(file), text).unwrap();
    }
    let output = tidegate(&folder, &["test", "steady.wasm", "a.toml", "b.toml", "c.toml", "--svg", "in/here"]);
    assert!(output.status.success(), "{output:?}");
    let found = fs::read_dir(folder.path().join("in/here")).unwrap();
    let mut found: Vec<_> = found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    assert_eq!(found, ["_out-2.svg", "_out.svg", "scenario.svg"]);
    assert_eq!(fs::read_dir(folder.path().join("in")).unwrap().count(), 1);
}

#[test]
fn an_expectation_that_is_not_met_ends_with_code_4_and_names_the_first_moment() {
    let folder = folder();
    let text = "version = 1\nname = \"strict\"\n[[update]]\nname = \"u\"\n[expect]\nfinished_within_ms = 500\n";
    fs::write(folder.path().join("strict.toml"), text).unwrap();
    let output = tidegate(&folder, &["test", "steady.wasm", "strict.toml", "--junit", "junit.xml"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(out(&output).contains("FAIL  finished_within_ms"), "{}", out(&output));
    assert!(out(&output).contains("first at 0:00:00.500 (2026-01-05T12:00:00Z)"), "{}", out(&output));
    let junit = fs::read_to_string(folder.path().join("junit.xml")).unwrap();
    assert!(junit.contains("failures=\"1\""), "{junit}");
    let unknown = tidegate(&folder, &["test", "steady.wasm", "clam"]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(2), "{said}");
    assert!(said.contains("did you mean \"calm\"?"), "{said}");
}

#[test]
fn an_update_of_ones_own_name_is_added_to_a_scenario() {
    let folder = folder();
    fs::copy(built("hostile"), folder.path().join("hostile.wasm")).unwrap();
    let loops = ["--set", "misbehave=loop", "--set", "update=mine"];
    let arguments = [&["test", "hostile.wasm", "calm"][..], &loops].concat();
    assert_eq!(tidegate(&folder, &arguments).status.code(), Some(0));
    let output = tidegate(&folder, &[&arguments[..], &["--update", "mine"]].concat());
    assert_eq!(output.status.code(), Some(4));
    assert!(out(&output).contains("update \"mine\": out of fuel in enter"), "{}", out(&output));
}

#[test]
fn fuel_is_compared_with_an_earlier_build() {
    let folder = folder();
    let save = tidegate(&folder, &["fuel", "steady.wasm", "--save", "before.json"]);
    assert!(save.status.success(), "{save:?}");
    insta::assert_snapshot!("controller_fuel", out(&save));
    let same = tidegate(&folder, &["fuel", "steady.wasm", "--against", "before.json", "--growth", "0"]);
    assert!(same.status.success(), "{same:?}");
    // The earlier build used less.
    let path = folder.path().join("before.json");
    let mut before: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let callbacks = before["callbacks"].as_array_mut().unwrap();
    let enter = callbacks.iter_mut().find(|callback| callback["callback"] == "enter").unwrap();
    enter["fuel"] = Value::from(vec![1, 1, 1]);
    fs::write(&path, before.to_string()).unwrap();
    let grown = tidegate(&folder, &["fuel", "steady.wasm", "--against", "before.json"]);
    let said = String::from_utf8_lossy(&grown.stderr).into_owned();
    assert_eq!(grown.status.code(), Some(4), "{said}");
    assert!(said.contains("grown by more than 10 %: enter: fuel, median, from 1 to "), "{said}");
}

#[test]
fn check_tells_what_is_there_what_is_granted_and_what_is_used_instead() {
    let folder = folder();
    let json = tidegate(&folder, &["check", "steady.wasm", "--json"]);
    let object: Value = serde_json::from_str(&out(&json)).unwrap();
    assert_eq!((json.status.code(), &object["problems"]), (Some(0), &Value::Array(vec![])));
    let callbacks: Vec<&Value> = object["calls"].as_array().unwrap().iter().map(|call| &call["callback"]).collect();
    let expected = ["start", "default-batch-size", "min-batch-size", "on-update", "enter", "enter", "exit", "drop"];
    assert_eq!(callbacks, expected);
    fs::write(folder.path().join("guest.wasm"), Guest::new().component()).unwrap();
    let output = tidegate(&folder, &["check", "guest.wasm"]);
    assert!(out(&output).contains("default-batch-size: absent, the configuration's `default_batch_size`"));
    assert!(out(&output).contains("tidegate:controller/signals@0.1.0: granted"), "{}", out(&output));
}

/// Traps where `lag` has a reading above 10 that is fresh, and reads no other signal.
fn reader() -> Vec<u8> {
    let mut guest = Guest::new();
    let (database, signal) = (guest.text("master"), guest.text("lag"));
    guest
        .fields("(global $at (mut i32) (i32.const 0))")
        .enter(format!(
            "(global.set $at (call $signal {database} {signal}))
             (if (global.get $at) (then
               (if (i32.and (f64.gt (f64.load (global.get $at)) (f64.const 10))
                            (i32.lt_u (i32.load offset=8 (global.get $at)) (i32.const 500)))
                 (then unreachable))))
             (call $run (i32.const 50))"
        ))
        .component()
}

#[test]
fn check_takes_a_controller_that_reads_signals_through_an_iteration_with_readings_as_well() {
    let folder = folder();
    fs::write(folder.path().join("reader.wasm"), reader()).unwrap();
    let check = |more: &[&str]| {
        let output = tidegate(&folder, &[&["check", "reader.wasm", "--json"], more].concat());
        let object: Value = serde_json::from_str(&out(&output)).unwrap();
        (output.status.code(), object)
    };
    let (code, report) = check(&[]);
    assert_eq!(
        (code, &report["signals"]),
        (Some(0), &json!([{ "name": "lag", "value": 1.0, "age_ms": 0, "read": true }]))
    );
    assert_eq!(report["calls"].as_array().unwrap().len(), report["calls_with_signals"].as_array().unwrap().len());
    let (code, report) = check(&["--signal", "lag=11", "--signal", "typo=2@3"]);
    assert_eq!((code, &report["problems"][0]["kind"]), (Some(2), &json!("trap")), "{report}");
    let typo = json!({ "name": "typo", "value": 2.0, "age_ms": 3, "read": false });
    assert_eq!(report["signals"], json!([{ "name": "lag", "value": 11.0, "age_ms": 0, "read": true }, typo]));
    let (code, report) = check(&["--signal", "lag=11@500"]);
    assert_eq!((code, &report["signals"][0]["age_ms"]), (Some(0), &json!(500)), "{report}");
    for wrong in ["lag", "=1", "lag=", "lag=much", "lag=1@", "lag=1@-1", "lag=nan"] {
        let output = tidegate(&folder, &["check", "reader.wasm", "--signal", wrong]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{wrong}: {said}");
        assert!(said.contains("write it as NAME=VALUE or NAME=VALUE@AGE"), "{wrong}: {said}");
    }
    let told = out(&tidegate(&folder, &["check", "reader.wasm", "--signal", "typo=2"]));
    for words in [
        "lag: no reading (give it one with --signal)",
        "typo: 2, 0 ms old; it is never read",
        "One iteration with readings",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn a_fault_of_both_iterations_is_one_problem() {
    let folder = folder();
    let mut guest = Guest::new();
    let (database, signal) = (guest.text("master"), guest.text("lag"));
    let guest = guest.enter(format!("(drop (call $signal {database} {signal})) unreachable"));
    fs::write(folder.path().join("guest.wasm"), guest.component()).unwrap();
    let output = tidegate(&folder, &["check", "guest.wasm", "--json"]);
    let object: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(object["problems"].as_array().unwrap().len(), 1, "{object}");
    // A controller that reads nothing has nothing to be tried with.
    fs::write(folder.path().join("guest.wasm"), Guest::new().component()).unwrap();
    let object: Value = serde_json::from_str(&out(&tidegate(&folder, &["check", "guest.wasm", "--json"]))).unwrap();
    assert_eq!((&object["signals"], &object["calls_with_signals"]), (&json!([]), &json!([])));
}

#[test]
fn check_names_the_line_of_the_contract_or_the_limit() {
    let folder = folder();
    let mut failing = Guest::new();
    let words = failing.text("no");
    let cases = [
        (Guest::new().enter("unreachable").component(), "wit/controller.wit, line "),
        (failing.enter(format!("(call $error {words})")).component(), "wit/controller.wit, line "),
        (Guest::new().enter("(loop $l (br $l)) (unreachable)").component(), "`fuel_per_call` in [controller.limits]"),
        (b"\0asm\x01\0\0\0".to_vec(), "wit/controller.wit, line "),
    ];
    let contract = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/controller.wit")).unwrap();
    for (bytes, hint) in cases {
        fs::write(folder.path().join("bad.wasm"), bytes).unwrap();
        let output = tidegate(&folder, &["check", "bad.wasm"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("hint: ") && said.contains(hint), "{said}");
        if let Some((_, line)) = said.split_once("wit/controller.wit, line ") {
            let number: usize = line.split_whitespace().next().unwrap().parse().unwrap();
            let named = contract.lines().nth(number - 1).unwrap();
            assert!(named.contains("func("), "{named}");
        }
    }
}

#[test]
fn every_key_of_the_json_is_described() {
    let folder = folder();
    let described = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json.md")).unwrap();
    fn keys(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(key, value)| {
                found.push(key.clone());
                keys(value, found);
            }),
            Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
            _ => {}
        }
    }
    for arguments in [&["check", "steady.wasm"][..], &["test", "steady.wasm", "calm"], &["fuel", "steady.wasm"]] {
        let output = tidegate(&folder, &[arguments, &["--json"]].concat());
        let mut found = Vec::new();
        keys(&serde_json::from_str(&out(&output)).unwrap(), &mut found);
        let missing: Vec<_> = found.iter().filter(|key| !described.contains(&format!("`{key}`"))).collect();
        assert!(missing.is_empty(), "{arguments:?}: {missing:?}");
    }
}
