//! What the API tells and does, compared with what the database holds.

use reqwest::Method;
use serde_json::{Value, json};

use super::{FAST, SLOW, with_updates};
use crate::support::api::{ADMIN, Answer, Api, VIEWER};
use crate::support::place::Place;
use crate::support::run::{make_items, touched};
use crate::support::{on_both, until};

const QUEUE: &str = "/api/v1/databases/master/updates";
const ROWS: &str = "select update_name, progress_json, coalesce(depends_on, '-'), ordering from background_updates \
                    order by ordering, update_name";

/// A POST without a body.
async fn post(api: &Api, path: &str) -> Answer {
    Answer::of(api.request(Method::POST, path).bearer_auth(ADMIN).send().await.unwrap()).await
}

async fn delete(api: &Api, path: &str) -> Answer {
    Answer::of(api.request(Method::DELETE, path).bearer_auth(ADMIN).send().await.unwrap()).await
}

async fn get(api: &Api, path: &str) -> Value {
    let answer = api.get(path, VIEWER).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// The states of the queue's rows.
async fn states(api: &Api) -> Vec<String> {
    let queue = get(api, QUEUE).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = queue["updates"].as_array().unwrap().iter();
    rows.map(|row| format!("{} {}", text(&row["name"]), text(&row["state"]))).collect()
}

/// What was done, as "update result".
fn results(answer: &Answer) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let json = answer.json();
    let results = json["results"].as_array().unwrap_or_else(|| panic!("{}", answer.text)).iter();
    results
        .map(|done| format!("{} {} {}", text(&done["database"]), text(&done["update"]), text(&done["result"])))
        .collect()
}

async fn paused(api: &Api) -> bool {
    get(api, "/api/v1/databases/master").await["paused"] == true
}

