//! Tables of tidegate's own that somebody drops, and temporary ones in their place.

use super::{FINISHED, ROWS, touching};
use crate::crash::{PATIENCE, each_touched_once, moved_on, progress, queue_touch};
use crate::support::binary::Folder;
use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::until;

const DROPPED: &str = "tables were dropped while they were in use";

on_both! {
    async fn tables_that_are_dropped_are_made_anew_and_told_once(place: Place) {
        queue_touch(place, ROWS).await;
        let folder = touching(place, "", "touched = touched + 1");
        let mut host = folder.start(&["run"]);
        moved_on(place, Some("{}")).await;
        let tables = [
            "tidegate_state", "tidegate_history", "tidegate_failures", "tidegate_skipped", "tidegate_lease", "tidegate_ledger", "tidegate_version",
        ];
        // The ledger has a view.
        let cascade = place.either("", " cascade");
        for (table, times) in tables.into_iter().zip(1..) {
            place.run(&format!("drop table {table}{cascade}")).await;
            host.repeats(DROPPED, times, PATIENCE).await;
            moved_on(place, progress(place).await.as_deref()).await;
            let there = place.rows(place.either(
                "select count(*) from sqlite_schema where type = 'table' and name like 'tidegate_%'",
                "select count(*) from pg_class where relkind = 'r' and relname like 'tidegate_%'",
            )).await;
            assert_eq!((there, host.said().matches(DROPPED).count()), (vec![tables.len().to_string()], times), "{}", host.said());
        }
        assert_eq!(place.rows("select version from tidegate_version").await, ["1"]);
        // All of them, and the queue's, while nothing is to be done.
        host.says("touch: finished", FINISHED).await;
        each_touched_once(place, ROWS).await.unwrap();
        for table in tables {
            place.run(&format!("drop table {table}{cascade}")).await;
        }
        host.repeats(DROPPED, tables.len() + 1, PATIENCE).await;
        let (said, code) = folder.tidegate(&["enqueue", "touch"]).await;
        assert_eq!(code, 0, "{said}");
        host.repeats("touch: finished", 2, FINISHED).await;
        until("the history is written", async || {
            !place.rows("select 1 from tidegate_history where record like '%\"finished\"%'").await.is_empty()
        }).await;
    }
}

/// On SQLite a temporary table comes before all others of its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_table_of_a_script_is_not_taken_for_the_queue() {
    let place = &Place::sqlite();
    place.run("create table items (touched int); insert into items values (0)").await;
    let mut script = String::from("update items set touched = touched + 1;");
    let own = [
        "tidegate_state",
        "tidegate_failures",
        "tidegate_history",
        "tidegate_skipped",
        "tidegate_lease",
        "tidegate_version",
    ];
    for table in ["background_updates"].into_iter().chain(own) {
        script += &format!("create temp table {table} as select * from main.{table};");
    }
    let script = toml::Value::from(script);
    let folder =
        Folder::new(place, "", "", &format!("[[update]]\nname = \"shadow\"\nkind = \"sql\"\nsql = {script}\n"));
    place.prepared().await.enqueue(&row("shadow")).await.unwrap();
    let (said, code) = folder.tidegate(&["run", "--until-done"]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(
        place.rows("select touched, (select count(*) from background_updates) from items").await,
        ["1|0"],
        "{said}"
    );
    let told = place.rows("select count(*) from tidegate_history where record like '%\"finished\"%'").await;
    assert_eq!(told, ["1"], "{said}");
}
