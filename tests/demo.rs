//! `make demo`, smaller: what it runs, what it finds by SQL afterwards, and its trace asked of controllers again.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::guests::built;
use crate::support::components::Guest;

/// Runs the demo in a folder, as `make demo` does.
fn demo(database: &str, folder: &Path) -> String {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_tidegate"));
    let mut demo = Command::new(program.with_file_name("examples").join("demo"));
    demo.args(["--database", database, "--rows", "50000", "--folder"]).arg(folder);
    demo.arg("--controller").arg(built("rust-steady")).arg("--tidegate").arg(&program).env("XDG_CACHE_HOME", folder);
    let Output { status, stdout, stderr } = demo.output().expect("the demo: build it with `cargo test --no-run`");
    let said = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(status.success(), "{said}");
    said
}

/// Asks a controller what was asked in the trace that the demo left; the exit code, and what is printed as JSON.
fn replay(component: &Path, folder: &Path) -> (Option<i32>, Value) {
    let mut replay = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    replay.args(["controller", "replay"]).arg(component).arg(folder.join("trace.jsonl")).arg("--json");
    let output = replay.env("XDG_CACHE_HOME", folder).env_remove("RUST_LOG").output().unwrap();
    let told = serde_json::from_slice(&output.stdout);
    (output.status.code(), told.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr))))
}

fn comes_out_right_and_can_be_asked_again(database: &str) {
    let folder = tempfile::tempdir().unwrap();
    let said = demo(database, folder.path());
    for right in ["rows not touched exactly once: 0", "valid indexes on search_body: 1", "updates in the queue: 0"] {
        assert!(said.contains(&format!("ok     {right}")), "{said}");
    }
    assert!(!said.contains("WRONG"), "{said}");

    let (code, told) = replay(&built("rust-steady"), folder.path());
    assert_eq!((code, &told["differences"]), (Some(0), &serde_json::json!([])), "{told}");
    assert!(told["calls"].as_u64().unwrap() > 10 && told["fuel"] == told["recorded_fuel"], "{told}");
    assert_eq!((&told["not_asked"], &told["lost"]), (&0.into(), &0.into()), "{told}");

    // One that does not rest between batches.
    let changed = folder.path().join("changed.wasm");
    std::fs::write(&changed, Guest::new().component()).unwrap();
    let (code, told) = replay(&changed, folder.path());
    let first = &told["differences"][0];
    assert_eq!(
        (code, &first["database"], &first["change"]),
        (Some(4), &"master".into(), &"admission".into()),
        "{told}"
    );
    assert_eq!(first["recorded"], "wait 20 ms: sleep between iterations");
    assert_eq!(first["now"], "run, 100 ms");
    // So small a run begins and ends in order: the first thing asked is the first that differs.
    assert!(first["line"].as_u64().is_some_and(|line| line < 10), "{told}");

    // Anew, in the same folder.
    demo(database, folder.path());
}

#[test]
fn sqlite() {
    comes_out_right_and_can_be_asked_again("sqlite");
}

#[test]
fn postgres() {
    comes_out_right_and_can_be_asked_again("postgres");
}
