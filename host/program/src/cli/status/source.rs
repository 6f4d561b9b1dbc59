//! Where `status` looks: at the databases of the configuration, or at a host.

use std::sync::Arc;

use tidegate::scheduler::database::Database;
use tidegate::scheduler::report::look;
use tidegate::scheduler::update_state::{LaneState, UpdateState};
use tidegate::update::SqlError;
use tidegate_admin::api::view::{self, Lease};
use tidegate_config::Config;

use super::super::enqueue::selected;
use super::super::error::CliError;
use super::super::remote::Remote;
use super::super::wiring;
use super::report::{
    self, ActivityReport, DatabaseReport, LaneReport, PauseReport, RetryReport, RunnerReport, SignalReport,
    StatusReport, UpdateReport,
};

/// Where to look.
pub(super) enum Source {
    /// At these databases.
    Databases(Box<Config>, Vec<(tidegate_config::Database, Arc<dyn Database>)>),
    /// At this host, at one database of it or at all.
    Host(Remote, Option<String>),
}

impl Source {
    /// The databases of a configuration: the one named, or all.
    pub(super) fn databases(config: Config, name: Option<&str>) -> Result<Self, CliError> {
        let selected: Vec<_> = selected(&config, name)?.into_iter().cloned().collect();
        let mut opened = Vec::new();
        for database in selected {
            let open = wiring::open(&database)?;
            opened.push((database, open));
        }
        Ok(Source::Databases(Box::new(config), opened))
    }

    /// What is to be seen now, and what kept a database from being looked at.
    pub(super) async fn report(&self) -> Result<(StatusReport, Result<(), CliError>), CliError> {
        let mut reports = Vec::new();
        let mut unavailable = Ok(());
        match self {
            Source::Databases(config, opened) => {
                for (database, opened) in opened {
                    reports.push(look_into(&**opened, config, database).await.unwrap_or_else(|error| {
                        // The report tells why.
                        note(&mut unavailable, unseen(&database.name).advised_on(&error));
                        DatabaseReport::unavailable(database, error.to_string())
                    }));
                }
            }
            Source::Host(host, name) => {
                for database in host.databases(name.as_deref()).await? {
                    let queue = host.queue(&database.name).await?;
                    if queue.is_err() {
                        note(&mut unavailable, unseen(&database.name));
                    }
                    let signals = host.signals(Some(&database.name)).await?;
                    let signals = signals.into_iter().filter_map(read).collect();
                    reports.push(DatabaseReport { signals, ..seen_by_host(database, queue) });
                }
            }
        }
        Ok((StatusReport::new(reports), unavailable))
    }

    /// Closes what is open.
    pub(super) async fn close(self) {
        let Source::Databases(_, opened) = self else { return };
        for (_, opened) in opened {
            opened.close().await;
        }
    }
}

fn unseen(database: &str) -> CliError {
    CliError::failure(format!("cannot look at database \"{database}\""))
}

/// Keeps the first failure.
fn note(outcome: &mut Result<(), CliError>, failure: CliError) {
    if outcome.is_ok() {
        *outcome = Err(failure);
    }
}

async fn look_into(
    opened: &dyn Database,
    config: &Config,
    database: &tidegate_config::Database,
) -> Result<DatabaseReport, SqlError> {
    let handlers = wiring::handlers(config, database);
    let snapshot = look(opened, &handlers).await?;
    // A host that cannot write cannot write down why, nor make its tables.
    let obstacle = opened.obstacle().await?;
    let Some(mut snapshot) = snapshot else {
        return Ok(DatabaseReport { obstacle, ..DatabaseReport::without_queue(database) });
    };
    if obstacle.is_some() {
        // Whatever its pace was, it is none now.
        snapshot.paces.values_mut().for_each(|pace| pace.items_per_ms = None);
    }
    let report = report::database(database, snapshot, &|name| handlers.contains_key(name));
    Ok(DatabaseReport { obstacle, ..report })
}

/// The report on a database of a host.
fn seen_by_host(database: view::Database, queue: Result<view::Queue, String>) -> DatabaseReport {
    let is_runner = database.lease == Lease::Runner;
    let lane = |lane: &view::Lane| LaneReport {
        lane: lane.lane.clone(),
        activity: activity(&database, lane.in_hand.as_ref(), &lane.controller, &lane.shadows),
    };
    let lanes = if is_runner { database.lanes.iter().map(lane).collect() } else { Vec::new() };
    let first = || activity(&database, database.in_hand.as_ref(), &database.controller, &database.shadows);
    let activity = is_runner.then(first);
    let (error, queue) = match queue {
        Ok(queue) => (None, queue),
        Err(error) => (Some(error), view::Queue::default()),
    };
    let pause = queue.pause.map(|pause| PauseReport { since_ms: pause.since_ms, reason: pause.reason });
    DatabaseReport {
        name: database.name,
        system: database.system,
        error,
        queue_table: database.queue_table,
        queue_table_exists: queue.queue_table_exists,
        runner: queue.runner.map(|view::Process { host, pid }| RunnerReport { host, pid }),
        obstacle: queue.obstacle,
        activity,
        lanes,
        last_fault: None,
        pause,
        updates: queue.updates.into_iter().map(UpdateReport::from).collect(),
        skipped: queue.skipped,
        signals: Vec::new(),
        kept: queue.kept,
    }
}

/// A signal that was read.
fn read(signal: view::Signal) -> Option<SignalReport> {
    let view::Signal { name, value, unit, age_ms, .. } = signal;
    Some(SignalReport { name, value: value?, unit, age_ms: age_ms? })
}

/// What the host does in a lane.
fn activity(
    database: &view::Database,
    in_hand: Option<&view::UpdateInHand>,
    controller: &view::DatabaseController,
    shadows: &[view::Shadow],
) -> ActivityReport {
    let state = match (in_hand, database.paused) {
        (Some(in_hand), _) => LaneState::Update(in_hand.state),
        (None, true) => LaneState::Update(UpdateState::Paused),
        (None, false) => LaneState::Idle,
    };
    let retry = controller.retry_update.clone().zip(controller.retry_at_ms);
    let retry = retry.map(|(update, at_ms)| RetryReport::new(update, at_ms));
    ActivityReport {
        update: in_hand.map(|in_hand| in_hand.update.clone()),
        state,
        reason: match in_hand {
            Some(in_hand) => in_hand.reason.clone(),
            None => database.pause_reason.clone(),
        },
        controller: match (&controller.name, &controller.fallback, &retry) {
            // Of one that cannot be tried again the name says so already.
            (Some(name), Some(fallback), Some(_)) => format!("{fallback} (fallback for {name})"),
            (name, ..) => name.clone().unwrap_or_default(),
        },
        controller_retry: retry,
        fault: controller.last_fault.clone(),
        average_items_per_ms: in_hand.and_then(|in_hand| in_hand.average_items_per_ms),
        shadows: shadows.to_vec(),
        at_ms: in_hand.map_or(0, |in_hand| in_hand.state_since_ms),
    }
}

impl From<view::QueuedUpdate> for UpdateReport {
    fn from(update: view::QueuedUpdate) -> Self {
        Self {
            name: update.name,
            reason: update.reason,
            state: update.state,
            depends_on: update.depends_on,
            ordering: update.ordering,
            progress: update.progress,
            done: update.done,
            items_per_s: update.items_per_s,
            time_left_ms: update.time_left_ms,
            attempts: update.attempts,
            last_error: update.last_error,
            last_error_at_ms: update.last_error_at_ms,
        }
    }
}
