//! What a batch has the ledger told.

use super::Attempt;
use crate::scheduler::database::Transaction;
use crate::scheduler::ledger::{Action, Note};
use crate::update::approval::awaits_approval;

impl Attempt<'_> {
    /// What the ledger is told with the commit of a batch after which this progress is written; of the last there is none.
    pub(super) fn note(&self, transaction: &mut dyn Transaction, items: u64, progress: Option<&str>) {
        let finishes = progress.is_none();
        if self.is_first || finishes {
            transaction.note(Note::of(Action::Started));
        }
        if finishes {
            transaction.note(Note {
                items: Some(self.progress.items().saturating_add(items)),
                seconds: Some(self.started.elapsed().as_secs_f64()),
                definition: self.handler.digest(),
                ..Note::of(Action::Finished)
            });
        }
        if let Some(reason) = progress.and_then(awaits_approval) {
            transaction.note(Note::of(Action::AwaitsApproval).saying(reason));
        }
    }
}
