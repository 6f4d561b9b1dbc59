//! `tidegate history`.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use tidegate::config::{self, Config};
use tidegate::scheduler::database::{Record, unix_ms};

use super::enqueue::selected;
use super::error::CliError;
use super::remote::{Address, Remote};
use super::{Context, output, wiring};

/// Show an update's last iterations: what was asked for and done, how long it was to take and took, what held it
#[derive(Debug, clap::Args)]
pub(super) struct History {
    /// The update's name
    name: String,

    /// On this database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,

    /// Iterations to show of each database, the newest
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,

    /// Print JSON: an object with `version` (1) and `databases`, each with its iterations, the newest first
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    address: Address,
}

#[derive(Serialize)]
struct Report {
    version: u32,
    databases: Vec<DatabaseHistory>,
}

#[derive(Serialize)]
struct DatabaseHistory {
    name: String,
    iterations: Vec<Record>,
}

impl History {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut databases = match self.address.host()? {
            Some(host) => self.of_host(&host).await?,
            None => self.of_databases(&context.config()?).await?,
        };
        if self.json {
            return output::print_json(&Report { version: 1, databases });
        }
        databases.retain(|database| !database.iterations.is_empty());
        if databases.is_empty() {
            return Err(CliError::failure(format!("no iteration of \"{}\" in the last seven days", self.name))
                .hint("`tidegate status` shows what is queued"));
        }
        let now = unix_ms(SystemTime::now());
        let parts: Vec<String> = databases.iter().map(|database| render(database, now)).collect();
        output::print(&parts.join("\n\n"))
    }

    async fn of_databases(&self, config: &Config) -> Result<Vec<DatabaseHistory>, CliError> {
        let mut databases = Vec::new();
        for database in selected(config, self.database.as_deref())? {
            let iterations = self.of(database).await?;
            databases.push(DatabaseHistory { name: database.name.clone(), iterations });
        }
        Ok(databases)
    }

    async fn of_host(&self, host: &Remote) -> Result<Vec<DatabaseHistory>, CliError> {
        let mut databases = Vec::new();
        for database in host.databases(self.database.as_deref()).await? {
            let iterations = host.history(&database.name, &self.name, self.limit).await?;
            databases.push(DatabaseHistory { name: database.name, iterations });
        }
        Ok(databases)
    }

    /// The iterations that one database keeps.
    async fn of(&self, database: &config::Database) -> Result<Vec<Record>, CliError> {
        let refused = || CliError::failure(format!("cannot read the history of database \"{}\"", database.name));
        let opened = wiring::open(database)?;
        let records = opened.history(Some(&self.name), self.limit).await;
        opened.close().await;
        records.map_err(|error| refused().because_of_database(error))
    }
}

fn render(database: &DatabaseHistory, now_ms: i64) -> String {
    let mut table = output::table(&["AGO", "ASKED", "DONE", "TARGET", "TOOK", "HELD", "CONTROLLER", "OUTCOME"]);
    for record in &database.iterations {
        table.add_row([
            output::duration(Duration::from_millis(now_ms.saturating_sub(record.started_ms).try_into().unwrap_or(0))),
            output::count(record.batch_size),
            output::count(record.items),
            record.target_ms.map_or_else(|| "one-shot".to_owned(), |ms| output::duration(Duration::from_millis(ms))),
            output::duration(milliseconds(record.duration_ms)),
            held(record),
            record.controller.clone(),
            outcome(record),
        ]);
    }
    format!("{}\n{}", database.name, table.trim_fmt())
}

fn held(record: &Record) -> String {
    match &record.wait_reason {
        Some(reason) => format!("{} ({reason})", output::duration(milliseconds(record.waited_ms))),
        None => String::new(),
    }
}

fn outcome(record: &Record) -> String {
    match &record.error {
        Some(error) => format!("{}: {error}", record.outcome),
        None => record.outcome.clone(),
    }
}

fn milliseconds(milliseconds: f64) -> Duration {
    Duration::try_from_secs_f64(milliseconds / 1e3).unwrap_or_default()
}
