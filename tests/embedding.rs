//! The crate as another program uses it: hosts built by its builder, and the examples.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidegate::controller::SupervisorSettings;
use tidegate::controller::{Admission, BuiltIn, Controller, Fallback, Fault, Iteration, Native, Outcome, Subject};
use tidegate::scheduler::End;
use tidegate::scheduler::event::EventKind;
use tidegate::update::{Backfill, BackfillDefinition, Noop};
use tidegate::{BuildError, DatabaseSpec, Host, HostBuilder};
use tidegate_database::Url;
use tidegate_wasm::{Artifact, ComponentSource, LoadOptions};

use super::guests;
use super::support::on_both;
use super::support::place::{Place, row};
use super::support::run::{make_items, touched};

/// Runs an example, which `cargo test` has built beside the program, and which fails where it is not satisfied.
fn run_example(name: &str) -> String {
    let example = Path::new(env!("CARGO_BIN_EXE_tidegate")).with_file_name("examples").join(name);
    let output = Command::new(&example).output().unwrap_or_else(|error| {
        panic!("{} cannot be run ({error}): build it with `cargo test --no-run`", example.display())
    });
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name}: {}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn the_example_of_a_native_handler_runs() {
    assert!(run_example("native_handler").contains("0 messages have no digest"));
}

#[test]
fn the_example_of_a_native_controller_runs() {
    assert!(run_example("native_controller").contains("sessions_over waits: the application serves 25 requests"));
}

#[test]
fn the_example_of_events_and_a_graceful_stop_runs() {
    assert!(run_example("events_and_stop").contains("0 items were not touched exactly once"));
}

fn touch_items() -> Backfill {
    Backfill::new(BackfillDefinition {
        table: "items".into(),
        key: vec!["id".to_owned()],
        set: "touched = touched + 1".to_owned(),
        filter: None,
    })
}

fn spec(place: &Place) -> DatabaseSpec {
    spec_at(Url::new(&place.url))
}

fn spec_at(url: Url) -> DatabaseSpec {
    DatabaseSpec::new("master", url).update("touch", touch_items())
}

async fn queue(place: &Place, update_name: &str) {
    assert!(place.prepared().await.enqueue(&row(update_name)).await.unwrap());
}

/// Runs until nothing can run: how it ended, and the controllers that set the pace of its iterations.
async fn until_done(builder: HostBuilder) -> (End, Vec<String>) {
    let host = builder.until_done().build().unwrap();
    let mut events = host.events().subscribe();
    let end = host.run(std::future::pending()).await.remove(0).end;
    let mut controllers = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let EventKind::IterationEnded { record, .. } = &event.kind {
            controllers.push(record.controller.clone());
        }
    }
    (end, controllers)
}

/// Panics in one of its callbacks, and runs batches of 20 ms otherwise.
#[derive(Clone, Copy, PartialEq)]
enum PanicsIn {
    OnUpdate,
    Enter,
    Exit,
}

#[async_trait]
impl Controller for PanicsIn {
    async fn on_update(&mut self, _: &Subject) -> Result<Box<dyn Iteration>, Fault> {
        assert!(*self != PanicsIn::OnUpdate, "in on-update");
        Ok(Box::new(*self))
    }
}

#[async_trait]
impl Iteration for PanicsIn {
    async fn enter(&mut self) -> Result<Admission, Fault> {
        assert!(*self != PanicsIn::Enter, "in enter");
        Ok(Admission::Run(Duration::from_millis(20)))
    }

    async fn exit(&mut self, _: &Outcome) -> Result<(), Fault> {
        assert!(*self != PanicsIn::Exit, "in exit");
        Ok(())
    }
}

