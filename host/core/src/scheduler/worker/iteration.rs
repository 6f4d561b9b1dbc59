//! One iteration: planned, admitted by the controller, run, exited and settled.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::super::End;
use super::super::attempt::{Attempt, Attempted, Committed, Interruption, Phase, Skipping, Trouble};
use super::super::database::{IterationOutcome, QueueRow, Record, unix_ms};
use super::super::event::EventKind;
use super::super::report::resting;
use super::super::runner::Tenure;
use super::super::update_state::{LaneState, UpdateState};
use super::super::watch::Watch;
use super::report::usage_of;
use super::{PutOff, Rest, Worker, WorkerPace};
use crate::controller::supervisor::{Enter, Start};
use crate::controller::{CompletedBatch, Iteration, Outcome, Subject, Supervisor};
use crate::update::parts::Part;
use crate::update::{Handler, Mode, Problem, Progress, UpdateError};

/// The least that a controller's wait lasts, so that `wait(0)` cannot spin.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_millis(10);

/// What a controller has waited in one iteration so far is a rest between two batches below this, and a hold from then
/// on.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// What an iteration asks of the database, fixed before its controller is asked.
pub(super) struct IterationPlan {
    pub(super) row: QueueRow,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) progress: Progress,
    pub(super) mode: Mode,
    pub(super) subject: Subject,
    /// The part that the progress is of, where what is left is in several.
    pub(super) part: Option<Part>,
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
pub(super) struct Waited {
    pub(super) total: Duration,
    pub(super) reason: Option<String>,
    /// Fuel that the controller used until now.
    pub(super) fuel: u64,
}

/// An iteration that was entered, and what its batch was to be.
pub(super) struct Entered<'a> {
    pub(super) subject: &'a Subject,
    pub(super) target: Duration,
    /// When its batch began, in milliseconds since the Unix epoch.
    pub(super) started_ms: i64,
    pub(super) waited: Waited,
}

impl Entered<'_> {
    /// Exits the iteration with what came of its batch, and tells what the controller used; all about that comes back.
    pub(super) async fn exit(
        self,
        supervisor: &mut Supervisor,
        iteration: Box<dyn Iteration>,
        attempted: &Attempted,
        emit: impl FnOnce(EventKind),
    ) -> Record {
        let Self { subject, target, started_ms, waited } = self;
        let Attempted { result, duration, slices, .. } = attempted;
        // What nothing came of was to be as large as was expected.
        let batch_size = if slices.is_empty() { slices.expected() } else { slices.asked() };
        let outcome = outcome(result, batch_size, *duration);
        // Before its exit, which may bring its fallback or end it.
        let controller = supervisor.describe();
        supervisor.exit(iteration, &outcome).await;
        Record {
            update_name: subject.update_name.clone(),
            started_ms,
            one_shot: subject.one_shot,
            controller,
            target_ms: (!subject.one_shot).then_some(target.as_millis() as u64),
            batch_size,
            items: result.as_ref().map_or(0, |committed| committed.items),
            duration_ms: milliseconds(*duration),
            waited_ms: milliseconds(waited.total),
            wait_reason: waited.reason,
            outcome: IterationOutcome::from(&outcome),
            error: error_of(&outcome),
            notes: result.as_ref().map_or_else(|_| Vec::new(), |committed| committed.notes.clone()),
            fuel: usage_of(supervisor, emit).map(|fuel| fuel + waited.fuel),
        }
    }
}

