//! Definitions of updates: which keys belong to which kind, and what they become.

use std::collections::{BTreeSet, HashMap};

use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::Position;
use super::model::{Database, Update, UpdateKind};
use super::resolve::{named_databases, one_of, require, required, text, twice};
use super::section::{Reader, Section, Table, list};
use super::stopping::{canary, tolerance};
use super::{lane, raw, transform};
use tidegate::update::sql::{System, TableName};
use tidegate::update::{
    BackfillDefinition, BatchDefinition, ConstraintKind, CopyColumn, CopyDefinition, CopySource, CreateIndexDefinition,
    DeleteDefinition, Gate, IndexParts, OnConflict, OnSkip, Reach, ScriptDefinition, Settings, UnkeepDefinition,
    ValidateAndDeleteDefinition, ValidateConstraintDefinition,
};

const TITLE: &str = "[[update]]";

/// The keys of a kind, beside those that every kind has.
struct Shape {
    kind: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

const EVERY_KIND: [&str; 5] = ["name", "kind", "databases", "lane", "skipped_ok"];

const SHAPES: [Shape; 12] = [
    Shape {
        kind: "backfill",
        required: &["table", "key", "set"],
        optional: &[
            "schema",
            "where",
            "only",
            "row_security",
            "on_skip",
            "workers",
            "verify",
            "keep",
            "on_error",
            "max_skipped",
            "canary",
            "max_rows",
        ],
    },
    Shape {
        kind: "delete",
        required: &["table", "key", "where"],
        optional: &[
            "schema",
            "only",
            "row_security",
            "on_skip",
            "workers",
            "verify",
            "on_error",
            "max_skipped",
            "canary",
            "max_rows",
        ],
    },
    Shape {
        kind: "copy",
        required: &["table", "key", "into", "columns"],
        optional: &[
            "schema",
            "into_schema",
            "where",
            "on_conflict",
            "only",
            "row_security",
            "workers",
            "keep",
            "on_error",
            "max_skipped",
            "canary",
            "max_rows",
        ],
    },
    Shape {
        kind: "batch",
        required: &["table", "key", "sql"],
        optional: &["schema", "only", "row_security", "workers", "on_error", "max_skipped", "canary", "max_rows"],
    },
    Shape {
        kind: "transform",
        required: &["table", "key", "read", "write", "component"],
        optional: &[
            "schema",
            "where",
            "only",
            "row_security",
            "on_skip",
            "workers",
            "sha256",
            "impure",
            "canary",
            "max_rows",
        ],
    },
    Shape {
        kind: "create-index",
        required: &["table", "index"],
        optional: &["columns", "expressions", "schema", "unique", "where", "replaces", "postgres_only"],
    },
    Shape { kind: "validate-constraint", required: &["table", "constraint"], optional: &["schema"] },
    Shape {
        kind: "validate-constraint-and-delete",
        required: &["table", "constraint", "unique_columns"],
        optional: &["schema", "check", "workers"],
    },
    Shape { kind: "unkeep", required: &["update"], optional: &[] },
    Shape { kind: "sql", required: &["sql"], optional: &[] },
    Shape { kind: "noop", required: &[], optional: &[] },
    Shape { kind: "refuse", required: &["reason"], optional: &[] },
];

/// The kinds of update.
pub(super) const KINDS: [&str; SHAPES.len()] = {
    let (mut kinds, mut number) = ([""; SHAPES.len()], 0);
    while number < SHAPES.len() {
        kinds[number] = SHAPES[number].kind;
        number += 1;
    }
    kinds
};

/// Reads the definitions of all updates.
pub(super) fn updates<'a>(
    reader: &mut Reader<'a>,
    value: Option<Spanned<DeValue<'a>>>,
    databases: &[Database],
    lanes: &lane::ByKind,
    settings: &Settings,
) -> Vec<Update> {
    let Some(value) = value else { return Vec::new() };
    let known: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
    let mut updates: Vec<Update> = Vec::new();
    let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
    for table in reader.tables(TITLE, value) {
        let Some(update) = update(reader, table, &known, lanes, settings) else { continue };
        refuse_workers(reader, &update, databases);
        let same_name = by_name.entry(update.name.clone()).or_default();
        let mut earlier = same_name.iter().map(|index| &updates[*index]);
        if let Some(earlier) = earlier.find(|earlier| earlier.databases.overlap(&update.databases)) {
            let message = twice("update", &update.name, &earlier.places);
            let hint = "give one of them another name, or say with `databases` which is for which";
            reader.error(update.places.of("name"), message, Some(hint.to_owned()));
        }
        same_name.push(updates.len());
        updates.push(update);
    }
    updates
}

