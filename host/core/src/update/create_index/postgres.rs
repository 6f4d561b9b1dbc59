//! An index on PostgreSQL: CREATE INDEX CONCURRENTLY, and the comparison with an index that is there already.

mod shape;

use self::shape::Shape;
use super::{CreateIndexDefinition, not_replaceable};
use crate::update::explain::{one_line, refused};
use crate::update::sql::{Dialect, ErrorClass, Row, Sql, SqlError, Value};
use crate::update::{Problem, UpdateError};

/// The bytes that PostgreSQL keeps of a name.
pub(super) const LONGEST_NAME: usize = 63;

/// Finds an index by its name ($1) in the schema of a table ($2, quoted): whether it is of that table, is valid, its name
/// with its schema, its definition, and what it is as JSON (see [`Shape`]).
const FIND: &str = "\
SELECT (i.indrelid = wanted.oid)::int,
       i.indisvalid::int,
       format('%I.%I', n.nspname, c.relname),
       pg_get_indexdef(c.oid),
       jsonb_build_object(
           'method', m.amname, 'unique', i.indisunique, 'columns', i.indnatts,
           'nulls_equal', coalesce(to_jsonb(i) -> 'indnullsnotdistinct', 'false'),
           'condition', pg_get_expr(i.indpred, i.indrelid),
           'keys', (
               SELECT jsonb_agg(jsonb_build_object(
                   'expression', pg_get_indexdef(c.oid, k, false), 'options', i.indoption[k - 1],
                   'class', o.opcname, 'class_schema', s.nspname, 'default_class', o.opcdefault) ORDER BY k)
               FROM generate_series(1, i.indnkeyatts) AS k
               JOIN pg_opclass AS o ON o.oid = i.indclass[k - 1]
               JOIN pg_namespace AS s ON s.oid = o.opcnamespace
           )
       )::text
FROM pg_class AS wanted
JOIN pg_class AS c ON c.relnamespace = wanted.relnamespace AND c.relname = $1::text
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_index AS i ON i.indexrelid = c.oid
JOIN pg_am AS m ON m.oid = c.relam
WHERE wanted.oid = to_regclass($2::text)";

/// Who else holds the lock on a table ($1, quoted) that a concurrent build holds from its beginning to its end. Everybody
/// may read locks, where `pg_stat_progress_create_index` hides what other roles build.
const BUILDERS: &str = "\
SELECT DISTINCT format('process %s (%s, user %s)', l.pid, coalesce(nullif(a.application_name, ''), 'unnamed'), a.usename)
FROM pg_locks AS l
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.relation = to_regclass($1::text) AND l.mode = 'ShareUpdateExclusiveLock'
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.granted AND l.pid <> pg_backend_pid() AND a.usesysid IS NOT NULL";

/// What depends on an index ($1, with its schema): the sentence that says so, and what to do.
const OBSTACLES: &str = "\
SELECT format('constraint \"%s\" of table \"%s\" needs it', k.conname, k.conrelid::regclass),
       'a constraint keeps its index: let it stand, or change the constraint by hand'
FROM pg_constraint AS k WHERE k.conindid = $1::text::regclass
UNION ALL
SELECT format('table \"%s\" is replicated by it (REPLICA IDENTITY USING INDEX)', i.indrelid::regclass),
       'first give the table another: ALTER TABLE … REPLICA IDENTITY USING INDEX …, or DEFAULT'
FROM pg_index AS i WHERE i.indexrelid = $1::text::regclass AND i.indisreplident
UNION ALL
SELECT format('table \"%s\" is clustered by it', i.indrelid::regclass),
       'first cluster the table by another: ALTER TABLE … CLUSTER ON …, or SET WITHOUT CLUSTER'
FROM pg_index AS i WHERE i.indexrelid = $1::text::regclass AND i.indisclustered
UNION ALL
SELECT format('index \"%s\" of the partitioned table needs it', h.inhparent::regclass),
       'replace the index of the partitioned table by hand'
FROM pg_inherits AS h WHERE h.inhrelid = $1::text::regclass
UNION ALL
SELECT format('column %s of it has a statistics target that somebody set', a.attnum),
       'set the same on the new index by hand, then drop the old one'
