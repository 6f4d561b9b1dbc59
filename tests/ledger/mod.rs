//! What was done to updates, by whom and when: every way to act leaves its line, and whoever requires an update is told.

mod require;

use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::redirect::Policy;
use serde_json::json;

use crate::support::api::{ADMIN, Api, VIEWER, with_tokens};
use crate::support::binary::Folder;
use crate::support::place::{Place, row};
use crate::support::run::make_items;
use crate::support::{on_both, until};

const ENABLED: &str = "/_synapse/admin/v1/background_updates/enabled";
const START_JOB: &str = "/_synapse/admin/v1/background_updates/start_job";

/// Looks at the queue often, and gives an update up at its first failure.
const SOON: &str = "sleep_enabled = false\nmax_attempts = 1\npoll_interval_ms = 50\n";

/// An update that can be done once `made` is there, one that can be done at once, and one that takes a walk.
const UPDATES: &str = "[[update]]\nname = \"fails\"\nkind = \"sql\"\nsql = \"insert into made values (1)\"\n\
                       [[update]]\nname = \"noop\"\nkind = \"noop\"\n\
                       [[update]]\nname = \"touch\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = \"touched = touched + 1\"\n\
                       [[update]]\nname = \"sure\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = \"touched = 7\"\nverify = \"full\"\n\
                       [[job]]\nname = \"job\"\n[[job.update]]\nupdate = \"noop\"\n";

/// The entries, the oldest first, as action, update and who; the names of machines and numbers of processes left out.
async fn entries(place: &Place) -> Vec<String> {
    let select = "select action, coalesce(update_name, ''), actor from tidegate_ledger order by id";
    let shortened = |line: String| {
        let (rest, actor) = line.rsplit_once('|').unwrap();
        let words: Vec<&str> = actor.split(' ').collect();
        match words[..] {
            ["host", _, "process", _] => format!("{rest}|host"),
            ["user", _, "on", _] => format!("{rest}|user"),
            _ => format!("{rest}|{actor}"),
        }
    };
    place.rows(select).await.into_iter().map(shortened).collect()
}

/// Waits for new entries, and takes those that are there.
struct Reader<'a> {
    place: &'a Place,
    read: usize,
}

