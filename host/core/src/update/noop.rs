//! `noop`: ends at once, so that an old row blocks nothing.

use async_trait::async_trait;

use super::sql::Sql;
use super::{Budget, Handler, Mode, Plan, Progress, Step, UpdateError};

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

    async fn plan(
        &self,
        _sql: &mut dyn Sql,
        _progress: &Progress,
        _budget: Budget,
    ) -> Result<Option<Plan>, UpdateError> {
        Ok(Some(Plan::nothing()))
    }
}
