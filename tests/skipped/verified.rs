//! Rows that were skipped, and a look at all rows: they are wrong and no wrong ones, and are told by their number.

use serde_json::Value;

use super::{does, fill, fills, items, named, site};
use crate::support::on_both;
use crate::support::place::Place;

/// The keys of the rows that cannot be done.
async fn bad(place: &Place) -> Vec<String> {
    let mut bad = place.rows("select '[\"' || id || '\"]' from items where a < 0").await;
    bad.sort();
    bad
}

/// The keys that it names, in order.
async fn keys(place: &Place) -> Vec<i64> {
    let keys = looked(place, "keys").await;
    let keys = keys.as_array().unwrap().iter().map(|key| key[0].as_str().unwrap().parse().unwrap());
    let mut keys: Vec<i64> = keys.collect();
    keys.sort_unstable();
    keys
}

/// What an update's progress says of a look at its rows.
async fn looked(place: &Place, member: &str) -> Value {
    let progress = place.rows("select progress_json from background_updates").await;
    let progress: Value = serde_json::from_str(&progress[0]).unwrap();
    progress["verify"][member].clone()
}

/// Lets an update of `b` come to nothing for some rows.
async fn spoil(place: &Place, which: &str) {
    place.run(&place.either(
        "create trigger spoils after update of b on items when WHICH begin update items set b = 7 where id = new.id; end",
        "create function spoil() returns trigger language plpgsql as 'begin new.b = 7; return new; end'; \
         create trigger spoils before update on items for each row when (WHICH) execute function spoil()",
    ).replace("WHICH", which)).await;
}

on_both! {
    async fn rows_that_were_skipped_are_no_wrong_ones(place: Place) {
        items(place, 6_000, 300).await;
        let site = site(place, &fill("b = a", "verify = \"full\""));
        let run = fills(&site).await;
        assert!(run.err.contains("fill: skipped 20 rows in all"), "{}", run.all());
        assert!(run.err.contains("verified: 5980 rows are as the definition says; besides these 20 are not, which were skipped"), "{}", run.all());
        assert_eq!(named(place, "fill").await, bad(place).await);
        assert_eq!(place.rows("select count(*) from background_updates").await, ["0"]);

        // One is right by now, whoever made it so; another is left as it is: both are looked at.
        place.run("update items set a = 1, b = 1 where id = 303; update items set a = 1 where id = 603").await;
        does(&site, &["verify", "fill"]).await;
        let run = does(&site, &["run", "--until-done"]).await;
        assert!(run.err.contains("verified: 5981 rows are as the definition says; besides these 19 are not"), "{}", run.all());

        // A repair does what can be done by then, and leaves the rest where it is.
        place.run("update items set b = 9 where id in (5, 4000)").await;
        does(&site, &["verify", "fill", "--repair"]).await;
        let run = does(&site, &["run", "--until-done"]).await;
        assert!(run.err.contains("verified: 5982 rows are as the definition says, 3 of them since they were done again; besides these 18 are not"), "{}", run.all());
        assert_eq!(place.rows("select count(*) from items where a > 0 and (b is null or b <> a)").await, ["0"]);
        assert_eq!(place.rows("select count(*) from items where a < 0 and b is not null").await, ["0"]);
        let missing: Vec<String> = bad(place).await;
        let named = named(place, "fill").await;
        assert!(missing.iter().all(|key| named.contains(key)) && named.len() == 20, "{named:?}");
        does(&site, &["retry", "fill", "--skipped"]).await;
        does(&site, &["run", "--until-done"]).await;
        assert_eq!(super::named(place, "fill").await, missing);
    }

    async fn wrong_rows_are_found_beside_those_that_were_skipped(place: Place) {
        items(place, 3_000, 100).await;
        spoil(place, "new.id % 1000 = 77").await;
        let site = site(place, &fill("b = a", "verify = \"full\"\nmax_skipped = 50"));
        does(&site, &["enqueue", "fill"]).await;
        let run = site.tidegate(&["run", "--until-done"]).await;
        let why = "verification found 3 of 3000 rows that are not as the definition says, besides 30 that were skipped.";
        assert!(run.code == 3 && run.err.contains(why), "{}", run.all());
        assert_eq!(keys(place).await, [77, 1077, 2077]);
        assert_eq!((looked(place, "wrong").await, looked(place, "skipped").await), (3.into(), 30.into()));
        // Who is not among those that were skipped is wrong.
        place.run("delete from tidegate_skipped where key = '[\"503\"]'").await;
        does(&site, &["cancel", "fill"]).await;
        does(&site, &["verify", "fill"]).await;
        let run = site.tidegate(&["run", "--until-done"]).await;
        let why = "verification found 4 of 3000 rows that are not as the definition says, besides 29 that were skipped.";
        assert!(run.code == 3 && run.err.contains(why), "{}", run.all());
        assert_eq!(keys(place).await, [77, 503, 1077, 2077]);
    }

    /// Where the expression itself has no value, a look cannot compare the row either.
    async fn rows_that_cannot_even_be_compared_are_skipped_by_the_look(place: Place) {
        items(place, 2_000, 1_000_000).await;
        place.run("update items set a = 1").await;
        let least = place.either("-9223372036854775808", "-2147483648");
        place.run(&format!("update items set a = {least} where id % 400 in (7, 8)")).await;
        let site = site(place, &fill("b = abs(a)", "verify = \"full\""));
        let run = fills(&site).await;
        assert!(run.err.contains("verified: 1990 rows are as the definition says; besides these 10 are not"), "{}", run.all());
        assert_eq!(named(place, "fill").await, bad(place).await);
    }

    async fn a_deletion_is_looked_at_as_well(place: Place) {
        items(place, 2_000, 200).await;
        place.run("create table refers (id bigint not null references items (id)); insert into refers select id from items where a < 0").await;
        let update = fill("b = a", "verify = \"full\"").replace("\"backfill\"", "\"delete\"").replace("set = \"b = a\"", "where = \"id > 100\"");
        let site = site(place, &update);
        let run = fills(&site).await;
        assert!(run.err.contains("verified: 100 rows are as the definition says; besides these 9 are not"), "{}", run.all());
        assert_eq!(place.rows("select count(*) from items where id > 100").await, ["9"]);
        let still = place.rows("select count(*) from items where a < 0 and id > 100 and '[\"' || id || '\"]' in (select key from tidegate_skipped)").await;
        assert_eq!(still, ["9"]);
    }
}
