//! `tidegate accept`.

use std::collections::BTreeSet;

use tidegate::config::{self, Config};
use tidegate::scheduler::database::{Begin, Database, QueueRow};
use tidegate::update::{Progress, UpdateError, accept_definition};

use super::enqueue::selected;
use super::error::CliError;
use super::results::{Json, Results};
use super::{Context, wiring};

/// Have the rows that are left of an update done under its definition of now, where that changed after its first batch
///
/// What was done under the definition before stays as it is. A table, a key or a type of the key that changed cannot be
/// accepted: the place of the walk would mean nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Accept {
    /// The updates' names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// On this database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,

    #[command(flatten)]
    pub(super) json: Json,
}

impl Accept {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut results = Results::new(&self.json);
        let outcome = self.accept(context, &mut results).await;
        results.end(outcome)
    }

    async fn accept(&self, context: &Context, results: &mut Results) -> Result<(), CliError> {
        let config = context.config()?;
        let mut met = BTreeSet::new();
        for database in selected(&config, self.database.as_deref())? {
            met.extend(self.accept_on(&config, database, results).await?);
        }
        match self.names.iter().find(|name| !met.contains(*name)) {
            Some(name) => Err(CliError::failure(format!("update \"{name}\" is not queued"))
                .hint("`tidegate status` shows what is; an update that has not begun takes the definition of now")),
            None => Ok(()),
        }
    }

    /// Accepts on one database. Returns the names that are queued there.
    async fn accept_on(
        &self,
        config: &Config,
        database: &config::Database,
        results: &mut Results,
    ) -> Result<Vec<String>, CliError> {
        let refused = || CliError::failure(format!("cannot accept definitions on database \"{}\"", database.name));
        let opened = wiring::open(database)?;
        opened.prepare().await.map_err(|error| refused().because_of_database(error))?;
        let queue = opened.queue().await.map_err(|error| refused().because_of_database(error))?;
        let mut met = Vec::new();
        for row in queue.rows.iter().filter(|row| self.names.contains(&row.update_name)) {
            let name = &row.update_name;
            let definition = config.updates_of(&database.name).find(|update| update.name == *name);
            let Some(definition) = definition else {
                return Err(CliError::failure(format!("nothing defines update \"{name}\" of {}", database.name))
                    .hint("define it in the configuration first"));
            };
            let handler = wiring::handler(definition, database);
            let (result, said) = match changed(row, |progress| handler.mode(progress).map(drop))? {
                None => ("unchanged", "its definition is the one that it began with".to_owned()),
                Some((changes, accepted)) => {
                    write(&*opened, row, &accepted).await?.map_err(|error| refused().because_of_database(error))?;
                    ("accepted", format!("goes on under the definition of now: {changes}"))
                }
            };
            let line = format!("{name}: {said} on {}", database.name);
            results.tell(&database.name, Some(name), result, &line)?;
            met.push(name.clone());
        }
        opened.close().await;
        Ok(met)
    }
}

/// What changed in the definition of a row, and the progress to go on with; `None` where nothing did.
fn changed(
    row: &QueueRow,
    fits: impl Fn(&Progress) -> Result<(), UpdateError>,
) -> Result<Option<(String, Progress)>, CliError> {
    let name = &row.update_name;
    let failed = |error: UpdateError| {
        CliError::failure(format!("update \"{name}\" cannot go on")).because(error).hint(format!(
            "put back what changed; or `tidegate cancel {name}` and `tidegate enqueue {name}` to begin anew"
        ))
    };
    let progress = Progress::parse(&row.progress).map_err(failed)?;
    let accepted = accept_definition(&progress);
    match (fits(&progress), accepted) {
        (Err(UpdateError::Redefined { changes }), Some(accepted)) => {
            fits(&accepted).map_err(failed)?;
            Ok(Some((changes, accepted)))
        }
        // The types of columns are known to the database alone: the host has met that they changed.
        (Ok(()), Some(accepted)) if row.failure.as_ref().is_some_and(|failure| failure.quarantined) => {
            Ok(Some(("what the last failure names".to_owned(), accepted)))
        }
        (Ok(()), _) => Ok(None),
        (Err(error), _) => Err(failed(error)),
    }
}

/// Writes the progress where the row is as it was read, and lets the update run again.
async fn write(
    opened: &dyn Database,
    row: &QueueRow,
    accepted: &Progress,
) -> Result<Result<(), tidegate::update::SqlError>, CliError> {
    let name = &row.update_name;
    let written = async {
        match opened.begin(name, &row.progress).await? {
            Begin::Moved(_) => Ok(false),
            Begin::Failed(error) => Err(error),
            Begin::Ready(transaction) => {
                transaction.commit(Some(&accepted.to_json())).await?;
                opened.forget_failures(name).await?;
                Ok(true)
            }
        }
    };
    match written.await {
        Ok(true) => Ok(Ok(())),
        Ok(false) => {
            Err(CliError::failure(format!("update \"{name}\" moved on meanwhile; nothing was changed"))
                .hint("try again"))
        }
        Err(error) => Ok(Err(error)),
    }
}
