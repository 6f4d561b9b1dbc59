//! Rows made by a program, beside the same backfill in SQL and a bare loop over the same driver.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::update::{Cell, RowFunction, RowOutcome, Transform, TransformDefinition, Transformer};
use tidegate_wasm::{ComponentTransformer, HandlerLimits, HandlerOptions, LoadOptions};

use super::backfill::{check, prepare};
use super::place::{Database, Place, fill_b, host};
use super::report::{Asked, FiguresReport};
use super::work::{awake, run};
use super::{Outcome, component, median};

const TARGET: Duration = Duration::from_millis(100);
/// The rows of the bare loop's batches.
const SIZE: i64 = 20_000;
/// Each is measured so many times, in turn with the others; the median counts.
const ROUNDS: usize = 3;

/// Who does all the rows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Runner {
    Backfill,
    Bare,
    Component,
    Function,
}

impl Runner {
    const ALL: [Self; 4] = [Self::Backfill, Self::Bare, Self::Component, Self::Function];

    fn name(self) -> &'static str {
        match self {
            Self::Backfill => "backfill in SQL",
            Self::Bare => "bare loop of 20000",
            Self::Component => "transform, component in Rust",
            Self::Function => "transform, function of the program",
        }
    }
}

pub(super) async fn measure(report: &mut FiguresReport, place: &Place, rows: i64) -> Outcome<()> {
    let database = place.fresh().await?;
    let mut rates = [const { Vec::new() }; Runner::ALL.len()];
    for _ in 0..ROUNDS {
        for (runner, rates) in Runner::ALL.iter().zip(&mut rates) {
            prepare(&database, rows).await?;
            rates.push(rows as f64 / once(&database, *runner).await?.as_secs_f64());
        }
    }
    let mut section = report.section("transform", "rows/s", place.name());
    let mut figures = Runner::ALL.into_iter().zip(&rates).map(|(runner, rates)| (runner, median(rates)));
    let Some((first, rate)) = figures.next() else { return Ok(()) };
    let baseline = section.baseline(first.name(), rate);
    for (runner, rate) in figures {
        let figure = section.add(runner.name(), rate, &baseline);
        if runner == Runner::Component {
            let least = if matches!(place, Place::Postgres { .. }) { 0.5 } else { 0.6 };
            figure.asked(Asked::RatioAtLeast(least));
        }
    }
    Ok(())
}

/// Has all rows done: how long it took.
async fn once(database: &Database, runner: Runner) -> Outcome<Duration> {
    let transformer: Arc<dyn Transformer> = match runner {
        Runner::Bare => {
            let bare = database.bare().await?;
            let began = Instant::now();
            bare.fill(SIZE, || ()).await?;
            return Ok(began.elapsed());
        }
        Runner::Backfill => {
            let (_, took) = run(host(database.spec(awake(TARGET)).update("bench", fill_b())).build()?).await?;
            check(database).await?;
            return Ok(took);
        }
        Runner::Component => Arc::new(upper()?),
        Runner::Function => Arc::new(RowFunction::new("upper", |row: &[Cell]| match row {
            [Cell::Text(text)] => RowOutcome::Write(vec![Cell::Text(text.to_uppercase())]),
            _ => RowOutcome::Fail("a text was to be read".to_owned()),
        })),
    };
    let definition = TransformDefinition {
        table: "items".into(),
        key: vec!["id".to_owned()],
        read: vec!["a".to_owned()],
        write: vec!["b".to_owned()],
        filter: None,
        settings: Vec::new(),
    };
    transformer.prepare().await.map_err(|fault| fault.message)?;
    let handler = Transform::new(definition, transformer);
    let (_, took) = run(host(database.spec(awake(TARGET)).update("bench", handler)).build()?).await?;
    check(database).await?;
    Ok(took)
}

fn upper() -> Outcome<ComponentTransformer> {
    let options = HandlerOptions {
        update_name: "bench".to_owned(),
        database_name: "master".to_owned(),
        settings: Vec::new(),
        impure: false,
        load: LoadOptions::default(),
        limits: HandlerLimits::default(),
        log: None,
    };
    Ok(ComponentTransformer::new(&component("rust-upper")?, options))
}
