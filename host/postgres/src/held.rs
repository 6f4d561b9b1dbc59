//! The right to use a connection: for a batch's transaction, for a one-shot, or for the queue and tidegate's tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{join, join_all, join3};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

use super::connection::Connection;
use super::dialect::PostgresDialect;
use super::error::silent;
use super::pooler;
use super::settings::{self, Isolation, KEEP};
use tidegate::scheduler::database::{Interrupt, Session};
use tidegate::update::sql::{Answer, Ask, Dialect, ErrorClass, Row, Sql, SqlError, Value, ask_in_turn};
use tidegate_driver::driver::Control;
use tidegate_driver::handle;

/// A connection's place, shared by all who take turns with it; empty until it is opened.
pub(super) type Slot = Arc<Mutex<Option<Arc<Connection>>>>;

/// How long tidying up after a dropped transaction or session may take before the connection is given up.
const TIDY_TIME: Duration = Duration::from_secs(10);
/// How often a statement left running is cancelled anew: a request can come an instant too early.
const CANCEL_INTERVAL: Duration = Duration::from_millis(500);
/// The most statements that are sent together. Up to 30, futures are first polled, and so sent, in their order.
const TOGETHER: usize = 16;

/// What has to be tidied up when a connection is handed back.
enum Stage {
    /// Nothing.
    Clean,
    /// A transaction is open, or may be.
    Transaction,
    /// A transaction is open that is rolled back in any case, in a session whose settings may have been changed before.
    Rehearsal { changed: bool },
    /// The session's settings were changed, or may be.
    Changed,
}

/// A connection in hand: nobody else's until this is dropped.
pub(super) struct Held {
    connection: Arc<Connection>,
    /// Holding it keeps everybody else out. `None` once it was handed to whoever tidies up.
    turn: Option<OwnedMutexGuard<Option<Arc<Connection>>>>,
    stage: Stage,
    /// The first error of the transaction: what comes after is only told that there was one.
    first_error: Option<SqlError>,
    /// How the session was before the transaction, where others use it too, as JSON.
    before: Option<String>,
    interruption: Arc<Interruption>,
    /// How long each request may take before the server counts as silent.
    limit: Option<Duration>,
}

impl Held {
    pub(super) fn new(
        turn: OwnedMutexGuard<Option<Arc<Connection>>>,
        connection: Arc<Connection>,
        limit: Option<Duration>,
    ) -> Self {
        let interruption = Arc::new(Interruption::new(Arc::clone(&connection)));
        Self { connection, turn: Some(turn), stage: Stage::Clean, first_error: None, before: None, interruption, limit }
    }

    /// Begins a transaction and executes a query in it, in one trip to the server.
    pub(super) async fn begin_with(
        &mut self,
        isolation: Isolation,
        sql: &str,
        values: &[Value],
    ) -> Result<Vec<Row>, SqlError> {
        let connection = Arc::clone(&self.connection);
        let begin = connection.begin(isolation);
        // Beforehand, so that nothing stands between the two.
        self.request(async { connection.make_ready(sql).await }).await?;
        self.stage = Stage::Transaction;
        let connection = Arc::clone(&self.connection);
        let (before, rows) = self
            .request(async {
                let (begun, rows) = join(pooler::rows(&connection, &begin), connection.query(sql, values, true)).await;
                Ok((settings::before(&begun?), rows?))
            })
            .await?;
        self.before = before;
        Ok(rows)
    }

    /// Executes a script where there is one, then a statement, and commits, in one trip to the server. Only an error of
    /// class `Connection` leaves open whether it happened.
    pub(super) async fn commit_with(
        &mut self,
        script: Option<&str>,
        sql: &str,
        values: &[Value],
    ) -> Result<(), SqlError> {
        let connection = Arc::clone(&self.connection);
        let work = async {
            connection.make_ready(sql).await?;
            let first = async {
                match script {
                    Some(script) => connection.script(script).await,
                    None => Ok(()),
                }
            };
            let written = connection.execute(sql, values, true);
            let (first, written, committed) = join3(first, written, connection.script("commit")).await;
            // Where one of them failed, the commit was a rollback.
            first?;
            written?;
            committed
        };
        self.last_request(work).await?;
        self.stage = Stage::Clean;
        Ok(())
    }

    /// Executes a statement that belongs to the transaction itself.
    pub(super) async fn end(&mut self, statement: &str) -> Result<(), SqlError> {
        let connection = Arc::clone(&self.connection);
        self.last_request(async { connection.script(statement).await }).await?;
        self.stage = Stage::Clean;
        self.first_error = None;
        Ok(())
    }

    /// Sends statements that need nothing of each other together. Where one fails, the transaction has failed, and with it
    /// those behind that one.
    async fn ask_at_once(&mut self, statements: Vec<Ask>) -> Result<Vec<Answer>, SqlError> {
        let connection = Arc::clone(&self.connection);
        let mut answers = Vec::with_capacity(statements.len());
        for together in statements.chunks(TOGETHER) {
            let answered = self.request(async {
                let each = together.iter().map(|ask| answer(&connection, ask));
                join_all(each).await.into_iter().collect::<Result<Vec<_>, _>>()
            });
            answers.extend(answered.await?);
        }
        Ok(answers)
    }

