//! The walk along a table's key, which several kinds share: from the last key done to the one that ends the batch,
//! never by OFFSET from the start, so that the last batch costs what the first does.
//!
//! A walk's progress is `{"after": ["<key part as text>", …], "items": N}`: the last key done and the items walked so
//! far. It starts from `{}`. Rows that come in behind the walk are not met; the application writes those as they are
//! to be from the start.

pub(super) mod plan;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio::sync::OnceCell;

use super::sql::{Column, Dialect, ErrorClass, Estimate, Index, Row, Sql, SqlError, System, Table, TableName, Value};
use super::{Budget, Next, Problem, Progress, UpdateError, scan};

/// The table and the key that an update walks along.
pub(super) struct Walk {
    table: TableName,
    key: Vec<String>,
    /// The key's columns as this process first met them. A stored key is text that a cast turns into a key again: with
    /// another type it may mean another place, so a change of type must end in an error.
    first_met: OnceCell<Vec<Column>>,
}

/// The rows of one batch, and where the walk stands after them.
pub(super) struct Batch {
    /// The key's columns.
    pub(super) key: Vec<Column>,
    /// The key before the first row; `None` in the first batch.
    pub(super) after: Option<Vec<String>>,
    /// The key of the last row; `None` in the last batch.
    pub(super) upto: Option<Vec<String>>,
    range: Range,
    /// Keys walked.
    pub(super) items: u64,
    /// Where the update stands once the rows are done.
    pub(super) next: Next,
}

/// A condition on the key, with the values bound in it.
struct Range {
    /// `None` where the batch is the whole table.
    condition: Option<String>,
    parameters: Vec<Value>,
}

/// How far a walk has come, as its progress says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    after: Vec<String>,
    items: u64,
}

impl Walk {
    /// A walk along `key`, whose columns together order the table's rows.
    pub(super) fn new(table: TableName, key: Vec<String>) -> Self {
        Self { table, key, first_met: OnceCell::new() }
    }

    /// Refuses progress that no walk along this key wrote.
    pub(super) fn accept(&self, progress: &Progress) -> Result<(), UpdateError> {
        self.position(progress).map(drop)
    }

    /// Finds the rows of the batch that starts at `progress`. It must be asked before any of them is changed.
    pub(super) async fn batch(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
        budget: Budget,
    ) -> Result<Batch, UpdateError> {
        let position = self.position(progress)?;
        let (after, walked) = position.map_or((None, 0), |position| (Some(position.after), position.items));
        let (key, unique) = self.key(sql).await?;
        let dialect = sql.dialect();

        let upto = self.bound(sql, &key, after.as_deref(), budget).await?;
        if upto.is_some() && upto == after {
            return Err(UpdateError::NoProgress);
        }
        if let Some(upto) = &upto {
            self.find_again(sql, &key, upto).await?;
        }
        let range = Range::new(&*dialect, &key, after.as_deref(), upto.as_deref());
        let items = match &upto {
            Some(_) if unique => budget.items,
            _ => self.count(sql, &range).await?,
        };
        let next = match upto.clone() {
            Some(after) => Next::Continue(Position { after, items: walked.saturating_add(items) }.into_progress()),
            None => Next::Finished,
        };
        Ok(Batch { key, after, upto, range, items, next })
    }

    /// The key of a batch's last row, of the last batch's too; `None` where that has no rows.
    pub(super) async fn end(&self, sql: &mut dyn Sql, batch: &Batch) -> Result<Option<Vec<String>>, UpdateError> {
        if batch.upto.is_some() {
            return Ok(batch.upto.clone());
        }
        let statement = bound_statement(&*sql.dialect(), &self.table, &batch.key, batch.after.is_some(), " DESC");
        let parameters: Vec<Value> = texts(batch.after.as_deref()).chain([Value::Integer(0)]).collect();
        let rows = sql.query(&statement, &parameters).await?;
        rows.into_iter().next().map(key_of).transpose()
    }

