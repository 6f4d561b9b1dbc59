//! One iteration: planned, admitted by the controller, run, exited and settled.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, timeout};

use super::super::End;
use super::super::attempt::{Attempt, Attempted, Committed, Interruption, Phase, Trouble};
use super::super::choice::Standing;
use super::super::database::{Lease, QueueRow, Record, unix_ms};
use super::super::event::EventKind;
use super::super::watch::Watch;
use super::{Pace, PutOff, Rest, Worker};
use crate::controller::supervisor::{Enter, Start};
use crate::controller::{Batch, Iteration, Outcome, Subject};
use crate::pace::{BatchSize, Bounds, Estimator, Slices};
use crate::update::{Handler, Mode, Problem, Progress, UpdateError};

/// What an update that rests is said to do.
const RESTING: &str = "resting between batches";

/// The least that a controller's wait lasts, so that `wait(0)` cannot spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

/// What a controller has waited in one iteration so far is a rest between two batches below this, and a hold from then
/// on.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// Batches of an update that a host looks up in the history before it runs the first of its own.
const REMEMBERED: u32 = 10;

/// How long that may take.
const REMEMBERING_LIMIT: Duration = Duration::from_secs(2);

/// What an iteration asks of the database, fixed before its controller is asked.
struct Plan {
    row: QueueRow,
    handler: Arc<dyn Handler>,
    progress: Progress,
    mode: Mode,
    subject: Subject,
}

/// What enter came to in the end.
enum Admitted {
    /// Run a batch of this target.
    Run(Duration),
    /// Do not: paused, withdrawn, or the controller is at fault.
    No,
}

/// How often, and why, an iteration was made to wait.
#[derive(Default)]
struct Waited {
    total: Duration,
    reason: Option<String>,
    /// Fuel that the controller used until now.
    fuel: u64,
}

impl Worker {
    /// One iteration. An end comes back where the controller's fallback holds everything and the host is to end once
    /// nothing can run.
    pub(super) async fn iterate(&mut self, row: QueueRow, lease: &mut dyn Lease) -> Result<Option<End>, Interruption> {
        let plan = match self.plan(&row) {
            Ok(plan) => plan,
            Err(error) => {
                self.note_failure(&row, &error, Phase::Plan, lease).await?;
                return Ok(None);
            }
        };
        self.take_in_hand(&plan);
        if let Err((phase, error)) = self.vet(&plan, lease).await? {
            self.note_failure(&row, &error, phase, lease).await?;
            return Ok(None);
        }
        let mut iteration = match self.supervisor.start(&plan.subject).await {
            Start::Iteration(iteration) => iteration,
            Start::Hold(reason) => return self.held_by_fallback(&plan, reason, lease).await,
            Start::Faulted => {
                self.bar_after_fault();
                return Ok(None);
            }
        };
        self.report_controller();
        let mut waited = Waited::default();
        let admitted = self.admit(&plan, &mut *iteration, &mut waited, lease).await;
        match admitted {
            Ok(Admitted::Run(target)) => self.run_batch(plan, iteration, target, waited, lease).await?,
            Ok(Admitted::No) | Err(_) => {
                self.supervisor.close(iteration).await;
                self.report_controller();
                admitted?;
                if self.supervisor.is_at_fault() {
                    self.bar_after_fault();
                }
            }
        }
        Ok(None)
    }

    fn plan(&self, row: &QueueRow) -> Result<Plan, UpdateError> {
        let Some(handler) = self.workload.handlers.get(&row.update_name).cloned() else {
            return Err(UpdateError::Failed("no definition".to_owned()));
        };
        let progress = Progress::parse(&row.progress)?;
        let mode = handler.mode(&progress)?;
        let subject = Subject {
            update_name: row.update_name.clone(),
            database_name: self.workload.name.clone(),
            one_shot: mode.is_one_shot(),
        };
        Ok(Plan { row: row.clone(), handler, progress, mode, subject })
    }

