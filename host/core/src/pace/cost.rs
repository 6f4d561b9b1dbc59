//! What the batches of an update cost, as far as is known: what the first slice of the next batch is sized by.

use std::time::Duration;

use super::milliseconds;

/// How much the newest batch counts in what is known.
const WEIGHT: f64 = 0.5;
/// Costs that differ by more than this factor from what was known are taken as they are.
const JUMP: f64 = 3.0;
/// A cost that is dearer by more than this factor than what was known is believed once it was seen twice.
const SUSPICIOUS: f64 = 1.5;
/// What a batch costs by itself may grow by this factor from one batch to the next: a checkpoint, or a wait for a standby,
/// is no cost of every batch.
const OWN_GROWTH: f64 = 2.0;
/// The least that such a cost may grow to, in milliseconds.
const OWN_LEAST: f64 = 1.0;
/// The least part of the target that a batch's items get, whatever the batch costs by itself.
const LEAST_SHARE: f64 = 0.5;

/// What is known of the cost of an update's batches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Milliseconds that an item takes; `None` until one was counted.
    item_ms: Option<f64>,
    /// A much dearer cost that was seen once. A wait for somebody's lock or a checkpoint looks like that, and the next batch
    /// tells whether it was one.
    suspected: Option<f64>,
    /// Milliseconds that a batch takes besides its slices: its opening and its commit.
    own_ms: f64,
    /// How far the costs of slices were off lately: the mean of the logarithms' distances. 1 is a factor of e.
    doubt: f64,
    /// The most items of the next first slice, where the last batch had a slice that was cut off.
    most: Option<u64>,
    /// Items that are not divided: a slice of so many is never cut off, because a smaller one costs as much.
    undivided: u64,
    /// What the last such slice took that was longer than it should have been, in milliseconds, and of how many items.
    overlong: Option<(u64, f64)>,
}

impl Default for Cost {
    fn default() -> Self {
        Self { item_ms: None, suspected: None, own_ms: 0.0, doubt: 1.0, most: None, undivided: 1, overlong: None }
    }
}

impl Cost {
    /// Takes note of a batch of which only this is known: one from the history.
    pub fn remember(&mut self, items: u64, duration: Duration) {
        if items > 0 {
            self.learn_of_one(milliseconds(duration) / items as f64);
        }
    }

    /// Milliseconds that an item takes, if that is known.
    pub fn item_ms(&self) -> Option<f64> {
        self.item_ms
    }

    /// The same for whoever must not be taken by surprise, as if what is suspected were known.
    pub(super) fn cautious_ms(&self) -> Option<f64> {
        match (self.item_ms, self.suspected) {
            (Some(known), Some(suspected)) => Some(towards(known, suspected)),
            (known, _) => known,
        }
    }

    /// Items that fit into a batch of `target`; `None` until an item was counted.
    pub fn items_within(&self, target: Duration) -> Option<u64> {
        let left = self.stretched(target) - self.own_ms;
        // A float's cast saturates, so that a rate beyond measure is merely a large batch.
        self.item_ms.map(|item_ms| if item_ms > 0.0 { (left / item_ms) as u64 } else { u64::MAX })
    }

    /// What a batch that aims at `target` may take, in milliseconds. Where opening and commit take more than half of the
    /// target, its items get that half all the same: batches of one item would do hardly anything but commit.
    pub(super) fn stretched(&self, target: Duration) -> f64 {
        let target = milliseconds(target);
        target.max(self.own_ms + target * LEAST_SHARE)
    }

    /// What a batch takes besides its slices, in milliseconds.
    pub(super) fn own_ms(&self) -> f64 {
        self.own_ms
    }

    /// True where slices have cost lately what was expected of them.
    pub(super) fn is_certain(&self) -> bool {
        let is_far = |suspected: f64| self.item_ms.is_none_or(|known| suspected > known * JUMP);
        self.doubt < 0.25 && !self.suspected.is_some_and(is_far)
    }

    /// Items that are not divided.
    pub(super) fn undivided(&self) -> u64 {
        self.undivided
    }

    /// Takes note of what items cost by one observation. Where they are much dearer than was known, a second one has to say so
    /// too: others may have been waited for.
    pub(super) fn learn_of_one(&mut self, item_ms: f64) {
        let suspected = self.suspected.take();
        if let Some(known) = self.item_ms.filter(|known| *known > 0.0 && item_ms > known * SUSPICIOUS) {
            // Nearer to what was suspected than to what is known, where factors count.
            if suspected.is_none_or(|suspected| item_ms * item_ms < suspected * known) {
                self.suspected = Some(item_ms);
                return;
            }
        }
        self.learn(item_ms);
    }

    /// Takes note of what items cost.
    pub(super) fn learn(&mut self, item_ms: f64) {
        self.suspected = None;
        let Some(known) = self.item_ms.filter(|known| *known > 0.0 && item_ms > 0.0) else {
            self.item_ms = Some(item_ms);
            return;
        };
        let off = (item_ms / known).ln().abs();
        self.doubt += WEIGHT * (off.min(1.0) - self.doubt);
        self.item_ms = Some(towards(known, item_ms));
    }

