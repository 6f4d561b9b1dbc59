//! What happens on a fault: which instance is called, when it is replaced, when the fallback takes over, when the
//! controller is tried again.

mod fallen;
mod ranges;
mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use self::fallen::Fallen;
pub use self::fallen::NextTry;
use self::ranges::LARGEST;
pub use self::settings::SupervisorSettings;
use super::witness::{Answer, Exchange, Inputs, Numbers, Question, Witness};
use super::{Admission, Callback, Controller, Fault, FaultKind, Gentle, Iteration, Outcome, Source, Subject, Usage};
use crate::signal::{NoSignals, SignalReader};

/// Who sets the pace of a database, as configured.
#[derive(Clone)]
pub enum Policy {
    /// The built-in policy.
    BuiltIn,
    /// A controller.
    Controller(Arc<dyn Source>),
    /// A controller that could not be loaded: the fallback takes over from the start.
    Broken {
        /// Its name.
        name: String,
        /// Why.
        fault: Fault,
    },
}

/// Who takes over from a controller that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fallback {
    /// The built-in policy.
    #[default]
    Default,
    /// Nobody: updates are held until the controller is well again.
    Hold,
}

/// Something about the controller that others want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A fault.
    Fault {
        /// What.
        fault: Fault,
        /// Faults in a row so far.
        in_a_row: u32,
    },
    /// The fallback took over.
    Fallback {
        /// Who.
        fallback: Fallback,
        /// Why.
        reason: String,
        /// For which update the controller is tried again, and after how long; `None` where it takes a reload.
        retry: Option<(String, Duration)>,
    },
    /// The controller is tried again, for an update of this name.
    Tried {
        /// The update.
        update_name: String,
    },
    /// It failed again: the fallback stays in force.
    PutOff {
        /// The update that it was tried for.
        update_name: String,
        /// Why, as with the fallback.
        reason: String,
        /// After how long it is tried again for this update.
        retry_in: Duration,
    },
    /// It came back: the fallback is over.
    Back,
}

/// What on-update came to.
pub enum Start {
    /// An iteration, to be entered.
    Iteration(Box<dyn Iteration>),
    /// The update is held until the controller is tried again, or mended; the reason.
    Hold(String),
    /// A fault: no iteration, try again after a while.
    Faulted,
}

/// What enter came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enter {
    /// Run a batch of this target duration.
    Run(Duration),
    /// Wait, then enter again.
    Wait {
        /// How long.
        duration: Duration,
        /// Why.
        reason: String,
    },
    /// A fault: no batch.
    Faulted,
}

/// Calls a database's controller, and keeps the host going whatever the controller does.
pub struct Supervisor {
    database_name: String,
    policy: Policy,
    settings: SupervisorSettings,
    /// What the built-in policy goes by where it is gentle.
    signals: Arc<dyn SignalReader>,
    /// The instance in use; `None` until it is needed, and after a fault that cost it its life.
    live: Option<Box<dyn Controller>>,
    in_a_row: u32,
    /// True once a fault was noted in the iteration in hand.
    iteration_at_fault: bool,
    /// True where the instance is to go once the iteration in hand is over.
    retired: bool,
    /// The fallback, while it is in force.
    fallen: Option<Fallen>,
    /// True where the iteration in hand, and the instance, are the built-in policy's, which stands in.
    stands_in: bool,
    /// Where the controller is tried again in the iteration in hand, and has not failed yet: since when.
    trial: Option<NextTry>,
    last_fault: Option<Fault>,
    /// What instances used that are gone.
    spent: Option<Usage>,
    notices: Vec<Notice>,
    witnesses: Vec<Arc<dyn Witness>>,
    /// Instances that were started.
    instance: u64,
    /// Iterations that were begun.
    iteration: u64,
    /// Its lane; `None` for the first.
    lane: Option<Arc<str>>,
    numbers: Numbers,
    /// What the iteration in hand is of.
    subject: Option<Subject>,
}