    /// Undoes what came after the mark, an interruption among it, within the transaction.
    pub(super) async fn undo(&mut self) -> Result<(), SqlError> {
        let connection = Arc::clone(&self.connection);
        self.request(async { connection.script(handle::UNDO).await }).await?;
        self.first_error = None;
        self.interruption.asked.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Does the last of a transaction. In a session that others use too it cannot be interrupted: by the time that the
    /// request for it arrives, the session may be another's.
    async fn last_request<T>(&mut self, work: impl Future<Output = Result<T, SqlError>> + Send) -> Result<T, SqlError> {
        if self.connection.sharing.is_none() {
            return self.request(work).await;
        }
        self.interruption.wait().await;
        self.limited(work).await
    }

    /// Does something with the connection that can be interrupted meanwhile.
    async fn request<T>(&mut self, work: impl Future<Output = Result<T, SqlError>> + Send) -> Result<T, SqlError> {
        self.interruption.enter().await;
        let result = self.limited(work).await;
        self.interruption.running.store(false, Ordering::SeqCst);
        result
    }

    async fn limited<T>(&mut self, work: impl Future<Output = Result<T, SqlError>> + Send) -> Result<T, SqlError> {
        let result = match self.limit {
            Some(limit) => timeout(limit, work).await.unwrap_or_else(|_| Err(silent(limit))),
            None => work.await,
        };
        result.map_err(|error| self.judge(error))
    }

    /// Tells our own interruption from a timeout, and a transaction's first error from what follows from it.
    fn judge(&mut self, error: SqlError) -> SqlError {
        const QUERY_CANCELED: &str = "57014";
        const READ_ONLY: &str = "25006";
        const IN_FAILED_TRANSACTION: &str = "25P02";
        let code = error.code.as_deref();
        if code == Some(IN_FAILED_TRANSACTION)
            && let Some(first) = &self.first_error
        {
            return first.clone();
        }
        let interrupted = code == Some(QUERY_CANCELED) && self.interruption.asked.load(Ordering::SeqCst);
        let error = if interrupted { SqlError { class: ErrorClass::Interrupted, ..error } } else { error };
        // Behind a pooler, the server may be a standby by now, and the next one the primary.
        let is_demoted = self.connection.sharing.is_some() && error.code.as_deref() == Some(READ_ONLY);
        if error.class == ErrorClass::Connection || is_demoted {
            self.give_up();
        }
        if self.in_transaction() && self.first_error.is_none() {
            self.first_error = Some(error.clone());
        }
        error
    }

    /// Notes in the transaction how a session that others use too was before it.
    pub(super) async fn keep_before(&mut self) -> Result<(), SqlError> {
        match self.before.take() {
            Some(before) => self.query(KEEP, &[before.into()]).await.map(drop),
            None => Ok(()),
        }
    }

    /// Closes the connection: whoever comes next opens another.
    pub(super) fn give_up(&mut self) {
        if let Some(turn) = &mut self.turn {
            **turn = None;
        }
    }

    /// The connection, for what comes between a holder's own statements.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn in_transaction(&self) -> bool {
        matches!(self.stage, Stage::Transaction | Stage::Rehearsal { .. })
    }

    pub(super) fn interrupter(&self) -> Arc<dyn Interrupt> {
        Arc::clone(&self.interruption) as Arc<dyn Interrupt>
    }
}

async fn answer(connection: &Connection, ask: &Ask) -> Result<Answer, SqlError> {
    let parameters = ask.parameters(&[]);
    Ok(match ask.changes {
        true => Answer { rows: Vec::new(), changed: connection.execute(&ask.sql, &parameters, true).await? },
        false => Answer { rows: connection.query(&ask.sql, &parameters, true).await?, changed: 0 },
    })
}

impl Drop for Held {
    fn drop(&mut self) {
        let running = self.interruption.running.load(Ordering::SeqCst);
        let sharing = self.connection.sharing.as_ref();
        if let Some(sharing) = sharing {
            sharing.handed_back();
            self.stage = if self.in_transaction() { Stage::Transaction } else { Stage::Clean };
        }
        let script = match &self.stage {
            Stage::Clean if !running => return,
            Stage::Clean | Stage::Transaction | Stage::Rehearsal { changed: false } => "rollback".to_owned(),
            Stage::Rehearsal { changed: true } | Stage::Changed => {
                format!("rollback; {}", self.connection.settings_anew())
            }
        };
        let Some(mut turn) = self.turn.take() else { return };
        if turn.is_none() {
            return;
        }
        let connection = Arc::clone(&self.connection);
        let interruption = Arc::clone(&self.interruption);
        let Ok(runtime) = Handle::try_current() else {
            // Nothing can tidy up any more; the server does when the connection closes.
            *turn = None;
            return;
        };
        runtime.spawn(async move {
            interruption.close().await;
            if !tidy(&connection, &script, running).await {
                *turn = None;
            }
        });
    }
}

