//! Approval: an update stops for somebody to look at it, after its first rows (a canary) or before them (a ceiling).
//!
//! How it stands is a member of its progress, `approval`, beside those of its handler. So it is committed with the rows that it
//! is about, survives restarts and takeovers, and begins anew with a row that is queued anew.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::parts;
use super::sql::{Estimate, Sql};
use super::trial::Trial;
use super::verify::VERIFY;
use super::{Budget, Handler, LeftBehind, Mode, Next, Opening, PassedOver, Plan, Problem, Progress, Step, UpdateError};

/// The member of a progress that tells of approval.
const APPROVAL: &str = "approval";

/// How an update stands that has stopped, in words that its reason follows.
pub const AWAITING: &str = "awaiting approval";

/// After how many items an update stops for approval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Canary {
    /// After so many.
    Items(u64),
    /// After so many of a hundred of those that there are when it begins, above 0 and below 100.
    Percent(f64),
}

impl FromStr for Canary {
    type Err = String;

    /// A whole number of at least 1, or a part such as `1%`.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let canary = match text.strip_suffix('%') {
            Some(number) => {
                let percent: Option<f64> = number.trim_end().parse().ok();
                percent.filter(|percent| *percent > 0.0 && *percent < 100.0).map(Canary::Percent)
            }
            None => text.parse().ok().filter(|items| *items > 0).map(Canary::Items),
        };
        canary.ok_or_else(|| {
            format!("\"{text}\" is neither a number of rows, such as 1000, nor a part of them, such as \"1%\"")
        })
    }
}

/// Where an update stops for approval.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Gate {
    /// After its first items.
    pub canary: Option<Canary>,
    /// Before them, where there are more than this by an estimate.
    pub max_rows: Option<u64>,
}

/// What a progress says of approval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Approval {
    /// It stops after so many items, of which some are done.
    StopsAfter { items: u64, done: u64 },
    /// It has stopped, for this reason. Once it is approved it goes on, and where `then` is told stops again after so many items.
    Awaited {
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        then: Option<u64>,
    },
    /// It goes on to its end.
    Given,
}

impl Approval {
    /// What a progress says, and the progress as its handler knows it.
    fn split(progress: &Progress) -> Result<(Option<Self>, Progress), UpdateError> {
        let mut own = progress.clone();
        let Some(approval) = own.0.remove(APPROVAL) else { return Ok((None, own)) };
        let approval = serde_json::from_value(approval).map_err(|error| progress.refuse_shape(error))?;
        Ok((Some(approval), own))
    }

    fn put(&self, mut progress: Progress) -> Progress {
        // Numbers and texts: there is nothing to fail.
        progress.0.insert(APPROVAL.to_owned(), serde_json::to_value(self).unwrap_or_default());
        progress
    }

    /// How much of `budget` may be done; the step that does nothing where approval is awaited.
    fn admit(approval: Option<&Self>, own: &Progress, mut budget: Budget) -> Result<Budget, Box<Step>> {
        match approval {
            Some(awaited @ Approval::Awaited { .. }) => {
                return Err(Box::new(Step::new(0, Next::Continue(awaited.put(own.clone())))));
            }
            Some(Approval::StopsAfter { items, done }) => {
                budget.items = budget.items.min(items.saturating_sub(*done)).max(1);
            }
            Some(Approval::Given) | None => {}
        }
        Ok(budget)
    }

    /// The step, with what is to be said of approval after it.
    fn after(approval: Option<Self>, mut step: Step) -> Step {
        let (Next::Continue(next), Some(approval)) = (&step.next, approval) else { return step };
        let approval = match approval {
            // What is left is to look at the rows again.
            Approval::StopsAfter { .. } if next.0.contains_key(VERIFY) => Approval::Given,
            Approval::StopsAfter { items, done } if done + step.items >= items => {
                let done = done + step.items;
                let reason = format!("{done} rows are done, after which it was to stop (\"canary\")");
                Approval::Awaited { reason, then: None }
            }
            Approval::StopsAfter { items, done } => Approval::StopsAfter { items, done: done + step.items },
            approval => approval,
        };
        step.next = Next::Continue(approval.put(next.clone()));
        step
    }
}

/// Why an update waits for approval; `None` where it does not. By its progress as it stands in the row.
pub fn awaits_approval(progress: &str) -> Option<String> {
    // Of most rows this is all that is looked at.
    if !progress.contains("\"awaited\"") {
        return None;
    }
    match Approval::split(&Progress::parse(progress).ok()?) {
        Ok((Some(Approval::Awaited { reason, .. }), _)) => Some(reason),
        _ => None,
    }
}

/// The progress of an update that waits for approval, once it is given; `None` where it does not wait.
pub fn approve(progress: &Progress) -> Option<Progress> {
    match Approval::split(progress) {
        Ok((Some(Approval::Awaited { then, .. }), own)) => {
            Some(then.map_or(Approval::Given, |items| Approval::StopsAfter { items, done: 0 }).put(own))
        }
        _ => None,
    }
}

/// A handler that stops where its gate says.
///
/// It also reads the progress of an update whose definition had a gate before and has none now.
pub struct Gated<H> {
    handler: H,
    gate: Gate,
}

impl<H: Handler> Gated<H> {
    /// The handler behind the gate.
    pub fn new(handler: H, gate: Gate) -> Self {
        Self { handler, gate }
    }

