//! What `--json` prints: one object on standard output, whatever happens, and an error as an object too. Every key is
//! described in `docs/json.md`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use tidegate_admin::access::{digest, hex};

use super::site;
use crate::support::command::{Site, Told};
use crate::support::on_both;
use crate::support::place::Place;
use crate::support::run::make_items;

fn printed(told: &Told) -> Value {
    serde_json::from_str(&told.out).unwrap_or_else(|error| panic!("{error}: {}", told.all()))
}

/// The error, the last line of standard error.
fn error(told: &Told) -> Value {
    let line = told.err.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {}", told.all()))
}

fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                found.insert(key.clone());
                keys(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

fn assert_described(found: &BTreeSet<String>) {
    let described = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json.md")).unwrap();
    let missing: Vec<_> = found.iter().filter(|key| !described.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "not in docs/json.md: {missing:?}");
}

#[tokio::test]
async fn a_new_token_is_an_object() {
    let site = Site::new("");
    let told = site.tidegate(&["token", "new", "--role", "admin", "--name", "keeper", "--json"]).await;
    let object = printed(&told);
    let token = object["token"].as_str().unwrap();
    let sha256 = hex(&digest(token));
    let expected = json!({"version": 1, "name": "keeper", "role": "admin", "token": token, "sha256": sha256});
    assert_eq!((told.code, told.err.as_str(), &object), (0, "", &expected));
    let mut found = BTreeSet::new();
    keys(&object, &mut found);
    assert_described(&found);
    let told = site.tidegate(&["token", "new", "--name", "my own", "--json"]).await;
    assert_eq!((told.code, told.out.as_str()), (2, ""));
    assert_eq!(error(&told)["error"]["message"], "a token cannot be named my own");
}

#[tokio::test]
async fn a_new_controller_is_an_object_that_names_its_files() {
    let site = Site::new("");
    let told = site.tidegate(&["controller", "new", "night-shift", "--language", "wat", "--json"]).await;
    let object = printed(&told);
    assert_eq!((told.code, told.err.as_str()), (0, ""));
    assert_eq!((&object["version"], &object["path"]), (&json!(1), &json!("night-shift")));
    let files: Vec<&str> = object["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
    assert!(files.contains(&"controller.wat") && files.contains(&"wit/controller.wit"), "{files:?}");
    for file in files {
        assert!(site.path().join("night-shift").join(file).is_file(), "{file}");
    }
    let mut found = BTreeSet::new();
    keys(&object, &mut found);
    assert_described(&found);
}

on_both! {
    async fn each_command_prints_one_object_and_each_key_is_described(place: Place) {
        make_items(place, 150).await;
        let site = site(place);
        let done = |update: Option<&str>, result: &str| json!({"database": "master", "update": update, "result": result});
        let cases = [
            (&["enqueue", "touch_items", "fails"][..], vec![done(Some("touch_items"), "queued"), done(Some("fails"), "queued")]),
            (&["enqueue", "touch_items"], vec![done(Some("touch_items"), "already-queued")]),
            (&["pause", "--reason", "deploying"], vec![done(None, "paused")]),
            (&["resume"], vec![done(None, "resumed")]),
            (&["retry", "touch_items"], vec![done(Some("touch_items"), "not-failed")]),
            (&["retry", "--all"], vec![]),
            (&["cancel", "touch_items"], vec![done(Some("touch_items"), "cancelled")]),
        ];
        let mut found = BTreeSet::new();
        for (arguments, results) in cases {
            let told = site.tidegate(&[arguments, &["--json"]].concat()).await;
            let object = printed(&told);
            assert_eq!((told.code, told.err.as_str(), &object), (0, "", &json!({"version": 1, "results": results})));
            keys(&object, &mut found);
        }
        site.tidegate(&["enqueue", "touch_items"]).await;
        let run = site.tidegate(&["run", "--until-done", "--json"]).await;
        let object = printed(&run);
        assert_eq!(object["databases"][0]["end"], "done");
        assert_eq!(object["databases"][0]["remaining"][0]["name"], "fails");
        assert_eq!((run.code, &error(&run)["error"]["exit_code"]), (3, &json!(3)));
        keys(&object, &mut found);
        keys(&error(&run), &mut found);
        for arguments in [&["status", "--json"][..], &["history", "touch_items", "--json"], &["signals", "--json"]] {
            keys(&printed(&site.tidegate(arguments).await), &mut found);
        }
        let retry = site.tidegate(&["retry", "--all", "--json"]).await;
        assert_eq!(printed(&retry)["results"], json!([done(Some("fails"), "retried")]));
        assert_described(&found);
    }

    async fn a_failure_is_an_object_too_and_what_was_done_before_is_told(place: Place) {
        make_items(place, 1).await;
        let site = site(place);
        let configuration = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
        let second = "[[database]]\nname = \"gone\"\nurl = \"sqlite:gone.db\"\n";
        site.write("tidegate.toml", format!("{configuration}\n{second}"));
        let told = site.tidegate(&["pause", "--json"]).await;
        assert_eq!(told.code, 1);
        assert_eq!(printed(&told)["results"], json!([{"database": "master", "update": null, "result": "paused"}]));
        assert_eq!(error(&told)["error"]["message"], "cannot pause database \"gone\"");
        site.write("tidegate.toml", configuration.replace("kind = \"backfill\"", "kind = \"backfil\""));
        let told = site.tidegate(&["status", "--json"]).await;
        let error = error(&told);
        assert_eq!((told.code, told.out.as_str()), (2, ""));
        let diagnostics = error["error"]["diagnostics"].as_array().unwrap();
        assert_eq!(diagnostics.len(), 3, "{error}");
        assert_eq!(diagnostics[0]["hint"], "did you mean \"backfill\"?");
        assert!(diagnostics[0]["line"].as_u64() > Some(1), "{error}");
    }
}
