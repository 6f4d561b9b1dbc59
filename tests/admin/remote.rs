//! Commands that ask a host in place of a database.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{FAST, SLOW, with_updates};
use crate::support::api::{ADMIN, Api, VIEWER};
use crate::support::binary::Folder;
use crate::support::command::{Site, Told};
use crate::support::place::Place;
use crate::support::run::{make_items, touched};
use crate::support::{on_both, until};

/// A folder without any database in it, and with both tokens.
fn client() -> Site {
    let site = Site::new("");
    site.write("admin", format!("{ADMIN}\n"));
    site.write("viewer", VIEWER);
    site
}

/// Asks the host at an address with a token.
async fn ask(site: &Site, address: &str, token: &str, arguments: &[&str]) -> Told {
    site.tidegate(&[arguments, &["--address", address, "--token-file", token]].concat()).await
}

on_both! {
    async fn a_host_is_looked_at_and_steered_from_anywhere(place: Place) {
        make_items(place, 25).await;
        let api = Api::start(place, SLOW, &with_updates()).await;
        let site = client();
        let run = async |arguments: &[&str]| {
            let told = ask(&site, &api.address, "admin", arguments).await;
            (told.code, told.out, told.err)
        };
        let said = |text: &str| (0, format!("{text}\n"), String::new());
        assert_eq!(run(&["enqueue", "touch_items", "other"]).await.1, "touch_items: queued on master\nother: queued on master\n");
        assert_eq!(run(&["enqueue", "other"]).await, said("other: already queued on master, and left as it is"));
        assert_eq!(run(&["enqueue", "unheard_of"]).await.0, 2);
        assert_eq!(run(&["pause", "--reason", "a test"]).await, said("master: paused"));
        // What a host tells is what a database tells.
        let rows = |told: &str| {
            let json: Value = serde_json::from_str(told).unwrap();
            assert_eq!(json["databases"][0]["pause"]["reason"], "a test");
            json["databases"][0]["updates"].as_array().unwrap().iter().map(|row| (row["name"].clone(), row["state"].clone())).collect::<Vec<_>>()
        };
        let over_the_api = run(&["status", "--json"]).await.1;
        let (of_the_database, code) = api.folder.tidegate(&["status", "--json"]).await;
        assert_eq!(code, 0);
        assert_eq!(rows(&over_the_api), rows(&of_the_database));
        assert!(run(&["status"]).await.1.contains("paused: a test"));
        assert_eq!(run(&["resume", "--database", "master"]).await, said("master: resumed"));
        assert_eq!(run(&["retry", "other"]).await, said("other: has not failed on master"));
        assert_eq!(run(&["retry", "--all"]).await, said("no update has failed"));
        assert_eq!(run(&["cancel", "other"]).await, said("other: cancelled on master"));
        assert_eq!(run(&["cancel", "other"]).await.0, 1);
        assert_eq!(place.rows("select update_name from background_updates").await, ["touch_items"]);
    }

    async fn what_waits_for_something_is_queued_and_told_over_a_host(place: Place) {
        make_items(place, 25).await;
        let api = Api::start(place, SLOW, &with_updates()).await;
        let site = client();
        let run = async |arguments: &[&str]| ask(&site, &api.address, "admin", arguments).await;
        assert_eq!(run(&["pause"]).await.code, 0);
        let refused = run(&["enqueue", "other", "--depends-on", "touch_itms", "--json"]).await;
        let error: Value = serde_json::from_str(refused.err.lines().last().unwrap()).unwrap();
        assert_eq!((refused.code, &error["error"]["exit_code"]), (1, &1.into()), "{}", refused.all());
        assert_eq!(run(&["enqueue", "touch_items"]).await.code, 0);
        let queued = run(&["enqueue", "other", "--depends-on", "touch_items", "--json"]).await;
        let results: Value = serde_json::from_str(&queued.out).unwrap();
        assert_eq!(results["results"], json!([{ "database": "master", "update": "other", "result": "queued" }]));
        let told: Value = serde_json::from_str(&run(&["status", "--json"]).await.out).unwrap();
        let rows = told["databases"][0]["updates"].as_array().unwrap();
        let other = rows.iter().find(|row| row["name"] == "other").unwrap();
        assert_eq!((&other["depends_on"], &other["state"]), (&"touch_items".into(), &"waits".into()), "{other}");
        // A circle is refused as the command refuses it of a database, and nothing is queued.
        let circle = run(&["enqueue", "fails", "--depends-on", "fails"]).await;
        let (same, code) = api.folder.tidegate(&["enqueue", "fails", "--depends-on", "fails"]).await;
        assert_eq!((circle.code, circle.err.trim_end()), (code, same.as_str()));
        assert!(same.contains("each would wait for the next on master: fails -> fails"), "{same}");
        let body = json!({ "name": "fails", "depends_on": "fails", "force": true });
        let over_the_api = api.post("/api/v1/databases/master/updates", ADMIN, body).await;
        assert_eq!(over_the_api.status, 422, "{}", over_the_api.text);
        assert!(over_the_api.text.contains("fails -> fails"), "{}", over_the_api.text);
        let names = place.rows("select update_name from background_updates order by update_name").await;
        assert_eq!(names, ["other", "touch_items"]);
    }

    async fn a_history_is_the_same_over_a_host(place: Place) {
        make_items(place, 25).await;
        let api = Api::start(place, FAST, &with_updates()).await;
        let site = client();
        ask(&site, &api.address, "admin", &["enqueue", "touch_items"]).await;
        until("it is done", async || touched(place).await == ["1|25"]).await;
        let arguments = ["history", "touch_items", "--json"];
        let iterations = |told: &str| serde_json::from_str::<Value>(told).unwrap()["databases"][0]["iterations"].clone();
        let over_the_api = async || iterations(&ask(&site, &api.address, "viewer", &arguments).await.out);
        until("it is written", async || over_the_api().await[0]["outcome"] == "finished").await;
        assert_eq!(over_the_api().await, iterations(&api.folder.tidegate(&arguments).await.0));
    }
}

