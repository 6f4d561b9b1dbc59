//! Cheap rows before dear ones: the longest batch, and the slowest write of an application meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate::controller::{BuiltIn, SupervisorSettings};
use tidegate::update::{Backfill, BackfillDefinition};
use tokio_postgres::NoTls;

use super::place::{Database, Place, host};
use super::report::{Asked, Baseline, FiguresReport};
use super::work::run;
use super::{Outcome, quantile};

const TARGET: Duration = Duration::from_millis(100);
/// A pause in which somebody who waits for SQLite's lock may, or may not, come by it.
const SLEEP: Duration = Duration::from_millis(10);
/// Rows that cost a microsecond or a few.
const CHEAP: i64 = 900_000;
/// Rows that cost a hundred times as much.
const DEAR: i64 = 40_000;
/// How often the application writes.
const EVERY: Duration = Duration::from_millis(20);

pub(super) async fn measure(report: &mut FiguresReport, place: &Place) -> Outcome<()> {
    let database = place.fresh().await?;
    database.make_items(CHEAP + DEAR).await?;
    let table = "CREATE TABLE app (n INTEGER)";
    database.run(table, table).await?;
    database.enqueue("bench").await?;

    let alone = Application::start(&database);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let alone = alone.end().await?;

    let dear = match place {
        Place::Sqlite { .. } => "length(hex(randomblob(40000 + id % 2)))",
        Place::Postgres { .. } => "length(sha512(convert_to(repeat(a, 3000), 'UTF8'))::text)",
    };
    let backfill = Backfill::new(BackfillDefinition {
        table: "items".into(),
        key: vec!["id".to_owned()],
        set: format!("b = {dear}"),
        filter: Some(format!("id > {CHEAP}")),
    });
    let built_in = BuiltIn { sleep: Some(SLEEP), target: TARGET };
    // The least is for those who want rows done whatever they cost.
    let supervision = SupervisorSettings { builtin: built_in, min_batch_size: 1, ..SupervisorSettings::default() };
    let spec = database.spec(built_in).supervision(supervision).update("bench", backfill);
    let application = Application::start(&database);
    let (records, _) = run(host(spec).build()?).await?;
    let writes = application.end().await?;

    let target = TARGET.as_secs_f64() * 1e3;
    let durations: Vec<f64> = records.iter().map(|record| record.duration_ms).collect();
    let mut section = report.section("cheap rows before dear ones: a batch", "ms", place.name());
    let baseline = Baseline { name: "the target".to_owned(), value: target };
    section.add("the longest", quantile(&durations, 1.0), &baseline).asked(Asked::RatioAtMost(1.5));
    section.add("95 of 100 at most", quantile(&durations, 0.95), &baseline);
    let mut section = report.section("an application's slowest write meanwhile", "ms", place.name());
    let baseline = section.baseline("with nothing else", quantile(&alone, 1.0));
    let slowest = section.add("beside tidegate, sleeping 10 ms", quantile(&writes, 1.0), &baseline);
    slowest.asked(Asked::ValueAtMost(1_000.0));
    Ok(())
}

/// Writes a row now and then, from a thread of its own.
struct Application {
    over: Arc<AtomicBool>,
    writes: tokio::task::JoinHandle<Outcome<Vec<f64>>>,
}

impl Application {
    fn start(database: &Database) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (url, ends) = (database.url.clone(), Arc::clone(&over));
        let writes = match url.strip_prefix("sqlite:").map(str::to_owned) {
            Some(file) => tokio::task::spawn_blocking(move || {
                let connection = rusqlite::Connection::open(file)?;
                connection.busy_timeout(Duration::from_secs(5))?;
                let mut writes = Vec::new();
                while !ends.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    connection.execute("INSERT INTO app VALUES (1)", ())?;
                    writes.push(began.elapsed().as_secs_f64() * 1e3);
                    std::thread::sleep(EVERY);
                }
                Ok(writes)
            }),
            None => tokio::spawn(async move {
                let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
                tokio::spawn(connection);
                let mut writes = Vec::new();
                while !ends.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    client.execute("INSERT INTO app VALUES (1)", &[]).await?;
                    writes.push(began.elapsed().as_secs_f64() * 1e3);
                    tokio::time::sleep(EVERY).await;
                }
                Ok(writes)
            }),
        };
        Self { over, writes }
    }

    /// What each write took, in milliseconds.
    async fn end(self) -> Outcome<Vec<f64>> {
        self.over.store(true, Ordering::Relaxed);
        self.writes.await?
    }
}
