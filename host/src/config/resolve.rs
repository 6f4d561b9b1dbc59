//! From what is written to what is meant: the sections, what is required in them, and what they say of each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::model::{
    BackgroundUpdates, Config, Controller, Database, Databases, Estimator, Limits, Places, Settings, Target,
};
use super::raw;
use super::secret::Secret;
use super::section::{Reader, Section, Table, suggest};
use super::update;
use crate::controller::Fallback;

/// The sections of the file.
const SECTIONS: [&str; 4] = ["background_updates", "database", "controller", "update"];

/// Reads the whole document. What is wrong is with the reader afterwards, and what is returned then is of no use.
pub(super) fn config<'a>(reader: &mut Reader<'a>, mut document: DeTable<'a>) -> Config {
    reader.refuse_unknown_keys("", &mut document, &SECTIONS);
    let [background, database, controller, update] = SECTIONS.map(|name| document.remove(name));
    let background_updates = background_updates(reader, background);
    let databases = databases(reader, database);
    let known: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
    let controllers = controllers(reader, controller, &known);
    let updates = update::updates(reader, update, &known);
    let mut config = Config {
        path: reader.source.path.to_owned(),
        background_updates,
        databases,
        controllers,
        updates,
        warnings: Vec::new(),
    };
    config.warnings = ignored_controllers(&config);
    config
}

fn background_updates<'a>(reader: &mut Reader<'a>, value: Option<Spanned<DeValue<'a>>>) -> BackgroundUpdates {
    const TITLE: &str = "[background_updates]";
    let table =
        value.and_then(|value| reader.table(TITLE, value)).unwrap_or_else(|| Spanned::new(0..0, DeTable::new()));
    let Section { values: raw, places, .. } = reader.section::<raw::BackgroundUpdates>(TITLE, table);
    if let Some(estimator) = &raw.estimator {
        one_of(reader, "estimator", estimator, &["synapse"]);
    }
    let (target, longest) = (raw.background_update_duration_ms.0, raw.max_target_duration_ms.0);
    if target > longest {
        let message = format!(
            "\"background_update_duration_ms\" is {target}, more than \"max_target_duration_ms\", which is {longest}"
        );
        let hint = "raise the one or lower the other".to_owned();
        reader.error(places.of("background_update_duration_ms"), message, Some(hint));
    }
    BackgroundUpdates {
        target_duration: Duration::from_millis(target),
        sleep_enabled: raw.sleep_enabled.unwrap_or(true),
        sleep_duration: Duration::from_millis(raw.sleep_duration_ms.0),
        min_batch_size: narrow(raw.min_batch_size.0),
        default_batch_size: narrow(raw.default_batch_size.0),
        max_batch_size: narrow(raw.max_batch_size.0),
        max_target_duration: Duration::from_millis(longest),
        poll_interval: Duration::from_millis(raw.poll_interval_ms.0),
        max_attempts: narrow(raw.max_attempts.0),
        shutdown_grace: Duration::from_millis(raw.shutdown_grace_ms.0),
        estimator: Estimator::Synapse,
    }
}

/// A number that its range in `raw` keeps within 32 bits.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn databases<'a>(reader: &mut Reader<'a>, value: Option<Spanned<DeValue<'a>>>) -> Vec<Database> {
    let Some(value) = value else {
        let hint = "add [[database]] with a url, e.g. \"sqlite:app.db\" or \"postgres://user@host/name\"";
        reader.error(reader.source.position(0), "there is no [[database]]", Some(hint.to_owned()));
        return Vec::new();
    };
    let mut databases: Vec<Database> = Vec::new();
    for table in reader.tables("[[database]]", value) {
        let database = database(reader, table);
        if let Some(earlier) = databases.iter().find(|earlier| earlier.name == database.name) {
            let hint = match database.places.keys.contains_key("name") {
                true => "give one of them another name",
                false => "give it a name: without one it is called \"master\"",
            };
            let message = twice("database", &database.name, &earlier.places);
            reader.error(database.places.of("name"), message, Some(hint.to_owned()));
        }
        databases.push(database);
    }
    databases
}

