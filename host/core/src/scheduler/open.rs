//! How a host comes by a database.

use std::sync::Arc;

use super::database::{Database, Holder};

/// What opens a database for a host: a driver that knows where it is and how it is worked on, or a database that is open.
pub trait Open: Send {
    /// A handle on the database for a host that is known as `holder`. It connects when it is first used.
    ///
    /// # Errors
    /// [`OpenError`] where the database's place or an option makes no sense. Whether the database is there shows later.
    fn open(self: Box<Self>, holder: &Holder) -> Result<Arc<dyn Database>, OpenError>;
}

/// A database that is open already, under the name with which it was opened.
impl Open for Arc<dyn Database> {
    fn open(self: Box<Self>, _: &Holder) -> Result<Arc<dyn Database>, OpenError> {
        Ok(*self)
    }
}

/// Why a URL cannot be used. No message carries a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Neither SQLite's nor PostgreSQL's.
    #[error(
        "a database's url begins with \"sqlite:\", \"postgres://\" or \"postgresql://\", and this one begins with \"{0}\""
    )]
    Scheme(String),
    /// `sqlite:` without a file that others could open.
    #[error("\"{0}\" names no database file: write \"sqlite:\" and the path of one, as in \"sqlite:/var/lib/app.db\"")]
    SqlitePath(String),
    /// PostgreSQL's URL, or a parameter in it.
    #[error("the PostgreSQL url cannot be used: {0}")]
    Postgres(String),
    /// An option's value.
    #[error("{0}")]
    Option(String),
}
