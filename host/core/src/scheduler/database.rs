//! What the scheduler needs of a database. The drivers' crates implement these traits, and one suite of tests
//! holds them all to the same promises.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use super::activity::{Activity, ControllerRetry, LaneWork, Measured, Waiting, Work};
use super::lanes::Lanes;
use super::ledger::{Actor, Entry, Note, Wanted};
pub use super::open::{Open, OpenError};
pub use super::parts::{Merge, PartCommit, Stands};
pub use super::row::{
    AlreadyQueued, Failure, IterationOutcome, NewRow, Pause, Queue, QueueRow, Record, Resolved, Situation, Skipped,
};
pub use super::transaction::{Begin, Interrupt, Planned, Session, Transaction};
pub use super::trial::{RowCounts, Seen, TableChange, TrialTransaction};
use crate::update::Opening;
use crate::update::keep::Keep;
use crate::update::sql::{Dialect, Sql, SqlError};

/// A database whose queue is worked on.
///
/// Every method reconnects by itself where its connection is gone, once; where that fails too it returns an error of
/// class [`Connection`](crate::update::ErrorClass::Connection), and the scheduler calls again after a while.
#[async_trait]
pub trait Database: Send + Sync {
    /// The dialect that it speaks.
    fn dialect(&self) -> Arc<dyn Dialect>;

    /// The same database over the same connections, for what somebody else does there: the ledger names them. Without this,
    /// it names the host.
    fn known_as(&self, actor: Actor) -> Arc<dyn Database>;

    /// Whom the ledger names for what is done over this handle; `None` where there is no ledger.
    fn actor(&self) -> Option<Actor> {
        None
    }

    /// Makes the queue table where it is missing (never touching one that is there), and makes or migrates
    /// tidegate's own tables. Any number of hosts and commands may do so at once.
    ///
    /// # Errors
    /// Among others: tables of a newer tidegate, missing rights, a network filesystem under SQLite.
    async fn prepare(&self) -> Result<(), SqlError>;

    /// Tries to become the one runner of this database; never blocks on another's lease. Asked again and again, about once
    /// a second, it takes over from a holder that has given no sign of life for some seconds. Once it is held, whatever a
    /// predecessor left running on the server has ended before this returns.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn try_lease(&self, holder: &Holder) -> Result<LeaseAttempt, SqlError>;

    /// Who holds the lease, if anybody: for `status`.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn lease_holder(&self) -> Result<Option<Holder>, SqlError>;

    /// What keeps everybody from writing at this moment, or at least whoever asks, or what the running host has noted as
    /// such ([`Lease::note`]), if anything, found out without writing: for `status`.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn obstacle(&self) -> Result<Option<String>, SqlError>;

    /// The queue as it is now. Forgets, on the way, the failures of rows that are gone or were queued anew. Here and
    /// wherever tables of [`Database::prepare`] are written, those that somebody dropped since are made anew.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn queue(&self) -> Result<Queue, SqlError>;

    /// The queue as it is now, for those who only look: nothing is written, and nothing has to be prepared. `None`
    /// where the queue table is missing.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn look(&self) -> Result<Option<Queue>, SqlError>;

    /// Opens the transaction of a batch: locks the update's row and compares its progress with that which the batch was
    /// planned from. Where [`Database::try_lease`] gave a lease, nobody else can take that from here on until the
    /// transaction has ended. Each lane has a connection of its own for this, where the database can write more than one
    /// thing at a time.
    ///
    /// # Errors
    /// Whatever the database says. With class [`Overtaken`](crate::update::ErrorClass::Overtaken) another host has the lease,
    /// and nothing is done under this one any more.
    async fn begin_as(&self, batch: &Planned<'_>) -> Result<Begin, SqlError>;

    /// As [`Database::begin_as`], for a batch in the first lane that asks for nothing.
    ///
    /// # Errors
    /// As [`Database::begin_as`].
    async fn begin(&self, update_name: &str, progress: &str) -> Result<Begin, SqlError> {
        self.begin_as(&Planned::of(update_name, progress)).await
    }

    /// True where the database takes one writer at a time: lanes take turns there.
    fn has_one_writer(&self) -> bool {
        false
    }

    /// True where batches of several parts of one update can be open at once ([`Database::begin_part`]).
    fn takes_hands(&self) -> bool {
        false
    }

    /// Opens the transaction of a batch of a part of an update, beside those of its other parts: the update's row is read and
    /// not locked, and `stands` says whether the part is in its progress as the batch was planned from. Whether it still is
    /// then is for [`Transaction::commit_part`]. Each of the batches that are open at once takes another lane's connection, which may
    /// be that of a lane of its own.
    ///
    /// # Errors
    /// As [`Database::begin`].
    async fn begin_part(&self, batch: &Planned<'_>, stands: Stands<'_>) -> Result<Begin, SqlError> {
        let _ = (batch, stands);
        Err(SqlError::permanent("this database has one writer, and an update is done in one part"))
    }

    /// How long the database is to be left alone before the next batch, so that others who wait for it have their turn:
    /// where it keeps no queue of them itself.
    fn room_for_others(&self) -> Duration {
        Duration::ZERO
    }

    /// A session for statements that no transaction can hold, without a statement timeout, over a lane's connection. While
    /// it is in use none of this host's other connections keeps a transaction open, but for batches in other lanes.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn session_in(&self, lane: &str) -> Result<Box<dyn Session>, SqlError>;

    /// The same in the first lane.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn session(&self) -> Result<Box<dyn Session>, SqlError> {
        self.session_in(Lanes::FIRST).await
    }

