//! What goes wrong with SQL, and what can be done about it.

use std::fmt;

/// An error from a database, with what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    /// What may help.
    pub class: ErrorClass,
    /// The database's own code: PostgreSQL's SQLSTATE, SQLite's name of the extended result code.
    pub code: Option<String>,
    /// The database's own words without what may be values of rows: everybody may be told these.
    pub message: String,
    /// What else the database said, where that may hold values of rows (PostgreSQL's DETAIL, and a message that is not told
    /// as it is). It goes to the operator's log alone: no controller, viewer, history or trace is given it.
    pub detail: Option<String>,
    /// True where it came of what was deferred to the commit: however many rows there are, they are not to blame.
    pub deferred: bool,
    /// True where the values of rows are to blame: others may be done all the same. The driver says so, by the code.
    pub of_rows: bool,
}

impl SqlError {
    /// An error of this class, without a code of the database's.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, code: None, message: message.into(), detail: None, deferred: false, of_rows: false }
    }

    /// An error that trying again will not help.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Permanent, message)
    }

    /// The same error with the database's own code.
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The error as everybody is told it: with its class and code, and without its detail.
    pub fn told(&self) -> String {
        match &self.code {
            // SQLite's codes, and tidegate's own, say whose they are.
            Some(code) if code.contains('_') => format!("{self} ({}, {code})", self.class),
            Some(code) => format!("{self} ({}, SQLSTATE {code})", self.class),
            None => format!("{self} ({})", self.class),
        }
    }

    /// True where the same for fewer rows may succeed: it took too long, met the locks of others, or wanted more memory or
    /// room than there is. Without a code it is whoever made it that says so, by the class.
    pub fn is_of_size(&self) -> bool {
        /// Cancelled by a timeout, lock not available, deadlock, serialization failure, and the resources that run out.
        const POSTGRES: &[&str] = &["57014", "55P03", "40P01", "40001", "53100", "53200", "53400"];
        const SQLITE: &[&str] = &["SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_NOMEM", "SQLITE_FULL"];
        let is_known = |code: &str| POSTGRES.contains(&code) || SQLITE.iter().any(|known| code.starts_with(known));
        let is_known = self.code.as_deref().is_none_or(is_known);
        self.class == ErrorClass::Transient && is_known && !self.deferred
    }

    /// What to do about it where a SQLite file is damaged; `None` where it is something else.
    pub fn malformed_hint(&self) -> Option<&'static str> {
        let damaged = self.code.as_deref().is_some_and(|code| code.starts_with("SQLITE_CORRUPT"));
        damaged.then_some(
            "stop what writes to it, and restore a backup, or save what can be read (`sqlite3 FILE .recover`); \
             `PRAGMA integrity_check` lists what is damaged",
        )
    }

    /// What to do about it where the user lacks a right to what was asked; `None` where it is something else.
    pub fn grant_hint(&self) -> Option<&'static str> {
        const INSUFFICIENT_PRIVILEGE: &str = "42501";
        // PostgreSQL gives the same code to a policy that would hide rows; only the words of the hint depend on this.
        let hint = match self.message.contains("row-level security") {
            true => {
                "let the role bypass the policy (ALTER ROLE … BYPASSRLS), connect as a role that it does not bind, or say \
                 row_security = true, where the kind has that key, if only the rows that it lets through are meant"
            }
            false => "grant that to the role in the database's `url`",
        };
        (self.code.as_deref() == Some(INSUFFICIENT_PRIVILEGE)).then_some(hint)
    }
}

impl ErrorClass {
    /// True where this host has no right to go on, or nothing to go on with.
    pub fn ends_lease(self) -> bool {
        matches!(self, ErrorClass::Replaced | ErrorClass::Overtaken)
    }
}

/// The classes of errors, by what can be done about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The same again may succeed: a serialization failure, a deadlock, a lock or statement timeout, SQLITE_BUSY.
    Transient,
    /// The connection is gone or cannot be made; another may succeed.
    Connection,
    /// This host interrupted the statement itself.
    Interrupted,
    /// What is found under the database's name is not what was worked on any more: nothing more is done there, and what
    /// was in hand must not be done to what is there now.
    Replaced,
    /// Another host has taken the lease that this was to be done under: nothing is done any more.
    Overtaken,
    /// Nothing helps but a change to the statement, the data or the rights.
    Permanent,
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorClass::Transient => "transient",
            ErrorClass::Connection => "connection",
            ErrorClass::Interrupted => "interrupted",
            ErrorClass::Replaced => "replaced",
            ErrorClass::Overtaken => "overtaken",
            ErrorClass::Permanent => "permanent",
        })
    }
}
