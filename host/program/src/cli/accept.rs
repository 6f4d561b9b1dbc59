//! `tidegate accept`.

use std::collections::BTreeSet;

use tidegate::scheduler::acceptance::Unaccepted;
use tidegate::scheduler::operations::{Operations, Refusal};
use tidegate_admin::api::view::{Did, Done};
use tidegate_config::Config;

use super::enqueue::selected;
use super::error::CliError;
use super::remote::Address;
use super::results::{Json, Results, done};
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
    address: Address,

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
        if let Some(host) = self.address.host()? {
            let met = host.act("accept", &self.names, self.database.as_deref(), results).await?;
            return all_met(&self.names, &met);
        }
        let config = context.config()?;
        let mut met = BTreeSet::new();
        for database in selected(&config, self.database.as_deref())? {
            met.extend(self.accept_on(&config, database, results).await?);
        }
        all_met(&self.names, &met)
    }

    /// Accepts on one database. Returns the names that are queued there.
    async fn accept_on(
        &self,
        config: &Config,
        database: &tidegate_config::Database,
        results: &mut Results,
    ) -> Result<Vec<String>, CliError> {
        let refused = || CliError::failure(format!("cannot accept definitions on database \"{}\"", database.name));
        let opened = wiring::acting(database)?;
        let operations = Operations::on(&*opened);
        let handlers = wiring::handlers(config, database);
        let mut met = Vec::new();
        for name in &self.names {
            let changes = match operations.accept(name, &handlers).await {
                Ok(changes) => changes,
                Err(Refusal::NotQueued(_)) => continue,
                Err(Refusal::Undefined(_)) => {
                    return Err(CliError::failure(format!("nothing defines update \"{name}\" of {}", database.name))
                        .hint("define it in the configuration first"));
                }
                Err(Refusal::Unaccepted(Unaccepted::CannotGoOn { update_name, source })) => {
                    return Err(CliError::failure(format!("update \"{update_name}\" cannot go on")).because(source).hint(
                        format!(
                            "put back what changed; or `tidegate cancel {name}` and `tidegate enqueue {name}` to begin anew"
                        ),
                    ));
                }
                Err(Refusal::Unaccepted(error)) => return Err(CliError::failure(error.to_string()).hint("try again")),
                Err(error) => return Err(refused().because_refused(error)),
            };
            let result = if changes.is_some() { Did::Accepted } else { Did::Unchanged };
            results.tell(&Done { changes, ..done(&database.name, Some(name), result) })?;
            met.push(name.clone());
        }
        opened.close().await;
        Ok(met)
    }
}

/// Fails where a name is queued nowhere.
pub(super) fn all_met(names: &[String], met: &BTreeSet<String>) -> Result<(), CliError> {
    match names.iter().find(|name| !met.contains(*name)) {
        Some(name) => Err(CliError::failure(format!("update \"{name}\" is not queued"))
            .hint("`tidegate status` shows what is; an update that has not begun takes the definition of now")),
        None => Ok(()),
    }
}
