//! Jobs: what is queued by name, all of it or nothing.

use serde_json::{Value, json};

use super::synapse::{ENABLED, START_JOB};
use crate::support::api::{ADMIN, Api, with_tokens};
use crate::support::place::Place;
use crate::support::{on_both, until};

/// Updates wait for nothing but the pause.
const ASLEEP: &str = "sleep_enabled = false\npoll_interval_ms = 1000\n";

const DIRECTORY: [&str; 4] = [
    "populate_user_directory_createtables",
    "populate_user_directory_process_rooms",
    "populate_user_directory_process_users",
    "populate_user_directory_cleanup",
];

fn noops(names: &[&str]) -> String {
    names.iter().map(|name| format!("[[update]]\nname = \"{name}\"\nkind = \"noop\"\n")).collect()
}

/// A host whose updates wait. The tables are there before it answers, for the tests look into them.
async fn paused(place: &Place, rest: &str) -> Api {
    place.prepared().await;
    let api = Api::start(place, ASLEEP, &format!("{rest}{}", with_tokens())).await;
    assert_eq!(api.post(ENABLED, ADMIN, json!({"enabled": false})).await.text, "{\"enabled\":false}");
    api
}

async fn queue(place: &Place) -> Vec<String> {
    let select = "select update_name, progress_json, depends_on, ordering from background_updates order by update_name";
    place.rows(select).await
}

/// Starts a job; its errcode and error where it was refused.
async fn start(api: &Api, body: Value) -> Result<(), (String, String)> {
    let answer = api.post(START_JOB, ADMIN, body).await;
    if answer.status == 200 {
        assert_eq!(answer.text, "{}");
        return Ok(());
    }
    assert_eq!(answer.status, 400, "{}", answer.text);
    let text = |key: &str| answer.json()[key].as_str().unwrap().to_owned();
    Err((text("errcode"), text("error")))
}

fn refused(errcode: &str, error: &str) -> Result<(), (String, String)> {
    Err((errcode.to_owned(), error.to_owned()))
}

