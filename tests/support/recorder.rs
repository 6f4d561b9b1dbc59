//! A native controller that keeps the calls it gets, and answers as a test tells it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::controller::{Admission, Controller, Fault, Iteration, Outcome, Source, Subject};

/// What enter answers, given how often it was called before.
type Enter = Arc<dyn Fn(usize) -> Admission + Send + Sync>;

/// The recorder; clones share what they keep.
#[derive(Clone)]
pub struct Recorder {
    enter: Enter,
    entered: Arc<Mutex<usize>>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    pub fn new(enter: impl Fn(usize) -> Admission + Send + Sync + 'static) -> Self {
        Self { enter: Arc::new(enter), entered: Arc::default(), calls: Arc::default() }
    }

    /// Runs each batch with a target of 20 ms.
    pub fn running() -> Self {
        Self::new(|_| Admission::Run(Duration::from_millis(20)))
    }

    /// Waits for `duration`, each time.
    pub fn waiting(duration: Duration) -> Self {
        Self::new(move |_| wait(duration))
    }

    /// The calls until now.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }
}

/// The answer wait.
pub fn wait(duration: Duration) -> Admission {
    Admission::Wait { duration, reason: "because".to_owned() }
}

#[async_trait]
impl Source for Recorder {
    fn name(&self) -> &str {
        "recorder"
    }

    async fn start(&self, _: &str) -> Result<Box<dyn Controller>, Fault> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Controller for Recorder {
    async fn on_update(&mut self, subject: &Subject) -> Result<Box<dyn Iteration>, Fault> {
        let Subject { update_name, database_name, one_shot } = subject;
        self.note(format!("on-update {update_name} {database_name} {one_shot}"));
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Iteration for Recorder {
    async fn enter(&mut self) -> Result<Admission, Fault> {
        let before = {
            let mut entered = self.entered.lock().unwrap();
            *entered += 1;
            *entered - 1
        };
        let answer = (self.enter)(before);
        self.note(match &answer {
            Admission::Run(_) => "enter -> run".to_owned(),
            Admission::Wait { .. } => "enter -> wait".to_owned(),
        });
        Ok(answer)
    }

    async fn exit(&mut self, outcome: &Outcome) -> Result<(), Fault> {
        self.note(match outcome {
            Outcome::Completed(batch) if batch.finished => format!("exit finished {}", batch.items),
            Outcome::Completed(batch) => format!("exit completed {} of {}", batch.items, batch.batch_size),
            Outcome::Failed(error) => format!("exit failed {error}"),
            Outcome::Cancelled => "exit cancelled".to_owned(),
        });
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<(), Fault> {
        self.note("close".to_owned());
        Ok(())
    }
}
