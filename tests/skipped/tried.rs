//! What `try` tells of rows that would be skipped, held against SQL that knows which they are.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{does, fill, items, site};
use crate::support::command::Site;
use crate::support::on_both;
use crate::support::place::Place;

/// Tries `fill`, and reads what is told of each place.
async fn tried(site: &Site, arguments: &[&str]) -> Vec<Value> {
    let told = does(site, &[&["try", "fill", "--json"], arguments].concat()).await;
    let report: Value = serde_json::from_str(&told.out).unwrap();
    report["tried"][0]["batches"].as_array().unwrap().clone()
}

/// The numbers of the rows of which a member of a batch tells.
fn numbers(batch: &Value, member: &str) -> BTreeSet<i64> {
    let number = |row: &Value| {
        let key = &row["key"];
        let key = key.as_array().map_or_else(|| &key["id"], |key| &key[0]);
        key.as_str().unwrap().parse().unwrap()
    };
    batch[member].as_array().unwrap().iter().map(number).collect()
}

const KINDS: [(&str, &str, &str); 4] = [
    ("backfill", "set = 'b = a'", "updated"),
    ("delete", "where = 'a <> 0'", "deleted"),
    ("copy", "into = 'others'\ncolumns = ['id', 'a']", "inserted"),
    ("batch", "sql = 'update items set b = a where :range'", "updated"),
];

on_both! {
    async fn rows_that_would_be_skipped_are_named_and_all_else_is_as_it_would_be(place: Place) {
        items(place, 4_000, 25).await;
        place.run(
            "update items set a = -1 where id between 2000 and 2003; \
             create table others (id bigint primary key, a int check (a > 0)); \
             create table refers (id bigint not null references items (id)); \
             insert into refers select id from items where a < 0"
        ).await;
        let all = "select (select count(*) from items), (select count(*) from items where b is null), (select count(*) from others)";
        let before = place.rows(all).await;
        let bad = place.rows("select id from items where a < 0").await;
        let bad: BTreeSet<i64> = bad.iter().map(|id| id.parse().unwrap()).collect();
        for (kind, what, fate) in KINDS {
            let update = format!(
                "[[update]]\nname = \"fill\"\nkind = \"{kind}\"\ntable = \"items\"\nkey = \"id\"\n{what}\non_error = \"skip\"\nmax_skipped = \"10%\"\n"
            );
            let batches = tried(&site(place, &update), &["--rows", "300", "--at", "0%,50%,random"]).await;
            for batch in batches {
                let (done, skipped) = (numbers(&batch, "rows"), numbers(&batch, "skipped"));
                let about = format!("{kind} at {}: {batch:#}", batch["at"]);
                let walked: BTreeSet<i64> = done.union(&skipped).copied().collect();
                let (first, last) = (*walked.first().unwrap(), *walked.last().unwrap());
                assert_eq!((walked.len(), last - first + 1, batch["items"].as_i64()), (300, 300, Some(300)), "{about}");
                assert_eq!(skipped, bad.range(first..=last).copied().collect(), "{about}");
                // What the search for them did counts nowhere.
                let counted: i64 = batch["tables"].as_array().unwrap().iter().map(|table| table[fate].as_i64().unwrap()).sum();
                assert_eq!(counted, done.len() as i64, "{about}");
                assert!(batch["skipped"].as_array().unwrap().iter().all(|row| row["code"].is_string() && row["message"] != ""), "{about}");
            }
            assert_eq!(place.rows(all).await, before, "{kind}");
        }
        assert_eq!(place.rows(place.either(
            "select count(*) from sqlite_schema where name = 'tidegate_skipped'",
            "select count(*) from pg_class where relname = 'tidegate_skipped'",
        )).await, ["0"]);
    }

    async fn what_is_tried_stops_for_no_approval(place: Place) {
        items(place, 1_000, 10).await;
        place.run(place.either("analyze", "analyze items")).await;
        let site = site(place, &fill("b = a", "canary = 7\nmax_rows = 100"));
        let batches = tried(&site, &["--rows", "40", "--at", "0%,50%"]).await;
        let told: Vec<_> = batches.iter().map(|batch| (numbers(batch, "rows").len(), numbers(batch, "skipped").len())).collect();
        assert_eq!(told, [(36, 4), (36, 4)]);
    }

    async fn people_are_told_which_and_why_and_whether_a_host_would_stop(place: Place) {
        items(place, 1_000, 10).await;
        let told = does(&site(place, &fill("b = a", "max_skipped = \"5%\"")), &["try", "fill", "--rows", "40", "--at", "0%"]).await;
        let skipped = told.out.lines().skip_while(|line| !line.contains("refused")).take(5).collect::<Vec<_>>().join("\n");
        assert!(skipped.starts_with("  refused by the database, and would be skipped: 4 rows\n    key 3: "), "{}", told.all());
        assert!(skipped.contains("    key 23: ") && skipped.contains("… and 1 more (all of them with --json)"), "{}", told.all());
        let code = place.either("SQLITE_CONSTRAINT_CHECK", "23514");
        assert!(skipped.contains(code), "{}", told.all());
        assert!(told.out.contains("a host stops the update: 4 of 40 rows could not be done, and max_skipped = \"5%\" allows 2"), "{}", told.all());
        let told = does(&site(place, &fill("b = a", "max_skipped = \"20%\"")), &["try", "fill", "--rows", "40", "--at", "0%"]).await;
        assert!(!told.out.contains("a host stops"), "{}", told.all());
        // Where rows are not skipped it fails, as ever.
        let stops = fill("b = a", "").replace("\"skip\"", "\"stop\"");
        let told = site(place, &stops).tidegate(&["try", "fill"]).await;
        assert!(told.code == 1 && told.all().contains("the batch at 0% fails"), "{}", told.all());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deferred_to_the_commit_is_named_as_well() {
    let place = &Place::postgres().await;
    items(place, 400, 1_000_000).await;
    place
        .run(
            "create table parents (id bigint primary key); insert into parents values (1); \
             alter table items add column parent bigint references parents deferrable initially deferred",
        )
        .await;
    let update = fill("parent = case when id % 50 = 10 then 7 else 1 end", "max_skipped = 100");
    let batches = tried(&site(place, &update), &["--rows", "200", "--at", "0%"]).await;
    assert_eq!(numbers(&batches[0], "skipped"), BTreeSet::from([10, 60, 110, 160]));
    assert_eq!(batches[0]["tables"][0]["updated"], 196, "{:#}", batches[0]);
}

/// A trigger's rollback leaves no transaction in which anything could be tried further.
#[tokio::test(flavor = "multi_thread")]
async fn what_takes_the_transaction_with_it_is_told_and_nothing_stays() {
    let place = &Place::sqlite();
    items(place, 400, 1_000_000).await;
    place
        .run("create trigger gone after update on items when new.id = 90 begin select raise(rollback, 'nothing of it'); end")
        .await;
    let told = site(place, &fill("b = 1", "")).tidegate(&["try", "fill", "--at", "0%"]).await;
    assert!(told.code == 1 && told.all().contains("nothing of it"), "{}", told.all());
    assert_eq!(place.rows("select count(*) from items where b is not null").await, ["0"]);
}
