//! PostgreSQL: one trigger on the table, and on each that inherits from it, with one function.
//!
//! The function runs as its owner, who is the role of the host: it reads and writes what a batch would, whoever writes the row.
//! So its search path is fixed, with temporary objects last, and nobody else may make a trigger of it. What decides how values
//! become texts is fixed as well, to what it is in the host's session.
//!
//! A lock on the table is waited for so shortly that nobody waits long behind it. Who is in the way is named.

use super::super::cells::{integer, text};
use super::super::sql::{Row, Sql, SqlError, TableName, Value};
use super::super::{ErrorClass, UpdateError};
use super::marker::{Keep, Marker, name};
use super::wanted::{Does, Wanted};

/// How long a lock on the table is waited for, and so for how long others may wait behind it.
const PATIENCE_MS: u32 = 100;

/// The table ($1, quoted) and what inherits from it: the schema and the name of each. The partitions of a partitioned table are
/// none of these: they have their triggers from it.
const TABLES: &str = "\
WITH RECURSIVE below (oid, place) AS (
    SELECT pg_catalog.to_regclass($1::text)::oid, 0
    UNION SELECT h.inhrelid, 1 FROM pg_catalog.pg_inherits h JOIN below b ON h.inhparent = b.oid
    JOIN pg_catalog.pg_class p ON p.oid = h.inhparent WHERE p.relkind = 'r'
)
SELECT n.nspname::text, c.relname::text FROM below b JOIN pg_catalog.pg_class c ON c.oid = b.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY b.place, c.oid";

/// The trigger of a name ($2) of a table ($1, quoted): what its function says, and whether it is enabled.
const TRIGGER: &str = "\
SELECT p.prosrc, (t.tgenabled IN ('O', 'A'))::int FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
WHERE t.tgrelid = pg_catalog.to_regclass($1::text) AND t.tgname = $2::text";

/// The function of a name ($2) without arguments in a schema ($1).
const FUNCTION: &str = "\
SELECT p.prosrc FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = $1::text AND p.proname = $2::text AND p.pronargs = 0";

/// Where names are looked for, ready for SET search_path.
const PATH: &str = "\
SELECT coalesce(string_agg(pg_catalog.quote_ident(s) || ', ', ''), '') || 'pg_temp'
FROM unnest(pg_catalog.current_schemas(false)) AS s";

/// The sessions that hold a lock on a table ($1, quoted), or on what is below it, in which another's stands: one that forbids
/// writing, or where $2 is 1, one that forbids everything.
const HOLDERS: &str = "\
WITH RECURSIVE below (oid) AS (
    SELECT pg_catalog.to_regclass($1::text)::oid
    UNION SELECT h.inhrelid FROM pg_catalog.pg_inherits h JOIN below b ON h.inhparent = b.oid
)
SELECT DISTINCT coalesce(l.pid, 0)::bigint, coalesce(nullif(a.application_name, ''), 'unnamed'), coalesce(a.usename::text, '?'),
       coalesce(a.state, ''),
       coalesce(pg_catalog.to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC', '')
FROM pg_catalog.pg_locks l JOIN below b ON l.relation = b.oid
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.granted AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
  AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
  AND ($2::bigint = 1 OR l.mode NOT IN ('AccessShareLock', 'RowShareLock'))
ORDER BY 5, 1 LIMIT 5";

/// A lock that keeps everybody from writing, or from everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    Writing,
    Everything,
}

/// Makes the triggers that are wanted; those that are there and do the same stay. True where any was made.
pub(super) async fn make(sql: &mut dyn Sql, update: &str, wanted: &Wanted, made_ms: i64) -> Result<bool, UpdateError> {
    let Does::Function { at, when, body } = &wanted.does else { return Ok(false) };
    let dialect = sql.dialect();
    let (name, table) = (name(update, dialect.system()), dialect.table(&wanted.table));
    let locked = if wanted.only { format!("ONLY {table}") } else { table.clone() };
    lock(sql, &locked, &table, Lock::Writing).await?;
    let (schema, tables) = tables(sql, wanted).await?;
    let marker = Marker { update: update.to_owned(), made_ms, does: wanted.digest() };
    let (mut missing, mut others) = (Vec::new(), Vec::new());
    for table in &tables {
        match found(sql, table, &name, update).await? {
            Some((does, true)) if does == marker.does => {}
            Some(_) => others.push(table),
            None => missing.push(table),
        }
    }
    if missing.is_empty() && others.is_empty() {
        return Ok(false);
    }
    let taken = sql.query(FUNCTION, &[Value::from(schema.as_str()), Value::from(name.as_str())]).await?;
    if taken.first().is_some_and(|row| Marker::of(text(row, 0)).is_none_or(|marker| marker.update != update)) {
        return Err(UpdateError::Failed(format!(
            "the name \"{name}\" is taken by another function in schema \"{schema}\": give the update another name, or drop the \
             function"
        )));
    }
    for table in others {
        let trigger = dialect.quote(&name);
        lock(sql, table, table, Lock::Everything).await?;
        sql.execute(&format!("DROP TRIGGER {trigger} ON {table}"), &[]).await?;
        missing.push(table);
    }
    let path = sql.query(PATH, &[]).await?;
    let path = path.first().map(|row| text(row, 0).to_owned()).unwrap_or_default();
    let function = format!("{}.{}", dialect.quote(&schema), dialect.quote(&name));
    let body = format!("{}{body}", marker.line());
    let quotes = (0..).map(|n| format!("$tidegate{n}$")).find(|quotes| !body.contains(quotes)).unwrap_or_default();
    sql.execute(
        &format!(
            "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER\nSET search_path = {path}\n\
             SET \"TimeZone\" FROM CURRENT SET \"DateStyle\" FROM CURRENT SET \"IntervalStyle\" FROM CURRENT\n\
             SET default_text_search_config FROM CURRENT\nAS {quotes}{body}{quotes}"
        ),
        &[],
    )
    .await?;
    sql.execute(&format!("REVOKE ALL ON FUNCTION {function}() FROM PUBLIC"), &[]).await?;
    let trigger = dialect.quote(&name);
    let when = when.as_ref().map(|when| format!(" WHEN ({when})")).unwrap_or_default();
    for table in missing {
        let statement =
            format!("CREATE TRIGGER {trigger} {at} ON {table} FOR EACH ROW{when} EXECUTE FUNCTION {function}()");
        sql.execute(&statement, &[]).await?;
    }
    Ok(true)
}

