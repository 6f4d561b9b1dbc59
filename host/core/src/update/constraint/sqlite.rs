//! Constraints in the text of CREATE TABLE, which is all that SQLite keeps of their names.

use super::{Constraint, ConstraintKind, Found, PARENT, Validation, checked, dangling};
use crate::update::scan::{self, Kind, Token};
use crate::update::sql::{Dialect, Sql, SqlError, System, TableName, Value};

/// What a definition says behind CONSTRAINT and the name.
#[derive(Debug, PartialEq)]
enum Clause {
    NotNull { column: String },
    Check { condition: String },
    ForeignKey { columns: Vec<String> },
    Other(String),
}

/// Looks a constraint up.
pub(super) async fn find(sql: &mut dyn Sql, table: &TableName, name: &str) -> Result<Found, SqlError> {
    let dialect = sql.dialect();
    let catalogue = match &table.schema {
        Some(schema) => format!("{}.sqlite_schema", dialect.quote(schema)),
        None => "sqlite_schema".to_owned(),
    };
    let question = format!("SELECT sql FROM {catalogue} WHERE type = 'table' AND name = ?1 COLLATE NOCASE");
    let rows = sql.query(&question, &[table.name.as_str().into()]).await?;
    let Some(Value::Text(definition)) = rows.into_iter().next().and_then(|row| row.into_iter().next()) else {
        return Ok(Found::NoTable);
    };
    let mut clauses = clauses(&definition);
    let Some(at) = clauses.iter().position(|(found, _)| found.eq_ignore_ascii_case(name)) else {
        let validated = clauses.into_iter().filter(|(_, clause)| !matches!(clause, Clause::Other(_)));
        return Ok(Found::Missing(validated.map(|(name, _)| name).collect()));
    };
    let (kind, violation, foreign_key) = match clauses.swap_remove(at).1 {
        Clause::Other(kind) => return Ok(Found::Other(kind)),
        // IS NULL would not look: SQLite takes the column's word that it holds none.
        Clause::NotNull { column } => {
            (ConstraintKind::NotNull, format!("typeof({}) = 'null'", checked(&*dialect, table, &column)), None)
        }
        // A condition that is NULL is met.
        Clause::Check { condition } => (kind_of(&condition), format!("({condition}\n) IS FALSE"), None),
        Clause::ForeignKey { columns } => match foreign_key(sql, &*dialect, table, &columns).await? {
            Some((number, violation)) => (ConstraintKind::ForeignKey, violation, Some(number)),
            None => return Ok(Found::Missing(Vec::new())),
        },
    };
    Ok(Found::Constraint(Constraint { kind, only: false, validated: false, violation, foreign_key }))
}

/// A CHECK that says but `column IS NOT NULL` or `column NOT NULL` is what PostgreSQL has for NOT NULL.
fn kind_of(condition: &str) -> ConstraintKind {
    let code = scan::code(condition, System::Sqlite);
    let words: Vec<String> = code.iter().skip(1).map(|token| token.text.to_ascii_lowercase()).collect();
    let named = code.first().is_some_and(|first| matches!(first.kind, Kind::Word | Kind::Quoted));
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["is", "not", "null"] | ["not", "null"] | ["notnull"] if named => ConstraintKind::NotNull,
        _ => ConstraintKind::Check,
    }
}

/// The question for a row that breaks a constraint, and the values bound in it.
pub(super) fn statement(dialect: &dyn Dialect, table: &TableName, constraint: &Constraint) -> (String, Vec<Value>) {
    match constraint.foreign_key {
        Some(number) => {
            let mut values = vec![Value::from(number), table.name.as_str().into()];
            values.extend(table.schema.as_deref().map(Value::from));
            let arguments = if table.schema.is_some() { "?2, ?3" } else { "?2" };
            (format!("SELECT 1 FROM pragma_foreign_key_check({arguments}) WHERE fkid = ?1 LIMIT 1"), values)
        }
        None => {
            let (table, violation) = (dialect.table(table), &constraint.violation);
            (format!("SELECT 1 FROM {table} WHERE {violation} LIMIT 1"), Vec::new())
        }
    }
}

