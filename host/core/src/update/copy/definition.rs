//! What a copy copies.

use crate::update::scan;
use crate::update::sql::{Dialect, System, TableName};

/// What a copy copies, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyDefinition {
    /// The table that is copied from.
    pub table: TableName,
    /// The columns to walk along, NOT NULL and indexed in this order.
    pub key: Vec<String>,
    /// The table that is copied into.
    pub into: TableName,
    /// What is copied, in the order of the INSERT; at least one column.
    pub columns: Vec<CopyColumn>,
    /// The condition that a row must meet to be copied; it does not change which keys are walked.
    pub filter: Option<String>,
    /// What becomes of a row that the target has already.
    pub on_conflict: OnConflict,
}

/// A column of the target, and what is written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyColumn {
    /// The column's name in the target.
    pub target: String,
    /// What is written there.
    pub source: CopySource,
}

/// What is written to a column of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// The column of the same name.
    SameName,
    /// An expression in SQL.
    Expression(String),
}

/// What becomes of a row that breaks a unique constraint of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// The batch fails.
    #[default]
    Error,
    /// The row that is there stays, and the batch goes on.
    Ignore,
}

impl CopyColumn {
    /// What is written where, as a text.
    pub(super) fn text(&self) -> String {
        match &self.source {
            CopySource::SameName => self.target.clone(),
            CopySource::Expression(expression) => format!("{} = {expression}", self.target),
        }
    }

    /// The column of the source that is written there as it is; `None` where it is an expression.
    pub(super) fn column(&self, system: System) -> Option<String> {
        match &self.source {
            CopySource::SameName => Some(self.target.clone()),
            CopySource::Expression(expression) => match scan::code(expression, system).as_slice() {
                [only] if only.kind != scan::Kind::Literal => only.name(system),
                _ => None,
            },
        }
    }

    pub(super) fn source(&self, dialect: &dyn Dialect) -> String {
        match &self.source {
            CopySource::SameName => dialect.quote(&self.target),
            // A comment at its end cannot swallow what follows.
            CopySource::Expression(expression) => format!("{expression}\n"),
        }
    }
}
