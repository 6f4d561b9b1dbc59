//! What is seen of a run: each call into the controller, each batch, each hold, each fault, with its moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::model::Clocks;
use tidegate::controller::{
    Admission, Call, CallObserver, Callback, Controller, Fault, Iteration, Outcome, Source, Subject, Usage,
};
use tidegate::scheduler::database::IterationOutcome;
use tidegate::scheduler::event::{Event, EventKind, Observer};
use tidegate_wasm::{LogLine, LogSink};

/// Lines of the controller that are kept.
const MOST_LINES: usize = 1_000;

/// A call into the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenCall {
    /// When, from the start of the run.
    pub at: Duration,
    /// Which callback.
    pub callback: Callback,
    /// The update that it was about; empty for the start of an instance.
    pub update_name: Arc<str>,
    /// Fuel that it consumed.
    pub fuel: u64,
    /// Linear memory that the instance held afterwards, in bytes.
    pub memory_bytes: u64,
}

/// What came of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenOutcome {
    /// Nothing until the run ended.
    Running,
    /// The host was killed in its middle.
    Killed,
    /// It ended so.
    Ended(IterationOutcome),
}

/// A batch.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenBatch {
    /// When it began, from the start of the run.
    pub at: Duration,
    /// The update.
    pub update_name: String,
    /// The target duration; `None` for a one-shot.
    pub target: Option<Duration>,
    /// Items asked for.
    pub batch_size: u64,
    /// Items processed; 0 where it was rolled back.
    pub items: u64,
    /// How long it took; `None` where the host was killed in its middle.
    pub duration: Option<Duration>,
    /// What came of it.
    pub outcome: SeenOutcome,
    /// The error, where it failed.
    pub error: Option<String>,
}

/// A controller's answer that an update waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenHold {
    /// When, from the start of the run.
    pub at: Duration,
    /// The update.
    pub update_name: String,
    /// For how long.
    pub duration: Duration,
    /// Why.
    pub reason: String,
    /// True where this is no more than the rest between two batches.
    pub rest: bool,
}

/// A fault of the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFault {
    /// When, from the start of the run.
    pub at: Duration,
    /// The update that it was about; empty where it was about none.
    pub update_name: String,
    /// What.
    pub fault: Fault,
}

/// A run of a batch that the controller never heard the end of, though its instance was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissedExit {
    /// When enter answered run, from the start of the run.
    pub at: Duration,
    /// The update.
    pub update_name: String,
}

/// All that was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Calls into a component, in order; none of a controller that is not metered.
    pub calls: Vec<SeenCall>,
    /// Lines that the controller wrote, each with its moment, the first thousand of them.
    pub lines: Vec<(Duration, LogLine)>,
    /// Batches, in order.
    pub batches: Vec<SeenBatch>,
    /// Holds, in order.
    pub holds: Vec<SeenHold>,
    /// Faults, in order.
    pub faults: Vec<SeenFault>,
    /// When the fallback took over for the first time, and why, where it did.
    pub fallback: Option<(Duration, String)>,
    /// When the controller came back for the last time, where it did.
    pub back: Option<Duration>,
    /// When each update was done, in order.
    pub finished: Vec<(Duration, String)>,
    /// Updates that were quarantined.
    pub quarantined: Vec<String>,
    /// How often enter answered run.
    pub runs: u64,
    /// How often exit was called.
    pub exits: u64,
    /// Runs without an exit.
    pub missed_exits: Vec<MissedExit>,
}

/// Sees a run.
pub(super) struct Watch {
    clocks: Clocks,
    state: Mutex<WatchState>,
    /// Told when nothing can run.
    pub(super) idle: Notify,
}

#[derive(Default)]
struct WatchState {
    seen: Seen,
    /// The update that the call in hand is about.
    about: Arc<str>,
    /// True where the instance in use is gone.
    lost: bool,
    /// True while the host is killed.
    killed: bool,
    is_idle: bool,
}

