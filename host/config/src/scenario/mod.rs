//! Scenarios: TOML files that describe a database which is only modelled, what happens to it, and what is expected of a
//! controller meanwhile. `docs/scenarios.md` describes them.

mod expect;
mod raw;
mod standard;
mod world;

use std::fs;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::controller::resolve_limits;
use super::diagnostic::{Diagnostic, Source};
use super::gentle;
use super::resolve::{estimator, narrow, required, text};
use super::section::{Reader, Section, Table};
use tidegate::controller::{BuiltIn, SupervisorSettings};
use tidegate_simulate::Scenario;
use tidegate_simulate::scenario::{HostSettings, Span};

pub use standard::{STANDARD, standard};

/// The version of scenarios that this program reads.
const VERSION: i64 = 1;

/// Where the wall clock stands at the start where nothing is said: 2026-01-05T12:00:00Z, a Monday.
const START: Duration = Duration::from_secs(1_767_614_400);

/// Reads the file of a scenario.
///
/// # Errors
/// Everything that is wrong with it, in order of appearance.
pub fn load_scenario(path: &Path) -> Result<Scenario, Vec<Diagnostic>> {
    match fs::read_to_string(path) {
        Ok(text) => parse_scenario(&text, path),
        Err(error) => Err(vec![Diagnostic {
            file: path.to_owned(),
            position: None,
            message: format!("cannot read the scenario: {error}"),
            hint: Some("name a file, or try the standard scenarios with `--all-standard`".to_owned()),
        }]),
    }
}

/// Reads a scenario from a text that stands for the file at `path`.
///
/// # Errors
/// As [`load_scenario`].
pub fn parse_scenario(text: &str, path: &Path) -> Result<Scenario, Vec<Diagnostic>> {
    let source = Source::new(path, text);
    let document = match DeTable::parse_recoverable(text) {
        (document, errors) if errors.is_empty() => document,
        (_, errors) => return Err(errors.iter().map(|error| super::syntax_error(&source, error)).collect()),
    };
    // What a file means must not depend on where it is read.
    let mut reader = Reader { source, environment: &|_| None, errors: Vec::new() };
    let scenario = scenario(&mut reader, document);
    let mut errors = reader.errors;
    errors.sort_by_key(|diagnostic| diagnostic.position);
    match scenario {
        Some(scenario) if errors.is_empty() => Ok(scenario),
        _ => Err(errors),
    }
}

/// A section's place in the document, taken out of it.
type Taken<'a> = Option<Spanned<DeValue<'a>>>;

fn scenario<'a>(reader: &mut Reader<'a>, mut document: Table<'a>) -> Option<Scenario> {
    // Taken out before the keys above them are read, and put back as mere names.
    let mut take = |name: &str| document.get_mut().remove(name);
    let (settings, limits, host) = (take("settings"), take("limits"), take("host"));
    let (clock, updates, load, stalls) = (take("clock"), take("update"), take("load"), take("stall"));
    let (signals, actions, expect) = (take("signal"), take("action"), take("expect"));
    let section = reader.section::<raw::Scenario>("the scenario", document);
    let raw = &section.values;
    if !section.has("version") {
        let hint = "write `version = 1` as its first line".to_owned();
        reader.error(section.places.header, "\"version\" is missing in the scenario", Some(hint));
    }
    if let Some(version) = raw.version.filter(|version| *version != VERSION) {
        let message = format!("\"version\" is {version}, and this program reads version {VERSION}");
        let hint = "run it with the version of tidegate that it was written for, or write it anew".to_owned();
        reader.error(section.places.of("version"), message, Some(hint));
    }
    let title = "[limits]";
    let limits = limits.and_then(|value| reader.table(title, value));
    let limits = limits.map(|table| reader.section::<super::raw::Limits>(title, table).values);
    let title = "[settings]";
    let settings = settings.and_then(|value| reader.table(title, value));
    let settings = settings.map(|table| reader.texts(title, table)).unwrap_or_default();
    let host = host_settings(reader, host);
    let name = text(reader, "name", raw.name.as_ref());
    let of_file = || reader.source.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = name.unwrap_or_else(of_file);
    let updates = world::updates(reader, updates, section.places.header);
    let signals = world::signals(reader, signals);
    let expect = expect::expectations(reader, expect, &signals);
    Some(Scenario {
        name,
        description: text(reader, "description", raw.description.as_ref()).unwrap_or_default(),
        seed: raw.seed.0,
        start: match &raw.start {
            None => START,
            Some(start) => expect::instant(reader, "start", start)?,
        },
        longest: Duration::from_millis(raw.longest_ms.0),
        settings: settings.into_iter().collect(),
        limits: resolve_limits(&limits.unwrap_or_default()),
        host,
        clock: world::clock(reader, clock),
        updates,
        load: world::load(reader, load),
        stalls: world::stalls(reader, stalls),
        signals,
        actions: world::actions(reader, actions),
        expect,
    })
}

