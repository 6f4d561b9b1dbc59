//! Rows that the database refuses: the batch taken apart until each of them stands alone, and left behind, named in the same
//! transaction as the progress.

use std::collections::VecDeque;
use std::time::SystemTime;

use async_trait::async_trait;
use tokio::time::Instant;

use super::super::database::{Database, Resolved, Skipped, Transaction, unix_ms};
use super::super::step::{moved_on, run_slice, unwound};
use super::{Attempt, Phase, Trouble};
use crate::pace::{Halving, Slice};
use crate::update::sql::Sql;
use crate::update::tolerance::{self, LeftBehind, PassedOver};
use crate::update::{Handler, Mode, Next, Progress, Step, UpdateError};

/// Keys that are read at once to be tried again.
const READ_AT_ONCE: u32 = 2_000;

/// Pieces of a batch at most where others write: each is a subtransaction, of which PostgreSQL keeps 64 at hand. Where there are
/// more, whoever looks at rows looks them up.
const PIECES: u32 = 60;

/// What is known, in one batch, of rows that are refused.
#[derive(Debug, Default)]
pub(in super::super) struct Skipping {
    /// How the batch is taken apart, from one batch to the next.
    pub(in super::super) halving: Halving,
    /// The keys that the open transaction leaves behind.
    left: Vec<Skipped>,
    /// The key behind this progress was refused where only a new transaction can leave it behind; what was said of it.
    refused: Option<(Progress, UpdateError)>,
    /// Where keys are tried again: those that are left, and whether there are more in the table.
    keys: Option<(VecDeque<String>, bool)>,
    /// True where nothing was done in the open transaction since it was marked.
    pub(super) is_marked: bool,
    /// True where the open transaction changes nothing but the keys that are left behind.
    only_left: bool,
}

impl Skipping {
    pub(in super::super) fn new(halving: Halving) -> Self {
        Self { halving, ..Self::default() }
    }

    /// How many keys the open transaction leaves behind.
    pub(super) fn left(&self) -> u64 {
        self.left.len() as u64
    }

    /// Nothing of the open transaction is left.
    fn lose(&mut self) {
        self.left.clear();
        self.keys = None;
        (self.only_left, self.is_marked) = (false, false);
    }
}

/// The keys in the table of those that an update has skipped.
pub(super) struct Left<'a> {
    pub(super) database: &'a dyn Database,
    pub(super) update_name: &'a str,
}

#[async_trait]
impl LeftBehind for Left<'_> {
    async fn without(&self, sql: &mut dyn Sql, mut keys: Vec<Vec<String>>) -> Result<Vec<Vec<String>>, UpdateError> {
        let texts: Vec<String> = keys.iter().map(|key| tolerance::as_text(key)).collect();
        let found = self.database.skipped_among(sql, self.update_name, &texts).await?;
        keys.retain(|key| !found.contains(&tolerance::as_text(key)));
        Ok(keys)
    }
}

/// What is to be done next in an open transaction.
pub(super) enum Refused {
    /// The rest of the batch, in smaller pieces.
    On(Option<Step>),
    /// The batch anew: nothing of its transaction is left.
    Anew,
}

