//! What people do to a queue, by each way in: the same answer and the same effect, whichever way it is done.

use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use tidegate::scheduler::database::{Failure, Pause};

use super::synapse::{ENABLED, START_JOB};
use super::{SLOW, with_updates};
use crate::support::api::{ADMIN, Answer, Api};
use crate::support::command::Site;
use crate::support::place::Place;
use crate::support::run::make_items;
use crate::support::{on_both, until};

/// Jobs that queue what the other ways queue one by one.
const JOBS: &str = r#"
[[job]]
name = "plain"
[[job.update]]
update = "other"

[[job]]
name = "strange"
[[job.update]]
update = "touch_items"
progress = { strange = 1 }
"#;

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The command, on the database itself.
    Command,
    /// The command, over a host.
    Remote,
    Api,
    Page,
    Synapse,
}

const WAYS: [Way; 5] = [Way::Command, Way::Remote, Way::Api, Way::Page, Way::Synapse];

/// What is done.
#[derive(Debug, Clone, Copy)]
enum Operation {
    /// An update, what it waits for, its progress, and whether it is insisted on.
    Enqueue(&'static str, Option<&'static str>, &'static str, bool),
    /// An update, with or without what depends on it.
    Cancel(&'static str, bool),
    Retry(&'static str),
    /// The rows that an update skipped.
    RetrySkipped(&'static str),
    Approve(&'static str),
    Pause,
    Resume,
}

/// A queue to do it to, what is to be told, and the rows that are to stand there afterwards, as `update|depends_on`, with `!` for
/// one that failed, and whether it is paused.
struct Cell {
    queue: &'static [(&'static str, Option<&'static str>)],
    failed: &'static [&'static str],
    /// Those that have stopped for approval.
    stopped: &'static [&'static str],
    /// Those that have skipped a row, and those that are queued to try it again.
    skipped: &'static [&'static str],
    again: &'static [&'static str],
    paused: bool,
    operation: Operation,
    told: &'static str,
    rows: &'static [&'static str],
    paused_after: bool,
}

const CALM: Cell = Cell {
    queue: &[],
    failed: &[],
    stopped: &[],
    skipped: &[],
    again: &[],
    paused: false,
    operation: Operation::Resume,
    told: "resumed",
    rows: &[],
    paused_after: false,
};

impl Cell {
    /// Where an update stands.
    fn progress(&self, update: &str) -> &'static str {
        match (self.stopped.contains(&update), self.again.contains(&update)) {
            (true, _) => STOPPED,
            (_, true) => r#"{"again":{}}"#,
            _ => "{}",
        }
    }
}

/// `touch_items`, `other` behind it, and `fails` behind that.
const CHAIN: &[(&str, Option<&str>)] =
    &[("touch_items", None), ("other", Some("touch_items")), ("fails", Some("other"))];
const CHAINED: &[&str] = &["fails|other", "other|touch_items", "touch_items|"];

/// The progress of an update that has stopped for approval.
const STOPPED: &str = r#"{"approval":{"awaited":{"reason":"it is big"}}}"#;

