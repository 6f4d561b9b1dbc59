//! The SQLite driver.
//!
//! One connection does all the work, since SQLite has one writer anyway: an open batch holds it, and all else waits its
//! turn; samplers have connections of their own. The journal mode stays what it is; `foreign_keys` is on, as in Synapse.

mod connection;
mod dialect;
mod error;
mod file;
mod functions;
mod inspect;
mod lease;
mod linger;
mod options;
mod place;
mod room;
mod sampler;
mod statement;
mod trial;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use self::connection::{Held, Slot};
use self::dialect::SqliteDialect;
use self::file::Watch;
pub use self::options::{Sqlite, SqliteOptions, open, samplers, sql_sampler};
use self::room::{Room, Turn};
use self::sampler::{Own, Probe, Turns, WriteLock};
use tidegate::scheduler::database::{
    Begin, Holder, Interrupt, LeaseAttempt, Planned, Remark, Session, Transaction, TrialTransaction,
};
use tidegate::scheduler::ledger::{Actor, Note};
use tidegate::update::Opening;
use tidegate::update::sql::{Answer, Ask, Dialect, ErrorClass, Row, Sql, SqlError, System, Value};
use tidegate_driver::DEFAULT_QUEUE_TABLE;
use tidegate_driver::driver::{self, Control};
use tidegate_driver::fence::{self, Fence};
use tidegate_driver::handle;
use tidegate_driver::ledger::{Notes, ONE_ROW};
use tidegate_driver::schema;
use tidegate_driver::tables::{self, Tables};
pub use tidegate_driver::{Options, SamplerOptions, TableInHand};

/// The SQL that reads the epoch of a queue's lease (parameter 1): none where nobody was ever overtaken.
const SELECT_EPOCH: &str = "select epoch from main.tidegate_lease where queue = ?1";

fn epoch(rows: &[Row]) -> i64 {
    rows.first().and_then(|row| row.first()).and_then(Value::as_integer).unwrap_or(0)
}

/// One SQLite database file.
pub(crate) struct Driver {
    path: PathBuf,
    busy_timeout: Duration,
    /// See [`tables::key`].
    queue: String,
    tables: Tables,
    slot: Slot,
    watch: Watch,
    room: Arc<Room>,
    fence: Fence,
    /// See [`lease::Place::seen`].
    seen: Mutex<Option<lease::Seen>>,
    #[cfg(feature = "test-switches")]
    switches: tidegate_driver::Switches,
}

impl Driver {
    pub(crate) fn new(path: PathBuf, options: &Options, sqlite: &SqliteOptions, tables: Tables) -> Self {
        Self {
            watch: Watch::new(&path),
            path,
            busy_timeout: sqlite.busy_timeout,
            queue: tables::key(&options.queue_table, System::Sqlite),
            tables,
            slot: Slot::default(),
            room: Arc::default(),
            fence: Fence::default(),
            seen: Mutex::default(),
            #[cfg(feature = "test-switches")]
            switches: options.switches,
        }
    }

    async fn take(&self) -> Result<Held, SqlError> {
        Held::take(&self.slot, &self.path, &self.watch, self.busy_timeout).await
    }

    /// What tells the lock file of this queue table from the default one's.
    fn lock_suffix(&self) -> Option<&str> {
        (self.queue != DEFAULT_QUEUE_TABLE).then_some(self.queue.as_str())
    }

    /// The epoch of the lease, by what is committed.
    async fn epoch(&self) -> Result<i64, SqlError> {
        let mut held = self.take().await?;
        if !schema::exists(&mut held, schema::LEASE).await? {
            return Ok(0);
        }
        let rows = held.query(SELECT_EPOCH, &[self.queue.as_str().into()]).await?;
        Ok(epoch(&rows))
    }

