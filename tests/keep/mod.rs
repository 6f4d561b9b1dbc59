//! `keep`: rows that are written while an update runs, and after it, are as it makes them. What is right is said by SQL of the
//! test's own.

mod commands;
mod load;
mod on_postgres;
mod on_sqlite;
mod recipe;
mod schemas;

use std::sync::Arc;

use tidegate::scheduler::event::EventKind;
use tidegate::update::sql::TableName;
use tidegate::update::{
    Backfill, BackfillDefinition, Copy, CopyColumn, CopyDefinition, CopySource, Handler, Kept, OnConflict,
};
use tidegate::update::{Unkeep, UnkeepDefinition};

use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::run::{Run, Story, row_after};

/// A backfill of `items`, or of another table.
fn definition(table: &str, set: &str, filter: Option<&str>) -> BackfillDefinition {
    BackfillDefinition {
        table: TableName { schema: None, name: table.to_owned() },
        key: vec!["id".to_owned()],
        set: set.to_owned(),
        filter: filter.map(str::to_owned),
    }
}

fn fill(set: &str, filter: Option<&str>) -> Kept {
    Backfill::new(definition("items", set, filter)).kept("fill", false)
}

fn copied(filter: Option<&str>) -> CopyDefinition {
    let table = |name: &str| TableName { schema: None, name: name.to_owned() };
    let expression = |text: &str| CopySource::Expression(text.to_owned());
    CopyDefinition {
        table: table("items"),
        key: vec!["id".to_owned()],
        into: table("copies"),
        columns: vec![
            CopyColumn { target: "id".to_owned(), source: CopySource::SameName },
            CopyColumn { target: "c".to_owned(), source: expression("upper(a)") },
        ],
        filter: filter.map(str::to_owned),
        on_conflict: OnConflict::Error,
    }
}

fn copy(filter: Option<&str>) -> Kept {
    Copy::new(copied(filter)).kept("copy")
}

/// Rows of `items` whose `b` is not what it is to be.
const WRONG: &str = "select count(*) from items where n % 3 <> 0 and b is distinct from upper(a)";

/// Rows of `copies` that `items` has otherwise, and rows that one of them has alone.
const UNLIKE: &str = "select count(*) from (\
    select * from (select id, upper(a) from items where n % 3 <> 0 except select id, c from copies) as more \
    union all select * from (select id, c from copies except select id, upper(a) from items where n % 3 <> 0) as less) as unlike";

const FILTER: Option<&str> = Some("n % 3 <> 0");

/// A table of so many items, with room between them.
async fn make(place: &Place, rows: u32) {
    let numbers = place.either(
        "with recursive n(id) as (select 1 union all select id + 1 from n where id < ROWS) select 10 * id, 'é x' || id, id from n",
        "select 10 * id, 'é x' || id, id from generate_series(1, ROWS) as id",
    );
    place.run("create table items (id bigint primary key not null, a text, n int not null default 1, b text)").await;
    place.run("create table copies (id bigint primary key not null, c text)").await;
    place.run(&format!("insert into items (id, a, n) {}", numbers.replace("ROWS", &rows.to_string()))).await;
}

fn notes(story: &Story) -> Vec<String> {
    let told = story.events.iter().filter_map(|event| match event {
        EventKind::IterationEnded { record, .. } => Some(record.notes.clone()),
        _ => None,
    });
    told.flatten().collect()
}

/// What is wrong with a handler's definition, each with how grave that is.
async fn problems(place: &Place, handler: &dyn Handler) -> Vec<String> {
    let database = place.prepared().await;
    let mut session = database.inspect().await.unwrap();
    let found = handler.check(session.as_sql()).await.unwrap();
    drop(session);
    database.close().await;
    found.into_iter().map(|problem| format!("{:?} {}: {}", problem.severity, problem.field, problem.message)).collect()
}

/// Writes of an application, after which all that is kept has to be right.
const WRITES: [&str; 9] = [
    "insert into items (id, a, n) values (11, 'new', 1), (12, 'newer', 2), (1000001, 'beyond', 1), (13, 'not kept', 3)",
    "update items set a = 'other' where id in (10, 20, 30)",
    "update items set b = 'by hand' where id = 40",
    "insert into items (id, a, n) values (50, 'x', 1) on conflict (id) do update set a = 'clash'",
    "update items set n = 1 where id = 30",
    "update items set n = 3 where id = 70",
    "update items set id = 81 where id = 80",
    "delete from items where id = 100",
    "update items set a = null where id = 110",
];

