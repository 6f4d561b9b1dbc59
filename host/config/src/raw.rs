//! The configuration file as it is written: each section's keys, their types, defaults and ranges. The field names
//! here are the one list of keys there is; what is not among them is refused.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use toml::Spanned;

type Text = Option<Spanned<String>>;
type Texts = Option<Spanned<Vec<Spanned<String>>>>;

/// Batch sizes stay below what every language of controllers can hold.
pub(super) const LARGEST_BATCH: u64 = i32::MAX as u64;
/// A day in milliseconds, the longest of any duration.
pub(super) const DAY: u64 = 86_400_000;
/// More workers than this on one table wait for each other.
const LARGEST_CREW: u64 = 64;
const MIB: u64 = 1 << 20;

/// `[background_updates]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct BackgroundUpdates {
    pub background_update_duration_ms: Whole<100, 1, DAY>,
    pub sleep_enabled: Option<bool>,
    pub sleep_duration_ms: Whole<1_000, 0, DAY>,
    pub min_batch_size: Whole<100, 1, LARGEST_BATCH>,
    pub default_batch_size: Whole<100, 1, LARGEST_BATCH>,
    pub max_batch_size: Whole<1_000_000, 1, LARGEST_BATCH>,
    pub max_min_batch_size: Whole<1_000, 1, LARGEST_BATCH>,
    pub batch_cut_off_ms: Whole<1_000, 1, DAY>,
    pub max_target_duration_ms: Whole<60_000, 1, DAY>,
    // No longer: a running host is to notice within a second what a command tells it, and it looks at both at once.
    pub poll_interval_ms: Whole<1_000, 10, 1_000>,
    pub max_attempts: Whole<5, 1, 1_000>,
    pub shutdown_grace_ms: Whole<10_000, 0, DAY>,
    pub estimator: Text,
    pub pace: Text,
    // Read as a section of its own; here it stands for its name.
    pub gentle: Option<IgnoredAny>,
}

/// `[background_updates.gentle]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Gentle {
    pub least_duty_percent: Whole<2, 1, 100>,
    pub most_duty_percent: Whole<90, 1, 100>,
    pub shortest_batch_ms: Whole<10, 1, DAY>,
    pub longest_sleep_ms: Whole<10_000, 10, DAY>,
    pub allowed_excess_percent: Whole<25, 0, 10_000>,
    pub allowed_excess_ms: Option<Real>,
}

/// `[[database]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Database {
    pub name: Text,
    pub url: Text,
    pub url_file: Text,
    pub queue_table: Text,
    pub lock_timeout_ms: Whole<2_000, 1, DAY>,
    pub statement_timeout_ms: Whole<60_000, 1, DAY>,
    pub idle_in_transaction_timeout_ms: Whole<60_000, 1, DAY>,
    pub busy_timeout_ms: Whole<5_000, 1, DAY>,
}

/// `[[controller]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Controller {
    pub name: Text,
    pub path: Text,
    pub sha256: Text,
    pub databases: Texts,
    pub fallback: Text,
    pub max_faults: Whole<3, 1, 1_000>,
    pub shadow: Option<bool>,
    // These two are read as sections of their own; here they stand for their names.
    pub settings: Option<IgnoredAny>,
    pub limits: Option<IgnoredAny>,
}

/// `[controller.limits]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Limits {
    pub fuel_per_call: Whole<10_000_000, 1, { i64::MAX as u64 }>,
    pub deadline_ms: Whole<5_000, 1, 3_600_000>,
    pub memory_bytes: Whole<{ 64 * MIB }, 65_536, { 4_096 * MIB }>,
    pub table_elements: Whole<20_000, 1, 10_000_000>,
    pub instances: Whole<100, 1, 10_000>,
    pub stack_bytes: Whole<{ MIB / 2 }, 16_384, { 16 * MIB }>,
    pub data_bytes: Whole<MIB, 1_024, { 1_024 * MIB }>,
    pub handles: Whole<1_000, 1, 1_000_000>,
    pub log_lines_per_second: Whole<100, 1, 1_000_000>,
    pub log_line_bytes: Whole<4_096, 16, MIB>,
}

