//! `tidegate retry`.

use std::collections::BTreeSet;

use tidegate::scheduler::operations::{Failed, Operations};
use tidegate_config::Config;

use super::enqueue::{selected, undefined};
use super::error::CliError;
use super::remote::Address;
use super::results::{Json, Results, done, of_skipped};
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

    /// Only the rows that they skipped, which are tried again as an update of the same name
    #[arg(long, conflicts_with = "all")]
    skipped: bool,

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
            if self.skipped {
                return host.retry_skipped(&self.names, self.database.as_deref(), results).await;
            }
            return host.retry(&self.names, self.all, self.database.as_deref(), results).await;
        }
        let config = context.config()?;
        if self.skipped {
            return self.retry_skipped(&config, results).await;
        }
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

    /// Queues the updates anew for the rows that they skipped.
    async fn retry_skipped(&self, config: &Config, results: &mut Results) -> Result<(), CliError> {
        let databases = selected(config, self.database.as_deref())?;
        let is_defined =
            |name: &&String| databases.iter().any(|on| config.updates_of(&on.name).any(|update| update.name == **name));
        if let Some(name) = self.names.iter().find(|name| !is_defined(name)) {
            return Err(undefined(name, config, &databases));
        }
        for database in databases {
            let refused = || CliError::failure(format!("cannot retry updates of database \"{}\"", database.name));
            let opened = wiring::open(database)?;
            let handlers = wiring::handlers(config, database);
            for name in self.names.iter().filter(|name| handlers.contains_key(*name)) {
                let did = Operations::on(&*opened).retry_skipped(name, &handlers).await;
                let did = did.map_err(|error| refused().because_refused(error))?;
                let done = done(&database.name, Some(name), did);
                results.tell_as(&done, &of_skipped(&done))?;
            }
            opened.close().await;
        }
        Ok(())
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
