//! What both drivers have in common: the queue and tidegate's own tables, over whatever connection a driver has for
//! them, and the one retry after a connection was lost.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;

use crate::driver::Driver;
use crate::schema::{Migrated, Prepared};
use crate::tables::Tables;
#[cfg(feature = "test-switches")]
use tidegate::scheduler::database::Lease;
use tidegate::scheduler::database::{
    Activity, AlreadyQueued, Begin, Database, Failure, Holder, LeaseAttempt, NewRow, Pause, Planned, Queue, Record,
    Remark, Resolved, Session, Situation, Skipped, Stands, TrialTransaction,
};
use tidegate::scheduler::ledger::{Actor, Entry, Note, Wanted};
use tidegate::update::Opening;
use tidegate::update::keep::{Keep, drop_of};
use tidegate::update::sql::{Dialect, ErrorClass, Sql, SqlError};

/// How often the history is looked through for old iterations.
const PRUNING_INTERVAL: Duration = Duration::from_hours(1);
/// How long a host waits for another one that makes the tables.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks.
const MIGRATION_POLL: Duration = Duration::from_millis(50);

/// A database behind a driver.
pub struct Handle<D> {
    driver: Arc<D>,
    tables: Tables,
    common: Arc<Common>,
}

/// What handles of one database share.
#[derive(Default)]
struct Common {
    /// When the history is to be pruned next; `None` as soon as possible.
    next_pruning: Mutex<Option<Instant>>,
    /// True once all tables were there, until the connections are closed.
    prepared: AtomicBool,
    /// What the ledger was last compared with: the names in the queue, and its last entry.
    compared: Mutex<Option<Compared>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Compared {
    names: Vec<String>,
    last_entry: String,
}

/// Does something again, once, where it failed because the connection was gone.
macro_rules! retried {
    ($work:expr) => {
        match $work {
            Err(error) if error.class == ErrorClass::Connection => $work,
            result => result,
        }
    };
}

/// Does something again, once, where it failed because somebody dropped a table, which is made anew.
macro_rules! with_tables {
    ($self:ident, $work:expr) => {
        match $work {
            Err(error) if error.class == ErrorClass::Permanent && $self.lacks_tables().await => {
                $self.prepare().await?;
                $work
            }
            result => result,
        }
    };
}

/// Does `$work` with a connection in `$sql`, each statement by itself.
macro_rules! plainly {
    ($self:ident, $sql:ident => $work:expr) => {
        retried!({
            let result: Result<_, SqlError> = async {
                let mut control = $self.driver.control().await?;
                let $sql: &mut dyn Sql = &mut *control;
                $work.await
            }
            .await;
            result
        })
    };
}

/// Does `$work` with a connection in `$sql`, in one transaction.
macro_rules! in_transaction {
    ($self:ident, $sql:ident => $work:expr) => {
        retried!({
            let result: Result<_, SqlError> = async {
                let mut control = $self.driver.control().await?;
                control.begin().await?;
                let $sql: &mut dyn Sql = &mut *control;
                let value = $work.await?;
                control.commit().await?;
                Ok(value)
            }
            .await;
            result
        })
    };
}

impl<D: Driver> Handle<D> {
    /// A handle that has not connected yet.
    pub fn new(driver: D, tables: Tables) -> Self {
        Self { driver: Arc::new(driver), tables, common: Arc::default() }
    }

    /// Writes down what others did to the queue's table, where there may be anything.
    async fn compare(&self, queue: &Queue, last_entry: String) {
        let names = queue.rows.iter().map(|row| row.update_name.clone()).collect();
        let found = Compared { names, last_entry };
        let compared = || self.common.compared.lock().unwrap_or_else(PoisonError::into_inner);
        if compared().as_ref() == Some(&found) {
            return;
        }
        match in_transaction!(self, sql => self.tables.catch_up(sql, None)) {
            // An entry that this has written is compared with once more.
            Ok(()) => *compared() = Some(found),
            // The queue can be worked on all the same.
            Err(error) => tracing::debug!(%error, "what others did to the queue is not in the ledger yet"),
        }
    }

