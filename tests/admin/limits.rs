//! What a client may take, each limit once low and once high.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::with_updates;
use crate::support::api::{ADMIN, Api, VIEWER, with_tokens};
use crate::support::on_both;
use crate::support::place::Place;

/// Long enough for whatever is to come; how long is not what these tests are about.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than the low limits, and than an answer that nothing keeps back.
const WHILE: Duration = Duration::from_millis(1_500);
/// A low limit, in milliseconds.
const LOW: u64 = 500;
/// A high one.
const HIGH: u64 = 3_600_000;

async fn limited(limit: &str) -> Api {
    Api::start(&Place::sqlite(), "", &with_limit(&with_tokens(), limit)).await
}

fn with_limit(rest: &str, limit: &str) -> String {
    rest.replacen("[admin]\n", &format!("[admin]\n{limit}\n"), 1)
}

/// A connection of which every byte is the test's own.
struct Raw(TcpStream);

impl Raw {
    async fn open(api: &Api) -> Self {
        Self(TcpStream::connect(api.address.trim_start_matches("http://")).await.unwrap())
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// The first line of an answer; `None` where the connection ends without one.
    async fn status(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n") {
            match self.0.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return None,
            }
        }
        Some(String::from_utf8(head).unwrap().trim_end().to_owned())
    }

    async fn status_in_time(&mut self) -> Option<String> {
        timeout(PATIENCE, self.status()).await.expect("an answer or the end")
    }
}

/// Where an update is queued.
const QUEUE: &str = "/api/v1/databases/master/updates";
const HEALTH: &str = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK";

#[tokio::test]
async fn a_header_may_be_as_long_as_configured() {
    let long = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(20_000));
    for (limit, expected) in [(8_192, "HTTP/1.1 431 Request Header Fields Too Large"), (65_536, OK)] {
        let api = limited(&format!("max_header_bytes = {limit}")).await;
        let mut raw = Raw::open(&api).await;
        raw.send(&long).await;
        assert_eq!(raw.status_in_time().await.as_deref(), Some(expected), "{limit}");
    }
}

#[tokio::test]
async fn a_header_may_take_as_long_as_configured() {
    for (limit, expected) in [(LOW, None), (HIGH, Some(OK))] {
        let api = limited(&format!("header_timeout_ms = {limit}")).await;
        let mut raw = Raw::open(&api).await;
        let (half, rest) = HEALTH.split_at(20);
        raw.send(half).await;
        // Cut off, or nothing is said for as long as anybody waits.
        let patience = if expected.is_some() { WHILE } else { PATIENCE };
        let status = match timeout(patience, raw.0.readable()).await {
            Ok(_) => raw.status_in_time().await.filter(|status| !status.contains("408")),
            Err(_) => {
                raw.send(rest).await;
                raw.status_in_time().await
            }
        };
        assert_eq!(status.as_deref(), expected, "{limit}");
    }
}

#[tokio::test]
async fn as_many_are_connected_as_configured_and_who_waits_gets_the_next_place() {
    for (limit, both) in [(1, false), (2, true)] {
        let api = limited(&format!("max_connections = {limit}")).await;
        let (mut first, mut second) = (Raw::open(&api).await, Raw::open(&api).await);
        first.send(HEALTH).await;
        assert_eq!(first.status_in_time().await.as_deref(), Some(OK));
        second.send(HEALTH).await;
        assert_eq!(timeout(WHILE, second.0.readable()).await.is_ok(), both, "{limit}");
        drop(first);
        assert_eq!(second.status_in_time().await.as_deref(), Some(OK), "{limit}");
    }
}

/// Answers that nobody takes: whoever asks for them loses the connection, and the one place there is.
#[tokio::test]
async fn who_reads_nothing_is_waited_for_as_long_as_configured() {
    for (limit, expected) in [(LOW, Some(OK)), (HIGH, None)] {
        let api = limited(&format!("max_connections = 1\nrequest_timeout_ms = {limit}")).await;
        let mut deaf = Raw::open(&api).await;
        let ask = "GET /api/v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";
        let asking = ask.repeat(2_000);
        // Once the answers find no room any more, no question does.
        let _ = timeout(WHILE, deaf.0.write_all(asking.as_bytes())).await;
        let mut other = Raw::open(&api).await;
        other.send(HEALTH).await;
        let patience = if expected.is_some() { PATIENCE } else { WHILE };
        let status = timeout(patience, other.status()).await.ok().flatten();
        assert_eq!(status.as_deref(), expected, "{limit}");
    }
}

on_both! {
    async fn an_answer_may_take_as_long_as_configured(place: Place) {
        place.prepared().await;
        for (limit, slow) in [(LOW, true), (HIGH, false)] {
            let rest = with_limit(&with_updates(), &format!("request_timeout_ms = {limit}"));
            let api = Api::start(place, "", &rest).await;
            // Another row each time, or it would be there already.
            let body = json!({ "name": if slow { "other" } else { "touch_items" } });
            let held = hold_queue(place).await;
            let mut answer = tokio::spawn({
                let request = api.request(reqwest::Method::POST, QUEUE);
                async move { request.bearer_auth(ADMIN).json(&body).send().await.unwrap().status() }
            });
            let early = timeout(if slow { PATIENCE } else { WHILE }, &mut answer).await.ok();
            assert_eq!(early.is_some(), slow, "{limit}");
            drop(held);
            let status = match early {
                Some(status) => status.unwrap(),
                None => timeout(PATIENCE, answer).await.expect("an answer").unwrap(),
            };
            assert_eq!(status.as_u16() == 503, slow, "{limit}: {status}");
            assert_eq!(api.get("/api/v1/host", VIEWER).await.status, 200);
        }
    }
}

/// Has whoever writes to the queue wait until what comes back is dropped.
async fn hold_queue(place: &Place) -> Box<dyn Send> {
    match place.either("sqlite", "postgres") {
        "sqlite" => place.lock_items().await,
        _ => {
            let client = crate::support::postgres::connect(&place.url).await;
            client.batch_execute("begin; lock table background_updates in share mode").await.unwrap();
            Box::new(client)
        }
    }
}
