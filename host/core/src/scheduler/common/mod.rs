//! What the lanes of one database have in common: the queue as it was last read, what is to be worked with, what is told.

mod told;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::choice::{Roster, Standing};
use super::control::{Control, Replacement};
use super::database::{Activity, Database, Failure, Pause, Queue, QueueRow, Work};
use super::event::{EventKind, Events};
use super::history::History;
use super::lanes::Lanes;
use super::report::accepts_skipped;
use super::{PARTING_LIMIT, Settings, Workload};
use crate::controller::{Numbers, Witness};
use crate::pace::Backoff;
use crate::update::SqlError;

/// A running host looks at pauses, withdrawn rows and its other orders at least this often.
const LONGEST_REFRESH: Duration = Duration::from_secs(1);

/// Waits after failures begin with this and double up to [`LONGEST_BACKOFF`].
pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(250);
pub(super) const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// What the lanes of one database have in common.
pub(super) struct Common {
    pub(super) name: String,
    pub(super) database: Arc<dyn Database>,
    pub(super) events: Events,
    pub(super) control: Control,
    /// Where what is no part of the work is done, however long it takes.
    pub(super) outside: Handle,
    pub(super) history: Arc<History>,
    pub(super) witnesses: Vec<Arc<dyn Witness>>,
    /// Held by the lane whose turn it is, where the database takes one writer at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// How long a batch may go on once the host was asked to stop, for whoever waits for the work to end.
    grace: watch::Sender<Duration>,
    state: Mutex<CommonState>,
    /// Held while the queue is read.
    reading: tokio::sync::Mutex<()>,
    /// What was last written down of this host. Held while something is.
    written: tokio::sync::Mutex<Option<Activity>>,
    /// Counts what the lanes are to notice of each other.
    stirs: watch::Sender<u64>,
    /// What is in the way of the work, for the lease.
    trouble: watch::Sender<Option<String>>,
}

/// What changes of it.
pub(super) struct CommonState {
    pub(super) means: Arc<Means>,
    /// The queue as it was last read, kept up with what this host did since.
    pub(super) roster: Roster,
    /// The stored pause, as it was last read.
    pause: Option<Pause>,
    /// When the queue was last read; `None` forces a look before the next choice.
    pub(super) refreshed: Option<Instant>,
    /// How often it was read.
    looks: u64,
    /// True where something has ended since.
    pub(super) is_outdated: bool,
    backoff: Backoff,
    unavailable: bool,
    /// The lanes in which the database lets no batch begin, though it answers.
    locked_out: BTreeSet<Arc<str>>,
    /// True once the database has answered.
    pub(super) answered: bool,
    paused: bool,
    blocked: Vec<(String, String)>,
    /// Failures that the database would not take, with the progress that their rows had, by update name.
    unrecorded: HashMap<String, (String, Failure)>,
    /// How often all waits were to end.
    hurries: u64,
    /// What each lane does.
    works: BTreeMap<Arc<str>, Work>,
    /// What is in the way of a lane.
    troubles: BTreeMap<Arc<str>, String>,
    /// The lanes whose controller holds all that is ready, until somebody mends it; why.
    held: BTreeMap<Arc<str>, String>,
    /// The update that each lane is at: what is put in another lane meanwhile waits for that.
    claims: BTreeMap<Arc<str>, String>,
    /// True where every lane is to leave off after its batch.
    is_leaving: bool,
}

/// What a database is worked with, until that is replaced.
pub(super) struct Means {
    /// The number of replacements before.
    pub(super) generation: u64,
    pub(super) with: Replacement,
    pub(super) lanes: Arc<Lanes>,
    /// Numbers for the instances and iterations of controllers, whatever the lane.
    pub(super) numbers: Numbers,
}

impl Means {
    fn new(generation: u64, with: Replacement) -> Arc<Self> {
        Arc::new(Self { generation, lanes: Arc::new(with.lanes.clone()), with, numbers: Numbers::default() })
    }
}

