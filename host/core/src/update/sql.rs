//! What a handler needs of a database, and no more: statements with values, and a dialect that writes the SQL on
//! which SQLite and PostgreSQL differ. The drivers in `database` implement these traits.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

pub use super::ask::{Answer, Ask, Expected, Given};
pub use super::ask::{ask_in_turn, whole};
pub use super::field::{Class, Field};
use super::plan::Explanation;
pub use super::sql_error::{ErrorClass, SqlError};
pub use super::surroundings::{Operation, Reaction, Search, Surroundings};

/// A value bound to a statement or read from a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL's NULL.
    Null,
    /// A whole number; bound as the integer type that the statement asks for.
    Integer(i64),
    /// A floating point number.
    Real(f64),
    /// A text. Any type of key travels as text and is cast by the server.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Value {
    /// The whole number in it, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The text in it, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Integer(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

/// A row of a query's result: its columns in order.
pub type Row = Vec<Value>;

/// Something that takes SQL: the transaction of a batch, or a session outside any transaction.
#[async_trait]
pub trait Sql: Send {
    /// The dialect that this database speaks.
    fn dialect(&self) -> Arc<dyn Dialect>;

    /// Executes one statement and returns the number of rows it changed.
    ///
    /// # Errors
    /// Whatever the database says, classified.
    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, SqlError>;

    /// Executes one statement and returns all of its rows.
    ///
    /// # Errors
    /// Whatever the database says, classified.
    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, SqlError>;

    /// Executes one statement once for each of these rows of parameters, and returns the number of rows that it changed in all.
    ///
    /// # Errors
    /// Whatever the database says, classified.
    async fn execute_each(&mut self, sql: &str, rows: Vec<Row>) -> Result<u64, SqlError> {
        let mut changed = 0;
        for row in &rows {
            changed += self.execute(sql, row).await?;
        }
        Ok(changed)
    }

    /// Executes a script of several statements without parameters.
    ///
    /// # Errors
    /// Whatever the database says, classified.
    async fn script(&mut self, sql: &str) -> Result<(), SqlError>;

    /// Executes statements one after the other, of which each can be given what an earlier one found; all in one go where
    /// that spares the way to the database. Stops behind a statement that does not give what is expected of it: there are
    /// as many answers as statements were executed.
    ///
    /// # Errors
    /// Whatever the database says, classified.
    async fn ask(&mut self, statements: Vec<Ask>) -> Result<Vec<Answer>, SqlError> {
        ask_in_turn(self, statements).await
    }

    /// A number that no other connection of this process has, nor had; `None` where nothing is to be remembered of what was
    /// found over this one.
    fn connection(&self) -> Option<u64> {
        None
    }

    /// Sets something otherwise for the statements outside a transaction that follow, until the session is handed back; a
    /// session that others use too is not changed by it. For settings of PostgreSQL's.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn adjust(&mut self, name: &'static str, value: &'static str) -> Result<(), SqlError> {
        self.execute(&format!("SET LOCAL {name} = {value}"), &[]).await.map(drop)
    }

    /// Begins, outside a transaction, one of which nothing stays (PostgreSQL).
    ///
    /// # Errors
    /// Whatever the database says.
    async fn begin_rehearsal(&mut self) -> Result<(), SqlError> {
        Ok(())
    }

    /// Undoes what came after [`Sql::begin_rehearsal`].
    ///
    /// # Errors
    /// Whatever the database says.
    async fn end_rehearsal(&mut self) -> Result<(), SqlError> {
        Ok(())
    }

    /// True where the server's sessions are for others too, and a statement that no transaction can hold cannot be given what
    /// it needs: behind a pooler in transaction mode.
    fn shares_session(&self) -> bool {
        false
    }

    /// Says that statements follow which may leave settings, roles or temporary tables behind: after this transaction, or
    /// when the session is handed back, the session is made what it was.
    fn expect_foreign(&mut self) {}
}

/// How a database writes what the databases write differently, and how it is asked about itself.
#[async_trait]
pub trait Dialect: Send + Sync {
    /// Which database this is, for messages and for kinds that one database alone has.
    fn system(&self) -> System;

    /// An identifier, quoted.
    fn quote(&self, identifier: &str) -> String {
        format!("\"{}\"", identifier.replace('"', "\"\""))
    }