    /// One attempt at making the tables; false where another process is at it.
    async fn try_prepare(&self) -> Result<bool, SqlError> {
        let mut control = self.driver.control().await?;
        if self.tables.inspect(&mut *control).await? == Prepared::Yes {
            self.common.prepared.store(true, Ordering::Relaxed);
            return Ok(true);
        }
        control.begin().await?;
        let Migrated::Made(made) = self.tables.migrate(&mut *control).await? else { return Ok(false) };
        control.commit().await?;
        if self.common.prepared.swap(true, Ordering::Relaxed) && !made.is_empty() {
            tracing::warn!(
                tables = made.join(", "),
                "tables were dropped while they were in use: they are made anew, and what stood in them is lost"
            );
        }
        Ok(true)
    }

    /// Whether tables are missing; false where that is not known.
    async fn lacks_tables(&self) -> bool {
        let inspected = async { self.tables.inspect(&mut *self.driver.control().await?).await };
        matches!(inspected.await, Ok(Prepared::No))
    }

    /// One attempt at queueing all of these rows.
    async fn try_enqueue_all(&self, rows: &[NewRow]) -> Result<Result<(), AlreadyQueued>, SqlError> {
        let mut control = self.driver.control().await?;
        control.begin().await?;
        let mut queued = Vec::new();
        for row in rows {
            if !self.tables.enqueue(&mut *control, row).await? {
                queued.push(row.update_name.clone());
            }
        }
        if !queued.is_empty() {
            // Dropped within its transaction, the connection rolls it back.
            return Ok(Err(AlreadyQueued(queued)));
        }
        control.commit().await?;
        Ok(Ok(()))
    }

    /// One attempt at storing what this host does. What is told of a commit that waits for a standby does not wait for it.
    async fn try_set_activity(&self, activity: Option<&Activity>) -> Result<(), SqlError> {
        self.driver.check_lease()?;
        let mut aside = self.driver.aside().await?;
        aside.begin_here().await?;
        self.tables.set_activity(&mut *aside, activity).await?;
        aside.commit().await
    }

    /// One attempt at adding to the history, which waits for no other server either.
    async fn try_add_history(&self, records: &[Arc<Record>]) -> Result<(), SqlError> {
        let mut aside = self.driver.aside().await?;
        aside.begin_here().await?;
        self.tables.add_history(&mut *aside, records).await?;
        self.prune(&mut *aside).await?;
        aside.commit().await
    }

    /// Prunes the history where it is time to.
    async fn prune(&self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        let due = {
            let next = self.common.next_pruning.lock().unwrap_or_else(PoisonError::into_inner);
            next.is_none_or(|next| Instant::now() >= next)
        };
        if due {
            let more = self.tables.prune_history(sql, SystemTime::now()).await?;
            let next = if more { None } else { Instant::now().checked_add(PRUNING_INTERVAL) };
            *self.common.next_pruning.lock().unwrap_or_else(PoisonError::into_inner) = next;
        }
        Ok(())
    }
}

#[async_trait]
impl<D: Driver> Database for Handle<D> {
    fn dialect(&self) -> Arc<dyn Dialect> {
        self.driver.dialect()
    }

    fn known_as(&self, actor: Actor) -> Arc<dyn Database> {
        let mut tables = self.tables.clone();
        tables.by = actor;
        Arc::new(Self { driver: Arc::clone(&self.driver), tables, common: Arc::clone(&self.common) })
    }

    fn actor(&self) -> Option<Actor> {
        Some(self.tables.by.clone())
    }

    async fn prepare(&self) -> Result<(), SqlError> {
        self.driver.check_place().await?;
        let deadline = Instant::now() + MIGRATION_PATIENCE;
        while !retried!(self.try_prepare().await)? {
            if Instant::now() >= deadline {
                return Err(SqlError::new(
                    ErrorClass::Transient,
                    format!(
                        "another tidegate has been making tables in this database for {} s",
                        MIGRATION_PATIENCE.as_secs()
                    ),
                ));
            }
            tokio::time::sleep(MIGRATION_POLL).await;
        }
        Ok(())
    }

    async fn try_lease(&self, holder: &Holder) -> Result<LeaseAttempt, SqlError> {
        self.driver.check_place().await?;
        with_tables!(self, retried!(self.driver.try_lease(holder).await))
    }

    async fn lease_holder(&self) -> Result<Option<Holder>, SqlError> {
        retried!(self.driver.lease_holder().await)
    }

    async fn obstacle(&self) -> Result<Option<String>, SqlError> {
        retried!(self.driver.obstacle().await)
    }

