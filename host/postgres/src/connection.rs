//! One connection: how it is made and set up, and its prepared statements.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::join3;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::cancel::{Address, cancel};
use super::error::{connect_error, is_outdated_statement, lost, sql_error};
use super::pooler::{self, Sessions};
use super::settings::{Isolation, Settings, Sharing, USUAL};
use super::url::Target;
use super::value::{self, Parameter};
use tidegate::update::sql::{ErrorClass, Row, SqlError, Value};
use tidegate_driver::next_number;

/// Statements that stay prepared; with more, all are forgotten.
const CACHED_STATEMENTS: usize = 64;
/// What setting up a connection may take beyond the time for connecting.
const SET_UP_TIME: Duration = Duration::from_secs(10);
/// How long a request to cancel a statement may take.
const CANCEL_TIME: Duration = Duration::from_secs(5);

/// A connection to a server. Dropped, it is closed at once.
pub(super) struct Connection {
    client: Client,
    statements: Mutex<HashMap<String, Statement>>,
    /// True where nothing is prepared: statements of others may deallocate it.
    prepares_nothing: AtomicBool,
    tls: MakeRustlsConnect,
    address: Option<Address>,
    /// The task that reads and writes the socket.
    task: JoinHandle<()>,
    /// Why the connection ended.
    end: Arc<OnceLock<SqlError>>,
    /// Closed when the connection has ended.
    ended: watch::Receiver<()>,
    application_name: String,
    /// No other connection has it.
    pub(super) number: u64,
    /// The script that sets the session.
    settings: String,
    /// The process that serves it; 0 where that is another one for each transaction.
    pub(super) backend: i64,
    /// `None` where the session is its own.
    pub(super) sharing: Option<Sharing>,
    /// True where transactions are serializable unless they say otherwise: the database's or the role's own wish.
    pub(super) serializable: bool,
}

impl Connection {
    /// Connects, finds out whether the session is its own, and sees to its settings.
    pub(super) async fn open(target: &Target, application_name: &str, settings: &Settings) -> Result<Self, SqlError> {
        let attempts = u32::try_from(target.config.get_hosts().len().max(1)).unwrap_or(1);
        let limit = target.config.get_connect_timeout().map_or(SET_UP_TIME, |each| *each * attempts + SET_UP_TIME);
        let open = async {
            if target.shares_sessions.load(Ordering::Relaxed) {
                return Self::sharing(target, application_name, settings).await;
            }
            match Self::marked(target, application_name).await? {
                Some(mut connection) => {
                    connection.set_up(&settings.script()).await?;
                    Ok(connection)
                }
                None => Self::sharing(target, application_name, settings).await,
            }
        };
        let opened = tokio::time::timeout(limit, open).await;
        opened.map_err(|_| lost(format!("cannot connect to {} within {} s", target.server(), limit.as_secs())))?
    }

