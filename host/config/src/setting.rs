//! `[settings]`: values for the statements of updates.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::diagnostic::{Diagnostic, Position};
use super::model::{Config, Update, UpdateKind};
use super::section::Reader;
use tidegate::update::sql::System;
use tidegate::update::{Setting, Settings, settings as values};

const TITLE: &str = "[settings]";

/// A setting's name, and where it stands.
pub(super) type Place = (String, Position);

/// Reads the settings, and where each of them stands.
pub(super) fn settings<'a>(reader: &mut Reader<'a>, value: Option<Spanned<DeValue<'a>>>) -> (Settings, Vec<Place>) {
    let Some(mut table) = value.and_then(|value| reader.table(TITLE, value)) else { return Default::default() };
    reader.replace_variables(table.get_mut());
    let (mut found, mut places) = (Vec::new(), Vec::new());
    for (key, value) in table.into_inner() {
        let (name, position) = (key.get_ref().to_string(), reader.at(&key));
        if !is_name(&name) {
            let hint = "write letters, digits and underscores, and begin with a letter: statements say :setting_NAME";
            reader.error(position, format!("\"{name}\" in {TITLE} is no name of a setting"), Some(hint.to_owned()));
            continue;
        }
        let at = reader.at(&value);
        match setting(value.get_ref()) {
            Some(setting) => found.push((name.clone(), setting)),
            None => {
                let hint = "write a text, a number, true or false, or a list of these, which statements get as JSON";
                reader.error(
                    at,
                    format!("\"{name}\" in {TITLE} is nothing that a statement can be given"),
                    Some(hint.to_owned()),
                );
            }
        }
        places.push((name, position));
    }
    (found.into_iter().collect(), places)
}

/// A name that a placeholder can hold on both databases.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn setting(value: &DeValue<'_>) -> Option<Setting> {
    Some(match value {
        DeValue::String(text) => Setting::Text(text.to_string()),
        DeValue::Integer(number) => Setting::Integer(integer(number)?),
        DeValue::Float(number) => {
            Setting::Real(number.as_str().parse().ok().filter(|number: &f64| number.is_finite())?)
        }
        DeValue::Boolean(flag) => Setting::Boolean(*flag),
        DeValue::Array(_) => Setting::Text(json(value)?.to_string()),
        DeValue::Datetime(_) | DeValue::Table(_) => return None,
    })
}

fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A list of plain values.
fn json(value: &DeValue<'_>) -> Option<Json> {
    Some(match value {
        DeValue::Array(elements) => elements.iter().map(|element| json(element.get_ref())).collect::<Option<_>>()?,
        value => match setting(value)? {
            Setting::Text(text) => Json::from(text),
            Setting::Integer(number) => Json::from(number),
            Setting::Real(number) => Json::from(number),
            Setting::Boolean(flag) => Json::from(flag),
        },
    })
}

/// Warns of settings that no statement uses: their names may be misspelt.
pub(super) fn unused(config: &Config, places: &[Place]) -> Vec<Diagnostic> {
    let used: BTreeSet<&str> = config.updates.iter().filter_map(statements).flat_map(uses).collect();
    let unused = places.iter().filter(|(name, _)| !used.contains(name.as_str()));
    let warning = |(name, position): &Place| {
        let hint = format!("write :setting_{name} in a statement of an update, or leave it out");
        config.diagnostic(*position, format!("no update uses the setting \"{name}\""), Some(hint))
    };
    unused.map(warning).collect()
}

fn statements(update: &Update) -> Option<&str> {
    match &update.kind {
        UpdateKind::Batch(definition) => Some(&definition.sql),
        UpdateKind::Script(definition) => Some(&definition.sql),
        _ => None,
    }
}

fn uses(sql: &str) -> impl Iterator<Item = &str> {
    [System::Sqlite, System::Postgres].into_iter().flat_map(move |system| values::uses(sql, system))
}
