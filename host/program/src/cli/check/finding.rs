//! What `check` finds: the shape of its JSON, and how it is printed for people.

use std::fmt;

use serde::Serialize;
use tidegate::update;
use tidegate_config::{Config, Diagnostic, Position, Update};

use super::super::output;

/// How grave a finding is. Errors alone make `check` fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Severity {
    /// Something cannot work.
    Error,
    /// Something works, and probably not as it was meant.
    Warning,
    /// Something that is in order, and good to know.
    Note,
}

impl From<update::Severity> for Severity {
    fn from(severity: update::Severity) -> Self {
        match severity {
            update::Severity::Error => Self::Error,
            update::Severity::Warning => Self::Warning,
            update::Severity::Note => Self::Note,
        }
    }
}

/// Something that was found.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    pub severity: Severity,
    /// The configuration file, and the place in it.
    pub file: String,
    /// `None` where it is about the file as a whole.
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub database: Option<String>,
    pub update: Option<String>,
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// True where something could not be looked at, so that more may be wrong.
    #[serde(skip)]
    pub unknown: bool,
}

impl Finding {
    pub(super) fn new(severity: Severity, diagnostic: Diagnostic) -> Self {
        Self {
            severity,
            file: diagnostic.file.display().to_string(),
            line: diagnostic.position.map(|position| position.line),
            column: diagnostic.position.map(|position| position.column),
            database: None,
            update: None,
            message: diagnostic.message,
            hint: diagnostic.hint,
            unknown: false,
        }
    }

    /// What is wrong with a definition whose update has finished keeps nothing from running.
    pub(super) fn of_what_is_done(&mut self) {
        self.severity = Severity::Note;
        self.message = format!("it has finished; queued again, it could not run: {}", self.message);
        self.hint = Some("take the definition out where it has had its day".to_owned());
    }

    /// Prints it to standard error.
    pub(super) fn print(&self) {
        match self.severity {
            Severity::Error => output::error(&self.to_string()),
            Severity::Warning => output::warn(&self.to_string()),
            Severity::Note => output::note(&self.to_string()),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "{line}:{column}:")?;
        }
        match (&self.update, &self.database) {
            (Some(update), Some(database)) => write!(f, " update \"{update}\" on database \"{database}\":")?,
            (None, Some(database)) => write!(f, " database \"{database}\":")?,
            _ => {}
        }
        write!(f, " {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// A database that is looked at, for findings about it.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub config: &'a Config,
    pub database: &'a tidegate_config::Database,
}

impl Scene<'_> {
    /// The definition of an update.
    pub(super) fn defined(&self, name: &str) -> Option<&Update> {
        self.config.updates_of(&self.database.name).find(|update| update.name == name)
    }

    /// A finding about the database itself.
    pub(super) fn about_database(
        &self,
        severity: Severity,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Finding {
        self.at(self.database.places.header, severity, message.into(), hint)
    }

    /// A finding about a key of a definition.
    pub(super) fn about_definition(
        &self,
        update: &Update,
        key: &str,
        severity: Severity,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Finding {
        let finding = self.at(update.places.of(key), severity, message.into(), Some(hint.into()));
        Finding { update: Some(update.name.clone()), ..finding }
    }

    /// A finding about a row of the queue: it has its place where the row is defined, or else where its database is.
    pub(super) fn about_row(
        &self,
        name: &str,
        severity: Severity,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Finding {
        let place = self.defined(name).map_or(self.database.places.header, |update| update.places.of("name"));
        let finding = self.at(place, severity, message.into(), Some(hint.into()));
        Finding { update: Some(name.to_owned()), ..finding }
    }

    fn at(&self, position: Position, severity: Severity, message: String, hint: Option<String>) -> Finding {
        let finding = Finding::new(severity, self.config.diagnostic(position, message, hint));
        Finding { database: Some(self.database.name.clone()), ..finding }
    }
}

/// How many findings there are of each kind, as "2 errors and 1 note"; `None` where there are none.
pub(super) fn tally(findings: &[Finding]) -> Option<String> {
    let kinds = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")];
    let counted = kinds.map(|(severity, word)| (findings.iter().filter(|f| f.severity == severity).count(), word));
    let parts: Vec<String> =
        counted.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| number(count, word)).collect();
    match parts.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        [most @ .., last] => Some(format!("{} and {last}", most.join(", "))),
    }
}

/// A number of things.
pub(super) fn number(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
