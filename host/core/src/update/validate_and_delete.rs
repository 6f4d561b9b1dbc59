//! `validate-constraint-and-delete`: tries to validate a constraint; where rows break it, walks the table in batches and
//! deletes those, then validates.
//!
//! Its progress is `{}`, and then `{"state": "delete"}` with the members of a walk's progress once it has begun, and
//! `{"state": "validate", "items": N}` after the walk.

use async_trait::async_trait;
use serde_json::{Map, Value as Json};

use super::constraint::{self, Constraint, ConstraintKind, Found, Validation};
use super::plan::{Draft, Planned};
use super::sql::{Dialect, Estimate, Operation, Right, Sql, TableName};
use super::trial::Ahead;
use super::validate;
use super::walk::{Batch, Change, Then, Walk, digest};
use super::{Budget, Handler, Mode, Next, Plan, Problem, Progress, Step, Trial, UpdateError};

/// A constraint to be validated, and how to find the rows in its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidateAndDeleteDefinition {
    /// The table.
    pub table: TableName,
    /// The constraint's name. What it demands is read from the database.
    pub constraint: String,
    /// The kind that it has to be of, where somebody wants to be sure.
    pub check: Option<ConstraintKind>,
    /// The columns to walk along, NOT NULL and indexed in this order.
    pub unique_columns: Vec<String>,
}

/// The handler that validates a constraint, and deletes what is in its way.
pub struct ValidateAndDelete {
    definition: ValidateAndDeleteDefinition,
    walk: Walk,
}

/// Where the update stands.
enum State {
    /// The constraint is tried as it is.
    Try,
    /// Rows that break it are deleted; the walk's own progress.
    Delete(Progress),
    /// It is validated after the walk.
    Validate,
}

const STATE: &str = "state";
const DELETE: &str = "delete";
const VALIDATE: &str = "validate";

impl ValidateAndDelete {
    /// A handler for this definition.
    pub fn new(definition: ValidateAndDeleteDefinition) -> Self {
        let parts =
            [("kind", Some("validate-constraint-and-delete")), ("constraint", Some(definition.constraint.as_str()))];
        let walk = Walk::new(definition.table.clone(), definition.unique_columns.clone()).defined_by(parts);
        Self { definition, walk }
    }

    /// The same, on whose walk so many may work at once on PostgreSQL.
    pub fn with_workers(self, workers: usize) -> Self {
        Self { walk: self.walk.with_workers(workers), ..self }
    }

    fn state(&self, progress: &Progress) -> Result<State, UpdateError> {
        let mut members = progress.0.clone();
        let state = members.remove(STATE);
        match state.as_ref().map(Json::as_str) {
            None if members.is_empty() => Ok(State::Try),
            Some(Some(DELETE)) => {
                let walked = Progress(members);
                self.walk.accept(&walked)?;
                Ok(State::Delete(walked))
            }
            Some(Some(VALIDATE)) => {
                members.remove("items");
                if members.is_empty() { Ok(State::Validate) } else { Err(progress.refuse("\"validate\" has no more")) }
            }
            _ => Err(progress.refuse("its \"state\" is neither \"delete\" nor \"validate\"")),
        }
    }

    /// The constraint, of the kind that is asked for.
    async fn constraint(&self, sql: &mut dyn Sql) -> Result<Constraint, UpdateError> {
        let ValidateAndDeleteDefinition { table, constraint: name, .. } = &self.definition;
        let constraint = constraint::require(sql, table, name).await?;
        match self.wrong_kind(&constraint) {
            Some(problem) => Err(UpdateError::Failed(problem.message)),
            None => Ok(constraint),
        }
    }

    fn wrong_kind(&self, constraint: &Constraint) -> Option<Problem> {
        let wanted = self.definition.check.filter(|wanted| *wanted != constraint.kind)?;
        Some(Problem::error(
            "check",
            format!(
                "constraint \"{}\" is of kind \"{}\", not \"{wanted}\"",
                self.definition.constraint, constraint.kind
            ),
            "mend the one or the other: rows that break the constraint are deleted",
        ))
    }

    async fn validate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Step, UpdateError> {
        let ValidateAndDeleteDefinition { table, constraint: name, .. } = &self.definition;
        let constraint = self.constraint(sql).await?;
        match (self.state(progress)?, constraint::validate(sql, table, name, &constraint).await?) {
            (_, Validation::Valid) => Ok(Step::finished(1)),
            (State::Try, Validation::Broken(_)) => Ok(Step::new(0, Next::Continue(with(DELETE, Map::new())))),
            // Rows that came in behind the walk, which a constraint that is in force lets nobody write.
            (_, Validation::Broken(error)) => Err(error.into()),
        }
    }

    async fn delete(&self, sql: &mut dyn Sql, walked: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let constraint = self.constraint(sql).await?;
        let walk = self.walk.over(constraint.only);
        let statement = |dialect: &dyn Dialect, clause: &str| self.statement(dialect, &constraint, clause);
        let change = Change { filter: Some(&constraint.violation), statement: &statement, then: Then::Go };
        let (batch, _) = walk.advance(sql, walked, budget, &change).await?;
        let next = match batch.next {
            Next::Continue(walked) => with(DELETE, walked.0),
            Next::Finished => {
                let before = walked.0.get("items").and_then(Json::as_u64).unwrap_or(0);
                let items = Json::from(before.saturating_add(batch.items));
                with(VALIDATE, [("items".to_owned(), items)].into_iter().collect())
            }
        };
        Ok(Step::new(batch.items, Next::Continue(next)))
    }