on_both! {
    async fn an_update_is_queued_as_it_was_asked_for(place: Place) {
        make_items(place, 10).await;
        let api = Api::start(place, SLOW, &with_updates()).await;
        let new = json!({ "name": "touch_items", "ordering": -3 });
        let queued = api.post(QUEUE, ADMIN, new.clone()).await;
        assert_eq!((queued.status.as_u16(), results(&queued)), (201, vec!["master touch_items queued".to_owned()]));
        let again = api.post(QUEUE, ADMIN, new).await;
        assert_eq!((again.status.as_u16(), results(&again)), (200, vec!["master touch_items already-queued".to_owned()]));
        let after = json!({ "name": "other", "depends_on": "touch_items", "progress": {} });
        assert_eq!(api.post(QUEUE, ADMIN, after).await.status, 201);
        let forced = json!({ "name": "nobody's", "progress": { "a": [1, "ü"] }, "force": true });
        assert_eq!(api.post(QUEUE, ADMIN, forced).await.status, 201);
        assert_eq!(place.rows(ROWS).await, [
            "touch_items|{}|-|-3",
            r#"nobody's|{"a":[1,"ü"]}|-|0"#,
            "other|{}|touch_items|0",
        ]);
    }

    async fn what_would_never_run_is_not_queued(place: Place) {
        make_items(place, 10).await;
        let api = Api::start(place, SLOW, &with_updates()).await;
        for (new, word) in [
            (json!({ "name": "nobody's" }), "there is no definition"),
            (json!({ "name": "" }), "is empty"),
            (json!({ "name": "x".repeat(501), "force": true }), "longer than 500"),
            (json!({ "name": "a\u{0}b", "force": true }), "NUL"),
            (json!({ "name": "other", "depends_on": "touch_items" }), "is not queued"),
            (json!({ "name": "touch_items", "progress": { "nonsense": 5 } }), "\"progress\""),
        ] {
            let answer = api.post(QUEUE, ADMIN, new).await;
            assert_eq!(answer.status, 422, "{}", answer.text);
            assert!(answer.json()["detail"].as_str().unwrap().contains(word), "{word}: {}", answer.text);
        }
        assert_eq!(get(&api, QUEUE).await["updates"], json!([]));
    }

    async fn the_queue_tells_how_each_row_stands_and_why(place: Place) {
        make_items(place, 10).await;
        place.prepared().await;
        let api = Api::start(place, SLOW, &with_updates()).await;
        place.run("insert into background_updates (update_name, progress_json, depends_on, ordering) values \
                   ('touch_items', '{}', null, 0), ('other', '{}', 'touch_items', 1), ('nobodys', '{}', '', 2), \
                   ('fails', 'not json', null, 3)").await;
        // How far it is may be left out of an answer: the question is given up where the database takes its time.
        let rests = async || {
            let row = get(&api, QUEUE).await["updates"][0].clone();
            row["reason"].is_string() && row["done"] == 0.0
        };
        until("the first rests, and how far it is is told", rests).await;
        let waits = async || get(&api, "/api/v1/databases/master").await["in_hand"]["wait_ms"] == 3_600_000;
        until("its wait is told", waits).await;
        assert_eq!(states(&api).await[0], "touch_items running");
        assert_eq!(states(&api).await[1..], ["other waits", "nobodys undefined", "fails unreadable"]);
        let queue = get(&api, QUEUE).await;
        let reasons: Vec<&str> = queue["updates"].as_array().unwrap().iter().map(|row| row["reason"].as_str().unwrap()).collect();
        assert_eq!(reasons[1..3], ["waits for touch_items", "no definition"]);
        let database = get(&api, "/api/v1/databases/master").await;
        assert_eq!((&database["lease"], &database["in_hand"]["update"]), (&json!("runner"), &json!("touch_items")));
        assert_eq!(get(&api, "/api/v1/databases").await["databases"][0]["name"], "master");
    }

    async fn an_update_is_told_with_its_iterations(place: Place) {
        make_items(place, 25).await;
        let api = Api::start(place, FAST, &with_updates()).await;
        api.post(QUEUE, ADMIN, json!({ "name": "touch_items" })).await;
        until("it is done", async || states(&api).await.is_empty() && touched(place).await == ["1|25"]).await;
        let path = format!("{QUEUE}/touch_items?iterations=1000");
        let finished = async || get(&api, &path).await["iterations"][0]["outcome"] == "finished";
        until("the history is written", finished).await;
        let update = get(&api, &path).await;
        let iterations = update["iterations"].as_array().unwrap();
        let items: u64 = iterations.iter().map(|iteration| iteration["items_done"].as_u64().unwrap()).sum();
        assert_eq!(items, 25);
        assert_eq!(place.rows("select count(*) from tidegate_history").await, [iterations.len().to_string()]);
        let first = iterations.last().unwrap();
        assert_eq!((&first["items_asked"], &first["outcome"]), (&json!(10), &json!("completed")));
        assert_eq!((&update["queued"], &update["totals"]["items"]), (&Value::Null, &json!(25)));
        let ended = &get(&api, QUEUE).await["ended"][0];
        assert_eq!((&ended["name"], &ended["finished"]), (&json!("touch_items"), &json!(true)));
        assert_eq!(get(&api, &format!("{QUEUE}/touch_items?iterations=1")).await["iterations"].as_array().unwrap().len(), 1);
        assert_eq!(api.get(&format!("{QUEUE}/never_heard_of"), VIEWER).await.status, 404);
    }

    async fn a_quarantined_update_is_told_with_its_error_and_tried_again(place: Place) {
        make_items(place, 10).await;
        let api = Api::start(place, FAST, &with_updates()).await;
        api.post(QUEUE, ADMIN, json!({ "name": "fails" })).await;
        until("it is quarantined", async || states(&api).await == ["fails quarantined"]).await;
        let row = get(&api, QUEUE).await["updates"][0].clone();
        assert!(row["reason"].as_str().unwrap().starts_with("quarantined after 1 attempt: "), "{row}");
        assert_eq!(row["attempts"], 1);
        let failed = row["last_error_at_ms"].as_i64().unwrap();
        assert_eq!(results(&post(&api, &format!("{QUEUE}/fails/retry")).await), ["master fails retried"]);
        until("it failed again", async || {
            get(&api, QUEUE).await["updates"][0]["last_error_at_ms"].as_i64().is_some_and(|at| at > failed)
        }).await;
        assert_eq!(post(&api, &format!("{QUEUE}/other/retry")).await.status, 404);
    }

    async fn cancelling_takes_dependents_along_only_where_told(place: Place) {
        make_items(place, 10).await;
        let api = Api::start(place, SLOW, &with_updates()).await;
        api.post(QUEUE, ADMIN, json!({ "name": "touch_items" })).await;
        api.post(QUEUE, ADMIN, json!({ "name": "other", "depends_on": "touch_items" })).await;
        let refused = delete(&api, &format!("{QUEUE}/touch_items")).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["errors"]), (409, &json!(["other"])));
        assert_eq!(place.rows(ROWS).await.len(), 2);
        let cancelled = delete(&api, &format!("{QUEUE}/touch_items?with_dependents=true")).await;
        let mut names = results(&cancelled);
        names.sort();
        assert_eq!(names, ["master other cancelled", "master touch_items cancelled"]);
        assert_eq!(place.rows(ROWS).await, [""; 0]);
        assert_eq!(delete(&api, &format!("{QUEUE}/touch_items")).await.status, 404);
    }

    async fn run_now_ends_a_wait(place: Place) {
        make_items(place, 10).await;
        let api = Api::start(place, SLOW, &with_updates()).await;
        let nothing = post(&api, "/api/v1/databases/master/run-now").await;
        assert_eq!(nothing.status, 409, "{}", nothing.text);
        api.post(QUEUE, ADMIN, json!({ "name": "touch_items" })).await;
        let wait = async || get(&api, "/api/v1/databases/master").await["in_hand"]["wait_ms"].clone();
        until("it rests", async || wait().await == 3_600_000).await;
        assert_eq!(touched(place).await, ["0|10"]);
        assert_eq!(results(&post(&api, "/api/v1/databases/master/run-now").await), ["master touch_items run-now"]);
        until("its batch ran", async || touched(place).await == ["1|10"]).await;
    }

    async fn a_pause_is_stored_where_that_is_asked_for(place: Place) {
        make_items(place, 10).await;
        let api = Api::start(place, FAST, &with_updates()).await;
        let stored = async || {
            let queue = place.prepared().await.queue().await.unwrap();
            queue.pause.map(|pause| pause.reason)
        };
        // Until the host restarts, and without a word why.
        assert_eq!(results(&post(&api, "/api/v1/databases/master/pause").await), ["master - paused"]);
        assert_eq!((paused(&api).await, stored().await), (true, None));
        let row = json!({ "name": "touch_items" });
        api.post(QUEUE, ADMIN, row.clone()).await;
        until("it is told as paused", async || states(&api).await == ["touch_items paused"]).await;
        // Stored, by way of all databases.
        let pause = json!({ "persist": true, "reason": "maintenance" });
        assert_eq!(results(&api.post("/api/v1/pause", ADMIN, pause).await), ["master - paused"]);
        assert_eq!(stored().await, Some(Some("maintenance".to_owned())));
        assert_eq!(get(&api, QUEUE).await["updates"][0]["reason"], "maintenance");
        assert_eq!(touched(place).await, ["0|10"]);
        // Both are lifted.
        assert_eq!(results(&post(&api, "/api/v1/databases/master/resume").await), ["master - resumed"]);
        assert_eq!((paused(&api).await, stored().await), (false, None));
        until("it runs", async || touched(place).await == ["1|10"] && states(&api).await.is_empty()).await;
        post(&api, "/api/v1/pause").await;
        assert!(paused(&api).await);
        post(&api, "/api/v1/resume").await;
        api.post(QUEUE, ADMIN, row).await;
        until("it runs again", async || touched(place).await == ["2|10"]).await;
    }
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_a_problem_and_no_panic() {
    let place = Place::sqlite();
    let api = Api::start(&place, FAST, &with_updates()).await;
    until("the host works", async || get(&api, "/api/v1/databases/master").await["lease"] == "runner").await;
    // A connection that still had something to write would mend the file: it is written until it stays.
    until("the file is none", async || {
        std::fs::write(place.file(), "this is no database at all, and long enough to be read as one".repeat(100))
            .unwrap();
        api.get(QUEUE, VIEWER).await.status == 503
    })
    .await;
    let queue = api.get(QUEUE, VIEWER).await;
    assert_eq!(
        (queue.status.as_u16(), queue.content_type.as_str()),
        (503, "application/problem+json"),
        "{}",
        queue.text
    );
    assert_eq!(queue.json()["type"], "urn:tidegate:problem:database");
}

