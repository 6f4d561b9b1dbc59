//! Several at work on one update: what is left of it cut into parts, hands for all but one of these, and their end.
//!
//! The worker that has the update does a part as well, and everything that is done once: the first batch, the cuts, the last
//! batch. While hands work nobody else writes the row. Whatever is more than a batch that is tried again ends their work first:
//! a failure that counts is met again by the worker alone, as if there had never been others.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::PARTING_LIMIT;
use super::super::attempt::{Interruption, Waits};
use super::super::database::{Begin, Planned};
use super::super::event::EventKind;
use super::super::runner::Tenure;
use super::hand::Hand;
use super::iteration::IterationPlan;
use super::post::{News, Order, Post, end_of, part_with};
use super::{Worker, WorkerPace, supervisor};
use crate::update::parts::{is_cut, is_whole, parts};
use crate::update::sql::ErrorClass;
use crate::update::{Mode, UpdateError};

/// Parts for each worker: so that none waits long for the last, where their rows are not of one kind.
const PARTS_EACH: usize = 4;

/// The hands at work on the update that a worker has.
pub(super) struct Crew {
    post: Arc<Post>,
    hands: JoinSet<()>,
    /// How many were told to be at work.
    told: usize,
}

impl Crew {
    /// Waits until all have left.
    async fn gone(&mut self) {
        while self.hands.join_next().await.is_some() {}
    }
}

impl Worker {
    /// Has a planned batch be of a part, where several are to work on its update; `None` where there is nothing to be done
    /// by this worker at the moment, or the queue is to be read first.
    pub(super) async fn share_out(
        &mut self,
        mut plan: IterationPlan,
        tenure: &mut Tenure,
    ) -> Result<Option<IterationPlan>, Interruption> {
        let name = plan.row.update_name.clone();
        if self.crew.as_ref().is_some_and(|crew| crew.post.update_name != name) {
            self.dismiss(tenure).await?;
        }
        if let Some(news) = self.crew.as_ref().and_then(|crew| crew.post.news()) {
            self.dismiss(tenure).await?;
            self.heed(&name, news).await?;
            return Ok(None);
        }
        if !is_cut(&plan.progress) {
            if self.crew.is_some() {
                // One part is left, and may be in somebody's hands.
                self.dismiss(tenure).await?;
                return Ok(None);
            }
            (self.part, self.alone) = (None, None);
            let cut = self.is_to_be_cut(&plan) && self.cut(&plan, tenure).await?;
            return Ok(Some(plan).filter(|_| !cut));
        }
        self.pace(&name).uncut = false;
        if self.crew.is_none() && self.alone.is_none() {
            self.assemble(&plan);
        }
        self.note_hands(&name);
        self.take_part(&plan);
        let Some(part) = self.part.clone() else {
            // The others have the rest; where there are none, somebody left off amid it.
            if self.crew.as_ref().is_some_and(|crew| crew.hands.is_empty()) {
                self.dismiss(tenure).await?;
            }
            if let Some(crew) = &self.crew {
                let post = Arc::clone(&crew.post);
                tokio::select! {
                    biased;
                    rested = self.rest_until_refresh(tenure) => rested?,
                    () = post.bell.notified() => {}
                }
            }
            self.common.state().refreshed = None;
            return Ok(None);
        };
        plan.progress = part.progress().clone();
        plan.part = Some(part);
        Ok(Some(plan))
    }

    /// The part that this worker does next: the one that it has in hand, or one that nobody has.
    fn take_part(&mut self, plan: &IterationPlan) {
        if let Some(crew) = &self.crew {
            self.part = self.part.take().or_else(|| crew.post.take());
            return;
        }
        let all = parts(&plan.progress);
        let end = self.alone.clone().or_else(|| self.part.as_ref().map(end_of));
        let same = all.iter().find(|part| Some(end_of(part)) == end);
        self.part = same.or(all.first()).cloned();
    }

