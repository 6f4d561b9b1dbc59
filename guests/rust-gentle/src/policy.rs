//! What the settings say, and what share of the time updates get.
//!
//! The share grows by `increase` for each new reading within `target_latency_ms`, and is multiplied by `decrease` for
//! each above it: additive increase, multiplicative decrease, the rule by which TCP shares a line (Chiu and Jain, 1989).

/// A reading of a signal.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// In the signal's own unit, as the target.
    pub value: f64,
    /// How old it is, in milliseconds.
    pub age_ms: u32,
}

/// Rests shorter than this are left out: the host makes none of less.
const SHORTEST_REST_MS: f64 = 10.0;
/// The longest rest, in milliseconds; then the latency is looked at again.
const LONGEST_REST_MS: f64 = 60_000.0;
/// The share that an instance begins with.
const FIRST_SHARE: f64 = 0.1;

/// The settings, and what was learned.
pub struct Policy {
    signal: String,
    target_latency_ms: f64,
    target_ms: u32,
    stale_after_ms: u32,
    least_share: f64,
    most_share: f64,
    increase: f64,
    decrease: f64,
    /// The part of the time that batches get.
    share: f64,
    /// How long the last batch took, in milliseconds.
    last_batch_ms: f64,
    /// Time since the share was changed last, in milliseconds, as far as it is known: batches and rests. A reading that
    /// is older was taken into account already.
    since_change_ms: f64,
}

impl Policy {
    /// Reads the settings; an error names the key and what is wrong with its value.
    pub fn new(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let share = |key, default| number(&get, key, default, 0.000_1, 1.0);
        let (least_share, most_share) = (share("least_share", 0.01)?, share("most_share", 0.9)?);
        if least_share > most_share {
            return Err(format!(
                "setting `least_share` is {least_share}, more than `most_share`, which is {most_share}"
            ));
        }
        Ok(Self {
            signal: get("signal").unwrap_or_else(|| "probe-latency".to_owned()),
            target_latency_ms: number(&get, "target_latency_ms", 10.0, 0.0, 1e9)?,
            target_ms: number(&get, "target_ms", 100.0, 0.0, f64::from(i32::MAX))? as u32,
            stale_after_ms: number(&get, "stale_after_ms", 10_000.0, 0.0, f64::from(i32::MAX))? as u32,
            increase: number(&get, "increase", 0.05, 0.0, 1.0)?,
            decrease: number(&get, "decrease", 0.5, 0.0, 1.0)?,
            share: FIRST_SHARE.clamp(least_share, most_share),
            least_share,
            most_share,
            last_batch_ms: 0.0,
            since_change_ms: f64::INFINITY,
        })
    }

    /// The signal to read.
    pub fn signal(&self) -> &str {
        &self.signal
    }

    /// The duration that a batch aims at, in milliseconds.
    pub fn target_ms(&self) -> u32 {
        self.target_ms
    }

    /// The rest before a batch: how long in milliseconds, and why. `None` where none is worth it.
    pub fn rest(&mut self, reading: Option<Reading>) -> Option<(u32, String)> {
        let why = self.adjust(reading);
        let rest = (self.last_batch_ms * (1.0 / self.share - 1.0)).min(LONGEST_REST_MS);
        if rest < SHORTEST_REST_MS {
            return None;
        }
        self.since_change_ms += rest;
        let percent = self.share * 100.0;
        let percent = if percent < 10.0 { format!("{percent:.1}") } else { format!("{percent:.0}") };
        Some((rest as u32, format!("{why}: updates get {percent} % of the time")))
    }

    /// Takes note of how long a batch took, in milliseconds.
    pub fn note_batch(&mut self, duration_ms: f64) {
        self.last_batch_ms = duration_ms.max(0.0);
        self.since_change_ms += self.last_batch_ms;
    }

    /// Sets the share by a reading, where it is a new one; says what speaks for the share.
    fn adjust(&mut self, reading: Option<Reading>) -> String {
        let signal = &self.signal;
        let Some(Reading { value, age_ms }) = reading else {
            self.share = self.least_share;
            return format!("{signal} was never read");
        };
        if age_ms > self.stale_after_ms {
            self.share = self.least_share;
            return format!("{signal} was last read {} s ago", age_ms / 1_000);
        }
        // What is no number is not below the target.
        let fine = value <= self.target_latency_ms;
        if f64::from(age_ms) < self.since_change_ms {
            let share = if fine { self.share + self.increase } else { self.share * self.decrease };
            self.share = share.clamp(self.least_share, self.most_share);
            self.since_change_ms = 0.0;
        }
        let relation = if fine { "at most" } else { "more than" };
        format!("{signal} is {value:.1} ms, {relation} {} ms", self.target_latency_ms)
    }
}

