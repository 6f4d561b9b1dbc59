//! How PostgreSQL writes what the databases write differently, and how it is asked about itself.

use async_trait::async_trait;
use tidegate::update::cells::text;

use super::{inspect, surroundings};
use tidegate::update::plan::Explanation;
use tidegate::update::sql::{
    Class, Column, Dialect, Direction, Estimate, Field, Index, Lacking, Right, Row, Sample, Sql, SqlError,
    Surroundings, System, Table, TableKind, TableName, Value,
};
use tidegate_driver::estimate::{EMPTY, KeyRange};

/// PostgreSQL's dialect.
pub(super) struct PostgresDialect;

/// True for a trigger of tidegate's that keeps an update's rows: it skips none, and changes no key.
pub(super) const KEEPS: &str = "\
    t.tgname like 'zz\\_tidegate\\_keep\\_%' and exists (select from pg_proc p where p.oid = t.tgfoid \
    and p.prosrc like '-- tidegate keep {%')";

/// The indexes of a table ($1, quoted), a row for each column of each. Its options (`indoption`) are the sum of 1 for
/// descending and 2 for NULLs first; where it yields the column's own order they are 0, or 3 for the reverse.
const INDEXES: &str = "\
    select i.relname::text, x.indisunique, x.indpred is not null, x.indisvalid, pg_get_indexdef(x.indexrelid), \
           a.attname::text, \
           case when m.amname = 'btree' and o.opcdefault and x.indcollation[k.place::int - 1] = a.attcollation \
                then x.indoption[k.place::int - 1] end \
    from pg_index x join pg_class i on i.oid = x.indexrelid join pg_am m on m.oid = i.relam \
    cross join lateral unnest(x.indkey::int2[]) with ordinality k (attnum, place) \
    left join pg_opclass o on o.oid = x.indclass[k.place::int - 1] \
    left join pg_attribute a on a.attrelid = x.indrelid and a.attnum = k.attnum \
    where x.indrelid = to_regclass($1::text) and k.place <= x.indnkeyatts \
    order by i.relname, k.place";

/// The columns of a table ($1, quoted), each with its type and what that is a domain over, without lengths.
const FIELDS: &str = "\
    select a.attname::text, format_type(a.atttypid, -1), format_type(b.oid, -1) \
    from pg_attribute a cross join lateral ( \
        with recursive base (oid, parent, kind) as ( \
            select t.oid, t.typbasetype, t.typtype from pg_type t where t.oid = a.atttypid \
            union all select t.oid, t.typbasetype, t.typtype from base join pg_type t on t.oid = base.parent \
            where base.kind = 'd') \
        select base.oid from base where base.kind <> 'd') b \
    where a.attrelid = to_regclass($1::text) and a.attnum > 0 and not a.attisdropped order by a.attnum";

#[async_trait]
impl Dialect for PostgresDialect {
    fn system(&self) -> System {
        System::Postgres
    }

    fn parameter(&self, number: usize) -> String {
        format!("${number}")
    }

    fn key_as_text(&self, column: &str) -> String {
        // A bare cast would give the result the column's own name, and "ORDER BY key" would then order by the text.
        format!("({column}::text || '')")
    }

    fn key_from_text(&self, number: usize, column: &Column) -> String {
        format!("${number}::text::{}", column.sql_type)
    }

    fn key_apart(&self, number: usize, column: &Column) -> String {
        // What a subquery gives is known when the statement is executed.
        format!("(SELECT {})", self.key_from_text(number, column))
    }

    fn offset(&self, number: usize) -> String {
        format!("OFFSET (SELECT ${number}::bigint)")
    }

