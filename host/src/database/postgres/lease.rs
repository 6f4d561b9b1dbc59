//! The lease on a PostgreSQL database: a row of `tidegate_lease`, with an expiry by the server's clock.
//!
//! Its holder puts the expiry off about once a second. Whoever finds it over ends what the holder left on the server, and
//! takes the lease, whereby its epoch grows. Each batch locks the row of its own epoch as it begins
//! ([`Tables::lock_row_under_lease`](crate::database::tables::Tables::lock_row_under_lease)): while its transaction is
//! open nobody can take the lease, and once somebody has, no transaction can begin. A transaction that a stopped process
//! has left open is ended by whoever takes over; where that one has no right to, by
//! `idle_in_transaction_session_timeout` or the server's look at its client.
//!
//! Hosts of before know an advisory lock of a session and nothing else. It is taken as well, so that they and this one
//! exclude each other, and it tells sooner than the expiry that a host has died: its session has ended then.
//!
//! All is polled, never waited for: a session that waits for a lock holds a snapshot, and another host's CREATE INDEX
//! CONCURRENTLY would wait for that snapshot for ever.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use super::error::{lost, silent};
use super::name::{self, Role};
use super::pooler;
use super::url::Target;
use crate::database::fence::{self, Apart, Fence, OVERTAKEN, RENEWAL, TERM};
use crate::database::schema;
use crate::scheduler::database::{Holder, Lease};
use crate::update::sql::{ErrorClass, Row, SqlError, Value};

/// How long the server may take to renew the lease before another connection is tried.
const RENEWAL_LIMIT: Duration = Duration::from_secs(3);
/// How soon a renewal that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How long a holder whose connection has ended is given to make another, where it lives.
const RECONNECTING: Duration = Duration::from_millis(300);
/// How long giving the lease up may take before the connection is just closed.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);
/// How long what a predecessor left running is waited for.
const EVICTION_LIMIT: Duration = Duration::from_secs(15);
/// How often it is looked for.
const EVICTION_POLL: Duration = Duration::from_millis(200);

/// The code of an error of who waited for a lock for too long.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// What a lease is on: a queue table, whatever a search path makes of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// How the row calls it.
    queue: Arc<str>,
    /// Its number among a database's advisory locks.
    number: i64,
}

impl Key {
    /// The key of the queue table that the session sees.
    pub(super) async fn find(connection: &Connection, queue_table: &str) -> Result<Self, SqlError> {
        let select = "select coalesce((select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                      where c.oid = to_regclass($1::text)), current_schema())::text";
        let rows = connection.query(select, &[quoted(queue_table).into()], false).await?;
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
        let queue = format!("{}.{}", quoted(schema), quoted(queue_table)).into();
        Self { queue, number: i64::from_be_bytes(first) }
    }

    /// As much of it as a connection's name has room for.
    pub(super) fn short(&self) -> String {
        let [a, b, c, d, ..] = self.number.to_be_bytes();
        format!("{a:02x}{b:02x}{c:02x}{d:02x}")
    }

    /// What is true of the advisory locks `l` on it.
    fn is_on(&self) -> String {
        let (high, low) = (self.number >> 32 & 0xffff_ffff, self.number & 0xffff_ffff);
        format!(
            "(l.locktype = 'advisory' and l.granted and l.objsubid = 1 \
             and l.database = (select oid from pg_database where datname = current_database()) \
             and l.classid = {high}::oid and l.objid = {low}::oid)"
        )
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL writes it, under `standard_conforming_strings`.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What it takes to connect for a lease, and what is known of the one that is held.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) target: Target,
    pub(super) settings: Arc<str>,
    pub(super) queue_table: String,
    pub(super) fence: Fence,
}

/// A connection for the lease.
pub(super) struct Line {
    connection: Connection,
    key: Key,
}

/// What came of an attempt.
pub(super) enum Attempt {
    Held(RowLease),
    /// Another host has it; the connection is good for the next attempt.
    Taken(Option<Holder>, Box<Line>),
}

/// The row of the lease.
struct Found {
    epoch: i64,
    holder: Option<Holder>,
    /// True until its expiry is over.
    live: bool,
    /// The server's process that holds the advisory lock for the same host, where one does.
    session: Option<i64>,
    /// The expiry as a number.
    expires: i64,
}

/// An advisory lock that somebody holds.
struct Lock {
    process: i64,
    exclusive: bool,
    name: String,
}

impl Lock {
    /// True where its holder is a host that knows nothing of the row.
    fn is_of_before(&self) -> bool {
        self.exclusive && !name::knows_row(&self.name)
    }
}