impl Attempt<'_> {
    /// True where this error is of rows that may be left behind.
    pub(super) fn may_skip(&self, error: &UpdateError) -> bool {
        let tolerant = self.handler.tolerance().is_some() || tolerance::is_again(&self.progress);
        self.mode == Mode::Batched && error.is_of_rows() && tolerant
    }

    /// How many pieces a batch may have that is taken apart: where nobody else writes, as many as there is time for.
    fn pieces(&self) -> u32 {
        if self.common.database.has_one_writer() { u32::MAX } else { PIECES }
    }

    /// Reads, in a transaction that was begun just now, the keys that are tried again.
    pub(super) async fn read_keys(&mut self, transaction: &mut dyn Transaction) -> Result<(), Trouble> {
        self.skipping.lose();
        self.skipping.halving.begin();
        if self.skipping.halving.is_careful() {
            self.slices.take_apart(self.pieces());
        }
        if !tolerance::is_again(&self.progress) {
            return Ok(());
        }
        let (after, name) = (tolerance::tried_until(&self.progress).map(str::to_owned), &self.row.update_name);
        let (database, limit) = (&self.common.database, READ_AT_ONCE);
        let found = database.skipped_in(transaction.as_sql(), name, after.as_deref(), limit).await?;
        let more = found.len() >= READ_AT_ONCE as usize;
        self.skipping.keys = Some((found.into_iter().map(|skipped| skipped.key).collect(), more));
        Ok(())
    }

    /// The key behind this place, where it was refused in a way that took the transaction with it: what was said.
    pub(super) fn refused_at(&mut self, from: &Progress) -> Option<UpdateError> {
        let here = self.skipping.refused.as_ref().is_some_and(|(place, _)| place == from);
        if here { self.skipping.refused.take().map(|(_, error)| error) } else { None }
    }

    /// A slice was refused: undoes it, and says how to go on. One of a single key leaves that behind.
    pub(super) async fn refused(
        &mut self,
        transaction: &mut dyn Transaction,
        from: &Progress,
        slice: Slice,
        (error, marked): (UpdateError, bool),
    ) -> Result<Refused, Trouble> {
        let kept = marked && self.answered(transaction.undo()).await??;
        let first = self.slices.is_empty();
        // What takes more with it than the slice has to be alone.
        self.skipping.halving.refused(slice.items, marked && !kept);
        tracing::debug!(update = self.row.update_name, slice.items, kept, %error, "a slice is refused, and taken apart");
        self.slices.take_apart(self.pieces());
        if !kept {
            self.slices.undone();
        }
        if first || !kept {
            // It is planned as if it began now: what was refused is no measure of what comes.
            self.started = Instant::now();
        }
        if !kept {
            if slice.items == 1 && first {
                self.skipping.refused = Some((from.clone(), error));
            }
            return Ok(Refused::Anew);
        }
        if slice.items > 1 {
            self.skipping.is_marked = true;
            return Ok(Refused::On(None));
        }
        self.leave_behind(transaction, from, &error).await.map(Some).map(Refused::On)
    }

    /// A commit was refused: says whether the batch is to be done anew.
    pub(super) fn refused_at_commit(&mut self, error: &UpdateError) -> bool {
        if self.phase != Phase::Commit || self.skipping.only_left || !self.may_skip(error) {
            return false;
        }
        let items = self.slices.asked().max(1);
        if items == 1 {
            self.skipping.refused = Some((self.progress.clone(), error.clone()));
        }
        self.skipping.halving.refused(items, true);
        self.slices.take_apart(self.pieces());
        self.slices.undone();
        self.started = Instant::now();
        true
    }

    /// Leaves the next key behind.
    pub(super) async fn leave_behind(
        &mut self,
        transaction: &mut dyn Transaction,
        from: &Progress,
        error: &UpdateError,
    ) -> Result<Step, Trouble> {
        let passed = match &mut self.skipping.keys {
            Some((keys, more)) => keys.pop_front().map(|key| {
                let next = Next::Continue(tolerance::tried(from, 1, &key));
                (if keys.is_empty() && !*more { Step::finished(1) } else { Step::new(1, next) }, key)
            }),
            None => unwound(self.handler.pass_over(transaction.as_sql(), from)).await?.map(|passed| {
                let PassedOver { step, key } = passed;
                (step, tolerance::as_text(&key))
            }),
        };
        // What is not to be passed over fails as it does for every update.
        let Some((step, key)) = passed else { return Err(error.clone().into()) };
        let step = moved_on(from, step)?;
        if self.slices.is_empty() {
            self.skipping.only_left = true;
        }
        let (code, message) = match error {
            UpdateError::Sql(error) => (error.code.clone(), error.message.clone()),
            other => (None, other.told()),
        };
        let (update_name, at_ms) = (self.row.update_name.clone(), unix_ms(SystemTime::now()));
        self.skipping.left.push(Skipped { update_name, key, code, message, at_ms });
        self.skipping.halving.left_behind();
        if self.skipping.keys.is_none() {
            let skipped = tolerance::skipped(from).saturating_add(1);
            let walked = tolerance::walked(from).saturating_add(1);
            self.must_be_tolerable(skipped, walked, tolerance::ends_walk(from, &step.next), Some(error))?;
        }
        Ok(step)
    }

    /// The step, with what is to be known of the rows that it and those before it have left behind.
    pub(super) fn telling_skipped(&self, step: Step, left: u64) -> Step {
        let name = &self.row.update_name;
        let rows = |count: u64| if count == 1 { "1 row".to_owned() } else { format!("{count} rows") };
        let batch = (left > 0).then(|| format!("skipped {} of this batch", rows(left)));
        let again = tolerance::is_again(&self.progress);
        let total = if again { left } else { tolerance::skipped(&self.progress).saturating_add(left) };
        let hint = format!(
            "`tidegate history {name} --skipped` names them, `tidegate retry {name} --skipped` tries them again"
        );
        let is_over = tolerance::ends_walk(&self.progress, &step.next);
        let ended = (is_over && total > 0).then(|| format!("skipped {} in all: {hint}", rows(total)));
        step.noting(ended.or(batch))
    }

    /// Fails where more was left behind than may be.
    pub(super) fn must_be_tolerable(
        &self,
        skipped: u64,
        walked: u64,
        ended: bool,
        last: Option<&UpdateError>,
    ) -> Result<(), UpdateError> {
        let Some(tolerance) = self.handler.tolerance() else { return Ok(()) };
        let Some(problem) = tolerance.exceeded(skipped, walked, ended) else { return Ok(()) };
        let last_said = last.map_or_else(|| "see what was skipped".to_owned(), UpdateError::told);
        let code = last.and_then(UpdateError::code).map(str::to_owned);
        Err(UpdateError::TooManySkipped { problem, last: last_said, code })
    }

    /// The keys behind which the walk has come to its end, of which some were left behind before.
    pub(super) fn must_end_tolerably(&self, from: &Progress, step: &Step) -> Result<(), UpdateError> {
        let skipped = tolerance::skipped(from);
        if skipped == 0 || !tolerance::ends_walk(from, &step.next) {
            return Ok(());
        }
        self.must_be_tolerable(skipped, tolerance::walked(from).saturating_add(step.items), true, None)
    }

    /// What the open transaction changes in the keys that were skipped; `upto` is the progress that it comes to.
    pub(super) fn resolved(&mut self, next: &Next) -> Resolved {
        let skipped = std::mem::take(&mut self.skipping.left);
        let tried = if tolerance::is_again(&self.progress) {
            let after = tolerance::tried_until(&self.progress).map(str::to_owned);
            let upto = match next {
                Next::Continue(progress) => tolerance::tried_until(progress).map(str::to_owned),
                Next::Finished => None,
            };
            Some((after, upto))
        } else {
            // A walk from the beginning has those of an earlier one no more.
            (self.progress == Progress::default() && self.row.skipped > 0).then_some((None, None))
        };
        Resolved { tried, skipped }
    }
}

