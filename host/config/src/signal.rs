//! Signals: how a database's load is sampled, and what else is.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Position;
use super::model::{OwnSignal, SignalSettings, SignalSource};
use super::raw;
use super::resolve::{named_databases, one_of, relative_to_file, required, text, twice};
use super::secret::Secret;
use super::section::{Reader, Section, Table, list};
use tidegate::signal::{Address, BuiltIn, Part, Schedule};

const TITLE: &str = "[[signal]]";

/// The longest name, in bytes: it is a label of metrics, and a guest asks for it by name.
const LONGEST_NAME: usize = 64;

/// The keys of a kind, beside those that every kind has: those it needs, and those it may have.
const SHAPES: [(&str, &[&str], &[&str]); 4] = [
    ("sql", &["sql"], &[]),
    ("http", &["url"], &["pointer", "token"]),
    ("prometheus", &["url", "query"], &["token"]),
    ("file", &["path"], &[]),
];

/// Reads `[signals]`.
pub(super) fn settings<'a>(reader: &mut Reader<'a>, value: Option<Spanned<DeValue<'a>>>) -> SignalSettings {
    const TITLE: &str = "[signals]";
    let table =
        value.and_then(|value| reader.table(TITLE, value)).unwrap_or_else(|| Spanned::new(0..0, DeTable::new()));
    let Section { values: raw, .. } = reader.section::<raw::Signals>(TITLE, table);
    SignalSettings {
        enabled: raw.enabled.unwrap_or(true),
        schedule: schedule(raw.interval_ms.0, raw.timeout_ms.0),
        probe_writes: raw.probe_write,
        probe_interval: raw.probe_interval_ms.map(|ms| Duration::from_millis(ms.0)),
    }
}

fn schedule(interval_ms: u64, timeout_ms: u64) -> Schedule {
    Schedule { interval: Duration::from_millis(interval_ms), timeout: Duration::from_millis(timeout_ms) }
}

/// Reads every `[[signal]]`.
pub(super) fn signals<'a>(
    reader: &mut Reader<'a>,
    value: Option<Spanned<DeValue<'a>>>,
    settings: &SignalSettings,
    known: &[&str],
) -> Vec<OwnSignal> {
    let Some(value) = value else { return Vec::new() };
    let mut signals: Vec<OwnSignal> = Vec::new();
    for table in reader.tables(TITLE, value) {
        let Some(signal) = signal(reader, table, settings, known) else { continue };
        if let Some(earlier) = signals.iter().find(|earlier| collide(earlier, &signal)) {
            let message = twice("signal", &signal.name, &earlier.places);
            let hint = "give one of them another name, or say with `databases` which is for which";
            reader.error(signal.places.of("name"), message, Some(hint.to_owned()));
        }
        signals.push(signal);
    }
    signals
}

/// True where one of two signals of one name would hide the other.
fn collide(a: &OwnSignal, b: &OwnSignal) -> bool {
    a.name == b.name && a.databases.overlap(&b.databases)
}

fn signal<'a>(
    reader: &mut Reader<'a>,
    table: Table<'a>,
    settings: &SignalSettings,
    known: &[&str],
) -> Option<OwnSignal> {
    let section = reader.section::<raw::Signal>(TITLE, table);
    let raw = &section.values;
    let databases = named_databases(reader, raw.databases.as_ref(), known);
    let name = required(reader, &section, "name", raw.name.as_ref()).filter(|_| check_name(reader, &section));
    required(reader, &section, "kind", raw.kind.as_ref());
    let kind = one_of(reader, "kind", raw.kind.as_ref()?, &SHAPES.map(|(kind, ..)| kind))?;
    check_keys(reader, &section, kind);
    let source = source(reader, &section, kind);
    let interval = raw.interval_ms.map_or(settings.schedule.interval, |ms| Duration::from_millis(ms.0));
    let timeout = raw.timeout_ms.map_or(settings.schedule.timeout, |ms| Duration::from_millis(ms.0));
    Some(OwnSignal {
        name: name?,
        unit: raw.unit.as_ref().map(|unit| unit.get_ref().clone()).unwrap_or_default(),
        databases,
        source: source?,
        schedule: Schedule { interval, timeout },
        places: section.places,
    })
}

