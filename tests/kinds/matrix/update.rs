//! The kinds of update: what each is defined as here, and what independent SQL says of the rows afterwards.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidegate::update::sql::{System, TableName};
use tidegate::update::{
    Backfill, BackfillDefinition, Batch, BatchDefinition, Copy, CopyColumn, CopyDefinition, CopySource, CreateIndex,
    CreateIndexDefinition, Delete, DeleteDefinition, Handler, IndexParts, OnConflict, Script, ScriptDefinition,
    ValidateAndDelete, ValidateAndDeleteDefinition, ValidateConstraint, ValidateConstraintDefinition,
};
use tidegate::update::{Cell, Cells, RowOutcome, Transform, TransformDefinition, TransformFault, Transformer};

use super::schemas::Table;

/// A kind of update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Backfill,
    Transform,
    Delete,
    Copy,
    CopyIgnore,
    Batch,
    CreateIndex,
    Validate,
    ValidateAndDelete,
    Sql,
}

/// Counts a row as touched, and writes back what it read of the application's edits: an edit that comes in between must not
/// be lost. It takes a while, so that some would.
struct Touch;

#[async_trait]
impl Transformer for Touch {
    fn identity(&self) -> Result<String, TransformFault> {
        Ok("touch".to_owned())
    }

    async fn transform(&self, rows: Vec<Cells>) -> Result<Vec<RowOutcome>, TransformFault> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let touched = |row: Cells| match row.as_slice() {
            [Cell::Integer(touched), edits] => RowOutcome::Write(vec![Cell::Integer(touched + 1), edits.clone()]),
            other => panic!("two numbers were to be read, and not {other:?}"),
        };
        Ok(rows.into_iter().map(touched).collect())
    }
}

/// A query that gives no rows where all is right, and what is wrong where it does.
pub struct Check {
    pub wrong: &'static str,
    pub query: String,
}

/// The index that `create-index` builds, and the constraint that is validated.
pub const INDEX: &str = "built";
pub const CONSTRAINT: &str = "sound";

