//! The arithmetic of pacing: how fast items go, how many to ask for, how long to back off, when it will be over.
//!
//! Plain functions and values: no clock, no IO, no async.

mod backoff;
mod batch;
mod cost;
pub mod gentle;
mod halving;
mod rate;
mod slices;

use std::time::Duration;

pub use backoff::Backoff;
pub use batch::{BatchSize, Shrink, eta};
pub use cost::Cost;
pub use halving::Halving;
pub use rate::Synapse;
pub use slices::{Bounds, Slice, Slices};

/// How the batches of an update are sized.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Estimator {
    /// By slices: what earlier batches cost sizes the first slice of a batch, and what that took the next.
    #[default]
    Slices,
    /// As Synapse does: a batch is one slice, by the averages of its formula.
    Synapse,
}

/// A duration in milliseconds, with fractions.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