    /// A table's name, quoted, with its schema where it has one.
    fn table(&self, table: &TableName) -> String {
        match &table.schema {
            Some(schema) => format!("{}.{}", self.quote(schema), self.quote(&table.name)),
            None => self.quote(&table.name),
        }
    }

    /// The placeholder of parameter `number` (from 1), bound as it is.
    fn parameter(&self, number: usize) -> String;

    /// An expression that gives a key column (already quoted) as text, losing nothing.
    fn key_as_text(&self, column: &str) -> String;

    /// An expression that casts the text bound as parameter `number` to the type of a key column.
    fn key_from_text(&self, number: usize, column: &Column) -> String;

    /// The same as [`Dialect::key_from_text`], in words that keep a planner from knowing the value: it would choose by
    /// statistics, which are old, or say of each column by itself what matters of all together.
    fn key_apart(&self, number: usize, column: &Column) -> String {
        self.key_from_text(number, column)
    }

    /// The words that pass over as many rows as parameter `number` says, without a planner's knowing how many.
    fn offset(&self, number: usize) -> String {
        format!("OFFSET {}", self.parameter(number))
    }

    /// The value to bind for [`Dialect::key_from_text`] where it may stand apart from the column, in an expression that
    /// somebody else wrote.
    fn key_value(&self, text: &str, column: &Column) -> Value {
        let _ = column;
        Value::from(text)
    }

    /// The value to bind for [`Dialect::key_from_text`] where it is compared with the column, once a row.
    fn key_bound(&self, text: &str, column: &Column) -> Value {
        let _ = column;
        Value::from(text)
    }

    /// What is known of a table; `None` where there is no such table.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn describe(&self, sql: &mut dyn Sql, table: &TableName) -> Result<Option<Table>, SqlError>;

    /// The columns of a table, as a program reads and writes their values.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn fields(&self, sql: &mut dyn Sql, table: &TableName) -> Result<Vec<Field>, SqlError> {
        let _ = (sql, table);
        Ok(Vec::new())
    }

    /// A query for one value that is another once [`Dialect::describe`] may say something else of this table, cheaper than
    /// that; on PostgreSQL it can stand as an expression. What is said of tables that inherit from it is not in it.
    fn token(&self, table: &TableName) -> String;

    /// How far a walk along `key` has come, from statistics alone and never by counting: the part of the table's
    /// rows, 0.0 to 1.0, whose key is at or before `after` (the walk's last key, as text), and the number of rows in
    /// all. `None` where the database has no idea.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn estimate(
        &self,
        sql: &mut dyn Sql,
        table: &TableName,
        key: &[Column],
        after: Option<&[String]>,
    ) -> Result<Option<Estimate>, SqlError>;

    /// Some rows of a table from anywhere in it, as FROM names them: `walked`, of what `source` names. About so many pages
    /// are looked at. `None` where the database has no way to find such.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn sample(
        &self,
        sql: &mut dyn Sql,
        table: &TableName,
        source: &str,
        pages: f64,
    ) -> Result<Option<Sample>, SqlError> {
        let _ = (sql, table, source, pages);
        Ok(None)
    }

    /// How the database would go about a statement, which is not executed.
    ///
    /// # Errors
    /// Whatever the database says of the statement.
    async fn explain(&self, sql: &mut dyn Sql, statement: &str, parameters: &[Value]) -> Result<Explanation, SqlError>;

    /// Which of these rights the session's user lacks on a table (which need not be there, for [`Right::Create`]).
    /// `None` where none, and where the database knows no rights.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn lacking(
        &self,
        sql: &mut dyn Sql,
        table: &TableName,
        rights: &[Right],
    ) -> Result<Option<Lacking>, SqlError>;

    /// What bears a name among the indexes and tables of a table's schema, other than an index of that table: "a
    /// table", say.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn bearer(&self, sql: &mut dyn Sql, table: &TableName, name: &str) -> Result<Option<String>, SqlError>;

    /// What happens around a table when its rows are changed. Nothing where the database is not asked.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn surroundings(&self, sql: &mut dyn Sql, table: &TableName) -> Result<Surroundings, SqlError> {
        let _ = (sql, table);
        Ok(Surroundings::default())
    }
}

