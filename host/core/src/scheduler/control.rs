//! How a running host is steered from within its process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;

use super::database::Measured;
use super::lanes::Lanes;
use super::ledger::Actor;
use super::{Handlers, Settings};
use crate::controller::{Policy, ShadowPolicy, SupervisorSettings};
use crate::signal::{Definition, NoSignals, Reading, SignalReader, Signals};

/// What a running host is to work with from now on, on one database.
#[derive(Clone)]
pub struct Replacement {
    /// The updates that are defined.
    pub handlers: Handlers,
    /// In which lane each of them is worked on.
    pub lanes: Lanes,
    /// Who sets the pace.
    pub policy: Policy,
    /// What bounds whoever sets the pace.
    pub supervision: SupervisorSettings,
    /// Controllers that are asked the same beside it.
    pub shadows: Vec<ShadowPolicy>,
    /// Settings of the loop. Its holder, and whether it ends once nothing can run, stay as they were.
    pub settings: Settings,
}

impl fmt::Debug for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replacement").field("handlers", &self.handlers.len()).finish_non_exhaustive()
    }
}

/// What one database's loop has been told and has not done yet.
#[derive(Debug, Default)]
struct Orders {
    replacement: Option<Replacement>,
    hurry: bool,
    /// Updates that are to be taken out of the queue, whatever they do at the moment.
    withdrawn: HashMap<String, Option<Actor>>,
    /// Set while it is paused until the host restarts; the reason, where one was given.
    pause: Option<Option<String>>,
}

/// Steers a running host; clones steer the same one.
#[derive(Debug, Clone)]
pub struct Control {
    enabled: Arc<watch::Sender<bool>>,
    stopping: Arc<watch::Sender<bool>>,
    /// Counts wake-ups, so that none is lost on a loop that is busy.
    wakes: Arc<watch::Sender<u64>>,
    /// By database name.
    orders: Arc<Mutex<HashMap<String, Orders>>>,
    /// What is told beside what the host does.
    signals: Arc<OnceLock<Signals>>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            enabled: Arc::new(watch::Sender::new(true)),
            stopping: Arc::new(watch::Sender::new(false)),
            wakes: Arc::new(watch::Sender::new(0)),
            orders: Arc::default(),
            signals: Arc::default(),
        }
    }
}

impl Control {
    /// Has the host write these signals down, too, whenever it writes down what it does, for `status` to tell, and has the
    /// built-in policy go by them where it is gentle. The first ones given count, if they are given before the host runs.
    pub fn tell_signals(&self, signals: Signals) {
        let _ = self.signals.set(signals);
    }

    /// What the built-in policy goes by where it is gentle: the signals that are told.
    pub(super) fn signals(&self) -> Arc<dyn SignalReader> {
        match self.signals.get() {
            Some(signals) => Arc::new(signals.clone()),
            None => Arc::new(NoSignals),
        }
    }

    /// What can be read of one database now.
    pub(super) fn measured(&self, name: &str) -> Vec<Measured> {
        let signals = self.signals.get().map(|signals| signals.of(name)).unwrap_or_default();
        let measured = signals.into_iter().filter_map(|signal| {
            let Reading { value, age } = signal.reading?;
            let Definition { name, unit, .. } = signal.definition;
            Some(Measured { name, value, unit, age_ms: age.as_millis().try_into().unwrap_or(u64::MAX) })
        });
        measured.collect()
    }

    /// Pauses (`false`) or resumes all databases of this host before the next batch, until it restarts: Synapse's
    /// `enabled`. To resume lifts the pauses of [`Control::set_pause`] too. A pause stored in a database is apart from
    /// these; all must be lifted.
    pub fn set_enabled(&self, enabled: bool) {
        if enabled {
            self.with_orders(|orders| orders.values_mut().for_each(|orders| orders.pause = None));
        }
        self.enabled.send_replace(enabled);
        self.wake();
    }

    /// False while [`Control::set_enabled`] paused this host.
    pub fn is_enabled(&self) -> bool {
        *self.enabled.borrow()
    }

