//! Tokens: how they are made, where they stand, and when they begin and cease to open the API.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tidegate_admin::access::{digest, hex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::synapse::STATUS;
use crate::assert_told;
use crate::support::api::{ADMIN, Answer, Api, VIEWER, WITHOUT_TOKENS, with_tokens};
use crate::support::binary::Folder;
use crate::support::command::Site;
use crate::support::place::Place;

const MASKS: &[(&str, &str)] = &[("tidegate_[0-9a-f]{64}", "[token]")];
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_new_token_is_printed_with_the_lines_that_make_it_count() {
    let site = Site::new("");
    let told = site.tidegate(&["token", "new", "--role", "admin", "--name", "keeper"]).await;
    let (token, lines) = told.out.split_once("\n\n").unwrap();
    assert!(lines.contains(&hex(&digest(token))), "{}", told.all());
    assert!(!told.err.contains(token) && !lines.contains(token), "it is shown once");
    let again = site.tidegate(&["token", "new", "--role", "admin", "--name", "keeper"]).await;
    assert_ne!(again.out, told.out);
    assert_told!(MASKS, "a_new_token", told.all());
    assert_told!(MASKS, "a_new_token_by_default", site.tidegate(&["token", "new"]).await.all());
    assert_told!(MASKS, "a_name_that_cannot_be", site.tidegate(&["token", "new", "--name", "my \"own\""]).await.all());
}

#[tokio::test]
async fn a_new_token_opens_the_api() {
    let place = Place::sqlite();
    let told = Site::new("").tidegate(&["token", "new", "--role", "admin"]).await;
    let (token, lines) = told.out.split_once("\n\n").unwrap();
    let api = Api::start(&place, "", &format!("[admin]\nlisten = [\"127.0.0.1:0\"]\n{lines}")).await;
    assert_eq!(api.get(STATUS, token).await.status, 200);
    assert_eq!(api.get(STATUS, ADMIN).await.status, 401);
}

#[tokio::test]
async fn a_file_of_tokens_is_read_again_at_a_reload() {
    let place = Place::sqlite();
    let line = |name: &str, role: &str, token: &str| format!("{name} {role} {}\n", hex(&digest(token)));
    let folder = Folder::new(&place, "", "", "[admin]\nlisten = [\"127.0.0.1:0\"]\ntoken_file = \"tokens\"\n");
    let file = folder.path().join("tokens");
    let write = |text: String| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(format!("# who may what\n\n{}{}", line("keeper", "admin", ADMIN), line("reader", "viewer", VIEWER)));
    let mut api = Api::start_in(folder).await;
    let open =
        async |api: &Api| (api.get(STATUS, ADMIN).await.status.as_u16(), api.get(STATUS, VIEWER).await.status.as_u16());
    assert_eq!(open(&api).await, (200, 403));

    write(line("reader", "admin", VIEWER));
    api.process.signal("HUP");
    api.process.says("reloaded the configuration", PATIENCE).await;
    assert_eq!(open(&api).await, (401, 200));

    write("reader admin\n".to_owned());
    api.process.signal("HUP");
    api.process.says("the old one stays in force", PATIENCE).await;
    assert_eq!(open(&api).await, (401, 200));
    assert!(!api.process.said().contains(VIEWER), "a token is told");
}

#[tokio::test]
async fn what_is_wrong_with_a_file_of_tokens_is_told_without_what_stands_in_it() {
    let admin = "[[database]]\nurl = \"sqlite:app.db\"\n[admin]\ntoken_file = \"tokens\"\n[[admin.token]]\nname = \"a\"\n\
                 role = \"admin\"\nsha256 = \"SHA\"\n";
    let site = Site::new(&admin.replace("SHA", &"0".repeat(64)));
    assert_told!(&[], "no_file_of_tokens", site.tidegate(&["pause"]).await.all());
    let digits = "f".repeat(64);
    site.write(
        "tokens",
        format!("b owner {digits}\nhunter2\na admin {digits}\nc viewer {digits} x\nd viewer {digits}"),
    );
    let told = site.tidegate(&["pause"]).await.all();
    assert!(!told.contains("hunter2"), "{told}");
    assert_told!(&[], "a_wrong_file_of_tokens", told);
}

