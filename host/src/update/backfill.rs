//! `backfill`: sets columns of every row of a table, or of those that meet a condition, walking along its key.

use async_trait::async_trait;

use super::plan::Draft;
use super::sql::{Dialect, Estimate, Right, Sql, TableName};
use super::walk::{Batch, Walk};
use super::{Budget, Handler, Mode, Plan, Problem, Progress, Step, UpdateError};

/// What a backfill sets, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillDefinition {
    /// The table.
    pub table: TableName,
    /// The columns to walk along, NOT NULL and indexed in this order.
    pub key: Vec<String>,
    /// What stands after SET. It must leave the key alone: a row whose key moves ahead of the walk is met again.
    pub set: String,
    /// The condition that a row must meet to be set; it does not change which keys are walked.
    pub filter: Option<String>,
}

/// The handler of a backfill.
pub struct Backfill {
    definition: BackfillDefinition,
    walk: Walk,
}

impl Backfill {
    /// A handler for this definition.
    pub fn new(definition: BackfillDefinition) -> Self {
        let walk = Walk::new(definition.table.clone(), definition.key.clone());
        Self { definition, walk }
    }

    /// The UPDATE of the rows that meet `clause`.
    fn statement(&self, dialect: &dyn Dialect, clause: &str) -> String {
        format!("UPDATE {} SET {}{clause}", dialect.table(&self.definition.table), self.definition.set)
    }

    /// What a batch executes, to be looked at.
    fn drafts(&self, dialect: &dyn Dialect, batch: &Batch) -> Vec<Draft> {
        let statement = self.statement(dialect, &batch.clause(self.definition.filter.as_deref()));
        vec![Draft::of("set", statement, batch)]
    }
}

#[async_trait]
impl Handler for Backfill {
    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        self.walk.accept(progress)?;
        Ok(Mode::Batched)
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let batch = self.walk.batch(sql, progress, budget).await?;
        if batch.items > 0 {
            let statement = self.statement(&*sql.dialect(), &batch.clause(self.definition.filter.as_deref()));
            sql.execute(&statement, batch.parameters()).await?;
        }
        Ok(Step { items: batch.items, next: batch.next })
    }

    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        self.walk.estimate(sql, progress).await
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let drafts = |dialect: &dyn Dialect, batch: &Batch| {
            let reading = self.definition.filter.as_deref().map(|filter| {
                let table = dialect.table(&self.definition.table);
                Draft::of("where", format!("SELECT 1 FROM {table}{}", batch.clause(Some(filter))), batch)
            });
            reading.into_iter().chain(self.drafts(dialect, batch)).collect()
        };
        self.walk.check_with(sql, &[Right::Select, Right::Update], drafts).await
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Option<Plan>, UpdateError> {
        self.walk.plan(sql, progress, budget, |dialect, batch| self.drafts(dialect, batch)).await.map(Some)
    }
}
