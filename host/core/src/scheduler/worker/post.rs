//! What those share who work on one update at once: which parts are taken, how far all has come, and what one has to tell
//! the others.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::super::attempt::Interruption;
use super::super::common::{Common, Means};
use super::super::event::EventKind;
use super::super::runner::Tenure;
use crate::update::parts::{Part, parts};
use crate::update::{Handler, Progress};

/// What hands are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// To work.
    Work,
    /// To leave off after the batch in hand.
    Leave,
}

/// What a hand tells the worker that has the update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// A batch of the part with this end failed in a way that counts: that is for one worker alone to meet again.
    Failed {
        /// The part.
        end: String,
    },
    /// Somebody changed the row.
    Moved,
    /// Somebody wants the update to be taken out of the queue.
    Withdrawn,
    /// This host must leave off.
    Interrupted(String),
}

/// The update that several work on, and how it stands.
pub(super) struct Post {
    pub(super) common: Arc<Common>,
    pub(super) lane: Arc<str>,
    pub(super) means: Arc<Means>,
    pub(super) update_name: String,
    pub(super) handler: Arc<dyn Handler>,
    desk: Mutex<Desk>,
    orders: watch::Sender<Order>,
    /// Why the lease is lost, once it is.
    lost: watch::Sender<Option<String>>,
    /// Rings where a hand has something to tell, or leaves.
    pub(super) bell: Notify,
}

/// What changes meanwhile.
#[derive(Default)]
struct Desk {
    /// The row's progress as one of them last wrote it. Of the parts that nobody has taken it is right whoever wrote it.
    progress: String,
    /// The parts that somebody has taken, by their ends. One that is done stays taken.
    taken: HashSet<String>,
    /// Items committed by hands that nobody has counted yet.
    items: u64,
    news: Vec<News>,
}

impl Post {
    pub(super) fn new(
        common: &Arc<Common>,
        lane: &Arc<str>,
        means: &Arc<Means>,
        (update_name, progress): (&str, &str),
        handler: &Arc<dyn Handler>,
    ) -> Self {
        Self {
            common: Arc::clone(common),
            lane: Arc::clone(lane),
            means: Arc::clone(means),
            update_name: update_name.to_owned(),
            handler: Arc::clone(handler),
            desk: Mutex::new(Desk { progress: progress.to_owned(), ..Desk::default() }),
            orders: watch::Sender::new(Order::Work),
            lost: watch::Sender::new(None),
            bell: Notify::new(),
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of something that happened in the lane.
    pub(super) fn emit(&self, kind: EventKind) {
        self.common.events.emit_in(&self.common.name, &self.lane, kind);
    }

    /// The row's progress as one of them last wrote it.
    pub(super) fn progress(&self) -> String {
        self.desk().progress.clone()
    }

    /// Takes a part that nobody has taken.
    pub(super) fn take(&self) -> Option<Part> {
        let mut desk = self.desk();
        let progress = Progress::parse(&desk.progress).ok()?;
        parts(&progress).into_iter().find(|part| desk.taken.insert(part.end().to_string()))
    }

    /// Takes this part, where nobody has.
    pub(super) fn take_this(&self, part: &Part) -> bool {
        self.desk().taken.insert(part.end().to_string())
    }

    /// Gives a part back that is not done.
    pub(super) fn give_back(&self, part: &Part) {
        self.desk().taken.remove(&part.end().to_string());
    }

    /// Takes note of a batch that was committed.
    pub(super) fn note(&self, progress: &str, items: u64) {
        let mut desk = self.desk();
        progress.clone_into(&mut desk.progress);
        desk.items = desk.items.saturating_add(items);
    }

    /// The items that hands have committed since this was last asked.
    pub(super) fn take_items(&self) -> u64 {
        std::mem::take(&mut self.desk().items)
    }

    /// Tells the worker that has the update.
    pub(super) fn tell(&self, news: News) {
        self.desk().news.push(news);
        self.bell.notify_one();
    }

    /// The first of what there is to tell.
    pub(super) fn news(&self) -> Option<News> {
        let mut desk = self.desk();
        (!desk.news.is_empty()).then(|| desk.news.remove(0))
    }

    pub(super) fn order(&self, order: Order) {
        self.orders.send_replace(order);
    }

    /// Has all leave off at once: the lease is lost.
    pub(super) fn lose(&self, reason: &str) {
        self.lost.send_replace(Some(reason.to_owned()));
    }

    /// The lease as hands see it.
    pub(super) fn tenure(&self) -> Tenure {
        Tenure::until(&self.lost)
    }

    /// What is ordered, from now on.
    pub(super) fn orders(&self) -> watch::Receiver<Order> {
        self.orders.subscribe()
    }
}

impl From<Interruption> for News {
    fn from(interruption: Interruption) -> Self {
        match interruption {
            Interruption::Stopping => News::Interrupted("the host stops".to_owned()),
            Interruption::LeaseLost(reason) => News::Interrupted(reason),
        }
    }
}

/// What ends a part, as it is told.
pub(super) fn end_of(part: &Part) -> String {
    part.end().to_string()
}

/// The part with this end in a row's progress.
pub(super) fn part_with(progress: &str, end: &str) -> Option<Part> {
    let progress = Progress::parse(progress).ok()?;
    parts(&progress).into_iter().find(|part| end_of(part) == end)
}