    /// Raises the epoch of the lease: whoever works under another can do nothing from then on. `None` where `may`, asked once
    /// nobody else can, says no.
    async fn raise_epoch(
        &self,
        holder: &Holder,
        may: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<Option<i64>, SqlError> {
        let mut held = self.take().await?;
        let (queue, holder) = (Value::from(self.queue.as_str()), serde_json::to_string(holder));
        let holder = Value::from(holder.map_err(|error| SqlError::permanent(error.to_string()))?);
        let raise = "insert into main.tidegate_lease (queue, epoch, holder) values (?1, 1, ?2) \
                     on conflict (queue) do update set epoch = epoch + 1, holder = excluded.holder";
        let values = [queue.clone(), holder];
        let raised = move |sqlite: &rusqlite::Connection| {
            if !may() {
                return Ok(None);
            }
            statement::execute(sqlite, raise, &values)?;
            Ok(Some(epoch(&statement::query(sqlite, SELECT_EPOCH, &[queue])?)))
        };
        let epoch = held.begin_with(raised).await?;
        held.commit_with(|_| Ok(())).await?;
        Ok(epoch)
    }

    /// Whether a batch planned from `planned` can go on from `found`.
    fn goes_on(&self, planned: &str, found: &str) -> bool {
        #[cfg(feature = "test-switches")]
        if self.switches.skip_progress_comparison {
            return true;
        }
        planned == found
    }
}

#[async_trait]
impl driver::Driver for Driver {
    fn dialect(&self) -> Arc<dyn Dialect> {
        Arc::new(SqliteDialect)
    }

    async fn check_place(&self) -> Result<(), SqlError> {
        lease::refuse_network(&self.path).await?;
        place::refuse_read_only(&self.path)
    }

    async fn control(&self) -> Result<Box<dyn Control>, SqlError> {
        Ok(Box::new(self.take().await?))
    }

    async fn try_lease(&self, holder: &Holder) -> Result<LeaseAttempt, SqlError> {
        #[cfg(feature = "test-switches")]
        if self.switches.lease_always {
            return Ok(LeaseAttempt::Held(Box::new(tidegate_driver::handle::NoLease)));
        }
        let place = lease::Place { path: &self.path, suffix: self.lock_suffix(), seen: &self.seen };
        let queue = Arc::from(self.queue.as_str());
        let (locked, epoch) = match place.try_lock(holder).await? {
            lease::Attempt::Taken(by) => return Ok(LeaseAttempt::Taken(by)),
            lease::Attempt::Locked(locked) => (locked, self.epoch().await?),
            lease::Attempt::Stale(stale) => {
                // Before the file is replaced: from then on a holder that is woken can do nothing, whatever becomes of this.
                let epoch = match self.raise_epoch(holder, stale.still_there()).await {
                    Ok(Some(epoch)) => epoch,
                    Ok(None) => return Ok(LeaseAttempt::Taken(None)),
                    Err(error) if error.class == ErrorClass::Transient => return Err(stale.explain(error)),
                    Err(error) => return Err(error),
                };
                match stale.replace(holder).await? {
                    Some(locked) => (locked, epoch),
                    None => return Ok(LeaseAttempt::Taken(None)),
                }
            }
        };
        self.watch.check()?;
        Ok(LeaseAttempt::Held(Box::new(locked.lease(&self.watch, &self.fence, &queue, epoch))))
    }

    async fn lease_holder(&self) -> Result<Option<Holder>, SqlError> {
        Ok(lease::held(&self.path, self.lock_suffix()).await?.map(|held| held.holder))
    }

    async fn obstacle(&self) -> Result<Option<String>, SqlError> {
        let mut held = self.take().await?;
        let journal = held.query("pragma journal_mode", &[]).await?;
        let journal = journal.first().and_then(|row| row.first()).and_then(Value::as_text).unwrap_or_default();
        if let Some(obstacle) = place::obstacle(&self.path, journal == "wal") {
            return Ok(Some(obstacle));
        }
        let noted @ Some(_) = lease::held(&self.path, self.lock_suffix()).await? else {
            // No lock is tried where no host is in anybody's way.
            return Ok(self.check_place().await.err().map(|refused| refused.message));
        };
        let its_own = || noted.as_ref().is_some_and(|held| place::is_written_by(&self.path, held.holder.pid));
        // A host that is in the middle of a batch is in nobody's way but others', and whoever looks need not wait for it.
        if its_own() {
            return Ok(noted.and_then(|held| held.trouble));
        }
        let begun = match held.begin_with(|_| Ok(())).await {
            Ok(()) => held.rollback().await,
            Err(error) => Err(error),
        };
        match begun {
            Err(error) if error.class == ErrorClass::Transient => {
                if its_own() {
                    return Ok(noted.and_then(|held| held.trouble));
                }
                let holders = driver::Driver::holders(self).await;
                Ok(Some(match holders.is_empty() {
                    true => error.to_string(),
                    false => format!("{error}; in the way: {}", holders.join(", ")),
                }))
            }
            // Whoever may only read learns nothing by trying.
            Ok(()) | Err(SqlError { class: ErrorClass::Permanent, .. }) => Ok(noted.and_then(|held| held.trouble)),
            Err(error) => Err(error),
        }
    }

