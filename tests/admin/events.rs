//! The stream of events over HTTP.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::{FAST, with_updates};
use crate::support::api::{ADMIN, Api, EventStream, VIEWER};
use crate::support::place::Place;
use crate::support::run::{make_items, touched};
use crate::support::{on_both, until};

const QUEUE: &str = "/api/v1/databases/master/updates";

async fn enqueue(api: &Api) {
    let queued = api.post(QUEUE, ADMIN, json!({ "name": "touch_items" })).await;
    assert_eq!(queued.status, 201, "{}", queued.text);
}

/// The events up to and with the first of this kind.
async fn up_to(events: &mut EventStream, kind: &str) -> Vec<Value> {
    let mut seen = Vec::new();
    loop {
        let event = events.next().await.unwrap_or_else(|| panic!("the stream ended before {kind}: {seen:?}"));
        let last = event["kind"] == kind;
        seen.push(event);
        if last {
            return seen;
        }
    }
}

fn number(event: &Value) -> u64 {
    event["id"].as_str().unwrap().split_once('-').unwrap().1.parse().unwrap()
}

on_both! {
    async fn an_update_is_followed_from_its_start_to_its_end(place: Place) {
        make_items(place, 55).await;
        let api = Api::start(place, FAST, &with_updates()).await;
        until("the host works", async || {
            api.get("/api/v1/databases/master", VIEWER).await.json()["lease"] == "runner"
        }).await;
        let mut events = api.events("/api/v1/events", VIEWER).await;
        enqueue(&api).await;
        let seen = up_to(&mut events, "update-finished").await;
        // None is missing, and all are in order.
        for (before, after) in seen.iter().zip(&seen[1..]) {
            assert_eq!(number(before) + 1, number(after), "{before} {after}");
            assert!(before["at_ms"].as_i64() <= after["at_ms"].as_i64(), "{before} {after}");
        }
        let of_update: Vec<&Value> = seen.iter().filter(|event| event["update"] == "touch_items").collect();
        let kinds: Vec<&str> = of_update.iter().map(|event| event["kind"].as_str().unwrap()).collect();
        let steps: Vec<&str> = kinds.into_iter().filter(|kind| *kind != "progress").collect();
        assert_eq!((steps[0], steps[steps.len() - 1]), ("update-started", "update-finished"));
        for pair in steps[1..steps.len() - 1].chunks(2) {
            assert_eq!(pair, ["batch-started", "iteration-ended"]);
        }
        let ended = of_update.iter().filter(|event| event["kind"] == "iteration-ended");
        let items: u64 = ended.clone().map(|event| event["iteration"]["items_done"].as_u64().unwrap()).sum();
        assert_eq!((items, touched(place).await), (55, vec!["1|55".to_owned()]));
        let written = async || place.rows("select count(*) from tidegate_history").await;
        let count = ended.count().to_string();
        until("the history is written", async || written().await == [count.clone()]).await;
        // A client that comes back with what it saw last has missed nothing, and one that saw less is told so.
        let last = seen.last().unwrap()["id"].as_str().unwrap();
        let earlier = seen[0]["id"].as_str().unwrap();
        let lost = api.events_since("/api/v1/events", VIEWER, earlier).await.next().await.unwrap();
        assert_eq!(lost["kind"], "lost");
        assert!(lost["lost"].as_u64().unwrap() >= seen.len() as u64 - 1, "{lost}");
        let mut back = api.events_since("/api/v1/events", VIEWER, last).await;
        // The stream ends with the host, and the last word is that it stopped.
        api.process.signal("TERM");
        let rest = up_to(&mut events, "stopped").await;
        assert_eq!(events.next().await, None);
        assert_eq!(rest.last().unwrap()["database"], "master");
        let next = back.next().await.unwrap();
        assert!(next["kind"] == "lost" || rest.iter().any(|event| event == &next), "{next}");
    }

    async fn a_client_that_does_not_read_holds_nothing_up(place: Place) {
        make_items(place, 600).await;
        let settings = FAST.replace("max_batch_size = 10", "max_batch_size = 2");
        let api = Api::start(place, &settings, &with_updates()).await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut slow = socket.connect(api.address.trim_start_matches("http://").parse().unwrap()).await.unwrap();
        let request = format!("GET /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {VIEWER}\r\n\r\n");
        slow.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 15];
        slow.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        enqueue(&api).await;
        until("the update is done all the same", async || touched(place).await == ["1|600"]).await;
        assert_eq!(api.get("/api/v1/host", VIEWER).await.status, 200);
        // What it did not read waited for it.
        let mut text = String::new();
        let mut bytes = vec![0; 65_536];
        while !text.contains("\"kind\":\"update-finished\"") {
            let read = tokio::time::timeout(Duration::from_secs(30), slow.read(&mut bytes)).await;
            let read = read.expect("what waited comes").unwrap();
            assert!(read > 0, "the stream ended");
            text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        // An event more than there were batches, at the least, or the number of those lost.
        let batches = text.matches("\"kind\":\"batch-started\"").count();
        assert!(batches >= 300 || text.contains("\"kind\":\"lost\""), "{batches}");
    }
}

#[tokio::test]
async fn one_database_alone_can_be_followed_and_must_exist() {
    let place = Place::sqlite();
    let api = Api::start(&place, FAST, &with_updates()).await;
    let mut events = api.events("/api/v1/events?database=master", VIEWER).await;
    api.post("/api/v1/pause", ADMIN, json!({ "reason": "a test" })).await;
    let paused = up_to(&mut events, "paused").await;
    assert_eq!(paused.last().unwrap()["reason"], "a test");
    assert_eq!(api.get("/api/v1/events?database=other", VIEWER).await.status, 404);
    assert_eq!(api.get("/api/v1/events?databse=master", VIEWER).await.status, 400);
}
