//! What SQLite is asked before anything is done: names, plans, the journal mode.

use super::connection::Held;
use super::dialect::catalogue;
use crate::scheduler::database::Remark;
use crate::update::plan::{Explanation, Read};
use crate::update::sql::{Row, Sql, SqlError, TableName, Value};

/// The name under which [`Dialect::describe`](crate::update::Dialect::describe) gives the index that a rowid table is.
pub(super) const ROWID: &str = "rowid";

/// See [`Dialect::explain`](crate::update::Dialect::explain).
pub(super) async fn explain(sql: &mut dyn Sql, statement: &str, parameters: &[Value]) -> Result<Explanation, SqlError> {
    let rows = sql.query(&format!("EXPLAIN QUERY PLAN {statement}"), parameters).await?;
    let mut explanation = Explanation::default();
    // What stands on the way down to the line in hand.
    let mut above: Vec<i64> = Vec::new();
    for row in &rows {
        let (id, parent, detail) = (integer(row, 0), integer(row, 1), text(row, 3));
        above.truncate(above.iter().position(|above| *above == parent).map_or(0, |at| at + 1));
        explanation.lines.push(format!("{}{detail}", "  ".repeat(above.len())));
        above.push(id);
        explanation.sorts |= detail.starts_with("USE TEMP B-TREE") && detail.ends_with("ORDER BY");
        explanation.reads.extend(read(detail));
    }
    Ok(explanation)
}

/// What a line of a plan says of a table, as in "SEARCH t USING INDEX i (a>?)".
fn read(detail: &str) -> Option<Read> {
    let (verb, rest) = detail.split_once(' ')?;
    let scans = match verb {
        "SCAN" => true,
        "SEARCH" => false,
        _ => return None,
    };
    let (table, by) = rest.split_once(" USING ").unwrap_or((rest, ""));
    let table = table.split(" LEFT-JOIN").next().unwrap_or(table);
    let index = match by.split_once("INDEX ") {
        Some((_, name)) => Some(name.rsplit_once(" (").map_or(name, |(name, _)| name).to_owned()),
        None => by.starts_with("INTEGER PRIMARY KEY").then(|| ROWID.to_owned()),
    };
    // An automatic index is made of the whole table, each time anew.
    let whole = scans || by.starts_with("AUTOMATIC");
    // SQLite looks up nothing but what an index begins with.
    Some(Read { table: TableName { schema: None, name: table.to_owned() }, index, condition: None, whole })
}

/// See [`Dialect::bearer`](crate::update::Dialect::bearer).
pub(super) async fn bearer(sql: &mut dyn Sql, table: &TableName, name: &str) -> Result<Option<String>, SqlError> {
    let select = format!(
        "SELECT type, tbl_name FROM {} WHERE type IN ('table', 'view', 'index') AND name = ?1 COLLATE NOCASE \
         AND NOT (type = 'index' AND tbl_name = ?2 COLLATE NOCASE)",
        catalogue(table)
    );
    let rows = sql.query(&select, &[name.into(), table.name.as_str().into()]).await?;
    Ok(rows.first().map(|row| match text(row, 0) {
        "index" => format!("an index of table \"{}\"", text(row, 1)),
        kind => format!("a {kind}"),
    }))
}

/// See [`Driver::survey`](crate::database::handle::Driver::survey).
pub(super) async fn survey(held: &mut Held) -> Result<Vec<Remark>, SqlError> {
    let rows = held.query("PRAGMA journal_mode", &[]).await?;
    let mode = rows.first().map(|row| text(row, 0).to_owned()).unwrap_or_default();
    if mode == "wal" {
        return Ok(Vec::new());
    }
    Ok(vec![Remark::drawback(
        format!(
            "the journal mode is \"{mode}\": while a batch commits nobody can read, and while somebody reads no batch commits"
        ),
        "execute `PRAGMA journal_mode = wal` once, if the application agrees; tidegate never changes it",
    )])
}

fn text(row: &Row, column: usize) -> &str {
    row.get(column).and_then(Value::as_text).unwrap_or_default()
}

fn integer(row: &Row, column: usize) -> i64 {
    row.get(column).and_then(Value::as_integer).unwrap_or(0)
}
