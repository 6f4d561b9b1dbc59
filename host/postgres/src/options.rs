//! A PostgreSQL database by its URL, and how it is worked on.

use std::sync::Arc;
use std::time::Duration;

use tidegate::scheduler::database::{Database, Holder, Open, OpenError};
use tidegate::scheduler::ledger::Actor;
use tidegate::signal::{Definition, Sampler};
use tidegate::update::sql::System;
use tidegate_driver::handle::Handle;
use tidegate_driver::tables::Tables;
use tidegate_driver::{Options, SamplerOptions};

use super::{Access, Driver, Own, Probe, Statistics};

/// How a PostgreSQL database is worked on. The server counts whole milliseconds; zero means no limit.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The password, where the URL has none.
    pub password: Option<String>,
    /// How long each attempt to connect may take, unless the URL says otherwise. Default: 10 s.
    pub connect_timeout: Duration,
    /// `lock_timeout` of every statement but a one-shot's. Default: 2 s.
    pub lock_timeout: Duration,
    /// `statement_timeout` of every statement but a one-shot's. Default: 60 s.
    pub statement_timeout: Duration,
    /// `idle_in_transaction_session_timeout`. Default: 60 s.
    pub idle_in_transaction_timeout: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            password: None,
            connect_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(60),
            idle_in_transaction_timeout: Duration::from_secs(60),
        }
    }
}

/// A PostgreSQL database, by its URL, for a host to open.
///
/// ```no_run
/// use tidegate::{DatabaseSpec, Host};
/// use tidegate_postgres::Postgres;
///
/// let place = Postgres::at("postgres://app@localhost/app");
/// let host = Host::builder().database(DatabaseSpec::new("master", place)).build()?;
/// # Ok::<(), tidegate::BuildError>(())
/// ```
#[derive(Clone)]
#[must_use = "a database does nothing until it is given to a host"]
pub struct Postgres {
    url: String,
    queue_table: String,
    options: PostgresOptions,
}

impl Postgres {
    /// The database at `url`, as [`open`] takes it.
    pub fn at(url: impl Into<String>) -> Self {
        let queue_table = tidegate_driver::DEFAULT_QUEUE_TABLE.to_owned();
        Self { url: url.into(), queue_table, options: PostgresOptions::default() }
    }

    /// Sets the table of the queue: unquoted, without a schema. Default: `background_updates`, as in Synapse. It is made
    /// where it is missing.
    pub fn queue_table(mut self, name: impl Into<String>) -> Self {
        self.queue_table = name.into();
        self
    }

    /// Sets the time limits, and the password where the URL has none.
    pub fn options(mut self, options: PostgresOptions) -> Self {
        self.options = options;
        self
    }
}

impl Open for Postgres {
    fn open(self: Box<Self>, holder: &Holder) -> Result<Arc<dyn Database>, OpenError> {
        let options = Options { queue_table: self.queue_table, ..Options::new(holder.clone()) };
        open(&self.url, &options, &self.options)
    }
}

/// A handle on the database at `url`, which is `postgres://…` or `postgresql://…`. It connects when it is first used.
///
/// The URL takes libpq's parameters as far as `tokio-postgres` knows them, and `sslmode` (`disable`, `prefer`, `require`,
/// `verify-ca`, `verify-full`) and `sslrootcert` (a file of PEM certificates, or `system`) with libpq's meaning. Where a
/// mode verifies and `sslrootcert` is missing, the system's certificates count. The environment and `~/.pgpass` are not
/// looked at.
///
/// # Errors
/// [`OpenError`] where the URL or an option makes no sense. Whether the database is there shows later.
pub fn open(url: &str, options: &Options, postgres: &PostgresOptions) -> Result<Arc<dyn Database>, OpenError> {
    options.check()?;
    let tables = Tables::new(&options.queue_table, System::Postgres, Actor::host(&options.holder));
    Ok(Arc::new(Handle::new(Driver::new(url, options, postgres, tables.clone())?, tables)))
}

/// The samplers of what the database at `url` is measured by without anybody's doing. Nothing connects before the first
/// sample.
///
/// # Errors
/// [`OpenError`] where the URL makes no sense.
pub fn samplers(
    url: &str,
    options: &Options,
    postgres: &PostgresOptions,
    sampling: &SamplerOptions,
) -> Result<Vec<Box<dyn Sampler>>, OpenError> {
    let access = Access::new(url, options, postgres, sampling.timeout)?;
    Ok(vec![Box::new(Statistics::new(access.clone(), sampling)), Box::new(Probe::new(access, sampling))])
}

/// The sampler of what a query of somebody's own says: one row, whose first column is a number. It may not write.
///
/// # Errors
/// [`OpenError`] where the URL makes no sense.
pub fn sql_sampler(
    url: &str,
    options: &Options,
    postgres: &PostgresOptions,
    definition: Definition,
    query: &str,
    timeout: Duration,
) -> Result<Box<dyn Sampler>, OpenError> {
    Ok(Box::new(Own::new(Access::new(url, options, postgres, timeout)?, definition, query)))
}
