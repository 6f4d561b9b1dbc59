//! A controller beside the one that sets the pace: asked the same, on a task of its own, and heard by nobody but those
//! who look.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::supervisor::{Enter, Notice, Start};
use super::witness::{Answer, Exchange, Inputs, Question};
use super::{Admission, Callback, Fallback, Fault, Iteration, Policy, Supervisor, SupervisorSettings, Usage, Witness};

/// Calls that a shadow may be behind. What comes then is not asked of it.
const BEHIND: usize = 256;

/// A shadow as configured.
#[derive(Clone)]
pub struct ShadowPolicy {
    /// The controller, or why it could not be loaded.
    pub policy: Policy,
    /// What bounds it. There is no fallback: a shadow that fails too often is not asked until it is tried again.
    pub settings: SupervisorSettings,
    /// Who lets it read what the live controller read.
    pub prompt: Option<Arc<dyn Prompt>>,
}

/// Has a controller read in its next call what another read in its own.
pub trait Prompt: Send + Sync {
    /// Takes what the other read.
    fn prompt(&self, inputs: &Inputs);
}

/// Something about a shadow that others want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShadowNotice {
    /// It was asked what the live controller was asked, and answered.
    Decided {
        /// The update.
        update_name: String,
        /// What both were asked.
        callback: Callback,
        /// What the live one answered, in words.
        live: String,
        /// What the shadow answered, in words.
        shadow: String,
        /// True where these are not the same.
        differs: bool,
    },
    /// It is at fault.
    Fault {
        /// What.
        fault: Fault,
        /// Faults in a row so far.
        in_a_row: u32,
    },
    /// It is not asked for now.
    GivenUp {
        /// Why.
        reason: String,
        /// After how long it is asked again about this update, about others at once; `None` where it takes a reload.
        retry_in: Option<Duration>,
    },
    /// It is asked as before, for it answered without a fault.
    Back,
    /// It fell behind, and was not asked what the live controller was.
    Behind {
        /// Calls.
        calls: u64,
    },
    /// What its calls used since this was last told.
    Used(Usage),
}

/// A shadow at one moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ShadowReport {
    /// The controller's name.
    pub name: String,
    /// Decisions that it made beside the live controller.
    pub decisions: u64,
    /// Of these, the ones that were not the live controller's.
    pub different: u64,
    /// The last of those.
    pub last_difference: Option<ShadowDifference>,
    /// Faults.
    pub faults: u64,
    /// The last fault, with its hint.
    pub last_fault: Option<String>,
    /// Calls that it was not asked, because it was behind.
    pub dropped: u64,
    /// Why it is not asked for now, where it is not.
    pub given_up: Option<String>,
}

/// A decision in which a shadow was not of the live controller's opinion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowDifference {
    /// The update.
    pub update_name: String,
    /// What both were asked.
    pub callback: Callback,
    /// What the live one answered, in words.
    pub live: String,
    /// What the shadow answered, in words.
    pub shadow: String,
}

impl ShadowReport {
    /// Of a shadow of which nothing is known yet.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Takes note of what happened.
    pub fn take_in(&mut self, notice: &ShadowNotice) {
        match notice.clone() {
            ShadowNotice::Decided { update_name, callback, live, shadow, differs } => {
                self.decisions += 1;
                if differs {
                    self.different += 1;
                    self.last_difference = Some(ShadowDifference { update_name, callback, live, shadow });
                }
            }
            ShadowNotice::Fault { fault, .. } => {
                self.faults += 1;
                self.last_fault = Some(format!("{fault} (hint: {})", fault.kind.hint()));
            }
            ShadowNotice::GivenUp { reason, .. } => self.given_up = Some(reason),
            ShadowNotice::Back => self.given_up = None,
            ShadowNotice::Behind { calls } => self.dropped = self.dropped.saturating_add(calls),
            ShadowNotice::Used(_) => {}
        }
    }
}

/// A shadow at work. Dropped, it leaves off at once.
pub struct Shadow {
    handle: Arc<Handle>,
    task: JoinHandle<()>,
}

/// What the live controller's task holds of a shadow.
struct Handle {
    sender: Sender<Message>,
    /// Calls that found no room since the last that did.
    missed: AtomicU64,
    /// The same, until they are told.
    untold: AtomicU64,
    report: Mutex<ShadowReport>,
}

/// A call of the live controller, with the calls that are missing before it.
struct Message {
    missed: u64,
    content: Content,
}

