//! What the updates would do: the shape of the JSON, and how it is printed for people.

use std::fmt::Write as _;

use serde::Serialize;
use tidegate::update::{self, Mode};

use super::super::output;

/// What an update would do on a database.
#[derive(Debug, Serialize)]
pub(super) struct Plan {
    pub database: String,
    pub update: String,
    /// True where it happens in one go.
    pub one_shot: bool,
    /// Items of a batch that the numbers are reckoned with: `default_batch_size`.
    pub batch_size: u64,
    /// Rows that are left to walk, estimated from statistics; null where the database has no idea.
    pub rows_left: Option<u64>,
    /// Batches of that size for them; 1 where it happens in one go.
    pub batches: Option<u64>,
    /// What a typical batch executes, in order.
    pub statements: Vec<Statement>,
}

#[derive(Debug, Serialize)]
pub(super) struct Statement {
    /// Parameters are placeholders.
    pub sql: String,
    /// The database's own EXPLAIN, a line each; see [`update::Planned`] for where there is none.
    pub explanation: Vec<String>,
}

impl Plan {
    pub(super) fn new(database: &str, update: &str, mode: Mode, batch_size: u64, plan: update::Plan) -> Self {
        let rows_left = plan.estimate.map(|estimate| (estimate.rows * (1.0 - estimate.done)).round() as u64);
        let batches = match mode.is_one_shot() {
            true => Some(1),
            false => rows_left.map(|rows| rows.div_ceil(batch_size.max(1))),
        };
        let statements = plan.statements.into_iter();
        Self {
            database: database.to_owned(),
            update: update.to_owned(),
            one_shot: mode.is_one_shot(),
            batch_size,
            rows_left,
            batches,
            statements: statements.map(|update::Planned { sql, explanation }| Statement { sql, explanation }).collect(),
        }
    }

    /// As people read it.
    pub(super) fn render(&self) -> String {
        let mut text = format!("update \"{}\" on database \"{}\": {}", self.update, self.database, self.extent());
        for statement in &self.statements {
            for line in statement.sql.trim_end().lines() {
                // Writing to a string cannot fail.
                let _ = write!(text, "\n  {line}");
            }
            for line in &statement.explanation {
                let _ = write!(text, "\n    | {line}");
            }
        }
        text
    }

    fn extent(&self) -> String {
        if self.statements.is_empty() {
            return "does nothing".to_owned();
        }
        match (self.one_shot, self.rows_left, self.batches) {
            (false, Some(0), _) => "no rows are left".to_owned(),
            (true, Some(rows), _) => format!("in one go over about {} rows", output::count(rows)),
            (true, None, _) => "in one go".to_owned(),
            (false, Some(rows), Some(batches)) => format!(
                "about {} rows are left, {} batches of {} (estimated from statistics; a host sizes batches by the rate \
                 that it measures)",
                output::count(rows),
                output::count(batches),
                output::count(self.batch_size),
            ),
            (false, ..) => "how many rows are left is not known: there are no statistics before an ANALYZE".to_owned(),
        }
    }
}
