//! `tidegate pause` and `tidegate resume`.

use tidegate::scheduler::operations::{Did, Operations, Refusal};
use tidegate_admin::api::view::Done;

use super::enqueue::selected;
use super::error::CliError;
use super::remote::Address;
use super::results::{Json, Results, done};
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
        on_each(context, self.database.as_deref(), Some(self.reason), results).await
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
            None => on_each(context, self.database.as_deref(), None, results).await,
        }
    }
}

/// Pauses or resumes each database meant.
async fn on_each(
    context: &Context,
    name: Option<&str>,
    pause: Option<Option<String>>,
    results: &mut Results,
) -> Result<(), CliError> {
    let config = context.config()?;
    let (word, did) = if pause.is_some() { ("pause", Did::Paused) } else { ("resume", Did::Resumed) };
    for database in selected(&config, name)? {
        let opened = wiring::acting(database)?;
        let operations = Operations::on(&*opened);
        let outcome = match &pause {
            Some(reason) => operations.pause(reason.clone()).await,
            None => operations.resume().await.map(|()| Vec::new()),
        };
        let goes_on = outcome.map_err(|error| match error {
            Refusal::Busy(_) => CliError::failure(format!("cannot {word} database \"{}\": {error}", database.name))
                .hint("ask the host itself, with `--address`, or wait until it is done"),
            error => CliError::failure(format!("cannot {word} database \"{}\"", database.name)).because_refused(error),
        })?;
        opened.close().await;
        results.tell(&Done { goes_on, ..done(&database.name, None, did) })?;
    }
    Ok(())
}
