//! Verification: rows that are done are looked at again, wrong ones are found and named, and right ones raise no alarm. What
//! is right is said by SQL of the test's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate::scheduler::database::NewRow;
use tidegate::scheduler::event::EventKind;
use tidegate::update::sql::{System, TableName};
use tidegate::update::{Backfill, BackfillDefinition, Delete, DeleteDefinition, Handler, Noop, Progress, verification};

use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::run::{Run, Story, row_after};

fn definition(table: &str, key: &[&str], set: &str, filter: Option<&str>) -> BackfillDefinition {
    BackfillDefinition {
        table: TableName { schema: None, name: table.to_owned() },
        key: key.iter().map(|name| (*name).to_owned()).collect(),
        set: set.to_owned(),
        filter: filter.map(str::to_owned),
    }
}

fn fill(set: &str, filter: Option<&str>) -> Arc<dyn Handler> {
    Arc::new(Backfill::new(definition("items", &["id"], set, filter)).verified(true))
}

fn purge(filter: &str) -> Arc<dyn Handler> {
    let table = TableName { schema: None, name: "items".to_owned() };
    let definition = DeleteDefinition { table, key: vec!["id".to_owned()], filter: filter.to_owned() };
    Arc::new(Delete::new(definition).verified(true))
}

/// A table of so many items whose `b` is to be the capitals of `a`.
async fn make(place: &Place, rows: u32) {
    let numbers = place.either(
        "with recursive n(id) as (select 1 union all select id + 1 from n where id < ROWS) select id, 'é x' || id from n",
        "select id, 'é x' || id from generate_series(1, ROWS) as id",
    );
    place.run("create table items (id bigint primary key not null, a text, b text)").await;
    place.run(&format!("insert into items (id, a) {}", numbers.replace("ROWS", &rows.to_string()))).await;
}

fn notes(story: &Story) -> Vec<String> {
    let told = story.events.iter().filter_map(|event| match event {
        EventKind::IterationEnded { record, .. } => Some(record.notes.clone()),
        _ => None,
    });
    told.flatten().collect()
}

/// The row of a look at the rows of an update that is not queued any more.
fn look(update_name: &str, repair: bool) -> NewRow {
    NewRow { progress: verification(repair).to_json(), ..row(update_name) }
}

/// The keys that an update's progress names.
async fn keys(story: &Story, update_name: &str) -> Vec<String> {
    let progress = story.database.progress(update_name).await.unwrap().unwrap();
    let progress = Progress::parse(&progress).unwrap();
    let keys = progress.0["verify"]["keys"].as_array().unwrap();
    let parts = |key: &serde_json::Value| {
        key.as_array().unwrap().iter().map(|part| part.as_str().unwrap().to_owned()).collect::<Vec<_>>().join("|")
    };
    let mut keys: Vec<String> = keys.iter().map(parts).collect();
    keys.sort();
    keys
}

