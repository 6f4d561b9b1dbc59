//! A backfill: how fast it is, and how well it keeps to its target.

use std::time::{Duration, Instant};

use super::place::{Database, Place, fill_b, host};
use super::report::{Asked, Baseline, FiguresReport};
use super::work::{Again, awake, run};
use super::{Outcome, median, quantile};

const TARGET: Duration = Duration::from_millis(100);
/// One that leaves next to nothing of what a batch costs by itself.
const LONG_TARGET: Duration = Duration::from_secs(1);
/// The sizes of the bare loops' batches, in rows.
const SIZES: [i64; 5] = [1_000, 5_000, 20_000, 100_000, 300_000];
/// Each backfill is measured so many times, in turn with the others; the median counts.
const ROUNDS: usize = 3;
/// How long the backfill is repeated to see how well it keeps to its target: some 80 batches.
const TRACKED: Duration = Duration::from_secs(8);
/// The first batches, in which the pace is found, are not counted.
const FINDING: usize = 10;

/// Who does all the rows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Runner {
    /// One statement.
    AtOnce,
    /// Batches of so many rows.
    Bare(i64),
    /// A host with this target.
    Host(Duration),
}

impl Runner {
    fn name(self) -> String {
        match self {
            Runner::AtOnce => "one UPDATE".to_owned(),
            Runner::Bare(size) => format!("bare loop of {size}"),
            Runner::Host(target) => format!("tidegate, target {} ms", target.as_millis()),
        }
    }
}

pub(super) async fn measure(report: &mut FiguresReport, place: &Place, rows: i64) -> Outcome<()> {
    let database = place.fresh().await?;
    let runners: Vec<Runner> = [Runner::AtOnce]
        .into_iter()
        .chain(SIZES.map(Runner::Bare))
        .chain([TARGET, LONG_TARGET].map(Runner::Host))
        .collect();
    let mut rates = vec![Vec::new(); runners.len()];
    let mut batches = Vec::new();
    for _ in 0..ROUNDS {
        batches.clear();
        for (runner, rates) in runners.iter().zip(&mut rates) {
            prepare(&database, rows).await?;
            let (took, durations) = once(&database, *runner).await?;
            rates.push(rows as f64 / took.as_secs_f64());
            if let Runner::Bare(size) = runner {
                batches.push((*size, durations));
            }
        }
    }
    let rate = |wanted: Runner| {
        let found = runners.iter().zip(&rates).find(|(runner, _)| **runner == wanted);
        found.map_or(f64::NAN, |(_, rates)| median(rates))
    };

    let mut section = report.section("backfill", "rows/s", place.name());
    let at_once = section.baseline(&Runner::AtOnce.name(), rate(Runner::AtOnce));
    let mut best = at_once.clone();
    for size in SIZES {
        let (name, rate) = (Runner::Bare(size).name(), rate(Runner::Bare(size)));
        section.add(&name, rate, &at_once);
        if best.name == at_once.name || rate > best.value {
            best = Baseline { name, value: rate };
        }
    }
    let [short, long] = [TARGET, LONG_TARGET].map(Runner::Host);
    section.add(short.name(), rate(short), &best).asked(Asked::RatioAtLeast(0.95));
    section.add(short.name(), rate(short), &at_once);
    let beside_one = section.add(long.name(), rate(long), &at_once);
    if let Place::Postgres { .. } = place {
        beside_one.asked(Asked::RatioAtLeast(0.9));
    }
    track(report, place, &database, batches).await
}

/// Has all rows done: how long it took, and each batch of a bare loop.
async fn once(database: &Database, runner: Runner) -> Outcome<(Duration, Vec<Duration>)> {
    match runner {
        Runner::AtOnce => {
            let bare = database.bare().await?;
            let began = Instant::now();
            bare.fill_at_once().await?;
            Ok((began.elapsed(), Vec::new()))
        }
        Runner::Bare(size) => {
            let bare = database.bare().await?;
            let began = Instant::now();
            let mut durations = bare.fill(size, || ()).await?;
            let took = began.elapsed();
            // The last batch finds that nothing is left.
            durations.pop();
            Ok((took, durations))
        }
        Runner::Host(target) => {
            let (_, took) = run(host(database.spec(awake(target)).update("bench", fill_b())).build()?).await?;
            check(database).await?;
            Ok((took, Vec::new()))
        }
    }
}

pub(super) async fn prepare(database: &Database, rows: i64) -> Outcome<()> {
    database.make_items(rows).await?;
    database.enqueue("bench").await
}

/// A rate of work that was not done would be worth nothing.
pub(super) async fn check(database: &Database) -> Outcome<()> {
    match database.number("SELECT count(*) FROM items WHERE b IS NULL OR b <> upper(a)").await? {
        Some(0) => Ok(()),
        wrong => Err(format!("the backfill left {wrong:?} rows out").into()),
    }
}

/// How far from its target a batch ends, beside how far from its usual duration a batch of always the same size ends.
async fn track(
    report: &mut FiguresReport,
    place: &Place,
    database: &Database,
    loops: Vec<(i64, Vec<Duration>)>,
) -> Outcome<()> {
    database.enqueue("bench").await?;
    let again = Again::new(fill_b(), TRACKED);
    let (records, _) = run(host(database.spec(awake(TARGET)).update("bench", again)).build()?).await?;
    // The last batch of each round has fewer rows than were asked for.
    let whole = records.iter().skip(FINDING).filter(|record| record.items == record.batch_size);
    let target = TARGET.as_secs_f64() * 1e3;
    let errors: Vec<f64> = whole.map(|record| (record.duration_ms - target).abs() / target * 100.0).collect();

    let usual = |durations: &[Duration]| median(&seconds(durations));
    let apart = |durations: &[Duration]| (usual(durations) / TARGET.as_secs_f64()).ln().abs();
    let nearest = loops.into_iter().filter(|(_, durations)| durations.len() >= FINDING);
    let nearest = nearest.min_by(|(_, one), (_, other)| apart(one).total_cmp(&apart(other)));
    let (size, durations) = nearest.ok_or("there are too few rows to see how well the target is kept")?;
    let usual = usual(&durations);
    let spread: Vec<f64> = seconds(&durations).iter().map(|took| (took - usual).abs() / usual * 100.0).collect();

    for (figure, part, most) in [("off the target, median", 0.5, 5.0), ("off the target, 95th percentile", 0.95, 15.0)]
    {
        let mut section = report.section(figure, "%", place.name());
        let name = format!("bare loop of {size}, off its median ({} batches)", spread.len());
        let baseline = section.baseline(&name, quantile(&spread, part));
        let name = format!("tidegate, target 100 ms ({} batches)", errors.len());
        section.add(name, quantile(&errors, part), &baseline).asked(Asked::ValueAtMost(most));
    }
    Ok(())
}

fn seconds(durations: &[Duration]) -> Vec<f64> {
    durations.iter().map(Duration::as_secs_f64).collect()
}
