//! What the handlers of requests share.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use async_trait::async_trait;

use super::access::Access;
use super::jobs::Jobs;
use tidegate::controller::Fault;
use tidegate::scheduler::board::{Board, DatabaseBoard, LeaseState};
use tidegate::scheduler::database::{Database, Pause};
use tidegate::scheduler::event::Events;
use tidegate::scheduler::ledger::Actor;
use tidegate::scheduler::operations::{self, Operations, Refusal};
use tidegate::scheduler::{Control, Handlers};
use tidegate::signal::Signals;

/// A database as the API sees it.
#[derive(Clone)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// "SQLite" or "PostgreSQL".
    pub system: String,
    /// The table of its queue.
    pub queue_table: String,
    /// The database, over connections of the API's own: the host's own are busy with batches.
    pub database: Arc<dyn Database>,
}

impl Site {
    /// The same for what somebody does there: the ledger names them.
    pub(super) fn known_as(&self, actor: Actor) -> Self {
        Self { database: self.database.known_as(actor), ..self.clone() }
    }
}

/// What a reload replaces.
#[derive(Clone, Default)]
pub struct Live {
    /// The updates that are defined, by database name.
    pub handlers: HashMap<String, Handlers>,
    /// The controllers, in order of appearance.
    pub controllers: Vec<LoadedController>,
    /// Who may do what.
    pub access: Access,
    /// What can be started by name.
    pub jobs: Jobs,
    /// The signals that controllers read.
    pub signals: Signals,
}

/// A controller as it was configured, and what became of it.
#[derive(Debug, Clone)]
pub struct LoadedController {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: String,
    /// The databases whose pace it sets; none where others come first for all that it names. Of a shadow those on which
    /// it is asked.
    pub databases: Vec<String>,
    /// True where it is a shadow.
    pub shadow: bool,
    /// What it is, or why it could not be loaded; `None` while it is being loaded.
    pub component: Option<Result<Component, Fault>>,
    /// When it was loaded, or that was tried.
    pub loaded_at: SystemTime,
}

impl LoadedController {
    /// True where it sets this database's pace.
    pub fn paces(&self, database: &str) -> bool {
        !self.shadow && self.databases.iter().any(|name| name == database)
    }
}

/// A component that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// The file's SHA-256 digest, in hexadecimal.
    pub sha256: String,
    /// The version of the WIT contract that it was built for.
    pub contract_version: String,
    /// The file's size in bytes.
    pub size: u64,
}

/// Reads the configuration and the controllers again, and has the host go on with them.
#[async_trait]
pub trait Reload: Send + Sync {
    /// Does so.
    ///
    /// # Errors
    /// What is wrong, in words for a person; all stays as it was then.
    async fn reload(&self) -> Result<Live, Vec<String>>;

    /// Reads one controller's file again, with the settings that are in force. `live` is what is in force now.
    ///
    /// # Errors
    /// What is wrong, in words for a person; all stays as it was then.
    async fn reload_controller(&self, name: &str, live: &Live) -> Result<Live, Vec<String>>;
}

/// What the handlers of requests share; clones share the same.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    sites: Vec<Site>,
    control: Control,
    board: Board,
    events: Events,
    reload: Arc<dyn Reload>,
    /// One at a time.
    reloading: tokio::sync::Mutex<()>,
    live: RwLock<Arc<Live>>,
    started_at: SystemTime,
}

