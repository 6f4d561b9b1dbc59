//! `batch`: the general form of an update. The host walks along a key, and executes statements that somebody wrote for
//! each batch, with the batch's place bound in them.

use async_trait::async_trait;

use super::explain::can_be_explained;
use super::placeholder::{self, Bounds, Known, Rendered};
use super::plan::Draft;
use super::settings::Settings;
use super::sql::{Ask, Dialect, Estimate, Given, Right, Sql, System, TableName};
use super::walk::{self, Walk};
use super::{
    Budget, Handler, Mode, Opening, PassedOver, Plan, Problem, Progress, Reach, Step, Trial, UpdateError, scan,
};

/// What is done for each batch of a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchDefinition {
    /// The table to walk along.
    pub table: TableName,
    /// The columns to walk along, NOT NULL and indexed in this order.
    pub key: Vec<String>,
    /// The statements. In them stand, outside literals, quoted names and comments: `:range` for the condition that a
    /// row's key lies in the batch; `:after` for the key before the first row (NULL in the first batch) and `:upto`
    /// for the key of the last row, `:after_1`, `:after_2`, … for the parts of a key of several columns;
    /// `:batch_size` for the items of the batch; `:setting_NAME` for a [setting](Batch::with_settings).
    pub sql: String,
}

/// The handler of statements in batches.
pub struct Batch {
    definition: BatchDefinition,
    system: System,
    settings: Settings,
    walk: Walk,
}

impl Batch {
    /// A handler for this definition on a database of this system.
    pub fn new(definition: BatchDefinition, system: System) -> Self {
        let parts = [("kind", Some("batch")), ("sql", Some(definition.sql.as_str()))];
        let walk = Walk::new(definition.table.clone(), definition.key.clone()).defined_by(parts);
        Self { definition, system, settings: Settings::default(), walk }
    }

    /// The same, on which so many may work at once on PostgreSQL.
    pub fn with_workers(self, workers: usize) -> Self {
        Self { walk: self.walk.with_workers(workers), ..self }
    }

    /// The same with settings that its statements may use. Those that they use are a part of the definition.
    pub fn with_settings(self, settings: Settings) -> Self {
        let used = settings.used(&self.definition.sql, self.system);
        let walk = self.walk.defined_by([("settings", used.as_deref())]);
        Self { settings, walk, ..self }
    }

    /// The same with a walk over the rows that `reach` says.
    pub fn reaching(self, reach: Reach) -> Self {
        Self { walk: self.walk.reaching(reach), ..self }
    }

    fn known(&self) -> Known<'_> {
        Known { columns: self.definition.key.len(), settings: &self.settings }
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = placeholder::problems(&self.definition.sql, self.known(), self.system);
        problems.extend(self.check_workers());
        problems
    }

    /// What speaks against several workers. Their batches see what is committed by the time of each statement, as they all
    /// write the one progress: of several statements the second could be about rows that the first did not see.
    fn check_workers(&self) -> Option<Problem> {
        let statements = self.statements();
        let what = match statements.as_slice() {
            _ if self.walk.workers() == 1 => return None,
            [only] if placeholder::uses_range(only, self.system) => return None,
            [_] => "the statement does not use :range, and may reach rows that are another worker's",
            _ => "several statements, and with several workers these need not see the same rows",
        };
        let hint = "write one statement with :range (on PostgreSQL WITH holds several that see the same rows), or leave \
                    \"workers\" out";
        Some(Problem::error("workers", what, hint))
    }

    fn statements(&self) -> Vec<&str> {
        scan::statements(&self.definition.sql, self.system)
    }

    /// Executes the statements for a batch.
    async fn execute(&self, sql: &mut dyn Sql, batch: &walk::Batch, batch_size: u64) -> Result<(), UpdateError> {
        let dialect = sql.dialect();
        if let Some(upto) = &batch.upto {
            let bounds = Bounds {
                key: &batch.key,
                after: batch.after.as_deref(),
                upto: Some(upto),
                ends: batch.ends(),
                batch_size,
                settings: &self.settings,
            };
            sql.expect_foreign();
            let statements = self.statements();
            let statements = statements.into_iter().map(|statement| placeholder::render(statement, &*dialect, &bounds));
            match self.system {
                System::Postgres => {
                    let each = statements
                        .map(|Rendered { sql, parameters }| Ask::change(sql, parameters.into_iter().map(Given::Value)));
                    sql.ask(each.collect()).await?;
                }
                // Looked at before each is whether the one before it ended the transaction.
                System::Sqlite => {
                    for Rendered { sql: statement, parameters } in statements {
                        sql.execute(&statement, &parameters).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What a batch executes, to be looked at.
    fn drafts(&self, dialect: &dyn Dialect, batch: &walk::Batch) -> Vec<Draft> {
        let bounds = Bounds {
            key: &batch.key,
            after: batch.after.as_deref(),
            upto: batch.upto.as_deref(),
            ends: batch.typical_ends(),
            batch_size: batch.items.max(1),
            settings: &self.settings,
        };
        let mut explained = true;
        let draft = |statement: &str| {
            // What comes after a statement of another kind may need what that one makes.
            explained &= can_be_explained(statement, self.system);
            let rendered = placeholder::render(statement, dialect, &bounds);
            Draft { field: "sql", sql: rendered.sql, parameters: rendered.parameters, explained }
        };
        self.statements().into_iter().map(draft).collect()
    }
}

#[async_trait]
impl Handler for Batch {
    fn digest(&self) -> Option<String> {
        Some(self.walk.digest())
    }

    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        self.walk.accept(progress)?;
        Ok(Mode::Batched)
    }

    fn opening(&self) -> Opening {
        Opening::Snapshot
    }

    fn workers(&self) -> usize {
        self.walk.workers()
    }

    async fn cut(&self, sql: &mut dyn Sql, progress: &Progress, parts: usize) -> Result<Option<Progress>, UpdateError> {
        self.walk.cut(sql, progress, parts).await
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        // Not left to `check`, which nobody may have run: statements that would miss rows are worse than none.
        if let Some(problem) = self.problems().into_iter().next() {
            return Err(UpdateError::Failed(format!("{} ({})", problem.message, problem.hint)));
        }
        let batch = self.walk.batch(sql, progress, budget).await?;
        self.execute(sql, &batch, budget.items).await?;
        Ok(Step::new(batch.items, batch.next).noting(batch.notes))
    }

    async fn pass_over(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<PassedOver>, UpdateError> {
        self.walk.pass_over(sql, progress).await
    }

    async fn run_key(&self, sql: &mut dyn Sql, key: &[String]) -> Result<(), UpdateError> {
        let batch = self.walk.single_behind(sql, key).await?;
        if batch.items > 0 {
            self.execute(sql, &batch, 1).await?;
        }
        Ok(())
    }

    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        self.walk.estimate(sql, progress).await
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let mut problems = self.walk.check(sql, None).await?;
        problems.extend(self.problems());
        if problems.iter().any(Problem::is_error) {
            return Ok(problems);
        }
        self.walk.check_on(sql, problems, &[Right::Select], |dialect, batch| self.drafts(dialect, batch)).await
    }

    async fn trial(&self, sql: &mut dyn Sql, place: f64, budget: Budget) -> Result<Trial, UpdateError> {
        Ok(Trial::Batch(self.walk.ahead(sql, place, budget).await?.0))
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Option<Plan>, UpdateError> {
        self.walk.plan(sql, progress, budget, |dialect, batch| self.drafts(dialect, batch)).await.map(Some)
    }
}