on_both! {
    async fn synapses_jobs_are_there(place: Place) {
        let names = [&DIRECTORY[..], &["populate_stats_process_rooms"]].concat();
        let api = paused(place, &noops(&names)).await;
        assert_eq!(start(&api, json!({"job_name": "populate_stats_process_rooms"})).await, Ok(()));
        assert_eq!(queue(place).await, ["populate_stats_process_rooms|{}||0"]);
        assert_eq!(start(&api, json!({"job_name": "regenerate_directory", "unknown": 3})).await, Ok(()));
        assert_eq!(queue(place).await, [
            "populate_stats_process_rooms|{}||0",
            "populate_user_directory_cleanup|{}|populate_user_directory_process_users|0",
            "populate_user_directory_createtables|{}||0",
            "populate_user_directory_process_rooms|{}|populate_user_directory_createtables|0",
            "populate_user_directory_process_users|{}|populate_user_directory_process_rooms|0",
        ]);
        let twice = "Job regenerate_directory is already in queue of background updates.";
        assert_eq!(start(&api, json!({"job_name": "regenerate_directory"})).await, refused("M_UNKNOWN", twice));

        assert_eq!(api.post(ENABLED, ADMIN, json!({})).await.text, "{\"enabled\":true}");
        until("all is done", async || queue(place).await.is_empty()).await;
        // Nothing but being woken makes the host look again.
        assert_eq!(start(&api, json!({"job_name": "regenerate_directory"})).await, Ok(()));
        until("all is done again", async || queue(place).await.is_empty()).await;
    }

    async fn one_row_that_is_queued_keeps_out_the_others(place: Place) {
        let api = paused(place, &noops(&DIRECTORY)).await;
        place.run("insert into background_updates (update_name, progress_json) values \
                   ('populate_user_directory_process_users', '{\"n\":1}')").await;
        let twice = "Job regenerate_directory is already in queue of background updates.";
        assert_eq!(start(&api, json!({"job_name": "regenerate_directory"})).await, refused("M_UNKNOWN", twice));
        assert_eq!(queue(place).await, ["populate_user_directory_process_users|{\"n\":1}||0"]);
    }

    async fn an_update_that_nobody_defined_keeps_out_the_others(place: Place) {
        let api = paused(place, &noops(&DIRECTORY[..3])).await;
        let undefined = "Job regenerate_directory queues update populate_user_directory_cleanup, which is not defined \
                         for database master.";
        assert_eq!(start(&api, json!({"job_name": "regenerate_directory"})).await, refused("M_UNKNOWN", undefined));
        assert!(queue(place).await.is_empty());
    }

    async fn a_job_is_configured_with_its_parameters(place: Place) {
        let job = "
            [[job]]
            name = \"rebuild\"
            [[job.update]]
            update = \"clear\"
            progress = { after = 3, label = \"x\" }
            [[job.update]]
            update = \"fill\"
            progress = '{\"deep\": {\"list\": [1, null]}}'
            depends_on = \"clear\"
            [[job.parameter]]
            name = \"room\"
            type = \"string\"
            required = true
            [[job.parameter]]
            name = \"limit\"
            type = \"integer\"
            [[job.parameter]]
            name = \"share\"
            type = \"number\"
            [[job.parameter]]
            name = \"force\"
            type = \"boolean\"
            [[job]]
            name = \"regenerate_directory\"
            database = \"master\"
            update = [{ update = \"own\" }]
            ";
        let api = paused(place, &format!("{}{job}", noops(&["clear", "fill", "own"]))).await;
        let rebuild = async |mut said: Value| {
            said["job_name"] = json!("rebuild");
            start(&api, said).await
        };
        for (said, errcode, error) in [
            (json!({}), "M_MISSING_PARAM", "Missing params: ['room']"),
            (json!({"room": null}), "M_MISSING_PARAM", "Missing params: ['room']"),
            (json!({"room": 3}), "M_UNKNOWN", "'room' must be a string"),
            (json!({"room": "a", "limit": 1.5}), "M_UNKNOWN", "'limit' must be an integer"),
            (json!({"room": "a", "limit": true}), "M_UNKNOWN", "'limit' must be an integer"),
            (json!({"room": "a", "share": "1"}), "M_UNKNOWN", "'share' must be a number"),
            (json!({"room": "a", "force": 0}), "M_UNKNOWN", "'force' must be a boolean"),
        ] {
            assert_eq!(rebuild(said).await, refused(errcode, error));
        }
        assert!(queue(place).await.is_empty());
        assert_eq!(rebuild(json!({"room": "a", "limit": 7, "share": 2, "force": null, "other": "ignored"})).await, Ok(()));
        assert_eq!(start(&api, json!({"job_name": "regenerate_directory"})).await, Ok(()));
        assert_eq!(queue(place).await, [
            "clear|{\"after\":3,\"label\":\"x\",\"limit\":7,\"room\":\"a\",\"share\":2}||0",
            "fill|{\"deep\":{\"list\":[1,null]},\"limit\":7,\"room\":\"a\",\"share\":2}|clear|0",
            "own|{}||0",
        ]);
    }

    async fn synapses_job_that_signs_events_anew_takes_its_parameters(place: Place) {
        let api = paused(place, &noops(&["event_resign"])).await;
        let resign = async |mut said: Value| {
            said["job_name"] = json!("event_resign");
            start(&api, said).await
        };
        for (said, error) in [
            (json!({"old_key": 7}), "'old_key' must be a string"),
            (json!({"old_key": "k", "before_ts": "1"}), "'before_ts' must be an integer"),
            (json!({"before_ts": 1.5}), "'before_ts' must be an integer"),
        ] {
            assert_eq!(resign(said).await, refused("M_UNKNOWN", error));
        }
        assert!(queue(place).await.is_empty());
        for (said, progress) in [
            (json!({}), "{}"),
            (json!({"old_key": null, "before_ts": null}), "{}"),
            (json!({"before_ts": 1_700_000_000_000_i64}), "{\"before_ts\":1700000000000}"),
            (json!({"old_key": "ed25519 a key", "before_ts": 0}), "{\"before_ts\":0,\"old_key\":\"ed25519 a key\"}"),
        ] {
            assert_eq!(resign(said).await, Ok(()));
            assert_eq!(queue(place).await, [format!("event_resign|{progress}||0")]);
            assert_eq!(resign(json!({})).await, refused("M_UNKNOWN", "Job event_resign is already in queue of background updates."));
            place.run("delete from background_updates").await;
        }
    }

    async fn a_reload_changes_the_jobs(place: Place) {
        let job = |update: &str| format!("[[job]]\nname = \"go\"\nupdate = [{{ update = \"{update}\" }}]\n");
        let mut api = paused(place, &format!("{}{}", noops(&["a", "b"]), job("a"))).await;
        api.folder.reconfigure(&job("a"), &job("b"));
        api.process.signal("HUP");
        api.process.says("reloaded the configuration", std::time::Duration::from_secs(30)).await;
        assert_eq!(start(&api, json!({"job_name": "go"})).await, Ok(()));
        assert_eq!(queue(place).await, ["b|{}||0"]);
    }
}

#[tokio::test]
async fn a_job_goes_to_its_database() {
    let (place, other) = (Place::sqlite(), Place::postgres().await);
    let url = toml::Value::from(other.url.as_str());
    let rest = format!(
        "[[database]]\nname = \"other\"\nurl = {url}\n{}[[job]]\nname = \"there\"\ndatabase = \"other\"\n\
         update = [{{ update = \"a\" }}]\n[[job]]\nname = \"here\"\nupdate = [{{ update = \"a\" }}]\n",
        noops(&["a"])
    );
    let api = paused(&place, &rest).await;
    until("both are worked on", async || {
        api.get("/readyz", ADMIN).await.text.matches("this host works on it").count() == 2
    })
    .await;
    assert_eq!(start(&api, json!({"job_name": "there"})).await, Ok(()));
    assert_eq!((queue(&place).await.len(), queue(&other).await.len()), (0, 1));
    assert_eq!(start(&api, json!({"job_name": "here"})).await, Ok(()));
    assert_eq!((queue(&place).await.len(), queue(&other).await.len()), (1, 1));
}
