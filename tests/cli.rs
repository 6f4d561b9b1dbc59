//! The command line, as far as it goes without a database: what it offers, what it says of mistakes, how it ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn tidegate(folder: &Path, arguments: &[&str]) -> Output {
    // A narrow or wide terminal must not change what is compared.
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(folder).args(arguments).env("COLUMNS", "100").output().unwrap()
}

/// What was printed, and the exit code.
fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).unwrap();
    let code = output.status.code().unwrap();
    format!("{}{}exit code {code}", text(&output.stdout), text(&output.stderr))
}

fn with_configuration(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tidegate.toml"), text).unwrap();
    folder
}

const CONFIGURATION: &str = "\
[[database]]
name = \"main\"
url = \"sqlite:app.db\"

[[update]]
name = \"fill_search_body\"
kind = \"noop\"
";

#[test]
fn the_reference_is_what_help_prints() {
    let folder = tempfile::tempdir().unwrap();
    let commands =
        ["", "run", "check", "enqueue", "status", "history", "retry", "pause", "resume", "cancel", "openapi"];
    let pages = commands.map(|command| {
        let arguments: Vec<_> = [command, "--help"].into_iter().filter(|argument| !argument.is_empty()).collect();
        told(&tidegate(folder.path(), &arguments))
    });
    insta::assert_snapshot!(pages.join("\n\n---\n\n"));
}

#[test]
fn a_missing_configuration_ends_with_2_and_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(told(&tidegate(folder.path(), &["status"])), @r#"
    error: tidegate.toml: cannot read the configuration: No such file or directory (os error 2)
    hint: name the configuration's file with `--config`
    exit code 2
    "#);
}

#[test]
fn mistakes_in_the_configuration_are_all_printed() {
    let folder = with_configuration("[[database]]\nurll = \"sqlite:app.db\"\nbusy_timeout_ms = 0\n");
    insta::assert_snapshot!(told(&tidegate(folder.path(), &["run"])), @r#"
    error: tidegate.toml:2:1: unknown key "urll" in [[database]]
      hint: did you mean "url"?
    error: tidegate.toml:3:19: "busy_timeout_ms": invalid value: integer `0`, expected a whole number from 1 to 86400000
    error: the configuration has 2 mistakes
    exit code 2
    "#);
}

#[test]
fn an_update_that_is_not_defined_is_not_queued() {
    let folder = with_configuration(CONFIGURATION);
    insta::assert_snapshot!(told(&tidegate(folder.path(), &["enqueue", "fill_serch_body"])), @r#"
    error: there is no definition of update "fill_serch_body"
    hint: did you mean "fill_search_body"?
    exit code 2
    "#);
    insta::assert_snapshot!(told(&tidegate(folder.path(), &["enqueue", "other"])), @r#"
    error: there is no definition of update "other"
    hint: define it in [[update]], or queue it all the same with `--force`
    exit code 2
    "#);
}

#[test]
fn a_database_that_is_not_configured_is_named() {
    let folder = with_configuration(CONFIGURATION);
    insta::assert_snapshot!(told(&tidegate(folder.path(), &["retry", "--all", "--database", "mian"])), @r#"
    error: there is no [[database]] named "mian"
    hint: did you mean "main"?
    exit code 2
    "#);
}

#[test]
fn a_filter_for_the_log_that_is_none_is_named() {
    let folder = with_configuration(CONFIGURATION);
    insta::assert_snapshot!(told(&tidegate(folder.path(), &["--log", "tidegate=loud", "status"])), @r#"
    error: "tidegate=loud" is not a filter for the log
      caused by: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
    hint: write a level (error, warn, info, debug, trace), or levels by module: "tidegate=debug,warn"
    exit code 2
    "#);
}