fn update<'a>(
    reader: &mut Reader<'a>,
    mut table: Table<'a>,
    known: &[&str],
    lanes: &lane::ByKind,
    settings: &Settings,
) -> Option<Update> {
    let below = transform::Below::take(reader, &mut table);
    let section = reader.section::<raw::Update>(TITLE, table);
    let raw = &section.values;
    let databases = named_databases(reader, raw.databases.as_ref(), known);
    let name = required(reader, &section, "name", raw.name.as_ref());
    require(reader, &section, "kind", Some(format!("it can be {}", list(&KINDS))));
    let lane = lane::name(reader, "lane", raw.lane.as_ref());
    let kind = one_of(reader, "kind", raw.kind.as_ref()?, &KINDS)?;
    let lane = lane.unwrap_or_else(|| lanes.of(kind).to_owned());
    let shape = SHAPES.iter().find(|shape| shape.kind == kind)?;
    check_keys(reader, &section, shape);
    below.refuse_in(reader, &section, kind);
    let kind = match kind {
        transform::KIND => UpdateKind::Transform(Box::new(transform::transform(reader, &section, below)?)),
        kind => resolve(reader, &section, kind)?,
    };
    let reach = reach(reader, &section.values)?;
    let workers = usize::try_from(section.values.workers.0).ok().filter(|_| shape.optional.contains(&"workers"));
    let workers = workers.unwrap_or(1);
    let verify = match &section.values.verify {
        Some(word) => one_of(reader, "verify", word, &["off", "full"])? == "full",
        None => false,
    };
    let gate = Gate {
        canary: canary(reader, section.values.canary.as_ref()),
        max_rows: section.values.max_rows.map(|rows| rows.0),
    };
    let keep = match &section.values.keep {
        Some(word) => one_of(reader, "keep", word, &["off", "trigger"])? == "trigger",
        None => false,
    };
    let settings = settings.clone();
    refuse_conflicts(reader, &section, keep);
    let tolerance = tolerance(reader, &section)?;
    let skipped_ok = section.values.skipped_ok.unwrap_or(false);
    let (name, places) = (name?, section.places);
    Some(Update {
        name,
        databases,
        lane,
        kind,
        settings,
        reach,
        workers,
        verify,
        gate,
        keep,
        tolerance,
        skipped_ok,
        places,
    })
}

/// Refuses to be told what becomes of rows that the target has already, where a trigger has it hold what the source does.
fn refuse_conflicts(reader: &mut Reader<'_>, section: &Section<raw::Update>, keep: bool) {
    if keep && section.has("on_conflict") {
        let message = "\"on_conflict\" and \"keep\" do not go together: a copy that is kept holds what the source does";
        let hint =
            "leave \"on_conflict\" out: a row that the target has already becomes what the source has".to_owned();
        reader.error(section.places.of("on_conflict"), message, Some(hint));
    }
    if keep && section.has("on_error") {
        let message =
            "\"on_error\" and \"keep\" do not go together: whoever writes a row that the database refuses is refused";
        let hint = "leave one of them out".to_owned();
        reader.error(section.places.of("on_error"), message, Some(hint));
    }
}

