//! How a batch is taken apart that the database refuses for the sake of single items: how many are tried at once.
//!
//! What is refused is halved until one item remains. From how far apart those lay, pieces are sized that are seldom refused.
//! Where nothing is refused any more, pieces grow until they are slices again.

/// Between two items that are refused come so many pieces. What comes before the first in a piece is done in vain: with
/// fewer pieces more is, and more of them cost more statements.
const PIECES: u64 = 3;
/// Where none was refused for so many times as long as they were apart, pieces grow.
const RARE: u64 = 4;

/// What is known of the items that are refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Halving {
    /// One of so many items, the next, is refused.
    suspects: Option<u64>,
    /// As many are tried at once where nothing is known of them; `None` where all were taken lately.
    most: Option<u64>,
    /// How far apart items are that are refused, as it was seen so far.
    apart: u64,
    /// Items that were taken since the last one that was not.
    since: u64,
    /// True where each piece has a transaction of its own, because it is refused only at the commit.
    alone: bool,
    /// True where something was refused in the batch in hand.
    refused: bool,
    /// The most items that a slice of the batch in hand was to have.
    wanted: u64,
}

impl Halving {
    /// How many of `items` are to be tried at once.
    pub fn piece(&mut self, items: u64) -> u64 {
        self.wanted = self.wanted.max(items);
        match self.suspects {
            Some(suspects) => (suspects / 2).clamp(1, items.max(1)),
            None => self.most.map_or(items, |most| most.clamp(1, items.max(1))),
        }
    }

    /// True where items were refused lately, so that the transaction is marked before anything is tried.
    pub fn is_careful(&self) -> bool {
        self.most.is_some() || self.suspects.is_some()
    }

    /// True where each piece is to have a transaction of its own.
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// True where it is known that one of the next items is refused: what such pieces take says little of others.
    pub fn is_searching(&self) -> bool {
        self.suspects.is_some()
    }

    /// A batch begins.
    pub fn begin(&mut self) {
        (self.refused, self.wanted) = (false, 0);
    }

    /// Takes note of a piece that was taken.
    pub fn passed(&mut self, items: u64) {
        self.since = self.since.saturating_add(items);
        match self.suspects {
            Some(suspects) => self.suspects = suspects.checked_sub(items).filter(|left| *left > 0),
            None => {
                let is_rare = self.since > self.apart.saturating_mul(RARE);
                if let Some(most) = self.most.as_mut().filter(|most| is_rare && items >= **most) {
                    *most = most.saturating_mul(2);
                }
            }
        }
    }

    /// Takes note of a piece that was refused; with `alone`, at its commit.
    pub fn refused(&mut self, items: u64, alone: bool) {
        self.suspects = Some(items.max(1));
        self.alone |= alone;
        self.refused = true;
    }

    /// Takes note that the one item that was refused is left behind.
    pub fn left_behind(&mut self) {
        let since = self.since.max(1);
        self.apart = match self.most {
            None => since,
            Some(_) => (self.apart / 4).saturating_mul(3).saturating_add(since / 4).max(1),
        };
        self.most = Some((self.apart / PIECES).max(1));
        (self.suspects, self.since, self.refused) = (None, 0, true);
    }

    /// A batch was committed: nothing is known any more where pieces have become slices.
    pub fn committed(&mut self) {
        let is_over = self.most.is_none_or(|most| most > self.wanted) && !self.refused && self.suspects.is_none();
        if is_over {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Goes through `items`, of which those of these numbers are refused: which were left behind, and how many were tried in
    /// all. A piece costs what comes before the first that is refused.
    fn through(items: u64, bad: &[u64], batch: u64) -> (Vec<u64>, u64, u64) {
        let (mut halving, mut place) = (Halving::default(), 0);
        let (mut left, mut tried, mut pieces) = (Vec::new(), 0, 0);
        while place < items {
            halving.begin();
            let end = items.min(place + batch);
            while place < end {
                let piece = halving.piece(end - place);
                pieces += 1;
                match bad.iter().find(|bad| (place..place + piece).contains(bad)) {
                    None => {
                        tried += piece;
                        place += piece;
                        halving.passed(piece);
                    }
                    Some(bad) => {
                        tried += bad - place + 1;
                        halving.refused(piece, false);
                        if piece == 1 {
                            left.push(place);
                            place += 1;
                            halving.left_behind();
                        }
                    }
                }
            }
            halving.committed();
        }
        (left, tried, pieces)
    }

    proptest! {
        #[test]
        fn all_that_is_refused_is_found_and_nothing_else(
            items in 1_u64..5_000,
            bad in proptest::collection::btree_set(0_u64..5_000, 0..40),
            batch in 1_u64..3_000,
        ) {
            let bad: Vec<u64> = bad.into_iter().filter(|bad| *bad < items).collect();
            prop_assert_eq!(through(items, &bad, batch).0, bad);
        }
    }

    #[test]
    fn one_in_a_thousand_costs_less_than_half_as_much_again() {
        // Spread by a multiplier, seeded by nothing but the numbers themselves.
        let mut bad: Vec<u64> = (0..1_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000_000).collect();
        bad.sort_unstable();
        bad.dedup();
        let (left, tried, pieces) = through(1_000_000, &bad, 20_000);
        assert_eq!(left, bad);
        assert!(tried < 1_500_000, "{tried} rows");
        assert!(pieces < 20_000, "{pieces} statements");
    }

    #[test]
    fn where_nothing_is_refused_any_more_all_is_as_before() {
        let mut halving = Halving::default();
        halving.refused(1_000, false);
        assert!(halving.is_careful() && halving.is_searching());
        for _ in 0..20 {
            let piece = halving.piece(1_000);
            halving.refused(piece, false);
        }
        assert_eq!(halving.piece(1_000), 1);
        halving.left_behind();
        for _ in 0..30 {
            halving.begin();
            let mut items = 0;
            while items < 1_000 {
                let piece = halving.piece(1_000 - items);
                halving.passed(piece);
                items += piece;
            }
            halving.committed();
        }
        assert_eq!(halving, Halving::default());
    }
}
