//! The walk along a table's key, which several kinds share: from the last key done to the one that ends the batch,
//! never by OFFSET from the start, so that the last batch costs what the first does.
//!
//! A walk's progress is `{"after": ["<key part as text>", …], "items": N, "walk": {…}}`: the last key done, the items
//! walked so far, and what the walk is: its table, its key with the types of the columns, and the last key that was there
//! when it began. It starts from `{}`, ends at that last key, and goes on from no other walk's progress. Rows that come in
//! behind the walk or beyond its end are not met; the application writes those as they are to be from the start.
//! Progress of version 0.1 has no `walk`: it is taken, and such a walk ends at the last key that is there by then.
//!
//! With the walk stands the definition that it began with: whatever decides what becomes of the rows. Another one is refused
//! until somebody accepts it, which takes it out of the progress: the next batch writes down the one of then.

mod moves;
mod pin;
pub(super) mod plan;

use std::collections::BTreeMap;

pub(super) use self::moves::Moved;
pub use self::pin::accept_definition;
use super::reach::{self, OnSkip, Reach};
use super::sql::{
    Column, Dialect, ErrorClass, Estimate, Index, Operation, Row, Sql, SqlError, System, Table, TableKind, TableName,
    Value,
};
use super::{Budget, Next, Problem, Progress, Step, UpdateError, scan};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// The table and the key that an update walks along.
pub(super) struct Walk {
    table: TableName,
    key: Vec<String>,
    reach: Reach,
    /// True where the walk itself leaves out the rows of inheriting tables, whatever `reach` says.
    only: bool,
    /// What decides what becomes of the rows, by the definition's keys.
    definition: BTreeMap<String, String>,
    /// True where a test takes the end out: the walk follows the rows that come in.
    #[cfg(feature = "test-switches")]
    endless: bool,
}

/// The rows of one batch, and where the walk stands after them.
pub(super) struct Batch {
    /// The key's columns.
    pub(super) key: Vec<Column>,
    /// The key before the first row; `None` in the first batch.
    pub(super) after: Option<Vec<String>>,
    /// The key of the last row; `None` where the batch has no rows.
    pub(super) upto: Option<Vec<String>>,
    range: Range,
    /// The last key of the walk; `None` where it has none.
    end: Option<Vec<String>>,
    /// Keys walked.
    pub(super) items: u64,
    /// Where the update stands once the rows are done.
    pub(super) next: Next,
    /// Rows left as they were in the batches before this one.
    left_out: u64,
    /// True where triggers or rules may keep rows from being changed.
    guarded: bool,
    /// True where rows of several tables can have the same key: there may be more than `items`.
    pub(super) ties: bool,
    /// What an operator should know of it.
    pub(super) notes: Vec<String>,
}

/// A condition on the key, with the values bound in it.
struct Range {
    condition: String,
    parameters: Vec<Value>,
}

