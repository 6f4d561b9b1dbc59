//! What an iteration costs beside its work.

use std::sync::PoisonError;
use std::time::Duration;

use tidegate::DatabaseSpec;

use super::bare::{Statements, Trips};
use super::place::{Database, Place, host};
use super::report::{Asked, FiguresReport};
use super::work::{Idle, awake, controller, done};
use super::{Outcome, median};

/// Each loop is measured so many times, in turn with the others; the median counts.
const ROUNDS: usize = 3;
/// What comes before is not counted: connections, prepared statements, the processor's caches.
const WARM_UP: Duration = Duration::from_millis(200);
/// The target of batches that have nothing to do.
const TARGET: Duration = Duration::from_millis(100);

/// Who runs the loop.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Runner {
    /// The statements of a host.
    Bare,
    /// The least that there can be.
    Least(Trips),
    BuiltIn,
    Component(&'static str),
}

impl Runner {
    fn name(self) -> String {
        match self {
            Runner::Bare => "bare loop, the same statements".to_owned(),
            Runner::Least(Trips::One) => "bare loop, the least, 1 trip".to_owned(),
            Runner::Least(Trips::Two) => "bare loop, the least, 2 trips".to_owned(),
            Runner::Least(Trips::Four) => "bare loop, the least, 4 trips".to_owned(),
            Runner::BuiltIn => "tidegate, built-in policy".to_owned(),
            Runner::Component(name) => format!("tidegate, {name}"),
        }
    }
}

pub(super) async fn measure(report: &mut FiguresReport, place: &Place, time: Duration, of: &str) -> Outcome<()> {
    let mut runners = vec![
        Runner::Bare,
        Runner::BuiltIn,
        Runner::Component("rust-steady"),
        Runner::Component("c-fixed"),
        Runner::Least(Trips::Two),
        Runner::Least(Trips::Four),
    ];
    if matches!(place, Place::Sqlite { .. }) {
        runners.push(Runner::Least(Trips::One));
    }
    runners.retain(|runner| runner.name().contains(of));
    let mut rounds: Vec<Vec<f64>> = vec![Vec::new(); runners.len()];
    for _ in 0..ROUNDS {
        for (runner, micros) in runners.iter().zip(&mut rounds) {
            micros.push(once(place, *runner, time).await?.as_secs_f64() * 1e6);
        }
    }
    let mut measured = runners.iter().zip(&rounds).map(|(runner, micros)| (*runner, median(micros)));
    let mut section = report.section("an iteration that does nothing", "µs", place.name());
    let Some((first, value)) = measured.next() else { return Ok(()) };
    let baseline = section.baseline(&first.name(), value);
    for (runner, value) in measured {
        let figure = section.add(runner.name(), value, &baseline);
        if let Runner::Component(_) = runner {
            figure.asked(Asked::RatioAtMost(1.1));
        }
    }
    Ok(())
}

/// How long an iteration took.
async fn once(place: &Place, runner: Runner, time: Duration) -> Outcome<Duration> {
    let database = place.fresh().await?;
    // A host's tables, where the history goes.
    done(&host(database.spec(awake(TARGET))).build()?.run(std::future::pending()).await)?;
    database.enqueue("bench").await?;
    match runner {
        Runner::Bare => database.bare().await?.iterate(Trips::Two, Statements::Host, WARM_UP, time).await,
        Runner::Least(trips) => database.bare().await?.iterate(trips, Statements::Least, WARM_UP, time).await,
        Runner::BuiltIn => hosted(&database, |spec| spec, time).await,
        Runner::Component(name) => {
            let source = controller(name).await?;
            hosted(&database, |spec| spec.controller(source), time).await
        }
    }
}

async fn hosted(
    database: &Database,
    change: impl FnOnce(DatabaseSpec) -> DatabaseSpec,
    time: Duration,
) -> Outcome<Duration> {
    let (idle, seen) = Idle::new(WARM_UP, time);
    let spec = change(database.spec(awake(TARGET)).update("bench", idle));
    // Nobody listens to the events: a listener's work would be counted as the host's.
    done(&host(spec).max_batch_size(1).build()?.run(std::future::pending()).await)?;
    let each = seen.lock().unwrap_or_else(PoisonError::into_inner).each;
    Ok(each.ok_or("the update ended before its time")?)
}
