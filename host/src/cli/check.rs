//! `tidegate check`.

use tidegate::config::{Config, Diagnostic};
use tidegate::update::UpdateError;

use super::error::CliError;
use super::{Context, output, wiring};

/// Check the configuration, the controllers that it names, and the updates that it defines against the databases
#[derive(Debug, clap::Args)]
pub(super) struct Check {}

impl Check {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let config = context.config()?;
        let mut problems = controllers(&config).await;
        let mut failures = Vec::new();
        for database in &config.databases {
            match definitions(&config, database).await {
                Ok(found) => problems.extend(found),
                Err(failure) => failures.push(failure),
            }
        }
        if !problems.is_empty() {
            problems.sort_by_key(|problem| problem.position);
            failures.push(CliError::configuration(problems));
        }
        // Everything is told; a configuration that is known to be wrong counts for more than what is not known.
        if let Some(last) = failures.pop() {
            failures.iter().for_each(CliError::print);
            return Err(last);
        }
        output::print(&format!(
            "{} is in order: {}, {}, {}",
            config.path.display(),
            number(config.databases.len(), "database"),
            number(config.controllers.len(), "controller"),
            number(config.updates.len(), "update"),
        ))
    }
}

/// Loads every controller.
async fn controllers(config: &Config) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    for controller in &config.controllers {
        if let Err(fault) = wiring::controller(controller).await {
            let message = format!("controller \"{}\": {fault}", controller.name);
            let hint = fault.kind.hint().to_owned();
            problems.push(config.diagnostic(controller.places.of("path"), message, Some(hint)));
        }
    }
    problems
}

/// Holds every definition against its database.
async fn definitions(config: &Config, database: &tidegate::config::Database) -> Result<Vec<Diagnostic>, CliError> {
    let refused = |error: UpdateError| {
        let failure = CliError::failure(format!("cannot check the updates of database \"{}\"", database.name));
        match error {
            UpdateError::Sql(error) => failure.because_of_database(error),
            other => failure.because(other),
        }
    };
    let opened = wiring::open(database)?;
    let mut session = opened.inspect().await.map_err(|error| refused(error.into()))?;
    let mut problems = Vec::new();
    for update in config.updates_of(&database.name) {
        for problem in wiring::handler(update, database).check(session.as_sql()).await.map_err(refused)? {
            let message = format!("update \"{}\" on database \"{}\": {}", update.name, database.name, problem.message);
            problems.push(config.diagnostic(update.places.of(problem.field), message, Some(problem.hint)));
        }
    }
    drop(session);
    opened.close().await;
    Ok(problems)
}

fn number(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
