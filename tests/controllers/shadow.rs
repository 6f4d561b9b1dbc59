//! Controllers that are asked beside the one that sets the pace.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate::controller::{Admission, Callback, Policy, ShadowNotice, ShadowPolicy, SupervisorSettings};
use tidegate::scheduler::event::EventKind;
use tidegate_simulate::trace::Playback;
use tidegate_wasm::{Artifact, ComponentSource, LoadOptions, SignalReader};

use super::{ITEMS, assert_done, site};
use crate::assert_told;
use crate::guests::built;
use crate::support::api::{Answer, Api, WITHOUT_TOKENS};
use crate::support::binary::Folder;
use crate::support::components::{Guest, sleeper};
use crate::support::diary::{Diary, keeper};
use crate::support::place::{Place, row};
use crate::support::recorder::Recorder;
use crate::support::run::{Run, make_items, touch, touched};
use crate::support::{on_both, until};
use crate::traces::inputs::{Rising, follower};

/// A liveness bound.
const PATIENCE: Duration = Duration::from_secs(60);

/// A shadow that traps wherever `callback` says.
fn hostile(callback: &str) -> String {
    let path = built("hostile");
    let path = path.display();
    format!(
        "\n[[controller]]\nname = \"hostile\"\npath = \"{path}\"\nshadow = true\nmax_faults = 1000\n\
         [controller.settings]\nmisbehave = \"trap\"\nin = \"{callback}\"\n"
    )
}

/// What a run came to: of each iteration all that a controller decides, and its items.
async fn decisions(place: &Place) -> Vec<String> {
    let rows = place.rows("select record from tidegate_history order by id").await;
    let told = |row: &String| {
        let record: Value = serde_json::from_str(row).unwrap();
        let keys = ["update_name", "controller", "target_ms", "batch_size", "items", "wait_reason", "outcome", "fuel"];
        keys.map(|key| record[key].to_string()).join(" ")
    };
    rows.iter().map(told).collect()
}

/// A live controller whose batches are the same each time: targets of 0 ms, so that the least size counts.
fn live() -> Vec<u8> {
    Guest::new().enter("(call $run (i32.const 0))").min_batch_size("(i32.const 40)").component()
}

async fn shadow(guest: &Guest) -> ShadowPolicy {
    let artifact = Artifact::from_bytes(guest.component(), &LoadOptions::default()).await.unwrap();
    let source = ComponentSource::new("shadow", artifact);
    ShadowPolicy { policy: Policy::Controller(Arc::new(source)), settings: SupervisorSettings::default(), prompt: None }
}

