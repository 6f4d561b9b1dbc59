//! Handlers and hosts to measure with.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Map, Value as Json, json};
use tidegate::Host;
use tidegate::controller::BuiltIn;
use tidegate::scheduler::database::Record;
use tidegate::scheduler::event::EventKind;
use tidegate::scheduler::{End, Summary};
use tidegate::update::sql::Sql;
use tidegate::update::{Backfill, Budget, Handler, Mode, Next, Progress, Step, UpdateError};
use tidegate_wasm::{Artifact, ComponentSource, LoadOptions};
use tokio::sync::broadcast::error::RecvError;

use super::{Outcome, component};

/// The built-in policy without its sleep.
pub(super) fn awake(target: Duration) -> BuiltIn {
    BuiltIn { sleep: None, target }
}

/// A component that never waits.
pub(super) async fn controller(name: &str) -> Outcome<ComponentSource> {
    let artifact = Artifact::load(&component(name)?, &LoadOptions::default()).await?;
    Ok(ComponentSource::new(name, artifact).with_settings(without_sleep()))
}

/// The setting by which `rust-steady` does not sleep; `c-fixed` does not know it and does not sleep.
pub(super) fn without_sleep() -> Vec<(String, String)> {
    vec![("sleep_enabled".to_owned(), "false".to_owned())]
}

/// Runs a host to its end; the records of its iterations, and how long it was from the first batch to the last.
pub(super) async fn run(host: Host) -> Outcome<(Vec<Record>, Duration)> {
    let mut events = host.events().subscribe();
    let gathering = tokio::spawn(async move {
        let (mut records, mut began, mut ended) = (Vec::new(), None, None);
        loop {
            let event = match events.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => break,
            };
            match &event.kind {
                EventKind::BatchStarted { .. } if began.is_none() => began = Some(event.at),
                EventKind::IterationEnded { record, .. } => records.push(Record::clone(record)),
                EventKind::UpdateFinished { .. } => ended = Some(event.at),
                _ => {}
            }
        }
        (records, began.zip(ended))
    });
    done(&host.run(std::future::pending()).await)?;
    let (records, span) = gathering.await?;
    let (began, ended) = span.ok_or("no update was finished")?;
    if let Some(failed) = records.iter().find(|record| record.error.is_some()) {
        return Err(format!("an iteration failed: {failed:?}").into());
    }
    Ok((records, ended.duration_since(began)?))
}

/// A figure of a host that failed would be worth nothing.
pub(super) fn done(summaries: &[Summary]) -> Outcome<()> {
    match summaries.iter().find(|summary| summary.end != End::Done { remaining: Vec::new() }) {
        Some(summary) => Err(format!("the host did not do all of its work: {summary:?}").into()),
        None => Ok(()),
    }
}

/// An update that does nothing, for `warm_up` and then for `time`, and takes the time of its iterations.
pub(super) struct Idle {
    warm_up: Duration,
    time: Duration,
    seen: Arc<Mutex<Seen>>,
}

/// What an idle update saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    began: Option<Instant>,
    counted_from: Option<(Instant, u64)>,
    /// How long an iteration took.
    pub(super) each: Option<Duration>,
}

impl Idle {
    pub(super) fn new(warm_up: Duration, time: Duration) -> (Self, Arc<Mutex<Seen>>) {
        let seen = Arc::new(Mutex::new(Seen::default()));
        (Self { warm_up, time, seen: Arc::clone(&seen) }, seen)
    }
}

#[async_trait]
impl Handler for Idle {
    fn mode(&self, _: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::Batched)
    }

    async fn run(&self, _: &mut dyn Sql, progress: &Progress, _: Budget) -> Result<Step, UpdateError> {
        let number = progress.0.get("n").and_then(Json::as_u64).unwrap_or(0);
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let began = *seen.began.get_or_insert(now);
        if seen.counted_from.is_none() && now - began >= self.warm_up {
            seen.counted_from = Some((now, number));
        }
        if let Some((since, first)) = seen.counted_from
            && now - since >= self.time
            && number > first
        {
            seen.each = Some((now - since) / u32::try_from(number - first).unwrap_or(u32::MAX));
            return Ok(Step::finished(1));
        }
        let next = Progress(Map::from_iter([("n".to_owned(), json!(number + 1))]));
        Ok(Step::new(1, Next::Continue(next)))
    }
}

/// A backfill that begins anew when it is done, until its time is over: the same pace for long enough to be measured.
pub(super) struct Again {
    backfill: Backfill,
    began: Instant,
    time: Duration,
}

impl Again {
    pub(super) fn new(backfill: Backfill, time: Duration) -> Self {
        Self { backfill, began: Instant::now(), time }
    }
}

#[async_trait]
impl Handler for Again {
    fn mode(&self, _: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::Batched)
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let mut inner = progress.clone();
        let round = inner.0.remove("round").and_then(|round| round.as_u64()).unwrap_or(0);
        let Step { items, next, .. } = self.backfill.run(sql, &inner, budget).await?;
        let (mut next, round) = match next {
            Next::Continue(next) => (next, round),
            Next::Finished if self.began.elapsed() >= self.time => return Ok(Step::finished(items)),
            Next::Finished => (Progress::default(), round + 1),
        };
        next.0.insert("round".to_owned(), json!(round));
        Ok(Step::new(items, Next::Continue(next)))
    }
}
