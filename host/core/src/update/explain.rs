//! What a database says of a statement that it is to plan and not to execute, and of names that are not there.

use super::scan;
use super::sql::{ErrorClass, Row, Sql, SqlError, System, Table, TableName, Value};
use super::{Problem, UpdateError};

/// The problem of a table that is not there.
pub(super) fn no_table(field: &'static str, schema_field: &str, table: &TableName) -> Problem {
    Problem::error(
        field,
        format!("there is no table \"{table}\""),
        format!(
            "mend the name, or name its schema with the key \"{schema_field}\"; a table that another update makes is found \
             once it is there"
        ),
    )
}

/// The problem of a column that is not there.
pub(super) fn no_column(field: &'static str, name: &TableName, table: &Table, column: &str) -> Problem {
    let known: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    Problem::error(
        field,
        format!("table \"{name}\" has no column \"{column}\""),
        format!("its columns are {}", known.join(", ")),
    )
}

/// Has the database plan a statement without running it. What it refuses is a problem of `field`; that it cannot be
/// asked is an error.
pub(super) async fn explain(
    sql: &mut dyn Sql,
    field: &'static str,
    statement: &str,
) -> Result<Option<Problem>, UpdateError> {
    explain_with(sql, field, statement, &[]).await
}

/// As [`explain`], for a statement with parameters.
pub(super) async fn explain_with(
    sql: &mut dyn Sql,
    field: &'static str,
    statement: &str,
    parameters: &[Value],
) -> Result<Option<Problem>, UpdateError> {
    // SQLite's EXPLAIN alone lists its program, with operands that are no text.
    let explain = match sql.dialect().system() {
        System::Sqlite => "EXPLAIN QUERY PLAN",
        System::Postgres => "EXPLAIN",
    };
    match sql.query(&format!("{explain} {statement}"), parameters).await {
        Ok(_) => Ok(None),
        Err(error) if error.class == ErrorClass::Permanent => {
            let problem = refused(field, &error, statement);
            Ok(Some(match old_reading(sql, &error, statement).await? {
                Some(hint) => Problem { hint, ..problem },
                None => problem,
            }))
        }
        Err(error) => Err(error.into()),
    }
}

/// What to do where a trigger or a view of the application's writes a text in double quotes. SQLite takes that for a text
/// unless it is told otherwise, as it is on tidegate's connections, where a misspelt name must not become one.
async fn old_reading(sql: &mut dyn Sql, error: &SqlError, statement: &str) -> Result<Option<String>, UpdateError> {
    let quoted = error.message.strip_prefix("no such column: ").and_then(|rest| rest.split(" - should").next());
    let Some(quoted) = quoted.filter(|word| word.starts_with('"') && !statement.contains(*word)) else {
        return Ok(None);
    };
    let select =
        "SELECT type, name FROM sqlite_schema WHERE type IN ('trigger', 'view') AND instr(sql, ?1) ORDER BY name";
    let rows = sql.query(select, &[Value::from(quoted)]).await?;
    let named = |row: &Row| Some(format!("{} \"{}\"", row.first()?.as_text()?, row.get(1)?.as_text()?));
    let named: Vec<String> = rows.iter().filter_map(named).collect();
    Ok((!named.is_empty()).then(|| {
        format!(
            "make {} anew with {quoted} in single quotes: a text in double quotes is a name for tidegate, and for SQLite as \
             others build it",
            named.join(", ")
        )
    }))
}

/// The problem of a statement that the database refuses.
pub(super) fn refused(field: &'static str, error: &SqlError, statement: &str) -> Problem {
    let remedy = error.grant_hint().unwrap_or("mend the SQL, or make what it needs");
    let hint = format!("{remedy}; the statement: {}", one_line(statement));
    Problem::error(field, one_line(&error.message), hint)
}

/// True for the statements that a database can be asked to plan without running them, and that make nothing that a
/// later one may need.
pub(super) fn can_be_explained(statement: &str, system: System) -> bool {
    const WORDS: [&str; 8] = ["select", "insert", "update", "delete", "with", "values", "merge", "replace"];
    let code = scan::code(statement, system);
    // PostgreSQL's SELECT … INTO makes a table.
    let makes = code.first().is_some_and(|first| first.is("select")) && code.iter().any(|token| token.is("into"));
    !makes && code.first().is_some_and(|first| first.is_symbol("(") || WORDS.iter().any(|word| first.is(word)))
}

/// A text of several lines, for a message.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
