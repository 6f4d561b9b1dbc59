//! Statements executed on a connection's own thread.

use rusqlite::CachedStatement;
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::error::{run_error, sql_error};
use tidegate::update::sql::{Answer, Ask, Row, SqlError, Value};

/// Executes one statement; the rows that it may return are not looked at.
pub(super) fn execute(sqlite: &rusqlite::Connection, sql: &str, parameters: &[Value]) -> Result<u64, SqlError> {
    let mut statement = prepare(sqlite, sql, parameters)?;
    if statement.column_count() == 0 {
        return statement.raw_execute().map(|changed| changed as u64).map_err(|error| run_error(sqlite, error));
    }
    let changes = !statement.readonly();
    let mut rows = statement.raw_query();
    while rows.next().map_err(|error| run_error(sqlite, error))?.is_some() {}
    Ok(if changes { sqlite.changes() } else { 0 })
}

/// Executes one statement once for each of these rows of parameters; returns how many rows it changed in all.
pub(super) fn execute_each(sqlite: &rusqlite::Connection, sql: &str, rows: &[Row]) -> Result<u64, SqlError> {
    let Some(first) = rows.first() else { return Ok(0) };
    let mut statement = prepare(sqlite, sql, first)?;
    let mut changed = 0;
    for row in rows {
        bind(&mut statement, row)?;
        changed += statement.raw_execute().map_err(|error| run_error(sqlite, error))? as u64;
    }
    Ok(changed)
}

/// Executes one statement and returns its rows.
pub(super) fn query(sqlite: &rusqlite::Connection, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, SqlError> {
    let mut statement = prepare(sqlite, sql, parameters)?;
    let columns = statement.column_count();
    let mut rows = statement.raw_query();
    let mut result = Vec::new();
    while let Some(row) = rows.next().map_err(|error| run_error(sqlite, error))? {
        let values = (0..columns).map(|column| value(row.get_ref(column).map_err(sql_error)?));
        result.push(values.collect::<Result<Row, SqlError>>()?);
    }
    Ok(result)
}

/// Executes a script, statement after statement.
pub(super) fn run_script(sqlite: &rusqlite::Connection, sql: &str) -> Result<(), SqlError> {
    let mut statements = rusqlite::Batch::new(sqlite, sql);
    while let Some(mut statement) = statements.next().map_err(sql_error)? {
        // Rows that it may return are nobody's, and those after the first are not even read.
        statement.raw_query().next().map_err(|error| run_error(sqlite, error))?;
    }
    Ok(())
}

/// See [`tidegate::update::Sql::ask`].
pub(super) fn ask(sqlite: &rusqlite::Connection, statements: &[Ask]) -> Result<Vec<Answer>, SqlError> {
    let mut answers: Vec<Answer> = Vec::with_capacity(statements.len());
    for ask in statements {
        let parameters = ask.parameters(&answers);
        let answer = match ask.changes {
            true => Answer { rows: Vec::new(), changed: execute(sqlite, &ask.sql, &parameters)? },
            false => Answer { rows: query(sqlite, &ask.sql, &parameters)?, changed: 0 },
        };
        let goes_on = ask.is_satisfied_by(&answer);
        answers.push(answer);
        if !goes_on {
            break;
        }
    }
    Ok(answers)
}

fn prepare<'a>(
    sqlite: &'a rusqlite::Connection,
    sql: &str,
    parameters: &[Value],
) -> Result<CachedStatement<'a>, SqlError> {
    // SQLite prepares a statement again where the schema has changed, once it is executed. A plan is not executed: one that
    // was prepared before would be told for ever.
    if sql.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("explain")) {
        sqlite.flush_prepared_statement_cache();
    }
    let mut statement = sqlite.prepare_cached(sql).map_err(sql_error)?;
    if statement.parameter_count() != parameters.len() {
        return Err(SqlError::permanent(format!(
            "the statement takes {} parameters and was given {}: \"{sql}\"",
            statement.parameter_count(),
            parameters.len()
        )));
    }
    bind(&mut statement, parameters)?;
    Ok(statement)
}

fn bind(statement: &mut CachedStatement<'_>, parameters: &[Value]) -> Result<(), SqlError> {
    for (number, parameter) in (1..).zip(parameters) {
        let bound = match parameter {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Real(number) => ValueRef::Real(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        };
        statement.raw_bind_parameter(number, ToSqlOutput::Borrowed(bound)).map_err(sql_error)?;
    }
    Ok(())
}

fn value(value: ValueRef<'_>) -> Result<Value, SqlError> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => return Err(SqlError::permanent("a text in the database is not UTF-8: read it as a BLOB")),
        },
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    })
}
