//! SECURITY.md names, for each of its statements, the test that holds it: each of these is there.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn each_test_that_security_md_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .find(|folder| folder.join("SECURITY.md").is_file())
        .expect("SECURITY.md is in the repository");
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let mut files = Vec::new();
    rust_files(&root.join("tests"), &mut files);
    rust_files(&root.join("host"), &mut files);
    let named = named(&text);
    assert!(named.len() > 100, "only {} tests are named", named.len());
    let missing: Vec<&str> = named.into_iter().filter(|name| !is_there(name, &files)).collect();
    assert_eq!(missing, [""; 0]);
}

/// What stands between backticks and is a path of modules with a test at its end.
fn named(text: &str) -> Vec<&str> {
    let of_a_path = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':';
    text.split('`').skip(1).step_by(2).filter(|name| name.contains("::") && name.chars().all(of_a_path)).collect()
}

/// True where a file of these modules has this test.
fn is_there(name: &str, files: &[PathBuf]) -> bool {
    let (modules, test) = name.rsplit_once("::").unwrap();
    // A unit test's last module is within the file that it tests.
    let file = modules.trim_end_matches("::tests").replace("::", "/");
    let (file, folder) = (format!("{file}.rs"), format!("{file}/mod.rs"));
    let declaration = format!("fn {test}(");
    let mut of_these = files.iter().filter(|path| path.ends_with(&file) || path.ends_with(&folder));
    of_these.any(|path| fs::read_to_string(path).unwrap().contains(&declaration))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
