//! What a backfill costs the service that lives in the database: its latency beside nothing, one UPDATE, the built-in policy
//! at its defaults and the gentle one, and how long each of them takes.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::foreground::{Answered, Foreground};
use super::place::{Database, Place};
use super::processes::Process;
use super::report::{Asked, FiguresReport, unix_ms};
use super::{Outcome, quantile};

/// The rows of the backfill: so many that the gentle pace has found its duty long before the end, and the defaults take
/// some minutes.
const POSTGRES_ROWS: i64 = 2_000_000;
const SQLITE_ROWS: i64 = 4_000_000;
/// How long the service is measured with nothing else, before, between and after, each time.
const ALONE: u64 = 12;
/// A stretch of requests beside a backfill, in seconds; as many of them as it takes.
const STRETCH: u64 = 10;
/// The longest that a backfill may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Who does the backfill.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    /// One statement.
    Update,
    /// `tidegate run` with this in `[background_updates]`.
    Tidegate(String),
}

const DEFAULTS: &str = "tidegate at its defaults";
const GENTLE: &str = "tidegate, gentle";
/// What bounds the gentle pace: whatever decides when batches run, as quick a backfill as is asked has them run for this
/// part of the time.
const FIXED: &str = "tidegate, as quick as is asked of gentle";
/// The target duration of the batches of that, in milliseconds: the shortest that the gentle pace takes.
const FIXED_TARGET_MS: f64 = 10.0;
/// How much quicker than the defaults the gentle pace is asked to be.
const QUICKER: f64 = 5.0;

/// A pace that has batches run for a part of the time.
fn fixed(duty: f64) -> Who {
    let duty = duty.clamp(0.01, 0.99);
    let sleep = FIXED_TARGET_MS * (1.0 - duty) / duty;
    Who::Tidegate(format!("background_update_duration_ms = {FIXED_TARGET_MS:.0}\nsleep_duration_ms = {sleep:.0}\n"))
}

/// What was seen of one of them.
struct Seen {
    answered: Vec<f64>,
    seconds: f64,
    /// The part of the time in which batches ran.
    duty: Option<f64>,
}

pub(super) async fn measure(report: &mut FiguresReport, place: &Place) -> Outcome<()> {
    let first = place.fresh().await?;
    let service = Foreground::at_half(place, &first).await?;
    println!("         the service: {:.0} requests a second", service.rate);
    let mut alone = service.start(ALONE)?.end().await?;
    let mut all: Vec<(&str, Seen)> = Vec::new();
    for name in ["one UPDATE", DEFAULTS, GENTLE, FIXED] {
        let who = match name {
            DEFAULTS => Who::Tidegate(String::new()),
            GENTLE => Who::Tidegate("pace = \"gentle\"\n".to_owned()),
            FIXED => fixed(QUICKER * duty_of(&all, DEFAULTS)),
            _ => Who::Update,
        };
        let rows = if matches!(place, Place::Sqlite { .. }) { SQLITE_ROWS } else { POSTGRES_ROWS };
        first.make_items(rows).await?;
        let seen = beside(&service, &first, &who).await?;
        let p99 = quantile(&seen.answered, 0.99);
        println!("         {name}: {:.1} s, the service's p99 {p99:.2} ms", seen.seconds);
        all.push((name, seen));
        // Before each of them and after, so that what others do on this machine meanwhile is in both.
        alone.extend(service.start(ALONE)?.end().await?);
    }
    let alone: Vec<f64> = alone.iter().map(|answered| answered.took_ms).collect();
    for (figure, part) in
        [("a service's latency, p50", 0.5), ("a service's latency, p95", 0.95), ("a service's latency, p99", 0.99)]
    {
        let mut section = report.section(figure, "ms", place.name());
        let baseline = section.baseline("beside nothing", quantile(&alone, part));
        for (name, seen) in &all {
            let figure = section.add(format!("beside {name}"), quantile(&seen.answered, part), &baseline);
            if *name == GENTLE && part > 0.98 {
                figure.asked(Asked::RatioAtMost(1.25));
            }
        }
    }
    let mut section = report.section("a backfill beside a service", "s", place.name());
    let defaults = all.iter().find(|(_, seen)| seen.duty.is_some()).map_or(f64::NAN, |(_, seen)| seen.seconds);
    let baseline = section.baseline("tidegate at its defaults", defaults);
    for (name, seen) in all.iter().filter(|(name, _)| *name != baseline.name) {
        let figure = section.add(*name, seen.seconds, &baseline);
        if *name == GENTLE {
            figure.asked(Asked::RatioAtMost(1.0 / QUICKER));
        }
    }
    let mut section = report.section("the part of the time in batches", "", place.name());
    let duties: Vec<(&str, f64)> = all.iter().filter_map(|(name, seen)| Some((*name, seen.duty?))).collect();
    if let [(name, defaults), others @ ..] = &duties[..] {
        let baseline = section.baseline(name, *defaults);
        for (name, duty) in others {
            section.add(*name, *duty, &baseline);
        }
    }
    Ok(())
}