    async fn describe(&self, sql: &mut dyn Sql, table: &TableName) -> Result<Option<Table>, SqlError> {
        let select = "select a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, \
                      c.relkind::text, \
                      (select count(*) from pg_inherits h where h.inhparent = c.oid), \
                      exists (with recursive below (oid) as (select c.oid union select h.inhrelid from pg_inherits h \
                          join below b on h.inhparent = b.oid) \
                          select from pg_trigger t join below b on b.oid = t.tgrelid where not t.tgisinternal \
                          and t.tgtype & 3 = 3 and t.tgenabled in ('O', 'A') and not (KEEPS) \
                          and t.tgfoid <> 'pg_catalog.suppress_redundant_updates_trigger'::regproc) \
                      or exists (select from pg_rewrite r where r.ev_class = c.oid and r.ev_type in ('2', '4') \
                          and r.is_instead and r.ev_enabled in ('O', 'A')), \
                      exists (select from pg_rewrite r where r.ev_class = c.oid and r.ev_type <> '1' \
                          and r.ev_enabled in ('O', 'A')), \
                      (select l.collnamespace::regnamespace::text || '.' || quote_ident(l.collname) from pg_collation l \
                          where l.oid = a.attcollation), \
                      exists (with recursive below (oid) as (select c.oid union select h.inhrelid from pg_inherits h \
                          join below b on h.inhparent = b.oid) \
                          select from pg_trigger t join below b on b.oid = t.tgrelid where not t.tgisinternal \
                          and t.tgtype & 66 = 0 and t.tgtype & 16 = 16 and t.tgenabled in ('O', 'A') and not (KEEPS)) \
                      from pg_class c left join pg_attribute a \
                      on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
                      where c.oid = to_regclass($1::text) and c.relkind in ('r', 'p', 'v', 'm', 'f') order by a.attnum";
        let name = [Value::from(self.table(table))];
        let rows = sql.query(&select.replace("KEEPS", KEEPS), &name).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        // A table without columns gives one row of NULLs.
        let columns = rows.iter().filter(|row| row.first() != Some(&Value::Null)).map(column).collect();
        let kind = rows.first().map(|row| text(row, 3).to_owned()).unwrap_or_default();
        let kind = match kind.as_str() {
            "p" => TableKind::Partitioned,
            "v" => TableKind::View,
            "m" => TableKind::MaterializedView,
            "f" => TableKind::Foreign,
            _ => TableKind::Plain,
        };
        let guarded = rows.first().is_some_and(|row| boolean(row, 5));
        let rules = rows.first().is_some_and(|row| boolean(row, 6));
        let followed = rows.first().is_some_and(|row| boolean(row, 8));
        let children = rows.first().and_then(|row| row.get(4)).and_then(Value::as_integer);
        let children = children.and_then(|children| u64::try_from(children).ok()).unwrap_or(0);
        let mut indexes = Vec::new();
        for row in sql.query(INDEXES, &name).await? {
            add_index_column(&mut indexes, &row);
        }
        Ok(Some(Table {
            columns,
            indexes,
            kind,
            guarded,
            rules,
            followed,
            children,
            rowid: false,
            numbered_by: None,
            renumbered: false,
        }))
    }

    async fn fields(&self, sql: &mut dyn Sql, table: &TableName) -> Result<Vec<Field>, SqlError> {
        let rows = sql.query(FIELDS, &[Value::from(self.table(table))]).await?;
        Ok(rows.iter().map(field).collect())
    }

    fn token(&self, table: &TableName) -> String {
        // Whatever alters the table, its columns, indexes, triggers or rules writes a row of these anew.
        let name = self.table(table).replace('\'', "''");
        format!(
            "SELECT concat_ws(' ', c.oid, c.relkind, c.relhassubclass, \
             (SELECT string_agg(a.attnum || '/' || a.xmin::text, ' ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a \
             WHERE a.attrelid = c.oid AND a.attnum > 0), 'i', \
             (SELECT string_agg(i.indexrelid || '/' || i.xmin::text, ' ' ORDER BY i.indexrelid) \
             FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid), 't', \
             (SELECT string_agg(t.oid || '/' || t.xmin::text, ' ' ORDER BY t.oid) FROM pg_catalog.pg_trigger t \
             WHERE t.tgrelid = c.oid), 'r', \
             (SELECT string_agg(r.oid || '/' || r.xmin::text, ' ' ORDER BY r.oid) FROM pg_catalog.pg_rewrite r \
             WHERE r.ev_class = c.oid)) \
             FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass('{name}')"
        )
    }