    /// Opens a transaction that is rolled back in any case, to see what a batch would do: under the same time limits as a
    /// batch's statements, whether a host runs or not, and without the tables of [`Database::prepare`].
    ///
    /// # Errors
    /// Whatever the database says.
    async fn begin_trial(&self, opening: Opening) -> Result<Box<dyn TrialTransaction>, SqlError> {
        let _ = opening;
        Err(SqlError::permanent("nothing can be tried on this database"))
    }

    /// A session for questions about the database, under the same time limits as a batch's statements.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn inspect(&self) -> Result<Box<dyn Session>, SqlError>;

    /// The same for looks at how far an update has come, which no batch and no look at the queue is to wait for.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn observe(&self) -> Result<Box<dyn Session>, SqlError> {
        self.inspect().await
    }

    /// True where [`Database::observe`], [`Database::set_activity`] and [`Database::add_history`] have a connection of their
    /// own.
    fn observes_meanwhile(&self) -> bool {
        false
    }

    /// The progress of an update as it is committed now; `None` where its row is gone.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn progress(&self, update_name: &str) -> Result<Option<String>, SqlError>;

    /// Queues an update, forgetting failures of an earlier row of that name. False where it is queued already, which
    /// changes nothing.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn enqueue(&self, row: &NewRow) -> Result<bool, SqlError>;

    /// Queues updates as [`Database::enqueue`] does, all of them in one transaction. Where one or another is queued
    /// already nothing changes, and the names of those come back.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn enqueue_all(&self, rows: &[NewRow]) -> Result<Result<(), AlreadyQueued>, SqlError>;

    /// Removes an update and those in `others` (its dependents) from the queue, in one transaction. The names that
    /// were there come back.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn cancel(&self, update_names: &[String]) -> Result<Vec<String>, SqlError>;

    /// Asks the host that works on these updates to leave off, and to take them out of the queue: for one whose row is
    /// locked, or that runs in one go. A row that is queued anew is not asked for.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn withdraw(&self, update_names: &[String]) -> Result<(), SqlError> {
        let _ = update_names;
        Ok(())
    }

    /// Drops the triggers that keep an update's rows; those that were there. Waits for no lock for long.
    ///
    /// # Errors
    /// Whatever the database says; transient, with who is in the way, where somebody holds a lock.
    async fn unkeep(&self, update_name: &str) -> Result<Vec<Keep>, SqlError> {
        let _ = update_name;
        Ok(Vec::new())
    }

    /// A session to look at an update's definition in before its first batch, over a lane's connection, which
    /// [`Database::situation`] tells of as it does of a batch.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn vetting(&self, lane: &str) -> Result<Box<dyn Session>, SqlError> {
        let _ = lane;
        self.inspect().await
    }

    /// What is to be known of the batch of an update that takes long in a lane, asked while it runs. Nothing, where a
    /// database cannot be asked meanwhile.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn situation(&self, lane: &str, update_name: &str) -> Result<Situation, SqlError> {
        let _ = (lane, update_name);
        Ok(Situation::default())
    }

    /// Records a failure of an update, with the progress that its row had.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn record_failure(&self, update_name: &str, progress: &str, failure: &Failure) -> Result<(), SqlError>;

    /// Forgets the failures of an update, quarantine included. False where there were none.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn forget_failures(&self, update_name: &str) -> Result<bool, SqlError>;

    /// The same because the update works again, or goes on otherwise, and not because somebody has it tried again.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn clear_failures(&self, update_name: &str) -> Result<(), SqlError> {
        self.forget_failures(update_name).await.map(drop)
    }

    /// Writes into the ledger what happens in no table: a pause that ends with the host.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn note(&self, note: &Note) -> Result<(), SqlError> {
        let _ = note;
        Ok(())
    }

    /// The newest `limit` entries of the ledger that are wanted, the newest first; none where there is no ledger.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn ledger(&self, wanted: &Wanted<'_>, limit: u32) -> Result<Vec<Entry>, SqlError> {
        let _ = (wanted, limit);
        Ok(Vec::new())
    }

    /// Stores or lifts the pause that outlasts restarts.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn set_pause(&self, pause: Option<&Pause>) -> Result<(), SqlError>;

    /// Stores what the running host does now, or what is to be known of it once it has stopped, for `status`.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn set_activity(&self, activity: Option<&Activity>) -> Result<(), SqlError>;

    /// Adds iterations to the history, and drops those older than seven days.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn add_history(&self, records: &[Arc<Record>]) -> Result<(), SqlError>;

    /// The last `limit` iterations of an update (of all, where `None`), the newest first; none where tidegate's own
    /// tables are missing.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn history(&self, update_name: Option<&str>, limit: u32) -> Result<Vec<Record>, SqlError>;

    /// The keys that an update has skipped, behind one of them, in the order of their JSON; none where the table is missing.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn skipped(&self, update_name: &str, after: Option<&str>, limit: u32) -> Result<Vec<Skipped>, SqlError> {
        let _ = (update_name, after, limit);
        Ok(Vec::new())
    }

    /// The same in the transaction of a batch.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn skipped_in(
        &self,
        sql: &mut dyn Sql,
        update_name: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Skipped>, SqlError> {
        let _ = (sql, update_name, after, limit);
        Ok(Vec::new())
    }

    /// Those of these keys, as they stand in the table, that an update has skipped; asked in the transaction of a batch.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn skipped_among(
        &self,
        sql: &mut dyn Sql,
        update_name: &str,
        keys: &[String],
    ) -> Result<BTreeSet<String>, SqlError> {
        let _ = (sql, update_name, keys);
        Ok(BTreeSet::new())
    }

    /// Writes, in the transaction of a batch, what it changes in the keys that its update has skipped.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn resolve_skipped(&self, sql: &mut dyn Sql, update_name: &str, resolved: &Resolved) -> Result<(), SqlError> {
        let _ = (sql, update_name, resolved);
        Err(SqlError::permanent("this database has nowhere to name rows that are skipped"))
    }

    /// What speaks against a host's working on this database, found out without writing: rights that are missing, a
    /// file or a server that can only be read, settings that will hurt.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn survey(&self) -> Result<Vec<Remark>, SqlError>;

    /// Closes its connections; what comes later opens them anew.
    async fn close(&self);

    /// True where what was worked on is not what is found under the database's name any more: everything fails with class
    /// [`Replaced`](crate::update::ErrorClass::Replaced) until [`Database::close`], and what is found from then on is
    /// another database.
    fn is_replaced(&self) -> bool {
        false
    }
}

