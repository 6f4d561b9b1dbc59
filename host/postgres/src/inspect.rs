//! What PostgreSQL's catalogue and its planner are asked before anything is done: rights, names, plans.

use serde_json::Value as Json;
use tidegate::update::cells::text;

use super::dialect::PostgresDialect;
use tidegate::scheduler::database::Remark;
use tidegate::update::plan::{Explanation, Read};
use tidegate::update::sql::{Dialect, Lacking, Operation, Right, Sql, SqlError, TableName, Value};

/// What a plan avoids where it can when it is asked whether it could: reading all, and sorting.
const AVOIDING: &str = "set local enable_seqscan = off; set local enable_sort = off; set local enable_bitmapscan = off";

/// See [`Dialect::explain`]; outside a transaction.
pub(super) async fn explain(sql: &mut dyn Sql, statement: &str, parameters: &[Value]) -> Result<Explanation, SqlError> {
    let rows = sql.query(&format!("EXPLAIN {statement}"), parameters).await?;
    let lines = rows.iter().map(|row| text(row, 0).to_owned()).collect();
    // Whether an index could serve: for a small table PostgreSQL rightly prefers to read all of it.
    let explain = format!("EXPLAIN (VERBOSE, FORMAT JSON) {statement}");
    sql.begin_rehearsal().await?;
    sql.script(AVOIDING).await?;
    let forced = sql.query(&explain, parameters).await;
    sql.end_rehearsal().await?;
    let json: Json = serde_json::from_str(&forced?.first().map(|row| text(row, 0).to_owned()).unwrap_or_default())
        .map_err(|error| SqlError::permanent(format!("the plan is no JSON: {error}")))?;
    let mut explanation = Explanation { lines, ..Explanation::default() };
    gather(&json[0]["Plan"], "", &mut explanation);
    Ok(explanation)
}

/// Gathers what a node of a plan, and those below it, read and sort.
fn gather(node: &Json, parent: &str, into: &mut Explanation) {
    let word = |key: &str| node[key].as_str().map(str::to_owned);
    let kind = node["Node Type"].as_str().unwrap_or_default();
    into.sorts |= kind.ends_with("Sort");
    if let (Some(name), true) = (word("Relation Name"), kind.ends_with("Scan")) {
        // Whoever wants but a few, of whatever kind, does not read on.
        let stops_early = parent == "Limit" && node["Filter"].is_null();
        let unconditional = match kind {
            "Seq Scan" | "Sample Scan" => true,
            "Index Scan" | "Index Only Scan" => node["Index Cond"].is_null(),
            _ => false,
        };
        into.reads.push(Read {
            table: TableName { schema: word("Schema"), name },
            index: word("Index Name"),
            condition: word("Index Cond"),
            whole: unconditional && !stops_early,
        });
    }
    if let ("ModifyTable", Some(name), Some(operation)) =
        (kind, word("Relation Name"), word("Operation").as_deref().and_then(Operation::of))
    {
        into.changes.push((operation, TableName { schema: word("Schema"), name }));
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        gather(child, kind, into);
    }
}

/// Reads what the session's user may do with a table ($1, quoted) or, where it is not there, in its schema ($2).
const RIGHTS: &str = "\
select current_user::text, n.nspname::text, pg_get_userbyid(c.relowner)::text,
       coalesce(has_table_privilege(c.oid, 'SELECT') or has_any_column_privilege(c.oid, 'SELECT'), true),
       coalesce(has_table_privilege(c.oid, 'INSERT') or has_any_column_privilege(c.oid, 'INSERT'), true),
       coalesce(has_table_privilege(c.oid, 'UPDATE') or has_any_column_privilege(c.oid, 'UPDATE'), true),
       coalesce(has_table_privilege(c.oid, 'DELETE'), true),
       coalesce(pg_has_role(c.relowner, 'USAGE'), true),
       coalesce(has_schema_privilege(n.oid, 'CREATE'), true)
from (select to_regclass($1::text) as oid) as wanted
left join pg_class as c on c.oid = wanted.oid
left join pg_namespace as n
  on n.oid = c.relnamespace or c.oid is null and n.nspname = coalesce($2::text, current_schema())";