fn check_name(reader: &mut Reader<'_>, section: &Section<raw::Signal>) -> bool {
    let Some(name) = &section.values.name else { return false };
    let written = reader.written(name);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let (message, hint) = if BuiltIn::named(name.get_ref()).is_some() {
        (format!("{written} is the name of a signal that is built in"), "give it another name".to_owned())
    } else if name.get_ref().len() > LONGEST_NAME || !name.get_ref().chars().all(is_plain) {
        let hint = format!("use letters, digits, \"-\", \"_\" and \".\", at most {LONGEST_NAME} of them");
        (format!("a signal cannot be named {written}"), hint)
    } else {
        return true;
    };
    reader.error(reader.at(name), message, Some(hint));
    false
}

/// Refuses the keys that another kind has, and names those that are missing.
fn check_keys(reader: &mut Reader<'_>, section: &Section<raw::Signal>, kind: &str) {
    let Some((_, needed, optional)) = SHAPES.iter().find(|(name, ..)| *name == kind) else { return };
    let belongs = |key: &str| needed.contains(&key) || optional.contains(&key);
    let of_some_kind = |key: &str| SHAPES.iter().any(|(_, a, b)| a.contains(&key) || b.contains(&key));
    let foreign: Vec<(&String, &Position)> =
        section.places.keys.iter().filter(|(key, _)| of_some_kind(key) && !belongs(key)).collect();
    for (key, position) in foreign {
        let message = format!("\"{key}\" does not belong in {}, which is of kind \"{kind}\"", section.title);
        let own = [*needed, *optional].concat();
        reader.error(*position, message, Some(format!("\"{kind}\" has {}", list(&own))));
    }
    for key in needed.iter().filter(|key| !section.has(key)) {
        let message = format!("\"{key}\" is missing in {}: kind \"{kind}\" needs it", section.title);
        reader.error(section.places.header, message, None);
    }
}

fn source(reader: &mut Reader<'_>, section: &Section<raw::Signal>, kind: &str) -> Option<SignalSource> {
    let raw = &section.values;
    let token = text(reader, "token", raw.token.as_ref()).map(Secret::new);
    Some(match kind {
        "sql" => SignalSource::Sql(text(reader, "sql", raw.sql.as_ref())?),
        "file" => SignalSource::File(relative_to_file(reader.source.path, &text(reader, "path", raw.path.as_ref())?)),
        "http" => {
            let url = text(reader, "url", raw.url.as_ref());
            let pointer = pointer(reader, raw.pointer.as_ref());
            let part = pointer.map_or(Part::Whole, Part::Pointer);
            SignalSource::Http { address: address(reader, section, Address::parse(&url?))?, token, part }
        }
        _ => {
            let (url, query) = (text(reader, "url", raw.url.as_ref()), text(reader, "query", raw.query.as_ref()));
            let address = address(reader, section, Address::prometheus(&url?, &query?))?;
            SignalSource::Http { address, token, part: Part::Prometheus }
        }
    })
}

fn pointer(reader: &mut Reader<'_>, value: Option<&Spanned<String>>) -> Option<String> {
    let value = value?;
    if !value.get_ref().starts_with('/') {
        let message = format!("\"pointer\": {} is not a JSON pointer", reader.written(value));
        reader.error(reader.at(value), message, Some("write it as in \"/queue/depth\"".to_owned()));
    }
    Some(value.get_ref().clone())
}

/// The address, or why there is none: the value itself may be a secret.
fn address(
    reader: &mut Reader<'_>,
    section: &Section<raw::Signal>,
    address: Result<Address, String>,
) -> Option<Address> {
    address
        .map_err(|problem| {
            let hint = "write it as in \"http://127.0.0.1:9090/depth\"".to_owned();
            reader.error(section.places.of("url"), format!("\"url\" cannot be used: {problem}"), Some(hint));
        })
        .ok()
}
