//! Whoever must not begin before an update is done.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{SOON, UPDATES, command};
use crate::support::api::{Api, VIEWER, with_tokens};
use crate::support::binary::Folder;
use crate::support::on_both;
use crate::support::place::Place;

async fn required(folder: &Folder, arguments: &[&str]) -> (Value, i32) {
    let (said, code) = folder.tidegate(&[&["require", "--json"], arguments].concat()).await;
    // What is said on standard error may come before it.
    let values = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
    let report = values.map_while(Result::ok).find(|value| value.get("updates").is_some());
    (report.unwrap_or_else(|| panic!("{said}")), code)
}

/// The state of all, and that of each.
async fn states(folder: &Folder, names: &[&str]) -> (Vec<String>, i32) {
    let (report, code) = required(folder, names).await;
    let each = report["updates"].as_array().unwrap().iter().map(|update| update["state"].as_str().unwrap().to_owned());
    (std::iter::once(report["state"].as_str().unwrap().to_owned()).chain(each).collect(), code)
}

fn expected(states: &[&str], code: i32) -> (Vec<String>, i32) {
    (states.iter().map(|state| (*state).to_owned()).collect(), code)
}

on_both! {
    async fn an_update_goes_through_its_states_with_no_host_running(place: Place) {
        let folder = Folder::new(place, SOON, "", UPDATES);
        // Nothing is made in the database by asking.
        assert_eq!(states(&folder, &["noop"]).await, expected(&["not-queued", "not-queued"], 3));
        assert_eq!(states(&folder, &["noop", "noob"]).await, expected(&["unknown", "not-queued", "unknown"], 2));
        let (said, code) = folder.tidegate(&["require", "noob"]).await;
        assert!(code == 2 && said.contains("did you mean \"noop\"?"), "{said}");
        command(&folder, &["enqueue", "noop"]).await;
        assert_eq!(states(&folder, &["noop"]).await, expected(&["pending", "pending"], 3));
        command(&folder, &["run", "--until-done"]).await;
        assert_eq!(states(&folder, &["noop"]).await, expected(&["done", "done"], 0));
        let view = "select name, state, finished_at is not null from tidegate_done";
        assert_eq!(place.rows(view).await[0].replace("|t", "|1").replace("|1rue", "|1"), "noop|done|1");
        command(&folder, &["enqueue", "noop"]).await;
        assert_eq!(states(&folder, &["noop"]).await, expected(&["pending", "pending"], 3));
        command(&folder, &["cancel", "noop"]).await;
        assert_eq!(states(&folder, &["noop"]).await, expected(&["failed", "failed"], 4));
        command(&folder, &["enqueue", "noop"]).await;
        place.run("delete from background_updates").await;
        assert_eq!(states(&folder, &["noop"]).await, expected(&["failed", "failed"], 4));
        command(&folder, &["enqueue", "fails"]).await;
        folder.tidegate(&["run", "--until-done"]).await;
        assert_eq!(states(&folder, &["fails"]).await, expected(&["failed", "failed"], 4));
        command(&folder, &["retry", "fails"]).await;
        assert_eq!(states(&folder, &["fails"]).await, expected(&["pending", "pending"], 3));
        for wrong in ["soon", "5", "m", "-1s", "99999999999h"] {
            assert_eq!(folder.tidegate(&["require", "noop", "--wait", wrong]).await.1, 2, "{wrong}");
        }
    }

    async fn what_finished_before_there_was_a_ledger_is_known_by_the_history(place: Place) {
        let folder = Folder::new(place, SOON, "", UPDATES);
        command(&folder, &["enqueue", "noop"]).await;
        command(&folder, &["run", "--until-done"]).await;
        place.run("drop view tidegate_done; drop table tidegate_ledger").await;
        for _ in 0..2 {
            let (report, code) = required(&folder, &["noop"]).await;
            assert_eq!((code, &report["updates"][0]["state"]), (0, &json!("done")));
            assert!(report["updates"][0]["words"].as_str().unwrap().contains("before there was a ledger"), "{report}");
            assert!(report["updates"][0]["finished_at_ms"].as_i64().unwrap() > 1_600_000_000_000);
            // The same once the ledger is there.
            place.prepared().await.close().await;
        }
    }

    async fn one_waits_until_it_is_done_or_the_time_is_over(place: Place) {
        let folder = Folder::new(place, SOON, "", UPDATES);
        command(&folder, &["enqueue", "noop"]).await;
        let since = Instant::now();
        assert_eq!(states(&folder, &["noop", "--wait", "1s"]).await, expected(&["pending", "pending"], 3));
        assert!(since.elapsed() >= Duration::from_secs(1));
        let mut waiting = folder.start(&["require", "noop", "--wait", "2m"]);
        command(&folder, &["run", "--until-done"]).await;
        assert_eq!(waiting.end(Duration::from_secs(60)).await, 0, "{}", waiting.said());
        // One that has failed is not waited for.
        command(&folder, &["enqueue", "noop"]).await;
        let mut waiting = folder.start(&["require", "noop", "--wait", "1h"]);
        command(&folder, &["cancel", "noop"]).await;
        assert_eq!(waiting.end(Duration::from_secs(60)).await, 4, "{}", waiting.said());
    }

    async fn a_host_is_asked_over_its_api(place: Place) {
        place.prepared().await.close().await;
        let api = Api::start(place, SOON, &format!("{UPDATES}{}", with_tokens())).await;
        let ask = async |query: &str| api.get(&format!("/api/v1/require?{query}"), VIEWER).await;
        command(&api.folder, &["enqueue", "noop"]).await;
        crate::support::until("it is done", async || ask("name=noop").await.json()["state"] == "done").await;
        let both = ask("name=noop&name=touch&database=master").await.json();
        assert_eq!((&both["state"], &both["updates"][1]["state"]), (&json!("not-queued"), &json!("not-queued")));
        assert_eq!(ask("name=nobody").await.json()["updates"][0]["database"], json!(null));
        assert_eq!(ask("name=noop&database=other").await.status, 404);
        let many = (0..101).map(|n| format!("name=n{n}")).collect::<Vec<_>>().join("&");
        for wrong in ["", "name=", "nam=noop", "name=noop&database=master&database=master", "name=%00", many.as_str()] {
            assert_eq!(ask(wrong).await.status, 400, "{wrong}");
        }
        assert_eq!(api.request(reqwest::Method::GET, "/api/v1/require?name=noop").send().await.unwrap().status(), 401);
        api.folder.write("token", VIEWER);
        let told = required(&api.folder, &["noop", "--address", &api.address, "--token-file", "token"]).await;
        let own = required(&api.folder, &["noop"]).await;
        assert_eq!(told, own);
    }
}