/// Says that there are two of one name.
pub(super) fn twice(what: &str, name: &str, earlier: &Places) -> String {
    format!("{what} \"{name}\" is defined already, on line {}", earlier.header.line)
}

fn database<'a>(reader: &mut Reader<'a>, table: Table<'a>) -> Database {
    let section = reader.section::<raw::Database>("[[database]]", table);
    let name = text(reader, "name", section.values.name.as_ref()).unwrap_or_else(|| "master".to_owned());
    let queue_table = text(reader, "queue_table", section.values.queue_table.as_ref());
    let target = match url(reader, &section) {
        Some(url) => target(reader, &section, url),
        None => Target::Sqlite { path: PathBuf::new(), busy_timeout: Duration::ZERO },
    };
    let queue_table = queue_table.unwrap_or_else(|| "background_updates".to_owned());
    Database { name, target, queue_table, places: section.places }
}

/// The URL, from where it stands or from the file that it stands in.
fn url(reader: &mut Reader<'_>, section: &Section<raw::Database>) -> Option<Secret> {
    match (section.has("url"), section.has("url_file")) {
        (true, true) => {
            let message = "both \"url\" and \"url_file\": which of them counts?";
            reader.error(section.places.of("url_file"), message, Some("keep one".to_owned()));
            None
        }
        (true, false) => text(reader, "url", section.values.url.as_ref()).map(Secret::new),
        (false, true) => {
            let file = section.values.url_file.as_ref()?;
            let path = relative_to_file(reader.source.path, file.get_ref());
            match fs::read_to_string(path) {
                Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
                Err(error) => {
                    let message = format!("\"url_file\": cannot read {}: {error}", reader.written(file));
                    reader.error(reader.at(file), message, None);
                    None
                }
            }
        }
        (false, false) => {
            let hint = "write url = \"sqlite:app.db\", url = \"postgres://user@host/name\", or url_file = \"…\"";
            reader.error(
                section.places.header,
                format!("\"url\" is missing in {}", section.title),
                Some(hint.to_owned()),
            );
            None
        }
    }
}

/// Tells the two systems apart, and refuses the settings of the other one.
fn target(reader: &mut Reader<'_>, section: &Section<raw::Database>, url: Secret) -> Target {
    let raw = &section.values;
    if let Some(path) = url.reveal().strip_prefix("sqlite:") {
        let path = sqlite_path(reader, section, path);
        for key in ["lock_timeout_ms", "statement_timeout_ms", "idle_in_transaction_timeout_ms"] {
            refuse_for_system(reader, section, key, "SQLite", "SQLite has \"busy_timeout_ms\"");
        }
        return Target::Sqlite { path, busy_timeout: Duration::from_millis(raw.busy_timeout_ms.0) };
    }
    if !is_postgres(url.reveal()) {
        let message = "\"url\" names neither a SQLite file nor a PostgreSQL server";
        let hint = "write \"sqlite:app.db\", \"postgres://user@host/name\" or \"host=… dbname=…\"";
        reader.error(place_of_url(section), message, Some(hint.to_owned()));
    }
    let hint = "PostgreSQL has \"lock_timeout_ms\", \"statement_timeout_ms\" and \"idle_in_transaction_timeout_ms\"";
    refuse_for_system(reader, section, "busy_timeout_ms", "PostgreSQL", hint);
    Target::Postgres {
        url,
        lock_timeout: Duration::from_millis(raw.lock_timeout_ms.0),
        statement_timeout: Duration::from_millis(raw.statement_timeout_ms.0),
        idle_in_transaction_timeout: Duration::from_millis(raw.idle_in_transaction_timeout_ms.0),
    }
}

