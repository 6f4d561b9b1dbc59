//! A batch of which the database refuses rows: taken apart until each of them stands alone, and done without them.

use std::time::{Duration, Instant};

use tidegate::pace::Halving;
use tidegate::scheduler::database::TrialTransaction;
use tidegate::update::{Budget, Next, PassedOver, Progress, Step, UpdateError, is_verification};

use super::attempt::Attempt;

/// To where the batch began.
const BEGINNING: &str = "tidegate_beginning";
/// To before the piece in hand.
const PIECE: &str = "tidegate_piece";

/// What came of a batch.
pub(super) struct Ran {
    pub(super) items: u64,
    /// How long its statements took.
    pub(super) took: Duration,
    pub(super) notes: Vec<String>,
    pub(super) skipped: Vec<Refused>,
    /// Row versions that attempts have left that are not in what was seen.
    pub(super) dead_rows: u64,
}

/// A row that would be skipped.
pub(super) struct Refused {
    /// Its key, in the order of its columns.
    pub(super) key: Vec<String>,
    pub(super) error: UpdateError,
}

/// A part of a batch.
enum Piece {
    /// So many rows that are done.
    Done(u64),
    /// A row that is refused.
    Refused(UpdateError),
}

/// A batch on its way.
struct Way {
    from: Progress,
    ran: Ran,
    /// True where no row is left.
    ended: bool,
}

impl Way {
    fn new(start: &Progress) -> Self {
        let ran = Ran { items: 0, took: Duration::ZERO, notes: Vec::new(), skipped: Vec::new(), dead_rows: 0 };
        Self { from: start.clone(), ran, ended: false }
    }

    fn take(&mut self, step: Step) {
        self.ran.items += step.items;
        for note in step.notes {
            if !self.ran.notes.contains(&note) {
                self.ran.notes.push(note);
            }
        }
        match step.next {
            Next::Continue(next) if !is_verification(&next) && next != self.from => self.from = next,
            _ => self.ended = true,
        }
    }
}

impl Attempt<'_> {
    /// Does a batch. Where it is refused, it is found out for which rows, all is undone, and then it is done without them: so
    /// that what is seen of it is what a host does, and nothing of the search.
    pub(super) async fn leaving_behind(
        &self,
        transaction: &mut dyn TrialTransaction,
        start: &Progress,
    ) -> Result<Ran, UpdateError> {
        set(transaction, BEGINNING).await?;
        let mut way = Way::new(start);
        match self.piece(transaction, &mut way, self.budget.items).await {
            Ok(()) => return Ok(way.ran),
            Err(error) if !error.is_of_rows() => return Err(error),
            Err(error) => back(transaction, BEGINNING, error).await?,
        }
        let pieces = self.pieces(transaction, start).await?;
        transaction.as_sql().execute(&format!("ROLLBACK TO SAVEPOINT {BEGINNING}"), &[]).await?;
        let dead_rows = transaction.seen().await?.dead_rows;
        transaction.watch().await?;
        let mut way = Way::new(start);
        way.ran.dead_rows = dead_rows;
        for piece in pieces {
            match piece {
                Piece::Done(items) => self.piece(transaction, &mut way, items).await?,
                Piece::Refused(error) => self.pass_over(transaction, &mut way, error).await?,
            }
        }
        Ok(way.ran)
    }

    /// Finds out which rows of a batch are refused.
    async fn pieces(
        &self,
        transaction: &mut dyn TrialTransaction,
        start: &Progress,
    ) -> Result<Vec<Piece>, UpdateError> {
        let (mut way, mut halving, mut pieces) = (Way::new(start), Halving::default(), Vec::new());
        halving.refused(self.budget.items, false);
        while way.ran.items < self.budget.items && !way.ended {
            let items = halving.piece(self.budget.items - way.ran.items);
            set(transaction, PIECE).await?;
            match self.piece(transaction, &mut way, items).await {
                Ok(()) => {
                    release(transaction, PIECE).await?;
                    halving.passed(items);
                    match pieces.last_mut() {
                        Some(Piece::Done(before)) => *before += items,
                        _ => pieces.push(Piece::Done(items)),
                    }
                }
                Err(error) if error.is_of_rows() => {
                    back(transaction, PIECE, error.clone()).await?;
                    release(transaction, PIECE).await?;
                    halving.refused(items, false);
                    if items == 1 {
                        halving.left_behind();
                        self.pass_over(transaction, &mut way, error.clone()).await?;
                        pieces.push(Piece::Refused(error));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(pieces)
    }

    /// Does so many rows, and what they put off until the commit.
    async fn piece(
        &self,
        transaction: &mut dyn TrialTransaction,
        way: &mut Way,
        items: u64,
    ) -> Result<(), UpdateError> {
        let begun = Instant::now();
        let step = self.handler.run(transaction.as_sql(), &way.from, Budget { items }).await?;
        way.ran.took += begun.elapsed();
        transaction.settle().await?;
        way.take(step);
        Ok(())
    }

    /// Leaves the next row behind.
    async fn pass_over(
        &self,
        transaction: &mut dyn TrialTransaction,
        way: &mut Way,
        error: UpdateError,
    ) -> Result<(), UpdateError> {
        let passed = self.handler.pass_over(transaction.as_sql(), &way.from).await?;
        let Some(PassedOver { step, key }) = passed else { return Err(error) };
        way.take(step);
        way.ran.skipped.push(Refused { key, error });
        Ok(())
    }
}

/// Sets a savepoint.
async fn set(transaction: &mut dyn TrialTransaction, name: &str) -> Result<(), UpdateError> {
    transaction.as_sql().execute(&format!("SAVEPOINT {name}"), &[]).await?;
    Ok(())
}

/// Gives it up.
async fn release(transaction: &mut dyn TrialTransaction, name: &str) -> Result<(), UpdateError> {
    transaction.as_sql().execute(&format!("RELEASE SAVEPOINT {name}"), &[]).await?;
    Ok(())
}

/// Goes back to it after an error: that is what is told where it has taken the transaction with it.
async fn back(transaction: &mut dyn TrialTransaction, name: &str, error: UpdateError) -> Result<(), UpdateError> {
    match transaction.as_sql().execute(&format!("ROLLBACK TO SAVEPOINT {name}"), &[]).await {
        Ok(_) => Ok(()),
        Err(_) => Err(error),
    }
}
