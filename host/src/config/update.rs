//! Definitions of updates: which keys belong to which kind, and what they become.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::DeValue;

use super::model::{Databases, Update, UpdateKind};
use super::raw;
use super::resolve::{named_databases, one_of, required, text, twice};
use super::section::{Reader, Section, Table, list};
use crate::update::sql::TableName;
use crate::update::{BackfillDefinition, CreateIndexDefinition, DeleteDefinition, IndexParts};

const TITLE: &str = "[[update]]";

/// The keys of a kind, beside those that every kind has.
struct Shape {
    kind: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

const EVERY_KIND: [&str; 3] = ["name", "kind", "databases"];

const SHAPES: [Shape; 4] = [
    Shape { kind: "backfill", required: &["table", "key", "set"], optional: &["schema", "where"] },
    Shape { kind: "delete", required: &["table", "key", "where"], optional: &["schema"] },
    Shape {
        kind: "create-index",
        required: &["table", "index"],
        optional: &["columns", "expressions", "schema", "unique", "where"],
    },
    Shape { kind: "noop", required: &[], optional: &[] },
];

/// Kinds that the design has and this version has not.
const LATER: [&str; 5] = ["copy", "batch", "validate-constraint", "validate-constraint-and-delete", "sql"];

/// Reads the definitions of all updates.
pub(super) fn updates<'a>(
    reader: &mut Reader<'a>,
    value: Option<Spanned<DeValue<'a>>>,
    databases: &[&str],
) -> Vec<Update> {
    let Some(value) = value else { return Vec::new() };
    let mut updates: Vec<Update> = Vec::new();
    for table in reader.tables(TITLE, value) {
        let Some(update) = update(reader, table, databases) else { continue };
        if let Some(earlier) = updates.iter().find(|earlier| collide(earlier, &update)) {
            let message = twice("update", &update.name, &earlier.places);
            let hint = "give one of them another name, or say with `databases` which is for which";
            reader.error(update.places.of("name"), message, Some(hint.to_owned()));
        }
        updates.push(update);
    }
    updates
}

/// True where some database would have two updates of one name.
fn collide(a: &Update, b: &Update) -> bool {
    let share = match (&a.databases, &b.databases) {
        (Databases::Named(names), other) | (other, Databases::Named(names)) => {
            names.iter().any(|name| other.include(name))
        }
        (Databases::All, Databases::All) => true,
    };
    a.name == b.name && share
}

fn update<'a>(reader: &mut Reader<'a>, table: Table<'a>, known: &[&str]) -> Option<Update> {
    if let Some(kind) = table.get_ref().get("kind").filter(|kind| is_for_later(kind)) {
        let message = format!("kind {} is not in this version", reader.written(kind));
        let hint = format!("it can be {}", list(&SHAPES.map(|shape| shape.kind)));
        reader.error(reader.at(kind), message, Some(hint));
        return None;
    }
    let section = reader.section::<raw::Update>(TITLE, table);
    let raw = &section.values;
    let databases = named_databases(reader, raw.databases.as_ref(), known);
    let name = required(reader, &section, "name", raw.name.as_ref());
    required(reader, &section, "kind", raw.kind.as_ref());
    let kind = one_of(reader, "kind", raw.kind.as_ref()?, &SHAPES.map(|shape| shape.kind))?;
    let shape = SHAPES.iter().find(|shape| shape.kind == kind)?;
    check_keys(reader, &section, shape);
    let kind = resolve(reader, &section, kind)?;
    Some(Update { name: name?, databases, kind, places: section.places })
}

fn is_for_later(kind: &Spanned<DeValue<'_>>) -> bool {
    kind.get_ref().as_str().is_some_and(|kind| LATER.contains(&kind))
}

