//! An index on PostgreSQL: CREATE INDEX CONCURRENTLY, and the comparison with an index that is there already.

use super::{CreateIndexDefinition, not_replaceable};
use crate::update::sql::{Dialect, ErrorClass, Row, Sql, SqlError, Value};
use crate::update::walk::{one_line, refused};
use crate::update::{Problem, UpdateError};

/// The bytes that PostgreSQL keeps of a name.
pub(super) const LONGEST_NAME: usize = 63;

/// Finds an index by its name ($1) in the schema of a table ($2, quoted): whether it is of that table, is valid, is
/// being built at this moment, its name with its schema, its definition, and its identity.
///
/// The identity is all that makes an index what it is, but for its name and its table: two indexes that agree in it
/// are the same.
const FIND: &str = "\
SELECT (i.indrelid = wanted.oid)::int,
       i.indisvalid::int,
       EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = c.oid)::int,
       format('%I.%I', n.nspname, c.relname),
       pg_get_indexdef(c.oid),
       jsonb_build_array(
           m.amname, i.indisunique, to_jsonb(i) -> 'indnullsnotdistinct', i.indnkeyatts, i.indoption::text,
           i.indcollation::text, i.indclass::text,
           ARRAY (SELECT pg_get_indexdef(c.oid, k, false) FROM generate_series(1, i.indnatts) AS k),
           pg_get_expr(i.indpred, i.indrelid)
       )::text
FROM pg_class AS wanted
JOIN pg_class AS c ON c.relnamespace = wanted.relnamespace AND c.relname = $1::text
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_index AS i ON i.indexrelid = c.oid
JOIN pg_am AS m ON m.oid = c.relam
WHERE wanted.oid = to_regclass($2::text)";

/// An index as it was found.
struct Found {
    of_this_table: bool,
    valid: bool,
    being_built: bool,
    /// Quoted, with its schema.
    name: String,
    definition: String,
    identity: String,
}

