//! What there is to know before a trigger keeps an update's rows.

use super::super::cells::{integer, text};
use super::super::explain::explain;
use super::super::names::Names;
use super::super::sql::{Right, Row, Sql, System, Table, TableKind, TableName, Value};
use super::super::verify::unstable;
use super::super::walk::plan::check_rights;
use super::super::{Problem, UpdateError};
use super::KEEP;
use super::marker::{Marker, name};
use super::wanted::{Wanted, named};

/// What there is to do so that an update that cannot be kept runs.
pub(in crate::update) const LEAVE_OUT: &str =
    "leave \"keep\" out, and have the application write such rows itself before the update is queued";

/// The kinds whose rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::update) enum Kind {
    Backfill,
    Copy,
}

/// What is kept.
pub(in crate::update) struct Subject<'a> {
    pub(in crate::update) kind: Kind,
    /// The table whose rows are written.
    pub(in crate::update) table: &'a TableName,
    /// The texts of the definition that say what becomes of a row.
    pub(in crate::update) texts: Vec<String>,
    /// The columns that are written in that table.
    pub(in crate::update) assigned: Vec<String>,
    /// The table that is written, where it is another.
    pub(in crate::update) into: Option<&'a TableName>,
    /// True where the update is about the rows alone that policies let its role see.
    pub(in crate::update) row_security: bool,
}

/// BEFORE triggers of a table ($1, quoted) and of those below it whose names come after that of ours ($2).
const LATER: &str = "\
WITH RECURSIVE below (oid) AS (
    SELECT pg_catalog.to_regclass($1::text)::oid
    UNION SELECT h.inhrelid FROM pg_catalog.pg_inherits h JOIN below b ON h.inhparent = b.oid
)
SELECT DISTINCT t.tgname::text FROM pg_catalog.pg_trigger t JOIN below b ON b.oid = t.tgrelid
WHERE NOT t.tgisinternal AND t.tgtype & 3 = 3 AND t.tgtype & 20 <> 0 AND t.tgname::text COLLATE \"C\" > $2::text COLLATE \"C\"
ORDER BY 1";

/// Of a table ($1, quoted): its columns that are computed from others ('g'), and those by which it is partitioned ('p').
const COLUMNS: &str = "\
SELECT 'g', a.attname::text FROM pg_catalog.pg_attribute a
WHERE a.attrelid = pg_catalog.to_regclass($1::text) AND a.attgenerated <> '' AND NOT a.attisdropped
UNION ALL
SELECT 'p', a.attname::text FROM pg_catalog.pg_partitioned_table p
JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs::int2[])
WHERE p.partrelid = pg_catalog.to_regclass($1::text)";

/// Whether a table ($1, quoted), or one below it, is written by logical replication.
const SUBSCRIBED: &str = "\
WITH RECURSIVE below (oid) AS (
    SELECT pg_catalog.to_regclass($1::text)::oid
    UNION SELECT h.inhrelid FROM pg_catalog.pg_inherits h JOIN below b ON h.inhparent = b.oid
)
SELECT 1 FROM pg_catalog.pg_subscription_rel r JOIN below b ON b.oid = r.srrelid LIMIT 1";

/// The trigger of a name ($2) of a table ($1).
const POSTGRES_TRIGGER: &str = "\
SELECT p.prosrc FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
WHERE t.tgrelid = pg_catalog.to_regclass($1::text) AND t.tgname = $2::text";
const SQLITE_TRIGGER: &str = "SELECT sql FROM main.sqlite_schema WHERE type = 'trigger' AND ?1 <> '' AND substr(name, 1, length(?2)) = ?2 COLLATE NOCASE";

fn error(message: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem::error(KEEP, message, hint)
}

