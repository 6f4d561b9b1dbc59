//! The house: what somebody compiles who embeds tidegate, and what its crates promise beyond what Cargo holds.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates that a package is built from, those for its tests left out, by Cargo's own account.
fn built_from(package: &str) -> BTreeSet<String> {
    let arguments = [
        "tree",
        "--offline",
        "--locked",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--package",
    ];
    let tree = Command::new(env!("CARGO")).args(arguments).arg(package).current_dir(host()).output().unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let lines = String::from_utf8(tree.stdout).unwrap();
    lines.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn who_embeds_a_driver_compiles_no_sandbox_no_server_no_command_line_and_no_other_driver() {
    let of_others = |others: &[&str], package: &str| {
        let all = built_from(package);
        assert!(all.contains("tidegate") && all.contains("tokio"), "{all:?}");
        others.iter().filter(|name| all.contains(**name)).map(|name| (*name).to_owned()).collect::<Vec<_>>()
    };
    let heavy = ["wasmtime", "wasmtime-wasi", "axum", "hyper", "clap", "reqwest", "toml", "plotters", "prometheus"];
    let with_sqlite = [&heavy[..], &["tokio-postgres", "rustls"]].concat();
    let with_postgres = [&heavy[..], &["rusqlite", "libsqlite3-sys"]].concat();
    // The package of examples has what a program with SQLite and a native handler has.
    assert_eq!(of_others(&with_sqlite, "tidegate-examples"), [""; 0]);
    assert_eq!(of_others(&with_sqlite, "tidegate-sqlite"), [""; 0]);
    assert_eq!(of_others(&with_postgres, "tidegate-postgres"), [""; 0]);
    // The names are those of crates: the program has them all.
    let all = [&with_sqlite[..], &with_postgres].concat();
    assert_eq!(of_others(&all, "tidegate-cli"), all);
}

/// What the arithmetic of pacing must not know: anything that waits, reads or writes.
const NOT_IN_PACE: [&str; 5] = ["tokio", "async ", "std::fs", "std::io", "Instant::now"];

#[test]
fn the_arithmetic_of_pacing_knows_no_clock_and_no_io() {
    let known = |line: &str| NOT_IN_PACE.iter().any(|name| line.contains(name));
    let pace = code_in(&host().join("core/src/pace"));
    let wrong: Vec<&String> = pace.iter().map(|(_, line)| line).filter(|line| known(line)).collect();
    assert_eq!(wrong, [""; 0]);
}

/// Targets of the log, which tracing keeps for good, a document that never changes, numbers that tell connections apart, the
/// thread that renews leases, and the kernel's list of locks, which is the machine's.
const MAY_BE_GLOBAL: [&str; 5] =
    ["wasm/src/target.rs", "admin/src/api/mod.rs", "driver/src/lib.rs", "driver/src/fence.rs", "sqlite/src/place.rs"];

#[test]
fn hosts_share_nothing() {
    let crates = fs::read_dir(host()).unwrap().map(|entry| entry.unwrap().path());
    let crates = crates.filter(|path| path.join("src").is_dir() && !path.ends_with("program"));
    let lines: Vec<_> = crates.flat_map(|path| code_in(&path.join("src"))).collect();
    assert!(lines.len() > 10_000, "{} lines", lines.len());
    let global = lines.iter().filter(|(file, line)| {
        let is_static = line.split_whitespace().take(2).any(|word| word == "static") || line.contains("thread_local!");
        is_static && !MAY_BE_GLOBAL.iter().any(|name| file.ends_with(name))
    });
    let wrong: Vec<String> = global.map(|(file, line)| format!("{}: {line}", file.display())).collect();
    assert_eq!(wrong, [""; 0]);
}

/// The lines of the code in a folder, comments left out.
fn code_in(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut lines = Vec::new();
    for file in rust_files(folder) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        lines.extend(code.map(|line| (file.clone(), line.to_owned())));
    }
    assert!(!lines.is_empty(), "there is no code in {}", folder.display());
    lines
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// The folder of the crates.
fn host() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
