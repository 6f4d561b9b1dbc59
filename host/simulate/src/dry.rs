//! One iteration without a database: what each callback answers, and what it costs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate::controller::{
    Admission, Call, CallObserver, Callback, CompletedBatch, Controller, Fault, Iteration, Outcome, Source, Subject,
};
use tidegate_wasm::{ComponentSource, Reading, SignalReader};

/// Waits that a dry run goes through before it takes the controller for one that holds.
const MOST_WAITS: usize = 10;

/// Names of signals that are kept, of those that a controller reads.
const MOST_NAMES: usize = 100;

/// The signals of a dry run, by name, whatever the database; and which were read.
#[derive(Debug, Default)]
pub struct DrySignals {
    given: BTreeMap<String, Reading>,
    /// Of every other signal.
    others: Option<Reading>,
    read: Mutex<BTreeSet<String>>,
}

impl DrySignals {
    /// These readings; every other signal has `others`.
    pub fn new(given: BTreeMap<String, Reading>, others: Option<Reading>) -> Self {
        Self { given, others, read: Mutex::default() }
    }

    /// The names that were read until now, the first hundred of them, in order.
    pub fn names(&self) -> BTreeSet<String> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a signal is answered with.
    pub fn reading(&self, signal: &str) -> Option<Reading> {
        self.given.get(signal).copied().or(self.others)
    }
}

impl SignalReader for DrySignals {
    fn read(&self, _database_name: &str, signal: &str) -> Option<Reading> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.len() < MOST_NAMES && !read.contains(signal) {
            read.insert(signal.to_owned());
        }
        self.reading(signal)
    }
}

/// One call of a dry run.
#[derive(Debug, Clone)]
pub struct DryCall {
    /// The callback.
    pub callback: Callback,
    /// What it answered, in words; the fault, where it failed.
    pub answer: Result<String, Fault>,
    /// What it used; `None` where the call never began.
    pub used: Option<Call>,
}

/// Keeps the last call.
#[derive(Default)]
struct Last(Mutex<Option<Call>>);

impl Last {
    fn take(&self) -> Option<Call> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl CallObserver for Last {
    fn see(&self, _database_name: &str, call: &Call) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(*call);
    }
}

/// The calls made so far, and the way to what the last one used.
struct Notes {
    last: Arc<Last>,
    calls: Vec<DryCall>,
}

impl Notes {
    /// Writes a call down; what it answered comes back where it did not fail.
    fn note<T>(&mut self, callback: Callback, answer: Result<T, Fault>, words: impl Fn(&T) -> String) -> Option<T> {
        let used = self.last.take();
        let (told, answer) = match answer {
            Ok(answer) => (Ok(words(&answer)), Some(answer)),
            Err(fault) => (Err(fault), None),
        };
        self.calls.push(DryCall { callback, answer: told, used });
        answer
    }
}

/// Starts an instance, asks it for batch sizes, and takes it through one iteration of an update: on-update, enter until
/// it answers run (ten times at most; nobody waits), exit with a completed batch of 100 items, and the destructor. It
/// ends with the first fault that costs the instance.
pub async fn dry_run(source: ComponentSource, subject: &Subject) -> Vec<DryCall> {
    let last = Arc::new(Last::default());
    let source = source.with_calls(last.clone());
    let mut notes = Notes { last, calls: Vec::new() };
    let started = source.start(&subject.database_name).await;
    if let Some(mut controller) = notes.note(Callback::Start, started, |_| "an instance".to_owned()) {
        batch_sizes(&mut *controller, subject, &mut notes).await;
        let begun = controller.on_update(subject).await;
        if let Some(iteration) = notes.note(Callback::OnUpdate, begun, |_| "an iteration".to_owned()) {
            iterate(iteration, &mut notes).await;
        }
    }
    notes.calls
}

async fn batch_sizes(controller: &mut dyn Controller, subject: &Subject, notes: &mut Notes) {
    let words = |size: &u32| format!("{size} items");
    let (update, database) = (&subject.update_name, &subject.database_name);
    // What is not exported is not called.
    if let Some(size) = controller.default_batch_size(update, database).await.transpose() {
        notes.note(Callback::DefaultBatchSize, size, words);
    }
    if let Some(size) = controller.min_batch_size(update, database).await.transpose() {
        notes.note(Callback::MinBatchSize, size, words);
    }
}

async fn iterate(mut iteration: Box<dyn Iteration>, notes: &mut Notes) {
    for _ in 0..MOST_WAITS {
        let entered = iteration.enter().await;
        match notes.note(Callback::Enter, entered, in_words) {
            Some(Admission::Wait { .. }) => {}
            Some(Admission::Run(target)) => {
                let batch = CompletedBatch { items: 100, batch_size: 100, duration: target, finished: false };
                let exited = iteration.exit(&Outcome::Completed(batch)).await;
                notes.note(Callback::Exit, exited, |()| "done".to_owned());
                break;
            }
            None => break,
        }
    }
    let closed = iteration.close().await;
    notes.note(Callback::Drop, closed, |()| "done".to_owned());
}

fn in_words(admission: &Admission) -> String {
    match admission {
        Admission::Run(target) => format!("run, {} ms", milliseconds(*target)),
        Admission::Wait { duration, reason } => format!("wait {} ms: {reason}", milliseconds(*duration)),
    }
}

fn milliseconds(duration: Duration) -> u128 {
    duration.as_millis()
}
