//! `tidegate pause` and `tidegate resume`.

use std::time::SystemTime;

use tidegate::scheduler::database::{Pause as Stored, unix_ms};
use tidegate::scheduler::withdrawal::{Running, in_one_go};
use tidegate::update::ErrorClass;

use super::enqueue::selected;
use super::error::CliError;
use super::remote::Address;
use super::results::{Json, Results};
use super::{Context, wiring};

/// Start no more batches until `resume`, restarts and takeovers included; a batch that runs is finished
#[derive(Debug, clap::Args)]
pub(super) struct Pause {
    /// On this database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,

    /// Why, for whoever looks at `status`
    #[arg(long)]
    reason: Option<String>,

    #[command(flatten)]
    address: Address,

    #[command(flatten)]
    pub(super) json: Json,
}

/// Lift a pause
#[derive(Debug, clap::Args)]
pub(super) struct Resume {
    /// On this database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,

    #[command(flatten)]
    address: Address,

    #[command(flatten)]
    pub(super) json: Json,
}

impl Pause {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut results = Results::new(&self.json);
        let outcome = self.pause(context, &mut results).await;
        results.end(outcome)
    }

    async fn pause(self, context: &Context, results: &mut Results) -> Result<(), CliError> {
        if let Some(host) = self.address.host()? {
            return host.pause(self.database.as_deref(), self.reason, results).await;
        }
        let pause = Stored { since_ms: unix_ms(SystemTime::now()), reason: self.reason };
        store(context, self.database.as_deref(), Some(&pause), results).await
    }
}

impl Resume {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut results = Results::new(&self.json);
        let outcome = self.resume(context, &mut results).await;
        results.end(outcome)
    }

    async fn resume(&self, context: &Context, results: &mut Results) -> Result<(), CliError> {
        match self.address.host()? {
            Some(host) => host.resume(self.database.as_deref(), results).await,
            None => store(context, self.database.as_deref(), None, results).await,
        }
    }
}

/// Stores a pause, or that there is none, on each database meant.
async fn store(
    context: &Context,
    name: Option<&str>,
    pause: Option<&Stored>,
    results: &mut Results,
) -> Result<(), CliError> {
    let config = context.config()?;
    for database in selected(&config, name)? {
        let running = store_on(database, pause).await?;
        let word = if pause.is_some() { "paused" } else { "resumed" };
        let goes_on = |name| {
            format!("; update {name} runs in one go and goes on to its end, unless `tidegate cancel {name}` ends it")
        };
        let but: String = running.iter().filter(|_| pause.is_some()).map(goes_on).collect();
        results.tell(&database.name, None, word, &format!("{}: {word}{but}", database.name))?;
    }
    Ok(())
}

/// Stores it on one database. Returns the updates that a host runs in one go there at this moment.
async fn store_on(database: &tidegate_config::Database, pause: Option<&Stored>) -> Result<Vec<String>, CliError> {
    let word = if pause.is_some() { "pause" } else { "resume" };
    let refused = || CliError::failure(format!("cannot {word} database \"{}\"", database.name));
    let opened = wiring::open(database)?;
    opened.prepare().await.map_err(|error| refused().because_of_database(error))?;
    let stored = opened.set_pause(pause).await;
    let queue = opened.look().await.map_err(|error| refused().because_of_database(error))?.unwrap_or_default();
    let running = in_one_go(&*opened, &queue).await.map_err(|error| refused().because_of_database(error))?;
    if let Err(error) = stored {
        return Err(match running.first() {
            // SQLite lets nobody write meanwhile.
            Some(Running { update_name, since }) if error.class == ErrorClass::Transient => CliError::failure(format!(
                "cannot {word} database \"{}\": update \"{update_name}\" runs in one go {since}, and nobody can write meanwhile",
                database.name
            ))
            .hint("ask the host itself, with `--address`, or wait until it is done"),
            _ => refused().because_of_database(error),
        });
    }
    opened.close().await;
    Ok(running.into_iter().map(|running| running.update_name).collect())
}