/// All that is wrong, or good to know.
pub(super) async fn problems(
    sql: &mut dyn Sql,
    update: &str,
    subject: &Subject<'_>,
    wanted: &Wanted,
) -> Result<Vec<Problem>, UpdateError> {
    let dialect = sql.dialect();
    let Some(table) = dialect.describe(sql, subject.table).await? else { return Ok(Vec::new()) };
    if let Some(problem) = impossible(subject, &table, dialect.system()) {
        return Ok(vec![problem]);
    }
    let mut problems = match dialect.system() {
        System::Sqlite => on_sqlite(subject, &table),
        System::Postgres => on_postgres(sql, update, subject, &table).await?,
    };
    problems.extend(name_taken(sql, update, subject).await?);
    if problems.iter().any(Problem::is_error) {
        return Ok(problems);
    }
    for (field, probe) in &wanted.probes {
        if let Some(problem) = explain(sql, field, probe).await? {
            problems.push(problem);
            return Ok(problems);
        }
    }
    let texts: Vec<&str> = subject.texts.iter().map(String::as_str).collect();
    problems.extend(unstable(sql, &texts).await?.map(|why| {
        let message = format!(
            "{why}: the trigger writes another value than the batch does, and another each time a row is written"
        );
        Problem::warning(KEEP, message, "make sure that any of these values is right")
    }));
    Ok(problems)
}

/// What no trigger could do.
fn impossible(subject: &Subject<'_>, table: &Table, system: System) -> Option<Problem> {
    let name = subject.table;
    let of_kind = match table.kind {
        TableKind::Foreign => Some("what is written on the server that it is of fires no trigger here"),
        TableKind::Virtual => Some("SQLite has no triggers on such a table"),
        _ => None,
    };
    if let Some(why) = of_kind {
        return Some(error(format!("\"{name}\" is {}, and {why}", table.kind.words()), LEAVE_OUT));
    }
    if subject.row_security {
        let message = "\"keep\" and row_security = true do not go together: the trigger would keep the rows that policies hide, too";
        return Some(error(message, "leave one of them out"));
    }
    let names = Names(system);
    if ["new", "old"].iter().any(|word| names.equal(&name.name.to_lowercase(), word)) {
        return Some(error(format!("in a trigger \"{name}\" is the row, and not the table"), LEAVE_OUT));
    }
    let in_main = name.schema.as_deref().is_none_or(|schema| schema.eq_ignore_ascii_case("main"));
    let into = subject.into.and_then(|into| into.schema.as_deref());
    if system == System::Sqlite && !(in_main && into.is_none_or(|schema| schema.eq_ignore_ascii_case("main"))) {
        return Some(error("a trigger of SQLite's reaches the tables of its own file alone", LEAVE_OUT));
    }
    None
}

fn on_sqlite(subject: &Subject<'_>, table: &Table) -> Vec<Problem> {
    let unique = table.indexes.iter().filter(|index| index.unique).count();
    let told = subject.kind == Kind::Copy && unique > 1;
    told.then(|| {
        Problem::warning(
            KEEP,
            format!(
                "where INSERT OR REPLACE takes away another row of table \"{}\" by a second unique index, no trigger is told, and \
                 the copy keeps that row",
                subject.table
            ),
            "have the application delete such a row itself, or use PRAGMA recursive_triggers = on on its connections",
        )
    })
    .into_iter()
    .collect()
}

