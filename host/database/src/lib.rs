//! A database by its URL, whichever of the two it is: what the program is made with.
//!
//! A program that works on one of them alone uses that driver's crate, and does not compile the other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate::scheduler::database::{Database, Holder};
use tidegate::signal::{Definition, Sampler};

pub use tidegate::scheduler::database::{Open, OpenError};
#[cfg(feature = "test-switches")]
#[doc(hidden)]
pub use tidegate_driver::Switches;
pub use tidegate_driver::{DEFAULT_QUEUE_TABLE, SamplerOptions, TableInHand};
pub use tidegate_postgres::PostgresOptions;
pub use tidegate_sqlite::SqliteOptions;

/// How a database is worked on.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who works on it: what PostgreSQL shows as the application's name, and others as the holder of the lease.
    pub holder: Holder,
    /// The queue table, unquoted, without a schema. Default: [`DEFAULT_QUEUE_TABLE`].
    pub queue_table: String,
    /// What matters to SQLite alone.
    pub sqlite: SqliteOptions,
    /// What matters to PostgreSQL alone.
    pub postgres: PostgresOptions,
    /// Safety measures that a test can take out.
    #[cfg(feature = "test-switches")]
    #[doc(hidden)]
    pub switches: Switches,
}

impl Options {
    /// The defaults, for `holder`.
    pub fn new(holder: Holder) -> Self {
        Self {
            holder,
            queue_table: DEFAULT_QUEUE_TABLE.to_owned(),
            sqlite: SqliteOptions::default(),
            postgres: PostgresOptions::default(),
            #[cfg(feature = "test-switches")]
            switches: Switches::default(),
        }
    }

    /// Those that are of either.
    fn common(&self) -> tidegate_driver::Options {
        tidegate_driver::Options {
            holder: self.holder.clone(),
            queue_table: self.queue_table.clone(),
            #[cfg(feature = "test-switches")]
            switches: self.switches,
        }
    }
}

/// A database by its URL, for a host to open; see [`open`].
#[derive(Clone)]
#[must_use = "a database does nothing until it is given to a host"]
pub struct Url {
    url: String,
    queue_table: String,
}

impl Url {
    /// The database at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), queue_table: DEFAULT_QUEUE_TABLE.to_owned() }
    }

    /// Sets the table of the queue: unquoted, without a schema. Default: `background_updates`, as in Synapse. It is made
    /// where it is missing.
    pub fn queue_table(mut self, name: impl Into<String>) -> Self {
        self.queue_table = name.into();
        self
    }
}

impl Open for Url {
    fn open(self: Box<Self>, holder: &Holder) -> Result<Arc<dyn Database>, OpenError> {
        open(&self.url, Options { queue_table: self.queue_table, ..Options::new(holder.clone()) })
    }
}

/// A handle on the database at `url`, which is `sqlite:PATH`, or as [`tidegate_postgres::open`] takes it. It connects when
/// it is first used.
///
/// # Errors
/// [`OpenError`] where the URL or an option makes no sense. Whether the database is there shows later.
pub fn open(url: &str, options: Options) -> Result<Arc<dyn Database>, OpenError> {
    match place(url)? {
        Place::Sqlite(path) => tidegate_sqlite::open(path, &options.common(), &options.sqlite),
        Place::Postgres => tidegate_postgres::open(url, &options.common(), &options.postgres),
    }
}

/// The samplers of what a database is measured by without anybody's doing; `url` and `options` are those of [`open`].
/// Nothing connects before the first sample.
///
/// # Errors
/// [`OpenError`] where the URL makes no sense.
pub fn samplers(url: &str, options: &Options, sampling: &SamplerOptions) -> Result<Vec<Box<dyn Sampler>>, OpenError> {
    match place(url)? {
        Place::Sqlite(path) => Ok(tidegate_sqlite::samplers(path, sampling)),
        Place::Postgres => tidegate_postgres::samplers(url, &options.common(), &options.postgres, sampling),
    }
}

/// The sampler of what a query of somebody's own says: one row, whose first column is a number. It may not write.
///
/// # Errors
/// [`OpenError`] where the URL makes no sense.
pub fn sql_sampler(
    url: &str,
    options: &Options,
    definition: Definition,
    query: &str,
    timeout: Duration,
) -> Result<Box<dyn Sampler>, OpenError> {
    match place(url)? {
        Place::Sqlite(path) => Ok(tidegate_sqlite::sql_sampler(path, definition, query, timeout)),
        Place::Postgres => {
            tidegate_postgres::sql_sampler(url, &options.common(), &options.postgres, definition, query, timeout)
        }
    }
}

enum Place {
    Sqlite(PathBuf),
    Postgres,
}

fn place(url: &str) -> Result<Place, OpenError> {
    match url.strip_prefix("sqlite:") {
        Some(path) => sqlite_path(path).map(Place::Sqlite).ok_or_else(|| OpenError::SqlitePath(url.to_owned())),
        None if is_postgres(url) => Ok(Place::Postgres),
        None => Err(OpenError::Scheme(scheme(url))),
    }
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// The file that a URL means by what follows `sqlite:`; `sqlite:///path` is understood as well.
fn sqlite_path(path: &str) -> Option<PathBuf> {
    let path = match path.strip_prefix("//") {
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some(_) => return None,
        None => path,
    };
    let usable = !path.is_empty() && !path.starts_with(":memory:") && !path.contains('\0');
    usable.then(|| PathBuf::from(path))
}

/// What a URL begins with, and no more: the rest may be a password.
fn scheme(url: &str) -> String {
    match url.split_once(':') {
        Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) => {
            format!("{scheme}:")
        }
        _ => url.chars().take(8).chain("…".chars()).collect(),
    }
}
