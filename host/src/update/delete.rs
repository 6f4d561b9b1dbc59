//! `delete`: deletes the rows of a table that meet a condition, walking along its key.

use async_trait::async_trait;

use super::sql::{Dialect, Estimate, Sql, TableName};
use super::walk::{self, Walk};
use super::{Budget, Handler, Mode, Problem, Progress, Step, UpdateError};

/// What a deletion deletes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteDefinition {
    /// The table.
    pub table: TableName,
    /// The columns to walk along, NOT NULL and indexed in this order.
    pub key: Vec<String>,
    /// The condition that a row must meet to be deleted; it does not change which keys are walked.
    pub filter: String,
}

/// The handler of a deletion.
pub struct Delete {
    definition: DeleteDefinition,
    walk: Walk,
}

impl Delete {
    /// A handler for this definition.
    pub fn new(definition: DeleteDefinition) -> Self {
        let walk = Walk::new(definition.table.clone(), definition.key.clone());
        Self { definition, walk }
    }

    /// The DELETE of the rows that meet `clause`.
    fn statement(&self, dialect: &dyn Dialect, clause: &str) -> String {
        format!("DELETE FROM {}{clause}", dialect.table(&self.definition.table))
    }
}

#[async_trait]
impl Handler for Delete {
    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        self.walk.accept(progress)?;
        Ok(Mode::Batched)
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        // The batch is bounded and counted before its rows go: afterwards the walk would count those behind them.
        let batch = self.walk.batch(sql, progress, budget).await?;
        if batch.items > 0 {
            let statement = self.statement(&*sql.dialect(), &batch.clause(Some(&self.definition.filter)));
            sql.execute(&statement, batch.parameters()).await?;
        }
        Ok(Step { items: batch.items, next: batch.next })
    }

    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        self.walk.estimate(sql, progress).await
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let problems = self.walk.check(sql).await?;
        if !problems.is_empty() {
            return Ok(problems);
        }
        let statement = self.statement(&*sql.dialect(), &walk::filter_clause(&self.definition.filter));
        Ok(walk::explain(sql, "where", &statement).await?.into_iter().collect())
    }
}
