//! Windows of a week, as they are written: `mon-fri 22:00-06:00`.

use jiff::civil::Weekday;

/// What a day ends with.
pub const MIDNIGHT: u16 = 24 * 60;

/// As many windows as a call has fuel for many times over.
const MOST_WINDOWS: usize = 50;

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// A stretch of time that begins on each of some days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    first_day: Weekday,
    last_day: Weekday,
    /// When it begins, in minutes after midnight.
    pub begin: u16,
    /// When it ends, in minutes after midnight; where that is not after its begin, on the next day.
    pub end: u16,
}

impl Window {
    /// Reads a list of windows with commas between them.
    pub fn parse_all(list: &str) -> Result<Vec<Window>, String> {
        let windows = list.split(',').map(Window::parse).collect::<Result<Vec<_>, _>>()?;
        match windows.len() > MOST_WINDOWS {
            true => Err(format!("{} windows are too many, {MOST_WINDOWS} is the most", windows.len())),
            false => Ok(windows),
        }
    }

    /// Reads one: a day or days (every day, where none is given), and hours.
    fn parse(text: &str) -> Result<Window, String> {
        let text = text.trim();
        let mut words = text.split_whitespace();
        let (days, hours) = match (words.next(), words.next(), words.next()) {
            (None, ..) => return Err("a window is empty: write e.g. \"mon-fri 22:00-06:00\"".to_owned()),
            (Some(hours), None, _) if hours.contains(':') => ("mon-sun", hours),
            (Some(days), Some(hours), None) => (days, hours),
            (_, None, _) => return Err(format!("\"{text}\" has no hours: write e.g. \"{text} 22:00-06:00\"")),
            _ => return Err(format!("\"{text}\" is more than days and hours: put a comma between two windows")),
        };
        let (first_day, last_day) = days.split_once('-').unwrap_or((days, days));
        let Some((begin, end)) = hours.split_once('-') else {
            return Err(format!("\"{hours}\" is no stretch of time: write e.g. \"22:00-06:00\""));
        };
        if end.is_empty() {
            return Err(format!("\"{hours}\" has no end: write \"{hours}24:00\" for the rest of the day"));
        }
        let window =
            Window { first_day: day(first_day)?, last_day: day(last_day)?, begin: time(begin)?, end: time(end)? };
        if window.begin == MIDNIGHT {
            return Err(format!("\"{hours}\" begins when the day is over: write \"00:00\" of the next day"));
        }
        if window.begin == window.end {
            return Err(format!("\"{hours}\" ends when it begins: write \"00:00-24:00\" for whole days"));
        }
        Ok(window)
    }

    /// True where it begins on that day of the week.
    pub fn begins_on(&self, day: Weekday) -> bool {
        self.first_day.until(day) <= self.first_day.until(self.last_day)
    }

    /// True where it ends on the day after the one that it begins on.
    pub fn passes_midnight(&self) -> bool {
        self.end < self.begin
    }
}

fn day(name: &str) -> Result<Weekday, String> {
    let found = DAYS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
    found.map(|(_, day)| *day).ok_or_else(|| {
        let known = DAYS.map(|(name, _)| name).join(", ");
        format!("\"{name}\" is no day of the week: write {known}, or two of them as in \"mon-fri\"")
    })
}

/// Minutes after midnight.
fn time(text: &str) -> Result<u16, String> {
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_digit());
    let parts = text.split_once(':').filter(|(hours, minutes)| digits(hours) && digits(minutes));
    let minutes = parts.and_then(|(hours, minutes)| {
        let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
        (minutes < 60).then_some(hours * 60 + minutes)
    });
    minutes
        .filter(|minutes| *minutes <= MIDNIGHT)
        .ok_or_else(|| format!("\"{text}\" is no time of day: write it from 00:00 to 24:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days_of(window: &str) -> String {
        let windows = Window::parse_all(window).unwrap();
        DAYS.iter().filter(|(_, day)| windows[0].begins_on(*day)).map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn days_are_one_or_a_range_that_may_pass_the_end_of_the_week() {
        for (window, expected) in [
            ("wed 08:00-09:00", "wed"),
            ("mon-fri 08:00-09:00", "mon tue wed thu fri"),
            ("Sat-MON 08:00-09:00", "mon sat sun"),
            ("sun-sat 08:00-09:00", "mon tue wed thu fri sat sun"),
            ("08:00-09:00", "mon tue wed thu fri sat sun"),
        ] {
            assert_eq!(days_of(window), expected, "{window}");
        }
    }

    #[test]
    fn hours_may_pass_midnight_or_end_with_it() {
        let windows = Window::parse_all("mon-fri 22:00-06:00, sat-sun  00:00-24:00 ,20:00-00:00").unwrap();
        let hours: Vec<_> = windows.iter().map(|window| (window.begin, window.end, window.passes_midnight())).collect();
        assert_eq!(hours, [(1_320, 360, true), (0, 1_440, false), (1_200, 0, true)]);
    }

    #[test]
    fn what_is_no_window_is_refused_with_the_word_that_is_wrong() {
        for (list, expected) in [
            ("", "a window is empty: write e.g. \"mon-fri 22:00-06:00\""),
            ("mon 08:00-09:00,", "a window is empty: write e.g. \"mon-fri 22:00-06:00\""),
            ("mon", "\"mon\" has no hours: write e.g. \"mon 22:00-06:00\""),
            ("mon 8", "\"8\" is no stretch of time: write e.g. \"22:00-06:00\""),
            ("mon 22:00-", "\"22:00-\" has no end: write \"22:00-24:00\" for the rest of the day"),
            ("mon 22:00-25:00", "\"25:00\" is no time of day: write it from 00:00 to 24:00"),
            ("mon 22:60-23:00", "\"22:60\" is no time of day: write it from 00:00 to 24:00"),
            ("mon 8:00-9:00", "\"8:00\" is no time of day: write it from 00:00 to 24:00"),
            ("mon +8:00-09:00", "\"+8:00\" is no time of day: write it from 00:00 to 24:00"),
            ("mon 08:00-08:00", "\"08:00-08:00\" ends when it begins: write \"00:00-24:00\" for whole days"),
            ("mon 24:00-06:00", "\"24:00-06:00\" begins when the day is over: write \"00:00\" of the next day"),
            (
                "mon 08:00-09:00 tue 08:00-09:00",
                "\"mon 08:00-09:00 tue 08:00-09:00\" is more than days and hours: put a comma between two windows",
            ),
            (
                "fry 08:00-09:00",
                "\"fry\" is no day of the week: write mon, tue, wed, thu, fri, sat, sun, or two of them as in \"mon-fri\"",
            ),
            (
                "mon-fri-sun 08:00-09:00",
                "\"fri-sun\" is no day of the week: write mon, tue, wed, thu, fri, sat, sun, or two of them as in \"mon-fri\"",
            ),
        ] {
            assert_eq!(Window::parse_all(list), Err(expected.to_owned()), "{list}");
        }
        let many = vec!["mon 08:00-09:00"; 51].join(",");
        assert_eq!(Window::parse_all(&many), Err("51 windows are too many, 50 is the most".to_owned()));
    }
}