impl Worker {
    /// One iteration. An end comes back where the controller's fallback holds everything and the host is to end once
    /// nothing can run.
    pub(super) async fn iterate(&mut self, row: QueueRow, tenure: &mut Tenure) -> Result<Option<End>, Interruption> {
        if !self.common.claim(&self.lane, &row.update_name) {
            return Ok(None);
        }
        let plan = match self.plan(&row) {
            Ok(plan) => plan,
            Err(error) => {
                self.note_failure(&row, &error, Phase::Plan).await?;
                return Ok(None);
            }
        };
        self.take_in_hand(&plan);
        if let Err((phase, error)) = self.vet(&plan, tenure).await? {
            self.note_failure(&row, &error, phase).await?;
            return Ok(None);
        }
        let Some(plan) = self.share_out(plan, tenure).await? else { return Ok(None) };
        let mut iteration = match self.supervisor.start(&plan.subject).await {
            Start::Iteration(iteration) => iteration,
            Start::Hold(reason) => return self.held_by_fallback(&plan, reason, tenure).await,
            Start::Faulted => {
                self.bar_after_fault();
                return Ok(None);
            }
        };
        self.report_controller();
        let mut waited = Waited::default();
        let admitted = self.admit(&plan, &mut *iteration, &mut waited, tenure).await;
        match admitted {
            Ok(Admitted::Run(target)) => self.run_batch(plan, iteration, target, waited, tenure).await?,
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

    fn plan(&self, row: &QueueRow) -> Result<IterationPlan, UpdateError> {
        let Some(handler) = self.means.with.handlers.get(&row.update_name).cloned() else {
            return Err(UpdateError::Failed("no definition".to_owned()));
        };
        let progress = Progress::parse(&row.progress)?;
        let mode = handler.mode(&progress)?;
        let subject = Subject {
            update_name: row.update_name.clone(),
            database_name: self.common.name.clone(),
            one_shot: mode.is_one_shot(),
        };
        Ok(IterationPlan { row: row.clone(), handler, progress, mode, subject, part: None })
    }

    /// Looks, before this host runs the first batch of an update, whether its definition fits the database: what `check`
    /// calls an error must not reach a row. An update that happens in one transaction, or in statements that the database
    /// refuses as a whole, needs no look.
    async fn vet(
        &mut self,
        plan: &IterationPlan,
        tenure: &mut Tenure,
    ) -> Result<Result<(), (Phase, UpdateError)>, Interruption> {
        let name = &plan.row.update_name;
        if !plan.handler.is_vetted(plan.mode) || self.vetted.contains(name) {
            return Ok(Ok(()));
        }
        let control = self.common.control.clone();
        let database = Arc::clone(&self.common.database);
        let handler = Arc::clone(&plan.handler);
        let lane = Arc::clone(&self.lane);
        let checked = async move {
            let session = database.vetting(&lane).await;
            let mut session = session.map_err(|error| (Phase::Connect, UpdateError::from(error)))?;
            handler.check(session.as_sql()).await.map_err(|error| (Phase::Plan, error))
        };
        let mut watch = Watch::new(&self.common, &self.lane, name);
        let checked = tokio::select! {
            biased;
            checked = checked => checked,
            () = control.stopped() => return Err(Interruption::Stopping),
            reason = tenure.lost() => return Err(Interruption::LeaseLost(reason)),
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

    fn take_in_hand(&mut self, plan: &IterationPlan) {
        self.idle_told = false;
        let name = &plan.row.update_name;
        if self.current.as_ref() != Some(name) {
            self.current = Some(name.clone());
            self.estimated = None;
            self.tell(|work| (work.done, work.eta_ms) = (None, None));
            self.stands(UpdateState::Running, None);
            let one_shot = plan.subject.one_shot;
            self.emit(EventKind::UpdateStarted { update_name: name.clone(), one_shot });
        }
        self.pace(name).put_off = None;
        let items_per_ms = self.pace(name).synapse.average_items_per_ms();
        self.tell(|work| (work.update_name, work.items_per_ms) = (Some(name.clone()), items_per_ms));
    }

    pub(super) fn pace(&mut self, update_name: &str) -> &mut WorkerPace {
        self.paces.entry(update_name.to_owned()).or_default()
    }

    /// Enters the iteration until it answers run, waiting as it says.
    async fn admit(
        &mut self,
        plan: &IterationPlan,
        iteration: &mut dyn Iteration,
        waited: &mut Waited,
        tenure: &mut Tenure,
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
            let rest = self.supervisor.is_steady() || waited.total + duration < LONGEST_REST;
            self.emit(EventKind::Held { update_name, controller, duration, reason: reason.clone(), rest });
            match rest {
                true => self.stands(UpdateState::Running, Some(resting(&reason))),
                false => self.stands(UpdateState::Held, Some(reason.clone())),
            }
            waited.reason = Some(reason);
            let started = Instant::now();
            let rest = self.rest_on(&plan.row, duration, tenure).await;
            waited.total += started.elapsed();
            if rest? == Rest::Overtaken {
                return Ok(Admitted::No);
            }
        }
    }

    /// Runs a batch for an iteration that was entered, exits it and settles what came of it.
    async fn run_batch(
        &mut self,
        plan: IterationPlan,
        iteration: Box<dyn Iteration>,
        target: Duration,
        waited: Waited,
        tenure: &mut Tenure,
    ) -> Result<(), Interruption> {
        let common = Arc::clone(&self.common);
        let _turn = if common.database.has_one_writer() {
            tokio::select! {
                biased;
                turn = common.turn.lock() => Some(turn),
                () = common.control.stopped() => None,
                reason = tenure.lost() => return Err(Interruption::LeaseLost(reason)),
            }
        } else {
            None
        };
        let room = self.common.database.room_for_others();
        // A moment, not worth being cut short: an iteration that was entered is to be exited.
        if !room.is_zero() {
            sleep(room).await;
        }
        let Some(slices) = self.slices(&plan, target).await else {
            self.exit_without_batch(iteration).await;
            self.bar_after_fault();
            return Ok(());
        };
        if self.common.control.is_stopping() || self.common.is_paused() {
            self.exit_without_batch(iteration).await;
            self.common.state().refreshed = None;
            return Ok(());
        }
        self.announce(&plan, slices.expected(), target).await;
        let started_ms = unix_ms(SystemTime::now());
        let is_first = plan.progress.0.is_empty() || !self.pace(&plan.row.update_name).noted;
        let halving = self.pace(&plan.row.update_name).halving;
        let watch = Watch::new(&self.common, &self.lane, &plan.row.update_name);
        let attempt = Attempt {
            watch,
            common: &self.common,
            lane: &self.lane,
            line: &self.lane,
            shutdown_grace: self.means.with.settings.shutdown_grace,
            tenure,
            waits: &mut self.waits,
            handler: &*plan.handler,
            row: &plan.row,
            mode: plan.mode,
            progress: plan.progress.clone(),
            part: plan.part.clone(),
            slices,
            started: Instant::now(),
            skipping: Skipping::new(halving),
            own: Duration::ZERO,
            phase: Phase::Connect,
            is_first,
        };
        let attempted = attempt.run().await;
        self.tell(|work| work.one_shot_since_ms = None);
        let entered = Entered { subject: &plan.subject, target, started_ms, waited };
        let Self { supervisor, common, lane, .. } = self;
        let emit = |kind| common.events.emit_in(&common.name, lane, kind);
        let record = entered.exit(supervisor, iteration, &attempted, emit).await;
        let Attempted { result, duration, slices, halving, own, phase } = attempted;
        self.pace(&plan.row.update_name).halving = halving;
        if result.is_ok() && !plan.subject.one_shot {
            slices.settle(&mut self.pace(&plan.row.update_name).cost, own);
        }
        self.report_controller();
        self.settle(plan, (result, phase), record, duration, tenure).await
    }

    async fn exit_without_batch(&mut self, iteration: Box<dyn Iteration>) {
        if self.supervisor.is_live() {
            self.supervisor.exit(iteration, &Outcome::Cancelled).await;
        }
        self.report_controller();
    }

    async fn announce(&mut self, plan: &IterationPlan, batch_size: u64, target: Duration) {
        self.stands(UpdateState::Running, None);
        let one_shot = plan.subject.one_shot;
        let update_name = plan.row.update_name.clone();
        let target = (!one_shot).then_some(target);
        self.emit(EventKind::BatchStarted { update_name, batch_size, target, one_shot });
        if one_shot {
            // It may take hours, in which nothing else is written.
            self.tell(|work| work.one_shot_since_ms = Some(unix_ms(SystemTime::now())));
            self.write_activity().await;
        }
    }

    async fn held_by_fallback(
        &mut self,
        plan: &IterationPlan,
        reason: String,
        tenure: &mut Tenure,
    ) -> Result<Option<End>, Interruption> {
        self.report_controller();
        if self.is_hopeless() {
            self.common.hold(&self.lane, &reason);
            if let Some(end) = self.end() {
                return Ok(Some(end));
            }
        }
        let is_told = self
            .tell(|work| work.state == LaneState::Update(UpdateState::Held) && work.reason.as_ref() == Some(&reason));
        if !is_told {
            let (update_name, duration) = (plan.row.update_name.clone(), self.common.refresh_interval());
            let controller = self.supervisor.describe();
            self.emit(EventKind::Held { update_name, controller, duration, reason: reason.clone(), rest: false });
        }
        self.stands(UpdateState::Held, Some(reason));
        let next_try = self.supervisor.next_try().map(|next| next.due.saturating_duration_since(Instant::now()));
        self.rest(self.common.refresh_interval().min(next_try.unwrap_or(Duration::MAX)), tenure).await?;
        self.common.state().refreshed = None;
        Ok(None)
    }

    /// True where nothing that is ready in this lane can run before somebody mends the controller.
    fn is_hopeless(&self) -> bool {
        let state = self.common.state();
        state.roster.ready(&self.lane).all(|row| self.supervisor.is_hopeless(&row.update_name))
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
            Outcome::Completed(CompletedBatch { items: *items, batch_size, duration, finished: progress.is_none() })
        }
        Err(Trouble::Failed(error)) => Outcome::Failed(error.told()),
        Err(Trouble::Moved { .. } | Trouble::Withdrawn | Trouble::Interrupted(_)) => Outcome::Cancelled,
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
