//! The drivers: SQLite and PostgreSQL behind the scheduler's [`Database`] trait.
//!
//! [`open`] takes a URL and gives a handle that connects when it is first used.

mod estimate;
mod fence;
mod handle;
mod postgres;
mod sampler;
mod schema;
mod sqlite;
mod survey;
mod tables;
mod words;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::scheduler::database::{Database, Holder};
use crate::update::sql::System;

pub use sampler::{SamplerOptions, TableInHand, samplers, sql_sampler};

use handle::Handle;
use tables::Tables;

/// A number for a connection, which no other one of this process has.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The queue table that Synapse uses too.
pub const DEFAULT_QUEUE_TABLE: &str = "background_updates";

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
}

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

/// Takes safety measures out, so that a test can show that it would notice. Never for production.
#[cfg(feature = "test-switches")]
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Switches {
    /// `begin` goes on from any progress.
    pub skip_progress_comparison: bool,
    /// `try_lease` always gives the lease.
    pub lease_always: bool,
    /// A pooler's sessions are taken to be a connection's own.
    pub trust_sessions: bool,
    /// PostgreSQL's policies hide rows without a word, as a session has it by default.
    pub policies_hide: bool,
    /// Each statement of a batch sees what is committed by then, whatever its handler asks for (PostgreSQL).
    pub without_snapshot: bool,
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

/// A handle on the database at `url`, which is `sqlite:PATH`, `postgres://…` or `postgresql://…`. It connects when it
/// is first used.
///
/// PostgreSQL's URL takes libpq's parameters as far as `tokio-postgres` knows them, and `sslmode` (`disable`, `prefer`,
/// `require`, `verify-ca`, `verify-full`) and `sslrootcert` (a file of PEM certificates, or `system`) with libpq's
/// meaning; where a mode verifies and `sslrootcert` is missing, the system's certificates count. The environment and
/// `~/.pgpass` are not looked at.
///
/// # Errors
/// [`OpenError`] where the URL or an option makes no sense. Whether the database is there shows later.
pub fn open(url: &str, options: Options) -> Result<Arc<dyn Database>, OpenError> {
    if options.queue_table.is_empty() || options.queue_table.contains('\0') {
        return Err(OpenError::Option("the queue table's name is empty or holds a zero byte".to_owned()));
    }
    let tables = |system| Tables::new(&options.queue_table, system);
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = sqlite_path(path).ok_or_else(|| OpenError::SqlitePath(url.to_owned()))?;
        let tables = tables(System::Sqlite);
        return Ok(Arc::new(Handle::new(sqlite::Driver::new(path, &options, tables.clone()), tables)));
    }
    if is_postgres(url) {
        let tables = tables(System::Postgres);
        return Ok(Arc::new(Handle::new(postgres::Driver::new(url, &options, tables.clone())?, tables)));
    }
    Err(OpenError::Scheme(scheme(url)))
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
