//! Reading the configuration again while a host runs: all of it comes into force, or nothing does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidegate::scheduler::{Control, Host};
use tidegate::signal::Sampling;
use tidegate::update::{Progress, UpdateError};
use tidegate_admin::{Live, LoadedController, Reload};
use tidegate_config::{Config, Diagnostic};
use tidegate_simulate::trace::Recorder;
use tidegate_simulate::trace::format::ControllerFacts;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

use super::plan::{Loaded, RunPlan, plan};
use crate::cli::sampling::Doing;
use crate::cli::{environment, sampling, wiring};

/// How long reading the configuration may take.
const LOAD_LIMIT: Duration = Duration::from_secs(30);

/// How long looking into a database's queue may take.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// Reads the configuration again for a host that runs.
pub(super) struct Reloader {
    path: PathBuf,
    control: Control,
    sampling: Arc<Sampling>,
    doing: Doing,
    /// What is in force, and the controllers that were loaded for it.
    in_force: Arc<Mutex<(Config, Loaded)>>,
    /// Who writes down what controllers are asked, where somebody does.
    recorder: Option<Recorder>,
}

impl Reloader {
    /// For a host that was started with `config`.
    pub(super) fn new(
        config: Config,
        host: &Host,
        sampling: Arc<Sampling>,
        recorder: Option<Recorder>,
        loaded: Loaded,
    ) -> Self {
        let (control, doing) = (host.control(), sampling::on(host.board()));
        let (path, in_force) = (config.path.clone(), Arc::new(Mutex::new((config, loaded))));
        Self { path, control, sampling, doing, in_force, recorder }
    }

    /// Keeps reloads waiting for as long as what comes back lives, for whoever loads what is in force.
    pub(super) fn wait(&self) -> Option<OwnedMutexGuard<(Config, Loaded)>> {
        Arc::clone(&self.in_force).try_lock_owned().ok()
    }

    /// The configuration as the file has it now.
    async fn load(&self) -> Result<Config, Vec<String>> {
        let path = self.path.clone();
        // On a thread that may block: a file can be on a disk that does not answer.
        let load = tokio::task::spawn_blocking(move || Config::load(&path, &environment));
        match timeout(LOAD_LIMIT, load).await {
            Ok(Ok(loaded)) => loaded.map_err(words),
            Ok(Err(error)) => Err(vec![format!("{}: it could not be read: {error}", self.path.display())]),
            Err(_) => Err(vec![format!(
                "{}: it, or a file that it names, could not be read within {} s",
                self.path.display(),
                LOAD_LIMIT.as_secs()
            )]),
        }
    }

    /// Has a trace tell of the controllers that are in force from now on.
    fn note(&self, controllers: Vec<ControllerFacts>) {
        if let Some(recorder) = &self.recorder {
            recorder.reload(controllers);
        }
    }
}

#[async_trait]
impl Reload for Reloader {
    async fn reload(&self) -> Result<Live, Vec<String>> {
        let mut in_force = self.in_force.lock().await;
        let config = self.load().await?;
        let mut wrong = unchangeable(&in_force.0, &config);
        let planned = plan(&config, false, self.sampling.signals(), Loaded::new()).await;
        let RunPlan { databases, broken, live, recorded, loaded } = planned;
        wrong.extend(broken.into_iter().map(|(controller, fault)| {
            let message = format!("controller \"{}\": {fault}", controller.name);
            config.diagnostic(controller.places.of("path"), message, Some(fault.kind.hint().to_owned()))
        }));
        wrong.extend(redefined(&config).await);
        if !wrong.is_empty() {
            return Err(words(wrong));
        }
        let sampled = sampling::of_host(&config, &self.doing).map_err(|error| vec![error.to_string()])?;
        self.sampling.replace(sampled);
        self.note(recorded);
        for (name, replacement) in databases {
            self.control.reload(&name, replacement);
        }
        *in_force = (config, loaded);
        Ok(live)
    }

