//! What the command line says when something fails, and with which exit code it ends.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

use tidegate::config::Diagnostic;
use tidegate::update::{ErrorClass, SqlError};

use super::output;

/// The exit codes, as `--help` tells them.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  something failed
  2  the command line or the configuration is wrong, or `check` found errors
  3  `run --until-done`: rows remain that cannot run";

/// A failure of a command.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct CliError {
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    exit_code: u8,
}

impl CliError {
    /// Something failed: exit code 1.
    pub(super) fn failure(message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), hint: None, exit_code: 1 }
    }

    /// The command line or the configuration is wrong: exit code 2.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { exit_code: 2, ..Self::failure(message) }
    }

    /// Rows remain that cannot run: exit code 3.
    pub(super) fn rows_remain(message: impl Into<String>) -> Self {
        Self { exit_code: 3, ..Self::failure(message) }
    }

    /// A configuration that is wrong; prints what is wrong with it.
    pub(super) fn configuration(diagnostics: Vec<Diagnostic>) -> Self {
        if let [file @ Diagnostic { position: None, .. }] = &diagnostics[..] {
            return Self::usage(file.to_string()).hint("name the configuration's file with `--config`");
        }
        for diagnostic in &diagnostics {
            output::error(&diagnostic.to_string());
        }
        match diagnostics.len() {
            1 => Self::usage("the configuration has a mistake"),
            count => Self::usage(format!("the configuration has {count} mistakes")),
        }
    }

    /// Adds why it failed, with that error's own causes.
    pub(super) fn because(mut self, error: impl Error) -> Self {
        let mut next: Option<&dyn Error> = Some(&error);
        while let Some(cause) = next {
            let words = cause.to_string();
            // Some errors repeat the words of what they wrap.
            if self.causes.last() != Some(&words) {
                self.causes.push(words);
            }
            next = cause.source();
        }
        self
    }

    /// Adds what a database said, and what to do about it.
    pub(super) fn because_of_database(self, error: SqlError) -> Self {
        self.advised_on(&error).because(error)
    }

    /// Adds what to do about what a database said.
    pub(super) fn advised_on(self, error: &SqlError) -> Self {
        match hint_on(error) {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Adds what to do about it.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints it to standard error.
    pub(super) fn print(&self) {
        let mut text = self.message.clone();
        for cause in &self.causes {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  caused by: {cause}");
        }
        output::error(&text);
        if let Some(hint) = &self.hint {
            output::hint(hint);
        }
    }

    /// What the process ends with.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit_code)
    }
}

/// What to do about an error from a database, where its own words do not say so.
pub(super) fn hint_on(error: &SqlError) -> Option<&'static str> {
    Some(match error.code.as_deref() {
        Some("28P01" | "28000") => "correct the user or the password in the database's `url`",
        Some("3D000") => "create that database, or correct its name in the `url`",
        Some("42501") => {
            "grant the role what it lacks: a host reads and writes the queue table and tidegate's own, and makes them \
             where they are missing"
        }
        Some("SQLITE_NOTADB") => "correct the path in the `url`: the file is something else",
        Some(code) if code.starts_with("SQLITE_READONLY") => "let this user write to the file and to its folder",
        // Says itself what is missing.
        Some("SQLITE_CANTOPEN") => return None,
        _ if error.class == ErrorClass::Connection => {
            "see whether the server runs, whether it can be reached from here, and whether the `url` names it"
        }
        _ => return None,
    })
}
