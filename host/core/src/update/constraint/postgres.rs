//! Constraints in PostgreSQL's catalogue.

use super::{Constraint, ConstraintKind, Found, PARENT, Validation, checked, dangling};
use crate::update::cells::{integer, text};
use crate::update::sql::{Dialect, Sql, SqlError, TableName, Value};

/// A table's ($1, quoted) constraint of a name ($2): its kind, whether it is valid, its condition, whether that is but
/// one column's IS NOT NULL, that column or the column of a NOT NULL, the table that a foreign key refers to, whether
/// all of its columns must be NULL where one is, and its identity.
const FIND: &str = "\
SELECT c.contype::text, c.convalidated::int, pg_get_expr(c.conbin, c.conrelid),
       coalesce(pg_get_expr(c.conbin, c.conrelid) = '(' || quote_ident(a.attname) || ' IS NOT NULL)', false)::int,
       a.attname::text,
       CASE WHEN p.relkind <> 'p' THEN 'ONLY ' ELSE '' END || c.confrelid::regclass,
       (c.confmatchtype = 'f')::int, c.oid::text,
       (t.relkind = 'r' AND (c.connoinherit OR c.contype = 'f'))::int
FROM pg_constraint AS c
JOIN pg_class AS t ON t.oid = c.conrelid
LEFT JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
LEFT JOIN pg_class AS p ON p.oid = c.confrelid
WHERE c.conrelid = to_regclass($1::text) AND c.conname = $2::text";

/// The columns of a foreign key ($1), the columns that they refer to, and the operator that compares the two.
const PAIRS: &str = "\
SELECT child.attname::text, parent.attname::text, format('OPERATOR(%I.%s)', n.nspname, o.oprname)
FROM pg_constraint AS c
CROSS JOIN LATERAL unnest(c.conkey, c.confkey, c.conpfeqop) WITH ORDINALITY AS k (child, parent, operator, place)
JOIN pg_attribute AS child ON child.attrelid = c.conrelid AND child.attnum = k.child
JOIN pg_attribute AS parent ON parent.attrelid = c.confrelid AND parent.attnum = k.parent
JOIN pg_operator AS o ON o.oid = k.operator
JOIN pg_namespace AS n ON n.oid = o.oprnamespace
WHERE c.oid = $1::text::oid ORDER BY k.place";

const OTHERS: &str = "\
SELECT conname::text FROM pg_constraint
WHERE conrelid = to_regclass($1::text) AND contype IN ('c', 'f', 'n') ORDER BY conname";

/// Looks a constraint up.
pub(super) async fn find(sql: &mut dyn Sql, table: &TableName, name: &str) -> Result<Found, SqlError> {
    let dialect = sql.dialect();
    let (of, table) = (table, dialect.table(table));
    let known = sql.query("SELECT (to_regclass($1::text) IS NOT NULL)::int", &[table.as_str().into()]).await?;
    if integer(known.first().map_or(&[], Vec::as_slice), 0) == 0 {
        return Ok(Found::NoTable);
    }
    let rows = sql.query(FIND, &[table.as_str().into(), name.into()]).await?;
    let Some(row) = rows.into_iter().next() else {
        let others = sql.query(OTHERS, &[table.as_str().into()]).await?;
        return Ok(Found::Missing(others.iter().map(|row| text(row, 0).to_owned()).collect()));
    };
    let (kind, violation) = match text(&row, 0) {
        "n" => (ConstraintKind::NotNull, format!("{} IS NULL", checked(&*dialect, of, text(&row, 4)))),
        "c" => {
            let kind = if integer(&row, 3) != 0 { ConstraintKind::NotNull } else { ConstraintKind::Check };
            // A condition that is NULL is met.
            (kind, format!("({}) IS FALSE", text(&row, 2)))
        }
        "f" => {
            let pairs = sql.query(PAIRS, &[Value::from(text(&row, 7))]).await?;
            let child: Vec<String> = pairs.iter().map(|pair| checked(&*dialect, of, text(pair, 0))).collect();
            let compared = pairs
                .iter()
                .zip(&child)
                .map(|(pair, child)| format!("{PARENT}.{} {} {child}", dialect.quote(text(pair, 1)), text(pair, 2)));
            let compared: Vec<String> = compared.collect();
            (ConstraintKind::ForeignKey, dangling(&child, &compared, text(&row, 5), integer(&row, 6) != 0))
        }
        other => return Ok(Found::Other(word(other).to_owned())),
    };
    let validated = integer(&row, 1) != 0;
    Ok(Found::Constraint(Constraint { kind, only: integer(&row, 8) != 0, validated, violation, foreign_key: None }))
}

/// The statement that has PostgreSQL look at every row.
pub(super) fn statement(dialect: &dyn Dialect, table: &TableName, name: &str) -> String {
    format!("ALTER TABLE {} VALIDATE CONSTRAINT {}", dialect.table(table), dialect.quote(name))
}

/// Has PostgreSQL look at every row.
pub(super) async fn validate(sql: &mut dyn Sql, table: &TableName, name: &str) -> Result<Validation, SqlError> {
    const NOT_NULL_VIOLATION: &str = "23502";
    const FOREIGN_KEY_VIOLATION: &str = "23503";
    const CHECK_VIOLATION: &str = "23514";
    let statement = statement(&*sql.dialect(), table, name);
    match sql.execute(&statement, &[]).await {
        Ok(_) => Ok(Validation::Valid),
        Err(error) => match error.code.as_deref() {
            Some(NOT_NULL_VIOLATION | FOREIGN_KEY_VIOLATION | CHECK_VIOLATION) => Ok(Validation::Broken(error)),
            _ => Err(error),
        },
    }
}

/// PostgreSQL's letters for other kinds of constraints.
fn word(kind: &str) -> &str {
    match kind {
        "u" => "unique",
        "p" => "primary key",
        "x" => "exclusion",
        "t" => "trigger",
        other => other,
    }
}
