//! Rows that cannot be done: what an update makes of them, and the wrapper that keeps count of them in its progress.
//!
//! An update that tolerates them passes over a key that the database refuses, and the host names it in a table of its own. How
//! many were passed over stands in the walk's progress as `"skipped": N`, beside the items. A progress `{"again": {…}}` says
//! that the keys in that table are to be tried again, and no others.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value as Json, json};

use super::sql::{Estimate, Sql};
use super::verify::{is_verification, skipped_of_looked};
use super::walk::Walk;
use super::{Budget, Handler, Mode, Next, Opening, Plan, Problem, Progress, Step, Trial, UpdateError};

/// The member of a progress that counts keys passed over.
pub(super) const SKIPPED: &str = "skipped";
/// The member of a progress that says that such keys are tried again.
const AGAIN: &str = "again";
/// The last key that was tried again.
const AFTER: &str = "after";
/// How many were.
const TRIED: &str = "tried";

/// Where none of the first so many rows can be done, it is not the rows.
const NONE_OF: u64 = 20;
/// A part of fewer rows than these says nothing yet.
const TELLING: u64 = 10_000;

/// How many rows may be left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// So many.
    Rows(u64),
    /// This part of those walked, in millionths.
    Part(u32),
}

impl Default for Tolerance {
    fn default() -> Self {
        Tolerance::Part(10_000)
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tolerance::Rows(rows) => write!(f, "{rows}"),
            Tolerance::Part(part) => write!(f, "\"{}%\"", f64::from(*part) / 10_000.0),
        }
    }
}

impl Tolerance {
    /// Why so many keys skipped of so many walked are too many; `None` where they are not. A part counts in full once the walk
    /// has `ended`.
    pub fn exceeded(self, skipped: u64, walked: u64, ended: bool) -> Option<String> {
        if skipped >= NONE_OF && skipped >= walked {
            return Some(format!("none of the first {skipped} rows could be done, so it is not the rows"));
        }
        let most = match self {
            Tolerance::Rows(rows) => rows,
            Tolerance::Part(part) => {
                walked.max(if ended { 0 } else { TELLING }).saturating_mul(part.into()) / 1_000_000
            }
        };
        (skipped > most)
            .then(|| format!("{skipped} of {walked} rows could not be done, and max_skipped = {self} allows {most}"))
    }
}

/// A key that was passed over.
#[derive(Debug, Clone, PartialEq)]
pub struct PassedOver {
    /// The step.
    pub step: Step,
    /// The key, in the order of its columns, as texts.
    pub key: Vec<String>,
}

/// The keys that an update has left behind.
#[async_trait]
pub trait LeftBehind: Send + Sync {
    /// Those of these keys, each in the order of its columns, as texts, that are none of them.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn without(&self, sql: &mut dyn Sql, keys: Vec<Vec<String>>) -> Result<Vec<Vec<String>>, UpdateError>;
}

/// A key as it stands in the table of those that were left behind.
pub fn as_text(key: &[String]) -> String {
    // Texts are always JSON: there is nothing to fail.
    serde_json::to_string(key).unwrap_or_default()
}

/// The progress by which keys that were passed over are tried again.
pub fn again() -> Progress {
    Progress(Map::from_iter([(AGAIN.to_owned(), Json::Object(Map::new()))]))
}

/// True where a progress says that keys that were passed over are tried again.
pub fn is_again(progress: &Progress) -> bool {
    progress.0.contains_key(AGAIN)
}

/// The last key that was tried again, as it stands in the table; `None` before the first.
pub fn tried_until(progress: &Progress) -> Option<&str> {
    progress.0.get(AGAIN)?.get(AFTER)?.as_str()
}

/// Where such an update stands once so many more, up to `key`, were tried.
pub fn tried(progress: &Progress, more: u64, key: &str) -> Progress {
    let before = progress.0.get(AGAIN).and_then(|again| again.get(TRIED)).and_then(Json::as_u64).unwrap_or(0);
    Progress(Map::from_iter([(AGAIN.to_owned(), json!({ AFTER: key, TRIED: before.saturating_add(more) }))]))
}

