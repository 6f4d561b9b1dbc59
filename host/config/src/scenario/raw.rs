//! The file of a scenario as it is written: each section's keys, their types, defaults and ranges.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use toml::Spanned;

pub(super) use super::super::raw::Real;
use super::super::raw::{DAY, LARGEST_BATCH, Whole};

type Text = Option<Spanned<String>>;
type Moment = Option<Spanned<Instant>>;

/// A year in milliseconds.
const YEAR: u64 = 366 * DAY;
/// As many items as anybody will simulate.
const MOST: u64 = 1_000_000_000_000;

/// The keys above all sections, and the sections.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Scenario {
    pub version: Option<i64>,
    pub name: Text,
    pub description: Text,
    pub seed: Whole<1, 0, { i64::MAX as u64 }>,
    pub start: Moment,
    pub longest_ms: Whole<DAY, 1, YEAR>,
    // Read as sections of their own; here they stand for their names.
    pub settings: Option<IgnoredAny>,
    pub limits: Option<IgnoredAny>,
    pub host: Option<IgnoredAny>,
    pub clock: Option<IgnoredAny>,
    pub update: Option<IgnoredAny>,
    pub load: Option<IgnoredAny>,
    pub stall: Option<IgnoredAny>,
    pub signal: Option<IgnoredAny>,
    pub action: Option<IgnoredAny>,
    pub expect: Option<IgnoredAny>,
}

/// `[host]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Host {
    pub default_batch_size: Whole<100, 1, LARGEST_BATCH>,
    pub min_batch_size: Whole<100, 1, LARGEST_BATCH>,
    pub max_batch_size: Whole<1_000_000, 1, LARGEST_BATCH>,
    pub max_min_batch_size: Whole<1_000, 1, LARGEST_BATCH>,
    pub batch_cut_off_ms: Whole<1_000, 1, DAY>,
    pub estimator: Text,
    pub max_target_duration_ms: Whole<60_000, 1, DAY>,
    pub max_attempts: Whole<5, 1, 1_000>,
    pub max_faults: Whole<3, 1, 1_000>,
    pub background_update_duration_ms: Whole<100, 1, DAY>,
    pub sleep_enabled: Option<bool>,
    pub sleep_duration_ms: Whole<1_000, 0, DAY>,
    pub pace: Text,
    // Read as a section of its own; here it stands for its name.
    pub gentle: Option<IgnoredAny>,
}

/// `[[clock]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Clock {
    pub at_ms: Whole<0, 0, YEAR>,
    pub by_ms: i64,
}

/// `[[update]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Update {
    pub name: Text,
    pub items: Whole<1_000, 0, MOST>,
    pub one_shot: Option<bool>,
    pub count: Whole<1, 1, 1_000_000>,
    pub queued_at_ms: Whole<0, 0, YEAR>,
    pub every_ms: Whole<0, 0, YEAR>,
    pub depends_on: Text,
    pub ordering: i64,
    pub cost_ms: Option<Real>,
    pub batch_ms: Option<Real>,
    pub noise: Option<Real>,
    pub empty_every: Whole<0, 0, MOST>,
    // Read as sections of their own; here they stand for their names.
    pub cost: Option<IgnoredAny>,
    pub failure: Option<IgnoredAny>,
}

/// `[[update.cost]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Cost {
    pub at_ms: Whole<0, 0, YEAR>,
    pub factor: Option<Real>,
}

/// `[[update.failure]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Failure {
    pub from_ms: Whole<0, 0, YEAR>,
    pub until_ms: Whole<YEAR, 0, YEAR>,
    pub times: Whole<1, 1, MOST>,
    pub class: Text,
    pub message: Text,
}

/// `[load]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Load {
    pub latency_ms: Option<Real>,
    pub batch_share: Option<Real>,
    // Read as a section of its own; here it stands for its name.
    pub step: Option<IgnoredAny>,
}

/// `[[load.step]]` and `[[signal.step]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Step {
    pub at_ms: Whole<0, 0, YEAR>,
    pub value: Option<Real>,
}

/// `[[stall]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Stall {
    pub from_ms: Whole<0, 0, YEAR>,
    pub until_ms: Whole<YEAR, 0, YEAR>,
}

/// `[[signal]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Signal {
    pub name: Text,
    pub every_ms: Whole<1_000, 10, DAY>,
    pub noise: Option<Real>,
    pub per_item: Option<Real>,
    pub drain_per_s: Option<Real>,
    pub foreground: Option<bool>,
    // Read as sections of their own; here they stand for their names.
    pub step: Option<IgnoredAny>,
    pub loss: Option<IgnoredAny>,
}

/// `[[signal.loss]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Loss {
    pub from_ms: Whole<0, 0, YEAR>,
    pub until_ms: Whole<YEAR, 0, YEAR>,
    pub gone: Option<bool>,
}

/// `[[action]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Action {
    pub at_ms: Whole<0, 0, YEAR>,
    #[serde(rename = "do")]
    pub deed: Text,
    pub update: Text,
}

/// `[expect]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Expect {
    pub fuel_per_call_at_most: Option<Whole<0, 1, { i64::MAX as u64 }>>,
    pub fuel_growth_at_most: Option<Real>,
    pub memory_bytes_at_most: Option<Whole<0, 1, { i64::MAX as u64 }>>,
    pub memory_growth_bytes_at_most: Option<Whole<0, 0, { i64::MAX as u64 }>>,
    pub no_fault: Option<bool>,
    pub finished_within_ms: Option<Whole<0, 1, YEAR>>,
    pub exit_for_every_run: Option<bool>,
    pub mean_over_target_at_most: Option<Real>,
    pub p95_over_target_at_most: Option<Real>,
    pub foreground_latency_ms_below: Option<Real>,
    // Read as sections of their own; here they stand for their names.
    pub never_runs: Option<IgnoredAny>,
    pub held_while: Option<IgnoredAny>,
}

/// `[[expect.never_runs]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct NeverRuns {
    pub from: Moment,
    pub until: Moment,
    pub daily: Text,
}

/// `[[expect.held_while]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct HeldWhile {
    pub signal: Text,
    pub above: Option<Real>,
    pub grace_ms: Whole<0, 0, YEAR>,
}

/// A date and time, as TOML writes it or in a string; not yet looked at.
#[derive(Debug, Default)]
pub(super) struct Instant(pub String);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InstantVisitor).map(Self)
    }
}

struct InstantVisitor;

impl<'de> Visitor<'de> for InstantVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a date and time with its offset, such as 2026-03-29T00:30:00Z")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<String, A::Error> {
        toml::value::Datetime::deserialize(MapAccessDeserializer::new(entries)).map(|time| time.to_string())
    }
}