impl Supervisor {
    /// A supervisor of the controller of one database; nothing is started yet.
    pub fn new(database_name: &str, policy: Policy, settings: SupervisorSettings) -> Self {
        let mut supervisor = Self {
            database_name: database_name.to_owned(),
            policy: policy.clone(),
            settings,
            signals: Arc::new(NoSignals),
            live: None,
            in_a_row: 0,
            iteration_at_fault: false,
            retired: false,
            fallen: None,
            stands_in: false,
            trial: None,
            last_fault: None,
            spent: None,
            notices: Vec::new(),
            witnesses: Vec::new(),
            lane: None,
            numbers: Numbers::default(),
            instance: 0,
            iteration: 0,
            subject: None,
        };
        if let Policy::Broken { fault, .. } = policy {
            supervisor.note(&fault);
            // There is nothing that could be tried again.
            supervisor.fall_back("it cannot be loaded".to_owned(), &format!(": {fault}"), None);
        }
        supervisor
    }

    /// Says in which lane of its database it is, and has its instances and iterations numbered with those of other lanes.
    pub fn in_lane(mut self, lane: Option<Arc<str>>, numbers: Numbers) -> Self {
        (self.lane, self.numbers) = (lane, numbers);
        self
    }

    /// Has the built-in policy go by these signals where it is gentle.
    #[must_use]
    pub fn with_signals(mut self, signals: Arc<dyn SignalReader>) -> Self {
        self.signals = signals;
        self
    }

    /// Shows every call from now on to this one, too.
    pub fn add_witness(&mut self, witness: Arc<dyn Witness>) {
        self.witnesses.push(witness);
    }

    /// Who sets the pace now: the controller's name, also while it is tried again, or the fallback and whom it stands in
    /// for.
    pub fn describe(&self) -> String {
        let name = self.name();
        match (self.fallen.as_ref().filter(|_| self.trial.is_none()), self.fallback()) {
            (None, _) => name.to_owned(),
            (Some(_), Fallback::Default) => format!("default (fallback for {name})"),
            (Some(_), Fallback::Hold) => format!("hold (fallback for {name})"),
        }
    }

    /// The configured controller's name.
    pub fn name(&self) -> &str {
        match &self.policy {
            Policy::BuiltIn if self.settings.gentle.is_some() => "default (gentle)",
            Policy::BuiltIn => "default",
            Policy::Controller(source) => source.name(),
            Policy::Broken { name, .. } => name,
        }
    }

    /// What bounds it.
    pub fn settings(&self) -> &SupervisorSettings {
        &self.settings
    }

    /// True where the built-in policy sets the pace, be it as a fallback, and steadily: why it rests says nothing then.
    pub fn is_steady(&self) -> bool {
        self.settings.gentle.is_none() && (matches!(self.policy, Policy::BuiltIn) || self.stands_in)
    }

    /// The last fault.
    pub fn last_fault(&self) -> Option<&Fault> {
        self.last_fault.as_ref()
    }

    /// What happened since this was last asked.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// What the controller used since this was last asked.
    pub fn take_usage(&mut self) -> Option<Usage> {
        let used = self.live.as_mut().and_then(|live| live.take_usage());
        match (self.spent.take(), used) {
            (Some(mut spent), Some(used)) => {
                spent.add(used);
                Some(spent)
            }
            (spent, used) => spent.or(used),
        }
    }

    /// Begins an iteration.
    pub async fn start(&mut self, subject: &Subject) -> Start {
        self.iteration_at_fault = false;
        let due = self.fallen.as_ref().filter(|fallen| fallen.is_due(&subject.update_name));
        self.trial = due.map(|_| NextTry::now(&subject.update_name));
        let gives_way = self.fallen.is_some() && self.trial.is_none();
        let stands_in = gives_way && self.fallback() == Fallback::Default;
        if std::mem::take(&mut self.retired) || stands_in != self.stands_in {
            self.spent = self.take_usage();
            self.live = None;
        }
        self.stands_in = stands_in;
        match &self.fallen {
            Some(fallen) if gives_way && !stands_in => {
                return Start::Hold(format!("controller {} is at fault: {}", self.name(), fallen.reason()));
            }
            Some(_) if self.trial.is_some() => {
                self.notices.push(Notice::Tried { update_name: subject.update_name.clone() });
            }
            _ => {}
        }
        self.iteration = self.numbers.next_iteration();
        self.subject = Some(subject.clone());
        match self.begin(subject).await {
            Ok(iteration) => Start::Iteration(iteration),
            Err(fault) => {
                self.fault(fault);
                Start::Faulted
            }
        }
    }

