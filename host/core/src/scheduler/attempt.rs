//! One batch: its transaction opened, its slices run, its progress committed, and what came of it.

mod fill;
mod interrupt;
mod noted;
mod part;
mod skip;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::interrupt::{Interrupted, interrupted};
use self::part::begun;
pub(super) use self::skip::Skipping;
use super::common::Common;
use super::control::Control;
use super::database::{Begin, Interrupt, QueueRow, Transaction};
use super::event::EventKind;
use super::runner::Tenure;
use super::step::{moved_on, unwound};
use super::wakeful::Wakeful;
use super::watch::Watch;
use crate::pace::{Halving, Slices};
use crate::update::parts::Part;
use crate::update::sql::Sql;
use crate::update::{ErrorClass, Handler, Mode, Next, Progress, SqlError, Step, UpdateError};

/// How long an interrupted statement may take to notice.
const INTERRUPT_PATIENCE: Duration = Duration::from_secs(5);

/// How long a slice that is to be cut off may go on until it is known whether others keep it waiting.
const BLOCKED_PATIENCE: Duration = Duration::from_millis(100);

/// How long to wait before asking again what became of a commit.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What a batch is run with.
pub(super) struct Attempt<'a> {
    pub(super) common: &'a Common,
    /// The lane that it runs in.
    pub(super) lane: &'a Arc<str>,
    /// The lane whose connection it takes: where several work on one update, each has its own.
    pub(super) line: &'a str,
    pub(super) shutdown_grace: Duration,
    pub(super) tenure: &'a mut Tenure,
    pub(super) watch: Watch<'a>,
    pub(super) waits: &'a mut Waits,
    pub(super) handler: &'a dyn Handler,
    pub(super) row: &'a QueueRow,
    pub(super) mode: Mode,
    pub(super) progress: Progress,
    /// The part that the progress is of, where what is left of the update is in several.
    pub(super) part: Option<Part>,
    /// How much is to be done, and in which parts.
    pub(super) slices: Slices,
    pub(super) started: Instant,
    /// What is known of rows that are refused.
    pub(super) skipping: Skipping,
    /// What the batch took besides its slices.
    pub(super) own: Duration,
    /// [`Phase::Connect`] until it comes further.
    pub(super) phase: Phase,
    /// True where the ledger may not know yet that the update has started.
    pub(super) is_first: bool,
}

/// What came of an attempt.
pub(super) struct Attempted {
    pub(super) result: Result<Committed, Trouble>,
    /// From the opening of its first transaction to the end of its commit.
    pub(super) duration: Duration,
    /// What its slices have shown.
    pub(super) slices: Slices,
    /// How it was taken apart, where it was.
    pub(super) halving: Halving,
    /// What it took besides them.
    pub(super) own: Duration,
    /// How far it came.
    pub(super) phase: Phase,
}

/// How far a transaction was filled.
enum Filled {
    /// As far as the batch is to go.
    Full(Step),
    /// A slice was cut off, and nothing of the transaction is left.
    Lost,
}

/// What a piece of work ended with.
enum Ended<T> {
    /// It went through.
    Done(T),
    /// It was cut off; true where others kept it waiting.
    CutOff { blocked: bool },
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

    /// For waits while others have work for the same thread, and the server for every processor.
    pub(super) fn asleep() -> Self {
        Self { begin: Wakeful::asleep(), commit: Wakeful::asleep() }
    }
}