on_both! {
    async fn a_declared_kind_runs_at_the_built_in_pace(place: Place) {
        make_items(place, 1_000).await;
        queue(place, "touch").await;
        let awake = BuiltIn { sleep: None, target: Duration::from_millis(20) };
        let (end, controllers) = until_done(Host::builder().database(spec(place).built_in(awake))).await;
        assert_eq!(end, End::Done { remaining: vec![] });
        assert!(controllers.iter().all(|name| name == "default"), "{controllers:?}");
        assert_eq!(touched(place).await, ["1|1000"]);
    }

    async fn a_component_sets_the_pace(place: Place) {
        make_items(place, 1_000).await;
        queue(place, "touch").await;
        let artifact = Artifact::load(&guests::built("c-fixed"), &LoadOptions::default()).await.unwrap();
        let fixed = ComponentSource::new("fixed", artifact);
        let (end, controllers) = until_done(Host::builder().database(spec(place).controller(fixed))).await;
        assert_eq!(end, End::Done { remaining: vec![] });
        assert!(!controllers.is_empty() && controllers.iter().all(|name| name == "fixed"), "{controllers:?}");
        assert_eq!(touched(place).await, ["1|1000"]);
    }

    async fn a_native_controller_that_panics_is_at_fault_and_the_work_is_done(place: Place) {
        for careless in [PanicsIn::OnUpdate, PanicsIn::Enter, PanicsIn::Exit] {
            place.run("drop table if exists items").await;
            make_items(place, 1_000).await;
            queue(place, "touch").await;
            let supervision = SupervisorSettings {
                builtin: BuiltIn { sleep: None, target: Duration::from_millis(20) },
                fallback: Fallback::Default,
                max_faults: 2,
                ..SupervisorSettings::default()
            };
            let database = spec(place).controller(Native::new("careless", move |_| careless)).supervision(supervision);
            let host = Host::builder().database(database).until_done().build().unwrap();
            let mut events = host.events().subscribe();
            let end = host.run(std::future::pending()).await.remove(0).end;
            assert_eq!(end, End::Done { remaining: vec![] });
            assert_eq!(touched(place).await, ["1|1000"]);
            let mut faults = Vec::new();
            while let Ok(event) = events.try_recv() {
                if let EventKind::ControllerFault { fault, .. } = &event.kind {
                    faults.push(fault.to_string());
                }
            }
            let place = match careless {
                PanicsIn::OnUpdate => "on-update",
                PanicsIn::Enter => "enter",
                PanicsIn::Exit => "exit",
            };
            let fault = format!("trap in {place}: the controller panicked: in {place}");
            assert!(!faults.is_empty() && faults.iter().all(|found| *found == fault), "{faults:?}");
        }
    }

    async fn a_queue_table_of_its_own_is_worked_on_and_no_other(place: Place) {
        make_items(place, 10).await;
        queue(place, "touch").await;
        let database = place.open_with(|options| options.queue_table = "other_updates".to_owned());
        database.prepare().await.unwrap();
        database.enqueue(&row("noop")).await.unwrap();
        let spec = spec_at(Url::new(&place.url).queue_table("other_updates")).update("noop", Noop);
        let (end, controllers) = until_done(Host::builder().database(spec)).await;
        assert_eq!((end, controllers.len()), (End::Done { remaining: vec![] }, 1));
        assert_eq!(place.rows("select update_name from background_updates").await, ["touch"]);
    }

    async fn two_databases_are_worked_on_by_one_host(place: Place) {
        make_items(place, 1_000).await;
        queue(place, "touch").await;
        let other = Place::sqlite();
        make_items(&other, 500).await;
        queue(&other, "touch").await;
        let shared: Arc<dyn tidegate::update::Handler> = Arc::new(Noop);
        let host = Host::builder()
            .database(spec(place).updates([("shared".to_owned(), Arc::clone(&shared))]))
            .database(
                DatabaseSpec::new("other", other.open())
                    .update("touch", touch_items())
                    .updates([("shared".to_owned(), shared)]),
            )
            .until_done();
        let summaries = host.build().unwrap().run(std::future::pending()).await;
        let names: Vec<&str> = summaries.iter().map(|summary| summary.database.as_str()).collect();
        assert_eq!(names, ["master", "other"]);
        assert_eq!((touched(place).await, touched(&other).await), (vec!["1|1000".to_owned()], vec!["1|500".to_owned()]));
    }
}

#[test]
fn what_cannot_be_built_is_named() {
    let database = || DatabaseSpec::new("master", Url::new("sqlite:app.db"));
    let supervised = |change: fn(&mut SupervisorSettings)| {
        let mut supervision = SupervisorSettings::default();
        change(&mut supervision);
        Host::builder().database(database().supervision(supervision))
    };
    let one = || Host::builder().database(database());
    let cases = [
        Host::builder(),
        one().database(database()),
        Host::builder().database(DatabaseSpec::new("", Url::new("sqlite:app.db"))),
        Host::builder().database(DatabaseSpec::new("master", Url::new("mysql://somebody:secret@db/app"))),
        Host::builder().database(DatabaseSpec::new("master", Url::new("sqlite::memory:"))),
        Host::builder().database(DatabaseSpec::new("master", Url::new("postgres://db/app?sslmode=perhaps"))),
        Host::builder().database(DatabaseSpec::new("master", Url::new("sqlite:app.db").queue_table(""))),
        Host::builder().database(database().update("fill", Noop).update("fill", Noop)),
        Host::builder().database(database().update("", Noop)),
        one().poll_interval(Duration::ZERO),
        one().poll_interval(Duration::from_micros(9_999)),
        one().max_batch_size(0),
        one().max_attempts(0),
        supervised(|settings| settings.max_faults = 0),
        supervised(|settings| settings.default_batch_size = 0),
        supervised(|settings| settings.min_batch_size = 0),
    ];
    let told: Vec<String> = cases.into_iter().map(|builder| with_causes(builder.build().err().unwrap())).collect();
    insta::assert_snapshot!("what_cannot_be_built", told.join("\n"));
}

fn with_causes(error: BuildError) -> String {
    let mut told = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        told += &format!(": {error}");
        cause = error.source();
    }
    told
}