    async fn queue(&self) -> Result<Queue, SqlError> {
        let (queue, found) = with_tables!(self, plainly!(self, sql => self.tables.queue(sql)))?;
        if found.stale {
            in_transaction!(self, sql => self.tables.forget_stale(sql))?;
        }
        self.compare(&queue, found.last_entry).await;
        Ok(queue)
    }

    async fn look(&self) -> Result<Option<Queue>, SqlError> {
        plainly!(self, sql => self.tables.look(sql))
    }

    async fn begin_as(&self, batch: &Planned<'_>) -> Result<Begin, SqlError> {
        let begun = with_tables!(self, retried!(self.driver.begin(batch).await))?;
        Ok(match begun {
            Begin::Ready(mut transaction) => {
                transaction.known_as(self.tables.by.clone());
                Begin::Ready(transaction)
            }
            begun => begun,
        })
    }

    fn has_one_writer(&self) -> bool {
        self.driver.has_one_writer()
    }

    fn takes_hands(&self) -> bool {
        self.driver.takes_hands()
    }

    async fn begin_part(&self, batch: &Planned<'_>, stands: Stands<'_>) -> Result<Begin, SqlError> {
        with_tables!(self, retried!(self.driver.begin_part(batch, stands).await))
    }

    fn room_for_others(&self) -> Duration {
        self.driver.room_for_others()
    }

    async fn session_in(&self, lane: &str) -> Result<Box<dyn Session>, SqlError> {
        retried!(self.driver.session(lane).await)
    }

    async fn inspect(&self) -> Result<Box<dyn Session>, SqlError> {
        retried!(self.driver.inspect().await)
    }

    async fn begin_trial(&self, opening: Opening) -> Result<Box<dyn TrialTransaction>, SqlError> {
        self.driver.check_place().await?;
        retried!(self.driver.begin_trial(opening).await)
    }

    async fn observe(&self) -> Result<Box<dyn Session>, SqlError> {
        retried!(self.driver.observe().await)
    }

    fn observes_meanwhile(&self) -> bool {
        self.driver.observes_meanwhile()
    }

    async fn progress(&self, update_name: &str) -> Result<Option<String>, SqlError> {
        plainly!(self, sql => self.tables.progress(sql, update_name))
    }

    async fn enqueue(&self, row: &NewRow) -> Result<bool, SqlError> {
        with_tables!(self, in_transaction!(self, sql => self.tables.enqueue(sql, row)))
    }

    async fn enqueue_all(&self, rows: &[NewRow]) -> Result<Result<(), AlreadyQueued>, SqlError> {
        with_tables!(self, retried!(self.try_enqueue_all(rows).await))
    }

    async fn cancel(&self, update_names: &[String]) -> Result<Vec<String>, SqlError> {
        with_tables!(self, in_transaction!(self, sql => self.tables.cancel(sql, update_names)))
    }

    async fn withdraw(&self, update_names: &[String]) -> Result<(), SqlError> {
        with_tables!(self, in_transaction!(self, sql => self.tables.withdraw(sql, update_names)))
    }

    async fn unkeep(&self, update_name: &str) -> Result<Vec<Keep>, SqlError> {
        in_transaction!(self, sql => drop_of(sql, update_name))
    }

    async fn vetting(&self, lane: &str) -> Result<Box<dyn Session>, SqlError> {
        retried!(self.driver.vetting(lane).await)
    }

    async fn situation(&self, lane: &str, update_name: &str) -> Result<Situation, SqlError> {
        if !self.driver.asks_meanwhile() {
            return Ok(Situation { in_the_way: self.driver.holders().await, ..Situation::default() });
        }
        let mut control = self.driver.control().await?;
        let withdrawn = self.tables.is_withdrawn(&mut *control, update_name).await?;
        let in_the_way = self.driver.in_the_way(lane, &mut *control).await?;
        Ok(Situation { withdrawn, in_the_way, writable: true })
    }

    async fn record_failure(&self, update_name: &str, progress: &str, failure: &Failure) -> Result<(), SqlError> {
        self.driver.check_lease()?;
        with_tables!(
            self,
            in_transaction!(self, sql => self.tables.record_failure(sql, update_name, progress, failure))
        )
    }

    async fn forget_failures(&self, update_name: &str) -> Result<bool, SqlError> {
        with_tables!(self, in_transaction!(self, sql => self.tables.retry(sql, update_name)))
    }

    async fn clear_failures(&self, update_name: &str) -> Result<(), SqlError> {
        with_tables!(self, plainly!(self, sql => self.tables.forget_failures(sql, update_name))).map(drop)
    }

