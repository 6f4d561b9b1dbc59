//! `tidegate cancel`.

use std::collections::BTreeSet;

use tidegate::scheduler::operations::{Did, Operations, Refusal};
use tidegate::scheduler::withdrawal::Withdrawal;
use tidegate::update::keep::told;

use super::enqueue::selected;
use super::error::CliError;
use super::remote::Address;
use super::results::{Json, Results};
use super::{Context, wiring};

/// Take updates out of the queue; what they have done until then stays
#[derive(Debug, clap::Args)]
pub(super) struct Cancel {
    /// The updates' names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// Also whatever depends on them, directly or not
    #[arg(long)]
    with_dependents: bool,

    /// On this database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,

    #[command(flatten)]
    address: Address,

    #[command(flatten)]
    pub(super) json: Json,
}

impl Cancel {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut results = Results::new(&self.json);
        let outcome = self.cancel(context, &mut results).await;
        results.end(outcome)
    }

    async fn cancel(&self, context: &Context, results: &mut Results) -> Result<(), CliError> {
        if let Some(host) = self.address.host()? {
            return host.cancel(&self.names, self.with_dependents, self.database.as_deref(), results).await;
        }
        let config = context.config()?;
        let mut met = BTreeSet::new();
        for database in selected(&config, self.database.as_deref())? {
            met.extend(self.cancel_on(database, results).await?);
        }
        match self.names.iter().find(|name| !met.contains(*name)) {
            Some(name) => {
                Err(CliError::failure(format!("update \"{name}\" is not queued"))
                    .hint("`tidegate status` shows what is"))
            }
            None => Ok(()),
        }
    }

    /// Cancels on one database. Returns the names that were there.
    async fn cancel_on(
        &self,
        database: &tidegate_config::Database,
        results: &mut Results,
    ) -> Result<Vec<String>, CliError> {
        let refused = || CliError::failure(format!("cannot cancel updates of database \"{}\"", database.name));
        let opened = wiring::acting(database)?;
        let queue = opened.look().await.map_err(|error| refused().because_of_database(error))?;
        let kept = queue.map(|queue| queue.kept).unwrap_or_default();
        let cancelled = Operations::on(&*opened).cancel(&self.names, self.with_dependents).await;
        let cancelled = cancelled.map_err(|error| match error {
            Refusal::Dependents(dependents) => {
                let (name, dependents) = (&database.name, dependents.join(", "));
                let message = format!(
                    "what depends on them on {name} would run without them: {dependents}; nothing was cancelled there"
                );
                CliError::failure(message).hint("cancel them too, with `--with-dependents`")
            }
            Refusal::StillRuns(error) => {
                let hint = match error {
                    Withdrawal::Runs { asked: false, .. } => {
                        "SQLite lets nobody write meanwhile: ask the host itself, with `--address`, or stop the host and cancel then"
                    }
                    _ => "the host was asked, and takes it out once what it does can be interrupted: see `tidegate status`",
                };
                CliError::failure(error.to_string()).hint(hint)
            }
            error => refused().because_refused(error),
        })?;
        for name in &cancelled {
            results.done(&database.name, name, Did::Cancelled)?;
            let kept: Vec<_> = kept.iter().filter(|keep| keep.update == *name).cloned().collect();
            if !kept.is_empty() {
                let stays = told(&kept);
                results.remark(&format!("{name}: {stays} goes on keeping rows: `tidegate unkeep {name}` drops it"))?;
            }
        }
        opened.close().await;
        Ok(cancelled)
    }
}