    async fn holders(&self) -> Vec<String> {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || place::in_the_way(&path)).await.unwrap_or_default()
    }

    async fn begin(&self, batch: &Planned<'_>) -> Result<Begin, SqlError> {
        // The one connection is every lane's, one after the other.
        let Planned { update_name, progress, opening, lane: _ } = *batch;
        let mut held = self.take().await?;
        let dangling = match opening {
            Opening::Rebuild => match held.without_foreign_keys().await {
                Ok(dangling) => Some(dangling),
                // A foreign key that SQLite can make nothing of hinders nobody else.
                Err(error) if error.class == ErrorClass::Permanent => return Ok(Begin::Failed(error)),
                Err(error) => return Err(error),
            },
            Opening::Snapshot | Opening::EachStatement => None,
        };
        let select = self.tables.select_progress("?1");
        let name = Value::from(update_name);
        let queue = Value::from(self.queue.as_str());
        let hold = self.fence.hold().map(|hold| hold.epoch);
        let begun = held.begin_with(move |sqlite| {
            let of_another = match hold {
                Some(ours) => epoch(&statement::query(sqlite, SELECT_EPOCH, &[queue])?) != ours,
                None => false,
            };
            let version = statement::query(sqlite, "PRAGMA data_version", &[])?;
            Ok((of_another, version, statement::query(sqlite, &select, &[name])?))
        });
        let (of_another, version, rows) = begun.await?;
        if of_another {
            held.rollback().await?;
            return Err(fence::overtaken());
        }
        let turn = self.room.begun(version.first().and_then(|row| row.first()).and_then(Value::as_integer));
        let found = rows.into_iter().next().and_then(|row| row.into_iter().next());
        let found = match found {
            None => None,
            Some(Value::Text(text)) => Some(text),
            Some(_) => {
                held.rollback().await?;
                return Ok(Begin::Failed(handle::progress_is_no_text(update_name)));
            }
        };
        if !found.as_deref().is_some_and(|found| self.goes_on(progress, found)) {
            held.rollback().await?;
            return Ok(Begin::Moved(found));
        }
        Ok(Begin::Ready(Box::new(Batch {
            held,
            notes: Notes::of(update_name, self.tables.by.clone()),
            tables: self.tables.clone(),
            update_name: update_name.to_owned(),
            marked: false,
            _turn: turn,
            dangling,
        })))
    }

    fn room_for_others(&self) -> Duration {
        self.room.room()
    }

    fn has_one_writer(&self) -> bool {
        true
    }

    async fn session(&self, _lane: &str) -> Result<Box<dyn Session>, SqlError> {
        self.inspect().await
    }

    async fn begin_trial(&self, opening: Opening) -> Result<Box<dyn TrialTransaction>, SqlError> {
        Ok(Box::new(trial::Trial::begin(self.take().await?, &self.path, opening).await?))
    }

    async fn inspect(&self) -> Result<Box<dyn Session>, SqlError> {
        Ok(Box::new(self.take().await?))
    }

    async fn survey(&self) -> Result<Vec<Remark>, SqlError> {
        inspect::survey(&mut self.take().await?).await
    }

    fn check_lease(&self) -> Result<(), SqlError> {
        self.fence.check()
    }