enum Content {
    Call(Arc<Exchange>),
    /// Everything before is done once this is dropped.
    End(#[expect(dead_code, reason = "to be dropped")] oneshot::Sender<()>),
}

impl Shadow {
    /// Starts a shadow on a database. What it does is told to `tell`, on the shadow's own task.
    pub fn start(
        database_name: &str,
        policy: ShadowPolicy,
        tell: impl Fn(&str, ShadowNotice) + Send + 'static,
    ) -> Self {
        let ShadowPolicy { policy, settings, prompt } = policy;
        let settings = SupervisorSettings { fallback: Fallback::Hold, ..settings };
        let supervisor = Supervisor::new(database_name, policy, settings);
        let (sender, receiver) = mpsc::channel(BEHIND);
        let report = Mutex::new(ShadowReport::new(supervisor.name()));
        let handle = Arc::new(Handle { sender, missed: AtomicU64::new(0), untold: AtomicU64::new(0), report });
        let actor = Actor {
            supervisor,
            prompt,
            iteration: None,
            runs: false,
            tell: Box::new(tell),
            // The sender is not to outlive those who have calls to tell of.
            handle: Arc::downgrade(&handle),
        };
        let task = tokio::spawn(actor.work(receiver));
        Self { handle, task }
    }

    /// Who is to see the live controller's calls.
    pub fn witness(&self) -> Arc<dyn Witness> {
        self.handle.clone()
    }

