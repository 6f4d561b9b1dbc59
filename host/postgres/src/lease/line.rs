//! A connection for the lease, and what is asked and written over it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join;
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use super::{EVICTION_LIMIT, Site};
use crate::connection::Connection;
use crate::name::{self, Role};
use crate::pooler;
use crate::settings::Isolation;
use tidegate::scheduler::database::Holder;
use tidegate::update::sql::{ErrorClass, Row, SqlError, Value};
use tidegate_driver::fence::TERM;

/// How often what a predecessor left running is looked for.
const EVICTION_POLL: Duration = Duration::from_millis(200);

/// What a lease is on: a queue table, whatever a search path makes of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// How the row calls it.
    pub(super) queue: Arc<str>,
    /// Its number among a database's advisory locks.
    pub(super) number: i64,
}

impl Key {
    /// The key of the queue table that the session sees.
    pub(crate) async fn find(connection: &Connection, queue_table: &str) -> Result<Self, SqlError> {
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
    pub(crate) fn short(&self) -> String {
        let [a, b, c, d, ..] = self.number.to_be_bytes();
        format!("{a:02x}{b:02x}{c:02x}{d:02x}")
    }

    /// What is true of the advisory locks `l` on it.
    pub(super) fn is_on(&self) -> String {
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
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A connection for the lease.
pub(crate) struct Line {
    pub(super) connection: Connection,
    pub(super) key: Key,
}

/// The row of the lease.
pub(super) struct Found {
    pub(super) epoch: i64,
    pub(super) holder: Option<Holder>,
    /// True until its expiry is over.
    pub(super) live: bool,
    /// The server's process that holds the advisory lock for the same host, where one does.
    pub(super) session: Option<i64>,
    /// The expiry as a number.
    pub(super) expires: i64,
}

/// An advisory lock that somebody holds.
pub(super) struct Lock {
    pub(super) process: i64,
    pub(super) exclusive: bool,
    pub(super) name: String,
}

impl Lock {
    /// True where its holder is a host that knows nothing of the row.
    pub(super) fn is_of_before(&self) -> bool {
        self.exclusive && !name::knows_row(&self.name)
    }
}

impl Line {
    pub(super) async fn open(site: &Site, holder: &Holder) -> Result<Self, SqlError> {
        let name = name::of(holder, Role::Lease, None);
        let mut connection = Connection::open(&site.target, &name, &site.settings).await?;
        let key = Key::find(&connection, &site.queue_table).await?;
        connection.rename(name::of(holder, Role::Lease, Some(&key))).await?;
        Ok(Self { connection, key })
    }

    /// True where it can be used for this host's next attempt.
    pub(super) fn is_fit(&self, holder: &Holder) -> bool {
        !self.connection.is_closed()
            && self.connection.application_name() == name::of(holder, Role::Lease, Some(&self.key))
    }

    pub(super) async fn query(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, SqlError> {
        self.connection.query(sql, values, false).await
    }

    /// One statement in a transaction of its own that depends on nothing that the session is set to, in one trip; the
    /// first column of its row, if one comes back. It waits for no other server, and `wal` says whether for the disk.
    pub(super) async fn trip(&self, wal: &str, statement: &str) -> Result<Option<String>, SqlError> {
        let begin = format!(
            "{}; set local lock_timeout = 1000; set local statement_timeout = 5000; set local synchronous_commit = {wal}",
            self.connection.begin(Isolation::Committed)
        );
        let work = format!("{statement}; commit");
        let (begun, row) = join(self.connection.script(&begin), pooler::row(&self.connection, &work)).await;
        match begun.and(row) {
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

    pub(super) async fn locks(&self) -> Result<Vec<Lock>, SqlError> {
        locks(&self.connection, &self.key).await
    }

    /// Tries to take the advisory lock: in one statement, and so in one session. It is taken in that of the connection or in
    /// none, and never a second time in one that holds it for somebody else.
    /// There is none to be had where sessions are shared.
    pub(super) async fn try_lock(&self) -> Result<bool, SqlError> {
        if self.connection.sharing.is_some() {
            return Ok(false);
        }
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
    pub(super) async fn unlock(&self) {
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
    pub(super) async fn take(
        &self,
        found: Option<&Found>,
        holder: &Holder,
        locked: bool,
    ) -> Result<Option<i64>, SqlError> {
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
    pub(super) async fn give_up(&self, epoch: i64) -> Result<(), SqlError> {
        let queue = literal(&self.key.queue);
        let statement = format!(
            "update tidegate_lease set expires = clock_timestamp(), session = null where queue = {queue} and epoch = {epoch}"
        );
        self.trip("off", &statement).await.map(drop)
    }

    /// Ends what a predecessor left on the server, or waits for its end where we may not; nothing, where another host has
    /// taken the lease meanwhile. `epoch` is that of the row as it is known, `ours` the backends of our own
    /// connections for batches.
    pub(super) async fn evict(&self, epoch: i64, ours: &[i64]) -> Result<(), SqlError> {
        // A backend that runs a statement or has a transaction open holds locks, which everybody may see, unlike its state.
        let select = format!(
            "select l.pid::bigint, bool_or(l.locktype <> 'advisory'), a.application_name from pg_locks l join pg_stat_activity a on a.pid = l.pid \
             where a.datname = current_database() and a.pid <> all ($1::text::int[]) and a.pid <> pg_backend_pid() \
             and (l.locktype <> 'advisory' and a.application_name like 'tidegate/%' and a.application_name like $2 or {}) \
             and not exists (select from tidegate_lease o where o.queue = $3 and o.epoch <> $4) group by l.pid, a.application_name",
            self.key.is_on()
        );
        let named = format!("%/batch.{}", self.key.short());
        let ours: Vec<String> = ours.iter().map(ToString::to_string).collect();
        let ours = format!("{{{}}}", ours.join(","));
        let values = [ours.into(), named.into(), Value::from(&*self.key.queue), epoch.into()];
        let deadline = Instant::now() + EVICTION_LIMIT;
        let mut not_ours = HashSet::new();
        loop {
            let rows = self.query(&select, &values).await?;
            // A session that holds the advisory lock and does nothing is in nobody's way, where it cannot be ended.
            let found: Vec<(i64, &str)> = rows
                .iter()
                .filter_map(|row| {
                    Some((row.first()?.as_integer()?, row.get(1)?.as_integer()? == 1, row.get(2)?.as_text()?))
                })
                .filter(|(process, runs, _)| *runs || !not_ours.contains(process))
                .map(|(process, _, name)| (process, name))
                .collect();
            let Some((first, _)) = found.first() else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(SqlError::new(
                    ErrorClass::Transient,
                    format!(
                        "an earlier host has left a statement running on the server (process {first}), which this one \
                         may not end: it is waited for"
                    ),
                ));
            }
            for (process, name) in found {
                // Behind a pooler the same process may do another's work an instant later, under another name.
                let end = "select pg_terminate_backend(pid) from pg_stat_activity where pid = $1::int and application_name = $2";
                match self.query(end, &[process.into(), name.into()]).await {
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
pub(super) fn expiry() -> String {
    format!("clock_timestamp() + interval '{} milliseconds'", TERM.as_millis())
}

pub(super) async fn locks(connection: &Connection, key: &Key) -> Result<Vec<Lock>, SqlError> {
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

pub(super) async fn row(connection: &Connection, key: &Key) -> Result<Option<Found>, SqlError> {
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
