//! A hand: one more worker for an update that a worker has, on one part after the other.
//!
//! It has a controller of its own, each of its batches an iteration of that, and a connection of its own. What goes wrong in a
//! way that counts it leaves to the worker: one alone meets it again, so that it is counted as it is for every update.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::super::attempt::{Attempt, Attempted, Committed, Phase, Skipping, Trouble, Waits};
use super::super::common::{FIRST_BACKOFF, LONGEST_BACKOFF};
use super::super::database::{QueueRow, Record, unix_ms};
use super::super::event::EventKind;
use super::super::watch::Watch;
use super::WorkerPace;
use super::iteration::{Entered, SHORTEST_WAIT, Waited};
use super::post::{News, Order, Post, end_of, part_with};
use super::report::usage_of;
use super::sizing::sized;
use crate::controller::supervisor::{Enter, Notice, Start};
use crate::controller::{Iteration, Outcome, Subject, Supervisor};
use crate::pace::Backoff;
use crate::update::parts::Part;
use crate::update::{ErrorClass, Mode, UpdateError};

pub(super) struct Hand {
    post: Arc<Post>,
    /// Which of them it is: 1 for the first beside the worker itself.
    number: usize,
    supervisor: Supervisor,
    pace: WorkerPace,
    fault_backoff: Backoff,
    waits: Waits,
    orders: watch::Receiver<Order>,
    /// Whose connection it takes: that of a lane which nobody can name.
    line: String,
}

/// What an iteration came to.
enum Went {
    /// The part goes on from here; `None` where it is done.
    On(Option<Part>),
    /// It is to be tried again after a while.
    Badly(Part, Duration),
    /// There is no more for this hand to do, or for any of them.
    Home(Option<News>),
}

impl Hand {
    /// One that begins with what is known of the pace.
    pub(super) fn new(post: Arc<Post>, number: usize, supervisor: Supervisor, pace: WorkerPace) -> Self {
        let (orders, line) = (post.orders(), format!("{}\n{number}", post.lane));
        let fault_backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
        Self { post, number, supervisor, pace, fault_backoff, waits: Waits::asleep(), orders, line }
    }

    /// Works until no part is left that nobody has taken, or until told to leave.
    pub(super) async fn run(mut self) {
        let mut part = None;
        let news = loop {
            if !self.may_work() {
                break None;
            }
            let Some(taken) = part.take().or_else(|| self.post.take()) else { break None };
            match self.iterate(taken).await {
                Went::On(next) => part = next,
                Went::Badly(next, wait) => {
                    self.rest(wait).await;
                    part = Some(next);
                }
                Went::Home(news) => break news,
            }
        };
        match news {
            Some(news) => self.post.tell(news),
            None => self.post.bell.notify_one(),
        }
    }

    fn may_work(&self) -> bool {
        let common = &self.post.common;
        !common.is_paused() && !common.control.is_stopping() && *self.orders.borrow() == Order::Work
    }

    /// Rests, unless told to leave.
    async fn rest(&mut self, duration: Duration) {
        let control = self.post.common.control.clone();
        tokio::select! {
            biased;
            _ = self.orders.wait_for(|order| *order != Order::Work) => {}
            () = control.stopped() => {}
            () = sleep(duration) => {}
        }
    }

    async fn iterate(&mut self, part: Part) -> Went {
        let subject = Subject {
            update_name: self.post.update_name.clone(),
            database_name: self.post.common.name.clone(),
            one_shot: false,
        };
        let mut iteration = match self.supervisor.start(&subject).await {
            Start::Iteration(iteration) => iteration,
            Start::Hold(_) => {
                self.report_controller();
                self.post.give_back(&part);
                return Went::Home(None);
            }
            Start::Faulted => return self.faulted(part),
        };
        self.report_controller();
        let mut waited = Waited::default();
        let target = loop {
            let (duration, reason) = match self.supervisor.enter(&mut *iteration).await {
                Enter::Run(target) => break target,
                Enter::Faulted => {
                    self.supervisor.close(iteration).await;
                    return self.faulted(part);
                }
                Enter::Wait { duration, reason } => (duration.max(SHORTEST_WAIT), reason),
            };
            self.report_controller();
            waited.fuel += self.report_usage().unwrap_or_default();
            waited.reason = Some(reason);
            let began = Instant::now();
            self.rest(duration).await;
            waited.total += began.elapsed();
            if !self.may_work() {
                self.supervisor.close(iteration).await;
                return Went::On(Some(part));
            }
        };
        let slices = sized(&mut self.supervisor, &subject, &self.pace, &self.post.means.with.settings, target).await;
        let Some(slices) = slices else {
            self.exit(iteration, &Outcome::Cancelled).await;
            return self.faulted(part);
        };
        if !self.may_work() {
            self.exit(iteration, &Outcome::Cancelled).await;
            return Went::On(Some(part));
        }
        let started_ms = unix_ms(SystemTime::now());
        let attempted = self.attempt(&part, slices).await;
        let entered = Entered { subject: &subject, target, started_ms, waited };
        let Self { supervisor, post, .. } = &mut *self;
        let record = entered.exit(supervisor, iteration, &attempted, |kind| post.emit(kind)).await;
        let Attempted { result, duration, slices, halving, own, phase } = attempted;
        self.pace.halving = halving;
        if result.is_ok() {
            slices.settle(&mut self.pace.cost, own);
        }
        self.report_controller();
        self.settle(part, result, phase, record, duration)
    }