/// How far a batch came before it failed: what is to be made of an error depends on that, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its update was looked at: what stands in the row, and whether the definition fits the database.
    Plan,
    /// A transaction was to be begun. The database's trouble, whatever it says, and never the update's.
    Connect,
    /// The update's row was to be locked, and the transaction to be opened as its handler needs it.
    Lock,
    /// The handler was at work.
    Handler,
    /// What it did was to be committed.
    Commit,
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
    /// Runs the batch, and takes the time.
    pub(super) async fn run(mut self) -> Attempted {
        let began = self.started;
        let result = match self.mode {
            Mode::Batched | Mode::OneShot => self.inside().await,
            Mode::OneShotOutside => self.outside().await,
        };
        let duration = began.elapsed();
        if let Err(Trouble::Failed(error)) = &result {
            self.watch.look_back(error).await;
        }
        self.watch.end();
        Attempted {
            result: result.map_err(|trouble| self.explained(trouble)),
            duration,
            own: self.own,
            slices: self.slices,
            halving: self.skipping.halving,
            phase: self.phase,
        }
    }

    /// A failure that others are to blame for, with who was in the way last.
    fn explained(&self, trouble: Trouble) -> Trouble {
        match trouble {
            // No failure of the update's: the right to work on it was for what is not there any more.
            Trouble::Failed(error) if error.class().ends_lease() => {
                Trouble::Interrupted(Interruption::LeaseLost(error.to_string()))
            }
            Trouble::Failed(error) => Trouble::Failed(self.watch.explained(error)),
            trouble => trouble,
        }
    }

    /// The work and its progress in one transaction.
    async fn inside(&mut self) -> Result<Committed, Trouble> {
        loop {
            let opening = Instant::now();
            let mut transaction = self.begin().await?;
            self.own = opening.elapsed();
            let filled = match self.read_keys(&mut *transaction).await {
                Ok(()) => self.fill(&mut *transaction).await,
                Err(trouble) => Err(trouble),
            };
            match filled {
                Ok(Filled::Full(step)) => match self.commit(transaction, step).await {
                    Err(Trouble::Failed(error)) if self.refused_at_commit(&error) => {}
                    committed => {
                        self.skipping.halving.committed();
                        return committed;
                    }
                },
                Ok(Filled::Lost) => {
                    roll_back(transaction).await;
                    if self.common.control.is_stopping() {
                        return Err(Trouble::Interrupted(Interruption::Stopping));
                    }
                }
                Err(trouble) => {
                    roll_back(transaction).await;
                    return Err(trouble);
                }
            }
        }
    }

    /// The work in statements of its own, then its progress.
    async fn outside(&mut self) -> Result<Committed, Trouble> {
        // A row that is withdrawn by now must not be worked on.
        self.begin().await?.rollback().await?;
        self.phase = Phase::Connect;
        let mut session = self.common.database.session_in(self.line).await?;
        self.phase = Phase::Handler;
        let interrupt = session.interrupter();
        let (handler, start) = (self.handler, self.progress.clone());
        let done = self.guarded(interrupt, unwound(handler.run_outside(session.as_sql(), &start)), None).await;
        if let Err(Trouble::Withdrawn) = done {
            self.abandon(session.as_sql()).await;
        }
        let Ended::Done(step) = done? else {
            return Err(UpdateError::Failed("it was cut off, though nothing limits it".to_owned()).into());
        };
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
        self.phase = Phase::Connect;
        let begun = begun(self.common, self.line, self.row, self.handler, self.part.as_ref());
        let begun = self.waits.begin.until(begun);
        match answered(begun, &self.common.control, self.shutdown_grace, self.tenure, &mut self.watch).await?? {
            Begin::Ready(transaction) => {
                self.phase = Phase::Handler;
                Ok(transaction)
            }
            Begin::Moved(progress) => {
                self.phase = Phase::Lock;
                Err(Trouble::Moved { gone: progress.is_none() })
            }
            Begin::Failed(error) => {
                self.phase = Phase::Lock;
                Err(error.into())
            }
        }
    }

    /// Awaits the database's answer, unless the host must leave off.
    async fn answered<T>(&mut self, answer: impl Future<Output = T>) -> Result<T, Trouble> {
        answered(answer, &self.common.control, self.shutdown_grace, self.tenure, &mut self.watch).await
    }

    /// Awaits `work`, and interrupts it where the host must leave off, or where it goes on beyond `limit`, counted from the
    /// beginning of the batch.
    async fn guarded<T>(
        &mut self,
        interrupt: Arc<dyn Interrupt>,
        work: impl Future<Output = Result<T, UpdateError>>,
        limit: Option<Duration>,
    ) -> Result<Ended<T>, Trouble> {
        let mut work = std::pin::pin!(work);
        let mut limit = limit.and_then(|limit| self.started.checked_add(limit));
        let blocked = loop {
            let trouble = tokio::select! {
                biased;
                result = &mut work => return result.map(Ended::Done).map_err(Trouble::Failed),
                interruption = must_leave_off(&self.common.control, self.shutdown_grace, self.tenure) => Trouble::Interrupted(interruption),
                () = self.watch.withdrawn() => Trouble::Withdrawn,
                () = sleep_until(limit.unwrap_or(self.started)), if limit.is_some() => {
                    let blocked = is_kept_waiting(self.common, self.line, &self.row.update_name).await;
                    if blocked && self.slices.is_empty() {
                        // There is nothing to save, and a smaller slice would wait as well: the lock's limit counts.
                        limit = None;
                        continue;
                    }
                    break blocked;
                }
            };
            // Whatever it answers is rolled back; it is only waited for so that nothing is cut off in its middle.
            interrupted(&*interrupt, work).await;
            return Err(trouble);
        };
        match interrupted(&*interrupt, work).await {
            // It was done before it noticed.
            Interrupted::Ended(Ok(done)) => Ok(Ended::Done(done)),
            Interrupted::Ended(Err(error)) if error.class() == ErrorClass::Connection || error.class().ends_lease() => {
                Err(error.into())
            }
            // Whatever a handler makes of it: if it is more than the interruption, it comes again.
            Interrupted::Ended(Err(_)) => Ok(Ended::CutOff { blocked }),
            // A smaller slice may wait less.
            Interrupted::WaitsElsewhere => Ok(Ended::CutOff { blocked: false }),
            Interrupted::Runs => {
                let seconds = INTERRUPT_PATIENCE.as_secs();
                let message = format!("a statement that was cut off did not end within {seconds} s");
                Err(SqlError::new(ErrorClass::Connection, message).into())
            }
        }
    }

    async fn commit(&mut self, mut transaction: Box<dyn Transaction>, step: Step) -> Result<Committed, Trouble> {
        self.phase = Phase::Commit;
        let left = self.skipping.left();
        let resolved = self.resolved(&step.next);
        if !resolved.is_empty() {
            self.answered(transaction.tidy_session()).await??;
            let (database, name) = (Arc::clone(&self.common.database), self.row.update_name.clone());
            self.answered(database.resolve_skipped(transaction.as_sql(), &name, &resolved)).await??;
        }
        let step = self.telling_skipped(step, left);
        if let Some(part) = self.part.clone() {
            return self.commit_part(transaction, step, &part).await;
        }
        let progress = match step.next {
            Next::Continue(progress) => Some(progress.to_json()),
            Next::Finished => None,
        };
        self.note(&mut *transaction, step.items, progress.as_deref());
        // Given up, it is not known whether it happened: the next batch compares before it begins.
        let closing = Instant::now();
        let committed = self.waits.commit.until(transaction.commit(progress.as_deref()));
        let committed =
            answered(committed, &self.common.control, self.shutdown_grace, self.tenure, &mut self.watch).await?;
        self.own += closing.elapsed();
        match committed {
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

    /// Where a commit's answer was lost: whether it happened.
    async fn was_committed(&mut self, written: Option<&str>) -> Result<bool, Trouble> {
        match self.found_after_commit().await? {
            found if found.as_deref() == written => Ok(true),
            found if found.as_deref() == Some(&self.row.progress) => Ok(false),
            found => Err(Trouble::Moved { gone: found.is_none() }),
        }
    }

    /// Asks until it is known what the row says.
    async fn found_after_commit(&mut self) -> Result<Option<String>, Trouble> {
        let mut told = false;
        let found = loop {
            let asked = tokio::select! {
                biased;
                asked = self.common.database.progress(&self.row.update_name) => asked,
                interruption = must_leave_off(&self.common.control, Duration::ZERO, self.tenure) => {
                    return Err(Trouble::Interrupted(interruption));
                }
            };
            match asked {
                Ok(found) => break found,
                Err(error) if error.class.ends_lease() => return Err(error.into()),
                // Told once: nothing else is heard of the host for as long as this lasts.
                Err(error) if !std::mem::replace(&mut told, true) => {
                    self.emit(EventKind::Unavailable { error: error.to_string(), retry_in: ASK_AGAIN });
                }
                Err(error) => tracing::debug!(%error, "it is not known yet what became of a commit"),
            }
            tokio::select! {
                biased;
                interruption = must_leave_off(&self.common.control, Duration::ZERO, self.tenure) => {
                    return Err(Trouble::Interrupted(interruption));
                }
                () = sleep(ASK_AGAIN) => {}
            }
        };
        if told {
            self.emit(EventKind::Available);
        }
        Ok(found)
    }

    fn emit(&self, kind: EventKind) {
        self.common.events.emit_in(&self.common.name, self.lane, kind);
    }
}

/// Awaits the database's answer, unless the host must leave off: not every wait on a server has an end of its own. What
/// is asked for meanwhile is done afterwards: an answer may be under way.
async fn answered<T>(
    answer: impl Future<Output = T>,
    control: &Control,
    grace: Duration,
    tenure: &mut Tenure,
    watch: &mut Watch<'_>,
) -> Result<T, Trouble> {
    let look = async {
        watch.withdrawn().await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        answer = answer => Ok(answer),
        interruption = must_leave_off(control, grace, tenure) => Err(Trouble::Interrupted(interruption)),
        never = look => never,
    }
}

/// True where others hold locks that the statement in hand of an update waits for.
async fn is_kept_waiting(common: &Common, lane: &str, update_name: &str) -> bool {
    let situation = timeout(BLOCKED_PATIENCE, common.database.situation(lane, update_name)).await;
    matches!(situation, Ok(Ok(situation)) if !situation.in_the_way.is_empty())
}

/// Rolls a transaction back, without waiting for long.
async fn roll_back(transaction: Box<dyn Transaction>) {
    if !matches!(timeout(INTERRUPT_PATIENCE, transaction.rollback()).await, Ok(Ok(()))) {
        tracing::debug!("the rollback was not answered; the server rolls back by itself");
    }
}

/// Resolves when a batch that runs must leave off: its grace is over after the host was asked to stop, or the lease
/// is lost.
async fn must_leave_off(control: &Control, grace: Duration, tenure: &mut Tenure) -> Interruption {
    let stop = async {
        control.stopped().await;
        sleep(grace).await;
    };
    tokio::select! {
        biased;
        () = stop => Interruption::Stopping,
        reason = tenure.lost() => Interruption::LeaseLost(reason),
    }
}
