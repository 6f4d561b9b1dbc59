//! `tidegate verify`.

use tidegate::scheduler::database::{Begin, Database, NewRow, QueueRow};
use tidegate::scheduler::operations::{Did, Operations, Refusal};
use tidegate::update::{Handler, Progress, VERIFY, verification};
use tidegate_config::Config;

use super::enqueue::{selected, undefined};
use super::error::CliError;
use super::results::{Json, Results, done};
use super::{Context, wiring};

/// Have the rows of updates looked at again, and find those that are not as the definition says
///
/// A host does it, in batches and at the pace of its controller, as with the update itself; `tidegate status` shows how far
/// it is. Where a row is wrong the update stays in the queue, quarantined, and its progress names the first keys. An update
/// that is still at work is left alone.
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The updates' names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// Do the rows that are wrong again
    #[arg(long)]
    repair: bool,

    /// On this database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,

    #[command(flatten)]
    pub(super) json: Json,
}

impl Verify {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut results = Results::new(&self.json);
        let outcome = self.verify(context, &mut results).await;
        results.end(outcome)
    }

    async fn verify(&self, context: &Context, results: &mut Results) -> Result<(), CliError> {
        let config = context.config()?;
        let databases = selected(&config, self.database.as_deref())?;
        let is_defined =
            |name: &&String| databases.iter().any(|on| config.updates_of(&on.name).any(|update| update.name == **name));
        if let Some(name) = self.names.iter().find(|name| !is_defined(name)) {
            return Err(undefined(name, &config, &databases));
        }
        for database in &databases {
            self.verify_on(&config, database, results).await?;
        }
        Ok(())
    }

    /// Queues those that are defined for one database.
    async fn verify_on(
        &self,
        config: &Config,
        database: &tidegate_config::Database,
        results: &mut Results,
    ) -> Result<(), CliError> {
        let defined: Vec<_> =
            config.updates_of(&database.name).filter(|update| self.names.contains(&update.name)).collect();
        if defined.is_empty() {
            return Ok(());
        }
        let refused = || CliError::failure(format!("cannot verify updates on database \"{}\"", database.name));
        let opened = wiring::acting(database)?;
        opened.prepare().await.map_err(|error| refused().because_of_database(error))?;
        // Nothing is queued unless everything can be.
        for update in &defined {
            let handler = wiring::handler(update, database);
            refuse_unverifiable(&*opened, &*handler, &update.name, &refused).await?;
        }
        let queue = opened.queue().await.map_err(|error| refused().because_of_database(error))?;
        for update in &defined {
            let row = queue.rows.iter().find(|row| row.update_name == update.name);
            let name = &update.name;
            let did = match row {
                None => self.enqueue(&*opened, name).await,
                Some(row) => self.begin_anew(&*opened, row).await.map_err(Refusal::Database),
            };
            let did = did.map_err(|error| refused().because_refused(error))?;
            let said = if did == Did::Queued { self.queued() } else { ALREADY };
            let line = format!("{name}: {said} on {}", database.name);
            results.tell_as(&done(&database.name, Some(name), did), &line)?;
        }
        opened.close().await;
        Ok(())
    }

    async fn enqueue(&self, database: &dyn Database, name: &str) -> Result<Did, Refusal> {
        let row = NewRow {
            update_name: name.to_owned(),
            progress: verification(self.repair).to_json(),
            depends_on: None,
            ordering: 0,
        };
        let queued = Operations::on(database).enqueue(&[row]).await?;
        Ok(queued.first().copied().unwrap_or(Did::AlreadyQueued))
    }

    /// Has a look at its rows that is in the queue begin again; leaves alone what is still at work on them.
    async fn begin_anew(&self, database: &dyn Database, row: &QueueRow) -> Result<Did, tidegate::update::SqlError> {
        let is_look = Progress::parse(&row.progress).is_ok_and(|progress| progress.0.contains_key(VERIFY));
        let quarantined = row.failure.as_ref().is_some_and(|failure| failure.quarantined);
        if !is_look || !quarantined {
            return Ok(Did::AlreadyQueued);
        }
        match database.begin(&row.update_name, &row.progress).await? {
            Begin::Moved(_) => return Ok(Did::AlreadyQueued),
            Begin::Failed(error) => return Err(error),
            Begin::Ready(transaction) => transaction.commit(Some(&verification(self.repair).to_json())).await?,
        }
        database.forget_failures(&row.update_name).await?;
        Ok(Did::Queued)
    }

    fn queued(&self) -> &'static str {
        match self.repair {
            true => "queued, to look at its rows and do again those that are wrong,",
            false => "queued, to look at its rows,",
        }
    }
}

const ALREADY: &str = "still at work, and left as it is,";

async fn refuse_unverifiable(
    database: &dyn Database,
    handler: &dyn Handler,
    name: &str,
    refused: &dyn Fn() -> CliError,
) -> Result<(), CliError> {
    let mut session = database.inspect().await.map_err(|error| refused().because_of_database(error))?;
    let problem = handler.unverifiable(session.as_sql()).await;
    match problem.map_err(|error| refused().because(error))? {
        Some(problem) => Err(CliError::usage(format!("update \"{name}\": {}", problem.message)).hint(problem.hint)),
        None => Ok(()),
    }
}
