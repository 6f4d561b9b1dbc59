//! How many iterations it takes until batches fit their target again, after the cost of an item has changed.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, json};
use tidegate::controller::SupervisorSettings;
use tidegate::pace::{BatchSize, Estimator, Shrink, Synapse};
use tidegate::update::sql::{Sql, System, Value};
use tidegate::update::{Budget, Handler, Mode, Next, Progress, Step, UpdateError};

use super::Outcome;
use super::place::{Place, host};
use super::report::Report;
use super::work::{awake, run};

const TARGET: Duration = Duration::from_millis(50);
/// An item costs this many units of work; ten times as many in between.
const CHEAP: u64 = 1;
const DEAR: u64 = 10;
/// The iterations of the dear items; those before find the pace.
const DEAR_ITERATIONS: Range<usize> = 40..100;
/// When the update ends.
const ITERATIONS: usize = 180;
/// How near to its target a batch has to end, as a part of it.
const NEAR: f64 = 0.2;

fn cost(iteration: usize) -> u64 {
    if DEAR_ITERATIONS.contains(&iteration) { DEAR } else { CHEAP }
}

/// Has the database count, so long for each item.
struct Counting {
    iteration: AtomicUsize,
}

#[async_trait]
impl Handler for Counting {
    fn mode(&self, _: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::Batched)
    }

    async fn run(&self, sql: &mut dyn Sql, _: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let iteration = self.iteration.fetch_add(1, Ordering::Relaxed);
        let units = i64::try_from(budget.items * cost(iteration)).unwrap_or(i64::MAX);
        // A unit is a thousand rows: some tens of microseconds.
        let statement = match sql.dialect().system() {
            System::Sqlite => {
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1 * 1000) \
                 SELECT count(*) FROM n"
            }
            System::Postgres => {
                "SELECT count(*) FROM generate_series(1, $1::bigint) AS n, generate_series(1, 1000) AS m"
            }
        };
        sql.query(statement, &[Value::Integer(units)]).await?;
        let next = match iteration + 1 {
            ITERATIONS => Next::Finished,
            done => Next::Continue(Progress(Map::from_iter([("n".to_owned(), json!(done))]))),
        };
        Ok(Step::new(budget.items, next))
    }
}

pub(super) async fn measure(report: &mut Report, place: &Place) -> Outcome<()> {
    let database = place.fresh().await?;
    database.enqueue("bench").await?;
    let supervision = SupervisorSettings {
        builtin: awake(TARGET),
        default_batch_size: 10,
        min_batch_size: 1,
        ..SupervisorSettings::default()
    };
    let counting = Counting { iteration: AtomicUsize::new(0) };
    let spec = database.spec(awake(TARGET)).supervision(supervision).update("bench", counting);
    let (records, _) = run(host(spec).build()?).await?;
    let durations: Vec<f64> = records.iter().map(|record| record.duration_ms).collect();
    let exact = without_noise();

    let (up, down) = (DEAR_ITERATIONS.start, DEAR_ITERATIONS.end);
    for (figure, from, to) in
        [("back within 20 %, cost times 10", up, down), ("back within 20 %, cost by 10", down, ITERATIONS)]
    {
        let mut section = report.section(figure, "iterations", place.name());
        let baseline = section.baseline("Synapse's formula, costs without noise", until_near(&exact, from..to));
        section.add("tidegate, built-in policy", until_near(&durations, from..to), &baseline);
    }
    Ok(())
}

/// Durations in milliseconds as they would be if an item always cost the same, by the formula that the host uses.
fn without_noise() -> Vec<f64> {
    let mut rate = Synapse::default();
    let mut durations = Vec::new();
    for iteration in 0..ITERATIONS {
        let size =
            rate.items_within(TARGET).map_or(BatchSize::First(10), |fitting| BatchSize::Later { fitting, min: 1 });
        let items = size.items(1_000_000, Shrink::default());
        let took = Duration::from_micros(50) * u32::try_from(items * cost(iteration)).unwrap_or(u32::MAX);
        rate.record(items, took);
        durations.push(took.as_secs_f64() * 1e3);
    }
    durations
}

/// The number of the first iteration of those that is near the target, from 1; not a number where none is.
fn until_near(durations: &[f64], iterations: Range<usize>) -> f64 {
    let target = TARGET.as_secs_f64() * 1e3;
    let near = |took: &f64| (took - target).abs() / target <= NEAR;
    let found = durations.get(iterations).and_then(|durations| durations.iter().position(near));
    found.map_or(f64::NAN, |index| index as f64 + 1.0)
}
