//! What does the work of a modelled update: nothing, for as long as it should take.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::{Map, Value as Json};

use super::model::{World, step_at};
use super::scenario::Update;
use tidegate::update::sql::Sql;
use tidegate::update::{Budget, ErrorClass, Handler, Mode, Next, Progress, SqlError, Step, UpdateError};

/// The handler of one update. Its progress is the number of items and of batches that are done.
pub(super) struct Modelled {
    world: Arc<World>,
    update: Update,
    /// Its place in the scenario, so that chance deals with each update in its own way.
    place: u64,
    /// How often each of the failures has struck.
    struck: Mutex<HashMap<usize, u64>>,
}

impl Modelled {
    pub(super) fn new(world: Arc<World>, update: Update, place: usize) -> Self {
        Self { world, update, place: place as u64, struck: Mutex::default() }
    }

    fn position(progress: &Progress) -> Result<(u64, u64), UpdateError> {
        let number = |key: &str| match progress.0.get(key) {
            None => Ok(0),
            Some(number) => number.as_u64().ok_or_else(|| progress.refuse(format!("\"{key}\" is not a number"))),
        };
        Ok((number("items")?, number("batches")?))
    }

    /// The failure that strikes a batch which begins now, and counts it.
    fn failure(&self) -> Option<UpdateError> {
        let now = self.world.clocks.now();
        let mut struck = self.struck.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, failure) in self.update.failures.iter().enumerate() {
            let count = struck.entry(index).or_default();
            if failure.span.holds(now) && *count < failure.times {
                *count += 1;
                let error = SqlError::new(failure.class, failure.message.clone());
                return Some(error.into());
            }
        }
        None
    }

    async fn batch(&self, done: u64, batches: u64, wanted: u64) -> Result<(u64, bool), UpdateError> {
        let Update { items, cost_ms, noise, steps, empty_every, .. } = &self.update;
        let is_empty = *empty_every > 0 && (batches + 1).is_multiple_of(*empty_every);
        let part = if is_empty { 0 } else { wanted.min(items.saturating_sub(done)) };
        let factor = step_at(steps, self.world.clocks.now(), 1.0);
        let cost = part as f64 * cost_ms * factor;
        let failure = self.failure();
        // A batch that fails fails half way.
        let cost = if failure.is_some() { cost / 2.0 } else { cost };
        if !self.world.work(cost * self.world.noise(self.place + 1_000, batches, *noise)).await {
            let message = "the statement was interrupted".to_owned();
            return Err(SqlError::new(ErrorClass::Interrupted, message).into());
        }
        match failure {
            Some(error) => Err(error),
            None => Ok((part, !is_empty && done + part >= *items)),
        }
    }
}

#[async_trait]
impl Handler for Modelled {
    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        Self::position(progress)?;
        Ok(if self.update.one_shot { Mode::OneShot } else { Mode::Batched })
    }

    async fn run(&self, _sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let (done, batches) = Self::position(progress)?;
        let wanted = if self.update.one_shot { self.update.items } else { budget.items };
        let (items, finished) = self.batch(done, batches, wanted).await?;
        self.world.commit(items);
        if finished || self.update.one_shot {
            return Ok(Step::finished(items));
        }
        let counts = [("items", done + items), ("batches", batches + 1)];
        let progress = counts.into_iter().map(|(key, count)| (key.to_owned(), Json::from(count)));
        Ok(Step::new(items, Next::Continue(Progress(progress.collect::<Map<_, _>>()))))
    }
}