    async fn set_pause(&self, pause: Option<&Pause>) -> Result<(), SqlError> {
        with_tables!(self, in_transaction!(self, sql => self.tables.set_pause(sql, pause)))
    }

    async fn note(&self, note: &Note) -> Result<(), SqlError> {
        with_tables!(self, in_transaction!(self, sql => self.tables.note(sql, note)))
    }

    async fn ledger(&self, wanted: &Wanted<'_>, limit: u32) -> Result<Vec<Entry>, SqlError> {
        plainly!(self, sql => self.tables.ledger(sql, wanted, limit))
    }

    async fn set_activity(&self, activity: Option<&Activity>) -> Result<(), SqlError> {
        with_tables!(self, retried!(self.try_set_activity(activity).await))
    }

    async fn add_history(&self, records: &[Arc<Record>]) -> Result<(), SqlError> {
        with_tables!(self, retried!(self.try_add_history(records).await))
    }

    async fn history(&self, update_name: Option<&str>, limit: u32) -> Result<Vec<Record>, SqlError> {
        plainly!(self, sql => self.tables.history(sql, update_name, limit))
    }

    async fn skipped(&self, update_name: &str, after: Option<&str>, limit: u32) -> Result<Vec<Skipped>, SqlError> {
        plainly!(self, sql => async {
            match self.tables.made(sql).await?.skipped {
                true => self.tables.skipped(sql, update_name, after, limit).await,
                false => Ok(Vec::new()),
            }
        })
    }

    async fn skipped_in(
        &self,
        sql: &mut dyn Sql,
        update_name: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Skipped>, SqlError> {
        self.tables.skipped(sql, update_name, after, limit).await
    }

    async fn skipped_among(
        &self,
        sql: &mut dyn Sql,
        update_name: &str,
        keys: &[String],
    ) -> Result<BTreeSet<String>, SqlError> {
        self.tables.skipped_among(sql, update_name, keys).await
    }

    async fn resolve_skipped(&self, sql: &mut dyn Sql, update_name: &str, resolved: &Resolved) -> Result<(), SqlError> {
        self.tables.resolve_skipped(sql, update_name, resolved).await
    }

    async fn survey(&self) -> Result<Vec<Remark>, SqlError> {
        if let Err(error) = self.driver.check_place().await {
            let hint = match error.code.as_deref() {
                Some("SQLITE_READONLY") => "let this user write to the file and to its folder",
                _ => "a host refuses to work there",
            };
            return Ok(vec![Remark::hindrance(error.to_string(), hint)]);
        }
        let remarks = retried!(self.driver.survey().await)?;
        // Where nothing can be written, rights are another day's worry.
        if remarks.iter().any(|remark| remark.hinders) {
            return Ok(remarks);
        }
        let rights = plainly!(self, sql => self.tables.survey(sql))?;
        Ok([remarks, rights].concat())
    }

    async fn close(&self) {
        self.driver.close().await;
        // What is found next may be another database.
        *self.common.compared.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.common.prepared.store(false, Ordering::Relaxed);
    }

    fn is_replaced(&self) -> bool {
        self.driver.is_replaced()
    }
}

/// Sets a savepoint before a slice, in place of the last one where there is one.
pub fn mark(marked: bool) -> &'static str {
    if marked { "RELEASE tidegate_slice; SAVEPOINT tidegate_slice" } else { "SAVEPOINT tidegate_slice" }
}

/// Undoes what came after [`mark`].
pub const UNDO: &str = "ROLLBACK TO tidegate_slice";

/// The row that a batch has locked is not there any more when its progress is written.
pub fn row_vanished(update_name: &str) -> SqlError {
    SqlError::permanent(format!(
        "the progress of \"{update_name}\" cannot be written: the update's own statements removed its row from the \
         queue, or ended the transaction that its batch runs in"
    ))
}

/// A row whose progress is stored in another type than the queue's.
pub fn progress_is_no_text(update_name: &str) -> SqlError {
    SqlError::permanent(format!("the progress of \"{update_name}\" is not a text"))
}

/// A lease that excludes nobody.
#[cfg(feature = "test-switches")]
pub struct NoLease;

#[cfg(feature = "test-switches")]
#[async_trait]
impl Lease for NoLease {
    async fn lost(&mut self) -> String {
        std::future::pending().await
    }

    async fn release(self: Box<Self>) {}
}
