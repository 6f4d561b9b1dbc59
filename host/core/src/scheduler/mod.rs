//! The scheduler: for each database one loop that chooses an update, asks the controller, runs a batch and reports.
//!
//! It knows databases, controllers and updates by their traits alone.

pub mod acceptance;
mod activity;
mod attempt;
pub mod board;
pub mod choice;
mod common;
mod control;
pub mod database;
pub mod event;
mod history;
mod lanes;
pub mod ledger;
mod open;
pub mod operations;
mod parts;
pub mod report;
mod row;
mod runner;
mod step;
mod transaction;
pub mod trial;
pub mod update_state;
mod wakeful;
mod watch;
pub mod withdrawal;
mod worker;

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::sync::oneshot;
use tokio::task::{Id, JoinSet};
use tokio::time::{sleep, timeout};

use board::Board;
use common::Common;
pub use control::{Control, Replacement};
use database::{Database, Holder};
use event::{EventKind, Events};
use history::History;
pub use lanes::Lanes;
use runner::Runner;

use crate::controller::{Policy, ShadowPolicy, SupervisorSettings, Witness};
use crate::pace::Estimator;
use crate::update::{Handler, SqlError};

/// How long a host that leaves waits for a database to take its last words.
const PARTING_LIMIT: Duration = Duration::from_secs(2);

/// How long a worker may take, once a batch's grace is over, to undo it and to say goodbye.
const OVERDUE: Duration = Duration::from_secs(4);

/// The handlers of a database's updates, by update name.
pub type Handlers = HashMap<String, Arc<dyn Handler>>;

/// A database to work on, and how.
pub struct Workload {
    /// The database's name, as controllers and operators see it.
    pub name: String,
    /// The database.
    pub database: Arc<dyn Database>,
    /// The updates that are defined for it.
    pub handlers: Handlers,
    /// In which lane each of them is worked on.
    pub lanes: Lanes,
    /// Who sets the pace.
    pub policy: Policy,
    /// What bounds whoever sets the pace.
    pub supervision: SupervisorSettings,
    /// Controllers that are asked the same beside it.
    pub shadows: Vec<ShadowPolicy>,
    /// Who sees each call of whoever sets the pace.
    pub witnesses: Vec<Arc<dyn Witness>>,
}

/// Settings of the loop, the same for every database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// This host, as the holder of leases.
    pub holder: Holder,
    /// How often a queue is polled.
    pub poll_interval: Duration,
    /// The most items of a batch, whatever a controller says. 1 or more.
    pub max_batch_size: u64,
    /// How the batches of an update are sized.
    pub estimator: Estimator,
    /// How long a batch may go on beyond its target for the least number of items. One item is always done.
    pub cut_off: Duration,
    /// Failures in a row after which an update is quarantined. 1 or more.
    pub max_attempts: u32,
    /// How long a running batch may go on once the host was asked to stop.
    pub shutdown_grace: Duration,
    /// True to end once nothing can run, false to go on until asked to stop.
    pub until_done: bool,
}

impl Settings {
    /// The defaults, for a host that goes on until asked to stop.
    pub fn new(holder: Holder) -> Self {
        Self {
            holder,
            poll_interval: Duration::from_millis(1_000),
            max_batch_size: 1_000_000,
            estimator: Estimator::default(),
            cut_off: Duration::from_millis(1_000),
            max_attempts: 5,
            shutdown_grace: Duration::from_millis(10_000),
            until_done: false,
        }
    }
}

/// How work on a database ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The database.
    pub database: String,
    /// How.
    pub end: End,
}

/// The ways in which work on a database ends.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// The host was asked to stop.
    Stopped,
    /// Nothing can run (any more); the rows that remain, each with the reason.
    Done {
        /// (update name, reason).
        remaining: Vec<(String, String)>,
    },
    /// The database cannot be worked on.
    Failed(SqlError),
}

/// Who is to set the pace of a database, and who is asked beside it, once that is known.
type Awaited = BoxFuture<'static, (Policy, Vec<ShadowPolicy>)>;

/// A host: works on any number of databases at once.
pub struct Host {
    workloads: Vec<Workload>,
    /// By the names of the databases that wait.
    awaited: HashMap<String, Awaited>,
    settings: Settings,
    events: Events,
    board: Board,
    control: Control,
}

impl Host {
    /// A host that does nothing yet.
    pub fn new(workloads: Vec<Workload>, settings: Settings) -> Self {
        let (events, board) = (Events::default(), Board::default());
        events.observe(Arc::new(board.clone()));
        Self { workloads, awaited: HashMap::new(), settings, events, board, control: Control::default() }
    }

    /// Everything that happens; subscribe before [`Host::run`] to miss nothing.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// What this host does at any moment.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// A handle to steer this host while it runs.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Lets a database wait until it is known who sets its pace, and who is asked beside that one; the others do not wait
    /// for it.
    pub fn start_later(
        &mut self,
        database: &str,
        policy: impl Future<Output = (Policy, Vec<ShadowPolicy>)> + Send + 'static,
    ) {
        self.awaited.insert(database.to_owned(), policy.boxed());
    }

