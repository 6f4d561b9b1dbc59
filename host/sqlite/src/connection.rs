//! One connection, on a thread of its own, and the right to use it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use rusqlite::OpenFlags;
use rusqlite::config::DbConfig;
use tokio::sync::OwnedMutexGuard;

use super::dialect::SqliteDialect;
use super::error::{closed, sql_error};
use super::file::{Farewell, Watch};
use super::functions;
use super::linger::{Linger, stay_awake};
use super::statement::{ask, execute, execute_each, query, run_script};
use tidegate::scheduler::database::{Interrupt, Session};
use tidegate::update::sql::{Answer, Ask, Dialect, ErrorClass, Row, Sql, SqlError, Value};
use tidegate_driver::driver::Control;
use tidegate_driver::next_number;

/// Statements that stay prepared.
const CACHED_STATEMENTS: usize = 64;
/// Steps of SQLite's virtual machine between two looks at whether a statement is to be given up: some microseconds.
const STEPS_BETWEEN_LOOKS: i32 = 1_000;

/// A connection, and what is known of it outside its thread.
#[derive(Clone)]
pub(super) struct Connection {
    thread: tokio_rusqlite::Connection,
    jobs: Arc<Jobs>,
    linger: Arc<Linger>,
    watch: Watch,
    /// No other connection has it.
    number: u64,
}

/// The jobs given to the thread, numbered from 1, so that an interruption hits the job it was meant for or none.
#[derive(Default)]
struct Jobs {
    /// The last one given.
    given: AtomicU64,
    /// The one that runs, or the last that ran.
    running: AtomicU64,
    /// This one and those before are to be given up.
    interrupted: AtomicU64,
    /// Transactions that have ended, committed or rolled back, by whomever.
    ended: AtomicU64,
}

impl Connection {
    /// Opens the file at `path`, which has to be there, and to be the one that is worked on already, if any is.
    pub(super) async fn open(path: &Path, watch: &Watch, busy_timeout: Duration) -> Result<Self, SqlError> {
        let thread = open_thread(path, watch).await?;
        let (jobs, linger) = (Arc::default(), Arc::new(Linger::new()));
        let connection = Self { thread, jobs, linger, watch: watch.clone(), number: next_number() };
        let jobs = Arc::clone(&connection.jobs);
        connection.run(None, move |sqlite| set_up(sqlite, jobs, busy_timeout).map_err(sql_error)).await?;
        Ok(connection)
    }

    /// Closes it, once the thread has done what it was given.
    pub(super) async fn close(self) {
        close(&self.thread, self.watch.farewell()).await;
    }

    /// Runs a job on the thread. Its number stands in `in_hand` meanwhile.
    async fn run<T: Send + 'static>(
        &self,
        in_hand: Option<&AtomicU64>,
        job: impl FnOnce(&mut rusqlite::Connection) -> Result<T, SqlError> + Send + 'static,
    ) -> Result<T, SqlError> {
        let number = self.jobs.given.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(in_hand) = in_hand {
            in_hand.store(number, Ordering::SeqCst);
        }
        let jobs = Arc::clone(&self.jobs);
        let done = self.thread.call_raw(move |sqlite| {
            jobs.running.store(number, Ordering::SeqCst);
            if jobs.interrupted.load(Ordering::SeqCst) >= number { Err(interrupted()) } else { job(sqlite) }
        });
        let result = done.await;
        if let Some(in_hand) = in_hand {
            in_hand.store(0, Ordering::SeqCst);
        }
        result.map_err(|_| closed())?
    }

    /// Takes note that a transaction has ended, and has the thread stay awake where another one is likely to begin at once.
    fn linger(&self) {
        if self.linger.ended(Instant::now()) {
            let (jobs, last) = (Arc::clone(&self.jobs), self.jobs.given.load(Ordering::Relaxed));
            self.send(move |_| stay_awake(&jobs.given, last));
        }
    }

    /// Gives the thread something to do without waiting for it.
    fn send(&self, job: impl FnOnce(&mut rusqlite::Connection) + Send + 'static) {
        // The job is handed over when the future is polled first; nobody waits for the answer.
        let _ = self.thread.call_raw(job).now_or_never();
    }
}

