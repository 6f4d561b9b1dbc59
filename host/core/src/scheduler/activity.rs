//! What a running host does, as it writes it down for others to read.

use serde::{Deserialize, Serialize};

use super::database::Holder;
use super::lanes::Lanes;
use super::update_state::LaneState;
use crate::controller::ShadowReport;

/// What a running host does, as it writes it down for others to read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    /// Who.
    pub holder: Holder,
    /// What it does in the first lane.
    #[serde(flatten)]
    pub first: Work,
    /// What it does in the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lanes: Vec<LaneWork>,
    /// When this was written, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The signals as they stood then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<Measured>,
}

/// What a host does in one of a database's lanes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The update in hand.
    pub update_name: Option<String>,
    /// What it does with it.
    pub state: LaneState,
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
    /// Updates that this host has begun and that are not tried before a time, while others are; the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub put_off: Vec<Waiting>,
}

/// What a host does in a lane that is not the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneWork {
    /// The lane.
    pub lane: String,
    /// What it does there.
    #[serde(flatten)]
    pub work: Work,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            update_name: None,
            state: LaneState::Idle,
            reason: None,
            controller: String::new(),
            controller_retry: None,
            fault: None,
            items_per_ms: None,
            one_shot_since_ms: None,
            in_the_way: Vec::new(),
            done: None,
            eta_ms: None,
            shadows: Vec::new(),
            put_off: Vec::new(),
        }
    }
}

impl Work {
    /// Lays down whatever is in hand.
    pub(super) fn lay_down(&mut self) {
        (self.update_name, self.items_per_ms, self.done, self.eta_ms) = (None, None, None, None);
    }

    /// What is left of it once the host has gone.
    fn last_words(&self) -> Self {
        Self {
            state: LaneState::Stopped,
            controller: self.controller.clone(),
            fault: self.fault.clone(),
            shadows: self.shadows.clone(),
            ..Self::default()
        }
    }
}

impl Activity {
    /// What is done in each lane, the first one first.
    pub fn works(&self) -> impl Iterator<Item = (&str, &Work)> {
        let others = self.lanes.iter().map(|lane| (lane.lane.as_str(), &lane.work));
        std::iter::once((Lanes::FIRST, &self.first)).chain(others)
    }

    /// The updates that run in one go at this moment, and since when, in milliseconds since the Unix epoch.
    pub fn in_one_go(&self) -> impl Iterator<Item = (&str, i64)> {
        self.works().filter_map(|(_, work)| work.update_name.as_deref().zip(work.one_shot_since_ms))
    }

    /// What stays on record of a host that leaves: the last faults of its controllers, where there were any.
    pub(super) fn last_words(&self) -> Option<Self> {
        let lanes = self.lanes.iter().filter(|lane| lane.work.fault.is_some());
        let lanes: Vec<LaneWork> =
            lanes.map(|LaneWork { lane, work }| LaneWork { lane: lane.clone(), work: work.last_words() }).collect();
        let told = self.first.fault.is_some() || !lanes.is_empty();
        told.then(|| Self { first: self.first.last_words(), lanes, ..self.clone() })
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
