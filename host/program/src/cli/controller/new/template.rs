//! The templates, kept in the program: `host/templates/`, a folder a language, and `common/`, which all get.

use std::path::PathBuf;

use include_dir::{Dir, include_dir};

use super::language::Language;

static TEMPLATES: Dir = include_dir!("$CARGO_MANIFEST_DIR/../templates");

/// What every template gets and the repository has elsewhere already.
const CONTRACT: &[u8] = include_bytes!("../../../../../../wit/controller.wit");

/// The same for handlers.
const HANDLER_CONTRACT: &[u8] = include_bytes!("../../../../../../wit/handler.wit");

/// What `wit-bindgen c` makes of the contract.
const C_BINDINGS: [(&str, &[u8]); 3] = [
    ("gen/controller.c", include_bytes!("../../../../../../guests/c-fixed/gen/controller.c")),
    ("gen/controller.h", include_bytes!("../../../../../../guests/c-fixed/gen/controller.h")),
    (
        "gen/controller_component_type.o",
        include_bytes!("../../../../../../guests/c-fixed/gen/controller_component_type.o"),
    ),
];

/// The end of a file's name that is left out when it is written: tools would take the file for one of this repository's.
const INERT: &str = ".in";

/// Where what all READMEs say stands in the README of a language.
const COMMON_README: &str = "{{common}}";

/// A file to write.
pub(in crate::cli) struct File {
    /// Where, in the folder.
    pub(in crate::cli) path: PathBuf,
    pub(in crate::cli) contents: Vec<u8>,
}

/// The files of a controller.
pub(super) fn files(language: Language, name: &str) -> Vec<File> {
    let mut files = vec![File { path: "wit/controller.wit".into(), contents: CONTRACT.to_vec() }];
    if language == Language::C {
        files.extend(C_BINDINGS.map(|(path, contents)| File { path: path.into(), contents: contents.to_vec() }));
    }
    for folder in [language.folder(), "common"] {
        // Both are there: a test makes a controller in each language.
        let Some(folder) = TEMPLATES.get_dir(folder) else { continue };
        add(&mut files, folder, folder.path().as_os_str().len() + 1, &|text| filled(text, language, name));
    }
    files
}

/// The files of a handler: those of a folder of templates, and the contract.
pub(in crate::cli) fn of_handler(folder: &str, component: &str, name: &str) -> Vec<File> {
    let mut files = vec![File { path: "wit/handler.wit".into(), contents: HANDLER_CONTRACT.to_vec() }];
    if let Some(folder) = TEMPLATES.get_dir(folder) {
        let fill = |text: &str| text.replace("{{component}}", component).replace("{{name}}", name);
        add(&mut files, folder, folder.path().as_os_str().len() + 1, &fill);
    }
    files
}

/// Adds the files of a folder, those in folders below it too. `root` is how much of each path to leave out, in bytes.
fn add(files: &mut Vec<File>, folder: &Dir, root: usize, fill: &impl Fn(&str) -> String) {
    for folder in folder.dirs() {
        add(files, folder, root, fill);
    }
    for file in folder.files() {
        // The paths are ours, and ASCII.
        let path = file.path().to_string_lossy();
        let path = path.get(root..).unwrap_or(&path);
        if path == "README.common.md" {
            continue;
        }
        let contents = file.contents_utf8().map_or_else(|| file.contents().to_vec(), |text| fill(text).into_bytes());
        files.push(File { path: path.strip_suffix(INERT).unwrap_or(path).into(), contents });
    }
}

/// A text with what differs from controller to controller filled in.
fn filled(text: &str, language: Language, name: &str) -> String {
    let common =
        TEMPLATES.get_file("common/README.common.md").and_then(|file| file.contents_utf8()).unwrap_or_default();
    text.replace(COMMON_README, common.trim_end())
        .replace("{{component}}", &language.component(name))
        .replace("{{name}}", name)
}
