//! What SQLite is asked before anything is done: names, plans, the journal mode.

use std::pin::pin;
use std::time::Duration;
use tidegate::update::cells::{integer, text};

use tokio::time::sleep;

use super::connection::Held;
use super::dialect::catalogue;
use tidegate::scheduler::database::Remark;
use tidegate::update::plan::{Explanation, Read};
use tidegate::update::scan::{self, Kind};
use tidegate::update::sql::{
    Column, ErrorClass, Operation, Reaction, Sql, SqlError, Surroundings, System, TableName, Value,
};

/// The name under which [`Dialect::describe`](tidegate::update::Dialect::describe) gives the index that a rowid table is.
pub(super) const ROWID: &str = "rowid";

/// See [`Dialect::explain`](tidegate::update::Dialect::explain).
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
    explanation.changes.extend(change(statement));
    Ok(explanation)
}

/// What a statement does to which table: `[WITH …] DELETE FROM t`, `UPDATE [OR …] t`, `INSERT [OR …] INTO t`.
fn change(statement: &str) -> Option<(Operation, TableName)> {
    let code = scan::code(statement, System::Sqlite);
    let mut depth = 0_usize;
    let at = code.iter().position(|token| {
        match token.text {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && token.kind == Kind::Word && Operation::of(token.text).is_some()
    })?;
    let operation = Operation::of(code[at].text)?;
    let mut rest = code[at + 1..].iter().filter(|token| !token.is("from") && !token.is("into")).peekable();
    if rest.next_if(|token| token.is("or")).is_some() {
        rest.next();
    }
    let first = rest.next()?.name(System::Sqlite)?;
    let table = match rest.next_if(|token| token.is_symbol(".")) {
        Some(_) => TableName { schema: Some(first), name: rest.next()?.name(System::Sqlite)? },
        None => TableName { schema: None, name: first },
    };
    Some((operation, table))
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

/// See [`Dialect::bearer`](tidegate::update::Dialect::bearer).
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

/// See [`Driver::survey`](tidegate_driver::driver::Driver::survey).
pub(super) async fn survey(held: &mut Held) -> Result<Vec<Remark>, SqlError> {
    let malformed = malformed(held).await?;
    if !malformed.is_empty() {
        return Ok(malformed);
    }
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

/// See [`Dialect::surroundings`](tidegate::update::Dialect::surroundings).
pub(super) async fn surroundings(sql: &mut dyn Sql, table: &TableName) -> Result<Surroundings, SqlError> {
    let select = format!(
        "SELECT name, tbl_name, sql FROM {} WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE ORDER BY name",
        catalogue(table)
    );
    let rows = sql.query(&select, &[table.name.as_str().into()]).await?;
    let reactions = rows.iter().filter_map(|row| trigger(text(row, 0), text(row, 1), text(row, 2))).collect();
    Ok(Surroundings { reactions, ..Surroundings::default() })
}

/// A trigger by the statement that made it: what stands between its name and ON.
fn trigger(name: &str, table: &str, statement: &str) -> Option<Reaction> {
    let code = scan::code(statement, System::Sqlite);
    let heading = code.iter().skip_while(|token| !token.is("trigger")).take_while(|token| !token.is("on"));
    let heading: Vec<_> = heading.filter(|token| token.kind == Kind::Word).collect();
    let operation = heading.iter().rev().find_map(|token| match token.text {
        word if word.eq_ignore_ascii_case("replace") => None,
        word => Operation::of(word),
    })?;
    let says = |word: &str| heading.iter().any(|token| token.is(word));
    Some(Reaction {
        name: name.to_owned(),
        table: table.to_owned(),
        operations: vec![operation],
        rule: false,
        instead: says("instead"),
        // Where nothing is said it runs before. RAISE(IGNORE) is what skips a row.
        may_skip: !says("after")
            && code.iter().any(|token| token.is("raise"))
            && code.iter().any(|token| token.is("ignore")),
        each_row: true,
    })
}

/// Gives columns the collations that the statement which made their table names.
pub(super) fn name_collations(definition: &str, columns: &mut [Column]) {
    if !definition.to_ascii_lowercase().contains("collate") {
        return;
    }
    let code = scan::code(definition, System::Sqlite);
    for described in scan::columns(&code) {
        let name = described.first().and_then(|first| first.name(System::Sqlite));
        // Deeper down it is an expression's.
        let mut depth = 0_usize;
        let collation = described.iter().enumerate().find_map(|(at, token)| {
            depth = if token.is_symbol("(") {
                depth + 1
            } else if token.is_symbol(")") {
                depth.saturating_sub(1)
            } else {
                depth
            };
            (depth == 0 && token.is("collate")).then(|| described.get(at + 1)?.name(System::Sqlite)).flatten()
        });
        let (Some(name), Some(collation)) = (name, collation) else { continue };
        let named = columns.iter_mut().find(|column| column.name.eq_ignore_ascii_case(&name));
        if let Some(Column { collation: ordered @ Some(_), .. }) = named {
            *ordered = Some(collation.to_ascii_uppercase());
        }
    }
}

/// How long the file is looked through for pages that are not what they should be: with a rollback journal nobody can
/// write meanwhile.
const LOOK: Duration = Duration::from_secs(1);
/// What SQLite begins its report on pages with. What it reports besides is rows that break a constraint.
const PAGES_REPORT: &str = "*** in database ";

/// Says that the file is malformed, where that is found in the time there is.
async fn malformed(held: &mut Held) -> Result<Vec<Remark>, SqlError> {
    let interrupt = held.interrupter();
    let mut looking = pin!(held.query("PRAGMA quick_check", &[]));
    let looked = tokio::select! {
        looked = &mut looking => looked,
        () = sleep(LOOK) => {
            interrupt.interrupt().await;
            looking.await
        }
    };
    let found = match looked {
        // The line below is about the first such page.
        Ok(rows) => rows.iter().map(|row| text(row, 0)).find(|found| found.starts_with(PAGES_REPORT)).map(|found| {
            let said = found.lines().nth(1).unwrap_or(found).trim();
            SqlError::permanent(said).with_code("SQLITE_CORRUPT")
        }),
        Err(error) if error.class == ErrorClass::Interrupted => None,
        Err(error) => Some(error),
    };
    let Some(error) = found else { return Ok(Vec::new()) };
    match error.malformed_hint() {
        Some(hint) => Ok(vec![Remark::hindrance(format!("the file is malformed: {}", error.message), hint)]),
        None => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_tells_what_it_changes() {
        let cases = [
            ("DELETE FROM \"t\" WHERE a IN (SELECT a FROM u)", Operation::Delete, None, "t"),
            ("WITH d AS (SELECT 1) UPDATE OR IGNORE main.t SET a = 1", Operation::Update, Some("main"), "t"),
            ("insert or replace into [t u] (a) select 1", Operation::Insert, None, "t u"),
            ("REPLACE INTO t VALUES (1)", Operation::Insert, None, "t"),
        ];
        for (statement, operation, schema, name) in cases {
            let table = TableName { schema: schema.map(str::to_owned), name: name.to_owned() };
            assert_eq!(change(statement), Some((operation, table)), "{statement}");
        }
        assert_eq!(change("SELECT 1"), None);
    }

    #[test]
    fn a_trigger_tells_when_it_runs() {
        let cases = [
            ("CREATE TRIGGER x BEFORE DELETE ON t BEGIN SELECT RAISE(IGNORE); END", Operation::Delete, true),
            ("CREATE TRIGGER x UPDATE OF a ON t BEGIN SELECT raise(ignore); END", Operation::Update, true),
            ("CREATE TRIGGER \"before delete\" AFTER INSERT ON t BEGIN DELETE FROM u; END", Operation::Insert, false),
            ("CREATE TRIGGER x BEFORE UPDATE ON t BEGIN SELECT RAISE(ABORT, 'ignore'); END", Operation::Update, false),
        ];
        for (statement, operation, may_skip) in cases {
            let found = trigger("x", "t", statement).unwrap();
            assert_eq!((found.operations, found.may_skip), (vec![operation], may_skip), "{statement}");
        }
    }
}