    /// How far the walk has come, from statistics.
    pub(super) async fn estimate(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
    ) -> Result<Option<Estimate>, UpdateError> {
        let after = self.position(progress)?.map(|position| position.after);
        let (key, _) = self.key(sql).await?;
        let dialect = sql.dialect();
        Ok(dialect.estimate(sql, &self.table, &key, after.as_deref()).await?)
    }

    fn position(&self, progress: &Progress) -> Result<Option<Position>, UpdateError> {
        if progress.0.is_empty() {
            return Ok(None);
        }
        let position: Position =
            serde_json::from_value(Json::Object(progress.0.clone())).map_err(|error| progress.refuse(error))?;
        let (found, wanted) = (position.after.len(), self.key.len());
        if found != wanted {
            return Err(progress.refuse(format!("\"after\" has {found} parts, and the key has {wanted}")));
        }
        Ok(Some(position))
    }

    /// The key's columns as they are now, and whether no two rows have the same key.
    async fn key(&self, sql: &mut dyn Sql) -> Result<(Vec<Column>, bool), UpdateError> {
        let dialect = sql.dialect();
        let table = dialect
            .describe(sql, &self.table)
            .await?
            .ok_or_else(|| UpdateError::Failed(format!("there is no table \"{}\"", self.table)))?;
        let names = Names(dialect.system());
        let key = self.key.iter().map(|name| self.key_column(&table, names, name)).collect::<Result<Vec<_>, _>>()?;

        let first_met = self.first_met.get_or_init(async || key.clone()).await;
        let changed = first_met.iter().zip(&key).find(|(was, is)| was.sql_type != is.sql_type);
        if let Some((was, is)) = changed {
            return Err(UpdateError::Failed(format!(
                "the type of key column \"{}\" changed from {} to {} during the walk; restart the host if the keys \
                 walked so far mean the same in both",
                is.name, was.sql_type, is.sql_type
            )));
        }
        let unique = table.indexes.iter().any(|index| names.makes_unique(index, &key));
        Ok((key, unique))
    }

    fn key_column(&self, table: &Table, names: Names, name: &str) -> Result<Column, UpdateError> {
        let column = names
            .column(table, name)
            .ok_or_else(|| UpdateError::Failed(format!("table \"{}\" has no column \"{name}\"", self.table)))?;
        if !column.not_null {
            // A comparison with NULL holds for no row: the walk would leave such rows out without a word.
            return Err(UpdateError::Failed(format!("key column \"{name}\" may be NULL")));
        }
        Ok(column.clone())
    }

    /// The key of the budget-th row after `after`; `None` where fewer are left.
    async fn bound(
        &self,
        sql: &mut dyn Sql,
        key: &[Column],
        after: Option<&[String]>,
        budget: Budget,
    ) -> Result<Option<Vec<String>>, UpdateError> {
        let dialect = sql.dialect();
        let statement = bound_statement(&*dialect, &self.table, key, after.is_some(), "");
        let offset = i64::try_from(budget.items.saturating_sub(1)).unwrap_or(i64::MAX);
        let parameters: Vec<Value> = texts(after).chain([Value::Integer(offset)]).collect();
        let rows = sql.query(&statement, &parameters).await?;
        rows.into_iter().next().map(key_of).transpose()
    }

    /// Makes sure that the key found is met again under its text, where a column can hold what it does not declare: the
    /// text 'abc' in a column of integers would come back as 0, and the walk would go over rows a second time.
    async fn find_again(&self, sql: &mut dyn Sql, key: &[Column], found: &[String]) -> Result<(), UpdateError> {
        let dialect = sql.dialect();
        if dialect.system() != System::Sqlite {
            return Ok(());
        }
        let same = comparison(&*dialect, key, None, "=", 1);
        let statement = format!("SELECT 1 FROM {} WHERE {same} LIMIT 1", dialect.table(&self.table));
        let parameters: Vec<Value> = texts(Some(found)).collect();
        if sql.query(&statement, &parameters).await?.is_empty() {
            let (columns, key) = (self.key.join(", "), found.join(", "));
            return Err(UpdateError::Failed(format!(
                "key column {columns} holds the value {key}, which is not of the type that it declares"
            )));
        }
        Ok(())
    }