    /// What there is to do before the next items. `Given` where nothing is in the way.
    async fn approval(
        &self,
        sql: &mut dyn Sql,
        told: Option<Approval>,
        own: &Progress,
    ) -> Result<Option<Approval>, UpdateError> {
        let has_gate = self.gate.canary.is_some() || self.gate.max_rows.is_some();
        let is_late = parts::is_cut(own) || parts::is_part(own) || own.0.contains_key(VERIFY);
        if told.is_some() || !has_gate || is_late {
            return Ok(told);
        }
        let rows = self.handler.estimate(sql, own).await?.map(|estimate| estimate.rows.round() as u64);
        let unknown = "how many rows it is about is not known";
        let stops_after = match (self.gate.canary, rows) {
            (None, _) => Ok(None),
            (Some(Canary::Items(items)), _) => Ok(Some(items)),
            (Some(Canary::Percent(percent)), Some(rows)) => {
                Ok(Some(((rows as f64 * percent / 100.0).round() as u64).max(1)))
            }
            (Some(Canary::Percent(_)), None) => Err(format!("{unknown}, and \"canary\" is a part of them")),
        };
        let too_many = match (self.gate.max_rows.filter(|_| own.0.is_empty()), rows) {
            (Some(most), Some(rows)) if rows > most => {
                Some(format!("it is about {rows} rows by an estimate, and \"max_rows\" is {most}"))
            }
            (Some(most), None) => Some(format!("{unknown}, and \"max_rows\" is {most}")),
            _ => None,
        };
        Ok(Some(match (too_many, stops_after) {
            (Some(reason), then) => Approval::Awaited { reason, then: then.ok().flatten() },
            (None, Err(reason)) => Approval::Awaited { reason, then: None },
            (None, Ok(Some(items))) => Approval::StopsAfter { items, done: 0 },
            (None, Ok(None)) => Approval::Given,
        }))
    }
}

#[async_trait]
impl<H: Handler> Handler for Gated<H> {
    fn digest(&self) -> Option<String> {
        self.handler.digest()
    }

    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        match Approval::split(progress)? {
            // No batch goes on to here.
            (Some(Approval::Awaited { .. }), own) => self.handler.mode(&own).map(|_| Mode::OneShot),
            (_, own) => self.handler.mode(&own),
        }
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
        let (told, own) = Approval::split(progress)?;
        if matches!(told, Some(Approval::StopsAfter { .. } | Approval::Awaited { .. })) {
            return Ok(None);
        }
        let cut = self.handler.cut(sql, &own, parts).await?;
        Ok(cut.map(|cut| match &told {
            Some(told) => told.put(cut),
            None => cut,
        }))
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let (told, own) = Approval::split(progress)?;
        let approval = self.approval(sql, told, &own).await?;
        match Approval::admit(approval.as_ref(), &own, budget) {
            Ok(budget) => Ok(Approval::after(approval, self.handler.run(sql, &own, budget).await?)),
            Err(awaited) => Ok(*awaited),
        }
    }

    async fn verify(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
        budget: Budget,
        left: &dyn LeftBehind,
    ) -> Result<Step, UpdateError> {
        let (told, own) = Approval::split(progress)?;
        let step = self.handler.verify(sql, &own, budget, left).await?;
        Ok(Approval::after(told, step))
    }

    async fn pass_over(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<PassedOver>, UpdateError> {
        let (told, own) = Approval::split(progress)?;
        let approval = self.approval(sql, told, &own).await?;
        if matches!(approval, Some(Approval::Awaited { .. })) {
            return Ok(None);
        }
        let passed = self.handler.pass_over(sql, &own).await?;
        Ok(passed.map(|PassedOver { step, key }| PassedOver { step: Approval::after(approval, step), key }))
    }

    async fn run_key(&self, sql: &mut dyn Sql, key: &[String]) -> Result<(), UpdateError> {
        self.handler.run_key(sql, key).await
    }

    fn refusal(&self) -> Option<&str> {
        self.handler.refusal()
    }

    async fn abandon(&self, sql: &mut dyn Sql) -> Result<Option<String>, UpdateError> {
        self.handler.abandon(sql).await
    }

    async fn run_outside(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Step, UpdateError> {
        self.handler.run_outside(sql, progress).await
    }

    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        self.handler.estimate(sql, &Approval::split(progress)?.1).await
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        self.handler.check(sql).await
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Option<Plan>, UpdateError> {
        self.handler.plan(sql, &Approval::split(progress)?.1, budget).await
    }

    async fn trial(&self, sql: &mut dyn Sql, place: f64, budget: Budget) -> Result<Trial, UpdateError> {
        let mut trial = self.handler.trial(sql, place, budget).await?;
        if let Trial::Batch(ahead) = &mut trial {
            // Nothing of it stays, for which somebody's approval would be awaited.
            ahead.progress = Approval::Given.put(std::mem::take(&mut ahead.progress));
        }
        Ok(trial)
    }

    async fn unverifiable(&self, sql: &mut dyn Sql) -> Result<Option<Problem>, UpdateError> {
        self.handler.unverifiable(sql).await
    }
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Canary::Items(items) => write!(f, "{items}"),
            Canary::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_a_number_of_rows_or_a_part_of_them() {
        assert_eq!("1000".parse(), Ok(Canary::Items(1000)));
        assert_eq!(" 2.5 % ".parse(), Ok(Canary::Percent(2.5)));
        for bad in ["0", "-1", "0%", "100%", "NaN%", "inf%", "1.5", "1 percent", "", "%"] {
            assert!(bad.parse::<Canary>().is_err(), "{bad}");
        }
    }
}
