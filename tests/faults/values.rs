//! What a database says of a row stays with the operator: whatever an error holds, its class, its code and the words that
//! are no values reach controller, trace, history, API, page and commands, and the rest the host's log alone.

use super::Place;
use crate::crash::PATIENCE;
use crate::support::api::{Api, WITHOUT_TOKENS};
use crate::support::binary::Folder;
use crate::support::diary::keeper;
use crate::support::{on_both, until};

/// Stands in a row of each table, and is to be told to nobody.
const SECRET: &str = "alice@example";

/// An update that fails.
struct Case {
    /// Its table, and its own name.
    name: &'static str,
    set: &'static str,
    /// What everybody is told.
    told: &'static str,
    /// What the log is told besides; nothing where the database says no more.
    logged: &'static str,
}

const SQLITE: &[Case] = &[
    Case {
        name: "taken",
        set: "email = 'the same'",
        told: "UNIQUE constraint failed: taken.email (permanent, SQLITE_CONSTRAINT_UNIQUE)",
        logged: "",
    },
    Case {
        name: "computed",
        set: "n = json_extract('{}', email)",
        told: "bad JSON path: … (permanent, SQLITE_ERROR)",
        logged: "bad JSON path: 'alice@example'",
    },
    Case {
        name: "raised",
        set: "n = 1",
        told: "a function, trigger or extension of the database raised an error, whose words stand in the host's log \
               (permanent, SQLITE_CONSTRAINT_TRIGGER)",
        logged: "alice@example is not to change",
    },
    Case {
        name: "literal",
        set: "n = 1",
        told: "it's not to change (permanent, SQLITE_CONSTRAINT_TRIGGER)",
        logged: "",
    },
];

const POSTGRES: &[Case] = &[
    Case {
        name: "taken",
        set: "email = 'alice@example'",
        told: "duplicate key value violates unique constraint \"taken_email_key\" (permanent, SQLSTATE 23505)",
        logged: "Key (email)=(alice@example) already exists.",
    },
    Case {
        name: "computed",
        set: "n = email::int",
        told: "invalid input syntax for type integer: \"…\" (permanent, SQLSTATE 22P02)",
        logged: "invalid input syntax for type integer: \"alice@example\"",
    },
    Case {
        name: "named",
        set: "n = email::regclass::oid::bigint::int",
        told: "relation \"…\" does not exist (permanent, SQLSTATE 42P01)",
        logged: "relation \"alice@example\" does not exist",
    },
    Case {
        name: "raised",
        set: "n = 1",
        told: "a function, trigger or extension of the database raised an error, whose words stand in the host's log \
               (permanent, SQLSTATE 23505)",
        logged: "alice@example is not to change; ask alice@example",
    },
];

const SQLITE_TRIGGERS: &str = "
    create trigger guards before update on raised begin select raise(abort, old.email || ' is not to change'); end;
    create trigger holds before update on literal begin select raise(abort, 'it''s not to change'); end;";
const POSTGRES_TRIGGERS: &str = "
    create function guard() returns trigger language plpgsql as $$ begin
    raise exception '% is not to change', old.email using errcode = 'unique_violation', hint = 'ask ' || old.email;
    end $$;
    create trigger guards before update on raised for each row execute function guard();";

on_both! {
    async fn values_of_rows_reach_the_log_and_nobody_else(place: Place) {
        let (cases, triggers) = match place.system() {
            tidegate::update::sql::System::Sqlite => (SQLITE, SQLITE_TRIGGERS),
            tidegate::update::sql::System::Postgres => (POSTGRES, POSTGRES_TRIGGERS),
        };
        let mut updates = String::new();
        for Case { name, set, .. } in cases {
            place
                .run(&format!(
                    "create table {name} (id int primary key not null, email text unique, n int);
                     insert into {name} (id, email) values (1, '{SECRET}'), (2, 'bob')"
                ))
                .await;
            let set = toml::Value::from(*set);
            updates += &format!(
                "[[update]]\nname = \"{name}\"\nkind = \"backfill\"\ntable = \"{name}\"\nkey = \"id\"\nset = {set}\n"
            );
        }
        place.run(triggers).await;
        let controller = "[[controller]]\nname = \"diary\"\npath = \"diary.wasm\"\n";
        let settings = "max_attempts = 1\npoll_interval_ms = 50";
        let folder = Folder::new(place, settings, "", &format!("{updates}{controller}{WITHOUT_TOKENS}"));
        folder.write("diary.wasm", keeper(0, 0).component());
        let mut api =
            Api::start_as(folder, &["--log", "info", "run", "--record", "trace.jsonl"]).await;
        let mut events = api.events("/api/v1/events", "").await;
        for Case { name, .. } in cases {
            let (told, code) = api.folder.tidegate(&["enqueue", name]).await;
            assert_eq!(code, 0, "{told}");
        }
        api.process.repeats(": quarantined after 1 attempt", cases.len(), PATIENCE).await;
        let history = async |name: &str| api.get(&format!("/api/v1/databases/master/updates/{name}"), "").await;
        let mut everybody = Vec::new();
        for Case { name, .. } in cases {
            until("the history is written", async || history(name).await.json()["iterations"][0].is_object()).await;
            everybody.push((format!("what the API says of {name}"), history(name).await.text));
            everybody.push((format!("the history of {name}"), api.folder.tidegate(&["history", name]).await.0));
        }
        everybody.push(("the page".to_owned(), api.get("/", "").await.text));
        everybody.push(("the status".to_owned(), api.folder.tidegate(&["status"]).await.0));
        everybody.push(("the status as JSON".to_owned(), api.folder.tidegate(&["status", "--json"]).await.0));
        let mut failures = String::new();
        while failures.matches("\"kind\":\"failure\"").count() < cases.len() {
            let event = events.next().await.unwrap();
            if event["kind"] == "failure" || event["kind"] == "iteration-ended" {
                failures += &format!("{event}\n");
            }
        }
        everybody.push(("the events".to_owned(), failures));
        drop(events);
        api.process.signal("TERM");
        assert_eq!(api.process.end(PATIENCE).await, 0, "{}", api.process.said());
        let trace = std::fs::read_to_string(api.folder.path().join("trace.jsonl")).unwrap();
        everybody.push(("the trace".to_owned(), trace));
        let said = api.process.said();
        let exits = said.lines().filter(|line| line.contains("exit failed: ")).collect::<Vec<_>>().join("\n");
        everybody.push(("the controller".to_owned(), exits));

        for (who, heard) in &everybody {
            assert!(!heard.contains("alice"), "{who}: {heard}");
        }
        // The page, the API, the trace and the events write quotation marks, the page apostrophes too, in ways of their own.
        let plain = |text: &str| text.replace("\\\"", "\"").replace("&quot;", "\"").replace("&#39;", "'");
        for Case { name, told, logged, .. } in cases {
            let heard = everybody.iter().filter(|(who, _)| !who.contains(" of ") || who.ends_with(name));
            for (who, heard) in heard {
                assert!(plain(heard).contains(told), "{who} is not told {told}: {heard}");
            }
            let next = said.lines().skip_while(|line| !line.contains(&format!("{name}: quarantined"))).nth(1);
            let detail = next.and_then(|line| line.strip_prefix("  detail: ")).unwrap_or_default();
            assert_eq!(detail, *logged, "{name}: {said}");
        }
    }
}
