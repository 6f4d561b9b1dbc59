//! Databases: which system each is, and what can be set for it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::Position;
use super::model::{Database, Target};
use super::raw;
use super::resolve::{HOW_TO_BE_READ, relative_to_file, require, text, twice};
use super::secret::Secret;
use super::section::{Reader, Section, Table};

/// Reads the databases.
pub(super) fn databases<'a>(reader: &mut Reader<'a>, value: Option<Spanned<DeValue<'a>>>) -> Vec<Database> {
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
                    reader.error(reader.at(file), message, Some(HOW_TO_BE_READ.to_owned()));
                    None
                }
            }
        }
        (false, false) => {
            let hint = "write url = \"sqlite:app.db\", url = \"postgres://user@host/name\", or url_file = \"…\"";
            require(reader, section, "url", Some(hint.to_owned()));
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
        let (message, hint) = match has_parameters(url.reveal()) {
            true => (
                "\"url\" is a list of parameters, and not a url",
                "write \"host=db dbname=app user=me password=…\" as \"postgres://me:…@db/app\"",
            ),
            false => (
                "\"url\" names neither a SQLite file nor a PostgreSQL server",
                "write \"sqlite:app.db\" or \"postgres://user@host/name\"",
            ),
        };
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
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// True for libpq's other form, as in `host=db dbname=app`.
fn has_parameters(url: &str) -> bool {
    !url.contains("://") && url.contains('=')
}

fn place_of_url(section: &Section<raw::Database>) -> Position {
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
