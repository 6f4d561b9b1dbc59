//! A service that lives in the database: so many requests a second, each timed from when it was due. One that begins late,
//! because those before it were slow, is not late for that reason only, but slow: so nothing is left out of what whoever
//! asked would have waited (coordinated omission).

use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Outcome;
use super::place::{Database, Place};
use super::processes::Process;
use super::report::unix_ms;

/// How long what a service can do is measured.
const MEASURED: Duration = Duration::from_secs(5);
/// Clients of pgbench.
const CLIENTS: &str = "8";
/// Requests to SQLite in a second: each reads a row, and each fourth writes one.
const SQLITE_RATE: f64 = 400.0;

/// A request that was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    /// When, in milliseconds since the Unix epoch.
    pub(super) at_ms: f64,
    /// How long after it was due, in milliseconds.
    pub(super) took_ms: f64,
}

/// What a service is asked.
pub(super) struct Foreground<'a> {
    place: &'a Place,
    database: &'a Database,
    /// Requests in a second.
    pub(super) rate: f64,
}

impl<'a> Foreground<'a> {
    /// Half of what pgbench can do, measured now; to SQLite, a fixed number of requests.
    pub(super) async fn at_half(place: &'a Place, database: &'a Database) -> Outcome<Self> {
        let rate = match place {
            Place::Sqlite { .. } => {
                let table = "CREATE TABLE app (id INTEGER PRIMARY KEY, n INTEGER);
                    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 10000)
                    INSERT INTO app SELECT n, 0 FROM numbers";
                database.run(table, "").await?;
                SQLITE_RATE
            }
            Place::Postgres { server, .. } => {
                let pgbench = server.program("pgbench");
                finish(Command::new(&pgbench).args(["-i", "-q", "-s", "10", &database.url]))?;
                let seconds = MEASURED.as_secs().to_string();
                let mut measure = Command::new(&pgbench);
                measure.args(["-n", "-M", "prepared", "-c", CLIENTS, "-j", "2", "-T", &seconds, &database.url]);
                let told = finish(&mut measure)?;
                let tps = told.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next());
                tps.ok_or_else(|| format!("pgbench does not tell its rate: {told}"))?.parse::<f64>()? / 2.0
            }
        };
        Ok(Self { place, database, rate })
    }

    /// Requests for so many seconds, from a process of its own.
    pub(super) fn start(&self, seconds: u64) -> Outcome<Requests> {
        let folder = tempfile::tempdir()?;
        let (rate, seconds) = (format!("{:.0}", self.rate), seconds.to_string());
        let mut command = match self.place {
            Place::Postgres { server, .. } => {
                let mut pgbench = Command::new(server.program("pgbench"));
                pgbench.args(["-n", "-M", "prepared", "-c", CLIENTS, "-j", "1", "-T", &seconds, "-R", &rate, "-l"]);
                pgbench.arg(&self.database.url);
                pgbench
            }
            Place::Sqlite { .. } => {
                let mut own = Command::new(std::env::current_exe()?);
                own.args(["--foreground", &self.database.url, "--rate", &rate, "--seconds", &seconds]);
                own
            }
        };
        command.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Requests { process: Process(command.spawn()?), folder })
    }
}

/// A service at work.
pub(super) struct Requests {
    process: Process,
    folder: TempDir,
}

impl Requests {
    /// True once it has ended.
    pub(super) fn is_over(&mut self) -> Outcome<bool> {
        self.process.is_over()
    }

    /// Waits for its end.
    pub(super) async fn end(mut self) -> Outcome<Vec<Answered>> {
        let status = loop {
            match self.process.0.try_wait()? {
                Some(status) => break status,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        if !status.success() {
            return Err(format!("the foreground ended with {status}").into());
        }
        let mut answered = Vec::new();
        for file in std::fs::read_dir(&self.folder)? {
            answered.extend(read(&file?.path())?);
        }
        Ok(answered)
    }
}

/// Lines as pgbench writes them: client, number, microseconds, script, and when in seconds and microseconds. With a rate the
/// time is from when the transaction was due.
fn read(file: &Path) -> Outcome<Vec<Answered>> {
    let text = std::fs::read_to_string(file)?;
    let answered = text.lines().filter_map(|line| {
        let mut numbers = line.split(' ').map(|number| number.parse::<f64>().unwrap_or(f64::NAN));
        let (took_us, at_s, at_us) = (numbers.nth(2)?, numbers.nth(1)?, numbers.next()?);
        Some(Answered { at_ms: at_s * 1e3 + at_us / 1e3, took_ms: took_us / 1e3 })
    });
    Ok(answered.collect())
}

/// What a program writes, once it has ended well.
fn finish(command: &mut Command) -> Outcome<String> {
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{command:?} ended with {}: {said}", output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What this program does as the service on SQLite.
pub(super) fn sqlite(url: &str, rate: f64, seconds: f64) -> Outcome<()> {
    let connection = rusqlite::Connection::open(url.strip_prefix("sqlite:").unwrap_or(url))?;
    connection.busy_timeout(Duration::from_secs(120))?;
    let mut read = connection.prepare("SELECT n FROM app WHERE id = ?1")?;
    let mut write = connection.prepare("UPDATE app SET n = n + 1 WHERE id = ?1")?;
    let mut log = BufWriter::new(std::fs::File::create("foreground")?);
    let (began, every) = (Instant::now(), Duration::from_secs_f64(1.0 / rate));
    for number in 0.. {
        let due = every * number;
        if due.as_secs_f64() >= seconds {
            break;
        }
        if let Some(early) = due.checked_sub(began.elapsed()) {
            std::thread::sleep(early);
        }
        let id = number * 7_919 % 10_000 + 1;
        read.query_row([id], |row| row.get::<_, i64>(0))?;
        if number % 4 == 0 {
            write.execute([id])?;
        }
        let took = began.elapsed().saturating_sub(due);
        let at_ms = unix_ms();
        writeln!(log, "0 {number} {} 0 {} {}", took.as_micros(), at_ms / 1_000, at_ms % 1_000 * 1_000)?;
    }
    Ok(log.flush()?)
}