/// How many keys a walk passed over, by its progress, be it one that does rows or one that looks at them.
pub fn skipped(progress: &Progress) -> u64 {
    skipped_of_looked(progress).map_or_else(|| number(progress, SKIPPED), |(skipped, _)| skipped)
}

/// How many items a walk has behind it, by its progress.
pub fn walked(progress: &Progress) -> u64 {
    skipped_of_looked(progress).map_or_else(|| number(progress, "items"), |(_, looked)| looked)
}

/// True where a step from there ends the walk that does rows: what comes next is nothing, or a look at them.
pub fn ends_walk(from: &Progress, next: &Next) -> bool {
    let ends = match next {
        Next::Finished => true,
        Next::Continue(progress) => is_verification(progress),
    };
    ends && !is_verification(from)
}

fn number(progress: &Progress, member: &str) -> u64 {
    progress.0.get(member).and_then(Json::as_u64).unwrap_or(0)
}

/// A handler of a walk, of which rows may be left behind.
pub struct Tolerant {
    handler: Arc<dyn Handler>,
    tolerance: Option<Tolerance>,
    skipped_ok: bool,
}

impl Tolerant {
    /// The handler, which leaves behind as many rows as `tolerance` says; none where it says nothing.
    pub fn new(handler: Arc<dyn Handler>, tolerance: Option<Tolerance>) -> Self {
        Self { handler, tolerance, skipped_ok: false }
    }

    /// The same, which runs though rows of what it depends on were left behind.
    pub fn accepting(self, skipped_ok: bool) -> Self {
        Self { skipped_ok, ..self }
    }

    /// The progress as the handler knows it, and the number of keys passed over.
    fn inner(progress: &Progress) -> Result<(Progress, Option<Json>), UpdateError> {
        let mut inner = progress.clone();
        let skipped = inner.0.remove(SKIPPED);
        match &skipped {
            Some(number) if number.as_u64().is_none() => Err(progress.refuse_shape("\"skipped\" is not a number")),
            _ => Ok((inner, skipped)),
        }
    }

    /// The progress of the handler, with the number of keys passed over where it is one of the walk.
    fn outer(progress: Progress, skipped: u64) -> Progress {
        let mut outer = progress;
        if skipped > 0 && outer.0.contains_key("items") {
            outer.0.insert(SKIPPED.to_owned(), skipped.into());
        }
        outer
    }

    fn outer_step(step: Step, skipped: u64) -> Step {
        let next = match step.next {
            Next::Continue(progress) => Next::Continue(Self::outer(progress, skipped)),
            Next::Finished => Next::Finished,
        };
        Step { next, ..step }
    }
}

fn count(skipped: Option<&Json>) -> u64 {
    skipped.and_then(Json::as_u64).unwrap_or(0)
}