fn cells() -> Vec<Cell> {
    use Operation::{Approve, Cancel, Enqueue, Pause, Resume, Retry, RetrySkipped};
    let long: &'static str = "x".repeat(501).leak();
    vec![
        Cell { operation: Enqueue("other", None, "{}", false), told: "queued", rows: &["other|"], ..CALM },
        Cell {
            queue: CHAIN,
            operation: Enqueue("other", None, "{}", false),
            told: "already-queued",
            rows: CHAINED,
            ..CALM
        },
        Cell {
            paused: true,
            operation: Enqueue("other", None, "{}", false),
            told: "queued",
            rows: &["other|"],
            paused_after: true,
            ..CALM
        },
        Cell { operation: Enqueue("unheard_of", None, "{}", false), told: "undefined", ..CALM },
        Cell { operation: Enqueue("unheard_of", None, "{}", true), told: "queued", rows: &["unheard_of|"], ..CALM },
        Cell { operation: Enqueue(long, None, "{}", true), told: "name", ..CALM },
        Cell { operation: Enqueue("touch_items", None, "{\"strange\":1}", false), told: "progress", ..CALM },
        Cell { operation: Enqueue("other", Some("gone"), "{}", false), told: "unfit", ..CALM },
        Cell { operation: Enqueue("other", Some("gone"), "{}", true), told: "queued", rows: &["other|gone"], ..CALM },
        Cell {
            queue: &[("touch_items", Some("other"))],
            operation: Enqueue("other", Some("touch_items"), "{}", false),
            told: "circle",
            rows: &["touch_items|other"],
            ..CALM
        },
        Cell { operation: Enqueue("other", Some("other"), "{}", false), told: "circle", ..CALM },
        Cell { operation: Enqueue("other", Some("other"), "{}", true), told: "circle", ..CALM },
        Cell { queue: CHAIN, operation: Cancel("fails", false), told: "cancelled", rows: &CHAINED[1..], ..CALM },
        Cell { queue: CHAIN, operation: Cancel("touch_items", false), told: "dependents", rows: CHAINED, ..CALM },
        Cell { queue: CHAIN, operation: Cancel("touch_items", true), told: "cancelled", ..CALM },
        Cell { operation: Cancel("other", false), told: "not-queued", ..CALM },
        Cell {
            queue: &[("fails", None)],
            failed: &["fails"],
            operation: Retry("fails"),
            told: "retried",
            rows: &["fails|"],
            ..CALM
        },
        Cell { queue: CHAIN, operation: Retry("other"), told: "not-failed", rows: CHAINED, ..CALM },
        Cell { queue: CHAIN, operation: Retry("gone"), told: "not-queued", rows: CHAINED, ..CALM },
        Cell {
            paused: true,
            skipped: &["touch_items"],
            operation: RetrySkipped("touch_items"),
            told: "queued",
            rows: &["touch_items|"],
            paused_after: true,
            ..CALM
        },
        Cell {
            queue: CHAIN,
            skipped: &["touch_items"],
            operation: RetrySkipped("touch_items"),
            told: "already-queued",
            rows: CHAINED,
            ..CALM
        },
        Cell {
            queue: &[("touch_items", None)],
            skipped: &["touch_items"],
            again: &["touch_items"],
            failed: &["touch_items"],
            paused: true,
            operation: RetrySkipped("touch_items"),
            told: "retried",
            rows: &["touch_items|"],
            paused_after: true,
            ..CALM
        },
        Cell { skipped: &["touch_items"], operation: RetrySkipped("other"), told: "nothing-skipped", ..CALM },
        Cell { operation: RetrySkipped("unheard_of"), told: "undefined", ..CALM },
        Cell {
            queue: CHAIN,
            stopped: &["touch_items"],
            operation: Approve("touch_items"),
            told: "approved",
            rows: CHAINED,
            ..CALM
        },
        Cell { queue: CHAIN, operation: Approve("other"), told: "not-awaiting", rows: CHAINED, ..CALM },
        Cell { queue: CHAIN, operation: Approve("gone"), told: "not-queued", rows: CHAINED, ..CALM },
        Cell { queue: CHAIN, operation: Pause, told: "paused", rows: CHAINED, paused_after: true, ..CALM },
        Cell { paused: true, operation: Pause, told: "paused", paused_after: true, ..CALM },
        Cell { paused: true, operation: Resume, told: "resumed", ..CALM },
        CALM,
    ]
}

/// The ways in to one place.
struct Bench<'a> {
    place: &'a Place,
    api: Api,
    site: Site,
    cookie: String,
}

