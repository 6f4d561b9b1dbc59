//! The baselines: what tidegate does for a batch, done by hand over the same drivers. The queue's row is locked and its
//! progress compared, the work is done, the progress written, and all of it committed.

use std::time::{Duration, Instant, SystemTime};

use futures_util::future::try_join;
use rusqlite::TransactionBehavior;
use tidegate::scheduler::database::{IterationOutcome, Record, unix_ms};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};

use super::Outcome;

/// A connection of the driver.
pub(super) enum Bare {
    Sqlite(tokio_rusqlite::Connection),
    Postgres(Box<Postgres>),
}

/// A connection and the statements that were prepared on it.
pub(super) struct Postgres {
    client: Client,
    lock: Statement,
    write: Statement,
    guarded_lock: Statement,
    guarded_write: Statement,
}

/// How often an iteration waits for the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trips {
    /// Once, on SQLite: everything on the connection's thread. No handler that awaits could stand in the middle.
    One,
    /// Twice, as the host does: before the work and after it.
    Two,
    /// Once for each statement, as one writes it first.
    Four,
}

/// Which statements an iteration is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Statements {
    /// Those of a host, in its own words: on PostgreSQL it makes sure of its transaction, and once a second it writes
    /// down what each iteration was.
    Host,
    /// The least that there can be, and no history.
    Least,
}

const UPDATE: &str = "bench";
/// How often a host writes its history.
const HISTORY_INTERVAL: Duration = Duration::from_secs(1);
/// Iterations that one of its statements inserts.
const HISTORY_CHUNK: usize = 50;
const SQLITE_SELECT: &str = "SELECT progress_json FROM background_updates WHERE update_name = ?1";
const SQLITE_WRITE: &str = "UPDATE background_updates SET progress_json = ?2 WHERE update_name = ?1";
const POSTGRES_LOCK: &str = "SELECT progress_json FROM background_updates WHERE update_name = $1 FOR UPDATE";
const POSTGRES_WRITE: &str = "UPDATE background_updates SET progress_json = $2 WHERE update_name = $1";
const POSTGRES_GUARDED_LOCK: &str = "SELECT progress_json, set_config('tidegate.batch', 'open', true) \
    FROM background_updates WHERE update_name = $1 FOR UPDATE";
const POSTGRES_GUARDED_WRITE: &str = "WITH written AS (UPDATE background_updates SET progress_json = $2 \
    WHERE update_name = $1 AND current_setting('tidegate.batch', true) = 'open' RETURNING 1) \
    SELECT 1 / count(*) FROM written";

impl Bare {
    pub(super) async fn connect(url: &str) -> Outcome<Self> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return Ok(Self::Sqlite(tokio_rusqlite::Connection::open(path).await?));
        }
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        let (lock, write) = (client.prepare(POSTGRES_LOCK).await?, client.prepare(POSTGRES_WRITE).await?);
        let guarded_lock = client.prepare(POSTGRES_GUARDED_LOCK).await?;
        let guarded_write = client.prepare(POSTGRES_GUARDED_WRITE).await?;
        Ok(Self::Postgres(Box::new(Postgres { client, lock, write, guarded_lock, guarded_write })))
    }

    /// Iterations that do nothing, for `warm_up` and then for `time`: how long one took.
    pub(super) async fn iterate(
        &self,
        trips: Trips,
        statements: Statements,
        warm_up: Duration,
        time: Duration,
    ) -> Outcome<Duration> {
        let (mut number, mut planned) = (0_u64, "{}".to_owned());
        let (mut history, mut written) = (Vec::new(), Instant::now());
        let began = Instant::now();
        let mut counted_from = None;
        loop {
            if counted_from.is_none() && began.elapsed() >= warm_up {
                counted_from = Some((Instant::now(), number));
            }
            if let Some((since, first)) = counted_from
                && since.elapsed() >= time
                && number > first
            {
                return Ok(since.elapsed() / u32::try_from(number - first)?);
            }
            number += 1;
            let next = format!("{{\"n\":{number}}}");
            let batch = Instant::now();
            match self {
                Self::Sqlite(thread) => sqlite_iteration(thread, trips, planned, next.clone()).await?,
                Self::Postgres(postgres) => postgres.iteration(trips, statements, &planned, &next).await?,
            }
            planned = next;
            if statements == Statements::Host {
                history.push(record(batch.elapsed()));
                if written.elapsed() >= HISTORY_INTERVAL {
                    self.write_history(std::mem::take(&mut history)).await?;
                    written = Instant::now();
                }
            }
        }
    }

    /// Inserts what iterations were, as a host does.
    async fn write_history(&self, records: Vec<Record>) -> Outcome<()> {
        let rows = records.iter().map(|record| Ok((record.started_ms, serde_json::to_string(record)?)));
        let rows = rows.collect::<Outcome<Vec<(i64, String)>>>()?;
        match self {
            Self::Sqlite(thread) => Ok(thread.call(move |sqlite| sqlite_history(sqlite, &rows)).await?),
            Self::Postgres(postgres) => postgres.history(&rows).await,
        }
    }

    /// One statement for the whole of `items`.
    pub(super) async fn fill_at_once(&self) -> Outcome<()> {
        const SQL: &str = "UPDATE items SET b = upper(a)";
        match self {
            Self::Sqlite(thread) => drop(thread.call(|sqlite| sqlite.execute(SQL, [])).await?),
            Self::Postgres(postgres) => drop(postgres.client.execute(SQL, &[]).await?),
        }
        Ok(())
    }

    /// Batches of `size` rows over the whole of `items`: how long each took.
    pub(super) async fn fill(&self, size: i64, mut at_first: impl FnMut()) -> Outcome<Vec<Duration>> {
        let (mut after, mut planned) = (0, "{}".to_owned());
        let mut durations = Vec::new();
        loop {
            if durations.is_empty() {
                at_first();
            }
            let began = Instant::now();
            let upto = match self {
                Self::Sqlite(thread) => {
                    let planned = planned.clone();
                    thread.call(move |sqlite| sqlite_batch(sqlite, &planned, after, size)).await?
                }
                Self::Postgres(postgres) => postgres.batch(&planned, after, size).await?,
            };
            durations.push(began.elapsed());
            match upto {
                Some(upto) => (after, planned) = (upto, progress(upto)),
                None => return Ok(durations),
            }
        }
    }
}

