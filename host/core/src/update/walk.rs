//! The walk along a table's key, which several kinds share: from the last key done to the one that ends the batch,
//! never by OFFSET from the start, so that the last batch costs what the first does.
//!
//! A walk's progress is `{"after": ["<key part as text>", …], "items": N, "walk": {…}}`: the last key done, the items
//! walked so far, and what the walk is: its table, its key with the types of the columns, and the last key that was there
//! when it began. It starts from `{}`, ends at that last key, and goes on from no other walk's progress. Rows that come in
//! behind the walk or beyond its end are not met; the application writes those as they are to be from the start.
//! Where several workers do it, `after` gives way to `"ranges": [{"from": […], "after": […], "to": […]}, …]`, what is left in
//! parts; each of these is a walk of its own, from a progress that says which part it is (see [`parts`](super::parts)). Once
//! a single one is left, the progress is as it was.
//! Progress of version 0.1 has no `walk`: it is taken, and such a walk ends at the last key that is there by then.
//!
//! With the walk stands the definition that it began with: whatever decides what becomes of the rows. Another one is refused
//! until somebody accepts it, which takes it out of the progress: the next batch writes down the one of then.

mod advance;
mod change;
mod check;
mod cut;
mod estimate;
mod known;
mod moves;
mod pin;
mod place;
pub(super) mod plan;
mod progress;
mod range;
mod single;
mod verify;

use std::collections::BTreeMap;

use serde_json::Value as Json;

use self::advance::offset;
pub(super) use self::advance::{Change, Outcome, Then};
pub(super) use self::change::Writing;
use self::known::{Known, Memory};
pub(super) use self::moves::Moved;
pub use self::pin::accept_definition;
pub(super) use self::pin::digest;
use self::progress::{Course, Position, Shared, collations};
pub(super) use self::range::{Ends, Key, Lower, Part, Side, filter_clause};
use self::range::{Range, quoted, same, texts};
use super::names::Names;
use super::reach::Reach;
use super::sql::{Column, Dialect, Row, Sql, System, Table, TableKind, TableName, Value};
use super::{Budget, Next, Progress, Step, UpdateError};

/// The table and the key that an update walks along.
pub(super) struct Walk {
    table: TableName,
    key: Vec<String>,
    reach: Reach,
    /// True where the walk itself leaves out the rows of inheriting tables, whatever `reach` says.
    only: bool,
    /// What decides what becomes of the rows, by the definition's keys.
    definition: BTreeMap<String, String>,
    memory: Memory,
    /// How many may work on it at once.
    workers: usize,
    /// True where a test takes the end out: the walk follows the rows that come in.
    #[cfg(feature = "test-switches")]
    endless: bool,
}

/// The rows of one batch, and where the walk stands after them.
pub(super) struct Batch {
    /// The key's columns.
    pub(super) key: Key,
    /// The key before the first row; `None` in the first batch.
    pub(super) after: Option<Vec<String>>,
    /// The key of the first row, where it is the table's; `None` where that is not known.
    first: Option<Vec<String>>,
    /// The key of the last row; `None` where the batch has no rows.
    pub(super) upto: Option<Vec<String>>,
    range: Range,
    /// The last key of the walk; `None` where it has none.
    end: Option<Vec<String>>,
    /// Where the parts of the walk lie, where it is one of several.
    shared: Option<Shared>,
    /// Keys walked.
    pub(super) items: u64,
    /// Where the update stands once the rows are done.
    pub(super) next: Next,
    /// Rows left as they were in the batches before this one.
    left_out: u64,
    /// True where triggers or rules may keep rows from being changed.
    guarded: bool,
    /// True where triggers run after rows were changed.
    followed: bool,
    /// True where rows of several tables can have the same key: there may be more than `items`.
    pub(super) ties: bool,
    /// What an operator should know of it.
    pub(super) notes: Vec<String>,
}

/// Where a walk stands.
struct Stand {
    key: Key,
    /// What is left of it; `None` where the table has no rows.
    way: Option<Way>,
    left_out: u64,
    guarded: bool,
    followed: bool,
    ties: bool,
    notes: Vec<String>,
}