impl Watch {
    pub(super) fn new(clocks: Clocks) -> Arc<Self> {
        Arc::new(Self { clocks, state: Mutex::default(), idle: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True while nothing can run.
    pub(super) fn is_idle(&self) -> bool {
        self.state().is_idle
    }

    /// Takes note of something that may give the host work.
    pub(super) fn stir(&self) {
        self.state().is_idle = false;
    }

    /// Takes note that the host is killed, or that it is started again.
    pub(super) fn kill(&self, killed: bool) {
        let mut state = self.state();
        state.killed = killed;
        state.is_idle = false;
        if let Some(batch) = state.seen.batches.last_mut().filter(|batch| batch.outcome == SeenOutcome::Running) {
            batch.outcome = SeenOutcome::Killed;
        }
    }

    /// All that was seen until now.
    pub(super) fn take(&self) -> Seen {
        std::mem::take(&mut self.state().seen)
    }

    fn about(&self, update_name: &str) {
        let mut state = self.state();
        if &*state.about != update_name {
            state.about = update_name.into();
        }
    }
}

impl CallObserver for Watch {
    fn see(&self, _database_name: &str, call: &Call) {
        let at = self.clocks.now();
        let mut state = self.state();
        state.lost = call.lost.is_some();
        let starts = call.callback == Callback::Start;
        let update_name = if starts { Arc::default() } else { state.about.clone() };
        let Call { callback, fuel, memory_bytes, .. } = *call;
        state.seen.calls.push(SeenCall { at, callback, update_name, fuel, memory_bytes });
    }
}

impl LogSink for Watch {
    fn line(&self, line: LogLine) {
        let at = self.clocks.now();
        let lines = &mut self.state().seen.lines;
        if lines.len() < MOST_LINES {
            lines.push((at, line));
        }
    }
}

impl Observer for Watch {
    fn see(&self, event: &Event) {
        let at = self.clocks.now();
        let mut state = self.state();
        let seen = &mut state.seen;
        match &event.kind {
            EventKind::BatchStarted { update_name, batch_size, target, .. } => seen.batches.push(SeenBatch {
                at,
                update_name: update_name.clone(),
                target: *target,
                batch_size: *batch_size,
                items: 0,
                duration: None,
                outcome: SeenOutcome::Running,
                error: None,
            }),
            EventKind::IterationEnded { record, .. } => {
                if let Some(batch) = seen.batches.last_mut().filter(|batch| batch.outcome == SeenOutcome::Running) {
                    (batch.batch_size, batch.items) = (record.batch_size, record.items);
                    batch.duration = Some(Duration::from_secs_f64(record.duration_ms / 1e3));
                    batch.outcome = SeenOutcome::Ended(record.outcome);
                    batch.error.clone_from(&record.error);
                }
            }
            EventKind::Held { update_name, duration, reason, rest, .. } => seen.holds.push(SeenHold {
                at,
                update_name: update_name.clone(),
                duration: *duration,
                reason: reason.clone(),
                rest: *rest,
            }),
            EventKind::ControllerFault { fault, .. } => {
                let update_name = state.about.to_string();
                state.seen.faults.push(SeenFault { at, update_name, fault: fault.clone() });
            }
            EventKind::Fallback { reason, .. } => {
                seen.fallback.get_or_insert_with(|| (at, reason.clone()));
            }
            EventKind::ControllerBack { .. } => seen.back = Some(at),
            EventKind::UpdateFinished { update_name } => seen.finished.push((at, update_name.clone())),
            EventKind::Failure { update_name, retry_in: None, .. } => seen.quarantined.push(update_name.clone()),
            EventKind::Idle { .. } => {
                state.is_idle = true;
                self.idle.notify_one();
            }
            EventKind::UpdateStarted { .. } => state.is_idle = false,
            _ => {}
        }
    }
}

/// A source of controllers whose calls are seen.
pub(super) struct Watched {
    pub(super) source: Arc<dyn Source>,
    pub(super) watch: Arc<Watch>,
}

#[async_trait]
impl Source for Watched {
    fn name(&self) -> &str {
        self.source.name()
    }

    async fn start(&self, database_name: &str) -> Result<Box<dyn Controller>, Fault> {
        let controller = self.source.start(database_name).await?;
        self.watch.state().lost = false;
        Ok(Box::new(WatchedController { controller, watch: self.watch.clone() }))
    }
}

struct WatchedController {
    controller: Box<dyn Controller>,
    watch: Arc<Watch>,
}

#[async_trait]
impl Controller for WatchedController {
    async fn on_update(&mut self, subject: &Subject) -> Result<Box<dyn Iteration>, Fault> {
        self.watch.about(&subject.update_name);
        let iteration = self.controller.on_update(subject).await?;
        let update_name = subject.update_name.clone();
        let run = Open { watch: self.watch.clone(), update_name, entered: None };
        Ok(Box::new(WatchedIteration { iteration, run }))
    }

    async fn default_batch_size(&mut self, update_name: &str, database_name: &str) -> Result<Option<u32>, Fault> {
        self.watch.about(update_name);
        self.controller.default_batch_size(update_name, database_name).await
    }

    async fn min_batch_size(&mut self, update_name: &str, database_name: &str) -> Result<Option<u32>, Fault> {
        self.watch.about(update_name);
        self.controller.min_batch_size(update_name, database_name).await
    }

    fn take_usage(&mut self) -> Option<Usage> {
        self.controller.take_usage()
    }
}

struct WatchedIteration {
    iteration: Box<dyn Iteration>,
    run: Open,
}

/// A run that waits for its exit.
struct Open {
    watch: Arc<Watch>,
    update_name: String,
    entered: Option<Duration>,
}

#[async_trait]
impl Iteration for WatchedIteration {
    async fn enter(&mut self) -> Result<Admission, Fault> {
        self.run.watch.about(&self.run.update_name);
        let answer = self.iteration.enter().await;
        if let Ok(Admission::Run(_)) = answer {
            self.run.entered = Some(self.run.watch.clocks.now());
            self.run.watch.state().seen.runs += 1;
        }
        answer
    }

    async fn exit(&mut self, outcome: &Outcome) -> Result<(), Fault> {
        self.run.watch.about(&self.run.update_name);
        self.run.entered = None;
        self.run.watch.state().seen.exits += 1;
        self.iteration.exit(outcome).await
    }

    async fn close(self: Box<Self>) -> Result<(), Fault> {
        self.run.watch.about(&self.run.update_name);
        self.iteration.close().await
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(at) = self.entered else { return };
        let mut state = self.watch.state();
        // Nobody is there to be told.
        if state.lost || state.killed {
            return;
        }
        let update_name = std::mem::take(&mut self.update_name);
        state.seen.missed_exits.push(MissedExit { at, update_name });
    }
}
