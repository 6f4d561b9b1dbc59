//! A backfill beside a shadow that traps whenever it is asked.

use std::sync::Arc;
use std::time::Duration;

use tidegate::controller::{Policy, ShadowNotice, ShadowPolicy, SupervisorSettings};
use tidegate::scheduler::event::EventKind;
use tidegate_wasm::{Artifact, ComponentSource, LoadOptions};

use super::place::{Database, Place, fill_b, host};
use super::report::FiguresReport;
use super::work::{awake, controller, run};
use super::{Outcome, component, median};

/// Each backfill is measured so many times, in turn with the other; the median counts.
const ROUNDS: usize = 5;
const TARGET: Duration = Duration::from_millis(100);

pub(super) async fn measure(report: &mut FiguresReport, place: &Place, rows: i64) -> Outcome<()> {
    let database = place.fresh().await?;
    let artifact = Artifact::load(&component("hostile")?, &LoadOptions::default()).await?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(rate(&database, rows, None).await?);
        beside.push(rate(&database, rows, Some(trapping(artifact.clone()))).await?);
    }
    let mut section = report.section("backfill beside a shadow", "rows/s", place.name());
    let baseline = section.baseline("tidegate, rust-steady", median(&alone));
    section.add("tidegate, rust-steady, a shadow that traps", median(&beside), &baseline);
    // What may come of noise alone.
    let (least, most) =
        (alone.iter().copied().fold(f64::INFINITY, f64::min), alone.iter().copied().fold(0.0, f64::max));
    section.add("tidegate, rust-steady, the slowest round", least, &baseline);
    section.add("tidegate, rust-steady, the fastest round", most, &baseline);
    Ok(())
}

/// A shadow that loses its instance in each iteration, and is never given up.
fn trapping(artifact: Arc<Artifact>) -> ShadowPolicy {
    let setting = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let settings = vec![setting("misbehave", "trap"), setting("in", "on-update")];
    let source = ComponentSource::new("hostile", artifact).with_settings(settings);
    let supervision = SupervisorSettings { max_faults: u32::MAX, ..SupervisorSettings::default() };
    ShadowPolicy { policy: Policy::Controller(Arc::new(source)), settings: supervision, prompt: None }
}

/// Rows a second.
async fn rate(database: &Database, rows: i64, shadow: Option<ShadowPolicy>) -> Outcome<f64> {
    database.make_items(rows).await?;
    database.enqueue("bench").await?;
    let is_shadowed = shadow.is_some();
    let spec = database.spec(awake(TARGET)).controller(controller("rust-steady").await?).shadows(shadow);
    let host = host(spec.update("bench", fill_b())).build()?;
    let mut events = host.events().subscribe();
    let trapped = tokio::spawn(async move {
        let mut trapped = false;
        while let Ok(event) = events.recv().await {
            trapped |= matches!(event.kind, EventKind::Shadow { notice: ShadowNotice::Fault { .. }, .. });
        }
        trapped
    });
    let (_, took) = run(host).await?;
    if trapped.await? != is_shadowed {
        return Err("the shadow did not do what it was to do".into());
    }
    Ok(rows as f64 / took.as_secs_f64())
}
