//! From what is written to what is meant: the sections, what is required in them, and what they say of each other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::model::{BackgroundUpdates, Config, Databases, Places};
use super::section::{Reader, Section, suggest};
use super::{admin, controller, database, gentle, job, lane, raw, setting, signal, update};
use tidegate::pace::Estimator;

/// The sections of the file.
const SECTIONS: [&str; 10] =
    ["background_updates", "database", "controller", "lane", "settings", "update", "job", "admin", "signals", "signal"];

/// What to do about a file that cannot be read.
pub(super) const HOW_TO_BE_READ: &str =
    "a relative path begins at the configuration's folder, and the host's user must be able to read the file";

/// Reads the whole document. What is wrong is with the reader afterwards, and what is returned then is of no use.
pub(super) fn config<'a>(reader: &mut Reader<'a>, mut document: DeTable<'a>) -> Config {
    reader.refuse_unknown_keys("", &mut document, &SECTIONS);
    let [background, databases, controllers, lanes, values, updates, jobs, admin, sampling, signals] =
        SECTIONS.map(|name| document.remove(name));
    let (background_updates, places) = background_updates(reader, background);
    let databases = database::databases(reader, databases);
    let known: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
    let controllers = controller::controllers(reader, controllers, &known);
    let lanes = lane::lanes(reader, lanes);
    let (values, unused) = setting::settings(reader, values);
    let updates = update::updates(reader, updates, &databases, &lanes, &values);
    let jobs = job::jobs(reader, jobs, &known);
    let mut sampling = signal::settings(reader, sampling);
    gentle::probe(reader, &places, background_updates.gentle.as_ref(), &mut sampling);
    let signals = signal::signals(reader, signals, &sampling, &known);
    let mut config = Config {
        path: reader.source.path.to_owned(),
        background_updates,
        databases,
        controllers,
        updates,
        jobs,
        admin: admin::admin(reader, admin),
        sampling,
        signals,
        warnings: Vec::new(),
    };
    config.warnings = controller::ignored_controllers(&config);
    config.warnings.extend(setting::unused(&config, &unused));
    config.warnings.extend(job::jobs_of_undefined_updates(&config));
    config.warnings.extend(admin::open_token_file(&config));
    config
}

fn background_updates<'a>(reader: &mut Reader<'a>, value: Option<Spanned<DeValue<'a>>>) -> (BackgroundUpdates, Places) {
    const TITLE: &str = "[background_updates]";
    let mut table =
        value.and_then(|value| reader.table(TITLE, value)).unwrap_or_else(|| Spanned::new(0..0, DeTable::new()));
    let gentle = table.get_mut().remove("gentle");
    let Section { values: raw, places, .. } = reader.section::<raw::BackgroundUpdates>(TITLE, table);
    let estimator = estimator(reader, raw.estimator.as_ref());
    let min_batch_size = narrow(raw.min_batch_size.0);
    let (target, longest) = (raw.background_update_duration_ms.0, raw.max_target_duration_ms.0);
    if target > longest {
        let message = format!(
            "\"background_update_duration_ms\" is {target}, more than \"max_target_duration_ms\", which is {longest}"
        );
        let hint = "raise the one or lower the other".to_owned();
        reader.error(places.of("background_update_duration_ms"), message, Some(hint));
    }
    let gentle = gentle::gentle(reader, "[background_updates.gentle]", gentle, raw.pace.as_ref(), target);
    let background_updates = BackgroundUpdates {
        target_duration: Duration::from_millis(target),
        sleep_enabled: raw.sleep_enabled.unwrap_or(true),
        sleep_duration: Duration::from_millis(raw.sleep_duration_ms.0),
        min_batch_size,
        // What the operator asks for themselves is no controller's word.
        max_min_batch_size: narrow(raw.max_min_batch_size.0).max(min_batch_size),
        cut_off: Duration::from_millis(raw.batch_cut_off_ms.0),
        default_batch_size: narrow(raw.default_batch_size.0),
        max_batch_size: narrow(raw.max_batch_size.0),
        max_target_duration: Duration::from_millis(longest),
        poll_interval: Duration::from_millis(raw.poll_interval_ms.0),
        max_attempts: narrow(raw.max_attempts.0),
        shutdown_grace: Duration::from_millis(raw.shutdown_grace_ms.0),
        estimator,
        gentle,
    };
    (background_updates, places)
}

/// How batches are to be sized.
pub(super) fn estimator(reader: &mut Reader<'_>, word: Option<&Spanned<String>>) -> Estimator {
    const SYNAPSE: &str = "synapse";
    match word.and_then(|word| one_of(reader, "estimator", word, &["slices", SYNAPSE])) {
        Some(SYNAPSE) => Estimator::Synapse,
        _ => Estimator::Slices,
    }
}

/// A number that its range in `raw` keeps within 32 bits.
pub(super) fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Says that there are two of one name.
pub(super) fn twice(what: &str, name: &str, earlier: &Places) -> String {
    format!("{what} \"{name}\" is defined already, on line {}", earlier.header.line)
}

/// A path that may be relative to the configuration file's folder.
pub(super) fn relative_to_file(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
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
    require(reader, section, key, None);
    text(reader, key, value)
}

/// Says where a key is missing.
pub(super) fn require<T>(reader: &mut Reader<'_>, section: &Section<T>, key: &str, hint: Option<String>) {
    if !section.has(key) {
        reader.error(section.places.header, format!("\"{key}\" is missing in {}", section.title), hint);
    }
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