/// Refuses the keys that another kind has, and names those that are missing.
fn check_keys(reader: &mut Reader<'_>, section: &Section<raw::Update>, shape: &Shape) {
    let belongs =
        |key: &str| EVERY_KIND.contains(&key) || shape.required.contains(&key) || shape.optional.contains(&key);
    let of_some_kind = |key: &str| SHAPES.iter().any(|s| s.required.contains(&key) || s.optional.contains(&key));
    // A key of no kind at all is reported already.
    for (key, position) in section.places.keys.iter().filter(|(key, _)| of_some_kind(key) && !belongs(key)) {
        let own = [shape.required, shape.optional].concat();
        let hint = match own.is_empty() {
            true => format!("\"{}\" has no keys of its own", shape.kind),
            false => format!("\"{}\" has {}", shape.kind, list(&own)),
        };
        let message = format!("\"{key}\" does not belong in {}, which is of kind \"{}\"", section.title, shape.kind);
        reader.error(*position, message, Some(hint));
    }
    for key in shape.required.iter().filter(|key| !section.has(key)) {
        let message = format!("\"{key}\" is missing in {}: kind \"{}\" needs it", section.title, shape.kind);
        reader.error(section.places.header, message, None);
    }
}

fn resolve(reader: &mut Reader<'_>, section: &Section<raw::Update>, kind: &str) -> Option<UpdateKind> {
    let raw = &section.values;
    if kind == "noop" {
        return Some(UpdateKind::Noop);
    }
    // Everything is looked at before anything is missed, so that all that is wrong is told at once.
    let schema = text(reader, "schema", raw.schema.as_ref());
    let table = text(reader, "table", raw.table.as_ref()).map(|name| TableName { schema, name });
    let filter = text(reader, "where", raw.condition.as_ref());
    let key = key(reader, raw);
    let set = text(reader, "set", raw.set.as_ref());
    Some(match kind {
        "backfill" => UpdateKind::Backfill(BackfillDefinition { table: table?, key: key?, set: set?, filter }),
        "delete" => UpdateKind::Delete(DeleteDefinition { table: table?, key: key?, filter: filter? }),
        _ => {
            let index = text(reader, "index", raw.index.as_ref());
            let parts = index_parts(reader, section);
            let (table, index, parts) = (table?, index?, parts?);
            let unique = raw.unique.unwrap_or(false);
            UpdateKind::CreateIndex(CreateIndexDefinition { table, index, parts, unique, filter })
        }
    })
}

fn key(reader: &mut Reader<'_>, raw: &raw::Update) -> Option<Vec<String>> {
    let key = raw.key.as_ref()?;
    let columns = &key.get_ref().0;
    let distinct: BTreeSet<_> = columns.iter().collect();
    if columns.is_empty() || columns.iter().any(|column| column.trim().is_empty()) {
        reader.error(
            reader.at(key),
            "\"key\" names no column",
            Some("name the columns of an index, in its order".to_owned()),
        );
        return None;
    }
    if distinct.len() < columns.len() {
        reader.error(reader.at(key), "\"key\" names a column twice", None);
        return None;
    }
    Some(columns.clone())
}

fn index_parts(reader: &mut Reader<'_>, section: &Section<raw::Update>) -> Option<IndexParts> {
    let raw = &section.values;
    match (section.has("columns"), section.has("expressions")) {
        (true, true) => {
            let hint = "write the columns among the expressions".to_owned();
            let message = "both \"columns\" and \"expressions\": in which order are they indexed?";
            reader.error(section.places.of("expressions"), message, Some(hint));
            None
        }
        (true, false) => texts(reader, "columns", raw.columns.as_ref()).map(IndexParts::Columns),
        (false, true) => texts(reader, "expressions", raw.expressions.as_ref()).map(IndexParts::Expressions),
        (false, false) => {
            let message = format!("\"columns\" or \"expressions\" is missing in {}", section.title);
            reader.error(section.places.header, message, None);
            None
        }
    }
}

fn texts(reader: &mut Reader<'_>, key: &str, values: Option<&Spanned<Vec<Spanned<String>>>>) -> Option<Vec<String>> {
    let values = values?;
    if values.get_ref().is_empty() {
        reader.error(reader.at(values), format!("\"{key}\" is empty"), None);
        return None;
    }
    values.get_ref().iter().map(|value| text(reader, key, Some(value))).collect()
}