on_both! {
    async fn a_shadow_that_traps_on_every_call_changes_nothing(place: Place) {
        let alone = site(place, &live(), "").await;
        let run = alone.tidegate(&["run", "--until-done"]).await;
        assert_eq!(run.code, 0, "{}", run.all());
        assert_done(place, "alone").await;
        let alone = decisions(place).await;
        assert_eq!(alone.len(), 25 - 1, "{alone:?}");
        for callback in ["on-update", "enter", "exit", "drop", "default-batch-size", "min-batch-size"] {
            let other = place.another().await;
            let accompanied = site(&other, &live(), &hostile(callback)).await;
            let run = accompanied.tidegate(&["run", "--until-done"]).await;
            assert!(run.code == 0 && run.err.contains("shadow hostile: trap in"), "{callback}: {}", run.all());
            assert_done(&other, callback).await;
            assert_eq!(decisions(&other).await, alone, "{callback}");
        }
    }

    async fn a_shadow_is_given_up_after_as_many_faults_in_a_row_as_configured(place: Place) {
        let more = hostile("enter").replace("max_faults = 1000", "max_faults = 2");
        let site = site(place, &live(), &more).await;
        let run = site.tidegate(&["run", "--until-done"]).await;
        assert_done(place, "given up").await;
        assert_eq!(run.code, 0, "{}", run.all());
        assert_eq!(run.err.matches("shadow hostile: trap in enter").count(), 2, "{}", run.all());
        assert!(run.err.contains("shadow hostile: 2 faults in a row; it is asked again in 5.0s"), "{}", run.all());
    }

    async fn what_a_shadow_would_do_is_told_everywhere(place: Place) {
        make_items(place, ITEMS).await;
        let mut later = Guest::new();
        let reason = later.text("later");
        let later = later
            .fields("(global $entered (mut i32) (i32.const 0))")
            .on_update("(global.set $entered (i32.const 0)) (call $iteration)")
            .enter(format!(
                "(global.set $entered (i32.add (global.get $entered) (i32.const 1)))
                 (if (result i32) (i32.eq (global.get $entered) (i32.const 1))
                   (then (call $wait (i32.const 3600000) {reason})) (else (call $run (i32.const 0))))"
            ))
            .min_batch_size("(i32.const 40)");
        let rest = format!(
            "{WITHOUT_TOKENS}\n[[update]]\nname = \"touch\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\n\
             set = \"touched = touched + 1\"\n\
             [[controller]]\nname = \"today\"\npath = \"today.wasm\"\n\
             [[controller]]\nname = \"tomorrow\"\npath = \"tomorrow.wasm\"\nshadow = true\n\
             [[controller]]\nname = \"same\"\npath = \"today.wasm\"\nshadow = true\n"
        );
        place.prepared().await.enqueue(&row("touch")).await.unwrap();
        let folder = Folder::new(place, "poll_interval_ms = 20\n", "", &rest);
        folder.write("today.wasm", live());
        folder.write("tomorrow.wasm", later.component());
        let mut api = Api::start_in(folder).await;
        // 24 iterations: each a wait in place of a batch, and a batch size, the same as the live one's.
        let shadows = answered(&api, 48).await;
        until("the last batch is committed", async || touched(place).await == [format!("1|{ITEMS}")]).await;
        let (same, tomorrow) = (&shadows[0], &shadows[1]);
        assert_eq!((&same["name"], &same["different"], &same["faults"]), (&"same".into(), &0.into(), &0.into()));
        assert_eq!((&tomorrow["name"], &tomorrow["different"]), (&"tomorrow".into(), &24.into()), "{shadows}");
        let last = &tomorrow["last_difference"];
        assert_eq!((&last["live"], &last["shadow"]), (&"run, 0 ms".into(), &"wait 3600000 ms: later".into()));
        let controllers = look(&api, "/api/v1/controllers").await.json();
        let tomorrow = &controllers["controllers"][1];
        assert_eq!((&tomorrow["live"], &tomorrow["shadow"]), (&false.into(), &true.into()), "{tomorrow}");
        assert_eq!(tomorrow["databases"][0]["as_shadow"]["different"], 24, "{tomorrow}");
        assert!(tomorrow["databases"][0]["used"]["fuel"].as_u64().unwrap() > 0, "{tomorrow}");
        assert_eq!(controllers["controllers"][0]["live"], true, "{controllers}");
        let metrics = look(&api, "/metrics").await.text;
        let counted = "tidegate_shadow_decisions_total{controller=\"tomorrow\",database=\"master\",decision=\"different\"} 24";
        assert!(metrics.contains(counted), "{metrics}");
        let page = look(&api, "/").await.text;
        assert!(page.contains("Shadow <strong>tomorrow</strong>: otherwise in 24 of 48 decisions"), "{page}");
        let counts = "otherwise in 24 of 48 decisions";
        until("the host has written it down", async || {
            let told = api.folder.tidegate(&["status"]).await.0;
            told.contains(counts) && told.contains("otherwise in 0 of 48 decisions")
        })
        .await;
        let masks = [(r"\((SQLite|PostgreSQL)\)", "([system])"), (r" *signals: .*\n", "")];
        assert_told!(&masks, "status_with_shadows", api.folder.tidegate(&["status"]).await.0);
        let asked = api.folder.tidegate(&["status", "--address", &api.address.clone()]).await.0;
        assert!(asked.contains(counts) && asked.contains("wait 3600000 ms: later in place of run, 0 ms"), "{asked}");

        // Another file in its place, and from then on it decides as the live one does.
        api.folder.write("tomorrow.wasm", live());
        api.process.signal("HUP");
        api.process.says("reloaded the configuration and the controllers", PATIENCE).await;
        until("the shadows are new", async || look(&api, "/api/v1/databases/master").await.json()["shadows"] == json!([])).await;
        place.prepared().await.enqueue(&row("touch")).await.unwrap();
        let shadows = answered(&api, 48).await;
        assert_eq!((&shadows[0]["different"], &shadows[1]["different"]), (&0.into(), &0.into()), "{shadows}");
    }

    async fn check_and_reload_refuse_a_shadow_that_cannot_be_loaded_and_a_run_goes_on_without(place: Place) {
        let site = site(place, &live(), "\n[[controller]]\nname = \"broken\"\npath = \"none.wasm\"\nshadow = true\n").await;
        let check = site.tidegate(&["check"]).await;
        assert!(check.code == 2 && check.err.contains("controller \"broken\": unreadable"), "{}", check.all());
        let run = site.tidegate(&["run", "--until-done"]).await;
        assert!(run.code == 0 && run.err.contains("shadow broken: it cannot be loaded"), "{}", run.all());
        assert_done(place, "a broken shadow").await;
    }

    async fn a_shadow_that_falls_behind_is_not_waited_for(place: Place) {
        make_items(place, 100_000).await;
        let slow = sleeper().enter("(call $sleep (i64.const 1000)) (call $run (i32.const 20))");
        let mut run = Run::on(place, &[row("touch")]).await.define("touch", touch());
        run.settings.max_batch_size = 1;
        run.shadows.push(shadow(&slow).await);
        let mut running = run.controller(Arc::new(Recorder::running())).start();
        let behind = |kind: &EventKind| match kind {
            EventKind::Shadow { notice: ShadowNotice::Behind { calls }, .. } => Some(*calls),
            _ => None,
        };
        let dropped = running.next("the shadow is behind", behind).await;
        let story = running.stop().await;
        let entered = |notice: &&&ShadowNotice| matches!(notice, ShadowNotice::Decided { callback: Callback::Enter, .. });
        let asked = notices(&story.events).iter().filter(entered).count();
        let done = story.iterations().len();
        assert!(dropped > 0 && done > asked, "{dropped} calls dropped, {done} iterations, {asked} decisions of the shadow");
    }

    async fn a_shadow_is_exited_once_for_each_time_that_it_answered_run_and_never_otherwise(place: Place) {
        make_items(place, 250).await;
        let life = "on-update touch master|enter -> run|exit completed|drop";
        let waits_once = "on-update touch master|enter -> wait|enter -> run|exit completed|drop";
        let always_waits = "on-update touch master|enter -> wait|enter -> wait|drop";
        let waited = Admission::Wait { duration: Duration::from_millis(10), reason: "a rest".to_owned() };
        let live_waits_once = move |entered: usize| match entered % 2 {
            0 => waited.clone(),
            _ => Admission::Run(Duration::ZERO),
        };
        let cases: [(Recorder, u32, &str); 4] = [
            (Recorder::running(), 0, life),
            (Recorder::running(), 1, waits_once),
            (Recorder::running(), u32::MAX, always_waits),
            // The live one waits first: the shadow would have run already, and is entered no more.
            (Recorder::new(live_waits_once), 0, life),
        ];
        for (live, waits, expected) in cases {
            let place = place.another().await;
            make_items(&place, 250).await;
            let diary = Diary::default();
            let mut run = Run::on(&place, &[row("touch")]).await.define("touch", touch());
            run.settings.max_batch_size = 100;
            let policy = Policy::Controller(diary.source(&keeper(waits, 1)).await);
            run.shadows.push(ShadowPolicy { policy, settings: SupervisorSettings::default(), prompt: None });
            let story = run.controller(Arc::new(live)).until_done().await;
            assert_eq!(story.iterations().len(), 3);
            let lines = diary.lines();
            let short = |line: &String| line.split(':').next().unwrap().to_owned();
            let told: Vec<String> = lines.iter().map(short).collect();
            assert_eq!(told.join("|"), [expected; 3].join("|"));
        }
    }

    async fn a_shadow_reads_the_signals_that_the_live_controller_read(place: Place) {
        make_items(place, 50).await;
        let component = |reader: Arc<dyn SignalReader>| async {
            let artifact = Artifact::from_bytes(follower("load").component(), &LoadOptions::default()).await.unwrap();
            ComponentSource::new("follower", artifact).with_signals(reader)
        };
        let playback = Arc::new(Playback::beside(Arc::new(Rising::default())));
        let mut run = Run::on(place, &[row("touch")]).await.define("touch", touch());
        run.settings.max_batch_size = 5;
        run.shadows.push(ShadowPolicy {
            policy: Policy::Controller(Arc::new(component(playback.clone()).await)),
            settings: SupervisorSettings::default(),
            prompt: Some(playback),
        });
        let story = run.controller(Arc::new(component(Arc::new(Rising::default())).await)).until_done().await;
        let decided = notices(&story.events);
        let mut targets = Vec::new();
        for notice in &decided {
            if let ShadowNotice::Decided { callback: Callback::Enter, live, differs, .. } = notice {
                assert!(!differs, "{notice:?}");
                targets.push(live.clone());
            }
        }
        assert_eq!(targets[..3], ["run, 0 ms", "run, 1 ms", "run, 2 ms"], "{targets:?}");
        assert_eq!(targets.len(), 11);
    }
}

fn notices(events: &[EventKind]) -> Vec<&ShadowNotice> {
    let mut notices = Vec::new();
    for event in events {
        if let EventKind::Shadow { notice, .. } = event {
            notices.push(notice);
        }
    }
    notices
}

async fn look(api: &Api, path: &str) -> Answer {
    Answer::of(api.request(reqwest::Method::GET, path).send().await.unwrap()).await
}

/// The shadows, once both have made so many decisions.
async fn answered(api: &Api, decisions: u64) -> Value {
    let shadows = async || look(api, "/api/v1/databases/master").await.json()["shadows"].clone();
    let all = |shadows: &Value| (0..2).all(|index| shadows[index]["decisions"] == decisions);
    until("both shadows have answered all", async || all(&shadows().await)).await;
    shadows().await
}
