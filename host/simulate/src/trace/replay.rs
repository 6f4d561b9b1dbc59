//! Asking a controller what another was asked, and comparing.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::Playback;
use super::format::{AnswerFacts, CallLine, ControllerFacts, FaultFacts, Line};
use tidegate::controller::witness::Answer;
use tidegate::controller::{Callback, Controller, Fault, FaultKind, Iteration, Outcome, Source, Subject};
use tidegate_wasm::{Artifact, Compiler, ComponentSource, Limits, LoadOptions, Surroundings};

/// Differences that are kept; all are counted.
const KEPT: usize = 100;

/// Asks a component the questions of a trace, line by line.
pub struct Replay {
    component: Vec<u8>,
    cache_directory: Option<PathBuf>,
    compiler: Option<Compiler>,
    settings: Vec<(String, String)>,
    /// Under each set of limits that was met.
    artifacts: Vec<(Limits, Arc<Artifact>)>,
    controllers: Vec<ControllerFacts>,
    /// By database and lane.
    stages: HashMap<(String, Option<String>), Stage>,
    report: ReplayReport,
}

/// Where one database's controller is asked.
#[derive(Default)]
struct Stage {
    playback: Arc<Playback>,
    live: Option<Box<dyn Controller>>,
    /// The iteration in hand, with the number that it has in the trace.
    iteration: Option<(u64, Box<dyn Iteration>)>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ReplayReport {
    /// Calls that were asked again.
    pub calls: u64,
    /// Calls that could not be: their iteration was never begun, or the controller lost it by a fault.
    pub not_asked: u64,
    /// Calls that the trace lacks.
    pub lost: u64,
    /// How many differences there are, by kind.
    pub changes: BTreeMap<Change, u64>,
    /// The first differences, at most 100.
    pub differences: Vec<Difference>,
    /// By signal, how often it was read in a call in which the recorded controller had not: answered with the last
    /// recorded reading of it, or with none.
    pub unrecorded_signals: BTreeMap<String, u64>,
    /// Fuel that the recorded calls used, as far as it was measured.
    pub recorded_fuel: u64,
    /// Fuel that the same calls use now.
    pub fuel: u64,
}

/// A decision that is another now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The line of the trace.
    pub line: u64,
    /// The database.
    pub database: String,
    /// The update; none for the start of an instance.
    pub update: Option<String>,
    /// What was asked.
    pub callback: Callback,
    /// In what they differ.
    pub change: Change,
    /// What was answered then, in words.
    pub recorded: String,
    /// What is answered now, in words.
    pub now: String,
}

/// In what two answers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// One runs a batch and the other waits.
    Admission,
    /// The target durations of a batch.
    Target,
    /// The lengths of a wait.
    Wait,
    /// The reasons of a wait.
    Reason,
    /// The batch sizes.
    BatchSize,
    /// One is at fault and the other is not, or in another way.
    Fault,
}

impl Change {
    /// What differs, in words.
    pub fn words(self) -> &'static str {
        match self {
            Change::Admission => "run or wait",
            Change::Target => "target",
            Change::Wait => "wait",
            Change::Reason => "reason",
            Change::BatchSize => "batch size",
            Change::Fault => "fault",
        }
    }
}

impl ReplayReport {
    /// Differences in all.
    pub fn different(&self) -> u64 {
        self.changes.values().sum()
    }
}

impl Replay {
    /// Asks this component; `settings` count for more than those recorded.
    pub fn new(component: Vec<u8>, settings: Vec<(String, String)>, cache_directory: Option<PathBuf>) -> Self {
        Self {
            component,
            cache_directory,
            compiler: None,
            settings,
            artifacts: Vec::new(),
            controllers: Vec::new(),
            stages: HashMap::new(),
            report: ReplayReport::default(),
        }
    }

    /// The same, with the controller compiled by `compiler`.
    pub fn compiled_by(self, compiler: Compiler) -> Self {
        Self { compiler: Some(compiler), ..self }
    }

    /// Has the controllers of a header in force.
    pub fn begin(&mut self, controllers: &[ControllerFacts]) {
        self.controllers = controllers.to_vec();
    }