/// Refuses several workers where a database has one writer.
fn refuse_workers(reader: &mut Reader<'_>, update: &Update, databases: &[Database]) {
    let of_one_writer =
        |database: &&Database| update.databases.include(&database.name) && database.target.system() == System::Sqlite;
    if let Some(database) = databases.iter().find(of_one_writer).filter(|_| update.workers > 1) {
        let message = format!(
            "\"workers\" is {}, and database \"{}\" is an SQLite file, which one writer at a time can write to: a second would \
             only wait for the first",
            update.workers, database.name
        );
        let hint = "leave \"workers\" out, or name the PostgreSQL databases with `databases`".to_owned();
        reader.error(update.places.of("workers"), message, Some(hint));
    }
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
    // Everything is looked at before anything is missed, so that all that is wrong is told at once.
    let schema = text(reader, "schema", raw.schema.as_ref());
    let table = text(reader, "table", raw.table.as_ref()).map(|name| TableName { schema, name });
    let filter = text(reader, "where", raw.condition.as_ref());
    let key = key(reader, "key", raw.key.as_ref());
    let sql = text(reader, "sql", raw.sql.as_ref());
    let reason = text(reader, "reason", raw.reason.as_ref());
    let constraint = text(reader, "constraint", raw.constraint.as_ref());
    Some(match kind {
        "backfill" => {
            let set = text(reader, "set", raw.set.as_ref());
            UpdateKind::Backfill(BackfillDefinition { table: table?, key: key?, set: set?, filter })
        }
        "delete" => UpdateKind::Delete(DeleteDefinition { table: table?, key: key?, filter: filter? }),
        "copy" => UpdateKind::Copy(copy(reader, raw, table, key, filter)?),
        "batch" => UpdateKind::Batch(BatchDefinition { table: table?, key: key?, sql: sql? }),
        "create-index" => UpdateKind::CreateIndex(create_index(reader, section, table, filter)?),
        "validate-constraint" => {
            UpdateKind::ValidateConstraint(ValidateConstraintDefinition { table: table?, constraint: constraint? })
        }
        "validate-constraint-and-delete" => {
            let unique_columns = self::key(reader, "unique_columns", raw.unique_columns.as_ref());
            let check = check(reader, raw.check.as_ref());
            UpdateKind::ValidateAndDelete(ValidateAndDeleteDefinition {
                table: table?,
                constraint: constraint?,
                check: check?,
                unique_columns: unique_columns?,
            })
        }
        "unkeep" => UpdateKind::Unkeep(UnkeepDefinition { update: text(reader, "update", raw.update.as_ref())? }),
        "sql" => UpdateKind::Script(ScriptDefinition { sql: sql? }),
        "refuse" => UpdateKind::Refuse(reason?),
        _ => UpdateKind::Noop,
    })
}

/// Which rows of its table an update is about.
fn reach(reader: &mut Reader<'_>, raw: &raw::Update) -> Option<Reach> {
    let on_skip = match &raw.on_skip {
        None => OnSkip::default(),
        Some(word) => match one_of(reader, "on_skip", word, &["error", "ignore"])? {
            "ignore" => OnSkip::Ignore,
            _ => OnSkip::Error,
        },
    };
    let (only, row_security) = (raw.only.unwrap_or(false), raw.row_security.unwrap_or(false));
    Some(Reach { only, row_security, on_skip })
}

pub(super) fn key(reader: &mut Reader<'_>, name: &str, key: Option<&Spanned<raw::OneOrMany>>) -> Option<Vec<String>> {
    let key = key?;
    let columns = &key.get_ref().0;
    let distinct: BTreeSet<_> = columns.iter().collect();
    if columns.is_empty() || columns.iter().any(|column| column.trim().is_empty()) {
        let hint = match name {
            "read" | "write" => "name one or more columns of the table",
            _ => "name the columns of an index, in its order",
        };
        let hint = hint.to_owned();
        reader.error(reader.at(key), format!("\"{name}\" names no column"), Some(hint));
        return None;
    }
    if distinct.len() < columns.len() {
        reader.error(reader.at(key), format!("\"{name}\" names a column twice"), None);
        return None;
    }
    Some(columns.clone())
}

