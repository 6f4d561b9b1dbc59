//! What the scheduler may rely on, of SQLite and of PostgreSQL alike: one suite, run on both.

mod batch;
mod dialect;
mod files;
mod lease;
pub mod poolers;
mod postgres_faults;
mod postgres_only;
mod postgres_tls;
mod queue;
mod sqlite_only;
