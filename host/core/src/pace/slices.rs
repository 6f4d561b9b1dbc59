//! The slices of one batch: how many items each asks for, and when one is cut off.
//!
//! A batch is over when its target is used up. What is known from earlier batches sizes the first slice, and nothing
//! else: each further one is sized by what this batch has seen. So a cost that jumps is followed within the batch.

use std::time::Duration;

use super::{Cost, milliseconds};

/// A slice asks for at most this many times what the largest before it did: cheap rows say little of those behind them.
const GROWTH: u64 = 4;
/// The part of what is left of the target that a slice is to take.
const SHARE: f64 = 0.75;
/// The same for the first slice, where costs were not as expected lately.
const FIRST_SHARE: f64 = 0.25;
/// Where less than this part of the target is left, one slice is to take all of it.
const LAST: f64 = 1.0 / 3.0;
/// Where less than this part of the target is left, the batch is over.
const TAIL: f64 = 0.04;
/// A batch may take longer than its target by this part of it …
const OVERRUN: f64 = 0.2;
/// … or by this many milliseconds, whichever is more, before its slice is cut off: clocks and servers are not more exact.
const OVERRUN_LEAST: f64 = 20.0;
/// The part of the target that may go into doing again what was undone with a slice that was cut off.
const REDO: f64 = 0.15;
/// A slice, or several short ones together, tell what items cost from this part of the target on: one in so many.
const TELLING: f64 = 50.0;
/// Costs of items that differ by less than this factor are of one mind.
const AGREE: f64 = 2.0;
/// The most slices of a batch: each is a subtransaction, of which PostgreSQL keeps 64 at hand.
const MOST: u32 = 32;

/// What bounds a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// How long it is to take.
    pub target: Duration,
    /// Items that it is expected to do. Where nothing is known of the update's cost, its first slice asks for so many.
    pub expected: u64,
    /// Items that it is to do even where the target is used up …
    pub min: u64,
    /// … but not for longer than this.
    pub cut_off: Duration,
    /// Items that it is to do at most. 1 or more.
    pub max: u64,
}

/// One slice, planned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slice {
    /// Items to ask for. 1 or more.
    pub items: u64,
    /// When it is to be cut off, from the beginning of the batch; `None` where it cannot be made smaller.
    pub limit: Option<Duration>,
}

/// The slices of a batch.
#[derive(Debug, Clone)]
pub struct Slices {
    bounds: Bounds,
    cost: Cost,
    /// True where the batch is one slice, as Synapse's are.
    whole: bool,
    count: u32,
    /// So many slices at most.
    most: u32,
    /// Items asked for, and items done, in slices that went through.
    asked: u64,
    items: u64,
    /// Milliseconds an item by the last of them that tells.
    item_ms: Option<f64>,
    /// The same by the first one.
    first_ms: Option<f64>,
    /// Milliseconds and items of those since, which were too short to tell by themselves: one that waited for others before
    /// them is no measure of what they show.
    short: (f64, u64),
    /// True where the last two that tell are of one mind: a wait for others meets one of them.
    agreed: bool,
    /// The largest of them.
    largest: u64,
    /// The size of the smallest slice that was cut off.
    too_large: Option<u64>,
    /// True where a slice was cut off because its items cost more than expected.
    mistaken: bool,
    /// Items that went through and were undone with a slice behind them: as many are known to go through again.
    redo: u64,
    /// A slice that was longer than it should have been and could not be cut off: its items, and what it took.
    overlong: Option<(u64, Duration)>,
}

impl Slices {
    /// The slices of a batch, by what is known of earlier ones.
    pub fn new(bounds: Bounds, cost: Cost) -> Self {
        let stretched = Duration::try_from_secs_f64(cost.stretched(bounds.target) / 1e3);
        let target = stretched.map_or(bounds.target, |stretched| stretched.max(bounds.target));
        Self {
            bounds: Bounds { target, ..bounds },
            cost,
            whole: false,
            count: 0,
            most: MOST,
            asked: 0,
            items: 0,
            item_ms: None,
            first_ms: None,
            short: (0.0, 0),
            agreed: false,
            largest: 0,
            too_large: None,
            mistaken: false,
            redo: 0,
            overlong: None,
        }
    }

