//! Constraints as the database has them: which rows break one, and whether any does.
//!
//! What a constraint demands is read from the database and nowhere else, so that no row can be deleted but those that
//! the database itself would refuse. PostgreSQL tells it from its catalogue; SQLite keeps the text of CREATE TABLE.

mod postgres;
mod sqlite;

use std::fmt;

use super::plan::Draft;
use super::sql::{Dialect, Sql, SqlError, System, TableName};
use super::{Problem, UpdateError};

/// The kinds of constraints that rows which are there already can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConstraintKind {
    /// NOT NULL; PostgreSQL's CHECK (column IS NOT NULL) as well.
    NotNull,
    /// FOREIGN KEY.
    ForeignKey,
    /// CHECK.
    Check,
}

impl ConstraintKind {
    /// How a configuration calls it.
    pub const fn name(self) -> &'static str {
        match self {
            ConstraintKind::NotNull => "not-null",
            ConstraintKind::ForeignKey => "foreign-key",
            ConstraintKind::Check => "check",
        }
    }

    /// Every kind.
    pub const ALL: [Self; 3] = [Self::NotNull, Self::ForeignKey, Self::Check];
}

impl fmt::Display for ConstraintKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A constraint of a table.
pub(super) struct Constraint {
    pub(super) kind: ConstraintKind,
    /// True where it speaks of the table's own rows, and not of those of tables that inherit from it (PostgreSQL).
    pub(super) only: bool,
    /// True where the database vouches for every row (PostgreSQL's `convalidated`).
    validated: bool,
    /// The condition that a row which breaks it meets, in a statement that calls the table by its own name: a CHECK may
    /// do so too.
    pub(super) violation: String,
    /// SQLite's number of a foreign key.
    foreign_key: Option<i64>,
}

/// What the table that a foreign key refers to is called in a statement: it may be the table itself.
const PARENT: &str = "tidegate_parent";

/// What there is under a constraint's name.
pub(super) enum Found {
    /// There is no such table.
    NoTable,
    /// The table has no constraint of that name, but these.
    Missing(Vec<String>),
    /// It is of a kind that needs no validation: unique, primary key, ….
    Other(String),
    /// Here it is.
    Constraint(Constraint),
}

/// Looks a table's constraint up.
pub(super) async fn find(sql: &mut dyn Sql, table: &TableName, name: &str) -> Result<Found, SqlError> {
    match sql.dialect().system() {
        System::Sqlite => sqlite::find(sql, table, name).await,
        System::Postgres => postgres::find(sql, table, name).await,
    }
}

/// As [`find`], with everything but a constraint an error.
pub(super) async fn require(sql: &mut dyn Sql, table: &TableName, name: &str) -> Result<Constraint, UpdateError> {
    let system = sql.dialect().system();
    match find(sql, table, name).await? {
        Found::Constraint(constraint) => Ok(constraint),
        other => Err(UpdateError::Failed(match problem(other, table, name, system) {
            Some(problem) => format!("{}; {}", problem.message, problem.hint),
            None => format!("constraint \"{name}\" cannot be used"),
        })),
    }
}

/// What is wrong with what was found; `None` where it is a constraint to be validated.
pub(super) fn problem(found: Found, table: &TableName, name: &str, system: System) -> Option<Problem> {
    let (message, hint) = match found {
        Found::Constraint(_) => return None,
        Found::NoTable => return Some(super::explain::no_table("table", "schema", table)),
        Found::Missing(others) => {
            let known = match (others.as_slice(), system) {
                ([], System::Postgres) => "add it with ALTER TABLE … ADD CONSTRAINT … NOT VALID first".to_owned(),
                ([], System::Sqlite) => "SQLite has constraints from CREATE TABLE alone: name it there, CONSTRAINT \
                                         name …, or keep the update off this database with \"databases\""
                    .to_owned(),
                (others, _) => format!("its constraints are {}", others.join(", ")),
            };
            (format!("table \"{table}\" has no constraint \"{name}\""), known)
        }
        Found::Other(kind) => (
            format!("constraint \"{name}\" of table \"{table}\" is of kind {kind}, which every row meets already"),
            "name a not-null, foreign key or check constraint".to_owned(),
        ),
    };
    Some(Problem::error("constraint", message, hint))
}

/// What came of a validation.
pub(super) enum Validation {
    /// Every row meets the constraint, and the database knows it.
    Valid,
    /// Some row breaks it; in the database's words.
    Broken(SqlError),
}

/// The statement that has the database validate a constraint, to be looked at; `None` where it vouches for every row
/// already.
pub(super) fn draft(dialect: &dyn Dialect, table: &TableName, name: &str, constraint: &Constraint) -> Option<Draft> {
    if constraint.validated {
        return None;
    }
    let (sql, parameters, explained) = match dialect.system() {
        System::Sqlite => {
            let (question, values) = sqlite::statement(dialect, table, constraint);
            (question, values, true)
        }
        // PostgreSQL does not explain ALTER TABLE.
        System::Postgres => (postgres::statement(dialect, table, name), Vec::new(), false),
    };
    Some(Draft { field: "constraint", sql, parameters, explained })
}

/// Has the database validate a constraint.
pub(super) async fn validate(
    sql: &mut dyn Sql,
    table: &TableName,
    name: &str,
    constraint: &Constraint,
) -> Result<Validation, UpdateError> {
    if constraint.validated {
        return Ok(Validation::Valid);
    }
    Ok(match sql.dialect().system() {
        System::Sqlite => sqlite::validate(sql, table, name, constraint).await?,
        System::Postgres => postgres::validate(sql, table, name).await?,
    })
}

/// The condition of a foreign key: rows that name a row which is not there. `pairs` are the comparisons of the parent's
/// columns with the child's, `child` the child's columns.
fn dangling(child: &[String], pairs: &[String], parent: &str, full: bool) -> String {
    let missing = format!("NOT EXISTS (SELECT 1 FROM {parent} AS {PARENT} WHERE {})", pairs.join(" AND "));
    let each = |test: &str, word: &str| {
        let tests: Vec<String> = child.iter().map(|column| format!("{column} {test}")).collect();
        format!("({})", tests.join(word))
    };
    match full {
        // MATCH FULL: all NULL is well, some NULL is not.
        true => format!("NOT {} AND ({} OR {missing})", each("IS NULL", " AND "), each("IS NULL", " OR ")),
        false => format!("{} AND {missing}", each("IS NOT NULL", " AND ")),
    }
}

/// A column of the table whose rows are held against the constraint, quoted.
fn checked(dialect: &dyn Dialect, table: &TableName, column: &str) -> String {
    format!("{}.{}", dialect.quote(&table.name), dialect.quote(column))
}
