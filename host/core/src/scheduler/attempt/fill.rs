//! A batch's transaction filled, slice after slice.

use tokio::time::Instant;

use super::super::database::Transaction;
use super::super::step::followed_by;
use super::skip::{Left, Refused, run_piece};
use super::{Attempt, Ended, Filled, Trouble};
use crate::pace::Slice;
use crate::update::{Next, Step, tolerance};

impl Attempt<'_> {
    /// Runs slice after slice, until the batch is over. One that takes too long is cut off and undone; what was done before
    /// it stays.
    pub(super) async fn fill(&mut self, transaction: &mut dyn Transaction) -> Result<Filled, Trouble> {
        let interrupt = transaction.interrupter();
        let handler = self.handler;
        let left = Left { database: &*self.common.database, update_name: &self.row.update_name };
        let mut done = Step::new(0, Next::Continue(self.progress.clone()));
        while let Next::Continue(from) = done.next.clone() {
            if self.part.as_ref().is_some_and(|part| part.is_done(&from)) || self.skipping.has_no_more_keys() {
                break;
            }
            let next = self.slices.next(self.started.elapsed());
            let Some(slice) = next.or_else(|| self.skipping.searching_on(&from)) else { break };
            let slice = Slice { items: self.skipping.halving.piece(slice.items), ..slice };
            if !self.slices.is_empty() {
                if self.common.control.is_stopping() || self.skipping.halving.is_alone() {
                    break;
                }
                // What comes next has an iteration of its own: it is no batch, or a look at the rows, whose items are others and
                // which is to find written down what was left behind.
                let looks = tolerance::ends_walk(&self.progress, &done.next);
                if looks || handler.mode(&from)? != self.mode {
                    break;
                }
            }
            if let Some(error) = self.refused_at(&from) {
                let step = self.leave_behind(transaction, &from, &error).await?;
                self.slices.done_aside(Slice { items: 1, ..slice }, step.items);
                done = followed_by(done, step);
                continue;
            }
            let marked = !self.slices.is_empty() || self.skipping.halving.is_careful();
            if marked && !self.skipping.is_marked {
                self.answered(transaction.mark()).await??;
            }
            // A mark that was gone back to is there still.
            self.skipping.is_marked = false;
            let began = Instant::now();
            let keys = self.skipping.take_keys();
            let work = run_piece(handler, transaction.as_sql(), &from, slice, keys.as_ref(), &left);
            let ended = self.guarded(interrupt.clone(), work, slice.limit).await;
            self.skipping.give_keys(keys);
            match ended {
                Ok(Ended::Done(step)) => {
                    self.must_end_tolerably(&from, &step)?;
                    match self.skipping.halving.is_searching() {
                        true => self.slices.done_aside(slice, step.items),
                        false => self.slices.done(slice, step.items, began.elapsed()),
                    }
                    self.skipping.passed(slice.items, step.items);
                    done = followed_by(done, step);
                }
                Ok(Ended::CutOff { blocked }) => {
                    let kept = self.answered(transaction.undo()).await??;
                    tracing::debug!(update = self.row.update_name, slice.items, blocked, "a slice was cut off");
                    self.slices.cut(slice, !kept, blocked);
                    if !kept {
                        return Ok(Filled::Lost);
                    }
                }
                Err(Trouble::Failed(error)) if self.may_skip(&error) => {
                    match self.refused(transaction, &from, slice, (error, marked)).await? {
                        Refused::Anew => return Ok(Filled::Lost),
                        Refused::On(None) => {}
                        Refused::On(Some(step)) => {
                            self.slices.done_aside(slice, step.items);
                            done = followed_by(done, step);
                        }
                    }
                }
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(Filled::Full(done))
    }
}