impl State {
    /// The state of a host that runs.
    pub fn new(
        sites: Vec<Site>,
        (control, board, events): (Control, Board, Events),
        live: Live,
        reload: Arc<dyn Reload>,
    ) -> Self {
        let (live, reloading) = (RwLock::new(Arc::new(live)), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { sites, control, board, events, reload, reloading, live, started_at: SystemTime::now() }))
    }

    /// The databases, in order of appearance.
    pub fn sites(&self) -> &[Site] {
        &self.0.sites
    }

    /// The databases, on which somebody acts under this name.
    pub(super) fn sites_of(&self, actor: &Actor) -> Vec<Site> {
        self.sites().iter().map(|site| site.known_as(actor.clone())).collect()
    }

    /// The database of that name.
    pub fn site(&self, name: &str) -> Option<&Site> {
        self.0.sites.iter().find(|site| site.name == name)
    }

    /// What can be done to the queue of a database.
    pub(crate) fn operations<'a>(&'a self, site: &'a Site) -> Operations<'a> {
        Operations::on(&*site.database).within(&site.name, self.control(), self.board(), self.sites().len() == 1)
    }

    /// The updates that are defined on a database.
    pub(crate) fn handlers(&self, site: &Site) -> Handlers {
        self.live().handlers.get(&site.name).cloned().unwrap_or_default()
    }

    /// Lifts every pause of every database on behalf of somebody, and tells of each whether it is. One that does not answer keeps
    /// no other paused.
    pub(crate) async fn resume_all(&self, actor: &Actor) -> Vec<(&Site, Result<(), Refusal>)> {
        let known = self.sites_of(actor);
        let all: Vec<Operations<'_>> = known.iter().map(|site| self.operations(site)).collect();
        self.sites().iter().zip(Operations::resume_all(&all).await).collect()
    }

    /// Lets the host begin no batch, on any database, until it restarts or is resumed, on behalf of somebody.
    pub(crate) async fn pause_all_until_restart(&self, actor: &Actor) {
        let known = self.sites_of(actor);
        let all: Vec<Operations<'_>> = known.iter().map(|site| self.operations(site)).collect();
        Operations::pause_all_until_restart(&all).await;
    }

    /// Steers the host.
    pub fn control(&self) -> &Control {
        &self.0.control
    }

    /// What the host does at this moment.
    pub fn board(&self) -> &Board {
        &self.0.board
    }

    /// Everything that happens.
    pub fn events(&self) -> &Events {
        &self.0.events
    }

    /// The pause of a database, of whatever sort, as far as this host knows without a question to the database: the reason,
    /// where one was given.
    pub(crate) fn pause_of(&self, name: &str, board: &DatabaseBoard) -> Option<Option<String>> {
        operations::pause_of(self.control(), name, board)
    }

    /// The pause by which a database's rows stand: the one that is stored there, else this host's, unless another host works
    /// there, which that does not hold up.
    pub(crate) fn pause_in_force(
        &self,
        name: &str,
        board: &DatabaseBoard,
        stored: Option<&Pause>,
    ) -> Option<Option<String>> {
        let elsewhere = matches!(board.lease, LeaseState::StandingBy(_));
        let here = || self.pause_of(name, board).filter(|_| !elsewhere);
        stored.map(|pause| pause.reason.clone()).or_else(here)
    }

    /// When the host started.
    pub fn started_at(&self) -> SystemTime {
        self.0.started_at
    }

    /// What the configuration said when it was last read without an error.
    pub fn live(&self) -> Arc<Live> {
        self.0.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the configuration and the controllers again.
    ///
    /// # Errors
    /// What is wrong, in words for a person; all stays as it was then.
    pub async fn reload(&self) -> Result<(), Vec<String>> {
        let _one_at_a_time = self.0.reloading.lock().await;
        let live = self.0.reload.reload().await?;
        self.put_in_force(live);
        Ok(())
    }

    /// Reads one controller's file again, with the settings that are in force.
    ///
    /// # Errors
    /// What is wrong, in words for a person; all stays as it was then.
    pub async fn reload_controller(&self, name: &str) -> Result<(), Vec<String>> {
        let _one_at_a_time = self.0.reloading.lock().await;
        let live = self.0.reload.reload_controller(name, &self.live()).await?;
        self.put_in_force(live);
        Ok(())
    }

    /// Takes note of a controller that was being loaded.
    pub fn note_loaded(&self, controller: LoadedController) {
        let mut live = Live::clone(&self.live());
        live.controllers.iter_mut().filter(|known| known.name == controller.name).for_each(|known| {
            known.clone_from(&controller);
        });
        self.put_in_force(live);
    }

    fn put_in_force(&self, live: Live) {
        *self.0.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
    }
}