fn progress(upto: i64) -> String {
    format!("{{\"after\":{upto}}}")
}

async fn sqlite_iteration(
    thread: &tokio_rusqlite::Connection,
    trips: Trips,
    planned: String,
    next: String,
) -> Outcome<()> {
    let begin = |sqlite: &mut rusqlite::Connection| sqlite.prepare_cached("BEGIN IMMEDIATE")?.execute([]);
    let commit = |sqlite: &mut rusqlite::Connection| sqlite.prepare_cached("COMMIT")?.execute([]);
    let find = |sqlite: &mut rusqlite::Connection| {
        let mut select = sqlite.prepare_cached(SQLITE_SELECT)?;
        select.query_row([UPDATE], |row| row.get::<_, String>(0))
    };
    let write = move |sqlite: &mut rusqlite::Connection| sqlite.prepare_cached(SQLITE_WRITE)?.execute([UPDATE, &next]);
    let found = match trips {
        Trips::One => {
            let all = move |sqlite: &mut rusqlite::Connection| -> rusqlite::Result<String> {
                begin(sqlite)?;
                let found = find(sqlite)?;
                write(sqlite)?;
                commit(sqlite)?;
                Ok(found)
            };
            thread.call(all).await?
        }
        Trips::Two => {
            let found = thread.call(move |sqlite| begin(sqlite).and_then(|_| find(sqlite))).await?;
            thread.call(move |sqlite| write(sqlite).and_then(|_| commit(sqlite))).await?;
            found
        }
        Trips::Four => {
            thread.call(begin).await?;
            let found = thread.call(find).await?;
            thread.call(write).await?;
            thread.call(commit).await?;
            found
        }
    };
    same(&planned, &found)
}

/// What a host notes of an iteration.
fn record(duration: Duration) -> Record {
    Record {
        update_name: UPDATE.to_owned(),
        started_ms: unix_ms(SystemTime::now()),
        one_shot: false,
        controller: "none".to_owned(),
        target_ms: Some(100),
        batch_size: 100,
        items: 1,
        duration_ms: duration.as_micros() as f64 / 1e3,
        waited_ms: 0.0,
        wait_reason: None,
        outcome: IterationOutcome::Completed,
        error: None,
        notes: Vec::new(),
        fuel: None,
    }
}

/// The insertion of some iterations: its placeholders count from 1, four a row.
fn insertion(rows: usize, mark: char) -> String {
    let row = |n: usize| format!("({mark}{}, {mark}{}, {mark}{}, {mark}{})", n + 1, n + 2, n + 3, n + 4);
    let places: Vec<String> = (0..rows).map(|n| row(n * 4)).collect();
    format!("INSERT INTO tidegate_history (queue, update_name, started_ms, record) VALUES {}", places.join(", "))
}

