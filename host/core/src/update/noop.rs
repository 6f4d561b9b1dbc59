//! `noop`: ends at once, so that an old row blocks nothing.

use async_trait::async_trait;

use super::sql::Sql;
use super::{Budget, Handler, Mode, Plan, Problem, Progress, Step, Trial, UpdateError};

/// The handler that does nothing. It takes any progress: whoever wrote it is gone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Noop;

#[async_trait]
impl Handler for Noop {
    fn mode(&self, _progress: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::Batched)
    }

    async fn run(&self, _sql: &mut dyn Sql, _progress: &Progress, _budget: Budget) -> Result<Step, UpdateError> {
        Ok(Step::finished(0))
    }

    async fn trial(&self, _sql: &mut dyn Sql, _place: f64, _budget: Budget) -> Result<Trial, UpdateError> {
        Ok(Trial::Refused(Problem::error("kind", "it does nothing, and there is nothing to try", "leave it as it is")))
    }

    async fn plan(
        &self,
        _sql: &mut dyn Sql,
        _progress: &Progress,
        _budget: Budget,
    ) -> Result<Option<Plan>, UpdateError> {
        Ok(Some(Plan::nothing()))
    }
}
