//! `validate-constraint`: has the database look whether every row meets a constraint, and vouch for it from then on.

use async_trait::async_trait;

use super::constraint::{self, Validation};
use super::explain::explain_with;
use super::plan::Draft;
use super::sql::{Right, Sql, TableName};
use super::walk::digest;
use super::walk::plan::check_rights;
use super::{Budget, Handler, Mode, Plan, Problem, Progress, Step, Trial, UpdateError};

/// A constraint to be validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidateConstraintDefinition {
    /// The table.
    pub table: TableName,
    /// The constraint's name. PostgreSQL: added with NOT VALID, or valid already, which counts as done. SQLite: named
    /// in CREATE TABLE; the rows are looked at, and nothing is written.
    pub constraint: String,
}

/// The handler that validates a constraint.
pub struct ValidateConstraint {
    definition: ValidateConstraintDefinition,
}

impl ValidateConstraint {
    /// A handler for this definition.
    pub fn new(definition: ValidateConstraintDefinition) -> Self {
        Self { definition }
    }

    fn accept(progress: &Progress) -> Result<(), UpdateError> {
        if progress.0.is_empty() { Ok(()) } else { Err(progress.refuse("a validation has no progress but {}")) }
    }

    async fn validate(&self, sql: &mut dyn Sql) -> Result<Step, UpdateError> {
        let ValidateConstraintDefinition { table, constraint: name } = &self.definition;
        let constraint = constraint::require(sql, table, name).await?;
        match constraint::validate(sql, table, name, &constraint).await? {
            Validation::Valid => Ok(Step::finished(1)),
            Validation::Broken(error) => Err(error.into()),
        }
    }
}

/// How a validation is run: by itself. It may be done twice, and in a transaction of the host's it would lock the
/// queue's row on PostgreSQL, and everybody else's writes on SQLite, for as long as it takes.
pub(super) const MODE: Mode = Mode::OneShotOutside;

/// What a validation needs: PostgreSQL lets nobody else alter a table.
pub(super) const RIGHTS: &[Right] = &[Right::Own];

#[async_trait]
impl Handler for ValidateConstraint {
    fn digest(&self) -> Option<String> {
        Some(digest([format!("{:?}", self.definition).as_str()]))
    }

    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        Self::accept(progress)?;
        Ok(MODE)
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, _budget: Budget) -> Result<Step, UpdateError> {
        Self::accept(progress)?;
        self.validate(sql).await
    }

    async fn run_outside(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Step, UpdateError> {
        Self::accept(progress)?;
        self.validate(sql).await
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let ValidateConstraintDefinition { table, constraint: name } = &self.definition;
        let found = constraint::find(sql, table, name).await?;
        let system = sql.dialect().system();
        if let Some(problem) = constraint::problem(found, table, name, system) {
            return Ok(vec![problem]);
        }
        if let Some(problem) = check_rights(sql, table, RIGHTS).await? {
            return Ok(vec![problem]);
        }
        let constraint = constraint::require(sql, table, name).await?;
        let question = constraint::draft(&*sql.dialect(), table, name, &constraint).filter(|draft| draft.explained);
        let Some(Draft { field, sql: question, parameters, .. }) = question else { return Ok(Vec::new()) };
        Ok(explain_with(sql, field, &question, &parameters).await?.into_iter().collect())
    }

    async fn trial(&self, _sql: &mut dyn Sql, _place: f64, _budget: Budget) -> Result<Trial, UpdateError> {
        Ok(Trial::Whole)
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, _budget: Budget) -> Result<Option<Plan>, UpdateError> {
        Self::accept(progress)?;
        let ValidateConstraintDefinition { table, constraint: name } = &self.definition;
        let constraint = constraint::require(sql, table, name).await?;
        Ok(Some(match constraint::draft(&*sql.dialect(), table, name, &constraint) {
            Some(draft) => Plan::once(sql, draft, table).await?,
            None => Plan::nothing(),
        }))
    }
}
