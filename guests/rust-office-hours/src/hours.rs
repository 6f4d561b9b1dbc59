//! When the windows are open, by the calendar of their time zone.

use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Error, SignedDuration, Timestamp};

use crate::window::{MIDNIGHT, Window};

/// Days that are looked at from yesterday on: two weeks, because a change of the clock may leave nothing of a weekly
/// window.
const DAYS: usize = 16;

/// Windows in a time zone.
pub struct Hours {
    windows: Vec<Window>,
    zone: TimeZone,
}

impl Hours {
    pub fn new(windows: Vec<Window>, zone: TimeZone) -> Hours {
        Hours { windows, zone }
    }

    /// When the next window begins; none where one is open now.
    pub fn closed_until(&self, now: Timestamp) -> Result<Option<Timestamp>, Error> {
        let today = self.zone.to_datetime(now).date();
        let mut day = today.yesterday()?;
        for _ in 0..DAYS {
            let mut next: Option<Timestamp> = None;
            for window in self.windows.iter().filter(|window| window.begins_on(day.weekday())) {
                let (begin, end) = self.on(window, day)?;
                if begin <= now && now < end {
                    return Ok(None);
                }
                if now < begin && begin < end {
                    next = Some(next.map_or(begin, |next| next.min(begin)));
                }
            }
            // What begins on a later day begins later.
            if next.is_some() && day >= today {
                return Ok(next);
            }
            day = day.tomorrow()?;
        }
        Err(Error::from_args(format_args!("no window opens within {DAYS} days")))
    }

    /// A time that is to come, as an operator reads it: the day of the week alone where it is one of the next six.
    pub fn tell(&self, next: Timestamp, now: Timestamp) -> String {
        let today = self.zone.to_datetime(now).date();
        let next = next.to_zoned(self.zone.clone());
        let is_soon = next.date().duration_since(today) < SignedDuration::from_hours(7 * 24);
        let format = if is_soon { "%a %H:%M" } else { "%a %Y-%m-%d %H:%M" };
        format!("{} {}", next.strftime(format), self.zone.iana_name().unwrap_or_default())
    }

    /// When a window that begins on that day begins and ends. It is empty where the clock jumps over it.
    fn on(&self, window: &Window, day: Date) -> Result<(Timestamp, Timestamp), Error> {
        let last_day = if window.passes_midnight() { day.tomorrow()? } else { day };
        Ok((self.instant(day, window.begin)?, self.instant(last_day, window.end)?))
    }

