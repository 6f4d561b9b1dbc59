//! The loop of one lane: choose, ask, run, report, until told to stop.

mod aside;
mod crew;
mod failure;
mod hand;
mod iteration;
mod post;
mod report;
mod rest;
mod settle;
mod sizing;
mod turn;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::aside::Told;
use self::crew::Crew;
use self::turn::Turn;
use super::attempt::{Interruption, Waits};
use super::common::{Common, FIRST_BACKOFF, LONGEST_BACKOFF, Means};
use super::database::unix_ms;
use super::event::EventKind;
use super::lanes::Lanes;
use super::runner::Tenure;
use super::update_state::{LaneState, UpdateState};
use super::{End, PARTING_LIMIT};
use crate::controller::{Shadow, Supervisor};
use crate::pace::{Backoff, Cost, Halving, Shrink, Synapse};
use crate::update::parts::Part;
use crate::update::{ErrorClass, SqlError};

/// How long a host that ends lets each shadow go on with what it has not answered yet.
const SHADOW_LIMIT: Duration = Duration::from_millis(500);

/// What a rest ended with.
#[derive(PartialEq)]
enum Rest {
    /// The time is over, or somebody is in a hurry.
    Over,
    /// The row was withdrawn or changed, the database paused, or all is to be done otherwise.
    Overtaken,
}

/// What is known of the pace of one update that this host has begun, until it ends.
struct WorkerPace {
    /// Synapse's averages: what its API tells, and what batches are sized by where that is asked for.
    synapse: Synapse,
    /// What its batches cost.
    cost: Cost,
    /// True once it was looked up what earlier batches cost.
    remembered: bool,
    shrink: Shrink,
    /// How batches are taken apart of which the database refuses rows.
    halving: Halving,
    /// True where what is left was not worth cutting into parts, or could not be.
    uncut: bool,
    backoff: Backoff,
    /// True once the ledger knows that it has started.
    noted: bool,
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

impl Default for WorkerPace {
    fn default() -> Self {
        Self {
            synapse: Synapse::default(),
            cost: Cost::default(),
            remembered: false,
            noted: false,
            shrink: Shrink::default(),
            halving: Halving::default(),
            uncut: false,
            backoff: Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF),
            since: Instant::now(),
            items: 0,
            put_off: None,
        }
    }
}

/// What work in a lane ended with.
pub(super) enum Served {
    /// All lanes are to end.
    Ended(End),
    /// Another lane said so.
    Left,
    /// There is no such lane any more.
    Retired,
}

/// The worker of one lane.
pub(super) struct Worker {
    common: Arc<Common>,
    lane: Arc<str>,
    means: Arc<Means>,
    wakes: watch::Receiver<u64>,
    stirs: watch::Receiver<u64>,
    supervisor: Supervisor,
    shadows: Vec<Shadow>,
    paces: HashMap<String, WorkerPace>,
    waits: Waits,
    /// The looks at the queue that this lane has taken notice of.
    looks: u64,
    /// The hurries likewise.
    hurries: u64,
    /// When it was last estimated how far the update in hand has come.
    estimated: Option<Instant>,
    /// The update in hand: it stays until it ends, is withdrawn, is quarantined or put off.
    current: Option<String>,
    /// Until when nothing at all is tried: the database lets no batch begin, or the controller is at fault.
    barred: Option<PutOff>,
    /// What the database says while it lets no batch begin.
    refused: Option<String>,
    refusal_backoff: Backoff,
    fault_backoff: Backoff,
    /// What ends a host that is to end by itself: a database that lets no batch begin, and will not by itself.
    hopeless: Option<SqlError>,
    /// True once it was told that nothing can run, until something does.
    idle_told: bool,
    /// Updates whose definitions were found to fit the database.
    vetted: HashSet<String>,
    /// What is estimated and written beside the loop.
    aside: Option<JoinHandle<Told>>,
    /// The hands that work on the update in hand.
    crew: Option<Crew>,
    /// The part of it that this worker has in hand, where what is left is in several.
    part: Option<Part>,
    /// The end of the part that this worker is to do alone: a batch of it has failed in a way that counts.
    alone: Option<String>,
}

