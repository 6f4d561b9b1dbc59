//! How fast items go.

use std::time::Duration;

use super::milliseconds;

/// Synapse's estimator (`BackgroundUpdatePerformance` in synapse/storage/background_updates.py): exponential moving
/// averages of items and of milliseconds, both from 0, and their ratio. Where the averaged time is 0 the ratio is 0.
#[derive(Debug, Clone, Default)]
pub struct Synapse {
    total_items: u64,
    average_items: f64,
    average_ms: f64,
}

impl Synapse {
    /// The weight of the newest batch in both averages: Synapse's 0.1.
    const WEIGHT: f64 = 0.1;

    /// Takes note of a committed batch.
    pub fn record(&mut self, items: u64, duration: Duration) {
        self.total_items = self.total_items.saturating_add(items);
        self.average_items += Self::WEIGHT * (items as f64 - self.average_items);
        self.average_ms += Self::WEIGHT * (milliseconds(duration) - self.average_ms);
    }

    /// Items that fit into `target`; `None` until an item was counted.
    pub fn items_within(&self, target: Duration) -> Option<u64> {
        // A float's cast saturates, so that a rate beyond measure is merely a large batch.
        self.average_items_per_ms().map(|rate| (milliseconds(target) * rate) as u64)
    }

    /// Synapse's `average_items_per_ms`: `None` until an item was counted.
    pub fn average_items_per_ms(&self) -> Option<f64> {
        match self.total_items {
            0 => None,
            _ if self.average_ms == 0.0 => Some(0.0),
            _ => Some(self.average_items / self.average_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_known_before_the_first_item() {
        let mut rate = Synapse::default();
        assert_eq!(rate.average_items_per_ms(), None);
        rate.record(0, Duration::from_millis(50));
        assert_eq!(rate.items_within(Duration::from_millis(100)), None);
    }

    #[test]
    fn the_first_batch_sets_the_rate_and_later_ones_move_it_by_a_tenth() {
        let mut rate = Synapse::default();
        rate.record(100, Duration::from_millis(50));
        assert_eq!(rate.average_items_per_ms(), Some(2.0));
        assert_eq!(rate.items_within(Duration::from_millis(100)), Some(200));
        // Averages are 10 items and 5 ms now; a batch of 200 in 1000 ms makes them 29 and 104.5.
        rate.record(200, Duration::from_millis(1000));
        let expected = 29.0 / 104.5;
        assert!((rate.average_items_per_ms().unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn a_batch_that_took_no_time_gives_a_rate_of_zero_as_in_synapse() {
        let mut rate = Synapse::default();
        rate.record(100, Duration::ZERO);
        assert_eq!(rate.average_items_per_ms(), Some(0.0));
        assert_eq!(rate.items_within(Duration::from_millis(100)), Some(0));
    }

    /// How long the design says that Synapse's formula takes to adapt to a cost that jumps tenfold.
    #[test]
    fn a_tenfold_cost_is_followed_within_32_batches() {
        let target = Duration::from_millis(100);
        let mut rate = Synapse::default();
        for _ in 0..200 {
            rate.record(1_000, target);
        }
        let batches = (1..).find(|_| {
            let items = rate.items_within(target).unwrap();
            rate.record(items, Duration::from_secs_f64(items as f64 / 1e3));
            rate.items_within(target).unwrap() <= 120
        });
        assert_eq!(batches, Some(32));
    }

    proptest! {
        #[test]
        fn a_steady_cost_is_learnt_exactly(items in 1_u64..1_000_000, micros in 1_u64..100_000_000, batches in 1..50) {
            let mut rate = Synapse::default();
            for _ in 0..batches {
                rate.record(items, Duration::from_micros(micros));
            }
            let expected = items as f64 / (micros as f64 / 1e3);
            let learnt = rate.average_items_per_ms().unwrap();
            prop_assert!((learnt - expected).abs() <= expected * 1e-9, "{learnt} is not {expected}");
        }

        #[test]
        fn no_history_makes_it_panic(
            history in prop::collection::vec((any::<u64>(), any::<u32>()), 0..50),
            target in any::<u32>(),
        ) {
            let mut rate = Synapse::default();
            for (items, micros) in history {
                rate.record(items, Duration::from_micros(micros.into()));
            }
            let _ = rate.items_within(Duration::from_millis(target.into()));
        }
    }
}
