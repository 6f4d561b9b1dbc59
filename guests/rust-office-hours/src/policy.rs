//! What the settings say, and what is answered at a given time.

use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;

use crate::hours::Hours;
use crate::window::Window;

/// The longest wait that is answered, in milliseconds: an hour. The host asks again after each, so that a clock that was
/// set meanwhile, or a machine that slept, is noticed.
const LONGEST_WAIT: u32 = 3_600_000;

/// The settings.
pub struct Policy {
    hours: Hours,
    target_ms: u32,
}

/// What enter answers.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Run { target_ms: u32 },
    Wait { ms: u32, reason: String },
}

impl Policy {
    /// Reads the settings; an error names the key and what is wrong with its value.
    pub fn new(get: impl Fn(&str) -> Option<String>) -> Result<Policy, String> {
        let Some(windows) = get("windows") else {
            return Err(
                "setting `windows` is missing: write e.g. \"mon-fri 22:00-06:00, sat-sun 00:00-24:00\"".to_owned()
            );
        };
        let windows = Window::parse_all(&windows).map_err(|problem| format!("setting `windows`: {problem}"))?;
        let zone = get("time_zone").unwrap_or_else(|| "UTC".to_owned());
        let zone = TimeZoneDatabase::bundled().get(zone.trim()).map_err(|_| {
            format!("setting `time_zone` is \"{zone}\", not a time zone's name such as \"Europe/Berlin\" or \"UTC\"")
        })?;
        Ok(Policy { hours: Hours::new(windows, zone), target_ms: target(get("target_ms"))? })
    }

    /// Run within the hours; wait outside, an hour at most.
    pub fn answer(&self, now: Timestamp) -> Result<Answer, String> {
        let next = self.hours.closed_until(now).map_err(|error| format!("the next window cannot be found: {error}"))?;
        let Some(next) = next else { return Ok(Answer::Run { target_ms: self.target_ms }) };
        // A millisecond more, so that the host does not ask again within the last one.
        let ms = next.duration_since(now).as_millis() + 1;
        Ok(Answer::Wait {
            ms: u32::try_from(ms).map_or(LONGEST_WAIT, |ms| ms.min(LONGEST_WAIT)),
            reason: format!("outside its hours: next window begins {}", self.hours.tell(next, now)),
        })
    }
}

fn target(value: Option<String>) -> Result<u32, String> {
    let Some(value) = value else { return Ok(100) };
    match value.trim().parse::<u32>() {
        Ok(ms) if ms <= i32::MAX as u32 => Ok(ms),
        _ => Err(format!("setting `target_ms` is \"{value}\", not a number from 0 to {}", i32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(settings: &[(&str, &str)]) -> Result<Policy, String> {
        Policy::new(|key| settings.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned()))
    }

    fn at(policy: &Policy, now: &str) -> Answer {
        policy.answer(now.parse().unwrap()).unwrap()
    }

    fn wait(ms: u32, next: &str) -> Answer {
        Answer::Wait { ms, reason: format!("outside its hours: next window begins {next}") }
    }

    #[test]
    fn runs_within_its_hours_and_waits_outside_with_the_reason() {
        let nights = [("windows", "mon-fri 22:00-06:00"), ("time_zone", "Europe/Berlin"), ("target_ms", "250")];
        let nights = policy(&nights).unwrap();
        // Monday the 5th of January 2026, an hour ahead of UTC.
        assert_eq!(at(&nights, "2026-01-05T21:00:00Z"), Answer::Run { target_ms: 250 });
        assert_eq!(at(&nights, "2026-01-05T20:59:00Z"), wait(60_001, "Mon 22:00 Europe/Berlin"));
        assert_eq!(at(&nights, "2026-01-05T20:59:59.999Z"), wait(2, "Mon 22:00 Europe/Berlin"));
    }

    #[test]
    fn no_wait_is_longer_than_an_hour_so_that_a_clock_that_is_set_is_noticed() {
        let nights = policy(&[("windows", "mon 22:00-23:00")]).unwrap();
        assert_eq!(at(&nights, "2026-01-05T23:00:00Z"), wait(3_600_000, "Mon 2026-01-12 22:00 UTC"));
        assert_eq!(at(&nights, "2026-01-06T00:00:00Z"), wait(3_600_000, "Mon 22:00 UTC"));
        assert_eq!(at(&nights, "2026-01-12T20:00:00Z"), wait(3_600_000, "Mon 22:00 UTC"));
    }

    #[test]
    fn a_time_zone_is_found_however_it_is_written_and_told_as_it_is_called() {
        let policy = policy(&[("windows", "08:00-09:00"), ("time_zone", " europe/berlin ")]).unwrap();
        assert_eq!(at(&policy, "2026-01-05T06:30:00Z"), wait(1_800_001, "Mon 08:00 Europe/Berlin"));
    }

    #[test]
    fn a_setting_that_is_wrong_or_missing_is_named() {
        let windows = ("windows", "mon 08:00-09:00");
        for (settings, expected) in [
            (&[][..], "setting `windows` is missing"),
            (&[("windows", "mon")], "setting `windows`: \"mon\" has no hours"),
            (&[windows, ("time_zone", "Europe/Berln")], "setting `time_zone` is \"Europe/Berln\", not a time zone"),
            (&[windows, ("time_zone", "")], "setting `time_zone` is \"\", not a time zone"),
            (&[windows, ("target_ms", "2147483648")], "setting `target_ms` is \"2147483648\", not a number from 0"),
            (&[windows, ("target_ms", "soon")], "setting `target_ms` is \"soon\", not a number from 0"),
        ] {
            let error = policy(settings).map(drop).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