    /// Looks, before this host runs the first batch of an update, whether its definition fits the database: what `check`
    /// calls an error must not reach a row. An update that happens in one transaction, or in statements that the database
    /// refuses as a whole, needs no look.
    async fn vet(
        &mut self,
        plan: &Plan,
        lease: &mut dyn Lease,
    ) -> Result<Result<(), (Phase, UpdateError)>, Interruption> {
        let name = &plan.row.update_name;
        if plan.mode != Mode::Batched || self.vetted.contains(name) {
            return Ok(Ok(()));
        }
        let control = self.control.clone();
        let database = Arc::clone(&self.workload.database);
        let handler = Arc::clone(&plan.handler);
        let checked = async move {
            let session = database.vetting().await;
            let mut session = session.map_err(|error| (Phase::Connect, UpdateError::from(error)))?;
            handler.check(session.as_sql()).await.map_err(|error| (Phase::Plan, error))
        };
        let mut watch = Watch {
            database_name: &self.workload.name,
            database: &*self.workload.database,
            events: &self.events,
            control: &self.control,
            update_name: name,
            activity: &mut self.activity,
            written: &mut self.activity_written,
            due: Watch::first_look(),
            last: Vec::new(),
        };
        let checked = tokio::select! {
            biased;
            checked = checked => checked,
            () = control.stopped() => return Err(Interruption::Stopping),
            reason = lease.lost() => return Err(Interruption::LeaseLost(reason)),
            // Who wants it gone has it gone once this is over: a look waits for no lock for longer than a batch does.
            never = async { watch.withdrawn().await; std::future::pending().await } => never,
        };
        let checked = match checked {
            Ok(problems) => Ok(problems),
            Err((phase, error)) => {
                watch.look_back(&error).await;
                Err((phase, watch.explained(error)))
            }
        };
        watch.end();
        Ok(match checked {
            Ok(problems) => match problems.into_iter().find(Problem::is_error) {
                Some(problem) => {
                    Err((Phase::Plan, UpdateError::Failed(format!("{} ({})", problem.message, problem.hint))))
                }
                None => {
                    self.vetted.insert(name.clone());
                    Ok(())
                }
            },
            Err(error) => Err(error),
        })
    }

    fn take_in_hand(&mut self, plan: &Plan) {
        self.idle_told = false;
        let name = &plan.row.update_name;
        if self.current.as_ref() != Some(name) {
            self.current = Some(name.clone());
            self.estimated = None;
            (self.activity.done, self.activity.eta_ms) = (None, None);
            self.set_state("running", None);
            let one_shot = plan.subject.one_shot;
            self.emit(EventKind::UpdateStarted { update_name: name.clone(), one_shot });
        }
        self.pace(name).put_off = None;
        self.activity.update_name = Some(name.clone());
        self.activity.items_per_ms = self.pace(name).synapse.average_items_per_ms();
    }

    pub(super) fn pace(&mut self, update_name: &str) -> &mut Pace {
        self.paces.entry(update_name.to_owned()).or_default()
    }

    /// Enters the iteration until it answers run, waiting as it says.
    async fn admit(
        &mut self,
        plan: &Plan,
        iteration: &mut dyn Iteration,
        waited: &mut Waited,
        lease: &mut dyn Lease,
    ) -> Result<Admitted, Interruption> {
        loop {
            let (duration, reason) = match self.supervisor.enter(iteration).await {
                Enter::Run(target) => return Ok(Admitted::Run(target)),
                Enter::Faulted => return Ok(Admitted::No),
                Enter::Wait { duration, reason } => (duration.max(SHORTEST_WAIT), reason),
            };
            self.report_controller();
            waited.fuel += self.report_usage().unwrap_or_default();
            let update_name = plan.row.update_name.clone();
            let controller = self.supervisor.describe();
            let rest = self.supervisor.is_built_in() || waited.total + duration < LONGEST_REST;
            self.emit(EventKind::Held { update_name, controller, duration, reason: reason.clone(), rest });
            match (rest, self.supervisor.is_built_in()) {
                (true, true) => self.set_state("running", Some(RESTING.to_owned())),
                (true, false) => self.set_state("running", Some(format!("{RESTING}: {reason}"))),
                (false, _) => self.set_state("held", Some(reason.clone())),
            }
            waited.reason = Some(reason);
            let started = Instant::now();
            let rest = self.rest_on(&plan.row, duration, lease).await;
            waited.total += started.elapsed();
            if rest? == Rest::Overtaken {
                return Ok(Admitted::No);
            }
        }
    }

