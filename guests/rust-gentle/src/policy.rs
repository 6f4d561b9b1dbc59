//! What the settings say, and what the signals mean by them.

use crate::gentle::{Bounds, Gentle, Latency, Rest};

/// A reading of a signal.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// In milliseconds.
    pub value: f64,
    /// How old it is, in milliseconds.
    pub age_ms: u32,
}

/// What the pace goes by.
#[derive(Debug, Clone, PartialEq)]
enum Measure {
    /// What the host's probe tells of the foreground, and of what it is by itself.
    Excess,
    /// A signal that is to stay within a target.
    Target { signal: String, target_ms: f64 },
}

/// The host's signals.
const LATENCY: &str = "foreground-latency";
const UNDISTURBED: &str = "foreground-undisturbed";

/// The part of a target above which the pace slackens.
const NEAR_TARGET: f64 = 0.8;

/// The settings, and what was learned.
pub struct Policy {
    measure: Measure,
    bounds: Bounds,
    gentle: Gentle,
}

impl Policy {
    /// Reads the settings; an error names the key and what is wrong with its value.
    pub fn new(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let read = |key, default, least, most| number(&get, key, default, least, most);
        let (least, most) =
            (read("least_duty_percent", 2.0, 1.0, 100.0)?, read("most_duty_percent", 90.0, 1.0, 100.0)?);
        if least > most {
            return Err(format!(
                "setting `least_duty_percent` is {least}, more than `most_duty_percent`, which is {most}"
            ));
        }
        let longest = f64::from(i32::MAX);
        let bounds = Bounds {
            least_duty: least / 100.0,
            most_duty: most / 100.0,
            shortest_batch_ms: read("shortest_batch_ms", 10.0, 0.0, longest)?,
            longest_batch_ms: read("target_ms", 100.0, 0.0, longest)?,
            longest_sleep_ms: read("longest_sleep_ms", 10_000.0, 10.0, longest)?,
            plain_sleep_ms: read("sleep_duration_ms", 1_000.0, 0.0, longest)?,
            allowed_excess: read("allowed_excess_percent", 25.0, 0.0, 10_000.0)? / 100.0,
            allowed_excess_ms: read("allowed_excess_ms", 0.3, 0.0, 1e9)?,
            stale_after_ms: read("stale_after_ms", 5_000.0, 0.0, longest)?,
        };
        let (signal, target_ms) = (get("signal"), read("target_latency_ms", 10.0, 0.0, 1e9)?);
        let measure = match signal {
            None if get("target_latency_ms").is_none() => Measure::Excess,
            signal => Measure::Target { signal: signal.unwrap_or_else(|| "probe-latency".to_owned()), target_ms },
        };
        Ok(Self { measure, bounds, gentle: Gentle::new(bounds) })
    }

    /// The duration that the next batch aims at, in milliseconds.
    pub fn target_ms(&self) -> u32 {
        self.gentle.target_ms() as u32
    }

    /// The next rest before a batch: how long in milliseconds, and why. `None` once the batch may run.
    pub fn rest(&mut self, read: impl Fn(&str) -> Option<Reading>) -> Option<(u32, String)> {
        let latency = self.latency(read);
        let Rest { ms, reason } = self.gentle.rest(latency)?;
        Some((ms as u32, reason))
    }

    /// Takes note of how long a batch took, in milliseconds.
    pub fn note_batch(&mut self, duration_ms: f64) {
        self.gentle.note_batch(duration_ms);
    }

    fn latency(&self, read: impl Fn(&str) -> Option<Reading>) -> Option<Latency> {
        let (latency, undisturbed_ms, limit_ms) = match &self.measure {
            Measure::Excess => {
                let undisturbed = read(UNDISTURBED)?.value;
                (read(LATENCY)?, undisturbed, self.bounds.limit(undisturbed))
            }
            Measure::Target { signal, target_ms } => (read(signal)?, target_ms * NEAR_TARGET, *target_ms),
        };
        Some(Latency { latency_ms: latency.value, undisturbed_ms, limit_ms, age_ms: f64::from(latency.age_ms) })
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

    /// Many iterations with these readings; the last rest.
    fn iterate(policy: &mut Policy, readings: &[(&str, f64)]) -> Option<(u32, String)> {
        let read = |signal: &str| {
            let found = readings.iter().find(|(name, _)| *name == signal);
            found.map(|(_, value)| Reading { value: *value, age_ms: 20 })
        };
        let mut rest = None;
        for _ in 0..500 {
            rest = policy.rest(read);
            while policy.rest(read).is_some() {}
            policy.note_batch(100.0);
        }
        rest
    }

    #[test]
    fn it_goes_by_the_excess_over_what_the_probe_shows_while_nothing_runs() {
        let mut gentle = policy(&[]).unwrap();
        let rest = iterate(&mut gentle, &[(LATENCY, 4.1), (UNDISTURBED, 4.0)]).unwrap();
        assert_eq!(rest, (11, "foreground latency 4.10 ms <= 5.00 ms: updates get 90 % of the time".to_owned()));
        assert_eq!(gentle.target_ms(), 100);
        let rest = iterate(&mut gentle, &[(LATENCY, 8.0), (UNDISTURBED, 4.0)]).unwrap();
        assert_eq!(rest, (4_900, "foreground latency 8.00 ms > 5.00 ms: updates get 2.0 % of the time".to_owned()));
        assert_eq!(gentle.target_ms(), 10);
    }

    #[test]
    fn a_target_of_the_operators_counts_where_there_is_one() {
        for (settings, signal) in [
            (&[("target_latency_ms", "20")][..], "probe-latency"),
            (&[("target_latency_ms", "20"), ("signal", "checkout")], "checkout"),
        ] {
            let mut gentle = policy(settings).unwrap();
            let share = |gentle: &mut Policy, value| iterate(gentle, &[(signal, value)]).unwrap().1;
            assert!(share(&mut gentle, 15.0).contains("15 ms <= 20 ms: updates get 90 %"));
            assert!(share(&mut gentle, 25.0).contains("25 ms > 20 ms: updates get 2.0 %"));
        }
    }

    #[test]
    fn without_signals_it_does_as_hosts_do_by_default() {
        let mut gentle = policy(&[("sleep_duration_ms", "700")]).unwrap();
        let rest = iterate(&mut gentle, &[(LATENCY, 4.1)]).unwrap();
        assert_eq!((rest.0, gentle.target_ms()), (700, 100));
        assert!(rest.1.contains("was never read"), "{}", rest.1);
    }

    #[test]
    fn a_setting_that_is_wrong_is_named() {
        for (settings, expected) in [
            (&[("target_latency_ms", "-1")][..], "setting `target_latency_ms` is \"-1\", not a number from 0 to"),
            (
                &[("allowed_excess_percent", "some")],
                "setting `allowed_excess_percent` is \"some\", not a number from 0",
            ),
            (&[("least_duty_percent", "0")], "setting `least_duty_percent` is \"0\", not a number from 1 to 100"),
            (
                &[("least_duty_percent", "95")],
                "setting `least_duty_percent` is 95, more than `most_duty_percent`, which",
            ),
            (&[("target_ms", "2147483648")], "setting `target_ms` is \"2147483648\", not a number from 0 to"),
        ] {
            let error = policy(settings).map(drop).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
