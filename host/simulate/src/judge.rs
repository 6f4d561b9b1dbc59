//! What a run was expected to be, and what it was.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::figures::{percentile, ratios};
use super::model::{Series, wall_at};
use super::run::Run;
use super::scenario::{Expectations, HeldWhile, Scenario, Span, Window};
use super::watch::{SeenBatch, SeenCall};
use tidegate::controller::Callback;

/// Calls after which an instance is expected to have all the memory that it needs.
const WARM_UP_CALLS: usize = 1_000;

/// Calls of a callback whose median is compared with that of the first so many.
const WINDOW_CALLS: usize = 100;

/// Fuel by which a callback may grow whatever it used before: as much as an allocation more or less costs.
const FUEL_SLACK: u64 = 10_000;

/// An expectation, and whether it was met.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The key of the expectation in the scenario.
    pub expectation: &'static str,
    /// Whether it was met.
    pub met: bool,
    /// What was expected, in words.
    pub expected: String,
    /// What was measured, in words.
    pub measured: String,
    /// The first moment at which it was not met.
    pub first: Option<Moment>,
}

/// A moment of a run, and what happened then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// Milliseconds from the start of the run.
    pub at_ms: u64,
    /// The wall clock then, in UTC.
    pub clock: String,
    /// The update that it happened with; `None` where it was none.
    pub update: Option<String>,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} ({})", time(Duration::from_millis(self.at_ms)), self.clock)?;
        if let Some(update) = &self.update {
            write!(f, ", update \"{update}\"")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// A moment of a run, as hours, minutes and seconds.
pub fn time(at: Duration) -> String {
    let (seconds, ms) = (at.as_secs(), at.subsec_millis());
    format!("{}:{:02}:{:02}.{ms:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// Judges a run by what its scenario expects.
pub fn judge(scenario: &Scenario, run: &Run) -> Vec<Verdict> {
    let Expectations {
        fuel_per_call_at_most,
        fuel_growth_at_most,
        memory_bytes_at_most,
        memory_growth_bytes_at_most,
        no_fault,
        finished_within,
        exit_for_every_run,
        mean_over_target_at_most,
        p95_over_target_at_most,
        foreground_latency_ms_below,
        never_runs,
        held_while,
    } = &scenario.expect;
    let judge = Judge { scenario, run };
    let mut verdicts = Vec::new();
    verdicts.extend(no_fault.then(|| judge.faults()));
    verdicts.extend(fuel_per_call_at_most.map(|most| judge.fuel(most)));
    verdicts.extend(fuel_growth_at_most.map(|most| judge.fuel_growth(most)));
    verdicts.extend(memory_bytes_at_most.map(|most| judge.memory(most)));
    verdicts.extend(memory_growth_bytes_at_most.map(|most| judge.memory_growth(most)));
    verdicts.extend(exit_for_every_run.then(|| judge.exits()));
    verdicts.extend(finished_within.map(|limit| judge.finished(limit)));
    verdicts.extend(mean_over_target_at_most.map(|most| judge.mean_over_target(most)));
    verdicts.extend(p95_over_target_at_most.map(|most| judge.p95_over_target(most)));
    verdicts.extend(foreground_latency_ms_below.map(|below| judge.foreground(below)));
    verdicts.extend(never_runs.iter().map(|window| judge.never_runs(*window)));
    verdicts.extend(held_while.iter().map(|hold| judge.held_while(hold)));
    verdicts
}

struct Judge<'a> {
    scenario: &'a Scenario,
    run: &'a Run,
}

impl Judge<'_> {
    fn moment(&self, at: Duration, update: &str, what: String) -> Moment {
        let update = Some(update.to_owned()).filter(|name| !name.is_empty());
        let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        Moment { at_ms, clock: in_utc(self.wall(at)), update, what }
    }

    fn wall(&self, at: Duration) -> Duration {
        wall_at(self.scenario.start, &self.scenario.clock, at)
    }

    fn calls(&self) -> impl Iterator<Item = &SeenCall> {
        // What an instance needs to start is another matter than what it needs for a call.
        self.run.seen.calls.iter().filter(|call| call.callback != Callback::Start)
    }

    fn faults(&self) -> Verdict {
        let seen = &self.run.seen;
        let first = seen.faults.first();
        let first = first.map(|seen| self.moment(seen.at, &seen.update_name, told(&seen.fault)));
        let mut measured = counted(seen.faults.len(), "fault");
        measured.extend(seen.fallback.as_ref().map(|(at, _)| format!(", the fallback took over at {}", time(*at))));
        measured.extend(seen.back.map(|at| format!(", the controller came back at {}", time(at))));
        verdict("no_fault", "no fault".to_owned(), measured, first)
    }

    fn fuel(&self, most: u64) -> Verdict {
        let highest = self.calls().map(|call| call.fuel).max().unwrap_or_default();
        let first = self.calls().find(|call| call.fuel > most);
        let first = first.map(|call| self.moment(call.at, &call.update_name, used(call)));
        let expected = format!("{most} units of fuel a call at most");
        verdict("fuel_per_call_at_most", expected, format!("{highest} units at most"), first)
    }

    fn fuel_growth(&self, most: f64) -> Verdict {
        let mut by_callback: BTreeMap<String, Vec<&SeenCall>> = BTreeMap::new();
        for call in self.calls() {
            by_callback.entry(call.callback.to_string()).or_default().push(call);
        }
        let (mut highest, mut first): (f64, Option<Moment>) = (1.0, None);
        for (callback, calls) in &by_callback {
            let medians = calls.chunks_exact(WINDOW_CALLS).map(|window| (median(window), window[0]));
            let mut medians = medians.collect::<Vec<_>>().into_iter();
            let Some((before, _)) = medians.next() else { continue };
            for (fuel, call) in medians {
                let growth = fuel.saturating_sub(FUEL_SLACK) as f64 / before.max(1) as f64;
                highest = highest.max(growth);
                let moment = || {
                    let what = format!("{callback} uses {fuel} units of fuel, {before} at first");
                    self.moment(call.at, &call.update_name, what)
                };
                if growth > most {
                    first = Some(earlier(first, moment()));
                    break;
                }
            }
        }
        let measured =
            if highest > 1.0 { format!("{highest:.1} times at most") } else { "none to speak of".to_owned() };
        verdict("fuel_growth_at_most", format!("{most} times the fuel of the first calls at most"), measured, first)
    }

    fn memory(&self, most: u64) -> Verdict {
        let calls = || self.run.seen.calls.iter();
        let highest = calls().map(|call| call.memory_bytes).max().unwrap_or_default();
        let first = calls().find(|call| call.memory_bytes > most);
        let first = first.map(|call| self.moment(call.at, &call.update_name, held(call)));
        verdict("memory_bytes_at_most", format!("{most} bytes at most"), format!("{highest} bytes at most"), first)
    }

    fn memory_growth(&self, most: u64) -> Verdict {
        let (mut highest, mut first) = (0, None);
        // Each instance for itself.
        for life in self.run.seen.calls.split(|call| call.callback == Callback::Start) {
            let Some(warm) = life.get(WARM_UP_CALLS) else { continue };
            for call in &life[WARM_UP_CALLS..] {
                let growth = call.memory_bytes.saturating_sub(warm.memory_bytes);
                highest = highest.max(growth);
                if growth > most && first.is_none() {
                    let what = format!("{}, {} after its first {WARM_UP_CALLS} calls", held(call), warm.memory_bytes);
                    first = Some(self.moment(call.at, &call.update_name, what));
                }
            }
        }
        let expected = format!("{most} bytes more after {WARM_UP_CALLS} calls at most");
        verdict("memory_growth_bytes_at_most", expected, format!("{highest} bytes more"), first)
    }

    fn exits(&self) -> Verdict {
        let seen = &self.run.seen;
        let first = seen.missed_exits.first();
        let first = first.map(|missed| {
            let what = "enter answered run, and exit was never called".to_owned();
            self.moment(missed.at, &missed.update_name, what)
        });
        let measured = format!("{} of {}", counted(seen.exits as usize, "exit"), counted(seen.runs as usize, "run"));
        verdict("exit_for_every_run", "an exit for every run".to_owned(), measured, first)
    }

    fn finished(&self, limit: Duration) -> Verdict {
        let run = self.run;
        let late = run.finished_at.is_none_or(|at| at > limit);
        let measured = match (run.finished_at, run.remaining.len()) {
            (Some(at), _) => format!("finished at {}", time(at)),
            (None, rows) => format!("{} remained at {}", counted(rows, "row"), time(run.ended_at)),
        };
        let first = late.then(|| {
            let what = match run.remaining.first() {
                Some(row) => format!("what remained in the end: {row}"),
                None => "updates were still in the queue".to_owned(),
            };
            self.moment(limit.min(run.ended_at), "", what)
        });
        verdict("finished_within_ms", format!("finished by {}", time(limit)), measured, first)
    }

    /// Each committed batch's duration over its target, in order.
    fn ratios(&self) -> Vec<(f64, &SeenBatch)> {
        ratios(&self.run.seen.batches)
    }

    fn over_target(&self, key: &'static str, what: &str, measured: f64, most: f64) -> Verdict {
        let broken = measured > most;
        let over = || self.ratios().into_iter().find(|(ratio, _)| *ratio > most);
        let first = if broken { over() } else { None };
        let first = first.map(|(ratio, batch)| {
            let what = format!("a batch of {} items took {ratio:.2} times its target", batch.batch_size);
            self.moment(batch.at, &batch.update_name, what)
        });
        let verdict =
            verdict(key, format!("{what} of {most} times the target at most"), format!("{measured:.2}"), first);
        Verdict { met: !broken, ..verdict }
    }

    fn mean_over_target(&self, most: f64) -> Verdict {
        let ratios: Vec<f64> = self.ratios().iter().map(|(ratio, _)| *ratio).collect();
        let mean = if ratios.is_empty() { 0.0 } else { ratios.iter().sum::<f64>() / ratios.len() as f64 };
        self.over_target("mean_over_target_at_most", "a mean", mean, most)
    }

    fn p95_over_target(&self, most: f64) -> Verdict {
        let p95 = percentile(self.ratios().iter().map(|(ratio, _)| *ratio).collect(), 0.95);
        self.over_target("p95_over_target_at_most", "a 95th percentile", p95, most)
    }

    fn foreground(&self, below: f64) -> Verdict {
        let points = &self.run.foreground.points;
        let p95 = percentile(points.iter().map(|(_, ms)| *ms).collect(), 0.95);
        let broken = p95 >= below;
        let first = if broken { points.iter().find(|(_, ms)| *ms >= below) } else { None };
        let first =
            first.map(|(at, ms)| self.moment(*at, "", format!("the foreground waited {ms:.1} ms for an answer")));
        let expected = format!("a 95th percentile below {below} ms");
        verdict("foreground_latency_ms_below", expected, format!("{p95:.1} ms"), first)
    }

    fn never_runs(&self, window: Window) -> Verdict {
        let begun = self.run.seen.batches.iter().filter(|batch| holds(window, self.wall(batch.at)));
        let begun: Vec<&SeenBatch> = begun.collect();
        let first = begun.first().map(|batch| {
            let what = format!("a batch of {} items began", batch.batch_size);
            self.moment(batch.at, &batch.update_name, what)
        });
        let expected = match window {
            Window::Once(Span { from, until }) => format!("no batch from {} to {}", in_utc(from), in_utc(until)),
            Window::Daily(Span { from, until }) => format!("no batch from {} to {} UTC", hour(from), hour(until)),
        };
        verdict("never_runs", expected, counted(begun.len(), "batch"), first)
    }

    fn held_while(&self, hold: &HeldWhile) -> Verdict {
        let HeldWhile { signal, above, grace } = hold;
        let series = self.run.signals.iter().find(|series| series.name == *signal);
        let too_late = |batch: &&SeenBatch| {
            let since = series.and_then(|series| above_since(series, *above, batch.at));
            since.is_some_and(|since| batch.at - since > *grace)
        };
        let begun: Vec<&SeenBatch> = self.run.seen.batches.iter().filter(too_late).collect();
        let first = begun.first().map(|batch| {
            let what = format!("a batch of {} items began while {signal} was above {above}", batch.batch_size);
            self.moment(batch.at, &batch.update_name, what)
        });
        let grace = grace.as_millis();
        let expected = format!("no batch while {signal} is above {above}, {grace} ms after it rose");
        verdict("held_while", expected, counted(begun.len(), "batch"), first)
    }
}

/// Since when a signal has been above a value, as it was read; `None` where it is not.
fn above_since(series: &Series, above: f64, at: Duration) -> Option<Duration> {
    let known = series.points.partition_point(|(read, _)| *read <= at);
    let rising = series.points[..known].iter().rev().take_while(|(_, value)| *value > above);
    rising.last().map(|(read, _)| *read)
}

fn holds(window: Window, wall: Duration) -> bool {
    const DAY: u64 = 86_400;
    match window {
        Window::Once(span) => span.holds(wall),
        Window::Daily(Span { from, until }) => {
            let time = Duration::new(wall.as_secs() % DAY, wall.subsec_nanos());
            if from < until { Span { from, until }.holds(time) } else { time >= from || time < until }
        }
    }
}

fn verdict(expectation: &'static str, expected: String, measured: String, first: Option<Moment>) -> Verdict {
    Verdict { expectation, met: first.is_none(), expected, measured, first }
}

fn earlier(known: Option<Moment>, other: Moment) -> Moment {
    match known {
        Some(known) if known.at_ms <= other.at_ms => known,
        _ => other,
    }
}

fn told(fault: &tidegate::controller::Fault) -> String {
    format!("{fault} (hint: {})", fault.kind.hint())
}

fn used(call: &SeenCall) -> String {
    format!("{} used {} units of fuel", call.callback, call.fuel)
}

fn held(call: &SeenCall) -> String {
    format!("the instance held {} bytes after {}", call.memory_bytes, call.callback)
}

fn median(calls: &[&SeenCall]) -> u64 {
    let mut fuel: Vec<u64> = calls.iter().map(|call| call.fuel).collect();
    fuel.sort_unstable();
    fuel.get(fuel.len() / 2).copied().unwrap_or_default()
}

fn counted(count: usize, what: &str) -> String {
    match (count, what) {
        (1, _) => format!("1 {what}"),
        (_, "batch") => format!("{count} batches"),
        _ => format!("{count} {what}s"),
    }
}

fn hour(time: Duration) -> String {
    format!("{:02}:{:02}", time.as_secs() / 3_600, time.as_secs() / 60 % 60)
}

/// The wall clock in UTC, to the second.
fn in_utc(since_epoch: Duration) -> String {
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| format!("{seconds} s"), |time| time.to_string())
}
