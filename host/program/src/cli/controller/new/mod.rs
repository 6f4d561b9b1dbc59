//! `tidegate controller new`.

mod language;
pub(in crate::cli) mod template;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::error::CliError;
use super::super::output;
use language::Language;
use template::File;

/// The longest name there can be, in bytes.
const LONGEST_NAME: usize = 64;

/// Make a folder with a controller to start from
///
/// It holds a small policy that works, the contract, a build file for the language's ordinary tool, a scenario to test it
/// with, and a README. It needs nothing of the folder that it is made in, and no database.
#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// The controller's name, and its folder's: small letters, digits and hyphens
    name: String,

    /// The language to write it in
    #[arg(long, value_enum)]
    language: Language,

    /// Print JSON: an object with `version` (1), `path` (the folder) and `files` (by their paths in it)
    #[arg(long)]
    pub(super) json: bool,
}

/// The shape of the JSON.
#[derive(Serialize)]
struct NewControllerReport {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    /// The folder that was made.
    path: String,
    /// The files in it, each by its path there.
    files: Vec<String>,
}

impl New {
    pub(super) fn execute(self) -> Result<(), CliError> {
        check_name(&self.name)?;
        let files = template::files(self.language, &self.name);
        make(&self.name, &files)?;
        if self.json {
            return tell_files(&self.name, &files);
        }
        output::print(&self.told(files.len()))
    }

    /// What was made, and what to type next.
    fn told(&self, files: usize) -> String {
        let (name, language) = (&self.name, self.language);
        let component = language.component(name);
        let build = language.build().iter().map(|command| format!("  {command}\n")).collect::<String>();
        format!(
            "{name}/: a controller in {}, {files} files; the policy is in {}\n\nNext, with {}:\n  cd {name}\n{build}  \
             tidegate controller check {component}\n  tidegate controller test {component} scenario.toml\n\n\
             README.md in it tells where each tool comes from, and how to have a host use it.",
            language.title(),
            language.policy(),
            language.needs(),
        )
    }
}

/// Makes a folder of these files.
pub(in crate::cli) fn make(name: &str, files: &[File]) -> Result<(), CliError> {
    let folder = PathBuf::from(name);
    check_folder(&folder)?;
    for file in files {
        let path = folder.join(&file.path);
        write(&path, &file.contents)
            .map_err(|error| CliError::failure(format!("cannot write {}", path.display())).because(error))?;
    }
    Ok(())
}

/// Prints, as JSON, what was made.
pub(in crate::cli) fn tell_files(name: &str, files: &[File]) -> Result<(), CliError> {
    let files = files.iter().map(|file| file.path.display().to_string()).collect();
    output::print_json(&NewControllerReport { version: 1, path: name.to_owned(), files })
}

/// A name has to do as a file's, as a package's of every language, and in a configuration.
pub(in crate::cli) fn check_name(name: &str) -> Result<(), CliError> {
    let is_plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
    let wrong = if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        "does not begin with a small letter"
    } else if !name.chars().all(is_plain) {
        "has other characters than small letters, digits and hyphens"
    } else if name.len() > LONGEST_NAME {
        "has more than 64 characters"
    } else {
        return Ok(());
    };
    Err(CliError::usage(format!("the name {name:?} {wrong}")).hint("name it as in \"night-shift\" or \"gentle2\""))
}

/// The folder may be there, if nothing is in it.
fn check_folder(folder: &Path) -> Result<(), CliError> {
    let shown = folder.display();
    match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CliError::usage(format!("the folder {shown} is not empty"))
            .hint("choose another name, or move away what is in it: nothing is overwritten")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(CliError::usage(format!("{shown} is there, and no folder")).hint("choose another name"))
        }
        Err(error) => Err(CliError::failure(format!("cannot read the folder {shown}")).because(error)),
    }
}

fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, contents)
}