impl<'a> Bench<'a> {
    async fn new(place: &'a Place) -> Self {
        make_items(place, 25).await;
        place.prepared().await;
        let api = Api::start(place, SLOW, &format!("{}{JOBS}", with_updates())).await;
        let site = Site::new("");
        site.write("admin", format!("{ADMIN}\n"));
        let cookie = log_in(&api).await;
        Self { place, api, site, cookie }
    }

    /// Makes a cell's queue.
    async fn lay(&self, cell: &Cell) {
        let database = self.place.open();
        self.place
            .run("delete from background_updates; delete from tidegate_failures; delete from tidegate_skipped")
            .await;
        // Before the rows: of a queue that is paused the host takes none in hand while it is being laid.
        let pause = Pause { since_ms: 1, reason: Some("before".to_owned()) };
        database.set_pause(cell.paused.then_some(&pause)).await.unwrap();
        for (name, depends_on) in cell.queue {
            let depends_on = depends_on.map_or("null".to_owned(), |name| format!("'{name}'"));
            let progress = cell.progress(name);
            let values = format!("'{name}', '{progress}', {depends_on}, 0");
            let columns = "update_name, progress_json, depends_on, ordering";
            self.place.run(&format!("insert into background_updates ({columns}) values ({values})")).await;
        }
        for name in cell.failed {
            let failure = Failure { attempts: 5, error: "no".to_owned(), code: None, at_ms: 0, quarantined: true };
            database.record_failure(name, cell.progress(name), &failure).await.unwrap();
        }
        for name in cell.skipped {
            let values = format!("'background_updates', '{name}', '[\"7\"]', 'no', 1");
            self.place
                .run(&format!(
                    "insert into tidegate_skipped (queue, update_name, key, message, at_ms) values ({values})"
                ))
                .await;
        }
        database.close().await;
    }

    /// What stands in the database.
    async fn found(&self) -> (Vec<String>, bool, Vec<String>) {
        let rows = "select update_name, coalesce(depends_on, '') || case when progress_json like '%awaited%' then '?' else '' end \
                    from background_updates order by update_name";
        let pauses = "select count(*) from tidegate_state where key = 'pause'";
        let failures = "select update_name from tidegate_failures order by update_name";
        let place = self.place;
        let paused = place.rows(pauses).await != ["0"];
        (place.rows(rows).await, paused, place.rows(failures).await)
    }

    /// Does it, and tells what is told, in one word; `None` where there is no such way.
    async fn act(&self, way: Way, operation: Operation) -> Option<String> {
        match way {
            Way::Command => Some(self.command(operation, &[]).await),
            Way::Remote => {
                let host = ["--address", &self.api.address, "--token-file", "admin"];
                Some(self.command(operation, &host).await)
            }
            Way::Api => Some(self.api(operation).await),
            Way::Page => self.page(operation).await,
            Way::Synapse => self.synapse(operation).await,
        }
    }

    async fn command(&self, operation: Operation, host: &[&str]) -> String {
        let mut arguments = match operation {
            Operation::Enqueue(name, depends_on, progress, force) => {
                let depends_on = depends_on.map_or(vec![], |other| vec!["--depends-on", other]);
                let force = if force { vec!["--force"] } else { vec![] };
                [vec!["enqueue", name, "--progress", progress], depends_on, force].concat()
            }
            Operation::Cancel(name, true) => vec!["cancel", name, "--with-dependents"],
            Operation::Cancel(name, false) => vec!["cancel", name],
            Operation::Retry(name) => vec!["retry", name],
            Operation::RetrySkipped(name) => vec!["retry", name, "--skipped"],
            Operation::Approve(name) => vec!["approve", name],
            Operation::Pause => vec!["pause", "--reason", "by the test"],
            Operation::Resume => vec!["resume"],
        };
        arguments.extend(host);
        arguments.push("--json");
        match host.is_empty() {
            true => {
                let (said, code) = self.api.folder.tidegate(&arguments).await;
                if code == 0 { one_word(&serde_json::from_str(&said).unwrap()) } else { refusal(&said) }
            }
            false => {
                let told = self.site.tidegate(&arguments).await;
                if told.code == 0 { one_word(&serde_json::from_str(&told.out).unwrap()) } else { refusal(&told.all()) }
            }
        }
    }