/// Opens the file at `path` on a thread of its own. Where that is another than what was found there just before, or just
/// afterwards, it is opened again: nobody knows which it is.
pub(super) async fn open_thread(path: &Path, watch: &Watch) -> Result<tokio_rusqlite::Connection, SqlError> {
    const ATTEMPTS: u32 = 3;
    for _ in 0..ATTEMPTS {
        must_exist(path).await?;
        let before = watch.before_opening()?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let thread = tokio_rusqlite::Connection::open_with_flags(path, flags).await.map_err(sql_error)?;
        if watch.opened(before)? {
            return Ok(thread);
        }
        close(&thread, Farewell::None).await;
    }
    let message = format!("the database file \"{}\" was replaced while it was being opened", path.display());
    Err(SqlError::new(ErrorClass::Connection, message))
}

/// Closes a connection by a job of its thread. What the thread has for that panics where nobody waits for it any more, and a
/// host that stops waits for seconds only.
pub(super) async fn close(thread: &tokio_rusqlite::Connection, farewell: Farewell) {
    let closed = thread.call_raw(move |sqlite| {
        leave_log(sqlite, farewell);
        // Where not even that can be opened, it is closed with its thread.
        if let Ok(nothing) = rusqlite::Connection::open_in_memory() {
            // An error would mean statements still alive, and none outlives its job.
            let _ = std::mem::replace(sqlite, nothing).close();
        }
    });
    let _ = closed.await;
}

/// Does what is to be done about a log before its connection is closed.
fn leave_log(sqlite: &rusqlite::Connection, farewell: Farewell) {
    let done = match farewell {
        Farewell::None => Ok(()),
        Farewell::Save => sqlite.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(())),
        Farewell::Spare => sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop),
    };
    if let Err(error) = done {
        tracing::warn!(%error, "what the lost write-ahead log held could not be saved");
    }
}

/// Takes a name in double quotes that nothing bears for an error, and not for a text: a misspelt column would choose other
/// rows.
pub(super) fn without_quoted_texts(sqlite: &rusqlite::Connection) -> rusqlite::Result<()> {
    sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    Ok(())
}

fn set_up(sqlite: &rusqlite::Connection, jobs: Arc<Jobs>, busy_timeout: Duration) -> rusqlite::Result<()> {
    sqlite.busy_timeout(busy_timeout)?;
    sqlite.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    without_quoted_texts(sqlite)?;
    functions::add(sqlite)?;
    // As Synapse does: an update must not leave behind what the application's foreign keys forbid.
    sqlite.pragma_update(None, "foreign_keys", true)?;
    let ended = Arc::clone(&jobs);
    sqlite.commit_hook(Some(move || {
        ended.ended.fetch_add(1, Ordering::SeqCst);
        false
    }))?;
    let ended = Arc::clone(&jobs);
    sqlite.rollback_hook(Some(move || {
        ended.ended.fetch_add(1, Ordering::SeqCst);
    }))?;
    sqlite.progress_handler(
        STEPS_BETWEEN_LOOKS,
        Some(move || jobs.interrupted.load(Ordering::Relaxed) >= jobs.running.load(Ordering::Relaxed)),
    )
}

/// Says what is missing better than SQLite's "unable to open database file".
async fn must_exist(path: &Path) -> Result<(), SqlError> {
    let problem = match tokio::fs::metadata(path).await {
        Ok(file) if file.is_file() => return Ok(()),
        Ok(_) => "is not a file".to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            "does not exist, and tidegate makes none".to_owned()
        }
        Err(error) => format!("cannot be looked at: {error}"),
    };
    let message = format!("the database file \"{}\" {problem}", path.display());
    Err(SqlError::new(ErrorClass::Connection, message).with_code("SQLITE_CANTOPEN"))
}

fn interrupted() -> SqlError {
    SqlError::new(ErrorClass::Interrupted, "interrupted").with_code("SQLITE_INTERRUPT")
}

/// The connection's place, shared by all who take turns with it; empty until it is opened.
pub(super) type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

/// The connection in hand: nobody else's until this is dropped. Dropped within a transaction, it rolls back.
pub(super) struct Held {
    connection: Connection,
    /// Holding it keeps everybody else out.
    turn: OwnedMutexGuard<Option<Connection>>,
    /// True where statements that the host did not write may have changed the connection: nobody uses it after us.
    foreign: bool,
    /// The number of the job that runs for us; 0 where none does.
    in_hand: Arc<AtomicU64>,
    /// Within a transaction: how many had ended when it began.
    transaction: Option<u64>,
    /// The error that ended the transaction before its time.
    broken: Option<SqlError>,
    /// True where the last job ended the transaction in good order, and nothing came after: nothing is left to tidy up.
    ended: bool,
}

