//! `refuse`: an update that tidegate cannot do, and why. It is not queued, and a row of it does not wait for a definition.

use async_trait::async_trait;

use super::sql::Sql;
use super::{Budget, Handler, Mode, Problem, Progress, Step, Trial, UpdateError};

/// The handler that refuses its update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refuse {
    reason: String,
}

impl Refuse {
    /// A handler that gives this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }

    fn refused(&self) -> UpdateError {
        UpdateError::Refused { reason: self.reason.clone() }
    }
}

#[async_trait]
impl Handler for Refuse {
    fn mode(&self, _progress: &Progress) -> Result<Mode, UpdateError> {
        Err(self.refused())
    }

    fn refusal(&self) -> Option<&str> {
        Some(&self.reason)
    }

    async fn run(&self, _sql: &mut dyn Sql, _progress: &Progress, _budget: Budget) -> Result<Step, UpdateError> {
        Err(self.refused())
    }

    async fn trial(&self, _sql: &mut dyn Sql, _place: f64, _budget: Budget) -> Result<Trial, UpdateError> {
        Ok(Trial::Refused(Problem::error("kind", self.refused().to_string(), "leave it as it is")))
    }
}