/// See [`Dialect::lacking`].
pub(super) async fn lacking(
    sql: &mut dyn Sql,
    table: &TableName,
    rights: &[Right],
) -> Result<Option<Lacking>, SqlError> {
    let quoted = PostgresDialect.table(table);
    let schema = table.schema.as_deref().map_or(Value::Null, Value::from);
    let rows = sql.query(RIGHTS, &[quoted.as_str().into(), schema]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let has = |right: &Right| {
        let column = match right {
            Right::Select => 3,
            Right::Insert => 4,
            Right::Update => 5,
            Right::Delete => 6,
            Right::Own => 7,
            Right::Create => 8,
        };
        row.get(column).and_then(Value::as_integer) == Some(1)
    };
    let missing: Vec<Right> = rights.iter().copied().filter(|right| !has(right)).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let (role, schema, owner) = (text(row, 0).to_owned(), text(row, 1).to_owned(), text(row, 2).to_owned());
    let quote = |name: &str| PostgresDialect.quote(name);
    let (mut what, mut hints) = (Vec::new(), Vec::new());
    let words: Vec<&str> = missing.iter().filter_map(|right| word(*right)).collect();
    if !words.is_empty() {
        let words = words.join(", ");
        what.push(format!("{words} on table \"{table}\""));
        hints.push(format!("GRANT {words} ON {quoted} TO {}", quote(&role)));
    }
    if missing.contains(&Right::Own) {
        what.push(format!("the ownership of table \"{table}\""));
        hints.push(format!("GRANT {} TO {}, or let that role own the table", quote(&owner), quote(&role)));
    }
    if missing.contains(&Right::Create) {
        what.push(format!("CREATE on schema \"{schema}\""));
        hints.push(format!("GRANT CREATE ON SCHEMA {} TO {}", quote(&schema), quote(&role)));
    }
    Ok(Some(Lacking { what: what.join(" and "), role, hint: hints.join("; ") }))
}

/// The right as GRANT writes it.
fn word(right: Right) -> Option<&'static str> {
    match right {
        Right::Select => Some("SELECT"),
        Right::Insert => Some("INSERT"),
        Right::Update => Some("UPDATE"),
        Right::Delete => Some("DELETE"),
        Right::Own | Right::Create => None,
    }
}

/// See [`Dialect::bearer`].
pub(super) async fn bearer(sql: &mut dyn Sql, table: &TableName, name: &str) -> Result<Option<String>, SqlError> {
    let select = "\
        select case c.relkind when 'r' then 'a table' when 'p' then 'a partitioned table' when 'v' then 'a view'
               when 'm' then 'a materialized view' when 'S' then 'a sequence' when 'f' then 'a foreign table'
               when 'c' then 'a composite type'
               else 'an index of table \"' || coalesce(i.indrelid::regclass::text, '?') || '\"' end
        from pg_class as c left join pg_index as i on i.indexrelid = c.oid
        where c.relname = $2::text and i.indrelid is distinct from to_regclass($1::text)::oid
          and c.relnamespace = (select relnamespace from pg_class where oid = to_regclass($1::text))";
    let quoted = PostgresDialect.table(table);
    let rows = sql.query(select, &[quoted.into(), name.into()]).await?;
    Ok(rows.first().map(|row| text(row, 0).to_owned()))
}

/// See [`Driver::survey`](tidegate_driver::driver::Driver::survey).
pub(super) async fn survey(sql: &mut dyn Sql) -> Result<Vec<Remark>, SqlError> {
    let select = "select pg_is_in_recovery(), current_setting('transaction_read_only'), current_user::text";
    let rows = sql.query(select, &[]).await?;
    let Some(row) = rows.first() else { return Ok(Vec::new()) };
    if row.first().and_then(Value::as_integer) == Some(1) {
        return Ok(vec![Remark::hindrance(
            "the server is a standby, on which nothing can be written",
            "name the primary in the `url`",
        )]);
    }
    if text(row, 1) == "on" {
        return Ok(vec![Remark::hindrance(
            format!("transactions of role \"{}\" only read", text(row, 2).to_owned()),
            "set `default_transaction_read_only` to off, which the role, the database or the server has on",
        )]);
    }
    Ok(Vec::new())
}
