//! How many iterations it takes until batches fit their target again, after the cost of an item has changed.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tidegate::controller::SupervisorSettings;
use tidegate::pace::{BatchSize, Shrink, Synapse};
use tidegate::update::sql::{Sql, System, Value as Bound};
use tidegate::update::{Budget, Handler, Mode, Next, Progress, Step, UpdateError};

use super::Outcome;
use super::place::{Place, host};
use super::report::{Asked, FiguresReport};
use super::work::{awake, run};

const TARGET: Duration = Duration::from_millis(50);
/// An item costs this many units of work; ten times as many in between.
const CHEAP: u64 = 1;
const DEAR: u64 = 10;
/// The items that are dear; those before them find the pace.
const DEAR_ITEMS: Range<u64> = 40_000..46_000;
/// When the update ends.
const ITEMS: u64 = 86_000;
/// How near to its target a batch has to end, as a part of it.
const NEAR: f64 = 0.2;

/// What so many items from one on cost, in units.
fn cost(from: u64, items: u64) -> u64 {
    let until = from.saturating_add(items);
    let dear = until.min(DEAR_ITEMS.end).saturating_sub(from.max(DEAR_ITEMS.start));
    dear * DEAR + (items - dear) * CHEAP
}

/// Has the database count, so long for each item.
struct Counting;

#[async_trait]
impl Handler for Counting {
    fn mode(&self, _: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::Batched)
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let from = progress.0.get("items").and_then(Value::as_u64).unwrap_or_default();
        let units = i64::try_from(cost(from, budget.items)).unwrap_or(i64::MAX);
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
        sql.query(statement, &[Bound::Integer(units)]).await?;
        let done = from + budget.items;
        let next = match done >= ITEMS {
            true => Next::Finished,
            false => Next::Continue(Progress(Map::from_iter([("items".to_owned(), json!(done))]))),
        };
        Ok(Step::new(budget.items, next))
    }
}

pub(super) async fn measure(report: &mut FiguresReport, place: &Place) -> Outcome<()> {
    let database = place.fresh().await?;
    database.enqueue("bench").await?;
    let supervision = SupervisorSettings {
        builtin: awake(TARGET),
        default_batch_size: 10,
        min_batch_size: 1,
        ..SupervisorSettings::default()
    };
    let spec = database.spec(awake(TARGET)).supervision(supervision).update("bench", Counting);
    let (records, _) = run(host(spec).build()?).await?;
    let batches: Vec<(u64, f64)> = records.iter().map(|record| (record.items, record.duration_ms)).collect();
    let exact = without_noise();

    for (figure, jump) in
        [("back within 20 %, cost times 10", DEAR_ITEMS.start), ("back within 20 %, cost by 10", DEAR_ITEMS.end)]
    {
        let mut section = report.section(figure, "iterations", place.name());
        let baseline = section.baseline("Synapse's formula, costs without noise", until_near(&exact, jump));
        let near = until_near(&batches, jump);
        section.add("tidegate, built-in policy", near, &baseline).asked(Asked::ValueAtMost(2.0));
    }
    Ok(())
}

/// Items and durations in milliseconds as they would be if an item always cost the same, by Synapse's formula.
fn without_noise() -> Vec<(u64, f64)> {
    let mut rate = Synapse::default();
    let (mut batches, mut done) = (Vec::new(), 0);
    while done < ITEMS {
        let size =
            rate.items_within(TARGET).map_or(BatchSize::First(10), |fitting| BatchSize::Later { fitting, min: 1 });
        let items = size.items(1_000_000, Shrink::default());
        let took = Duration::from_micros(50) * u32::try_from(cost(done, items)).unwrap_or(u32::MAX);
        rate.record(items, took);
        batches.push((items, took.as_secs_f64() * 1e3));
        done += items;
    }
    batches
}

/// The number of the first batch that is near the target, of those that reach beyond an item, from 1; not a number where
/// none is.
fn until_near(batches: &[(u64, f64)], item: u64) -> f64 {
    let target = TARGET.as_secs_f64() * 1e3;
    let mut done = 0;
    let beyond = batches.iter().filter(|(items, _)| {
        done += items;
        done > item
    });
    let near = |(_, took): &(u64, f64)| (took - target).abs() / target <= NEAR;
    beyond.into_iter().position(near).map_or(f64::NAN, |index| index as f64 + 1.0)
}
