//! Why a host cannot be built.

use crate::scheduler::database::OpenError;

/// Why a host cannot be built: each says which part is wrong. No message carries a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is nothing to work on.
    #[error("the host has no database: give it one with HostBuilder::database")]
    NoDatabase,
    /// A database's name is empty.
    #[error("a database has an empty name")]
    UnnamedDatabase,
    /// Two databases have the same name.
    #[error("two databases are named \"{database}\"")]
    DatabaseTwice {
        /// The name.
        database: String,
    },
    /// A database's URL, or what was set for the database, makes no sense.
    #[error("database \"{database}\" cannot be used")]
    Database {
        /// The database.
        database: String,
        /// What is wrong.
        source: OpenError,
    },
    /// An update's name is empty.
    #[error("an update of database \"{database}\" has an empty name")]
    UnnamedUpdate {
        /// The database.
        database: String,
    },
    /// Two updates of a database have the same name.
    #[error("database \"{database}\" has two updates named \"{update_name}\"")]
    UpdateTwice {
        /// The database.
        database: String,
        /// The update.
        update_name: String,
    },
    /// A setting of the host is out of its range.
    #[error("{setting} is {given}, and must be at least {least}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// What it was set to, with its unit.
        given: String,
        /// The least that it may be, with its unit.
        least: String,
    },
    /// A setting of a database is out of its range.
    #[error("{setting} of database \"{database}\" is {given}, and must be at least {least}")]
    DatabaseSetting {
        /// The database.
        database: String,
        /// The setting's name.
        setting: &'static str,
        /// What it was set to, with its unit.
        given: String,
        /// The least that it may be, with its unit.
        least: String,
    },
}

/// A value below the least that it may be, and that least.
pub(super) struct TooSmall {
    pub(super) setting: &'static str,
    pub(super) given: String,
    pub(super) least: String,
}

/// A count of 0 where there has to be one.
pub(super) fn at_least_one(setting: &'static str, given: u64) -> Result<(), TooSmall> {
    if given >= 1 {
        return Ok(());
    }
    Err(TooSmall { setting, given: given.to_string(), least: "1".to_owned() })
}