/// Looks at every row. SQLite marks no constraint as valid: it enforces each from the start, so that what is there from
/// times when it was told not to is all there can be.
pub(super) async fn validate(
    sql: &mut dyn Sql,
    table: &TableName,
    name: &str,
    constraint: &Constraint,
) -> Result<Validation, SqlError> {
    let (question, values) = statement(&*sql.dialect(), table, constraint);
    let rows = sql.query(&question, &values).await?;
    Ok(match rows.is_empty() {
        true => Validation::Valid,
        false => Validation::Broken(SqlError::permanent(format!(
            "constraint \"{name}\" of table \"{table}\" is violated by some row"
        ))),
    })
}

/// SQLite's number of the foreign key of these columns, and the condition of the rows that break it.
async fn foreign_key(
    sql: &mut dyn Sql,
    dialect: &dyn Dialect,
    table: &TableName,
    columns: &[String],
) -> Result<Option<(i64, String)>, SqlError> {
    let (arguments, values) = arguments(table);
    let question =
        format!("SELECT id, \"from\", \"to\", \"table\" FROM pragma_foreign_key_list({arguments}) ORDER BY id, seq");
    let rows = sql.query(&question, &values).await?;
    let ids: Vec<i64> = rows.iter().filter_map(|row| row.first()?.as_integer()).collect();
    for id in ids {
        let of_this: Vec<_> = rows.iter().filter(|row| row.first().and_then(Value::as_integer) == Some(id)).collect();
        let from: Vec<&str> = of_this.iter().filter_map(|row| row.get(1)?.as_text()).collect();
        let same = |(one, other): (&&str, &String)| one.eq_ignore_ascii_case(other);
        if from.len() != columns.len() || !from.iter().zip(columns).all(same) {
            continue;
        }
        let Some(parent) = of_this.first().and_then(|row| row.get(3)?.as_text()) else { continue };
        let parent = TableName { schema: table.schema.clone(), name: parent.to_owned() };
        let mut to: Vec<String> = of_this.iter().filter_map(|row| row.get(2)?.as_text().map(str::to_owned)).collect();
        if to.len() < from.len() {
            to = primary_key(sql, &parent).await?;
        }
        let child: Vec<String> = from.iter().map(|column| checked(dialect, table, column)).collect();
        // The parent's column stands on the left: its collation is the one that counts.
        let pairs = to.iter().zip(&child).map(|(to, from)| format!("{PARENT}.{} = {from}", dialect.quote(to)));
        let violation = dangling(&child, &pairs.collect::<Vec<_>>(), &dialect.table(&parent), false);
        return Ok(Some((id, violation)));
    }
    Ok(None)
}

/// The columns that a reference to a table alone means.
async fn primary_key(sql: &mut dyn Sql, table: &TableName) -> Result<Vec<String>, SqlError> {
    let (arguments, values) = arguments(table);
    let question = format!("SELECT name FROM pragma_table_info({arguments}) WHERE pk > 0 ORDER BY pk");
    let rows = sql.query(&question, &values).await?;
    Ok(rows.iter().filter_map(|row| row.first()?.as_text().map(str::to_owned)).collect())
}

/// The arguments of a pragma's function, and their values.
fn arguments(table: &TableName) -> (&'static str, Vec<Value>) {
    let name = Value::from(table.name.as_str());
    match &table.schema {
        Some(schema) => ("?1, ?2", vec![name, Value::from(schema.as_str())]),
        None => ("?1", vec![name]),
    }
}

