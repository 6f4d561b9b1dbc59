//! What the command line says when something fails, and with which exit code it ends.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

use serde::Serialize;
use tidegate::scheduler::operations::Refusal;
use tidegate::update::{ErrorClass, SqlError};
use tidegate_config::Diagnostic;

use super::output;

/// The exit codes, as `--help` tells them.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  something failed
  2  the command line or the configuration is wrong, or `check` found errors
  3  `run --until-done`: rows remain that cannot run; `require`: an update is not done yet
  4  `require`: an update failed; `controller test`, `controller fuel`: an expectation was not met; `controller replay`: another decision;
     `handler test`: a row failed
  130  a second signal ended `run` at once";

/// A failure of a command.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct CliError {
    message: String,
    /// More of the message, each on a line of its own.
    details: Box<[String]>,
    causes: Vec<String>,
    hint: Option<String>,
    /// What is wrong with the configuration.
    diagnostics: Vec<Diagnostic>,
    exit_code: u8,
}

impl CliError {
    /// Something failed: exit code 1.
    pub(super) fn failure(message: impl Into<String>) -> Self {
        let message = message.into();
        let (details, causes, diagnostics) = (Box::default(), Vec::new(), Vec::new());
        Self { message, details, causes, hint: None, diagnostics, exit_code: 1 }
    }

    /// The command line or the configuration is wrong: exit code 2.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { exit_code: 2, ..Self::failure(message) }
    }

    /// Rows remain that cannot run: exit code 3. `rows` are these, each with its reason.
    pub(super) fn rows_remain(message: impl Into<String>, rows: Vec<String>) -> Self {
        Self { exit_code: 3, details: rows.into(), ..Self::failure(message) }
    }

    /// Updates that are required are not done yet: exit code 3.
    pub(super) fn not_yet(message: impl Into<String>) -> Self {
        Self { exit_code: 3, ..Self::failure(message) }
    }

    /// Something is not as it was expected to be: exit code 4.
    pub(super) fn unmet(message: impl Into<String>) -> Self {
        Self { exit_code: 4, ..Self::failure(message) }
    }

    /// A scenario that is wrong, and what is wrong with it.
    pub(super) fn scenario(diagnostics: Vec<Diagnostic>) -> Self {
        let message = match diagnostics.len() {
            1 => "the scenario has a mistake".to_owned(),
            count => format!("the scenario has {count} mistakes"),
        };
        Self { diagnostics, ..Self::usage(message) }
    }

    /// A configuration that is wrong, and what is wrong with it.
    pub(super) fn configuration(diagnostics: Vec<Diagnostic>) -> Self {
        if let [file @ Diagnostic { position: None, .. }] = &diagnostics[..] {
            return Self::usage(file.to_string())
                .hint("name the configuration's file with `--config`, or make one with `tidegate init`");
        }
        let message = match diagnostics.len() {
            1 => "the configuration has a mistake".to_owned(),
            count => format!("the configuration has {count} mistakes"),
        };
        Self { diagnostics, ..Self::usage(message) }
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
        let detail = error.detail.clone();
        let mut told = self.advised_on(&error).because(error);
        // Whoever runs the command can read the rows as well.
        told.causes.extend(detail);
        told
    }

    /// Adds why a thing was not done.
    pub(super) fn because_refused(self, refusal: Refusal) -> Self {
        match refusal {
            Refusal::Database(error) => self.because_of_database(error),
            other => self.because(other),
        }
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

    /// True where something failed that may go better another time.
    pub(super) fn is_failure(&self) -> bool {
        self.exit_code == 1
    }

    /// Prints it to standard error.
    pub(super) fn print(&self) {
        for diagnostic in &self.diagnostics {
            output::error(&diagnostic.to_string());
        }
        let mut text = output::inline(&self.message);
        for detail in &self.details {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  {}", output::inline(detail));
        }
        for cause in &self.causes {
            let _ = write!(text, "\n  caused by: {}", output::inline(cause));
        }
        output::error(&text);
        if let Some(hint) = &self.hint {
            output::hint(&output::inline(hint));
        }
    }

    /// Prints it to standard error as one line of JSON.
    pub(super) fn print_json(&self) {
        let told = Told {
            message: &self.message,
            details: &self.details,
            causes: &self.causes,
            hint: self.hint.as_deref(),
            diagnostics: self.diagnostics.iter().map(Finding::from).collect(),
            exit_code: self.exit_code,
        };
        output::json_line("error", &told);
    }

    /// What the process ends with.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit_code)
    }
}

/// A failure, as JSON.
#[derive(Serialize)]
struct Told<'a> {
    message: &'a str,
    details: &'a [String],
    causes: &'a [String],
    hint: Option<&'a str>,
    diagnostics: Vec<Finding<'a>>,
    exit_code: u8,
}

/// What is wrong or doubtful in a configuration, as JSON.
#[derive(Serialize)]
pub(super) struct Finding<'a> {
    file: String,
    line: Option<usize>,
    column: Option<usize>,
    message: &'a str,
    hint: Option<&'a str>,
}

impl<'a> From<&'a Diagnostic> for Finding<'a> {
    fn from(diagnostic: &'a Diagnostic) -> Self {
        Self {
            file: diagnostic.file.display().to_string(),
            line: diagnostic.position.map(|position| position.line),
            column: diagnostic.position.map(|position| position.column),
            message: &diagnostic.message,
            hint: diagnostic.hint.as_deref(),
        }
    }
}

/// The code of a connection through a pooler that gives it no session of its own.
pub(super) const SHARED_SESSION: &str = "TIDEGATE_SHARED_SESSION";

/// What to do about an error from a database, where its own words do not say so.
pub(super) fn hint_on(error: &SqlError) -> Option<&'static str> {
    if let Some(hint) = error.malformed_hint() {
        return Some(hint);
    }
    Some(match error.code.as_deref() {
        Some("28P01" | "28000") => "correct the user or the password in the database's `url`",
        Some("3D000") => "create that database, or correct its name in the `url`",
        Some("42501") => {
            "grant the role what it lacks: a host reads and writes the queue table and tidegate's own, and makes them \
             where they are missing"
        }
        Some(SHARED_SESSION) => {
            "name the PostgreSQL server itself in the `url`, or a pool in transaction or session mode (PgBouncer: pool_mode)"
        }
        Some("TIDEGATE_FEW_SESSIONS") => {
            "let the pool have more sessions (PgBouncer: default_pool_size), or name the PostgreSQL server itself in the `url`"
        }
        Some("SQLITE_NOTADB") => "correct the path in the `url`: the file is something else",
        Some(code) if code.starts_with("SQLITE_READONLY") => "let this user write to the file and to its folder",
        Some(code) if code.starts_with("SQLITE_CANTOPEN") => {
            "let the application make the file, or correct the path in the `url`; where the file is there, let this user \
             open it and write to its folder"
        }
        _ if error.class == ErrorClass::Connection => {
            "see whether the server runs, whether it can be reached from here, and whether the `url` names it"
        }
        _ => return None,
    })
}