/// What a walk has before it.
struct Way {
    /// The last key done; `None` before the first batch.
    after: Option<Vec<String>>,
    /// The table's first key, where the walk begins and it is good to know.
    first: Option<Vec<String>>,
    /// Items walked so far.
    walked: u64,
    course: Course,
}

impl Way {
    /// From where it stands to a key.
    fn ends<'a>(&'a self, upper: Side<'a>) -> Ends<'a> {
        Ends { lower: lower(self.after.as_deref(), self.first.as_deref()), upper }
    }
}

/// Where a batch begins: behind a key, or at the table's first one.
fn lower<'a>(after: Option<&'a [String]>, first: Option<&'a [String]>) -> Option<Lower<'a>> {
    after.map(|after| Lower::after(Side::At(after))).or_else(|| first.map(Lower::from))
}

impl Stand {
    /// The batch that ends a walk over no rows.
    fn nothing_left(self) -> Batch {
        let Self { key, left_out, guarded, followed, ties, notes, .. } = self;
        let (range, next) = (Range::empty(), Next::Finished);
        let (after, first, upto, end, shared) = (None, None, None, None, None);
        Batch { key, after, first, upto, range, end, shared, items: 0, next, left_out, guarded, followed, ties, notes }
    }

    /// The batch of so many items that ends at `upto`, and the walk with it where it is the `last`.
    fn batch(self, dialect: &dyn Dialect, upto: Vec<String>, items: u64, last: bool) -> Batch {
        let Some(way) = self.way else { return Self { way: None, ..self }.nothing_left() };
        let Self { key, left_out, guarded, followed, ties, notes, .. } = self;
        let range = Range::new(dialect, &key, way.ends(Side::At(&upto)));
        let Way { after, first, walked, course } = way;
        let (end, shared) = (Some(course.end.clone()), course.shared.clone());
        // The end of a part is not the walk's: that is for whoever does what is left at last.
        let next = match last && course.shared.is_none() {
            true => Next::Finished,
            false => {
                let items = walked.saturating_add(items);
                let (after, ranges) = (upto.clone(), Vec::new());
                let position = Position { after, items, left_out, walk: Some(course), ranges };
                Next::Continue(position.into_progress())
            }
        };
        let upto = (items > 0).then_some(upto);
        Batch { key, after, first, upto, range, end, shared, items, next, left_out, guarded, followed, ties, notes }
    }
}

impl Walk {
    /// A walk along `key`, whose columns together order the table's rows.
    pub(super) fn new(table: TableName, key: Vec<String>) -> Self {
        Self {
            table,
            key,
            reach: Reach::default(),
            only: false,
            definition: BTreeMap::new(),
            memory: Memory::default(),
            workers: 1,
            #[cfg(feature = "test-switches")]
            endless: false,
        }
    }

    /// The same walk without its end.
    #[cfg(feature = "test-switches")]
    pub(super) fn endless(self) -> Self {
        Self { endless: true, ..self }
    }