impl Reader<'_> {
    /// Waits until these entries are there, and no others beside them.
    async fn expect(&mut self, way: &str, expected: &[&str]) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            let found = entries(self.place).await.split_off(self.read);
            if found.len() >= expected.len() || std::time::Instant::now() > deadline {
                assert_eq!(found, expected, "{way}");
                self.read += found.len();
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

async fn command(folder: &Folder, arguments: &[&str]) {
    let (said, code) = folder.tidegate(arguments).await;
    assert_eq!(code, 0, "{arguments:?}: {said}");
}

on_both! {
    async fn commands_and_sql_leave_their_lines(place: Place) {
        place.prepared().await.close().await;
        let folder = Folder::new(place, SOON, "", UPDATES);
        let mut ledger = Reader { place, read: 0 };
        command(&folder, &["enqueue", "noop"]).await;
        ledger.expect("enqueue", &["queued|noop|user"]).await;
        command(&folder, &["enqueue", "noop"]).await;
        ledger.expect("enqueue what is queued", &[]).await;
        command(&folder, &["cancel", "noop"]).await;
        ledger.expect("cancel", &["cancelled|noop|user"]).await;
        command(&folder, &["pause"]).await;
        ledger.expect("pause", &["paused||user"]).await;
        command(&folder, &["resume"]).await;
        ledger.expect("resume", &["resumed||user"]).await;
        command(&folder, &["resume"]).await;
        ledger.expect("resume what is not paused", &[]).await;
        // With no host to see it, the next who acts does.
        place.run("insert into background_updates (update_name, progress_json) values ('noop', '{}')").await;
        command(&folder, &["cancel", "noop"]).await;
        ledger.expect("cancel what SQL queued", &["queued|noop|sql", "cancelled|noop|user"]).await;
        command(&folder, &["enqueue", "noop"]).await;
        place.run("delete from background_updates").await;
        command(&folder, &["enqueue", "noop"]).await;
        ledger.expect("enqueue what SQL removed", &["queued|noop|user", "cancelled|noop|sql", "queued|noop|user"]).await;
        command(&folder, &["run", "--until-done"]).await;
        ledger.expect("run", &["started|noop|host", "finished|noop|host"]).await;
        let mut host = folder.start(&["run"]);
        place.run("insert into background_updates (update_name, progress_json) values ('fails', '{}')").await;
        ledger.expect("insert by SQL", &["queued|fails|sql", "failed|fails|host", "quarantined|fails|host"]).await;
        let changed = "update background_updates set progress_json = '{ }' where update_name = 'fails'";
        place.run(changed).await;
        ledger.expect("progress changed by SQL", &["retried|fails|sql", "failed|fails|host", "quarantined|fails|host"]).await;
        place.run("create table made (n bigint)").await;
        command(&folder, &["retry", "fails"]).await;
        ledger.expect("retry", &["retried|fails|user", "started|fails|host", "finished|fails|host"]).await;
        place.run("insert into background_updates (update_name, progress_json) values ('nobody', '{}')").await;
        ledger.expect("insert what nobody defines", &["queued|nobody|sql"]).await;
        place.run("delete from background_updates where update_name = 'nobody'").await;
        ledger.expect("delete by SQL", &["cancelled|nobody|sql"]).await;
        host.kill();
    }

    async fn the_api_and_the_page_leave_their_lines(place: Place) {
        place.prepared().await.close().await;
        place.run("create table made (n bigint)").await;
        let api = Api::start(place, SOON, &format!("{UPDATES}{}", with_tokens())).await;
        let root = "/api/v1/databases/master";
        let post = async |path: &str, body: serde_json::Value| {
            let answer = api.post(path, ADMIN, body).await;
            assert!(answer.status.is_success(), "{path}: {}", answer.text);
        };
        let mut ledger = Reader { place, read: 0 };
        post(&format!("{root}/pause"), json!({"persist": true, "reason": "maintenance"})).await;
        ledger.expect("pause", &["paused||token keeper"]).await;
        post(&format!("{root}/updates"), json!({"name": "noop"})).await;
        ledger.expect("enqueue", &["queued|noop|token keeper"]).await;
        let cancel = api.request(reqwest::Method::DELETE, &format!("{root}/updates/noop")).bearer_auth(ADMIN);
        assert!(cancel.send().await.unwrap().status().is_success());
        ledger.expect("cancel", &["cancelled|noop|token keeper"]).await;
        post("/api/v1/resume", json!(null)).await;
        ledger.expect("resume", &["resumed||token keeper"]).await;
        post(&format!("{root}/pause"), json!({})).await;
        ledger.expect("pause until the host restarts", &["paused||token keeper"]).await;
        post(&format!("{root}/resume"), json!(null)).await;
        ledger.expect("resume", &["resumed||token keeper"]).await;
        post(ENABLED, json!({"enabled": false})).await;
        ledger.expect("Synapse's API pauses", &["paused||token keeper"]).await;
        post(START_JOB, json!({"job_name": "job"})).await;
        ledger.expect("Synapse's API starts a job", &["queued|noop|token keeper"]).await;
        post(ENABLED, json!({"enabled": true})).await;
        ledger.expect("Synapse's API resumes", &["resumed||token keeper", "started|noop|host", "finished|noop|host"]).await;
        place.run("drop table made").await;
        post(&format!("{root}/updates"), json!({"name": "fails"})).await;
        let failed = ["queued|fails|token keeper", "failed|fails|host", "quarantined|fails|host"];
        ledger.expect("enqueue what fails", &failed).await;
        post(&format!("{root}/updates/fails/retry"), json!(null)).await;
        let again = ["retried|fails|token keeper", "failed|fails|host", "quarantined|fails|host"];
        ledger.expect("retry", &again).await;

        let client = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
        let form = |path: &str, body: String| {
            let request = client.post(format!("{}{path}", api.address)).body(body);
            request.header("content-type", "application/x-www-form-urlencoded")
        };
        let login = form("/login", format!("token={ADMIN}")).send().await.unwrap();
        let cookie = login.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
        let page = client.get(format!("{}/", api.address)).header(COOKIE, &cookie).send().await.unwrap();
        let page = page.text().await.unwrap();
        let seal = page.split("name=\"seal\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        for (button, expected) in [
            ("pause", &["paused||token keeper"][..]),
            ("resume", &["resumed||token keeper"]),
            ("retry", &again),
            ("cancel", &["cancelled|fails|token keeper"]),
        ] {
            let sealed = format!("database=master&update=fails&seal={seal}");
            let sent = form(&format!("/do/{button}"), sealed).header(COOKIE, &cookie).send().await.unwrap();
            assert_eq!(sent.status(), 303, "{button}");
            ledger.expect(button, expected).await;
        }

        // What the API tells of it, in pages.
        let all: Vec<serde_json::Value> = api.get(&format!("{root}/ledger"), VIEWER).await.json()["entries"].as_array().unwrap().clone();
        assert_eq!(all.len(), ledger.read);
        let mut paged = Vec::new();
        let mut before = String::new();
        loop {
            let page = api.get(&format!("{root}/ledger?limit=7{before}"), VIEWER).await.json();
            paged.extend(page["entries"].as_array().unwrap().clone());
            match page["next_before"].as_i64() {
                Some(next) => before = format!("&before={next}"),
                None => break,
            }
        }
        assert_eq!(paged, all);
        let only = api.get(&format!("{root}/ledger?update=noop"), VIEWER).await.json();
        assert!(only["entries"].as_array().unwrap().iter().all(|entry| entry["update"] == "noop"), "{only}");
        for wrong in ["limit=0", "limit=1001", "update=", "befor=3"] {
            assert_eq!(api.get(&format!("{root}/ledger?{wrong}"), VIEWER).await.status, 400, "{wrong}");
        }
    }

    async fn who_accepts_and_approves_is_named(place: Place) {
        place.prepared().await.close().await;
        make_items(place, 100).await;
        let gated = UPDATES.replace("touched + 1\"\n", "touched + 1\"\ncanary = 10\n");
        let folder = Folder::new(place, SOON, "", &format!("{gated}{}", with_tokens()));
        let mut ledger = Reader { place, read: 0 };
        let stops = ["started|touch|host", "awaits-approval|touch|host"];
        command(&folder, &["enqueue", "touch"]).await;
        assert_eq!(folder.tidegate(&["run", "--until-done"]).await.1, 3);
        ledger.expect("run to where it stops", &[&["queued|touch|user"], &stops[..]].concat()).await;
        let (said, code) = folder.tidegate(&["require", "touch"]).await;
        assert!(code == 3 && said.contains("not yet: queued; awaiting approval: 10 rows are done"), "{said}");
        folder.configure(&folder.configuration().replace("touched + 1\"", "touched + 2\""));
        command(&folder, &["accept", "touch"]).await;
        ledger.expect("accept", &["accepted|touch|user"]).await;
        command(&folder, &["accept", "touch"]).await;
        ledger.expect("accept what has not changed", &[]).await;
        command(&folder, &["approve", "touch"]).await;
        ledger.expect("approve", &["approved|touch|user"]).await;
        command(&folder, &["approve", "touch"]).await;
        ledger.expect("approve what does not wait", &[]).await;
        command(&folder, &["run", "--until-done"]).await;
        ledger.expect("run to its end", &["finished|touch|host"]).await;
        let words = "select action, words from tidegate_ledger where words is not null order by id";
        let words = place.rows(words).await;
        assert!(words[0].starts_with("awaits-approval|10 rows are done"), "{words:?}");
        assert!(words[1].starts_with("accepted|set was ") && words.len() == 2, "{words:?}");

        let api = Api::start_in(folder).await;
        let root = "/api/v1/databases/master/updates";
        let post = async |path: &str, body: serde_json::Value| {
            let answer = api.post(path, ADMIN, body).await;
            assert!(answer.status.is_success(), "{path}: {}", answer.text);
        };
        post(root, json!({"name": "touch"})).await;
        ledger.expect("enqueue by the API", &[&["queued|touch|token keeper"], &stops[..]].concat()).await;
        post(&format!("{root}/touch/approve"), json!(null)).await;
        ledger.expect("approve by the API", &["approved|touch|token keeper", "finished|touch|host"]).await;
    }

    async fn what_finished_is_told_with_items_time_and_definition(place: Place) {
        make_items(place, 1_000).await;
        let folder = Folder::new(place, "sleep_enabled = false\nmax_batch_size = 100", "", UPDATES);
        command(&folder, &["enqueue", "touch"]).await;
        command(&folder, &["run", "--until-done"]).await;
        let select = "select items, case when seconds > 0 then 'some' end, length(definition) from tidegate_ledger \
             where action = 'finished'";
        assert_eq!(place.rows(select).await, ["1000|some|32"]);
        assert_eq!(entries(place).await, ["queued|touch|user", "started|touch|host", "finished|touch|host"]);
        // Of one that is verified, the rows that were looked at once more.
        command(&folder, &["enqueue", "sure"]).await;
        command(&folder, &["run", "--until-done"]).await;
        assert_eq!(place.rows(&format!("{select} and update_name = 'sure'")).await, ["1000|some|32"]);
        place.run("delete from tidegate_ledger where update_name = 'sure'").await;
        // Another definition has another digest; the same has the same.
        let digests = "select count(distinct definition) from tidegate_ledger where action = 'finished'";
        for (set, expected) in [("touched + 1", "1"), ("touched + 2", "2")] {
            folder.configure(&folder.configuration().replace("touched + 1\"", &format!("{set}\"")));
            command(&folder, &["enqueue", "touch"]).await;
            command(&folder, &["run", "--until-done"]).await;
            assert_eq!(place.rows(digests).await, [expected]);
        }
        let (said, code) = folder.tidegate(&["ledger", "touch", "--json", "--limit", "2"]).await;
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!((code, said["databases"][0]["entries"][0]["action"].as_str()), (0, Some("finished")));
        assert_eq!(said["databases"][0]["entries"].as_array().unwrap().len(), 2);
    }

    async fn a_database_of_before_gets_its_ledger(place: Place) {
        let database = place.prepared().await;
        for name in ["waits", "failed", "gone"] {
            database.enqueue(&row(name)).await.unwrap();
        }
        database.close().await;
        let failure = tidegate::scheduler::database::Failure {
            attempts: 5, error: "no".to_owned(), code: None, at_ms: 1, quarantined: true,
        };
        place.open().record_failure("failed", "{}", &failure).await.unwrap();
        place.run("delete from background_updates where update_name = 'gone'").await;
        place.run("drop view tidegate_done; drop table tidegate_ledger").await;
        place.prepared().await.close().await;
        assert_eq!(entries(place).await, [
            "queued|failed|before the ledger",
            "queued|waits|before the ledger",
            "quarantined|failed|before the ledger",
        ]);
        let view = "select name, state, coalesce(cast(finished_at as text), '') from tidegate_done order by name";
        assert_eq!(place.rows(view).await, ["failed|failed|", "waits|pending|"]);
    }

    async fn the_order_is_that_of_the_numbers_whatever_clocks_say(place: Place) {
        make_items(place, 100).await;
        let folder = Folder::new(place, SOON, "", UPDATES);
        command(&folder, &["enqueue", "noop"]).await;
        command(&folder, &["run", "--until-done"]).await;
        command(&folder, &["enqueue", "noop"]).await;
        command(&folder, &["cancel", "noop"]).await;
        let newest_first = ["cancelled", "queued", "finished", "started", "queued"];
        // All in one millisecond, and by a clock that goes back.
        for at_ms in ["1", "1000000000000 - id"] {
            place.run(&format!("update tidegate_ledger set at_ms = {at_ms}")).await;
            let (said, code) = folder.tidegate(&["ledger", "noop", "--json"]).await;
            let said: serde_json::Value = serde_json::from_str(&said).unwrap();
            let told = said["databases"][0]["entries"].as_array().unwrap().clone();
            let told: Vec<&str> = told.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
            assert_eq!((told, code), (newest_first.to_vec(), 0), "{at_ms}");
            assert_eq!(folder.tidegate(&["require", "noop"]).await.1, 4, "{at_ms}");
            assert_eq!(place.rows("select state from tidegate_done").await, ["cancelled"], "{at_ms}");
        }
        // Nothing takes less than no time, whoever's clock was ahead at its start.
        command(&folder, &["enqueue", "touch"]).await;
        let started = "insert into tidegate_ledger (queue, update_name, action, actor, at_ms) \
             select queue, update_name, 'started', 'host', 9000000000000 from tidegate_ledger where update_name = 'touch'";
        place.run(started).await;
        command(&folder, &["run", "--until-done"]).await;
        let finished = "select case when seconds = 0 then 'none' else cast(seconds as text) end from tidegate_ledger \
             where update_name = 'touch' and action = 'finished'";
        assert_eq!(place.rows(finished).await, ["none"]);
        // No number comes again, even where all entries are deleted.
        let last: i64 = place.rows("select max(id) from tidegate_ledger").await[0].parse().unwrap();
        place.run("delete from tidegate_ledger").await;
        command(&folder, &["enqueue", "noop"]).await;
        let next: i64 = place.rows("select max(id) from tidegate_ledger").await[0].parse().unwrap();
        assert!(next > last, "{next} after {last}");
    }

    async fn many_who_look_at_once_write_one_line(place: Place) {
        place.prepared().await.close().await;
        let handles: Vec<_> = (0..6).map(|_| place.open()).collect();
        let look = async || futures_util::future::join_all(handles.iter().map(|database| database.queue())).await;
        let mut expected = Vec::new();
        // Connections are there before it counts who is first.
        look().await.into_iter().for_each(|queue| drop(queue.unwrap()));
        for round in 0..20 {
            let insert = "insert into background_updates (update_name, progress_json) values";
            place.run(&format!("{insert} ('n{round}', '{{}}')")).await;
            expected.push(format!("queued|n{round}|sql"));
            for _ in 0..2 {
                let look = async || look().await.into_iter().for_each(|queue| drop(queue.unwrap()));
                until("it is written down", async || {
                    look().await;
                    entries(place).await.len() >= expected.len()
                })
                .await;
                assert_eq!(entries(place).await, expected);
                if expected.len() == 2 * round + 1 {
                    place.run("delete from background_updates").await;
                    expected.push(format!("cancelled|n{round}|sql"));
                }
            }
        }
    }
}

/// A role that may not make tables is told what it lacks.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_make_no_table_is_told() {
    let place = Place::postgres().await;
    let (own, role) = place.as_own_role().await;
    place.run("drop view tidegate_done; drop table tidegate_ledger; revoke create on schema public from public").await;
    let folder = Folder::new(&own, SOON, "", UPDATES);
    let (said, code) = folder.tidegate(&["check"]).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains(&format!("role \"{role}\" lacks")) && said.contains("tidegate's own"), "{said}");
    let (said, code) = folder.tidegate(&["enqueue", "noop"]).await;
    assert!(code == 1 && said.contains("grant the role what it lacks"), "{said}");
}