    /// How it does.
    pub fn report(&self) -> ShadowReport {
        self.handle.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets it answer what it was asked until now, `patience` at most.
    pub async fn catch_up(&self, patience: Duration) {
        let (done, ended) = oneshot::channel();
        let all = async {
            if self
                .handle
                .sender
                .send(Message { missed: self.handle.missed.swap(0, Ordering::Relaxed), content: Content::End(done) })
                .await
                .is_ok()
            {
                // An error is what is waited for.
                let _ = ended.await;
            }
        };
        // What it has not said by then it will not say.
        let _ = timeout(patience, all).await;
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Witness for Handle {
    fn see(&self, exchange: &Arc<Exchange>) {
        // It has instances of its own.
        if exchange.question == Question::Start {
            return;
        }
        let missed = self.missed.swap(0, Ordering::Relaxed);
        if self.sender.try_send(Message { missed, content: Content::Call(exchange.clone()) }).is_err() {
            self.missed.fetch_add(missed + 1, Ordering::Relaxed);
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Hears what a shadow of this name did.
type Tell = dyn Fn(&str, ShadowNotice) + Send;

/// A shadow's own task.
struct Actor {
    supervisor: Supervisor,
    prompt: Option<Arc<dyn Prompt>>,
    iteration: Option<Box<dyn Iteration>>,
    /// True once that answered run: it is entered no more, and exited.
    runs: bool,
    tell: Box<Tell>,
    handle: std::sync::Weak<Handle>,
}

impl Actor {
    async fn work(mut self, mut receiver: Receiver<Message>) {
        self.report();
        while let Some(Message { missed, content }) = receiver.recv().await {
            if missed > 0 {
                // Without what is missing, the rest of the iteration makes no sense.
                self.close().await;
            }
            if let Content::Call(exchange) = content {
                self.follow(&exchange).await;
            }
            self.report();
        }
    }

    /// Asks the shadow what the live controller was asked.
    async fn follow(&mut self, exchange: &Exchange) {
        let Some(subject) = &exchange.subject else { return };
        if let Some(prompt) = &self.prompt {
            prompt.prompt(&exchange.inputs);
        }
        match (&exchange.question, &exchange.answer) {
            (Question::OnUpdate, Ok(_)) => {
                self.close().await;
                if let Start::Iteration(iteration) = self.supervisor.start(subject).await {
                    self.iteration = Some(iteration);
                }
            }
            (Question::Enter, Ok(Answer::Admission(live))) => self.enter(exchange, live).await,
            (Question::DefaultBatchSize, Ok(Answer::BatchSize(live))) if self.runs => {
                let size = self.supervisor.default_batch_size(subject).await;
                let configured = self.supervisor.settings().default_batch_size;
                self.compare_sizes(exchange, live.unwrap_or(configured), size);
            }
            (Question::MinBatchSize, Ok(Answer::BatchSize(live))) if self.runs => {
                let size = self.supervisor.min_batch_size(subject).await;
                let configured = self.supervisor.settings().min_batch_size;
                self.compare_sizes(exchange, live.unwrap_or(configured), size);
            }
            (Question::Exit(outcome), _) if self.runs => {
                self.runs = false;
                if let Some(iteration) = self.iteration.take().filter(|_| self.supervisor.is_live()) {
                    self.supervisor.exit(iteration, outcome).await;
                }
            }
            (Question::Exit(_) | Question::Drop, _) => self.close().await,
            // A live controller at fault decided nothing that a shadow could be held against.
            _ => {}
        }
    }

    /// Enters the shadow's iteration where it has not answered run yet. What it waits is not waited for; where the live
    /// controller runs a batch, it is entered once more, as if its wait were over.
    async fn enter(&mut self, exchange: &Exchange, live: &Admission) {
        let Some(mut iteration) = self.iteration.take().filter(|_| self.supervisor.is_live()) else { return };
        if !self.runs {
            let entered = self.supervisor.enter(&mut *iteration).await;
            self.runs = matches!(entered, Enter::Run(_));
            self.compare(exchange, live, &entered);
            if matches!((live, &entered), (Admission::Run(_), Enter::Wait { .. })) {
                self.runs = matches!(self.supervisor.enter(&mut *iteration).await, Enter::Run(_));
            }
        }
        self.iteration = Some(iteration);
    }

    fn compare(&self, exchange: &Exchange, live: &Admission, entered: &Enter) {
        let (shadow, differs) = match (entered, live) {
            (Enter::Run(target), Admission::Run(live)) => (run(*target), target != live),
            (Enter::Run(target), Admission::Wait { .. }) => (run(*target), true),
            (Enter::Wait { duration, reason }, Admission::Run(_)) => (wait(*duration, reason), true),
            (Enter::Wait { duration, reason }, Admission::Wait { duration: live, .. }) => {
                (wait(*duration, reason), duration != live)
            }
            (Enter::Faulted, _) => return,
        };
        let live = match live {
            Admission::Run(target) => run(*target),
            Admission::Wait { duration, reason } => wait(*duration, reason),
        };
        self.decided(exchange, live, shadow, differs);
    }

    fn compare_sizes(&self, exchange: &Exchange, live: u32, shadow: Option<u32>) {
        if let Some(shadow) = shadow {
            self.decided(exchange, format!("{live} items"), format!("{shadow} items"), live != shadow);
        }
    }

    fn decided(&self, exchange: &Exchange, live: String, shadow: String, differs: bool) {
        let update_name = exchange.subject.as_ref().map(|subject| subject.update_name.clone()).unwrap_or_default();
        let callback = exchange.question.callback();
        self.note(ShadowNotice::Decided { update_name, callback, live, shadow, differs });
    }

    async fn close(&mut self) {
        self.runs = false;
        if let Some(iteration) = self.iteration.take() {
            self.supervisor.close(iteration).await;
        }
    }

    /// Passes on what the supervisor noticed.
    fn report(&mut self) {
        for notice in self.supervisor.take_notices() {
            self.note(match notice {
                Notice::Fault { fault, in_a_row } => ShadowNotice::Fault { fault, in_a_row },
                Notice::Fallback { reason, retry, .. } => {
                    ShadowNotice::GivenUp { reason, retry_in: retry.map(|(_, delay)| delay) }
                }
                Notice::PutOff { reason, retry_in, .. } => ShadowNotice::GivenUp { reason, retry_in: Some(retry_in) },
                Notice::Tried { .. } => continue,
                Notice::Back => ShadowNotice::Back,
            });
        }
        let behind = self.handle.upgrade().map_or(0, |handle| handle.untold.swap(0, Ordering::Relaxed));
        if behind > 0 {
            self.note(ShadowNotice::Behind { calls: behind });
        }
        if let Some(usage) = self.supervisor.take_usage().filter(|usage| usage.calls > 0) {
            self.note(ShadowNotice::Used(usage));
        }
    }

    fn note(&self, notice: ShadowNotice) {
        if let Some(handle) = self.handle.upgrade() {
            handle.report.lock().unwrap_or_else(PoisonError::into_inner).take_in(&notice);
        }
        (self.tell)(self.supervisor.name(), notice);
    }
}

fn run(target: Duration) -> String {
    format!("run, {} ms", target.as_millis())
}

fn wait(duration: Duration, reason: &str) -> String {
    format!("wait {} ms: {reason}", duration.as_millis())
}