/// What a batch and a script do: they move the note of a row into a table of its own.
const MATCH: &str = "{n} % 3 <> 0";

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::Backfill,
        Self::Transform,
        Self::Delete,
        Self::Copy,
        Self::CopyIgnore,
        Self::Batch,
        Self::CreateIndex,
        Self::Validate,
        Self::ValidateAndDelete,
        Self::Sql,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Backfill => "backfill",
            Self::Transform => "transform",
            Self::Delete => "delete",
            Self::Copy => "copy",
            Self::CopyIgnore => "copy-ignore",
            Self::Batch => "batch",
            Self::CreateIndex => "create-index",
            Self::Validate => "validate",
            Self::ValidateAndDelete => "validate-and-delete",
            Self::Sql => "sql",
        }
    }

    /// True where it moves notes into a table of their own.
    pub const fn moves(self) -> bool {
        matches!(self, Self::Batch | Self::Sql)
    }

    pub const fn copies(self) -> bool {
        matches!(self, Self::Copy | Self::CopyIgnore)
    }

    pub const fn validates(self) -> bool {
        matches!(self, Self::Validate | Self::ValidateAndDelete)
    }

    /// True where it walks along the key of the table.
    pub const fn walks(self) -> bool {
        !matches!(self, Self::CreateIndex | Self::Validate | Self::Sql)
    }

    /// The handler of the update on this table; with an `endless` walk where that is a test's wish.
    pub fn handler(self, table: &Table, endless: bool) -> Box<dyn Handler> {
        let (system, reach) = (table.system, table.schema.reach);
        let name = |name: &str| TableName { schema: None, name: name.to_owned() };
        let (t, key) = (name(&table.name()), table.key_columns());
        let fill = |sql: &str| table.fill(sql);
        match self {
            Self::Backfill => {
                let (set, filter) = (fill("{touched} = {touched} + 1"), Some(fill(MATCH)));
                let handler = Backfill::new(BackfillDefinition { table: t, key, set, filter }).reaching(reach);
                Box::new(if endless { handler.endless() } else { handler })
            }
            Self::Transform => {
                let columns = vec![table.column("touched"), table.column("edits")];
                let definition = TransformDefinition {
                    table: t,
                    key,
                    read: columns.clone(),
                    write: columns,
                    filter: Some(fill(MATCH)),
                    settings: Vec::new(),
                };
                Box::new(Transform::new(definition, Arc::new(Touch)).reaching(reach))
            }
            Self::Delete => {
                let filter = fill("{state} = 'old' AND {n} % 3 <> 0");
                Box::new(Delete::new(DeleteDefinition { table: t, key, filter }).reaching(reach))
            }
            Self::Copy | Self::CopyIgnore => {
                let column = |target: String| CopyColumn { target, source: CopySource::SameName };
                let on_conflict = match self {
                    Self::Copy => OnConflict::Error,
                    _ => OnConflict::Ignore,
                };
                let definition = CopyDefinition {
                    table: t,
                    key,
                    into: name(&table.target().name()),
                    columns: table.copied_columns().into_iter().map(column).collect(),
                    filter: Some(fill(MATCH)),
                    on_conflict,
                };
                let handler = Copy::new(definition).reaching(reach);
                Box::new(if endless { handler.endless() } else { handler })
            }
            Self::Batch => {
                let sql = table.moving(":range");
                Box::new(Batch::new(BatchDefinition { table: t, key, sql }, system).reaching(reach))
            }
            Self::Sql => Box::new(Script::new(ScriptDefinition { sql: table.moving("true") }, system)),
            Self::CreateIndex => {
                let definition = CreateIndexDefinition {
                    table: t,
                    index: INDEX.to_owned(),
                    parts: IndexParts::Columns(vec![table.column("n")]),
                    unique: false,
                    filter: None,
                    replaces: None,
                    postgres_only: false,
                };
                Box::new(CreateIndex::new(definition, system))
            }
            Self::Validate => Box::new(ValidateConstraint::new(ValidateConstraintDefinition {
                table: t,
                constraint: CONSTRAINT.to_owned(),
            })),
            Self::ValidateAndDelete => Box::new(ValidateAndDelete::new(ValidateAndDeleteDefinition {
                table: t,
                constraint: CONSTRAINT.to_owned(),
                check: None,
                unique_columns: key,
            })),
        }
    }

    /// The rows of `start AS s` that the update is to delete.
    fn taken(self) -> &'static str {
        match self {
            Self::Delete => {
                "s.meant = 1 AND s.n % 3 <> 0 AND s.tag NOT IN (SELECT tag FROM app_log WHERE op = 'rescue')"
            }
            Self::ValidateAndDelete => {
                "s.meant = 1 AND s.n < 0 AND s.tag NOT IN (SELECT tag FROM app_log WHERE op = 'edit')"
            }
            _ => "1 = 0",
        }
    }

    /// What holds at any time, whatever became of the update.
    pub fn always(self, table: &Table) -> Vec<Check> {
        let mut checks = vec![check(
            "a row is gone that nobody was to delete",
            format!(
                "SELECT s.tag FROM start s WHERE NOT ({}) AND s.tag NOT IN (SELECT tag FROM app_log WHERE op = 'delete') \
                 AND s.tag NOT IN (SELECT {{tag}} FROM {{written}})",
                self.taken()
            ),
        )];
        let texts = [
            (
                "a row is there that nobody inserted, or that the application deleted, or twice",
                "SELECT {tag} FROM {written} WHERE {tag} NOT IN (SELECT tag FROM start) \
                 AND {tag} NOT IN (SELECT tag FROM app_log WHERE op = 'insert') \
                 UNION ALL SELECT {tag} FROM {written} WHERE {tag} IN (SELECT tag FROM app_log WHERE op = 'delete') \
                 UNION ALL SELECT {tag} FROM {written} GROUP BY {tag} HAVING count(*) > 1",
            ),
            (
                "a row that the application inserted is gone",
                "SELECT tag FROM app_log WHERE op = 'insert' AND tag NOT IN (SELECT tag FROM app_log WHERE op = 'delete') \
                 AND tag NOT IN (SELECT {tag} FROM {written})",
            ),
            (
                "what the application wrote last is not there",
                "SELECT w.{tag} FROM {written} AS w WHERE \
                 coalesce((SELECT l.note FROM app_log l WHERE l.tag = w.{tag} AND l.op IN ('insert', 'edit', 'moved edit') \
                           ORDER BY l.place DESC LIMIT 1), (SELECT s.note FROM start s WHERE s.tag = w.{tag})) \
                 IS DISTINCT FROM coalesce(w.{note}, (SELECT m.note FROM moved m WHERE m.tag = w.{tag}))",
            ),
            (
                "an edit of the application's is not there, or there twice",
                "SELECT w.{tag} FROM {written} AS w WHERE \
                 w.{edits} <> (SELECT count(*) FROM app_log l WHERE l.tag = w.{tag} AND l.op = 'edit')",
            ),
            (
                "the state of a row is not what the application made it",
                "SELECT w.{tag} FROM {written} AS w WHERE w.{state} <> CASE WHEN EXISTS (SELECT 1 FROM app_log l \
                 WHERE l.tag = w.{tag} AND l.op IN ('insert', 'rescue')) THEN 'new' ELSE 'old' END",
            ),
        ];
        checks.extend(texts.map(|(wrong, query)| check(wrong, query.to_owned())));
        checks.extend(self.own_always(table));
        if let Some(query) = table.schema.sound {
            checks.push(check("the schema's own rule does not hold", query.to_owned()));
        }
        checks.into_iter().map(|check| Check { query: table.fill(&check.query), ..check }).collect()
    }

    fn own_always(self, table: &Table) -> Vec<Check> {
        // Beyond the last key that could have been there when the first batch ran.
        let beyond = "AND {tag} IN (SELECT tag FROM app_log WHERE op = 'insert' AND phase = 1) \
                      AND {first} > (SELECT e.id FROM (SELECT id FROM start UNION ALL SELECT id FROM app_log \
                      WHERE op = 'insert' AND phase = 0) e ORDER BY e.id DESC LIMIT 1)";
        match self {
            Self::Backfill | Self::Transform => {
                let mut checks = vec![
                    check(
                        "a row was changed that is not meant",
                        "SELECT w.{tag} FROM {written} AS w JOIN start s ON s.tag = w.{tag} \
                         WHERE w.{touched} <> 0 AND (s.meant = 0 OR s.n % 3 = 0)"
                            .to_owned(),
                    ),
                    check(
                        "a row was changed more than once",
                        "SELECT {tag} FROM {written} WHERE {touched} NOT IN (0, 1)".to_owned(),
                    ),
                ];
                if table.schema.late {
                    let query = format!("SELECT {{tag}} FROM {{written}} WHERE {{touched}} <> 0 {beyond}");
                    checks.push(check("a row was changed that came in beyond the walk's end", query));
                }
                checks
            }
            kind if kind.copies() => {
                let mut checks = vec![
                    check(
                        "the target has a row that is not meant, or twice",
                        "SELECT u.{tag} FROM {u} AS u WHERE u.{tag} NOT IN \
                         (SELECT tag FROM start WHERE meant = 1 AND n % 3 <> 0 UNION ALL \
                          SELECT tag FROM app_log WHERE op = 'insert') \
                         UNION ALL SELECT {tag} FROM {u} GROUP BY {tag} HAVING count(*) > 1"
                            .to_owned(),
                    ),
                    check(
                        "the target has values that the source never had",
                        "SELECT u.{tag} FROM {u} AS u JOIN start s ON s.tag = u.{tag} WHERE u.{n} <> s.n OR \
                         u.{note} IS DISTINCT FROM coalesce((SELECT l.note FROM app_log l WHERE l.tag = u.{tag} \
                         AND l.op = 'edit' AND u.{edits} = (SELECT count(*) FROM app_log b WHERE b.tag = l.tag \
                         AND b.op = 'edit' AND b.place <= l.place)), CASE WHEN u.{edits} = 0 THEN s.note END)"
                            .to_owned(),
                    ),
                    check(
                        "a row is gone that the application wrote to the target",
                        "SELECT tag FROM app_log WHERE op = 'both' AND tag NOT IN \
                         (SELECT {tag} FROM {u} WHERE {note} = 'app ' || {tag})"
                            .to_owned(),
                    ),
                ];
                if table.schema.late {
                    let query = format!(
                        "SELECT {{tag}} FROM {{u}} WHERE {{tag}} NOT IN (SELECT tag FROM app_log WHERE op = 'both') {beyond}"
                    );
                    checks.push(check("a row was copied that came in beyond the walk's end", query));
                }
                checks
            }
            kind if kind.moves() => vec![
                check(
                    "a note was moved that is not meant",
                    "SELECT s.tag FROM start s JOIN moved m ON m.tag = s.tag WHERE s.meant = 0 OR s.n % 3 = 0"
                        .to_owned(),
                ),
                check(
                    "a note was moved and is there still, or its row is gone",
                    "SELECT m.tag FROM moved m WHERE m.tag NOT IN (SELECT {tag} FROM {written} WHERE {note} IS NULL)"
                        .to_owned(),
                ),
            ],
            _ => vec![check(
                "a row was changed by an update that changes none",
                "SELECT {tag} FROM {written} WHERE {touched} <> 0".to_owned(),
            )],
        }
    }

    /// What holds besides once the update is finished.
    pub fn finished(self, table: &Table) -> Vec<Check> {
        let mut checks = match self {
            Self::Backfill | Self::Transform => vec![check(
                "a row was left as it was",
                "SELECT w.{tag} FROM {written} AS w JOIN start s ON s.tag = w.{tag} \
                 WHERE w.{touched} = 0 AND s.meant = 1 AND s.n % 3 <> 0"
                    .to_owned(),
            )],
            Self::Delete | Self::ValidateAndDelete => vec![check(
                "a row was not deleted",
                format!(
                    "SELECT s.tag FROM start s WHERE {} AND s.tag IN (SELECT {{tag}} FROM {{written}})",
                    self.taken()
                ),
            )],
            Self::Copy | Self::CopyIgnore => vec![check(
                "a row was not copied",
                "SELECT w.{tag} FROM {written} AS w JOIN start s ON s.tag = w.{tag} \
                 WHERE s.meant = 1 AND s.n % 3 <> 0 AND s.tag NOT IN (SELECT {tag} FROM {u})"
                    .to_owned(),
            )],
            Self::Batch | Self::Sql => vec![check(
                "a note was not moved",
                "SELECT w.{tag} FROM {written} AS w JOIN start s ON s.tag = w.{tag} \
                 WHERE w.{note} IS NOT NULL AND s.meant = 1 AND s.n % 3 <> 0"
                    .to_owned(),
            )],
            Self::CreateIndex | Self::Validate => Vec::new(),
        };
        checks.extend(self.known(table.system));
        checks.into_iter().map(|check| Check { query: table.fill(&check.query), ..check }).collect()
    }

    /// What the catalogue says once the update is finished.
    fn known(self, system: System) -> Vec<Check> {
        match (self, system) {
            (Self::CreateIndex, System::Postgres) => vec![
                check(
                    "the index is not there, or not valid",
                    format!(
                        "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('{INDEX}') \
                         AND indisvalid AND indisready)"
                    ),
                ),
                check(
                    "the index does not find every row",
                    "SET enable_seqscan = off; SELECT {tag} FROM {t} WHERE {tag} NOT IN \
                     (SELECT {tag} FROM {t} WHERE {n} BETWEEN -10 AND 10); RESET enable_seqscan"
                        .to_owned(),
                ),
            ],
            (Self::CreateIndex, System::Sqlite) => vec![
                check(
                    "the index is not there",
                    format!(
                        "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = '{INDEX}')"
                    ),
                ),
                check(
                    "the index does not find every row",
                    "SELECT * FROM pragma_integrity_check WHERE integrity_check <> 'ok'".to_owned(),
                ),
            ],
            (Self::Validate | Self::ValidateAndDelete, System::Postgres) => vec![check(
                "the constraint is not valid",
                format!(
                    "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conname = '{CONSTRAINT}') \
                     UNION ALL SELECT 1 FROM pg_constraint WHERE conname = '{CONSTRAINT}' AND NOT convalidated"
                ),
            )],
            _ => Vec::new(),
        }
    }

    /// What holds where the update was refused: nothing happened.
    pub fn untouched(self, table: &Table) -> Vec<Check> {
        let texts = [
            ("a row was changed all the same", "SELECT {tag} FROM {written} WHERE {touched} <> 0"),
            (
                "a row was deleted all the same",
                "SELECT tag FROM start WHERE tag NOT IN (SELECT {tag} FROM {written}) \
                 AND tag NOT IN (SELECT tag FROM app_log WHERE op = 'delete')",
            ),
            ("a row was copied all the same", "SELECT {tag} FROM {u} WHERE {tag} IN (SELECT tag FROM start)"),
            ("a note was moved all the same", "SELECT tag FROM moved WHERE tag IN (SELECT tag FROM start)"),
        ];
        let texts = texts.into_iter().filter(|(_, query)| self.copies() || !query.contains("{u}"));
        texts.map(|(wrong, query)| Check { wrong, query: table.fill(query) }).collect()
    }
}

fn check(wrong: &'static str, query: String) -> Check {
    Check { wrong, query }
}
