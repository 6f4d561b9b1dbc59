//! What a host is doing at this moment, as its events tell it: kept in memory, so that whoever asks often (a page, a
//! monitor, an API) asks no database.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::database::{Holder, Record};
use super::event::{Event, EventKind, Observer};
use crate::controller::{Fault, ShadowNotice, ShadowReport, Usage};

/// Iterations of a database that are kept.
const RECENT: usize = 120;

/// Faults of a controller that are kept.
const FAULTS: usize = 20;

/// Updates that ended that are kept.
const ENDED: usize = 50;

/// What a host does, database by database. Clones show the same host.
#[derive(Debug, Clone, Default)]
pub struct Board {
    databases: Arc<Mutex<BTreeMap<String, DatabaseBoard>>>,
}

impl Board {
    /// What is known of every database, by name. Held up while `read` runs, so it had better be quick.
    pub fn read<T>(&self, read: impl FnOnce(&BTreeMap<String, DatabaseBoard>) -> T) -> T {
        read(&self.databases.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is known of one database.
    pub fn database(&self, name: &str) -> Option<DatabaseBoard> {
        self.read(|databases| databases.get(name).cloned())
    }

    /// Takes note of a stored pause that was set (the reason, where one was given) or lifted, by whoever did it: the
    /// host itself notices within a second.
    pub fn note_pause(&self, name: &str, pause: Option<Option<String>>) {
        self.change(name, |database| database.pause = pause);
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut DatabaseBoard)) {
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        match databases.get_mut(name) {
            Some(database) => change(database),
            None => change(databases.entry(name.to_owned()).or_default()),
        }
    }
}

impl Observer for Board {
    fn see(&self, event: &Event) {
        self.change(&event.database, |database| database.see(event));
    }
}

/// What a host does on one database.
#[derive(Debug, Clone, Default)]
pub struct DatabaseBoard {
    /// Whether this host is its runner.
    pub lease: LeaseState,
    /// Why the database did not answer when it was last asked, where it did not.
    pub unavailable: Option<String>,
    /// What is done in the first lane.
    pub first: LaneBoard,
    /// What is done in the others, by name.
    pub lanes: BTreeMap<String, LaneBoard>,
    /// Updates that failed and that are tried again, by name: where another is in hand, they give way to it until then.
    pub put_off: BTreeMap<String, PutOff>,
    /// Set while updates are paused; the reason, where one was given.
    pub pause: Option<Option<String>>,
    /// Rows that cannot run, each with the reason.
    pub blocked: Vec<(String, String)>,
    /// What was done since this host started, by update name.
    pub totals: BTreeMap<String, Totals>,
    /// The last iterations, the newest last.
    pub recent: VecDeque<Arc<Record>>,
    /// Updates that ended, the newest last.
    pub ended: VecDeque<Ended>,
    /// When a batch was last committed.
    pub last_progress: Option<SystemTime>,
}

/// What a host does in one lane.
#[derive(Debug, Clone, Default)]
pub struct LaneBoard {
    /// The update in hand.
    pub in_hand: Option<InHand>,
    /// Its controller.
    pub controller: ControllerBoard,
}

/// Whether a host is a database's runner.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LeaseState {
    /// It has not asked yet, or has given up.
    #[default]
    None,
    /// It is.
    Runner,
    /// Another is, where it is known which.
    StandingBy(Option<Holder>),
}

/// An update that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The update.
    pub update_name: String,
    /// When.
    pub at: SystemTime,
    /// True where it is done; false where somebody took it out of the queue while it was in hand.
    pub finished: bool,
}

/// An update in hand.
#[derive(Debug, Clone, PartialEq)]
pub struct InHand {
    /// The update.
    pub update_name: String,
    /// True where it happens in one go.
    pub one_shot: bool,
    /// How many work on it at once.
    pub workers: usize,
    /// When this host took it in hand.
    pub since: SystemTime,
    /// What happens with it.
    pub phase: Phase,
    /// When that began.
    pub phase_since: SystemTime,
    /// Between two batches: the rest that it takes, and why.
    pub rest: Option<(Duration, String)>,
    /// Who keeps its batch waiting.
    pub in_the_way: Vec<String>,
    /// The part that is done, 0.0 to 1.0, estimated.
    pub done: Option<f64>,
    /// How long it will take from when that was estimated.
    pub eta: Option<Duration>,
}

