//! The lease on a PostgreSQL database: a session advisory lock, held by a connection that does nothing else.
//!
//! It is polled, never waited for: a session that waits for an advisory lock holds a snapshot, and another host's
//! CREATE INDEX CONCURRENTLY would wait for that snapshot for ever.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::connection::Connection;
use super::{name, pooler};
use crate::scheduler::database::{Holder, Lease, LeaseAttempt};
use crate::update::sql::{ErrorClass, SqlError, Value};

/// How often the lease's connection is tried.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long it may take to answer.
const PING_LIMIT: Duration = Duration::from_secs(5);
/// How long giving the lease up may take before the connection is just closed.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);
/// How long what a predecessor left running is waited for.
const EVICTION_LIMIT: Duration = Duration::from_secs(15);
/// How often it is looked for.
const EVICTION_POLL: Duration = Duration::from_millis(200);

/// What the lease on a queue table locks, among a database's advisory locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(i64);

impl Key {
    /// The key of the queue table that the session sees.
    pub(super) async fn find(connection: &Connection, queue_table: &str) -> Result<Self, SqlError> {
        let select = "select coalesce((select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                      where c.oid = to_regclass($1::text)), current_schema())::text";
        let quoted = format!("\"{}\"", queue_table.replace('"', "\"\""));
        let rows = connection.query(select, &[quoted.into()], false).await?;
        let schema = rows.first().and_then(|row| row.first()).and_then(Value::as_text).unwrap_or_default();
        Ok(Self::new(schema, queue_table))
    }

    fn new(schema: &str, queue_table: &str) -> Self {
        let mut hash = Sha256::new();
        for part in ["tidegate lease", schema, queue_table] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let mut first = [0; 8];
        first.iter_mut().zip(hash.finalize()).for_each(|(byte, hashed)| *byte = hashed);
        Self(i64::from_be_bytes(first))
    }

