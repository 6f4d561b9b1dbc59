//! An SQLite database by its file, and how it is worked on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate::scheduler::database::{Database, Holder, Open, OpenError};
use tidegate::scheduler::ledger::Actor;
use tidegate::signal::{Definition, Sampler};
use tidegate::update::sql::System;
use tidegate_driver::handle::Handle;
use tidegate_driver::tables::Tables;
use tidegate_driver::{Options, SamplerOptions};

use super::{Driver, Own, Probe, Turns, WriteLock};

/// How an SQLite database is worked on.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// How long a statement waits for another process's lock. Default: 5 s.
    pub busy_timeout: Duration,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { busy_timeout: Duration::from_secs(5) }
    }
}

/// An SQLite database, by its file, for a host to open.
///
/// ```no_run
/// use tidegate::{DatabaseSpec, Host};
/// use tidegate_sqlite::Sqlite;
///
/// let host = Host::builder().database(DatabaseSpec::new("master", Sqlite::at("app.db"))).build()?;
/// # Ok::<(), tidegate::BuildError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a database does nothing until it is given to a host"]
pub struct Sqlite {
    path: PathBuf,
    queue_table: String,
    options: SqliteOptions,
}

impl Sqlite {
    /// The database in the file at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let queue_table = tidegate_driver::DEFAULT_QUEUE_TABLE.to_owned();
        Self { path: path.into(), queue_table, options: SqliteOptions::default() }
    }

    /// Sets the table of the queue: unquoted. Default: `background_updates`, as in Synapse. It is made where it is missing.
    pub fn queue_table(mut self, name: impl Into<String>) -> Self {
        self.queue_table = name.into();
        self
    }

    /// Sets how long a statement waits for another process's lock. Default: 5 s.
    pub fn busy_timeout(mut self, limit: Duration) -> Self {
        self.options.busy_timeout = limit;
        self
    }
}

impl Open for Sqlite {
    fn open(self: Box<Self>, holder: &Holder) -> Result<Arc<dyn Database>, OpenError> {
        let options = Options { queue_table: self.queue_table, ..Options::new(holder.clone()) };
        open(self.path, &options, &self.options)
    }
}

/// A handle on the database in the file at `path`. It connects when it is first used.
///
/// # Errors
/// [`OpenError`] where the path or an option makes no sense. Whether the database is there shows later.
pub fn open(
    path: impl Into<PathBuf>,
    options: &Options,
    sqlite: &SqliteOptions,
) -> Result<Arc<dyn Database>, OpenError> {
    options.check()?;
    let path = path.into();
    let written = path.to_string_lossy();
    if written.is_empty() || written.starts_with(":memory:") || written.contains('\0') {
        return Err(OpenError::SqlitePath(format!("sqlite:{written}")));
    }
    let tables = Tables::new(&options.queue_table, System::Sqlite, Actor::host(&options.holder));
    Ok(Arc::new(Handle::new(Driver::new(path, options, sqlite, tables.clone()), tables)))
}

/// The samplers of what the database in the file at `path` is measured by without anybody's doing. Nothing connects before
/// the first sample.
pub fn samplers(path: impl Into<PathBuf>, sampling: &SamplerOptions) -> Vec<Box<dyn Sampler>> {
    let path = path.into();
    let turns = Turns::default();
    vec![
        Box::new(WriteLock::new(path.clone(), sampling.timeout, turns.clone())),
        Box::new(Probe::new(path, sampling, turns)),
    ]
}

/// The sampler of what a query of somebody's own says: one row, whose first column is a number. It may not write.
pub fn sql_sampler(
    path: impl Into<PathBuf>,
    definition: Definition,
    query: &str,
    timeout: Duration,
) -> Box<dyn Sampler> {
    Box::new(Own::new(path.into(), definition, query, timeout))
}
