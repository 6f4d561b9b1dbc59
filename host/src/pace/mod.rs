//! The arithmetic of pacing: how fast items go, how many to ask for, how long to back off, when it will be over.
//!
//! Plain functions and values: no clock, no IO, no async.

mod backoff;
mod batch;
mod rate;

pub use backoff::Backoff;
pub use batch::{BatchSize, Shrink, eta};
pub use rate::{Estimator, Synapse};
