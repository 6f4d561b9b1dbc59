//! Everything that happens, as one stream of typed events per host. The log, the history, the progress bars and
//! whatever else wants to know are fed from here and from nowhere else.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::broadcast;

use super::database::{Holder, Record};
use super::lanes::Lanes;
use crate::controller::{Fault, ShadowNotice, Usage};

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its number: 1 for the first of a host, and without a gap from there on, over all databases.
    pub number: u64,
    /// When.
    pub at: SystemTime,
    /// The database it happened to.
    pub database: String,
    /// The lane that it happened in; `None` for the first, and for what is about the database as a whole.
    pub lane: Option<Arc<str>>,
    /// What.
    pub kind: EventKind,
}

impl Event {
    /// Where it happened, for people: the database, and the lane where it is not the first.
    pub fn place(&self) -> String {
        match &self.lane {
            None => self.database.clone(),
            Some(lane) => format!("{}/{lane}", self.database),
        }
    }
}

/// What can happen.
#[derive(Debug, Clone)]
pub enum EventKind {
    /// This host is the database's runner now.
    LeaseAcquired,
    /// Another host runs this database; this one stands by.
    StandingBy {
        /// Who runs it, where that is known.
        holder: Option<Holder>,
    },
    /// The lease is lost; what ran was rolled back.
    LeaseLost {
        /// Why.
        reason: String,
    },
    /// The database does not answer.
    Unavailable {
        /// What it, or the network, said.
        error: String,
        /// When it will be tried again.
        retry_in: Duration,
    },
    /// The database answers again.
    Available,
    /// An update was chosen.
    UpdateStarted {
        /// The update.
        update_name: String,
        /// True where it happens in one go.
        one_shot: bool,
    },
    /// The controller answered that the update waits.
    Held {
        /// The update.
        update_name: String,
        /// The controller, or what stands in for it.
        controller: String,
        /// For how long.
        duration: Duration,
        /// Why.
        reason: String,
        /// True where this is no more than the rest between two batches: the built-in policy's sleep, or a wait of
        /// less than two seconds in all.
        rest: bool,
    },
    /// A batch begins.
    BatchStarted {
        /// The update.
        update_name: String,
        /// Items asked for.
        batch_size: u64,
        /// The target duration; `None` for a one-shot.
        target: Option<Duration>,
        /// True where the update happens in one go.
        one_shot: bool,
    },
    /// An iteration is over, whatever came of it.
    IterationEnded {
        /// All about it.
        record: Arc<Record>,
        /// Where a batch was committed: Synapse's average_items_per_ms from now on.
        items_per_ms: Option<f64>,
    },
    /// How far the update in hand has come, by an estimate that counts nothing; told every few seconds.
    Progress {
        /// The update.
        update_name: String,
        /// The part that is done, 0.0 to 1.0.
        done: f64,
        /// When it will be over, at the pace that it had under this host, waiting included.
        eta: Option<Duration>,
    },
    /// A batch failed in a way that trying again may mend; it is tried again.
    TransientFailure {
        /// The update.
        update_name: String,
        /// The error.
        error: String,
        /// What else there is to say, which may hold values of rows: for the operator's log alone.
        detail: Option<String>,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// A batch failed in a way that counts.
    Failure {
        /// The update.
        update_name: String,
        /// The error.
        error: String,
        /// What else there is to say, which may hold values of rows: for the operator's log alone.
        detail: Option<String>,
        /// Failures in a row so far.
        attempts: u32,
        /// When it is tried again; `None` where it is quarantined now.
        retry_in: Option<Duration>,
    },
    /// An update is done and its row gone.
    UpdateFinished {
        /// The update.
        update_name: String,
    },
    /// A committed batch left something that an operator should know.
    Noted {
        /// The update.
        update_name: String,
        /// What, in a sentence.
        note: String,
    },
    /// An update has stopped for somebody to approve of it.
    AwaitsApproval {
        /// The update.
        update_name: String,
        /// Why it stopped, in words.
        reason: String,
    },
    /// A batch that takes long waits for others, or does so no longer.
    InTheWay {
        /// The update.
        update_name: String,
        /// Who: process, application, user, since when. Empty where nobody is any more.
        who: Vec<String>,
    },
    /// How many work on an update at once from now on.
    Workers {
        /// The update.
        update_name: String,
        /// How many.
        workers: usize,
    },
    /// An update's row was withdrawn or changed by somebody else.
    UpdateMoved {
        /// The update.
        update_name: String,
        /// True where the row is gone.
        gone: bool,
    },
    /// A controller sets the pace from now on: told when the host starts, and after each reload.
    ControllerLoaded {
        /// The controller, or what stands in for it.
        controller: String,
        /// False when the host starts.
        reloaded: bool,
    },
    /// What a controller's calls used since this was last told.
    ControllerUsed {
        /// The controller.
        controller: String,
        /// What.
        usage: Usage,
    },
    /// The controller is at fault.
    ControllerFault {
        /// The controller.
        controller: String,
        /// What.
        fault: Fault,
        /// Faults in a row so far.
        in_a_row: u32,
    },
    /// The fallback took over from the controller.
    Fallback {
        /// The controller that it stands in for.
        controller: String,
        /// "default" or "hold".
        fallback: String,
        /// Why.
        reason: String,
        /// For which update the controller is tried again, and after how long; `None` where it takes a reload.
        retry: Option<(String, Duration)>,
    },
    /// The controller is tried again while its fallback is in force.
    ControllerTried {
        /// The controller.
        controller: String,
        /// The update that it is tried for.
        update_name: String,
    },
    /// The controller failed again where it was tried: its fallback stays in force.
    ControllerPutOff {
        /// The controller.
        controller: String,
        /// The update that it was tried for.
        update_name: String,
        /// Why.
        reason: String,
        /// After how long it is tried again for this update.
        retry_in: Duration,
    },
    /// The controller came back: its fallback is over.
    ControllerBack {
        /// The controller.
        controller: String,
    },
    /// Something about a controller that is asked beside the one that sets the pace.
    Shadow {
        /// The controller.
        controller: String,
        /// What.
        notice: ShadowNotice,
    },
    /// Rows that cannot run, and why: told once each time that the set changes.
    Blocked {
        /// Each row and the reason in words.
        rows: Vec<(String, String)>,
    },
    /// Updates are paused.
    Paused {
        /// Why, where whoever paused said so.
        reason: Option<String>,
    },
    /// Updates run again.
    Resumed,
    /// Nothing is left that can run in a lane.
    Idle {
        /// Rows of this lane that remain in the queue.
        remaining: usize,
        /// Rows of other lanes.
        elsewhere: usize,
    },
    /// A lane is no more: the configuration that was loaded has none of its name.
    LaneClosed,
    /// The host stops work on this database.
    Stopped,
}

/// Sees every event as it happens, on the task that it happens on: it has to be quick, and misses nothing.
pub trait Observer: Send + Sync {
    /// Takes note of an event.
    fn see(&self, event: &Event);
}

/// Where events go, and where they are had.
#[derive(Clone)]
pub struct Events {
    sender: broadcast::Sender<Arc<Event>>,
    observers: Arc<RwLock<Vec<Arc<dyn Observer>>>>,
    /// The number of the last event. Held while one is told, so that everybody sees them in order.
    last: Arc<Mutex<u64>>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("subscribers", &self.sender.receiver_count()).finish_non_exhaustive()
    }
}