#[tokio::test]
async fn what_keeps_a_host_from_being_asked_is_named() {
    let place = Place::sqlite();
    let api = Api::start(&place, SLOW, &with_updates()).await;
    let site = client();
    let strange = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let strange_address = format!("http://{}", strange.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = strange.accept().await {
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello").await;
        }
    });
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let told = async |address: &str, token: &str, arguments: &[&str]| {
        let told = ask(&site, address, token, arguments).await;
        let shown = told.all().replace(address, "[address]");
        format!("$ tidegate {}, as {token}\n{shown}", arguments.join(" "))
    };
    site.write("wrong", "nonsense");
    site.write("empty", "");
    let all = [
        told(&api.address, "wrong", &["status"]).await,
        told(&api.address, "empty", &["status"]).await,
        told(&api.address, "viewer", &["pause"]).await,
        told(&api.address, "viewer", &["status", "--database", "mastr"]).await,
        told(&strange_address, "viewer", &["status"]).await,
        told(&format!("http://{closed}"), "viewer", &["status"]).await,
        told("127.0.0.1:9290", "viewer", &["status"]).await,
        told(&api.address, "missing", &["status"]).await,
    ];
    insta::assert_snapshot!(all.join("\n\n"));
}

#[tokio::test]
async fn watching_looks_again_until_it_is_interrupted() {
    let place = Place::sqlite();
    make_items(&place, 25).await;
    let api = Api::start(&place, SLOW, &with_updates()).await;
    let folder = Folder::new(&place, "", "", "");
    folder.write("token", VIEWER);
    for arguments in
        [&["status", "--watch"][..], &["status", "--watch", "--address", &api.address, "--token-file", "token"]]
    {
        let mut watching = folder.start(arguments);
        watching.repeats("master (SQLite)", 3, Duration::from_secs(30)).await;
        watching.signal("INT");
        assert_eq!(watching.end(Duration::from_secs(30)).await, 0);
    }
}