    /// Enters an iteration.
    pub async fn enter(&mut self, iteration: &mut dyn Iteration) -> Enter {
        let began = Instant::now();
        let answer = iteration.enter().await;
        self.tell(Question::Enter, began, answer.as_ref().map(|admission| Answer::Admission(admission.clone())));
        match answer {
            Ok(Admission::Run(target)) => Enter::Run(self.target_in_range(target)),
            Ok(Admission::Wait { duration, reason }) => Enter::Wait { duration: self.wait_in_range(duration), reason },
            Err(fault) => {
                self.fault(fault);
                Enter::Faulted
            }
        }
    }

    /// The number of items of an update's first batch; `None` after a fault that leaves no batch to run.
    pub async fn default_batch_size(&mut self, subject: &Subject) -> Option<u32> {
        let Some(live) = self.live.as_mut() else { return Some(self.settings.default_batch_size) };
        let began = Instant::now();
        let answer = live.default_batch_size(&subject.update_name, &subject.database_name).await;
        self.tell(Question::DefaultBatchSize, began, answer.as_ref().map(|size| Answer::BatchSize(*size)));
        self.batch_size(answer, Callback::DefaultBatchSize, self.settings.default_batch_size, LARGEST)
    }

    /// The least number of items of a later batch; `None` after a fault that leaves no batch to run.
    pub async fn min_batch_size(&mut self, subject: &Subject) -> Option<u32> {
        let Some(live) = self.live.as_mut() else { return Some(self.settings.min_batch_size) };
        let began = Instant::now();
        let answer = live.min_batch_size(&subject.update_name, &subject.database_name).await;
        self.tell(Question::MinBatchSize, began, answer.as_ref().map(|size| Answer::BatchSize(*size)));
        let most = self.settings.max_min_batch_size.min(LARGEST);
        self.batch_size(answer, Callback::MinBatchSize, self.settings.min_batch_size, most)
    }

    /// The most that anybody may ask for as the least number of items.
    pub fn max_min_batch_size(&self) -> u32 {
        self.settings.max_min_batch_size
    }

    /// Exits an iteration whose enter answered run, and closes it.
    pub async fn exit(&mut self, mut iteration: Box<dyn Iteration>, outcome: &Outcome) {
        let began = Instant::now();
        let answer = iteration.exit(outcome).await;
        self.tell(Question::Exit(outcome.clone()), began, answer.as_ref().map(|()| Answer::Done));
        if let Err(fault) = answer {
            let lost = fault.kind.loses_instance();
            self.fault(fault);
            if lost {
                return;
            }
        }
        self.close(iteration).await;
        if !self.iteration_at_fault && !self.stands_in {
            self.in_a_row = 0;
            if self.trial.take().is_some() {
                self.fallen = None;
                self.notices.push(Notice::Back);
            }
        }
    }

    /// Closes an iteration that ran nothing.
    pub async fn close(&mut self, iteration: Box<dyn Iteration>) {
        // Without its instance the iteration is gone already.
        if self.live.is_none() {
            return;
        }
        let began = Instant::now();
        let answer = iteration.close().await;
        self.tell(Question::Drop, began, answer.as_ref().map(|()| Answer::Done));
        if let Err(fault) = answer {
            self.fault(fault);
        }
    }

    /// True where a fault was noted since the iteration in hand was begun.
    pub fn is_at_fault(&self) -> bool {
        self.iteration_at_fault
    }

    /// True where the instance that an iteration was begun with is still there.
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Asks for an iteration, of a fresh instance where there is none.
    async fn begin(&mut self, subject: &Subject) -> Result<Box<dyn Iteration>, Fault> {
        let mut live = match self.live.take() {
            Some(live) => live,
            None => self.instance().await?,
        };
        let began = Instant::now();
        let answer = live.on_update(subject).await;
        self.live = Some(live);
        self.tell(Question::OnUpdate, began, answer.as_ref().map(|_| Answer::Done));
        answer
    }

