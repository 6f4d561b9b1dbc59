//! The layers of the house: which module may name which, as ARCHITECTURE.md has it.

use std::fs;
use std::path::{Path, PathBuf};

/// A module, the modules of this crate that it may name besides itself, and the crates that only it and those listed
/// with the same crate may name.
const MODULES: &[(&str, &[&str], &[&str])] = &[
    ("pace", &[], &[]),
    ("controller", &["pace", "signal"], &[]),
    ("update", &["pace"], &[]),
    ("scheduler", &["controller", "pace", "signal", "update"], &[]),
    ("signal", &[], &["reqwest"]),
    ("sandbox", &["controller", "signal"], &["wasmtime", "wasmtime_wasi"]),
    (
        "database",
        &["scheduler", "signal", "update"],
        &["rusqlite", "tokio_rusqlite", "tokio_postgres", "tokio_postgres_rustls", "rustls", "rustls_native_certs"],
    ),
    // How a program makes a host of its own: it names a database by its URL, so that it knows who opens it.
    ("embed", &["controller", "database", "pace", "scheduler", "update"], &[]),
    (
        "admin",
        &["controller", "pace", "scheduler", "signal", "update"],
        &["axum", "hyper", "hyper_util", "maud", "utoipa", "utoipa_axum"],
    ),
    // The scheduler on virtual time, against a database that is only modelled.
    ("simulate", &["controller", "pace", "sandbox", "scheduler", "signal", "update"], &["plotters", "rasciigraph"]),
    // Calls written down, and asked again of a component.
    ("trace", &["controller", "sandbox", "signal"], &[]),
    // Plain data of those whose settings a person writes: limits, definitions, policies, tokens.
    ("config", &["admin", "controller", "pace", "sandbox", "signal", "simulate", "update"], &["toml"]),
    // What `cli/controller` does, for tests that are written in Rust.
    ("testing", &["config", "controller", "sandbox", "signal", "simulate"], &[]),
    (
        "cli",
        &[
            "admin",
            "config",
            "controller",
            "database",
            "embed",
            "pace",
            "sandbox",
            "scheduler",
            "signal",
            "simulate",
            "trace",
            "update",
        ],
        &["clap", "indicatif", "quick_junit", "reqwest", "rustls"],
    ),
];

/// What pace must not know, besides: anything that waits, reads or writes.
const NOT_IN_PACE: [&str; 4] = ["tokio", "async ", "std::fs", "std::io"];

#[test]
fn modules_name_only_those_below_them() {
    let mut wrong = Vec::new();
    for (module, below, _) in MODULES {
        for (file, line) in code_of(module) {
            assert!(
                !line.contains("crate::{"),
                "{}: one module an import, so that this test can read it",
                file.display()
            );
            for named in named_modules(&line) {
                if named != *module && !below.contains(&named.as_str()) {
                    wrong.push(format!("{}: {module} names {named}: {line}", file.display()));
                }
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn what_a_module_alone_knows_is_named_nowhere_else() {
    let mut wrong = Vec::new();
    for (module, _, _) in MODULES {
        let foreign = MODULES.iter().filter(|(owner, ..)| owner != module).flat_map(|(.., crates)| *crates);
        let foreign: Vec<&str> = foreign.copied().filter(|name| !owns(module, name)).collect();
        for (file, line) in code_of(module) {
            for name in foreign.iter().filter(|name| line.contains(&format!("{name}::"))) {
                wrong.push(format!("{}: {module} names {name}: {line}", file.display()));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn the_arithmetic_of_pacing_knows_no_clock_and_no_io() {
    let known = |line: &str| NOT_IN_PACE.iter().any(|name| line.contains(name)) || line.contains("Instant::now");
    let wrong: Vec<String> = code_of("pace").into_iter().map(|(_, line)| line).filter(|line| known(line)).collect();
    assert_eq!(wrong, [""; 0]);
}

/// Targets of the log, which tracing keeps for good, a document that never changes, numbers that tell connections apart, the
/// thread that renews leases, and the kernel's list of locks, which is the machine's.
const MAY_BE_GLOBAL: [&str; 5] =
    ["sandbox/target.rs", "admin/api/mod.rs", "database/mod.rs", "database/fence.rs", "database/sqlite/place.rs"];

#[test]
fn hosts_share_nothing() {
    let modules = MODULES.iter().filter(|(module, ..)| *module != "cli");
    let lines = modules.flat_map(|(module, ..)| code_of(module));
    let global = lines.filter(|(file, line)| {
        let is_static = line.split_whitespace().take(2).any(|word| word == "static") || line.contains("thread_local!");
        is_static && !MAY_BE_GLOBAL.iter().any(|name| file.ends_with(name))
    });
    let wrong: Vec<String> = global.map(|(file, line)| format!("{}: {line}", file.display())).collect();
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn every_module_is_in_the_table() {
    let folder = fs::read_dir(source()).unwrap();
    let names = folder.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    let mut unknown: Vec<String> = names.filter(|name| !matches!(name.as_str(), "lib" | "main")).collect();
    unknown.retain(|name| !MODULES.iter().any(|(module, ..)| module == name));
    assert_eq!(unknown, [""; 0]);
}

fn owns(module: &str, name: &str) -> bool {
    MODULES.iter().any(|(owner, _, crates)| owner == &module && crates.contains(&name))
}

/// The modules of this crate that a line of code names.
fn named_modules(line: &str) -> Vec<String> {
    let after = ["crate::", "tidegate::"].into_iter().flat_map(|prefix| line.split(prefix).skip(1));
    let names = after.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
    names.filter(|name: &String| MODULES.iter().any(|(module, ..)| module == name)).collect()
}

/// The lines of a module's code, comments left out.
fn code_of(module: &str) -> Vec<(PathBuf, String)> {
    let mut lines = Vec::new();
    for file in rust_files(&source().join(module)) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        lines.extend(code.map(|line| (file.clone(), line.to_owned())));
    }
    assert!(!lines.is_empty(), "there is no module {module}");
    lines
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