    /// A batch of one slice of all that is expected, as Synapse's are; smaller ones only where it is cut off.
    pub fn whole(bounds: Bounds, cost: Cost) -> Self {
        Self { whole: true, ..Self::new(bounds, cost) }
    }

    /// Items that the batch is expected to do.
    pub fn expected(&self) -> u64 {
        self.bounds.expected
    }

    /// The batch is taken apart: pieces of it follow each other, so many at most, even where it was to be one slice.
    pub fn take_apart(&mut self, most: u32) {
        (self.whole, self.most) = (false, most);
    }

    /// Nothing is left of what was done.
    pub fn undone(&mut self) {
        (self.count, self.asked, self.items, self.short, self.largest) = (0, 0, 0, (0.0, 0), 0);
    }

    /// Takes note of a slice that went through and whose time says nothing of what others cost.
    pub fn done_aside(&mut self, slice: Slice, items: u64) {
        self.count += 1;
        self.asked = self.asked.saturating_add(slice.items);
        self.items = self.items.saturating_add(items);
        self.largest = self.largest.max(slice.items);
    }

    /// Items asked for so far, in slices that went through.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// True where nothing was done yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The next slice of a batch that began `elapsed` ago; `None` where the batch is over.
    pub fn next(&self, elapsed: Duration) -> Option<Slice> {
        let room = self.bounds.max.saturating_sub(self.asked);
        if room == 0 || (self.count > 0 && (self.count >= self.most || (self.whole && self.too_large.is_none()))) {
            return None;
        }
        let wanted = if self.count == 0 { self.first(elapsed) } else { self.further(elapsed)? };
        // What was cut off once is not asked for again.
        let most = self.too_large.map_or(u64::MAX, |cut| (cut / 2).max(1));
        let items = wanted.min(most).clamp(1, room);
        let known = self.too_large.map_or(0, |_| self.redo).max(self.cost.undivided());
        let cut_off = self.count > 0 || items > known;
        Some(Slice { items, limit: cut_off.then(|| self.limit(items)) })
    }

    fn first(&self, elapsed: Duration) -> u64 {
        let Bounds { target, expected, min, .. } = self.bounds;
        if self.too_large.is_some() && elapsed >= target {
            // Nothing is done, and the time is over: as little as is possible, or what was done before, as far as it is cheap.
            let again = self.item_ms.map_or(0, |item_ms| fitting(milliseconds(target) * REDO, item_ms));
            return self.redo.min(again).max(self.cost.undivided());
        }
        if self.whole {
            return expected;
        }
        let left = milliseconds(target) - milliseconds(elapsed) - self.cost.own_ms();
        match self.item_ms.or(self.cost.cautious_ms()) {
            None => expected,
            Some(item_ms) => {
                let share = if self.cost.is_certain() { SHARE } else { FIRST_SHARE };
                let fitting = fitting(left * share, item_ms).max(self.least(elapsed, min, item_ms));
                fitting.min(self.cost.most()).max(self.cost.undivided())
            }
        }
    }

    /// The size of a slice that is not the first.
    fn further(&self, elapsed: Duration) -> Option<u64> {
        let Bounds { target, min, .. } = self.bounds;
        let target = milliseconds(target);
        let left = target - milliseconds(elapsed) - self.cost.own_ms();
        let growing = self.largest.saturating_mul(GROWTH).max(1);
        let Some(item_ms) = self.item_ms else {
            // No item was counted: only the time tells how long to go on.
            return (left > target * TAIL).then_some(growing);
        };
        let share = if left <= target * LAST { 1.0 } else { SHARE };
        let within = if left > target * TAIL { fitting(left * share, item_ms) } else { 0 };
        let least = self.least(elapsed, min.saturating_sub(self.items), item_ms);
        match within.max(least) {
            0 => None,
            wanted => Some(wanted.min(growing)),
        }
    }

