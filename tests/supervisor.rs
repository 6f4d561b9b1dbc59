//! What happens when a controller fails, with controllers that fail as told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::controller::supervisor::{Enter, Notice, Start};
use tidegate::controller::{
    Admission, Callback, CompletedBatch, Controller, Fallback, Fault, FaultKind, Iteration, Outcome, Policy, Source,
    Subject, Supervisor, SupervisorSettings,
};
use tokio::time::Instant;

/// Answers from a list, in order, and keeps what it was asked. All instances share both.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
enum Answer {
    /// Whatever a well-behaved controller says.
    Fine,
    Target(u64),
    Wait(u64),
    Size(u32),
    Fault(FaultKind),
}

impl Script {
    fn new(answers: &[Answer]) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.iter().cloned().collect())), ..Self::default() }
    }

    fn next(&self, callback: Callback) -> Result<Answer, Fault> {
        self.asked.lock().unwrap().push(callback.to_string());
        match self.answers.lock().unwrap().pop_front().unwrap_or(Answer::Fine) {
            Answer::Fault(kind) => Err(Fault { kind, callback, message: "as told".to_owned() }),
            answer => Ok(answer),
        }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[async_trait]
impl Source for Script {
    fn name(&self) -> &str {
        "script"
    }

    async fn start(&self, _: &str) -> Result<Box<dyn Controller>, Fault> {
        self.next(Callback::Start)?;
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Controller for Script {
    async fn on_update(&mut self, _: &Subject) -> Result<Box<dyn Iteration>, Fault> {
        self.next(Callback::OnUpdate)?;
        Ok(Box::new(self.clone()))
    }

    async fn min_batch_size(&mut self, _: &str, _: &str) -> Result<Option<u32>, Fault> {
        Ok(match self.next(Callback::MinBatchSize)? {
            Answer::Size(size) => Some(size),
            _ => None,
        })
    }
}

#[async_trait]
impl Iteration for Script {
    async fn enter(&mut self) -> Result<Admission, Fault> {
        Ok(match self.next(Callback::Enter)? {
            Answer::Wait(ms) => Admission::Wait { duration: Duration::from_millis(ms), reason: "busy".to_owned() },
            Answer::Target(ms) => Admission::Run(Duration::from_millis(ms)),
            _ => Admission::Run(Duration::from_millis(50)),
        })
    }

    async fn exit(&mut self, _: &Outcome) -> Result<(), Fault> {
        self.next(Callback::Exit).map(|_| ())
    }

    async fn close(self: Box<Self>) -> Result<(), Fault> {
        self.next(Callback::Drop).map(|_| ())
    }
}

fn subject() -> Subject {
    subject_of("u")
}

fn subject_of(update_name: &str) -> Subject {
    Subject { update_name: update_name.to_owned(), database_name: "d".to_owned(), one_shot: false }
}

fn completed() -> Outcome {
    Outcome::Completed(CompletedBatch { items: 1, batch_size: 1, duration: Duration::from_millis(1), finished: false })
}

fn supervise(script: &Script, fallback: Fallback) -> Supervisor {
    let settings = SupervisorSettings { fallback, ..SupervisorSettings::default() };
    Supervisor::new("d", Policy::Controller(Arc::new(script.clone())), settings)
}

/// One iteration as the scheduler does it; what enter came to, where it was entered.
async fn iterate(supervisor: &mut Supervisor) -> Option<Enter> {
    iterate_on(supervisor, "u").await
}

/// The same, of this update.
async fn iterate_on(supervisor: &mut Supervisor, update_name: &str) -> Option<Enter> {
    let Start::Iteration(mut iteration) = supervisor.start(&subject_of(update_name)).await else { return None };
    let entered = supervisor.enter(&mut *iteration).await;
    match entered {
        Enter::Run(_) => {
            supervisor.min_batch_size(&subject()).await;
            if supervisor.is_live() {
                supervisor.exit(iteration, &completed()).await;
            }
        }
        _ => supervisor.close(iteration).await,
    }
    Some(entered)
}

fn run(ms: u64) -> Option<Enter> {
    Some(Enter::Run(Duration::from_millis(ms)))
}

#[tokio::test]
async fn a_fault_that_costs_the_instance_starts_another_and_an_error_returned_does_not() {
    use Answer::{Fault, Fine};
    let script = Script::new(&[Fine, Fault(FaultKind::ErrorReturned), Fine, Fault(FaultKind::Trap)]);
    let mut supervisor = supervise(&script, Fallback::Default);
    assert_eq!(iterate(&mut supervisor).await, None);
    assert_eq!(script.asked(), ["start", "on-update"]);
    assert_eq!(iterate(&mut supervisor).await, Some(Enter::Faulted));
    assert_eq!(script.asked(), ["on-update", "enter"], "the trap leaves nothing to close");
    assert_eq!(iterate(&mut supervisor).await, run(50));
    assert_eq!(script.asked(), ["start", "on-update", "enter", "min-batch-size", "exit", "the destructor"]);
}

#[tokio::test]
async fn three_faults_in_a_row_bring_the_fallback_and_a_complete_iteration_clears_the_count() {
    use Answer::{Fault, Fine};
    let trap = || Fault(FaultKind::Trap);
    let (fine, bad) = ([Fine, Fine, Fine, Fine, Fine], [Fine, trap()]);
    let answers: Vec<Answer> =
        [&bad[..], &bad, &[Fine], &fine, &[trap()], &bad, &bad].into_iter().flatten().cloned().collect();
    let script = Script::new(&answers);
    let mut supervisor = supervise(&script, Fallback::Default);
    for expected in [None, None, run(50), None, None] {
        assert_eq!(iterate(&mut supervisor).await, expected);
        assert_eq!(supervisor.describe(), "script");
    }
    assert_eq!(iterate(&mut supervisor).await, None);
    assert_eq!(supervisor.describe(), "default (fallback for script)");
    let fallbacks = supervisor.take_notices().into_iter().filter(|notice| matches!(notice, Notice::Fallback { .. }));
    assert_eq!(fallbacks.count(), 1);
    // From here on it is the built-in policy: sleep, then run.
    let builtin = Enter::Wait { duration: Duration::from_secs(1), reason: "sleep between iterations".to_owned() };
    assert_eq!(iterate(&mut supervisor).await, Some(builtin));
}

#[tokio::test]
async fn the_fallback_hold_holds() {
    let script = Script::new(&vec![Answer::Fault(FaultKind::OutOfFuel); 3]);
    let mut supervisor = supervise(&script, Fallback::Hold);
    for _ in 0..3 {
        assert_eq!(iterate(&mut supervisor).await, None);
    }
    let Start::Hold(reason) = supervisor.start(&subject()).await else { panic!("it does not hold") };
    assert_eq!(reason, "controller script is at fault: 3 faults in a row, the last: out of fuel in start: as told");
}

#[tokio::test]
async fn a_wrong_digest_holds_whatever_the_fallback() {
    let fault = Fault { kind: FaultKind::WrongDigest, callback: Callback::Load, message: "other".to_owned() };
    let policy = Policy::Broken { name: "pinned".to_owned(), fault };
    let mut supervisor = Supervisor::new("d", policy, SupervisorSettings::default());
    assert!(matches!(supervisor.start(&subject()).await, Start::Hold(_)));
    assert_eq!(supervisor.describe(), "hold (fallback for pinned)");
}

#[tokio::test]
async fn a_controller_that_cannot_be_loaded_leaves_the_work_to_the_fallback_at_once() {
    let fault = Fault { kind: FaultKind::Incompatible, callback: Callback::Load, message: "no".to_owned() };
    let policy = Policy::Broken { name: "core".to_owned(), fault: fault.clone() };
    let mut supervisor = Supervisor::new("d", policy, SupervisorSettings::default());
    assert!(matches!(supervisor.start(&subject()).await, Start::Iteration(_)));
    assert_eq!(supervisor.last_fault(), Some(&fault));
}

#[tokio::test]
async fn numbers_out_of_range_are_replaced_and_recorded_and_do_not_bring_the_fallback() {
    use Answer::{Fine, Size, Target, Wait};
    for (answers, expected, message) in [
        (vec![Fine, Fine, Target(60_001)], run(60_000), "target duration 60001 ms, cut to 60000 ms"),
        (
            vec![Fine, Fine, Wait(1 << 31)],
            Some(Enter::Wait { duration: Duration::from_millis((1 << 31) - 1), reason: "busy".to_owned() }),
            "a wait of 2147483648 ms, cut to 2147483647 ms",
        ),
        (vec![Fine, Fine, Target(0), Size(0)], run(0), "batch size 0, counted as 1"),
        (vec![Fine, Fine, Fine, Size(u32::MAX)], run(50), "batch size 4294967295, counted as 1000"),
    ] {
        let script = Script::new(&answers);
        let mut supervisor = supervise(&script, Fallback::Hold);
        assert_eq!(iterate(&mut supervisor).await, expected);
        let fault = supervisor.last_fault().unwrap();
        assert_eq!((fault.kind, fault.message.as_str()), (FaultKind::OutOfRange, message));
        assert_eq!(supervisor.describe(), "script");
    }
}

#[tokio::test]
async fn legal_answers_are_no_fault() {
    use Answer::{Fine, Size, Target, Wait};
    for answers in [
        vec![Fine, Fine, Target(0)],
        vec![Fine, Fine, Target(60_000), Size(1_000)],
        vec![Fine, Fine, Wait(24 * 24 * 3_600 * 1_000)],
        vec![Fine, Fine, Wait(0)],
    ] {
        let script = Script::new(&answers);
        let mut supervisor = supervise(&script, Fallback::Hold);
        iterate(&mut supervisor).await;
        assert_eq!(supervisor.last_fault(), None);
    }
}

#[tokio::test]
async fn a_trap_in_a_batch_size_leaves_no_batch_and_nothing_to_exit() {
    let script = Script::new(&[Answer::Fine, Answer::Fine, Answer::Fine, Answer::Fault(FaultKind::Trap)]);
    let mut supervisor = supervise(&script, Fallback::Default);
    iterate(&mut supervisor).await;
    assert_eq!(script.asked(), ["start", "on-update", "enter", "min-batch-size"]);
}

#[tokio::test]
async fn the_error_that_brings_the_fallback_does_not_cost_the_iteration_its_exit() {
    let answers = [Answer::Fine, Answer::Fine, Answer::Fine, Answer::Fault(FaultKind::ErrorReturned)];
    let script = Script::new(&answers);
    let settings = SupervisorSettings { max_faults: 1, ..SupervisorSettings::default() };
    let mut supervisor = Supervisor::new("d", Policy::Controller(Arc::new(script.clone())), settings);
    iterate(&mut supervisor).await;
    assert_eq!(script.asked(), ["start", "on-update", "enter", "min-batch-size", "exit", "the destructor"]);
    assert_eq!(supervisor.describe(), "default (fallback for script)");
    iterate(&mut supervisor).await;
    assert_eq!(script.asked(), [""; 0], "the built-in policy has taken over");
}

/// A supervisor whose controller fails in every call, and failed often enough.
async fn fallen(fallback: Fallback) -> (Script, Supervisor) {
    let script = Script::new(&vec![Answer::Fault(FaultKind::Trap); 1_000]);
    let mut supervisor = supervise(&script, fallback);
    for _ in 0..3 {
        assert_eq!(iterate(&mut supervisor).await, None);
    }
    supervisor.take_notices();
    script.asked();
    (script, supervisor)
}

/// Has a script answer well from now on.
fn mend(script: &Script) {
    script.answers.lock().unwrap().clear();
}

fn sleeps() -> Option<Enter> {
    Some(Enter::Wait { duration: Duration::from_secs(1), reason: "sleep between iterations".to_owned() })
}

#[tokio::test(start_paused = true)]
async fn a_controller_whose_fallback_is_in_force_is_tried_again_with_a_growing_delay() {
    for fallback in [Fallback::Default, Fallback::Hold] {
        let (script, mut supervisor) = fallen(fallback).await;
        let meanwhile = if fallback == Fallback::Default { sleeps() } else { None };
        let began = Instant::now();
        let mut tried = Vec::new();
        while tried.len() < 9 {
            assert_eq!(
                iterate(&mut supervisor).await,
                if script.asked().is_empty() { meanwhile.clone() } else { None }
            );
            if supervisor.take_notices().iter().any(|notice| matches!(notice, Notice::Tried { .. })) {
                tried.push(began.elapsed().as_secs());
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(tried, [5, 15, 35, 75, 155, 315, 615, 915, 1215], "{fallback:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_good_iteration_ends_the_fallback_and_the_count() {
    for fallback in [Fallback::Default, Fallback::Hold] {
        let (script, mut supervisor) = fallen(fallback).await;
        mend(&script);
        iterate(&mut supervisor).await;
        assert_eq!(script.asked(), [""; 0], "it is not tried yet");
        assert_eq!(supervisor.next_try().unwrap().update_name, "u");
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(iterate(&mut supervisor).await, run(50));
        assert_eq!(script.asked()[0], "start", "with fresh memory");
        let back = [Notice::Tried { update_name: "u".to_owned() }, Notice::Back];
        assert_eq!(supervisor.take_notices(), back);
        assert_eq!((supervisor.describe(), supervisor.next_try()), ("script".to_owned(), None));
        *script.answers.lock().unwrap() = vec![Answer::Fault(FaultKind::Trap); 3].into();
        for _ in 0..2 {
            iterate(&mut supervisor).await;
            assert!(!supervisor.has_fallen_back(), "{fallback:?}");
        }
        iterate(&mut supervisor).await;
        assert!(supervisor.has_fallen_back(), "{fallback:?}");
        let told = supervisor.take_notices().into_iter().find_map(|notice| match notice {
            Notice::Fallback { retry, .. } => retry,
            _ => None,
        });
        assert_eq!(told, Some(("u".to_owned(), Duration::from_secs(5))), "the delay begins anew");
    }
}

#[tokio::test(start_paused = true)]
async fn for_another_update_it_is_tried_at_once() {
    for fallback in [Fallback::Default, Fallback::Hold] {
        let (script, mut supervisor) = fallen(fallback).await;
        assert_eq!((supervisor.holds("u"), supervisor.holds("v")), (fallback == Fallback::Hold, false));
        assert_eq!(iterate_on(&mut supervisor, "v").await, None);
        assert_eq!(script.asked(), ["start"]);
        let told = supervisor.take_notices();
        let put_off = Notice::PutOff {
            update_name: "v".to_owned(),
            reason: "4 faults in a row".to_owned(),
            retry_in: Duration::from_secs(5),
        };
        assert_eq!((told.len(), told.last()), (3, Some(&put_off)));
        // Not once more, and not for the first.
        iterate_on(&mut supervisor, "v").await;
        iterate(&mut supervisor).await;
        assert_eq!(script.asked(), [""; 0]);
        mend(&script);
        assert_eq!(iterate_on(&mut supervisor, "w").await, run(50));
        assert!(!supervisor.has_fallen_back());
        assert_eq!(iterate(&mut supervisor).await, run(50), "what it does for one it is trusted with for all");
    }
}

#[tokio::test(start_paused = true)]
async fn an_iteration_that_ran_nothing_neither_ends_the_fallback_nor_puts_the_controller_off() {
    let (script, mut supervisor) = fallen(Fallback::Hold).await;
    tokio::time::advance(Duration::from_secs(5)).await;
    // The first try starts an instance, the second goes on with it.
    for starts in [1, 0] {
        let mut answers = vec![Answer::Fine; 1 + starts];
        answers.push(Answer::Wait(20));
        *script.answers.lock().unwrap() = answers.into();
        assert!(matches!(iterate(&mut supervisor).await, Some(Enter::Wait { .. })));
        assert!(supervisor.has_fallen_back() && supervisor.is_on_trial());
        assert_eq!(supervisor.describe(), "script", "it is the controller that lets it wait");
        script.answers.lock().unwrap().clear();
    }
    assert_eq!(iterate(&mut supervisor).await, run(50));
    assert!(!supervisor.has_fallen_back());
}

#[tokio::test(start_paused = true)]
async fn several_faults_of_one_try_put_it_off_once() {
    let (script, mut supervisor) = fallen(Fallback::Default).await;
    tokio::time::advance(Duration::from_secs(5)).await;
    let error = || Answer::Fault(FaultKind::ErrorReturned);
    *script.answers.lock().unwrap() =
        vec![Answer::Fine, Answer::Fine, Answer::Fine, error(), error(), Answer::Fault(FaultKind::Trap)].into();
    iterate(&mut supervisor).await;
    let put_off =
        supervisor.take_notices().into_iter().filter(|notice| matches!(notice, Notice::PutOff { .. })).count();
    assert_eq!(put_off, 1);
    assert_eq!(script.asked(), ["start", "on-update", "enter", "min-batch-size", "exit", "the destructor"]);
    assert_eq!(supervisor.next_try().unwrap().due - Instant::now(), Duration::from_secs(10));
    assert_eq!(iterate(&mut supervisor).await, sleeps());
}

#[tokio::test(start_paused = true)]
async fn an_update_that_is_gone_is_another_one_when_it_comes_again() {
    let (_, mut supervisor) = fallen(Fallback::Hold).await;
    supervisor.retain_tries(|update_name| update_name == "u");
    assert!(supervisor.holds("u"));
    supervisor.retain_tries(|_| false);
    assert!(!supervisor.holds("u"));
    assert_eq!(supervisor.next_try(), None);
}

#[tokio::test(start_paused = true)]
async fn one_who_wants_to_end_waits_for_two_tries() {
    let (_, mut supervisor) = fallen(Fallback::Hold).await;
    for expected in [false, false, true, true] {
        assert_eq!(supervisor.is_hopeless("u"), expected);
        tokio::time::advance(Duration::from_secs(60)).await;
        iterate(&mut supervisor).await;
    }
    assert!(!supervisor.is_hopeless("v"), "it was not tried for this one");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_loaded_is_not_tried_again() {
    let fault = Fault { kind: FaultKind::Incompatible, callback: Callback::Load, message: "no".to_owned() };
    for fallback in [Fallback::Default, Fallback::Hold] {
        let policy = Policy::Broken { name: "core".to_owned(), fault: fault.clone() };
        let mut supervisor = Supervisor::new("d", policy, SupervisorSettings { fallback, ..Default::default() });
        tokio::time::advance(Duration::from_secs(3_600)).await;
        let meanwhile = if fallback == Fallback::Default { sleeps() } else { None };
        assert_eq!(iterate(&mut supervisor).await, meanwhile);
        assert!(supervisor.is_hopeless("u") && supervisor.next_try().is_none() && supervisor.has_fallen_back());
    }
}
