//! The sandbox as the rest of the host sees it: a source of controllers, and the controllers and iterations themselves.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use wasmtime::component::ResourceAny;

use super::artifact::Artifact;
use super::bindings::exports::tidegate::controller::pacing;
use super::count;
use super::host_state::HostState;
use super::instance::Live;
use super::log::{Log, LogSink, TracingSink};
use super::surroundings::{Noted, Surroundings};
use super::text::printable;
use tidegate::controller::{
    Admission, CallObserver, CompletedBatch, Controller, Fault, Inputs, Iteration, Outcome, Source, Subject, Usage,
};
use tidegate::signal::{NoSignals, SignalReader};

/// Bytes of a reason for waiting that are kept, and of an error that is told to a guest.
pub const REASON_BYTES: usize = 4 << 10;

/// Starts instances of one artifact, one for each database.
#[derive(Clone)]
pub struct ComponentSource {
    name: String,
    artifact: Arc<Artifact>,
    settings: Arc<[(String, String)]>,
    log: Arc<dyn LogSink>,
    signals: Arc<dyn SignalReader>,
    surroundings: Option<Arc<Surroundings>>,
    calls: Option<Arc<dyn CallObserver>>,
}

impl ComponentSource {
    /// A source under the name that the configuration gives it. Lines go to `tracing`, and no signal is known.
    pub fn new(name: impl Into<String>, artifact: Arc<Artifact>) -> ComponentSource {
        ComponentSource {
            name: name.into(),
            artifact,
            settings: Arc::default(),
            log: Arc::new(TracingSink),
            signals: Arc::new(NoSignals),
            surroundings: None,
            calls: None,
        }
    }

    /// What the guest reads through `settings`, in this order; where a key stands twice, `get` answers the first.
    #[must_use]
    pub fn with_settings(self, settings: Vec<(String, String)>) -> ComponentSource {
        ComponentSource { settings: settings.into(), ..self }
    }

    /// Where the guest's lines go.
    #[must_use]
    pub fn with_log(self, log: Arc<dyn LogSink>) -> ComponentSource {
        ComponentSource { log, ..self }
    }

    /// What the guest reads through `signals`.
    #[must_use]
    pub fn with_signals(self, signals: Arc<dyn SignalReader>) -> ComponentSource {
        ComponentSource { signals, ..self }
    }

    /// The clock and the chance that its instances meet in the place of the machine's own.
    #[must_use]
    pub fn with_surroundings(self, surroundings: Arc<Surroundings>) -> ComponentSource {
        ComponentSource { surroundings: Some(surroundings), ..self }
    }

    /// Who is shown every call, measured.
    #[must_use]
    pub fn with_calls(self, observer: Arc<dyn CallObserver>) -> ComponentSource {
        ComponentSource { calls: Some(observer), ..self }
    }

    /// Who answers what the guest reads through `signals`.
    pub fn signals(&self) -> &Arc<dyn SignalReader> {
        &self.signals
    }

    /// What the guest reads through `settings`.
    pub fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// The artifact whose instances it starts.
    pub fn artifact(&self) -> &Arc<Artifact> {
        &self.artifact
    }
}

#[async_trait]
impl Source for ComponentSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn start(&self, database_name: &str) -> Result<Box<dyn Controller>, Fault> {
        let limits = self.artifact.limits();
        let log = Log::new(self.log.clone(), &self.name, database_name, limits);
        let (settings, signals) = (self.settings.clone(), self.signals.clone());
        let state = HostState::new(limits, settings, signals, log, self.surroundings.clone());
        let calls = self.calls.clone().map(|observer| (observer, database_name.to_owned()));
        let live = Live::start(&self.artifact, state, calls).await?;
        let (usage, inputs) = (live.usage(), live.inputs());
        Ok(Box::new(ComponentController { usage, inputs, live: Arc::new(tokio::sync::Mutex::new(live)) }))
    }
}

/// An instance, seen as a controller. Its iterations call the same instance, so both hold it.
struct ComponentController {
    live: Arc<tokio::sync::Mutex<Live>>,
    usage: Arc<Mutex<Usage>>,
    inputs: Noted,
}

#[async_trait]
impl Controller for ComponentController {
    async fn on_update(&mut self, subject: &Subject) -> Result<Box<dyn Iteration>, Fault> {
        let handle = self.live.lock().await.on_update(subject).await?;
        Ok(Box::new(ComponentIteration { live: self.live.clone(), handle }))
    }

    async fn default_batch_size(&mut self, update_name: &str, database_name: &str) -> Result<Option<u32>, Fault> {
        self.live.lock().await.default_batch_size(update_name, database_name).await
    }

    async fn min_batch_size(&mut self, update_name: &str, database_name: &str) -> Result<Option<u32>, Fault> {
        self.live.lock().await.min_batch_size(update_name, database_name).await
    }

    fn take_usage(&mut self) -> Option<Usage> {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        // Memory does not shrink: what was held stays the least that the next peak can be.
        let rest = Usage { peak_memory: usage.peak_memory, ..Usage::default() };
        Some(mem::replace(&mut usage, rest))
    }

    fn take_inputs(&mut self) -> Inputs {
        mem::take(&mut self.inputs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A handle to a guest's iteration. Rust cannot drop it by itself, for that runs code of the guest: see `close`.
struct ComponentIteration {
    live: Arc<tokio::sync::Mutex<Live>>,
    handle: ResourceAny,
}

#[async_trait]
impl Iteration for ComponentIteration {
    async fn enter(&mut self) -> Result<Admission, Fault> {
        let answer = self.live.lock().await.enter(self.handle).await?;
        Ok(match answer {
            pacing::Admission::Run(target) => Admission::Run(Duration::from_millis(target.into())),
            pacing::Admission::Wait(delay) => Admission::Wait {
                duration: Duration::from_millis(delay.duration.into()),
                reason: printable(&delay.reason, REASON_BYTES),
            },
        })
    }

    async fn exit(&mut self, outcome: &Outcome) -> Result<(), Fault> {
        self.live.lock().await.exit(self.handle, &to_guest(outcome)).await
    }

    async fn close(self: Box<Self>) -> Result<(), Fault> {
        self.live.lock().await.drop_iteration(self.handle).await
    }
}

fn to_guest(outcome: &Outcome) -> pacing::Outcome {
    match outcome {
        Outcome::Completed(batch) => {
            let CompletedBatch { items, batch_size, duration, finished } = *batch;
            pacing::Outcome::Completed(pacing::Batch {
                items: count(items),
                batch_size: count(batch_size),
                duration: duration.as_secs_f64() * 1_000.0,
                finished,
            })
        }
        Outcome::Failed(error) => pacing::Outcome::Failed(printable(error, REASON_BYTES)),
        Outcome::Cancelled => pacing::Outcome::Cancelled,
    }
}