    /// Whether what is left is to be cut into parts, as far as can be told without asking the database.
    fn is_to_be_cut(&mut self, plan: &IterationPlan) -> bool {
        let workers = plan.handler.workers();
        let wanted = plan.mode == Mode::Batched && workers > 1 && self.common.database.takes_hands();
        // What has not begun has no end that could be cut off.
        wanted && is_whole(&plan.progress) && !std::mem::replace(&mut self.pace(&plan.row.update_name).uncut, true)
    }

    /// Cuts what is left into parts. False where it stays as it is.
    async fn cut(&mut self, plan: &IterationPlan, tenure: &mut Tenure) -> Result<bool, Interruption> {
        let (name, workers) = (plan.row.update_name.clone(), plan.handler.workers());
        let (database, handler) = (Arc::clone(&self.common.database), Arc::clone(&plan.handler));
        let (row, progress, lane) = (plan.row.clone(), plan.progress.clone(), Arc::clone(&self.lane));
        let cut = async move {
            let mut session = database.vetting(&lane).await?;
            let cut = handler.cut(session.as_sql(), &progress, workers * PARTS_EACH).await?;
            drop(session);
            let Some(cut) = cut else { return Ok(None) };
            let progress = cut.to_json();
            let batch = Planned { lane: &lane, ..Planned::of(&row.update_name, &row.progress) };
            match database.begin_as(&batch).await? {
                Begin::Ready(transaction) => transaction.commit(Some(&progress)).await?,
                Begin::Moved(_) => return Ok(None),
                Begin::Failed(error) => return Err(error.into()),
            }
            Ok::<_, UpdateError>(Some((progress, parts(&cut).len())))
        };
        let control = self.common.control.clone();
        let cut = tokio::select! {
            biased;
            cut = cut => cut,
            () = control.stopped() => return Err(Interruption::Stopping),
            reason = tenure.lost() => return Err(Interruption::LeaseLost(reason)),
        };
        match cut {
            Ok(Some((_, into))) => {
                let workers = workers.min(into);
                let note = format!("what is left of it is cut into {into} parts, for {workers} workers");
                self.emit(EventKind::Noted { update_name: name, note });
            }
            Ok(None) => return Ok(false),
            Err(error) if error.class().ends_lease() => return Err(Interruption::LeaseLost(error.to_string())),
            // It goes on as it is: whatever is the matter, its batches meet it too.
            Err(error) => {
                if error.class() == ErrorClass::Permanent {
                    tracing::warn!(update = name, %error, "what is left of an update could not be cut into parts");
                }
                self.pace(&name).uncut = error.class() == ErrorClass::Permanent;
            }
        }
        self.common.state().refreshed = None;
        Ok(true)
    }

    /// Calls hands for the parts.
    fn assemble(&mut self, plan: &IterationPlan) {
        let workers = plan.handler.workers().min(parts(&plan.progress).len());
        if workers < 2 || !self.common.database.takes_hands() {
            return;
        }
        let name = &plan.row.update_name;
        let at = (name.as_str(), plan.row.progress.as_str());
        let post = Arc::new(Post::new(&self.common, &self.lane, &self.means, at, &plan.handler));
        // What this worker had in hand before, it goes on with.
        self.part = self.part.take().and_then(|part| part_with(&plan.row.progress, &end_of(&part)));
        if let Some(part) = &self.part {
            post.take_this(part);
        } else {
            self.part = post.take();
        }
        let mut hands = JoinSet::new();
        for number in 1..workers {
            let mut supervisor = supervisor(&self.common, &self.lane, &self.means);
            for witness in &self.common.witnesses {
                supervisor.add_witness(witness.clone());
            }
            let known = self.pace(name);
            let pace = WorkerPace {
                cost: known.cost,
                synapse: known.synapse.clone(),
                shrink: known.shrink,
                ..WorkerPace::default()
            };
            hands.spawn(Hand::new(Arc::clone(&post), number, supervisor, pace).run());
        }
        self.waits = Waits::asleep();
        self.crew = Some(Crew { post, hands, told: 0 });
    }

