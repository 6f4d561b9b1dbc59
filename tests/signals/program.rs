//! Signals through the program: its command, its status, its API and metrics, a reload, and what hangs.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::api::{ADMIN, Api, VIEWER, with_tokens};
use crate::support::binary::Folder;
use crate::support::place::{Place, row};
use crate::support::run::{make_items, touched};
use crate::support::{on_both, until};

/// A liveness bound.
const PATIENCE: Duration = Duration::from_secs(30);

const TOUCH: &str = "[[update]]\nname = \"touch\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = \"touched = touched + 1\"\n";

const COUNT: &str = "[[signal]]\nname = \"rows\"\nkind = \"sql\"\nsql = \"select count(*) from items\"\nunit = \"rows\"\ninterval_ms = 100\n";

/// What every database of a system has, and the machine.
fn built_in(place: &Place) -> Vec<&'static str> {
    let sqlite = ["busy-retries", "probe-latency", "wal-size", "write-lock"].as_slice();
    let postgres = [
        "active-sessions",
        "autovacuum",
        "checkpoint-pressure",
        "oldest-transaction",
        "probe-latency",
        "replication-lag",
        "replication-lag-bytes",
        "waiting-sessions",
        "wal-rate",
    ]
    .as_slice();
    let system = if place.either("sqlite", "postgres") == "sqlite" { sqlite } else { postgres };
    [&["load"], system].concat()
}

fn by_name(signals: &Value) -> BTreeMap<String, Value> {
    let list = signals["signals"].as_array().unwrap_or_else(|| panic!("{signals}"));
    list.iter().map(|signal| (signal["name"].as_str().unwrap().to_owned(), signal.clone())).collect()
}

