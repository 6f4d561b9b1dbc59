//! The calls that a component gets over the whole life of its updates, each with its arguments, in their order.

use std::sync::Arc;

use tidegate::scheduler::database::Pause;
use tidegate::scheduler::event::EventKind;
use tidegate::update::{CreateIndex, CreateIndexDefinition, Handler, IndexParts};

use crate::support::diary::{Diary, full_keeper, keeper};
use crate::support::place::{Place, row};
use crate::support::run::{Run, backfill, make_items, row_after, touch, touched};
use crate::support::{on_both, until};

/// A backfill of 100 items; one that fails; an index after the first; and who waits for the second.
async fn life(place: &Place, diary: &Diary, guest: &crate::support::components::Guest, items: u32) {
    make_items(place, items).await;
    let rows =
        [row("fill"), row("fill_badly"), row_after("index_after_fill", "fill"), row_after("never", "fill_badly")];
    let run = Run::on(place, &rows).await.controller(diary.source(guest).await);
    let run = run.define("fill", touch()).define("fill_badly", backfill("touched = null"));
    let story = run.define("index_after_fill", index(place)).define("never", touch()).until_done().await;
    assert_eq!(story.finished(), ["fill", "index_after_fill"]);
    assert_eq!(touched(place).await, [format!("1|{items}")]);
}

fn index(place: &Place) -> Arc<dyn Handler> {
    let definition = CreateIndexDefinition {
        table: tidegate::update::sql::TableName { schema: None, name: "items".to_owned() },
        index: "by_touched".to_owned(),
        parts: IndexParts::Columns(vec!["touched".to_owned()]),
        unique: false,
        filter: None,
        replaces: None,
        postgres_only: false,
    };
    Arc::new(CreateIndex::new(definition, place.system()))
}

/// The diary, where the database's own words are left out.
fn compared(diary: &Diary) -> String {
    let lines = diary.lines();
    let failed = lines.iter().map(|line| match line.split_once("exit failed: ") {
        Some((_, error)) => {
            assert!(error.to_lowercase().contains("not null") || error.contains("not-null"), "{error}");
            "exit failed: [the database's error]"
        }
        None => line,
    });
    failed.collect::<Vec<_>>().join("\n")
}

on_both! {
    async fn of_a_component_with_all_three_callbacks(place: Place) {
        let diary = Diary::default();
        life(place, &diary, &full_keeper(2, 1, 40, 30), 100).await;
        insta::assert_snapshot!("all_three_callbacks", compared(&diary));
    }

    async fn of_a_component_with_on_update_alone(place: Place) {
        let diary = Diary::default();
        life(place, &diary, &keeper(0, 0), 250).await;
        insta::assert_snapshot!("on_update_alone", compared(&diary));
    }

    async fn a_pause_during_a_wait_drops_the_iteration_without_exit(place: Place) {
        make_items(place, 10).await;
        let diary = Diary::default();
        let run = Run::on(place, &[row("fill")]).await.define("fill", touch()).for_ever();
        let database = run.database.clone();
        let mut running = run.controller(diary.source(&keeper(u32::MAX, 3_600_000)).await).start();
        running.next("a wait", |kind| matches!(kind, EventKind::Held { .. }).then_some(())).await;
        database.set_pause(Some(&Pause { since_ms: 0, reason: None })).await.unwrap();
        until("the iteration is dropped", async || diary.lines().last().is_some_and(|line| line == "drop")).await;
        running.stop().await;
        assert_eq!(diary.lines(), ["on-update fill master", "enter -> wait", "drop"]);
        assert_eq!(touched(place).await, ["0|10"]);
    }
}