fn is_postgres(url: &str) -> bool {
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    is_url || (!url.contains("://") && url.contains('='))
}

fn place_of_url(section: &Section<raw::Database>) -> super::Position {
    section.places.of(if section.has("url_file") { "url_file" } else { "url" })
}

fn sqlite_path(reader: &mut Reader<'_>, section: &Section<raw::Database>, path: &str) -> PathBuf {
    let problem = match path {
        "" => Some(("\"url\" names no file", "write the file's path after \"sqlite:\"")),
        ":memory:" => Some((
            "\"url\" names a database in memory, which no other program can fill",
            "write a file's path after \"sqlite:\"",
        )),
        _ if path.starts_with("//") => Some((
            "\"url\" has \"//\" after \"sqlite:\"",
            "write the path alone: \"sqlite:app.db\", or \"sqlite:/srv/app.db\" from the root",
        )),
        _ => None,
    };
    if let Some((message, hint)) = problem {
        reader.error(place_of_url(section), message, Some(hint.to_owned()));
    }
    relative_to_file(reader.source.path, path)
}

fn refuse_for_system(
    reader: &mut Reader<'_>,
    section: &Section<raw::Database>,
    key: &str,
    system: &str,
    hint: &'static str,
) {
    if section.has(key) {
        let message = format!("\"{key}\" does nothing: the database is {system}");
        reader.error(section.places.of(key), message, Some(hint.to_owned()));
    }
}

fn relative_to_file(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

fn controllers<'a>(reader: &mut Reader<'a>, value: Option<Spanned<DeValue<'a>>>, known: &[&str]) -> Vec<Controller> {
    let Some(value) = value else { return Vec::new() };
    let mut controllers: Vec<Controller> = Vec::new();
    for table in reader.tables("[[controller]]", value) {
        let Some(controller) = controller(reader, table, known) else { continue };
        if let Some(earlier) = controllers.iter().find(|earlier| earlier.name == controller.name) {
            let message = twice("controller", &controller.name, &earlier.places);
            let hint = "give one of them another name".to_owned();
            reader.error(controller.places.of("name"), message, Some(hint));
        }
        controllers.push(controller);
    }
    controllers
}

fn controller<'a>(reader: &mut Reader<'a>, mut table: Table<'a>, known: &[&str]) -> Option<Controller> {
    let limits = table.get_mut().remove("limits");
    let settings = table.get_mut().remove("settings");
    let section = reader.section::<raw::Controller>("[[controller]]", table);
    let limits = limits.and_then(|value| reader.table("[controller.limits]", value));
    let limits = limits.map(|table| reader.section::<raw::Limits>("[controller.limits]", table).values);
    let settings = settings.and_then(|value| reader.table("[controller.settings]", value));
    let settings = settings.map(|table| reader.texts("[controller.settings]", table)).unwrap_or_default();
    let raw = &section.values;
    let fallback = raw.fallback.as_ref().and_then(|text| one_of(reader, "fallback", text, &["default", "hold"]));
    let sha256 = raw.sha256.as_ref().and_then(|text| digest(reader, text));
    let databases = named_databases(reader, raw.databases.as_ref(), known);
    let name = required(reader, &section, "name", raw.name.as_ref());
    let path = required(reader, &section, "path", raw.path.as_ref());
    Some(Controller {
        name: name?,
        path: relative_to_file(reader.source.path, &path?),
        sha256,
        databases,
        fallback: if fallback == Some("hold") { Fallback::Hold } else { Fallback::Default },
        max_faults: narrow(raw.max_faults.0),
        settings: Settings(settings),
        limits: resolve_limits(&limits.unwrap_or_default()),
        places: section.places,
    })
}