/// The constraints that a CREATE TABLE names, in order.
fn clauses(definition: &str) -> Vec<(String, Clause)> {
    let code = scan::code(definition, System::Sqlite);
    let Some(open) = code.iter().position(|token| token.is_symbol("(")) else { return Vec::new() };
    let mut clauses = Vec::new();
    // The beginning of the element between commas that is being read: a column, or a constraint of the table.
    let (mut depth, mut element) = (0_usize, open + 1);
    for (at, token) in code.iter().enumerate().skip(open) {
        match () {
            () if token.is_symbol("(") => depth += 1,
            () if token.is_symbol(")") => depth = depth.saturating_sub(1),
            () if depth == 1 && token.is_symbol(",") => element = at + 1,
            () if depth == 1 && token.is("constraint") => {
                let Some(name) = code.get(at + 1).and_then(|token| token.name(System::Sqlite)) else { continue };
                let column = code.get(element).and_then(|token| token.name(System::Sqlite)).unwrap_or_default();
                clauses.push((name, clause(definition, code.get(at + 2..).unwrap_or_default(), column)));
            }
            () => {}
        }
    }
    clauses
}

/// What stands behind CONSTRAINT and the name, in the definition of `column` or behind all columns.
fn clause(definition: &str, code: &[Token<'_>], column: String) -> Clause {
    let is = |at: usize, word: &str| code.get(at).is_some_and(|token| token.is(word));
    match () {
        () if is(0, "not") && is(1, "null") => Clause::NotNull { column },
        () if is(0, "references") => Clause::ForeignKey { columns: vec![column] },
        () if is(0, "check") => {
            let inside = parenthesis(code.get(1..).unwrap_or_default());
            let ends = inside.first().zip(inside.last()).map(|(first, last)| first.start..last.end());
            let condition = ends.and_then(|range| definition.get(range)).unwrap_or_default();
            Clause::Check { condition: condition.to_owned() }
        }
        () if is(0, "foreign") && is(1, "key") => {
            let inside = parenthesis(code.get(2..).unwrap_or_default());
            Clause::ForeignKey { columns: inside.iter().filter_map(|token| token.name(System::Sqlite)).collect() }
        }
        () => Clause::Other(code.first().map(|token| token.text.to_ascii_lowercase()).unwrap_or_default()),
    }
}

/// What stands between the parenthesis that `code` begins with and the one that closes it.
fn parenthesis<'a, 't>(code: &'a [Token<'t>]) -> &'a [Token<'t>] {
    let mut depth = 0_usize;
    for (at, token) in code.iter().enumerate() {
        match () {
            () if token.is_symbol("(") => depth += 1,
            () if token.is_symbol(")") && depth <= 1 => return code.get(1..at).unwrap_or_default(),
            () if token.is_symbol(")") => depth -= 1,
            () => {}
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_constraints_are_read_from_a_definition() {
        let definition = "CREATE TABLE \"t (a\" (a INTEGER PRIMARY KEY CONSTRAINT \"A is\" CHECK (a > 0 -- one)\n) , \
             [b c] TEXT DEFAULT ('constraint x') CONSTRAINT b_there NOT NULL CONSTRAINT b_of REFERENCES p (x), \
             c NUMERIC(3, 1) CHECK (c <> ')'), constraint pair FOREIGN KEY (\"b c\", c) REFERENCES q, \
             CONSTRAINT u UNIQUE (c), CONSTRAINT either CHECK (a IN (1, (2)) OR c IS NULL)) STRICT";
        let text = |text: &str| text.to_owned();
        let expected = [
            ("A is", Clause::Check { condition: text("a > 0") }),
            ("b_there", Clause::NotNull { column: text("b c") }),
            ("b_of", Clause::ForeignKey { columns: vec![text("b c")] }),
            ("pair", Clause::ForeignKey { columns: vec![text("b c"), text("c")] }),
            ("u", Clause::Other(text("unique"))),
            ("either", Clause::Check { condition: text("a IN (1, (2)) OR c IS NULL") }),
        ];
        assert_eq!(clauses(definition), expected.map(|(name, clause)| (name.to_owned(), clause)));
        assert_eq!(kind_of("b IS NOT NULL"), ConstraintKind::NotNull);
        assert_eq!(kind_of("\"b\" notnull"), ConstraintKind::NotNull);
        assert_eq!(kind_of("b IS NOT NULL OR a"), ConstraintKind::Check);
    }
}
