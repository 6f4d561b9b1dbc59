//! What a person sets of all this.

use std::time::Duration;

use super::Fallback;
use crate::controller::{BuiltIn, GentleSettings};

/// What bounds a controller's answers, and when patience with it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SupervisorSettings {
    /// The built-in policy, where it is the one, or the fallback.
    pub builtin: BuiltIn,
    /// Where it is to be gentle: within which bounds. Default: it is steady.
    pub gentle: Option<GentleSettings>,
    /// Who takes over.
    pub fallback: Fallback,
    /// Faults in a row after which the fallback takes over. 1 or more.
    pub max_faults: u32,
    /// The longest target duration; longer ones are cut to it.
    pub max_target: Duration,
    /// Items of an update's first batch, where the controller does not say.
    pub default_batch_size: u32,
    /// The least number of items of later batches, where the controller does not say.
    pub min_batch_size: u32,
    /// The most that a controller may ask for as the least; more is cut to it.
    pub max_min_batch_size: u32,
}

impl Default for SupervisorSettings {
    fn default() -> Self {
        Self {
            builtin: BuiltIn::default(),
            gentle: None,
            fallback: Fallback::default(),
            max_faults: 3,
            max_target: Duration::from_millis(60_000),
            default_batch_size: 100,
            min_batch_size: 100,
            max_min_batch_size: 1_000,
        }
    }
}