    /// Runs a batch for an iteration that was entered, exits it and settles what came of it.
    async fn run_batch(
        &mut self,
        plan: Plan,
        iteration: Box<dyn Iteration>,
        target: Duration,
        waited: Waited,
        lease: &mut dyn Lease,
    ) -> Result<(), Interruption> {
        let room = self.workload.database.room_for_others();
        // A moment, not worth being cut short: an iteration that was entered is to be exited.
        if !room.is_zero() {
            sleep(room).await;
        }
        let Some(slices) = self.slices(&plan, target).await else {
            self.exit_without_batch(iteration).await;
            self.bar_after_fault();
            return Ok(());
        };
        if self.control.is_stopping() || self.is_paused() {
            self.exit_without_batch(iteration).await;
            self.refreshed = None;
            return Ok(());
        }
        self.announce(&plan, slices.expected(), target).await;
        let started_ms = unix_ms(SystemTime::now());
        let watch = Watch {
            database_name: &self.workload.name,
            database: &*self.workload.database,
            events: &self.events,
            control: &self.control,
            update_name: &plan.row.update_name,
            activity: &mut self.activity,
            written: &mut self.activity_written,
            due: Watch::first_look(),
            last: Vec::new(),
        };
        let attempt = Attempt {
            watch,
            database_name: &self.workload.name,
            database: &*self.workload.database,
            events: &self.events,
            control: &self.control,
            shutdown_grace: self.settings.shutdown_grace,
            lease,
            waits: &mut self.waits,
            handler: &*plan.handler,
            row: &plan.row,
            mode: plan.mode,
            progress: plan.progress.clone(),
            slices,
            started: Instant::now(),
            own: Duration::ZERO,
            phase: Phase::Connect,
        };
        let Attempted { result, duration, slices, own, phase } = attempt.run().await;
        if result.is_ok() && !plan.subject.one_shot {
            slices.settle(&mut self.pace(&plan.row.update_name).cost, own);
        }
        // What nothing came of was to be as large as was expected.
        let batch_size = if slices.is_empty() { slices.expected() } else { slices.asked() };
        self.activity.one_shot_since_ms = None;
        let outcome = outcome(&result, batch_size, duration);
        // Before its exit, which may bring its fallback or end it.
        let controller = self.supervisor.describe();
        self.supervisor.exit(iteration, &outcome).await;
        let record = Record {
            update_name: plan.row.update_name.clone(),
            started_ms,
            one_shot: plan.subject.one_shot,
            controller,
            target_ms: (!plan.subject.one_shot).then_some(target.as_millis() as u64),
            batch_size,
            items: result.as_ref().map_or(0, |committed| committed.items),
            duration_ms: milliseconds(duration),
            waited_ms: milliseconds(waited.total),
            wait_reason: waited.reason,
            outcome: name_of(&outcome).to_owned(),
            error: error_of(&outcome),
            notes: result.as_ref().map_or_else(|_| Vec::new(), |committed| committed.notes.clone()),
            fuel: self.report_usage().map(|fuel| fuel + waited.fuel),
        };
        self.report_controller();
        self.settle(plan, (result, phase), record, duration, lease).await
    }