    /// What is missing of the least, as far as there is time for that.
    fn least(&self, elapsed: Duration, missing: u64, item_ms: f64) -> u64 {
        let left = milliseconds(self.cut_off()) - milliseconds(elapsed) - self.cost.own_ms();
        missing.min(fitting(left * SHARE, item_ms))
    }

    /// When a slice of `items` is to be cut off.
    fn limit(&self, items: u64) -> Duration {
        let missing = self.bounds.min.saturating_sub(self.items);
        // More than the least is not asked for beyond the target.
        if self.whole || (missing > 0 && items <= missing) { self.cut_off() } else { self.overrun() }
    }

    /// When a batch is cut off that has done what it must.
    fn overrun(&self) -> Duration {
        let target = milliseconds(self.bounds.target);
        Duration::from_secs_f64((target + (target * OVERRUN).max(OVERRUN_LEAST)) / 1e3)
    }

    /// When any batch is cut off.
    fn cut_off(&self) -> Duration {
        self.bounds.cut_off.max(self.overrun())
    }

    /// Takes note of a slice that went through.
    pub fn done(&mut self, slice: Slice, items: u64, took: Duration) {
        let ms = milliseconds(took);
        self.count += 1;
        self.asked = self.asked.saturating_add(slice.items);
        self.items = self.items.saturating_add(items);
        self.largest = self.largest.max(slice.items);
        if items > 0 {
            self.note_cost(ms, items);
        }
        if slice.limit.is_none() && took > self.cut_off() {
            self.overlong = Some((slice.items, took));
        }
    }

    /// Takes note of what a slice's items cost. One that was too short to tell counts with the short ones before it.
    fn note_cost(&mut self, ms: f64, items: u64) {
        let least = milliseconds(self.bounds.target) / TELLING;
        if ms < least {
            self.short = (self.short.0 + ms, self.short.1.saturating_add(items));
        }
        let (told_ms, told_items) = if ms < least { self.short } else { (ms, items) };
        let item_ms = told_ms / told_items as f64;
        if told_ms >= least {
            self.agreed = self.item_ms.is_some_and(|before| item_ms < before * AGREE && before < item_ms * AGREE);
            self.short = (0.0, 0);
            self.first_ms = self.first_ms.or(Some(item_ms));
        }
        self.item_ms = Some(item_ms);
    }

    /// Takes note of a slice that was cut off and undone: `all` where the slices before it are undone, too, `blocked` where
    /// it waited for others and its items are not to blame.
    pub fn cut(&mut self, slice: Slice, all: bool, blocked: bool) {
        self.mistaken |= !blocked;
        self.too_large = Some(self.too_large.map_or(slice.items, |size| size.min(slice.items)));
        if all {
            self.redo = self.asked;
            self.undone();
        }
    }

    /// Hands on what the batch has shown, once it is committed: `own` is what it took besides its slices.
    pub fn settle(&self, cost: &mut Cost, own: Duration) {
        if let Some(item_ms) = self.item_ms {
            if self.agreed || self.mistaken {
                cost.learn(item_ms);
            } else {
                // Where the batch began as was known, what it ended with is seen for the first time, whatever the last one did.
                self.first_ms.iter().filter(|first| **first != item_ms).for_each(|first| cost.learn_of_one(*first));
                cost.learn_of_one(item_ms);
            }
        }
        if self.mistaken {
            cost.mistake(self.largest.max(1).saturating_mul(GROWTH));
        } else {
            cost.be_right();
        }
        match self.overlong {
            Some((items, took)) => cost.learn_overlong(items, took),
            None => cost.learn_in_time(),
        }
        cost.learn_own(own);
    }
}

