//! `unkeep`: drops the triggers that keep an update's rows.

use async_trait::async_trait;

use super::super::sql::Sql;
use super::super::{Budget, Handler, Mode, Plan, Planned, Problem, Progress, Step, Trial, UpdateError};
use super::marker::{Keep, kept};
use super::{drop_of, told};

/// The triggers of which update are dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnkeepDefinition {
    /// The update.
    pub update: String,
}

/// The handler that drops them.
pub struct Unkeep {
    definition: UnkeepDefinition,
}

impl Unkeep {
    /// A handler for this definition.
    pub fn new(definition: UnkeepDefinition) -> Self {
        Self { definition }
    }

    async fn found(&self, sql: &mut dyn Sql) -> Result<Vec<Keep>, UpdateError> {
        let keeps = kept(sql).await?;
        Ok(keeps.into_iter().filter(|keep| keep.update == self.definition.update).collect())
    }
}

#[async_trait]
impl Handler for Unkeep {
    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        match progress.0.is_empty() {
            true => Ok(Mode::OneShot),
            false => Err(progress.refuse("dropping a trigger has no progress but {}")),
        }
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, _budget: Budget) -> Result<Step, UpdateError> {
        self.mode(progress)?;
        let dropped = drop_of(sql, &self.definition.update).await?;
        let note = match dropped.is_empty() {
            true => format!("there was no trigger of update \"{}\"", self.definition.update),
            false => format!(
                "{} dropped: rows are not kept as update \"{}\" makes them any more",
                told(&dropped),
                self.definition.update
            ),
        };
        Ok(Step::finished(dropped.len() as u64).noting([note]))
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let none = self.found(sql).await?.is_empty();
        Ok(none
            .then(|| {
                Problem::note(
                    "update",
                    format!("there is no trigger of update \"{}\" yet, or no more", self.definition.update),
                    "queue this behind that update (`--depends-on`), once the application writes such rows itself",
                )
            })
            .into_iter()
            .collect())
    }

    async fn trial(&self, _sql: &mut dyn Sql, _place: f64, _budget: Budget) -> Result<Trial, UpdateError> {
        Ok(Trial::Refused(Problem::error(
            "kind",
            "it drops a trigger and changes no row, and there is nothing to try",
            "`tidegate check --plan` shows the statements",
        )))
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, _budget: Budget) -> Result<Option<Plan>, UpdateError> {
        self.mode(progress)?;
        let found = self.found(sql).await?;
        if found.is_empty() {
            return Ok(Some(Plan::nothing()));
        }
        let statements = found.iter().flat_map(|keep| {
            keep.triggers.iter().map(|trigger| format!("DROP TRIGGER \"{trigger}\" -- of table {}", keep.table))
        });
        Ok(Some(Plan { statements: statements.map(Planned::unexplained).collect(), ..Plan::default() }))
    }
}
