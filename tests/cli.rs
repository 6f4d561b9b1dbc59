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

/// `docs/cli.md` is made from the program, and written anew where `INSTA_UPDATE` says so of snapshots.
#[test]
fn the_reference_is_what_the_program_says_of_itself() {
    let folder = tempfile::tempdir().unwrap();
    let reference = String::from_utf8(tidegate(folder.path(), &["reference"]).stdout).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(&path, &reference).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(written == reference, "docs/cli.md is stale: `INSTA_UPDATE=always cargo test the_reference` mends it");
}

/// Every command and every option that `--help` shows is in the reference.
#[test]
fn help_shows_nothing_that_the_reference_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let page = |arguments: &[&str]| String::from_utf8(tidegate(folder.path(), arguments).stdout).unwrap();
    let reference = page(&["reference"]);
    let root = page(&["--help"]);
    let commands = root.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        let section = reference.split("\n## ").find(|part| part.starts_with(&format!("`tidegate {command}`")));
        let section = section.unwrap_or_else(|| panic!("{command} is not in the reference"));
        let help = page(&[command, "--help"]);
        let options = help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
        for option in options.map(|word| word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric())) {
            let known = section.contains(&format!("`{option}")) || reference.contains(&format!("- `{option}"));
            assert!(known || option == "--help", "{command} {option}");
        }
    }
}

#[test]
fn exit_codes_are_told_where_a_person_looks() {
    let folder = tempfile::tempdir().unwrap();
    let help = told(&tidegate(folder.path(), &["--help"]));
    let reference = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md")).unwrap();
    for code in ["0", "1", "2", "3", "4", "130"] {
        assert!(help.contains(&format!("\n  {code}  ")), "{code}: {help}");
        assert!(reference.contains(&format!("\n{code}  ")), "{code}");
    }
}

#[test]
fn shells_take_the_completions() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = tidegate(folder.path(), &["completions", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && script.contains("until-done") && !script.contains("reference"),
            "{shell}: {script}"
        );
        fs::write(folder.path().join(shell), script).unwrap();
    }
    let parsed = Command::new("bash").arg("-n").arg(folder.path().join("bash")).output().unwrap();
    assert_eq!((parsed.status.code(), told(&parsed).as_str()), (Some(0), "exit code 0"));
    // What the script is for: the options of a command, completed.
    let ask = "source ./bash; COMP_WORDS=(tidegate run --un); COMP_CWORD=2; _tidegate tidegate --un run; \
               echo \"${COMPREPLY[@]}\"";
    let completed = Command::new("bash").current_dir(folder.path()).args(["-c", ask]).output().unwrap();
    assert_eq!(told(&completed), "--until-done\nexit code 0");
    let unknown = told(&tidegate(folder.path(), &["completions", "tcsh"]));
    assert!(unknown.contains("possible values: bash, elvish, fish, powershell, zsh"), "{unknown}");
    assert!(unknown.ends_with("exit code 2"), "{unknown}");
}

#[test]
fn a_missing_configuration_ends_with_2_and_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(told(&tidegate(folder.path(), &["status"])), @r#"
    error: tidegate.toml: cannot read the configuration: No such file or directory (os error 2)
    hint: name the configuration's file with `--config`, or make one with `tidegate init`
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