/// An update that is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutOff {
    /// When, at the earliest.
    pub until: SystemTime,
    /// What went wrong.
    pub error: String,
}

/// What happens with an update in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It is between two batches.
    Between,
    /// A batch runs.
    Running {
        /// Items asked for.
        batch_size: u64,
        /// The target duration; `None` for a one-shot.
        target: Option<Duration>,
    },
    /// Its controller lets it wait.
    Held {
        /// For how long.
        duration: Duration,
        /// Why.
        reason: String,
    },
    /// A batch failed and is tried again.
    BackingOff {
        /// After how long.
        duration: Duration,
        /// What went wrong.
        error: String,
    },
}

/// What was done for one update since the host started.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// Items of committed batches.
    pub items: u64,
    /// Committed batches.
    pub iterations: u64,
    /// Iterations that failed or were cancelled.
    pub failures: u64,
    /// How long committed batches took, waiting not included.
    pub duration: Duration,
    /// Synapse's average_items_per_ms; `None` until an item was counted.
    pub items_per_ms: Option<f64>,
}

/// A controller as the host knows it.
#[derive(Debug, Clone, Default)]
pub struct ControllerBoard {
    /// What it is called, or what stands in for one.
    pub name: Option<String>,
    /// When this one was loaded.
    pub since: Option<SystemTime>,
    /// Who took over, where somebody did.
    pub fallback: Option<FallbackBoard>,
    /// The last faults, each with when it happened, the newest last.
    pub faults: VecDeque<(SystemTime, Fault)>,
    /// What its calls used since it was loaded.
    pub usage: Usage,
    /// The controllers that are asked beside it, by name.
    pub shadows: BTreeMap<String, ShadowBoard>,
}

/// A fallback that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallbackBoard {
    /// "default" or "hold".
    pub fallback: String,
    /// Why it took over.
    pub reason: String,
    /// True where a reload alone ends it.
    pub needs_reload: bool,
    /// When the controller is tried again; `None` where no update waits for that: it is tried for the next.
    pub retry: Option<Retry>,
}

/// When a controller is tried again whose fallback is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// For which update.
    pub update_name: String,
    /// When; in the past while it is tried.
    pub at: SystemTime,
}

/// A controller that is asked beside the one that sets the pace.
#[derive(Debug, Clone, Default)]
pub struct ShadowBoard {
    /// How it does.
    pub report: ShadowReport,
    /// The last faults, each with when it happened, the newest last.
    pub faults: VecDeque<(SystemTime, Fault)>,
    /// What its calls used since it was loaded.
    pub usage: Usage,
}

impl Retry {
    fn after(update_name: &str, at: SystemTime, wait: Duration) -> Self {
        Self { update_name: update_name.to_owned(), at: at + wait }
    }
}

impl ShadowBoard {
    fn see(&mut self, notice: &ShadowNotice, at: SystemTime) {
        self.report.take_in(notice);
        match notice {
            ShadowNotice::Fault { fault, .. } => note_fault(&mut self.faults, at, fault),
            ShadowNotice::Used(usage) => self.usage.add(*usage),
            _ => {}
        }
    }
}

/// Keeps the last faults.
fn note_fault(faults: &mut VecDeque<(SystemTime, Fault)>, at: SystemTime, fault: &Fault) {
    if faults.len() == FAULTS {
        faults.pop_front();
    }
    faults.push_back((at, fault.clone()));
}

impl DatabaseBoard {
    /// What is done in each lane, the first one first, which has no name here.
    pub fn all_lanes(&self) -> impl Iterator<Item = (Option<&str>, &LaneBoard)> {
        let others = self.lanes.iter().map(|(name, lane)| (Some(name.as_str()), lane));
        std::iter::once((None, &self.first)).chain(others)
    }

    /// The updates in hand, that of the first lane first.
    pub fn in_hand(&self) -> impl Iterator<Item = &InHand> {
        self.all_lanes().filter_map(|(_, lane)| lane.in_hand.as_ref())
    }

