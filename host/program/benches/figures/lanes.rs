//! Two lanes beside one: a backfill while an index is built, and how long both take.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use tidegate::Host;
use tidegate::scheduler::event::EventKind;
use tidegate::update::sql::System as Dialects;
use tidegate::update::{CreateIndex, CreateIndexDefinition, IndexParts};
use tokio::sync::broadcast::error::RecvError;

use super::place::{Database, Place, fill_b, host};
use super::report::FiguresReport;
use super::work::{awake, done};
use super::{Outcome, median};

const TARGET: Duration = Duration::from_millis(100);
/// Each is measured so many times, in turn with the others; the median counts.
const ROUNDS: usize = 3;

/// What a host does.
#[derive(Debug, Clone, Copy)]
enum Work {
    Backfill,
    Index,
    /// The index, then the backfill.
    OneLane,
    TwoLanes,
}

pub(super) async fn measure(report: &mut FiguresReport, place: &Place, rows: i64) -> Outcome<()> {
    let database = place.fresh().await?;
    let all = [Work::Backfill, Work::Index, Work::OneLane, Work::TwoLanes];
    // The backfill's rate, and how long all took.
    let mut seen = [const { (Vec::new(), Vec::new()) }; 4];
    for _ in 0..ROUNDS {
        for (work, (rates, durations)) in all.iter().zip(&mut seen) {
            database.make_items(rows).await?;
            let (backfill, whole) = once(&database, place, *work).await?;
            rates.push(backfill.map_or(f64::NAN, |took| rows as f64 / took.as_secs_f64()));
            durations.push(whole.as_secs_f64());
        }
    }
    let [alone, index, one, two] = seen.map(|(rates, durations)| (median(&rates), median(&durations)));
    let mut section = report.section("a backfill, target 100 ms", "rows/s", place.name());
    let baseline = section.baseline("alone", alone.0);
    section.add("behind an index build in its lane, once that is over", one.0, &baseline);
    section.add("beside an index build in another lane", two.0, &baseline);
    let mut section = report.section("an index build and a backfill, until both are done", "s", place.name());
    section.baseline("the index alone", index.1);
    section.baseline("the backfill alone", alone.1);
    let baseline = section.baseline("in one lane", one.1);
    section.add("in two lanes", two.1, &baseline);
    Ok(())
}

/// Does some work: how long the backfill took, and how long all did.
async fn once(database: &Database, place: &Place, work: Work) -> Outcome<(Option<Duration>, Duration)> {
    let mut spec = database.spec(awake(TARGET));
    let mut queue = "DELETE FROM background_updates;".to_owned();
    let mut enqueue = |name: &str, ordering: u8| {
        queue += &format!("INSERT INTO background_updates VALUES ('{name}', '{{}}', NULL, {ordering});");
    };
    if !matches!(work, Work::Index) {
        enqueue("bench", 1);
        spec = spec.update("bench", fill_b());
    }
    if !matches!(work, Work::Backfill) {
        enqueue("index", 0);
        let definition = CreateIndexDefinition {
            table: "items".into(),
            index: "items_by_a".to_owned(),
            parts: IndexParts::Columns(vec!["a".to_owned()]),
            unique: false,
            filter: None,
            replaces: None,
            postgres_only: false,
        };
        let system = if matches!(place, Place::Sqlite { .. }) { Dialects::Sqlite } else { Dialects::Postgres };
        spec = spec.update("index", CreateIndex::new(definition, system));
    }
    if matches!(work, Work::TwoLanes) {
        spec = spec.lane("index", "indexes");
    }
    database.run(&queue, &queue).await?;
    let spans = spans(host(spec).build()?).await?;
    let began = spans.values().map(|(began, _)| *began).min();
    let ended = spans.values().map(|(_, ended)| *ended).max();
    let (began, ended) = began.zip(ended).ok_or("nothing was done")?;
    let backfill = spans.get("bench").map(|(began, ended)| ended.duration_since(*began)).transpose()?;
    Ok((backfill, ended.duration_since(began)?))
}

/// Runs a host to its end: when each update began and ended.
async fn spans(host: Host) -> Outcome<HashMap<String, (SystemTime, SystemTime)>> {
    let mut events = host.events().subscribe();
    let gathering = tokio::spawn(async move {
        let mut spans = HashMap::new();
        loop {
            let event = match events.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return spans,
            };
            match &event.kind {
                EventKind::BatchStarted { update_name, .. } => {
                    spans.entry(update_name.clone()).or_insert((event.at, event.at));
                }
                EventKind::UpdateFinished { update_name } => {
                    spans.entry(update_name.clone()).or_insert((event.at, event.at)).1 = event.at;
                }
                _ => {}
            }
        }
    });
    done(&host.run(std::future::pending()).await)?;
    Ok(gathering.await?)
}