    /// Works until `shutdown` resolves, [`Control::stop`] is called or, where the settings say so, nothing can run.
    /// Batches in hand are ended in good order, leases given up and the history written before it returns.
    ///
    /// Dropped before it returns, it leaves off at once: what ran is rolled back.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Vec<Summary> {
        let Self { workloads, mut awaited, settings, events, control, board: _ } = self;
        let names: Vec<String> = workloads.iter().map(|workload| workload.name.clone()).collect();
        // A set of tasks, and not the tasks themselves, so that dropping this future ends them.
        let mut tasks = JoinSet::new();
        let mut threads = Vec::new();
        let outside = Handle::current();
        let started: Vec<Id> = workloads
            .into_iter()
            .map(|workload| {
                let thread = OwnThread::start();
                let handle = thread.as_ref().map_or_else(|| outside.clone(), OwnThread::handle);
                threads.extend(thread);
                let awaited = awaited.remove(&workload.name);
                let work = work(workload, awaited, settings.clone(), events.clone(), control.clone(), outside.clone());
                tasks.spawn_on(work, &handle).id()
            })
            .collect();
        let mut ends = HashMap::new();
        let mut shutdown = pin!(shutdown.fuse());
        while !tasks.is_empty() {
            tokio::select! {
                biased;
                Some(ended) = tasks.join_next_with_id() => match ended {
                    Ok((id, end)) => ends.insert(id, end),
                    Err(error) => ends.insert(error.id(), End::Failed(SqlError::permanent(error.to_string()))),
                },
                () = &mut shutdown => {
                    control.stop();
                    continue;
                }
            };
        }
        let ends = started.iter().map(|id| ends.remove(id).unwrap_or(End::Stopped));
        names.into_iter().zip(ends).map(|(database, end)| Summary { database, end }).collect()
    }
}

/// A thread for all that one database has the host do. An iteration waits for its database several times; on threads
/// shared by all, each time another may go on with it, on another processor, whose caches know nothing of it. And
/// databases do not hold up each other, nor whatever else the process does.
struct OwnThread(Option<Runtime>);

impl OwnThread {
    /// `None` where all is to stay on the thread that this runs on, as it must under virtual time, or where there can be
    /// no other.
    fn start() -> Option<Self> {
        if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            return None;
        }
        let built = Builder::new_multi_thread().worker_threads(1).thread_name("tidegate-queue").enable_all().build();
        match built {
            Ok(runtime) => Some(Self(Some(runtime))),
            Err(error) => {
                tracing::warn!(%error, "a database gets no thread of its own");
                None
            }
        }
    }

    fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        // Without waiting, which is not allowed here: its tasks have ended, or end when they next wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Works on one database, with its history written beside.
async fn work(
    mut workload: Workload,
    awaited: Option<Awaited>,
    settings: Settings,
    events: Events,
    control: Control,
    outside: Handle,
) -> End {
    if let Some(awaited) = awaited {
        tokio::select! {
            biased;
            () = control.stopped() => return End::Stopped,
            (policy, shadows) = awaited => (workload.policy, workload.shadows) = (policy, shadows),
        }
    }
    let (done, when_done) = oneshot::channel();
    let (name, database) = (workload.name.clone(), workload.database.clone());
    let gathered = History::of(&name);
    events.observe(gathered.clone());
    let mut history = JoinSet::new();
    history.spawn(Arc::clone(&gathered).write_down(database.clone(), when_done));
    let (grace, mut latest) = tokio::sync::watch::channel(settings.shutdown_grace);
    let told = (events.clone(), control.clone());
    let runner = Runner::new(Common::new(workload, settings, told, outside, gathered, grace));
    let overdue = async {
        control.stopped().await;
        let grace = *latest.borrow_and_update();
        sleep(grace + OVERDUE).await;
    };
    let end = tokio::select! {
        biased;
        end = runner.run() => end,
        // Dropped, the work leaves off, whatever it hangs on; the database rolls back.
        () = overdue => {
            tracing::warn!(database = name, "the database does not answer: what was to be done there at last is left");
            events.emit(&name, EventKind::Stopped);
            End::Stopped
        }
    };
    // The receiver is gone only if the writer is.
    let _ = done.send(());
    match timeout(PARTING_LIMIT, history.join_next()).await {
        Ok(Some(Ok(()))) => {}
        Ok(_) => tracing::error!(database = name, "the writer of the history failed"),
        Err(_) => tracing::warn!(database = name, "the last second of the history could not be written"),
    }
    drop(history);
    // A connection that does not close in good time is dropped.
    let _ = timeout(PARTING_LIMIT, database.close()).await;
    end
}
