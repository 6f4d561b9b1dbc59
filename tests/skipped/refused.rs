//! What is refused, how much of it, and what becomes of it afterwards.

use serde_json::Value;

use super::{does, fill, fills, items, named, site};
use crate::support::on_both;
use crate::support::place::Place;

/// A row that is filled, and one that cannot be, and neither: how many there are.
const STATE: &str = "select (select count(*) from items where b = 1 and n = 1), (select count(*) from items where b is null and n = 0), \
                     (select count(*) from items), (select count(*) from tidegate_skipped), \
                     (select count(*) from background_updates)";

/// The keys of the rows that cannot be filled, as they are named.
async fn bad(place: &Place) -> Vec<String> {
    let mut bad = place.rows("select '[\"' || id || '\"]' from items where a < 0").await;
    bad.sort();
    bad
}

const SET: &str = "b = a, n = n + 1";

on_both! {
    async fn one_bad_row_is_one_bad_row(place: Place) {
        items(place, 20_000, 500).await;
        let site = site(place, &fill(SET, ""));
        let run = fills(&site).await;
        assert!(run.err.contains("fill: skipped 40 rows in all"), "{}", run.all());
        assert_eq!(place.rows(STATE).await, ["19960|40|20000|40|0"]);
        assert_eq!(named(place, "fill").await, bad(place).await);
        let code = place.either("SQLITE_CONSTRAINT_CHECK", "23514");
        assert_eq!(place.rows(&format!("select count(*) from tidegate_skipped where code <> '{code}' or message = ''")).await, ["0"]);
        // What the row holds is not kept beyond its key.
        assert_eq!(place.rows("select count(*) from tidegate_skipped where message like '%-1%'").await, ["0"]);

        let told = does(&site, &["history", "fill", "--skipped", "--limit", "2", "--json"]).await;
        let told: Value = serde_json::from_str(&told.out).unwrap();
        let first = &told["databases"][0]["skipped"];
        assert_eq!((first.as_array().unwrap().len(), &first[0]["key"], &first[0]["code"]), (2, &serde_json::json!(["10003"]), &Value::from(code)));
        let told = does(&site, &["status"]).await;
        assert!(told.out.contains("fill has skipped 40 rows: `tidegate history fill --skipped`"), "{}", told.all());

        // Some are mended, and these alone are done.
        place.run("update items set a = 1 where a < 0 and id % 1000 = 3").await;
        let told = does(&site, &["retry", "fill", "--skipped"]).await;
        assert_eq!(told.out, "fill: queued, to try again the rows that it skipped, on master\n");
        let told = does(&site, &["retry", "fill", "--skipped"]).await;
        assert_eq!(told.out, "fill: still at work, and left as it is, on master\n");
        does(&site, &["run", "--until-done"]).await;
        assert_eq!(place.rows(STATE).await, ["19980|20|20000|20|0"]);
        assert_eq!(named(place, "fill").await, bad(place).await);
        place.run("update items set a = 1 where a < 0; delete from items where id = 503").await;
        does(&site, &["retry", "fill", "--skipped"]).await;
        does(&site, &["run", "--until-done"]).await;
        assert_eq!(place.rows(STATE).await, ["19999|0|19999|0|0"]);
        let told = does(&site, &["retry", "fill", "--skipped"]).await;
        assert_eq!(told.out, "fill: has skipped no row on master\n");
    }

    async fn what_begins_anew_has_nothing_skipped_of_before(place: Place) {
        items(place, 500, 100).await;
        let site = site(place, &fill("b = a", ""));
        fills(&site).await;
        assert_eq!(named(place, "fill").await.len(), 5);
        place.run("update items set a = 1 where id < 400").await;
        fills(&site).await;
        assert_eq!(named(place, "fill").await, ["[\"403\"]"]);
    }

    async fn what_fails_for_every_row_stops_at_once(place: Place) {
        items(place, 50_000, 1_000_000).await;
        place.run("update items set a = -1").await;
        let site = site(place, &fill(SET, "max_skipped = 1000000"));
        does(&site, &["enqueue", "fill"]).await;
        let run = site.tidegate(&["run", "--until-done"]).await;
        assert!(run.code == 3 && run.err.contains("none of the first 20 rows could be done, so it is not the rows"), "{}", run.all());
        assert_eq!(place.rows(STATE).await, ["0|50000|50000|0|1"]);
        let failed = place.rows("select count(*) from tidegate_history where record like '%\"failed\"%'").await;
        assert_eq!((failed, place.rows("select count(*) from tidegate_history").await), (vec!["1".to_owned()], vec!["1".to_owned()]));
    }

    async fn more_than_may_be_skipped_are_a_failure(place: Place) {
        items(place, 10_000, 100).await;
        for (most, said) in [("30", "max_skipped = 30 allows 30"), ("\"0.5%\"", "max_skipped = \"0.5%\" allows 50")] {
            let site = site(place, &fill("b = a", &format!("max_skipped = {most}")));
            does(&site, &["enqueue", "fill"]).await;
            let run = site.tidegate(&["run", "--until-done"]).await;
            assert!(run.code == 3 && run.err.contains(said), "{most}: {}", run.all());
            assert_eq!(place.rows("select count(*) from tidegate_failures where failure like '%\"quarantined\":true%'").await, ["1"]);
            // What was committed before is done or named, and nothing else.
            let wrong = "select (select count(*) from items where a < 0 and b is not null), \
                         (select count(*) from tidegate_skipped where key not in (select '[\"' || id || '\"]' from items where a < 0))";
            assert_eq!(place.rows(wrong).await, ["0|0"], "{most}");
            does(&site, &["cancel", "fill"]).await;
            place.run("update items set b = null; delete from tidegate_skipped").await;
        }
        let site = site(place, &fill("b = a", "max_skipped = 100"));
        fills(&site).await;
        assert_eq!(named(place, "fill").await.len(), 100);
    }

    async fn who_depends_on_it_waits_for_what_was_skipped(place: Place) {
        items(place, 300, 100).await;
        let next = |name: &str, more: &str| format!("[[update]]\nname = \"{name}\"\nkind = \"noop\"\n{more}\n");
        let updates = [fill("b = a", ""), next("waits", ""), next("takes_it", "skipped_ok = true")].concat();
        let site = site(place, &updates);
        does(&site, &["enqueue", "fill"]).await;
        does(&site, &["enqueue", "waits", "--depends-on", "fill"]).await;
        does(&site, &["enqueue", "takes_it", "--depends-on", "fill"]).await;
        let run = site.tidegate(&["run", "--until-done"]).await;
        assert!(run.code == 3 && run.err.contains("waits for 3 rows that fill skipped"), "{}", run.all());
        assert_eq!(place.rows("select update_name from background_updates").await, ["waits"]);
        let told = does(&site, &["status"]).await;
        assert!(told.out.contains("waits for 3 rows that fill skipped"), "{}", told.all());
        place.run("update items set a = 1").await;
        does(&site, &["retry", "fill", "--skipped"]).await;
        does(&site, &["run", "--until-done"]).await;
        assert_eq!(place.rows("select count(*) from background_updates").await, ["0"]);
    }

    async fn what_triggers_raise_and_what_is_deferred(place: Place) {
        items(place, 3_000, 1_000_000).await;
        place.run(place.either(
            "create trigger guard before update on items when new.id % 700 = 9 begin select raise(abort, 'not this one'); end;
             create trigger gone after update on items when new.id % 700 = 90 begin select raise(rollback, 'nor this'); end;
             create trigger failed after update on items when new.id % 700 = 190 begin select raise(fail, 'nor that'); end;
             create table parents (id bigint primary key);
             insert into parents values (1);
             alter table items add column parent bigint references parents deferrable initially deferred;",
            "create function guard() returns trigger language plpgsql as $$ begin
               if new.id % 700 = 9 then raise exception 'not this one'; end if;
               if new.id % 700 = 90 then raise exception 'nor this' using errcode = 'MY001'; end if;
               if new.id % 700 = 190 then raise unique_violation; end if;
               return new; end $$;
             create trigger guard before update on items for each row execute function guard();
             create table parents (id bigint primary key); insert into parents values (1);
             alter table items add column parent bigint references parents deferrable initially deferred",
        )).await;
        let set = "n = n + 1, parent = case when id % 1000 = 500 then 7 else 1 end";
        let site = site(place, &fill(set, "max_skipped = 100"));
        fills(&site).await;
        let wanted = "id % 700 in (9, 90, 190) or id % 1000 = 500";
        let state = format!(
            "select (select count(*) from items where not ({wanted}) and n <> 1), (select count(*) from items where ({wanted}) and n <> 0), \
             (select count(*) from items where {wanted}), (select count(*) from tidegate_skipped)"
        );
        let rows = place.rows(&state).await;
        assert_eq!(rows, ["0|0|18|18"]);
        let mut wanted = place.rows(&format!("select '[\"' || id || '\"]' from items where {wanted}")).await;
        wanted.sort();
        assert_eq!(named(place, "fill").await, wanted);
        assert_eq!(place.rows("select count(*) from tidegate_skipped where code is null").await, ["0"]);
    }

    async fn what_is_nobodys_row_is_a_failure_as_ever(place: Place) {
        items(place, 100, 10).await;
        place.run("create table others (id bigint primary key not null)").await;
        // The statement itself is wrong once the table is altered; before, it is refused.
        let site = site(place, &fill("b = (select nothing from others limit 1)", ""));
        does(&site, &["enqueue", "fill"]).await;
        let run = site.tidegate(&["run", "--until-done"]).await;
        assert_eq!(run.code, 3, "{}", run.all());
        assert_eq!(named(place, "fill").await, Vec::<String>::new());
    }

    /// Whichever rows are refused, the first and the last before the stop among them.
    async fn an_update_stops_for_approval_after_as_many_rows_as_if_none_was_skipped(place: Place) {
        items(place, 2_000, 10).await;
        place.run("update items set a = -1 where id in (1, 2, 102, 103, 104)").await;
        let site = site(place, &fill(SET, "canary = 103\nmax_skipped = 300"));
        does(&site, &["enqueue", "fill"]).await;
        let run = site.tidegate(&["run", "--until-done"]).await;
        assert!(run.code == 3 && run.err.contains("awaiting approval: 103 rows are done"), "{}", run.all());
        let until = "select (select count(*) from items where b = 1 and n = 1), (select max(id) from items where b = 1), \
                     (select count(*) from tidegate_skipped)";
        assert_eq!(place.rows(until).await, ["89|101|14"]);
        does(&site, &["approve", "fill"]).await;
        does(&site, &["run", "--until-done"]).await;
        assert_eq!(place.rows(STATE).await, ["1796|204|2000|204|0"]);
        assert_eq!(named(place, "fill").await, bad(place).await);
    }

    async fn what_makes_no_sense_is_refused(place: Place) {
        items(place, 1, 10).await;
        for (more, said) in [
            ("max_skipped = \"many\"", "neither a number of rows nor a part"),
            ("max_skipped = -1", "neither a number of rows nor a part"),
            ("max_skipped = \"101%\"", "neither a number of rows nor a part"),
        ] {
            let told = site(place, &fill("b = a", more)).tidegate(&["check"]).await;
            assert!(told.code == 2 && told.all().contains(said), "{more}: {}", told.all());
        }
        let stops = fill("b = a", "max_skipped = 3").replace("\"skip\"", "\"stop\"");
        let told = site(place, &stops).tidegate(&["check"]).await;
        assert!(told.code == 2 && told.all().contains("this one stops"), "{}", told.all());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_workers_name_each_row_once() {
    let place = &Place::postgres().await;
    items(place, 60_000, 300).await;
    let site = site(place, &fill(SET, "workers = 2\nmax_skipped = 1000"));
    fills(&site).await;
    assert_eq!(place.rows(STATE).await, ["59800|200|60000|200|0"]);
    assert_eq!(named(place, "fill").await, bad(place).await);
    place.run("update items set a = 1").await;
    does(&site, &["retry", "fill", "--skipped"]).await;
    does(&site, &["run", "--until-done"]).await;
    assert_eq!(place.rows(STATE).await, ["60000|0|60000|0|0"]);
}
