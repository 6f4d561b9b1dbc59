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
use super::name;
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
    let rows = connection.query("select pg_try_advisory_lock($1)", &[key.0.into()], false).await?;
    if rows.first().and_then(|row| row.first()).and_then(Value::as_integer) != Some(1) {
        return Ok(LeaseAttempt::Taken(find_holder(connection, key).await?));
    }
    // An error drops the connection, and the lock with it.
    evict(connection, key, ours).await?;
    Ok(LeaseAttempt::Held(Box::new(SessionLease::new(Arc::clone(connection)))))
}

/// Who holds the lock.
pub(super) async fn holder(connection: &Connection, queue_table: &str) -> Result<Option<Holder>, SqlError> {
    find_holder(connection, Key::find(connection, queue_table).await?).await
}

async fn find_holder(connection: &Connection, key: Key) -> Result<Option<Holder>, SqlError> {
    let select = "select a.application_name from pg_locks l join pg_stat_activity a on a.pid = l.pid \
                  where l.locktype = 'advisory' and l.granted and l.objsubid = 1 \
                  and l.database = (select oid from pg_database where datname = current_database()) \
                  and l.classid = ($1::bigint >> 32 & 4294967295)::oid and l.objid = ($1::bigint & 4294967295)::oid";
    let rows = connection.query(select, &[key.0.into()], false).await?;
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
    /// Set once, to the reason, when the lease is lost.
    lost: watch::Receiver<Option<String>>,
    watcher: JoinHandle<()>,
}

impl SessionLease {
    fn new(connection: Arc<Connection>) -> Self {
        let (report, lost) = watch::channel(None);
        let watched = Arc::clone(&connection);
        let watcher = tokio::spawn(async move {
            let reason = tokio::select! {
                error = watched.ended() => error.message,
                reason = ping(&watched) => reason,
            };
            let _ = report.send(Some(reason));
        });
        Self { connection, lost, watcher }
    }
}

/// Tries the connection at intervals; returns the reason when it fails.
async fn ping(connection: &Connection) -> String {
    let mut pings = interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pings.tick().await;
        match timeout(PING_LIMIT, connection.script("select 1")).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.message,
            Err(_) => return format!("the server has not answered for {} s", PING_LIMIT.as_secs()),
        }
    }
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
        let _ = timeout(RELEASE_LIMIT, self.connection.script("select pg_advisory_unlock_all()")).await;
    }
}

impl Drop for SessionLease {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}