    async fn count(&self, sql: &mut dyn Sql, range: &Range) -> Result<u64, UpdateError> {
        let statement = format!("SELECT count(*) FROM {}{}", sql.dialect().table(&self.table), range.clause(None));
        let rows = sql.query(&statement, &range.parameters).await?;
        let count = rows.first().and_then(|row| row.first()).and_then(Value::as_integer);
        count
            .and_then(|count| u64::try_from(count).ok())
            .ok_or_else(|| UpdateError::Failed("the database did not count the rows of the batch".to_owned()))
    }
}

impl Batch {
    /// The WHERE clause for a statement that changes the batch's rows, of those that meet `filter`.
    pub(super) fn clause(&self, filter: Option<&str>) -> String {
        self.range.clause(filter)
    }

    /// The values bound in the clause.
    pub(super) fn parameters(&self) -> &[Value] {
        &self.range.parameters
    }
}

impl Position {
    fn into_progress(self) -> Progress {
        let after = self.after.into_iter().map(Json::String).collect();
        let members = [("after".to_owned(), Json::Array(after)), ("items".to_owned(), Json::from(self.items))];
        Progress(members.into_iter().collect())
    }
}

impl Range {
    /// The keys in (`after`, `upto`]. Its text depends on which ends there are and on nothing else: from the second
    /// batch to the last but one a statement is prepared once.
    fn new(dialect: &dyn Dialect, key: &[Column], after: Option<&[String]>, upto: Option<&[String]>) -> Self {
        let lower = after.map(|_| comparison(dialect, key, None, ">", 1));
        let upper_from = if after.is_some() { key.len() + 1 } else { 1 };
        let upper = upto.map(|_| comparison(dialect, key, None, "<=", upper_from));
        let parts: Vec<String> = lower.into_iter().chain(upper).collect();
        let condition = (!parts.is_empty()).then(|| parts.join(" AND "));
        Self { condition, parameters: texts(after).chain(texts(upto)).collect() }
    }

    fn clause(&self, filter: Option<&str>) -> String {
        let parts: Vec<String> = self.condition.iter().cloned().chain(filter.map(parenthesised)).collect();
        if parts.is_empty() { String::new() } else { format!("\nWHERE {}", parts.join("\nAND ")) }
    }
}

/// The WHERE clause of a condition alone.
pub(super) fn filter_clause(filter: &str) -> String {
    format!("\nWHERE {}", parenthesised(filter))
}

/// A condition that somebody wrote, kept apart from what stands around it: a comment at its end cannot swallow the
/// parenthesis.
fn parenthesised(filter: &str) -> String {
    format!("({filter}\n)")
}

/// The statement that finds the key of a row by the number of rows before it, in the key's order or in the reverse.
///
/// The table has an alias because ORDER BY with a bare name would mean the output column of that name, which is text.
fn bound_statement(dialect: &dyn Dialect, table: &TableName, key: &[Column], resumed: bool, direction: &str) -> String {
    let columns = quoted(dialect, key, Some("walked"));
    let texts: Vec<String> = columns.iter().map(|column| dialect.key_as_text(column)).collect();
    let condition =
        if resumed { format!("\nWHERE {}", comparison(dialect, key, Some("walked"), ">", 1)) } else { String::new() };
    let offset = dialect.parameter(if resumed { key.len() + 1 } else { 1 });
    format!(
        "SELECT {} FROM {} AS walked{condition}\nORDER BY {} LIMIT 1 OFFSET {offset}",
        texts.join(", "),
        dialect.table(table),
        columns.iter().map(|column| format!("{column}{direction}")).collect::<Vec<_>>().join(", "),
    )
}