    /// As much of it as a connection's name has room for.
    pub(super) fn short(self) -> String {
        let [a, b, c, d, ..] = self.0.to_be_bytes();
        format!("{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

/// Tries to get the lock; `ours` is the backend of our own connection for batches. The connection is to be kept where
/// the lease is taken, and belongs to the lease where it is held.
pub(super) async fn attempt(
    connection: &Arc<Connection>,
    queue_table: &str,
    ours: i64,
) -> Result<LeaseAttempt, SqlError> {
    let key = Key::find(connection, queue_table).await?;
    // In one statement, and so in one session: a lock is taken in that of the connection or in none, and never a second
    // time in one that holds it for somebody else.
    let take = format!(
        "select case when pg_backend_pid() <> {} then 'strayed' when {} then 'held' \
         when pg_try_advisory_lock({}) then 'taken' else 'refused' end",
        connection.backend,
        held(key),
        key.0
    );
    match pooler::row(connection, &take).await?.first().and_then(Option::as_deref) {
        Some("taken") => {}
        Some("strayed") => return Err(pooler::strayed("the lease's connection is in another session than it was")),
        Some("held") => {
            return Err(pooler::strayed(
                "the lease's session holds the lease already, for somebody else or from before (in session mode, let the \
                 pooler reset sessions with DISCARD ALL)",
            ));
        }
        _ => return Ok(LeaseAttempt::Taken(find_holder(connection, key).await?)),
    }
    // From here on an error gives the lock back.
    let lease = SessionLease::new(Arc::clone(connection), key);
    match evict(connection, key, ours).await {
        Ok(()) => Ok(LeaseAttempt::Held(Box::new(lease))),
        Err(error) => {
            Box::new(lease).release().await;
            Err(error)
        }
    }
}

/// The lease's locks that sessions hold.
fn locks(key: Key) -> String {
    let (high, low) = (key.0 >> 32 & 0xffff_ffff, key.0 & 0xffff_ffff);
    format!(
        "select pid from pg_locks where locktype = 'advisory' and granted and objsubid = 1 \
         and database = (select oid from pg_database where datname = current_database()) \
         and classid = {high}::oid and objid = {low}::oid"
    )
}

/// Whether the session that executes this holds the lock.
fn held(key: Key) -> String {
    format!("exists (select from ({}) l where l.pid = pg_backend_pid())", locks(key))
}

/// Who holds the lock.
pub(super) async fn holder(connection: &Connection, queue_table: &str) -> Result<Option<Holder>, SqlError> {
    find_holder(connection, Key::find(connection, queue_table).await?).await
}

async fn find_holder(connection: &Connection, key: Key) -> Result<Option<Holder>, SqlError> {
    let select = format!("select a.application_name from ({}) l join pg_stat_activity a on a.pid = l.pid", locks(key));
    let rows = connection.query(&select, &[], false).await?;
    Ok(rows.first().and_then(|row| row.first()).and_then(Value::as_text).and_then(name::holder))
}

/// Ends what a predecessor left running, or waits for its end where we may not.
async fn evict(connection: &Connection, key: Key, ours: i64) -> Result<(), SqlError> {
    // A backend that runs a statement or has a transaction open holds locks, which everybody may see, unlike its state.
    let select = "select distinct a.pid from pg_stat_activity a join pg_locks l on l.pid = a.pid \
                  where a.datname = current_database() and a.pid <> $1::int and l.locktype <> 'advisory' \
                  and a.application_name like 'tidegate/%' and a.application_name like $2";
    let values = [ours.into(), format!("%/batch.{}", key.short()).into()];
    let deadline = Instant::now() + EVICTION_LIMIT;
    loop {
        let rows = connection.query(select, &values, false).await?;
        let running: Vec<i64> = rows.iter().filter_map(|row| row.first().and_then(Value::as_integer)).collect();
        let Some(first) = running.first() else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(SqlError::new(
                ErrorClass::Transient,
                format!(
                    "an earlier host has left a statement running on the server (process {first}), which this one may \
                     not end: it is waited for"
                ),
            ));
        }
        for pid in running {
            match connection.query("select pg_terminate_backend($1::int)", &[pid.into()], false).await {
                Err(error) if error.class == ErrorClass::Connection => return Err(error),
                // Not ours to end, or gone: the next look tells.
                _ => {}
            }
        }
        sleep(EVICTION_POLL).await;
    }
}

struct SessionLease {
    connection: Arc<Connection>,
    key: Key,
    /// Set once, to the reason, when the lease is lost.
    lost: watch::Receiver<Option<String>>,
    watcher: JoinHandle<()>,
}

impl SessionLease {
    fn new(connection: Arc<Connection>, key: Key) -> Self {
        let (report, lost) = watch::channel(None);
        let watched = Arc::clone(&connection);
        let watcher = tokio::spawn(async move {
            let reason = tokio::select! {
                error = watched.ended() => error.message,
                reason = ping(&watched, key) => reason,
            };
            let _ = report.send(Some(reason));
        });
        Self { connection, key, lost, watcher }
    }
}

/// Tries the connection at intervals; returns the reason when it fails.
async fn ping(connection: &Connection, key: Key) -> String {
    let select = format!("select pg_backend_pid() = {} and {}", connection.backend, held(key));
    let mut pings = interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pings.tick().await;
        match timeout(PING_LIMIT, pooler::row(connection, &select)).await {
            Ok(Ok(row)) if is_true(&row) => {}
            Ok(Ok(_)) => return "its session does not hold the lock any more".to_owned(),
            Ok(Err(error)) => return error.message,
            Err(_) => return format!("the server has not answered for {} s", PING_LIMIT.as_secs()),
        }
    }
}

/// Gives the lock back in the session that holds it: through a pooler that was not known to be one, that may take several
/// attempts. False where the session was not met.
async fn give_back(connection: &Connection, key: Key) -> bool {
    const ATTEMPTS: u32 = 50;
    let unlock = format!("select pg_backend_pid() = {} and pg_advisory_unlock({})", connection.backend, key.0);
    for _ in 0..ATTEMPTS {
        match pooler::row(connection, &unlock).await {
            Ok(row) if is_true(&row) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

fn is_true(row: &[Option<String>]) -> bool {
    row.first().and_then(Option::as_deref) == Some("t")
}

#[async_trait]
impl Lease for SessionLease {
    async fn lost(&mut self) -> String {
        match self.lost.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "nobody watches over it any more".to_owned(),
        }
    }

    async fn release(self: Box<Self>) {
        self.watcher.abort();
        // Closing the connection does it too, but nobody knows when the server notices.
        let released = timeout(RELEASE_LIMIT, give_back(&self.connection, self.key)).await;
        if !matches!(released, Ok(true)) {
            tracing::debug!(process = self.connection.backend, "the lease ends with its session, where it has not yet");
        }
    }
}

impl Drop for SessionLease {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}
