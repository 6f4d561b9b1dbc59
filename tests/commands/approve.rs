//! `canary`, `max_rows` and `approve`: an update stops where its definition says, and goes on once somebody approves.

use crate::support::command::Site;
use crate::support::on_both;
use crate::support::place::Place;

/// Kinds of which each does one row at a time, and what tells how many rows are done.
const KINDS: [(&str, &str, &str); 4] = [
    ("backfill", "set = \"b = upper(a)\"", "select count(*) from items where b = upper(a)"),
    ("delete", "where = \"id > 0\"", "select 1000 - count(*) from items"),
    ("copy", "into = \"copies\"\ncolumns = [\"id\", \"a\"]", "select count(*) from copies"),
    ("batch", "sql = \"update items set b = upper(a) where :range\"", "select count(*) from items where b = upper(a)"),
];

/// Gates, and after how many of 1,000 rows an update stops, each time.
const GATES: [(&str, &[u64]); 6] = [
    ("canary = 10", &[10]),
    ("canary = \"1%\"", &[10]),
    ("canary = \"99.9%\"\nmax_rows = 1000000", &[999]),
    ("max_rows = 300", &[0]),
    ("canary = 17\nmax_rows = 300", &[0, 17]),
    ("canary = 5000\nmax_rows = 100000", &[]),
];

async fn site(place: &Place, kind: &str, keys: &str, gate: &str) -> Site {
    place.run("create table items (id bigint primary key not null, a text, b text)").await;
    place.run("create table copies (id bigint primary key not null, a text)").await;
    let numbers = place.either(
        "with recursive n(id) as (select 1 union all select id + 1 from n where id < 1000) select id, 'x' || id from n",
        "select id, 'x' || id from generate_series(1, 1000) as id",
    );
    place.run(&format!("insert into items (id, a) {numbers}")).await;
    place.run(place.either("analyze", "analyze items")).await;
    let pace = "[background_updates]\nsleep_enabled = false\npoll_interval_ms = 50\n";
    let update =
        format!("[[update]]\nname = \"work\"\nkind = \"{kind}\"\ntable = \"items\"\nkey = \"id\"\n{keys}\n{gate}\n");
    let behind = "[[update]]\nname = \"behind\"\nkind = \"noop\"\n";
    Site::new(&format!("{pace}[[database]]\nurl = \"{}\"\n{update}{behind}", place.url))
}

async fn state(site: &Site, update: &str) -> String {
    let told = site.tidegate(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    let rows = status["databases"][0]["updates"].as_array().unwrap();
    rows.iter()
        .find(|row| row["name"] == update)
        .map_or("gone".to_owned(), |row| row["state"].as_str().unwrap().to_owned())
}

/// Runs an update to its end, and tells after how many rows it stopped.
async fn stops(place: &Place, kind: (&str, &str, &str), gate: &str) -> (Vec<u64>, String) {
    let (kind, keys, count) = kind;
    let site = site(place, kind, keys, gate).await;
    for arguments in [&["enqueue", "work"][..], &["enqueue", "behind", "--depends-on", "work"]] {
        assert_eq!(site.tidegate(arguments).await.code, 0);
    }
    let mut stops = Vec::new();
    loop {
        let run = site.tidegate(&["run", "--until-done"]).await;
        let done = place.rows(count).await[0].clone();
        if run.code == 0 {
            return (stops, done);
        }
        assert_eq!((run.code, state(&site, "work").await.as_str()), (3, "awaits-approval"), "{}", run.all());
        assert_eq!(state(&site, "behind").await, "waits");
        assert!(
            run.err.contains("work: awaiting approval: ") && run.err.contains("`tidegate approve work`"),
            "{}",
            run.all()
        );
        // Another run does not go on by itself.
        let again = site.tidegate(&["run", "--until-done"]).await;
        assert_eq!((again.code, &place.rows(count).await[0]), (3, &done), "{}", again.all());
        assert!(site.tidegate(&["check"]).await.err.contains("`tidegate approve work`"));
        stops.push(done.parse().unwrap());
        let told = site.tidegate(&["approve", "work"]).await;
        assert_eq!((told.code, told.out.as_str()), (0, "work: approved on master, and goes on\n"), "{}", told.all());
    }
}

on_both! {
    async fn an_update_of_each_kind_stops_where_each_gate_says_and_goes_on_once_approved(place: Place) {
        let mut wrong = Vec::new();
        for kind in KINDS {
            for (gate, expected) in GATES {
                let place = place.another().await;
                let found = stops(&place, kind, gate).await;
                if found != (expected.to_vec(), "1000".to_owned()) {
                    wrong.push(format!("{} with {gate:?}: {found:?}", kind.0));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    async fn what_does_not_wait_is_told_so(place: Place) {
        let site = site(place, "backfill", KINDS[0].1, "canary = 10").await;
        let told = site.tidegate(&["approve", "work"]).await;
        assert_ne!(told.code, 0);
        assert!(told.err.contains("update \"work\" is not queued"), "{}", told.all());
        assert_eq!(site.tidegate(&["enqueue", "work"]).await.code, 0);
        let told = site.tidegate(&["approve", "work"]).await;
        assert_eq!((told.code, told.out.as_str()), (0, "work: does not await approval on master\n"), "{}", told.all());
    }
}