/// Compares the key with the one bound from parameter `first` on: row by row where it has several columns.
fn comparison(dialect: &dyn Dialect, key: &[Column], qualifier: Option<&str>, operator: &str, first: usize) -> String {
    let numbers: Vec<usize> = (first..).take(key.len()).collect();
    compare_with(dialect, key, qualifier, operator, &numbers)
}

/// As [`comparison`], with the number of each parameter.
pub(super) fn compare_with(
    dialect: &dyn Dialect,
    key: &[Column],
    qualifier: Option<&str>,
    operator: &str,
    numbers: &[usize],
) -> String {
    let columns = quoted(dialect, key, qualifier);
    let values: Vec<String> =
        key.iter().zip(numbers).map(|(column, number)| dialect.key_from_text(*number, column)).collect();
    match (columns.as_slice(), values.as_slice()) {
        ([column], [value]) => format!("{column} {operator} {value}"),
        _ => format!("({}) {operator} ({})", columns.join(", "), values.join(", ")),
    }
}

fn quoted(dialect: &dyn Dialect, key: &[Column], qualifier: Option<&str>) -> Vec<String> {
    let qualifier = qualifier.map(|qualifier| format!("{qualifier}.")).unwrap_or_default();
    key.iter().map(|column| format!("{qualifier}{}", dialect.quote(&column.name))).collect()
}

fn texts(key: Option<&[String]>) -> impl Iterator<Item = Value> {
    key.unwrap_or_default().iter().map(|part| Value::from(part.as_str()))
}

fn key_of(row: Row) -> Result<Vec<String>, UpdateError> {
    row.into_iter()
        .map(|value| match value {
            Value::Text(text) => Ok(text),
            other => Err(UpdateError::Failed(format!("the database gave {other:?} where a key as text was asked for"))),
        })
        .collect()
}

/// How a system tells names apart: SQLite does not look at the case of ASCII letters.
#[derive(Clone, Copy)]
pub(super) struct Names(pub(super) System);

impl Names {
    pub(super) fn equal(self, one: &str, other: &str) -> bool {
        match self.0 {
            System::Sqlite => one.eq_ignore_ascii_case(other),
            System::Postgres => one == other,
        }
    }

    pub(super) fn column<'a>(self, table: &'a Table, name: &str) -> Option<&'a Column> {
        table.columns.iter().find(|column| self.equal(&column.name, name))
    }

    /// True where the index lets no two rows have the same key: its columns are among the key's.
    fn makes_unique(self, index: &Index, key: &[Column]) -> bool {
        let among = |name: &String| key.iter().any(|column| self.equal(&column.name, name));
        index.unique
            && index.valid
            && !index.partial
            && index.columns.iter().all(|name| name.as_ref().is_some_and(among))
    }

    /// True where the index yields the rows in the key's order.
    fn orders_by(self, index: &Index, key: &[String]) -> bool {
        let leading = index.columns.get(..key.len()).unwrap_or_default();
        let same = |(name, part): (&Option<String>, &String)| name.as_ref().is_some_and(|name| self.equal(name, part));
        // All descending will do: such an index is read backwards.
        let directions = index.directions.get(..key.len()).unwrap_or_default();
        let in_order = directions.first().is_some_and(|first| first.is_some() && directions.iter().all(|d| d == first));
        index.valid && !index.partial && in_order && leading.len() == key.len() && leading.iter().zip(key).all(same)
    }
}