    /// What is to be done in how many slices; `None` where asking the controller was a fault that leaves no batch to run.
    async fn slices(&mut self, plan: &Plan, target: Duration) -> Option<Slices> {
        self.remember(plan).await;
        let name = &plan.row.update_name;
        let estimator = self.settings.estimator;
        let pace = self.pace(name);
        let (cost, shrink) = (pace.cost, pace.shrink);
        let fitting = match estimator {
            Estimator::Slices => cost.items_within(target),
            Estimator::Synapse => pace.synapse.items_within(target),
        };
        let size = match fitting {
            None => BatchSize::First(self.supervisor.default_batch_size(&plan.subject).await?),
            Some(fitting) => BatchSize::Later { fitting, min: self.supervisor.min_batch_size(&plan.subject).await? },
        };
        let (items, max) = (size.items(self.settings.max_batch_size, shrink), self.settings.max_batch_size);
        // As in Synapse the first batch has its items whatever they cost, within the bounds of the least.
        let least = match size {
            BatchSize::First(first) => first.min(self.supervisor.max_min_batch_size()),
            BatchSize::Later { min, .. } => min,
        };
        let (min, max) = if shrink.is_none() { (least.into(), max) } else { (1, items) };
        let bounds = Bounds { target, expected: items, min, cut_off: self.settings.cut_off, max };
        Some(match (plan.subject.one_shot, estimator) {
            (true, _) => Slices::whole(Bounds { cut_off: Duration::MAX, ..bounds }, cost),
            (false, Estimator::Synapse) => Slices::whole(bounds, cost),
            (false, Estimator::Slices) => Slices::new(bounds, cost),
        })
    }

    /// Goes by what batches of this update have cost until now, where another host, or this one before it was started
    /// again, has written that down.
    async fn remember(&mut self, plan: &Plan) {
        let name = &plan.row.update_name;
        if std::mem::replace(&mut self.pace(name).remembered, true) || plan.progress == Progress::default() {
            return;
        }
        let history = self.workload.database.history(Some(name), REMEMBERED);
        let Ok(Ok(records)) = timeout(REMEMBERING_LIMIT, history).await else { return };
        let pace = self.pace(name);
        for record in records.iter().rev().filter(|record| !record.one_shot && record.error.is_none()) {
            let duration = Duration::try_from_secs_f64(record.duration_ms / 1e3).unwrap_or_default();
            pace.cost.remember(record.items, duration);
            pace.synapse.record(record.items, duration);
        }
    }

    async fn exit_without_batch(&mut self, iteration: Box<dyn Iteration>) {
        if self.supervisor.is_live() {
            self.supervisor.exit(iteration, &Outcome::Cancelled).await;
        }
        self.report_controller();
    }

    async fn announce(&mut self, plan: &Plan, batch_size: u64, target: Duration) {
        self.set_state("running", None);
        let one_shot = plan.subject.one_shot;
        let update_name = plan.row.update_name.clone();
        let target = (!one_shot).then_some(target);
        self.emit(EventKind::BatchStarted { update_name, batch_size, target, one_shot });
        if one_shot {
            // It may take hours, in which nothing else is written.
            self.activity.one_shot_since_ms = Some(unix_ms(SystemTime::now()));
            self.write_activity().await;
        }
    }

