//! What the settings say, and what is held for which reading.

use std::cell::Cell;

/// A reading of a signal.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// In the signal's own unit.
    pub value: f64,
    /// How old it is, in milliseconds.
    pub age_ms: u32,
}

/// The settings, and what is held by them.
pub struct Policy {
    guards: Vec<Guard>,
    stale_after_ms: u32,
    check_ms: u32,
    rest_ms: u32,
    target_ms: u32,
}

/// The bounds of one signal. It holds from above `hold` until no more than `resume`, so that a value near one bound does
/// not hold and let go by turns.
struct Guard {
    signal: &'static str,
    unit: &'static str,
    hold: f64,
    resume: f64,
    holding: Cell<bool>,
}

impl Policy {
    /// Reads the settings; an error names the key and what is wrong with its value.
    pub fn new(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let lag = ("max_replication_lag_ms", "resume_replication_lag_ms", 1_000.0);
        let waiting = ("max_waiting_sessions", "resume_waiting_sessions", 3.0);
        let guards = [guard(&get, "replication-lag", " ms", lag)?, guard(&get, "waiting-sessions", "", waiting)?];
        let guards: Vec<Guard> = guards.into_iter().flatten().collect();
        if guards.is_empty() {
            let words = "settings `max_replication_lag_ms` and `max_waiting_sessions` are both \"off\": nothing is left to guard";
            return Err(words.to_owned());
        }
        Ok(Self {
            guards,
            stale_after_ms: whole(&get, "stale_after_ms", 10_000)?,
            check_ms: whole(&get, "check_ms", 500)?,
            rest_ms: whole(&get, "rest_ms", 100)?,
            target_ms: whole(&get, "target_ms", 100)?,
        })
    }

