//! `tidegate controller new`: what it makes, what it refuses, and the tutorials in the languages whose tools the tests
//! have anyway. The others are in `languages.rs`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::tutorial::follow;

const LANGUAGES: [&str; 8] = ["rust", "c", "javascript", "python", "assemblyscript", "go", "zig", "wat"];

/// What `tidegate controller new` printed, and its exit code.
fn make(folder: &Path, name: &str, language: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(folder).args(["controller", "new", name, "--language", language]).env("COLUMNS", "100");
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    format!("{text}exit code {}", output.status.code().unwrap())
}

/// The files of a folder, those in folders below it too.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

#[test]
fn a_new_controller_has_all_that_it_needs_and_says_what_to_type_next() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    for language in LANGUAGES {
        let name = format!("night-{language}");
        told.push(make(folder.path(), &name, language));
        let root = folder.path().join(&name);
        for file in files(&root) {
            let path = file.strip_prefix(folder.path()).unwrap().display().to_string();
            told.push(format!("  {path}"));
            let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
            assert!(!text.contains("{{"), "{path} has something that was not filled in");
        }
        let contract = fs::read_to_string(root.join("wit/controller.wit")).unwrap();
        assert_eq!(contract, include_str!("../wit/controller.wit"));
    }
    insta::assert_snapshot!("new_controllers", told.join("\n"));
}

/// The README of each says what was printed: the two come from different places.
#[test]
fn readmes_have_the_commands_that_were_printed() {
    let folder = tempfile::tempdir().unwrap();
    for language in LANGUAGES {
        let told = make(folder.path(), language, language);
        let readme = fs::read_to_string(folder.path().join(language).join("README.md")).unwrap();
        let commands: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("  ")).collect();
        assert!(commands.len() > 3, "{told}");
        for command in commands.into_iter().filter(|command| !command.starts_with("cd ")) {
            assert!(readme.contains(&format!("\n$ {command}\n")), "{language}: {command}");
        }
    }
}

#[test]
fn nothing_is_overwritten_and_names_are_plain() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    assert!(make(folder.path(), "empty", "wat").ends_with("exit code 0"));
    fs::write(folder.path().join("file"), "mine").unwrap();
    fs::create_dir(folder.path().join("full")).unwrap();
    fs::write(folder.path().join("full/note"), "mine").unwrap();
    let names = ["full", "file", "Night", "9lives", "a/b", "../up", "night_shift", "", &"n".repeat(65)];
    let told: Vec<String> = names.iter().map(|name| make(folder.path(), name, "wat")).collect();
    insta::assert_snapshot!("refused_names", told.join("\n"));
    assert_eq!(files(&folder.path().join("full")), [folder.path().join("full/note")]);
    assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "mine");
}

#[test]
fn the_tutorial_in_rust_works_as_it_is_written() {
    follow("rust");
}

#[test]
fn the_tutorial_in_c_works_as_it_is_written() {
    follow("c");
}

#[test]
fn the_tutorial_in_webassembly_text_works_as_it_is_written() {
    follow("wat");
}
