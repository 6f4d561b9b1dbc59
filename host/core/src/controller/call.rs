//! One call into a controller, as it was measured: what `Usage` sums up, before it is summed up.

use std::time::Duration;

use super::{Callback, FaultKind};

/// One call into a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Which callback; [`Callback::Start`] for the start of an instance.
    pub callback: Callback,
    /// Fuel that it consumed.
    pub fuel: u64,
    /// Linear memory that the instance held when it was over, in bytes: its peak, for memories do not shrink.
    pub memory_bytes: u64,
    /// How much of that the call itself added, in bytes.
    pub grown_bytes: u64,
    /// How long it took, by the machine's own clock.
    pub duration: Duration,
    /// What cost the instance its life, where the call did. An error that a callback returned does not.
    pub lost: Option<FaultKind>,
}

/// Sees every call into a controller's instances as it ends. Called while the scheduler waits: it has to be quick.
pub trait CallObserver: Send + Sync {
    /// Takes note of a call into the instance of this database.
    fn see(&self, database_name: &str, call: &Call);
}
