//! What came of a batch, and what follows from it.

use std::sync::Arc;
use std::time::Duration;

use super::super::attempt::{Committed, Interruption, Phase, Trouble};
use super::super::database::{QueueRow, Record};
use super::super::event::EventKind;
use super::super::runner::Tenure;
use super::Worker;
use super::iteration::IterationPlan;
use crate::update::ErrorClass;
use crate::update::approval::awaits_approval;

impl Worker {
    /// Takes note of what came of a batch.
    pub(super) async fn settle(
        &mut self,
        plan: IterationPlan,
        (result, phase): (Result<Committed, Trouble>, Phase),
        record: Record,
        duration: Duration,
        tenure: &mut Tenure,
    ) -> Result<(), Interruption> {
        let name = plan.row.update_name.clone();
        if let Ok(committed) = &result {
            let pace = self.pace(&name);
            pace.noted = true;
            // What a one-shot takes says nothing of the batches that the same update may run.
            if !record.one_shot {
                pace.synapse.record(committed.items, duration);
            }
            pace.items = pace.items.saturating_add(committed.items);
            for note in &committed.notes {
                self.emit(EventKind::Noted { update_name: name.clone(), note: note.clone() });
            }
        }
        let items_per_ms = self.pace(&name).synapse.average_items_per_ms();
        self.emit(EventKind::IterationEnded { record: Arc::new(record), items_per_ms });
        if phase != Phase::Connect {
            self.note_begun();
        }
        match result {
            Ok(committed) => {
                if plan.part.is_some() {
                    self.note_part(committed.progress.as_deref());
                }
                self.settle_committed(&plan.row, committed).await;
                self.note_trouble();
                Ok(())
            }
            Err(Trouble::Failed(error)) => {
                let mut row = plan.row;
                if plan.part.is_some() && phase != Phase::Connect && error.class() == ErrorClass::Permanent {
                    self.meet_alone(tenure).await?;
                    // It counts for the row as the others have left it.
                    if let Ok(Some(progress)) = self.common.database.progress(&name).await {
                        self.common.state().roster.keep_up(&name, progress.clone());
                        row.progress = progress;
                    }
                }
                self.note_failure(&row, &error, phase).await
            }
            Err(Trouble::Moved { gone }) => {
                self.part = None;
                self.dismiss(tenure).await?;
                self.common.state().refreshed = None;
                if gone {
                    self.note_gone(&name);
                } else {
                    self.emit(EventKind::UpdateMoved { update_name: name, gone });
                }
                Ok(())
            }
            Err(Trouble::Withdrawn) => {
                self.dismiss(tenure).await?;
                self.settle_withdrawn(&name).await;
                Ok(())
            }
            Err(Trouble::Interrupted(interruption)) => Err(interruption),
        }
    }

    /// Takes an update out of the queue whose batch was interrupted for that.
    pub(super) async fn settle_withdrawn(&mut self, name: &str) {
        self.common.state().refreshed = None;
        let database = match self.common.control.withdrawn_by(&self.common.name, name) {
            Some(actor) => self.common.database.known_as(actor),
            None => Arc::clone(&self.common.database),
        };
        match database.cancel(&[name.to_owned()]).await {
            Ok(_) => {
                self.common.control.forget_withdrawal(&self.common.name, name);
                self.note_gone(name);
            }
            // Whoever asked takes the row out too; if not, the next attempt is interrupted as this one was.
            Err(error) => tracing::warn!(update = name, %error, "an update that was withdrawn stays queued for now"),
        }
    }

    /// An update's row is not in the queue any more: whoever queues one of its name again queues another.
    pub(super) fn note_gone(&mut self, name: &str) {
        self.forget(name);
        self.emit(EventKind::UpdateMoved { update_name: name.to_owned(), gone: true });
    }

    /// Keeps nothing in mind of an update that is gone.
    fn forget(&mut self, name: &str) {
        self.paces.remove(name);
        self.vetted.remove(name);
        self.common.note_end(name);
        // What this has stirred it knows.
        self.stirs.mark_unchanged();
        if self.current.as_deref() == Some(name) {
            self.current = None;
        }
    }

    async fn settle_committed(&mut self, row: &QueueRow, committed: Committed) {
        let name = &row.update_name;
        let pace = self.pace(name);
        pace.shrink.after_success();
        pace.backoff.reset();
        pace.put_off = None;
        self.fault_backoff.reset();
        self.common.forget_unrecorded(name);
        self.common.note_available();
        if row.failure.is_some()
            && let Err(error) = self.common.database.clear_failures(name).await
        {
            tracing::warn!(update = name, %error, "an old failure of an update that works again stays on record");
        }
        match committed.progress {
            Some(progress) => {
                let awaits = awaits_approval(&progress);
                self.common.state().roster.move_on(name, progress);
                if let Some(reason) = awaits {
                    self.emit(EventKind::AwaitsApproval { update_name: name.clone(), reason });
                }
            }
            None => {
                self.forget(name);
                self.emit(EventKind::UpdateFinished { update_name: name.clone() });
            }
        }
    }
}
