//! How an update stands: one set of words for the loop, what it writes down, `status`, the API, the page and the metrics.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::choice::{Standing, assess};
use super::database::QueueRow;
use super::report::Doing;
use crate::update::Progress;
use crate::update::approval::AWAITING;

/// How an update that is queued stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum UpdateState {
    /// In hand, a batch running or about to after a rest.
    Running,
    /// In hand, and its controller lets it wait.
    Held,
    /// Tried again after a while: in hand, or giving way to others meanwhile.
    BackingOff,
    /// Its database is paused.
    Paused,
    /// Nothing is in its way but its turn.
    Pending,
    /// It waits for another row.
    Waits,
    /// It waits for itself.
    Cycle,
    /// It failed too often.
    Quarantined,
    /// It has stopped for somebody to approve of it.
    AwaitsApproval,
    /// The configuration does not define it.
    Undefined,
    /// Its progress is no JSON object, or what stands in the row is no text at all.
    Unreadable,
}

impl UpdateState {
    /// Every one.
    pub const ALL: [UpdateState; 11] = [
        UpdateState::Running,
        UpdateState::Held,
        UpdateState::BackingOff,
        UpdateState::Paused,
        UpdateState::Pending,
        UpdateState::Waits,
        UpdateState::Cycle,
        UpdateState::Quarantined,
        UpdateState::AwaitsApproval,
        UpdateState::Undefined,
        UpdateState::Unreadable,
    ];

    /// For programs: in JSON and as the label of a metric.
    pub fn spelling(self) -> &'static str {
        match self {
            UpdateState::Running => "running",
            UpdateState::Held => "held",
            UpdateState::BackingOff => "backing-off",
            UpdateState::Paused => "paused",
            UpdateState::Pending => "pending",
            UpdateState::Waits => "waits",
            UpdateState::Cycle => "cycle",
            UpdateState::Quarantined => "quarantined",
            UpdateState::AwaitsApproval => "awaits-approval",
            UpdateState::Undefined => "undefined",
            UpdateState::Unreadable => "unreadable",
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            UpdateState::BackingOff => "backing off",
            UpdateState::Waits => "waiting",
            UpdateState::AwaitsApproval => AWAITING,
            UpdateState::Undefined => "no definition",
            _ => self.spelling(),
        }
    }

    /// For people, with what holds the update, where that says more.
    pub fn told(self, reason: Option<&str>) -> String {
        match (self, reason) {
            // These reasons name the state themselves.
            (
                UpdateState::Waits | UpdateState::Cycle | UpdateState::Unreadable | UpdateState::AwaitsApproval,
                Some(reason),
            ) => reason.to_owned(),
            // The whole database is paused, and the error stands beside: both are told there.
            (UpdateState::Paused | UpdateState::Quarantined | UpdateState::Undefined, _) | (_, None) => {
                self.words().to_owned()
            }
            (_, Some(reason)) => format!("{}: {reason}", self.words()),
        }
    }

    /// True while a host works on it.
    pub fn is_in_hand(self) -> bool {
        matches!(self, UpdateState::Running | UpdateState::Held | UpdateState::BackingOff)
    }

    /// True where it runs by itself once its turn or its time comes.
    pub fn is_in_order(self) -> bool {
        self.is_in_hand() || matches!(self, UpdateState::Paused | UpdateState::Pending | UpdateState::Waits)
    }
}

impl fmt::Display for UpdateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl From<UpdateState> for &'static str {
    fn from(state: UpdateState) -> Self {
        state.spelling()
    }
}

impl TryFrom<String> for UpdateState {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        // Hosts before this one wrote "backing off" into what they do.
        let spelt = word.replace(' ', "-");
        let known = Self::ALL.into_iter().find(|state| state.spelling() == spelt);
        known.ok_or_else(|| format!("there is no state of an update {word:?}"))
    }
}

/// What a host does in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "&'static str", from = "String")]
pub enum LaneState {
    /// Nothing: no update can run.
    #[default]
    Idle,
    /// Nothing, and nothing any more: the host has gone.
    Stopped,
    /// Its update stands so, or, where the database is paused, what would be in hand.
    Update(UpdateState),
}

impl LaneState {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            LaneState::Idle => "idle",
            LaneState::Stopped => "stopped",
            LaneState::Update(state) => state.words(),
        }
    }
}

impl fmt::Display for LaneState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl From<LaneState> for &'static str {
    fn from(state: LaneState) -> Self {
        match state {
            LaneState::Update(state) => state.spelling(),
            LaneState::Idle | LaneState::Stopped => state.words(),
        }
    }
}

