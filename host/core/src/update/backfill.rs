//! `backfill`: sets columns of every row of a table, or of those that meet a condition, walking along its key.

use async_trait::async_trait;

use super::assign::assignments;
use super::names::Names;
use super::plan::Draft;
use super::reach::{Reach, SKIPPED};
use super::scan;
use super::sql::{Dialect, Estimate, Operation, Right, Sql, System, TableName};
use super::verify::{Verifiable, Verified, not_as_assigned};
use super::walk::{Batch, Change, Moved, Outcome, Then, Walk};
use super::{Budget, Handler, Mode, Plan, Problem, Progress, Step, Trial, UpdateError};

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
        let parts = [
            ("kind", Some("backfill")),
            ("set", Some(definition.set.as_str())),
            ("where", definition.filter.as_deref()),
        ];
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

    /// The same without the walk's end, so that a test can show that it would notice. Never for production.
    #[cfg(feature = "test-switches")]
    #[doc(hidden)]
    pub fn endless(self) -> Self {
        Self { walk: self.walk.endless(), ..self }
    }

    /// The problem of a key that changes under the walk: rows that move ahead are met again, perhaps for ever.
    async fn moves_key(&self, sql: &mut dyn Sql) -> Result<Option<Problem>, UpdateError> {
        let assignments = assignments(&self.definition.set, sql.dialect().system());
        let assigned: Vec<String> = assignments.into_iter().flat_map(|assignment| assignment.columns).collect();
        let what = match self.walk.moved_by(sql, &assigned).await? {
            None => return Ok(None),
            Some(Moved::Key(column)) => format!("key column \"{column}\""),
            Some(Moved::Unique(column)) => format!("column \"{column}\", which makes the key unique"),
            Some(Moved::Source(column, of)) => {
                format!("column \"{column}\", from which \"{of}\" of the key is computed")
            }
        };
        Ok(Some(Problem::error(
            "set",
            format!("\"set\" assigns {what}, and a row that moves ahead is met again"),
            "walk along another key, or use kind \"batch\", whose rows you choose yourself",
        )))
    }

    /// The UPDATE of the rows that meet `clause`.
    fn statement(&self, dialect: &dyn Dialect, clause: &str) -> String {
        format!("UPDATE {} SET {}{clause}", self.walk.source(dialect), self.definition.set)
    }

    /// What a batch executes, to be looked at.
    fn drafts(&self, dialect: &dyn Dialect, batch: &Batch) -> Vec<Draft> {
        let statement = self.statement(dialect, &batch.clause(self.definition.filter.as_deref()));
        vec![Draft::of("set", statement, batch)]
    }
}

#[async_trait]
impl Handler for Backfill {
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
        let change = Change { filter: self.definition.filter.as_deref(), statement: &statement, then: Then::Stay };
        let (batch, Outcome { skipped, .. }) = self.walk.advance(sql, progress, budget, &change).await?;
        Ok(batch.step(skipped, SKIPPED))
    }

    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        self.walk.estimate(sql, progress).await
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let mut problems = self.walk.check(sql, Some(Operation::Update)).await?;
        if problems.iter().any(Problem::is_error) {
            return Ok(problems);
        }
        if let Some(problem) = self.moves_key(sql).await? {
            problems.push(problem);
            return Ok(problems);
        }
        let drafts = |dialect: &dyn Dialect, batch: &Batch| {
            let reading = self.definition.filter.as_deref().map(|filter| {
                let table = self.walk.source(dialect);
                Draft::of("where", format!("SELECT 1 FROM {table}{}", batch.clause(Some(filter))), batch)
            });
            reading.into_iter().chain(self.drafts(dialect, batch)).collect()
        };
        self.walk.check_on(sql, problems, &[Right::Select, Right::Update], drafts).await
    }

    async fn trial(&self, sql: &mut dyn Sql, place: f64, budget: Budget) -> Result<Trial, UpdateError> {
        Ok(Trial::Batch(self.walk.ahead(sql, place, budget).await?.0))
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Option<Plan>, UpdateError> {
        self.walk.plan(sql, progress, budget, |dialect, batch| self.drafts(dialect, batch)).await.map(Some)
    }
}

#[async_trait]
impl Verifiable for Backfill {
    async fn wrong(&self, sql: &mut dyn Sql) -> Result<Result<String, String>, UpdateError> {
        let table = self.walk.table(sql).await?;
        let wrong = not_as_assigned(&self.definition.set, &*sql.dialect(), &table);
        Ok(wrong.map(|wrong| match &self.definition.filter {
            Some(filter) => format!("({filter}\n) AND ({wrong})"),
            None => wrong,
        }))
    }

    fn texts(&self) -> Vec<&str> {
        [self.definition.set.as_str()].into_iter().chain(self.definition.filter.as_deref()).collect()
    }

    fn column_settled(&self, system: System) -> Option<String> {
        let (names, read) = (Names(system), scan::code(self.definition.filter.as_deref()?, system));
        let mut assigned = assignments(&self.definition.set, system).into_iter().flat_map(|one| one.columns);
        assigned
            .find(|column| read.iter().filter_map(|token| token.name(system)).any(|name| names.equal(column, &name)))
    }

    fn redo(&self, dialect: &dyn Dialect, clause: &str) -> String {
        self.statement(dialect, clause)
    }

    fn walk(&self) -> &Walk {
        &self.walk
    }
}
