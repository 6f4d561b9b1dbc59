//! One batch, done and undone.

use std::pin::pin;
use std::time::{Duration, Instant};

use tidegate::scheduler::database::{Database, Seen, TrialTransaction};
use tidegate::update::trial::{Ahead, Look, RowChange, Trial};
use tidegate::update::{Budget, ErrorClass, Handler, Problem, Progress, SqlError, Step, UpdateError};

use super::refused::{Ran, Refused};

/// How batches are tried.
pub(super) struct Attempt<'a> {
    pub(super) opened: &'a dyn Database,
    pub(super) handler: &'a dyn Handler,
    pub(super) budget: Budget,
    /// How long each may take, from its first lock to its last.
    pub(super) limit: Duration,
}

/// What came of it.
pub(super) enum Tried {
    Batch(Done),
    /// The update was done as a whole.
    Whole(Done),
    Refused(Problem),
}

/// A batch that was done and undone.
pub(super) struct Done {
    pub(super) items: u64,
    /// How long the batch itself took.
    pub(super) took: Duration,
    /// How long its transaction was open.
    pub(super) held: Duration,
    /// The table whose rows were looked at.
    pub(super) table: Option<String>,
    pub(super) rows: Vec<RowChange>,
    /// The rows that would be skipped.
    pub(super) skipped: Vec<Refused>,
    pub(super) seen: Seen,
    pub(super) notes: Vec<String>,
}

/// Why there is nothing to tell.
pub(super) enum Failed {
    /// It took too long.
    Late,
    Update(UpdateError),
}

impl<E: Into<UpdateError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Update(error.into())
    }
}

impl Attempt<'_> {
    /// Tries a batch that begins so far into the table. Whatever comes of it, nothing stays.
    pub(super) async fn at(&self, place: f64) -> Result<Tried, Failed> {
        match self.once(place).await {
            // A host would do it again, too: a handler may have learnt that its table is to be changed otherwise.
            Err(Failed::Update(error)) if error.class() == ErrorClass::Transient && !is_wait(error.code()) => {
                self.once(place).await
            }
            tried => tried,
        }
    }

    async fn once(&self, place: f64) -> Result<Tried, Failed> {
        let mut transaction = self.opened.begin_trial(self.handler.opening()).await?;
        let begun = Instant::now();
        let interrupter = transaction.interrupter();
        let (tried, late) = {
            let mut work = pin!(self.within(&mut *transaction, place));
            tokio::select! {
                tried = &mut work => (tried, false),
                () = tokio::time::sleep(self.limit) => {
                    // What runs is given up; what has ended by now is not undone any sooner.
                    interrupter.interrupt().await;
                    (work.await, true)
                }
            }
        };
        let undone: Result<(), SqlError> = transaction.rollback().await;
        let held = begun.elapsed();
        match tried {
            Err(_) if late => Err(Failed::Late),
            Err(error) => Err(error.into()),
            Ok(tried) => {
                undone?;
                Ok(match tried {
                    Tried::Batch(done) => Tried::Batch(Done { held, ..done }),
                    Tried::Whole(done) => Tried::Whole(Done { held, ..done }),
                    refused @ Tried::Refused(_) => refused,
                })
            }
        }
    }

    async fn within(&self, transaction: &mut dyn TrialTransaction, place: f64) -> Result<Tried, UpdateError> {
        let trial = self.handler.trial(transaction.as_sql(), place, self.budget).await?;
        Ok(match trial {
            Trial::Refused(problem) => Tried::Refused(problem),
            Trial::Whole => Tried::Whole(self.step(transaction, &Progress::default(), None, Vec::new()).await?),
            Trial::Batch(Ahead { progress, look, notes }) => {
                Tried::Batch(self.step(transaction, &progress, look.as_ref(), notes).await?)
            }
        })
    }

    async fn step(
        &self,
        transaction: &mut dyn TrialTransaction,
        progress: &Progress,
        look: Option<&Look>,
        mut notes: Vec<String>,
    ) -> Result<Done, UpdateError> {
        let before = match look {
            Some(look) => look.rows(transaction.as_sql()).await?,
            None => None,
        };
        transaction.watch().await?;
        let Ran { items, took, notes: said, skipped, dead_rows } = self.run(transaction, progress).await?;
        let mut seen = transaction.seen().await?;
        seen.dead_rows += dead_rows;
        let rows = match (look, before) {
            (Some(look), Some(before)) => match look.rows(transaction.as_sql()).await? {
                Some(after) => look.changes(before, after),
                None => Vec::new(),
            },
            (Some(look), None) => {
                notes.push(format!("the rows of table \"{}\" cannot be found by what the batch is about", look.table));
                Vec::new()
            }
            (None, _) => Vec::new(),
        };
        notes.extend(said);
        notes.append(&mut seen.notes);
        let table = look.map(|look| look.table.clone());
        Ok(Done { items, took, held: took, table, rows, skipped, seen, notes })
    }

    /// Does the batch, and leaves rows behind where the update does.
    async fn run(&self, transaction: &mut dyn TrialTransaction, progress: &Progress) -> Result<Ran, UpdateError> {
        let Some(tolerance) = self.handler.tolerance() else {
            let begun = Instant::now();
            let step = self.handler.run(transaction.as_sql(), progress, self.budget).await?;
            let Step { items, notes, .. } = step;
            return Ok(Ran { items, took: begun.elapsed(), notes, skipped: Vec::new(), dead_rows: 0 });
        };
        let mut ran = self.leaving_behind(transaction, progress).await?;
        ran.notes.extend(
            tolerance
                .exceeded(ran.skipped.len() as u64, ran.items, true)
                .map(|problem| format!("where all of the table is as this batch, a host stops the update: {problem}")),
        );
        Ok(ran)
    }
}

/// True for the code of an error of who has waited for another's lock, and would wait again.
fn is_wait(code: Option<&str>) -> bool {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    code.is_some_and(|code| code == LOCK_NOT_AVAILABLE || code.starts_with("SQLITE_BUSY"))
}