fn copy(
    reader: &mut Reader<'_>,
    raw: &raw::Update,
    table: Option<TableName>,
    key: Option<Vec<String>>,
    filter: Option<String>,
) -> Option<CopyDefinition> {
    let schema = text(reader, "into_schema", raw.into_schema.as_ref());
    let into = text(reader, "into", raw.into.as_ref()).map(|name| TableName { schema, name });
    let columns = copy_columns(reader, raw.columns.as_ref());
    let on_conflict = match &raw.on_conflict {
        None => Some(OnConflict::default()),
        Some(word) => one_of(reader, "on_conflict", word, &["error", "ignore"]).map(|word| match word {
            "ignore" => OnConflict::Ignore,
            _ => OnConflict::Error,
        }),
    };
    Some(CopyDefinition { table: table?, key: key?, into: into?, columns: columns?, filter, on_conflict: on_conflict? })
}

fn copy_columns(reader: &mut Reader<'_>, columns: Option<&Spanned<raw::Columns>>) -> Option<Vec<CopyColumn>> {
    match columns?.get_ref() {
        raw::Columns::Names(_) => {
            let same_name = |target| CopyColumn { target, source: CopySource::SameName };
            Some(column_names(reader, columns)?.into_iter().map(same_name).collect())
        }
        raw::Columns::Expressions(expressions) if expressions.is_empty() => {
            column_names(reader, columns).map(|_| Vec::new())
        }
        raw::Columns::Expressions(expressions) => {
            let column = |(target, expression): &(String, Spanned<String>)| {
                let source = CopySource::Expression(text(reader, &format!("columns.{target}"), Some(expression))?);
                Some(CopyColumn { target: target.clone(), source })
            };
            expressions.iter().map(column).collect()
        }
    }
}

/// Columns where nothing but their names can stand.
fn column_names(reader: &mut Reader<'_>, columns: Option<&Spanned<raw::Columns>>) -> Option<Vec<String>> {
    let columns = columns?;
    match columns.get_ref() {
        raw::Columns::Names(names) => texts(reader, "columns", reader.at(columns), names),
        raw::Columns::Expressions(expressions) if expressions.is_empty() => {
            texts(reader, "columns", reader.at(columns), &[])
        }
        raw::Columns::Expressions(_) => {
            let hint = "write an array of names; \"expressions\" may hold more than names".to_owned();
            reader.error(reader.at(columns), "\"columns\" of an index are names", Some(hint));
            None
        }
    }
}

/// The kind that a constraint has to be of; `Some(None)` where the file does not say.
fn check(reader: &mut Reader<'_>, word: Option<&Spanned<String>>) -> Option<Option<ConstraintKind>> {
    let Some(word) = word else { return Some(None) };
    let name = one_of(reader, "check", word, &ConstraintKind::ALL.map(ConstraintKind::name))?;
    Some(ConstraintKind::ALL.into_iter().find(|kind| kind.name() == name))
}

fn create_index(
    reader: &mut Reader<'_>,
    section: &Section<raw::Update>,
    table: Option<TableName>,
    filter: Option<String>,
) -> Option<CreateIndexDefinition> {
    let raw = &section.values;
    let index = text(reader, "index", raw.index.as_ref());
    let replaces = text(reader, "replaces", raw.replaces.as_ref());
    if index.is_some() && replaces == index {
        let hint = "name the index that is to go, or leave \"replaces\" out".to_owned();
        reader.error(section.places.of("replaces"), "an index cannot replace itself", Some(hint));
    }
    let parts = index_parts(reader, section);
    Some(CreateIndexDefinition {
        table: table?,
        index: index?,
        parts: parts?,
        unique: raw.unique.unwrap_or(false),
        filter,
        replaces,
        postgres_only: raw.postgres_only.unwrap_or(false),
    })
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
        (true, false) => column_names(reader, raw.columns.as_ref()).map(IndexParts::Columns),
        (false, true) => {
            let values = raw.expressions.as_ref()?;
            texts(reader, "expressions", reader.at(values), values.get_ref()).map(IndexParts::Expressions)
        }
        (false, false) => {
            let message = format!("\"columns\" or \"expressions\" is missing in {}", section.title);
            reader.error(section.places.header, message, None);
            None
        }
    }
}

fn texts(reader: &mut Reader<'_>, key: &str, at: Position, values: &[Spanned<String>]) -> Option<Vec<String>> {
    if values.is_empty() {
        reader.error(at, format!("\"{key}\" is empty"), None);
        return None;
    }
    values.iter().map(|value| text(reader, key, Some(value))).collect()
}
