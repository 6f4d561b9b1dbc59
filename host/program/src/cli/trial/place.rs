//! Where a batch that is tried begins.

use std::str::FromStr;

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// How far into the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Place {
    /// So far: 0.0 is the beginning.
    Part(f64),
    /// Anywhere.
    Random,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no place: say a part of the table from \"0%\" to \"99%\", or \"random\"");
        if text.trim() == "random" {
            return Ok(Self::Random);
        }
        let number = text.trim().strip_suffix('%').ok_or_else(wrong)?;
        let percent: f64 = number.trim().parse().map_err(|_| wrong())?;
        if (0.0..=99.0).contains(&percent) { Ok(Self::Part(percent / 100.0)) } else { Err(wrong()) }
    }
}

impl Place {
    /// The part of the table before it, for the one of this number among several.
    pub(super) fn part(self, seed: u64, number: u64) -> f64 {
        match self {
            Self::Part(part) => part,
            Self::Random => {
                let mut random = Pcg64Mcg::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                0.99 * (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
            }
        }
    }

    /// The place in words, where that is the part before it.
    pub(super) fn told(self, part: f64) -> String {
        let percent = format!("{:.0}%", part * 100.0);
        if self == Self::Random { format!("{percent} (random)") } else { percent }
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn places_are_parts_of_a_table_or_random() {
        assert_eq!("0%".parse(), Ok(Place::Part(0.0)));
        assert_eq!(" 12.5 % ".parse(), Ok(Place::Part(0.125)));
        assert_eq!("random".parse(), Ok(Place::Random));
        for wrong in ["", "50", "100%", "-1%", "NaN%", "half"] {
            assert!(wrong.parse::<Place>().unwrap_err().contains("is no place"), "{wrong}");
        }
        let parts = |seed| [0, 1, 2].map(|number| Place::Random.part(seed, number));
        assert_eq!(parts(7), parts(7));
        assert_ne!(parts(7), parts(8));
        let mut all = parts(7);
        all.sort_by(f64::total_cmp);
        assert!(all[0] >= 0.0 && all[0] < all[1] && all[1] < all[2] && all[2] < 0.99);
    }
}
