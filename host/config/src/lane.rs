//! Lanes: which updates go on beside each other.

use std::collections::HashMap;

use toml::Spanned;
use toml::de::DeValue;

use super::model::Places;
use super::raw;
use super::resolve::{require, required, twice};
use super::section::{Reader, Table, list, suggest};
use super::update::KINDS;
use tidegate::update::FIRST_LANE;

const TITLE: &str = "[[lane]]";

/// The longest name of a lane: it stands in front of each line of the log.
const LONGEST_NAME: usize = 32;

/// Lanes by the kinds of update that they are for.
#[derive(Debug, Default)]
pub(super) struct ByKind(HashMap<String, String>);

impl ByKind {
    /// The lane of the updates of a kind that name none themselves.
    pub(super) fn of(&self, kind: &str) -> &str {
        self.0.get(kind).map_or(FIRST_LANE, String::as_str)
    }
}

/// Reads the lanes.
pub(super) fn lanes<'a>(reader: &mut Reader<'a>, value: Option<Spanned<DeValue<'a>>>) -> ByKind {
    let (mut by_kind, mut named) = (ByKind::default(), HashMap::<String, Places>::new());
    for table in value.map(|value| reader.tables(TITLE, value)).unwrap_or_default() {
        lane(reader, table, &mut by_kind, &mut named);
    }
    by_kind
}

fn lane<'a>(
    reader: &mut Reader<'a>,
    table: Table<'a>,
    by_kind: &mut ByKind,
    named: &mut HashMap<String, Places>,
) -> Option<()> {
    let section = reader.section::<raw::Lane>(TITLE, table);
    let raw = &section.values;
    required(reader, &section, "name", raw.name.as_ref());
    require(reader, &section, "kinds", Some(format!("name the kinds of update that it is for: {}", list(&KINDS))));
    let name = name(reader, "name", raw.name.as_ref())?;
    if name == FIRST_LANE {
        let message = format!("\"{name}\" is the lane of all updates that are in no other");
        reader.error(section.places.of("name"), message, Some("give this one another name".to_owned()));
    }
    if let Some(earlier) = named.get(&name) {
        let message = twice("lane", &name, earlier);
        reader.error(section.places.of("name"), message, Some("put its kinds in one section".to_owned()));
    }
    for kind in raw.kinds.as_ref()?.get_ref() {
        let word = kind.get_ref().as_str();
        if !KINDS.contains(&word) {
            let message = format!("there is no kind of update named {}", reader.written(kind));
            reader.error(reader.at(kind), message, Some(suggest(word, &KINDS)));
        } else if let Some(other) = by_kind.0.insert(word.to_owned(), name.clone()).filter(|other| *other != name) {
            let message = format!("kind \"{word}\" is in lane \"{other}\" already");
            let hint = "a kind is in one lane; a single update can name another with `lane`";
            reader.error(reader.at(kind), message, Some(hint.to_owned()));
        }
    }
    named.insert(name, section.places);
    Some(())
}

/// The name of a lane.
pub(super) fn name(reader: &mut Reader<'_>, key: &str, value: Option<&Spanned<String>>) -> Option<String> {
    let value = value?;
    let name = value.get_ref();
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
        let message = format!("\"{key}\": {} is no name for a lane", reader.written(value));
        let hint = format!("write 1 to {LONGEST_NAME} letters, digits, hyphens or underscores, e.g. \"indexes\"");
        reader.error(reader.at(value), message, Some(hint));
        return None;
    }
    Some(name.clone())
}
