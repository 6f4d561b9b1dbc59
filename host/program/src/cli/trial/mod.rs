//! `tidegate try`.

mod attempt;
mod place;
mod refused;
mod render;
mod report;

use std::time::Duration;

use tidegate::scheduler::database::Database;
use tidegate::update::{Budget, Handler, Problem, Progress};
use tidegate_config::Config;

use super::enqueue::selected;
use super::error::CliError;
use super::{Context, output, wiring};
use attempt::{Attempt, Tried};
use place::Place;
use report::{Report, Told};

/// Do batches of an update in transactions that are rolled back, and show what they change, lock and cost
///
/// Nothing stays changed: neither rows nor the queue, and no host is disturbed. Whether the update is queued does not
/// matter, nor whether a host runs.
#[derive(Debug, clap::Args)]
pub(super) struct Try {
    /// The update's name
    name: String,

    /// On this database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,

    /// Rows of each batch
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rows: u64,

    /// How far into the table batches begin: parts such as "0%", or "random"
    #[arg(long, value_name = "PLACES", value_delimiter = ',', default_value = "0%,50%,random")]
    at: Vec<Place>,

    /// What chooses the random places: the same ones for the same number
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Give a batch up that takes longer than so many milliseconds: so long it may keep others waiting
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    limit_ms: u64,

    /// Print JSON: an object with `version` (1) and `tried`, a member for each database
    #[arg(long)]
    pub(super) json: bool,
}

impl Try {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let config = context.config()?;
        let mut report = Report { version: 1, tried: Vec::new() };
        for database in self.databases(&config)? {
            let Some(update) = config.updates_of(&database.name).find(|update| update.name == self.name) else {
                continue;
            };
            let handler = wiring::handler(update, database);
            let opened = wiring::open(database)?;
            let told = self.on(&*opened, &*handler, &database.name).await;
            opened.close().await;
            report.tried.push(told?);
        }
        if self.json {
            return output::print_json(&report);
        }
        let parts: Vec<String> = report.tried.iter().map(render::told).collect();
        output::print(&parts.join("\n\n"))
    }

    /// The databases on which something defines the update.
    fn databases<'a>(&self, config: &'a Config) -> Result<Vec<&'a tidegate_config::Database>, CliError> {
        let mut databases = selected(config, self.database.as_deref())?;
        let all: Vec<&str> = databases
            .iter()
            .flat_map(|database| config.updates_of(&database.name))
            .map(|update| update.name.as_str())
            .collect();
        databases.retain(|database| config.updates_of(&database.name).any(|update| update.name == self.name));
        if databases.is_empty() {
            let hint = match output::nearest(&self.name, all.into_iter()) {
                Some(nearest) => format!("did you mean \"{nearest}\"?"),
                None => "define it with [[update]]".to_owned(),
            };
            return Err(CliError::usage(format!("nothing defines update \"{}\"", self.name)).hint(hint));
        }
        Ok(databases)
    }

    /// Tries it on one database.
    async fn on(&self, opened: &dyn Database, handler: &dyn Handler, database: &str) -> Result<Told, CliError> {
        let failed = || CliError::failure(format!("cannot try update \"{}\" on database \"{database}\"", self.name));
        let rows = {
            let mut session = opened.inspect().await.map_err(|error| failed().because_of_database(error))?;
            let problems = handler.check(session.as_sql()).await.map_err(|error| because(failed(), error))?;
            if let Some(Problem { message, hint, .. }) = problems.into_iter().find(Problem::is_error) {
                return Err(CliError::usage(format!(
                    "update \"{}\" cannot run on database \"{database}\": {message}",
                    self.name
                ))
                .hint(hint));
            }
            let estimate = handler.estimate(session.as_sql(), &Progress::default()).await;
            estimate.ok().flatten().map(|estimate| estimate.rows)
        };
        let attempt = Attempt { opened, handler, budget: Budget { items: self.rows }, limit: self.limit() };
        let (mut tried, mut whole) = (Vec::new(), false);
        for (number, place) in (0_u64..).zip(&self.at) {
            let at = place.part(self.seed, number);
            match attempt.at(at).await {
                Ok(Tried::Refused(Problem { message, hint, .. })) => {
                    return Err(failed().because(Words(message)).hint(hint));
                }
                Ok(Tried::Whole(done)) => {
                    tried.push((place.told(at), done));
                    whole = true;
                    break;
                }
                Ok(Tried::Batch(done)) => tried.push((place.told(at), done)),
                Err(attempt::Failed::Late) => {
                    let message = format!("it was given up after {} ms, and nothing of it stays", self.limit_ms);
                    return Err(failed().because(Words(message)).hint(
                        "try fewer rows (`--rows`), or longer (`--limit-ms`) where nobody minds waiting so long for rows \
                         that it has locked",
                    ));
                }
                Err(attempt::Failed::Update(error)) => {
                    let failed = failed().because(Words(format!("the batch at {} fails", place.told(at))));
                    return Err(because(failed, error));
                }
            }
        }
        Ok(Told::new(database, &self.name, whole, rows, tried))
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.limit_ms)
    }
}

/// A cause in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Words(String);

/// Adds why an update failed.
fn because(failed: CliError, error: tidegate::update::UpdateError) -> CliError {
    match error {
        tidegate::update::UpdateError::Sql(error) => failed.because_of_database(error),
        error => failed.because(Words(error.in_full())),
    }
}