on_both! {
    async fn an_update_whose_rows_are_right_says_so_and_ends(place: Place) {
        make(place, 5_000).await;
        let mut run = Run::on(place, &[row("fill"), row_after("purge", "fill")]).await;
        run.settings.max_batch_size = 900;
        let story = run.define("fill", fill("b = upper(a)", Some("a is not null"))).define("purge", purge("id % 10 = 0")).until_done().await;
        assert_eq!(story.remaining(), []);
        let told: Vec<String> = notes(&story).into_iter().filter(|note| note.starts_with("verified")).collect();
        assert_eq!(told, [
            "verified: 5000 rows are as the definition says",
            "verified: 4500 rows are as the definition says",
        ]);
    }

    async fn a_wrong_row_is_found_and_named_and_holds_up_who_depends_on_it(place: Place) {
        make(place, 5_000).await;
        place.run(place.either(
            "create trigger spoils after update of b on items when new.id = 3333 begin update items set b = 'no' where id = 3333; end",
            "create function spoil() returns trigger language plpgsql as 'begin new.b = ''no''; return new; end'; \
             create trigger spoils before update on items for each row when (new.id = 3333) execute function spoil()",
        )).await;
        let run = Run::on(place, &[row("fill"), row_after("then", "fill")]).await;
        let story = run.define("fill", fill("b = upper(a)", None)).define("then", Arc::new(Noop)).until_done().await;
        let remaining = story.remaining();
        let why = "quarantined after 1 attempt: verification found 1 of 5000 rows that are not as the definition says.";
        assert!(remaining[0].1.starts_with(why), "{remaining:?}");
        assert_eq!(remaining[1], ("then", "waits for fill"));
        assert_eq!(keys(&story, "fill").await, ["3333"]);
        assert_eq!(place.rows("select id, b from items where b <> upper(a) or b is null").await, ["3333|no"]);
        // Tried again while nothing was mended, it says so again; once it is, it ends.
        let database = story.database;
        assert!(database.forget_failures("fill").await.unwrap());
        let again = || Run::with(database.clone()).define("fill", fill("b = upper(a)", None)).define("then", Arc::new(Noop));
        assert!(again().until_done().await.remaining()[0].1.starts_with(why));
        place.run(place.either("drop trigger spoils", "drop trigger spoils on items")).await;
        place.run("update items set b = upper(a) where id = 3333").await;
        assert!(database.forget_failures("fill").await.unwrap());
        let story = again().until_done().await;
        assert_eq!((story.remaining(), story.finished()), (vec![], vec!["fill", "then"]));
    }

    async fn a_condition_that_a_row_that_is_done_does_not_meet_is_told(place: Place) {
        make(place, 50).await;
        let handler = || fill("b = upper(a)", Some("b is null"));
        let run = Run::on(place, &[row("fill")]).await.define("fill", handler());
        let mut session = run.database.inspect().await.unwrap();
        let problems = handler().check(session.as_sql()).await.unwrap();
        drop(session);
        let told = problems.iter().find(|problem| problem.field == "verify").unwrap();
        assert!(!told.is_error() && told.message.starts_with("\"where\" reads column \"b\", which \"set\" assigns"), "{told:?}");
        let story = run.until_done().await;
        assert_eq!(story.remaining(), []);
        let told = notes(&story).concat();
        assert!(told.contains("verified in part: of 50 rows none meets \"where\""), "{told}");
    }

    async fn a_repair_that_a_trigger_takes_back_says_so(place: Place) {
        make(place, 50).await;
        place.run("update items set b = upper(a); update items set b = 'no' where id = 7").await;
        place.run(place.either(
            "create trigger spoils after update of b on items when new.id = 7 begin update items set b = 'no' where id = 7; end",
            "create function spoil() returns trigger language plpgsql as 'begin new.b = ''no''; return new; end'; \
             create trigger spoils before update on items for each row when (new.id = 7) execute function spoil()",
        )).await;
        let run = Run::on(place, &[look("fill", true)]).await;
        let story = run.define("fill", fill("b = upper(a)", None)).until_done().await;
        let why = story.remaining()[0].1.to_owned();
        assert!(why.contains("1 were done again: look for a trigger"), "{why}");
    }

    async fn wrong_rows_are_done_again_where_that_is_asked_for_and_no_others_are_touched(place: Place) {
        make(place, 3_000).await;
        place.run("create table log (id bigint)").await;
        place.run("update items set b = upper(a); update items set b = 'no' where id % 1000 = 7; update items set b = null where id = 1").await;
        place.run(place.either(
            "create trigger logs after update on items begin insert into log values (new.id); end",
            "create function log() returns trigger language plpgsql as 'begin insert into log values (new.id); return null; end'; \
             create trigger logs after update on items for each row execute function log()",
        )).await;
        let mut run = Run::on(place, &[look("fill", false)]).await;
        run.settings.max_batch_size = 250;
        let story = run.define("fill", fill("b = upper(a)", None)).until_done().await;
        assert!(story.remaining()[0].1.contains("found 4 of 3000 rows"), "{:?}", story.remaining());
        assert_eq!(keys(&story, "fill").await, ["1", "1007", "2007", "7"]);
        assert_eq!(place.rows("select count(*) from log").await, ["0"]);
        story.database.cancel(&["fill".to_owned()]).await.unwrap();
        assert!(story.database.enqueue(&look("fill", true)).await.unwrap());
        let story = Run::with(story.database).define("fill", fill("b = upper(a)", None)).until_done().await;
        assert_eq!(story.remaining(), []);
        assert_eq!(place.rows("select id from log order by id").await, ["1", "7", "1007", "2007"]);
        assert_eq!(place.rows("select count(*) from items where b is null or b <> upper(a)").await, ["0"]);
        assert!(notes(&story).concat().contains("4 of them since they were done again"), "{:?}", notes(&story));
    }

    async fn one_wrong_row_is_found_wherever_it_is(place: Place) {
        make(place, 400).await;
        place.run("update items set b = upper(a)").await;
        let mut run = Run::on(place, &[]).await;
        run.settings.max_batch_size = 37;
        let database = run.database;
        for seed in 0..20_u32 {
            // By a generator of Lehmer's.
            let id = (0..3).fold(seed + 1, |number, _| ((u64::from(number) * 48_271) % 2_147_483_647) as u32) % 400 + 1;
            place.run(&format!("update items set b = b || 'x' where id = {id}")).await;
            assert!(database.enqueue(&look("fill", false)).await.unwrap());
            let mut run = Run::with(database.clone());
            run.settings.max_batch_size = 37;
            let story = run.define("fill", fill("b = upper(a)", None)).until_done().await;
            assert_eq!(story.remaining().len(), 1, "the wrong row {id} was not found");
            assert_eq!(keys(&story, "fill").await, [id.to_string()]);
            place.run("update items set b = upper(a)").await;
            database.cancel(&["fill".to_owned()]).await.unwrap();
        }
    }

    async fn what_comes_to_something_else_each_time_is_refused_before_the_first_row(place: Place) {
        make(place, 10).await;
        place.run(place.either("select 1", "create function mine(text) returns text language sql as 'select $1'")).await;
        let cases = [
            ("b = a || random()", None, "random"),
            (place.either("b = datetime('now')", "b = now()::text"), None, "comes to something else each time"),
            ("b = current_timestamp", None, "current_timestamp comes to something else"),
            ("a = a || 'x'", None, "reads column \"a\", which it assigns"),
            ("a = b, b = a", None, "reads column"),
            (place.either("b = date()", "b = mine(a)"), None, place.either("date comes", "mine() is VOLATILE")),
            ("b = upper(a)", Some("random() > 0"), "random"),
        ];
        for (set, filter, why) in cases {
            let mut run = Run::on(place, &[row("fill")]).await;
            run.settings.max_attempts = 1;
            let story = run.define("fill", fill(set, filter)).until_done().await;
            let remaining = story.remaining()[0].1.to_owned();
            assert!(remaining.contains("cannot be verified") && remaining.contains(why), "{set}: {remaining}");
            assert_eq!(place.rows("select count(*) from items where b is not null").await, ["0"], "{set}");
            story.database.cancel(&["fill".to_owned()]).await.unwrap();
        }
    }

    async fn values_that_are_stored_otherwise_than_they_were_given_are_right(place: Place) {
        place.run(place.either(
            "create table odd (id integer primary key, a text, n integer, \
               b text, c integer, d real, e numeric, f blob, g, h text collate nocase) ",
            "create domain short as varchar(8) check (value <> ''); create type mood as enum ('ok', 'so');
             create table odd (id bigint primary key, a text, n int, \
               b numeric(6, 2), c char(9), d varchar(20), e timestamptz(0), f json, g jsonb, h real, i short, j mood, k text[], \
               l bytea, m point, o interval, p double precision, q numeric, r date, s uuid, t smallint, \"U v\" text)",
        )).await;
        let rows = place.either(
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 500) select i, 'x' || i, i from n",
            "select i, 'x' || i, i from generate_series(1, 500) as i",
        );
        place.run(&format!("insert into odd (id, a, n) {rows}")).await;
        let set = place.either(
            "b = n, c = '0' || n, d = n, e = n || '.50', f = cast(a as blob), g = n / 2.0, h = upper(a)",
            "b = n / 7.0, c = a, d = a, e = timestamptz '2026-01-01 00:00:00.5+02' + n * interval '0.3 seconds', \
             f = json_build_object('a', a, 'n', n), g = jsonb_build_object('n', n / 3.0), h = n / 3.0, i = a, \
             j = (case when n % 2 = 0 then 'ok' else 'so' end)::mood, k = array[a, null], l = convert_to(a, 'UTF8'), \
             m = point(n, 1), o = n * interval '1 day 0.1 second', p = case when n = 7 then 'NaN' else n / 3.0 end, \
             q = case when n = 8 then 'NaN' else n * 1.10 end, r = date '2026-01-01' + n, s = md5(a)::uuid, (t, \"U v\") = (n, nullif(a, 'x9'))",
        );
        let mut run = Run::on(place, &[row("fill")]).await;
        run.settings.max_batch_size = 60;
        let handler = Backfill::new(definition("odd", &["id"], set, Some("n > 2"))).verified(true);
        let story = run.define("fill", Arc::new(handler)).until_done().await;
        assert_eq!(story.remaining(), []);
        assert_eq!(place.rows("select count(*) from odd where b is null").await, ["2"]);
    }

    async fn users_who_write_meanwhile_raise_no_alarm(place: Place) {
        make(place, 20_000).await;
        place.recommended().await;
        let mut run = Run::on(place, &[row("fill")]).await.define("fill", fill("b = upper(a)", None));
        run.settings.max_batch_size = 300;
        let running = run.start();
        let (over, url) = (Arc::new(AtomicBool::new(false)), place.url.clone());
        let writer = {
            let over = Arc::clone(&over);
            let statement = "insert into items (id, a, b) select max(id) + 1, 'y', 'Y' from items; \
                 update items set a = 'z' || id, b = 'Z' || id where id % 997 = (select max(id) from items) % 997";
            let place_of_writer = place.url.strip_prefix("sqlite:").map(str::to_owned);
            tokio::spawn(async move {
                let mut rounds = 0;
                match place_of_writer {
                    Some(file) => {
                        let write = move || {
                            let connection = rusqlite::Connection::open(file).unwrap();
                            connection.busy_timeout(Duration::from_secs(10)).unwrap();
                            while !over.load(Ordering::SeqCst) {
                                connection.execute_batch(&format!("begin immediate; {statement}; commit")).unwrap();
                                rounds += 1;
                                // An application that never lets go of the file lets nobody write.
                                std::thread::sleep(Duration::from_millis(1));
                            }
                            rounds
                        };
                        tokio::task::spawn_blocking(write).await.unwrap()
                    }
                    None => {
                        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
                        tokio::spawn(connection);
                        while !over.load(Ordering::SeqCst) {
                            client.batch_execute(&format!("begin; {statement}; commit")).await.unwrap();
                            rounds += 1;
                        }
                        rounds
                    }
                }
            })
        };
        let story = running.end().await;
        over.store(true, Ordering::SeqCst);
        assert!(writer.await.unwrap() > 0);
        assert_eq!(story.remaining(), []);
        assert_eq!(place.rows("select count(*) from items where b is null or b <> upper(a)").await, ["0"]);
    }

    async fn a_look_goes_on_where_it_was_stopped(place: Place) {
        make(place, 3_000).await;
        place.run("update items set b = upper(a)").await;
        let mut run = Run::on(place, &[look("fill", false)]).await.for_ever();
        run.settings.max_batch_size = 100;
        let mut running = run.define("fill", fill("b = upper(a)", None)).start();
        for _ in 0..5 {
            let ended = |kind: &EventKind| matches!(kind, EventKind::IterationEnded { .. }).then_some(());
            running.next("a batch", ended).await;
        }
        let story = running.stop().await;
        let progress = Progress::parse(&story.database.progress("fill").await.unwrap().unwrap()).unwrap();
        let looked = progress.0["verify"]["looked"].as_u64().unwrap();
        assert!((500..3_000).contains(&looked), "{looked}");
        let story = Run::with(story.database).define("fill", fill("b = upper(a)", None)).until_done().await;
        let items: u64 = story.iterations().iter().map(|record| record.items).sum();
        assert_eq!((story.remaining(), items), (vec![], 3_000 - looked));
        assert_eq!(notes(&story), ["verified: 3000 rows are as the definition says"]);
    }

    async fn another_definition_under_a_look_waits_until_it_is_accepted(place: Place) {
        make(place, 500).await;
        place.run("update items set b = upper(a)").await;
        let mut run = Run::on(place, &[look("fill", false)]).await.for_ever();
        run.settings.max_batch_size = 10;
        let mut running = run.define("fill", fill("b = upper(a)", None)).start();
        running.next("a batch", |kind| matches!(kind, EventKind::IterationEnded { .. }).then_some(())).await;
        let story = running.stop().await;
        let other = || fill("b = lower(a)", None);
        let database = story.database;
        let story = Run::with(database.clone()).define("fill", other()).until_done().await;
        assert!(story.remaining()[0].1.contains("set was \"b = upper(a)\" and is \"b = lower(a)\""), "{:?}", story.remaining());
        let queue = database.queue().await.unwrap();
        let accepted = tidegate::scheduler::acceptance::accept(&*database, &queue.rows[0], &*other()).await.unwrap();
        assert!(accepted.is_some());
        let story = Run::with(database).define("fill", other()).until_done().await;
        assert!(story.remaining()[0].1.contains("verification found"), "{:?}", story.remaining());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_workers_do_the_rows_and_one_looks_at_them() {
    let place = Place::postgres().await;
    make(&place, 20_000).await;
    place
        .run(
            "create function spoil() returns trigger language plpgsql as 'begin new.b = null; return new; end'; \
         create trigger spoils before update on items for each row when (new.id = 15000) execute function spoil()",
        )
        .await;
    let mut run = Run::on(&place, &[row("fill")]).await;
    run.settings.max_batch_size = 500;
    let handler = Backfill::new(definition("items", &["id"], "b = upper(a)", None)).with_workers(2);
    let story = run.define("fill", Arc::new(handler.verified(true))).until_done().await;
    assert!(story.events.iter().any(|event| matches!(event, EventKind::Workers { workers: 2, .. })));
    assert!(story.remaining()[0].1.contains("found 1 of 20000 rows"), "{:?}", story.remaining());
    assert_eq!(keys(&story, "fill").await, ["15000"]);
    assert_eq!(place.system(), System::Postgres);
}
