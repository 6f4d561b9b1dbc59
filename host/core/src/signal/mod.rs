//! Signals: measures of a database's load, sampled in the background, for controllers to decide by.
//!
//! A [`Sampler`] measures one or a few signals; [`Sampling`] has each sampled at its own interval, beside all else;
//! [`Signals`] keeps the latest reading of each, and knows how old it is. A sampler that hangs or fails lets its signals
//! grow old, and does nothing else. What the host measures by itself is listed in [`BUILT_IN`]; its database drivers make
//! those samplers, and the ones here measure the machine ([`HostLoad`]), a file ([`File`]) and what a server tells over
//! HTTP ([`Http`]).

mod file;
mod foreground;
#[cfg(feature = "http")]
mod http;
mod load;
mod reading;
mod sampling;
mod workers;

use std::fmt;

use async_trait::async_trait;

pub use file::File;
pub use foreground::Foreground;
pub use foreground::{FOREGROUND_LATENCY, FOREGROUND_UNDISTURBED, Probing, Work, WorkInHand};
#[cfg(feature = "http")]
pub use http::{Address, Http, Part};
pub use load::HostLoad;
pub use reading::{NoSignals, Reading, Scope, SignalReader, SignalStatus, Signals};
pub use sampling::{Sampling, Schedule, Task};
pub use workers::Workers;

/// What a signal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// What it is called, e.g. "replication-lag".
    pub name: String,
    /// The unit of its values, e.g. "ms"; empty where it has none.
    pub unit: String,
    /// Where its values come from, in a few words.
    pub source: String,
}

/// One measure, of one signal, or why there is none, in words.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The signal's name.
    pub signal: String,
    /// The value, in the signal's unit.
    pub value: Result<f64, String>,
}

impl Sample {
    /// A measure, or why there is none.
    pub fn new(signal: &str, value: Result<f64, impl fmt::Display>) -> Self {
        Self { signal: signal.to_owned(), value: value.map_err(|error| error.to_string()) }
    }
}

/// Measures one or a few signals.
#[async_trait]
pub trait Sampler: Send + 'static {
    /// What it measures.
    fn definitions(&self) -> Vec<Definition>;

    /// Measures. A signal that is left out of the answer is as it was.
    ///
    /// It may take as long as it takes: nobody waits for it but its own signals, which grow old. It must not block the
    /// thread that it is called on. Its future may be dropped at any moment, and it may be called again then.
    async fn sample(&mut self) -> Vec<Sample>;
}

/// A signal that a host samples by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// The unit of its values.
    pub unit: &'static str,
    /// Where its values come from.
    pub source: &'static str,
}

impl BuiltIn {
    /// The signal of this name, where there is one.
    pub fn named(name: &str) -> Option<&'static BuiltIn> {
        BUILT_IN.iter().find(|signal| signal.name == name)
    }

    /// The definitions of these.
    pub fn definitions(names: &[&str]) -> Vec<Definition> {
        let known = names.iter().filter_map(|name| Self::named(name));
        known
            .map(|&BuiltIn { name, unit, source }| Definition {
                name: name.to_owned(),
                unit: unit.to_owned(),
                source: source.to_owned(),
            })
            .collect()
    }
}

/// A value as precise as people read it. `grouped` writes a whole number with its thousands apart.
pub fn readable(value: f64, grouped: impl Fn(u64) -> String) -> String {
    match value.abs() {
        size if size < 10.0 && value.fract() != 0.0 => format!("{value:.2}"),
        size if size < 1e3 && value.fract() != 0.0 => format!("{value:.1}"),
        size if size < 1e15 => format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped(size.round() as u64)),
        _ => format!("{value:e}"),
    }
}

/// The signals that a host samples by itself; the book says what each is.
pub const BUILT_IN: &[BuiltIn] = &[
    BuiltIn { name: "load", unit: "per core", source: "/proc/loadavg" },
    BuiltIn { name: "workers", unit: "workers", source: "this host" },
    BuiltIn { name: "probe-latency", unit: "ms", source: "a tiny read (and write) on a connection of its own" },
    BuiltIn { name: FOREGROUND_LATENCY, unit: "ms", source: "the probe: 95 of 100 took no longer of late" },
    BuiltIn { name: FOREGROUND_UNDISTURBED, unit: "ms", source: "the probe: the same while no batch ran" },
    BuiltIn { name: "replication-lag", unit: "ms", source: "pg_stat_replication, the worst standby" },
    BuiltIn { name: "replication-lag-bytes", unit: "bytes", source: "pg_stat_replication, the worst standby" },
    BuiltIn { name: "active-sessions", unit: "sessions", source: "pg_stat_activity" },
    BuiltIn { name: "waiting-sessions", unit: "sessions", source: "pg_stat_activity" },
    BuiltIn { name: "oldest-transaction", unit: "ms", source: "pg_stat_activity" },
    BuiltIn { name: "wal-rate", unit: "bytes/s", source: "pg_current_wal_lsn()" },
    BuiltIn { name: "autovacuum", unit: "", source: "pg_stat_progress_vacuum: 1 while it is at the table in hand" },
    BuiltIn {
        name: "checkpoint-pressure",
        unit: "",
        source: "pg_control_checkpoint() and max_wal_size: 1 begins a checkpoint",
    },
    BuiltIn { name: "wal-size", unit: "bytes", source: "the file beside the database, ending in -wal" },
    BuiltIn { name: "write-lock", unit: "ms", source: "BEGIN IMMEDIATE on a connection of its own" },
    BuiltIn { name: "busy-retries", unit: "retries", source: "BEGIN IMMEDIATE on a connection of its own" },
];

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn values_are_as_precise_as_people_read_them() {
        let grouped = |size: u64| format!("<{size}>");
        for (value, expected) in [
            (0.0, "<0>"),
            (-0.0, "<0>"),
            (0.034_5, "0.03"),
            (3.0, "<3>"),
            (12.345, "12.3"),
            (1_234_567.8, "<1234568>"),
            (-2.5, "-2.50"),
            (-1_234.0, "-<1234>"),
            (1e300, "1e300"),
        ] {
            assert_eq!(readable(value, grouped), expected);
        }
    }
}