on_both! {
    async fn the_command_measures_by_itself(place: Place) {
        make_items(place, 10).await;
        let broken = "[[signal]]\nname = \"broken\"\nkind = \"sql\"\nsql = \"select count(*) from missing\"\n";
        let folder = Folder::new(place, "", "", &format!("{COUNT}{broken}[[signal]]\nname = \"file\"\nkind = \"file\"\npath = \"n\"\n"));
        folder.write("n", "7");
        let (said, code) = folder.tidegate(&["signals", "--json"]).await;
        let json: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!((code, &json["version"]), (0, &json!(1)));
        let signals = by_name(&json);
        for name in built_in(place) {
            let signal = &signals[name];
            let unknown = ["autovacuum", "replication-lag", "replication-lag-bytes"].contains(&name);
            assert_eq!(signal["value"].is_null(), unknown, "{signal}");
            assert_eq!(signal["error"].is_string(), unknown, "{signal}");
            assert_eq!(signal["database"], if name == "load" { Value::Null } else { json!("master") });
        }
        assert_eq!((&signals["rows"]["value"], &signals["rows"]["unit"]), (&json!(10.0), &json!("rows")));
        assert_eq!((&signals["file"]["value"], &signals["file"]["database"]), (&json!(7.0), &Value::Null));
        assert!(signals["broken"]["error"].as_str().unwrap().contains("missing"), "{}", signals["broken"]);
        let (said, code) = folder.tidegate(&["signals", "--database", "master"]).await;
        let line = |name: &str| said.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{said}"));
        assert_eq!(code, 0, "{said}");
        assert!(line(" rows ").contains(" 10 rows "), "{said}");
        assert!(line(" broken ").contains("missing"), "{said}");
        assert!(place.rows("select count(*) from items").await == ["10"], "it changes nothing");
        let (said, code) = folder.tidegate(&["signals", "--database", "mastre"]).await;
        assert!(code == 2 && said.contains("did you mean \"master\"?"), "{said}");
    }

    async fn a_host_tells_them_by_every_way_and_a_reload_changes_them(place: Place) {
        make_items(place, 10).await;
        let signals = "[signals]\ninterval_ms = 100\n";
        let api = Api::start(place, "", &format!("{TOUCH}{signals}{COUNT}{}", with_tokens())).await;
        let get = async |path: &str| by_name(&api.get(path, VIEWER).await.json());
        until("the rows are counted", async || get("/api/v1/signals").await["rows"]["value"] == json!(10.0)).await;
        let all = get("/api/v1/signals").await;
        let mut expected: Vec<&str> = built_in(place);
        // What a host alone can tell, too.
        expected.extend(["rows", "workers"]);
        expected.sort_unstable();
        assert_eq!(all.keys().map(String::as_str).collect::<Vec<_>>(), expected);
        assert_eq!(get("/api/v1/databases/master/signals").await.keys().collect::<Vec<_>>(), all.keys().collect::<Vec<_>>());
        assert!(all["rows"]["age_ms"].as_u64().unwrap() < 10_000);
        let metrics = api.get("/metrics", VIEWER).await.text;
        assert!(metrics.contains("tidegate_signal_value{database=\"master\",signal=\"rows\"} 10\n"), "{metrics}");
        assert!(metrics.contains("tidegate_signal_age_seconds{database=\"master\",signal=\"rows\"} "), "{metrics}");
        assert!(metrics.contains("tidegate_signal_value{database=\"\",signal=\"load\"} "), "{metrics}");
        api.folder.write("token", VIEWER);
        let remote = ["--address", api.address.as_str(), "--token-file", "token"];
        let (said, code) = api.folder.tidegate(&[&["signals"][..], &remote].concat()).await;
        assert!(code == 0 && said.contains(" 10 rows "), "{said}");
        let (said, code) = api.folder.tidegate(&[&["status"][..], &remote].concat()).await;
        assert!(code == 0 && said.contains("signals: ") && said.contains("rows 10 rows"), "{said}");
        // A wrong one changes nothing; a right one replaces them all.
        api.folder.reconfigure("name = \"rows\"", "name = \"load\"");
        let refused = api.post("/api/v1/reload", ADMIN, json!({})).await;
        assert!(refused.status == 409 && refused.text.contains("built in"), "{}", refused.text);
        api.folder.reconfigure("name = \"load\"", "name = \"rows-now\"");
        api.process.signal("HUP");
        until("it is sampled under its new name", async || {
            let signals = get("/api/v1/signals").await;
            !signals.contains_key("rows") && signals.get("rows-now").is_some_and(|signal| signal["value"] == json!(10.0))
        })
        .await;
    }

    async fn each_signal_is_sampled_as_often_as_configured(place: Place) {
        make_items(place, 10).await;
        let file = |name: &str, more: &str| format!("[[signal]]\nname = \"{name}\"\nkind = \"file\"\npath = \"n\"\n{more}");
        let files = [file("often", "interval_ms = 100\n"), file("seldom", "")].concat();
        let folder = Folder::new(place, "", "", &format!("[signals]\ninterval_ms = 86400000\n{files}{}", with_tokens()));
        folder.write("n", "1");
        let api = Api::start_in(folder).await;
        let value = async |name: &str| by_name(&api.get("/api/v1/signals", VIEWER).await.json())[name]["value"].clone();
        until("both are read", async || value("often").await == json!(1.0) && value("seldom").await == json!(1.0)).await;
        api.folder.write("n", "2");
        until("one is read again", async || value("often").await == json!(2.0)).await;
        assert_eq!(value("seldom").await, json!(1.0));
    }

    /// An endpoint that takes connections and never answers, sampled while an update runs and the host ends.
    async fn what_hangs_delays_neither_a_batch_nor_the_end(place: Place) {
        make_items(place, 500).await;
        place.prepared().await.enqueue(&row("touch")).await.unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let hangs = format!(
            "[[signal]]\nname = \"hangs\"\nkind = \"http\"\nurl = \"http://{}/\"\ntimeout_ms = 60000\ninterval_ms = 100\n",
            silent.local_addr().unwrap()
        );
        let rest = format!("{TOUCH}{hangs}{}", with_tokens());
        let mut api = Api::start(place, "sleep_enabled = false\nmax_batch_size = 10", &rest).await;
        until("all is done", async || touched(place).await == ["1|500"]).await;
        let signal = by_name(&api.get("/api/v1/signals", VIEWER).await.json()).remove("hangs").unwrap();
        assert_eq!(signal["value"], Value::Null);
        api.process.signal("TERM");
        assert_eq!(api.process.end(PATIENCE).await, 0, "{}", api.process.said());
    }

    async fn a_query_gives_one_number_and_is_not_read_further(place: Place) {
        make_items(place, 3).await;
        let signal = |name: &str, sql: &str| format!("[[signal]]\nname = \"{name}\"\nkind = \"sql\"\nsql = \"{sql}\"\n");
        let endless = place.either(
            "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n",
            "select generate_series(1, 1000000000000)",
        );
        let signals = [signal("one", "select 5;"), signal("rows", "select id from items"), signal("endless", endless)];
        let (said, code) = Folder::new(place, "", "", &signals.concat()).tidegate(&["signals", "--json"]).await;
        let signals = by_name(&serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}")));
        assert_eq!((code, &signals["one"]["value"]), (0, &json!(5.0)), "{said}");
        for name in ["rows", "endless"] {
            let error = signals[name]["error"].as_str().unwrap_or_default();
            assert!(signals[name]["value"].is_null() && error.contains("row"), "{name}: {error}");
        }
    }

    async fn nothing_is_sampled_where_that_is_off_or_nobody_could_read_it(place: Place) {
        make_items(place, 10).await;
        let sessions = "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'tidegate/%' \
                        and (application_name like '%/signals' or application_name like '%/probe')";
        let off = format!("{TOUCH}[signals]\nenabled = false\n{}", with_tokens());
        let api = Api::start(place, "", &off).await;
        assert_eq!(api.get("/api/v1/signals", VIEWER).await.json(), json!({ "signals": [] }));
        let (said, code) = api.folder.tidegate(&["signals"]).await;
        assert!(code == 0 && said.contains("no signal is sampled"), "{said}");
        let alone = Folder::new(place, "", "", TOUCH);
        place.prepared().await.enqueue(&row("touch")).await.unwrap();
        drop(api);
        assert_eq!(alone.tidegate(&["run", "--until-done"]).await.1, 0);
        if place.either("sqlite", "postgres") == "postgres" {
            assert_eq!(place.rows(sessions).await, ["0"]);
        }
    }
}

