//! The book's tutorials, followed to the letter: each command of a page is typed, in an empty folder, and has to say what
//! the page says that it says.
//!
//! In a block of a page that is marked `console`, a line that begins with `$ ` is a command, `> ` goes on with it, and
//! the others are lines of what it prints: all of these, in this order, others between them; `…` stands for anything. A
//! command has to succeed, unless what it prints has a line that begins with `error:`. A block of `toml` that begins with a
//! comment that is a file's name is written into that file.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A command, and what the page says that it prints.
#[derive(Debug, Default)]
struct Step {
    command: String,
    printed: Vec<String>,
}

/// Follows the page of `docs/src/tutorials/` with this name.
pub fn follow(name: &str) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/tutorials").join(name).with_extension("md");
    let text = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let steps = steps(&text);
    assert!(steps.len() > 4, "{name}: {steps:?}");
    let home = tempfile::tempdir().unwrap();
    let mut folder = home.path().to_owned();
    for step in &steps {
        if let Some(below) = step.command.strip_prefix("cd ") {
            folder.push(below);
            continue;
        }
        take(step, name, &folder);
    }
}

/// The commands of a page.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut in_console = false;
    let mut in_file = false;
    let mut before = "";
    for line in page.lines() {
        let begins = std::mem::replace(&mut before, line) == "```toml";
        if line.starts_with("```") {
            if in_file && let Some(step) = steps.last_mut() {
                step.command.push_str("\nEND OF FILE");
            }
            in_console = line == "```console";
            in_file = false;
        } else if begins && let Some(file) = line.strip_prefix("# ").filter(|file| file.ends_with(".toml")) {
            in_file = true;
            steps.push(Step { command: format!("cat > {file} <<'END OF FILE'"), printed: Vec::new() });
        } else if in_file && let Some(step) = steps.last_mut() {
            step.command = format!("{}\n{line}", step.command);
        } else if in_console && let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), printed: Vec::new() });
        } else if in_console {
            let step = steps.last_mut().unwrap_or_else(|| panic!("a block begins with what is printed: {line}"));
            match line.strip_prefix("> ").or_else(|| (line == ">").then_some("")) {
                Some(more) => step.command = format!("{}\n{more}", step.command),
                None => step.printed.push(line.to_owned()),
            }
        }
    }
    steps
}

/// Types a command, and compares what it prints.
fn take(step: &Step, page: &str, folder: &Path) {
    let output = shell(&step.command, page, folder).output().unwrap();
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let fails = step.printed.iter().any(|line| line.starts_with("error:"));
    assert_eq!(output.status.success(), !fails, "{page}: {}\n{printed}", step.command);
    let mut rest = printed.lines();
    for line in step.printed.iter().filter(|line| !matches!(line.trim(), "" | "…")) {
        let found = rest.any(|printed| is_like(printed, line));
        assert!(found, "{page}: {} does not print, or not there: {line}\n{printed}", step.command);
    }
}

/// True where a line is what is expected, `…` being anything and spaces at both ends nothing.
fn is_like(line: &str, expected: &str) -> bool {
    let mut rest = line.trim();
    let mut parts = expected.trim().split('…');
    let Some(after) = rest.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    rest = after;
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    rest.is_empty() || last.is_some_and(|part| part.is_empty() || line.trim().ends_with(part))
}

/// A shell as a developer's, with `tidegate` in the search path. What is installed, and what was compiled before, is
/// shared by all runs of these tests, or they would take much longer.
fn shell(command: &str, page: &str, folder: &Path) -> Command {
    let shared = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let programs = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", command]).current_dir(folder);
    shell.env("PATH", format!("{}:{path}", programs.display())).env("COLUMNS", "100").env_remove("RUST_LOG");
    shell.env("XDG_CACHE_HOME", shared.join("compiled")).env("VENV", shared.join("venv").join(page));
    shell.env("npm_config_prefer_offline", "true").env("npm_config_audit", "false").env("npm_config_fund", "false");
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests/target/rust");
    shell
        .env("CARGO_BUILD_BUILD_DIR", guests)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL");
    shell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ellipsis_stands_for_anything_and_nothing_else_does() {
        for (line, expected, like) in [
            ("  enter  240 ", "enter  240", true),
            ("enter 240 run", "enter … run", true),
            ("enter 240 run, 100 ms", "enter …", true),
            ("enter 240 run, 100 ms", "… ms", true),
            ("enter 240 run", "enter", false),
            ("enter 240 run", "enter … wait", false),
            ("enter 240 run on", "enter … run", false),
        ] {
            assert_eq!(is_like(line, expected), like, "{line} {expected}");
        }
    }

    #[test]
    fn commands_are_read_with_their_lines_and_what_they_print() {
        let page = "text\n```console\n$ cat <<E\n> a\n> E\na\n$ true\n```\n```toml\n$ no\n```\n\
                    ```toml\n# a.toml\nkey = 1\n```\n";
        let read: Vec<_> = steps(page).into_iter().map(|step| (step.command, step.printed)).collect();
        assert_eq!(
            read,
            [
                ("cat <<E\na\nE".to_owned(), vec!["a".to_owned()]),
                ("true".to_owned(), vec![]),
                ("cat > a.toml <<'END OF FILE'\nkey = 1\nEND OF FILE".to_owned(), vec![]),
            ]
        );
    }
}