fn host_settings<'a>(reader: &mut Reader<'a>, value: Taken<'a>) -> HostSettings {
    let table = value.and_then(|value| reader.table("[host]", value));
    let mut table = table.unwrap_or_else(|| Spanned::new(0..0, DeTable::new()));
    let bounds = table.get_mut().remove("gentle");
    let Section { values: raw, .. } = reader.section::<raw::Host>("[host]", table);
    let target = raw.background_update_duration_ms.0;
    let gentle = gentle::gentle(reader, "[host.gentle]", bounds, raw.pace.as_ref(), target);
    let sleep = raw.sleep_enabled.unwrap_or(true).then_some(Duration::from_millis(raw.sleep_duration_ms.0));
    let min_batch_size = narrow(raw.min_batch_size.0);
    let supervision = SupervisorSettings {
        builtin: BuiltIn { sleep, target: Duration::from_millis(target) },
        // A modelled database is none that has one writer alone.
        gentle: gentle.map(|gentle| gentle.settings),
        max_faults: narrow(raw.max_faults.0),
        max_target: Duration::from_millis(raw.max_target_duration_ms.0),
        default_batch_size: narrow(raw.default_batch_size.0),
        min_batch_size,
        max_min_batch_size: narrow(raw.max_min_batch_size.0).max(min_batch_size),
        ..SupervisorSettings::default()
    };
    HostSettings {
        supervision,
        max_batch_size: raw.max_batch_size.0,
        max_attempts: narrow(raw.max_attempts.0),
        estimator: estimator(reader, raw.estimator.as_ref()),
        cut_off: Duration::from_millis(raw.batch_cut_off_ms.0),
    }
}

/// Reads the sections that there may be several of.
fn sections<'a, T: serde::de::DeserializeOwned + Default>(
    reader: &mut Reader<'a>,
    title: &'static str,
    value: Taken<'a>,
) -> Vec<Section<T>> {
    let tables = value.map(|value| reader.tables(title, value)).unwrap_or_default();
    tables.into_iter().map(|table| reader.section::<T>(title, table)).collect()
}

/// A time that has to end after it begins.
fn span<T>(reader: &mut Reader<'_>, section: &Section<T>, from_ms: u64, until_ms: u64) -> Option<Span> {
    if from_ms >= until_ms {
        let message = format!("it ends at {until_ms} ms, and begins at {from_ms} ms");
        let hint = "let \"until_ms\" be greater than \"from_ms\"".to_owned();
        reader.error(section.places.of("until_ms"), message, Some(hint));
        return None;
    }
    Some(Span { from: Duration::from_millis(from_ms), until: Duration::from_millis(until_ms) })
}

/// A key that has to be there, whatever its type.
fn present<T, V: Copy>(reader: &mut Reader<'_>, section: &Section<T>, key: &str, value: Option<V>) -> Option<V> {
    if !section.has(key) {
        reader.error(section.places.header, format!("\"{key}\" is missing in {}", section.title), None);
    }
    value
}

/// As [`required`], for a key whose words are few and known.
fn required_word<T>(
    reader: &mut Reader<'_>,
    section: &Section<T>,
    key: &str,
    value: Option<&Spanned<String>>,
    words: &[&'static str],
) -> Option<&'static str> {
    required(reader, section, key, value)?;
    super::resolve::one_of(reader, key, value?, words)
}
