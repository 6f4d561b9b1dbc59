//! Updates that run in one go: told by status, reached by cancel, or not called cancelled; and what lasts gives way.

use std::time::Duration;

use tidegate::scheduler::event::EventKind;
use tidegate::update::{Script, ScriptDefinition};

use super::{PATIENCE, progress};
use crate::support::binary::Folder;
use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::postgres::{Server, Settings, connect};
use crate::support::run::{Run, make_items};
use crate::support::until;

/// The words of a statement that runs until it is interrupted.
const AT_WORK: &str = "select count(*) from pg_stat_activity where datname = current_database() and state = 'active' \
                       and pid <> pg_backend_pid() and (query like '%pg_sleep%' or query like 'CREATE%INDEX%')";

fn endless(place: &Place) -> String {
    let statement = place.either(
        "UPDATE items SET touched = (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000000) \
         SELECT count(*) FROM n)",
        "UPDATE items SET touched = touched + 1; SELECT pg_sleep(100000)",
    );
    statement.to_owned()
}

fn script(sql: &str) -> String {
    format!("[[update]]\nname = \"long\"\nkind = \"sql\"\nsql = {}\n", toml::Value::from(sql))
}

async fn queued(place: &Place, names: &[&str]) {
    let database = place.prepared().await;
    for name in names {
        database.enqueue(&row(name)).await.unwrap();
    }
    database.close().await;
}