/// How far a walk has come, as its progress says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    after: Vec<String>,
    items: u64,
    /// Rows that were to be written and could not be, by a conflict or a trigger, where that is no error.
    #[serde(default, skip_serializing_if = "is_zero")]
    left_out: u64,
    /// `None` in progress of version 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    walk: Option<Course>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a walk is, fixed by its first batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Course {
    table: String,
    key: Vec<String>,
    /// The types of all columns that order the walk: those of `key`, and those that make it unique. A stored key is text
    /// that a cast turns into a key again: with another type it may mean another place.
    types: Vec<String>,
    /// The last key that was there when the walk began.
    end: Vec<String>,
    /// The definition that the walk began with, long texts as their digests. Empty where none was written down, or another
    /// one was accepted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    definition: BTreeMap<String, String>,
    /// The types of the columns that the definition names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    columns: BTreeMap<String, String>,
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
        let definition = self.definition.clone();
        Self { definition, only, reach: self.reach, ..Self::new(self.table.clone(), self.key.clone()) }
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

    /// Finds the rows of the batch that starts at `progress`. It must be asked before any of them is changed.
    pub(super) async fn batch(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
        budget: Budget,
    ) -> Result<Batch, UpdateError> {
        self.reach.enter(sql).await?;
        let (table, key) = self.ground(sql).await?;
        let dialect = sql.dialect();
        let guarded = table.guarded;
        let ties = table.children > 0 && table.kind != TableKind::Partitioned && !self.is_alone();
        let position = self.position(progress)?;
        let left_out = position.as_ref().map_or(0, |position| position.left_out);
        let (position, notes) = match position {
            Some(Position { after, items, walk: Some(mut course), .. }) => {
                course.must_have(&key)?;
                let columns = self.columns_named(dialect.system(), &table);
                let notes = if course.definition.is_empty() {
                    (course.definition, course.columns) = (self.pinned(), columns);
                    vec!["goes on under the definition of now".to_owned()]
                } else {
                    pin::same(&course.columns, &columns, "the type of column ")?;
                    Vec::new()
                };
                (Some((Some(after), items, course)), notes)
            }
            Some(Position { after, items, walk: None, .. }) => {
                let note = "goes on from the progress of an earlier version; the walk ends at the last key of now";
                (
                    self.set_out(sql, &table, &key).await?.map(|course| (Some(after), items, course)),
                    vec![note.to_owned()],
                )
            }
            None => (self.set_out(sql, &table, &key).await?.map(|course| (None, 0, course)), Vec::new()),
        };
        let Some((after, walked, course)) = position else {
            let range = Range { condition: "1 = 0".to_owned(), parameters: Vec::new() };
            let next = Next::Finished;
            return Ok(Batch {
                key,
                after: None,
                upto: None,
                range,
                end: None,
                items: 0,
                next,
                left_out,
                guarded,
                ties,
                notes,
            });
        };
        #[cfg(feature = "test-switches")]
        let course = if self.endless { self.set_out(sql, &table, &key).await?.unwrap_or(course) } else { course };
        let found = self.bound(sql, &key, after.as_deref(), &course.end, budget).await?;
        if found.is_some() && found == after {
            return Err(UpdateError::NoProgress);
        }
        // Where fewer rows are left than asked for, the batch is the last.
        let last = found.is_none();
        let upto = found.unwrap_or_else(|| course.end.clone());
        if !last {
            self.find_again(sql, &key, &upto).await?;
        }
        let range = Range::new(&*sql.dialect(), &key, after.as_deref(), &upto);
        let items = if last { self.count(sql, &range).await? } else { budget.items };
        let end = Some(course.end.clone());
        let next = match last {
            true => Next::Finished,
            false => {
                let items = walked.saturating_add(items);
                let position = Position { after: upto.clone(), items, left_out, walk: Some(course) };
                Next::Continue(position.into_progress())
            }
        };
        Ok(Batch {
            key,
            after,
            upto: (items > 0).then_some(upto),
            range,
            end,
            items,
            next,
            left_out,
            guarded,
            ties,
            notes,
        })
    }

    /// Has `statement` change the batch's rows that meet `filter`, and makes sure that it did: a trigger or a rule can
    /// keep a row from being changed without a word. Returns the number of rows that were left as they are.
    pub(super) async fn change(
        &self,
        sql: &mut dyn Sql,
        batch: &Batch,
        filter: Option<&str>,
        statement: &str,
    ) -> Result<u64, UpdateError> {
        if !batch.guarded {
            sql.execute(statement, batch.parameters()).await?;
            return Ok(0);
        }
        Ok(self.change_guarded(sql, batch, filter, statement).await?.1)
    }

    /// The same where something may keep rows from being changed: how many were changed, and how many left as they are.
    async fn change_guarded(
        &self,
        sql: &mut dyn Sql,
        batch: &Batch,
        filter: Option<&str>,
        statement: &str,
    ) -> Result<(u64, u64), UpdateError> {
        let (wanted, changed) = match sql.dialect().system() {
            System::Sqlite => {
                let wanted = self.matching(sql, batch, filter).await?;
                (wanted, sql.execute(statement, batch.parameters()).await?)
            }
            System::Postgres => self.change_held(sql, batch, filter, statement).await?,
        };
        let skipped = wanted.saturating_sub(changed);
        if skipped > 0 && self.reach.on_skip == OnSkip::Error {
            let around = sql.dialect().surroundings(sql, &self.table).await?;
            let guards = around.reactions.iter().filter(|reaction| reaction.may_skip || reaction.instead);
            let guards: Vec<String> = guards.map(|guard| format!("\"{}\"", guard.name)).collect();
            return Err(UpdateError::Failed(format!(
                "a trigger or rule of table \"{}\" (one of {}) kept {skipped} of {wanted} rows from being changed: leave such \
                 rows out with \"where\", change the trigger or rule, or say on_skip = \"ignore\" to have them counted and left \
                 as they are",
                self.table,
                guards.join(", ")
            )));
        }
        Ok((changed, skipped))
    }

    /// Locks the batch's rows that meet `filter`, and has `statement` change these and no others: a row that comes in between
    /// would make up, in the count, for one that is skipped. Returns how many were to be changed, and how many were.
    async fn change_held(
        &self,
        sql: &mut dyn Sql,
        batch: &Batch,
        filter: Option<&str>,
        statement: &str,
    ) -> Result<(u64, u64), UpdateError> {
        const PLACE: &str = "tableoid::text || ctid::text";
        let rows =
            format!("SELECT {PLACE} AS place FROM {}{} FOR UPDATE", self.source(&*sql.dialect()), batch.clause(filter));
        let statement_of_places = format!("SELECT count(*), array_agg(place)::text FROM ({rows}) AS held");
        let held = sql.query(&statement_of_places, batch.parameters()).await?;
        let wanted = counted(&held)?;
        let Some(places) = held.first().and_then(|row| row.get(1)).filter(|_| wanted > 0).cloned() else {
            return Ok((0, 0));
        };
        let parameters: Vec<Value> = batch.parameters().iter().cloned().chain([places]).collect();
        let statement = format!("{statement}\nAND {PLACE} = ANY (${}::text::text[])", parameters.len());
        Ok((wanted, sql.execute(&statement, &parameters).await?))
    }

    /// What the walk is, where it begins now; `None` where the table has no rows.
    async fn set_out(
        &self,
        sql: &mut dyn Sql,
        described: &Table,
        key: &[Column],
    ) -> Result<Option<Course>, UpdateError> {
        let Some(end) = self.outermost(sql, key, " DESC").await? else { return Ok(None) };
        // SQLite orders values of other types than the column's before or behind those: where the first and the last are
        // found again, all between them are.
        if let Some(first) = self.outermost(sql, key, "").await? {
            self.find_again(sql, key, &first).await?;
        }
        self.find_again(sql, key, &end).await?;
        let types = key.iter().map(|column| column.sql_type.clone()).collect();
        let (table, definition) = (self.table.to_string(), self.pinned());
        let columns = self.columns_named(sql.dialect().system(), described);
        Ok(Some(Course { table, key: self.key.clone(), types, end, definition, columns }))
    }

    /// The definition as it is written down.
    fn pinned(&self) -> BTreeMap<String, String> {
        pin::written(&self.definition, self.reach)
    }

    /// The types of the columns that the definition names.
    fn columns_named(&self, system: System, table: &Table) -> BTreeMap<String, String> {
        pin::columns(&self.definition, system, table)
    }

    /// The first key of the table, or with " DESC" the last.
    async fn outermost(
        &self,
        sql: &mut dyn Sql,
        key: &[Column],
        direction: &str,
    ) -> Result<Option<Vec<String>>, UpdateError> {
        let statement = self.bound_statement(&*sql.dialect(), key, None, false, direction);
        sql.query(&statement, &[Value::Integer(0)]).await?.into_iter().next().map(key_of).transpose()
    }

    /// How far the walk has come, from statistics.
    pub(super) async fn estimate(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
    ) -> Result<Option<Estimate>, UpdateError> {
        self.reach.enter_session(sql).await?;
        let estimate = self.estimate_reached(sql, progress).await;
        self.reach.leave_session(sql).await?;
        estimate
    }

    async fn estimate_reached(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        let position = self.position(progress)?;
        let key = self.key(sql).await?;
        let dialect = sql.dialect();
        let after = position.as_ref().map(|position| position.after.as_slice());
        let estimate = dialect.estimate(sql, &self.table, &key, after).await?;
        let end = position.as_ref().and_then(|position| position.walk.as_ref()).map(|course| course.end.as_slice());
        let (Some(estimate), Some(end)) = (estimate, end) else { return Ok(estimate) };
        // Rows beyond the end are not part of the walk.
        let whole = dialect.estimate(sql, &self.table, &key, Some(end)).await?.map_or(1.0, |whole| whole.done);
        let done = if whole > 0.0 { (estimate.done / whole).min(1.0) } else { estimate.done };
        Ok(Some(Estimate { done, rows: estimate.rows * whole }))
    }

    fn position(&self, progress: &Progress) -> Result<Option<Position>, UpdateError> {
        if progress.0.is_empty() {
            return Ok(None);
        }
        let position: Position =
            serde_json::from_value(Json::Object(progress.0.clone())).map_err(|error| progress.refuse(error))?;
        if let Some(course) = &position.walk {
            self.must_be(course).map_err(|problem| progress.refuse(problem))?;
            if !course.definition.is_empty() {
                pin::same(&course.definition, &self.pinned(), "")?;
            }
        }
        let (found, wanted) = (position.after.len(), self.key.len());
        let fits = match &position.walk {
            Some(course) => [position.after.len(), course.types.len()].iter().all(|parts| *parts <= course.end.len()),
            None => found == wanted,
        };
        if !fits || found < wanted {
            return Err(progress.refuse(format!("\"after\" has {found} parts, and the key has {wanted}")));
        }
        Ok(Some(position))
    }

    /// Refuses the progress of a walk over another table or along another key: its place means nothing in this one.
    fn must_be(&self, course: &Course) -> Result<(), String> {
        if course.table == self.table.to_string() && course.key == self.key {
            return Ok(());
        }
        Err(format!(
            "it belongs to a walk over table \"{}\" along the key ({}), and the definition says table \"{}\" and key \
             ({}): put the definition back, or cancel the update and queue it again to begin anew",
            course.table,
            course.key.join(", "),
            self.table,
            self.key.join(", ")
        ))
    }

    /// The columns that order the walk: the key's, and those that make it unique where it is not by itself.
    async fn key(&self, sql: &mut dyn Sql) -> Result<Vec<Column>, UpdateError> {
        Ok(self.ground(sql).await?.1)
    }

    /// The table, and the columns that order the walk.
    async fn ground(&self, sql: &mut dyn Sql) -> Result<(Table, Vec<Column>), UpdateError> {
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
            None => return Err(UpdateError::Failed(not_unique(&self.table, &self.key).message)),
        }
        Ok((table, key))
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

    /// The key of the budget-th row after `after` and not beyond `end`; `None` where fewer are left.
    async fn bound(
        &self,
        sql: &mut dyn Sql,
        key: &[Column],
        after: Option<&[String]>,
        end: &[String],
        budget: Budget,
    ) -> Result<Option<Vec<String>>, UpdateError> {
        let statement = self.bound_statement(&*sql.dialect(), key, after.map(<[String]>::len), true, "");
        let offset = i64::try_from(budget.items.saturating_sub(1)).unwrap_or(i64::MAX);
        let parameters: Vec<Value> = texts(after).chain(texts(Some(end))).chain([Value::Integer(offset)]).collect();
        let rows = sql.query(&statement, &parameters).await?;
        rows.into_iter().next().map(key_of).transpose()
    }

    /// The statement that finds the key of a row by the number of rows before it, in the key's order or in the reverse,
    /// behind a key of `after` parts and up to an end where there are such.
    ///
    /// The table has an alias because ORDER BY with a bare name would mean the output column of that name, which is text.
    fn bound_statement(
        &self,
        dialect: &dyn Dialect,
        key: &[Column],
        after: Option<usize>,
        ends: bool,
        direction: &str,
    ) -> String {
        let columns = quoted(dialect, key, Some("walked"));
        let texts: Vec<String> = columns.iter().map(|column| dialect.key_as_text(column)).collect();
        let (mut conditions, mut next) = (Vec::new(), 1);
        if let Some(parts) = after {
            let parts = parts.min(key.len());
            conditions.push(comparison(dialect, &key[..parts], Some("walked"), ">", next));
            next += parts;
        }
        if ends {
            conditions.push(comparison(dialect, key, Some("walked"), "<=", next));
            next += key.len();
        }
        let condition =
            if conditions.is_empty() { String::new() } else { format!("\nWHERE {}", conditions.join(" AND ")) };
        format!(
            "SELECT {} FROM {} AS walked{condition}\nORDER BY {} LIMIT 1 OFFSET {}",
            texts.join(", "),
            self.source(dialect),
            columns.iter().map(|column| format!("{column}{direction}")).collect::<Vec<_>>().join(", "),
            dialect.parameter(next),
        )
    }

    /// Makes sure that the key found is met again under its text, where a column can hold what it does not declare: the
    /// text 'abc' in a column of integers would come back as 0, and the walk would go over rows a second time.
    async fn find_again(&self, sql: &mut dyn Sql, key: &[Column], found: &[String]) -> Result<(), UpdateError> {
        let dialect = sql.dialect();
        if dialect.system() != System::Sqlite {
            return Ok(());
        }
        let same = comparison(&*dialect, key, None, "=", 1);
        let statement = format!("SELECT 1 FROM {} WHERE {same} LIMIT 1", self.source(&*dialect));
        let parameters: Vec<Value> = texts(Some(found)).collect();
        if sql.query(&statement, &parameters).await?.is_empty() {
            let (columns, key) = (self.key.join(", "), found.join(", "));
            return Err(UpdateError::Failed(format!(
                "key column {columns} holds the value {key}, which is not of the type that it declares"
            )));
        }
        Ok(())
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

impl Position {
    fn into_progress(self) -> Progress {
        match serde_json::to_value(self) {
            Ok(Json::Object(members)) => Progress(members),
            // A struct of texts and numbers is an object: there is nothing to fail.
            _ => Progress::default(),
        }
    }
}

impl Course {
    /// Refuses a key whose columns are of other types than when the walk began.
    fn must_have(&self, key: &[Column]) -> Result<(), UpdateError> {
        let changed = key.iter().zip(&self.types).find(|(column, was)| column.sql_type != **was);
        if let Some((column, was)) = changed {
            return Err(UpdateError::Failed(format!(
                "the type of key column \"{}\" changed from {was} to {} during the walk, and the place of the walk may mean \
                 another row now: cancel the update and queue it again to begin anew",
                column.name, column.sql_type
            )));
        }
        if key.len() != self.types.len() {
            return Err(UpdateError::Failed(format!(
                "the indexes of table \"{}\" changed during the walk, and another column makes its key unique now: cancel the \
                 update and queue it again to begin anew",
                self.table
            )));
        }
        Ok(())
    }
}

impl Range {
    /// The keys in (`after`, `upto`]. Its text depends on whether there is an `after` and on nothing else: from the second
    /// batch on a statement is prepared once.
    fn new(dialect: &dyn Dialect, key: &[Column], after: Option<&[String]>, upto: &[String]) -> Self {
        let parts = after.map_or(0, |after| after.len().min(key.len()));
        let lower = after.map(|_| comparison(dialect, &key[..parts], None, ">", 1));
        let upper = comparison(dialect, key, None, "<=", parts + 1);
        let both: Vec<String> = lower.into_iter().chain([upper]).collect();
        Self { condition: both.join(" AND "), parameters: texts(after).chain(texts(Some(upto))).collect() }
    }

    fn clause(&self, filter: Option<&str>) -> String {
        let parts: Vec<String> = [self.condition.clone()].into_iter().chain(filter.map(parenthesised)).collect();
        format!("\nWHERE {}", parts.join("\nAND "))
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

/// The names by which SQLite calls the number of a row, where no column bears them.
const ROWID_NAMES: [&str; 3] = ["rowid", "_rowid_", "oid"];

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

    /// A column that a walk can go along: one of the table's, or SQLite's rowid under one of its names.
    fn key_column(self, table: &Table, name: &str) -> Option<Column> {
        let rowid = || table.rowid && ROWID_NAMES.iter().any(|known| self.equal(known, name));
        self.column(table, name).cloned().or_else(|| {
            rowid().then(|| Column { name: name.to_owned(), sql_type: "INTEGER".to_owned(), not_null: true })
        })
    }

    fn is_rowid(self, table: &Table, column: &Column) -> bool {
        table.rowid && self.column(table, &column.name).is_none()
    }

    /// The columns that make a key unique, none where it is so by itself; `None` where nothing does that the table could be
    /// walked along.
    fn unique_by(self, table: &Table, key: &[Column]) -> Option<Vec<Column>> {
        let among = |name: &String| key.iter().any(|column| self.equal(&column.name, name));
        let sole = |index: &&Index| index.unique && index.valid && !index.partial;
        let by_itself = |index: &Index| index.columns.iter().all(|name| name.as_ref().is_some_and(among));
        if key.iter().any(|column| self.is_rowid(table, column)) || table.indexes.iter().filter(sole).any(by_itself) {
            return Some(Vec::new());
        }
        if table.rowid {
            return self.key_column(table, "rowid").map(|rowid| vec![rowid]);
        }
        table.indexes.iter().filter(sole).find_map(|index| {
            let more = index.columns.iter().map(|name| self.column(table, name.as_ref()?).cloned());
            let more: Vec<Column> = more.collect::<Option<_>>()?;
            let more: Vec<Column> = more.into_iter().filter(|column| !among(&column.name)).collect();
            more.iter().all(|column| column.not_null).then_some(more)
        })
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
    /// Empty where the walk can be made, made without a sort, and its rows changed by `operation`.
    pub(super) async fn check(
        &self,
        sql: &mut dyn Sql,
        operation: Option<Operation>,
    ) -> Result<Vec<Problem>, UpdateError> {
        let dialect = sql.dialect();
        let Some(table) = dialect.describe(sql, &self.table).await? else {
            return Ok(vec![no_table("table", "schema", &self.table)]);
        };
        let around = match operation {
            Some(operation) => reach::check(sql, &self.table, table.kind, operation, self.reach, "table").await?,
            None => reach::no_rows_of_its_own(&self.table, table.kind, "table").into_iter().collect(),
        };
        if around.iter().any(Problem::is_error) {
            return Ok(around);
        }
        let names = Names(dialect.system());
        let mut problems: Vec<Problem> =
            self.key.iter().filter_map(|name| self.check_key_column(&table, names, name)).collect();
        if self.key.is_empty() {
            problems.push(key_problem("the key has no columns", "name the columns of the table's primary key"));
        } else if problems.is_empty() && !self.is_ordered(&table, names) {
            problems.push(self.not_ordered());
        }
        if problems.is_empty() {
            let key: Option<Vec<Column>> = self.key.iter().map(|name| names.key_column(&table, name)).collect();
            let key = key.unwrap_or_default();
            match names.unique_by(&table, &key) {
                None => problems.push(not_unique(&self.table, &self.key)),
                Some(more) => problems.extend(self.check_kind(&table, names, &[key, more].concat())),
            }
        }
        problems.extend(around);
        Ok(problems)
    }

    fn not_ordered(&self) -> Problem {
        let columns = self.key.join(", ");
        key_problem(
            &format!("no index of table \"{}\" gives its rows in the order of the key ({columns})", self.table),
            &format!(
                "take the primary key's columns in its order, or make an index on ({columns}): a b-tree, not partial, of the \
                 columns' own collation, all ascending or all descending"
            ),
        )
    }

    /// True where an index, or the table itself, gives the rows in the order of the key.
    fn is_ordered(&self, table: &Table, names: Names) -> bool {
        let rowid = || match self.key.as_slice() {
            [only] => names.key_column(table, only).is_some_and(|column| names.is_rowid(table, &column)),
            _ => false,
        };
        table.indexes.iter().any(|index| names.orders_by(index, &self.key)) || rowid()
    }

    /// What is to be known of a table that is more, or less, than a plain one.
    fn check_kind(&self, table: &Table, names: Names, key: &[Column]) -> Vec<Problem> {
        let name = &self.table;
        let mut problems = Vec::new();
        let rowid = key.iter().any(|column| names.is_rowid(table, column));
        let ordered: Vec<String> = key.iter().map(|column| column.name.clone()).collect();
        if !rowid && !table.indexes.iter().any(|index| names.orders_by(index, &ordered)) {
            let (columns, ordered) = (self.key.join(", "), ordered.join(", "));
            problems.push(Problem::warning(
                "key",
                format!("the key ({columns}) is not unique, and each batch sorts the rows that have the same key"),
                format!(
                    "take the primary key's columns, or make an index on ({ordered}) where many rows have the same key"
                ),
            ));
        }
        if table.children > 0 && table.kind != TableKind::Partitioned && !self.is_alone() {
            problems.push(Problem::warning(
                "table",
                format!(
                    "{} inherit from table \"{name}\", and the update reaches their rows too",
                    tables(table.children)
                ),
                "say only = true if the rows of this table alone are meant",
            ));
        }
        if rowid && table.renumbered {
            problems.push(Problem::warning(
                "key",
                format!(
                    "the walk goes by the rowids of table \"{name}\", and VACUUM may change them, because no column is the rowid"
                ),
                "do not run VACUUM between the update's first batch and its last: the walk would leave rows out",
            ));
        }
        problems
    }

    fn check_key_column(&self, table: &Table, names: Names, name: &str) -> Option<Problem> {
        let Some(column) = names.key_column(table, name) else {
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

/// The problem of a key that several rows can have.
fn not_unique(table: &TableName, key: &[String]) -> Problem {
    let columns = key.join(", ");
    key_problem(
        &format!(
            "the key ({columns}) of table \"{table}\" is not unique, and no unique index tells rows with the same key apart"
        ),
        "walk along the columns of a unique index, all NOT NULL, or make such an index",
    )
}

/// A number of rows.
fn rows(count: u64) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}

/// A number of tables.
fn tables(count: u64) -> String {
    if count == 1 { "1 table".to_owned() } else { format!("{count} tables") }
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
        Err(error) if error.class == ErrorClass::Permanent => {
            let problem = refused(field, &error, statement);
            Ok(Some(match old_reading(sql, &error, statement).await? {
                Some(hint) => Problem { hint, ..problem },
                None => problem,
            }))
        }
        Err(error) => Err(error.into()),
    }
}

/// What to do where a trigger or a view of the application's writes a text in double quotes. SQLite takes that for a text
/// unless it is told otherwise, as it is on tidegate's connections, where a misspelt name must not become one.
async fn old_reading(sql: &mut dyn Sql, error: &SqlError, statement: &str) -> Result<Option<String>, UpdateError> {
    let quoted = error.message.strip_prefix("no such column: ").and_then(|rest| rest.split(" - should").next());
    let Some(quoted) = quoted.filter(|word| word.starts_with('"') && !statement.contains(*word)) else {
        return Ok(None);
    };
    let select =
        "SELECT type, name FROM sqlite_schema WHERE type IN ('trigger', 'view') AND instr(sql, ?1) ORDER BY name";
    let rows = sql.query(select, &[Value::from(quoted)]).await?;
    let named = |row: &Row| Some(format!("{} \"{}\"", row.first()?.as_text()?, row.get(1)?.as_text()?));
    let named: Vec<String> = rows.iter().filter_map(named).collect();
    Ok((!named.is_empty()).then(|| {
        format!(
            "make {} anew with {quoted} in single quotes: a text in double quotes is a name for tidegate, and for SQLite as \
             others build it",
            named.join(", ")
        )
    }))
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