/// The part of the time in which the batches of one of them ran.
fn duty_of(all: &[(&str, Seen)], name: &str) -> f64 {
    all.iter().find(|(other, _)| *other == name).and_then(|(_, seen)| seen.duty).unwrap_or(f64::NAN)
}

/// Lets one of them do the backfill while the service works.
async fn beside(service: &Foreground<'_>, database: &Database, who: &Who) -> Outcome<Seen> {
    let sql = "DROP TABLE IF EXISTS tidegate_history";
    database.run(sql, sql).await?;
    database.enqueue("bench").await?;
    let mut answered: Vec<Answered> = Vec::new();
    let mut requests = service.start(STRETCH)?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (began_ms, began) = (unix_ms(), Instant::now());
    let mut work = match who {
        Who::Update => Work::Statement(tokio::spawn({
            let url = database.url.clone();
            async move { one_update(&url).await }
        })),
        Who::Tidegate(settings) => Work::start(database, settings)?,
    };
    let ended = loop {
        if let Some(ended) = work.is_over(database).await? {
            break ended;
        }
        if began.elapsed() > PATIENCE {
            return Err("the backfill does not come to its end".into());
        }
        if requests.is_over()? {
            answered.extend(std::mem::replace(&mut requests, service.start(STRETCH)?).end().await?);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    answered.extend(requests.end().await?);
    let seconds = ended.duration_since(began).as_secs_f64();
    let during = began_ms as f64..began_ms as f64 + seconds * 1e3;
    let during = answered.iter().filter(|answered| during.contains(&answered.at_ms));
    let answered = during.map(|answered| answered.took_ms).collect();
    let duty = match who {
        Who::Update => None,
        Who::Tidegate(_) => Some(in_batches(database).await? / seconds),
    };
    Ok(Seen { answered, seconds, duty })
}

/// How long batches ran, in seconds.
async fn in_batches(database: &Database) -> Outcome<f64> {
    let sum = match database.url.starts_with("sqlite:") {
        true => "SELECT CAST(sum(json_extract(record, '$.duration_ms')) AS INTEGER) FROM tidegate_history",
        false => "SELECT sum((record::json->>'duration_ms')::float8)::bigint FROM tidegate_history",
    };
    Ok(database.number(sum).await?.unwrap_or_default() as f64 / 1e3)
}

/// A backfill at work.
enum Work {
    Statement(tokio::task::JoinHandle<Outcome<()>>),
    Program(Process, #[expect(dead_code, reason = "removed with it")] tempfile::TempDir),
}

impl Work {
    fn start(database: &Database, settings: &str) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let configuration = format!(
            "[background_updates]\n{settings}[[database]]\nurl = {}\n\
             [[update]]\nname = \"bench\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = \"b = upper(a)\"\n",
            serde_json::to_string(&database.url)?,
        );
        fs::write(folder.path().join("tidegate.toml"), configuration)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.current_dir(&folder).args(["run", "--until-done"]).env("XDG_CACHE_HOME", folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self::Program(Process(command.spawn()?), folder))
    }

    /// When it ended, where it has.
    async fn is_over(&mut self, database: &Database) -> Outcome<Option<Instant>> {
        let over = match self {
            Self::Statement(statement) => statement.is_finished(),
            Self::Program(process, _) => process.is_over()?,
        };
        if !over {
            return Ok(None);
        }
        let ended = Instant::now();
        if let Self::Statement(statement) = self {
            statement.await??;
        }
        match database.number("SELECT count(*) FROM items WHERE b IS NULL").await? {
            Some(0) => Ok(Some(ended)),
            left => Err(format!("the backfill ended with {left:?} rows left").into()),
        }
    }
}

async fn one_update(url: &str) -> Outcome<()> {
    const UPDATE: &str = "UPDATE items SET b = upper(a)";
    match url.strip_prefix("sqlite:").map(str::to_owned) {
        Some(file) => {
            let update = move || -> Outcome<()> {
                let connection = rusqlite::Connection::open(file)?;
                connection.busy_timeout(Duration::from_secs(5))?;
                connection.execute(UPDATE, ())?;
                Ok(())
            };
            tokio::task::spawn_blocking(update).await?
        }
        None => {
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            client.execute(UPDATE, &[]).await?;
            Ok(())
        }
    }
}