impl Default for Events {
    fn default() -> Self {
        /// Events that a subscriber may lag behind before it loses the oldest: some seconds of the fastest iterations.
        const CAPACITY: usize = 65_536;
        Self { sender: broadcast::channel(CAPACITY).0, observers: Arc::default(), last: Arc::default() }
    }
}

impl Events {
    /// Every event from now on. A subscriber that does not keep up is told how many it lost.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.sender.subscribe()
    }

    /// As [`Events::subscribe`], with the number of the last event before.
    pub fn subscribe_after(&self) -> (broadcast::Receiver<Arc<Event>>, u64) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (self.sender.subscribe(), *last)
    }

    /// Shows every event from now on to an observer, before any subscriber has it.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.observers.write().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    /// Tells everybody of something that happened in a lane.
    pub(crate) fn emit_in(&self, database: &str, lane: &Arc<str>, kind: EventKind) {
        self.tell(database, (**lane != *Lanes::FIRST).then(|| Arc::clone(lane)), kind);
    }

    /// Tells everybody of something that happened to a database: a host does, and a test that stands in for one.
    #[doc(hidden)]
    pub fn emit(&self, database: &str, kind: EventKind) {
        self.tell(database, None, kind);
    }

    fn tell(&self, database: &str, lane: Option<Arc<str>>, kind: EventKind) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        let event = Event { number: *last, at: SystemTime::now(), database: database.to_owned(), lane, kind };
        for observer in self.observers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            observer.see(&event);
        }
        if self.sender.receiver_count() > 0 {
            // An error only says that nobody listens any more.
            let _ = self.sender.send(Arc::new(event));
        }
    }
}