    async fn attempt(&mut self, part: &Part, slices: crate::pace::Slices) -> Attempted {
        let post = Arc::clone(&self.post);
        let row = QueueRow { update_name: post.update_name.clone(), progress: post.progress(), ..QueueRow::default() };
        let (common, mut tenure) = (&*post.common, post.tenure());
        let halving = self.pace.halving;
        let attempt = Attempt {
            watch: Watch::new(common, &post.lane, &post.update_name).over(&self.line),
            common,
            lane: &post.lane,
            line: &self.line,
            shutdown_grace: post.means.with.settings.shutdown_grace,
            tenure: &mut tenure,
            waits: &mut self.waits,
            handler: &*post.handler,
            row: &row,
            mode: Mode::Batched,
            progress: part.progress().clone(),
            part: Some(part.clone()),
            slices,
            started: Instant::now(),
            skipping: Skipping::new(halving),
            own: Duration::ZERO,
            phase: Phase::Connect,
            is_first: false,
        };
        attempt.run().await
    }

    /// Takes note of what came of a batch.
    fn settle(
        &mut self,
        part: Part,
        result: Result<Committed, Trouble>,
        phase: Phase,
        record: Record,
        duration: Duration,
    ) -> Went {
        let update_name = self.post.update_name.clone();
        if let Ok(committed) = &result {
            self.pace.synapse.record(committed.items, duration);
            for note in &committed.notes {
                self.emit(EventKind::Noted { update_name: update_name.clone(), note: note.clone() });
            }
        }
        let items_per_ms = self.pace.synapse.average_items_per_ms();
        self.emit(EventKind::IterationEnded { record: Arc::new(record), items_per_ms });
        match result {
            Ok(Committed { items, progress, .. }) => {
                self.pace.shrink.after_success();
                self.pace.backoff.reset();
                self.fault_backoff.reset();
                let progress = progress.unwrap_or_default();
                self.post.note(&progress, items);
                Went::On(part_with(&progress, &end_of(&part)))
            }
            Err(Trouble::Failed(error)) => self.failed(part, &error, phase),
            Err(Trouble::Moved { .. }) => Went::Home(Some(News::Moved)),
            Err(Trouble::Withdrawn) => Went::Home(Some(News::Withdrawn)),
            Err(Trouble::Interrupted(interruption)) => Went::Home(Some(interruption.into())),
        }
    }

    fn failed(&mut self, part: Part, error: &UpdateError, phase: Phase) -> Went {
        if error.class().ends_lease() {
            return Went::Home(Some(News::Interrupted(error.to_string())));
        }
        // What the database refuses to all of them is no part's.
        if phase != Phase::Connect && error.class() == ErrorClass::Permanent {
            self.post.give_back(&part);
            return Went::Home(Some(News::Failed { end: end_of(&part) }));
        }
        tracing::debug!(update = self.post.update_name, hand = self.number, %error, "a batch of a part is tried again");
        if phase == Phase::Handler && error.is_of_size() {
            self.pace.shrink.after_transient_failure();
        }
        Went::Badly(part, self.pace.backoff.after_failure())
    }

    fn faulted(&mut self, part: Part) -> Went {
        self.report_controller();
        self.report_usage();
        let wait = if self.supervisor.has_fallen_back() { Duration::ZERO } else { self.fault_backoff.after_failure() };
        Went::Badly(part, wait)
    }

    async fn exit(&mut self, iteration: Box<dyn Iteration>, outcome: &Outcome) {
        if self.supervisor.is_live() {
            self.supervisor.exit(iteration, outcome).await;
        }
        self.report_controller();
    }

    /// Tells of faults. Whether a fallback is in force is told of the worker's controller alone.
    fn report_controller(&mut self) {
        for notice in self.supervisor.take_notices() {
            if let Notice::Fault { fault, in_a_row } = notice {
                let controller = self.supervisor.name().to_owned();
                self.emit(EventKind::ControllerFault { controller, fault, in_a_row });
            }
        }
    }

    fn report_usage(&mut self) -> Option<u64> {
        let Self { supervisor, post, .. } = self;
        usage_of(supervisor, |kind| post.emit(kind))
    }

    fn emit(&self, kind: EventKind) {
        self.post.emit(kind);
    }
}