    async fn api(&self, operation: Operation) -> String {
        let base = "/api/v1/databases/master";
        let api = &self.api;
        let answer = match operation {
            Operation::Enqueue(name, depends_on, progress, force) => {
                let progress: Value = serde_json::from_str(progress).unwrap();
                let body = json!({ "name": name, "depends_on": depends_on, "progress": progress, "force": force });
                api.post(&format!("{base}/updates"), ADMIN, body).await
            }
            Operation::Cancel(name, with_dependents) => {
                let path = format!("{base}/updates/{name}?with_dependents={with_dependents}");
                Answer::of(api.request(reqwest::Method::DELETE, &path).bearer_auth(ADMIN).send().await.unwrap()).await
            }
            Operation::Retry(name) => api.post(&format!("{base}/updates/{name}/retry"), ADMIN, json!({})).await,
            Operation::RetrySkipped(name) => {
                api.post(&format!("{base}/updates/{name}/retry?skipped=true"), ADMIN, json!({})).await
            }
            Operation::Approve(name) => api.post(&format!("{base}/updates/{name}/approve"), ADMIN, json!({})).await,
            Operation::Pause => {
                let body = json!({ "persist": true, "reason": "by the test" });
                api.post(&format!("{base}/pause"), ADMIN, body).await
            }
            Operation::Resume => api.post(&format!("{base}/resume"), ADMIN, json!({})).await,
        };
        if answer.status.is_success() { one_word(&answer.json()) } else { refusal(&answer.text) }
    }

    async fn page(&self, operation: Operation) -> Option<String> {
        let (what, update) = match operation {
            Operation::Cancel(name, false) => ("cancel", name),
            Operation::Retry(name) => ("retry", name),
            Operation::RetrySkipped(name) => ("retry-skipped", name),
            Operation::Approve(name) => ("approve", name),
            Operation::Pause => ("pause", ""),
            Operation::Resume => ("resume", ""),
            Operation::Enqueue(..) | Operation::Cancel(_, true) => return None,
        };
        let notice = press(&self.api, &self.cookie, what, update).await;
        let words = [
            ("is out of the queue", "cancelled"),
            ("is tried again", "retried"),
            ("to try again the rows", "queued"),
            ("is still at work", "already-queued"),
            ("has skipped no row", "nothing-skipped"),
            ("has not failed", "not-failed"),
            ("is paused, until", "paused"),
            ("does not await approval", "not-awaiting"),
            ("goes on.", if what == "approve" { "approved" } else { "resumed" }),
        ];
        let word = words.iter().find(|(words, _)| notice.contains(words)).map(|(_, word)| (*word).to_owned());
        Some(word.unwrap_or_else(|| refusal(&notice)))
    }

    async fn synapse(&self, operation: Operation) -> Option<String> {
        let job = match operation {
            Operation::Enqueue("other", None, "{}", false) => "plain",
            Operation::Enqueue("touch_items", None, "{\"strange\":1}", false) => "strange",
            Operation::Resume => {
                let answer = self.api.post(ENABLED, ADMIN, json!({ "enabled": true })).await;
                return Some(if answer.status == 200 { "resumed".to_owned() } else { refusal(&answer.text) });
            }
            _ => return None,
        };
        let answer = self.api.post(START_JOB, ADMIN, json!({ "job_name": job })).await;
        Some(if answer.status == 200 { "queued".to_owned() } else { refusal(&answer.text) })
    }
}

/// Logs in on the page; the cookie comes back.
async fn log_in(api: &Api) -> String {
    let client = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let form = client.post(format!("{}/login", api.address)).body(format!("token={ADMIN}"));
    let login = form.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
    login.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned()
}