impl Common {
    /// What the lanes of this workload have in common; what is no part of the work is done by `outside`.
    pub(super) fn new(
        workload: Workload,
        settings: Settings,
        (events, control): (Events, Control),
        outside: Handle,
        history: Arc<History>,
        grace: watch::Sender<Duration>,
    ) -> Arc<Self> {
        let Workload { name, database, handlers, lanes, policy, supervision, shadows, witnesses } = workload;
        let with = Replacement { handlers, lanes, policy, supervision, shadows, settings };
        let state = CommonState {
            means: Means::new(0, with),
            roster: Roster::default(),
            pause: None,
            refreshed: None,
            looks: 0,
            is_outdated: false,
            backoff: Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF),
            unavailable: false,
            locked_out: BTreeSet::new(),
            answered: false,
            paused: false,
            blocked: Vec::new(),
            unrecorded: HashMap::new(),
            hurries: 0,
            works: BTreeMap::new(),
            troubles: BTreeMap::new(),
            held: BTreeMap::new(),
            claims: BTreeMap::new(),
            is_leaving: false,
        };
        Arc::new(Self {
            name,
            database,
            events,
            control,
            outside,
            history,
            witnesses,
            turn: tokio::sync::Mutex::default(),
            grace,
            state: Mutex::new(state),
            reading: tokio::sync::Mutex::default(),
            written: tokio::sync::Mutex::default(),
            stirs: watch::Sender::new(0),
            trouble: watch::Sender::new(None),
        })
    }

    /// Nothing is awaited while it is held.
    pub(super) fn state(&self) -> MutexGuard<'_, CommonState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn emit(&self, kind: EventKind) {
        self.events.emit(&self.name, kind);
    }

    /// Sees whatever lanes are to notice of each other, from now on.
    pub(super) fn stirs(&self) -> watch::Receiver<u64> {
        self.stirs.subscribe()
    }

    pub(super) fn stir(&self) {
        self.stirs.send_modify(|stirs| *stirs = stirs.wrapping_add(1));
    }

    /// Sees what is in the way of the work.
    pub(super) fn troubles(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Takes what was ordered with [`Control::reload`].
    pub(super) fn reload(&self) {
        let Some(mut with) = self.control.take_replacement(&self.name) else { return };
        let mut state = self.state();
        let before = &state.means;
        (with.settings.holder, with.settings.until_done) =
            (before.with.settings.holder.clone(), before.with.settings.until_done);
        self.grace.send_replace(with.settings.shutdown_grace);
        state.means = Means::new(before.generation + 1, with);
        state.refreshed = None;
        drop(state);
        self.stir();
    }

    /// How often all waits were to end until now.
    pub(super) fn hurries(&self) -> u64 {
        let more = self.control.take_hurry(&self.name);
        let mut state = self.state();
        if more {
            state.hurries += 1;
        }
        let hurries = state.hurries;
        drop(state);
        if more {
            self.stir();
        }
        hurries
    }

    /// Reads the queue, unless another lane has done so while this one waited for its turn.
    pub(super) async fn read(&self) -> Result<(), SqlError> {
        let _reading = self.reading.lock().await;
        if !self.is_refresh_due() {
            return Ok(());
        }
        self.state().roster.watch();
        let queue = self.database.queue().await?;
        self.take_in(queue);
        let mut state = self.state();
        state.looks += 1;
        state.refreshed = Some(Instant::now());
        Ok(())
    }

    /// Takes in the queue as it was read.
    pub(super) fn take_in(&self, mut queue: Queue) {
        let mut state = self.state();
        let means = Arc::clone(&state.means);
        queue.accept_skipped(&|name| accepts_skipped(&means.with.handlers, name));
        let lanes = Arc::clone(&means.lanes);
        state.roster.renew(queue.rows, lanes, &|name| means.with.handlers.contains_key(name));
        state.pause = queue.pause;
        state.is_outdated = false;
    }

    /// What follows from a look at the queue for all lanes.
    pub(super) async fn look_after(&self) {
        self.record_late().await;
        self.note_available();
        self.note_pause();
        self.note_blocked();
        // What has become ready may be another lane's.
        self.stir();
    }

    pub(super) fn looks(&self) -> u64 {
        self.state().looks
    }

    pub(super) fn refresh_interval(&self) -> Duration {
        self.state().refresh_interval()
    }

    pub(super) fn is_refresh_due(&self) -> bool {
        self.until_refresh().is_zero()
    }

    /// How long until the queue is to be read.
    pub(super) fn until_refresh(&self) -> Duration {
        let state = self.state();
        state.refreshed.map_or(Duration::ZERO, |at| state.refresh_interval().saturating_sub(at.elapsed()))
    }

    /// The rows that remain and why, where none can run in any lane.
    pub(super) fn nothing_can_run(&self) -> Option<Vec<(String, String)>> {
        let state = self.state();
        let held = |row: &QueueRow| state.held.get(state.means.lanes.of(&row.update_name)).cloned();
        let rows = state.roster.iter();
        let why = |(row, standing): (&QueueRow, &Standing)| standing.explain(row).or_else(|| held(row));
        rows.map(|row| Some((row.0.update_name.clone(), why(row)?))).collect()
    }

    /// How many rows there are in a lane, and in the others.
    pub(super) fn count_rows(&self, lane: &Arc<str>) -> (usize, usize) {
        let state = self.state();
        let lanes = &state.means.lanes;
        let rows: Vec<bool> = state.roster.iter().map(|(row, _)| lanes.of(&row.update_name) == lane).collect();
        let here = rows.iter().filter(|here| **here).count();
        (here, rows.len() - here)
    }

    /// Takes note that a lane's controller holds all that is ready there, for this reason, until somebody mends it.
    pub(super) fn hold(&self, lane: &Arc<str>, reason: &str) {
        self.state().held.insert(Arc::clone(lane), reason.to_owned());
    }

    /// Takes note that a row is gone, which may have others run, in whatever lane.
    pub(super) fn note_end(&self, update_name: &str) {
        let mut state = self.state();
        let handler = state.means.with.handlers.get(update_name);
        let may_have_skipped = handler.is_some_and(|handler| handler.tolerance().is_some())
            || state.roster.get(update_name).is_some_and(|row| row.skipped > 0);
        state.roster.remove(update_name, may_have_skipped);
        if may_have_skipped {
            state.refreshed = None;
        }
        state.is_outdated = true;
        state.held.clear();
        drop(state);
        self.stir();
    }

    /// Takes an update in hand for a lane; false where another is still at it.
    pub(super) fn claim(&self, lane: &Arc<str>, update_name: &str) -> bool {
        let mut state = self.state();
        if state.is_claimed(lane, update_name) {
            return false;
        }
        state.held.remove(lane);
        state.claims.insert(Arc::clone(lane), update_name.to_owned());
        true
    }

    /// Gives back what was claimed last.
    pub(super) fn unclaim(&self, lane: &Arc<str>) {
        self.state().claims.remove(lane);
    }

    /// Has every lane leave off after its batch.
    pub(super) fn leave(&self, leave: bool) {
        self.state().is_leaving = leave;
        self.stir();
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.state().is_leaving
    }

    /// Forgets a lane that is no more.
    pub(super) fn forget_lane(&self, lane: &Arc<str>) {
        let mut state = self.state();
        state.works.remove(lane);
        state.troubles.remove(lane);
        state.held.remove(lane);
        state.claims.remove(lane);
        state.locked_out.remove(lane);
    }

    /// What is held under a lease is held no longer.
    pub(super) fn lose(&self) {
        let mut state = self.state();
        state.refreshed = None;
        state.claims.clear();
        state.held.clear();
        state.is_leaving = false;
    }

    /// Forgets what is known of a database where another has taken its place: nothing of it is true of that one.
    pub(super) async fn forget_if_replaced(&self) -> bool {
        if !self.database.is_replaced() {
            return false;
        }
        self.take_in(Queue::default());
        self.state().forget();
        if timeout(PARTING_LIMIT, self.history.forget()).await.is_err() {
            tracing::debug!("the history is being written, to a database that does not answer");
        }
        true
    }
}

impl CommonState {
    /// Forgets what is not true of another database.
    fn forget(&mut self) {
        self.unrecorded.clear();
        self.troubles.clear();
    }

    fn refresh_interval(&self) -> Duration {
        self.means.with.settings.poll_interval.min(LONGEST_REFRESH)
    }

    /// True where another lane than this one is at an update.
    pub(super) fn is_claimed(&self, lane: &Arc<str>, update_name: &str) -> bool {
        self.claims.iter().any(|(of, claimed)| of != lane && claimed == update_name)
    }
}
