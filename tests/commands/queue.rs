//! Queueing, looking, running, retrying.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidegate::scheduler::database::Pause;
use tidegate::scheduler::event::EventKind;

use super::site;
use crate::assert_told;
use crate::controllers::{ITEMS, site_with_batches};
use crate::guests::built;
use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::recorder::Recorder;
use crate::support::run::{Run, make_items, touch, touched};
use crate::support::until;

/// A liveness bound.
const PATIENCE: Duration = Duration::from_secs(60);

/// The systems' own words for the same.
const MASKS: &[(&str, &str)] = &[
    (r"\((?:SQLite|PostgreSQL)\)", "([system])"),
    (r#""system": "(?:SQLite|PostgreSQL)""#, r#""system": "[system]""#),
    (r"NOT NULL constraint failed: items\.touched \(permanent, SQLITE_CONSTRAINT_NOTNULL\)", "[not null]"),
    (
        r#"null value in column "touched" of relation "items" violates not-null constraint \(permanent, SQLSTATE 23502\)"#,
        "[not null]",
    ),
    // The log is told on PostgreSQL alone.
    (r"\n  detail: Failing row contains \(1, null\)\.", ""),
    (r#""(\w+_ms|host|pid)": \d+(?:\.\d+)?"#, r#""$1": 0"#),
    (r#""host": "[^"]+""#, r#""host": "[host]""#),
    (r"(?m) +$", ""),
];

/// A queue with a row in each state that a row can be in without a host.
async fn fill(place: &Place) {
    let rows = [
        ("touch_items", "{}", ""),
        ("other", "{}", "touch_items"),
        ("nobody_defines_this", "{}", ""),
        ("fails", "{}", ""),
    ];
    let values = rows.map(|(name, progress, depends_on)| format!("('{name}', '{progress}', '{depends_on}')"));
    let insert = "insert into background_updates (update_name, progress_json, depends_on) values";
    place.run(&format!("{insert} {}", values.join(", "))).await;
}

on_both! {
    async fn the_history_shows_what_was_asked_and_what_came_of_it(place: Place) {
        make_items(place, 150).await;
        place.prepared().await;
        fill(place).await;
        let site = site(place);
        site.tidegate(&["run", "--until-done"]).await;
        let mut told = Vec::new();
        for arguments in [
            &["history", "touch_items"][..],
            &["history", "fails", "--limit", "1"],
            &["history", "tuch_items"],
            &["history", "touch_items", "--limit", "1", "--json"],
        ] {
            told.push(format!("$ tidegate {}\n{}", arguments.join(" "), site.tidegate(arguments).await.all()));
        }
        // How long a batch took, and so how many items the next one asked for, differs from run to run.
        let measured = [
            (r"\b[\d.]+m?s\b", "[time]"),
            (r"(?m) {2,}", "  "),
            (r"\[time\]  [\d,]+  50 ", "[time]  [asked]  50 "),
            (r#""items_asked": \d+"#, r#""items_asked": 0"#),
        ];
        let masks: Vec<_> = MASKS.iter().chain(&measured).copied().collect();
        assert_told!(&masks, "history", told.join("\n\n"));
    }

    async fn the_history_names_what_held_an_iteration_and_for_how_long(place: Place) {
        let component = std::fs::read(built("hostile")).unwrap();
        let more = "[controller.settings]\nmisbehave = 'wait'\namount = 30\ncall = 1\n\
                    [controller.limits]\ndeadline_ms = 60000\n";
        let site = site_with_batches(place, &component, more, ITEMS / 10).await.sharing_what_is_compiled();
        let run = site.tidegate(&["run", "--until-done"]).await;
        assert_eq!(run.code, 0, "{}", run.all());
        let history = site.tidegate(&["history", "touch_items", "--limit", "100", "--json"]).await;
        let json: Value = serde_json::from_str(&history.out).unwrap();
        let iterations = json["databases"][0]["iterations"].as_array().unwrap();
        let (first, later) = iterations.split_last().unwrap();
        assert_eq!(first["held_reason"], "as told", "{first}");
        assert!(first["held_ms"].as_f64() >= Some(30.0), "{first}");
        assert!(!later.is_empty() && later.iter().all(|later| later["held_reason"].is_null()), "{}", history.out);
        assert!(later.iter().all(|later| later["held_ms"] == 0.0), "{}", history.out);
        let table = site.tidegate(&["history", "touch_items", "--limit", "100"]).await.out;
        let held: Vec<_> = table.lines().filter(|line| line.contains("s (as told)")).collect();
        assert_eq!(held, [table.lines().last().unwrap()], "{table}");
    }

    async fn pausing_resuming_and_cancelling_say_what_they_did(place: Place) {
        make_items(place, 500).await;
        place.prepared().await;
        fill(place).await;
        let site = site(place);
        let mut told = Vec::new();
        for arguments in [
            &["pause", "--reason", "deploying"][..],
            &["status"],
            &["resume"],
            &["cancel", "touch_items"],
            &["cancel", "touch_items", "--with-dependents"],
            &["cancel", "touch_items"],
            &["cancel", "fails", "nobody_defines_this"],
            &["run", "--until-done"],
        ] {
            told.push(format!("$ tidegate {}\n{}", arguments.join(" "), site.tidegate(arguments).await.all()));
        }
        assert_told!(MASKS, "pausing_resuming_cancelling", told.join("\n\n"));
        assert_eq!(touched(place).await, ["0|500"]);
    }

    async fn a_pause_is_lifted_on_one_database_and_stays_on_the_other(place: Place) {
        let other = &place.another().await;
        make_items(place, 500).await;
        make_items(other, 500).await;
        let site = site(place);
        let configuration = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
        let second = format!("[[database]]\nname = \"other\"\nurl = \"{}\"\n", other.url);
        site.write("tidegate.toml", format!("{configuration}\n{second}"));
        for (arguments, told) in [
            (&["enqueue", "touch_items"][..], "touch_items: queued on master\ntouch_items: queued on other\n"),
            (&["pause"], "master: paused\nother: paused\n"),
            (&["resume", "--database", "other"], "other: resumed\n"),
        ] {
            assert_eq!(site.tidegate(arguments).await.all(), format!("{told}exit code 0"), "{arguments:?}");
        }
        let mut host = site.start(&["run", "--until-done"]);
        host.says("master: paused", PATIENCE).await;
        host.says("other: stopped", PATIENCE).await;
        assert_eq!((touched(place).await, touched(other).await), (vec!["0|500".to_owned()], vec!["1|500".to_owned()]));
        let resumed = site.tidegate(&["resume"]).await;
        assert_eq!(resumed.all(), "master: resumed\nother: resumed\nexit code 0");
        assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
        assert_eq!((touched(place).await, touched(other).await), (vec!["1|500".to_owned()], vec!["1|500".to_owned()]));
    }

    async fn from_enqueue_to_an_empty_queue(place: Place) {
        make_items(place, 500).await;
        let site = site(place);
        let mut told = Vec::new();
        for arguments in [
            &["status"][..],
            &["enqueue", "touch_items", "other"],
            &["enqueue", "touch_items"],
            &["enqueue", "tuch_items"],
            &["enqueue", "other", "--database", "mastr"],
            &["status"],
            &["retry", "touch_items"],
            &["retry", "--all"],
            &["retry", "fails"],
            &["run", "--until-done"],
            &["status"],
        ] {
            told.push(format!("$ tidegate {}\n{}", arguments.join(" "), site.tidegate(arguments).await.all()));
        }
        assert_eq!(touched(place).await, ["1|500"]);
        assert_told!(MASKS, "from_enqueue_to_an_empty_queue", told.join("\n\n"));
    }

    async fn status_makes_no_table_and_shows_a_queue_that_somebody_else_made(place: Place) {
        let site = site(place);
        let tables = place.either(
            "select name from sqlite_schema where type = 'table'",
            "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace",
        );
        let none: [String; 0] = [];
        assert!(site.tidegate(&["status"]).await.out.contains("there is no table \"background_updates\" yet"));
        assert_eq!(place.rows(tables).await, none);
        place.run("create table background_updates (update_name text not null unique, progress_json text not null, \
                   depends_on text, ordering int not null default 0)").await;
        fill(place).await;
        let told = site.tidegate(&["status"]).await;
        assert_eq!(place.rows(tables).await, ["background_updates"]);
        assert_told!(MASKS, "a_queue_of_somebody_elses", told.all());
    }

    async fn what_cannot_run_is_named_and_the_others_finish(place: Place) {
        make_items(place, 500).await;
        let site = site(place);
        site.tidegate(&["enqueue", "touch_items"]).await;
        place.run("insert into background_updates (update_name, progress_json, depends_on) values \
                   ('nobody_defines_this', '{}', null), ('fails', '{}', null)").await;
        let run = site.tidegate(&["run", "--until-done"]).await;
        let status = site.tidegate(&["status"]).await;
        assert_eq!(touched(place).await, ["1|500"]);
        let json: Value = serde_json::from_str(&site.tidegate(&["status", "--json"]).await.out).unwrap();
        let updates = json["databases"][0]["updates"].as_array().unwrap();
        let states: Vec<_> = updates.iter().map(|update| (&update["name"], &update["state"])).collect();
        assert_eq!(format!("{states:?}"), format!("{:?}", [
            (Value::from("fails"), Value::from("quarantined")),
            (Value::from("nobody_defines_this"), Value::from("undefined")),
        ]));
        // Its cause mended, it is done.
        let configuration = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
        site.write("tidegate.toml", configuration.replace("touched = null", "touched = touched + 1"));
        let held = site.tidegate(&["run", "--until-done"]).await;
        let retry = site.tidegate(&["retry", "fails"]).await;
        let mended = site.tidegate(&["run", "--until-done"]).await;
        assert_eq!((held.code, retry.code, mended.code), (3, 0, 3));
        assert_eq!(touched(place).await, ["2|500"]);
        let all = [run.all(), status.all(), held.all(), retry.all(), mended.all()];
        assert_told!(MASKS, "what_cannot_run", all.join("\n\n"));
    }

    async fn progress_that_cannot_be_read_is_named(place: Place) {
        make_items(place, 500).await;
        let site = site(place);
        site.tidegate(&["enqueue", "touch_items"]).await;
        place.run("insert into background_updates (update_name, progress_json) values \
                   ('fails', 'not json'), ('other', '[1]')").await;
        let before = site.tidegate(&["status"]).await;
        let run = site.tidegate(&["run", "--until-done"]).await;
        let after = site.tidegate(&["status"]).await;
        assert_eq!(touched(place).await, ["1|500"]);
        assert_told!(MASKS, "unreadable_progress", [before.all(), run.all(), after.all()].join("\n\n"));
    }

    async fn an_update_that_is_queued_anew_has_no_rate_from_before(place: Place) {
        make_items(place, 500).await;
        let site = site(place);
        let row = async || {
            let status = site.tidegate(&["status", "--json"]).await;
            let json: Value = serde_json::from_str(&status.out).unwrap();
            json["databases"][0]["updates"][0].clone()
        };
        site.tidegate(&["enqueue", "touch_items"]).await;
        assert_eq!(site.tidegate(&["run", "--until-done"]).await.code, 0);
        // Between two batches it is running, and has a rate.
        let mut run = Run::on(place, &[self::row("touch_items")]).await.define("touch_items", touch()).for_ever();
        run.supervision.builtin.sleep = Some(Duration::from_secs(3_600));
        let database = run.database.clone();
        let running = run.start();
        let resting = async || {
            let activity = database.queue().await.unwrap().activity;
            activity.is_some_and(|activity| activity.first.reason.as_deref() == Some("resting between batches"))
        };
        until("the host says that it rests", resting).await;
        let before = row().await;
        assert_eq!((&before["state"], &before["items_per_s"]), (&Value::from("running"), &Value::Null));
        let status = site.tidegate(&["status"]).await;
        assert!(status.out.contains("running: resting between batches"), "{}", status.out);
        // As an interrupted host leaves it.
        place.run("insert into tidegate_history (queue, update_name, started_ms, record) select queue, update_name, \
                   started_ms, replace(replace(record, '\"finished\"', '\"completed\"'), '\"items\":0', '\"items\":1') \
                   from tidegate_history").await;
        assert!(row().await["items_per_s"].as_f64().unwrap() > 0.0);
        // What does not run has none, whatever it was.
        running.stop().await;
        let after = row().await;
        assert_eq!((&after["state"], &after["items_per_s"]), (&Value::from("pending"), &Value::Null));
    }

    async fn a_cycle_is_named_and_the_others_finish(place: Place) {
        make_items(place, 500).await;
        let site = site(place);
        site.tidegate(&["enqueue", "touch_items"]).await;
        place.run("insert into background_updates (update_name, progress_json, depends_on) values \
                   ('fails', '{}', 'other'), ('other', '{}', 'fails')").await;
        let run = site.tidegate(&["run", "--until-done"]).await;
        let status = site.tidegate(&["status"]).await;
        assert_eq!(touched(place).await, ["1|500"]);
        assert_told!(MASKS, "cycle", [run.all(), status.all()].join("\n\n"));
    }

    async fn a_running_host_is_seen_with_what_holds_it_and_with_a_pause(place: Place) {
        make_items(place, 500).await;
        let site = site(place);
        let hours = Duration::from_secs(3_600);
        let run = Run::on(place, &[row("touch_items")]).await.define("touch_items", touch()).for_ever();
        let database = run.database.clone();
        let mut running = run.controller(Arc::new(Recorder::waiting(hours))).start();
        running.next("a wait", |kind| matches!(kind, EventKind::Held { .. }).then_some(())).await;
        let state = async || database.queue().await.unwrap().activity.map(|activity| activity.first.state);
        until("the host says that it is held", async || state().await.is_some_and(|state| state.words() == "held")).await;
        let held = site.tidegate(&["status"]).await;
        let json = site.tidegate(&["status", "--json"]).await;
        database.set_pause(Some(&Pause { since_ms: 5, reason: Some("maintenance".to_owned()) })).await.unwrap();
        until("the host says that it is paused", async || state().await.is_some_and(|state| state.words() == "paused")).await;
        let paused = site.tidegate(&["status"]).await;
        running.stop().await;
        assert_told!(MASKS, "a_running_host", [held.all(), json.all(), paused.all()].join("\n\n"));
    }

    /// Names and errors come from databases: none may write a line of its own, or move a terminal's cursor.
    async fn what_a_terminal_would_obey_is_shown_and_not_obeyed(place: Place) {
        make_items(place, 10).await;
        let name = "evil\n\u{1b}[2Jupdate\r\u{202e}";
        let site = site(place);
        let configuration = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
        let evil = toml::Value::from(name).to_string();
        let set = place.either("touched = json('a\nb')", "touched = 'a\nb\u{7}'::int");
        let update = format!("[[update]]\nname = {evil}\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\n");
        site.write("tidegate.toml", format!("{configuration}\n{update}set = {}\n", toml::Value::from(set)));
        let mut told = Vec::new();
        for arguments in [
            &["enqueue", name][..],
            &["enqueue", "other", "--depends-on", name],
            &["pause", "--reason", "a\nb\u{9b}"],
            &["status"],
            &["resume"],
            &["run", "--until-done"],
            &["status"],
            &["history", name],
            &["cancel", name],
            &["history", "no\nsuch"],
            &["cancel", "no\nsuch"],
        ] {
            let all = site.tidegate(arguments).await.all();
            let obeyed = all.chars().find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
            assert_eq!(obeyed, None, "{arguments:?}: {all}");
            told.push(all);
        }
        let told = told.join("\n");
        assert!(!told.lines().any(|line| line.starts_with("b") || line.contains("[2Jupdate") && !line.contains("evil")), "{told}");
        assert!(told.contains("evil\\n\\u{1b}[2Jupdate\\r\\u{202e}: quarantined after 1 attempt"), "{told}");
        assert!(told.contains("paused: a\\nb\\u{9b}"), "{told}");
        assert!(told.contains("update \"no\\nsuch\" is not queued"), "{told}");
    }
}