async fn page_of(api: &Api, cookie: &str) -> String {
    let page = api.request(reqwest::Method::GET, "/").header(COOKIE, cookie).send().await.unwrap();
    page.text().await.unwrap()
}

/// Presses a button of the page, and reads the notice that it leaves.
async fn press(api: &Api, cookie: &str, what: &str, update: &str) -> String {
    let page = page_of(api, cookie).await;
    let seal = page.split("name=\"seal\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let client = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let form = client.post(format!("{}/do/{what}", api.address)).header(COOKIE, cookie);
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    let pressed = form.body(format!("database=master&update={update}&seal={seal}")).send().await.unwrap();
    assert_eq!(pressed.status(), 303);
    let page = page_of(api, cookie).await;
    let notice = page.split("role=\"status\">").nth(1).unwrap_or_else(|| panic!("no notice: {page}"));
    notice.split("</p>").next().unwrap().to_owned()
}

/// What was done, where all of it is of one sort.
fn one_word(answer: &Value) -> String {
    let mut words: Vec<&str> =
        answer["results"].as_array().unwrap().iter().map(|done| done["result"].as_str().unwrap()).collect();
    words.dedup();
    words.join(" and ")
}

/// Why nothing was done, by what every way's words have in common.
fn refusal(words: &str) -> String {
    let known = [
        ("501|is longer than 500 characters", "name"),
        ("already in queue", "already-queued"),
        ("would wait for the next", "circle"),
        ("nothing would be waited for", "unfit"),
        ("\\\"depends_on\\\": \\\"gone\\\" is not queued", "unfit"),
        ("there is no definition", "undefined"),
        ("othing defines", "undefined"),
        ("would run without", "dependents"),
        ("depend on it", "dependents"),
        ("strange", "progress"),
        ("is not queued", "not-queued"),
    ];
    let is_meant = |pattern: &str| pattern.split('|').any(|pattern| words.contains(pattern));
    let word = known.iter().find(|(pattern, _)| is_meant(pattern)).map(|(_, word)| (*word).to_owned());
    word.unwrap_or_else(|| format!("unknown words: {words}"))
}

on_both! {
    async fn each_way_in_tells_and_does_the_same(place: Place) {
        let bench = Bench::new(place).await;
        let mut wrong = Vec::new();
        let mut done = 0;
        for (number, cell) in cells().iter().enumerate() {
            for way in WAYS {
                bench.lay(cell).await;
                let Some(told) = bench.act(way, cell.operation).await else { continue };
                let (rows, paused, failures) = bench.found().await;
                done += 1;
                let is_right = told == cell.told && rows == cell.rows && paused == cell.paused_after && failures.is_empty();
                if !is_right {
                    wrong.push(format!("{number} {way:?} {:?}: {told}, {rows:?}, {paused}, {failures:?}", cell.operation));
                }
            }
        }
        assert!(wrong.is_empty(), "{} of {done} are wrong:\n{}", wrong.len(), wrong.join("\n"));
        assert_eq!(done, 117, "so many operations were done");
    }

    async fn each_way_to_look_tells_the_same_of_every_row(place: Place) {
        let bench = Bench::new(place).await;
        let queue = &[("touch_items", None), ("other", Some("touch_items")), ("fails", None), ("x", None)];
        let rows = Cell { queue, failed: &["fails"], paused: true, ..CALM };
        bench.lay(&rows).await;
        place.run("insert into background_updates (update_name, progress_json, depends_on, ordering) \
                   values ('unreadable', 'no json', null, 0)").await;
        place.run("update background_updates set progress_json = 'no json' where update_name = 'x'").await;
        assert_eq!(bench.act(Way::Page, Operation::Resume).await.as_deref(), Some("resumed"));
        let expected = |first: &str| {
            [("fails", "quarantined"), ("other", "waits"), ("touch_items", first), ("unreadable", "undefined"), ("x", "undefined")]
                .map(|(name, state)| (name.to_owned(), state.to_owned())).to_vec()
        };
        let states = |rows: &Value| {
            let word = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
            let mut states: Vec<_> = rows.as_array().unwrap().iter().map(|row| (word(row, "name"), word(row, "state"))).collect();
            states.sort();
            states
        };
        let (api, cookie) = (&bench.api, &bench.cookie);
        for first in ["running", "paused"] {
            let expected = expected(first);
            let look = async || {
                let (of_the_command, _) = api.folder.tidegate(&["status", "--json"]).await;
                let of_the_command: Value = serde_json::from_str(&of_the_command).unwrap();
                let told = bench.site.tidegate(&["status", "--json", "--address", &api.address, "--token-file", "admin"]).await;
                let of_the_host: Value = serde_json::from_str(&told.out).unwrap();
                let of_the_api = api.get("/api/v1/databases/master/updates", ADMIN).await.json();
                let seen = [&of_the_command["databases"][0]["updates"], &of_the_host["databases"][0]["updates"], &of_the_api["updates"]];
                let reasons = seen.map(|rows| rows.as_array().unwrap().iter().map(|row| row["reason"].clone()).collect::<Vec<_>>());
                (seen.map(states), reasons)
            };
            until("all tell the same", async || {
                let (seen, _) = look().await;
                seen.iter().all(|seen| *seen == expected)
            }).await;
            let (_, [of_the_command, of_the_host, of_the_api]) = look().await;
            assert_eq!((&of_the_command, &of_the_host), (&of_the_api, &of_the_api));
            // What the page shows may be a second old.
            until("the page tells the same", async || {
                let page = page_of(api, cookie).await;
                let row = |name: &str| page.split("<tr").skip(1).find(|row| row.contains(&format!(">{name}<"))).unwrap_or_default();
                expected.iter().all(|(name, state)| row(name).contains(&format!("badge {state}")))
            }).await;
            let metrics = api.get("/metrics", ADMIN).await.text;
            for (_, state) in &expected {
                let number = expected.iter().filter(|(_, other)| other == state).count();
                let line = format!("tidegate_queue_rows{{database=\"master\",state=\"{state}\"}} {number}\n");
                assert!(metrics.contains(&line), "{line}{metrics}");
            }
            bench.act(Way::Page, Operation::Pause).await;
        }
    }

    async fn there_is_nothing_to_hurry_for_the_api_and_the_page_alike(place: Place) {
        let bench = Bench::new(place).await;
        let (api, cookie) = (&bench.api, &bench.cookie);
        let run_now = async || {
            let answer = api.post("/api/v1/databases/master/run-now", ADMIN, json!({})).await;
            (answer.text, press(api, cookie, "run-now", "").await)
        };
        let in_hand = async || api.get("/api/v1/databases/master", ADMIN).await.json();
        until("the host works there", async || in_hand().await["lease"] == "runner").await;
        let (by_the_api, by_the_page) = run_now().await;
        assert!(by_the_api.contains("nothing in the queue can run") && by_the_page.contains("nothing in the queue can run"));
        bench.lay(&Cell { queue: CHAIN, paused: true, ..CALM }).await;
        until("the host has seen the pause", async || in_hand().await["paused"] == true).await;
        let (by_the_api, by_the_page) = run_now().await;
        assert!(by_the_api.contains("updates are paused") && by_the_page.contains("updates are paused"));
        assert_eq!(bench.act(Way::Page, Operation::Resume).await.as_deref(), Some("resumed"));
        until("it rests", async || in_hand().await["in_hand"]["wait_ms"] == 3_600_000).await;
        assert_eq!(press(api, cookie, "run-now", "").await, "touch_items runs now.");
        until("a batch ran", async || place.rows("select count(*) from items where touched > 0").await != ["0"]).await;
    }
}