fn number(
    get: &impl Fn(&str) -> Option<String>,
    key: &str,
    default: f64,
    least: f64,
    most: f64,
) -> Result<f64, String> {
    let Some(value) = get(key) else { return Ok(default) };
    match value.trim().parse::<f64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("setting `{key}` is \"{value}\", not a number from {least} to {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(settings: &[(&str, &str)]) -> Result<Policy, String> {
        Policy::new(|key| settings.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned()))
    }

    fn fresh(value: f64) -> Option<Reading> {
        Some(Reading { value, age_ms: 0 })
    }

    /// The rest of the next iteration, whose batch takes 100 ms.
    fn iterate(policy: &mut Policy, latency: f64) -> u32 {
        let rest = policy.rest(fresh(latency)).map_or(0, |(rest, _)| rest);
        policy.note_batch(100.0);
        rest
    }

    #[test]
    fn it_gives_a_little_more_while_latency_is_fine_and_half_as_much_as_soon_as_it_is_not() {
        let mut gentle = policy(&[]).unwrap();
        assert_eq!(iterate(&mut gentle, 5.0), 0, "nothing ran yet");
        let rests: Vec<u32> = (0..4).map(|_| iterate(&mut gentle, 5.0)).collect();
        // Shares of 0.2, 0.25, 0.3 and 0.35 of the time.
        assert_eq!(rests, [400, 300, 233, 185]);
        let rests: Vec<u32> = (0..3).map(|_| iterate(&mut gentle, 10.1)).collect();
        assert_eq!(rests, [471, 1_042, 2_185]);
        let (_, reason) = gentle.rest(fresh(12.34)).unwrap();
        assert_eq!(reason, "probe-latency is 12.3 ms, more than 10 ms: updates get 2.2 % of the time");
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let mut gentle = policy(&[("least_share", "0.05"), ("most_share", "0.5")]).unwrap();
        for (latency, rest) in [(1.0, 100), (99.0, 1_900)] {
            for _ in 0..50 {
                iterate(&mut gentle, latency);
            }
            assert_eq!(iterate(&mut gentle, latency), rest);
        }
    }

    #[test]
    fn one_reading_counts_once() {
        let mut gentle = policy(&[]).unwrap();
        gentle.note_batch(100.0);
        let rest = |gentle: &mut Policy, age_ms| gentle.rest(Some(Reading { value: 50.0, age_ms })).unwrap().0;
        assert_eq!(rest(&mut gentle, 20), 1_900);
        // Read before the share was changed, 2,000 ms ago.
        gentle.note_batch(100.0);
        assert_eq!(rest(&mut gentle, 2_020), 1_900);
        gentle.note_batch(100.0);
        assert_eq!(rest(&mut gentle, 500), 3_900);
    }

    #[test]
    fn without_a_fresh_reading_it_crawls() {
        let mut gentle = policy(&[("stale_after_ms", "3000"), ("least_share", "0.1"), ("signal", "depth")]).unwrap();
        for _ in 0..9 {
            iterate(&mut gentle, 0.0);
        }
        let (rest, reason) = gentle.rest(Some(Reading { value: 0.0, age_ms: 3_001 })).unwrap();
        assert_eq!((rest, reason.as_str()), (900, "depth was last read 3 s ago: updates get 10 % of the time"));
        assert!(gentle.rest(None).unwrap().1.starts_with("depth was never read"));
    }

    #[test]
    fn a_setting_that_is_wrong_is_named() {
        for (settings, expected) in [
            (&[("target_latency_ms", "-1")][..], "setting `target_latency_ms` is \"-1\", not a number from 0 to"),
            (&[("decrease", "half")], "setting `decrease` is \"half\", not a number from 0 to 1"),
            (&[("least_share", "0")], "setting `least_share` is \"0\", not a number from 0.0001 to 1"),
            (&[("least_share", "0.95")], "setting `least_share` is 0.95, more than `most_share`, which is 0.9"),
            (&[("target_ms", "2147483648")], "setting `target_ms` is \"2147483648\", not a number from 0 to"),
        ] {
            let error = policy(settings).map(drop).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