/// `[update.limits]`: as a controller's, with other defaults. A call must end while whoever interrupts a batch waits for it.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct HandlerLimits {
    pub fuel_per_call: Whole<10_000_000, 1, { i64::MAX as u64 }>,
    pub fuel_per_row: Whole<1_000_000, 0, { 1 << 40 }>,
    pub deadline_ms: Whole<1_000, 1, 4_000>,
    pub memory_bytes: Whole<{ 128 * MIB }, 65_536, { 4_096 * MIB }>,
    pub table_elements: Whole<20_000, 1, 10_000_000>,
    pub instances: Whole<100, 1, 10_000>,
    pub stack_bytes: Whole<{ MIB / 2 }, 16_384, { 16 * MIB }>,
    pub data_bytes: Whole<{ 32 * MIB }, 1_024, { 1_024 * MIB }>,
    pub handles: Whole<1_000, 1, 1_000_000>,
    pub log_lines_per_second: Whole<100, 1, 1_000_000>,
    pub log_line_bytes: Whole<4_096, 16, MIB>,
}

/// `[[lane]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Lane {
    pub name: Text,
    pub kinds: Texts,
}

/// `[admin]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Admin {
    pub listen: Texts,
    pub unix_socket: Text,
    pub max_body_bytes: Whole<{ 50 * MIB }, 1_024, { 1_024 * MIB }>,
    pub max_header_bytes: Whole<65_536, 8_192, MIB>,
    pub max_connections: Whole<1_024, 1, 65_536>,
    pub header_timeout_ms: Whole<30_000, 100, DAY>,
    pub request_timeout_ms: Whole<60_000, 100, DAY>,
    pub token_file: Text,
    // Read as sections of their own; here it stands for its name.
    pub token: Option<IgnoredAny>,
}

/// `[[admin.token]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Token {
    pub name: Text,
    pub role: Text,
    pub sha256: Text,
}

/// `[signals]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Signals {
    pub enabled: Option<bool>,
    pub interval_ms: Whole<1_000, 100, DAY>,
    pub timeout_ms: Whole<1_000, 10, 60_000>,
    pub probe_write: Option<bool>,
    pub probe_interval_ms: Option<Whole<20, 5, DAY>>,
}

/// `[[signal]]`: the keys of all kinds together. How often and how long: as `[signals]` says where nothing is said.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Signal {
    pub name: Text,
    pub kind: Text,
    pub unit: Text,
    pub databases: Texts,
    pub interval_ms: Option<Whole<1_000, 100, DAY>>,
    pub timeout_ms: Option<Whole<1_000, 10, 60_000>>,
    pub sql: Text,
    pub url: Text,
    pub token: Text,
    pub pointer: Text,
    pub query: Text,
    pub path: Text,
}

/// `[[job]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Job {
    pub name: Text,
    pub database: Text,
    // These two are read as sections of their own; here they stand for their names.
    pub update: Option<IgnoredAny>,
    pub parameter: Option<IgnoredAny>,
}

/// `[[job.update]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct JobUpdate {
    pub update: Text,
    pub progress: Option<Spanned<Progress>>,
    pub depends_on: Text,
}

/// `[[job.parameter]]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct JobParameter {
    pub name: Text,
    #[serde(rename = "type")]
    pub kind: Text,
    pub required: Option<bool>,
}

