//! A trace as it is written: lines of JSON, each with a kind. The first is the header.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::number;
use tidegate::controller::witness::{Answer, Exchange, Inputs, Question, SignalRead};
use tidegate::controller::{Admission, Callback, CompletedBatch, Fault, FaultKind, Outcome};
use tidegate_wasm::Limits;

/// The version of the format that this tidegate writes. It grows when a key's meaning changes or a key goes.
pub const VERSION: u64 = 1;

/// The version of the contract whose callbacks are recorded.
pub const WIT_VERSION: &str = "0.1.0";

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum Line {
    /// The first.
    Header(Header),
    /// The configuration was read again: from the next start of an instance on, these are the controllers.
    Reload {
        /// When, in milliseconds since the Unix epoch.
        at_ms: i64,
        /// The controllers.
        controllers: Vec<ControllerFacts>,
    },
    /// A call.
    Call(Box<CallLine>),
    /// Calls are missing here: they came faster than they could be written, or could not be written.
    Lost {
        /// How many.
        calls: u64,
    },
    /// The last: a trace without it was cut off.
    End {
        /// When, in milliseconds since the Unix epoch.
        at_ms: i64,
        /// Calls in the trace.
        calls: u64,
        /// Calls that are missing.
        lost: u64,
    },
}

/// What is known from the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format.
    pub tidegate_trace: u64,
    /// The version of tidegate that wrote it.
    pub tidegate: String,
    /// The version of the contract.
    pub wit: String,
    /// When it was begun, in milliseconds since the Unix epoch.
    pub started_at_ms: i64,
    /// The controllers.
    pub controllers: Vec<ControllerFacts>,
}

impl Header {
    /// The header of a trace that begins now.
    pub fn new(controllers: Vec<ControllerFacts>) -> Self {
        Self {
            tidegate_trace: VERSION,
            tidegate: env!("CARGO_PKG_VERSION").to_owned(),
            wit: WIT_VERSION.to_owned(),
            started_at_ms: unix_ms(SystemTime::now()),
            controllers,
        }
    }
}

/// A controller as it was configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControllerFacts {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: String,
    /// The file's SHA-256 digest, in hexadecimal; `null` where it could not be loaded.
    pub sha256: Option<String>,
    /// The version of the contract that it was built for.
    pub wit: Option<String>,
    /// The databases whose pace it sets.
    pub databases: Vec<String>,
    /// What it reads as its settings.
    pub settings: BTreeMap<String, String>,
    /// What it may use.
    pub limits: LimitFacts,
}

/// [`Limits`], under the names that they have in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitFacts {
    /// Units of fuel for one call.
    pub fuel_per_call: u64,
    /// Milliseconds for one call.
    pub deadline_ms: u64,
    /// Bytes of linear memory.
    pub memory_bytes: usize,
    /// Elements of tables.
    pub table_elements: usize,
    /// Core instances.
    pub instances: usize,
    /// Bytes of stack.
    pub stack_bytes: usize,
    /// Bytes of strings and lists that one call may pass.
    pub data_bytes: usize,
    /// Live handles.
    pub handles: usize,
    /// Lines for the log in a second.
    pub log_lines_per_second: u32,
    /// Bytes of one line of the log.
    pub log_line_bytes: usize,
}

impl From<&Limits> for LimitFacts {
    fn from(limits: &Limits) -> Self {
        Self {
            fuel_per_call: limits.fuel_per_call,
            deadline_ms: u64::try_from(limits.deadline.as_millis()).unwrap_or(u64::MAX),
            memory_bytes: limits.memory_bytes,
            table_elements: limits.table_elements,
            instances: limits.instances,
            stack_bytes: limits.stack_bytes,
            data_bytes: limits.data_bytes,
            handles: limits.handles,
            log_lines_per_second: limits.log_lines_per_second,
            log_line_bytes: limits.log_line_bytes,
        }
    }
}

impl From<&LimitFacts> for Limits {
    fn from(facts: &LimitFacts) -> Self {
        Self {
            fuel_per_call: facts.fuel_per_call,
            deadline: Duration::from_millis(facts.deadline_ms),
            memory_bytes: facts.memory_bytes,
            table_elements: facts.table_elements,
            instances: facts.instances,
            stack_bytes: facts.stack_bytes,
            data_bytes: facts.data_bytes,
            handles: facts.handles,
            log_lines_per_second: facts.log_lines_per_second,
            log_line_bytes: facts.log_line_bytes,
        }
    }
}

