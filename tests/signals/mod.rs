//! Signals: what is measured of real databases, what a sampler that hangs does to everything else, and what controllers
//! make of it.

mod foreground;
mod guests;
mod own;
mod postgres;
mod program;
mod sqlite;

use std::time::Duration;

use tidegate::signal::{Sampler, Sampling, Schedule, Scope, SignalReader, SignalStatus, Signals, Task};
use tidegate_database::{Options, SamplerOptions, samplers};

use crate::support::place::{Place, holder};
use crate::support::until;

/// How often the tests have signals sampled.
const OFTEN: Duration = Duration::from_millis(50);

/// How long a statement of a sampler may take in the tests.
const LIMIT: Duration = Duration::from_millis(300);

/// Samples a database, often.
fn sampled(place: &Place, change: impl FnOnce(&mut SamplerOptions)) -> Sampling {
    sampled_at(&place.url, change)
}

fn sampled_at(url: &str, change: impl FnOnce(&mut SamplerOptions)) -> Sampling {
    let mut options = SamplerOptions { timeout: LIMIT, ..SamplerOptions::default() };
    change(&mut options);
    let sampling = Sampling::new(Signals::default());
    sampling.replace(samplers(url, &Options::new(holder(1)), &options).unwrap().into_iter().map(often).collect());
    sampling
}

fn often(sampler: Box<dyn Sampler>) -> Task {
    Task { scope: Scope::database("master"), sampler, schedule: Schedule { interval: OFTEN, timeout: LIMIT } }
}

fn value(sampling: &Sampling, name: &str) -> Option<f64> {
    sampling.signals().read("master", name).map(|reading| reading.value)
}

fn age(sampling: &Sampling, name: &str) -> Option<Duration> {
    sampling.signals().read("master", name).map(|reading| reading.age)
}

fn status(sampling: &Sampling, name: &str) -> SignalStatus {
    let found = sampling.signals().all().into_iter().find(|signal| signal.definition.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {:#?}", sampling.signals().all()))
}

fn error(sampling: &Sampling, name: &str) -> Option<String> {
    status(sampling, name).error.map(|(error, _)| error)
}

/// Waits for a signal to be read as something.
async fn reads(sampling: &Sampling, name: &str, holds: impl Fn(f64) -> bool) {
    let told = || format!("{:#?}", status(sampling, name));
    let read = tokio::time::timeout(Duration::from_secs(30), async {
        while !value(sampling, name).is_some_and(&holds) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(read.await.is_ok(), "{}", told());
}

/// Waits for a signal to have no newer reading for this reason.
async fn fails(sampling: &Sampling, name: &str, words: &str) {
    until(&format!("{name} fails: {words}"), async || error(sampling, name).is_some_and(|error| error.contains(words)))
        .await;
}
