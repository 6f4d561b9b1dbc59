//! What more rows cost, and more databases in one host.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Map, json};
use tidegate::controller::{BuiltIn, SupervisorSettings};
use tidegate::update::sql::Sql;
use tidegate::update::{Budget, Handler, Mode, Next, Progress, Step, UpdateError};
use tidegate::{DatabaseSpec, Host};
use tidegate_database::Url;
use tidegate_wasm::{Artifact, ComponentSource, LoadOptions};

use super::place::{Place, fill_b, host};
use super::processes::memory;
use super::report::{Asked, Baseline, FiguresReport};
use super::work::{awake, done, run};
use super::{Outcome, component, median};

/// Rows of a table, and how often its backfill is measured.
const TABLES: [(i64, usize); 4] = [(10_000, 15), (100_000, 7), (1_000_000, 3), (10_000_000, 1)];
/// The rows of a batch: the same for each table, so that what a batch costs by itself falls upon as many.
const BATCH: u32 = 1_000;
/// How much more a row may cost in one table than in another.
const FLAT: f64 = 1.15;
const TARGET: Duration = Duration::from_millis(100);

/// What a row costs in tables of each size. The first batch, which looks at the table as a whole, is not counted.
pub(super) async fn rows(report: &mut FiguresReport, place: &Place) -> Outcome<()> {
    let database = place.fresh().await?;
    let mut measured = Vec::new();
    for (rows, rounds) in TABLES {
        let each = |batches: &[f64]| batches.iter().sum::<f64>() * 1e9 / (batches.len() as f64 * f64::from(BATCH));
        let (mut bare, mut hosted) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            database.make_items(rows).await?;
            database.enqueue("bench").await?;
            let batches = database.bare().await?.fill(BATCH.into(), || ()).await?;
            let batches: Vec<f64> = batches.iter().map(Duration::as_secs_f64).collect();
            bare.push(each(batches.get(1..batches.len() - 1).unwrap_or_default()));
            database.make_items(rows).await?;
            database.enqueue("bench").await?;
            let supervision =
                SupervisorSettings { builtin: awake(TARGET), default_batch_size: BATCH, ..Default::default() };
            let spec = database.spec(awake(TARGET)).supervision(supervision).update("bench", fill_b());
            let (records, _) = run(host(spec).max_batch_size(BATCH.into()).build()?).await?;
            let whole = records.iter().skip(1).filter(|record| record.items == u64::from(BATCH));
            hosted.push(each(&whole.map(|record| record.duration_ms / 1e3).collect::<Vec<_>>()));
        }
        measured.push((rows, median(&bare), median(&hosted)));
    }
    database.run("DROP TABLE items", "DROP TABLE items").await?;
    let mut section = report.section("a row of a backfill in batches of 1000", "ns", place.name());
    let least = measured.iter().map(|(.., hosted)| *hosted).fold(f64::INFINITY, f64::min);
    let least = Baseline { name: "the least of them".to_owned(), value: least };
    for (rows, _, hosted) in &measured {
        section.add(format!("of {rows} rows"), *hosted, &least).asked(Asked::RatioAtMost(FLAT));
    }
    for (rows, bare, hosted) in &measured {
        let baseline = section.baseline(&format!("bare loop, of {rows} rows"), *bare);
        section.add(format!("of {rows} rows"), *hosted, &baseline);
    }
    Ok(())
}

/// What a controller of a crowd has its databases sleep between batches.
const SLEEP_MS: u64 = 1_000;
/// How long a crowd is measured.
const TIME: Duration = Duration::from_secs(8);
/// How long its databases may take until each has run a batch.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a host costs that works on many databases, each with a controller.
pub(super) async fn databases(report: &mut FiguresReport, place: &Place) -> Outcome<()> {
    let counts: &[usize] = match place {
        Place::Sqlite { .. } => &[1, 10, 100, 1_000],
        // Each has four connections.
        Place::Postgres { .. } => &[1, 10, 50],
    };
    let (mut memory, mut at_rest, mut awake) = (Vec::new(), Vec::new(), Vec::new());
    for count in counts {
        let resting = a_crowd(place, *count, SLEEP_MS).await?;
        memory.push(resting.resident);
        at_rest.push(resting.iterations / *count as f64);
        awake.push(a_crowd(place, *count, 0).await?.iterations);
    }
    for (figure, unit, values) in [
        ("a host of several databases: resident memory", "MiB", memory),
        ("... iterations of each, sleeping 1 s", "1/s", at_rest),
        ("... iterations of all together, without sleep", "1/s", awake),
    ] {
        let mut section = report.section(figure, unit, place.name());
        let mut all = counts.iter().zip(values);
        let Some((_, one)) = all.next() else { continue };
        let baseline = section.baseline("1 database", one);
        for (count, value) in all {
            section.add(format!("{count} databases"), value, &baseline);
        }
    }
    Ok(())
}

