//! The runner of one database: holds the lease, and has each lane worked on under it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::attempt::Interruption;
use super::common::Common;
use super::database::{Lease, LeaseAttempt};
use super::event::EventKind;
use super::worker::{Served, Worker};
use super::{End, PARTING_LIMIT};
use crate::update::{ErrorClass, SqlError};

/// A standby tries for the lease at least this often: a takeover is to be a matter of seconds.
const STANDBY_INTERVAL: Duration = Duration::from_secs(1);

/// How long an attempt at the lease may take: longer than anything takes that has an end of its own. It is told long before
/// that the database does not answer.
const ACQUISITION_LIMIT: Duration = Duration::from_secs(120);
const ACQUISITION_SILENCE: Duration = Duration::from_secs(15);

/// The lease as the lanes see it, which all work under it.
#[derive(Clone)]
pub(super) struct Tenure {
    lost: watch::Receiver<Option<String>>,
}

impl Tenure {
    /// The lease as it is known to be held until `lost` says why it is not.
    pub(super) fn until(lost: &watch::Sender<Option<String>>) -> Self {
        Self { lost: lost.subscribe() }
    }

    /// Resolves when the lease is lost, with the reason; pending for as long as it is held.
    pub(super) async fn lost(&mut self) -> String {
        let reason = self.lost.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // Whoever holds the lease waits for the lanes to leave off.
            None => std::future::pending().await,
        }
    }
}

/// A lane at work: what it ended with, and its worker.
type Working = BoxFuture<'static, (Worker, Result<Served, Interruption>)>;

/// The runner of one database, or a standby.
pub(super) struct Runner {
    common: Arc<Common>,
    /// Those that do not work at the moment.
    workers: Vec<Worker>,
}

impl Runner {
    pub(super) fn new(common: Arc<Common>) -> Self {
        let mut runner = Self { common, workers: Vec::new() };
        runner.workers = runner.missing(&[]);
        runner
    }

    /// Works until told to stop, or until nothing can run where the settings say so.
    pub(super) async fn run(mut self) -> End {
        let end = loop {
            let mut lease = match self.acquire().await {
                Ok(lease) => lease,
                Err(end) => break end,
            };
            self.common.emit(EventKind::LeaseAcquired);
            match self.work(&mut *lease).await {
                Ok(end) => {
                    self.leave(lease).await;
                    break end;
                }
                Err(Interruption::Stopping) => {
                    self.leave(lease).await;
                    break End::Stopped;
                }
                Err(Interruption::LeaseLost(reason)) => {
                    self.common.emit(EventKind::LeaseLost { reason });
                    for worker in &mut self.workers {
                        worker.lose().await;
                    }
                    self.common.lose();
                    self.common.forget_written().await;
                    self.forget_if_replaced().await;
                    lease.release().await;
                    // Whatever cost the lease may have cost the connections too, and they need not know it yet.
                    let _ = timeout(PARTING_LIMIT, self.common.database.close()).await;
                }
            }
        };
        for worker in self.workers {
            worker.retire(false).await;
        }
        self.common.emit(EventKind::Stopped);
        end
    }

    /// Workers for the lanes that are not among these.
    fn missing(&self, lanes: &[Arc<str>]) -> Vec<Worker> {
        let all = Arc::clone(&self.common.state().means.lanes);
        let missing = all.names().iter().filter(|lane| !lanes.contains(lane));
        missing.map(|lane| Worker::new(&self.common, Arc::clone(lane))).collect()
    }

    /// Has all lanes worked on as the one runner, until one says that there is an end.
    async fn work(&mut self, lease: &mut dyn Lease) -> Result<End, Interruption> {
        let (lost, tenure) = (watch::Sender::new(None), watch::Sender::subscribe);
        let mut troubles = self.common.troubles();
        let mut stirs = self.common.stirs();
        let (mut working, mut lanes) = (FuturesUnordered::<Working>::new(), Vec::new());
        let mut result = None;
        let start = |worker: Worker| -> Working { Box::pin(worker.serve(Tenure { lost: tenure(&lost) })) };
        for worker in self.workers.drain(..) {
            lanes.push(worker.lane().clone());
            working.push(start(worker));
        }
        'held: loop {
            {
                let mut held = pin!(lease.lost());
                loop {
                    let is_lost = lost.borrow().is_some();
                    tokio::select! {
                        // Of what is due at one moment always the same first, so that a simulation comes out the same each time.
                        biased;
                        ended = working.next() => {
                            let Some((worker, served)) = ended else { break 'held };
                            let lane = worker.lane().clone();
                            match served {
                                Ok(Served::Retired) => {
                                    lanes.retain(|other| *other != lane);
                                    worker.retire(true).await;
                                    self.common.forget_lane(&lane);
                                    continue;
                                }
                                Ok(Served::Left) => {}
                                Ok(Served::Ended(end)) => {
                                    result.get_or_insert(Ok(end));
                                    self.common.leave(true);
                                }
                                Err(interruption) => {
                                    if let Interruption::LeaseLost(reason) = &interruption {
                                        lost.send_replace(Some(reason.clone()));
                                    }
                                    result.get_or_insert(Err(interruption));
                                }
                            }
                            self.workers.push(worker);
                        }
                        reason = &mut held, if !is_lost => drop(lost.send_replace(Some(reason))),
                        // Its sender lives as long as `common`, so that an error cannot be; so does the other's.
                        _ = troubles.changed() => break,
                        _ = stirs.changed() => {
                            if result.is_none() && !is_lost {
                                for worker in self.missing(&lanes) {
                                    lanes.push(worker.lane().clone());
                                    working.push(start(worker));
                                }
                            }
                        }
                    }
                }
            }
            let trouble = troubles.borrow_and_update().clone();
            lease.note(trouble.as_deref()).await;
        }
        self.common.leave(false);
        result.unwrap_or(Err(Interruption::Stopping))
    }