on_both! {
    async fn what_is_written_after_a_backfill_is_as_it_makes_it_until_its_trigger_is_dropped(place: Place) {
        make(place, 100).await;
        let run = Run::on(place, &[row("fill")]).await;
        let story = run.define("fill", Arc::new(fill("b = upper(a)", FILTER))).until_done().await;
        assert_eq!(story.remaining(), []);
        let told = notes(&story);
        assert!(told[0].contains("is made: rows that are written are right from now on"), "{told:?}");
        assert!(told.last().unwrap().contains("goes on keeping rows"), "{told:?}");
        assert_eq!(place.rows(WRONG).await, ["0"]);
        for write in WRITES {
            place.run(write).await;
            assert_eq!(place.rows(WRONG).await, ["0"], "{write}");
        }
        let kept = story.database.look().await.unwrap().unwrap().kept;
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert!(kept[0].update == "fill" && kept[0].table == "items" && kept[0].enabled, "{kept:?}");
        let handler = Unkeep::new(UnkeepDefinition { update: "fill".to_owned() });
        assert!(story.database.enqueue(&row("unkeep")).await.unwrap());
        let story = Run::with(story.database).define("unkeep", Arc::new(handler)).until_done().await;
        assert_eq!(story.remaining(), []);
        assert!(notes(&story)[0].contains("dropped"), "{:?}", notes(&story));
        assert!(story.database.look().await.unwrap().unwrap().kept.is_empty());
        place.run("insert into items (id, a, n) values (15, 'late', 1)").await;
        assert_eq!(place.rows(WRONG).await, ["1"]);
    }

    async fn a_copy_that_is_kept_is_like_its_source_after_whatever_is_written(place: Place) {
        make(place, 100).await;
        // What the target has already becomes what the source has.
        place.run("insert into copies values (10, 'old'), (20, 'old')").await;
        let run = Run::on(place, &[row("copy")]).await;
        let story = run.define("copy", Arc::new(copy(FILTER))).until_done().await;
        assert_eq!(story.remaining(), []);
        assert_eq!(place.rows(UNLIKE).await, ["0"]);
        for write in WRITES {
            place.run(write).await;
            assert_eq!(place.rows(UNLIKE).await, ["0"], "{write}");
        }
        let shift = place.either("update items set id = -id", "update items set id = id - 10 where id <= 90");
        place.run(shift).await;
        assert_eq!(place.rows(UNLIKE).await, ["0"], "{shift}");
        place.run("delete from items where n < 50").await;
        assert_eq!(place.rows(UNLIKE).await, ["0"]);
    }

    async fn an_update_that_had_begun_gets_its_trigger_where_the_new_definition_is_accepted(place: Place) {
        make(place, 3_000).await;
        let plain: Arc<dyn Handler> = Arc::new(Backfill::new(definition("items", "b = upper(a)", FILTER)).verified(false));
        let mut run = Run::on(place, &[row("fill")]).await.define("fill", plain).for_ever();
        run.settings.max_batch_size = 10;
        let mut running = run.start();
        running.next("a batch", |event| matches!(event, EventKind::IterationEnded { .. }).then_some(())).await;
        let story = running.stop().await;
        place.run("insert into items (id, a, n) values (1, 'behind the walk', 1)").await;
        let kept = || Run::with(story.database.clone()).define("fill", Arc::new(fill("b = upper(a)", FILTER)));
        let refused = kept().until_done().await;
        assert!(refused.remaining()[0].1.contains("keep was left out and is \"trigger\""), "{:?}", refused.remaining());
        assert!(story.database.look().await.unwrap().unwrap().kept.is_empty());
        let progress = story.database.progress("fill").await.unwrap().unwrap();
        let accepted = tidegate::update::accept_definition(&tidegate::update::Progress::parse(&progress).unwrap()).unwrap();
        let transaction = crate::support::place::begin(&*story.database, "fill", &progress).await;
        transaction.commit(Some(&accepted.to_json())).await.unwrap();
        story.database.forget_failures("fill").await.unwrap();
        let done = kept().until_done().await;
        assert_eq!(done.remaining(), []);
        // What came in before the trigger did, behind the walk, is for whoever accepted that.
        assert_eq!(place.rows("select id from items where n % 3 <> 0 and b is distinct from upper(a)").await, ["1"]);
    }

    async fn an_update_whose_trigger_is_gone_does_not_end_as_if_it_had_kept_its_rows(place: Place) {
        make(place, 2_000).await;
        let mut run = Run::on(place, &[row("fill"), row_after("then", "fill")]).await.for_ever();
        run.settings.max_batch_size = 10;
        let run = run.define("fill", Arc::new(fill("b = upper(a)", FILTER))).define("then", Arc::new(tidegate::update::Noop));
        let mut running = run.start();
        for _ in 0..3 {
            running.next("a batch", |event| matches!(event, EventKind::IterationEnded { .. }).then_some(())).await;
        }
        place.run(place.either("drop trigger zz_tidegate_keep_fill_insert", "drop trigger zz_tidegate_keep_fill on items")).await;
        let why = running.next("a failure", |event| match event {
            EventKind::Failure { error, .. } => Some(error.clone()),
            _ => None,
        }).await;
        assert!(why.contains("the trigger that was to keep its rows is not there any more"), "{why}");
        let story = running.stop().await;
        assert!(!story.finished().contains(&"then"));
    }

    async fn what_cannot_be_kept_is_refused_and_what_is_unstable_is_told(place: Place) {
        make(place, 10).await;
        place.run("create table other_key (c text not null unique)").await;
        let told = problems(place, &fill("n = n + 1", None)).await;
        assert!(told.iter().any(|told| told.starts_with("Error keep: no trigger can keep the rows: \"set\" reads column \"n\"")), "{told:?}");
        let told = problems(place, &fill("a = lower(a)", Some("a <> lower(a)"))).await;
        assert!(!told.iter().any(|told| told.starts_with("Error")), "{told:?}");
        let random = place.either("b = upper(a) || random()", "b = upper(a) || random()::text");
        let told = problems(place, &fill(random, None)).await;
        assert!(told.iter().any(|told| told.starts_with("Warning keep: random")), "{told:?}");
        assert!(!told.iter().any(|told| told.starts_with("Error")), "{told:?}");
        let into = |into: &str, columns: Vec<CopyColumn>| {
            let into = TableName { schema: None, name: into.to_owned() };
            Copy::new(CopyDefinition { into, columns, ..copied(None) }).kept("copy")
        };
        let c = CopyColumn { target: "c".to_owned(), source: CopySource::Expression("upper(a)".to_owned()) };
        let told = problems(place, &into("other_key", vec![c.clone()])).await;
        assert!(told.iter().any(|told| told.starts_with("Error keep: no trigger can keep the copy: table \"other_key\" has no unique index")), "{told:?}");
        let told = problems(place, &into("copies", vec![CopyColumn { target: "id".to_owned(), source: CopySource::Expression("id + 1".to_owned()) }])).await;
        assert!(told.iter().any(|told| told.starts_with("Error keep:")), "{told:?}");
        place.run(place.either(
            "create trigger zz_tidegate_keep_fill_insert after insert on items begin select 1; end",
            "create function mine() returns trigger language plpgsql as 'begin return new; end'; \
             create trigger zz_tidegate_keep_fill before insert on items for each row execute function mine()",
        )).await;
        let told = problems(place, &fill("b = upper(a)", None)).await;
        assert!(told.iter().any(|told| told.contains("is there already, which tidegate has not made")), "{told:?}");
    }

    async fn a_value_that_is_another_each_time_is_written_once_and_stays(place: Place) {
        make(place, 10).await;
        let random = place.either("b = upper(a) || random()", "b = upper(a) || random()::text");
        let run = Run::on(place, &[row("fill")]).await;
        let story = run.define("fill", Arc::new(fill(random, None))).until_done().await;
        assert_eq!(story.remaining(), []);
        let recursive = place.either("pragma recursive_triggers = on;", "");
        place.run(&format!("{recursive} insert into items (id, a) values (5, 'five'); update items set a = 'ten' where id = 10")).await;
        assert_eq!(place.rows("select count(*) from items where b like upper(a) || '%'").await, ["11"]);
    }

    async fn a_name_that_is_too_long_and_odd_has_a_trigger_too(place: Place) {
        make(place, 10).await;
        let name = format!("it's \"odd\" -- */ $tidegate0$ {}", "é".repeat(60));
        let handler = Backfill::new(definition("items", "b = upper(a) -- so it is", FILTER)).kept(&name, true);
        let run = Run::on(place, &[row(&name)]).await;
        let story = run.define(&name, Arc::new(handler)).until_done().await;
        assert_eq!(story.remaining(), []);
        place.run("insert into items (id, a, n) values (5, 'five', 1)").await;
        assert_eq!(place.rows(WRONG).await, ["0"]);
        assert_eq!(story.database.look().await.unwrap().unwrap().kept[0].update, name);
        assert_eq!(story.database.unkeep(&name).await.unwrap().len(), 1);
        assert!(story.database.look().await.unwrap().unwrap().kept.is_empty());
    }
}