/// Builds the index, unless it is there, and drops the one that it replaces.
pub(super) async fn build(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<(), UpdateError> {
    build_alone(sql, wanted).await?;
    if let Some(replaced) = replaced(sql, wanted).await? {
        sql.execute(&drop_statement(&replaced), &[]).await?;
    }
    Ok(())
}

/// The index to be replaced, quoted, with its schema; `None` where there is none (any more).
pub(super) async fn replaced(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<Option<String>, UpdateError> {
    let Some(name) = &wanted.replaces else { return Ok(None) };
    let table = sql.dialect().table(&wanted.table);
    let Some(found) = find(sql, name, &table).await? else { return Ok(None) };
    if !found.of_this_table {
        return Err(not_replaceable(name, &format!("it is another table's, {}", found.definition)));
    }
    let constraint = "SELECT conname::text FROM pg_constraint WHERE conindid = $1::text::regclass AND contype <> 'f'";
    let constraints = sql.query(constraint, &[Value::from(found.name.as_str())]).await?;
    match constraints.first().and_then(|row| row.first()).and_then(Value::as_text) {
        Some(constraint) => Err(not_replaceable(name, &format!("constraint \"{constraint}\" needs it"))),
        None => Ok(Some(found.name)),
    }
}

async fn build_alone(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<(), UpdateError> {
    if wanted.index.len() > LONGEST_NAME {
        return Err(UpdateError::Failed(format!("the name \"{}\" is longer than {LONGEST_NAME} bytes", wanted.index)));
    }
    let dialect = sql.dialect();
    let table = dialect.table(&wanted.table);
    let statement = statement(&*dialect, wanted);
    if let Some(found) = find(sql, &wanted.index, &table).await? {
        if !found.of_this_table {
            return Err(wanted.differs(&found.definition, &statement));
        }
        if found.valid {
            return compare(sql, wanted, &found, &statement).await;
        }
        drop_leftover(sql, &found).await?;
    }
    match sql.execute(&statement, &[]).await {
        Ok(_) => Ok(()),
        Err(error) => {
            // Duplicates under a unique index, say. What is left would slow every write down, and an invalid unique
            // index even refuses some; where it cannot be dropped now, the next call meets it.
            if error.class == ErrorClass::Permanent
                && let Ok(Some(leftover)) = find(sql, &wanted.index, &table).await
                && leftover.of_this_table
                && !leftover.valid
            {
                let _ = drop_leftover(sql, &leftover).await;
            }
            Err(error.into())
        }
    }
}

/// The statement that makes the index.
pub(super) fn statement(dialect: &dyn Dialect, wanted: &CreateIndexDefinition) -> String {
    let (name, table) = (dialect.quote(&wanted.index), dialect.table(&wanted.table));
    format!("{} CONCURRENTLY {}", wanted.head(), wanted.tail(dialect, &name, &table))
}

/// The statement that drops an index which is replaced, its name quoted.
pub(super) fn drop_statement(replaced: &str) -> String {
    format!("DROP INDEX CONCURRENTLY IF EXISTS {replaced}")
}

/// Whether a valid index of that name and table is there.
pub(super) async fn is_there(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<bool, UpdateError> {
    let table = sql.dialect().table(&wanted.table);
    Ok(find(sql, &wanted.index, &table).await?.is_some_and(|found| found.of_this_table && found.valid))
}

/// What keeps PostgreSQL from making the index, and whether another of that name is there: the index is made on an
/// empty copy of the table, in a transaction that is rolled back.
pub(super) async fn check(
    sql: &mut dyn Sql,
    wanted: &CreateIndexDefinition,
    field: &'static str,
) -> Result<Option<Problem>, UpdateError> {
    let dialect = sql.dialect();
    let table = dialect.table(&wanted.table);
    let kind = sql
        .query("select relkind::text from pg_class where oid = to_regclass($1::text)", &[table.as_str().into()])
        .await?;
    let kind = kind.first().and_then(|row| row.first()).and_then(Value::as_text).unwrap_or_default();
    if !matches!(kind, "r" | "m") {
        return Ok(Some(Problem::error(
            "table",
            format!("\"{}\" is no table, and cannot have an index", wanted.table),
            "name the table that the rows are in",
        )));
    }
    let copied = copy(sql, wanted).await;
    sql.script("ROLLBACK").await?;
    let identity = match copied {
        Ok(made) => made.identity,
        // Whoever may make no temporary tables learns it from the build itself.
        Err(UpdateError::Sql(error)) if error.grant_hint().is_some() => return Ok(None),
        Err(UpdateError::Sql(error)) if error.class == ErrorClass::Permanent => {
            return Ok(Some(refused(field, &error, &statement(&*dialect, wanted))));
        }
        Err(UpdateError::Sql(error)) if error.class == ErrorClass::Transient => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = find(sql, &wanted.index, &table).await?;
    Ok(found
        .filter(|found| found.of_this_table && found.valid && found.identity != identity)
        .map(|found| wanted.occupied(&one_line(&found.definition))))
}

async fn find(sql: &mut dyn Sql, index: &str, table: &str) -> Result<Option<Found>, UpdateError> {
    let rows = sql.query(FIND, &[Value::from(index), Value::from(table)]).await?;
    rows.into_iter().next().map(found).transpose()
}

fn found(row: Row) -> Result<Found, UpdateError> {
    match <[Value; 6]>::try_from(row) {
        Ok(
            [
                Value::Integer(of_this_table),
                Value::Integer(valid),
                Value::Integer(being_built),
                Value::Text(name),
                Value::Text(definition),
                Value::Text(identity),
            ],
        ) => Ok(Found {
            of_this_table: of_this_table != 0,
            valid: valid != 0,
            being_built: being_built != 0,
            name,
            definition,
            identity,
        }),
        other => Err(UpdateError::Failed(format!("the catalog described an index in another shape: {other:?}"))),
    }
}

/// Drops what a build that failed has left behind.
async fn drop_leftover(sql: &mut dyn Sql, leftover: &Found) -> Result<(), UpdateError> {
    if leftover.being_built {
        let message = format!("index {} is being built by another session at this moment", leftover.name);
        return Err(SqlError::new(ErrorClass::Transient, message).into());
    }
    sql.execute(&format!("DROP INDEX CONCURRENTLY {}", leftover.name), &[]).await?;
    Ok(())
}

/// Compares the index found with the one wanted, as PostgreSQL itself understands it: the same is made on an empty
/// copy of the table, in a transaction that is rolled back.
async fn compare(
    sql: &mut dyn Sql,
    wanted: &CreateIndexDefinition,
    found: &Found,
    statement: &str,
) -> Result<(), UpdateError> {
    let copied = copy(sql, wanted).await;
    // Whatever came of it, nothing of it stays, and no transaction stays open.
    sql.script("ROLLBACK").await?;
    if copied?.identity == found.identity { Ok(()) } else { Err(wanted.differs(&found.definition, statement)) }
}

/// Makes the index wanted on a copy, which bears the table's name because the condition may speak of it.
async fn copy(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<Found, UpdateError> {
    let dialect = sql.dialect();
    let copy = format!("pg_temp.{}", dialect.quote(&wanted.table.name));
    let tail = wanted.tail(&*dialect, &dialect.quote(&wanted.index), &copy);
    let table = dialect.table(&wanted.table);
    sql.script(&format!(
        "BEGIN; CREATE TEMPORARY TABLE {} (LIKE {table}); {} {tail}",
        dialect.quote(&wanted.table.name),
        wanted.head()
    ))
    .await?;
    let made = find(sql, &wanted.index, &copy).await?;
    made.ok_or_else(|| UpdateError::Failed(format!("the copy of index \"{}\" cannot be found", wanted.index)))
}
