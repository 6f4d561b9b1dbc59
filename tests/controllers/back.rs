//! Controllers that failed too often and are tried again: for another update at once, for the same after a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tidegate::controller::{Callback, Controller, Fallback, Fault, FaultKind, Source};
use tidegate::scheduler::event::EventKind;

use crate::guests::built;
use crate::support::api::{Answer, Api, WITHOUT_TOKENS};
use crate::support::binary::Folder;
use crate::support::components::Guest;
use crate::support::place::{Place, row};
use crate::support::recorder::Recorder;
use crate::support::run::{Run, make_items, touch, touched};
use crate::support::{on_both, until};

/// A liveness bound.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two updates of two columns, `a` before `b`, and the least that a controller at fault over `a` alone can be.
fn two_updates(fallback: &str) -> String {
    let path = built("hostile");
    let update = |name: &str| {
        format!(
            "[[update]]\nname = \"{name}\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = \"{name} = 1\"\n"
        )
    };
    format!(
        "[[controller]]\nname = \"guard\"\npath = \"{}\"\nfallback = \"{fallback}\"\n\
         [controller.settings]\nmisbehave = \"error\"\nin = \"enter\"\nupdate = \"a\"\n{}{}",
        path.display(),
        update("a"),
        update("b"),
    )
}

async fn make_columns(place: &Place) {
    place.run("create table items (id bigint primary key not null, a int, b int)").await;
    place.run("insert into items (id) values (1), (2), (3), (4), (5), (6)").await;
    place.recommended().await;
}

/// How many rows of each update are done.
async fn done(place: &Place) -> String {
    place.rows("select count(a), count(b) from items").await.remove(0)
}

/// A source whose controllers fail as long as they are told to.
struct Ill {
    ill: Arc<AtomicBool>,
    well: Recorder,
}

#[async_trait]
impl Source for Ill {
    fn name(&self) -> &str {
        "ill"
    }

    async fn start(&self, database: &str) -> Result<Box<dyn Controller>, Fault> {
        if self.ill.load(Ordering::Relaxed) {
            return Err(Fault { kind: FaultKind::Trap, callback: Callback::Start, message: "ill".to_owned() });
        }
        self.well.start(database).await
    }
}

/// A host that works for ever with a controller that is ill, with the switch of its illness.
async fn ill(place: &Place, fallback: Fallback) -> (Run, Arc<AtomicBool>) {
    make_items(place, 10).await;
    let ill = Arc::new(AtomicBool::new(true));
    let source = Ill { ill: ill.clone(), well: Recorder::running() };
    let mut run = Run::on(place, &[row("touch")]).await.define("touch", touch()).for_ever();
    run.supervision.fallback = fallback;
    (run.controller(Arc::new(source)), ill)
}

fn fallen(kind: &EventKind) -> Option<()> {
    matches!(kind, EventKind::Fallback { .. }).then_some(())
}

fn put_off(kind: &EventKind) -> Option<Duration> {
    match kind {
        EventKind::ControllerPutOff { retry_in, .. } => Some(*retry_in),
        _ => None,
    }
}

fn back(kind: &EventKind) -> Option<()> {
    matches!(kind, EventKind::ControllerBack { .. }).then_some(())
}

async fn look(api: &Api, path: &str) -> Answer {
    api.get(path, "").await
}