    /// Pauses one database before its next batch, until the host restarts, or lifts that pause. The reason, where there
    /// is one, is for whoever looks.
    pub fn set_pause(&self, database: &str, pause: Option<Option<String>>) {
        self.order(database, |orders| orders.pause = pause);
    }

    /// What [`Control::set_pause`] last set.
    pub fn pause_of(&self, database: &str) -> Option<Option<String>> {
        self.with_orders(|orders| orders.get(database)?.pause.clone())
    }

    /// Looks at the queues now, not only when they are next polled.
    pub fn wake(&self) {
        self.wakes.send_modify(|wakes| *wakes = wakes.wrapping_add(1));
    }

    /// Has a database worked on with other definitions, another controller and other settings from its next iteration
    /// on. An iteration that waits is ended without its exit; one whose batch runs is exited as it was entered. A name
    /// that this host does not work on is without effect.
    pub fn reload(&self, database: &str, replacement: Replacement) {
        self.order(database, |orders| orders.replacement = Some(replacement));
    }

    /// Ends the wait that a database's update is in, once: after a failure it is tried again now, and a controller that
    /// let it wait is asked again now.
    pub fn hurry(&self, database: &str) {
        self.order(database, |orders| orders.hurry = true);
    }

    /// Has a batch of this update, or what it does in one go, interrupted and undone, and its row taken out of the queue.
    /// It counts until [`Control::forget_withdrawal`].
    pub fn withdraw(&self, database: &str, update_name: &str) {
        self.withdraw_for(database, update_name, None);
    }

    /// The same on behalf of somebody whom the ledger is to name.
    pub fn withdraw_for(&self, database: &str, update_name: &str, actor: Option<Actor>) {
        self.order(database, |orders| {
            orders.withdrawn.insert(update_name.to_owned(), actor);
        });
    }

    /// On whose behalf an update was withdrawn, where that was said.
    pub(super) fn withdrawn_by(&self, database: &str, update_name: &str) -> Option<Actor> {
        self.with_orders(|orders| orders.get(database)?.withdrawn.get(update_name)?.clone())
    }

    /// Takes back what [`Control::withdraw`] asked for, or what has come of it.
    pub fn forget_withdrawal(&self, database: &str, update_name: &str) {
        self.with_orders(|orders| {
            if let Some(orders) = orders.get_mut(database) {
                orders.withdrawn.remove(update_name);
            }
        });
    }

    /// True from [`Control::withdraw`] on.
    pub(super) fn is_withdrawn(&self, database: &str, update_name: &str) -> bool {
        self.with_orders(|orders| orders.get(database).is_some_and(|orders| orders.withdrawn.contains_key(update_name)))
    }

    /// What [`Control::reload`] was last given and is not in force yet.
    pub(super) fn take_replacement(&self, database: &str) -> Option<Replacement> {
        self.with_orders(|orders| orders.get_mut(database)?.replacement.take())
    }

    /// True where [`Control::reload`] was given something that is not in force yet.
    pub(super) fn has_replacement(&self, database: &str) -> bool {
        self.with_orders(|orders| orders.get(database).is_some_and(|orders| orders.replacement.is_some()))
    }

    /// True once after each [`Control::hurry`].
    pub(super) fn take_hurry(&self, database: &str) -> bool {
        self.with_orders(|orders| orders.get_mut(database).is_some_and(|orders| std::mem::take(&mut orders.hurry)))
    }

    fn order(&self, database: &str, order: impl FnOnce(&mut Orders)) {
        self.with_orders(|orders| order(orders.entry(database.to_owned()).or_default()));
        self.wake();
    }

    fn with_orders<T>(&self, act: impl FnOnce(&mut HashMap<String, Orders>) -> T) -> T {
        act(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks the host to stop; safe to call twice.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// True once the host was asked to stop.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves once the host was asked to stop.
    pub async fn stopped(&self) {
        // The sender lives as long as `self`, so that an error cannot be.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Sees every wake-up from now on.
    pub(super) fn wakes(&self) -> watch::Receiver<u64> {
        self.wakes.subscribe()
    }
}
