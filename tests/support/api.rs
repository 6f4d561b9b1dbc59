//! The program with its API open, and a client of it.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use tidegate_admin::access::{digest, hex};

use super::binary::{Folder, Process};
use super::place::Place;

/// The tokens that the tests configure.
pub const VIEWER: &str = "a-viewer's-token";
pub const ADMIN: &str = "an-admin's-token";

/// `[admin]` on a port that the system chooses, with both tokens.
pub fn with_tokens() -> String {
    let token = |name: &str, role: &str, token: &str| {
        format!("[[admin.token]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{}\"\n", hex(&digest(token)))
    };
    format!(
        "[admin]\nlisten = [\"127.0.0.1:0\"]\n{}{}",
        token("reader", "viewer", VIEWER),
        token("keeper", "admin", ADMIN)
    )
}

/// `[admin]` on a port that the system chooses, without any token.
pub const WITHOUT_TOKENS: &str = "[admin]\nlisten = [\"127.0.0.1:0\"]\n";

/// A client, which wants to know who does its cryptography even where it has none to do.
pub fn client() -> Client {
    // An error only says that another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new()
}

/// A running host whose API listens.
pub struct Api {
    pub process: Process,
    pub address: String,
    pub folder: Folder,
    client: Client,
}

impl Api {
    /// `tidegate run` on this place. `rest` is what stands in the configuration beside the database and its settings,
    /// `[admin]` included.
    pub async fn start(place: &Place, background: &str, rest: &str) -> Self {
        Self::start_in(Folder::new(place, background, "", rest)).await
    }

    /// `tidegate run` in a folder.
    pub async fn start_in(folder: Folder) -> Self {
        Self::start_as(folder, &["run"]).await
    }

    /// `tidegate run`, by whatever command, in a folder.
    pub async fn start_as(folder: Folder, command: &[&str]) -> Self {
        let process = folder.start(command);
        Self::of(folder, process).await
    }

    /// The API of a host that was started in this folder.
    pub async fn of(folder: Folder, mut process: Process) -> Self {
        process.says("the API listens on http://", Duration::from_secs(30)).await;
        let said = process.said();
        let (_, after) = said.split_once("the API listens on http://").unwrap();
        let address = format!("http://{}", after.lines().next().unwrap());
        Self { process, address, folder, client: client() }
    }

    /// A request without a token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.address))
    }

    /// Sends a request that something else made.
    pub async fn send(&self, request: reqwest::Request) -> Response {
        self.client.execute(request).await.unwrap()
    }

    /// A GET with a token.
    pub async fn get(&self, path: &str, token: &str) -> Answer {
        Answer::of(self.request(Method::GET, path).bearer_auth(token).send().await.unwrap()).await
    }

    /// A POST of a JSON body with a token.
    pub async fn post(&self, path: &str, token: &str, body: serde_json::Value) -> Answer {
        Answer::of(self.request(Method::POST, path).bearer_auth(token).json(&body).send().await.unwrap()).await
    }
}

impl Api {
    /// A stream of events.
    pub async fn events(&self, path: &str, token: &str) -> EventStream {
        EventStream::of(self.request(Method::GET, path).bearer_auth(token)).await
    }

    /// A stream of events, asked for by a client that has seen some.
    pub async fn events_since(&self, path: &str, token: &str, last: &str) -> EventStream {
        EventStream::of(self.request(Method::GET, path).bearer_auth(token).header("last-event-id", last)).await
    }
}

/// Server-sent events.
pub struct EventStream {
    response: Response,
    text: String,
}

impl EventStream {
    async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The data of the next event, whose `id`, where it has one, is that of the message; `None` at the end.
    pub async fn next(&mut self) -> Option<serde_json::Value> {
        loop {
            while let Some((message, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                    line.map(|line| line.trim_start().to_owned())
                };
                let (id, data) = (field("id"), field("data"));
                self.text = rest.to_owned();
                let Some(data) = data else { continue };
                let data: serde_json::Value = serde_json::from_str(&data).unwrap();
                assert_eq!(data["id"].as_str(), id.as_deref());
                return Some(data);
            }
            let chunk = tokio::time::timeout(Duration::from_secs(30), self.response.chunk()).await;
            let chunk = chunk.expect("an event comes, or the end").ok()??;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

/// An answer, read to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: StatusCode,
    pub content_type: String,
    pub text: String,
}

impl Answer {
    pub async fn of(response: Response) -> Self {
        let content_type = response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
        Self {
            status: response.status(),
            content_type: content_type.unwrap_or_default(),
            text: response.text().await.unwrap(),
        }
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}
