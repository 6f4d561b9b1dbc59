//! `tidegate unkeep`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tidegate::scheduler::database::Database;
use tidegate::scheduler::operations::{Operations, Refusal};
use tidegate::update::ErrorClass;
use tidegate::update::keep::Keep;
use tidegate_admin::api::view::Did;

use super::enqueue::selected;
use super::error::CliError;
use super::remote::Address;
use super::results::{Json, Results};
use super::{Context, wiring};

/// Drop the triggers that keep the rows of updates, once the application writes such rows itself
///
/// Nobody is made to wait long for it: where somebody holds a lock on the table, it is tried again, and in the end said who that
/// is. An update that is queued has its trigger until it is done.
#[derive(Debug, clap::Args)]
pub(super) struct Unkeep {
    /// The updates' names; they need not be defined any more
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// How long to try, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,

    /// On this database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,

    #[command(flatten)]
    address: Address,

    #[command(flatten)]
    pub(super) json: Json,
}

impl Unkeep {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut results = Results::new(&self.json);
        let outcome = self.unkeep(context, &mut results).await;
        results.end(outcome)
    }

    async fn unkeep(&self, context: &Context, results: &mut Results) -> Result<(), CliError> {
        if let Some(host) = self.address.host()? {
            return host.unkeep(&self.names, self.database.as_deref(), results).await;
        }
        let config = context.config()?;
        let mut met = BTreeSet::new();
        for database in selected(&config, self.database.as_deref())? {
            let opened = wiring::open(database)?;
            let done = self.unkeep_on(&*opened, &database.name, &mut met, results).await;
            opened.close().await;
            done?;
        }
        match self.names.iter().find(|name| !met.contains(*name)) {
            Some(name) => Err(CliError::failure(format!("no trigger keeps the rows of update \"{name}\""))
                .hint("`tidegate status` shows what is kept")),
            None => Ok(()),
        }
    }

    async fn unkeep_on(
        &self,
        opened: &dyn Database,
        database: &str,
        met: &mut BTreeSet<String>,
        results: &mut Results,
    ) -> Result<(), CliError> {
        for name in &self.names {
            match self.try_for_a_while(opened, name).await {
                Ok(_) => {
                    results.done(database, name, Did::Unkept)?;
                    met.insert(name.clone());
                }
                Err(Refusal::NotKept(_)) => {}
                Err(error @ Refusal::StillQueued(_)) => {
                    return Err(CliError::failure(format!("{error} on {database}"))
                        .hint(format!("wait for it, or take it out first: `tidegate cancel {name}`")));
                }
                Err(error) => {
                    let refused = format!("cannot drop triggers of database \"{database}\"");
                    return Err(CliError::failure(refused).because_refused(error));
                }
            }
        }
        Ok(())
    }

    async fn try_for_a_while(&self, opened: &dyn Database, name: &str) -> Result<Vec<Keep>, Refusal> {
        const LONGEST_PAUSE: Duration = Duration::from_secs(2);
        let begun = Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            match Operations::on(opened).unkeep(name).await {
                Err(Refusal::Database(error))
                    if error.class == ErrorClass::Transient && begun.elapsed().as_secs() < self.wait =>
                {
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }
}