    /// The instant of a time of day. A time that comes twice, when the clock is set back, is its first coming; one that
    /// does not come, when the clock is set forward, is the moment when that happens.
    fn instant(&self, day: Date, minutes: u16) -> Result<Timestamp, Error> {
        let (day, minutes) = if minutes == MIDNIGHT { (day.tomorrow()?, 0) } else { (day, minutes) };
        let time = day.at((minutes / 60) as i8, (minutes % 60) as i8, 0, 0);
        let instants = self.zone.to_ambiguous_timestamp(time);
        let is_skipped = matches!(instants.offset(), AmbiguousOffset::Gap { .. });
        let earlier = instants.earlier()?;
        let jump = || self.zone.following(earlier).next().map(|transition| transition.timestamp());
        Ok(if is_skipped { jump().unwrap_or(earlier) } else { earlier })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZoneDatabase;

    fn hours(windows: &str, zone: &str) -> Hours {
        Hours::new(Window::parse_all(windows).unwrap(), TimeZoneDatabase::bundled().get(zone).unwrap())
    }

    /// "open", or when it opens.
    fn at(hours: &Hours, now: &str) -> String {
        let now: Timestamp = now.parse().unwrap();
        match hours.closed_until(now).unwrap() {
            None => "open".to_owned(),
            Some(next) => hours.tell(next, now),
        }
    }

    fn check(windows: &str, zone: &str, cases: &[(&str, &str)]) {
        let hours = hours(windows, zone);
        for (now, expected) in cases {
            assert_eq!(at(&hours, now), *expected, "{windows} {zone} at {now}");
        }
    }

    // The 5th of January 2026 is a Monday.

    #[test]
    fn a_window_is_open_from_its_begin_to_before_its_end() {
        check(
            "mon-fri 09:00-17:30",
            "UTC",
            &[
                ("2026-01-05T08:59:59.999Z", "Mon 09:00 UTC"),
                ("2026-01-05T09:00:00Z", "open"),
                ("2026-01-05T17:29:59.999Z", "open"),
                ("2026-01-05T17:30:00Z", "Tue 09:00 UTC"),
                ("2026-01-09T18:00:00Z", "Mon 09:00 UTC"),
            ],
        );
    }

    #[test]
    fn a_window_that_passes_midnight_belongs_to_the_day_that_it_begins_on() {
        check(
            "fri 22:00-06:00, mon 22:00-00:00",
            "UTC",
            &[
                ("2026-01-09T05:00:00Z", "Fri 22:00 UTC"),
                ("2026-01-09T23:59:59Z", "open"),
                ("2026-01-10T05:59:59Z", "open"),
                ("2026-01-10T06:00:00Z", "Mon 22:00 UTC"),
                ("2026-01-12T23:59:59Z", "open"),
                ("2026-01-13T00:00:00Z", "Fri 22:00 UTC"),
            ],
        );
    }

    #[test]
    fn windows_may_meet_overlap_and_leave_no_end() {
        let nights_and_weekends = "mon-fri 22:00-06:00, sat-sun 00:00-24:00";
        check(
            nights_and_weekends,
            "UTC",
            &[
                ("2026-01-09T21:59:00Z", "Fri 22:00 UTC"),
                ("2026-01-10T03:00:00Z", "open"),
                ("2026-01-10T12:00:00Z", "open"),
                ("2026-01-11T00:00:00Z", "open"),
                ("2026-01-11T23:59:59Z", "open"),
                ("2026-01-12T00:00:00Z", "Mon 22:00 UTC"),
            ],
        );
        for always in ["00:00-24:00", "mon-sat 00:00-24:00, sun 00:00-00:01, sun 00:01-24:00"] {
            for day in 1..=31 {
                check(always, "Europe/Berlin", &[(&format!("2026-03-{day:02}T23:00:00Z"), "open")]);
            }
        }
    }

    #[test]
    fn hours_are_those_of_the_time_zone_summer_and_winter() {
        check(
            "mon-sun 08:00-09:00",
            "Europe/Berlin",
            &[
                ("2026-01-05T07:00:00Z", "open"),
                ("2026-07-06T06:00:00Z", "open"),
                ("2026-07-06T07:00:00Z", "Tue 08:00 Europe/Berlin"),
            ],
        );
        // Sunday evening in New York is Monday in UTC.
        check("sun 20:00-23:00", "America/New_York", &[("2026-01-12T02:00:00Z", "open")]);
        check("sun 20:00-23:00", "America/New_York", &[("2026-01-05T05:00:00Z", "Sun 20:00 America/New_York")]);
    }

    /// On Sunday the 29th of March 2026 clocks in Berlin go from 02:00 to 03:00, at 01:00 UTC.
    #[test]
    fn a_night_in_which_the_clock_is_set_forward_is_an_hour_shorter() {
        check(
            "sat 22:00-06:00",
            "Europe/Berlin",
            &[("2026-03-29T03:59:59Z", "open"), ("2026-03-29T04:00:00Z", "Sat 22:00 Europe/Berlin")],
        );
        check(
            "sun 02:30-03:15",
            "Europe/Berlin",
            &[
                ("2026-03-29T00:59:59Z", "Sun 03:00 Europe/Berlin"),
                ("2026-03-29T01:00:00Z", "open"),
                ("2026-03-29T01:15:00Z", "Sun 2026-04-05 02:30 Europe/Berlin"),
            ],
        );
    }

    #[test]
    fn a_window_that_the_clock_jumps_over_is_not_there_that_week() {
        check(
            "sun 02:00-03:00",
            "Europe/Berlin",
            &[
                ("2026-03-29T00:30:00Z", "Sun 2026-04-05 02:00 Europe/Berlin"),
                ("2026-03-30T01:00:00Z", "Sun 02:00 Europe/Berlin"),
                ("2026-04-05T00:00:00Z", "open"),
            ],
        );
    }

    /// On Sunday the 25th of October 2026 clocks in Berlin go from 03:00 back to 02:00, at 01:00 UTC.
    #[test]
    fn a_night_in_which_the_clock_is_set_back_is_an_hour_longer() {
        check(
            "sat 22:00-06:00, sun 06:30-07:00",
            "Europe/Berlin",
            &[("2026-10-25T04:59:59Z", "open"), ("2026-10-25T05:00:00Z", "Sun 06:30 Europe/Berlin")],
        );
        check(
            "sun 02:00-03:00",
            "Europe/Berlin",
            &[("2026-10-25T00:00:00Z", "open"), ("2026-10-25T01:59:59Z", "open")],
        );
        // A time that comes twice counts when it first comes.
        check(
            "sat 22:00-02:30",
            "Europe/Berlin",
            &[("2026-10-25T00:29:59Z", "open"), ("2026-10-25T00:30:00Z", "Sat 22:00 Europe/Berlin")],
        );
    }

    #[test]
    fn a_day_that_a_country_left_out_has_no_hours() {
        // Samoa went from Thursday the 29th to Saturday the 31st of December 2011.
        check("fri 08:00-17:00", "Pacific/Apia", &[("2011-12-30T09:00:00Z", "Fri 2012-01-06 08:00 Pacific/Apia")]);
    }

    #[test]
    fn the_end_of_the_calendar_is_an_error_and_no_panic() {
        assert!(hours("mon 08:00-09:00", "UTC").closed_until(Timestamp::MAX).is_err());
    }
}
