//! How SQLite writes what the databases write differently, and how it is asked about itself.
//!
//! A key travels as text, and SQLite stores what it is given rather than what the column declares. So numbers and texts
//! are written by their stored type, and read back by the column's affinity:
//!
//! | affinity | as text | from text |
//! | --- | --- | --- |
//! | INTEGER, TEXT, REAL, NUMERIC | the value; a real number with the 17 digits that identify it | the text itself: compared with the column, it takes on the column's affinity |
//! | BLOB, where it is declared | hexadecimal | `unhex`; a text that is not hexadecimal is an error |
//! | none declared | | an error that says so: nothing tells 1 from '1' |

use async_trait::async_trait;
use tidegate::update::cells::integer;

use super::inspect::{self, ROWID};
use tidegate::update::plan::Explanation;
use tidegate::update::sql::{
    Class, Column, Dialect, Direction, Estimate, Field, Index, Lacking, Right, Row, Sample, Sql, SqlError,
    Surroundings, System, Table, TableKind, TableName, Value, whole,
};
use tidegate_driver::estimate::{EMPTY, KeyRange};

/// SQLite's dialect.
pub(super) struct SqliteDialect;

/// What a column makes of a value, by the rules of SQLite's documentation ("Determination Of Column Affinity").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
    /// BLOB, because no type is declared.
    Undeclared,
}

impl Affinity {
    fn of(declared: &str) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |part| declared.contains(part);
        if has("INT") {
            Self::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if has("BLOB") {
            Self::Blob
        } else if declared.trim().is_empty() {
            Self::Undeclared
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }
}

#[async_trait]
impl Dialect for SqliteDialect {
    fn system(&self) -> System {
        System::Sqlite
    }

    fn parameter(&self, number: usize) -> String {
        format!("?{number}")
    }

    fn key_as_text(&self, column: &str) -> String {
        format!(
            "CASE typeof({column}) WHEN 'real' THEN printf('%!.17g', {column}) WHEN 'blob' THEN hex({column}) \
             ELSE CAST({column} AS TEXT) END"
        )
    }

    fn key_from_text(&self, number: usize, column: &Column) -> String {
        match Affinity::of(&column.sql_type) {
            // No cast: with one, SQLite seeks by the first column of several alone, and what a column holds beside its
            // type ('abc' among integers) would become another key.
            Affinity::Integer | Affinity::Text | Affinity::Real | Affinity::Numeric => format!("?{number}"),
            // json() refuses what is not JSON, and SQLite has no plainer way to raise an error in an expression.
            Affinity::Blob => format!("coalesce(unhex(?{number}), json('a key column of blobs holds something else'))"),
            Affinity::Undeclared => format!("key_column_without_a_declared_type(?{number})"),
        }
    }

    fn key_value(&self, text: &str, column: &Column) -> Value {
        // In an expression nothing tells 5 from '5' but the value itself.
        let integer = || text.parse().ok().map(Value::Integer);
        let real = || text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Real);
        match Affinity::of(&column.sql_type) {
            Affinity::Integer | Affinity::Numeric | Affinity::Real => {
                integer().or_else(real).unwrap_or_else(|| Value::from(text))
            }
            Affinity::Text | Affinity::Blob | Affinity::Undeclared => Value::from(text),
        }
    }

    fn key_bound(&self, text: &str, column: &Column) -> Value {
        // Which number a text is would be found out anew for each row.
        match Affinity::of(&column.sql_type) {
            Affinity::Integer | Affinity::Numeric => whole(text).map_or_else(|| Value::from(text), Value::Integer),
            Affinity::Text | Affinity::Real | Affinity::Blob | Affinity::Undeclared => Value::from(text),
        }
    }

