//! `enqueue` with a dependency, a place and progress of one's own.

use super::site;
use crate::assert_told;
use crate::support::on_both;
use crate::support::place::Place;
use crate::support::run::{make_items, touched};

const ROWS: &str = "select update_name, progress_json, depends_on, ordering from background_updates \
                    order by ordering, update_name";

on_both! {
    async fn dependency_place_and_progress_are_written(place: Place) {
        make_items(place, 500).await;
        let site = site(place);
        for arguments in [
            &["enqueue", "touch_items", "--progress", "{\"after\":[\"200\"],\"items\":200}", "--ordering", "-5"][..],
            &["enqueue", "other", "--depends-on", "touch_items", "--ordering", "-7"],
        ] {
            let told = site.tidegate(arguments).await;
            assert_eq!(told.code, 0, "{arguments:?}: {}", told.all());
        }
        assert_eq!(place.rows(ROWS).await, ["other|{}|touch_items|-7", "touch_items|{\"after\":[\"200\"],\"items\":200}||-5"]);
        let run = site.tidegate(&["run", "--until-done"]).await;
        assert_eq!(run.code, 0, "{}", run.all());
        let (first, second) = (run.err.find("touch_items: finished"), run.err.find("other: started"));
        assert!(first.is_some() && first < second, "{}", run.all());
        assert_eq!(touched(place).await, ["0|200", "1|300"]);
    }

    async fn what_cannot_be_meant_is_refused_and_nothing_is_queued(place: Place) {
        make_items(place, 1).await;
        let site = site(place);
        site.tidegate(&["enqueue", "other", "--depends-on", "fails", "--force"]).await;
        let before = place.rows(ROWS).await;
        assert_eq!(before, ["other|{}|fails|0"]);
        let mut told = Vec::new();
        for arguments in [
            &["enqueue", "touch_items", "--depends-on", "othr"][..],
            &["enqueue", "touch_items", "--depends-on", "something"],
            &["enqueue", "fails", "--depends-on", "other"],
            &["enqueue", "touch_items", "fails", "--depends-on", "touch_items"],
            &["enqueue", "touch_items", "--progress", "[1]"],
            &["enqueue", "touch_items", "--progress", "{after: 1}"],
            &["enqueue", "touch_items", "--progress", "{\"before\":[\"200\"]}"],
            &["enqueue", "touch_items", "fails", "--progress", "{\"after\":[\"200\"]}"],
            &["enqueue", "touch_items", "--ordering", "high"],
            &["enqueue", "other", "--ordering", "3"],
        ] {
            told.push(format!("$ tidegate {}\n{}", arguments.join(" "), site.tidegate(arguments).await.all()));
            assert_eq!(place.rows(ROWS).await, before, "{arguments:?}");
        }
        assert_told!(&[], "enqueue_refused", told.join("\n\n"));
    }

    async fn several_can_wait_for_one_that_is_named_with_them(place: Place) {
        make_items(place, 1).await;
        let site = site(place);
        let told = site.tidegate(&["enqueue", "touch_items"]).await;
        assert_eq!(told.code, 0, "{}", told.all());
        let told = site.tidegate(&["enqueue", "touch_items", "other", "fails", "--depends-on", "touch_items"]).await;
        assert_eq!(told.out, "touch_items: already queued on master, and left as it is\nother: queued on master\n\
                              fails: queued on master\n");
        assert_eq!(place.rows(ROWS).await, ["fails|{}|touch_items|0", "other|{}|touch_items|0", "touch_items|{}||0"]);
    }
}
