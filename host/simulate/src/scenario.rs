//! A scenario: a database that is only modelled, what happens to it, and what is expected of a controller meanwhile.
//! Plain data; `config` reads it from a file. Moments are counted from the start of the run.

use std::time::Duration;

use tidegate::controller::SupervisorSettings;
use tidegate::pace::Estimator;
use tidegate::update::ErrorClass;
use tidegate_wasm::Limits;

/// A scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// What it is about, in a sentence; empty where nobody said.
    pub description: String,
    /// Where chance comes from, unless another seed is given.
    pub seed: u64,
    /// The wall clock at the start: the time since the Unix epoch.
    pub start: Duration,
    /// When the run is ended, finished or not.
    pub longest: Duration,
    /// What the controller reads through `settings`.
    pub settings: Vec<(String, String)>,
    /// What the controller may use.
    pub limits: Limits,
    /// The host that it sets the pace of.
    pub host: HostSettings,
    /// Jumps of the wall clock.
    pub clock: Vec<ClockJump>,
    /// What there is to do.
    pub updates: Vec<Update>,
    /// What else the database does.
    pub load: Load,
    /// When it does nothing at all, and answers nobody.
    pub stalls: Vec<Span>,
    /// What the controller reads through `signals`.
    pub signals: Vec<Signal>,
    /// What the operator does.
    pub actions: Vec<Action>,
    /// What is expected of the controller.
    pub expect: Expectations,
}

/// The settings of the host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HostSettings {
    /// What bounds a controller's answers.
    pub supervision: SupervisorSettings,
    /// The most items of a batch.
    pub max_batch_size: u64,
    /// How batches are sized.
    pub estimator: Estimator,
    /// How long a batch may go on beyond its target for the least number of items.
    pub cut_off: Duration,
    /// Failures in a row after which an update is quarantined.
    pub max_attempts: u32,
}

/// A time from one moment on, and before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// When it begins.
    pub from: Duration,
    /// When it is over.
    pub until: Duration,
}

impl Span {
    /// True for a moment within it.
    pub fn holds(&self, moment: Duration) -> bool {
        self.from <= moment && moment < self.until
    }
}

/// The wall clock is set to another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockJump {
    /// When.
    pub at: Duration,
    /// By how many milliseconds it goes forward; back where negative.
    pub by_ms: i64,
}

/// An update, or several of a kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// Its name; of several, what their names begin with.
    pub name: String,
    /// Items that it has.
    pub items: u64,
    /// True where it happens in one go.
    pub one_shot: bool,
    /// How many of it there are; more than one have a number behind their name.
    pub count: u32,
    /// When it, or the first of it, is queued.
    pub queued_at: Duration,
    /// How long after it the next is queued.
    pub every: Duration,
    /// The update that it waits for; empty where none.
    pub depends_on: String,
    /// Its place in the queue.
    pub ordering: i64,
    /// What an item costs the database that has nothing else to do, in milliseconds.
    pub cost_ms: f64,
    /// What a batch costs besides, in milliseconds.
    pub batch_ms: f64,
    /// How far chance takes the cost of a batch from what it should be: 0.2 is up to a fifth, both ways.
    pub noise: f64,
    /// From when on the cost of an item is multiplied by what; in order of time.
    pub steps: Vec<Step>,
    /// Every so many batches one finds nothing to do; 0 for never.
    pub empty_every: u64,
    /// When its batches fail.
    pub failures: Vec<Failure>,
}

/// From a moment on, a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// When.
    pub at: Duration,
    /// The value from then on.
    pub value: f64,
}

/// Batches fail that begin in a certain time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub span: Span,
    /// How many of them at most.
    pub times: u64,
    /// How they fail.
    pub class: ErrorClass,
    /// What the database says.
    pub message: String,
}

/// What a database does besides updates.
///
/// It is one server that all who use it share: an answer that takes `latency_ms` on an idle server takes
/// `latency_ms / (1 - u)` where the part `u` of it is in use (the mean response time of an M/M/1 queue under processor
/// sharing: Kleinrock, Queueing Systems, volume 2), and a batch has what is left. `u` is held below
/// [`BUSIEST`](super::model::BUSIEST).
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// What the foreground waits for an answer from a server that has nothing else to do, in milliseconds.
    pub latency_ms: f64,
    /// The part of the server that a running batch takes from the foreground, 0 to 1.
    pub batch_share: f64,
    /// The part of the server that the foreground uses, 0 to 1; in order of time, 0 before the first.
    pub steps: Vec<Step>,
}

impl Default for Load {
    fn default() -> Self {
        Self { latency_ms: 5.0, batch_share: 0.3, steps: Vec::new() }
    }
}

/// A signal, as a sampler reads it: every so often, from the start on.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// Its name.
    pub name: String,
    /// How often it is read.
    pub every: Duration,
    /// Its value by itself; in order of time, 0 before the first.
    pub steps: Vec<Step>,
    /// How far chance takes the value from that: 0.2 is up to a fifth, both ways.
    pub noise: f64,
    /// What each item that a batch commits adds to it.
    pub per_item: f64,
    /// By how much of what was added it falls in a second.
    pub drain_per_s: f64,
    /// True where the foreground's mean latency since the last reading is added, in milliseconds.
    pub foreground: bool,
    /// When it is not read.
    pub losses: Vec<Loss>,
}

/// A time in which a signal is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// When.
    pub span: Span,
    /// True where there is no reading then; false where there is the last one from before, which grows old.
    pub gone: bool,
}

/// Something that the operator does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// When.
    pub at: Duration,
    /// What.
    pub deed: Deed,
}

/// What an operator can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Pauses the database.
    Pause,
    /// Lifts the pause.
    Resume,
    /// Reloads the configuration: the controller starts anew.
    Reload,
    /// Kills the host, whatever it does, and starts it again.
    Restart,
    /// Lets a quarantined update run again.
    Retry(String),
}

/// What is expected of a controller. What is `None`, false or empty is not looked at.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Expectations {
    /// Fuel of any call.
    pub fuel_per_call_at_most: Option<u64>,
    /// How many times what it used at first the fuel of a callback may become.
    pub fuel_growth_at_most: Option<f64>,
    /// Linear memory of an instance, in bytes.
    pub memory_bytes_at_most: Option<u64>,
    /// By how many bytes an instance may grow after its first thousand calls.
    pub memory_growth_bytes_at_most: Option<u64>,
    /// No fault of the controller.
    pub no_fault: bool,
    /// The queue is empty by then.
    pub finished_within: Option<Duration>,
    /// Every enter that answered run has its exit.
    pub exit_for_every_run: bool,
    /// The mean of the batches' durations, each divided by its target.
    pub mean_over_target_at_most: Option<f64>,
    /// The 95th percentile of that.
    pub p95_over_target_at_most: Option<f64>,
    /// The 95th percentile of the foreground's latency, in milliseconds, second by second.
    pub foreground_latency_ms_below: Option<f64>,
    /// When no batch may begin.
    pub never_runs: Vec<Window>,
    /// Signals under which no batch may begin.
    pub held_while: Vec<HeldWhile>,
}

/// A window of time by the wall clock, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Once: times since the Unix epoch.
    Once(Span),
    /// Every day: times since midnight, over midnight where the end comes first.
    Daily(Span),
}

/// A signal that is to hold updates.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldWhile {
    /// Its name.
    pub signal: String,
    /// Above what.
    pub above: f64,
    /// How long it may have been so before that counts.
    pub grace: Duration,
}