async fn runs_in_one_go(folder: &Folder) {
    until("status tells that it runs in one go", async || {
        folder.tidegate(&["status"]).await.0.contains("running: in one go for ")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_cancelled_while_it_runs_and_undone() {
    let place = &Place::postgres().await;
    make_items(place, 10).await;
    queued(place, &["long"]).await;
    let folder = Folder::new(place, "sleep_enabled = false", "", &script(&endless(place)));
    let mut host = folder.start(&["run"]);
    runs_in_one_go(&folder).await;
    let (said, code) = folder.tidegate(&["pause"]).await;
    assert!(code == 0 && said.contains("update long runs in one go and goes on to its end"), "{code}: {said}");
    runs_in_one_go(&folder).await;
    let (said, code) = folder.tidegate(&["cancel", "long"]).await;
    assert!(code == 0 && said.contains("long: cancelled"), "{code}: {said}");
    assert_eq!(place.rows(AT_WORK).await, ["0"], "it goes on");
    assert_eq!(place.rows("select count(*) from items where touched > 0").await, ["0"]);
    assert_eq!(place.rows("select count(*) from background_updates").await, ["0"]);
    host.says("long: withdrawn from the queue", PATIENCE).await;
    assert!(host.ended().is_none(), "{}", host.said());
    // Queued anew it is not taken for withdrawn.
    assert_eq!(folder.tidegate(&["resume"]).await.1, 0);
    assert_eq!(folder.tidegate(&["enqueue", "long"]).await.1, 0);
    runs_in_one_go(&folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_waits_is_told_and_cancelled() {
    let place = &Place::postgres().await;
    make_items(place, 10).await;
    queued(place, &["build"]).await;
    let update = "[[update]]\nname = \"build\"\nkind = \"create-index\"\ntable = \"items\"\nindex = \"by_touched\"\n\
                  columns = [\"touched\"]\n";
    let folder = Folder::new(place, "sleep_enabled = false", "", update);
    let others = connect(&place.url).await;
    others
        .batch_execute("set application_name = 'forgotten'; begin; update items set touched = 7 where id = 1")
        .await
        .unwrap();
    let mut host = folder.start(&["run"]);
    host.says("waits for process ", PATIENCE).await;
    assert!(host.said().contains("(forgotten, user "), "{}", host.said());
    until("status tells it", async || folder.tidegate(&["status"]).await.0.contains("(forgotten, user ")).await;
    let (said, code) = folder.tidegate(&["cancel", "build"]).await;
    assert!(code == 0 && said.contains("build: cancelled"), "{code}: {said}");
    assert_eq!(place.rows(AT_WORK).await, ["0"], "it goes on");
    host.says("left index public.by_touched behind", PATIENCE).await;
    others.batch_execute("rollback").await.unwrap();
    // Without anybody in the way nothing is left behind.
    assert_eq!(folder.tidegate(&["enqueue", "build"]).await.1, 0);
    host.says("build: finished", PATIENCE).await;
    let valid = "select count(*) from pg_index where indexrelid = 'by_touched'::regclass and indisvalid";
    assert_eq!(place.rows(valid).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_script_that_runs_is_not_called_cancelled() {
    let place = &Place::sqlite();
    place.recommended().await;
    make_items(place, 10).await;
    queued(place, &["long"]).await;
    let folder = Folder::new(place, "sleep_enabled = false", "busy_timeout_ms = 200", &script(&endless(place)));
    let host = folder.start(&["run"]);
    runs_in_one_go(&folder).await;
    for command in [&["cancel", "long"][..], &["pause"]] {
        let (said, code) = folder.tidegate(command).await;
        assert!(code == 1 && said.contains("update \"long\" runs in one go for "), "{code}: {said}");
        assert!(said.contains("`--address`"), "{said}");
    }
    assert_eq!(progress_of(place, "long").await.as_deref(), Some("{}"));
    drop(host);
}

async fn progress_of(place: &Place, name: &str) -> Option<String> {
    place.rows(&format!("select progress_json from background_updates where update_name = '{name}'")).await.pop()
}

on_both! {
    async fn a_host_leaves_off_where_it_is_asked_itself(place: Place) {
        make_items(place, 10).await;
        let definition = ScriptDefinition { sql: endless(place) };
        let script = std::sync::Arc::new(Script::new(definition, place.system()));
        let mut running = Run::on(place, &[row("long")]).await.define("long", script).for_ever().start();
        running.next("a batch", |event| matches!(event, EventKind::BatchStarted { .. }).then_some(())).await;
        let database = running.control.clone();
        database.withdraw("master", "long");
        running
            .next("it is gone", |event| match event {
                EventKind::UpdateMoved { update_name, gone: true } => (update_name == "long").then_some(()),
                _ => None,
            })
            .await;
        assert_eq!(place.rows("select count(*) from background_updates").await, ["0"]);
        assert_eq!(place.rows("select count(*) from items where touched > 0").await, ["0"]);
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_others_keep_waiting_gives_way_and_comes_back() {
    let place = &Place::postgres().await;
    make_items(place, 300).await;
    place.run("create table more as select * from items; alter table more add primary key (id)").await;
    queued(place, &["a", "b"]).await;
    let update = |name: &str, table: &str| {
        format!(
            "[[update]]\nname = \"{name}\"\nkind = \"backfill\"\ntable = \"{table}\"\nkey = \"id\"\nset = \"touched = touched + 1\"\n"
        )
    };
    let updates = update("a", "items") + &update("b", "more");
    let slowly = "sleep_duration_ms = 200\nmax_batch_size = 10";
    let folder = Folder::new(place, slowly, "lock_timeout_ms = 1000", &updates);
    let others = connect(&place.url).await;
    others
        .batch_execute("set application_name = 'forgotten'; begin; update items set touched = touched where id = 5")
        .await
        .unwrap();
    let mut host = folder.start(&["run"]);
    until("status tells who gives way, and why", async || {
        let (said, _) = folder.tidegate(&["status"]).await;
        said.contains("gives way to others, and is tried again ") && said.contains("; in the way: process ")
    })
    .await;
    host.says("b: finished", PATIENCE).await;
    assert!(host.said().contains("; in the way: process "), "{}", host.said());
    assert_eq!(place.rows("select count(*) from more where touched = 1").await, ["300"]);
    assert!(!host.said().contains("a: finished"), "{}", host.said());
    let (said, _) = folder.tidegate(&["status"]).await;
    assert!(said.contains("forgotten"), "{said}");
    others.batch_execute("rollback").await.unwrap();
    host.says("a: finished", PATIENCE + Duration::from_secs(30)).await;
    assert_eq!(place.rows("select count(*) from items where touched = 1").await, ["300"]);
    assert_eq!(progress(place).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_a_standby_is_told() {
    let server = Server::start(&Settings { fsync: true, ..Settings::default() });
    let place = &Place::on(&server).await;
    make_items(place, 300).await;
    queued(place, &["touch"]).await;
    let folder = super::touching(place, "sleep_duration_ms = 100\nmax_batch_size = 10", "touched = touched + 1");
    let mut host = folder.start(&["run", "--until-done"]);
    super::moved_on(place, Some("{}")).await;
    place.run("alter system set synchronous_standby_names = 'nobody'").await;
    place.run("select pg_reload_conf()").await;
    host.says("waits for a synchronous standby that has not confirmed the commit", PATIENCE).await;
    until("status tells it", async || {
        folder.tidegate(&["status"]).await.0.contains("waits for a synchronous standby that has not confirmed")
    })
    .await;
    place.run("alter system reset synchronous_standby_names").await;
    place.run("select pg_reload_conf()").await;
    assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
    super::each_touched_once(place, 300).await.unwrap();
}
