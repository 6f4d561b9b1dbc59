//! Controllers under test, from Rust: the feature `testing`.
//!
//! A [`Bench`] holds a component, its settings, and what it is told of signals and of the time. [`Bench::start`] gives an
//! instance to call, callback by callback, each call measured; [`Bench::run`] takes it through a scenario, on virtual
//! time, as `tidegate controller test` does.
//!
//! ```
//! use std::time::Duration;
//! use tidegate::controller::Admission;
//! use tidegate_testing::{Bench, standard};
//!
//! # use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
//! # fn component() -> Vec<u8> {
//! #     let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
//! #     let mut module = wat::parse_file(folder.join("guests/wat-minimal/minimal.wat")).unwrap();
//! #     let mut resolve = wit_parser::Resolve::default();
//! #     let contract = std::fs::read_to_string(folder.join("wit/controller.wit")).unwrap();
//! #     let package = resolve.push_str("controller.wit", &contract).unwrap();
//! #     let world = resolve.select_world(&[package], Some("controller")).unwrap();
//! #     embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
//! #     ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In a test of your own: Bench::load("target/wasm32-wasip2/release/mine.wasm").
//! let bench = Bench::from_bytes(component()).await?.with_signal("replication-lag", 20.0, Duration::ZERO);
//!
//! // Callback by callback.
//! let mut controller = bench.start().await?;
//! let mut iteration = controller.on_update("backfill").await?;
//! assert_eq!(iteration.enter().await?, Admission::Run(Duration::from_millis(100)));
//! iteration.complete(100, Duration::from_millis(90)).await?;
//! assert!(controller.calls().iter().all(|call| call.fuel < 10_000 && call.lost.is_none()));
//!
//! // Through a scenario.
//! let trial = bench.run(&standard("cost-steps").unwrap())?;
//! trial.assert_met();
//! assert!(trial.run.finished_at.is_some());
//! # Ok(())
//! # }
//! ```

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tidegate::controller::{
    Admission, Call, CallObserver, CompletedBatch, Controller, Fault, Iteration, Outcome, Source, Subject,
};
pub use tidegate_config::{load_scenario, parse_scenario, standard};
use tidegate_simulate::{Candidate, DATABASE, Run, Scenario, SimulationError, Verdict, judge, simulate};
use tidegate_wasm::{
    Artifact, Clock, ComponentSource, Limits, LoadOptions, LogLine, LogSink, Reading, SignalReader, Surroundings,
};

/// A component under test.
#[derive(Clone)]
pub struct Bench {
    artifact: Arc<Artifact>,
    settings: Vec<(String, String)>,
    signals: Vec<(String, Reading)>,
    wall: Duration,
    seed: u64,
}

impl Bench {
    /// Loads a file, under the limits that hold where a configuration sets none.
    ///
    /// # Errors
    /// As [`Artifact::load`].
    pub async fn load(path: impl AsRef<Path>) -> Result<Self, Fault> {
        Ok(Self::of(Artifact::load(path.as_ref(), &LoadOptions::default()).await?))
    }

    /// Loads a component that is in memory.
    ///
    /// # Errors
    /// As [`Artifact::from_bytes`].
    pub async fn from_bytes(bytes: Vec<u8>) -> Result<Self, Fault> {
        Ok(Self::of(Artifact::from_bytes(bytes, &LoadOptions::default()).await?))
    }

    fn of(artifact: Arc<Artifact>) -> Self {
        // As in a scenario that does not say: 2026-01-05T12:00:00Z.
        let wall = Duration::from_secs(1_767_614_400);
        Self { artifact, settings: Vec::new(), signals: Vec::new(), wall, seed: 1 }
    }

    /// The component.
    pub fn artifact(&self) -> &Arc<Artifact> {
        &self.artifact
    }

    /// Sets what the controller reads through `settings`.
    #[must_use]
    pub fn with_setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// Sets what the controller may use; the stack stays as it is. A scenario has limits of its own.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.artifact = self.artifact.with_limits(limits);
        self
    }

    /// Sets what an instance reads of a signal. A scenario has signals of its own.
    #[must_use]
    pub fn with_signal(mut self, name: impl Into<String>, value: f64, age: Duration) -> Self {
        self.signals.push((name.into(), Reading { value, age }));
        self
    }

    /// Sets the wall clock that an instance starts with. A scenario has a clock of its own.
    #[must_use]
    pub fn at(mut self, wall: SystemTime) -> Self {
        self.wall = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self
    }

    /// Sets where chance comes from. Default: 1; a scenario has a seed of its own.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Starts an instance to call.
    ///
    /// # Errors
    /// A fault of its start function.
    pub async fn start(&self) -> Result<Driven, Fault> {
        let notes = Arc::new(Notes {
            state: Mutex::new(Noted {
                calls: Vec::new(),
                lines: Vec::new(),
                signals: self.signals.clone(),
                wall: self.wall,
                monotonic: Duration::ZERO,
            }),
        });
        let source = ComponentSource::new("tested", self.artifact.clone())
            .with_settings(self.settings.clone())
            .with_signals(notes.clone())
            .with_log(notes.clone())
            .with_calls(notes.clone())
            .with_surroundings(Arc::new(Surroundings::new(notes.clone(), self.seed)));
        Ok(Driven { controller: source.start(DATABASE).await?, notes })
    }

    /// Runs the component through a scenario, on virtual time, and judges the run by what the scenario expects. It
    /// returns when the run is over.
    ///
    /// # Errors
    /// [`SimulationError`]: an expectation that is not met is none.
    pub fn run(&self, scenario: &Scenario) -> Result<Trial, SimulationError> {
        let candidate = Candidate::Component {
            name: "tested".to_owned(),
            artifact: self.artifact.clone(),
            settings: self.settings.clone(),
        };
        let run = simulate(&candidate, scenario, None)?;
        Ok(Trial { verdicts: judge(scenario, &run), run })
    }
}