#[async_trait]
impl Handler for Tolerant {
    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        if is_again(progress) {
            return Ok(Mode::Batched);
        }
        self.handler.mode(&Self::inner(progress)?.0)
    }

    fn digest(&self) -> Option<String> {
        self.handler.digest()
    }

    fn refusal(&self) -> Option<&str> {
        self.handler.refusal()
    }

    fn is_vetted(&self, mode: Mode) -> bool {
        self.handler.is_vetted(mode)
    }

    fn opening(&self) -> Opening {
        self.handler.opening()
    }

    fn workers(&self) -> usize {
        self.handler.workers()
    }

    async fn cut(&self, sql: &mut dyn Sql, progress: &Progress, parts: usize) -> Result<Option<Progress>, UpdateError> {
        if is_again(progress) {
            return Ok(None);
        }
        let (inner, skipped) = Self::inner(progress)?;
        let cut = self.handler.cut(sql, &inner, parts).await?;
        Ok(cut.map(|progress| Self::outer(progress, count(skipped.as_ref()))))
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        if !progress.0.contains_key(SKIPPED) {
            return self.handler.run(sql, progress, budget).await;
        }
        let (inner, skipped) = Self::inner(progress)?;
        Ok(Self::outer_step(self.handler.run(sql, &inner, budget).await?, count(skipped.as_ref())))
    }

    async fn verify(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
        budget: Budget,
        left: &dyn LeftBehind,
    ) -> Result<Step, UpdateError> {
        self.handler.verify(sql, progress, budget, left).await
    }

    async fn abandon(&self, sql: &mut dyn Sql) -> Result<Option<String>, UpdateError> {
        self.handler.abandon(sql).await
    }

    async fn run_outside(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Step, UpdateError> {
        self.handler.run_outside(sql, progress).await
    }

    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        if is_again(progress) {
            return Ok(None);
        }
        self.handler.estimate(sql, &Self::inner(progress)?.0).await
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        self.handler.check(sql).await
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Option<Plan>, UpdateError> {
        if is_again(progress) {
            return Ok(None);
        }
        self.handler.plan(sql, &Self::inner(progress)?.0, budget).await
    }

    async fn trial(&self, sql: &mut dyn Sql, place: f64, budget: Budget) -> Result<Trial, UpdateError> {
        self.handler.trial(sql, place, budget).await
    }

    async fn unverifiable(&self, sql: &mut dyn Sql) -> Result<Option<Problem>, UpdateError> {
        self.handler.unverifiable(sql).await
    }

    fn tolerance(&self) -> Option<Tolerance> {
        self.tolerance
    }

    fn accepts_skipped(&self) -> bool {
        self.skipped_ok
    }

    async fn pass_over(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<PassedOver>, UpdateError> {
        let (inner, skipped) = Self::inner(progress)?;
        let passed = self.handler.pass_over(sql, &inner).await?;
        let total = count(skipped.as_ref()).saturating_add(1);
        Ok(passed.map(|PassedOver { step, key }| PassedOver { step: Self::outer_step(step, total), key }))
    }

    async fn run_key(&self, sql: &mut dyn Sql, key: &[String]) -> Result<(), UpdateError> {
        self.handler.run_key(sql, key).await
    }
}

impl Walk {
    /// Passes over the next key of the walk, and changes nothing; `None` where there is none.
    pub(super) async fn pass_over(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
    ) -> Result<Option<PassedOver>, UpdateError> {
        let batch = self.batch(sql, progress, Budget { items: 1 }).await?;
        let Some(key) = batch.upto.clone() else { return Ok(None) };
        Ok(Some(PassedOver { step: batch.step(0, ""), key }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_opens_where_it_is_said_to() {
        let rows = Tolerance::Rows(30);
        assert_eq!(rows.exceeded(30, 100, false), None);
        assert!(rows.exceeded(31, 100, false).unwrap().contains("31 of 100"));
        let part = Tolerance::Part(10_000);
        // A hundredth of few rows says nothing until the walk has ended.
        assert_eq!(part.exceeded(100, 500, false), None);
        assert!(part.exceeded(101, 500, false).is_some());
        assert!(part.exceeded(6, 500, true).is_some() && part.exceeded(5, 500, true).is_none());
        assert_eq!(part.exceeded(1_000, 100_000, false), None);
        // Where nothing can be done at all it is not the rows.
        assert!(Tolerance::Rows(1_000_000).exceeded(20, 20, false).unwrap().contains("none of the first 20"));
        assert_eq!(Tolerance::Rows(1_000_000).exceeded(20, 21, false), None);
    }

    #[test]
    fn what_is_tried_again_is_counted() {
        let begun = again();
        assert!(is_again(&begun) && tried_until(&begun).is_none());
        let on = tried(&tried(&begun, 3, "[\"7\"]"), 2, "[\"9\"]");
        assert_eq!(on.to_json(), json!({"again": {"after": "[\"9\"]", "tried": 5}}).to_string());
        assert_eq!(tried_until(&on), Some("[\"9\"]"));
    }
}