    async fn estimate(
        &self,
        sql: &mut dyn Sql,
        table: &TableName,
        key: &[Column],
        after: Option<&[String]>,
    ) -> Result<Option<Estimate>, SqlError> {
        let Some(first) = key.first() else { return Ok(None) };
        let rows = planner_rows(sql, &self.table(table)).await?;
        let after = after.and_then(<[String]>::first);
        if matches!(first.sql_type.as_str(), "smallint" | "integer" | "bigint") {
            let (column, table) = (self.quote(&first.name), self.table(table));
            let select = format!("select min({column})::bigint, max({column})::bigint from {table}");
            return match KeyRange::from_row(sql.query(&select, &[]).await?.first()) {
                Some(range) => range.estimate(after, rows).map(Some),
                None => Ok(Some(EMPTY)),
            };
        }
        let (Some(rows), Some(after)) = (rows, after) else {
            return Ok(rows.map(|rows| Estimate { done: 0.0, rows }));
        };
        let done = part_by_statistics(sql, &self.table(table), first, after).await?;
        Ok(done.map(|done| Estimate { done: done.clamp(0.0, 1.0), rows }))
    }

    async fn sample(
        &self,
        sql: &mut dyn Sql,
        table: &TableName,
        source: &str,
        pages: f64,
    ) -> Result<Option<Sample>, SqlError> {
        // All that has pages of its own, the partitions below it and what inherits from it included.
        let select = "with recursive below (oid) as (select to_regclass($1::text)::oid union \
                      select h.inhrelid from pg_inherits h join below b on h.inhparent = b.oid) \
                      select sum(pg_relation_size(c.oid)::float8 / current_setting('block_size')::float8)::float8, \
                      bool_and(c.relkind in ('r', 'p', 'm')) from below b join pg_class c on c.oid = b.oid";
        let rows = sql.query(select, &[Value::from(self.table(table))]).await?;
        let Some(row) = rows.first().filter(|row| boolean(row, 1)) else { return Ok(None) };
        let part = real(row, 0).map_or(1.0, |all| (pages / all.max(1.0)).min(1.0));
        // The same rows each time, as long as the table stays the same.
        let from = format!("{source} AS walked TABLESAMPLE SYSTEM ({}) REPEATABLE (1)", 100.0 * part);
        Ok(Some(Sample { from, part: Some(part) }))
    }

    async fn explain(&self, sql: &mut dyn Sql, statement: &str, parameters: &[Value]) -> Result<Explanation, SqlError> {
        inspect::explain(sql, statement, parameters).await
    }

    async fn lacking(
        &self,
        sql: &mut dyn Sql,
        table: &TableName,
        rights: &[Right],
    ) -> Result<Option<Lacking>, SqlError> {
        inspect::lacking(sql, table, rights).await
    }

    async fn bearer(&self, sql: &mut dyn Sql, table: &TableName, name: &str) -> Result<Option<String>, SqlError> {
        inspect::bearer(sql, table, name).await
    }

    async fn surroundings(&self, sql: &mut dyn Sql, table: &TableName) -> Result<Surroundings, SqlError> {
        surroundings::of(sql, table).await
    }
}

/// The number of rows that the planner reckons with; `None` for a table that nothing has looked at yet.
async fn planner_rows(sql: &mut dyn Sql, table: &str) -> Result<Option<f64>, SqlError> {
    // Zero or less is what a table has that was never analyzed; a partitioned one has its partitions' sum.
    let select = "select sum(c.reltuples)::float8 from pg_class c where c.reltuples > 0 and (c.oid = to_regclass($1::text) \
                  or c.oid in (select relid from pg_partition_tree(to_regclass($1::text)) where isleaf)) \
                  and c.relkind <> 'p'";
    let rows = sql.query(select, &[table.into()]).await?;
    Ok(rows.first().and_then(|row| real(row, 0)))
}

