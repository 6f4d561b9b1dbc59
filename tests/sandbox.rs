//! Controllers that are components: what they are given, what they may not do, and what it costs them to try.

mod compiling;
mod faults;
mod limits;
mod loading;
mod log;
mod running;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::controller::{CompletedBatch, Controller, Fault, Iteration, Outcome, Source, Subject};
use tidegate_wasm::{Artifact, ComponentSource, Limits, LoadOptions, LogLine, LogSink};

use crate::support::components::Guest;

/// Keeps the lines that guests write.
#[derive(Default)]
struct Kept(Mutex<Vec<LogLine>>);

impl Kept {
    fn lines(&self) -> Vec<LogLine> {
        self.0.lock().unwrap().clone()
    }

    fn texts(&self) -> Vec<String> {
        self.lines().into_iter().map(|line| line.text).collect()
    }
}

impl LogSink for Kept {
    fn line(&self, line: LogLine) {
        self.0.lock().unwrap().push(line);
    }
}

/// Something to run out of, long before a test's patience ends.
fn limits() -> Limits {
    Limits { deadline: Duration::from_secs(30), ..Limits::default() }
}

async fn load(guest: &Guest) -> Result<Arc<Artifact>, Fault> {
    load_within(guest, limits()).await
}

async fn load_within(guest: &Guest, limits: Limits) -> Result<Arc<Artifact>, Fault> {
    Artifact::from_bytes(guest.component(), &LoadOptions { limits, ..LoadOptions::default() }).await
}

async fn source(guest: &Guest) -> ComponentSource {
    ComponentSource::new("paced", load(guest).await.unwrap())
}

async fn start(guest: &Guest) -> Box<dyn Controller> {
    source(guest).await.start("master").await.unwrap()
}

fn subject() -> Subject {
    Subject { update_name: "add_column".to_owned(), database_name: "master".to_owned(), one_shot: false }
}

fn completed() -> Outcome {
    let duration = Duration::from_micros(12_500);
    Outcome::Completed(CompletedBatch { items: 90, batch_size: 100, duration, finished: false })
}

/// Everything a host asks of a controller in one iteration.
async fn iterate(controller: &mut dyn Controller) -> Result<(), Fault> {
    controller.default_batch_size("add_column", "master").await?;
    let mut iteration = controller.on_update(&subject()).await?;
    iteration.enter().await?;
    controller.min_batch_size("add_column", "master").await?;
    iteration.exit(&completed()).await?;
    iteration.close().await
}

/// The fault of a guest's first iteration.
async fn first_fault(guest: &Guest, limits: Limits) -> Result<(), Fault> {
    let artifact = load_within(guest, limits).await?;
    let mut controller = ComponentSource::new("paced", artifact).start("master").await?;
    iterate(&mut *controller).await
}

/// A fault as an operator sees it.
fn shown(fault: &Fault) -> String {
    format!("{fault}\nhint: {}", fault.kind.hint())
}

async fn enter(
    controller: &mut dyn Controller,
) -> (Box<dyn Iteration>, Result<tidegate::controller::Admission, Fault>) {
    let mut iteration = controller.on_update(&subject()).await.unwrap();
    let answer = iteration.enter().await;
    (iteration, answer)
}
