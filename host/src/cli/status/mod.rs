//! `tidegate status`.

mod render;
mod report;

use std::collections::HashMap;

use tidegate::config::{self, Config};
use tidegate::scheduler::database::Database;
use tidegate::update::{Progress, UpdateError};

use super::enqueue::selected;
use super::error::CliError;
use super::estimate::{RECENT, throughput};
use super::{Context, output, wiring};
use report::{DatabaseReport, Pace, Report, Snapshot};

/// Show every queue: who works on it, the state of each update, what holds it, how long it will take
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Print JSON: an object with `version` (1) and `databases`; a key's meaning never changes within a version
    #[arg(long)]
    json: bool,

    /// This database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
}

impl Status {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let config = context.config()?;
        let mut databases = Vec::new();
        for database in selected(&config, self.database.as_deref())? {
            databases.push(match look(&config, database).await {
                Ok(report) => report,
                Err(error) => DatabaseReport::unavailable(database, error.to_string()),
            });
        }
        let report = Report::new(databases);
        match self.json {
            true => output::print_json(&report)?,
            false => output::print(&render::report(&report))?,
        }
        let unavailable: Vec<_> = report.databases.iter().filter(|database| database.error.is_some()).collect();
        match unavailable.first() {
            Some(database) => Err(CliError::failure(format!("cannot look at database \"{}\"", database.name))),
            None => Ok(()),
        }
    }
}

/// Looks at one database.
async fn look(config: &Config, database: &config::Database) -> Result<DatabaseReport, UpdateError> {
    let opened = wiring::open(database).map_err(|error| UpdateError::Failed(error.to_string()))?;
    opened.prepare().await?;
    let queue = opened.queue().await?;
    let runner = opened.lease_holder().await?;
    // A host that cannot write cannot write down why.
    let obstacle = if runner.is_some() { opened.obstacle().await? } else { None };
    let defined: HashMap<&str, _> =
        config.updates_of(&database.name).map(|update| (update.name.as_str(), update)).collect();
    let mut paces = HashMap::new();
    for row in &queue.rows {
        let Some(update) = defined.get(row.update_name.as_str()) else { continue };
        let pace = pace(opened.as_ref(), update, database, &row.progress).await?;
        paces.insert(row.update_name.clone(), pace);
    }
    opened.close().await;
    let report = report::database(database, Snapshot { queue, runner, paces }, &|name| defined.contains_key(name));
    Ok(DatabaseReport { obstacle, ..report })
}

/// How far an update has come and how fast it goes. An estimate that fails is none: whoever runs the update meets the
/// same error, and `check` tells it.
async fn pace(
    opened: &dyn Database,
    update: &config::Update,
    database: &config::Database,
    progress: &str,
) -> Result<Pace, UpdateError> {
    let records = opened.history(Some(&update.name), RECENT).await?;
    let estimate = match Progress::parse(progress) {
        Ok(progress) => {
            // Only now: SQLite has one connection, which is the session's for as long as that is in use.
            let mut session = opened.session().await?;
            wiring::handler(update, database).estimate(session.as_sql(), &progress).await.unwrap_or_default()
        }
        Err(_) => None,
    };
    Ok(Pace { estimate, items_per_ms: throughput(records.iter()) })
}