impl Worker {
    pub(super) fn new(common: &Arc<Common>, lane: Arc<str>) -> Self {
        let means = Arc::clone(&common.state().means);
        let mut worker = Self {
            supervisor: supervisor(common, &lane, &means),
            wakes: common.control.wakes(),
            stirs: common.stirs(),
            common: Arc::clone(common),
            lane,
            means,
            shadows: Vec::new(),
            paces: HashMap::new(),
            waits: Waits::new(),
            looks: 0,
            hurries: common.hurries(),
            estimated: None,
            current: None,
            barred: None,
            refused: None,
            refusal_backoff: Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF),
            fault_backoff: Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF),
            hopeless: None,
            idle_told: false,
            vetted: HashSet::new(),
            aside: None,
            crew: None,
            part: None,
            alone: None,
        };
        worker.begin_with_controller(false);
        worker
    }

    pub(super) fn lane(&self) -> &Arc<str> {
        &self.lane
    }

    fn begin_with_controller(&mut self, reloaded: bool) {
        self.emit(EventKind::ControllerLoaded { controller: self.supervisor.describe(), reloaded });
        self.accompany();
        self.report_controller();
    }

    /// Has whoever sets the pace seen by its witnesses, and its shadows asked the same.
    fn accompany(&mut self) {
        // Those of before leave off first.
        self.shadows.clear();
        // A shadow may take its time, and must not take it from the work.
        let _outside = self.common.outside.enter();
        for policy in self.means.with.shadows.clone() {
            let (common, lane) = (Arc::clone(&self.common), Arc::clone(&self.lane));
            let shadow = Shadow::start(&self.common.name, policy, move |controller, notice| {
                let kind = EventKind::Shadow { controller: controller.to_owned(), notice };
                common.events.emit_in(&common.name, &lane, kind);
            });
            self.supervisor.add_witness(shadow.witness());
            self.shadows.push(shadow);
        }
        for witness in &self.common.witnesses {
            self.supervisor.add_witness(witness.clone());
        }
    }

    /// Lets its shadows end what they have begun, and leaves off; where its lane is no more, that is told.
    pub(super) async fn retire(mut self, closed: bool) {
        self.end_aside().await;
        if closed {
            self.emit(EventKind::LaneClosed);
        }
        for shadow in &self.shadows {
            shadow.catch_up(SHADOW_LIMIT).await;
        }
    }

    /// Works as the one runner's, and gives itself back.
    pub(super) async fn serve(mut self, mut tenure: Tenure) -> (Self, Result<Served, Interruption>) {
        let served = self.work(&mut tenure).await;
        self.disband(served.as_ref().err()).await;
        (self, served)
    }

    async fn work(&mut self, tenure: &mut Tenure) -> Result<Served, Interruption> {
        loop {
            if self.common.control.is_stopping() {
                return Err(Interruption::Stopping);
            }
            if self.common.is_leaving() {
                return Ok(Served::Left);
            }
            self.look_after_crew(tenure).await?;
            if !self.reload() {
                return Ok(Served::Retired);
            }
            self.hurry_if_told();
            if self.common.is_refresh_due()
                && let Err(error) = self.refresh_unless_told(tenure).await?
            {
                if error.class.ends_lease() {
                    return Err(Interruption::LeaseLost(error.to_string()));
                }
                if self.means.with.settings.until_done && error.class == ErrorClass::Permanent {
                    return Ok(Served::Ended(End::Failed(error)));
                }
                let wait = self.common.note_unavailable(&error);
                self.rest(wait, tenure).await?;
                continue;
            }
            self.catch_up().await;
            if self.common.was_paused() {
                let reason = self.common.pause_reason();
                self.stands(UpdateState::Paused, reason);
                self.rest_until_refresh(tenure).await?;
                continue;
            }
            match self.choose() {
                Turn::Of(row) => {
                    let ended = self.iterate(row, tenure).await;
                    self.common.unclaim(&self.lane);
                    if let Some(end) = ended? {
                        return Ok(Served::Ended(end));
                    }
                    if let Some(error) = self.hopeless.take() {
                        return Ok(Served::Ended(End::Failed(error)));
                    }
                }
                // What has ended since the last look may have been all that was known of.
                Turn::Later(..) | Turn::OfNobody if self.common.state().is_outdated => {
                    self.common.state().refreshed = None;
                }
                Turn::Later(PutOff { until, why, .. }, update_name) => {
                    self.wait_for(update_name, why);
                    self.rest_until(until, tenure).await?;
                }
                Turn::OfNobody => {
                    if let Some(end) = self.idle(tenure).await? {
                        return Ok(Served::Ended(end));
                    }
                }
            }
        }
    }

    /// Takes what is to be worked with from now on, between two iterations. False where its lane is no more.
    fn reload(&mut self) -> bool {
        self.common.reload();
        let means = Arc::clone(&self.common.state().means);
        if means.generation == self.means.generation {
            return true;
        }
        if means.lanes.number(&self.lane).is_none() {
            return false;
        }
        self.report_usage();
        self.supervisor = supervisor(&self.common, &self.lane, &means);
        self.means = means;
        self.vetted.clear();
        self.fault_backoff.reset();
        self.hurry();
        self.begin_with_controller(true);
        true
    }

    /// True where it is to be worked with something else than this.
    fn has_replacement(&self) -> bool {
        self.common.control.has_replacement(&self.common.name)
            || self.common.state().means.generation != self.means.generation
    }

    /// Nothing can run: ends here or waits for a change.
    async fn idle(&mut self, tenure: &mut Tenure) -> Result<Option<End>, Interruption> {
        if !std::mem::replace(&mut self.idle_told, true) {
            let (remaining, elsewhere) = self.common.count_rows(&self.lane);
            self.emit(EventKind::Idle { remaining, elsewhere });
        }
        self.tell(super::activity::Work::lay_down);
        self.set_state(LaneState::Idle, None);
        if let Some(end) = self.end() {
            return Ok(Some(end));
        }
        self.rest_until_refresh(tenure).await?;
        Ok(None)
    }

    /// The end, where the host is to end once nothing can run, and nothing can in any lane.
    fn end(&self) -> Option<End> {
        let until_done = self.means.with.settings.until_done;
        let remaining = if until_done { self.common.nothing_can_run() } else { None };
        remaining.map(|remaining| End::Done { remaining })
    }

    /// What is to be said while one waits for the time of an update that is tried again, or of any.
    fn wait_for(&mut self, update_name: Option<String>, why: String) {
        if update_name.is_some() {
            self.tell(|work| {
                if update_name != work.update_name {
                    work.lay_down();
                    work.update_name = update_name;
                }
            });
        }
        self.stands(UpdateState::BackingOff, Some(why));
    }

    /// The lease is lost: what is done under the next one begins anew.
    pub(super) async fn lose(&mut self) {
        self.current = None;
        self.vetted.clear();
        self.end_aside().await;
    }

    /// Forgets what is known of updates.
    pub(super) fn forget_all(&mut self) {
        self.paces.clear();
        (self.barred, self.refused) = (None, None);
        self.idle_told = false;
    }
}

fn supervisor(common: &Common, lane: &Arc<str>, means: &Means) -> Supervisor {
    let with = &means.with;
    let lane = (**lane != *Lanes::FIRST).then(|| Arc::clone(lane));
    let supervisor = Supervisor::new(&common.name, with.policy.clone(), with.supervision);
    supervisor.in_lane(lane, means.numbers.clone()).with_signals(common.control.signals())
}
