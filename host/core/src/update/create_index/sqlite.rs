//! An index on SQLite, and the comparison with one that is there already.

use super::{CreateIndexDefinition, IndexParts, not_replaceable};
use crate::update::UpdateError;
use crate::update::scan::{self, Kind, Token};
use crate::update::sql::{Dialect, Index, Row, Sql, System, Value};

/// Builds the index, unless it is there, and drops the one that it replaces.
pub(super) async fn build(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<(), UpdateError> {
    // What cannot be dropped afterwards is told before anything is built.
    replaced(sql, wanted).await?;
    build_alone(sql, wanted).await?;
    if let Some(replaced) = replaced(sql, wanted).await? {
        sql.execute(&drop_statement(&replaced), &[]).await?;
    }
    Ok(())
}

async fn build_alone(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<(), UpdateError> {
    let statement = statement(&*sql.dialect(), wanted);
    match find(sql, wanted).await? {
        None => {
            sql.execute(&statement, &[]).await?;
            Ok(())
        }
        Some(found) if found.same => Ok(()),
        Some(found) => Err(wanted.differs(&found.definition, &statement)),
    }
}

/// The statement that makes the index. SQLite takes the schema with the index's name and forbids it with the table's.
pub(super) fn statement(dialect: &dyn Dialect, wanted: &CreateIndexDefinition) -> String {
    let (name, table) = (dialect.quote(&wanted.index), dialect.quote(&wanted.table.name));
    format!("{} {}{}", wanted.head(), schema(dialect, wanted), wanted.tail(dialect, &name, &table))
}

/// The statement that drops an index which is replaced, its name quoted.
pub(super) fn drop_statement(replaced: &str) -> String {
    format!("DROP INDEX IF EXISTS {replaced}")
}

/// An index as it was found.
pub(super) struct Found {
    /// True where it is the one wanted.
    pub(super) same: bool,
    pub(super) definition: String,
}

/// Finds the index by its name, among those of any table.
pub(super) async fn find(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<Option<Found>, UpdateError> {
    let dialect = sql.dialect();
    let schema = schema(&*dialect, wanted);
    let question = format!("SELECT sql FROM {schema}sqlite_master WHERE type = 'index' AND name = ?1 COLLATE NOCASE");
    let rows = sql.query(&question, &[Value::from(wanted.index.as_str())]).await?;
    let Some(row) = rows.into_iter().next() else { return Ok(None) };
    let (name, table) = (dialect.quote(&wanted.index), dialect.quote(&wanted.table.name));
    // SQLite stores a statement without the schema.
    let stored = format!("{} {}", wanted.head(), wanted.tail(&*dialect, &name, &table));
    Ok(Some(match row.into_iter().next() {
        Some(Value::Text(definition)) => Found { same: words(&definition) == words(&stored), definition },
        _ => Found { same: false, definition: "one that the table's own definition makes".to_owned() },
    }))
}

/// The index to be replaced; `None` where there is none (any more).
pub(super) async fn replaced(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<Option<String>, UpdateError> {
    let Some(name) = &wanted.replaces else { return Ok(None) };
    let dialect = sql.dialect();
    let schema = schema(&*dialect, wanted);
    let question = format!(
        "SELECT tbl_name, sql IS NULL, tbl_name = ?2 COLLATE NOCASE FROM {schema}sqlite_master \
         WHERE type = 'index' AND name = ?1 COLLATE NOCASE"
    );
    let rows = sql.query(&question, &[name.as_str().into(), wanted.table.name.as_str().into()]).await?;
    match rows.first().map(Vec::as_slice) {
        None => Ok(None),
        Some([Value::Text(table), _, Value::Integer(0)]) => {
            Err(not_replaceable(name, &format!("it is an index of table \"{table}\"")))
        }
        Some([_, Value::Integer(0), _]) => match needed_by(sql, wanted, name).await? {
            Some(table) => Err(not_replaceable(
                name,
                &format!(
                    "a foreign key of table \"{table}\" refers to its columns, and no other unique index has them (make the new \
                     index unique over the same columns)"
                ),
            )),
            None => Ok(Some(format!("{schema}{}", dialect.quote(name)))),
        },
        Some(_) => Err(not_replaceable(name, "the table's own definition makes it")),
    }
}

/// The table whose foreign key needs a unique index that is to be replaced; `None` where another serves it, or the new one.
async fn needed_by(
    sql: &mut dyn Sql,
    wanted: &CreateIndexDefinition,
    replaced: &str,
) -> Result<Option<String>, UpdateError> {
    let dialect = sql.dialect();
    let Some(table) = dialect.describe(sql, &wanted.table).await? else { return Ok(None) };
    let sorted = |mut names: Vec<String>| {
        names.iter_mut().for_each(|name| name.make_ascii_lowercase());
        names.sort();
        names
    };
    let serves = |index: &Index| {
        let columns: Option<Vec<String>> = index.columns.iter().cloned().collect();
        columns.filter(|_| index.unique && !index.partial).map(sorted)
    };
    let is_it = |index: &&Index| index.name.eq_ignore_ascii_case(replaced);
    let Some(lost) = table.indexes.iter().find(is_it).and_then(serves) else { return Ok(None) };
    let others = table.indexes.iter().filter(|index| !is_it(index)).filter_map(serves);
    let new = match &wanted.parts {
        IndexParts::Columns(columns) if wanted.unique && wanted.filter.is_none() => Some(sorted(columns.clone())),
        _ => None,
    };
    if others.chain(new).any(|columns| columns == lost) {
        return Ok(None);
    }
    let schema = schema(&*dialect, wanted);
    let question = format!(
        "SELECT m.name, group_concat(f.\"to\", char(10)) FROM {schema}sqlite_schema m, pragma_foreign_key_list(m.name) f \
         WHERE m.type = 'table' AND f.\"table\" = ?1 COLLATE NOCASE GROUP BY m.name, f.id"
    );
    let rows = sql.query(&question, &[wanted.table.name.as_str().into()]).await?;
    let needs = |row: &Row| {
        let columns = row.get(1)?.as_text()?.lines().map(str::to_owned).collect();
        (sorted(columns) == lost).then(|| row.first()?.as_text().map(str::to_owned)).flatten()
    };
    Ok(rows.iter().find_map(needs))
}

/// SQLite takes the schema with the index's name and forbids it with the table's.
fn schema(dialect: &dyn Dialect, wanted: &CreateIndexDefinition) -> String {
    wanted.table.schema.as_ref().map(|schema| format!("{}.", dialect.quote(schema))).unwrap_or_default()
}

/// The words of a statement, so that two texts can be compared: SQLite keeps a definition as it was typed. Spaces,
/// comments, the quotes around names and the case of letters outside literals are left out; so are parentheses around
/// the whole condition. Texts that agree mean the same; some that mean the same do not agree, and those count as
/// different.
fn words(sql: &str) -> Vec<String> {
    let word = |token: Token<'_>| match (token.kind, token.name(System::Sqlite)) {
        (Kind::Quoted | Kind::Word, Some(name)) => name.to_ascii_lowercase(),
        (Kind::Literal, _) => token.text.to_owned(),
        _ => token.text.to_ascii_lowercase(),
    };
    without_outer_parentheses(scan::code(sql, System::Sqlite).into_iter().map(word).collect())
}

/// Takes off the parentheses that hold all that follows WHERE.
fn without_outer_parentheses(mut tokens: Vec<String>) -> Vec<String> {
    while let Some(start) = tokens.iter().position(|token| token == "where").map(|at| at + 1) {
        if tokens.get(start).is_none_or(|token| token != "(") || closing(&tokens, start) != Some(tokens.len() - 1) {
            break;
        }
        tokens.pop();
        tokens.remove(start);
    }
    tokens
}

/// Where the parenthesis that opens at `start` closes.
fn closing(tokens: &[String], start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.as_str() {
            "(" => depth += 1,
            ")" if depth == 1 => return Some(at),
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}
