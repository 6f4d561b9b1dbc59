//! One batch: its transaction opened, its slices run, its progress committed, and what came of it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, timeout};

use super::control::Control;
use super::database::{Begin, Database, Interrupt, Lease, QueueRow, Transaction};
use super::event::{EventKind, Events};
use super::wakeful::Wakeful;
use super::watch::Watch;
use crate::update::sql::Sql;
use crate::update::{Budget, ErrorClass, Handler, Mode, Next, Progress, SqlError, Step, UpdateError};

/// How long an interrupted statement may take to notice.
const INTERRUPT_PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait before asking again what became of a commit.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What a batch is run with.
pub(super) struct Attempt<'a> {
    pub(super) database_name: &'a str,
    pub(super) database: &'a dyn Database,
    pub(super) events: &'a Events,
    pub(super) control: &'a Control,
    pub(super) shutdown_grace: Duration,
    pub(super) lease: &'a mut dyn Lease,
    pub(super) watch: Watch<'a>,
    pub(super) waits: &'a mut Waits,
    pub(super) handler: &'a dyn Handler,
    pub(super) row: &'a QueueRow,
    pub(super) mode: Mode,
    pub(super) progress: Progress,
    pub(super) batch_size: u64,
}

/// What an attempt waits for, one batch after the other.
#[derive(Debug)]
pub(super) struct Waits {
    begin: Wakeful,
    commit: Wakeful,
}

impl Waits {
    /// For waits on this runtime.
    pub(super) fn new() -> Self {
        Self { begin: Wakeful::new(), commit: Wakeful::new() }
    }
}

/// A batch that is committed.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) items: u64,
    /// What an operator should know of it.
    pub(super) notes: Vec<String>,
    /// The row's progress now; `None` where the update is finished and its row gone.
    pub(super) progress: Option<String>,
}

/// Why nothing was committed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It failed.
    Failed(UpdateError),
    /// Somebody changed the row's progress, or removed the row (true), since it was read.
    Moved { gone: bool },
    /// Somebody wants the update to be taken out of the queue.
    Withdrawn,
    /// This host must leave off.
    Interrupted(Interruption),
}

/// Why this host must leave off work on a database.
#[derive(Debug, Clone)]
pub(super) enum Interruption {
    /// It was asked to stop.
    Stopping,
    /// Its lease is lost.
    LeaseLost(String),
}

impl From<UpdateError> for Trouble {
    fn from(error: UpdateError) -> Self {
        Trouble::Failed(error)
    }
}

impl From<SqlError> for Trouble {
    fn from(error: SqlError) -> Self {
        Trouble::Failed(error.into())
    }
}