    /// Connects to a session that is this connection's own, and knows it by a mark, or by what a second one meets; `None`
    /// where there is none to be had.
    async fn marked(target: &Target, application_name: &str) -> Result<Option<Self>, SqlError> {
        let (setting, value) = (pooler::MARK, pooler::mark()?);
        if !target.takes_no_options.load(Ordering::Relaxed) {
            let known = target.config.get_options().map_or_else(String::new, |options| format!("{options} "));
            let connected = Self::line(target, application_name, Some(format!("{known}-c {setting}={value}"))).await;
            match connected {
                Ok(connection) => {
                    let row = pooler::row(&connection, &format!("select current_setting('{setting}', true)")).await?;
                    if row == [Some(value)] {
                        return Ok(Some(connection));
                    }
                }
                Err(error) if pooler::may_refuse_options(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let connection = Self::line(target, application_name, None).await?;
        target.takes_no_options.store(true, Ordering::Relaxed);
        if !target.trusting && pooler::sessions(&connection, target, application_name).await? == Sessions::Shared {
            target.shares_sessions.store(true, Ordering::Relaxed);
            return Ok(None);
        }
        Ok(Some(connection))
    }

    /// Connects to a pooler whose sessions are everybody's.
    async fn sharing(target: &Target, application_name: &str, settings: &Settings) -> Result<Self, SqlError> {
        // The name of its work is given by each transaction: a pooler may leave that of a connection with a session.
        let mut connection = Self::line(target, "tidegate", None).await?;
        let usual = pooler::row(&connection, USUAL).await?;
        let of = |at: usize| usual.get(at).cloned().flatten().unwrap_or_default();
        connection.sharing = Some(Sharing::new(settings.clone(), &of(0), of(1) == "t"));
        connection.serializable = connection.sharing.as_ref().is_some_and(Sharing::is_serializable);
        application_name.clone_into(&mut connection.application_name);
        Ok(connection)
    }

    /// A bare connection, the session begun with these options, or those of the target.
    pub(super) async fn line(
        target: &Target,
        application_name: &str,
        options: Option<String>,
    ) -> Result<Self, SqlError> {
        let mut config = target.config.clone();
        config.application_name(application_name);
        if let Some(options) = options {
            config.options(options);
        }
        let (client, connection) =
            config.connect(target.tls.clone()).await.map_err(|error| connect_error(&error, &target.server()))?;
        let end = Arc::new(OnceLock::new());
        let (alive, ended) = watch::channel(());
        let reason = Arc::clone(&end);
        let task = tokio::spawn(async move {
            let reached = connection.await;
            let error = reached.err().map_or_else(|| lost("the connection is closed"), |error| sql_error(&error));
            let _ = reason.set(SqlError { class: ErrorClass::Connection, ..error });
            drop(alive);
        });
        let (tls, address) = (target.tls.clone(), Address::of(&target.config));
        let (application_name, statements) = (application_name.to_owned(), Mutex::default());
        let (settings, backend, serializable, number) = (String::new(), 0, false, next_number());
        Ok(Self {
            client,
            statements,
            prepares_nothing: AtomicBool::new(false),
            tls,
            address,
            task,
            end,
            ended,
            application_name,
            number,
            settings,
            backend,
            sharing: None,
            serializable,
        })
    }

    async fn set_up(&mut self, script: &str) -> Result<(), SqlError> {
        self.script(script).await?;
        script.clone_into(&mut self.settings);
        let select = "select pg_backend_pid(), current_setting('default_transaction_isolation')";
        let found = self.query(select, &[], false).await?;
        let found = found.first().map_or(&[][..], |row| row);
        self.backend = found.first().and_then(Value::as_integer).unwrap_or(0);
        self.serializable = found.get(1).and_then(Value::as_text) == Some("serializable");
        Ok(())
    }

    /// The name that the server knows it by.
    pub(super) fn application_name(&self) -> &str {
        &self.application_name
    }

    /// Gives it another name.
    pub(super) async fn rename(&mut self, name: String) -> Result<(), SqlError> {
        if self.sharing.is_some() {
            self.application_name = name;
            return Ok(());
        }
        let value = Value::from(name.as_str());
        self.query("select set_config('application_name', $1, false)", &[value], false).await?;
        self.application_name = name;
        Ok(())
    }

    /// Makes the session's settings what the host made them, whatever has become of them since.
    pub(super) fn settings_anew(&self) -> String {
        format!("reset all; {}; set application_name = '{}'", self.settings, self.application_name)
    }

    /// The same within a transaction, for the session or, where others use it too, for that alone.
    pub(super) fn tidied(&self) -> String {
        match &self.sharing {
            None => format!("reset session authorization; reset role; discard temp; {}", self.settings_anew()),
            Some(sharing) => sharing.tidied(&self.application_name),
        }
    }

    /// The words that begin a transaction.
    pub(super) fn begin(&self, isolation: Isolation) -> String {
        match &self.sharing {
            None => isolation.begin().to_owned(),
            Some(sharing) => sharing.begin(isolation, &self.application_name),
        }
    }

    /// True where it can be used no longer. Behind a pooler, a server that could only be read may be another one by now.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed() || self.sharing.as_ref().is_some_and(|sharing| sharing.may_not_write)
    }

    /// Ends it, whoever waits for an answer.
    pub(super) fn cut(&self) {
        self.task.abort();
    }

    /// Resolves when the connection has ended, with the reason.
    pub(super) async fn ended(&self) -> SqlError {
        // Nothing is ever sent: the change to wait for is the end of the channel.
        let _ = self.ended.clone().changed().await;
        self.reason()
    }

    fn reason(&self) -> SqlError {
        self.end.get().cloned().unwrap_or_else(|| lost("the connection is closed"))
    }

    /// An error of a statement; where the connection had ended already, the reason for that.
    pub(super) fn error(&self, error: &tokio_postgres::Error) -> SqlError {
        if error.is_closed() { self.reason() } else { sql_error(error) }
    }

    /// The client itself, for requests that travel together.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Executes one statement and returns the number of rows it changed.
    pub(super) async fn execute(&self, sql: &str, values: &[Value], in_transaction: bool) -> Result<u64, SqlError> {
        if self.prepares_nothing() {
            return self.alone(in_transaction || self.sharing.is_none(), self.execute_unnamed(sql, values)).await;
        }
        loop {
            let (statement, known) = self.prepare(sql).await?;
            let parameters = parameters(sql, &statement, values)?;
            match self.client.execute_raw(&statement, parameters).await {
                Ok(changed) => return Ok(changed),
                Err(error) => self.retry_or_fail(sql, known, in_transaction, &error)?,
            }
        }
    }

    /// Executes one statement and returns its rows.
    pub(super) async fn query(&self, sql: &str, values: &[Value], in_transaction: bool) -> Result<Vec<Row>, SqlError> {
        if self.prepares_nothing() {
            return self.alone(in_transaction || self.sharing.is_none(), self.query_unnamed(sql, values)).await;
        }
        loop {
            let (statement, known) = self.prepare(sql).await?;
            let parameters = parameters(sql, &statement, values)?;
            let parameters: Vec<_> = parameters.iter().map(|parameter| parameter as _).collect();
            match self.client.query(&statement, &parameters).await {
                Ok(rows) => return rows.iter().map(value::row).collect(),
                Err(error) => self.retry_or_fail(sql, known, in_transaction, &error)?,
            }
        }
    }

    /// Executes a script.
    pub(super) async fn script(&self, sql: &str) -> Result<(), SqlError> {
        self.client.batch_execute(sql).await.map_err(|error| self.error(&error))
    }

    /// Executes a script outside a transaction.
    pub(super) async fn script_alone(&self, sql: &str) -> Result<(), SqlError> {
        self.alone(self.sharing.is_none(), self.script(sql)).await
    }

    /// Executes a statement that the server is not to remember.
    async fn execute_unnamed(&self, sql: &str, values: &[Value]) -> Result<u64, SqlError> {
        let parameters: Vec<Parameter<'_>> = values.iter().map(Parameter).collect();
        let parameters: Vec<_> = parameters.iter().map(|parameter| (parameter as _, Type::UNKNOWN)).collect();
        self.client.execute_typed(sql, &parameters).await.map_err(|error| self.error(&error))
    }

    async fn query_unnamed(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, SqlError> {
        let parameters: Vec<Parameter<'_>> = values.iter().map(Parameter).collect();
        let parameters: Vec<_> = parameters.iter().map(|parameter| (parameter as _, Type::UNKNOWN)).collect();
        let rows = self.client.query_typed(sql, &parameters).await.map_err(|error| self.error(&error))?;
        rows.iter().map(value::row).collect()
    }

    /// Awaits `work`: outside a transaction, in one of its own, all in one trip.
    async fn alone<T>(
        &self,
        in_transaction: bool,
        work: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, SqlError> {
        if in_transaction {
            return work.await;
        }
        let begin = self.begin(Isolation::Committed);
        let (begun, done, committed) = join3(self.script(&begin), work, self.script("commit")).await;
        begun?;
        // Where it failed, the commit was a rollback.
        let done = done?;
        committed?;
        Ok(done)
    }

    /// `Ok` where the statement is worth another attempt, freshly prepared: where it was prepared earlier and what it
    /// refers to has been changed since. A transaction has failed by then, and can only be done again as a whole.
    fn retry_or_fail(
        &self,
        sql: &str,
        known: bool,
        in_transaction: bool,
        error: &tokio_postgres::Error,
    ) -> Result<(), SqlError> {
        if !known || !is_outdated_statement(error) {
            return Err(self.error(error));
        }
        self.forget(sql);
        if in_transaction {
            return Err(SqlError { class: ErrorClass::Transient, ..self.error(error) });
        }
        Ok(())
    }

    /// Sees to it that a statement is sent with the next request for it, and nothing before that.
    pub(super) async fn make_ready(&self, sql: &str) -> Result<(), SqlError> {
        if self.prepares_nothing() { Ok(()) } else { self.prepare(sql).await.map(drop) }
    }

    /// A prepared statement, and whether it was prepared before.
    async fn prepare(&self, sql: &str) -> Result<(Statement, bool), SqlError> {
        if let Some(statement) = self.cache().get(sql) {
            return Ok((statement.clone(), true));
        }
        let statement = self.client.prepare(sql).await.map_err(|error| self.error(&error))?;
        let mut cache = self.cache();
        if cache.len() >= CACHED_STATEMENTS {
            cache.clear();
        }
        cache.insert(sql.to_owned(), statement.clone());
        Ok((statement, false))
    }

    /// Forgets all prepared statements, and prepares none until [`Connection::prepare_again`]: statements of others may
    /// deallocate them. One that is not prepared is one trip to the server all the same.
    pub(super) fn prepare_nothing(&self) {
        self.prepares_nothing.store(true, Ordering::Relaxed);
        self.cache().clear();
    }

    /// Prepares statements: only the host's own are executed.
    pub(super) fn prepare_again(&self) {
        self.prepares_nothing.store(false, Ordering::Relaxed);
    }

    /// True where nothing is prepared: for now, or because the next statement may be another session's.
    pub(super) fn prepares_nothing(&self) -> bool {
        self.sharing.is_some() || self.prepares_nothing.load(Ordering::Relaxed)
    }

    /// Forgets a prepared statement.
    fn forget(&self, sql: &str) {
        self.cache().remove(sql);
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<String, Statement>> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the server to give up the statement in hand, over a connection of its own.
    pub(super) async fn cancel(&self) {
        let token = self.client.cancel_token();
        // Where the server cannot be reached, the connection itself is about to end.
        let _ = tokio::time::timeout(CANCEL_TIME, cancel(&token, self.address.as_ref(), self.tls.clone())).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The values as parameters of a prepared statement.
fn parameters<'a>(sql: &str, statement: &Statement, values: &'a [Value]) -> Result<Vec<Parameter<'a>>, SqlError> {
    let (takes, given) = (statement.params().len(), values.len());
    if takes != given {
        return Err(SqlError::permanent(format!(
            "the statement takes {takes} parameters and was given {given}: \"{sql}\""
        )));
    }
    Ok(values.iter().map(Parameter).collect())
}