/// An update that others keep waiting gives way: told with the reason, for as long as another is in hand.
#[tokio::test(flavor = "multi_thread")]
async fn who_gives_way_is_told_and_can_be_tried_at_once() {
    let place = &Place::postgres().await;
    make_items(place, 20).await;
    place.run("create table more as select * from items; alter table more add primary key (id)").await;
    let update = |name: &str, table: &str| {
        format!(
            "[[update]]\nname = \"{name}\"\nkind = \"backfill\"\ntable = \"{table}\"\nkey = \"id\"\nset = \"touched = 1\"\n"
        )
    };
    let updates = format!("{}{}{}", update("a", "items"), update("b", "more"), crate::support::api::with_tokens());
    let settings = "sleep_duration_ms = 100\nmax_batch_size = 1\ndefault_batch_size = 1";
    let folder = crate::support::binary::Folder::new(place, settings, "lock_timeout_ms = 100", &updates);
    let lock = place.lock_items().await;
    let api = Api::start_in(folder).await;
    for name in ["a", "b"] {
        api.post(QUEUE, ADMIN, json!({ "name": name })).await;
    }
    until("one gives way to the other", async || {
        let queue = get(&api, QUEUE).await;
        let row = queue["updates"].as_array().unwrap().iter().find(|row| row["name"] == "a").cloned().unwrap();
        let reason = row["reason"].as_str().unwrap_or_default();
        row["state"] == "backing-off" && reason.starts_with("gives way to others, ") && reason.contains("lock timeout")
    })
    .await;
    until("the other ends", async || place.rows("select count(*) from more where touched = 1").await == ["20"]).await;
    until("it waits by itself", async || states(&api).await == ["a backing-off"]).await;
    drop(lock);
    assert_eq!(
        results(&post(&api, "/api/v1/databases/master/run-now").await)[0].split(' ').take(2).collect::<Vec<_>>(),
        ["master", "a"]
    );
    until("it ends too", async || states(&api).await.is_empty()).await;
    assert_eq!(touched(place).await, ["1|20"]);
}