    fn lane(&mut self, name: Option<&Arc<str>>) -> &mut LaneBoard {
        match name {
            None => &mut self.first,
            Some(name) if self.lanes.contains_key(&**name) => self.lanes.get_mut(&**name).unwrap_or(&mut self.first),
            Some(name) => self.lanes.entry(name.to_string()).or_default(),
        }
    }

    fn every_lane(&mut self) -> impl Iterator<Item = &mut LaneBoard> {
        std::iter::once(&mut self.first).chain(self.lanes.values_mut())
    }

    fn see(&mut self, event: &Event) {
        let (at, lane) = (event.at, event.lane.as_ref());
        match &event.kind {
            EventKind::LeaseAcquired => (self.lease, self.unavailable) = (LeaseState::Runner, None),
            EventKind::StandingBy { holder } => {
                (self.lease, self.unavailable) = (LeaseState::StandingBy(holder.clone()), None);
            }
            EventKind::LeaseLost { .. } | EventKind::Stopped => {
                self.lease = LeaseState::None;
                self.every_lane().for_each(|lane| lane.in_hand = None);
                self.put_off.clear();
            }
            EventKind::LaneClosed => drop(lane.map(|lane| self.lanes.remove(&**lane))),
            EventKind::Unavailable { error, .. } => self.unavailable = Some(error.clone()),
            EventKind::Available => self.unavailable = None,
            EventKind::UpdateStarted { update_name, one_shot } => {
                self.lane(lane).take_in_hand(update_name, *one_shot, at);
                self.totals.entry(update_name.to_owned()).or_default();
            }
            EventKind::BatchStarted { update_name, .. } => {
                self.put_off.remove(update_name);
                self.lane(lane).see(&event.kind, at);
            }
            EventKind::TransientFailure { update_name, error, retry_in, .. }
            | EventKind::Failure { update_name, error, retry_in: Some(retry_in), .. } => {
                self.put_off(lane, update_name, *retry_in, error, at);
            }
            EventKind::IterationEnded { record, items_per_ms } => {
                self.lane(lane).enter(Phase::Between, at);
                self.note_iteration(record, *items_per_ms, at);
            }
            EventKind::Failure { update_name, retry_in: None, .. } => self.forget(update_name),
            EventKind::UpdateFinished { update_name } => self.note_end(update_name, at, true),
            EventKind::UpdateMoved { update_name, gone: true } => self.note_end(update_name, at, false),
            EventKind::Blocked { rows } => self.blocked.clone_from(rows),
            EventKind::Paused { reason } => self.pause = Some(reason.clone()),
            EventKind::Resumed => self.pause = None,
            EventKind::AwaitsApproval { update_name, .. } => self.forget(update_name),
            EventKind::UpdateMoved { gone: false, .. } | EventKind::Noted { .. } => {}
            kind => self.lane(lane).see(kind, at),
        }
    }

    fn put_off(&mut self, lane: Option<&Arc<str>>, update_name: &str, wait: Duration, error: &str, at: SystemTime) {
        let lane = self.lane(lane);
        if lane.in_hand.as_ref().is_some_and(|in_hand| in_hand.update_name == update_name) {
            lane.enter(Phase::BackingOff { duration: wait, error: error.to_owned() }, at);
        }
        self.put_off.insert(update_name.to_owned(), PutOff { until: at + wait, error: error.to_owned() });
    }

    /// Nothing is done for an update any more.
    fn forget(&mut self, update_name: &str) {
        self.every_lane().for_each(|lane| lane.forget(update_name));
        self.put_off.remove(update_name);
    }

    fn note_end(&mut self, update_name: &str, at: SystemTime, finished: bool) {
        self.forget(update_name);
        if self.ended.len() == ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended { update_name: update_name.to_owned(), at, finished });
    }

    fn note_iteration(&mut self, record: &Arc<Record>, items_per_ms: Option<f64>, at: SystemTime) {
        let totals = match self.totals.get_mut(&record.update_name) {
            Some(totals) => totals,
            None => self.totals.entry(record.update_name.clone()).or_default(),
        };
        if record.is_committed() {
            totals.items = totals.items.saturating_add(record.items);
            totals.iterations += 1;
            totals.duration += Duration::from_secs_f64(record.duration_ms / 1e3);
            totals.items_per_ms = items_per_ms;
            self.last_progress = Some(at);
        } else {
            totals.failures += 1;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(record));
    }
}

