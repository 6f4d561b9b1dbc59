//! `tidegate history`.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use tidegate::scheduler::database::unix_ms;
use tidegate_admin::api::view::{Iteration, SkippedKey};
use tidegate_config::Config;

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

    /// Iterations to show of each database, the newest; of rows that were skipped the first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,

    /// Show the rows that it skipped in place of its iterations: their keys, and what the database said of each
    #[arg(long)]
    skipped: bool,

    /// Print JSON: an object with `version` (1) and `databases`, each with its iterations, the newest first
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    address: Address,
}

/// The shape of the JSON.
#[derive(Serialize)]
struct HistoryReport {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    /// The update.
    update: String,
    /// In the configuration's order.
    databases: Vec<DatabaseHistory>,
}

#[derive(Serialize)]
struct DatabaseHistory {
    name: String,
    /// The newest first, each as the API tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    iterations: Option<Vec<Iteration>>,
    /// In the order of the keys' JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<Vec<SkippedKey>>,
}

impl History {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut databases = match self.address.host()? {
            Some(host) => self.of_host(&host).await?,
            None => self.of_databases(&context.config()?).await?,
        };
        if self.json {
            return output::print_json(&HistoryReport { version: 1, update: self.name, databases });
        }
        let is_empty = |database: &DatabaseHistory| match (&database.iterations, &database.skipped) {
            (Some(iterations), _) => iterations.is_empty(),
            (None, skipped) => skipped.as_ref().is_none_or(Vec::is_empty),
        };
        databases.retain(|database| !is_empty(database));
        if databases.is_empty() && self.skipped {
            return output::print(&format!("\"{}\" has skipped no row", self.name));
        }
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
            databases.push(self.of(database).await?);
        }
        Ok(databases)
    }

    async fn of_host(&self, host: &Remote) -> Result<Vec<DatabaseHistory>, CliError> {
        let mut databases = Vec::new();
        for database in host.databases(self.database.as_deref()).await? {
            let (iterations, skipped) = host.history(&database.name, &self.name, self.limit).await?;
            let (iterations, skipped) = if self.skipped { (None, Some(skipped)) } else { (Some(iterations), None) };
            databases.push(DatabaseHistory { name: database.name, iterations, skipped });
        }
        Ok(databases)
    }

    /// What one database keeps.
    async fn of(&self, database: &tidegate_config::Database) -> Result<DatabaseHistory, CliError> {
        let refused = || CliError::failure(format!("cannot read the history of database \"{}\"", database.name));
        let (name, opened) = (database.name.clone(), wiring::open(database)?);
        let told = if self.skipped {
            let skipped = opened.skipped(&self.name, None, self.limit).await;
            skipped.map(|keys| (None, Some(keys.into_iter().map(SkippedKey::from).collect())))
        } else {
            let records = opened.history(Some(&self.name), self.limit).await;
            records.map(|records| (Some(records.into_iter().map(Iteration::from).collect()), None))
        };
        opened.close().await;
        let (iterations, skipped) = told.map_err(|error| refused().because_of_database(error))?;
        Ok(DatabaseHistory { name, iterations, skipped })
    }
}

fn render_skipped(skipped: &[SkippedKey], now_ms: i64) -> String {
    let mut table = output::table(&["AGO", "KEY", "CODE", "MESSAGE"]);
    for SkippedKey { key, code, message, at_ms } in skipped {
        let age = now_ms.saturating_sub(*at_ms).try_into().unwrap_or(0);
        table.add_row([
            output::duration(Duration::from_millis(age)),
            output::inline(&key.join(", ")),
            output::inline(code.as_deref().unwrap_or_default()),
            output::inline(message),
        ]);
    }
    table.trim_fmt()
}

fn render(database: &DatabaseHistory, now_ms: i64) -> String {
    if let Some(skipped) = &database.skipped {
        return format!("{}\n{}", output::inline(&database.name), render_skipped(skipped, now_ms));
    }
    let mut table = output::table(&["AGO", "ASKED", "DONE", "TARGET", "TOOK", "HELD", "CONTROLLER", "OUTCOME"]);
    for iteration in database.iterations.iter().flatten() {
        let age = now_ms.saturating_sub(iteration.started_at_ms).try_into().unwrap_or(0);
        table.add_row([
            output::duration(Duration::from_millis(age)),
            output::count(iteration.items_asked),
            output::count(iteration.items_done),
            iteration.target_ms.map_or_else(|| "one-shot".to_owned(), |ms| output::duration(Duration::from_millis(ms))),
            output::duration(milliseconds(iteration.took_ms)),
            held(iteration),
            output::inline(&iteration.controller),
            outcome(iteration),
        ]);
    }
    format!("{}\n{}", output::inline(&database.name), table.trim_fmt())
}

fn held(iteration: &Iteration) -> String {
    match &iteration.held_reason {
        Some(reason) => format!("{} ({})", output::duration(milliseconds(iteration.held_ms)), output::inline(reason)),
        None => String::new(),
    }
}

fn outcome(iteration: &Iteration) -> String {
    let said: Vec<String> = iteration.error.iter().chain(&iteration.notes).map(|said| output::inline(said)).collect();
    match said.is_empty() {
        true => iteration.outcome.to_string(),
        false => format!("{}: {}", iteration.outcome, said.join("; ")),
    }
}

fn milliseconds(milliseconds: f64) -> Duration {
    Duration::try_from_secs_f64(milliseconds / 1e3).unwrap_or_default()
}