    async fn instance(&mut self) -> Result<Box<dyn Controller>, Fault> {
        let began = Instant::now();
        let started = match &self.policy {
            Policy::Controller(source) if !self.stands_in => source.start(&self.database_name).await,
            _ => match self.settings.gentle {
                Some(gentle) => {
                    let signals = Arc::clone(&self.signals);
                    Gentle::new(gentle, self.settings.builtin, signals).start(&self.database_name).await
                }
                None => self.settings.builtin.start(&self.database_name).await,
            },
        };
        self.instance = self.numbers.next_instance();
        let mut started = started;
        let measured = measured(started.as_mut().ok());
        self.tell_measured(Question::Start, began, started.as_ref().map(|_| Answer::Done), measured);
        started
    }

    /// Shows a call to the witnesses.
    fn tell(&mut self, question: Question, began: Instant, answer: Result<Answer, &Fault>) {
        if !self.witnesses.is_empty() {
            let measured = measured(self.live.as_mut());
            self.tell_measured(question, began, answer, measured);
        }
    }

    fn tell_measured(
        &mut self,
        question: Question,
        began: Instant,
        answer: Result<Answer, &Fault>,
        (usage, inputs): (Option<Usage>, Inputs),
    ) {
        let duration = began.elapsed();
        // Whoever asks later is to be told of it as well.
        if let Some(usage) = usage {
            self.spent.get_or_insert_default().add(usage);
        }
        let exchange = Arc::new(Exchange {
            at: SystemTime::now(),
            database_name: self.database_name.clone(),
            lane: self.lane.clone(),
            controller: self.describe(),
            instance: self.instance,
            iteration: self.iteration,
            subject: self.subject.clone().filter(|_| question != Question::Start),
            question,
            answer: answer.map_err(Fault::clone),
            inputs,
            usage: usage.filter(|usage| usage.calls > 0),
            duration,
        });
        self.witnesses.iter().for_each(|witness| witness.see(&exchange));
    }

    fn fallback(&self) -> Fallback {
        match &self.policy {
            // Somebody put another file there: nothing runs until a person has looked.
            Policy::Broken { fault, .. } if fault.kind == FaultKind::WrongDigest => Fallback::Hold,
            _ => self.settings.fallback,
        }
    }

    fn note(&mut self, fault: &Fault) {
        self.last_fault = Some(fault.clone());
        self.notices.push(Notice::Fault { fault: fault.clone(), in_a_row: self.in_a_row });
    }

    /// Counts a fault, throws the instance away where it must be, and falls back after too many, or after one where the
    /// controller was tried again.
    fn fault(&mut self, fault: Fault) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.iteration_at_fault = true;
        self.note(&fault);
        if fault.kind.loses_instance() {
            self.spent = self.take_usage();
            self.live = None;
        }
        let update_name = self.subject.as_ref().map(|subject| subject.update_name.clone());
        let faults = if self.in_a_row == 1 { "fault" } else { "faults" };
        let reason = format!("{} {faults} in a row", self.in_a_row);
        let details = format!(", the last: {fault}");
        match (&mut self.fallen, update_name) {
            (None, update_name) if self.in_a_row >= self.settings.max_faults => {
                self.fall_back(reason, &details, update_name.as_deref());
            }
            (Some(fallen), Some(update_name)) if self.trial.take().is_some() => {
                fallen.give_reason(format!("{reason}{details}"));
                let retry_in = fallen.put_off(&update_name);
                self.retired = true;
                self.notices.push(Notice::PutOff { update_name, reason, retry_in });
            }
            _ => {}
        }
    }

    /// The details were noticed already, as a fault; who asks later why all is held needs them again. Without an update,
    /// the controller is not tried again.
    fn fall_back(&mut self, reason: String, details: &str, update_name: Option<&str>) {
        let mut fallen = Fallen::new(format!("{reason}{details}"), update_name.is_some());
        let retry = update_name.map(|update_name| (update_name.to_owned(), fallen.put_off(update_name)));
        self.fallen = Some(fallen);
        self.notices.push(Notice::Fallback { fallback: self.fallback(), reason, retry });
        self.retired = true;
    }
}

/// What an instance used in its last call, and read.
fn measured(live: Option<&mut Box<dyn Controller>>) -> (Option<Usage>, Inputs) {
    live.map(|live| (live.take_usage(), live.take_inputs())).unwrap_or_default()
}