    /// Why updates are held now, where they are.
    pub fn hold(&self, read: impl Fn(&str) -> Option<Reading>) -> Option<String> {
        // Every guard looks each time, so that none keeps holding for what is long over.
        let reasons: Vec<String> =
            self.guards.iter().filter_map(|guard| guard.hold(read(guard.signal), self.stale_after_ms)).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// How long to wait before looking again, in milliseconds.
    pub fn check_ms(&self) -> u32 {
        self.check_ms
    }

    /// How long to rest before each batch, in milliseconds.
    pub fn rest_ms(&self) -> u32 {
        self.rest_ms
    }

    /// The duration that a batch aims at, in milliseconds.
    pub fn target_ms(&self) -> u32 {
        self.target_ms
    }
}

impl Guard {
    fn hold(&self, reading: Option<Reading>, stale_after_ms: u32) -> Option<String> {
        let Self { signal, unit, hold, resume, holding } = self;
        let Some(Reading { value, age_ms }) = reading else { return Some(format!("{signal} was never read")) };
        if age_ms > stale_after_ms {
            return Some(format!("{signal} was last read {} s ago", age_ms / 1_000));
        }
        // What is no number is not below any bound.
        let within = |bound: &f64| value <= *bound;
        holding.set(if holding.get() { !within(resume) } else { !within(hold) });
        let value = value.round();
        match (holding.get(), value > *hold) {
            (false, _) => None,
            (true, true) => Some(format!("{signal} is {value}{unit}, more than {hold}{unit}")),
            (true, false) => Some(format!("{signal} is {value}{unit}, not yet down to {resume}{unit}")),
        }
    }
}

fn guard(
    get: &impl Fn(&str) -> Option<String>,
    signal: &'static str,
    unit: &'static str,
    (key, resume_key, default): (&str, &str, f64),
) -> Result<Option<Guard>, String> {
    let Some(hold) = bound(get, key)?.unwrap_or(Some(default)) else { return Ok(None) };
    let resume = bound(get, resume_key)?.flatten().unwrap_or(hold / 2.0);
    if resume > hold {
        return Err(format!("setting `{resume_key}` is {resume}, more than `{key}`, which is {hold}"));
    }
    Ok(Some(Guard { signal, unit, hold, resume, holding: Cell::new(false) }))
}

/// A bound; `Some(None)` where it is "off", `None` where nothing is said.
fn bound(get: &impl Fn(&str) -> Option<String>, key: &str) -> Result<Option<Option<f64>>, String> {
    let Some(value) = get(key) else { return Ok(None) };
    if value.trim() == "off" {
        return Ok(Some(None));
    }
    match value.trim().parse::<f64>() {
        Ok(number) if number >= 0.0 && number.is_finite() => Ok(Some(Some(number))),
        _ => Err(format!("setting `{key}` is \"{value}\", neither a number of 0 or more nor \"off\"")),
    }
}

fn whole(get: &impl Fn(&str) -> Option<String>, key: &str, default: u32) -> Result<u32, String> {
    let Some(value) = get(key) else { return Ok(default) };
    match value.trim().parse::<u32>() {
        Ok(number) if number <= i32::MAX as u32 => Ok(number),
        _ => Err(format!("setting `{key}` is \"{value}\", not a number from 0 to {}", i32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(settings: &[(&str, &str)]) -> Result<Policy, String> {
        Policy::new(|key| settings.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned()))
    }

    /// The reasons for one lag after another, each read just now, while nobody waits.
    fn reasons(policy: &Policy, lags: &[f64]) -> Vec<String> {
        let fresh = |value: f64| Some(Reading { value, age_ms: 70 });
        let reason = |lag: &f64| policy.hold(|signal| fresh(if signal == "replication-lag" { *lag } else { 0.0 }));
        lags.iter().map(|lag| reason(lag).unwrap_or_default()).collect()
    }

    #[test]
    fn it_holds_above_one_bound_until_another_is_reached() {
        let over = |lag: u32| format!("replication-lag is {lag} ms, more than 1000 ms");
        let between = |lag: u32| format!("replication-lag is {lag} ms, not yet down to 500 ms");
        let told = reasons(&policy(&[]).unwrap(), &[0.0, 1_000.0, 1_001.0, 999.0, 501.0, 500.0, 999.0, 2_400.4]);
        let run = String::new;
        assert_eq!(told, [run(), run(), over(1_001), between(999), between(501), run(), run(), over(2_400)]);
    }

    #[test]
    fn what_is_stale_or_was_never_read_holds() {
        let guard = policy(&[("stale_after_ms", "2000"), ("max_waiting_sessions", "off")]).unwrap();
        assert_eq!(guard.hold(|_| None).as_deref(), Some("replication-lag was never read"));
        let aged = |age_ms| guard.hold(|_| Some(Reading { value: 0.0, age_ms }));
        assert_eq!(aged(2_001).as_deref(), Some("replication-lag was last read 2 s ago"));
        assert_eq!(aged(2_000), None);
    }

    #[test]
    fn every_reason_is_told_and_what_is_off_is_not_read() {
        let both = policy(&[("max_replication_lag_ms", "20"), ("max_waiting_sessions", "0")]).unwrap();
        let busy = |_: &str| Some(Reading { value: 30.0, age_ms: 0 });
        let told = "replication-lag is 30 ms, more than 20 ms; waiting-sessions is 30, more than 0";
        assert_eq!(both.hold(busy).as_deref(), Some(told));
        let one = policy(&[("max_replication_lag_ms", "off")]).unwrap();
        assert_eq!(one.hold(busy).as_deref(), Some("waiting-sessions is 30, more than 3"));
        assert!(both.hold(|_| Some(Reading { value: f64::NAN, age_ms: 0 })).is_some());
    }

    #[test]
    fn a_setting_that_is_wrong_is_named() {
        for (settings, expected) in [
            (&[("max_replication_lag_ms", "-1")][..], "setting `max_replication_lag_ms` is \"-1\", neither a number"),
            (&[("max_waiting_sessions", "few")], "setting `max_waiting_sessions` is \"few\", neither a number"),
            (&[("resume_replication_lag_ms", "1001")], "setting `resume_replication_lag_ms` is 1001, more than"),
            (&[("stale_after_ms", "soon")], "setting `stale_after_ms` is \"soon\", not a number from 0"),
            (&[("target_ms", "2147483648")], "setting `target_ms` is \"2147483648\", not a number from 0"),
            (
                &[("max_replication_lag_ms", "off"), ("max_waiting_sessions", "off")],
                "settings `max_replication_lag_ms` and `max_waiting_sessions` are both \"off\"",
            ),
        ] {
            let error = policy(settings).map(drop).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
