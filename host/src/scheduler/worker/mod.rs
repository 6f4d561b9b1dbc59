//! The loop of one database: become its runner, then choose, ask, run, report, until told to stop.

mod aside;
mod failure;
mod iteration;
mod report;
mod rest;
mod settle;
mod sizing;
mod tenure;
mod turn;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use self::aside::Told;
use self::turn::Turn;
use super::attempt::{Interruption, Waits};
use super::choice::Roster;
use super::database::{Activity, Failure, Lease, Pause, unix_ms};
use super::event::{EventKind, Events};
use super::history::History;
use super::{Control, End, Replacement, Settings, Workload};
use crate::controller::{Shadow, Supervisor};
use crate::pace::{Backoff, Cost, Shrink, Synapse};
use crate::update::{ErrorClass, SqlError};

/// A running host looks at pauses, withdrawn rows and its other orders at least this often.
const LONGEST_REFRESH: Duration = Duration::from_secs(1);

/// Waits after failures begin with this and double up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// How long a host that ends lets each shadow go on with what it has not answered yet.
const SHADOW_LIMIT: Duration = Duration::from_millis(500);

/// How long a host that leaves waits for a database to take its last words.
pub(super) const PARTING_LIMIT: Duration = Duration::from_secs(2);

/// What a rest ended with.
#[derive(PartialEq)]
enum Rest {
    /// The time is over, or somebody is in a hurry.
    Over,
    /// The row was withdrawn or changed, the database paused, or all is to be done otherwise.
    Overtaken,
}

/// What is known of the pace of one update that this host has begun, until it ends.
struct Pace {
    /// Synapse's averages: what its API tells, and what batches are sized by where that is asked for.
    synapse: Synapse,
    /// What its batches cost.
    cost: Cost,
    /// True once it was looked up what earlier batches cost.
    remembered: bool,
    shrink: Shrink,
    backoff: Backoff,
    /// When this host took the update in hand.
    since: Instant,
    /// Items committed since then.
    items: u64,
    /// Until when it is not tried, and why.
    put_off: Option<PutOff>,
}

/// A time before which something is not tried.
#[derive(Clone)]
struct PutOff {
    until: Instant,
    /// The same by the wall clock, as it stood when that was fixed, in milliseconds since the Unix epoch.
    until_ms: i64,
    /// Why, in words.
    why: String,
}

impl PutOff {
    fn new(wait: Duration, why: String) -> Self {
        Self { until: Instant::now() + wait, until_ms: unix_ms(SystemTime::now() + wait), why }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            synapse: Synapse::default(),
            cost: Cost::default(),
            remembered: false,
            shrink: Shrink::default(),
            backoff: Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF),
            since: Instant::now(),
            items: 0,
            put_off: None,
        }
    }
}

/// The worker of one database.
pub(super) struct Worker {
    workload: Workload,
    settings: Settings,
    events: Events,
    control: Control,
    wakes: watch::Receiver<u64>,
    outside: Handle,
    supervisor: Supervisor,
    shadows: Vec<Shadow>,
    paces: HashMap<String, Pace>,
    waits: Waits,
    /// The queue as it was last read, kept up with what this host did since.
    roster: Roster,
    /// The stored pause, as it was last read.
    pause: Option<Pause>,
    /// When the queue was last read; `None` forces a look before the next choice.
    refreshed: Option<Instant>,
    /// True where something has ended since.
    is_outdated: bool,
    /// When it was last estimated how far the update in hand has come.
    estimated: Option<Instant>,
    /// The update in hand: it stays until it ends, is withdrawn, is quarantined or put off.
    current: Option<String>,
    database_backoff: Backoff,
    /// Until when nothing at all is tried: the database lets no batch begin, or the controller is at fault.
    barred: Option<PutOff>,
    /// What the database says while it lets no batch begin.
    refused: Option<String>,
    refusal_backoff: Backoff,
    fault_backoff: Backoff,
    /// True where it was told that the database is not available to batches, until one begins.
    locked_out: bool,
    /// What ends a host that is to end by itself: a database that lets no batch begin, and will not by itself.
    hopeless: Option<SqlError>,
    unavailable: bool,
    /// True once the database has answered.
    answered: bool,
    paused: bool,
    /// True once it was told that nothing can run, until something does.
    idle_told: bool,
    blocked: Vec<(String, String)>,
    /// Updates whose definitions were found to fit the database.
    vetted: HashSet<String>,
    /// Failures that the database would not take, with the progress that their rows had, by update name.
    unrecorded: HashMap<String, (String, Failure)>,
    activity: Activity,
    activity_written: Option<Activity>,
    /// What is estimated and written beside the loop.
    aside: Option<JoinHandle<Told>>,
    history: Arc<History>,
    /// How long a batch may go on once the host was asked to stop, for whoever waits for this worker.
    grace: watch::Sender<Duration>,
}

