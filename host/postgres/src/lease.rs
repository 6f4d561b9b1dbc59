//! The lease on a PostgreSQL database: a row of `tidegate_lease`, with an expiry by the server's clock.
//!
//! Its holder puts the expiry off about once a second. Whoever finds it over ends what the holder left on the server, and
//! takes the lease, whereby its epoch grows. Each batch locks the row of its own epoch as it begins
//! ([`Tables::lock_row_under_lease`](tidegate_driver::tables::Tables::lock_row_under_lease)): while its transaction is
//! open nobody can take the lease, and once somebody has, no transaction can begin. A transaction that a stopped process
//! has left open is ended by whoever takes over; where that one has no right to, by
//! `idle_in_transaction_session_timeout` or the server's look at its client.
//!
//! Hosts of before know an advisory lock of a session and nothing else. It is taken as well, so that they and this one
//! exclude each other, and it tells sooner than the expiry that a host has died: its session has ended then. Behind a pooler
//! in transaction mode, where there is no such session, the row is all: a host of before that takes the lock meanwhile ends
//! the lease.
//!
//! All is polled, never waited for: a session that waits for a lock holds a snapshot, and another host's CREATE INDEX
//! CONCURRENTLY would wait for that snapshot for ever.

mod keeper;
mod line;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use self::keeper::RowLease;
use self::line::{Found, Lock, locks, row};
pub(super) use self::line::{Key, Line};
use super::connection::Connection;
use super::error::lost;
use super::name;
use super::settings::Settings;
use super::url::Target;
use tidegate::scheduler::database::{Holder, Lease};
use tidegate::update::sql::{SqlError, Value};
use tidegate_driver::fence::Fence;
use tidegate_driver::schema;

/// How long a holder whose connection has ended is given to make another, where it lives.
const RECONNECTING: Duration = Duration::from_millis(300);
/// How long what a predecessor left running is waited for.
const EVICTION_LIMIT: Duration = Duration::from_secs(15);

/// The code of an error of who waited for a lock for too long.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// What it takes to connect for a lease, and what is known of the one that is held.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) target: Target,
    pub(super) settings: Settings,
    pub(super) queue_table: String,
    pub(super) fence: Fence,
}

/// What came of an attempt.
pub(super) enum Attempt {
    Held(RowLease),
    /// Another host has it; the connection is good for the next attempt.
    Taken(Option<Holder>, Box<Line>),
}

/// How the lease stands.
enum Standing {
    /// Somebody has it.
    Taken(Option<Holder>),
    /// Somebody has it whose session has ended: that host has ended too, or its connection has, and it makes another.
    Orphaned(Found),
    /// Nobody has it.
    Free(Option<Found>),
}

impl Standing {
    async fn find(connection: &Connection, key: &Key) -> Result<Self, SqlError> {
        let found = row(connection, key).await?;
        let locks = locks(connection, key).await?;
        if let Some(lock) = locks.iter().find(|lock| lock.is_of_before()) {
            return Ok(Self::Taken(name::holder(&lock.name)));
        }
        let lives = |session: i64| locks.iter().any(|lock| lock.process == session);
        Ok(match found {
            Some(found) if found.live && found.session.is_none_or(lives) => Self::Taken(found.holder),
            Some(found) if found.live => Self::Orphaned(found),
            found => Self::Free(found),
        })
    }
}

/// Who holds the lease.
pub(super) async fn holder(connection: &Connection, queue_table: &str) -> Result<Option<Holder>, SqlError> {
    let key = Key::find(connection, queue_table).await?;
    let select = "select coalesce(has_table_privilege(to_regclass($1::text), 'select'), false)";
    let readable = connection.query(select, &[schema::LEASE.into()], false).await?;
    if readable.first().and_then(|row| row.first()).and_then(Value::as_integer) != Some(1) {
        // It was never made, or is not for whoever asks: the lock tells nearly as much.
        let locks = locks(connection, &key).await?;
        return Ok(locks.iter().find(|lock| lock.exclusive).and_then(|lock| name::holder(&lock.name)));
    }
    Ok(match Standing::find(connection, &key).await? {
        Standing::Taken(holder) => holder,
        Standing::Orphaned(_) | Standing::Free(_) => None,
    })
}

/// Tries to take the lease; `ours` are the backends of our own connections for batches.
pub(super) async fn attempt(
    site: Site,
    holder: Holder,
    kept: Option<Box<Line>>,
    ours: Vec<i64>,
) -> Result<Attempt, SqlError> {
    let line = match kept.filter(|line| line.is_fit(&holder)) {
        Some(line) => line,
        None => Box::new(Line::open(&site, &holder).await?),
    };
    refuse_standby(&line).await?;
    let deadline = Instant::now() + EVICTION_LIMIT;
    let mut orphan = None;
    loop {
        let found = match Standing::find(&line.connection, &line.key).await? {
            Standing::Taken(by) => return Ok(Attempt::Taken(by, line)),
            // One that makes another connection is given the time for it, once.
            Standing::Orphaned(found) if orphan != Some((found.epoch, found.session)) => {
                orphan = Some((found.epoch, found.session));
                sleep(RECONNECTING).await;
                continue;
            }
            Standing::Orphaned(found) => Some(found),
            Standing::Free(found) => found,
        };
        line.evict(found.as_ref().map_or(0, |found| found.epoch), &ours).await?;
        let locked = line.try_lock().await?;
        if !locked && line.locks().await?.iter().any(Lock::is_of_before) {
            continue;
        }
        let since = Instant::now();
        let epoch = match line.take(found.as_ref(), &holder, locked).await {
            Ok(Some(epoch)) => epoch,
            // Another was faster, or the host that was thought to be gone was not.
            Ok(None) => {
                if locked {
                    line.unlock().await;
                }
                if Instant::now() >= deadline {
                    return Ok(Attempt::Taken(None, line));
                }
                continue;
            }
            Err(error) => {
                if locked {
                    line.unlock().await;
                }
                // A batch has begun since, or one is open that could not be ended.
                if error.code.as_deref() == Some(LOCK_NOT_AVAILABLE) && Instant::now() < deadline {
                    continue;
                }
                return Err(error);
            }
        };
        site.fence.raise(&line.key.queue, epoch, since);
        let line = Arc::from(line);
        // Looked after from now on: what is left running may take a while to end.
        let lease = RowLease::keep(site, holder, Arc::clone(&line), epoch, locked);
        return match line.evict(epoch, &ours).await {
            Ok(()) => Ok(Attempt::Held(lease)),
            Err(error) => {
                Box::new(lease).release().await;
                Err(error)
            }
        };
    }
}

/// A server that only follows another can be worked on by nobody.
async fn refuse_standby(line: &Line) -> Result<(), SqlError> {
    let rows = line.query("select pg_is_in_recovery()", &[]).await?;
    if rows.first().and_then(|row| row.first()).and_then(Value::as_integer) != Some(1) {
        return Ok(());
    }
    // The connection is given up with it, so that the next attempt finds out which server is the primary then.
    Err(lost(
        "the server is a standby (pg_is_in_recovery), which can only be read: name the primary in the `url`, or all \
         servers, with target_session_attrs=read-write",
    ))
}