impl LaneBoard {
    fn see(&mut self, kind: &EventKind, at: SystemTime) {
        match kind {
            EventKind::BatchStarted { batch_size, target, one_shot, .. } => {
                self.enter(Phase::Running { batch_size: *batch_size, target: *target }, at);
                if let Some(in_hand) = &mut self.in_hand {
                    in_hand.one_shot = *one_shot;
                }
            }
            EventKind::Held { duration, reason, rest: true, .. } => {
                self.enter(Phase::Between, at);
                if let Some(in_hand) = &mut self.in_hand {
                    in_hand.rest = Some((*duration, reason.clone()));
                }
            }
            EventKind::Held { duration, reason, rest: false, .. } => {
                self.enter(Phase::Held { duration: *duration, reason: reason.clone() }, at);
            }
            EventKind::InTheWay { who, .. } => {
                if let Some(in_hand) = &mut self.in_hand {
                    in_hand.in_the_way.clone_from(who);
                }
            }
            EventKind::Progress { done, eta, .. } => {
                if let Some(in_hand) = &mut self.in_hand {
                    (in_hand.done, in_hand.eta) = (Some(*done), *eta);
                }
            }
            EventKind::Idle { .. } => self.in_hand = None,
            EventKind::Workers { update_name, workers } => {
                if let Some(in_hand) = self.in_hand.as_mut().filter(|in_hand| in_hand.update_name == *update_name) {
                    in_hand.workers = *workers;
                }
            }
            kind => self.controller.see(kind, at),
        }
    }

    fn take_in_hand(&mut self, update_name: &str, one_shot: bool, at: SystemTime) {
        self.in_hand = Some(InHand {
            update_name: update_name.to_owned(),
            one_shot,
            workers: 1,
            since: at,
            phase: Phase::Between,
            phase_since: at,
            rest: None,
            in_the_way: Vec::new(),
            done: None,
            eta: None,
        });
    }

    /// An update that does not run any more is none that a controller could be tried for.
    fn forget(&mut self, update_name: &str) {
        self.in_hand = self.in_hand.take().filter(|in_hand| in_hand.update_name != update_name);
        if let Some(fallback) = &mut self.controller.fallback {
            fallback.retry = fallback.retry.take().filter(|retry| retry.update_name != update_name);
        }
    }

    fn enter(&mut self, phase: Phase, at: SystemTime) {
        if let Some(in_hand) = &mut self.in_hand {
            (in_hand.phase, in_hand.phase_since, in_hand.rest) = (phase, at, None);
            in_hand.in_the_way.clear();
        }
    }
}

impl ControllerBoard {
    fn see(&mut self, kind: &EventKind, at: SystemTime) {
        match kind {
            EventKind::ControllerLoaded { controller, .. } => {
                let name = Some(controller.clone());
                *self = Self { name, since: Some(at), ..Self::default() };
            }
            EventKind::ControllerUsed { usage, .. } => self.usage.add(*usage),
            EventKind::ControllerFault { fault, .. } => note_fault(&mut self.faults, at, fault),
            EventKind::Shadow { controller, notice } => {
                let shadow = self
                    .shadows
                    .entry(controller.clone())
                    .or_insert_with(|| ShadowBoard { report: ShadowReport::new(controller), ..ShadowBoard::default() });
                shadow.see(notice, at);
            }
            EventKind::Fallback { fallback, reason, retry, .. } => {
                let (fallback, reason) = (fallback.clone(), reason.clone());
                let retry = retry.as_ref().map(|(update_name, wait)| Retry::after(update_name, at, *wait));
                let needs_reload = retry.is_none();
                self.fallback = Some(FallbackBoard { fallback, reason, needs_reload, retry });
            }
            EventKind::ControllerTried { update_name, .. } => {
                if let Some(fallback) = &mut self.fallback {
                    fallback.retry = Some(Retry::after(update_name, at, Duration::ZERO));
                }
            }
            EventKind::ControllerPutOff { update_name, reason, retry_in, .. } => {
                if let Some(fallback) = &mut self.fallback {
                    fallback.reason.clone_from(reason);
                    fallback.retry = Some(Retry::after(update_name, at, *retry_in));
                }
            }
            EventKind::ControllerBack { .. } => self.fallback = None,
            _ => {}
        }
    }
}