    /// What a batch of the walk executes, to be looked at.
    fn drafts(&self, dialect: &dyn Dialect, constraint: &Constraint, batch: &Batch) -> Vec<Draft> {
        let clause = batch.clause(Some(&constraint.violation));
        vec![Draft::of("constraint", self.statement(dialect, constraint, &clause), batch)]
    }

    async fn plan_walk(
        &self,
        sql: &mut dyn Sql,
        walked: &Progress,
        budget: Budget,
        constraint: &Constraint,
    ) -> Result<Plan, UpdateError> {
        let drafts = |dialect: &dyn Dialect, batch: &Batch| self.drafts(dialect, constraint, batch);
        let mut plan = self.walk.over(constraint.only).plan(sql, walked, budget, drafts).await?;
        plan.warnings = plan.warnings.into_iter().map(of_this_kind).collect();
        Ok(plan)
    }

    /// The DELETE of the rows that meet `clause`.
    fn statement(&self, dialect: &dyn Dialect, constraint: &Constraint, clause: &str) -> String {
        let table = self.walk.over(constraint.only).source(dialect);
        format!("DELETE FROM {table}{clause}")
    }
}

/// What is wrong with the walk, told of the definition's own keys.
fn of_this_kind(mut problem: Problem) -> Problem {
    if problem.field == "key" {
        problem.field = "unique_columns";
    }
    problem
}

/// Progress of this state, with the members of what happened in it.
fn with(state: &str, mut members: Map<String, Json>) -> Progress {
    members.insert(STATE.to_owned(), Json::from(state));
    Progress(members)
}

#[async_trait]
impl Handler for ValidateAndDelete {
    fn digest(&self) -> Option<String> {
        Some(digest([format!("{:?}", self.definition).as_str()]))
    }

    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        Ok(match self.state(progress)? {
            State::Delete(_) => Mode::Batched,
            State::Try | State::Validate => validate::MODE,
        })
    }

    fn workers(&self) -> usize {
        self.walk.workers()
    }

    async fn cut(&self, sql: &mut dyn Sql, progress: &Progress, parts: usize) -> Result<Option<Progress>, UpdateError> {
        let State::Delete(walked) = self.state(progress)? else { return Ok(None) };
        let constraint = self.constraint(sql).await?;
        let cut = self.walk.over(constraint.only).cut(sql, &walked, parts).await?;
        Ok(cut.map(|walked| with(DELETE, walked.0)))
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        match self.state(progress)? {
            State::Delete(walked) => self.delete(sql, &walked, budget).await,
            State::Try | State::Validate => self.validate(sql, progress).await,
        }
    }

    async fn run_outside(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Step, UpdateError> {
        self.validate(sql, progress).await
    }

    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        match self.state(progress)? {
            State::Delete(walked) => self.walk.estimate(sql, &walked).await,
            State::Try | State::Validate => Ok(None),
        }
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let ValidateAndDeleteDefinition { table, constraint: name, .. } = &self.definition;
        let mut problems: Vec<Problem> =
            self.walk.check(sql, Some(Operation::Delete)).await?.into_iter().map(of_this_kind).collect();
        if problems.iter().any(|problem| problem.is_error() && problem.field == "table") {
            return Ok(problems);
        }
        let constraint = match constraint::find(sql, table, name).await? {
            Found::Constraint(constraint) => constraint,
            other => {
                let system = sql.dialect().system();
                problems.extend(constraint::problem(other, table, name, system));
                return Ok(problems);
            }
        };
        problems.extend(self.wrong_kind(&constraint));
        if problems.iter().any(Problem::is_error) {
            return Ok(problems);
        }
        let rights = [&[Right::Select, Right::Delete], validate::RIGHTS].concat();
        let drafts = |dialect: &dyn Dialect, batch: &Batch| self.drafts(dialect, &constraint, batch);
        let found = self.walk.over(constraint.only).check_with(sql, Some(Operation::Delete), &rights, drafts).await?;
        Ok(found.into_iter().map(of_this_kind).collect())
    }

    async fn trial(&self, sql: &mut dyn Sql, place: f64, budget: Budget) -> Result<Trial, UpdateError> {
        // The deletion: what comes before and after it changes no row.
        let constraint = self.constraint(sql).await?;
        let (ahead, _) = self.walk.over(constraint.only).ahead(sql, place, budget).await?;
        Ok(Trial::Batch(Ahead { progress: with(DELETE, ahead.progress.0), ..ahead }))
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Option<Plan>, UpdateError> {
        let ValidateAndDeleteDefinition { table, constraint: name, .. } = &self.definition;
        let constraint = self.constraint(sql).await?;
        let state = self.state(progress)?;
        let validation = constraint::draft(&*sql.dialect(), table, name, &constraint);
        // First it is tried; what follows where rows break it is good to know before it does.
        let validation = match (state, validation) {
            (State::Delete(walked), _) => return self.plan_walk(sql, &walked, budget, &constraint).await.map(Some),
            (_, None) => return Ok(Some(Plan::nothing())),
            (State::Validate, Some(validation)) => return Ok(Some(Plan::once(sql, validation, table).await?)),
            (State::Try, Some(validation)) => validation,
        };
        let mut plan = self.plan_walk(sql, &Progress::default(), budget, &constraint).await?;
        if let Some(first) = plan.statements.first_mut() {
            first.sql.insert_str(0, "-- where rows break it, batch by batch:\n");
        }
        plan.statements.insert(0, Planned::once(sql, validation).await?);
        Ok(Some(plan))
    }
}
