//! How fast updates go and how far they have come, for those who look at them from outside.

use std::time::Duration;

use tidegate::pace::eta;
use tidegate::scheduler::database::Record;
use tidegate::update::sql::Estimate;

/// Iterations that a throughput is taken from.
pub(super) const RECENT: u32 = 50;

/// Items per millisecond over some iterations, waiting included: what a queue really advances by. `None` where no
/// item was processed.
pub(super) fn throughput<'a>(records: impl Iterator<Item = &'a Record>) -> Option<f64> {
    let (items, elapsed_ms) = records.fold((0, 0.0), |(items, elapsed), record| {
        (items + record.items, elapsed + record.duration_ms + record.waited_ms)
    });
    (items > 0 && elapsed_ms > 0.0).then(|| items as f64 / elapsed_ms)
}

/// How long the rest of a walk takes at a pace, in items per millisecond.
pub(super) fn time_left(estimate: Estimate, items_per_ms: f64) -> Option<Duration> {
    eta(estimate.rows * (1.0 - estimate.done), items_per_ms)
}