#[tokio::test]
async fn a_file_of_tokens_that_everybody_can_read_is_warned_of() {
    let site = Site::new("[[database]]\nurl = \"sqlite:app.db\"\n[admin]\ntoken_file = \"tokens\"\n");
    site.write("app.db", "");
    site.write("tokens", format!("a admin {}\n", "f".repeat(64)));
    let set = |mode| fs::set_permissions(site.path().join("tokens"), fs::Permissions::from_mode(mode)).unwrap();
    set(0o640);
    assert!(!site.tidegate(&["pause"]).await.err.contains("warning"));
    set(0o644);
    assert_told!(&[], "a_file_of_tokens_to_read", site.tidegate(&["pause"]).await.all());
    set(0o666);
    assert_told!(&[], "a_file_of_tokens_to_write", site.tidegate(&["pause"]).await.all());
}

/// What a browser sends for a page whose name somebody has turned to this machine.
#[tokio::test]
async fn without_a_token_only_names_of_this_machine_are_answered() {
    let place = Place::sqlite();
    let socket = "unix_socket = \"api.sock\"\n";
    let api = Api::start(&place, "", &format!("{WITHOUT_TOKENS}{socket}")).await;
    let port = api.address.rsplit(':').next().unwrap().to_owned();
    let status = async |path: &str, host: &str| {
        let request = api.request(reqwest::Method::GET, path).header("host", host);
        Answer::of(request.send().await.unwrap()).await
    };
    for path in ["/", "/metrics", "/healthz", "/api/v1/host", "/_synapse/admin/v1/background_updates/status"] {
        for host in
            [format!("localhost:{port}"), format!("127.0.0.1:{port}"), "[::1]".to_owned(), "localhost".to_owned()]
        {
            assert_ne!(status(path, &host).await.status, 421, "{path} {host}");
        }
        for host in [format!("evil.example:{port}"), "evil.example".to_owned(), "localhost.evil.example".to_owned()] {
            let refused = status(path, &host).await;
            assert_eq!((refused.status.as_u16(), refused.content_type.as_str()), (421, "application/problem+json"));
            let problem = refused.json();
            assert!(problem["detail"].as_str().unwrap().contains(&host), "{problem}");
            assert!(problem["hint"].as_str().unwrap().contains("localhost"), "{problem}");
        }
    }
    // No browser gets at a socket in the file system.
    let mut stream = tokio::net::UnixStream::connect(api.folder.path().join("api.sock")).await.unwrap();
    stream.write_all(b"GET /api/v1/host HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    // Whoever has a token was told it: the name says nothing then.
    let api = Api::start(&place, "", &with_tokens()).await;
    let request = api.request(reqwest::Method::GET, "/api/v1/host").header("host", "tide.example").bearer_auth(VIEWER);
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_stream_of_events_ends_where_a_reload_takes_its_token_back() {
    let place = Place::sqlite();
    let mut api = Api::start(&place, "", &with_tokens()).await;
    let (mut viewers, mut keepers) =
        (api.events("/api/v1/events", VIEWER).await, api.events("/api/v1/events", ADMIN).await);
    api.folder.reconfigure(&hex(&digest(VIEWER)), &hex(&digest("another")));
    api.process.signal("HUP");
    api.process.says("reloaded the configuration", PATIENCE).await;
    // Whatever came before; then the end, though the host goes on.
    while viewers.next().await.is_some() {}
    api.post("/api/v1/pause", ADMIN, serde_json::json!({ "reason": "a test" })).await;
    while keepers.next().await.expect("an admin's stream goes on")["kind"] != "paused" {}
}