impl Attempt<'_> {
    /// Runs the batch, and takes the time from the opening of its transaction to the end of its commit.
    pub(super) async fn run(mut self) -> (Result<Committed, Trouble>, Duration) {
        let started = Instant::now();
        let result = match self.mode {
            Mode::Batched | Mode::OneShot => self.inside().await,
            Mode::OneShotOutside => self.outside().await,
        };
        let elapsed = started.elapsed();
        self.watch.end();
        (result.map_err(|trouble| self.explained(trouble)), elapsed)
    }

    /// A failure that others are to blame for, with who was in the way last.
    fn explained(&self, trouble: Trouble) -> Trouble {
        match trouble {
            // No failure of the update's: the right to work on it was for what is not there any more.
            Trouble::Failed(error) if error.class() == ErrorClass::Replaced => {
                Trouble::Interrupted(Interruption::LeaseLost(error.to_string()))
            }
            Trouble::Failed(UpdateError::Sql(error))
                if error.class == ErrorClass::Transient && !self.watch.last.is_empty() =>
            {
                let message = format!("{}; in the way: {}", error.message, self.watch.last.join(", "));
                Trouble::Failed(SqlError { message, ..error }.into())
            }
            trouble => trouble,
        }
    }

    /// The work and its progress in one transaction.
    async fn inside(&mut self) -> Result<Committed, Trouble> {
        let mut transaction = self.begin().await?;
        let interrupt = transaction.interrupter();
        let (handler, start, items) = (self.handler, self.progress.clone(), self.batch_size);
        let work = slices(handler, transaction.as_sql(), start, items);
        match self.guarded(interrupt, work).await {
            Ok(step) => self.commit(transaction, step).await,
            Err(trouble) => {
                if !matches!(timeout(INTERRUPT_PATIENCE, transaction.rollback()).await, Ok(Ok(()))) {
                    tracing::debug!("the rollback was not answered; the server rolls back by itself");
                }
                Err(trouble)
            }
        }
    }

    /// The work in statements of its own, then its progress.
    async fn outside(&mut self) -> Result<Committed, Trouble> {
        // A row that is withdrawn by now must not be worked on.
        self.begin().await?.rollback().await?;
        let mut session = self.database.session().await?;
        let interrupt = session.interrupter();
        let (handler, start) = (self.handler, self.progress.clone());
        let done = self.guarded(interrupt, unwound(handler.run_outside(session.as_sql(), &start))).await;
        if let Err(Trouble::Withdrawn) = done {
            self.abandon(session.as_sql()).await;
        }
        let step = done?;
        drop(session);
        let step = moved_on(&self.progress, step)?;
        let transaction = self.begin().await?;
        self.commit(transaction, step).await
    }

    /// Takes away what a one-shot that was interrupted has left, and tells what could not be.
    async fn abandon(&mut self, sql: &mut dyn Sql) {
        let left = match timeout(INTERRUPT_PATIENCE, self.handler.abandon(sql)).await {
            Ok(Ok(left)) => left,
            Ok(Err(error)) => Some(format!("what it has left could not be taken away: {error}")),
            Err(_) => Some("what it has left could not be taken away in time".to_owned()),
        };
        if let Some(note) = left {
            self.emit(EventKind::Noted { update_name: self.row.update_name.clone(), note });
        }
    }

    async fn begin(&mut self) -> Result<Box<dyn Transaction>, Trouble> {
        let (database, row) = (self.database, self.row);
        let begun = self.waits.begin.until(database.begin_as(&row.update_name, &row.progress, self.handler.opening()));
        match answered(begun, self.control, self.shutdown_grace, self.lease, &mut self.watch).await?? {
            Begin::Ready(transaction) => Ok(transaction),
            Begin::Moved(progress) => Err(Trouble::Moved { gone: progress.is_none() }),
        }
    }

    /// Awaits `work`, and interrupts it where the host must leave off.
    async fn guarded<T>(
        &mut self,
        interrupt: Arc<dyn Interrupt>,
        work: impl Future<Output = Result<T, UpdateError>>,
    ) -> Result<T, Trouble> {
        let mut work = std::pin::pin!(work);
        let trouble = tokio::select! {
            biased;
            result = &mut work => return result.map_err(Trouble::Failed),
            interruption = must_leave_off(self.control, self.shutdown_grace, self.lease) => Trouble::Interrupted(interruption),
            () = self.watch.withdrawn() => Trouble::Withdrawn,
        };
        interrupt.interrupt().await;
        // Whatever it answers is rolled back; it is only waited for so that nothing is cut off in its middle.
        let _ = timeout(INTERRUPT_PATIENCE, work).await;
        Err(trouble)
    }

    async fn commit(&mut self, transaction: Box<dyn Transaction>, step: Step) -> Result<Committed, Trouble> {
        let progress = match step.next {
            Next::Continue(progress) => Some(progress.to_json()),
            Next::Finished => None,
        };
        // Given up, it is not known whether it happened: the next batch compares before it begins.
        let committed = self.waits.commit.until(transaction.commit(progress.as_deref()));
        match answered(committed, self.control, self.shutdown_grace, self.lease, &mut self.watch).await? {
            Ok(()) => Ok(Committed { items: step.items, notes: step.notes, progress }),
            Err(error) if error.class == ErrorClass::Connection => {
                if self.was_committed(progress.as_deref()).await? {
                    Ok(Committed { items: step.items, notes: step.notes, progress })
                } else {
                    Err(error.into())
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where a commit's answer was lost: asks until it is known what the row says.
    async fn was_committed(&mut self, written: Option<&str>) -> Result<bool, Trouble> {
        let mut told = false;
        let found = loop {
            match self.database.progress(&self.row.update_name).await {
                Ok(found) => break found,
                Err(error) if error.class == ErrorClass::Replaced => return Err(error.into()),
                // Told once: nothing else is heard of the host for as long as this lasts.
                Err(error) if !std::mem::replace(&mut told, true) => {
                    self.emit(EventKind::Unavailable { error: error.to_string(), retry_in: ASK_AGAIN });
                }
                Err(error) => tracing::debug!(%error, "it is not known yet what became of a commit"),
            }
            tokio::select! {
                biased;
                () = self.control.stopped() => return Err(Trouble::Interrupted(Interruption::Stopping)),
                () = sleep(ASK_AGAIN) => {}
            }
        };
        if told {
            self.emit(EventKind::Available);
        }
        match found {
            found if found.as_deref() == written => Ok(true),
            found if found.as_deref() == Some(&self.row.progress) => Ok(false),
            found => Err(Trouble::Moved { gone: found.is_none() }),
        }
    }

    fn emit(&self, kind: EventKind) {
        self.events.emit(self.database_name, kind);
    }
}

/// Awaits the database's answer, unless the host must leave off: not every wait on a server has an end of its own. What
/// is asked for meanwhile is done afterwards: an answer may be under way.
async fn answered<T>(
    answer: impl Future<Output = T>,
    control: &Control,
    grace: Duration,
    lease: &mut dyn Lease,
    watch: &mut Watch<'_>,
) -> Result<T, Trouble> {
    let look = async {
        watch.withdrawn().await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        answer = answer => Ok(answer),
        interruption = must_leave_off(control, grace, lease) => Err(Trouble::Interrupted(interruption)),
        never = look => never,
    }
}

/// Runs a batch of `items`, slice after slice. For now a batch is one slice: a smaller one belongs here, with a look
/// at the clock between two.
async fn slices(handler: &dyn Handler, sql: &mut dyn Sql, start: Progress, items: u64) -> Result<Step, UpdateError> {
    let step = unwound(handler.run(sql, &start, Budget { items })).await?;
    moved_on(&start, step)
}

/// Turns a handler's panic into its failure: one bad handler must not end the host.
async fn unwound<T>(work: impl Future<Output = Result<T, UpdateError>>) -> Result<T, UpdateError> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<&str>().map(ToString::to_string);
        let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(UpdateError::Failed(format!("the handler panicked: {message}")))
    })
}

/// Refuses a step that would be done again and again.
fn moved_on(start: &Progress, step: Step) -> Result<Step, UpdateError> {
    match &step.next {
        Next::Continue(progress) if progress == start => Err(UpdateError::NoProgress),
        _ => Ok(step),
    }
}

/// Resolves when a batch that runs must leave off: its grace is over after the host was asked to stop, or the lease
/// is lost.
async fn must_leave_off(control: &Control, grace: Duration, lease: &mut dyn Lease) -> Interruption {
    let stop = async {
        control.stopped().await;
        sleep(grace).await;
    };
    tokio::select! {
        biased;
        () = stop => Interruption::Stopping,
        reason = lease.lost() => Interruption::LeaseLost(reason),
    }
}
