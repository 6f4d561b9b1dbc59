//! A run: the scheduler, as it is, on virtual time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::time::sleep_until;

use super::database::Memory;
use super::handler::Modelled;
use super::model::{Series, World};
use super::scenario::{Action, Deed, Scenario, Update};
use super::watch::{Seen, Watch, Watched};
use tidegate::controller::{Gentle, Policy, Source};
use tidegate::scheduler::database::{Holder, NewRow, Pause};
use tidegate::scheduler::{Handlers, Host, Lanes, Replacement, Settings, Workload};
use tidegate::update::Handler;
use tidegate_wasm::{Artifact, ComponentSource, Surroundings};

/// The name of the modelled database.
pub const DATABASE: &str = "master";

/// What is tried.
#[derive(Clone)]
pub enum Candidate {
    /// A component. The scenario's settings and limits are its own; what is given here comes before those settings.
    Component {
        /// What it is called.
        name: String,
        /// The component.
        artifact: Arc<Artifact>,
        /// Settings.
        settings: Vec<(String, String)>,
    },
    /// A controller written in Rust.
    Native(Arc<dyn Source>),
    /// The built-in policy.
    BuiltIn,
}

/// Why a run came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimulationError {
    /// A call took longer than its deadline by this machine's clock, before its fuel was used up.
    #[error(
        "a call took longer than {} ms by this machine's own clock, so that the run says nothing of the controller",
        .deadline.as_millis()
    )]
    TooSlow {
        /// The deadline.
        deadline: Duration,
    },
    /// The thread of the run could not be started, or did not end well.
    #[error("the simulation failed: {0}")]
    Failed(String),
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The scenario's name.
    pub scenario: String,
    /// Where chance came from.
    pub seed: u64,
    /// When the queue was empty, from the start of the run; `None` where rows remained.
    pub finished_at: Option<Duration>,
    /// When the run was ended.
    pub ended_at: Duration,
    /// Items of the updates that remained, with what remained of them.
    pub remaining: Vec<String>,
    /// All that was seen.
    pub seen: Seen,
    /// What the foreground waited for an answer, in milliseconds, second by second.
    pub foreground: Series,
    /// What was read of each signal.
    pub signals: Vec<Series>,
}

/// Runs a candidate through a scenario. Chance comes from `seed`, or else from the scenario's own.
///
/// It takes a thread of its own, and returns when the run is over: that may be called from anywhere, and had better not
/// be on a thread that others wait for.
///
/// # Errors
/// [`SimulationError`].
pub fn simulate(candidate: &Candidate, scenario: &Scenario, seed: Option<u64>) -> Result<Run, SimulationError> {
    let failed = |error: &dyn std::fmt::Display| SimulationError::Failed(error.to_string());
    let seed = seed.unwrap_or(scenario.seed);
    thread::scope(|scope| {
        let work = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_time().start_paused(true).build().map_err(|error| failed(&error))?;
            runtime.block_on(run(candidate, scenario, seed))
        };
        let thread = thread::Builder::new().name("simulation".to_owned()).spawn_scoped(scope, work);
        let ended = thread.map_err(|error| failed(&error))?.join();
        ended.unwrap_or_else(|_| Err(failed(&"its thread panicked")))
    })
}

/// What happens at a moment, other than by the host.
enum Happening {
    Queued(NewRow),
    Done(Deed),
}

/// A run in the making.
struct Stage<'a> {
    scenario: &'a Scenario,
    world: Arc<World>,
    memory: Memory,
    watch: Arc<Watch>,
    surroundings: Arc<Surroundings>,
    policy: Policy,
    handlers: Handlers,
    /// What is still to happen, in order of time.
    agenda: VecDeque<(Duration, Happening)>,
}

/// Why a host's life ended.
enum Parting {
    /// Nothing can run any more, or the time is up.
    Over,
    /// It was killed, and is started again.
    Killed,
}