/// True where all that are wanted are there, do what they are to do, and are enabled.
pub(super) async fn stands(sql: &mut dyn Sql, update: &str, wanted: &Wanted) -> Result<bool, UpdateError> {
    let name = name(update, sql.dialect().system());
    let does = wanted.digest();
    for table in tables(sql, wanted).await?.1 {
        if found(sql, &table, &name, update).await? != Some((does.clone(), true)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The schema of the table, and the tables that are to have the trigger, quoted.
async fn tables(sql: &mut dyn Sql, wanted: &Wanted) -> Result<(String, Vec<String>), UpdateError> {
    let dialect = sql.dialect();
    let rows = sql.query(TABLES, &[dialect.table(&wanted.table).into()]).await?;
    let Some(schema) = rows.first().map(|row| text(row, 0).to_owned()) else {
        return Err(UpdateError::Failed(format!("there is no table \"{}\"", wanted.table)));
    };
    let named = |row: &Row| TableName { schema: Some(text(row, 0).to_owned()), name: text(row, 1).to_owned() };
    let tables = rows.iter().take(if wanted.only { 1 } else { rows.len() });
    Ok((schema, tables.map(|row| dialect.table(&named(row))).collect()))
}

/// What the update's trigger of a table does, and whether it is enabled; `None` where it has none.
async fn found(
    sql: &mut dyn Sql,
    table: &str,
    name: &str,
    update: &str,
) -> Result<Option<(String, bool)>, UpdateError> {
    let rows = sql.query(TRIGGER, &[table.into(), name.into()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    match Marker::of(text(row, 0)).filter(|marker| marker.update == update) {
        Some(marker) => Ok(Some((marker.does, integer(row, 1) != 0))),
        None => Err(UpdateError::Failed(format!(
            "table {table} has a trigger \"{name}\" already, which is none of this update's: give the update another name, or \
             rename the trigger"
        ))),
    }
}

/// Drops triggers and the functions that they execute.
pub(super) async fn drop(sql: &mut dyn Sql, keeps: &[Keep]) -> Result<(), SqlError> {
    let dialect = sql.dialect();
    for Keep { table, triggers, .. } in keeps {
        lock(sql, table, table, Lock::Everything).await?;
        for trigger in triggers {
            sql.execute(&format!("DROP TRIGGER {} ON {table}", dialect.quote(trigger)), &[]).await?;
        }
    }
    let mut functions: Vec<&str> = keeps.iter().map(|keep| keep.function.as_str()).collect();
    functions.sort_unstable();
    functions.dedup();
    for function in functions {
        sql.execute(&format!("DROP FUNCTION IF EXISTS {function}"), &[]).await?;
    }
    Ok(())
}

/// Locks a table, which nobody waits long for. `locked` is how LOCK TABLE names it.
async fn lock(sql: &mut dyn Sql, locked: &str, table: &str, lock: Lock) -> Result<(), SqlError> {
    const NOT_AVAILABLE: &str = "55P03";
    let (mode, all) = match lock {
        Lock::Writing => ("SHARE ROW EXCLUSIVE", 0),
        Lock::Everything => ("ACCESS EXCLUSIVE", 1),
    };
    sql.execute("SAVEPOINT tidegate_keep", &[]).await?;
    sql.execute(&format!("SET LOCAL lock_timeout = {PATIENCE_MS}"), &[]).await?;
    let error = match sql.execute(&format!("LOCK TABLE {locked} IN {mode} MODE"), &[]).await {
        Ok(_) => return sql.execute("RELEASE SAVEPOINT tidegate_keep", &[]).await.map(std::mem::drop),
        Err(error) if error.code.as_deref() == Some(NOT_AVAILABLE) => error,
        Err(error) => return Err(error),
    };
    sql.execute("ROLLBACK TO SAVEPOINT tidegate_keep", &[]).await?;
    let holders = sql.query(HOLDERS, &[table.into(), Value::Integer(all)]).await?;
    let holders: Vec<String> = holders.iter().map(holder).collect();
    let way = if holders.is_empty() { String::new() } else { format!("; in the way: {}", holders.join(", ")) };
    let message = format!(
        "table {table} could not be locked for its trigger within {PATIENCE_MS} ms, and nobody is made to wait longer behind that{way}"
    );
    Err(SqlError { class: ErrorClass::Transient, message, ..error })
}

fn holder(row: &Row) -> String {
    let process = integer(row, 0);
    if process == 0 {
        return "a prepared transaction".to_owned();
    }
    let state = Some(text(row, 3)).filter(|state| !state.is_empty()).map(|state| format!(", {state}"));
    let since = Some(text(row, 4)).filter(|since| !since.is_empty());
    let since = since.map(|since| format!(", in a transaction since {since}"));
    format!(
        "process {process} ({}, user {}{}{})",
        text(row, 1),
        text(row, 2),
        state.unwrap_or_default(),
        since.unwrap_or_default()
    )
}
