//! From a configuration to what a host does: once when it starts, and again at each reload.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tidegate::controller::shadow::Prompt;
use tidegate::controller::{BuiltIn, Fallback, Fault, Policy, ShadowPolicy, SupervisorSettings};
use tidegate::scheduler::database::Holder;
use tidegate::scheduler::{Replacement, Settings};
use tidegate::signal::Signals;
use tidegate::update::sql::System;
use tidegate_admin::state::Component;
use tidegate_admin::{Access, Jobs, Live, LoadedController};
use tidegate_config::{BackgroundUpdates, Config};
use tidegate_simulate::trace::Playback;
use tidegate_simulate::trace::format::ControllerFacts;
use tidegate_wasm::ComponentSource;

use super::load::Loading;
use crate::cli::wiring;

/// The controllers by name, each loaded or not.
pub(super) type Loaded = HashMap<String, Result<Arc<ComponentSource>, Fault>>;

/// What a configuration comes to.
pub(super) struct RunPlan {
    /// For each database what its loop works with.
    pub databases: Vec<(String, Replacement)>,
    /// The controllers that could not be loaded, each with the reason.
    pub broken: Vec<(tidegate_config::Controller, Fault)>,
    /// What the API has to know.
    pub live: Live,
    /// What a trace has to know of the controllers.
    pub recorded: Vec<ControllerFacts>,
    /// The controllers themselves.
    pub loaded: Loaded,
}

/// Loads the controllers that are not among those `loaded`, which are to read these signals, and says what every
/// database's loop is to work with.
pub(super) async fn plan(config: &Config, until_done: bool, signals: &Signals, loaded: Loaded) -> RunPlan {
    let loaded = Loading::begin(config, signals, loaded).all().await;
    with(config, until_done, signals, &loaded)
}

/// What every database's loop is to work with where these controllers are loaded. A database whose own is not among them
/// must not start yet.
pub(super) fn with(config: &Config, until_done: bool, signals: &Signals, loaded: &Loaded) -> RunPlan {
    let settings = settings(&config.background_updates, until_done);
    let mut databases = Vec::new();
    for database in &config.databases {
        let controller = config.controller_of(&database.name);
        let policy = controller.and_then(|used| Some(policy(used, loaded.get(used.name.as_str())?)));
        databases.push((
            database.name.clone(),
            Replacement {
                handlers: wiring::handlers(config, database),
                lanes: wiring::lanes(config, database),
                policy: policy.unwrap_or(Policy::BuiltIn),
                supervision: supervision(&config.background_updates, controller, database.target.system()),
                shadows: shadows(config, &database.name, loaded),
                settings: settings.clone(),
            },
        ));
    }
    let recorded = config.controllers.iter().filter(|controller| !controller.shadow);
    let recorded =
        recorded.filter_map(|controller| Some(facts(config, controller, loaded.get(controller.name.as_str())?)));
    let recorded = recorded.collect();
    let live = Live {
        handlers: databases.iter().map(|(name, plan)| (name.clone(), plan.handlers.clone())).collect(),
        controllers: config
            .controllers
            .iter()
            .map(|controller| describe(config, controller, loaded.get(controller.name.as_str())))
            .collect(),
        access: Access::new(config.admin.as_ref().map(|admin| admin.tokens.clone()).unwrap_or_default()),
        jobs: Jobs::new(config.jobs.iter().map(|job| job.definition.clone()).collect()),
        signals: signals.clone(),
    };
    let broken = config.controllers.iter().filter_map(|controller| {
        let fault = loaded.get(controller.name.as_str())?.as_ref().err()?;
        Some((controller.clone(), fault.clone()))
    });
    RunPlan { broken: broken.collect(), databases, live, recorded, loaded: loaded.clone() }
}

/// Settings of the loop.
fn settings(background: &BackgroundUpdates, until_done: bool) -> Settings {
    Settings {
        poll_interval: background.poll_interval,
        max_batch_size: background.max_batch_size.into(),
        estimator: background.estimator,
        cut_off: background.cut_off,
        max_attempts: background.max_attempts,
        shutdown_grace: background.shutdown_grace,
        until_done,
        ..Settings::new(Holder::this_process())
    }
}

