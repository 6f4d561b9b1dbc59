//! `tidegate retry`.

use std::collections::BTreeSet;

use super::enqueue::selected;
use super::error::CliError;
use super::remote::Address;
use super::results::{Json, Results};
use super::{Context, wiring};

/// Try updates again that failed or are quarantined, as if they had never failed
#[derive(Debug, clap::Args)]
pub(super) struct Retry {
    /// The updates' names
    #[arg(required_unless_present = "all", value_name = "NAME")]
    names: Vec<String>,

    /// Every update that failed
    #[arg(long, conflicts_with = "names")]
    all: bool,

    /// On this database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,

    #[command(flatten)]
    address: Address,

    #[command(flatten)]
    pub(super) json: Json,
}

impl Retry {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut results = Results::new(&self.json);
        let outcome = self.retry(context, &mut results).await;
        results.end(outcome)
    }

    async fn retry(&self, context: &Context, results: &mut Results) -> Result<(), CliError> {
        if let Some(host) = self.address.host()? {
            return host.retry(&self.names, self.all, self.database.as_deref(), results).await;
        }
        let config = context.config()?;
        let mut met = BTreeSet::new();
        for database in selected(&config, self.database.as_deref())? {
            met.extend(self.retry_on(database, results).await?);
        }
        if self.all && met.is_empty() {
            return results.remark("no update has failed");
        }
        match self.names.iter().find(|name| !met.contains(*name)) {
            Some(name) => Err(CliError::failure(format!("update \"{name}\" is not queued"))
                .hint("`tidegate status` shows what is; `tidegate enqueue` queues it")),
            None => Ok(()),
        }
    }

    /// Forgets failures on one database. Returns the names that were asked for and are queued there.
    async fn retry_on(
        &self,
        database: &tidegate_config::Database,
        results: &mut Results,
    ) -> Result<Vec<String>, CliError> {
        let refused = || CliError::failure(format!("cannot retry updates of database \"{}\"", database.name));
        let opened = wiring::open(database)?;
        opened.prepare().await.map_err(|error| refused().because_of_database(error))?;
        let queue = opened.queue().await.map_err(|error| refused().because_of_database(error))?;
        let mut met = Vec::new();
        for row in queue.rows {
            let asked = if self.all { row.failure.is_some() } else { self.names.contains(&row.update_name) };
            if !asked {
                continue;
            }
            let forgotten =
                opened.forget_failures(&row.update_name).await.map_err(|error| refused().because_of_database(error))?;
            let (result, said) =
                if forgotten { ("retried", "will be tried again") } else { ("not-failed", "has not failed") };
            let line = format!("{}: {said} on {}", row.update_name, database.name);
            results.tell(&database.name, Some(&row.update_name), result, &line)?;
            met.push(row.update_name);
        }
        opened.close().await;
        Ok(met)
    }
}