    async fn reload_controller(&self, name: &str, live: &Live) -> Result<Live, Vec<String>> {
        let mut in_force = self.in_force.lock().await;
        let (config, loaded) = &*in_force;
        // The others stay as they were loaded, whatever their files hold by now.
        let others = loaded.iter().filter(|(known, _)| *known != name);
        let others = others.map(|(name, loaded)| (name.clone(), loaded.clone())).collect();
        let planned = plan(config, false, self.sampling.signals(), others).await;
        let RunPlan { databases, broken, live: planned, recorded, loaded } = planned;
        if let Some((_, fault)) = broken.into_iter().find(|(controller, _)| controller.name == name) {
            return Err(vec![format!("controller \"{name}\": {fault} (hint: {})", fault.kind.hint())]);
        }
        self.note(recorded);
        for (database, replacement) in databases {
            let mut on = config.controller_of(&database).into_iter().chain(config.shadows_of(&database));
            if on.any(|controller| controller.name == name) {
                self.control.reload(&database, replacement);
            }
        }
        let reloaded = |known: &LoadedController| {
            let planned = planned.controllers.iter().find(|planned| planned.name == known.name && known.name == name);
            planned.unwrap_or(known).clone()
        };
        let live = Live { controllers: live.controllers.iter().map(reloaded).collect(), ..live.clone() };
        in_force.1 = loaded;
        Ok(live)
    }
}

/// The definitions that are not those that their updates began with. What a database does not tell, its host meets itself.
async fn redefined(config: &Config) -> Vec<Diagnostic> {
    let mut wrong = Vec::new();
    for database in &config.databases {
        let Ok(opened) = wiring::open_lazily(database) else { continue };
        let looked = timeout(LOOK_LIMIT, opened.look()).await;
        let rows = looked.ok().and_then(Result::ok).flatten().map(|queue| queue.rows).unwrap_or_default();
        for update in config.updates_of(&database.name) {
            let Some(row) = rows.iter().find(|row| row.update_name == update.name) else { continue };
            let handler = wiring::handler(update, database);
            let refused = Progress::parse(&row.progress).and_then(|progress| handler.mode(&progress));
            let Err(error @ UpdateError::Redefined { .. }) = refused else { continue };
            let message = format!("update \"{}\" on database \"{}\": {error}", update.name, database.name);
            wrong.push(config.diagnostic(update.places.header, message, None));
        }
        opened.close().await;
    }
    wrong
}

/// Each as a person reads it.
fn words(diagnostics: Vec<Diagnostic>) -> Vec<String> {
    diagnostics.iter().map(ToString::to_string).collect()
}

/// What differs and cannot change while the host runs.
fn unchangeable(old: &Config, new: &Config) -> Vec<Diagnostic> {
    let restart = || Some("restart the host to have it in force, or take it back".to_owned());
    let mut wrong = Vec::new();
    for database in &new.databases {
        match old.database(&database.name) {
            None => {
                let message = format!("database \"{}\" is new, and cannot be added by a reload", database.name);
                wrong.push(new.diagnostic(database.places.header, message, restart()));
            }
            Some(before) if before.target != database.target || before.queue_table != database.queue_table => {
                let message =
                    format!("how database \"{}\" is reached has changed, which a reload cannot", database.name);
                wrong.push(new.diagnostic(database.places.header, message, restart()));
            }
            Some(_) => {}
        }
    }
    for database in old.databases.iter().filter(|database| new.database(&database.name).is_none()) {
        let message = format!("database \"{}\" is gone, and cannot be given up by a reload", database.name);
        wrong.push(Diagnostic { file: new.path.clone(), position: None, message, hint: restart() });
    }
    let listening = |config: &Config| {
        config.admin.as_ref().map(|admin| (admin.listen.clone(), admin.unix_socket.clone(), admin.limits.clone()))
    };
    if listening(old) != listening(new) {
        let message = "where the API listens, or what a client may take, has changed, which a reload cannot".to_owned();
        let position = new.admin.as_ref().map(|admin| admin.places.header);
        wrong.push(Diagnostic { file: new.path.clone(), position, message, hint: restart() });
    }
    wrong
}