    /// The same walk, with what else decides what becomes of its rows: the definition's keys and their texts.
    pub(super) fn defined_by<'a>(mut self, parts: impl IntoIterator<Item = (&'static str, Option<&'a str>)>) -> Self {
        let given = parts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.to_owned())));
        self.definition.extend(given);
        self
    }

    /// The same walk over the rows that `reach` says.
    pub(super) fn reaching(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    /// The same walk over the rows of the table itself, without those of tables that inherit from it.
    pub(super) fn over(&self, only: bool) -> Self {
        let (definition, memory) = (self.definition.clone(), self.memory.clone());
        let (reach, workers) = (self.reach, self.workers);
        Self { definition, only, memory, reach, workers, ..Self::new(self.table.clone(), self.key.clone()) }
    }

    fn is_alone(&self) -> bool {
        self.only || self.reach.only
    }

    /// The table as it stands in FROM.
    pub(super) fn source(&self, dialect: &dyn Dialect) -> String {
        format!(
            "{}{}",
            if self.is_alone() && dialect.system() == System::Postgres { "ONLY " } else { "" },
            dialect.table(&self.table)
        )
    }

    /// Refuses progress that no walk along this key wrote.
    pub(super) fn accept(&self, progress: &Progress) -> Result<(), UpdateError> {
        self.position(progress).map(drop)
    }

    /// Where the walk stands.
    async fn stand(&self, sql: &mut dyn Sql, known: &Known, progress: &Progress) -> Result<Stand, UpdateError> {
        let Known { table, key, named, .. } = known;
        let ties = table.children > 0 && table.kind != TableKind::Partitioned && !self.is_alone();
        let position = self.position(progress)?;
        let left_out = position.as_ref().map_or(0, |position| position.left_out);
        let mut notes = Vec::new();
        let way = match position {
            Some(Position { ranges, .. }) if !ranges.is_empty() => return Err(several()),
            Some(Position { after, items, walk: Some(mut course), .. }) => {
                course.must_have(key)?;
                course.collations = collations(key);
                if course.definition.is_empty() {
                    (course.definition, course.columns) = (self.pinned(), (**named).clone());
                    notes.push("goes on under the definition of now".to_owned());
                } else {
                    pin::same(&course.columns, named, "the type of column ")?;
                }
                Some(Way { after: Some(after), first: None, walked: items, course })
            }
            Some(Position { after, items, walk: None, .. }) => {
                let note = "goes on from the progress of an earlier version; the walk ends at the last key of now";
                notes.push(note.to_owned());
                let way = self.set_out(sql, known).await?;
                way.map(|way| Way { after: Some(after), first: None, walked: items, ..way })
            }
            None => self.set_out(sql, known).await?,
        };
        #[cfg(feature = "test-switches")]
        let way = match (way, self.endless) {
            (Some(way), true) => {
                let course = self.set_out(sql, known).await?.map(|anew| anew.course);
                Some(Way { course: course.unwrap_or(way.course.clone()), ..way })
            }
            (way, _) => way,
        };
        Ok(Stand { key: key.clone(), way, left_out, guarded: table.guarded, followed: table.followed, ties, notes })
    }

    /// The way from the table's first key to its last one; `None` where the table has no rows.
    async fn set_out(&self, sql: &mut dyn Sql, known: &Known) -> Result<Option<Way>, UpdateError> {
        let key = &known.key;
        let Some(mut end) = self.outermost_row(sql, key, " DESC").await? else { return Ok(None) };
        let system = sql.dialect().system();
        // SQLite orders values of other types than the column's before or behind those: where the first and the last are
        // found again, all between them are.
        let mut first = self.outermost_row(sql, key, "").await?;
        if let Some(first) = &mut first {
            self.find_again(sql, key, first).await?;
        }
        self.find_again(sql, key, &mut end).await?;
        let types = key.iter().map(|column| column.sql_type.clone()).collect();
        let (table, definition) = (self.table.to_string(), self.pinned());
        let columns = (*known.named).clone();
        let (key, collations, shared) = (self.key.clone(), collations(key), None);
        let course = Course { table, key, types, collations, end, definition, columns, shared };
        // PostgreSQL takes a range with one end for a large part of the table.
        let first = first.filter(|_| system == System::Postgres);
        Ok(Some(Way { after: None, first, walked: 0, course }))
    }

    /// The first key of the table, or with " DESC" the last.
    async fn outermost(
        &self,
        sql: &mut dyn Sql,
        key: &Key,
        direction: &str,
    ) -> Result<Option<Vec<String>>, UpdateError> {
        let mut row = self.outermost_row(sql, key, direction).await?;
        row.iter_mut().for_each(|row| row.truncate(key.len()));
        Ok(row)
    }

    /// The same, and behind it, on SQLite, what it is stored as.
    async fn outermost_row(
        &self,
        sql: &mut dyn Sql,
        key: &Key,
        direction: &str,
    ) -> Result<Option<Vec<String>>, UpdateError> {
        let statement = self.in_order(&*sql.dialect(), key, "", direction, "LIMIT 1");
        sql.query(&statement, &[]).await?.into_iter().next().map(|row| key_of(row, usize::MAX)).transpose()
    }

    /// The columns that order the walk: the key's, and those that make it unique where it is not by itself.
    async fn key(&self, sql: &mut dyn Sql) -> Result<Key, UpdateError> {
        Ok(self.ground(sql).await?.1)
    }

    /// The table, and the columns that order the walk.
    async fn ground(&self, sql: &mut dyn Sql) -> Result<(Table, Key), UpdateError> {
        let dialect = sql.dialect();
        let table = dialect
            .describe(sql, &self.table)
            .await?
            .ok_or_else(|| UpdateError::Failed(format!("there is no table \"{}\"", self.table)))?;
        let names = Names(dialect.system());
        let mut key =
            self.key.iter().map(|name| self.key_column(&table, names, name)).collect::<Result<Vec<_>, _>>()?;
        match names.unique_by(&table, &key) {
            Some(more) => key.extend(more),
            None => return Err(UpdateError::Failed(check::not_unique(&self.table, &self.key).message)),
        }
        let partitioned = table.kind == TableKind::Partitioned;
        Ok((table, Key::new(key, partitioned)))
    }

    fn key_column(&self, table: &Table, names: Names, name: &str) -> Result<Column, UpdateError> {
        let column = names
            .key_column(table, name)
            .ok_or_else(|| UpdateError::Failed(format!("table \"{}\" has no column \"{name}\"", self.table)))?;
        if !column.not_null {
            // A comparison with NULL holds for no row: the walk would leave such rows out without a word.
            return Err(UpdateError::Failed(format!("key column \"{name}\" may be NULL")));
        }
        Ok(column.clone())
    }

    /// The statement that finds the key of the row between `ends` that so many items end with.
    fn bound_statement(&self, dialect: &dyn Dialect, key: &Key, ends: Ends<'_>, items: u64) -> (String, Vec<Value>) {
        let Range { condition, mut parameters } = Range::unshaped(dialect, key, ends, Some("walked"));
        parameters.push(offset(Budget { items }));
        let limit = format!("LIMIT 1 {}", dialect.offset(parameters.len()));
        (self.in_order(dialect, key, &format!("\nWHERE {condition}"), "", &limit), parameters)
    }

    /// The statement that gives keys as texts, in the key's order or in the reverse; on SQLite with what they are stored as, in
    /// a column behind them.
    ///
    /// The table has an alias because ORDER BY with a bare name would mean the output column of that name, which is text.
    fn in_order(&self, dialect: &dyn Dialect, key: &[Column], clause: &str, direction: &str, limit: &str) -> String {
        let columns = quoted(dialect, key, Some("walked"));
        let mut texts: Vec<String> = columns.iter().map(|column| dialect.key_as_text(column)).collect();
        if dialect.system() == System::Sqlite {
            texts.push(stored_as(&columns));
        }
        let order: Vec<String> = columns.iter().map(|column| format!("{column}{direction}")).collect();
        format!(
            "SELECT {} FROM {} AS walked{clause}\nORDER BY {} {limit}",
            texts.join(", "),
            self.source(dialect),
            order.join(", "),
        )
    }

    /// Makes sure that the key found is met again under its text, where a column can hold what it does not declare: the
    /// text 'abc' in a column of integers would come back as 0, and the walk would go over rows a second time. `found` loses
    /// what stands behind the key.
    async fn find_again(&self, sql: &mut dyn Sql, key: &Key, found: &mut Vec<String>) -> Result<(), UpdateError> {
        let dialect = sql.dialect();
        if dialect.system() != System::Sqlite {
            return Ok(());
        }
        let parameters: Vec<Value> = texts(Some(found)).collect();
        let again = sql.query(&self.finding_again(&*dialect, key), &parameters).await?;
        found.truncate(key.len());
        if again.is_empty() { Err(self.not_found_again(found)) } else { Ok(()) }
    }

    /// SQLite: the statement that gives a row where there is one of a key, bound from parameter 1 on, and stored as it was,
    /// bound behind that: the text of a BLOB may be that of another row's number.
    fn finding_again(&self, dialect: &dyn Dialect, key: &Key) -> String {
        let (same, stored) = (same(dialect, key), stored_as(&quoted(dialect, key, None)));
        let behind = dialect.parameter(key.len() + 1);
        format!("SELECT 1 FROM {} WHERE {same} AND {stored} = {behind} LIMIT 1", self.source(dialect))
    }

    fn not_found_again(&self, found: &[String]) -> UpdateError {
        let (columns, key) = (self.key.join(", "), found.join(", "));
        UpdateError::Detailed {
            message: format!("key column {columns} holds a value that is not of the type that it declares"),
            detail: format!("the value is {key}"),
        }
    }

    /// The rows of a batch that meet `filter`.
    pub(super) async fn matching(
        &self,
        sql: &mut dyn Sql,
        batch: &Batch,
        filter: Option<&str>,
    ) -> Result<u64, UpdateError> {
        self.count_where(sql, &batch.range, filter).await
    }

    async fn count(&self, sql: &mut dyn Sql, range: &Range) -> Result<u64, UpdateError> {
        self.count_where(sql, range, None).await
    }

    async fn count_where(&self, sql: &mut dyn Sql, range: &Range, filter: Option<&str>) -> Result<u64, UpdateError> {
        let statement = format!("SELECT count(*) FROM {}{}", self.source(&*sql.dialect()), range.clause(filter));
        counted(&sql.query(&statement, &range.parameters).await?)
    }
}

