//! A backfill: how fast it is, and how well it keeps to its target.

use std::time::{Duration, Instant};

use super::place::{Database, Place, fill_b, host};
use super::report::Report;
use super::work::{Again, awake, run};
use super::{Outcome, median, quantile};

const TARGET: Duration = Duration::from_millis(100);
/// The sizes of the bare loops' batches, in rows.
const SIZES: [i64; 3] = [1_000, 10_000, 100_000];
/// How long the backfill is repeated to see how well it keeps to its target: some 80 batches.
const TRACKED: Duration = Duration::from_secs(8);
/// The first batches, in which the pace is found, are not counted.
const FINDING: usize = 10;

pub(super) async fn measure(report: &mut Report, place: &Place, rows: i64) -> Outcome<()> {
    let database = place.fresh().await?;
    let per_second = |took: Duration| rows as f64 / took.as_secs_f64();

    prepare(&database, rows).await?;
    let bare = database.bare().await?;
    let began = Instant::now();
    bare.fill_at_once().await?;
    let at_once = per_second(began.elapsed());

    let mut loops = Vec::new();
    for size in SIZES {
        prepare(&database, rows).await?;
        let began = Instant::now();
        let mut durations = bare.fill(size, || ()).await?;
        let took = began.elapsed();
        // The last batch finds that nothing is left.
        durations.pop();
        loops.push((size, per_second(took), durations));
    }
    drop(bare);

    prepare(&database, rows).await?;
    let (_, took) = run(host(database.spec(awake(TARGET)).update("bench", fill_b())).build()?).await?;
    check(&database).await?;

    let mut section = report.section("backfill", "rows/s", place.name());
    let baseline = section.baseline("one UPDATE", at_once);
    let mut best = baseline.clone();
    for (size, rate, _) in &loops {
        let name = format!("bare loop of {size}");
        section.add(&name, *rate, &baseline);
        if best.name == baseline.name || *rate > best.value {
            best = super::report::Baseline { name, value: *rate };
        }
    }
    section.add("tidegate, target 100 ms", per_second(took), &baseline);
    section.add("tidegate, target 100 ms", per_second(took), &best);

    track(report, place, &database, loops.into_iter().map(|(size, _, durations)| (size, durations)).collect()).await
}

async fn prepare(database: &Database, rows: i64) -> Outcome<()> {
    database.make_items(rows).await?;
    database.enqueue("bench").await
}

/// A rate of work that was not done would be worth nothing.
async fn check(database: &Database) -> Outcome<()> {
    match database.number("SELECT count(*) FROM items WHERE b IS NULL OR b <> upper(a)").await? {
        Some(0) => Ok(()),
        wrong => Err(format!("the backfill left {wrong:?} rows out").into()),
    }
}

/// How far from its target a batch ends, beside how far from its usual duration a batch of always the same size ends.
async fn track(
    report: &mut Report,
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

    for (figure, part) in [("off the target, median", 0.5), ("off the target, 95th percentile", 0.95)] {
        let mut section = report.section(figure, "%", place.name());
        let name = format!("bare loop of {size}, off its median ({} batches)", spread.len());
        let baseline = section.baseline(&name, quantile(&spread, part));
        let name = format!("tidegate, target 100 ms ({} batches)", errors.len());
        section.add(name, quantile(&errors, part), &baseline);
    }
    Ok(())
}

fn seconds(durations: &[Duration]) -> Vec<f64> {
    durations.iter().map(Duration::as_secs_f64).collect()
}