impl Worker {
    /// What is no part of the work, however long it takes, is done by `outside`.
    pub(super) fn new(
        workload: Workload,
        settings: Settings,
        events: Events,
        control: Control,
        outside: Handle,
        history: Arc<History>,
        grace: watch::Sender<Duration>,
    ) -> Self {
        let supervisor = Supervisor::new(&workload.name, workload.policy.clone(), workload.supervision);
        let activity = Activity {
            holder: settings.holder.clone(),
            update_name: None,
            state: "idle".to_owned(),
            reason: None,
            controller: supervisor.describe(),
            controller_retry: None,
            fault: None,
            items_per_ms: None,
            one_shot_since_ms: None,
            in_the_way: Vec::new(),
            done: None,
            eta_ms: None,
            shadows: Vec::new(),
            at_ms: 0,
            signals: Vec::new(),
            put_off: Vec::new(),
        };
        Self {
            workload,
            settings,
            events,
            wakes: control.wakes(),
            control,
            outside,
            supervisor,
            shadows: Vec::new(),
            paces: HashMap::new(),
            waits: Waits::new(),
            roster: Roster::default(),
            pause: None,
            refreshed: None,
            is_outdated: false,
            estimated: None,
            current: None,
            database_backoff: Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF),
            barred: None,
            refused: None,
            refusal_backoff: Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF),
            fault_backoff: Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF),
            locked_out: false,
            hopeless: None,
            unavailable: false,
            answered: false,
            paused: false,
            idle_told: false,
            blocked: Vec::new(),
            vetted: HashSet::new(),
            unrecorded: HashMap::new(),
            activity,
            activity_written: None,
            aside: None,
            history,
            grace,
        }
    }

    /// Works until told to stop, or until nothing can run where the settings say so.
    pub(super) async fn run(mut self) -> End {
        self.emit(EventKind::ControllerLoaded { controller: self.supervisor.describe(), reloaded: false });
        self.accompany();
        self.report_controller();
        let end = loop {
            let mut lease = match self.acquire().await {
                Ok(lease) => lease,
                Err(end) => break end,
            };
            self.emit(EventKind::LeaseAcquired);
            let ended = self.work(&mut *lease).await;
            match ended {
                Ok(end) => {
                    self.leave(lease).await;
                    break end;
                }
                Err(Interruption::Stopping) => {
                    self.leave(lease).await;
                    break End::Stopped;
                }
                Err(Interruption::LeaseLost(reason)) => {
                    self.emit(EventKind::LeaseLost { reason });
                    self.current = None;
                    self.vetted.clear();
                    self.refreshed = None;
                    self.end_aside().await;
                    self.activity_written = None;
                    self.forget_if_replaced().await;
                    lease.release().await;
                    // Whatever cost the lease may have cost the connections too, and they need not know it yet.
                    let _ = timeout(PARTING_LIMIT, self.workload.database.close()).await;
                }
            }
        };
        for shadow in &self.shadows {
            shadow.catch_up(SHADOW_LIMIT).await;
        }
        self.emit(EventKind::Stopped);
        end
    }

    /// Has whoever sets the pace seen by its witnesses, and its shadows asked the same.
    fn accompany(&mut self) {
        // Those of before leave off first.
        self.shadows.clear();
        // A shadow may take its time, and must not take it from the work.
        let _outside = self.outside.enter();
        for policy in self.workload.shadows.clone() {
            let (events, database) = (self.events.clone(), self.workload.name.clone());
            let shadow = Shadow::start(&self.workload.name, policy, move |controller, notice| {
                events.emit(&database, EventKind::Shadow { controller: controller.to_owned(), notice });
            });
            self.supervisor.add_witness(shadow.witness());
            self.shadows.push(shadow);
        }
        for witness in &self.workload.witnesses {
            self.supervisor.add_witness(witness.clone());
        }
    }

    /// Works as the one runner.
    async fn work(&mut self, lease: &mut dyn Lease) -> Result<End, Interruption> {
        loop {
            if self.control.is_stopping() {
                return Err(Interruption::Stopping);
            }
            self.reload();
            if self.control.take_hurry(&self.workload.name) {
                self.hurry();
            }
            if self.is_refresh_due()
                && let Err(error) = self.refresh_unless_told(lease).await?
            {
                if error.class.ends_lease() {
                    return Err(Interruption::LeaseLost(error.to_string()));
                }
                if self.settings.until_done && error.class == ErrorClass::Permanent {
                    return Ok(End::Failed(error));
                }
                let wait = self.note_unavailable(&error);
                self.rest(wait, lease).await?;
                continue;
            }
            if self.paused {
                self.set_state("paused", self.pause_reason());
                self.rest_until_refresh(lease).await?;
                continue;
            }
            match self.choose() {
                Turn::Of(row) => {
                    if let Some(end) = self.iterate(row, lease).await? {
                        return Ok(end);
                    }
                    if let Some(error) = self.hopeless.take() {
                        return Ok(End::Failed(error));
                    }
                }
                // What has ended since the last look may have been all that was known of.
                Turn::Later(..) | Turn::OfNobody if self.is_outdated => self.refreshed = None,
                Turn::Later(PutOff { until, why, .. }, update_name) => {
                    self.wait_for(update_name, why);
                    self.rest_until(until, lease).await?;
                }
                Turn::OfNobody => {
                    if let Some(end) = self.idle(lease).await? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    /// Takes what was ordered with [`Control::reload`], between two iterations.
    fn reload(&mut self) {
        let Some(replacement) = self.control.take_replacement(&self.workload.name) else { return };
        self.report_usage();
        let Replacement { handlers, policy, supervision, shadows, settings } = replacement;
        let Settings { holder, until_done, .. } = self.settings.clone();
        self.settings = Settings { holder, until_done, ..settings };
        self.grace.send_replace(self.settings.shutdown_grace);
        (self.workload.handlers, self.workload.shadows) = (handlers, shadows);
        self.vetted.clear();
        self.supervisor = Supervisor::new(&self.workload.name, policy, supervision);
        self.fault_backoff.reset();
        self.hurry();
        self.refreshed = None;
        self.emit(EventKind::ControllerLoaded { controller: self.supervisor.describe(), reloaded: true });
        self.accompany();
        self.report_controller();
    }

    /// Nothing can run: ends here or waits for a change.
    async fn idle(&mut self, lease: &mut dyn Lease) -> Result<Option<End>, Interruption> {
        if !std::mem::replace(&mut self.idle_told, true) {
            self.emit(EventKind::Idle { remaining: self.roster.iter().count() });
        }
        self.lay_down();
        self.set_state("idle", None);
        if self.settings.until_done
            && let Some(remaining) = self.nothing_can_run()
        {
            return Ok(Some(End::Done { remaining }));
        }
        self.rest_until_refresh(lease).await?;
        Ok(None)
    }

    /// What is to be said while one waits for the time of an update that is tried again, or of any.
    fn wait_for(&mut self, update_name: Option<String>, why: String) {
        if update_name.is_some() && update_name != self.activity.update_name {
            self.lay_down();
            self.activity.update_name = update_name;
        }
        self.set_state("backing off", Some(why));
    }

    /// Nothing is in hand.
    fn lay_down(&mut self) {
        self.activity =
            Activity { update_name: None, items_per_ms: None, done: None, eta_ms: None, ..self.activity.clone() };
    }

    fn is_paused(&self) -> bool {
        !self.control.is_enabled() || self.pause.is_some() || self.control.pause_of(&self.workload.name).is_some()
    }
}