/// What was seen of a host of several databases.
struct Seen {
    /// Iterations a second, of all its databases.
    iterations: f64,
    /// Its resident memory, in MiB.
    resident: f64,
}

/// Starts this program as the host of so many databases.
async fn a_crowd(place: &Place, count: usize, sleep_ms: u64) -> Outcome<Seen> {
    let (urls, folder) = place.several(count).await?;
    let list = tempfile::NamedTempFile::new()?;
    std::fs::write(list.path(), urls.join("\n"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--crowd").arg(list.path()).args(["--sleep-ms", &sleep_ms.to_string()]);
    let output = command.output()?;
    drop(folder);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |name: &str| -> Outcome<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.ok_or_else(|| format!("a host of {count} databases failed: {text}"))?.trim().parse()?)
    };
    Ok(Seen { iterations: number("iterations")?, resident: number("resident")? })
}

/// What this program does as that host.
pub(super) async fn crowd(list: &Path, sleep_ms: u64) -> Outcome<()> {
    let urls = std::fs::read_to_string(list)?;
    let artifact = Artifact::load(&component("rust-steady")?, &LoadOptions::default()).await?;
    let counted = Arc::new(Counted::default());
    let mut host = Host::builder().until_done().max_batch_size(1);
    let mut each = Vec::new();
    for (number, url) in urls.lines().enumerate() {
        let settings = match sleep_ms {
            0 => vec![("sleep_enabled".to_owned(), "false".to_owned())],
            _ => vec![("sleep_duration_ms".to_owned(), sleep_ms.to_string())],
        };
        let source = ComponentSource::new("rust-steady", Arc::clone(&artifact)).with_settings(settings);
        let update = Counting { counted: Arc::clone(&counted), own: Arc::default() };
        each.push(Arc::clone(&update.own));
        let built_in = BuiltIn { sleep: None, target: TARGET };
        let spec = DatabaseSpec::new(format!("database-{number}"), Url::new(url)).built_in(built_in);
        host = host.database(spec.controller(source).update("bench", update));
    }
    let running = tokio::spawn(host.build()?.run(std::future::pending()));
    let began = Instant::now();
    while !running.is_finished() && each.iter().any(|own| own.load(Ordering::Relaxed) == 0) {
        if began.elapsed() > PATIENCE {
            return Err("not every database has run a batch".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (since, before) = (Instant::now(), counted.iterations.load(Ordering::Relaxed));
    tokio::time::sleep(TIME).await;
    let iterations = counted.iterations.load(Ordering::Relaxed) - before;
    let rate = iterations as f64 / since.elapsed().as_secs_f64();
    let (resident, _) = memory("self")?;
    counted.over.store(true, Ordering::Relaxed);
    done(&running.await?)?;
    println!("iterations {rate}\nresident {resident}");
    Ok(())
}

/// The iterations of several updates.
#[derive(Default)]
struct Counted {
    iterations: AtomicU64,
    over: AtomicBool,
}

/// An update that does nothing but count, until all is over.
struct Counting {
    counted: Arc<Counted>,
    own: Arc<AtomicU64>,
}

#[async_trait]
impl Handler for Counting {
    fn mode(&self, _: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::Batched)
    }

    async fn run(&self, _: &mut dyn Sql, _: &Progress, _: Budget) -> Result<Step, UpdateError> {
        self.counted.iterations.fetch_add(1, Ordering::Relaxed);
        let own = self.own.fetch_add(1, Ordering::Relaxed) + 1;
        if self.counted.over.load(Ordering::Relaxed) {
            return Ok(Step::finished(1));
        }
        let next = Progress(Map::from_iter([("n".to_owned(), json!(own))]));
        Ok(Step::new(1, Next::Continue(next)))
    }
}
