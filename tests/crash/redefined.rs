//! A definition that changes while its walk is under way.

use super::{PATIENCE, moved_on, progress, queue_touch, touching};
use crate::support::binary::Folder;
use crate::support::on_both;
use crate::support::place::Place;

const SETTINGS: &str = "sleep_duration_ms = 50\nmax_batch_size = 100";
const BEFORE: &str = "touched = touched + 1";
const AFTER: &str = "touched = touched + 10";
const CHANGED: &str = "set was \"touched = touched + 1\" and is \"touched = touched + 10\"";

/// A folder whose host has left off after some of a thousand rows.
async fn left_off(place: &Place) -> Folder {
    queue_touch(place, 1_000).await;
    let folder = touching(place, SETTINGS, BEFORE);
    let mut host = folder.start(&["run"]);
    moved_on(place, Some("{}")).await;
    host.signal("TERM");
    assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
    folder
}

on_both! {
    async fn another_definition_waits_until_somebody_accepts_it(place: Place) {
        queue_touch(place, 10_000).await;
        let folder = touching(place, SETTINGS, BEFORE);
        let mut host = folder.start(&["run"]);
        moved_on(place, Some("{}")).await;
        // A reload is refused, and the host goes on as before.
        folder.reconfigure(BEFORE, AFTER);
        host.signal("HUP");
        host.says(CHANGED, PATIENCE).await;
        let at = progress(place).await;
        moved_on(place, at.as_deref()).await;
        host.signal("TERM");
        assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
        let at = progress(place).await;

        let (said, code) = folder.tidegate(&["check"]).await;
        assert!(code == 2 && said.contains(CHANGED) && said.contains("`tidegate accept touch`"), "{code}: {said}");
        let mut host = folder.start(&["run", "--until-done"]);
        assert_eq!(host.end(PATIENCE).await, 3, "{}", host.said());
        assert!(host.said().contains(CHANGED), "{}", host.said());
        assert_eq!(progress(place).await, at, "nothing was done");

        let (said, code) = folder.tidegate(&["accept", "touch"]).await;
        assert!(code == 0 && said.contains(CHANGED), "{code}: {said}");
        let (said, code) = folder.tidegate(&["accept", "touch"]).await;
        assert!(code == 0 && said.contains("is the one that it began with"), "{code}: {said}");
        folder.reconfigure("sleep_duration_ms = 50", "sleep_enabled = false");
        let mut host = folder.start(&["run", "--until-done"]);
        assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
        let done = |each: u32| format!("select count(*) from items where touched = {each}");
        let (before, after) = (&place.rows(&done(1)).await[0], &place.rows(&done(10)).await[0]);
        let (before, after): (u32, u32) = (before.parse().unwrap(), after.parse().unwrap());
        assert!(before >= 100 && after >= 100 && before + after == 10_000, "{before} before, {after} after");
    }

    async fn the_definition_before_goes_on_once_it_is_back(place: Place) {
        let folder = left_off(place).await;
        folder.reconfigure(BEFORE, AFTER);
        assert_eq!(folder.tidegate(&["run", "--until-done"]).await.1, 3);
        folder.reconfigure(AFTER, BEFORE);
        assert_eq!(folder.tidegate(&["retry", "touch"]).await.1, 0);
        assert_eq!(folder.tidegate(&["run", "--until-done"]).await.1, 0);
        assert_eq!(place.rows("select count(*) from items where touched = 1").await, ["1000"]);
    }

    async fn a_column_of_another_type_waits_until_somebody_accepts_it(place: Place) {
        let folder = left_off(place).await;
        let change = "pragma writable_schema = on; update sqlite_schema set sql = replace(sql, 'touched int ', \
                      'touched bigint ') where name = 'items'";
        place.run(place.either(change, "alter table items alter touched type bigint")).await;
        let (said, code) = folder.tidegate(&["run", "--until-done"]).await;
        assert!(code == 3 && said.to_lowercase().contains("the type of column touched was \"int") && said.contains("and is \"bigint\""), "{code}: {said}");
        assert_eq!(folder.tidegate(&["accept", "touch"]).await.1, 0);
        assert_eq!(folder.tidegate(&["run", "--until-done"]).await.1, 0);
        assert_eq!(place.rows("select count(*) from items where touched = 1").await, ["1000"]);
    }
}
