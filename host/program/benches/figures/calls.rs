//! What the calls of an iteration into a controller cost.

use std::time::{Duration, Instant};

use tidegate::controller::{Admission, CompletedBatch, Controller, Outcome as Ended, Source, Subject};
use tidegate_wasm::{Artifact, ComponentSource, LoadOptions};

use super::report::{Asked, FiguresReport};
use super::work::{awake, without_sleep};
use super::{Outcome, component, median};

/// A round lasts so long; of several the median counts.
const ROUND: Duration = Duration::from_millis(300);
const ROUNDS: usize = 5;
/// Iterations between two looks at the clock.
const AT_ONCE: u32 = 100;

pub(super) async fn measure(report: &mut FiguresReport) -> Outcome<()> {
    let mut section = report.section("on-update, enter, exit", "ns", "");
    let native = nanoseconds(&awake(Duration::from_millis(100))).await?;
    let baseline = section.baseline("native trait object", native);
    for name in ["rust-steady", "c-fixed"] {
        for metered in [true, false] {
            let (path, options) = (component(name)?, LoadOptions::default());
            let artifact = match metered {
                true => Artifact::load(&path, &options).await?,
                false => Artifact::load_unmetered(&path, &options).await?,
            };
            let source = ComponentSource::new(name, artifact).with_settings(without_sleep());
            let fuel = if metered { "fuel on" } else { "fuel off" };
            let figure = section.add(format!("{name}, {fuel}"), nanoseconds(&source).await?, &baseline);
            if name == "rust-steady" && metered {
                figure.asked(Asked::ValueAtMost(3_000.0));
            }
        }
    }
    Ok(())
}

/// How long the calls of one iteration take; the dropping of it is not counted.
async fn nanoseconds(source: &dyn Source) -> Outcome<f64> {
    let mut controller = source.start("master").await?;
    let mut rounds = Vec::new();
    // The first round is for the processor's caches.
    for _ in 0..=ROUNDS {
        let (began, mut took, mut iterations) = (Instant::now(), Duration::ZERO, 0);
        while began.elapsed() < ROUND {
            took += iterate(&mut *controller).await?;
            iterations += AT_ONCE;
        }
        rounds.push(took.as_nanos() as f64 / f64::from(iterations));
    }
    rounds.remove(0);
    Ok(median(&rounds))
}

async fn iterate(controller: &mut dyn Controller) -> Outcome<Duration> {
    let subject = Subject { update_name: "bench".into(), database_name: "master".into(), one_shot: false };
    let batch = CompletedBatch { items: 100, batch_size: 100, duration: Duration::from_millis(100), finished: false };
    let outcome = Ended::Completed(batch);
    let mut over = Vec::new();
    let began = Instant::now();
    for _ in 0..AT_ONCE {
        let mut iteration = controller.on_update(&subject).await?;
        match iteration.enter().await? {
            Admission::Run(_) => iteration.exit(&outcome).await?,
            Admission::Wait { reason, .. } => return Err(format!("the controller waits: {reason}").into()),
        }
        over.push(iteration);
    }
    let took = began.elapsed();
    for iteration in over {
        iteration.close().await?;
    }
    Ok(took)
}
