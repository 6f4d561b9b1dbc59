//! From what a configuration says of signals to what samples them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tidegate::scheduler::board::{Board, DatabaseBoard, Phase};
use tidegate::signal::{
    Definition, FOREGROUND_LATENCY, File, HostLoad, Http, Probing, Sampler, Schedule, Scope, Task, Work, Workers,
};
use tidegate::update::sql::TableName;
use tidegate_config::{Config, Databases, OwnSignal, SignalSource};
use tidegate_database::{SamplerOptions, TableInHand};

use super::error::CliError;
use super::wiring;

/// How often it is looked how many are at work.
const WORKERS_INTERVAL: Duration = Duration::from_millis(100);

/// Which update is in hand, asked with the database's name.
pub(super) type InHand = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What a host does, asked with a database's name.
#[derive(Clone)]
pub(super) struct Doing {
    in_hand: InHand,
    work: WorkOn,
    workers: WorkersOn,
}

/// How many work at once, asked with the database's name.
type WorkersOn = Arc<dyn Fn(&str) -> usize + Send + Sync>;

/// Whether a batch runs, asked with the database's name.
pub(super) type WorkOn = Arc<dyn Fn(&str) -> Work + Send + Sync>;

/// What a host does, by its board.
pub(super) fn on(board: Board) -> Doing {
    let (same, again) = (board.clone(), board.clone());
    Doing {
        in_hand: Arc::new(move |database| {
            board.read(|databases| Some(databases.get(database)?.in_hand().next()?.update_name.clone()))
        }),
        work: Arc::new(move |database| same.read(|databases| databases.get(database).map_or(Work::None, work))),
        workers: Arc::new(move |database| again.read(|databases| databases.get(database).map_or(0, workers))),
    }
}

/// What a host does on one database, in all of its lanes. What runs in one go is paced by nobody: it counts as what the
/// foreground is by itself.
fn work(database: &DatabaseBoard) -> Work {
    let works = database.in_hand().map(|in_hand| match in_hand.phase {
        Phase::Running { target: Some(_), .. } => Work::Batch,
        _ => Work::Between(SystemTime::now().duration_since(in_hand.phase_since).unwrap_or(Duration::ZERO)),
    });
    works.fold(Work::None, |one, other| match (one, other) {
        (Work::Batch, _) | (_, Work::Batch) => Work::Batch,
        (Work::None, work) | (work, Work::None) => work,
        (Work::Between(one), Work::Between(other)) => Work::Between(one.min(other)),
    })
}

fn workers(database: &DatabaseBoard) -> usize {
    database.in_hand().map(|in_hand| in_hand.workers).sum()
}

/// What a host samples: nothing of a database whose signals nobody can read.
pub(super) fn of_host(config: &Config, doing: &Doing) -> Result<Vec<Task>, CliError> {
    let everywhere = config.admin.is_some() || config.background_updates.gentle.is_some();
    let is_read = |name: &str| everywhere || config.controller_of(name).is_some();
    let databases = config.databases.iter().filter(|database| is_read(&database.name));
    tasks(config, &databases.collect::<Vec<_>>(), &doing.in_hand, Some(doing))
}

/// What is sampled of these databases; what the foreground feels only where it is known whether a batch runs.
pub(super) fn tasks(
    config: &Config,
    databases: &[&tidegate_config::Database],
    in_hand: &InHand,
    doing: Option<&Doing>,
) -> Result<Vec<Task>, CliError> {
    if !config.sampling.enabled || databases.is_empty() {
        return Ok(Vec::new());
    }
    let schedule = config.sampling.schedule;
    let mut tasks = vec![Task { scope: Scope::Host, sampler: Box::new(HostLoad), schedule }];
    for database in databases {
        tasks.extend(built_in(config, database, in_hand, doing)?);
    }
    for signal in &config.signals {
        tasks.extend(own(signal, databases)?);
    }
    Ok(tasks)
}

/// What every database is measured by.
fn built_in(
    config: &Config,
    database: &tidegate_config::Database,
    in_hand: &InHand,
    doing: Option<&Doing>,
) -> Result<Vec<Task>, CliError> {
    let schedule = config.sampling.schedule;
    let probing = doing.zip(config.sampling.probe_interval).map(|(doing, interval)| {
        let (work, name) = (doing.work.clone(), database.name.clone());
        Probing {
            interval,
            idle_interval: schedule.interval,
            work: Arc::new(move || work(&name)),
            waits_as_writers: config.sampling.probe_writes.is_none(),
        }
    });
    let options = SamplerOptions {
        timeout: config.sampling.schedule.timeout,
        probe_writes: config.sampling.probe_writes.unwrap_or(false),
        table_in_hand: table_in_hand(config, &database.name, in_hand.clone()),
        foreground: probing.clone(),
    };
    let (url, access) = wiring::access(database);
    let samplers =
        tidegate_database::samplers(&url, &access, &options).map_err(|error| wiring::unusable(database, error))?;
    let task = |sampler: Box<dyn Sampler>| {
        // The probe knows by itself how often it is to be done.
        let is_probe = sampler.definitions().iter().any(|signal| signal.name == FOREGROUND_LATENCY);
        let interval = probing.as_ref().filter(|_| is_probe).map_or(schedule.interval, |probing| probing.interval);
        Task { scope: Scope::database(&database.name), sampler, schedule: Schedule { interval, ..schedule } }
    };
    let mut tasks: Vec<Task> = samplers.into_iter().map(task).collect();
    if let Some(doing) = doing {
        let (workers, name) = (doing.workers.clone(), database.name.clone());
        // It costs nothing, and is to be right when it is read.
        let schedule = Schedule { interval: WORKERS_INTERVAL.min(schedule.interval), ..schedule };
        let sampler = Box::new(Workers::new(move || workers(&name)));
        tasks.push(Task { scope: Scope::database(&database.name), sampler, schedule });
    }
    Ok(tasks)
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
fn own(signal: &OwnSignal, databases: &[&tidegate_config::Database]) -> Result<Vec<Task>, CliError> {
    let OwnSignal { name, unit, schedule, .. } = signal;
    let definition = |source: &str| Definition { name: name.clone(), unit: unit.clone(), source: source.to_owned() };
    let meant = databases.iter().filter(|database| signal.databases.include(&database.name));
    let meant: Vec<&tidegate_config::Database> = meant.copied().collect();
    let once = |sampler: Box<dyn Sampler>| Task { scope: scope(signal, &meant), sampler, schedule: *schedule };
    if meant.is_empty() {
        return Ok(Vec::new());
    }
    Ok(match &signal.source {
        SignalSource::Sql(query) => {
            let task =
                |database: &&tidegate_config::Database| query_on(database, definition("a query"), query, *schedule);
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
    database: &tidegate_config::Database,
    definition: Definition,
    query: &str,
    schedule: Schedule,
) -> Result<Task, CliError> {
    let (url, access) = wiring::access(database);
    let sampler = tidegate_database::sql_sampler(&url, &access, definition, query, schedule.timeout);
    let sampler = sampler.map_err(|error| wiring::unusable(database, error))?;
    Ok(Task { scope: Scope::database(&database.name), sampler, schedule })
}

fn scope(signal: &OwnSignal, meant: &[&tidegate_config::Database]) -> Scope {
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