    /// Takes note of a batch with a slice that had to be cut off: the next one begins with `most` items. What went through
    /// tells the cost of the items before the dear ones, and not of those.
    pub(super) fn mistake(&mut self, most: u64) {
        (self.doubt, self.most) = (1.0, Some(most));
    }

    /// Takes note of a batch without such a slice.
    pub(super) fn be_right(&mut self) {
        self.most = None;
    }

    /// The most items of the next first slice.
    pub(super) fn most(&self) -> u64 {
        self.most.unwrap_or(u64::MAX)
    }

    /// Takes note of what a batch took besides its slices.
    pub(super) fn learn_own(&mut self, own: Duration) {
        let most = (self.own_ms * OWN_GROWTH).max(OWN_LEAST);
        self.own_ms += WEIGHT * (milliseconds(own).min(most) - self.own_ms);
    }

    /// Takes note of a slice that could not be made smaller and took too long all the same. Where twice the items take
    /// hardly longer than half of them did, it is not the items that cost: more of them are done at a time.
    pub(super) fn learn_overlong(&mut self, items: u64, took: Duration) {
        let took = milliseconds(took);
        self.undivided = match self.overlong {
            Some((before, ms)) if items > before && took > ms * 1.5 => before,
            Some((before, _)) if items <= before => items,
            _ => items.saturating_mul(2),
        };
        self.overlong = Some((items, took));
    }

    /// Takes note of a batch that was as long as it should be.
    pub(super) fn learn_in_time(&mut self) {
        (self.undivided, self.overlong) = (1, None);
    }
}

/// What is known once another cost was seen.
fn towards(known: f64, seen: f64) -> f64 {
    let jumped = (seen / known).ln().abs() > JUMP.ln();
    if jumped { seen } else { known + WEIGHT * (seen - known) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn nothing_is_known_before_the_first_item() {
        let mut cost = Cost::default();
        cost.remember(0, 50 * MS);
        assert_eq!(cost.items_within(100 * MS), None);
        cost.remember(100, 50 * MS);
        assert_eq!(cost.items_within(100 * MS), Some(200));
    }

    #[test]
    fn a_jump_is_taken_at_once_and_a_drift_by_half() {
        let mut cost = Cost::default();
        cost.learn(1.0);
        cost.learn(10.0);
        assert_eq!(cost.item_ms(), Some(10.0));
        cost.learn(12.0);
        assert_eq!(cost.item_ms(), Some(11.0));
    }

    #[test]
    fn items_get_half_of_the_target_whatever_the_commit_costs() {
        let mut cost = Cost::default();
        cost.learn(1.0);
        let within: Vec<_> = [0, 4, 5, 10, 80]
            .into_iter()
            .map(|own| {
                (0..20).for_each(|_| cost.learn_own(own * MS));
                cost.items_within(10 * MS)
            })
            .collect();
        assert_eq!(within, [10, 6, 5, 5, 5].map(Some));
    }

    #[test]
    fn what_was_seen_once_is_suspected_and_what_is_seen_again_is_known() {
        let mut cost = Cost::default();
        cost.learn(1.0);
        // A wait, twice; then a jump, up and down.
        for dear in [40.0, 100.0] {
            cost.learn_of_one(dear);
            assert_eq!((cost.item_ms(), cost.cautious_ms()), (Some(1.0), Some(dear)));
            cost.learn_of_one(1.0);
            assert_eq!((cost.item_ms(), cost.cautious_ms()), (Some(1.0), Some(1.0)));
        }
        cost.learn_of_one(10.0);
        cost.learn_of_one(9.0);
        assert_eq!(cost.item_ms(), Some(9.0));
        cost.learn_of_one(0.9);
        assert_eq!(cost.item_ms(), Some(0.9));
    }

    #[test]
    fn a_checkpoint_is_no_cost_of_every_batch() {
        let mut cost = Cost::default();
        for _ in 0..20 {
            cost.learn_own(MS);
        }
        cost.learn_own(500 * MS);
        assert!(cost.own_ms() < 2.0, "{cost:?}");
    }

    #[test]
    fn slices_that_cost_the_same_whatever_their_size_grow_and_others_do_not() {
        let (mut fixed, mut dear) = (Cost::default(), Cost::default());
        for _ in 0..8 {
            fixed.learn_overlong(fixed.undivided(), 5_000 * MS);
            let items = dear.undivided();
            dear.learn_overlong(items, 5_000 * MS * u32::try_from(items).unwrap());
        }
        assert_eq!(fixed.undivided(), 256);
        assert_eq!(dear.undivided(), 1, "{dear:?}");
        fixed.learn_in_time();
        assert_eq!(fixed.undivided(), 1);
    }

    proptest! {
        #[test]
        fn a_steady_cost_is_learnt_exactly(micros in 1_u64..100_000_000, items in 1_u64..1_000_000, batches in 1..50) {
            let mut cost = Cost::default();
            for _ in 0..batches {
                cost.remember(items, Duration::from_micros(micros));
            }
            let expected = micros as f64 / 1e3 / items as f64;
            let learnt = cost.item_ms().unwrap();
            prop_assert!((learnt - expected).abs() <= expected * 1e-9, "{learnt} is not {expected}");
        }
    }
}