FROM pg_attribute AS a WHERE a.attrelid = $1::text::regclass AND a.attstattarget > 0
UNION ALL
SELECT format('%s depends on it', pg_describe_object(d.classid, d.objid, d.objsubid)),
       'change what depends on it first'
FROM pg_depend AS d
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::text::regclass AND d.deptype = 'n'
  AND d.classid <> 'pg_constraint'::regclass
LIMIT 1";

/// An index as it was found.
struct Found {
    of_this_table: bool,
    valid: bool,
    /// Quoted, with its schema.
    name: String,
    definition: String,
    shape: Shape,
}

/// Builds the index, unless it is there, and drops the one that it replaces.
pub(super) async fn build(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<(), UpdateError> {
    // What cannot be dropped afterwards is told before anything is built.
    replaced(sql, wanted).await?;
    build_alone(sql, wanted).await?;
    if let Some(replaced) = replaced(sql, wanted).await? {
        refuse_shared(sql)?;
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
    let obstacles = sql.query(OBSTACLES, &[Value::from(found.name.as_str())]).await?;
    let words = |row: &Row| Some((row.first()?.as_text()?.to_owned(), row.get(1)?.as_text()?.to_owned()));
    match obstacles.first().and_then(words) {
        Some((why, remedy)) => Err(not_replaceable(name, &format!("{why} ({remedy})"))),
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
            let same = shape::is_wanted(sql, wanted, &found.shape, &found.definition).await?;
            return if same { Ok(()) } else { Err(wanted.differs(&found.definition, &statement)) };
        }
        refuse_shared(sql)?;
        drop_leftover(sql, &found, &table).await?;
    }
    refuse_shared(sql)?;
    const DUPLICATE_TABLE: &str = "42P07";
    let Err(error) = sql.execute(&statement, &[]).await else { return Ok(()) };
    if error.class == ErrorClass::Permanent
        && let Ok(Some(there)) = find(sql, &wanted.index, &table).await
        && there.of_this_table
    {
        if error.code.as_deref() == Some(DUPLICATE_TABLE) {
            // Somebody else has begun to build it meanwhile: the next attempt sees what it has become.
            return Err(SqlError { class: ErrorClass::Transient, ..error }.into());
        }
        if !there.valid {
            // Duplicates under a unique index, say. What is left would slow every write down, and an invalid unique
            // index even refuses some; where it cannot be dropped now, the next call meets it.
            let _ = drop_leftover(sql, &there, &table).await;
        }
    }
    Err(error.into())
}

/// What no transaction can hold cannot bring its settings along either, least of all that it has no time limit.
pub(super) const SHARED: [&str; 2] = [
    "PostgreSQL builds and drops an index concurrently outside a transaction, and a connection pooler in transaction mode \
     runs that in whatever session is free, under the limits that others have set there",
    "name the server itself in the `url`, or a pool in session mode, for as long as it takes (PgBouncer: a second entry \
     under [databases] with pool_mode = session); or build the index by hand: one that is there counts as done",
];

fn refuse_shared(sql: &mut dyn Sql) -> Result<(), UpdateError> {
    let [message, hint] = SHARED;
    if sql.shares_session() { Err(UpdateError::Failed(format!("{message} ({hint})"))) } else { Ok(()) }
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

/// Whether anything is left to be built or dropped.
pub(super) async fn is_needed(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<bool, UpdateError> {
    Ok(!is_there(sql, wanted).await? || replaced(sql, wanted).await?.is_some())
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
    let statement = statement(&*dialect, wanted);
    // Names first: the table itself is asked, since a function may take a row of this very table.
    if let Err(error) = shape::written(sql, wanted).await {
        return refusal(error, field, &statement);
    }
    sql.begin_rehearsal().await?;
    let copied = sql.script(&copy(&*dialect, wanted)).await;
    sql.end_rehearsal().await?;
    if let Err(error) = copied
        && NOT_INDEXABLE.iter().any(|code| error.code.as_deref() == Some(code))
    {
        return Ok(Some(refused(field, &error, &statement)));
    }
    let Some(found) = find(sql, &wanted.index, &table).await?.filter(|found| found.of_this_table) else {
        return Ok(None);
    };
    if !found.valid {
        return Ok(builders(sql, &table).await?.map(|who| {
            Problem::warning(
                "index",
                format!("index \"{}\" is not valid, and {who} may be building it", wanted.index),
                "wait until that has ended: the update waits too, and takes the index if it is the one wanted",
            )
        }));
    }
    let same = shape::is_wanted(sql, wanted, &found.shape, &found.definition).await?;
    Ok((!same).then(|| wanted.occupied(&one_line(&found.definition))))
}

/// What PostgreSQL says of a list whose names exist and which cannot be indexed: a function that is not immutable, a type
/// that has no order, words in the wrong place.
const NOT_INDEXABLE: [&str; 4] = ["42P17", "42704", "0A000", "42601"];

fn refusal(error: UpdateError, field: &'static str, statement: &str) -> Result<Option<Problem>, UpdateError> {
    match error {
        UpdateError::Sql(error) if error.class == ErrorClass::Permanent => Ok(Some(refused(field, &error, statement))),
        UpdateError::Sql(error) if error.class == ErrorClass::Transient => Ok(None),
        error => Err(error),
    }
}

async fn find(sql: &mut dyn Sql, index: &str, table: &str) -> Result<Option<Found>, UpdateError> {
    let rows = sql.query(FIND, &[Value::from(index), Value::from(table)]).await?;
    rows.into_iter().next().map(found).transpose()
}

fn found(row: Row) -> Result<Found, UpdateError> {
    let other = |what: String| UpdateError::Failed(format!("the catalog described an index in another shape: {what}"));
    match <[Value; 5]>::try_from(row) {
        Ok(
            [
                Value::Integer(of_this_table),
                Value::Integer(valid),
                Value::Text(name),
                Value::Text(definition),
                Value::Text(shape),
            ],
        ) => Ok(Found {
            of_this_table: of_this_table != 0,
            valid: valid != 0,
            name,
            definition,
            shape: serde_json::from_str(&shape).map_err(|error| other(error.to_string()))?,
        }),
        found => Err(other(format!("{found:?}"))),
    }
}

/// Who may be building an index of a table at this moment.
async fn builders(sql: &mut dyn Sql, table: &str) -> Result<Option<String>, SqlError> {
    let rows = sql.query(BUILDERS, &[Value::from(table)]).await?;
    let who: Vec<&str> = rows.iter().filter_map(|row| row.first()?.as_text()).collect();
    Ok((!who.is_empty()).then(|| who.join(", ")))
}

/// Drops what a build that failed has left behind, unless somebody may be building it at this moment.
async fn drop_leftover(sql: &mut dyn Sql, leftover: &Found, table: &str) -> Result<(), UpdateError> {
    if let Some(who) = builders(sql, table).await? {
        let message = format!("index {} is not valid, and {who} may be building it at this moment", leftover.name);
        return Err(SqlError::new(ErrorClass::Transient, message).into());
    }
    sql.execute(&format!("DROP INDEX CONCURRENTLY {}", leftover.name), &[]).await?;
    Ok(())
}

/// Drops what a build that was interrupted has left. Whoever is in its way is not waited for long: it says then what stays.
pub(super) async fn abandon(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<Option<String>, UpdateError> {
    // Where none can be built, none was left.
    if sql.shares_session() {
        return Ok(None);
    }
    let table = sql.dialect().table(&wanted.table);
    let Some(found) = find(sql, &wanted.index, &table).await?.filter(|found| found.of_this_table && !found.valid)
    else {
        return Ok(None);
    };
    // An index that is not valid serves nobody: the lock that this takes is short once it is had.
    let dropped = sql.script(&format!("SET lock_timeout = '2s'; DROP INDEX {}", found.name)).await;
    Ok(dropped.err().map(|error| {
        format!(
            "left index {} behind, which is not valid and slows every write down: DROP INDEX CONCURRENTLY {} ({})",
            found.name, found.name, error.message
        )
    }))
}

/// A script that makes the index wanted on an empty copy of the table, which bears the table's name because the condition
/// may speak of it.
fn copy(dialect: &dyn Dialect, wanted: &CreateIndexDefinition) -> String {
    let (name, table) = (dialect.quote(&wanted.table.name), dialect.table(&wanted.table));
    let tail = wanted.tail(dialect, &dialect.quote(&wanted.index), &format!("pg_temp.{name}"));
    let head = wanted.head();
    format!("CREATE TEMPORARY TABLE {name} (LIKE {table}); {head} {tail}")
}
