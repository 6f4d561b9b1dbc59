//! What an operator types and reads about triggers that keep rows.

use super::{WRONG, make};
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
where = \"n % 3 <> 0\"
keep = \"trigger\"

[[update]]
name = \"free\"
kind = \"unkeep\"
update = \"fill\"
";

async fn site(place: &Place, updates: &str) -> Site {
    let pace = "[background_updates]\nsleep_enabled = false\npoll_interval_ms = 50\n";
    Site::new(&format!("{pace}[[database]]\nurl = \"{}\"\n{updates}", place.url))
}

/// What a command tells that has to succeed.
async fn does(site: &Site, arguments: &[&str]) -> Told {
    let told = site.tidegate(arguments).await;
    assert_eq!(told.code, 0, "{arguments:?}: {}", told.all());
    told
}

on_both! {
    async fn a_trigger_is_shown_while_it_keeps_rows_and_dropped_when_that_is_asked_for(place: Place) {
        make(place, 500).await;
        place.recommended().await;
        let with = site(place, UPDATES).await;
        does(&with, &["enqueue", "fill"]).await;
        let told = does(&with, &["check", "--plan"]).await;
        assert!(told.out.contains("CREATE TRIGGER \"zz_tidegate_keep_fill\""), "{}", told.all());
        let told = does(&with, &["try", "fill"]).await;
        assert!(told.out.contains("which the update makes before its first batch, is not made here"), "{}", told.all());
        let told = with.tidegate(&["unkeep", "fill"]).await;
        assert!(told.code != 0 && told.err.contains("is queued, and has its trigger until it is done on master"), "{}", told.all());
        does(&with, &["run", "--until-done"]).await;
        assert_eq!(place.rows(WRONG).await, ["0"]);
        let told = does(&with, &["status"]).await;
        assert!(told.out.contains("rows of items are kept as fill makes them, by zz_tidegate_keep_fill"), "{}", told.all());
        let status: serde_json::Value = serde_json::from_str(&does(&with, &["status", "--json"]).await.out).unwrap();
        let kept = &status["databases"][0]["kept"][0];
        assert_eq!((kept["update"].as_str(), kept["table"].as_str(), kept["enabled"].as_bool()), (Some("fill"), Some("items"), Some(true)));
        assert!(kept["made_at_ms"].as_i64().unwrap() > 1_600_000_000_000);
        let told = does(&with, &["check"]).await;
        assert!(!told.all().contains("neither queued nor defined"), "{}", told.all());

        let without = site(place, "").await;
        let told = without.tidegate(&["check"]).await;
        assert!(told.all().contains("keeps rows for an update that is neither queued nor defined"), "{}", told.all());
        let told = does(&without, &["unkeep", "fill", "--json"]).await;
        assert!(told.out.contains("\"unkept\""), "{}", told.all());
        let told = without.tidegate(&["unkeep", "fill"]).await;
        assert!(told.code != 0 && told.err.contains("no trigger keeps the rows of update \"fill\""), "{}", told.all());
    }

    async fn an_update_that_is_cancelled_says_that_its_trigger_stays_and_a_kind_drops_it(place: Place) {
        make(place, 500).await;
        place.recommended().await;
        let site = site(place, UPDATES).await;
        does(&site, &["enqueue", "fill"]).await;
        does(&site, &["run", "--until-done"]).await;
        does(&site, &["enqueue", "fill"]).await;
        let told = does(&site, &["cancel", "fill"]).await;
        assert!(told.out.contains("goes on keeping rows: `tidegate unkeep fill` drops it"), "{}", told.all());
        // Queued anew, it finds its own trigger.
        does(&site, &["enqueue", "fill"]).await;
        let told = does(&site, &["run", "--until-done"]).await;
        assert!(told.err.contains("is there already"), "{}", told.all());
        does(&site, &["enqueue", "free"]).await;
        does(&site, &["run", "--until-done"]).await;
        assert!(!does(&site, &["status"]).await.out.contains("are kept as"));
    }

    async fn what_a_definition_cannot_say_is_refused_by_name(place: Place) {
        make(place, 5).await;
        let copy = "[[update]]\nname = \"copy\"\nkind = \"copy\"\ntable = \"items\"\nkey = \"id\"\ninto = \"copies\"\ncolumns = [\"id\"]\nkeep = \"trigger\"\non_conflict = \"ignore\"\n";
        let told = site(place, copy).await.tidegate(&["check"]).await;
        assert!(told.err.contains("\"on_conflict\" and \"keep\" do not go together"), "{}", told.all());
        let told = site(place, &UPDATES.replace("\"trigger\"", "\"triggers\"")).await.tidegate(&["check"]).await;
        assert!(told.code != 0 && told.err.contains("keep"), "{}", told.all());
        let told = site(place, &UPDATES.replace("update = \"fill\"", "")).await.tidegate(&["check"]).await;
        assert!(told.err.contains("\"update\" is missing"), "{}", told.all());
    }
}