/// `[[update]]`: the keys of all kinds together.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Update {
    pub name: Text,
    pub lane: Text,
    pub kind: Text,
    pub databases: Texts,
    pub schema: Text,
    pub table: Text,
    pub key: Option<Spanned<OneOrMany>>,
    pub set: Text,
    #[serde(rename = "where")]
    pub condition: Text,
    pub index: Text,
    pub columns: Option<Spanned<Columns>>,
    pub expressions: Texts,
    pub unique: Option<bool>,
    pub replaces: Text,
    pub postgres_only: Option<bool>,
    pub into: Text,
    pub into_schema: Text,
    pub on_conflict: Text,
    pub only: Option<bool>,
    pub row_security: Option<bool>,
    pub on_skip: Text,
    pub sql: Text,
    pub reason: Text,
    pub constraint: Text,
    pub check: Text,
    pub unique_columns: Option<Spanned<OneOrMany>>,
    pub workers: Whole<1, 1, LARGEST_CREW>,
    pub verify: Text,
    pub canary: Option<Spanned<NumberOrText>>,
    pub max_rows: Option<Whole<0, 0, { i64::MAX as u64 }>>,
    pub keep: Text,
    pub update: Text,
    pub read: Option<Spanned<OneOrMany>>,
    pub write: Option<Spanned<OneOrMany>>,
    pub component: Text,
    pub sha256: Text,
    pub impure: Option<bool>,
    // These two are read as sections of their own; here they stand for their names.
    pub settings: Option<IgnoredAny>,
    pub limits: Option<IgnoredAny>,
    pub on_error: Text,
    pub max_skipped: Option<Spanned<toml::Value>>,
    pub skipped_ok: Option<bool>,
}

/// A whole number from `MIN` to `MAX`, `DEFAULT` where its key is left out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole<const DEFAULT: u64, const MIN: u64, const MAX: u64>(pub u64);

impl<const DEFAULT: u64, const MIN: u64, const MAX: u64> Default for Whole<DEFAULT, MIN, MAX> {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

impl<'de, const DEFAULT: u64, const MIN: u64, const MAX: u64> Deserialize<'de> for Whole<DEFAULT, MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(WholeVisitor::<MIN, MAX>).map(Self)
    }
}

struct WholeVisitor<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for WholeVisitor<MIN, MAX> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match MAX {
            // The largest that TOML can write: not a limit that anybody needs to hear of.
            _ if MAX == i64::MAX as u64 => write!(f, "a whole number of {MIN} or more"),
            _ => write!(f, "a whole number from {MIN} to {MAX}"),
        }
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        match (MIN..=MAX).contains(&number) {
            true => Ok(number),
            false => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
        }
    }
}

/// A number of 0 or more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Real(pub f64);

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        /// What is said of other numbers.
        const EXPECTED: &str = "a number from 0 to 1000000000";
        match (0.0..=1e9).contains(&number) {
            true => Ok(Self(number)),
            false => Err(de::Error::invalid_value(de::Unexpected::Float(number), &EXPECTED)),
        }
    }
}

/// One string, or an array of them.
#[derive(Debug, Default)]
pub(super) struct OneOrMany(pub Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor).map(Self)
    }
}

struct OneOrManyVisitor;

impl<'de> Visitor<'de> for OneOrManyVisitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of strings")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(vec![text.to_owned()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = elements.next_element()? {
            texts.push(text);
        }
        Ok(texts)
    }
}

/// A number, or a text.
#[derive(Debug)]
pub(super) struct NumberOrText(pub String);

impl<'de> Deserialize<'de> for NumberOrText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrTextVisitor).map(Self)
    }
}

struct NumberOrTextVisitor;

impl Visitor<'_> for NumberOrTextVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a string")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(number.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(text.to_owned())
    }
}

/// Columns: an array of their names, or a table of what is written to each.
#[derive(Debug)]
pub(super) enum Columns {
    Names(Vec<Spanned<String>>),
    Expressions(Vec<(String, Spanned<String>)>),
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ColumnsVisitor)
    }
}

struct ColumnsVisitor;

impl<'de> Visitor<'de> for ColumnsVisitor {
    type Value = Columns;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of strings, or a table of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = elements.next_element()? {
            names.push(name);
        }
        Ok(Columns::Names(names))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut expressions = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            expressions.push(entry);
        }
        Ok(Columns::Expressions(expressions))
    }
}

/// A JSON object, written as a table or as the text that it is in the queue.
#[derive(Debug)]
pub(super) enum Progress {
    Table(Map<String, Value>),
    /// Perhaps no JSON at all: variables in it are not replaced before it is read.
    Json(String),
}

impl<'de> Deserialize<'de> for Progress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ProgressVisitor)
    }
}

struct ProgressVisitor;

impl<'de> Visitor<'de> for ProgressVisitor {
    type Value = Progress;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table or a JSON object in a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Progress::Json(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
        Map::deserialize(MapAccessDeserializer::new(entries)).map(Progress::Table)
    }
}