fn sqlite_history(sqlite: &mut rusqlite::Connection, rows: &[(i64, String)]) -> rusqlite::Result<()> {
    let transaction = sqlite.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for chunk in rows.chunks(HISTORY_CHUNK) {
        let mut insert = transaction.prepare_cached(&insertion(chunk.len(), '?'))?;
        let values = chunk.iter().flat_map(|(started, record)| -> [&dyn rusqlite::ToSql; 4] {
            [&"background_updates", &UPDATE, started, record]
        });
        insert.execute(rusqlite::params_from_iter(values))?;
    }
    transaction.commit()
}

fn same(planned: &str, found: &str) -> Outcome<()> {
    if planned == found { Ok(()) } else { Err(format!("the progress is {found} and not {planned}").into()) }
}

fn sqlite_batch(
    sqlite: &mut rusqlite::Connection,
    planned: &str,
    after: i64,
    size: i64,
) -> rusqlite::Result<Option<i64>> {
    let transaction = sqlite.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: String = transaction.prepare_cached(SQLITE_SELECT)?.query_row([UPDATE], |row| row.get(0))?;
    if found != planned {
        return Err(rusqlite::Error::QueryReturnedNoRows);
    }
    let upto: Option<i64> = transaction
        .prepare_cached("SELECT id FROM items WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2")?
        .query([after, size - 1])?
        .next()?
        .map(|row| row.get(0))
        .transpose()?;
    transaction
        .prepare_cached("UPDATE items SET b = upper(a) WHERE id > ?1 AND id <= ?2")?
        .execute([after, upto.unwrap_or(i64::MAX)])?;
    transaction.prepare_cached(SQLITE_WRITE)?.execute([UPDATE, &progress(upto.unwrap_or_default())])?;
    transaction.commit()?;
    Ok(upto)
}

impl Postgres {
    async fn iteration(&self, trips: Trips, statements: Statements, planned: &str, next: &str) -> Outcome<()> {
        let client = &self.client;
        let (lock, write) = match statements {
            Statements::Host => (&self.guarded_lock, &self.guarded_write),
            Statements::Least => (&self.lock, &self.write),
        };
        let found = match trips {
            Trips::One | Trips::Two => {
                let (_, row) = try_join(client.batch_execute("begin"), client.query_one(lock, &[&UPDATE])).await?;
                try_join(client.execute(write, &[&UPDATE, &next]), client.batch_execute("commit")).await?;
                row
            }
            Trips::Four => {
                client.batch_execute("begin").await?;
                let row = client.query_one(lock, &[&UPDATE]).await?;
                client.execute(write, &[&UPDATE, &next]).await?;
                client.batch_execute("commit").await?;
                row
            }
        };
        same(planned, found.try_get(0)?)
    }

    async fn history(&self, rows: &[(i64, String)]) -> Outcome<()> {
        self.client.batch_execute("begin").await?;
        let mut prepared = None;
        for chunk in rows.chunks(HISTORY_CHUNK) {
            let insert = match prepared.take() {
                Some(insert) if chunk.len() == HISTORY_CHUNK => insert,
                _ => self.client.prepare(&insertion(chunk.len(), '$')).await?,
            };
            let values: Vec<&(dyn ToSql + Sync)> = chunk
                .iter()
                .flat_map(|(started, record)| -> [&(dyn ToSql + Sync); 4] {
                    [&"background_updates", &UPDATE, started, record]
                })
                .collect();
            self.client.execute(&insert, &values).await?;
            prepared = Some(insert);
        }
        Ok(self.client.batch_execute("commit").await?)
    }

    async fn batch(&self, planned: &str, after: i64, size: i64) -> Outcome<Option<i64>> {
        let Self { client, lock, write, .. } = self;
        let (_, row) = try_join(client.batch_execute("begin"), client.query_one(lock, &[&UPDATE])).await?;
        same(planned, row.try_get(0)?)?;
        let bound = "SELECT id FROM items WHERE id > $1 ORDER BY id LIMIT 1 OFFSET $2";
        let upto: Option<i64> =
            client.query_opt(bound, &[&after, &(size - 1)]).await?.map(|row| row.try_get(0)).transpose()?;
        let update = "UPDATE items SET b = upper(a) WHERE id > $1 AND id <= $2";
        client.execute(update, &[&after, &upto.unwrap_or(i64::MAX)]).await?;
        let next = progress(upto.unwrap_or_default());
        try_join(client.execute(write, &[&UPDATE, &next]), client.batch_execute("commit")).await?;
        Ok(upto)
    }
}