fn resolve_limits(raw: &raw::Limits) -> Limits {
    Limits {
        fuel_per_call: raw.fuel_per_call.0,
        deadline: Duration::from_millis(raw.deadline_ms.0),
        memory_bytes: raw.memory_bytes.0,
        table_elements: raw.table_elements.0,
        instances: raw.instances.0,
        stack_bytes: raw.stack_bytes.0,
        data_bytes: raw.data_bytes.0,
        handles: raw.handles.0,
        log_lines_per_second: raw.log_lines_per_second.0,
        log_line_bytes: raw.log_line_bytes.0,
    }
}

fn digest(reader: &mut Reader<'_>, text: &Spanned<String>) -> Option<[u8; 32]> {
    let digits = text.get_ref();
    let bytes = (0..32).map(|byte| u8::from_str_radix(digits.get(2 * byte..2 * byte + 2)?, 16).ok());
    let is_hex = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    match bytes.collect::<Option<Vec<u8>>>().and_then(|bytes| bytes.try_into().ok()) {
        Some(digest) if is_hex => Some(digest),
        _ => {
            let message = format!("\"sha256\": {} is not a digest of 64 hexadecimal digits", reader.written(text));
            reader.error(reader.at(text), message, Some("`sha256sum` on the file prints it".to_owned()));
            None
        }
    }
}

/// Controllers that another one before them leaves without work for some database.
fn ignored_controllers(config: &Config) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    for controller in &config.controllers {
        for database in config.databases.iter().filter(|database| controller.databases.include(&database.name)) {
            let used = config.controller_of(&database.name).filter(|used| used.name != controller.name);
            if let Some(used) = used {
                let message = format!(
                    "controller \"{}\" is ignored for database \"{}\": \"{}\" comes first",
                    controller.name, database.name, used.name
                );
                let hint = "say with `databases` which controller is for which database".to_owned();
                warnings.push(config.diagnostic(controller.places.header, message, Some(hint)));
            }
        }
    }
    warnings
}

/// A text that says something.
pub(super) fn text(reader: &mut Reader<'_>, key: &str, value: Option<&Spanned<String>>) -> Option<String> {
    let value = value?;
    if value.get_ref().trim().is_empty() {
        reader.error(reader.at(value), format!("\"{key}\" is empty"), None);
        return None;
    }
    Some(value.get_ref().clone())
}

/// As [`text`], and an error where the key is not there.
pub(super) fn required<T>(
    reader: &mut Reader<'_>,
    section: &Section<T>,
    key: &str,
    value: Option<&Spanned<String>>,
) -> Option<String> {
    if !section.has(key) {
        reader.error(section.places.header, format!("\"{key}\" is missing in {}", section.title), None);
    }
    text(reader, key, value)
}

/// One of a few words.
pub(super) fn one_of<'w>(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Spanned<String>,
    words: &[&'w str],
) -> Option<&'w str> {
    let found = words.iter().copied().find(|word| word == value.get_ref());
    if found.is_none() {
        let message = format!("unknown {key} {}", reader.written(value));
        reader.error(reader.at(value), message, Some(suggest(value.get_ref(), words)));
    }
    found
}

/// The databases that a section names, each of which must be there.
pub(super) fn named_databases(
    reader: &mut Reader<'_>,
    names: Option<&Spanned<Vec<Spanned<String>>>>,
    known: &[&str],
) -> Databases {
    let Some(names) = names else { return Databases::All };
    if names.get_ref().is_empty() {
        let hint = "leave it out to mean all of them".to_owned();
        reader.error(reader.at(names), "\"databases\" names none", Some(hint));
    }
    let mut seen = BTreeSet::new();
    for name in names.get_ref() {
        if !known.contains(&name.get_ref().as_str()) {
            let message = format!("there is no [[database]] named {}", reader.written(name));
            reader.error(reader.at(name), message, Some(suggest(name.get_ref(), known)));
        } else if !seen.insert(name.get_ref()) {
            reader.error(reader.at(name), format!("{} is named twice", reader.written(name)), None);
        }
    }
    Databases::Named(names.get_ref().iter().map(|name| name.get_ref().clone()).collect())
}
