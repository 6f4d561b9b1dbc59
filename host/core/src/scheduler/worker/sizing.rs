//! How large a batch is to be.

use std::time::Duration;

use tokio::time::timeout;

use super::super::Settings;
use super::iteration::IterationPlan;
use super::{Worker, WorkerPace};
use crate::controller::{Subject, Supervisor};
use crate::pace::{BatchSize, Bounds, Estimator, Slices};
use crate::update::Progress;

/// Batches of an update that a host looks up in the history before it runs the first of its own.
const REMEMBERED: u32 = 10;

/// How long that may take.
const REMEMBERING_LIMIT: Duration = Duration::from_secs(2);

/// What is to be done in how many slices, where so much is known of the pace; `None` where asking the controller was a fault
/// that leaves no batch to run.
pub(super) async fn sized(
    supervisor: &mut Supervisor,
    subject: &Subject,
    pace: &WorkerPace,
    settings: &Settings,
    target: Duration,
) -> Option<Slices> {
    let (cost, shrink, estimator) = (pace.cost, pace.shrink, settings.estimator);
    let fitting = match estimator {
        Estimator::Slices => cost.items_within(target),
        Estimator::Synapse => pace.synapse.items_within(target),
    };
    let size = match fitting {
        None => BatchSize::First(supervisor.default_batch_size(subject).await?),
        Some(fitting) => BatchSize::Later { fitting, min: supervisor.min_batch_size(subject).await? },
    };
    let (items, max) = (size.items(settings.max_batch_size, shrink), settings.max_batch_size);
    // As in Synapse the first batch has its items whatever they cost, within the bounds of the least.
    let least = match size {
        BatchSize::First(first) => first.min(supervisor.max_min_batch_size()),
        BatchSize::Later { min, .. } => min,
    };
    let (min, max) = if shrink.is_none() { (least.into(), max) } else { (1, items) };
    let bounds = Bounds { target, expected: items, min, cut_off: settings.cut_off, max };
    Some(match (subject.one_shot, estimator) {
        (true, _) => Slices::whole(Bounds { cut_off: Duration::MAX, ..bounds }, cost),
        (false, Estimator::Synapse) => Slices::whole(bounds, cost),
        (false, Estimator::Slices) => Slices::new(bounds, cost),
    })
}

impl Worker {
    /// What is to be done in how many slices; `None` where asking the controller was a fault that leaves no batch to run.
    pub(super) async fn slices(&mut self, plan: &IterationPlan, target: Duration) -> Option<Slices> {
        self.remember(plan).await;
        let pace = self.paces.entry(plan.row.update_name.clone()).or_default();
        sized(&mut self.supervisor, &plan.subject, pace, &self.means.with.settings, target).await
    }

    /// Goes by what batches of this update have cost until now, where another host, or this one before it was started
    /// again, has written that down.
    async fn remember(&mut self, plan: &IterationPlan) {
        let name = &plan.row.update_name;
        if std::mem::replace(&mut self.pace(name).remembered, true) || plan.progress == Progress::default() {
            return;
        }
        let history = self.common.database.history(Some(name), REMEMBERED);
        let Ok(Ok(records)) = timeout(REMEMBERING_LIMIT, history).await else { return };
        let pace = self.pace(name);
        for record in records.iter().rev().filter(|record| !record.one_shot && record.error.is_none()) {
            let duration = Duration::try_from_secs_f64(record.duration_ms / 1e3).unwrap_or_default();
            pace.cost.remember(record.items, duration);
            pace.synapse.record(record.items, duration);
        }
    }
}
