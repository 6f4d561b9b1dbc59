//! What is expected of a controller.

use std::time::Duration;

use jiff::Timestamp;
use toml::Spanned;

use super::super::resolve::required;
use super::super::section::{Reader, Section, list, suggest};
use super::{Taken, present, raw, sections};
use tidegate_simulate::scenario::{Expectations, HeldWhile, Signal, Span, Window};

pub(super) fn expectations<'a>(reader: &mut Reader<'a>, value: Taken<'a>, signals: &[Signal]) -> Expectations {
    const TITLE: &str = "[expect]";
    let Some(mut table) = value.and_then(|value| reader.table(TITLE, value)) else { return Expectations::default() };
    let never_runs = table.get_mut().remove("never_runs");
    let held_while = table.get_mut().remove("held_while");
    let raw = reader.section::<raw::Expect>(TITLE, table).values;
    let windows = sections::<raw::NeverRuns>(reader, "[[expect.never_runs]]", never_runs);
    let holds = sections::<raw::HeldWhile>(reader, "[[expect.held_while]]", held_while);
    Expectations {
        fuel_per_call_at_most: raw.fuel_per_call_at_most.map(|fuel| fuel.0),
        fuel_growth_at_most: raw.fuel_growth_at_most.map(|factor| factor.0),
        memory_bytes_at_most: raw.memory_bytes_at_most.map(|bytes| bytes.0),
        memory_growth_bytes_at_most: raw.memory_growth_bytes_at_most.map(|bytes| bytes.0),
        no_fault: raw.no_fault.unwrap_or(false),
        finished_within: raw.finished_within_ms.map(|ms| Duration::from_millis(ms.0)),
        exit_for_every_run: raw.exit_for_every_run.unwrap_or(false),
        mean_over_target_at_most: raw.mean_over_target_at_most.map(|ratio| ratio.0),
        p95_over_target_at_most: raw.p95_over_target_at_most.map(|ratio| ratio.0),
        foreground_latency_ms_below: raw.foreground_latency_ms_below.map(|ms| ms.0),
        never_runs: windows.iter().filter_map(|section| window(reader, section)).collect(),
        held_while: holds.iter().filter_map(|section| held(reader, section, signals)).collect(),
    }
}

fn held(reader: &mut Reader<'_>, section: &Section<raw::HeldWhile>, signals: &[Signal]) -> Option<HeldWhile> {
    let raw = &section.values;
    let signal = required(reader, section, "signal", raw.signal.as_ref());
    let above = present(reader, section, "above", raw.above);
    let signal = signal?;
    let known: Vec<&str> = signals.iter().map(|signal| signal.name.as_str()).collect();
    if !known.contains(&signal.as_str()) {
        let message = format!("there is no [[signal]] named \"{signal}\"");
        let hint = if known.is_empty() { "add it".to_owned() } else { suggest(&signal, &known) };
        reader.error(section.places.of("signal"), message, Some(hint));
    }
    Some(HeldWhile { signal, above: above?.0, grace: Duration::from_millis(raw.grace_ms.0) })
}

fn window(reader: &mut Reader<'_>, section: &Section<raw::NeverRuns>) -> Option<Window> {
    let raw = &section.values;
    match (&raw.from, &raw.until, &raw.daily) {
        (Some(from), Some(until), None) => {
            let (from, until) = (instant(reader, "from", from)?, instant(reader, "until", until)?);
            if from >= until {
                let hint = "let \"until\" be later than \"from\"".to_owned();
                reader.error(section.places.of("until"), "the window ends before it begins", Some(hint));
                return None;
            }
            Some(Window::Once(Span { from, until }))
        }
        (None, None, Some(daily)) => {
            let parsed = daily_window(daily.get_ref());
            if parsed.is_none() {
                let message = format!("\"daily\": {} is no window", reader.written(daily));
                let hint = "write it as \"22:00-06:00\", in UTC".to_owned();
                reader.error(reader.at(daily), message, Some(hint));
            }
            parsed.map(Window::Daily)
        }
        _ => {
            let keys = list(&["from", "until"]);
            let hint = format!("write {keys}, or \"daily\"");
            reader.error(section.places.header, format!("{} is no window", section.title), Some(hint));
            None
        }
    }
}

/// "22:00-06:00".
fn daily_window(text: &str) -> Option<Span> {
    let (from, until) = text.split_once('-')?;
    let (from, until) = (time_of_day(from)?, time_of_day(until)?);
    (from != until).then_some(Span { from, until })
}

/// "22:00", from midnight on; "24:00" is the end of the day.
fn time_of_day(text: &str) -> Option<Duration> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= 24 * 60).then(|| Duration::from_secs(minute * 60))
}

/// A moment by the wall clock: the time since the Unix epoch.
pub(super) fn instant(reader: &mut Reader<'_>, key: &str, value: &Spanned<raw::Instant>) -> Option<Duration> {
    let moment = value.get_ref().0.parse::<Timestamp>().ok();
    let since_epoch = moment.and_then(|moment| Duration::try_from(moment.as_duration()).ok());
    if since_epoch.is_none() {
        let message = format!("\"{key}\": {} is no moment in time", reader.written(value));
        let hint = "write date, time and offset, as 2026-03-29T00:30:00Z".to_owned();
        reader.error(reader.at(value), message, Some(hint));
    }
    since_epoch
}