/// The part of a table's rows whose `column` is at or before `after`, by what ANALYZE has stored: its most common values
/// with their frequencies, and bounds between which equal numbers of the other rows lie.
async fn part_by_statistics(
    sql: &mut dyn Sql,
    table: &str,
    column: &Column,
    after: &str,
) -> Result<Option<f64>, SqlError> {
    let kind = &column.sql_type;
    let select = format!(
        "select \
           (select count(*) filter (where b <= $3::text::{kind})::float8 / nullif(count(*), 0) \
              from unnest(s.histogram_bounds::text::{kind}[]) b), \
           (select coalesce(sum(f) filter (where v <= $3::text::{kind}), 0)::float8 \
              from unnest(s.most_common_vals::text::{kind}[], s.most_common_freqs) m (v, f)), \
           (select coalesce(sum(f), 0)::float8 from unnest(s.most_common_freqs) f) \
         from pg_stats s join pg_class c on c.oid = to_regclass($1::text) \
         join pg_namespace n on n.oid = c.relnamespace \
         where s.schemaname = n.nspname and s.tablename = c.relname and s.attname = $2 \
         order by s.inherited desc limit 1"
    );
    let values = [table.into(), column.name.as_str().into(), after.into()];
    let rows = sql.query(&select, &values).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (histogram, common, all_common) = (real(row, 0), real(row, 1).unwrap_or(0.0), real(row, 2).unwrap_or(0.0));
    match histogram {
        Some(part) => Ok(Some(common + part * (1.0 - all_common))),
        None if all_common > 0.0 => Ok(Some(common / all_common)),
        None => Ok(None),
    }
}

/// A column as a program sees it, by the type that it is of in the end.
fn field(row: &Row) -> Field {
    let class = match text(row, 2) {
        "boolean" => Class::Boolean,
        "smallint" | "integer" | "bigint" => Class::Integer,
        "real" | "double precision" => Class::Float,
        "numeric" => Class::Numeric,
        "text" | "character varying" | "bpchar" | "name" | "\"char\"" => Class::Text,
        other if other == "citext" || other.ends_with(".citext") => Class::Text,
        "bytea" => Class::Bytes,
        _ => Class::Other,
    };
    Field { name: text(row, 0).to_owned(), class, type_name: text(row, 1).to_owned() }
}

fn column(row: &Row) -> Column {
    let collation = row.get(7).and_then(Value::as_text).map(str::to_owned);
    Column { name: text(row, 0).to_owned(), sql_type: text(row, 1).to_owned(), not_null: boolean(row, 2), collation }
}

/// Adds a row about one column of an index to the indexes; rows of an index follow each other.
fn add_index_column(indexes: &mut Vec<Index>, row: &Row) {
    let name = text(row, 0).to_owned();
    let column = row.get(5).and_then(Value::as_text).map(str::to_owned);
    let direction = match row.get(6).and_then(Value::as_integer) {
        Some(0) => Some(Direction::Ascending),
        Some(3) => Some(Direction::Descending),
        _ => None,
    };
    match indexes.last_mut() {
        Some(last) if last.name == name => {
            last.columns.push(column);
            last.directions.push(direction);
        }
        _ => indexes.push(Index {
            name,
            columns: vec![column],
            directions: vec![direction],
            unique: boolean(row, 1),
            partial: boolean(row, 2),
            valid: boolean(row, 3),
            definition: Some(text(row, 4).to_owned()),
        }),
    }
}

fn boolean(row: &Row, column: usize) -> bool {
    row.get(column).and_then(Value::as_integer) == Some(1)
}

fn real(row: &Row, column: usize) -> Option<f64> {
    match row.get(column) {
        Some(Value::Real(number)) => Some(*number),
        _ => None,
    }
}
