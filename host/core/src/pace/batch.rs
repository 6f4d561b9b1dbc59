//! How many items to ask for, and when they will be done.

use std::time::Duration;

/// What bounds the size of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchSize {
    /// No item was counted yet: the controller's or the configuration's first batch.
    First(u32),
    /// The rate is known: as many as fit into the target, but no fewer than the controller or the configuration says.
    Later {
        /// Items that fit into the target.
        fitting: u64,
        /// The least.
        min: u32,
    },
}

impl BatchSize {
    /// The number of items to ask for: at least 1; never more than `max`, which beats the least; made smaller by
    /// `shrink`, which may go below the least.
    pub fn items(self, max: u64, shrink: Shrink) -> u64 {
        let wanted = match self {
            BatchSize::First(items) => items.into(),
            BatchSize::Later { fitting, min } => fitting.max(min.into()),
        };
        shrink.apply(wanted.min(max)).max(1)
    }
}

/// How often batches are halved because they ran into locks or time limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shrink {
    halvings: u32,
}

impl Shrink {
    /// Halves the next batch once more.
    pub fn after_transient_failure(&mut self) {
        // More halvings than bits in a batch size would only delay the recovery.
        self.halvings = (self.halvings + 1).min(20);
    }

    /// Takes one halving back.
    pub fn after_success(&mut self) {
        self.halvings = self.halvings.saturating_sub(1);
    }

    /// True where nothing is halved.
    pub fn is_none(self) -> bool {
        self.halvings == 0
    }

    fn apply(self, items: u64) -> u64 {
        items >> self.halvings
    }
}

/// How long an update still takes: `remaining` items at `items_per_ms`, time spent waiting included in that rate.
/// `None` where nothing moves.
pub fn eta(remaining: f64, items_per_ms: f64) -> Option<Duration> {
    let milliseconds = remaining.max(0.0) / items_per_ms;
    Duration::try_from_secs_f64(milliseconds / 1e3).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn halved(times: u32) -> Shrink {
        let mut shrink = Shrink::default();
        (0..times).for_each(|_| shrink.after_transient_failure());
        shrink
    }

    #[test]
    fn the_batch_fits_the_target_within_its_bounds() {
        let later = |fitting, min| BatchSize::Later { fitting, min };
        for (size, max, halvings, expected) in [
            (BatchSize::First(100), 1_000_000, 0, 100),
            (BatchSize::First(100), 50, 0, 50),
            (later(240, 100), 1_000_000, 0, 240),
            (later(24, 100), 1_000_000, 0, 100),
            (later(0, 1), 1_000_000, 0, 1),
            (later(u64::MAX, 100), 1_000_000, 0, 1_000_000),
            (later(24, 100), 10, 0, 10),
            (later(240, 100), 1_000_000, 2, 60),
            (later(240, 100), 1_000_000, 30, 1),
        ] {
            assert_eq!(size.items(max, halved(halvings)), expected, "{size:?} max {max} halved {halvings}");
        }
    }

    #[test]
    fn each_success_takes_one_halving_back() {
        let mut shrink = halved(2);
        shrink.after_success();
        assert_eq!(shrink.apply(100), 50);
        shrink.after_success();
        shrink.after_success();
        assert_eq!(shrink, Shrink::default());
    }

    #[test]
    fn an_eta_needs_movement() {
        assert_eq!(eta(1_000.0, 2.0), Some(Duration::from_millis(500)));
        assert_eq!(eta(-5.0, 2.0), Some(Duration::ZERO));
        assert_eq!(eta(1_000.0, 0.0), None);
        assert_eq!(eta(0.0, 0.0), None);
    }

    proptest! {
        #[test]
        fn a_batch_always_makes_progress_and_never_passes_the_maximum(
            fitting in any::<u64>(), min in any::<u32>(), max in 1_u64.., halvings in 0_u32..40,
        ) {
            let items = BatchSize::Later { fitting, min }.items(max, halved(halvings));
            prop_assert!((1..=max).contains(&items));
        }
    }
}
