//! An index on PostgreSQL whose build is cut short, and one that cannot be.

use std::time::Duration;

use super::{FINISHED, status_with};
use crate::crash::PATIENCE;
use crate::support::binary::Folder;
use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::run::make_items;
use crate::support::until;

const BUILDING: &str = "select pid from pg_stat_progress_create_index where datname = current_database()";
const INDEX: &str = "select relname, indisvalid from pg_index join pg_class on oid = indexrelid \
                     where relname like 'items_slowly%'";

/// A folder with the definition of an index that takes some seconds, queued.
async fn slow_index() -> (Place, Folder) {
    let place = Place::postgres().await;
    make_items(&place, 30).await;
    place
        .run(
            "create function slowly(n bigint) returns bigint language plpgsql immutable as \
             $$ begin perform pg_sleep(0.1); return n; end $$",
        )
        .await;
    place.prepared().await.enqueue(&row("index")).await.unwrap();
    let update = "[[update]]\nname = \"index\"\nkind = \"create-index\"\ntable = \"items\"\n\
                  index = \"items_slowly\"\nexpressions = [\"slowly(id)\"]\n";
    let folder = Folder::new(&place, "sleep_enabled = false\npoll_interval_ms = 50", "", update);
    (place, folder)
}

/// Waits until the build is half-way: its leftover is an invalid index from then on.
async fn half_way(place: &Place) -> String {
    until("the index is being built", async || place.rows(INDEX).await == ["items_slowly|f"]).await;
    until("it is being built", async || !place.rows(BUILDING).await.is_empty()).await;
    place.rows(BUILDING).await.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_whose_backend_is_killed_is_done_again() {
    let (place, folder) = slow_index().await;
    let mut host = folder.start(&["run", "--until-done"]);
    let backend = half_way(&place).await;
    place.rows(&format!("select pg_terminate_backend({backend})")).await;
    host.says("trying again in", PATIENCE).await;
    status_with(&folder, "terminating connection due to administrator command").await;
    assert_eq!(host.end(FINISHED).await, 0, "{}", host.said());
    assert_eq!(place.rows(INDEX).await, ["items_slowly|t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_whose_host_is_killed_is_done_by_the_next() {
    let (place, folder) = slow_index().await;
    let mut host = folder.start(&["run"]);
    let backend = half_way(&place).await;
    host.kill();
    // Its build would go on in the server for a while.
    let mut next = folder.start(&["run", "--until-done"]);
    assert_eq!(next.end(FINISHED).await, 0, "{}", next.said());
    assert_eq!(place.rows(INDEX).await, ["items_slowly|t"]);
    let none: [String; 0] = [];
    assert_eq!(place.rows(&format!("select 1 from pg_stat_activity where pid = {backend}")).await, none);
}

on_both! {
    async fn a_unique_index_over_duplicates_is_quarantined_with_the_databases_own_words(place: Place) {
        make_items(place, 100).await;
        place.prepared().await.enqueue(&row("index")).await.unwrap();
        let update = "[[update]]\nname = \"index\"\nkind = \"create-index\"\ntable = \"items\"\n\
                      index = \"items_touched\"\ncolumns = [\"touched\"]\nunique = true\n";
        let folder = Folder::new(place, "max_attempts = 2\nsleep_enabled = false", "", update);
        let mut host = folder.start(&["run", "--until-done"]);
        assert_eq!(host.end(Duration::from_secs(60)).await, 3, "{}", host.said());
        let words = place.either(
            "UNIQUE constraint failed: items.touched (permanent, SQLITE_CONSTRAINT_UNIQUE) (2 times)",
            "could not create unique index \"items_touched\"",
        );
        let (status, _) = folder.tidegate(&["status"]).await;
        assert!(status.contains("quarantined") && status.contains(words), "{status}");
        let indexes = place.either(
            "select name from sqlite_schema where name = 'items_touched'",
            "select relname, indisvalid from pg_index join pg_class on oid = indexrelid where relname like 'items_touched%'",
        );
        let valid = place.either("items_touched", "items_touched|t");
        place.run("update items set touched = id").await;
        let (retried, code) = folder.tidegate(&["retry", "index"]).await;
        assert_eq!(code, 0, "{retried}");
        let (run, code) = folder.tidegate(&["run", "--until-done"]).await;
        assert_eq!(code, 0, "{run}");
        assert_eq!(place.rows(indexes).await, [valid]);
    }
}