async fn run(candidate: &Candidate, scenario: &Scenario, seed: u64) -> Result<Run, SimulationError> {
    let mut stage = Stage::new(candidate, scenario, seed);
    loop {
        stage.watch.kill(false);
        if let Parting::Over = stage.live().await {
            break;
        }
    }
    if stage.surroundings.overran() {
        return Err(SimulationError::TooSlow { deadline: scenario.limits.deadline });
    }
    let ended_at = stage.world.clocks.now();
    let seen = stage.watch.take();
    let remaining: Vec<String> = stage
        .memory
        .remaining()
        .iter()
        .map(|row| format!("{} {}", row.update_name, row.progress))
        .chain(stage.agenda.iter().filter_map(|(_, happening)| match happening {
            Happening::Queued(row) => Some(format!("{} (not queued yet)", row.update_name)),
            Happening::Done(_) => None,
        }))
        .collect();
    let finished_at = if remaining.is_empty() { seen.finished.last().map(|(at, _)| *at) } else { None };
    let (foreground, signals) = stage.world.series();
    Ok(Run { scenario: scenario.name.clone(), seed, finished_at, ended_at, remaining, seen, foreground, signals })
}

impl<'a> Stage<'a> {
    fn new(candidate: &Candidate, scenario: &'a Scenario, seed: u64) -> Self {
        let world = World::new(scenario, seed);
        let watch = Watch::new(world.clocks.clone());
        let surroundings = Arc::new(Surroundings::new(Arc::new(world.clocks.clone()), seed));
        let watched = |source| Policy::Controller(Arc::new(Watched { source, watch: watch.clone() }));
        let policy = match candidate {
            Candidate::BuiltIn => match scenario.host.supervision.gentle {
                Some(gentle) => {
                    let steady = scenario.host.supervision.builtin;
                    watched(Arc::new(Gentle::new(gentle, steady, world.clone())))
                }
                None => Policy::BuiltIn,
            },
            Candidate::Native(source) => watched(source.clone()),
            Candidate::Component { name, artifact, settings } => {
                let artifact = artifact.with_limits(scenario.limits.clone());
                let settings = settings.iter().chain(&scenario.settings).cloned().collect();
                let source = ComponentSource::new(name.clone(), artifact)
                    .with_settings(settings)
                    .with_signals(world.clone())
                    .with_log(watch.clone())
                    .with_surroundings(surroundings.clone())
                    .with_calls(watch.clone());
                watched(Arc::new(source))
            }
        };
        let (handlers, agenda) = work(scenario, &world);
        Self {
            scenario,
            memory: Memory::new(world.clone(), openings(scenario)),
            world,
            watch,
            surroundings,
            policy,
            handlers,
            agenda,
        }
    }

    fn settings(&self) -> Settings {
        // Nobody sees who it is.
        let holder = Holder { host: "simulation".to_owned(), pid: 0 };
        Settings {
            max_batch_size: self.scenario.host.max_batch_size,
            max_attempts: self.scenario.host.max_attempts,
            estimator: self.scenario.host.estimator,
            cut_off: self.scenario.host.cut_off,
            ..Settings::new(holder)
        }
    }

