//! `delete`: deletes the rows of a table that meet a condition, walking along its key.

use async_trait::async_trait;

use super::plan::Draft;
use super::reach::{Reach, SKIPPED};
use super::sql::{Dialect, Estimate, Operation, Right, Sql, TableName};
use super::verify::{Verifiable, Verified};
use super::walk::{Batch, Change, Outcome, Then, Walk};
use super::{Budget, Handler, Mode, PassedOver, Plan, Problem, Progress, Step, Trial, UpdateError};

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
        let parts = [("kind", Some("delete")), ("where", Some(definition.filter.as_str()))];
        let walk = Walk::new(definition.table.clone(), definition.key.clone()).defined_by(parts);
        Self { definition, walk }
    }

    /// The same, on which so many may work at once on PostgreSQL.
    pub fn with_workers(self, workers: usize) -> Self {
        Self { walk: self.walk.with_workers(workers), ..self }
    }

    /// The same over the rows that `reach` says.
    pub fn reaching(self, reach: Reach) -> Self {
        Self { walk: self.walk.reaching(reach), ..self }
    }

    /// The same, with its rows verified: before the update ends where that is `always` to be, and else where a progress of
    /// [`verification`](super::verification) says so.
    pub fn verified(self, always: bool) -> Verified {
        Verified::new(self, always)
    }

    /// The DELETE of the rows that meet `clause`.
    fn statement(&self, dialect: &dyn Dialect, clause: &str) -> String {
        format!("DELETE FROM {}{clause}", self.walk.source(dialect))
    }

    /// What a batch executes, to be looked at.
    fn drafts(&self, dialect: &dyn Dialect, batch: &Batch) -> Vec<Draft> {
        vec![Draft::of("where", self.statement(dialect, &batch.clause(Some(&self.definition.filter))), batch)]
    }
}

#[async_trait]
impl Handler for Delete {
    fn digest(&self) -> Option<String> {
        Some(self.walk.digest())
    }

    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        self.walk.accept(progress)?;
        Ok(Mode::Batched)
    }

    fn workers(&self) -> usize {
        self.walk.workers()
    }

    async fn cut(&self, sql: &mut dyn Sql, progress: &Progress, parts: usize) -> Result<Option<Progress>, UpdateError> {
        self.walk.cut(sql, progress, parts).await
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let statement = |dialect: &dyn Dialect, clause: &str| self.statement(dialect, clause);
        let change = Change { filter: Some(&self.definition.filter), statement: &statement, then: Then::Go };
        let (batch, Outcome { skipped, .. }) = self.walk.advance(sql, progress, budget, &change).await?;
        Ok(batch.step(skipped, SKIPPED))
    }

    async fn pass_over(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<PassedOver>, UpdateError> {
        self.walk.pass_over(sql, progress).await
    }

    async fn run_key(&self, sql: &mut dyn Sql, key: &[String]) -> Result<(), UpdateError> {
        let statement = |dialect: &dyn Dialect, clause: &str| self.statement(dialect, clause);
        let change = Change { filter: Some(&self.definition.filter), statement: &statement, then: Then::Go };
        self.walk.change_key(sql, key, &change).await.map(drop)
    }

    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        self.walk.estimate(sql, progress).await
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let drafts = |dialect: &dyn Dialect, batch: &Batch| self.drafts(dialect, batch);
        self.walk.check_with(sql, Some(Operation::Delete), &[Right::Select, Right::Delete], drafts).await
    }

    async fn trial(&self, sql: &mut dyn Sql, place: f64, budget: Budget) -> Result<Trial, UpdateError> {
        Ok(Trial::Batch(self.walk.ahead(sql, place, budget).await?.0))
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Option<Plan>, UpdateError> {
        self.walk.plan(sql, progress, budget, |dialect, batch| self.drafts(dialect, batch)).await.map(Some)
    }
}

#[async_trait]
impl Verifiable for Delete {
    async fn wrong(&self, _: &mut dyn Sql) -> Result<Result<String, String>, UpdateError> {
        Ok(Ok(self.definition.filter.clone()))
    }

    fn texts(&self) -> Vec<&str> {
        vec![&self.definition.filter]
    }

    fn redo(&self, dialect: &dyn Dialect, clause: &str) -> String {
        self.statement(dialect, clause)
    }

    fn walk(&self) -> &Walk {
        &self.walk
    }
}