/// A right on a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To read rows.
    Select,
    /// To add rows.
    Insert,
    /// To change rows.
    Update,
    /// To delete rows.
    Delete,
    /// To change the table itself.
    Own,
    /// To make tables and indexes in its schema.
    Create,
}

/// Rights that a user lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// What is lacking, for a message: `UPDATE on table "items"`.
    pub what: String,
    /// The user.
    pub role: String,
    /// What to do about it.
    pub hint: String,
}

/// The database systems there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            System::Sqlite => "SQLite",
            System::Postgres => "PostgreSQL",
        })
    }
}

/// A table's name, and its schema where the configuration gives one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    /// The schema; where it is `None` the database's search path decides.
    pub schema: Option<String>,
    /// The name, unquoted.
    pub name: String,
}

impl From<&str> for TableName {
    /// The table of this name, without a schema.
    fn from(name: &str) -> Self {
        Self { schema: None, name: name.to_owned() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// What the database says of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// Its indexes, the primary key's among them (SQLite's rowid key as a unique index of one column).
    pub indexes: Vec<Index>,
    /// What it is.
    pub kind: TableKind,
    /// True where triggers run before rows are changed, or rules put something else in the place of that: they may keep rows
    /// from being changed.
    pub guarded: bool,
    /// True where it has rules: a statement that changes its rows cannot be part of another (PostgreSQL).
    pub rules: bool,
    /// True where triggers run after rows were changed: they may change these, and others, once more (PostgreSQL; SQLite's
    /// are told by `guarded`).
    pub followed: bool,
    /// Tables that inherit from it, its partitions among them (PostgreSQL).
    pub children: u64,
    /// True where SQLite numbers its rows: it can be walked along `rowid`.
    pub rowid: bool,
    /// The column that is another name of the rowid: SQLite's INTEGER PRIMARY KEY.
    pub numbered_by: Option<String>,
    /// True where SQLite's VACUUM may number its rows anew.
    pub renumbered: bool,
}

/// What a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TableKind {
    /// A table whose rows are its own.
    #[default]
    Plain,
    /// Its rows are in partitions (PostgreSQL).
    Partitioned,
    /// A view.
    View,
    /// A view whose rows are stored (PostgreSQL).
    MaterializedView,
    /// A table of another server (PostgreSQL).
    Foreign,
    /// A table that a module keeps (SQLite).
    Virtual,
}

impl TableKind {
    /// What it is, for a message.
    pub const fn words(self) -> &'static str {
        match self {
            TableKind::Plain => "a table",
            TableKind::Partitioned => "a partitioned table",
            TableKind::View => "a view",
            TableKind::MaterializedView => "a materialized view",
            TableKind::Foreign => "a foreign table",
            TableKind::Virtual => "a virtual table",
        }
    }
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, unquoted.
    pub name: String,
    /// Its type as the database writes it, ready for a cast.
    pub sql_type: String,
    /// True where it cannot be NULL.
    pub not_null: bool,
    /// By what its values are ordered, where that is not by their type alone.
    pub collation: Option<String>,
}

/// An index of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Its name, unquoted.
    pub name: String,
    /// What it indexes, in order: a column's name, or `None` for an expression.
    pub columns: Vec<Option<String>>,
    /// The direction in which it yields each of them; `None` where it does not yield them in their own order: another
    /// method than a b-tree, another collation or operator class than the column's.
    pub directions: Vec<Option<Direction>>,
    /// True where no two rows may have equal keys.
    pub unique: bool,
    /// True where it has a WHERE clause.
    pub partial: bool,
    /// False for the leftover of a concurrent build that failed (PostgreSQL's `indisvalid`).
    pub valid: bool,
    /// The statement that makes it, as the database writes it; `None` for an implicit one.
    pub definition: Option<String>,
}

/// The direction in which an index yields a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The least first.
    Ascending,
    /// The greatest first.
    Descending,
}

/// Some rows of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// As FROM names them.
    pub from: String,
    /// The part of the table's pages that they are from, 0.0 to 1.0; `None` where that is not known.
    pub part: Option<f64>,
}

/// How far a walk has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The part that is done, 0.0 to 1.0.
    pub done: f64,
    /// Rows in all.
    pub rows: f64,
}