/// Items that take so many milliseconds.
fn fitting(ms: f64, item_ms: f64) -> u64 {
    match ms > 0.0 {
        // A float's cast saturates, and so does a division by zero.
        true => (ms / item_ms) as u64,
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn bounds() -> Bounds {
        Bounds { target: 100 * MS, expected: 100, min: 1, cut_off: 1_000 * MS, max: 1_000_000 }
    }

    /// One batch over items of which each costs what `cost` says by its number; how many were done, and how long it took.
    fn batch(slices: &mut Slices, from: u64, cost: impl Fn(u64) -> f64, undo: bool) -> (u64, f64) {
        let (mut elapsed, mut done) = (0.0, 0);
        while let Some(slice) = slices.next(Duration::from_secs_f64(elapsed / 1e3)) {
            let ms: f64 = (from + done..from + done + slice.items).map(&cost).sum();
            match slice.limit.map(milliseconds).filter(|limit| elapsed + ms > *limit) {
                Some(limit) => {
                    elapsed = elapsed.max(limit);
                    slices.cut(slice, undo, false);
                    if undo {
                        done = 0;
                    }
                }
                None => {
                    elapsed += ms;
                    done += slice.items;
                    let took = Duration::from_secs_f64(ms / 1e3);
                    slices.done(slice, slice.items, took);
                }
            }
        }
        (done, elapsed)
    }

    /// Batches one after the other: what each did, and how long it took.
    fn batches(count: u32, bounds: Bounds, cost: impl Fn(u64) -> f64, undo: bool) -> Vec<(u64, f64)> {
        let (mut known, mut from) = (Cost::default(), 0);
        let one = |_| {
            let mut slices = Slices::new(bounds, known);
            let (done, took) = batch(&mut slices, from, &cost, undo);
            slices.settle(&mut known, Duration::ZERO);
            from += done;
            (done, took)
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_batch_of_steady_cost_takes_its_target() {
        for (done, took) in batches(10, bounds(), |_| 0.01, false) {
            assert!((95.0..=101.0).contains(&took), "{done} items took {took} ms");
        }
    }

    #[test]
    fn cheap_items_before_dear_ones_cut_no_batch_loose() {
        for undo in [false, true] {
            let all = batches(400, bounds(), |item| if item < 90_000 { 0.001 } else { 5.0 }, undo);
            let longest = all.iter().map(|(_, took)| *took).fold(0.0, f64::max);
            assert!(longest <= 150.0, "{longest} ms where all is undone: {undo}");
            assert!(all.iter().all(|(done, _)| *done > 0), "{all:?}");
            let (_, last) = all[399];
            assert!((90.0..=110.0).contains(&last), "{last}");
            let small = all.iter().filter(|(done, _)| *done < 5).count();
            assert!(small < 12, "{small} batches did next to nothing");
        }
    }

    #[test]
    fn a_jump_is_followed_within_two_batches() {
        for factor in [10.0, 0.1] {
            let at = 40_000;
            let all = batches(60, bounds(), |item| if item < at { 0.02 } else { 0.02 * factor }, false);
            let (mut from, mut missed) = (0, 0);
            for (done, took) in all {
                from += done;
                if from > at && !(80.0..=120.0).contains(&took) {
                    missed += 1;
                }
            }
            assert!(missed <= 2, "{missed} batches were off after a cost that jumped by {factor}");
        }
    }

    /// Batches some slices of which wait for others: by its number in all, for so many milliseconds. How many items were done a
    /// millisecond of the time that was not waited, as a part of what can be; and how many slices it took.
    fn waited(count: u32, item_ms: f64, wait: impl Fn(u32) -> f64) -> (f64, u32, Cost) {
        let (mut known, mut number, mut items) = (Cost::default(), 0, 0);
        for _ in 0..count {
            let mut slices = Slices::new(bounds(), known);
            let mut elapsed = 0.0;
            while let Some(slice) = slices.next(Duration::from_secs_f64(elapsed / 1e3)) {
                let waits = wait(number);
                let took = slice.items as f64 * item_ms + waits;
                number += 1;
                elapsed += took;
                items += slice.items;
                let seconds = |ms: f64| Duration::from_secs_f64(ms / 1e3);
                slices.done(slice, slice.items, seconds(took));
            }
            slices.settle(&mut known, Duration::ZERO);
        }
        (items as f64 * item_ms / (f64::from(count) * 100.0), number, known)
    }

    #[test]
    fn a_wait_for_others_is_no_cost_of_the_items() {
        // Of a hundred batches of 100 ms: waits of 60 ms in every fifth slice, and in every third.
        for every in [3, 5, 11] {
            let (done, slices, known) = waited(100, 0.01, |number| if number % every == 1 { 60.0 } else { 0.0 });
            let waits = f64::from(slices.div_ceil(every)) * 60.0 / 10_000.0;
            println!("every {every}: {done:.2} of what can be, {waits:.2} waited, {slices} slices, {known:?}");
            assert!(done > (1.0 - waits) * 0.9, "{done} of what can be, where {waits} is waited in {slices} slices");
            let item_ms = known.item_ms().unwrap();
            assert!((0.008..0.015).contains(&item_ms), "{known:?}");
        }
    }

    #[test]
    fn the_least_is_done_beyond_the_target_and_within_the_cut_off() {
        let bounds = Bounds { min: 50, ..bounds() };
        let all = batches(5, bounds, |_| 10.0, false);
        assert!(all[1..].iter().all(|(done, _)| *done == 50), "{all:?}");
        let all = batches(5, bounds, |_| 100.0, false);
        assert!(all.iter().all(|(done, took)| (1..50).contains(done) && *took <= 1_100.0), "{all:?}");
    }

    #[test]
    fn an_item_that_takes_longer_than_everything_is_done() {
        let all = batches(5, bounds(), |_| 5_000.0, true);
        assert!(all.iter().all(|(done, _)| (1..=2).contains(done)), "{all:?}");
    }

    #[test]
    fn slices_without_items_or_time_end() {
        let mut slices = Slices::new(bounds(), Cost::default());
        let mut count = 0;
        while let Some(slice) = slices.next(Duration::ZERO) {
            slices.done(slice, 0, Duration::ZERO);
            count += 1;
        }
        assert!((2..=MOST).contains(&count), "{count}");
        let mut cost = Cost::default();
        slices.settle(&mut cost, Duration::ZERO);
        assert_eq!(cost.item_ms(), None);
    }

    #[test]
    fn a_whole_batch_is_one_slice() {
        let mut slices = Slices::whole(Bounds { expected: 500, ..bounds() }, Cost::default());
        let slice = slices.next(Duration::ZERO).unwrap();
        assert_eq!((slice.items, slice.limit), (500, Some(1_000 * MS)));
        slices.done(slice, 500, 20 * MS);
        assert_eq!(slices.next(20 * MS), None);
    }

    proptest! {
        #[test]
        fn every_batch_does_something_and_never_more_than_it_may(
            costs in prop::collection::vec(0.0_f64..2_000.0, 1..50),
            target in 1_u32..10_000, expected in 1_u64..10_000, min in 1_u64..10_000, max in 1_u64..10_000, undo in any::<bool>(),
        ) {
            let bounds = Bounds { target: MS * target, expected, min, cut_off: 1_000 * MS, max };
            let cost = |item: u64| costs[usize::try_from(item / 1_000).unwrap() % costs.len()] / 1e3;
            for (done, took) in batches(4, bounds, cost, undo) {
                prop_assert!((1..=max).contains(&done), "{done}");
                let most = (f64::from(target) * 1.2).max(f64::from(target) + 20.0).max(1_000.0);
                prop_assert!(took <= most * 1.6 + 2_000.0, "{took}");
            }
        }
    }
}
