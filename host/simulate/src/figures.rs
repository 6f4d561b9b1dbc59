//! What a run comes to, in numbers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::run::Run;
use super::watch::{SeenBatch, SeenCall, SeenOutcome};
use tidegate::controller::Callback;
use tidegate::scheduler::database::IterationOutcome;

/// Each batch's duration over its target, in order; those without a target and those that never ended left out.
pub(super) fn ratios(batches: &[SeenBatch]) -> Vec<(f64, &SeenBatch)> {
    let ratio = |batch: &SeenBatch| {
        let target = batch.target.filter(|target| !target.is_zero())?;
        Some(batch.duration?.as_secs_f64() / target.as_secs_f64())
    };
    batches.iter().filter_map(|batch| Some((ratio(batch)?, batch))).collect()
}

/// The value that a part of all is not above: the nearest rank.
pub(super) fn percentile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let rank = (part * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Fuel and memory of a callback over a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallbackUse {
    /// The callback, as the contract names it.
    pub callback: String,
    /// How often it was called.
    pub calls: u64,
    /// The least fuel, the median and the most.
    pub fuel: [u64; 3],
    /// The least memory held afterwards, the median and the most, in bytes.
    pub memory_bytes: [u64; 3],
}

/// What each callback used, in order of its first call.
pub fn callback_use(calls: &[SeenCall]) -> Vec<CallbackUse> {
    let mut order: Vec<Callback> = Vec::new();
    calls.iter().for_each(|call| {
        if !order.contains(&call.callback) {
            order.push(call.callback)
        }
    });
    let spread = |mut values: Vec<u64>| {
        values.sort_unstable();
        let at = |place: usize| values.get(place).copied().unwrap_or_default();
        [at(0), at(values.len() / 2), at(values.len().saturating_sub(1))]
    };
    let of = |callback: Callback| {
        let calls: Vec<&SeenCall> = calls.iter().filter(|call| call.callback == callback).collect();
        CallbackUse {
            callback: callback.to_string(),
            calls: calls.len() as u64,
            fuel: spread(calls.iter().map(|call| call.fuel).collect()),
            memory_bytes: spread(calls.iter().map(|call| call.memory_bytes).collect()),
        }
    };
    order.into_iter().map(of).collect()
}

/// What a run came to, in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// When the queue was empty, in milliseconds from the start; `None` where rows remained.
    pub finished_at_ms: Option<u64>,
    /// When the run was ended, in milliseconds from its start.
    pub ended_at_ms: u64,
    /// Batches that were begun.
    pub batches: usize,
    /// Items of batches that were committed.
    pub items: u64,
    /// Batches that failed.
    pub failures: usize,
    /// The largest of the batches' durations over their targets.
    pub worst_over_target: f64,
    /// Their mean.
    pub mean_over_target: f64,
    /// The 95th percentile of the foreground's latency, in milliseconds.
    pub foreground_p95_ms: f64,
    /// Waits of two seconds and more that the controller answered.
    pub holds: usize,
    /// Faults of the controller.
    pub faults: usize,
    /// Fuel of all calls, for each batch.
    pub fuel_per_iteration: u64,
}

/// Sums a run up.
pub fn figures(run: &Run) -> Figures {
    let ratios: Vec<f64> = ratios(&run.seen.batches).iter().map(|(ratio, _)| *ratio).collect();
    let ms = |at: Duration| u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
    let seen = &run.seen;
    let fuel: u64 = seen.calls.iter().map(|call| call.fuel).sum();
    Figures {
        finished_at_ms: run.finished_at.map(ms),
        ended_at_ms: ms(run.ended_at),
        batches: seen.batches.len(),
        items: seen.batches.iter().map(|batch| batch.items).sum(),
        failures: seen
            .batches
            .iter()
            .filter(|batch| batch.outcome == SeenOutcome::Ended(IterationOutcome::Failed))
            .count(),
        worst_over_target: ratios.iter().copied().fold(0.0, f64::max),
        mean_over_target: if ratios.is_empty() { 0.0 } else { ratios.iter().sum::<f64>() / ratios.len() as f64 },
        foreground_p95_ms: percentile(run.foreground.points.iter().map(|(_, ms)| *ms).collect(), 0.95),
        holds: seen.holds.iter().filter(|hold| !hold.rest).count(),
        faults: seen.faults.len(),
        fuel_per_iteration: fuel / (seen.batches.len() as u64).max(1),
    }
}
