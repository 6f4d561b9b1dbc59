//! A batch of a part of what is left of an update, where several work on it.

use tokio::time::Instant;

use super::super::common::Common;
use super::super::database::{Begin, PartCommit, Planned, QueueRow, Transaction};
use super::{Attempt, Committed, Trouble, answered, roll_back};
use crate::update::parts::Part;
use crate::update::{ErrorClass, Handler, Next, Opening, Progress, SqlError, Step, UpdateError};

/// Opens the transaction of a batch over the connection of the lane `line`, of this part or of all.
pub(super) async fn begun(
    common: &Common,
    line: &str,
    row: &QueueRow,
    handler: &dyn Handler,
    part: Option<&Part>,
) -> Result<Begin, SqlError> {
    let (update_name, progress, opening) = (row.update_name.as_str(), row.progress.as_str(), handler.opening());
    let Some(part) = part else {
        return common.database.begin_as(&Planned { lane: line, update_name, progress, opening }).await;
    };
    // Where the row is written by others meanwhile, it could not be written from a snapshot.
    let opening = if handler.workers() > 1 { Opening::EachStatement } else { opening };
    let stands = |found: &str| Progress::parse(found).is_ok_and(|found| part.stands_in(&found));
    common.database.begin_part(&Planned { lane: line, update_name, progress, opening }, &stands).await
}

impl Attempt<'_> {
    /// Writes what the batch has come to into the progress of all parts, and commits.
    pub(super) async fn commit_part(
        &mut self,
        transaction: Box<dyn Transaction>,
        step: Step,
        part: &Part,
    ) -> Result<Committed, Trouble> {
        let Next::Continue(next) = step.next else {
            roll_back(transaction).await;
            return Err(UpdateError::Failed("a part of the update cannot end the whole of it".to_owned()).into());
        };
        let merge = |found: &str| {
            let written = Progress::parse(found).and_then(|found| part.written_in(&found, &next));
            written.ok().flatten().map(|written| written.to_json())
        };
        let closing = Instant::now();
        let committed = self.waits.commit.until(transaction.commit_part(&merge));
        let committed =
            answered(committed, &self.common.control, self.shutdown_grace, self.tenure, &mut self.watch).await?;
        self.own += closing.elapsed();
        let progress = match committed {
            Ok(PartCommit::Committed(progress)) => progress,
            Ok(PartCommit::Moved { gone }) => return Err(Trouble::Moved { gone }),
            Err(error) if error.class == ErrorClass::Connection => match self.found_after_commit().await? {
                Some(found) if Progress::parse(&found).is_ok_and(|found| part.is_written_in(&found, &next)) => found,
                Some(found) if Progress::parse(&found).is_ok_and(|found| part.stands_in(&found)) => {
                    return Err(error.into());
                }
                found => return Err(Trouble::Moved { gone: found.is_none() }),
            },
            Err(error) => return Err(error.into()),
        };
        Ok(Committed { items: step.items, notes: step.notes, progress: Some(progress) })
    }
}
