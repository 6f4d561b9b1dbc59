//! `contrib/synapse`: Synapse's own jobs, done by tidegate on databases that Synapse made.
//!
//! `world/` holds, of a database on each system, the tables that the jobs read and write (`*.sql.gz`), with rows deleted,
//! added and altered, and those tables as Synapse left them after it had done the jobs itself (`*.expected.json.gz`).

mod odd;
mod refused;
mod world;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tidegate::update::sql::System;

use crate::admin::synapse::START_JOB;
use crate::support::api::{ADMIN, Api, with_tokens};
use crate::support::binary::Folder;
use crate::support::place::Place;

/// The folder of the whole project.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Time that is enough for anything but a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// The file of `contrib/synapse` for this database.
fn contributed(place: &Place) -> String {
    let name = place.either("tidegate-sqlite.toml", "tidegate.toml");
    std::fs::read_to_string(Path::new(ROOT).join("contrib/synapse").join(name)).unwrap()
}

/// A folder with that file, changed where whoever uses it changes it, and in how it is listened at.
fn folder(place: &Place, background: &str, server_name: &str, excluded: &[&str]) -> Folder {
    let mut file: toml::Table = contributed(place).parse().unwrap();
    let settings = file["settings"].as_table_mut().unwrap();
    settings["server_name"] = server_name.into();
    settings["excluded_users"] = excluded.to_vec().into();
    let rest: toml::Table = with_tokens().parse().unwrap();
    file["admin"] = rest["admin"].clone();
    file["database"][0]["url"] = place.url.as_str().into();
    file.insert("background_updates".to_owned(), background.parse::<toml::Table>().unwrap().into());
    let folder = Folder::new(place, "", "", "");
    folder.configure(&toml::to_string(&file).unwrap());
    folder
}

/// Queues both jobs as whoever uses Synapse's API does.
async fn start_jobs(api: &Api) {
    for job in ["populate_stats_process_rooms", "regenerate_directory"] {
        let answer = api.post(START_JOB, ADMIN, json!({ "job_name": job })).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({})), "{job}");
    }
}

/// The names in the queue, with their progress.
async fn queue(place: &Place) -> Vec<String> {
    place.rows("select update_name || ' ' || progress_json from background_updates order by 1").await
}

/// Does both jobs, from the API to the empty queue.
async fn do_jobs(place: &Place, folder: Folder) {
    let mut api = Api::start_in(folder).await;
    start_jobs(&api).await;
    until_done(place, &mut api).await;
}

/// Waits until the queue is empty.
async fn until_done(place: &Place, api: &mut Api) {
    let since = Instant::now();
    while !queue(place).await.is_empty() {
        let ended = api.process.ended();
        let said = api.process.said();
        assert!(ended.is_none() && !said.contains("quarantined") && since.elapsed() < PATIENCE, "{said}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What a compressed file of `world/` holds.
fn unpacked(name: &str) -> String {
    let file = Path::new(ROOT).join("tests/synapse/world").join(name);
    let output = Command::new("gzip").arg("-dc").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", file.display());
    String::from_utf8(output.stdout).unwrap()
}

fn name_of(place: &Place) -> &'static str {
    match place.system() {
        System::Sqlite => "sqlite",
        System::Postgres => "postgres",
    }
}

/// A table as its columns' texts, booleans as Python writes them, sorted.
async fn table(place: &Place, name: &str, columns: &[&str]) -> Vec<Value> {
    let texts: Vec<String> = match place.system() {
        System::Sqlite => columns.iter().map(|column| format!("cast({column} as text)")).collect(),
        System::Postgres => {
            let text = |column: &&str| match *column {
                "is_federatable" => format!("initcap({column}::text)"),
                column => format!("{column}::text"),
            };
            columns.iter().map(text).collect()
        }
    };
    let array = place.either("json_array", "json_build_array");
    let rows = place.rows(&format!("select {array}({}) from {name}", texts.join(", "))).await;
    sorted(rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect())
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(ToString::to_string);
    rows
}