on_both! {
    async fn a_controller_at_fault_over_one_update_paces_the_next_and_a_run_that_ends_says_what_is_held(place: Place) {
        make_columns(place).await;
        let folder = Folder::new(place, "sleep_enabled = false\n", "", &two_updates("hold"));
        folder.tidegate(&["enqueue", "a", "b"]).await;
        let (said, code) = folder.tidegate(&["run", "--until-done"]).await;
        assert_eq!((code, done(place).await.as_str()), (3, "0|6"), "{said}");
        let told = [
            "controller guard: 3 faults in a row; updates are held until it is mended (fallback \"hold\")",
            "b: started",
            "controller guard: it came back, and sets the pace again",
            "b: finished",
            "a on master: controller guard is at fault: ",
        ];
        let mut rest = said.as_str();
        for words in told {
            let (_, after) = rest.split_once(words).unwrap_or_else(|| panic!("{words}: {said}"));
            rest = after;
        }
    }

    async fn under_the_fallback_default_all_is_done_and_the_next_update_is_paced_by_the_controller(place: Place) {
        make_columns(place).await;
        let folder = Folder::new(place, "sleep_enabled = false\n", "", &two_updates("default"));
        folder.tidegate(&["enqueue", "a", "b"]).await;
        let (said, code) = folder.tidegate(&["run", "--until-done"]).await;
        assert_eq!((code, done(place).await.as_str()), (0, "6|6"), "{said}");
        let records = place.rows("select record from tidegate_history order by id").await;
        let told = |record: &String| {
            let record: Value = serde_json::from_str(record).unwrap();
            format!("{} {}", record["update_name"], record["controller"]).replace('"', "")
        };
        let paced: Vec<String> = records.iter().map(told).collect();
        assert!(paced.contains(&"b guard".to_owned()), "{paced:?}");
        assert!(!paced.contains(&"b default (fallback for guard)".to_owned()), "{paced:?}");
    }

    async fn a_controller_that_is_well_again_comes_back_and_all_who_look_are_told(place: Place) {
        make_items(place, 10).await;
        place.recommended().await;
        let mut guest = Guest::new();
        let (database, signal, error) = (guest.text("master"), guest.text("health"), guest.text("unwell"));
        let guest = guest.enter(format!(
            "(if (result i32) (call $signal {database} {signal}) (then (call $run (i32.const 50))) (else (call $error {error})))"
        ));
        let rest = format!(
            "{WITHOUT_TOKENS}\n[[update]]\nname = \"touch\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\n\
             set = \"touched = touched + 1\"\n\
             [[signal]]\nname = \"health\"\nkind = \"file\"\npath = \"health\"\ninterval_ms = 100\n\
             [[controller]]\nname = \"guest\"\npath = \"guest.wasm\"\nfallback = \"hold\"\n"
        );
        place.prepared().await.enqueue(&row("touch")).await.unwrap();
        let folder = Folder::new(place, "poll_interval_ms = 50\n", "", &rest);
        folder.write("guest.wasm", guest.component());
        let mut api = Api::start_in(folder).await;
        api.process.says("controller guest: 3 faults in a row; updates are held until it is mended", PATIENCE).await;
        let controller = look(&api, "/api/v1/databases/master").await.json()["controller"].clone();
        assert_eq!((&controller["fallback"], &controller["retry_update"]), (&"hold".into(), &"touch".into()));
        assert!(controller["retry_at_ms"].is_i64(), "{controller}");
        let metrics = look(&api, "/metrics").await.text;
        for words in ["tidegate_controller_fallback{database=\"master\"} 1", "tidegate_controller_retry_timestamp_seconds{"] {
            assert!(metrics.contains(words), "{words}: {metrics}");
        }
        let page = look(&api, "/").await.text;
        assert!(page.contains("updates are held; the controller is tried again for touch"), "{page}");
        let tried = "the controller is tried again for touch ";
        until("status says that it is tried again", async || api.folder.tidegate(&["status"]).await.0.contains(tried)).await;
        let asked = api.folder.tidegate(&["status", "--address", &api.address.clone()]).await.0;
        assert!(asked.contains(tried) && asked.contains("controller: hold (fallback for guest)"), "{asked}");
        api.process.says("controller guest: 4 faults in a row; tried again for touch in 10s", PATIENCE).await;
        assert_eq!(touched(place).await, ["0|10"], "a row was touched");
        api.folder.write("health", "1\n");
        api.process.says("controller guest: it came back, and sets the pace again", PATIENCE).await;
        until("all is done", async || touched(place).await == ["1|10"]).await;
        let controller = look(&api, "/api/v1/databases/master").await.json()["controller"].clone();
        assert_eq!((&controller["fallback"], &controller["retry_at_ms"]), (&Value::Null, &Value::Null));
        let metrics = look(&api, "/metrics").await.text;
        for words in [
            "tidegate_controller_fallback{database=\"master\"} 0",
            "tidegate_controller_tries_total{controller=\"guest\",database=\"master\"} 2",
            "tidegate_controller_returns_total{controller=\"guest\",database=\"master\"} 1",
        ] {
            assert!(metrics.contains(words), "{words}: {metrics}");
        }
        assert!(!metrics.contains("tidegate_controller_retry_timestamp_seconds{"), "{metrics}");
        let page = look(&api, "/").await.text;
        assert!(!page.contains("updates are held"), "{page}");
    }

    async fn who_is_in_a_hurry_has_a_held_controller_tried_at_once(place: Place) {
        let (run, ill) = ill(place, Fallback::Hold).await;
        let mut running = run.start();
        running.next("the fallback", fallen).await;
        // By itself the last of them would come after ten minutes.
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            running.next("the hold", |kind| matches!(kind, EventKind::Held { .. }).then_some(())).await;
            running.control.hurry("master");
            assert_eq!(running.next("a failed try", put_off).await, Duration::from_secs(expected));
        }
        ill.store(false, Ordering::Relaxed);
        running.next("the hold", |kind| matches!(kind, EventKind::Held { .. }).then_some(())).await;
        running.control.hurry("master");
        running.next("the controller", back).await;
        running.next("the end", |kind| matches!(kind, EventKind::UpdateFinished { .. }).then_some(())).await;
        running.stop().await;
        assert_eq!(touched(place).await, ["1|10"]);
    }

    async fn a_host_that_is_stopped_or_paused_while_all_is_held_leaves_off_at_once(place: Place) {
        let (run, _) = ill(place, Fallback::Hold).await;
        let mut running = run.start();
        running.next("the hold", |kind| matches!(kind, EventKind::Held { .. }).then_some(())).await;
        running.control.set_pause("master", Some(None));
        running.next("the pause", |kind| matches!(kind, EventKind::Paused { .. }).then_some(())).await;
        running.control.set_pause("master", None);
        running.next("the hold again", |kind| matches!(kind, EventKind::Held { .. }).then_some(())).await;
        running.stop().await;
        assert_eq!(touched(place).await, ["0|10"]);
    }
}