impl Held {
    /// Waits for the connection, and opens it where it is closed.
    pub(super) async fn take(slot: &Slot, path: &Path, watch: &Watch, limit: Duration) -> Result<Self, SqlError> {
        let mut turn = Arc::clone(slot).lock_owned().await;
        watch.known()?;
        let connection = match &*turn {
            Some(connection) => connection.clone(),
            None => turn.insert(Connection::open(path, watch, limit).await?).clone(),
        };
        Ok(Self {
            connection,
            turn,
            foreign: false,
            in_hand: Arc::default(),
            transaction: None,
            broken: None,
            ended: false,
        })
    }

    /// Runs a job within the transaction, where there is one: never after that was ended behind our back.
    pub(super) async fn run<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut rusqlite::Connection) -> Result<T, SqlError> + Send + 'static,
    ) -> Result<T, SqlError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        self.ended = false;
        let Some(began_after) = self.transaction else {
            let watch = self.connection.watch.clone();
            let checked = move |sqlite: &mut rusqlite::Connection| {
                watch.check()?;
                job(sqlite)
            };
            return self.connection.run(Some(&self.in_hand), checked).await;
        };
        let jobs = Arc::clone(&self.connection.jobs);
        let ended = move |sqlite: &rusqlite::Connection| {
            sqlite.is_autocommit() || jobs.ended.load(Ordering::SeqCst) != began_after
        };
        let guarded = move |sqlite: &mut rusqlite::Connection| {
            if ended(sqlite) {
                return Err((ended_early(), true));
            }
            job(sqlite).map_err(|error| (error, ended(sqlite)))
        };
        let outcome = self.connection.run(Some(&self.in_hand), move |sqlite| Ok(guarded(sqlite))).await?;
        outcome.map_err(|(error, ended)| {
            if ended {
                self.broken = Some(error.clone());
            }
            error
        })
    }

    /// Begins a transaction with the lock that lets it write, and does `first` in the same turn.
    pub(super) async fn begin_with<T: Send + 'static>(
        &mut self,
        first: impl FnOnce(&rusqlite::Connection) -> Result<T, SqlError> + Send + 'static,
    ) -> Result<T, SqlError> {
        let (jobs, watch) = (Arc::clone(&self.connection.jobs), self.connection.watch.clone());
        self.connection.linger.begins(Instant::now());
        // Noted before it happens: whoever drops this future meanwhile rolls back.
        self.ended = false;
        self.transaction = Some(u64::MAX);
        let (began_after, value) = self
            .connection
            .run(Some(&self.in_hand), move |sqlite| {
                sqlite
                    .prepare_cached("BEGIN IMMEDIATE")
                    .and_then(|mut begin| begin.raw_execute())
                    .map_err(sql_error)?;
                watch.check_begun()?;
                let began_after = jobs.ended.load(Ordering::SeqCst);
                Ok((began_after, first(sqlite)?))
            })
            .await?;
        self.transaction = Some(began_after);
        Ok(value)
    }

    /// Does `last` and commits, in one turn.
    pub(super) async fn commit_with(
        &mut self,
        last: impl FnOnce(&rusqlite::Connection) -> Result<(), SqlError> + Send + 'static,
    ) -> Result<(), SqlError> {
        let watch = self.connection.watch.clone();
        self.run(move |sqlite| {
            last(sqlite)?;
            watch.check()?;
            sqlite.prepare_cached("COMMIT").and_then(|mut commit| commit.raw_execute()).map_err(sql_error)?;
            Ok(())
        })
        .await?;
        self.transaction = None;
        self.ended = true;
        self.connection.linger();
        Ok(())
    }

    /// Fails where the file is not in its place any more: what was committed just now is where nobody looks for it.
    pub(super) async fn check_place(&self) -> Result<(), SqlError> {
        let watch = self.connection.watch.clone();
        self.connection.run(None, move |_| watch.check()).await
    }

    /// Turns foreign keys off for the transaction that follows, and says which rows refer to nothing now.
    pub(super) async fn without_foreign_keys(&mut self) -> Result<Vec<Row>, SqlError> {
        self.foreign = true;
        self.script("PRAGMA foreign_keys = OFF").await?;
        self.query(DANGLING, &[]).await
    }

    /// True where the transaction was ended before its time.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// See [`Sql::expect_foreign`]: the connection is closed once it is handed back.
    pub(super) fn expect_foreign(&mut self) {
        self.foreign = true;
    }

    /// Rolls back and waits for it.
    pub(super) async fn rollback(mut self) -> Result<(), SqlError> {
        self.transaction = None;
        let rolled_back = |sqlite: &mut rusqlite::Connection| {
            roll_back(sqlite);
            Ok(())
        };
        self.ended = false;
        self.connection.run(None, rolled_back).await
    }

    /// A handle that interrupts what runs for us, and never what runs for others.
    pub(super) fn interrupter(&self) -> Arc<dyn Interrupt> {
        Arc::new(Interrupter { jobs: Arc::clone(&self.connection.jobs), in_hand: Arc::clone(&self.in_hand) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // One whose file was lost is closed in good order, with all that is known of it.
        if self.foreign && !self.connection.watch.is_lost() {
            // Whoever comes next opens another.
            *self.turn = None;
        }
        if self.ended {
            return;
        }
        // A statement whose future was dropped still runs.
        interrupt(&self.connection.jobs, &self.in_hand);
        self.connection.send(|sqlite| roll_back(sqlite));
    }
}

/// How many rows of each table refer to nothing, by the table that they refer to.
pub(super) const DANGLING: &str = "SELECT \"table\" || ', ' || parent || ', ' || count(*) FROM pragma_foreign_key_check \
                                   GROUP BY \"table\", parent";

/// Leaves any transaction: ours, or one that a script left open.
fn roll_back(sqlite: &rusqlite::Connection) {
    if !sqlite.is_autocommit() {
        // It fails only where SQLite has rolled back by itself already.
        let _ = sqlite.execute_batch("ROLLBACK");
    }
}

fn ended_early() -> SqlError {
    SqlError::permanent(
        "the update's own statements ended the transaction that its batch runs in: leave BEGIN, COMMIT and ROLLBACK out",
    )
}

struct Interrupter {
    jobs: Arc<Jobs>,
    in_hand: Arc<AtomicU64>,
}

#[async_trait]
impl Interrupt for Interrupter {
    async fn interrupt(&self) {
        interrupt(&self.jobs, &self.in_hand);
    }

    fn statement_runs(&self) -> bool {
        self.in_hand.load(Ordering::SeqCst) > 0
    }
}

fn interrupt(jobs: &Jobs, in_hand: &AtomicU64) {
    let job = in_hand.load(Ordering::SeqCst);
    if job > 0 {
        jobs.interrupted.fetch_max(job, Ordering::SeqCst);
    }
}

#[async_trait]
impl Sql for Held {
    fn dialect(&self) -> Arc<dyn Dialect> {
        Arc::new(SqliteDialect)
    }

    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, SqlError> {
        let (sql, parameters) = (sql.to_owned(), parameters.to_vec());
        self.run(move |sqlite| execute(sqlite, &sql, &parameters)).await
    }

    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, SqlError> {
        let (sql, parameters) = (sql.to_owned(), parameters.to_vec());
        self.run(move |sqlite| query(sqlite, &sql, &parameters)).await
    }

    async fn execute_each(&mut self, sql: &str, rows: Vec<Row>) -> Result<u64, SqlError> {
        let sql = sql.to_owned();
        self.run(move |sqlite| execute_each(sqlite, &sql, &rows)).await
    }

    async fn script(&mut self, sql: &str) -> Result<(), SqlError> {
        let sql = sql.to_owned();
        self.run(move |sqlite| run_script(sqlite, &sql)).await
    }

    async fn ask(&mut self, statements: Vec<Ask>) -> Result<Vec<Answer>, SqlError> {
        self.run(move |sqlite| ask(sqlite, &statements)).await
    }

    fn connection(&self) -> Option<u64> {
        Some(self.connection.number)
    }
}

#[async_trait]
impl Control for Held {
    async fn begin(&mut self) -> Result<(), SqlError> {
        self.begin_with(|_| Ok(())).await
    }

    async fn commit(&mut self) -> Result<(), SqlError> {
        self.commit_with(|_| Ok(())).await
    }
}

#[async_trait]
impl Session for Held {
    fn interrupter(&self) -> Arc<dyn Interrupt> {
        Held::interrupter(self)
    }

    fn as_sql(&mut self) -> &mut dyn Sql {
        self
    }
}