/// Does so many of the keys that are tried again, or of the walk where there are none.
pub(super) async fn run_piece(
    handler: &dyn Handler,
    sql: &mut dyn Sql,
    from: &Progress,
    slice: Slice,
    keys: Option<&(VecDeque<String>, bool)>,
    left: &Left<'_>,
) -> Result<Step, UpdateError> {
    let Some((keys, more)) = keys else { return run_slice(handler, sql, from, slice, left).await };
    let items = usize::try_from(slice.items).unwrap_or(usize::MAX).min(keys.len());
    for key in keys.iter().take(items) {
        let parts: Vec<String> = serde_json::from_str(key).map_err(|error| UpdateError::Detailed {
            message: "a key in tidegate_skipped is not one that was written there".to_owned(),
            detail: format!("{key}: {error}"),
        })?;
        unwound(handler.run_key(sql, &parts)).await?;
    }
    let last = items.checked_sub(1).and_then(|last| keys.get(last));
    let step = match last {
        Some(last) if items < keys.len() || *more => {
            Step::new(items as u64, Next::Continue(tolerance::tried(from, items as u64, last)))
        }
        _ => Step::finished(items as u64),
    };
    Ok(step)
}

/// Takes the keys from the list that were done.
pub(super) fn take(keys: &mut Option<(VecDeque<String>, bool)>, items: u64) {
    if let Some((keys, _)) = keys {
        let items = usize::try_from(items).unwrap_or(usize::MAX).min(keys.len());
        keys.drain(..items);
    }
}

impl Skipping {
    /// Hands out the keys that are tried again, for as long as a slice of them runs.
    pub(super) fn take_keys(&mut self) -> Option<(VecDeque<String>, bool)> {
        self.keys.take()
    }

    /// Takes them back.
    pub(super) fn give_keys(&mut self, keys: Option<(VecDeque<String>, bool)>) {
        self.keys = keys;
    }

    /// A slice of so many items went through.
    pub(super) fn passed(&mut self, asked: u64, items: u64) {
        self.halving.passed(asked);
        take(&mut self.keys, items);
        self.only_left = false;
    }

    /// One more item, though the batch is over: where none of its update could be done so far, it is to be known at once
    /// whether any can.
    pub(super) fn searching_on(&self, from: &Progress) -> Option<Slice> {
        let none = self.only_left && self.keys.is_none() && tolerance::skipped(from) == tolerance::walked(from);
        none.then_some(Slice { items: 1, limit: None })
    }

    /// True where a batch is over that tries keys again: those that were read are tried.
    pub(super) fn has_no_more_keys(&self) -> bool {
        self.keys.as_ref().is_some_and(|(keys, more)| keys.is_empty() && *more)
    }
}