/// A controller, or why there is none: its fallback takes over then, which the host tells.
fn policy(controller: &tidegate_config::Controller, loaded: &Result<Arc<ComponentSource>, Fault>) -> Policy {
    match loaded {
        Ok(source) => Policy::Controller(source.clone()),
        Err(fault) => Policy::Broken { name: controller.name.clone(), fault: fault.clone() },
    }
}

fn supervision(
    background: &BackgroundUpdates,
    controller: Option<&tidegate_config::Controller>,
    system: System,
) -> SupervisorSettings {
    let sleep = background.sleep_enabled.then_some(background.sleep_duration);
    SupervisorSettings {
        builtin: BuiltIn { sleep, target: background.target_duration },
        gentle: background.gentle.map(|gentle| gentle.on(system)),
        fallback: controller.map_or(Fallback::Default, |controller| controller.fallback),
        max_faults: controller.map_or(SupervisorSettings::default().max_faults, |controller| controller.max_faults),
        max_target: background.max_target_duration,
        default_batch_size: background.default_batch_size,
        min_batch_size: background.min_batch_size,
        max_min_batch_size: background.max_min_batch_size,
    }
}

/// The controllers that are asked beside the one that paces a database. They read what that one read, and what it did
/// not read where it reads, too.
fn shadows(config: &Config, database_name: &str, loaded: &Loaded) -> Vec<ShadowPolicy> {
    let shadow = |controller: &tidegate_config::Controller| {
        // It never stands in for a shadow.
        let settings = SupervisorSettings {
            gentle: None,
            ..supervision(&config.background_updates, Some(controller), System::Sqlite)
        };
        let (policy, prompt): (_, Option<Arc<dyn Prompt>>) = match loaded.get(controller.name.as_str())? {
            Ok(source) => {
                let playback = Arc::new(Playback::beside(source.signals().clone()));
                let source = ComponentSource::clone(source).with_signals(playback.clone());
                (Policy::Controller(Arc::new(source)), Some(playback))
            }
            broken => (policy(controller, broken), None),
        };
        Some(ShadowPolicy { policy, settings, prompt })
    };
    config.shadows_of(database_name).filter_map(shadow).collect()
}

/// The databases that a controller is for.
fn databases_of(config: &Config, controller: &tidegate_config::Controller) -> Vec<String> {
    let is_for = |name: &&String| match controller.shadow {
        true => controller.databases.include(name),
        false => config.controller_of(name).is_some_and(|used| used.name == controller.name),
    };
    config.databases.iter().map(|database| &database.name).filter(is_for).cloned().collect()
}

/// What a trace has to know of a controller.
fn facts(
    config: &Config,
    controller: &tidegate_config::Controller,
    loaded: &Result<Arc<ComponentSource>, Fault>,
) -> ControllerFacts {
    let artifact = loaded.as_ref().ok().map(|source| source.artifact());
    ControllerFacts {
        name: controller.name.clone(),
        path: controller.path.display().to_string(),
        sha256: artifact.map(|artifact| artifact.digest().to_owned()),
        wit: artifact.map(|artifact| artifact.contract_version().to_owned()),
        databases: databases_of(config, controller),
        settings: controller.settings.0.clone(),
        limits: (&controller.limits).into(),
    }
}

/// What the API has to know of a controller; `None` is one that is being loaded.
fn describe(
    config: &Config,
    controller: &tidegate_config::Controller,
    loaded: Option<&Result<Arc<ComponentSource>, Fault>>,
) -> LoadedController {
    LoadedController {
        name: controller.name.clone(),
        path: controller.path.display().to_string(),
        databases: databases_of(config, controller),
        shadow: controller.shadow,
        component: loaded.map(|loaded| {
            loaded.as_ref().map_err(Fault::clone).map(|source| {
                let artifact = source.artifact();
                Component {
                    sha256: artifact.digest().to_owned(),
                    contract_version: artifact.contract_version().to_owned(),
                    size: artifact.size() as u64,
                }
            })
        }),
        loaded_at: SystemTime::now(),
    }
}