    async fn describe(&self, sql: &mut dyn Sql, table: &TableName) -> Result<Option<Table>, SqlError> {
        let (arguments, values) = arguments(table);
        let select =
            format!("SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo({arguments}) WHERE hidden <> 1");
        let rows = sql.query(&select, &values).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let mut columns: Vec<Column> = rows.iter().map(column).collect();
        let mut indexes = indexes(sql, table).await?;
        let key: Vec<usize> = (0..rows.len()).filter(|i| integer(&rows[*i], 3) > 0).collect();
        // The one case of a primary key without an index of its own is the rowid's other name.
        if let [only] = key.as_slice()
            && !indexes.iter().any(|(_, origin)| origin == "pk")
        {
            columns[*only].not_null = true;
            let rowid = Index {
                name: ROWID.to_owned(),
                columns: vec![Some(columns[*only].name.clone())],
                directions: vec![Some(Direction::Ascending)],
                unique: true,
                partial: false,
                valid: true,
                definition: None,
            };
            indexes.insert(0, (rowid, "pk".to_owned()));
        }
        let indexes: Vec<Index> = indexes.into_iter().map(|(index, _)| index).collect();
        let select = format!(
            "SELECT wr, type, EXISTS (SELECT 1 FROM {0} WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE \
             AND NOT (name LIKE 'zz\\_tidegate\\_keep\\_%' ESCAPE '\\' AND instr(sql, '-- tidegate keep {{'))), \
             (SELECT sql FROM {0} WHERE type = 'table' AND name = ?1 COLLATE NOCASE) \
             FROM {1} WHERE name = ?1 COLLATE NOCASE",
            catalogue(table),
            table_list(table)
        );
        let kinds = sql.query(&select, &[table.name.as_str().into()]).await?;
        let definition = kinds.first().map(|row| string(row, 3)).unwrap_or_default();
        inspect::name_collations(&definition, &mut columns);
        let kind = kinds.first().map(|row| match string(row, 1).as_str() {
            "view" => TableKind::View,
            "virtual" => TableKind::Virtual,
            _ => TableKind::Plain,
        });
        let without = kinds.first().is_none_or(|row| integer(row, 0) != 0);
        let guarded = kinds.first().is_some_and(|row| integer(row, 2) != 0);
        let rowid = !without && kind != Some(TableKind::View);
        // A virtual table keeps its numbers in tables of its own.
        let plain = kind == Some(TableKind::Plain);
        let number = indexes.first().filter(|_| rowid).filter(|index| index.name == ROWID);
        let numbered_by = number.and_then(|index| index.columns.first().cloned().flatten());
        let renumbered = rowid && plain && numbered_by.is_none();
        let kind = kind.unwrap_or_default();
        Ok(Some(Table {
            columns,
            indexes,
            kind,
            guarded,
            rules: false,
            followed: false,
            children: 0,
            rowid,
            numbered_by,
            renumbered,
        }))
    }

    async fn fields(&self, sql: &mut dyn Sql, table: &TableName) -> Result<Vec<Field>, SqlError> {
        let columns = self.describe(sql, table).await?.map(|table| table.columns).unwrap_or_default();
        let field = |column: Column| Field {
            class: match Affinity::of(&column.sql_type) {
                Affinity::Integer => Class::Integer,
                Affinity::Text => Class::Text,
                Affinity::Blob => Class::Bytes,
                Affinity::Real => Class::Float,
                Affinity::Numeric | Affinity::Undeclared => Class::Any,
            },
            name: column.name,
            type_name: column.sql_type,
        };
        Ok(columns.into_iter().map(field).collect())
    }

    fn token(&self, table: &TableName) -> String {
        format!("PRAGMA {}.schema_version", self.quote(table.schema.as_deref().unwrap_or("main")))
    }

    async fn estimate(
        &self,
        sql: &mut dyn Sql,
        table: &TableName,
        key: &[Column],
        after: Option<&[String]>,
    ) -> Result<Option<Estimate>, SqlError> {
        let rows = stored_rows(sql, table).await?;
        let after = after.and_then(<[String]>::first);
        let Some(first) = key.first().filter(|column| Affinity::of(&column.sql_type) == Affinity::Integer) else {
            // Nothing is known of the order of other keys; before the walk begins, nothing needs to be.
            return Ok(rows.filter(|_| after.is_none()).map(|rows| Estimate { done: 0.0, rows }));
        };
        let (column, table) = (self.quote(&first.name), self.table(table));
        // Two subqueries, because SQLite probes an index only for a lone min or max.
        let select = format!("SELECT (SELECT min({column}) FROM {table}), (SELECT max({column}) FROM {table})");
        match KeyRange::from_row(sql.query(&select, &[]).await?.first()) {
            Some(range) => range.estimate(after, rows).map(Some),
            None => Ok(Some(EMPTY)),
        }
    }

    async fn sample(
        &self,
        sql: &mut dyn Sql,
        table: &TableName,
        source: &str,
        _pages: f64,
    ) -> Result<Option<Sample>, SqlError> {
        const ROWS: u32 = 101;
        let described = self.describe(sql, table).await?;
        // Those next to numbers that lie evenly between the least and the greatest. A column or a table may bear any other
        // name than these, and would be taken for what is meant.
        let rows = described.filter(|table| table.rowid).map(|_| {
            format!(
                "(WITH RECURSIVE tidegate_place (tidegate_n) AS (VALUES (1) UNION ALL SELECT tidegate_n + 1 \
                 FROM tidegate_place WHERE tidegate_n < {ROWS}), \
                 tidegate_ends (tidegate_least, tidegate_most) AS \
                 (SELECT (SELECT min(rowid) FROM {source}), (SELECT max(rowid) FROM {source})) \
                 SELECT DISTINCT (SELECT rowid FROM {source} WHERE rowid >= tidegate_least + \
                 CAST((tidegate_most - tidegate_least) * (tidegate_n / {ROWS}.0) AS INTEGER) \
                 ORDER BY rowid LIMIT 1) AS tidegate_number FROM tidegate_place, tidegate_ends) AS tidegate_found \
                 JOIN {source} AS walked ON walked.rowid = tidegate_found.tidegate_number"
            )
        });
        Ok(rows.map(|from| Sample { from, part: None }))
    }

