//! A host that is asked for its status all the time: does the work on the database suffer?

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;
use tidegate_admin::access::{digest, hex};
use tokio::time::MissedTickBehavior;

use super::place::{Database, Place};
use super::processes::Process;
use super::report::FiguresReport;
use super::{Outcome, quantile};

/// Requests a second.
const RATE: u32 = 2_000;
/// Clients that ask, each over a connection of its own.
const CLIENTS: u32 = 8;
/// How long each rate is measured.
const TIME: Duration = Duration::from_secs(10);
/// What comes before is not counted: the size of a batch has to settle.
const WARM_UP: Duration = Duration::from_secs(3);
/// The rows of the backfill: more than can be done meanwhile.
const ROWS: i64 = 1_000_000;
const STATUS: &str = "/_synapse/admin/v1/background_updates/status";
const TOKEN: &str = "the-benchmark's-token";

/// What came of the requests.
#[derive(Default)]
struct Answers {
    good: AtomicU64,
    bad: AtomicU64,
}

pub(super) async fn measure(report: &mut FiguresReport, place: &Place) -> Outcome<()> {
    let database = place.fresh().await?;
    database.make_items(ROWS).await?;
    database.enqueue("bench").await?;
    let folder = tempfile::tempdir()?;
    let configuration = folder.path().join("tidegate.toml");
    fs::write(&configuration, configured(&database.url, place)?)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(&folder).arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = Process(command.spawn()?);
    let address = address(process.0.stderr.take())?;
    tokio::time::sleep(WARM_UP).await;
    let before = rate(&database, place).await?;
    let (answers, latencies, asked) = {
        let asking = tokio::spawn(ask(address));
        let during = rate(&database, place).await?;
        let (answers, latencies, took) = asking.await??;
        (answers, latencies, (during, took))
    };
    let (during, took) = asked;
    let after = rate(&database, place).await?;
    process.end()?;
    let mut section = report.section("a backfill, 100 ms of work and 100 ms of sleep", "rows/s", place.name());
    let baseline = section.baseline("nobody asks", before);
    section.add(format!("{RATE} requests/s of its status"), during, &baseline);
    section.add("nobody asks, once more", after, &baseline);
    let (good, bad) = (answers.good.load(Ordering::Relaxed), answers.bad.load(Ordering::Relaxed));
    let mut section = report.section("requests of the status", "1/s", place.name());
    let wanted = section.baseline("wanted", f64::from(RATE));
    section.add("answered", good as f64 / took.as_secs_f64(), &wanted);
    section.add("not answered, or with an error", bad as f64 / took.as_secs_f64(), &wanted);
    let mut section = report.section("a request of the status", "ms", place.name());
    let median = section.baseline("median", quantile(&latencies, 0.5));
    section.add("99 of 100", quantile(&latencies, 0.99), &median);
    Ok(())
}

/// How fast the backfill advances.
async fn rate(database: &Database, place: &Place) -> Outcome<f64> {
    let (since, before) = (Instant::now(), position(database, place).await?);
    tokio::time::sleep(TIME).await;
    let after = position(database, place).await?;
    Ok((after - before) as f64 / since.elapsed().as_secs_f64())
}

/// The rows that are done.
async fn position(database: &Database, place: &Place) -> Outcome<i64> {
    let done = match place {
        Place::Sqlite { .. } => "json_extract(progress_json, '$.items')",
        Place::Postgres { .. } => "CAST(CAST(progress_json AS json) ->> 'items' AS bigint)",
    };
    let done = database.number(&format!("SELECT min({done}) FROM background_updates")).await?;
    done.ok_or_else(|| "the backfill does not run while it is measured".into())
}

/// Asks for [`TIME`]: the answers, what each took in milliseconds, and how long it was in all.
async fn ask(address: String) -> Outcome<(Arc<Answers>, Vec<f64>, Duration)> {
    // An error only says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (answers, began) = (Arc::new(Answers::default()), Instant::now());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(one_client(format!("{address}{STATUS}"), Arc::clone(&answers), began)))
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    Ok((answers, latencies, began.elapsed()))
}

async fn one_client(url: String, answers: Arc<Answers>, began: Instant) -> Outcome<Vec<f64>> {
    let client = Client::builder().pool_max_idle_per_host(1).build()?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) * CLIENTS / RATE);
    // What is late is made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut latencies = Vec::new();
    while began.elapsed() < TIME {
        ticks.tick().await;
        let asked = Instant::now();
        let answer = async {
            let answer = client.get(&url).bearer_auth(TOKEN).send().await?.error_for_status()?;
            answer.bytes().await
        };
        let count = if answer.await.is_ok() { &answers.good } else { &answers.bad };
        count.fetch_add(1, Ordering::Relaxed);
        latencies.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    Ok(latencies)
}

/// The address that a host says it listens on. What else it says is read and forgotten, so that it never waits for a
/// reader.
fn address(stderr: Option<ChildStderr>) -> Outcome<String> {
    let mut lines = BufReader::new(stderr.ok_or("tidegate's errors are not to be had")?).lines();
    let said = "the API listens on ";
    let mut heard = Vec::new();
    for line in &mut lines {
        let line = line?;
        if let Some((_, address)) = line.split_once(said) {
            let address = address.split_whitespace().next().unwrap_or_default().to_owned();
            std::thread::spawn(move || lines.for_each(drop));
            return Ok(address);
        }
        heard.push(line);
    }
    Err(format!("tidegate ended before it listened: {}", heard.join("\n")).into())
}

fn configured(url: &str, place: &Place) -> Outcome<String> {
    // Some 50 µs a row, so that the rows last; it depends on the row, lest it be reckoned once for all of them.
    let cost = match place {
        Place::Sqlite { .. } => {
            "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500 + id % 2) SELECT sum(i) FROM n)"
        }
        Place::Postgres { .. } => "(SELECT sum(i) FROM generate_series(1, 500 + id % 2) AS n(i))",
    };
    // Text in TOML is quoted as JSON quotes it.
    let quoted = |text: &str| serde_json::to_string(text);
    Ok(format!(
        "[background_updates]\nbackground_update_duration_ms = 100\nsleep_duration_ms = 100\n\
         [admin]\nlisten = [\"127.0.0.1:0\"]\n\
         [[admin.token]]\nname = \"bench\"\nrole = \"admin\"\nsha256 = \"{}\"\n\
         [[database]]\nurl = {}\n\
         [[update]]\nname = \"bench\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = {}\n",
        hex(&digest(TOKEN)),
        quoted(url)?,
        quoted(&format!("b = upper(a) || {cost}"))?,
    ))
}