    /// Counts what the hands did, and tells how many there are where that has changed.
    fn note_hands(&mut self, name: &str) {
        let Some(crew) = &mut self.crew else { return };
        while crew.hands.try_join_next().is_some() {}
        let (items, progress, at_work) = (crew.post.take_items(), crew.post.progress(), crew.hands.len() + 1);
        let told = std::mem::replace(&mut crew.told, at_work);
        self.pace(name).items += items;
        self.common.state().roster.keep_up(name, progress);
        if told != at_work {
            self.emit(EventKind::Workers { update_name: name.to_owned(), workers: at_work });
        }
    }

    /// Takes note of a committed batch of a part.
    pub(super) fn note_part(&mut self, progress: Option<&str>) {
        let (Some(part), Some(progress)) = (self.part.take(), progress) else { return };
        self.alone = None;
        self.part = part_with(progress, &end_of(&part));
        if let Some(crew) = &self.crew {
            crew.post.note(progress, 0);
        }
    }

    /// A batch of this worker's failed in a way that counts: the others leave, and it is met again alone.
    pub(super) async fn meet_alone(&mut self, tenure: &mut Tenure) -> Result<(), Interruption> {
        let Some(part) = self.part.clone() else { return Ok(()) };
        self.alone = Some(end_of(&part));
        self.dismiss(tenure).await
    }

    /// Sends the hands home where there is no work for them: the update is gone or cannot run, all is paused, or is to be done
    /// otherwise.
    pub(super) async fn look_after_crew(&mut self, tenure: &mut Tenure) -> Result<(), Interruption> {
        let Some(crew) = &self.crew else { return Ok(()) };
        let is_ready = self.common.state().roster.place_of_ready(&crew.post.update_name, &self.lane).is_some();
        if self.common.is_paused() || !is_ready || self.has_replacement() {
            self.dismiss(tenure).await?;
        }
        Ok(())
    }

    /// Sends the hands home, and waits until they have ended the batches that they have in hand.
    pub(super) async fn dismiss(&mut self, tenure: &mut Tenure) -> Result<(), Interruption> {
        let Some(mut crew) = self.crew.take() else { return Ok(()) };
        crew.post.order(Order::Leave);
        let lost = tokio::select! {
            biased;
            () = crew.gone() => None,
            reason = tenure.lost() => Some(reason),
        };
        self.after_crew(&crew);
        if let Some(reason) = lost {
            crew.post.lose(&reason);
            let _ = timeout(PARTING_LIMIT, crew.gone()).await;
            return Err(Interruption::LeaseLost(reason));
        }
        Ok(())
    }

    /// The same where this lane, or the host, leaves off; `why` where it is to do so at once.
    pub(super) async fn disband(&mut self, why: Option<&Interruption>) {
        let Some(mut crew) = self.crew.take() else { return };
        crew.post.order(Order::Leave);
        let grace = match why {
            None | Some(Interruption::Stopping) => self.means.with.settings.shutdown_grace,
            Some(Interruption::LeaseLost(reason)) => {
                crew.post.lose(reason);
                Duration::ZERO
            }
        };
        if timeout(grace + PARTING_LIMIT, crew.gone()).await.is_err() {
            crew.hands.abort_all();
        }
        self.after_crew(&crew);
    }

    fn after_crew(&mut self, crew: &Crew) {
        let name = crew.post.update_name.clone();
        if let Some(pace) = self.paces.get_mut(&name) {
            pace.items += crew.post.take_items();
        }
        self.emit(EventKind::Workers { update_name: name, workers: 1 });
        self.waits = Waits::new();
        // The last word has the database.
        self.common.state().refreshed = None;
    }

    /// What follows from what a hand told.
    async fn heed(&mut self, name: &str, news: News) -> Result<(), Interruption> {
        self.part = None;
        match news {
            News::Failed { end } => self.alone = Some(end),
            News::Withdrawn => self.settle_withdrawn(name).await,
            News::Moved => self.common.state().refreshed = None,
            // Whether it is so, this worker finds out by itself.
            News::Interrupted(reason) => {
                tracing::debug!(update = name, reason, "a hand has left off");
                self.common.database.progress(name).await.map(drop).or_else(|error| {
                    match error.class.ends_lease() {
                        true => Err(Interruption::LeaseLost(error.to_string())),
                        false => Ok(()),
                    }
                })?;
            }
        }
        Ok(())
    }
}