    /// Makes the tables and waits for the lease.
    async fn acquire(&mut self) -> Result<Box<dyn Lease>, End> {
        let mut standing_by = false;
        loop {
            if self.common.control.is_stopping() {
                return Err(End::Stopped);
            }
            let control = self.common.control.clone();
            let attempt = tokio::select! {
                biased;
                () = control.stopped() => return Err(End::Stopped),
                attempt = self.try_acquire() => attempt,
            };
            let (until_done, poll_interval) = self.settings();
            let wait = match attempt {
                Ok(LeaseAttempt::Held(lease)) => return Ok(lease),
                Ok(LeaseAttempt::Taken(holder)) => {
                    if until_done && let Some(remaining) = self.common.nothing_can_run() {
                        return Err(End::Done { remaining });
                    }
                    if !standing_by {
                        self.common.emit(EventKind::StandingBy { holder });
                        standing_by = true;
                    }
                    poll_interval.min(STANDBY_INTERVAL)
                }
                Err(error) if until_done && !standing_by && !self.is_worth_waiting_for(&error) => {
                    return Err(End::Failed(error));
                }
                Err(error) => {
                    let wait = self.common.note_unavailable(&error);
                    if self.forget_if_replaced().await {
                        let _ = timeout(PARTING_LIMIT, self.common.database.close()).await;
                    }
                    wait
                }
            };
            tokio::select! {
                biased;
                () = control.stopped() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Whether to end once nothing can run, and how often to look.
    fn settings(&self) -> (bool, Duration) {
        let means = Arc::clone(&self.common.state().means);
        (means.with.settings.until_done, means.with.settings.poll_interval)
    }

    /// A host that is to end by itself does not wait for a database that never answered or that refuses it.
    fn is_worth_waiting_for(&self, error: &SqlError) -> bool {
        match error.class {
            ErrorClass::Transient | ErrorClass::Interrupted | ErrorClass::Overtaken => true,
            ErrorClass::Connection | ErrorClass::Replaced => self.common.state().answered,
            ErrorClass::Permanent => false,
        }
    }

    async fn try_acquire(&mut self) -> Result<LeaseAttempt, SqlError> {
        let means = Arc::clone(&self.common.state().means);
        let (holder, until_done) = (means.with.settings.holder.clone(), means.with.settings.until_done);
        let database = Arc::clone(&self.common.database);
        let mut attempt = pin!(async move {
            database.prepare().await?;
            let attempt = database.try_lease(&holder).await?;
            let is_taken = matches!(attempt, LeaseAttempt::Taken(_));
            let queue = if is_taken && until_done { Some(database.queue().await?) } else { None };
            Ok((attempt, queue))
        });
        let mut tried = timeout(ACQUISITION_SILENCE, &mut attempt).await;
        if tried.is_err() {
            // Each wait in it has an end, and they may come to much.
            let left = ACQUISITION_LIMIT.saturating_sub(ACQUISITION_SILENCE);
            self.common.note_silent(&silence(ACQUISITION_SILENCE), left);
            tried = timeout(left, attempt).await;
        }
        let Ok(tried) = tried else {
            // What hangs is not to hang the next attempt.
            let _ = timeout(PARTING_LIMIT, self.common.database.close()).await;
            return Err(silence(ACQUISITION_LIMIT));
        };
        let (attempt, queue) = tried?;
        if let Some(queue) = queue {
            self.common.take_in(queue);
        }
        self.common.note_available();
        Ok(attempt)
    }

    /// Forgets what is known of a database where another has taken its place.
    async fn forget_if_replaced(&mut self) -> bool {
        let is_replaced = self.common.forget_if_replaced().await;
        if is_replaced {
            self.workers.iter_mut().for_each(Worker::forget_all);
        }
        is_replaced
    }

    async fn leave(&mut self, lease: Box<dyn Lease>) {
        for worker in &mut self.workers {
            worker.end_aside().await;
        }
        self.common.write_last_words().await;
        lease.release().await;
    }
}

/// A database that does not answer.
fn silence(limit: Duration) -> SqlError {
    SqlError::new(ErrorClass::Connection, format!("the database has not answered for {} s", limit.as_secs()))
}
