//! `tidegate retry`.

use std::collections::BTreeSet;

use tidegate::scheduler::operations::{Failed, Operations};

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
        let opened = wiring::acting(database)?;
        let which = if self.all { Failed::All } else { Failed::Named(&self.names) };
        let retried = Operations::on(&*opened).retry(which).await;
        let retried = retried.map_err(|error| refused().because_refused(error))?;
        for (name, did) in &retried {
            results.done(&database.name, name, *did)?;
        }
        opened.close().await;
        Ok(retried.into_iter().map(|(name, _)| name).collect())
    }
}
