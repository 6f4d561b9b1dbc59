//! From what a configuration says of signals to what samples them.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate::config::{self, Config, Databases, OwnSignal, SignalSource};
use tidegate::database::{self, SamplerOptions, TableInHand};
use tidegate::scheduler::board::Board;
use tidegate::signal::{Definition, File, HostLoad, Http, Sampler, Schedule, Scope, Task};
use tidegate::update::sql::TableName;

use super::error::CliError;
use super::wiring;

/// Which update is in hand, asked with the database's name.
pub(super) type InHand = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The update that a host has in hand.
pub(super) fn on(board: Board) -> InHand {
    Arc::new(move |database| {
        board.read(|databases| Some(databases.get(database)?.in_hand().next()?.update_name.clone()))
    })
}

/// What a host samples: nothing of a database whose signals nobody can read.
pub(super) fn of_host(config: &Config, in_hand: &InHand) -> Result<Vec<Task>, CliError> {
    let is_read = |name: &str| config.admin.is_some() || config.controller_of(name).is_some();
    let databases = config.databases.iter().filter(|database| is_read(&database.name));
    tasks(config, &databases.collect::<Vec<_>>(), in_hand)
}

/// What is sampled of these databases.
pub(super) fn tasks(config: &Config, databases: &[&config::Database], in_hand: &InHand) -> Result<Vec<Task>, CliError> {
    if !config.sampling.enabled || databases.is_empty() {
        return Ok(Vec::new());
    }
    let schedule = config.sampling.schedule;
    let mut tasks = vec![Task { scope: Scope::Host, sampler: Box::new(HostLoad), schedule }];
    for database in databases {
        tasks.extend(built_in(config, database, in_hand)?);
    }
    for signal in &config.signals {
        tasks.extend(own(signal, databases)?);
    }
    Ok(tasks)
}

/// What every database is measured by.
fn built_in(config: &Config, database: &config::Database, in_hand: &InHand) -> Result<Vec<Task>, CliError> {
    let options = SamplerOptions {
        timeout: config.sampling.schedule.timeout,
        probe_writes: config.sampling.probe_writes,
        table_in_hand: table_in_hand(config, &database.name, in_hand.clone()),
    };
    let (url, access) = wiring::access(database);
    let samplers = database::samplers(&url, &access, &options).map_err(|error| wiring::unusable(database, error))?;
    let task = |sampler| Task { scope: Scope::database(&database.name), sampler, schedule: config.sampling.schedule };
    Ok(samplers.into_iter().map(task).collect())
}

/// The table that the update in hand is about.
fn table_in_hand(config: &Config, database: &str, in_hand: InHand) -> TableInHand {
    let tables =
        config.updates_of(database).filter_map(|update| Some((update.name.clone(), update.kind.table()?.clone())));
    let tables: HashMap<String, TableName> = tables.collect();
    let database = database.to_owned();
    Arc::new(move || tables.get(&in_hand(&database)?).cloned())
}

/// What a signal of the operator's own is sampled by: a query on each database by itself, all else once for all.
fn own(signal: &OwnSignal, databases: &[&config::Database]) -> Result<Vec<Task>, CliError> {
    let OwnSignal { name, unit, schedule, .. } = signal;
    let definition = |source: &str| Definition { name: name.clone(), unit: unit.clone(), source: source.to_owned() };
    let meant = databases.iter().filter(|database| signal.databases.include(&database.name));
    let meant: Vec<&config::Database> = meant.copied().collect();
    let once = |sampler: Box<dyn Sampler>| Task { scope: scope(signal, &meant), sampler, schedule: *schedule };
    if meant.is_empty() {
        return Ok(Vec::new());
    }
    Ok(match &signal.source {
        SignalSource::Sql(query) => {
            let task = |database: &&config::Database| query_on(database, definition("a query"), query, *schedule);
            return meant.iter().map(task).collect();
        }
        SignalSource::Http { address, token, part } => {
            let token = token.as_ref().map(|token| token.reveal().to_owned());
            let asked = (address.clone(), token);
            let limit = schedule.timeout;
            vec![once(Box::new(Http::new(definition("HTTP"), client()?, asked, part.clone(), limit)))]
        }
        SignalSource::File(path) => {
            vec![once(Box::new(File::new(definition(&path.display().to_string()), path.clone())))]
        }
    })
}

fn query_on(
    database: &config::Database,
    definition: Definition,
    query: &str,
    schedule: Schedule,
) -> Result<Task, CliError> {
    let (url, access) = wiring::access(database);
    let sampler = database::sql_sampler(&url, &access, definition, query, schedule.timeout);
    let sampler = sampler.map_err(|error| wiring::unusable(database, error))?;
    Ok(Task { scope: Scope::database(&database.name), sampler, schedule })
}

fn scope(signal: &OwnSignal, meant: &[&config::Database]) -> Scope {
    match &signal.databases {
        Databases::All => Scope::Host,
        Databases::Named(_) => Scope::Databases(meant.iter().map(|database| database.name.clone()).collect()),
    }
}

/// A client of its own for each signal, so that none waits for another's connections.
fn client() -> Result<reqwest::Client, CliError> {
    // Somebody has to do the cryptography of https; an error only says that this was settled before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // What a server says of another is not followed: an address, and what stands in it, is told to one server only.
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).referer(false);
    client.build().map_err(|error| CliError::failure("cannot ask over HTTP").because(error))
}