/// A run, and how it was judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// All that was seen.
    pub run: Run,
    /// A verdict for each expectation of the scenario.
    pub verdicts: Vec<Verdict>,
}

impl Trial {
    /// The expectations that were not met.
    pub fn unmet(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|verdict| !verdict.met)
    }

    /// Panics where an expectation was not met, and says which, and when first.
    #[track_caller]
    pub fn assert_met(&self) {
        let told = |verdict: &Verdict| {
            let first = verdict.first.as_ref().map(|first| format!(", first {first}")).unwrap_or_default();
            format!("{}: {}; expected {}{first}", verdict.expectation, verdict.measured, verdict.expected)
        };
        let unmet: Vec<String> = self.unmet().map(told).collect();
        assert!(unmet.is_empty(), "in scenario {}:\n{}", self.run.scenario, unmet.join("\n"));
    }
}

/// What an instance is told, and what is seen of it.
struct Notes {
    state: Mutex<Noted>,
}

struct Noted {
    calls: Vec<Call>,
    lines: Vec<LogLine>,
    signals: Vec<(String, Reading)>,
    wall: Duration,
    monotonic: Duration,
}

impl Notes {
    fn state(&self) -> MutexGuard<'_, Noted> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallObserver for Notes {
    fn see(&self, _database_name: &str, call: &Call) {
        self.state().calls.push(*call);
    }
}

impl LogSink for Notes {
    fn line(&self, line: LogLine) {
        self.state().lines.push(line);
    }
}

impl SignalReader for Notes {
    fn read(&self, _database_name: &str, signal: &str) -> Option<Reading> {
        // The last that was set counts.
        self.state().signals.iter().rev().find(|(name, _)| name == signal).map(|(_, reading)| *reading)
    }
}

impl Clock for Notes {
    fn wall(&self) -> Duration {
        self.state().wall
    }

    fn monotonic(&self) -> Duration {
        self.state().monotonic
    }
}

/// An instance to call.
pub struct Driven {
    controller: Box<dyn Controller>,
    notes: Arc<Notes>,
}

impl Driven {
    /// Begins an iteration of an update that runs in batches.
    ///
    /// # Errors
    /// A fault.
    pub async fn on_update(&mut self, update_name: &str) -> Result<DrivenIteration, Fault> {
        self.begin(update_name, false).await
    }

    /// Begins an iteration of an update that happens in one go.
    ///
    /// # Errors
    /// A fault.
    pub async fn on_one_shot(&mut self, update_name: &str) -> Result<DrivenIteration, Fault> {
        self.begin(update_name, true).await
    }

    async fn begin(&mut self, update_name: &str, one_shot: bool) -> Result<DrivenIteration, Fault> {
        let database_name = DATABASE.to_owned();
        let subject = Subject { update_name: update_name.to_owned(), database_name, one_shot };
        Ok(DrivenIteration { iteration: self.controller.on_update(&subject).await? })
    }

    /// Asks for the size of an update's first batch; `None` where the component does not export that.
    ///
    /// # Errors
    /// A fault.
    pub async fn default_batch_size(&mut self, update_name: &str) -> Result<Option<u32>, Fault> {
        self.controller.default_batch_size(update_name, DATABASE).await
    }

    /// Asks for the least size of later batches; `None` where the component does not export that.
    ///
    /// # Errors
    /// A fault.
    pub async fn min_batch_size(&mut self, update_name: &str) -> Result<Option<u32>, Fault> {
        self.controller.min_batch_size(update_name, DATABASE).await
    }

    /// Lets time pass on both of the clocks that the component sees.
    pub fn pass(&self, time: Duration) {
        let mut state = self.notes.state();
        state.wall += time;
        state.monotonic += time;
    }

    /// Sets what the component reads of a signal from now on.
    pub fn set_signal(&self, name: impl Into<String>, value: f64, age: Duration) {
        self.notes.state().signals.push((name.into(), Reading { value, age }));
    }

    /// Every call so far, measured; the first is the start of the instance.
    pub fn calls(&self) -> Vec<Call> {
        self.notes.state().calls.clone()
    }

    /// Every line that the component wrote to the log so far.
    pub fn lines(&self) -> Vec<LogLine> {
        self.notes.state().lines.clone()
    }
}

/// An iteration to enter and exit.
pub struct DrivenIteration {
    iteration: Box<dyn Iteration>,
}

impl DrivenIteration {
    /// Enters it: run, or wait. Nobody waits: that is [`Driven::pass`].
    ///
    /// # Errors
    /// A fault.
    pub async fn enter(&mut self) -> Result<Admission, Fault> {
        self.iteration.enter().await
    }

    /// Exits it with a batch that was committed, all of its items processed, and closes it.
    ///
    /// # Errors
    /// A fault.
    pub async fn complete(self, items: u64, duration: Duration) -> Result<(), Fault> {
        self.exit(Outcome::Completed(CompletedBatch { items, batch_size: items, duration, finished: false })).await
    }

    /// Exits it with any outcome, and closes it.
    ///
    /// # Errors
    /// A fault.
    pub async fn exit(mut self, outcome: Outcome) -> Result<(), Fault> {
        self.iteration.exit(&outcome).await?;
        self.iteration.close().await
    }

    /// Closes it without an exit, as a host does where it was never entered, or waits no longer.
    ///
    /// # Errors
    /// A fault of the destructor.
    pub async fn close(self) -> Result<(), Fault> {
        self.iteration.close().await
    }
}
