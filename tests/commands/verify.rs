//! `verify`, and updates whose rows are looked at before they end.

use crate::support::command::{Site, Told};
use crate::support::on_both;
use crate::support::place::Place;

const UPDATES: &str = "
[[update]]
name = \"fill\"
kind = \"backfill\"
table = \"items\"
key = \"id\"
set = \"b = upper(a)\"
verify = \"full\"

[[update]]
name = \"purge\"
kind = \"delete\"
table = \"items\"
key = \"id\"
where = \"id > 900\"

[[update]]
name = \"count\"
kind = \"backfill\"
table = \"items\"
key = \"id\"
set = \"n = n + 1\"

[[update]]
name = \"script\"
kind = \"sql\"
sql = \"update items set n = 1\"
";

const WRONG: &str = "select count(*) from items where b is null or b <> upper(a)";

async fn site(place: &Place) -> Site {
    place.run("create table items (id bigint primary key not null, a text, b text, n int not null default 0)").await;
    let numbers = place.either(
        "with recursive n(id) as (select 1 union all select id + 1 from n where id < 1000) select id, 'x' || id from n",
        "select id, 'x' || id from generate_series(1, 1000) as id",
    );
    place.run(&format!("insert into items (id, a) {numbers}")).await;
    let pace = "[background_updates]\nsleep_enabled = false\npoll_interval_ms = 50\n";
    Site::new(&format!("{pace}[[database]]\nurl = \"{}\"\n{UPDATES}", place.url))
}

/// What a command tells that has to succeed.
async fn does(site: &Site, arguments: &[&str]) -> Told {
    let told = site.tidegate(arguments).await;
    assert_eq!(told.code, 0, "{arguments:?}: {}", told.all());
    told
}

on_both! {
    async fn rows_are_looked_at_found_wrong_and_done_again(place: Place) {
        let site = site(place).await;
        does(&site, &["enqueue", "fill"]).await;
        let run = does(&site, &["run", "--until-done"]).await;
        assert!(run.err.contains("fill: verified: 1000 rows are as the definition says"), "{}", run.all());
        // They are not counted twice, though there is time for both in one batch.
        assert_eq!(place.rows("select items from tidegate_ledger where action = 'finished'").await, ["1000"]);

        place.run("update items set b = 'no' where id in (7, 500)").await;
        let told = does(&site, &["verify", "fill"]).await;
        assert_eq!(told.out, "fill: queued, to look at its rows, on master\n");
        let told = does(&site, &["verify", "fill"]).await;
        assert_eq!(told.out, "fill: still at work, and left as it is, on master\n");
        let run = site.tidegate(&["run", "--until-done"]).await;
        assert_eq!(run.code, 3, "{}", run.all());
        assert!(run.err.contains("verification found 2 of 1000 rows"), "{}", run.all());
        let status = does(&site, &["status", "--json"]).await;
        let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
        let progress = status["databases"][0]["updates"][0]["progress"].as_str().unwrap();
        let progress: serde_json::Value = serde_json::from_str(progress).unwrap();
        let mut keys: Vec<&str> = progress["verify"]["keys"].as_array().unwrap().iter().map(|key| key[0].as_str().unwrap()).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["500", "7"], "{progress}");
        assert_eq!(place.rows(WRONG).await, ["2"]);

        let told = does(&site, &["verify", "fill", "--repair"]).await;
        assert_eq!(told.out, "fill: queued, to look at its rows and do again those that are wrong, on master\n");
        let run = does(&site, &["run", "--until-done"]).await;
        assert!(run.err.contains("2 of them since they were done again"), "{}", run.all());
        assert_eq!(place.rows(WRONG).await, ["0"]);
    }

    async fn what_cannot_be_verified_is_refused_with_the_reason(place: Place) {
        let site = site(place).await;
        for (name, why) in [
            ("count", "reads column \"n\", which it assigns"),
            ("script", "updates of this kind are not verified"),
            ("nothing", "nothing"),
        ] {
            let told = site.tidegate(&["verify", "fill", name]).await;
            assert!(told.code == 2 && told.err.contains(why), "{name}: {}", told.all());
            assert!(told.err.contains("hint: "), "{name}: {}", told.all());
        }
        // Nothing is queued where one of them is refused.
        let queued = place.rows("select count(*) from background_updates").await;
        assert!(queued == ["0"], "{queued:?}");
        let told = does(&site, &["verify", "purge"]).await;
        assert_eq!(told.out, "purge: queued, to look at its rows, on master\n");
    }
}
