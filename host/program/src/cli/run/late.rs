//! Databases of a host that starts whose controllers are not there yet: each starts once its own is.

use std::collections::HashMap;

use tidegate::controller::{Policy, ShadowPolicy};
use tidegate::scheduler::{Host, Replacement};
use tidegate_admin::State;
use tidegate_config::Config;
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::load::Loading;
use super::plan::{self, Loaded};
use super::reload::Reloader;
use crate::cli::output;

/// What waits, and for what.
pub(super) struct Late {
    loading: Loading,
    /// By the names of the databases.
    waiting: HashMap<String, oneshot::Sender<(Policy, Vec<ShadowPolicy>)>>,
    /// What is in force; reloads wait for it.
    in_force: Option<OwnedMutexGuard<(Config, Loaded)>>,
}

impl Late {
    /// Has the databases of a host wait whose controllers are still being loaded.
    pub(super) fn of(config: &Config, host: &mut Host, loading: Loading, reloader: &Reloader) -> Self {
        let mut waiting = HashMap::new();
        for database in &config.databases {
            let Some(controller) = loading.missing(config, &database.name) else { continue };
            let (sender, receiver) = oneshot::channel();
            host.start_later(&database.name, async move {
                match receiver.await {
                    Ok(known) => known,
                    // Nobody loads it any more: the host ends.
                    Err(_) => std::future::pending().await,
                }
            });
            waiting.insert(database.name.clone(), sender);
            output::line(&format!(
                "{}: waits for controller {}, which is being compiled",
                output::inline(&database.name),
                output::inline(controller)
            ));
        }
        Self { loading, waiting, in_force: reloader.wait() }
    }

    /// Lets each database start once what it waits for is there, until none waits and all is loaded.
    pub(super) async fn arrive(self, state: State, until_done: bool) {
        let Self { mut loading, mut waiting, in_force } = self;
        // Nobody else has had the reloader yet.
        let Some(mut in_force) = in_force else { return };
        while let Some(name) = loading.next().await {
            let config = &in_force.0;
            let planned = plan::with(config, until_done, &state.live().signals, loading.loaded());
            planned.live.controllers.into_iter().filter(|loaded| loaded.name == name).for_each(|loaded| {
                state.note_loaded(loaded);
            });
            for (database, Replacement { policy, shadows, .. }) in planned.databases {
                if loading.missing(config, &database).is_none()
                    && let Some(waiting) = waiting.remove(&database)
                {
                    // One that was stopped meanwhile does not start.
                    let _ = waiting.send((policy, shadows));
                }
            }
        }
        in_force.1.clone_from(loading.loaded());
    }
}
