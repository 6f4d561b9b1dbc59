//! Controllers: the policy that sets the pace. The traits that one implements, the built-in policy, and what happens
//! when one fails. Nothing here knows WebAssembly, SQL or HTTP.

mod builtin;
mod call;
mod fault;
mod gentle;
mod native;
pub mod shadow;
pub mod supervisor;
pub mod witness;

use std::time::Duration;

use async_trait::async_trait;

pub use builtin::BuiltIn;
pub(crate) use builtin::SLEEP;
pub use call::{Call, CallObserver};
pub use fault::{Callback, Fault, FaultKind};
pub use gentle::{Gentle, GentleSettings};
pub use native::Native;
pub use shadow::{Shadow, ShadowNotice, ShadowPolicy, ShadowReport};
pub use supervisor::{Fallback, Policy, Supervisor, SupervisorSettings};
pub use witness::{Exchange, Inputs, Numbers, Witness};

/// The update that a callback is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The update's name.
    pub update_name: String,
    /// The database's name.
    pub database_name: String,
    /// True where the update happens in one go.
    pub one_shot: bool,
}

/// What an entered iteration answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Run one batch now and aim at this duration.
    Run(Duration),
    /// Not now: wait, then enter again.
    Wait {
        /// How long.
        duration: Duration,
        /// Why, for operators.
        reason: String,
    },
}

/// How an iteration ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The batch was committed.
    Completed(CompletedBatch),
    /// The batch was rolled back, with this error.
    Failed(String),
    /// The host was told to stop, or the update was withdrawn, before the batch was committed.
    Cancelled,
}

/// A committed batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompletedBatch {
    /// Items processed.
    pub items: u64,
    /// Items asked for.
    pub batch_size: u64,
    /// How long it took, waiting not included.
    pub duration: Duration,
    /// True where it was the last one of its update.
    pub finished: bool,
}

/// What a controller used in calls since it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Calls made.
    pub calls: u64,
    /// Fuel consumed by them.
    pub fuel: u64,
    /// The most fuel that one of them consumed.
    pub peak_fuel: u64,
    /// The most linear memory held at any time, in bytes.
    pub peak_memory: u64,
    /// How long they took, in total.
    pub duration: Duration,
}

impl Usage {
    /// Adds what other calls used.
    pub fn add(&mut self, other: Usage) {
        self.calls = self.calls.saturating_add(other.calls);
        self.fuel = self.fuel.saturating_add(other.fuel);
        self.peak_fuel = self.peak_fuel.max(other.peak_fuel);
        self.peak_memory = self.peak_memory.max(other.peak_memory);
        self.duration += other.duration;
    }
}

/// A policy that sets the pace of one database's updates. One call at a time.
#[async_trait]
pub trait Controller: Send {
    /// Called when the host is about to do an iteration of an update.
    ///
    /// # Errors
    /// A fault; no batch runs then.
    async fn on_update(&mut self, subject: &Subject) -> Result<Box<dyn Iteration>, Fault>;

    /// The number of items of an update's first batch; `None` leaves it to the configuration.
    ///
    /// # Errors
    /// A fault.
    async fn default_batch_size(&mut self, update_name: &str, database_name: &str) -> Result<Option<u32>, Fault> {
        let _ = (update_name, database_name);
        Ok(None)
    }

    /// The least number of items of any later batch; `None` leaves it to the configuration.
    ///
    /// # Errors
    /// A fault.
    async fn min_batch_size(&mut self, update_name: &str, database_name: &str) -> Result<Option<u32>, Fault> {
        let _ = (update_name, database_name);
        Ok(None)
    }

    /// What the calls since the last one of this have used; `None` where nothing is measured.
    fn take_usage(&mut self) -> Option<Usage> {
        None
    }

    /// What the last call read of the world outside; nothing where that is not seen.
    fn take_inputs(&mut self) -> Inputs {
        Inputs::default()
    }
}

/// One iteration: entered until it answers [`Admission::Run`], exited once for each such answer, closed at the end.
#[async_trait]
pub trait Iteration: Send {
    /// Entered before a batch.
    ///
    /// # Errors
    /// A fault; no batch runs then, and exit is not called.
    async fn enter(&mut self) -> Result<Admission, Fault>;

    /// Exited once the batch is over.
    ///
    /// # Errors
    /// A fault; a committed batch stays committed.
    async fn exit(&mut self, outcome: &Outcome) -> Result<(), Fault>;

    /// Ends the iteration's life; always the last call, also where it was never entered or exited.
    ///
    /// # Errors
    /// A fault (a component's destructor is guest code).
    async fn close(self: Box<Self>) -> Result<(), Fault> {
        Ok(())
    }
}

/// Where controllers come from: makes a fresh one for a database, again after each fault that cost the last one its
/// life.
#[async_trait]
pub trait Source: Send + Sync {
    /// The controller's name in the configuration.
    fn name(&self) -> &str;

    /// Makes a controller.
    ///
    /// # Errors
    /// A fault, e.g. a component whose start function traps.
    async fn start(&self, database_name: &str) -> Result<Box<dyn Controller>, Fault>;
}
