//! What an SQLite database's load is measured by, on connections, and so threads, of the samplers' own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ffi};
use tokio::sync::Mutex;

use super::connection::{close, open_thread, without_quoted_texts};
use super::error::{closed, sql_error};
use super::file::{Farewell, Watch};
use super::statement::query;
use tidegate::signal::{BuiltIn, Definition, Foreground, Sample, Sampler};
use tidegate_driver::SamplerOptions;
use tidegate_driver::sampler::{ms, number};

/// The longest value that a query may make, in bytes: what is wanted of it is a number.
const LONGEST_VALUE: i32 = 1 << 20;
/// Steps of SQLite's virtual machine between two looks at the clock: some microseconds.
const STEPS_BETWEEN_LOOKS: i32 = 1_000;
/// Rests between attempts at a lock: those of SQLite's own busy handler, in milliseconds; the last one repeats.
const RESTS: [u64; 12] = [1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100];

/// A sampler's connection. Where a sample is given up, its thread does what it was given, and nothing begins beside it.
struct Line {
    path: PathBuf,
    watch: Watch,
    limit: Duration,
    writes: bool,
    thread: Option<tokio_rusqlite::Connection>,
}

impl Line {
    fn new(path: PathBuf, limit: Duration, writes: bool) -> Self {
        Self { watch: Watch::new(&path), path, limit, writes, thread: None }
    }

    /// Does something on the connection, which is opened where it is not.
    async fn call<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, String> {
        self.run(move |sqlite| job(sqlite).map_err(|error| sql_error(error).to_string())).await
    }

    async fn run<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&Connection) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        if self.watch.check().is_err() {
            // Another file is there, which is measured from now on.
            if let Some(thread) = self.thread.take() {
                close(&thread, Farewell::None).await;
            }
            self.watch.forget();
        }
        let thread = match &self.thread {
            Some(thread) => thread,
            None => {
                let opened = self.open().await?;
                self.thread.insert(opened)
            }
        };
        let limit = self.limit;
        let done = thread.call_raw(move |sqlite| {
            let deadline = Instant::now() + limit;
            let bounded = sqlite.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || Instant::now() >= deadline));
            bounded.map_err(|error| sql_error(error).to_string())?;
            job(sqlite)
        });
        let result = done.await;
        // By now the log is open, where there is one.
        self.watch.note_log();
        if result.is_err() {
            self.thread = None;
        }
        result.map_err(|_| closed().to_string())?
    }

    async fn open(&self) -> Result<tokio_rusqlite::Connection, String> {
        let words = |error| sql_error(error).to_string();
        let thread = open_thread(&self.path, &self.watch).await.map_err(|error| error.to_string())?;
        let (limit, reads_only) = (self.limit, !self.writes);
        let set_up = thread.call_raw(move |sqlite| {
            sqlite.busy_timeout(limit)?;
            sqlite.set_limit(Limit::SQLITE_LIMIT_LENGTH, LONGEST_VALUE)?;
            without_quoted_texts(sqlite)?;
            sqlite.pragma_update(None, "query_only", reads_only)
        });
        set_up.await.map_err(|_| closed().to_string())?.map_err(words)?;
        Ok(thread)
    }
}

/// The size of the write-ahead log, and how long it takes to get the right to write.
pub(crate) struct WriteLock {
    line: Line,
    turns: Turns,
}

/// Held by whichever sampler is at it, so that no other is what it waits for.
pub(crate) type Turns = Arc<Mutex<()>>;

impl WriteLock {
    pub(crate) fn new(path: PathBuf, limit: Duration, turns: Turns) -> Self {
        Self { line: Line::new(path, limit, true), turns }
    }
}

#[async_trait]
impl Sampler for WriteLock {
    fn definitions(&self) -> Vec<Definition> {
        BuiltIn::definitions(&["wal-size", "write-lock", "busy-retries"])
    }

    async fn sample(&mut self) -> Vec<Sample> {
        let (path, limit) = (self.line.path.clone(), self.line.limit);
        let _turn = self.turns.lock().await;
        let sampled = self.line.run(move |sqlite| Ok((wal_size(&path), lock(sqlite, limit))));
        let (size, lock) = match sampled.await {
            Ok(sampled) => sampled,
            Err(error) => (Err(error.clone()), Err(error)),
        };
        let (wait, retries) = match lock {
            Ok((wait, retries)) => (Ok(ms(wait)), Ok(f64::from(retries))),
            Err(error) => (Err(error.clone()), Err(error)),
        };
        vec![Sample::new("wal-size", size), Sample::new("write-lock", wait), Sample::new("busy-retries", retries)]
    }
}

/// Bytes of the write-ahead log; 0 where there is none.
fn wal_size(path: &Path) -> Result<f64, String> {
    let mut wal = path.canonicalize().unwrap_or_else(|_| path.to_owned()).into_os_string();
    wal.push("-wal");
    match std::fs::metadata(&wal) {
        Ok(file) => Ok(file.len() as f64),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0.0),
        Err(error) => Err(format!("{} cannot be looked at: {error}", wal.display())),
    }
}