impl From<String> for LaneState {
    fn from(word: String) -> Self {
        match word.as_str() {
            "idle" => LaneState::Idle,
            "stopped" => LaneState::Stopped,
            // A word of a later version: whoever looks is to see the rest all the same.
            _ => LaneState::Update(UpdateState::try_from(word).unwrap_or(UpdateState::Running)),
        }
    }
}

/// How an update stands, and what holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    /// How.
    pub state: UpdateState,
    /// What holds it, in words.
    pub reason: Option<String>,
}

impl Stand {
    /// Of a row of a queue: by how it stands there, by what the host that works on the queue does, and by the pause, the reason
    /// of which there may be.
    pub fn of(row: &QueueRow, standing: &Standing, doing: Option<&Doing>, pause: Option<&Option<String>>) -> Self {
        let state = match standing {
            Standing::DependsOn(_) | Standing::Skipped(..) => UpdateState::Waits,
            Standing::Cycle(_) => UpdateState::Cycle,
            Standing::Undefined => UpdateState::Undefined,
            Standing::Quarantined => UpdateState::Quarantined,
            Standing::AwaitsApproval(_) => UpdateState::AwaitsApproval,
            Standing::Unreadable(_) => UpdateState::Unreadable,
            Standing::Ready => {
                return match Progress::parse(&row.progress) {
                    Err(error) => Self { state: UpdateState::Unreadable, reason: Some(error.to_string()) },
                    Ok(_) => Self::ready(doing, pause),
                };
            }
        };
        Self { state, reason: standing.explain(row) }
    }

    /// Of an update that a host has begun.
    pub fn begun(doing: &Doing, pause: Option<&Option<String>>) -> Self {
        Self::ready(Some(doing), pause)
    }

    /// Of an update that nothing speaks against.
    fn ready(doing: Option<&Doing>, pause: Option<&Option<String>>) -> Self {
        match (doing, pause) {
            // What runs in one go is not interrupted by a pause.
            (Some(Doing { in_one_go: true, reason, .. }), _) => {
                Self { state: UpdateState::Running, reason: reason.clone() }
            }
            (_, Some(reason)) => Self { state: UpdateState::Paused, reason: reason.clone() },
            (Some(Doing { state, reason, .. }), None) => Self { state: *state, reason: reason.clone() },
            (None, None) => Self { state: UpdateState::Pending, reason: None },
        }
    }
}

/// What one looks a queue's rows up in to tell how they stand.
pub struct Stands<'a> {
    doing: HashMap<&'a str, &'a Doing>,
    pause: Option<&'a Option<String>>,
}

impl<'a> Stands<'a> {
    /// By what the host that works on the queue does, and by the pause.
    pub fn new(doing: &'a [Doing], pause: Option<&'a Option<String>>) -> Self {
        // Of two lanes the first counts.
        let doing = doing.iter().rev().map(|doing| (doing.update_name.as_str(), doing)).collect();
        Self { doing, pause }
    }

    /// What the host does with an update.
    pub fn doing(&self, update_name: &str) -> Option<&'a Doing> {
        self.doing.get(update_name).copied()
    }

    /// How a row stands.
    pub fn of(&self, row: &QueueRow, standing: &Standing) -> Stand {
        Stand::of(row, standing, self.doing(&row.update_name), self.pause)
    }

    /// How each row of a queue stands, in the rows' order.
    pub fn of_all(&self, rows: &[QueueRow], defined: &dyn Fn(&str) -> bool) -> Vec<Stand> {
        rows.iter().zip(&assess(rows, defined)).map(|(row, standing)| self.of(row, standing)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_read_as_it_is_written() {
        for state in UpdateState::ALL {
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<UpdateState>(&json).unwrap(), state);
            let lane = LaneState::Update(state);
            let json = serde_json::to_string(&lane).unwrap();
            assert_eq!(serde_json::from_str::<LaneState>(&json).unwrap(), lane);
        }
        for lane in [LaneState::Idle, LaneState::Stopped] {
            assert_eq!(serde_json::from_str::<LaneState>(&serde_json::to_string(&lane).unwrap()).unwrap(), lane);
        }
    }

    #[test]
    fn what_a_host_before_this_one_wrote_is_read() {
        for (word, state) in [
            ("running", LaneState::Update(UpdateState::Running)),
            ("held", LaneState::Update(UpdateState::Held)),
            ("backing off", LaneState::Update(UpdateState::BackingOff)),
            ("paused", LaneState::Update(UpdateState::Paused)),
            ("idle", LaneState::Idle),
            ("stopped", LaneState::Stopped),
            ("a word of tomorrow", LaneState::Update(UpdateState::Running)),
        ] {
            assert_eq!(serde_json::from_value::<LaneState>(word.into()).unwrap(), state, "{word}");
        }
    }
}