impl Line {
    async fn open(site: &Site, holder: &Holder) -> Result<Self, SqlError> {
        let name = name::of(holder, Role::Lease, None);
        let mut connection = Connection::open(&site.target, &name, &site.settings).await?;
        let key = Key::find(&connection, &site.queue_table).await?;
        connection.rename(name::of(holder, Role::Lease, Some(&key))).await?;
        Ok(Self { connection, key })
    }

    /// True where it can be used for this host's next attempt.
    fn is_fit(&self, holder: &Holder) -> bool {
        !self.connection.is_closed()
            && self.connection.application_name() == name::of(holder, Role::Lease, Some(&self.key))
    }

    async fn query(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, SqlError> {
        self.connection.query(sql, values, false).await
    }

    /// One statement in a transaction of its own that depends on nothing that the session is set to, in one trip; the
    /// first column of its row, if one comes back. It waits for no other server, and `wal` says whether for the disk.
    async fn trip(&self, wal: &str, statement: &str) -> Result<Option<String>, SqlError> {
        let script = format!(
            "begin isolation level read committed; set local lock_timeout = 1000; set local statement_timeout = 5000; \
             set local synchronous_commit = {wal}; {statement}; commit"
        );
        match pooler::row(&self.connection, &script).await {
            Ok(row) => Ok(row.into_iter().next().map(Option::unwrap_or_default)),
            Err(error) => {
                // What failed has left its transaction open.
                if error.class != ErrorClass::Connection {
                    self.connection.script("rollback").await?;
                }
                Err(error)
            }
        }
    }

    async fn locks(&self) -> Result<Vec<Lock>, SqlError> {
        locks(&self.connection, &self.key).await
    }

    /// Tries to take the advisory lock: in one statement, and so in one session. It is taken in that of the connection or in
    /// none, and never a second time in one that holds it for somebody else.
    async fn try_lock(&self) -> Result<bool, SqlError> {
        let take = format!(
            "select case when pg_backend_pid() <> {} then 'strayed' \
             when exists (select from pg_locks l where {} and l.pid = pg_backend_pid()) then 'held' \
             when pg_try_advisory_lock({}) then 'taken' else 'refused' end",
            self.connection.backend,
            self.key.is_on(),
            self.key.number
        );
        match pooler::row(&self.connection, &take).await?.first().and_then(Option::as_deref) {
            Some("taken") => Ok(true),
            Some("strayed") => Err(pooler::strayed("the lease's connection is in another session than it was")),
            Some("held") => Err(pooler::strayed(
                "the lease's session holds the lease already, for somebody else or from before (in session mode, let the \
                 pooler reset sessions with DISCARD ALL)",
            )),
            _ => Ok(false),
        }
    }

    /// Gives the advisory lock back in the session that holds it: through a pooler that was not known to be one, that may
    /// take several attempts.
    async fn unlock(&self) {
        const ATTEMPTS: u32 = 50;
        let Self { connection, key } = self;
        let unlock = format!("select pg_backend_pid() = {} and pg_advisory_unlock({})", connection.backend, key.number);
        for _ in 0..ATTEMPTS {
            match pooler::row(connection, &unlock).await {
                Ok(row) if row.first().and_then(Option::as_deref) == Some("t") => return,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Takes the row where it still is as it was found; returns the epoch.
    async fn take(&self, found: Option<&Found>, holder: &Holder, locked: bool) -> Result<Option<i64>, SqlError> {
        let queue = literal(&self.key.queue);
        let holder = literal(&serde_json::to_string(holder).map_err(|error| SqlError::permanent(error.to_string()))?);
        let session = if locked { self.connection.backend.to_string() } else { "null".to_owned() };
        let expires = expiry();
        // By the clock, so that an epoch which a crash or a failover made the server forget is not given twice.
        let epoch = "(extract(epoch from clock_timestamp()) * 1000000)::bigint";
        let statement = match found {
            None => format!(
                "insert into tidegate_lease (queue, epoch, holder, session, expires) \
                 values ({queue}, {epoch}, {holder}, {session}, {expires}) on conflict do nothing returning epoch"
            ),
            Some(found) => format!(
                "update tidegate_lease set epoch = greatest(epoch + 1, {epoch}), holder = {holder}, session = {session}, \
                 expires = {expires} where queue = {queue} and epoch = {} and {EXPIRES} = {} returning epoch",
                found.epoch, found.expires
            ),
        };
        let epoch = self.trip("local", &statement).await?;
        Ok(epoch.and_then(|epoch| epoch.parse().ok()))
    }

    /// Gives the row up.
    async fn give_up(&self, epoch: i64) -> Result<(), SqlError> {
        let queue = literal(&self.key.queue);
        let statement = format!(
            "update tidegate_lease set expires = clock_timestamp(), session = null where queue = {queue} and epoch = {epoch}"
        );
        self.trip("off", &statement).await.map(drop)
    }

    /// Ends what a predecessor left on the server, or waits for its end where we may not; nothing, where another host has
    /// taken the lease meanwhile. `epoch` is that of the row as it is known, `ours` our own connection for batches.
    async fn evict(&self, epoch: i64, ours: i64) -> Result<(), SqlError> {
        // A backend that runs a statement or has a transaction open holds locks, which everybody may see, unlike its state.
        let select = format!(
            "select l.pid::bigint, bool_or(l.locktype <> 'advisory') from pg_locks l join pg_stat_activity a on a.pid = l.pid \
             where a.datname = current_database() and a.pid <> $1::int and a.pid <> pg_backend_pid() \
             and (l.locktype <> 'advisory' and a.application_name like 'tidegate/%' and a.application_name like $2 or {}) \
             and not exists (select from tidegate_lease o where o.queue = $3 and o.epoch <> $4) group by l.pid",
            self.key.is_on()
        );
        let named = format!("%/batch.{}", self.key.short());
        let values = [ours.into(), named.into(), Value::from(&*self.key.queue), epoch.into()];
        let deadline = Instant::now() + EVICTION_LIMIT;
        let mut not_ours = HashSet::new();
        loop {
            let rows = self.query(&select, &values).await?;
            // A session that holds the advisory lock and does nothing is in nobody's way, where it cannot be ended.
            let found: Vec<i64> = rows
                .iter()
                .filter_map(|row| Some((row.first()?.as_integer()?, row.get(1)?.as_integer()? == 1)))
                .filter(|(process, runs)| *runs || !not_ours.contains(process))
                .map(|(process, _)| process)
                .collect();
            let Some(first) = found.first() else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(SqlError::new(
                    ErrorClass::Transient,
                    format!(
                        "an earlier host has left a statement running on the server (process {first}), which this one \
                         may not end: it is waited for"
                    ),
                ));
            }
            for process in found {
                match self.query("select pg_terminate_backend($1::int)", &[process.into()]).await {
                    Err(error) if error.class == ErrorClass::Connection => return Err(error),
                    Err(_) => drop(not_ours.insert(process)),
                    // Gone, or about to be: the next look tells.
                    Ok(_) => {}
                }
            }
            sleep(EVICTION_POLL).await;
        }
    }
}

/// The expiry of a lease as a number.
const EXPIRES: &str = "(extract(epoch from expires) * 1000000)::bigint";

/// When a lease that is taken or renewed now expires.
fn expiry() -> String {
    format!("clock_timestamp() + interval '{} milliseconds'", TERM.as_millis())
}

async fn locks(connection: &Connection, key: &Key) -> Result<Vec<Lock>, SqlError> {
    let select = format!(
        "select l.pid::bigint, l.mode = 'ExclusiveLock', coalesce(a.application_name, '') \
         from pg_locks l left join pg_stat_activity a on a.pid = l.pid where {}",
        key.is_on()
    );
    let rows = connection.query(&select, &[], false).await?;
    let lock = |row: &Row| {
        let process = row.first()?.as_integer()?;
        let exclusive = row.get(1)?.as_integer()? == 1;
        Some(Lock { process, exclusive, name: row.get(2)?.as_text()?.to_owned() })
    };
    Ok(rows.iter().filter_map(lock).collect())
}

async fn row(connection: &Connection, key: &Key) -> Result<Option<Found>, SqlError> {
    let select = format!(
        "select epoch, holder, expires > clock_timestamp(), session::bigint, {EXPIRES} from tidegate_lease where queue = $1"
    );
    let rows = connection.query(&select, &[Value::from(&*key.queue)], false).await?;
    Ok(rows.first().and_then(|row| {
        Some(Found {
            epoch: row.first()?.as_integer()?,
            holder: row.get(1)?.as_text().and_then(|json| serde_json::from_str(json).ok()),
            live: row.get(2)?.as_integer()? == 1,
            session: row.get(3)?.as_integer(),
            expires: row.get(4)?.as_integer()?,
        })
    }))
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

/// Tries to take the lease; `ours` is the backend of our own connection for batches.
pub(super) async fn attempt(
    site: Site,
    holder: Holder,
    kept: Option<Box<Line>>,
    ours: i64,
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
        line.evict(found.as_ref().map_or(0, |found| found.epoch), ours).await?;
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
        return match line.evict(epoch, ours).await {
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

/// A lease that is held.
pub(super) struct RowLease {
    /// Set once, to the reason, when the lease is lost.
    lost: watch::Receiver<Option<String>>,
    /// Tells the keeper to leave off.
    end: Option<oneshot::Sender<()>>,
    keeper: Apart<Keeper>,
}

/// Renews a lease.
struct Keeper {
    site: Site,
    holder: Holder,
    /// `None` where another connection is to be made.
    line: Option<Arc<Line>>,
    epoch: i64,
    /// True where the connection's session holds the advisory lock.
    locked: bool,
}

impl RowLease {
    fn keep(site: Site, holder: Holder, line: Arc<Line>, epoch: i64, locked: bool) -> Self {
        let (report, lost) = watch::channel(None);
        let (end, ended) = oneshot::channel();
        let keeper = Keeper { site, holder, line: Some(line), epoch, locked };
        Self { lost, end: Some(end), keeper: Apart(fence::thread().spawn(keeper.keep(ended, report))) }
    }
}

impl Keeper {
    /// Renews the lease until it is told to leave off, or the lease is lost.
    async fn keep(mut self, mut end: oneshot::Receiver<()>, report: watch::Sender<Option<String>>) -> Self {
        let mut wait = RENEWAL;
        loop {
            tokio::select! {
                _ = &mut end => return self,
                () = sleep(wait) => {}
                // What it held is to be had by others now.
                () = self.cut() => {}
            }
            let renewed = tokio::select! {
                _ = &mut end => return self,
                renewed = self.renew() => renewed,
            };
            let reason = match renewed {
                Ok(None) => {
                    wait = RENEWAL;
                    continue;
                }
                Ok(Some(reason)) => reason,
                Err(error) if self.site.fence.left(self.epoch).is_zero() => {
                    format!("it could not be renewed for {} s: {error}", TERM.as_secs())
                }
                Err(error) => {
                    tracing::debug!(%error, "the lease could not be renewed yet");
                    wait = RETRY;
                    continue;
                }
            };
            if let Some(line) = self.line.take().filter(|_| self.locked) {
                let _ = timeout(RELEASE_LIMIT, line.unlock()).await;
            }
            let _ = report.send(Some(reason));
            return self;
        }
    }

    /// Resolves when the connection has ended.
    async fn cut(&self) {
        match &self.line {
            Some(line) => drop(line.connection.ended().await),
            None => std::future::pending().await,
        }
    }

    /// One attempt; the reason, where the lease is another's.
    async fn renew(&mut self) -> Result<Option<String>, SqlError> {
        let line = match self.line.take().filter(|line| !line.connection.is_closed()) {
            Some(line) => line,
            None => {
                self.locked = false;
                let limit = self.site.fence.left(self.epoch).max(RENEWAL_LIMIT);
                let opened = timeout(limit, Line::open(&self.site, &self.holder)).await;
                Arc::new(opened.map_err(|_| silent(limit))??)
            }
        };
        let since = Instant::now();
        let session = match self.locked {
            true => line.connection.backend.to_string(),
            false => format!("case when pg_try_advisory_lock({}) then pg_backend_pid() end", line.key.number),
        };
        let statement = format!(
            "update tidegate_lease set expires = {}, session = {session} where queue = {} and epoch = {} \
             returning coalesce(session, 0)",
            expiry(),
            literal(&line.key.queue),
            self.epoch
        );
        // A crash of the server may forget it: then the lease is over sooner, and that is all.
        let renewed = timeout(RENEWAL_LIMIT, line.trip("off", &statement)).await;
        let Some(session) = renewed.map_err(|_| silent(RENEWAL_LIMIT))?? else {
            self.line = Some(line);
            return Ok(Some(OVERTAKEN.to_owned()));
        };
        self.site.fence.renew(self.epoch, since);
        self.locked = session != "0";
        let rival = if self.locked { None } else { self.rival(&line).await? };
        self.line = Some(line);
        Ok(rival)
    }

    /// Why the advisory lock is not to be had, where that ends the lease.
    async fn rival(&self, line: &Line) -> Result<Option<String>, SqlError> {
        for lock in line.locks().await?.iter().filter(|lock| lock.exclusive) {
            if lock.is_of_before() {
                return Ok(Some("a host of an earlier version has taken its place".to_owned()));
            }
            // A session of this host's own, from before it was cut off, which the server does not know to be gone.
            if name::is_of(&lock.name, &self.holder) {
                let _ = line.query("select pg_terminate_backend($1::int)", &[lock.process.into()]).await;
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl Lease for RowLease {
    async fn lost(&mut self) -> String {
        match self.lost.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "nobody watches over it any more".to_owned(),
        }
    }

    async fn release(mut self: Box<Self>) {
        drop(self.end.take());
        let given_up = async {
            // One that is lost is nobody's to give up.
            let keeper = (&mut self.keeper).await.ok()?;
            let line = keeper.line.filter(|_| self.lost.borrow().is_none())?;
            keeper.site.fence.lower(keeper.epoch);
            line.give_up(keeper.epoch).await.ok()?;
            line.unlock().await;
            Some(())
        };
        if !matches!(timeout(RELEASE_LIMIT, given_up).await, Ok(Some(()))) {
            tracing::debug!("the lease ends with its session, or with its term");
        }
    }
}