/// A call: what was asked, what was answered, and what the controller read meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallLine {
    /// When it was answered, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The database.
    pub database: String,
    /// The lane; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Who was asked: a controller, or what stands in for one.
    pub controller: String,
    /// The number of the instance of this database: 1 for the first, and again for the first after a reload.
    pub instance: u64,
    /// The number of the iteration of this database; a reload counts anew.
    pub iteration: u64,
    /// The update; none for the start of an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<String>,
    /// True where the update happens in one go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_shot: bool,
    /// What was asked.
    pub call: Callback,
    /// With `exit`: how the iteration ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeFacts>,
    /// What was answered; none with a fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<AnswerFacts>,
    /// The fault, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultFacts>,
    /// Signals that it read, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<SignalFacts>,
    /// Times of day that it read, in nanoseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wall_clock_ns: Vec<u64>,
    /// What it read of the clock that never goes back, in nanoseconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub monotonic_clock_ns: Vec<u64>,
    /// Random bytes that it was given, in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub random: String,
    /// With the start of an instance: WASI's insecure random seed, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random_seed: Option<String>,
    /// Readings beyond what is kept of one call.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub readings_omitted: u64,
    /// Fuel that the call used; none where it is not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// The most linear memory that the instance held until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// How long the call took.
    pub duration_us: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How an iteration ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeFacts {
    /// Its batch was committed.
    Completed {
        /// Items processed.
        items: u64,
        /// Items asked for.
        batch_size: u64,
        /// How long it took.
        duration_ns: u64,
        /// True where it was the last one.
        finished: bool,
    },
    /// Its batch was rolled back, with this error.
    Failed(String),
    /// The host was told to stop, or the update was withdrawn.
    Cancelled,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerFacts {
    /// That it is done.
    Done,
    /// Run a batch of this target.
    RunMs(u64),
    /// Wait.
    Wait {
        /// How long.
        ms: u64,
        /// Why.
        reason: String,
    },
    /// A batch size; `null` leaves it to the configuration.
    Items(Option<u32>),
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultFacts {
    /// What kind.
    pub kind: FaultKind,
    /// What happened.
    pub message: String,
}

/// A signal that was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalFacts {
    /// The database that it was read for, as the controller named it.
    pub database: String,
    /// The signal.
    pub signal: String,
    /// Its value; `null` where there was none. A text where no number of JSON is exactly the same.
    #[serde(with = "number")]
    pub value: Option<f64>,
    /// How old that was.
    pub age_ms: u64,
}

impl From<&Exchange> for CallLine {
    fn from(exchange: &Exchange) -> Self {
        let Exchange { at, subject, question, answer, inputs, usage, .. } = exchange;
        Self {
            at_ms: unix_ms(*at),
            database: exchange.database_name.clone(),
            lane: exchange.lane.as_deref().map(str::to_owned),
            controller: exchange.controller.clone(),
            instance: exchange.instance,
            iteration: exchange.iteration,
            update: subject.as_ref().map(|subject| subject.update_name.clone()),
            one_shot: subject.as_ref().is_some_and(|subject| subject.one_shot),
            call: question.callback(),
            outcome: if let Question::Exit(outcome) = question { Some(outcome.into()) } else { None },
            answer: answer.as_ref().ok().map(AnswerFacts::from),
            fault: answer.as_ref().err().map(FaultFacts::from),
            signals: inputs.signals.iter().map(SignalFacts::from).collect(),
            wall_clock_ns: inputs.wall_clock.iter().map(|now| nanoseconds(*now)).collect(),
            monotonic_clock_ns: inputs.monotonic_clock.clone(),
            random: hex(&inputs.random),
            random_seed: inputs.random_seed.map(|seed| format!("{seed:032x}")),
            readings_omitted: inputs.omitted,
            fuel: usage.map(|usage| usage.fuel),
            peak_memory_bytes: usage.map(|usage| usage.peak_memory),
            duration_us: u64::try_from(exchange.duration.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

impl CallLine {
    /// What it read.
    pub(super) fn inputs(&self) -> Inputs {
        Inputs {
            signals: self.signals.iter().map(SignalRead::from).collect(),
            wall_clock: self.wall_clock_ns.iter().map(|ns| Duration::from_nanos(*ns)).collect(),
            monotonic_clock: self.monotonic_clock_ns.clone(),
            random: unhex(&self.random),
            random_seed: self.random_seed.as_ref().and_then(|seed| u128::from_str_radix(seed, 16).ok()),
            omitted: self.readings_omitted,
        }
    }
}

impl From<&Outcome> for OutcomeFacts {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Completed(CompletedBatch { items, batch_size, duration, finished }) => Self::Completed {
                items: *items,
                batch_size: *batch_size,
                duration_ns: nanoseconds(*duration),
                finished: *finished,
            },
            Outcome::Failed(error) => Self::Failed(error.clone()),
            Outcome::Cancelled => Self::Cancelled,
        }
    }
}

impl From<&OutcomeFacts> for Outcome {
    fn from(facts: &OutcomeFacts) -> Self {
        match facts {
            OutcomeFacts::Completed { items, batch_size, duration_ns, finished } => Self::Completed(CompletedBatch {
                items: *items,
                batch_size: *batch_size,
                duration: Duration::from_nanos(*duration_ns),
                finished: *finished,
            }),
            OutcomeFacts::Failed(error) => Self::Failed(error.clone()),
            OutcomeFacts::Cancelled => Self::Cancelled,
        }
    }
}

impl From<&Answer> for AnswerFacts {
    fn from(answer: &Answer) -> Self {
        match answer {
            Answer::Done => Self::Done,
            Answer::Admission(Admission::Run(target)) => Self::RunMs(milliseconds(*target)),
            Answer::Admission(Admission::Wait { duration, reason }) => {
                Self::Wait { ms: milliseconds(*duration), reason: reason.clone() }
            }
            Answer::BatchSize(items) => Self::Items(*items),
        }
    }
}

impl From<&Fault> for FaultFacts {
    fn from(fault: &Fault) -> Self {
        Self { kind: fault.kind, message: fault.message.clone() }
    }
}

impl From<&SignalRead> for SignalFacts {
    fn from(read: &SignalRead) -> Self {
        let (value, age) = read.reading.unzip();
        Self {
            database: read.database_name.clone(),
            signal: read.signal.clone(),
            value,
            age_ms: age.map_or(0, milliseconds),
        }
    }
}

impl From<&SignalFacts> for SignalRead {
    fn from(facts: &SignalFacts) -> Self {
        Self {
            database_name: facts.database.clone(),
            signal: facts.signal.clone(),
            reading: facts.value.map(|value| (value, Duration::from_millis(facts.age_ms))),
        }
    }
}

/// The wall clock as written.
pub(super) fn unix_ms(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is no pair of hexadecimal digits is left out.
fn unhex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
    pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}