    /// Takes note of what came of a batch.
    async fn settle(
        &mut self,
        plan: Plan,
        (result, phase): (Result<Committed, Trouble>, Phase),
        record: Record,
        duration: Duration,
        lease: &mut dyn Lease,
    ) -> Result<(), Interruption> {
        let name = plan.row.update_name.clone();
        if let Ok(committed) = &result {
            let pace = self.pace(&name);
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
                self.settle_committed(&plan.row, committed).await;
                lease.note(self.trouble().as_deref()).await;
                Ok(())
            }
            Err(Trouble::Failed(error)) => self.note_failure(&plan.row, &error, phase, lease).await,
            Err(Trouble::Moved { gone }) => {
                self.refreshed = None;
                if gone {
                    self.note_gone(&name);
                } else {
                    self.emit(EventKind::UpdateMoved { update_name: name, gone });
                }
                Ok(())
            }
            Err(Trouble::Withdrawn) => {
                self.settle_withdrawn(&name).await;
                Ok(())
            }
            Err(Trouble::Interrupted(interruption)) => Err(interruption),
        }
    }

    /// Takes an update out of the queue whose batch was interrupted for that.
    async fn settle_withdrawn(&mut self, name: &str) {
        self.refreshed = None;
        match self.workload.database.cancel(&[name.to_owned()]).await {
            Ok(_) => {
                self.control.forget_withdrawal(&self.workload.name, name);
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
        self.roster.remove(name);
        self.is_outdated = true;
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
        self.unrecorded.remove(name);
        self.note_available();
        if row.failure.is_some()
            && let Err(error) = self.workload.database.forget_failures(name).await
        {
            tracing::warn!(update = name, %error, "an old failure of an update that works again stays on record");
        }
        match committed.progress {
            Some(progress) => self.roster.move_on(name, progress),
            None => {
                self.forget(name);
                self.emit(EventKind::UpdateFinished { update_name: name.clone() });
            }
        }
    }

    async fn held_by_fallback(
        &mut self,
        plan: &Plan,
        reason: String,
        lease: &mut dyn Lease,
    ) -> Result<Option<End>, Interruption> {
        self.report_controller();
        if self.settings.until_done && self.roster.ready().all(|row| self.supervisor.is_hopeless(&row.update_name)) {
            let rows = self.roster.iter();
            let why = |row: &QueueRow, standing: &Standing| standing.explain(row).unwrap_or_else(|| reason.clone());
            let remaining = rows.map(|(row, standing)| (row.update_name.clone(), why(row, standing))).collect();
            return Ok(Some(End::Done { remaining }));
        }
        if self.activity.state != "held" || self.activity.reason.as_ref() != Some(&reason) {
            let (update_name, duration) = (plan.row.update_name.clone(), self.refresh_interval());
            let controller = self.supervisor.describe();
            self.emit(EventKind::Held { update_name, controller, duration, reason: reason.clone(), rest: false });
        }
        self.set_state("held", Some(reason));
        let next_try = self.supervisor.next_try().map(|next| next.due.saturating_duration_since(Instant::now()));
        self.rest(self.refresh_interval().min(next_try.unwrap_or(Duration::MAX)), lease).await?;
        self.refreshed = None;
        Ok(None)
    }

    /// The controller failed: nothing is tried before it is asked again.
    fn bar_after_fault(&mut self) {
        self.report_controller();
        self.report_usage();
        if self.supervisor.has_fallen_back() {
            // Who stands in for the controller has no need of a rest.
            return;
        }
        let wait = self.fault_backoff.after_failure();
        let fault = self.supervisor.last_fault().map(ToString::to_string);
        self.barred = Some(PutOff::new(wait, fault.unwrap_or_default()));
    }
}

fn outcome(result: &Result<Committed, Trouble>, batch_size: u64, duration: Duration) -> Outcome {
    match result {
        Ok(Committed { items, progress, .. }) => {
            Outcome::Completed(Batch { items: *items, batch_size, duration, finished: progress.is_none() })
        }
        Err(Trouble::Failed(error)) => Outcome::Failed(error.told()),
        Err(Trouble::Moved { .. } | Trouble::Withdrawn | Trouble::Interrupted(_)) => Outcome::Cancelled,
    }
}

fn name_of(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Completed(Batch { finished: true, .. }) => "finished",
        Outcome::Completed(_) => "completed",
        Outcome::Failed(_) => "failed",
        Outcome::Cancelled => "cancelled",
    }
}

fn error_of(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Failed(error) => Some(error.clone()),
        _ => None,
    }
}

/// Milliseconds with the microseconds behind the point: what is stored is what was told.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}