async fn on_postgres(
    sql: &mut dyn Sql,
    update: &str,
    subject: &Subject<'_>,
    table: &Table,
) -> Result<Vec<Problem>, UpdateError> {
    const ROW_TRIGGERS_OF_PARTITIONED: i64 = 130_000;
    let dialect = sql.dialect();
    let quoted = [Value::from(dialect.table(subject.table))];
    let mut problems = Vec::new();
    let lacking = check_rights(sql, subject.table, &[Right::Own, Right::Create]).await?;
    problems.extend(lacking.map(|problem| Problem { field: KEEP, ..problem }));
    if let Some(into) = subject.into {
        let lacking = check_rights(sql, subject.table, &[Right::Update]).await?;
        let of_target = check_rights(sql, into, &[Right::Select, Right::Insert, Right::Update, Right::Delete]).await?;
        problems.extend(lacking.or(of_target).map(|problem| Problem { field: KEEP, ..problem }));
        let around = dialect.surroundings(sql, subject.table).await?;
        if around.row_security == Some(true) {
            let message = format!(
                "the policies of table \"{}\" bind this role, which could not see each row that is written",
                subject.table
            );
            problems.push(error(message, "let the role bypass the policies (ALTER ROLE … BYPASSRLS)"));
        }
        problems.push(Problem::note(
            KEEP,
            format!("TRUNCATE of table \"{}\" is not followed, and what table \"{into}\" refuses, a write of the application's fails by", subject.table),
            "truncate both tables, and let the target take whatever the source does",
        ));
    }
    let columns = sql.query(COLUMNS, &quoted).await?;
    let of =
        |letter: &str| columns.iter().filter(|row| text(row, 0) == letter).map(|row| text(row, 1).to_owned()).collect();
    if subject.kind == Kind::Backfill {
        problems.extend(backfill_columns(subject, of("g"), of("p")));
        let name = name(update, System::Postgres);
        let later = sql.query(LATER, &[quoted[0].clone(), Value::from(name.as_str())]).await?;
        problems.extend(later.iter().map(|row| {
            let message = format!(
                "trigger \"{}\" of table \"{}\" runs after \"{name}\", which does not see what it makes of a row",
                text(row, 0),
                subject.table
            );
            Problem::warning(
                KEEP,
                message,
                "rename it, so that it comes first by its name, where it changes what the update reads or sets",
            )
        }));
    }
    if table.kind == TableKind::Partitioned {
        let version = sql.query("SELECT current_setting('server_version_num')::int", &[]).await?;
        if version.first().is_some_and(|row| integer(row, 0) < ROW_TRIGGERS_OF_PARTITIONED) {
            let message = format!(
                "table \"{}\" is partitioned, and a server before PostgreSQL 13 has no such trigger for it",
                subject.table
            );
            problems.push(error(message, "define an update for each partition"));
        }
    }
    if !sql.query(SUBSCRIBED, &quoted).await?.is_empty() {
        problems.push(Problem::warning(
            KEEP,
            format!("table \"{}\" is written by logical replication, which fires no trigger of this kind", subject.table),
            "keep the rows where they are written first; or have this trigger fire there too: ALTER TABLE … ENABLE ALWAYS TRIGGER",
        ));
    }
    Ok(problems)
}

fn backfill_columns(subject: &Subject<'_>, generated: Vec<String>, partitioned_by: Vec<String>) -> Vec<Problem> {
    let columns: Vec<&String> = generated.iter().collect();
    let read = subject.texts.iter().find_map(|text| named(text, &columns, System::Postgres)).map(|column| {
        error(
            format!("\"{column}\" is computed from other columns, after the trigger has run, which cannot read it"),
            "write what it is computed from in its place",
        )
    });
    let moved = partitioned_by.iter().find(|column| subject.assigned.contains(column)).map(|column| {
        error(
            format!("\"set\" assigns \"{column}\", by which the table is partitioned, and no trigger may move a row to another partition"),
            LEAVE_OUT,
        )
    });
    read.into_iter().chain(moved).collect()
}

/// Whether another's trigger bears the name.
async fn name_taken(sql: &mut dyn Sql, update: &str, subject: &Subject<'_>) -> Result<Option<Problem>, UpdateError> {
    let dialect = sql.dialect();
    let name = name(update, dialect.system());
    let (statement, bears) = match dialect.system() {
        System::Sqlite => (SQLITE_TRIGGER, format!("{name}_")),
        System::Postgres => (POSTGRES_TRIGGER, name.clone()),
    };
    let rows = sql.query(statement, &[dialect.table(subject.table).into(), bears.into()]).await?;
    let is_other = |row: &Row| match (Marker::of(text(row, 0)), dialect.system()) {
        (Some(marker), System::Postgres) => marker.update != update,
        // The names of the triggers of another update may begin with those of this one's.
        (Some(_), System::Sqlite) => false,
        (None, _) => true,
    };
    Ok(rows.iter().any(is_other).then(|| {
        error(
            format!("a trigger \"{name}\" is there already, which tidegate has not made"),
            "rename it, or give the update another name",
        )
    }))
}
