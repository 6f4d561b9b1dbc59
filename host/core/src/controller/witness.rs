//! Seeing the calls of a controller as they are made: what a recorder writes down, and what a shadow is asked too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::{Admission, Callback, Fault, Outcome, Subject, Usage};

/// Numbers for the instances and the iterations of all that set the pace of one database, counted from 1. Clones count on.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    instances: Arc<AtomicU64>,
    iterations: Arc<AtomicU64>,
}

impl Numbers {
    pub(super) fn next_instance(&self) -> u64 {
        self.instances.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn next_iteration(&self) -> u64 {
        self.iterations.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Sees every call of whatever sets a database's pace.
pub trait Witness: Send + Sync {
    /// Takes note of a call that was made. On the task that works on the database, which waits for it: it has to be
    /// quick, and must never wait for anything.
    fn see(&self, exchange: &Arc<Exchange>);
}

/// A call and its answer: what was asked, what was answered, and what was known.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// When it was answered.
    pub at: SystemTime,
    /// The database.
    pub database_name: String,
    /// The lane; `None` for the first.
    pub lane: Option<Arc<str>>,
    /// Who was asked: a controller, or what stands in for one.
    pub controller: String,
    /// The number of the instance: 1 for the first that was started for this database, then 2 and so on; 0 where none
    /// could be.
    pub instance: u64,
    /// The number of the iteration, counted likewise; 0 before the first.
    pub iteration: u64,
    /// The update of that iteration; `None` where the call belongs to none.
    pub subject: Option<Subject>,
    /// What was asked.
    pub question: Question,
    /// What was answered.
    pub answer: Result<Answer, Fault>,
    /// What the controller read during the call.
    pub inputs: Inputs,
    /// What the call used; `None` where nothing is measured.
    pub usage: Option<Usage>,
    /// How long it took.
    pub duration: Duration,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// To start an instance.
    Start,
    /// `on-update`.
    OnUpdate,
    /// `enter`.
    Enter,
    /// `default-batch-size`.
    DefaultBatchSize,
    /// `min-batch-size`.
    MinBatchSize,
    /// `exit`, with this outcome.
    Exit(Outcome),
    /// To end the iteration.
    Drop,
}

impl Question {
    /// Where a fault would be told to have happened.
    pub fn callback(&self) -> Callback {
        match self {
            Question::Start => Callback::Start,
            Question::OnUpdate => Callback::OnUpdate,
            Question::Enter => Callback::Enter,
            Question::DefaultBatchSize => Callback::DefaultBatchSize,
            Question::MinBatchSize => Callback::MinBatchSize,
            Question::Exit(_) => Callback::Exit,
            Question::Drop => Callback::Drop,
        }
    }
}

/// What can be answered, as the controller gave it: nothing is cut to its range yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// That it is done.
    Done,
    /// To `enter`.
    Admission(Admission),
    /// To a batch size; `None` leaves it to the configuration.
    BatchSize(Option<u32>),
}

/// What a controller read during a call, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Inputs {
    /// Signals.
    pub signals: Vec<SignalRead>,
    /// Times of day, since the Unix epoch.
    pub wall_clock: Vec<Duration>,
    /// Readings of a clock that never goes back, in nanoseconds since its start.
    pub monotonic_clock: Vec<u64>,
    /// Random bytes that it was given.
    pub random: Vec<u8>,
    /// What WASI gives it as a seed that need not be secret: told with the start of an instance.
    pub random_seed: Option<u128>,
    /// Readings beyond what is kept of one call.
    pub omitted: u64,
}

/// A signal that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct SignalRead {
    /// The database that it was read for, as the controller named it.
    pub database_name: String,
    /// The signal.
    pub signal: String,
    /// Its value, and how old that was; `None` where there was none.
    pub reading: Option<(f64, Duration)>,
}

impl Inputs {
    /// Readings of each kind that are kept of one call.
    const KEPT: usize = 1_000;

    /// Random bytes that are kept of one call.
    const KEPT_BYTES: usize = 65_536;

    /// Adds a signal that was read.
    pub fn note_signal(&mut self, read: SignalRead) {
        keep(&mut self.signals, read, &mut self.omitted);
    }

    /// Adds a time of day that was read.
    pub fn note_wall_clock(&mut self, now: Duration) {
        keep(&mut self.wall_clock, now, &mut self.omitted);
    }

    /// Adds a reading of the clock that never goes back.
    pub fn note_monotonic_clock(&mut self, now: u64) {
        keep(&mut self.monotonic_clock, now, &mut self.omitted);
    }

    /// Adds random bytes that were given.
    pub fn note_random(&mut self, bytes: &[u8]) {
        let room = Self::KEPT_BYTES.saturating_sub(self.random.len());
        self.random.extend(&bytes[..bytes.len().min(room)]);
        self.omitted = self.omitted.saturating_add(bytes.len().saturating_sub(room) as u64);
    }
}

fn keep<T>(kept: &mut Vec<T>, new: T, omitted: &mut u64) {
    if kept.len() < Inputs::KEPT { kept.push(new) } else { *omitted = omitted.saturating_add(1) }
}
