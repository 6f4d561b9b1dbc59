//! A definition that changes while its walk is under way.

use super::{PATIENCE, moved_on, progress, queue_touch, touching};
use crate::support::api::{ADMIN, Api, VIEWER, with_tokens};
use crate::support::binary::Folder;
use crate::support::browser::Browser;
use crate::support::place::Place;
use crate::support::{on_both, until};

const SETTINGS: &str = "sleep_duration_ms = 50\nmax_batch_size = 100";
const BEFORE: &str = "touched = touched + 1";
const AFTER: &str = "touched = touched + 10";
const CHANGED: &str = "set was \"touched = touched + 1\" and is \"touched = touched + 10\"";

/// A folder whose host has left off after some of a thousand rows.
async fn left_off(place: &Place) -> Folder {
    queue_touch(place, 1_000).await;
    let folder = touching(place, SETTINGS, BEFORE);
    let mut host = folder.start(&["run"]);
    moved_on(place, Some("{}")).await;
    host.signal("TERM");
    assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
    folder
}

on_both! {
    async fn another_definition_waits_until_somebody_accepts_it(place: Place) {
        queue_touch(place, 10_000).await;
        let folder = touching(place, SETTINGS, BEFORE);
        let mut host = folder.start(&["run"]);
        moved_on(place, Some("{}")).await;
        // A reload is refused, and the host goes on as before.
        folder.reconfigure(BEFORE, AFTER);
        host.signal("HUP");
        host.says(CHANGED, PATIENCE).await;
        let at = progress(place).await;
        moved_on(place, at.as_deref()).await;
        host.signal("TERM");
        assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
        let at = progress(place).await;

        let (said, code) = folder.tidegate(&["check"]).await;
        assert!(code == 2 && said.contains(CHANGED) && said.contains("`tidegate accept touch`"), "{code}: {said}");
        let mut host = folder.start(&["run", "--until-done"]);
        assert_eq!(host.end(PATIENCE).await, 3, "{}", host.said());
        assert!(host.said().contains(CHANGED), "{}", host.said());
        assert_eq!(progress(place).await, at, "nothing was done");

        let (said, code) = folder.tidegate(&["accept", "touch"]).await;
        assert!(code == 0 && said.contains(CHANGED), "{code}: {said}");
        let (said, code) = folder.tidegate(&["accept", "touch"]).await;
        assert!(code == 0 && said.contains("is the one that it began with"), "{code}: {said}");
        folder.reconfigure("sleep_duration_ms = 50", "sleep_enabled = false");
        let mut host = folder.start(&["run", "--until-done"]);
        assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
        let done = |each: u32| format!("select count(*) from items where touched = {each}");
        let (before, after) = (&place.rows(&done(1)).await[0], &place.rows(&done(10)).await[0]);
        let (before, after): (u32, u32) = (before.parse().unwrap(), after.parse().unwrap());
        assert!(before >= 100 && after >= 100 && before + after == 10_000, "{before} before, {after} after");
    }

    async fn a_definition_is_accepted_over_the_api_of_a_host(place: Place) {
        let folder = left_off(place).await;
        folder.reconfigure(BEFORE, AFTER);
        folder.configure(&format!("{}\n{}", folder.configuration(), with_tokens()));
        let mut api = Api::start_in(folder).await;
        api.process.says("quarantined after 1 attempt: the definition is not the one", PATIENCE).await;
        let at = progress(place).await;
        for (name, token) in [("admin", ADMIN), ("viewer", VIEWER)] {
            api.folder.write(name, token);
        }
        let accept = async |name: &str, token: &str| {
            api.folder.tidegate(&["accept", name, "--address", &api.address, "--token-file", token]).await
        };
        let (said, code) = accept("touch", "viewer").await;
        assert!(code == 1 && said.contains("may look, and not steer"), "{code}: {said}");
        let (said, code) = accept("unheard_of", "admin").await;
        assert!(code == 1 && said.contains("update \"unheard_of\" is not queued"), "{code}: {said}");
        assert_eq!(progress(place).await, at);
        let (said, code) = accept("touch", "admin").await;
        assert_eq!((said, code), (format!("touch: goes on under the definition of now: {CHANGED} on master"), 0));
        moved_on(place, at.as_deref()).await;
        let (said, code) = accept("touch", "admin").await;
        assert_eq!((said.as_str(), code), ("touch: its definition is the one that it began with on master", 0));
        api.process.says("touch: finished", PATIENCE).await;
        assert_eq!(place.rows("select count(*) from items where touched not in (1, 10)").await, ["0"]);
    }

    async fn a_definition_that_the_walk_cannot_go_on_under_is_accepted_by_nobody(place: Place) {
        let folder = left_off(place).await;
        place.run("create unique index by_touched on items (id, touched)").await;
        folder.reconfigure("key = \"id\"", "key = [\"id\", \"touched\"]");
        folder.configure(&format!("{}\n{}", folder.configuration(), with_tokens()));
        let mut api = Api::start_in(folder).await;
        api.process.says("quarantined after 1 attempt", PATIENCE).await;
        let at = progress(place).await;
        let answer = api.post("/api/v1/databases/master/updates/touch/accept", ADMIN, serde_json::json!({})).await;
        assert_eq!(answer.status, 409, "{answer:?}");
        assert_eq!(answer.json()["type"], "urn:tidegate:problem:cannot-go-on", "{answer:?}");
        assert!(answer.text.contains("it belongs to a walk over table"), "{answer:?}");
        assert_eq!(progress(place).await, at);
    }

    async fn a_definition_is_accepted_on_the_page(place: Place) {
        let folder = left_off(place).await;
        folder.reconfigure(BEFORE, AFTER);
        folder.configure(&format!("{}\n{}", folder.configuration(), with_tokens()));
        let mut api = Api::start_in(folder).await;
        api.process.says("quarantined after 1 attempt", PATIENCE).await;
        let browser = Browser::start().await;
        browser.client.goto(&api.address).await.unwrap();
        browser.client.find(fantoccini::Locator::Id("token")).await.unwrap().send_keys(ADMIN).await.unwrap();
        browser.click("form.login button").await;
        until("the button is there", async || browser.count("form[action='/do/accept'] button").await == 1).await;
        browser.click("form[action='/do/accept'] button").await;
        until("the page says so", async || {
            browser.text(".notice").await == format!("touch goes on under the definition of now: {CHANGED}.")
        })
        .await;
        api.process.says("touch: finished", PATIENCE).await;
        until("the button is gone", async || browser.count("form[action='/do/accept'] button").await == 0).await;
        browser.close().await;
        assert_eq!(place.rows("select count(*) from items where touched not in (1, 10)").await, ["0"]);
    }

    async fn the_definition_before_goes_on_once_it_is_back(place: Place) {
        let folder = left_off(place).await;
        folder.reconfigure(BEFORE, AFTER);
        assert_eq!(folder.tidegate(&["run", "--until-done"]).await.1, 3);
        folder.reconfigure(AFTER, BEFORE);
        assert_eq!(folder.tidegate(&["retry", "touch"]).await.1, 0);
        assert_eq!(folder.tidegate(&["run", "--until-done"]).await.1, 0);
        assert_eq!(place.rows("select count(*) from items where touched = 1").await, ["1000"]);
    }

    async fn a_column_of_another_type_waits_until_somebody_accepts_it(place: Place) {
        let folder = left_off(place).await;
        let change = "pragma writable_schema = on; update sqlite_schema set sql = replace(sql, 'touched int ', \
                      'touched bigint ') where name = 'items'";
        place.run(place.either(change, "alter table items alter touched type bigint")).await;
        let (said, code) = folder.tidegate(&["run", "--until-done"]).await;
        assert!(code == 3 && said.to_lowercase().contains("the type of column touched was \"int") && said.contains("and is \"bigint\""), "{code}: {said}");
        assert_eq!(folder.tidegate(&["accept", "touch"]).await.1, 0);
        assert_eq!(folder.tidegate(&["run", "--until-done"]).await.1, 0);
        assert_eq!(place.rows("select count(*) from items where touched = 1").await, ["1000"]);
    }
}
