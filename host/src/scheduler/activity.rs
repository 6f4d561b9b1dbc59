//! What a running host does, as it writes it down for others to read.

use serde::{Deserialize, Serialize};

use super::database::Holder;
use crate::controller::ShadowReport;

/// What a running host does, as it writes it down for others to read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    /// Who.
    pub holder: Holder,
    /// The update in hand.
    pub update_name: Option<String>,
    /// What it does with it: "running" (resting between two batches included), "held", "backing off", "paused",
    /// "idle"; "stopped" where it does nothing any more.
    pub state: String,
    /// Why, where it waits.
    pub reason: Option<String>,
    /// The controller that sets the pace, and where it is a fallback, what it stands in for.
    pub controller: String,
    /// While its fallback is in force, when the controller is tried again; in the past while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller_retry: Option<ControllerRetry>,
    /// The controller's last fault with its hint.
    pub fault: Option<String>,
    /// Synapse's average_items_per_ms of the update in hand.
    pub items_per_ms: Option<f64>,
    /// Since when the update in hand runs in one go, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub one_shot_since_ms: Option<i64>,
    /// Who keeps the update in hand waiting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_the_way: Vec<String>,
    /// The part of the update in hand that is done, 0.0 to 1.0, where it can be estimated.
    pub done: Option<f64>,
    /// Milliseconds until the update in hand is done, at the pace that it had under this host, waiting included.
    pub eta_ms: Option<u64>,
    /// How controllers do that are asked beside it and decide nothing.
    #[serde(default)]
    pub shadows: Vec<ShadowReport>,
    /// When this was written, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Updates that this host has begun and that are not tried before a time, while others are; the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub put_off: Vec<Waiting>,
    /// The signals as they stood then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<Measured>,
}

impl Activity {
    /// The update that runs in one go at this moment, and since when, in milliseconds since the Unix epoch.
    pub fn in_one_go(&self) -> Option<(&str, i64)> {
        self.update_name.as_deref().zip(self.one_shot_since_ms)
    }
}

/// An update that is not tried before a time, as a host writes it down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The update.
    pub update_name: String,
    /// Before when, in milliseconds since the Unix epoch.
    pub until_ms: i64,
    /// Why: what went wrong.
    pub reason: String,
}

/// When a controller is tried again whose fallback is in force, as a host writes it down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerRetry {
    /// For which update.
    pub update_name: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// A signal's reading, as a host writes it down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The signal.
    pub name: String,
    /// What was read.
    pub value: f64,
    /// The unit of the value; empty where it has none.
    pub unit: String,
    /// How old the reading was, in milliseconds.
    pub age_ms: u64,
}
