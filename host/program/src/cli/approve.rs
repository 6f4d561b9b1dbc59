//! `tidegate approve`.

use std::collections::BTreeSet;

use tidegate::scheduler::operations::{Operations, Refusal};
use tidegate_admin::api::view::Did;

use super::enqueue::selected;
use super::error::CliError;
use super::remote::{Address, all_met};
use super::results::{Json, Results, done};
use super::{Context, wiring};

/// Have updates go on that have stopped for approval
///
/// An update stops after its first rows where its definition has a `canary`, and before them where they are more than its
/// `max_rows`. Look at what it did, then approve; or `tidegate cancel` it.
#[derive(Debug, clap::Args)]
pub(super) struct Approve {
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

impl Approve {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut results = Results::new(&self.json);
        let outcome = self.approve(context, &mut results).await;
        results.end(outcome)
    }

    async fn approve(&self, context: &Context, results: &mut Results) -> Result<(), CliError> {
        if let Some(host) = self.address.host()? {
            let met = host.act("approve", &self.names, self.database.as_deref(), results).await?;
            return all_met(&self.names, &met);
        }
        let config = context.config()?;
        let mut met = BTreeSet::new();
        for database in selected(&config, self.database.as_deref())? {
            let opened = wiring::acting(database)?;
            for name in &self.names {
                let result = match Operations::on(&*opened).approve(name).await {
                    Ok(true) => Did::Approved,
                    Ok(false) => Did::NotAwaiting,
                    Err(Refusal::NotQueued(_)) => continue,
                    Err(error) => {
                        let refused = format!("cannot approve updates on database \"{}\"", database.name);
                        return Err(CliError::failure(refused).because_refused(error));
                    }
                };
                results.tell(&done(&database.name, Some(name), result))?;
                met.insert(name.clone());
            }
            opened.close().await;
        }
        all_met(&self.names, &met)
    }
}