/// The number that a query for one gave.
fn counted(rows: &[Row]) -> Result<u64, UpdateError> {
    let count = rows.first().and_then(|row| row.first()).and_then(Value::as_integer);
    count
        .and_then(|count| u64::try_from(count).ok())
        .ok_or_else(|| UpdateError::Failed("the database did not count the rows of the batch".to_owned()))
}

impl Batch {
    /// Where its rows begin and end.
    pub(super) fn ends(&self) -> Ends<'_> {
        let upper = self.upto.as_deref().map_or(Side::Unknown, Side::At);
        Ends { lower: lower(self.after.as_deref(), self.first.as_deref()), upper }
    }

    /// The step that the batch is, where `missing` of its rows were left as they are, and why: "because …".
    pub(super) fn step(self, missing: u64, because: &str) -> Step {
        let Self { items, mut next, left_out, mut notes, .. } = self;
        let total = left_out.saturating_add(missing);
        if missing > 0 {
            notes.push(format!("left out {} of this batch, {because}", rows(missing)));
        }
        match &mut next {
            Next::Continue(progress) if total > 0 => {
                progress.0.insert("left_out".to_owned(), Json::from(total));
            }
            Next::Continue(_) => {}
            Next::Finished if total > 0 => {
                notes.push(format!("left out {} in all, {because}: compare the tables", rows(total)));
            }
            Next::Finished => {}
        }
        Step::new(items, next).noting(notes)
    }

    /// The WHERE clause for a statement that changes the batch's rows, of those that meet `filter`.
    pub(super) fn clause(&self, filter: Option<&str>) -> String {
        self.range.clause(filter)
    }

    /// The values bound in the clause.
    pub(super) fn parameters(&self) -> &[Value] {
        &self.range.parameters
    }
}

/// SQLite: what the columns of a key are stored as.
fn stored_as(columns: &[String]) -> String {
    columns.iter().map(|column| format!("typeof({column})")).collect::<Vec<_>>().join(" || ' ' || ")
}

/// The key that is in the first `columns` of a row.
fn key_of(row: Row, columns: usize) -> Result<Vec<String>, UpdateError> {
    row.into_iter()
        .take(columns)
        .map(|value| match value {
            Value::Text(text) => Ok(text),
            other => Err(UpdateError::Detailed {
                message: "the database gave something else where a key as text was asked for".to_owned(),
                detail: format!("it gave {other:?}"),
            }),
        })
        .collect()
}

/// The error of whoever takes several parts of a walk for one.
fn several() -> UpdateError {
    UpdateError::Failed("what is left of the walk is in several parts, and each is done by itself".to_owned())
}

/// A number of rows.
fn rows(count: u64) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}
