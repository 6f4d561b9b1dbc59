//! What PostgreSQL does besides when rows of a table are changed: triggers, rules, policies, foreign keys of others.

use super::dialect::{KEEPS, PostgresDialect};
use tidegate::update::cells::text;
use tidegate::update::sql::{Dialect, Operation, Reaction, Row, Search, Sql, SqlError, Surroundings, TableName, Value};

/// The triggers of a table ($1, quoted) and of those that inherit from it, and its rules. A trigger that a partition has
/// from its parent stands once.
const REACTIONS: &str = "\
with recursive below (oid) as (
    select to_regclass($1::text)::oid union select h.inhrelid from pg_inherits h join below b on h.inhparent = b.oid
)
select t.tgname::text, t.tgrelid::regclass::text, false, t.tgtype & 64 <> 0,
       t.tgtype & 3 = 3 and not (KEEPS) and t.tgfoid <> 'pg_catalog.suppress_redundant_updates_trigger'::regproc, t.tgtype & 1 = 1,
       t.tgtype & 4 <> 0, t.tgtype & 16 <> 0, t.tgtype & 8 <> 0
from pg_trigger t join below b on b.oid = t.tgrelid
where not t.tgisinternal and t.tgenabled in ('O', 'A') and coalesce(to_jsonb(t) ->> 'tgparentid', '0') = '0'
union all
select r.rulename::text, r.ev_class::regclass::text, true, r.is_instead, false, false,
       r.ev_type = '3', r.ev_type = '2', r.ev_type = '4'
from pg_rewrite r
where r.ev_class = to_regclass($1::text) and r.ev_type <> '1' and r.ev_enabled in ('O', 'A')
order by 2, 1";

/// Foreign keys that refer to a table ($1, quoted), or to one from which a deletion goes on (ON DELETE CASCADE), and whose
/// rows no index finds.
const SEARCHES: &str = "\
with recursive reached (oid) as (
    select to_regclass($1::text)::oid
    union select c.conrelid from pg_constraint c join reached r on c.confrelid = r.oid
    where c.contype = 'f' and c.confdeltype = 'c'
)
select c.conname::text, n.nspname::text, t.relname::text,
       (select string_agg(a.attname, chr(10) order by k.place) from unnest(c.conkey) with ordinality k (number, place)
        join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.number)
from pg_constraint c
join reached r on c.confrelid = r.oid
join pg_class t on t.oid = c.conrelid
join pg_namespace n on n.oid = t.relnamespace
where c.contype = 'f'
  and not exists (
      select from pg_index i where i.indrelid = c.conrelid and i.indisvalid and i.indpred is null
      and (i.indkey::int2[])[0] = any (c.conkey))
order by 2, 3, 1";

pub(super) async fn of(sql: &mut dyn Sql, table: &TableName) -> Result<Surroundings, SqlError> {
    let name = [Value::from(PostgresDialect.table(table))];
    let reactions = sql.query(&REACTIONS.replace("KEEPS", KEEPS), &name).await?.iter().map(reaction).collect();
    let select =
        "select c.relrowsecurity, row_security_active(c.oid) from pg_class c where c.oid = to_regclass($1::text)";
    let security = sql.query(select, &name).await?;
    let row_security = security.first().filter(|row| boolean(row, 0)).map(|row| boolean(row, 1));
    let searches = sql.query(SEARCHES, &name).await?.iter().map(search).collect();
    Ok(Surroundings { reactions, row_security, searches })
}

fn reaction(row: &Row) -> Reaction {
    let operations = [(6, Operation::Insert), (7, Operation::Update), (8, Operation::Delete)];
    Reaction {
        name: text(row, 0).to_owned(),
        table: text(row, 1).to_owned(),
        rule: boolean(row, 2),
        instead: boolean(row, 3),
        may_skip: boolean(row, 4),
        each_row: boolean(row, 5),
        operations: operations
            .into_iter()
            .filter(|(at, _)| boolean(row, *at))
            .map(|(_, operation)| operation)
            .collect(),
    }
}

fn search(row: &Row) -> Search {
    Search {
        constraint: text(row, 0).to_owned(),
        table: TableName { schema: Some(text(row, 1).to_owned()), name: text(row, 2).to_owned() },
        columns: text(row, 3).lines().map(str::to_owned).collect(),
    }
}

fn boolean(row: &Row, column: usize) -> bool {
    row.get(column).and_then(Value::as_integer) == Some(1)
}