/// Sends the script, cancelling first what is still running. False where the connection is not fit for use any more.
async fn tidy(connection: &Connection, script: &str, running: bool) -> bool {
    let tidied = async {
        let mut sent = std::pin::pin!(connection.script(script));
        if !running {
            return sent.await.is_ok();
        }
        let mut again = tokio::time::interval(CANCEL_INTERVAL);
        // The first request goes out before the script is sent, lest it hit the script.
        connection.cancel().await;
        again.tick().await;
        loop {
            tokio::select! {
                done = &mut sent => return done.is_ok(),
                _ = again.tick() => connection.cancel().await,
            }
        }
    };
    timeout(TIDY_TIME, tidied).await.unwrap_or(false)
}

/// Interrupts what runs in one holder's hands, and never what runs in the next one's.
struct Interruption {
    connection: Arc<Connection>,
    /// False once the connection was handed back. Held while a request to cancel is under way, which nothing new may
    /// overtake.
    open: Mutex<bool>,
    /// True while a request to the server runs.
    running: AtomicBool,
    /// True once we have asked the server to cancel.
    asked: AtomicBool,
}

impl Interruption {
    fn new(connection: Arc<Connection>) -> Self {
        Self { connection, open: Mutex::new(true), running: AtomicBool::new(false), asked: AtomicBool::new(false) }
    }

    /// Before a request, once no cancelling is under way.
    async fn enter(&self) {
        let _open = self.open.lock().await;
        self.running.store(true, Ordering::SeqCst);
    }

    /// Before a request that is not to be cancelled, once no cancelling is under way.
    async fn wait(&self) {
        drop(self.open.lock().await);
    }

    async fn close(&self) {
        *self.open.lock().await = false;
    }
}

#[async_trait]
impl Interrupt for Interruption {
    async fn interrupt(&self) {
        let open = self.open.lock().await;
        if *open && self.running.load(Ordering::SeqCst) {
            self.asked.store(true, Ordering::SeqCst);
            self.connection.cancel().await;
        }
    }

    fn statement_runs(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Sql for Held {
    fn dialect(&self) -> Arc<dyn Dialect> {
        Arc::new(PostgresDialect)
    }

    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, SqlError> {
        let (connection, inside) = (Arc::clone(&self.connection), self.in_transaction());
        self.request(async { connection.execute(sql, parameters, inside).await }).await
    }

    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, SqlError> {
        let (connection, inside) = (Arc::clone(&self.connection), self.in_transaction());
        self.request(async { connection.query(sql, parameters, inside).await }).await
    }

    async fn script(&mut self, sql: &str) -> Result<(), SqlError> {
        let (connection, inside) = (Arc::clone(&self.connection), self.in_transaction());
        match inside {
            true => self.request(async { connection.script(sql).await }).await,
            false => self.request(async { connection.script_alone(sql).await }).await,
        }
    }

    async fn adjust(&mut self, name: &'static str, value: &'static str) -> Result<(), SqlError> {
        self.stage = Stage::Changed;
        match &self.connection.sharing {
            Some(sharing) => {
                sharing.adjust(name, value);
                Ok(())
            }
            None => self.script(&format!("set {name} = {value}")).await,
        }
    }

    async fn begin_rehearsal(&mut self) -> Result<(), SqlError> {
        self.stage = Stage::Rehearsal { changed: matches!(self.stage, Stage::Changed) };
        let begin = self.connection.begin(Isolation::Usual);
        self.script(&begin).await
    }

    async fn end_rehearsal(&mut self) -> Result<(), SqlError> {
        let changed = matches!(self.stage, Stage::Rehearsal { changed: true } | Stage::Changed);
        self.end("rollback").await?;
        self.stage = if changed { Stage::Changed } else { Stage::Clean };
        Ok(())
    }

    fn shares_session(&self) -> bool {
        self.connection.sharing.is_some()
    }

    async fn ask(&mut self, statements: Vec<Ask>) -> Result<Vec<Answer>, SqlError> {
        if self.in_transaction() && self.connection.prepares_nothing() && statements.iter().all(Ask::stands_alone) {
            return self.ask_at_once(statements).await;
        }
        ask_in_turn(self, statements).await
    }

    fn connection(&self) -> Option<u64> {
        Some(self.connection.number)
    }

    fn expect_foreign(&mut self) {
        // A batch sees to it itself, in its transaction.
        if matches!(self.stage, Stage::Clean) {
            self.stage = Stage::Changed;
        }
    }
}

#[async_trait]
impl Control for Held {
    async fn begin(&mut self) -> Result<(), SqlError> {
        self.stage = Stage::Transaction;
        // Whatever the database's default: each statement on our own tables has to see what others have committed.
        let begin = self.connection.begin(Isolation::Committed);
        self.script(&begin).await
    }

    async fn begin_here(&mut self) -> Result<(), SqlError> {
        self.stage = Stage::Transaction;
        let begin = self.connection.begin(Isolation::Committed) + "; set local synchronous_commit = local";
        self.script(&begin).await
    }

    async fn commit(&mut self) -> Result<(), SqlError> {
        self.end("commit").await
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
