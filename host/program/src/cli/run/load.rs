//! The controllers of a host that starts: loaded beside each other, so that no database waits for a controller that is for
//! others. Compiling one may take a minute.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate::controller::{Callback, Fault, FaultKind};
use tidegate::signal::Signals;
use tidegate_config::Config;
use tidegate_wasm::ComponentSource;
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinSet};

use super::plan::Loaded;
use crate::cli::wiring;

/// Controllers that are compiled at once: each may take much memory.
const AT_ONCE: usize = 2;

/// Controllers that are being loaded, and those that are by now.
pub(super) struct Loading {
    tasks: JoinSet<Result<Arc<ComponentSource>, Fault>>,
    names: HashMap<Id, String>,
    loaded: Loaded,
}

impl Loading {
    /// Begins to load the controllers that are not among those `loaded`, which are to read these signals. Dropped, it leaves
    /// off.
    pub(super) fn begin(config: &Config, signals: &Signals, loaded: Loaded) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let (mut tasks, mut names) = (JoinSet::new(), HashMap::new());
        for controller in config.controllers.iter().filter(|controller| !loaded.contains_key(&controller.name)) {
            let (turns, signals, controller) = (Arc::clone(&turns), Arc::new(signals.clone()), controller.clone());
            let name = controller.name.clone();
            let task = tasks.spawn(async move {
                // Nobody closes it.
                let _turn = turns.acquire().await;
                wiring::controller(&controller, signals).await
            });
            names.insert(task.id(), name);
        }
        Self { tasks, names, loaded }
    }

    /// Waits for the next one; `None` where all are there.
    pub(super) async fn next(&mut self) -> Option<String> {
        let (id, loaded) = match self.tasks.join_next_with_id().await? {
            Ok((id, loaded)) => (id, loaded),
            Err(error) => {
                let message = format!("whoever loads it failed: {error}");
                (error.id(), Err(Fault { kind: FaultKind::Compilation, callback: Callback::Load, message }))
            }
        };
        let name = self.names.remove(&id)?;
        self.loaded.insert(name.clone(), loaded);
        Some(name)
    }

    /// Waits for all.
    pub(super) async fn all(mut self) -> Loaded {
        while self.next().await.is_some() {}
        self.loaded
    }

    /// Waits until a database has all that it waits for.
    pub(super) async fn until_one_can_start(&mut self, config: &Config) {
        let can_start =
            |this: &Self| config.databases.iter().any(|database| this.missing(config, &database.name).is_none());
        while !can_start(self) && self.next().await.is_some() {}
    }

    /// A controller that a database still waits for: the one that is to set its pace, or a shadow.
    pub(super) fn missing<'a>(&self, config: &'a Config, database: &'a str) -> Option<&'a str> {
        let concerned = config.controller_of(database).into_iter().chain(config.shadows_of(database));
        concerned.map(|controller| controller.name.as_str()).find(|name| !self.loaded.contains_key(*name))
    }

    /// Those that are there, or could not be loaded.
    pub(super) fn loaded(&self) -> &Loaded {
        &self.loaded
    }
}