/// An address that sends whoever asks to another one, which has a number.
#[tokio::test]
async fn a_redirect_is_an_error_and_is_not_followed() {
    let answer = |head: &str| format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: 1\r\n\r\n7");
    let there = answer("200 OK");
    let (target, asked) = serve(move |_| there.clone());
    let elsewhere = answer(&format!("302 Found\r\nlocation: {target}"));
    let (sends_on, _) = serve(move |_| elsewhere.clone());
    let signal = |name: &str, url: &str| format!("[[signal]]\nname = \"{name}\"\nkind = \"http\"\nurl = \"{url}\"\n");
    let folder = Folder::new(&Place::sqlite(), "", "", &signal("moved", &sends_on));
    let (said, code) = folder.tidegate(&["signals", "--json"]).await;
    let moved = by_name(&serde_json::from_str(&said).unwrap()).remove("moved").unwrap();
    assert_eq!((code, &moved["value"]), (0, &Value::Null), "{moved}");
    assert!(moved["error"].as_str().unwrap().contains("302"), "{moved}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    let folder = Folder::new(&Place::sqlite(), "", "", &signal("there", &target));
    let (said, _) = folder.tidegate(&["signals", "--json"]).await;
    assert_eq!(by_name(&serde_json::from_str(&said).unwrap())["there"]["value"], json!(7.0));
    assert!(asked.load(Ordering::SeqCst) > 0);
}

/// What is asked of the server, whom it lets in, how long is waited for it, and which databases are asked a query.
#[tokio::test]
async fn what_is_said_of_a_signal_changes_what_is_measured() {
    let (address, _) = serve(|request| {
        let target = request.split(' ').nth(1).unwrap_or_default();
        let vector = |value: u32| {
            let result = json!([{ "metric": {}, "value": [1, value.to_string()] }]);
            json!({ "status": "success", "data": { "resultType": "vector", "result": result } })
        };
        let (status, body) = match target {
            "/guarded" if !request.to_lowercase().contains("authorization: bearer of-mine\r\n") => {
                ("401 Unauthorized", json!(0))
            }
            "/guarded" => ("200 OK", json!({ "queue": { "depth": 7 }, "depth": 8 })),
            "/slow" => {
                std::thread::sleep(Duration::from_millis(500));
                ("200 OK", json!(9))
            }
            _ if target.contains("lag") => ("200 OK", vector(3)),
            _ => ("200 OK", vector(4)),
        };
        let body = body.to_string();
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    });
    let signal =
        |name: &str, kind: &str, keys: &str| format!("[[signal]]\nname = \"{name}\"\nkind = \"{kind}\"\n{keys}");
    let at = |path: &str, keys: &str| format!("url = \"{address}{path}\"\n{keys}");
    let token = "token = \"of-mine\"\n";
    let signals = [
        "[signals]\ntimeout_ms = 30000\n[[database]]\nname = \"other\"\nurl = \"sqlite:other.db\"\n".to_owned(),
        signal("stranger", "http", &at("guarded", "pointer = \"/depth\"\n")),
        signal("shallow", "http", &at("guarded", &format!("pointer = \"/depth\"\n{token}"))),
        signal("deep", "http", &at("guarded", &format!("pointer = \"/queue/depth\"\n{token}"))),
        signal("hasty", "http", &at("slow", "timeout_ms = 100\n")),
        signal("patient", "http", &at("slow", "timeout_ms = 60000\n")),
        signal("lag", "prometheus", &at("", "query = \"max(lag)\"\n")),
        signal("load-of-all", "prometheus", &at("", "query = \"sum(load)\"\n")),
        signal("everywhere", "sql", "sql = \"select 5\"\n"),
        signal("here", "sql", "sql = \"select 6\"\ndatabases = [\"other\"]\n"),
    ];
    let place = Place::sqlite();
    make_items(&place, 1).await;
    let folder = Folder::new(&place, "", "", &signals.concat());
    folder.write("other.db", "");
    let (said, code) = folder.tidegate(&["signals", "--json"]).await;
    let json: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(code, 0, "{said}");
    let of = |name: &str| {
        let all = json["signals"].as_array().unwrap().iter().filter(|signal| signal["name"] == name);
        all.map(|signal| (signal["database"].as_str(), signal["value"].as_f64())).collect::<Vec<_>>()
    };
    for (name, value) in [("stranger", None), ("shallow", Some(8.0)), ("deep", Some(7.0)), ("hasty", None)] {
        assert_eq!(of(name), [(None, value)], "{name}: {said}");
    }
    for (name, value) in [("patient", 9.0), ("lag", 3.0), ("load-of-all", 4.0)] {
        assert_eq!(of(name), [(None, Some(value))], "{name}: {said}");
    }
    assert_eq!(of("everywhere"), [(Some("master"), Some(5.0)), (Some("other"), Some(5.0))], "{said}");
    assert_eq!(of("here"), [(Some("other"), Some(6.0))], "{said}");
}

#[tokio::test]
async fn what_hangs_is_given_up_after_the_configured_time() {
    let (address, _) = serve(|_| {
        std::thread::sleep(Duration::from_millis(500));
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n9".to_owned()
    });
    for (timeout_ms, expected) in [(100, None), (30_000, Some(9.0))] {
        let signals = format!(
            "[signals]\ntimeout_ms = {timeout_ms}\n[[signal]]\nname = \"slow\"\nkind = \"http\"\nurl = \"{address}\"\n"
        );
        let (said, _) = Folder::new(&Place::sqlite(), "", "", &signals).tidegate(&["signals", "--json"]).await;
        let slow = by_name(&serde_json::from_str(&said).unwrap()).remove("slow").unwrap();
        assert_eq!(slow["value"].as_f64(), expected, "{timeout_ms}: {slow}");
    }
}

/// Answers each request as told; its address, and how many asked.
fn serve(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicU32::new(0));
    let (counted, answer) = (asked.clone(), Arc::new(answer));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut request = [0; 4_096];
                let read = stream.read(&mut request).unwrap_or_default();
                let _ = stream.write_all(answer(&String::from_utf8_lossy(&request[..read])).as_bytes());
            });
        }
    });
    (address, asked)
}