    /// The life of one host.
    async fn live(&mut self) -> Parting {
        let database = Arc::new(self.memory.clone());
        let life = Arc::downgrade(&database);
        let workload = Workload {
            name: DATABASE.to_owned(),
            database,
            handlers: self.handlers.clone(),
            lanes: Lanes::default(),
            policy: self.policy.clone(),
            supervision: self.scenario.host.supervision,
            shadows: Vec::new(),
            witnesses: Vec::new(),
        };
        let host = Host::new(vec![workload], self.settings());
        host.events().observe(self.watch.clone());
        let control = host.control();
        // On the heap, so that it can be dropped in its middle.
        let mut running = Box::pin(host.run(std::future::pending()));
        let end = self.world.clocks.instant(self.scenario.longest);
        let watch = self.watch.clone();
        loop {
            let next = self.agenda.front().map(|(at, _)| self.world.clocks.instant(*at));
            let stopping = control.is_stopping();
            tokio::select! {
                biased;
                _ = &mut running => return Parting::Over,
                () = sleep_until(next.unwrap_or(end)), if next.is_some() && !stopping => {
                    let Some((_, happening)) = self.agenda.pop_front() else { continue };
                    watch.stir();
                    match happening {
                        Happening::Done(Deed::Restart) => {
                            watch.kill(true);
                            drop(running);
                            // Its tasks are dropped by and by; no time passes meanwhile.
                            while life.strong_count() > 0 {
                                tokio::task::yield_now().await;
                            }
                            return Parting::Killed;
                        }
                        Happening::Done(Deed::Reload) => control.reload(DATABASE, self.replacement()),
                        // Stored, so that it outlasts a restart, and told, so that it is heeded at once.
                        Happening::Done(Deed::Pause) => {
                            self.memory.pause(Some(&Pause { since_ms: 0, reason: None }));
                            control.set_pause(DATABASE, Some(None));
                        }
                        Happening::Done(Deed::Resume) => {
                            self.memory.pause(None);
                            control.set_pause(DATABASE, None);
                        }
                        Happening::Done(Deed::Retry(update_name)) => _ = self.memory.forget(&update_name),
                        Happening::Queued(row) => _ = self.memory.insert(&row),
                    }
                    control.wake();
                }
                () = watch.idle.notified() => {}
                () = sleep_until(end), if !stopping => control.stop(),
            }
            if self.surroundings.overran() || self.is_over() {
                control.stop();
            }
        }
    }

    /// True where nothing can run and nothing will change that.
    fn is_over(&self) -> bool {
        self.agenda.is_empty() && self.watch.is_idle()
    }

    fn replacement(&self) -> Replacement {
        Replacement {
            handlers: self.handlers.clone(),
            lanes: Lanes::default(),
            policy: self.policy.clone(),
            supervision: self.scenario.host.supervision,
            shadows: Vec::new(),
            settings: self.settings(),
        }
    }
}

/// Who does the updates, and when they are queued, among what else happens.
fn work(scenario: &Scenario, world: &Arc<World>) -> (Handlers, VecDeque<(Duration, Happening)>) {
    let mut handlers = Handlers::new();
    let mut agenda = Vec::new();
    for update in &scenario.updates {
        for number in 0..update.count {
            let update_name = name_of(update, number);
            let handler = Modelled::new(world.clone(), update.clone(), handlers.len());
            handlers.insert(update_name.clone(), Arc::new(handler) as Arc<dyn Handler>);
            let row = NewRow {
                update_name,
                progress: "{}".to_owned(),
                depends_on: Some(update.depends_on.clone()).filter(|name| !name.is_empty()),
                ordering: update.ordering,
            };
            agenda.push((update.queued_at + update.every * number, Happening::Queued(row)));
        }
    }
    let actions = scenario.actions.iter().map(|Action { at, deed }| (*at, Happening::Done(deed.clone())));
    agenda.extend(actions);
    // Stable: of what happens at one moment the updates come first, in their order.
    agenda.sort_by_key(|(at, _)| *at);
    (handlers, agenda.into())
}

/// What the batches of each update cost by themselves, in milliseconds.
fn openings(scenario: &Scenario) -> HashMap<String, f64> {
    let of = |update: &Update| {
        (0..update.count).map(|number| (name_of(update, number), update.batch_ms)).collect::<Vec<_>>()
    };
    scenario.updates.iter().flat_map(of).collect()
}

/// The name of one of several updates of a kind.
fn name_of(update: &Update, number: u32) -> String {
    let digits = update.count.to_string().len();
    if update.count == 1 { update.name.clone() } else { format!("{}_{number:0digits$}", update.name) }
}
