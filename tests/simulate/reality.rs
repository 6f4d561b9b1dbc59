//! The model and the real thing: the same policy, the same cost per item, on virtual time and on a real database.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, json};
use tidegate::controller::{Admission, Controller, Fault, Iteration, Native, Outcome, Source, Subject};
use tidegate::controller::{Policy, SupervisorSettings};
use tidegate::scheduler::database::Record;
use tidegate::scheduler::event::EventKind;
use tidegate::update::sql::Sql;
use tidegate::update::{Budget, Handler, Mode, Next, Progress, Step, UpdateError};
use tidegate::{DatabaseSpec, Host};
use tidegate_database::Url;
use tidegate_simulate::{Candidate, simulate};

use super::scenario;
use crate::support::on_both;
use crate::support::place::{Place, row};

const ITEMS: u64 = 300;
const COST: Duration = Duration::from_millis(5);
const TARGET: Duration = Duration::from_millis(150);
const REST: Duration = Duration::from_millis(50);
const FIRST_BATCH: u32 = 10;

/// Rests, then aims at a batch of 150 ms.
#[derive(Clone, Copy, Default)]
struct Paced {
    rested: bool,
}

#[async_trait]
impl Controller for Paced {
    async fn on_update(&mut self, _: &Subject) -> Result<Box<dyn Iteration>, Fault> {
        Ok(Box::new(Paced::default()))
    }
}

#[async_trait]
impl Iteration for Paced {
    async fn enter(&mut self) -> Result<Admission, Fault> {
        if std::mem::replace(&mut self.rested, true) {
            return Ok(Admission::Run(TARGET));
        }
        Ok(Admission::Wait { duration: REST, reason: "a rest".to_owned() })
    }

    async fn exit(&mut self, _: &Outcome) -> Result<(), Fault> {
        Ok(())
    }
}

fn source() -> Arc<dyn Source> {
    Arc::new(Native::new("paced", |_: &str| Paced::default()))
}

/// Takes 5 ms of real time for each item.
struct Slow;

#[async_trait]
impl Handler for Slow {
    fn mode(&self, _: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::Batched)
    }

    async fn run(&self, _: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let done = progress.0.get("done").and_then(serde_json::Value::as_u64).unwrap_or_default();
        let items = budget.items.min(ITEMS - done);
        tokio::time::sleep(COST * u32::try_from(items).unwrap()).await;
        let done = done + items;
        let progress = Progress(Map::from_iter([("done".to_owned(), json!(done))]));
        Ok(Step::new(items, if done == ITEMS { Next::Finished } else { Next::Continue(progress) }))
    }
}

/// The iterations of a real run.
async fn real(place: &Place) -> Vec<Record> {
    let supervision =
        SupervisorSettings { default_batch_size: FIRST_BATCH, min_batch_size: 1, ..SupervisorSettings::default() };
    assert!(place.prepared().await.enqueue(&row("slow")).await.unwrap());
    let database = DatabaseSpec::new("master", Url::new(&place.url))
        .update("slow", Slow)
        .policy(Policy::Controller(source()))
        .supervision(supervision);
    let host = Host::builder().database(database).until_done().build().unwrap();
    let mut events = host.events().subscribe();
    host.run(std::future::pending()).await;
    let mut records = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let EventKind::IterationEnded { record, .. } = &event.kind {
            records.push(Record::clone(record));
        }
    }
    records
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

on_both! {
    /// What the model is told of the real database is what a batch costs beside its items, measured in the run itself:
    /// a transaction's opening and commit, which depend on the disk. All else has to come out of the model: how the
    /// estimator follows, how many batches there are, and how large. What is left between the two is the jitter of the
    /// machine's timers and of its other work, of which a batch of 150 ms sees some milliseconds, on a busy machine some
    /// tens: a quarter of the time, and of the sizes. A model that forgot rests, costs or the policy's target would be
    /// off by more: a rest is a quarter of an iteration, and a batch size is a third as large at the beginning. It would
    /// be so each time, and a machine that stands still for a moment is so once: one of three runs has to agree.
    async fn the_model_agrees_with_a_real_database(place: Place) {
        let mut apart = Vec::new();
        for _ in 0..3 {
            match compare(place).await {
                Ok(()) => return,
                Err(how) => apart.push(how),
            }
        }
        panic!("{apart:?}");
    }
}

/// A run on a real database beside one of the model; where they are apart, how.
async fn compare(place: &Place) -> Result<(), String> {
    const TOLERANCE: f64 = 0.25;
    let records = real(place).await;
    let beside = records.iter().map(|record| record.duration_ms - record.items as f64 * 5.0).collect();
    let batch_ms = median(beside).max(0.0);
    let text = format!(
        "version = 1\n[host]\ndefault_batch_size = {FIRST_BATCH}\nmin_batch_size = 1\n\
         [[update]]\nname = \"slow\"\nitems = {ITEMS}\ncost_ms = 5\nbatch_ms = {batch_ms:.3}\n"
    );
    let run = simulate(&Candidate::Native(source()), &scenario(&text), None).unwrap();

    let near = |a: f64, b: f64| (a - b).abs() <= TOLERANCE * a.max(b);
    let sizes: Vec<f64> = records.iter().map(|record| record.batch_size as f64).collect();
    let modelled: Vec<f64> = run.seen.batches.iter().map(|batch| batch.batch_size as f64).collect();
    let real_ms: f64 = records.iter().map(|record| record.duration_ms + record.waited_ms).sum();
    let model_ms = run.finished_at.unwrap().as_secs_f64() * 1e3;
    if !near(real_ms, model_ms) {
        return Err(format!("it took {real_ms} ms, and {model_ms} ms by the model"));
    }
    let alike = near(sizes[0], modelled[0])
        && near(median(sizes.clone()), median(modelled.clone()))
        && near(sizes.len() as f64, modelled.len() as f64);
    if alike { Ok(()) } else { Err(format!("batches of {sizes:?}, and of {modelled:?} by the model")) }
}