    async fn explain(&self, sql: &mut dyn Sql, statement: &str, parameters: &[Value]) -> Result<Explanation, SqlError> {
        inspect::explain(sql, statement, parameters).await
    }

    async fn lacking(
        &self,
        _sql: &mut dyn Sql,
        _table: &TableName,
        _rights: &[Right],
    ) -> Result<Option<Lacking>, SqlError> {
        // Whoever can write the file may do everything.
        Ok(None)
    }

    async fn bearer(&self, sql: &mut dyn Sql, table: &TableName, name: &str) -> Result<Option<String>, SqlError> {
        inspect::bearer(sql, table, name).await
    }

    async fn surroundings(&self, sql: &mut dyn Sql, table: &TableName) -> Result<Surroundings, SqlError> {
        inspect::surroundings(sql, table).await
    }
}

/// The arguments of a pragma's function, and their values.
fn arguments(table: &TableName) -> (&'static str, Vec<Value>) {
    let name = Value::from(table.name.as_str());
    match &table.schema {
        Some(schema) => ("?1, ?2", vec![name, Value::from(schema.as_str())]),
        None => ("?1", vec![name]),
    }
}

/// What SQLite lists of its tables, of one schema where one is named.
fn table_list(table: &TableName) -> String {
    let schema = table.schema.as_deref().unwrap_or("main").replace('\'', "''");
    format!("(SELECT * FROM pragma_table_list WHERE schema = '{schema}' COLLATE NOCASE)")
}

/// A schema's catalogue.
pub(super) fn catalogue(table: &TableName) -> String {
    match &table.schema {
        Some(schema) => format!("{}.sqlite_schema", SqliteDialect.quote(schema)),
        None => "sqlite_schema".to_owned(),
    }
}

/// The indexes of a table, each with its origin: "c" by CREATE INDEX, "u" by UNIQUE, "pk" by PRIMARY KEY.
async fn indexes(sql: &mut dyn Sql, table: &TableName) -> Result<Vec<(Index, String)>, SqlError> {
    let (arguments, values) = arguments(table);
    let of_index = if table.schema.is_some() { "l.name, ?2" } else { "l.name" };
    let select = format!(
        "SELECT l.name, l.\"unique\", l.partial, l.origin, s.sql, x.name, x.\"desc\" FROM pragma_index_list({arguments}) l \
         JOIN pragma_index_xinfo({of_index}) x \
         LEFT JOIN {} s ON s.type = 'index' AND s.name = l.name WHERE x.key ORDER BY l.seq DESC, x.seqno",
        catalogue(table)
    );
    let mut indexes: Vec<(Index, String)> = Vec::new();
    for row in sql.query(&select, &values).await? {
        let name = string(&row, 0);
        let column = row.get(5).and_then(Value::as_text).map(str::to_owned);
        let direction = if integer(&row, 6) == 0 { Direction::Ascending } else { Direction::Descending };
        match indexes.last_mut() {
            Some((last, _)) if last.name == name => {
                last.columns.push(column);
                last.directions.push(Some(direction));
            }
            _ => {
                let index = Index {
                    name,
                    columns: vec![column],
                    directions: vec![Some(direction)],
                    unique: integer(&row, 1) != 0,
                    partial: integer(&row, 2) != 0,
                    valid: true,
                    definition: row.get(4).and_then(Value::as_text).map(str::to_owned),
                };
                indexes.push((index, string(&row, 3)));
            }
        }
    }
    Ok(indexes)
}

/// The number of rows that the last ANALYZE stored.
async fn stored_rows(sql: &mut dyn Sql, table: &TableName) -> Result<Option<f64>, SqlError> {
    let catalogue = catalogue(table);
    let analyzed = format!("SELECT 1 FROM {catalogue} WHERE name = 'sqlite_stat1'");
    if sql.query(&analyzed, &[]).await?.is_empty() {
        return Ok(None);
    }
    let statistics = catalogue.replace("sqlite_schema", "sqlite_stat1");
    let select = format!("SELECT stat FROM {statistics} WHERE tbl = ?1 COLLATE NOCASE LIMIT 1");
    let rows = sql.query(&select, &[table.name.as_str().into()]).await?;
    // "rows per-key …": the first number is the number of rows.
    let stat = rows.first().map(|row| string(row, 0));
    Ok(stat.and_then(|stat| stat.split(' ').next().and_then(|rows| rows.parse().ok())))
}

fn column(row: &Row) -> Column {
    let (sql_type, not_null) = (string(row, 1), integer(row, 2) != 0);
    // Numbers are in order by themselves, and text among them is for the walk to refuse.
    let ordered = !matches!(Affinity::of(&sql_type), Affinity::Integer | Affinity::Real | Affinity::Numeric);
    Column { name: string(row, 0), sql_type, not_null, collation: ordered.then(|| "BINARY".to_owned()) }
}

fn string(row: &Row, column: usize) -> String {
    row.get(column).and_then(Value::as_text).unwrap_or_default().to_owned()
}
