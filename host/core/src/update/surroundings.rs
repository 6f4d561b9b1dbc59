//! What happens around a table when its rows are changed.

use std::fmt;

use super::sql::TableName;

/// What happens around a table when its rows are changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// Triggers and rules, those of inheriting tables included.
    pub reactions: Vec<Reaction>,
    /// Where the table has row-level security: whether it binds the session's user (PostgreSQL).
    pub row_security: Option<bool>,
    /// Foreign keys that look for rows of other tables, by no index, when a row is deleted (PostgreSQL; SQLite tells them
    /// in its plans).
    pub searches: Vec<Search>,
}

/// A trigger or a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// Its name.
    pub name: String,
    /// The table that has it.
    pub table: String,
    /// What it reacts to.
    pub operations: Vec<Operation>,
    /// True for a rule (PostgreSQL).
    pub rule: bool,
    /// True where it puts something else in the place of the operation.
    pub instead: bool,
    /// True where it runs before each row, and so may keep rows from being changed.
    pub may_skip: bool,
    /// True where it runs for each row.
    pub each_row: bool,
}

/// A foreign key that looks for rows by no index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// The foreign key's name.
    pub constraint: String,
    /// The table whose rows refer to others.
    pub table: TableName,
    /// Its columns that do.
    pub columns: Vec<String>,
}

/// What a statement does to rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Insert => "INSERT",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
        })
    }
}

impl Operation {
    /// The operation that this word of SQL begins.
    pub fn of(word: &str) -> Option<Self> {
        let is = |other: &str| word.eq_ignore_ascii_case(other);
        match () {
            () if is("insert") || is("replace") => Some(Operation::Insert),
            () if is("update") => Some(Operation::Update),
            () if is("delete") => Some(Operation::Delete),
            () => None,
        }
    }
}