    /// Takes the next line, which stands on line `number` of the trace.
    ///
    /// # Errors
    /// Where the component cannot be loaded under the limits that were in force.
    pub async fn take(&mut self, number: u64, line: Line) -> Result<(), Fault> {
        match line {
            Line::Call(call) => self.ask(number, &call).await?,
            Line::Reload { controllers, .. } => self.controllers = controllers,
            Line::Lost { calls } => self.report.lost = self.report.lost.saturating_add(calls),
            Line::Header(_) | Line::End { .. } => {}
        }
        Ok(())
    }

    /// What came of all that was taken.
    pub fn report(mut self) -> ReplayReport {
        for stage in self.stages.values() {
            for (signal, times) in stage.playback.take_unrecorded() {
                *self.report.unrecorded_signals.entry(signal).or_default() += times;
            }
        }
        self.report
    }

    async fn ask(&mut self, number: u64, call: &CallLine) -> Result<(), Fault> {
        let place = (call.database.clone(), call.lane.clone());
        let playback = self.stages.entry(place.clone()).or_default().playback.clone();
        let at = Duration::from_millis(u64::try_from(call.at_ms).unwrap_or_default());
        playback.play(&call.inputs(), at);
        let source = self.source(call, playback).await?;
        let Some(stage) = self.stages.get_mut(&place) else { return Ok(()) };
        let Some(answer) = stage.ask(call, &source).await else {
            self.report.not_asked += 1;
            return Ok(());
        };
        let used = stage.live.as_mut().and_then(|live| live.take_usage()).unwrap_or_default();
        if let Err(fault) = &answer
            && fault.kind.loses_instance()
        {
            (stage.live, stage.iteration) = (None, None);
        }
        self.report.calls += 1;
        self.report.fuel = self.report.fuel.saturating_add(used.fuel);
        self.report.recorded_fuel = self.report.recorded_fuel.saturating_add(call.fuel.unwrap_or_default());
        self.compare(number, call, &answer);
        Ok(())
    }

    /// Where instances come from for whoever was asked then: with its settings, under its limits.
    async fn source(&mut self, call: &CallLine, playback: Arc<Playback>) -> Result<ComponentSource, Fault> {
        let facts = self.controllers.iter().find(|facts| facts.name == call.controller);
        let limits = facts.map(|facts| Limits::from(&facts.limits)).unwrap_or_default();
        let mut settings = facts.map(|facts| facts.settings.clone()).unwrap_or_default();
        settings.extend(self.settings.iter().cloned());
        let artifact = match self.artifacts.iter().find(|(known, _)| *known == limits) {
            Some((_, artifact)) => artifact.clone(),
            None => {
                let cache_directory = self.cache_directory.clone();
                let options = LoadOptions {
                    sha256: None,
                    limits: limits.clone(),
                    cache_directory,
                    compiler: self.compiler.clone(),
                };
                let artifact = Artifact::from_bytes(self.component.clone(), &options).await?;
                self.artifacts.push((limits, artifact.clone()));
                artifact
            }
        };
        Ok(ComponentSource::new(call.controller.clone(), artifact)
            .with_settings(settings.into_iter().collect())
            .with_signals(playback.clone())
            .with_surroundings(Arc::new(Surroundings::given(playback.clone(), playback))))
    }

    fn compare(&mut self, number: u64, call: &CallLine, answer: &Result<Answer, Fault>) {
        let now = answer.as_ref().map(AnswerFacts::from).map_err(FaultFacts::from);
        let recorded = match (&call.answer, &call.fault) {
            (_, Some(fault)) => Err(fault),
            (Some(answer), None) => Ok(answer),
            (None, None) => Ok(&AnswerFacts::Done),
        };
        let Some(change) = change(&recorded, &now) else { return };
        *self.report.changes.entry(change).or_default() += 1;
        if self.report.differences.len() < KEPT {
            self.report.differences.push(Difference {
                line: number,
                database: call.database.clone(),
                update: call.update.clone(),
                callback: call.call,
                change,
                recorded: words(recorded),
                now: words(now.as_ref()),
            });
        }
    }
}