/// What is wrong with the table and the key of a walk.
impl Walk {
    /// Empty where the walk can be made, and made without a sort.
    pub(super) async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let dialect = sql.dialect();
        let Some(table) = dialect.describe(sql, &self.table).await? else {
            return Ok(vec![no_table("table", "schema", &self.table)]);
        };
        let names = Names(dialect.system());
        let mut problems: Vec<Problem> =
            self.key.iter().filter_map(|name| self.check_key_column(&table, names, name)).collect();
        if self.key.is_empty() {
            problems.push(key_problem("the key has no columns", "name the columns of the table's primary key"));
        } else if problems.is_empty() && !table.indexes.iter().any(|index| names.orders_by(index, &self.key)) {
            let columns = self.key.join(", ");
            problems.push(key_problem(
                &format!("no index of table \"{}\" gives its rows in the order of the key ({columns})", self.table),
                &format!(
                    "take the primary key's columns in its order, or make an index on ({columns}): a b-tree, not \
                     partial, its columns all ascending or all descending"
                ),
            ));
        }
        Ok(problems)
    }

    fn check_key_column(&self, table: &Table, names: Names, name: &str) -> Option<Problem> {
        let Some(column) = names.column(table, name) else {
            return Some(no_column("key", &self.table, table, name));
        };
        if self.key.iter().filter(|other| names.equal(other, name)).count() > 1 {
            return Some(key_problem(&format!("column \"{name}\" stands in the key twice"), "name it once"));
        }
        (!column.not_null).then(|| {
            key_problem(
                &format!("key column \"{name}\" may be NULL, and rows where it is would be left out"),
                "walk along columns that are NOT NULL, such as the primary key's",
            )
        })
    }
}

/// The problem of a table that is not there.
pub(super) fn no_table(field: &'static str, schema_field: &str, table: &TableName) -> Problem {
    Problem::error(
        field,
        format!("there is no table \"{table}\""),
        format!(
            "mend the name, or name its schema with the key \"{schema_field}\"; a table that another update makes is found \
             once it is there"
        ),
    )
}

/// The problem of a column that is not there.
pub(super) fn no_column(field: &'static str, name: &TableName, table: &Table, column: &str) -> Problem {
    let known: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    Problem::error(
        field,
        format!("table \"{name}\" has no column \"{column}\""),
        format!("its columns are {}", known.join(", ")),
    )
}

fn key_problem(message: &str, hint: &str) -> Problem {
    Problem::error("key", message, hint)
}

/// Has the database plan a statement without running it. What it refuses is a problem of `field`; that it cannot be
/// asked is an error.
pub(super) async fn explain(
    sql: &mut dyn Sql,
    field: &'static str,
    statement: &str,
) -> Result<Option<Problem>, UpdateError> {
    explain_with(sql, field, statement, &[]).await
}

/// As [`explain`], for a statement with parameters.
pub(super) async fn explain_with(
    sql: &mut dyn Sql,
    field: &'static str,
    statement: &str,
    parameters: &[Value],
) -> Result<Option<Problem>, UpdateError> {
    // SQLite's EXPLAIN alone lists its program, with operands that are no text.
    let explain = match sql.dialect().system() {
        System::Sqlite => "EXPLAIN QUERY PLAN",
        System::Postgres => "EXPLAIN",
    };
    match sql.query(&format!("{explain} {statement}"), parameters).await {
        Ok(_) => Ok(None),
        Err(error) if error.class == ErrorClass::Permanent => Ok(Some(refused(field, &error, statement))),
        Err(error) => Err(error.into()),
    }
}

/// The problem of a statement that the database refuses.
pub(super) fn refused(field: &'static str, error: &SqlError, statement: &str) -> Problem {
    let remedy = error.grant_hint().unwrap_or("mend the SQL, or make what it needs");
    let hint = format!("{remedy}; the statement: {}", one_line(statement));
    Problem::error(field, one_line(&error.message), hint)
}

/// True for the statements that a database can be asked to plan without running them, and that make nothing that a
/// later one may need.
pub(super) fn can_be_explained(statement: &str, system: System) -> bool {
    const WORDS: [&str; 8] = ["select", "insert", "update", "delete", "with", "values", "merge", "replace"];
    let code = scan::code(statement, system);
    // PostgreSQL's SELECT … INTO makes a table.
    let makes = code.first().is_some_and(|first| first.is("select")) && code.iter().any(|token| token.is("into"));
    !makes && code.first().is_some_and(|first| first.is_symbol("(") || WORDS.iter().any(|word| first.is(word)))
}

/// A text of several lines, for a message.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
