//! From a configuration to what a host does: once when it starts, and again at each reload.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tidegate::admin::state::Component;
use tidegate::admin::{Access, Jobs, Live, LoadedController};
use tidegate::config::{self, BackgroundUpdates, Config};
use tidegate::controller::{BuiltIn, Fallback, Fault, Policy, SupervisorSettings};
use tidegate::sandbox::ComponentSource;
use tidegate::scheduler::database::Holder;
use tidegate::scheduler::{Replacement, Settings};
use tidegate::signal::Signals;

use crate::cli::wiring;

/// What a configuration comes to.
pub(super) struct Plan {
    /// For each database what its loop works with.
    pub databases: Vec<(String, Replacement)>,
    /// The controllers that could not be loaded, each with the reason.
    pub broken: Vec<(config::Controller, Fault)>,
    /// What the API has to know.
    pub live: Live,
}

/// Loads the controllers, which are to read these signals, and says what every database's loop is to work with.
pub(super) async fn plan(config: &Config, until_done: bool, signals: &Signals) -> Plan {
    let mut loaded = HashMap::new();
    for controller in &config.controllers {
        loaded.insert(controller.name.as_str(), wiring::controller(controller, Arc::new(signals.clone())).await);
    }
    let settings = settings(&config.background_updates, until_done);
    let mut databases = Vec::new();
    for database in &config.databases {
        let controller = config.controller_of(&database.name);
        let policy = controller.and_then(|used| Some(policy(used, loaded.get(used.name.as_str())?)));
        databases.push((
            database.name.clone(),
            Replacement {
                handlers: wiring::handlers(config, database),
                policy: policy.unwrap_or(Policy::BuiltIn),
                supervision: supervision(&config.background_updates, controller),
                settings: settings.clone(),
            },
        ));
    }
    let live = Live {
        handlers: databases.iter().map(|(name, plan)| (name.clone(), plan.handlers.clone())).collect(),
        controllers: config
            .controllers
            .iter()
            .filter_map(|controller| Some(describe(config, controller, loaded.get(controller.name.as_str())?)))
            .collect(),
        access: Access::new(config.admin.as_ref().map(|admin| admin.tokens.clone()).unwrap_or_default()),
        jobs: Jobs::new(config.jobs.iter().map(|job| job.definition.clone()).collect()),
        signals: signals.clone(),
    };
    let broken = config.controllers.iter().filter_map(|controller| {
        let fault = loaded.get(controller.name.as_str())?.as_ref().err()?;
        Some((controller.clone(), fault.clone()))
    });
    Plan { broken: broken.collect(), databases, live }
}

/// Settings of the loop.
fn settings(background: &BackgroundUpdates, until_done: bool) -> Settings {
    Settings {
        poll_interval: background.poll_interval,
        max_batch_size: background.max_batch_size.into(),
        max_attempts: background.max_attempts,
        shutdown_grace: background.shutdown_grace,
        until_done,
        ..Settings::new(Holder::this_process())
    }
}

/// A controller, or why there is none: its fallback takes over then, which the host tells.
fn policy(controller: &config::Controller, loaded: &Result<Arc<ComponentSource>, Fault>) -> Policy {
    match loaded {
        Ok(source) => Policy::Controller(source.clone()),
        Err(fault) => Policy::Broken { name: controller.name.clone(), fault: fault.clone() },
    }
}

fn supervision(background: &BackgroundUpdates, controller: Option<&config::Controller>) -> SupervisorSettings {
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

fn describe(
    config: &Config,
    controller: &config::Controller,
    loaded: &Result<Arc<ComponentSource>, Fault>,
) -> LoadedController {
    let paced = config.databases.iter().map(|database| &database.name);
    let paced = paced.filter(|name| config.controller_of(name).is_some_and(|used| used.name == controller.name));
    LoadedController {
        name: controller.name.clone(),
        path: controller.path.display().to_string(),
        databases: paced.cloned().collect(),
        component: loaded.as_ref().map_err(Fault::clone).map(|source| {
            let artifact = source.artifact();
            Component {
                sha256: artifact.digest().to_owned(),
                contract_version: artifact.contract_version().to_owned(),
                size: artifact.size() as u64,
            }
        }),
        loaded_at: SystemTime::now(),
    }
}
