//! `tidegate run`.

mod bars;
mod display;
mod keys;
mod news;
mod pace;
mod plain;
mod words;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use indicatif::MultiProgress;
use serde::Serialize;
use tidegate::config::{self, Config};
use tidegate::controller::{BuiltIn, Fallback, Policy, SupervisorSettings};
use tidegate::scheduler::{End, Handlers, Host, Settings, Summary, Workload};
use tokio::signal::unix::{SignalKind, signal};

use self::keys::Unechoed;
use super::error::CliError;
use super::{Context, output, wiring};

/// Work on the queues of all databases until told to stop
///
/// SIGINT and SIGTERM stop it: the batches that run get `shutdown_grace_ms`, then are rolled back. A second signal ends
/// the process at once, which is as safe, and may leave a statement running on a server for a while.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// Stop when nothing can run any more: exit code 0 where the queues are empty, 3 where rows remain
    #[arg(long)]
    until_done: bool,

    /// Print JSON when it ends: an object with `version` (1) and `databases`, each with how its work ended
    #[arg(long)]
    pub(super) json: bool,
}

impl Run {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let config = context.config()?;
        let host = host(&config, self.until_done).await?;
        let keys = Arc::new(Unechoed::new());
        let shutdown = shutdown(context.bars.clone(), keys.clone())
            .map_err(|error| CliError::failure("cannot listen for signals").because(error))?;
        let display = display::show(host.events().subscribe(), context.bars.clone());
        let summaries = host.run(shutdown).await;
        // The host is gone and with it the stream of events, so that the display ends after the last one.
        let _ = display.await;
        keys.restore();
        if self.json {
            output::print_json(&Report::new(&summaries))?;
        }
        conclude(&summaries)
    }
}

/// How the work ended: the shape of the JSON.
#[derive(Serialize)]
struct Report<'a> {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    /// In the configuration's order.
    databases: Vec<DatabaseEnd<'a>>,
}

#[derive(Serialize)]
struct DatabaseEnd<'a> {
    name: &'a str,
    /// "done" where nothing can run any more, "stopped" where the host was told to stop, "failed".
    end: &'static str,
    /// What remains in the queue and cannot run, where nothing can.
    remaining: Vec<Remaining<'a>>,
    /// Why the database could not be worked on.
    error: Option<String>,
}

#[derive(Serialize)]
struct Remaining<'a> {
    name: &'a str,
    /// Why it cannot run.
    reason: &'a str,
}

impl<'a> Report<'a> {
    fn new(summaries: &'a [Summary]) -> Self {
        let databases = summaries.iter().map(|Summary { database, end }| {
            let (end, remaining, error) = match end {
                End::Stopped => ("stopped", &[][..], None),
                End::Done { remaining } => ("done", &remaining[..], None),
                End::Failed(error) => ("failed", &[][..], Some(error.to_string())),
            };
            let remaining = remaining.iter().map(|(name, reason)| Remaining { name, reason }).collect();
            DatabaseEnd { name: database, end, remaining, error }
        });
        Self { version: 1, databases: databases.collect() }
    }
}

/// A host as the configuration describes it.
async fn host(config: &Config, until_done: bool) -> Result<Host, CliError> {
    let mut policies = HashMap::new();
    for controller in &config.controllers {
        policies.insert(controller.name.as_str(), policy(controller).await);
    }
    let mut workloads = Vec::new();
    for database in &config.databases {
        let controller = config.controller_of(&database.name);
        workloads.push(Workload {
            name: database.name.clone(),
            database: wiring::open(database)?,
            handlers: handlers(config, database),
            policy: controller.and_then(|used| policies.get(used.name.as_str()).cloned()).unwrap_or(Policy::BuiltIn),
            supervision: supervision(&config.background_updates, controller),
        });
    }
    let background = &config.background_updates;
    let settings = Settings {
        poll_interval: background.poll_interval,
        max_batch_size: background.max_batch_size.into(),
        max_attempts: background.max_attempts,
        shutdown_grace: background.shutdown_grace,
        until_done,
        ..Settings::new(wiring::holder())
    };
    Ok(Host::new(workloads, settings))
}

fn handlers(config: &Config, database: &config::Database) -> Handlers {
    let updates = config.updates_of(&database.name);
    updates.map(|update| (update.name.clone(), wiring::handler(update, database))).collect()
}

/// A controller, or why there is none: its fallback takes over then, which the host tells.
async fn policy(controller: &config::Controller) -> Policy {
    match wiring::controller(controller).await {
        Ok(source) => Policy::Controller(source),
        Err(fault) => Policy::Broken { name: controller.name.clone(), fault },
    }
}

fn supervision(background: &config::BackgroundUpdates, controller: Option<&config::Controller>) -> SupervisorSettings {
    let sleep = background.sleep_enabled.then_some(background.sleep_duration);
    SupervisorSettings {
        builtin: BuiltIn { sleep, target: background.target_duration },
        fallback: controller.map_or(Fallback::Default, |controller| controller.fallback),
        max_faults: controller.map_or(SupervisorSettings::default().max_faults, |controller| controller.max_faults),
        max_target: background.max_target_duration,
        default_batch_size: background.default_batch_size,
        min_batch_size: background.min_batch_size,
    }
}

/// Resolves at the first signal to stop; at the second the process ends.
fn shutdown(bars: MultiProgress, keys: Arc<Unechoed>) -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        let first = tokio::select! {
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "told to terminate",
        };
        bars.suspend(|| output::line(&format!("{first}: ending the batches that run; once more to end at once")));
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            /// What a shell reports of a process that SIGINT ended.
            const INTERRUPTED: i32 = 130;
            keys.restore();
            std::process::exit(INTERRUPTED);
        });
    })
}

/// What the process ends with.
fn conclude(summaries: &[Summary]) -> Result<(), CliError> {
    let mut remaining = Vec::new();
    for Summary { database, end } in summaries {
        match end {
            End::Failed(error) => {
                return Err(CliError::failure(format!("cannot work on database \"{database}\""))
                    .because_of_database(error.clone()));
            }
            End::Done { remaining: rows } => {
                remaining.extend(rows.iter().map(|(name, reason)| format!("{name} on {database}: {reason}")));
            }
            End::Stopped => {}
        }
    }
    match remaining.len() {
        0 => Ok(()),
        count => {
            let rows = if count == 1 { "1 row remains".to_owned() } else { format!("{count} rows remain") };
            Err(CliError::rows_remain(format!("{rows} that cannot run"), remaining)
                .hint("mend what the reasons name; what is quarantined then waits for `tidegate retry`"))
        }
    }
}