    async fn close(&self) {
        // Nobody opens another before this one is closed.
        let mut slot = self.slot.lock().await;
        if let Some(connection) = slot.take() {
            connection.close().await;
        }
        self.watch.forget();
    }

    fn is_replaced(&self) -> bool {
        self.watch.is_lost()
    }
}

/// The open transaction of a batch.
struct Batch {
    held: Held,
    tables: Tables,
    update_name: String,
    /// What its commit tells the ledger.
    notes: Notes,
    /// True where there is a savepoint of the host's own.
    marked: bool,
    /// Counts how long it holds the lock.
    _turn: Turn,
    /// Where foreign keys are off: the rows that referred to nothing before, by table and parent.
    dangling: Option<Vec<Row>>,
}

#[async_trait]
impl Sql for Batch {
    fn dialect(&self) -> Arc<dyn Dialect> {
        self.held.dialect()
    }

    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, SqlError> {
        self.held.execute(sql, parameters).await
    }

    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, SqlError> {
        self.held.query(sql, parameters).await
    }

    async fn execute_each(&mut self, sql: &str, rows: Vec<Row>) -> Result<u64, SqlError> {
        self.held.execute_each(sql, rows).await
    }

    async fn script(&mut self, sql: &str) -> Result<(), SqlError> {
        self.held.script(sql).await
    }

    async fn ask(&mut self, statements: Vec<Ask>) -> Result<Vec<Answer>, SqlError> {
        self.held.ask(statements).await
    }

    fn connection(&self) -> Option<u64> {
        Sql::connection(&self.held)
    }

    fn expect_foreign(&mut self) {
        self.held.expect_foreign();
    }
}

#[async_trait]
impl Transaction for Batch {
    fn note(&mut self, note: Note) {
        self.notes.add(note);
    }

    fn known_as(&mut self, actor: Actor) {
        self.notes.known_as(actor);
    }

    async fn commit(mut self: Box<Self>, progress: Option<&str>) -> Result<(), SqlError> {
        if let Some(before) = &self.dangling {
            let after = self.held.query(connection::DANGLING, &[]).await?;
            let new = after.iter().find(|row| !before.contains(row));
            if let Some(text) = new.and_then(|row| row.first()).and_then(Value::as_text) {
                return Err(SqlError::permanent(format!(
                    "the script would leave rows that refer to nothing (table, parent and number: {text}): keep the rows that \
                     others refer to"
                )));
            }
        }
        let name = Value::from(self.update_name.as_str());
        let (sql, values) = match progress {
            Some(progress) => (self.tables.update_progress("?1", "?2"), vec![name, progress.into()]),
            None => (self.tables.delete_row("?1"), vec![name]),
        };
        let update_name = self.update_name.clone();
        let mut noted = Vec::new();
        let insert = self.notes.insert(&self.tables, ONE_ROW, &mut noted);
        let write = move |sqlite: &rusqlite::Connection| {
            if statement::execute(sqlite, &sql, &values)? == 0 {
                return Err(handle::row_vanished(&update_name));
            }
            insert.map_or(Ok(()), |insert| statement::execute(sqlite, &insert, &noted).map(drop))
        };
        self.held.commit_with(write).await?;
        // Before anybody is told that the update has finished; after any other batch the next one sees it.
        if progress.is_none() { self.held.check_place().await } else { Ok(()) }
    }

    async fn mark(&mut self) -> Result<(), SqlError> {
        self.held.script(handle::mark(self.marked)).await?;
        self.marked = true;
        Ok(())
    }

    async fn undo(&mut self) -> Result<bool, SqlError> {
        // SQLite rolls the whole transaction back where it interrupts a statement that writes.
        if !self.marked || self.held.is_broken() {
            return Ok(false);
        }
        self.held.script(handle::UNDO).await?;
        Ok(true)
    }

    async fn rollback(self: Box<Self>) -> Result<(), SqlError> {
        self.held.rollback().await
    }

    fn interrupter(&self) -> Arc<dyn Interrupt> {
        self.held.interrupter()
    }

    fn as_sql(&mut self) -> &mut dyn Sql {
        self
    }
}
