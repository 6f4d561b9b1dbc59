//! What the drivers for SQLite and PostgreSQL have in common: the queue table and tidegate's own tables, the lease's fence, a
//! batch's transaction, and the words of their errors.
//!
//! Programs use `tidegate-sqlite` and `tidegate-postgres`, which build on this.

pub mod driver;
pub mod estimate;
mod failures;
pub mod fence;
pub mod handle;
mod history;
pub mod ledger;
pub mod sampler;
pub mod schema;
pub mod skipped;
pub mod survey;
pub mod tables;
pub mod words;

use std::sync::atomic::{AtomicU64, Ordering};

use tidegate::scheduler::database::{Holder, OpenError};

pub use sampler::{SamplerOptions, TableInHand};

/// A number for a connection, which no other one of this process has.
pub fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The queue table that Synapse uses too.
pub const DEFAULT_QUEUE_TABLE: &str = "background_updates";

/// How a database is worked on, whichever it is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who works on it: what PostgreSQL shows as the application's name, and others as the holder of the lease.
    pub holder: Holder,
    /// The queue table, unquoted, without a schema. Default: [`DEFAULT_QUEUE_TABLE`].
    pub queue_table: String,
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
            #[cfg(feature = "test-switches")]
            switches: Switches::default(),
        }
    }

    /// Whether a table can have the queue's name.
    ///
    /// # Errors
    /// [`OpenError::Option`] where it cannot.
    pub fn check(&self) -> Result<(), OpenError> {
        if self.queue_table.is_empty() || self.queue_table.contains('\0') {
            return Err(OpenError::Option("the queue table's name is empty or holds a zero byte".to_owned()));
        }
        Ok(())
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
