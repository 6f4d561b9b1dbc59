//! The API beside a host that runs.

use std::sync::Arc;

use futures_util::FutureExt;
use tidegate::scheduler::Host;
use tidegate_admin::{Listener, Live, Metrics, Site, State};
use tidegate_config::{Admin, Config};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use super::reload::Reloader;
use super::service;
use crate::cli::error::CliError;
use crate::cli::{output, wiring};

/// Listens where the configuration says.
///
/// # Errors
/// Names the address that is not to be had.
pub(super) async fn listen(config: &Config) -> Result<Vec<Listener>, CliError> {
    let Some(Admin { listen, unix_socket, .. }) = &config.admin else { return Ok(Vec::new()) };
    let mut listeners = Vec::new();
    for address in listen {
        listeners.push(Listener::tcp(*address).await.map_err(|error| {
            CliError::failure(format!("the API cannot listen on {address}"))
                .because(error)
                .hint("choose another address with `listen` in [admin]; port 0 has the system choose")
        })?);
    }
    if let Some(path) = unix_socket {
        listeners.push(Listener::unix(path).map_err(|error| {
            CliError::failure(format!("the API cannot listen on the socket {}", path.display()))
                .because(error)
                .hint("choose another path with `unix_socket` in [admin]")
        })?);
    }
    Ok(listeners)
}

/// What the API of a host shares.
///
/// # Errors
/// A database that cannot be used.
pub(super) fn state(config: &Config, host: &Host, live: Live, reloader: Reloader) -> Result<State, CliError> {
    let mut sites = Vec::new();
    for database in &config.databases {
        sites.push(Site {
            name: database.name.clone(),
            system: database.target.system().to_string(),
            queue_table: database.queue_table.clone(),
            database: wiring::open(database)?,
        });
    }
    Ok(State::new(sites, (host.control(), host.board(), host.events().clone()), live, Arc::new(reloader)))
}

/// Counts what a host does from now on.
///
/// # Errors
/// None that a configuration could bring about.
pub(super) fn count(host: &Host) -> Result<Metrics, CliError> {
    let metrics = Metrics::new().map_err(|error| CliError::failure("cannot set the metrics up").because(error))?;
    host.events().observe(Arc::new(metrics.clone()));
    Ok(metrics)
}

/// Serves the API until the host is told to stop.
pub(super) fn serve(config: &Config, state: State, metrics: Metrics, listeners: Vec<Listener>) -> JoinHandle<()> {
    let limits = config.admin.as_ref().map(|admin| admin.limits.clone()).unwrap_or_default();
    for listener in &listeners {
        output::line(&format!("the API listens on {}", listener.describe()));
    }
    let control = state.control().clone();
    let stopped = async move { control.stopped().await }.boxed().shared();
    tokio::spawn(tidegate_admin::serve(tidegate_admin::router(state, metrics), listeners, limits, stopped))
}

/// SIGHUP, from now on.
///
/// # Errors
/// Where signals cannot be listened for.
pub(super) fn hangups() -> Result<Signal, CliError> {
    signal(SignalKind::hangup()).map_err(|error| CliError::failure("cannot listen for signals").because(error))
}

/// Reloads at each SIGHUP, for ever.
pub(super) async fn reload_at(mut hangups: Signal, state: State) {
    while hangups.recv().await.is_some() {
        service::reloading();
        let reloaded = state.reload().await;
        service::ready();
        match reloaded {
            Ok(()) => output::line("reloaded the configuration and the controllers"),
            Err(wrong) => {
                output::error("the configuration was not reloaded, and the old one stays in force");
                wrong.iter().for_each(|message| output::error(message));
            }
        }
    }
}
