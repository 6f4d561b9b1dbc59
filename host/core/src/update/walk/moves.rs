//! Whether an update moves rows along its walk by what it assigns: the key's columns, those that make it unique, or what
//! either are generated from.

use super::Walk;
use crate::update::names::{Names, ROWID_NAMES};
use crate::update::sql::{Column, Dialect, Sql, SqlError, System, Table, TableName, Value};
use crate::update::{UpdateError, scan};

/// A column that is assigned, and what it is to the walk.
pub(in crate::update) enum Moved {
    /// One of the key's.
    Key(String),
    /// One that makes the key unique.
    Unique(String),
    /// One from which the database computes the second.
    Source(String, String),
}

impl Walk {
    /// The first of the columns assigned by which the walk's rows are ordered.
    pub(in crate::update) async fn moved_by(
        &self,
        sql: &mut dyn Sql,
        assigned: &[String],
    ) -> Result<Option<Moved>, UpdateError> {
        let (table, key) = self.ground(sql).await?;
        let dialect = sql.dialect();
        let names = Names(dialect.system());
        for (place, column) in key.iter().enumerate() {
            if let Some(name) = assigned.iter().find(|name| names.same_column(&table, name, &column.name)) {
                let moved = if place < self.key.len() { Moved::Key } else { Moved::Unique };
                return Ok(Some(moved(name.clone())));
            }
        }
        let expressions = generated(sql, &*dialect, &self.table).await?;
        for Column { name: column, .. } in key.iter() {
            let sources = sources(&expressions, column, names);
            if let Some(name) = assigned.iter().find(|name| sources.iter().any(|source| names.equal(source, name))) {
                return Ok(Some(Moved::Source(name.clone(), column.clone())));
            }
        }
        Ok(None)
    }
}

impl Names {
    /// True where two names are one column's: SQLite's rowid has several, and that of an INTEGER PRIMARY KEY besides.
    fn same_column(self, table: &Table, one: &str, other: &str) -> bool {
        let numbers = |name: &str| {
            let hidden = self.column(table, name).is_none() && ROWID_NAMES.iter().any(|known| self.equal(known, name));
            table.rowid && (hidden || table.numbered_by.as_ref().is_some_and(|column| self.equal(column, name)))
        };
        self.equal(one, other) || numbers(one) && numbers(other)
    }
}

/// A column that the database computes, and the names in the expression that it computes it by.
type Generated = (String, Vec<String>);

/// The names from which a column is computed, directly or by way of others that are computed.
fn sources(expressions: &[Generated], column: &str, names: Names) -> Vec<String> {
    let (mut found, mut next) = (vec![column.to_owned()], 0);
    while let Some(name) = found.get(next).cloned() {
        for (_, parts) in expressions.iter().filter(|(generated, _)| names.equal(generated, &name)) {
            let more: Vec<String> = parts.iter().filter(|part| !found.contains(part)).cloned().collect();
            found.extend(more);
        }
        next += 1;
    }
    found.split_off(1)
}

async fn generated(sql: &mut dyn Sql, dialect: &dyn Dialect, table: &TableName) -> Result<Vec<Generated>, SqlError> {
    if dialect.system() == System::Postgres {
        let select = "SELECT a.attname::text, pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a \
                      JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
                      WHERE a.attrelid = to_regclass($1::text) AND a.attgenerated <> ''";
        let rows = sql.query(select, &[Value::from(dialect.table(table))]).await?;
        let text = |value: Option<&Value>| value.and_then(Value::as_text).unwrap_or_default().to_owned();
        return Ok(rows
            .iter()
            .map(|row| (text(row.first()), named(&scan::code(&text(row.get(1)), System::Postgres), System::Postgres)))
            .collect());
    }
    let catalogue = match &table.schema {
        Some(schema) => format!("{}.sqlite_schema", dialect.quote(schema)),
        None => "sqlite_schema".to_owned(),
    };
    let question = format!("SELECT sql FROM {catalogue} WHERE type = 'table' AND name = ?1 COLLATE NOCASE");
    let rows = sql.query(&question, &[table.name.as_str().into()]).await?;
    let definition = rows.first().and_then(|row| row.first()).and_then(Value::as_text).unwrap_or_default();
    Ok(generated_in(definition))
}

/// The generated columns of a CREATE TABLE: `name [type] [GENERATED ALWAYS] AS (expression)`.
fn generated_in(definition: &str) -> Vec<Generated> {
    let code = scan::code(definition, System::Sqlite);
    let mut found = Vec::new();
    for column in scan::columns(&code) {
        let by = column.windows(2).position(|pair| pair[0].is("as") && pair[1].is_symbol("("));
        if let (Some(name), Some(by)) = (column.first().and_then(|first| first.name(System::Sqlite)), by) {
            found.push((name, named(parenthesised(&column[by + 1..]), System::Sqlite)));
        }
    }
    found
}

/// The part of the code that ends where its first parenthesis closes.
fn parenthesised<'a, 'b>(code: &'a [scan::Token<'b>]) -> &'a [scan::Token<'b>] {
    let mut depth = 0_usize;
    let end = code.iter().position(|token| {
        if token.is_symbol("(") {
            depth += 1;
        } else if token.is_symbol(")") {
            depth = depth.saturating_sub(1);
        }
        depth == 0
    });
    &code[..end.unwrap_or(code.len())]
}

fn named(code: &[scan::Token<'_>], system: System) -> Vec<String> {
    code.iter().filter_map(|token| token.name(system)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_columns_are_read_from_the_definition() {
        let found = generated_in(
            "CREATE TABLE \"a, (b\" (id integer DEFAULT (abs(1)), \"the sum\" integer AS (id + \"n\" * 2) STORED, n integer \
             CHECK (n > 0), lower text GENERATED ALWAYS AS (lower(cast(n AS text))), UNIQUE (id, n)) STRICT",
        );
        let names = Names(System::Sqlite);
        assert_eq!(found[0], ("the sum".to_owned(), vec!["id".to_owned(), "n".to_owned()]));
        assert_eq!(found[1].0, "lower");
        assert_eq!(found.len(), 2);
        assert!(sources(&found, "LOWER", names).contains(&"n".to_owned()));
        assert!(sources(&found, "n", names).is_empty());
    }
}