/// Gets the write lock and gives it back: how long that took, and how often it was refused before. Where it is not to be
/// had within the limit, it took as long at least.
fn lock(sqlite: &Connection, limit: Duration) -> Result<(Duration, u32), String> {
    let words = |error| sql_error(error).to_string();
    // SQLite's own waiting would not count.
    sqlite.busy_timeout(Duration::ZERO).map_err(words)?;
    let (began, mut refused) = (Instant::now(), 0);
    loop {
        match sqlite.execute_batch("BEGIN IMMEDIATE") {
            Ok(()) => {
                let took = began.elapsed();
                sqlite.execute_batch("ROLLBACK").map_err(words)?;
                return Ok((took, refused));
            }
            Err(error) if is_busy(&error) => {
                let rest = RESTS.get(refused as usize).or(RESTS.last()).copied().unwrap_or_default();
                refused += 1;
                if began.elapsed() + Duration::from_millis(rest) > limit {
                    return Ok((limit, refused));
                }
                thread::sleep(Duration::from_millis(rest));
            }
            Err(error) => return Err(words(error)),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(failure, _) if failure.extended_code & 0xff == ffi::SQLITE_BUSY)
}

/// A tiny read: a row of the catalogue.
const PROBE_READ: &str = "select name from sqlite_schema limit 1";
/// A tiny write: the one row of a table of its own.
const PROBE_WRITE: &str = "insert into tidegate_probe (id, probed_at_ms) values (1, ?1) \
    on conflict (id) do update set probed_at_ms = excluded.probed_at_ms";
/// That table.
const PROBE_TABLE: &str =
    "create table if not exists tidegate_probe (id integer primary key, probed_at_ms integer not null)";

/// What the foreground feels.
pub(crate) struct Probe {
    line: Line,
    turns: Turns,
    work: ProbeWork,
    foreground: Option<Foreground>,
}

/// What a probe does, beside reading.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ProbeWork {
    /// Nothing.
    Reads,
    /// It gets the right to write, and gives it back.
    Locks,
    /// It writes a row of its own.
    Writes,
}

impl Probe {
    pub(crate) fn new(path: PathBuf, options: &SamplerOptions, turns: Turns) -> Self {
        let locks = options.foreground.as_ref().is_some_and(|probing| probing.waits_as_writers);
        let work = match (options.probe_writes, locks) {
            (true, _) => ProbeWork::Writes,
            (false, true) => ProbeWork::Locks,
            (false, false) => ProbeWork::Reads,
        };
        let line = Line::new(path, options.timeout, work != ProbeWork::Reads);
        Self { line, turns, work, foreground: options.foreground.clone().map(Foreground::new) }
    }
}

#[async_trait]
impl Sampler for Probe {
    fn definitions(&self) -> Vec<Definition> {
        let foreground = self.foreground.iter().flat_map(|_| Foreground::definitions());
        BuiltIn::definitions(&["probe-latency"]).into_iter().chain(foreground).collect()
    }

    async fn sample(&mut self) -> Vec<Sample> {
        if let Some(foreground) = &mut self.foreground {
            if !foreground.is_due() {
                return Vec::new();
            }
            tokio::time::sleep(foreground.stagger()).await;
        }
        let (work, limit) = (self.work, self.line.limit);
        let _turn = self.turns.lock().await;
        let latency = self.line.call(move |sqlite| {
            let began = tokio::time::Instant::now();
            match probe(sqlite, work) {
                // Given up at the limit: it took as long at least.
                Err(error) if is_busy(&error) || is_interrupted(&error) => Ok((began, began.elapsed().max(limit))),
                result => result.map(|()| (began, began.elapsed())),
            }
        });
        let latency = latency.await;
        let felt = self.foreground.as_mut().map(|foreground| match &latency {
            Ok((began, took)) => foreground.note(*began, ms(*took)),
            Err(error) => foreground.fail(error),
        });
        let latency = Sample::new("probe-latency", latency.map(|(_, took)| ms(took)));
        std::iter::once(latency).chain(felt.into_iter().flatten()).collect()
    }
}

fn probe(sqlite: &Connection, work: ProbeWork) -> rusqlite::Result<()> {
    let mut read = sqlite.prepare_cached(PROBE_READ)?;
    let mut rows = read.raw_query();
    while rows.next()?.is_some() {}
    drop(rows);
    match work {
        ProbeWork::Reads => return Ok(()),
        ProbeWork::Locks => return sqlite.execute_batch("BEGIN IMMEDIATE; ROLLBACK"),
        ProbeWork::Writes => {}
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    let write = |sqlite: &Connection| sqlite.prepare_cached(PROBE_WRITE)?.execute([now]).map(drop);
    match write(sqlite) {
        Err(error) if !is_busy(&error) => {
            // It is missing, then; any other reason comes up again.
            sqlite.execute_batch(PROBE_TABLE)?;
            write(sqlite)
        }
        result => result,
    }
}

fn is_interrupted(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(failure, _) if failure.extended_code & 0xff == ffi::SQLITE_INTERRUPT)
}

/// What a query of somebody's own says.
pub(crate) struct Own {
    line: Line,
    definition: Definition,
    query: String,
}

impl Own {
    pub(crate) fn new(path: PathBuf, definition: Definition, query: &str, limit: Duration) -> Self {
        // Within a query of ours it can be but a query, and a comment at its end swallows nothing. Of rows beyond the first
        // nobody wants more than that there are some.
        let query = query.trim().trim_end_matches(';');
        let query = format!("select * from (\n{query}\n) limit 2");
        Self { line: Line::new(path, limit, false), definition, query }
    }
}

#[async_trait]
impl Sampler for Own {
    fn definitions(&self) -> Vec<Definition> {
        vec![self.definition.clone()]
    }

    async fn sample(&mut self) -> Vec<Sample> {
        let (sql, limit) = (self.query.clone(), self.line.limit);
        let rows = self.line.run(move |sqlite| {
            query(sqlite, &sql, &[]).map_err(|error| match error.code.as_deref() {
                Some("SQLITE_INTERRUPT") => format!("the query takes longer than {} ms", limit.as_millis()),
                _ => error.to_string(),
            })
        });
        vec![Sample::new(&self.definition.name, rows.await.and_then(|rows| number(&rows)))]
    }
}
