//! `tidegate status`.

mod render;
mod report;

use std::collections::HashMap;

use tidegate::config::{self, Config};
use tidegate::scheduler::database::{Database, Session};
use tidegate::update::sql::Estimate;
use tidegate::update::{Progress, SqlError};

use super::enqueue::selected;
use super::error::CliError;
use super::estimate::{RECENT, throughput};
use super::{Context, output, wiring};
use report::{DatabaseReport, Pace, Report, Snapshot};

/// Show every queue: who works on it, the state of each update, what holds it, how long it will take
///
/// It only reads: no table is made, and rights to read are enough.
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Print JSON: an object with `version` (1) and `databases`; a key's meaning never changes within a version
    #[arg(long)]
    pub(super) json: bool,

    /// This database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
}

impl Status {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let config = context.config()?;
        let mut databases = Vec::new();
        let mut unavailable = Ok(());
        for database in selected(&config, self.database.as_deref())? {
            databases.push(match look(&config, database).await? {
                Ok(report) => report,
                Err(error) => {
                    // The report tells why.
                    let failure = CliError::failure(format!("cannot look at database \"{}\"", database.name));
                    unavailable = unavailable.and(Err(failure.advised_on(&error)));
                    DatabaseReport::unavailable(database, error.to_string())
                }
            });
        }
        let report = Report::new(databases);
        match self.json {
            true => output::print_json(&report)?,
            false => output::print(&render::report(&report))?,
        }
        unavailable
    }
}

/// Looks at one database; the inner error is its own.
async fn look(config: &Config, database: &config::Database) -> Result<Result<DatabaseReport, SqlError>, CliError> {
    let opened = wiring::open(database)?;
    let seen = look_into(&*opened, config, database).await;
    opened.close().await;
    Ok(seen)
}

async fn look_into(
    opened: &dyn Database,
    config: &Config,
    database: &config::Database,
) -> Result<DatabaseReport, SqlError> {
    let Some(queue) = opened.look().await? else { return Ok(DatabaseReport::without_queue(database)) };
    let runner = opened.lease_holder().await?;
    // A host that cannot write cannot write down why.
    let obstacle = if runner.is_some() { opened.obstacle().await? } else { None };
    let defined: HashMap<&str, _> =
        config.updates_of(&database.name).map(|update| (update.name.as_str(), update)).collect();
    let mut paces: HashMap<String, Pace> = HashMap::new();
    for row in &queue.rows {
        let records = opened.history(Some(&row.update_name), RECENT).await?;
        // What is older is of an earlier update of that name.
        let of_this_row = records.iter().take_while(|record| record.outcome != "finished");
        paces.entry(row.update_name.clone()).or_default().items_per_ms = throughput(of_this_row);
    }
    // Last of all: on SQLite a session holds the one connection there is.
    let mut session = opened.inspect().await?;
    for row in &queue.rows {
        let Some(update) = defined.get(row.update_name.as_str()) else { continue };
        let estimate = estimate(session.as_mut(), update, database, &row.progress).await;
        paces.entry(row.update_name.clone()).or_default().estimate = estimate;
    }
    if obstacle.is_some() {
        // Whatever its pace was, it is none now.
        paces.values_mut().for_each(|pace| pace.items_per_ms = None);
    }
    let report = report::database(database, Snapshot { queue, runner, paces }, &|name| defined.contains_key(name));
    Ok(DatabaseReport { obstacle, ..report })
}

/// How far an update has come. An estimate that fails is none: whoever runs the update meets the same error, and
/// `check` tells it.
async fn estimate(
    session: &mut dyn Session,
    update: &config::Update,
    database: &config::Database,
    progress: &str,
) -> Option<Estimate> {
    let progress = Progress::parse(progress).ok()?;
    wiring::handler(update, database).estimate(session.as_sql(), &progress).await.unwrap_or_default()
}
