//! Several statements that are asked at once, each by what those before it gave.

use super::sql::{Row, Value};

/// One of several statements; see [`Sql::ask`](super::Sql::ask).
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The statement.
    pub sql: String,
    /// What is bound in it.
    pub parameters: Vec<Given>,
    /// True where the number of rows that it changes is asked for, and not its rows.
    pub changes: bool,
    /// What it must give, or nothing after it is executed.
    pub expected: Expected,
}

/// What is bound in one of several statements.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// A value.
    Value(Value),
    /// The value of a column in the first row of an earlier statement, each by its number from 0.
    Found(usize, usize),
}

/// What a statement must give, or nothing after it is executed.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// Whatever it gives.
    Anything,
    /// A row.
    Some,
    /// A row with this value in its first column.
    First(Value),
}

/// What one of several statements gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Its rows, where these were asked for.
    pub rows: Vec<Row>,
    /// The rows that it changed, where that was asked for.
    pub changed: u64,
}

impl Ask {
    /// A statement that is asked for its rows.
    pub fn query(sql: impl Into<String>, parameters: impl IntoIterator<Item = Given>, expected: Expected) -> Self {
        Self { sql: sql.into(), parameters: parameters.into_iter().collect(), changes: false, expected }
    }

    /// A statement that changes rows.
    pub fn change(sql: impl Into<String>, parameters: impl IntoIterator<Item = Given>) -> Self {
        let parameters = parameters.into_iter().collect();
        Self { sql: sql.into(), parameters, changes: true, expected: Expected::Anything }
    }

    /// The values bound in it, after the answers of those before it.
    pub fn parameters(&self, answers: &[Answer]) -> Vec<Value> {
        let found = |statement: usize, column: usize| answers.get(statement)?.rows.first()?.get(column).cloned();
        let value = |given: &Given| match given {
            Given::Value(value) => value.clone(),
            Given::Found(statement, column) => found(*statement, *column).unwrap_or(Value::Null),
        };
        self.parameters.iter().map(value).collect()
    }

    /// True where its answer is what is expected.
    pub fn is_satisfied_by(&self, answer: &Answer) -> bool {
        match &self.expected {
            Expected::Anything => true,
            Expected::Some => !answer.rows.is_empty(),
            Expected::First(value) => answer.rows.first().and_then(|row| row.first()) == Some(value),
        }
    }
}