/// Something that speaks against working on a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// True where a host cannot work so; false where it works, and worse than it could.
    pub hinders: bool,
    /// What it is.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Remark {
    /// What keeps a host from working.
    pub fn hindrance(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { hinders: true, message: message.into(), hint: hint.into() }
    }

    /// What makes it work worse.
    pub fn drawback(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { hinders: false, ..Self::hindrance(message, hint) }
    }
}

/// Whether the lease was to be had.
pub enum LeaseAttempt {
    /// It is ours.
    Held(Box<dyn Lease>),
    /// Another host has it.
    Taken(Option<Holder>),
}

/// The right to be a database's one runner.
#[async_trait]
pub trait Lease: Send {
    /// Resolves when the lease is lost, with the reason; pending for as long as it is held.
    async fn lost(&mut self) -> String;

    /// Notes what is in the way of the host's work, where the database itself will not take it; `None` where nothing is
    /// any more. A lease that is kept outside the database can be read for [`Database::obstacle`] all the same.
    async fn note(&mut self, trouble: Option<&str>) {
        let _ = trouble;
    }

    /// Gives the lease up.
    async fn release(self: Box<Self>);
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The machine's name.
    pub host: String,
    /// The process's number there.
    pub pid: u32,
}

impl Holder {
    /// This process on this machine.
    pub fn this_process() -> Self {
        Self { host: rustix::system::uname().nodename().to_string_lossy().into_owned(), pid: std::process::id() }
    }
}

/// The wall clock as stored: milliseconds since the Unix epoch.
pub fn unix_ms(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis().try_into().unwrap_or(i64::MAX))
}