impl Stage {
    /// Asks; `None` where there is nobody to ask.
    async fn ask(&mut self, call: &CallLine, source: &ComponentSource) -> Option<Result<Answer, Fault>> {
        let (update, database) = (call.update.as_deref().unwrap_or_default(), call.database.as_str());
        Some(match call.call {
            Callback::Start => {
                self.iteration = None;
                self.start(source, database).await.map(|()| Answer::Done)
            }
            Callback::OnUpdate => self.on_update(call, source, update).await.map(|()| Answer::Done),
            Callback::Enter => self.iteration(call)?.enter().await.map(Answer::Admission),
            Callback::DefaultBatchSize => {
                self.iteration(call)?;
                self.live.as_mut()?.default_batch_size(update, database).await.map(Answer::BatchSize)
            }
            Callback::MinBatchSize => {
                self.iteration(call)?;
                self.live.as_mut()?.min_batch_size(update, database).await.map(Answer::BatchSize)
            }
            Callback::Exit => {
                let outcome = call.outcome.as_ref().map_or(Outcome::Cancelled, Outcome::from);
                self.iteration(call)?.exit(&outcome).await.map(|()| Answer::Done)
            }
            Callback::Drop => {
                self.iteration(call)?;
                self.iteration.take()?.1.close().await.map(|()| Answer::Done)
            }
            Callback::Load => return None,
        })
    }

    async fn start(&mut self, source: &ComponentSource, database: &str) -> Result<(), Fault> {
        self.live = None;
        self.live = Some(source.start(database).await?);
        Ok(())
    }

    async fn on_update(&mut self, call: &CallLine, source: &ComponentSource, update: &str) -> Result<(), Fault> {
        self.iteration = None;
        if self.live.is_none() {
            // This one lost its instance where the recorded one did not: a host would start another now.
            self.start(source, &call.database).await?;
        }
        let subject =
            Subject { update_name: update.to_owned(), database_name: call.database.clone(), one_shot: call.one_shot };
        if let Some(live) = self.live.as_mut() {
            self.iteration = Some((call.iteration, live.on_update(&subject).await?));
        }
        Ok(())
    }

    /// The iteration in hand, where it is the one that the call belongs to.
    fn iteration(&mut self, call: &CallLine) -> Option<&mut Box<dyn Iteration>> {
        self.iteration.as_mut().filter(|(number, _)| *number == call.iteration).map(|(_, iteration)| iteration)
    }
}

/// In what two answers differ, where they do. Of faults the kind counts; of errors returned the text, too.
fn change(recorded: &Result<&AnswerFacts, &FaultFacts>, now: &Result<AnswerFacts, FaultFacts>) -> Option<Change> {
    use AnswerFacts::{Items, RunMs, Wait};
    match (recorded, now) {
        (Ok(RunMs(then)), Ok(RunMs(now))) => (then != now).then_some(Change::Target),
        (Ok(Wait { ms: then, .. }), Ok(Wait { ms: now, .. })) if then != now => Some(Change::Wait),
        (Ok(Wait { reason: then, .. }), Ok(Wait { reason: now, .. })) => (then != now).then_some(Change::Reason),
        (Ok(Items(then)), Ok(Items(now))) => (then != now).then_some(Change::BatchSize),
        (Ok(then), Ok(now)) => (*then != now).then_some(Change::Admission),
        (Err(then), Err(now)) => {
            let told = |fault: &FaultFacts| (fault.kind == FaultKind::ErrorReturned).then(|| fault.message.clone());
            (then.kind != now.kind || told(then) != told(now)).then_some(Change::Fault)
        }
        _ => Some(Change::Fault),
    }
}

fn words(answer: Result<&AnswerFacts, &FaultFacts>) -> String {
    match answer {
        Ok(AnswerFacts::Done) => "done".to_owned(),
        Ok(AnswerFacts::RunMs(target)) => format!("run, {target} ms"),
        Ok(AnswerFacts::Wait { ms, reason }) => format!("wait {ms} ms: {reason}"),
        Ok(AnswerFacts::Items(Some(items))) => format!("{items} items"),
        Ok(AnswerFacts::Items(None)) => "as configured".to_owned(),
        Err(FaultFacts { kind, message }) => format!("{kind}: {message}"),
    }
}
