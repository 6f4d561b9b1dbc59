//! Schemas, sessions and writers as real databases have them: an update does what its definition says to every row that it
//! is about and to no other, or refuses before the first.

use std::time::{Duration, Instant};

use tidegate::scheduler::database::NewRow;
use tidegate::update::{
    Backfill, BackfillDefinition, Batch, BatchDefinition, Delete, DeleteDefinition, ErrorClass, Handler, Script,
    ScriptDefinition, ValidateAndDelete, ValidateAndDeleteDefinition,
};
use tidegate_database::{Options, open};

use super::subject::{Driven, Subject, UPDATE, names, table};
use crate::support::place::{Place, holder};

fn backfill(key: &[&str], set: &str) -> Backfill {
    let definition = BackfillDefinition { table: table("t"), key: names(key), set: set.to_owned(), filter: None };
    Backfill::new(definition)
}

fn script(subject: &Subject, sql: &str) -> Script {
    Script::new(ScriptDefinition { sql: sql.to_owned() }, subject.system)
}

const TOUCH: &str = "touched = touched + 1";

/// Table `t` with the keys 1 to 10.
async fn ten(subject: &Subject) {
    subject
        .script(
            "CREATE TABLE t (id integer primary key, seq integer not null unique, touched integer not null default 0)",
        )
        .await;
    for id in 1..=10 {
        subject.script(&format!("INSERT INTO t (id, seq) VALUES ({id}, {})", 100 - id)).await;
    }
}

/// Queues the update with progress of its own.
async fn enqueue_at(subject: &Subject, progress: &str) {
    let row = NewRow { update_name: UPDATE.to_owned(), progress: progress.to_owned(), depends_on: None, ordering: 0 };
    assert!(subject.database.enqueue(&row).await.unwrap());
}

#[tokio::test]
async fn a_walk_ends_at_the_last_key_that_was_there_when_it_began() {
    for subject in Subject::each().await {
        ten(&subject).await;
        subject.enqueue().await;
        let (handler, mut driven) = (backfill(&["id"], TOUCH), Driven::default());
        let mut next = 11;
        while let Some(tidegate::update::Next::Continue(_)) = subject.batch(&handler, 2, &mut driven).await.unwrap() {
            assert!(driven.items.len() < 50, "the walk follows the rows that come in, on {}", subject.system);
            for id in next..next + 3 {
                subject.script(&format!("INSERT INTO t (id, seq) VALUES ({id}, {})", 1000 + id)).await;
            }
            next += 3;
        }
        assert_eq!(subject.value("SELECT count(*) FROM t WHERE id <= 10 AND touched = 1").await, "10");
        assert_eq!(subject.value("SELECT count(*) FROM t WHERE id > 10 AND touched > 0").await, "0");
    }
}

#[tokio::test]
async fn a_set_that_moves_rows_along_the_walk_is_refused() {
    for subject in Subject::each().await {
        ten(&subject).await;
        subject
            .script("ALTER TABLE t ADD COLUMN room integer NOT NULL DEFAULT 1; CREATE INDEX by_room ON t (room)")
            .await;
        let sqlite = subject.system == tidegate::update::sql::System::Sqlite;
        // What makes (room) unique is the primary key, which SQLite walks as the rowid.
        let mut cases = vec![(&["room"][..], "id = id + 3, touched = touched + 1")];
        if sqlite {
            cases.extend([
                (&["id"][..], "rowid = rowid + 100"),
                (&["rowid"][..], "id = id + 100"),
                (&["room"][..], "oid = oid + 100"),
            ]);
        }
        for (key, set) in cases {
            let problems = subject.problems(&backfill(key, set)).await;
            assert!(problems.contains("a row that moves ahead is met again"), "{set} along {key:?}: {problems}");
        }
        let computed = "CREATE TABLE c (id integer primary key, \"the n\" integer not null, \
                        place integer not null GENERATED ALWAYS AS (\"the n\" * 2) STORED, touched integer);
                        CREATE UNIQUE INDEX by_place ON c (place)";
        subject.script(computed).await;
        let set = "\"the n\" = \"the n\" + 1".to_owned();
        let definition = BackfillDefinition { table: table("c"), key: names(&["place"]), set, filter: None };
        let problems = subject.problems(&Backfill::new(definition)).await;
        assert!(
            problems.contains("assigns column \"the n\", from which \"place\" of the key is computed"),
            "{problems}"
        );
        assert_eq!(subject.problems(&backfill(&["room"], TOUCH)).await, "");
        assert_eq!(subject.problems(&backfill(&["id"], "room = room + 1")).await, "");
    }
}

#[tokio::test]
async fn a_row_that_a_trigger_moves_ahead_is_met_once() {
    let subject = Subject::sqlite().await;
    ten(&subject).await;
    subject
        .script("CREATE TRIGGER ahead AFTER UPDATE OF touched ON t BEGIN UPDATE t SET seq = seq + 1000 WHERE id = NEW.id; END")
        .await;
    subject.drive(&backfill(&["seq"], TOUCH), 3).await.unwrap();
    assert_eq!(subject.value("SELECT count(*) FROM t WHERE touched = 1").await, "10");
}

#[tokio::test]
async fn a_row_that_a_trigger_moves_to_where_the_walk_has_yet_to_come_fails_its_batch() {
    const SQLITE: &str = "CREATE TRIGGER moves AFTER UPDATE OF touched ON t
        BEGIN UPDATE t SET seq = seq + BY WHERE id = NEW.id; END";
    const POSTGRES: &str = "CREATE FUNCTION moves() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN NEW.seq := NEW.seq + BY; RETURN NEW; END $$;
        CREATE TRIGGER moves BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION moves()";
    for subject in Subject::each().await {
        for (by, moved) in
            [("35", Some("moved 3 rows of the batch ahead along the key (seq)")), ("1000", None), ("-2000", None)]
        {
            ten(&subject).await;
            subject.script("UPDATE t SET seq = 1000 + id * 10").await;
            let trigger = match subject.system {
                tidegate::update::sql::System::Sqlite => SQLITE,
                tidegate::update::sql::System::Postgres => POSTGRES,
            };
            subject.script(&trigger.replace("BY", by).replace("+ -", "- ")).await;
            match (subject.drive(&backfill(&["seq"], TOUCH), 3).await, moved) {
                (Err(error), Some(words)) => {
                    assert!(error.to_string().contains(words), "{error}");
                    assert_eq!(subject.value("SELECT count(*) FROM t WHERE touched = 0").await, "10");
                }
                (driven, None) => {
                    driven.unwrap();
                    assert_eq!(subject.value("SELECT count(*) FROM t WHERE touched = 1").await, "10", "by {by}");
                }
                (driven, _) => panic!("by {by} on {}: {driven:?}", subject.system),
            }
            subject.database.cancel(&[UPDATE.to_owned()]).await.unwrap();
            subject.script("DROP TABLE t").await;
            if subject.system == tidegate::update::sql::System::Postgres {
                subject.script("DROP FUNCTION moves").await;
            }
        }
    }
}

#[tokio::test]
async fn progress_of_another_key_is_refused_and_that_of_version_0_1_is_taken() {
    for subject in Subject::each().await {
        ten(&subject).await;
        subject.enqueue().await;
        let mut driven = Driven::default();
        subject.batch(&backfill(&["id"], TOUCH), 4, &mut driven).await.unwrap();
        let error = subject.batch(&backfill(&["seq"], TOUCH), 4, &mut driven).await.unwrap_err().to_string();
        assert!(error.contains("along the key (id), and the definition says table \"t\" and key (seq)"), "{error}");
        subject.database.cancel(&[UPDATE.to_owned()]).await.unwrap();
        subject.script("UPDATE t SET touched = 0").await;
        enqueue_at(&subject, r#"{"after": ["4"], "items": 4}"#).await;
        while let Some(tidegate::update::Next::Continue(_)) =
            subject.batch(&backfill(&["id"], TOUCH), 4, &mut driven).await.unwrap()
        {}
        assert_eq!(subject.value("SELECT count(*) FROM t WHERE touched = 1 AND id > 4").await, "6");
        assert_eq!(subject.value("SELECT sum(touched) FROM t").await, "6");
    }
}

#[tokio::test]
async fn a_batch_along_a_key_that_is_not_unique_keeps_to_its_size() {
    for subject in Subject::each().await {
        subject
            .script(
                "CREATE TABLE t (id integer primary key, tenant integer not null, touched integer not null default 0);
                 CREATE INDEX by_tenant ON t (tenant)",
            )
            .await;
        for id in 1..=20 {
            subject.script(&format!("INSERT INTO t (id, tenant) VALUES ({id}, {})", id / 15)).await;
        }
        let driven = subject.drive(&backfill(&["tenant"], TOUCH), 4).await.unwrap();
        assert!(driven.items.iter().all(|items| *items <= 4), "{:?}", driven.items);
        assert_eq!(subject.value("SELECT count(*) FROM t WHERE touched = 1").await, "20");
    }
}

#[tokio::test]
async fn sqlite_tables_are_walked_along_their_rowid() {
    let subject = Subject::sqlite().await;
    subject
        .script("CREATE TABLE t (word text, touched integer default 0); CREATE VIRTUAL TABLE s USING fts5 (word)")
        .await;
    for n in 0..20 {
        subject.script(&format!("INSERT INTO t (word) VALUES ('w{n}'); INSERT INTO s VALUES ('w{}')", n % 2)).await;
    }
    subject.drive(&backfill(&["rowid"], TOUCH), 6).await.unwrap();
    assert_eq!(subject.value("SELECT count(*) FROM t WHERE touched = 1").await, "20");
    let delete =
        Delete::new(DeleteDefinition { table: table("s"), key: names(&["rowid"]), filter: "word = 'w1'".to_owned() });
    assert_eq!(subject.problems(&delete).await, "");
    subject.drive(&delete, 6).await.unwrap();
    assert_eq!(subject.rows("SELECT DISTINCT word FROM s").await, ["w0"]);
}

#[tokio::test]
async fn a_misspelt_name_in_double_quotes_is_an_error_on_sqlite() {
    let subject = Subject::sqlite().await;
    ten(&subject).await;
    let filter = "\"state\" <> 'sent'".to_owned();
    let delete = Delete::new(DeleteDefinition { table: table("t"), key: names(&["id"]), filter });
    assert!(subject.problems(&delete).await.contains("no such column: \"state\""));
    subject.drive(&delete, 4).await.unwrap_err();
    assert_eq!(subject.value("SELECT count(*) FROM t").await, "10");
}

#[tokio::test]
async fn a_table_rebuilt_by_a_script_takes_no_rows_along_and_leaves_none_behind() {
    const REBUILD: &str = "CREATE TABLE new (id integer primary key, name text not null);
        INSERT INTO new SELECT id, name FROM rooms WHERE :kept; DROP TABLE rooms; ALTER TABLE new RENAME TO rooms;";
    let subject = Subject::sqlite().await;
    subject
        .script(
            "CREATE TABLE rooms (id integer primary key, name text);
             CREATE TABLE messages (id integer primary key, room integer not null REFERENCES rooms (id) ON DELETE CASCADE);
             INSERT INTO rooms VALUES (1, 'a'), (2, 'b'); INSERT INTO messages VALUES (1, 1), (2, 2), (3, 2);",
        )
        .await;
    let loses = subject.drive(&script(&subject, &REBUILD.replace(":kept", "id = 1")), 1).await.unwrap_err();
    assert!(loses.to_string().contains("refer to nothing"), "{loses}");
    assert_eq!(subject.rows("SELECT (SELECT count(*) FROM rooms), count(*) FROM messages").await, ["2|3"]);
    subject.database.cancel(&[UPDATE.to_owned()]).await.unwrap();
    subject.drive(&script(&subject, &REBUILD.replace(":kept", "true")), 1).await.unwrap();
    assert_eq!(subject.rows("SELECT (SELECT count(*) FROM rooms), count(*) FROM messages").await, ["2|3"]);
    // Foreign keys hold again for what comes after.
    assert!(subject.attempt("INSERT INTO messages VALUES (4, 99)").await.is_err());
}

#[tokio::test]
async fn what_a_script_sets_is_gone_for_the_updates_after_it() {
    let subject = Subject::postgres().await;
    ten(&subject).await;
    subject
        .script("CREATE SCHEMA audit; CREATE TABLE audit.t (LIKE t INCLUDING ALL); INSERT INTO audit.t SELECT * FROM t")
        .await;
    for settings in [
        "SET search_path = audit, public",
        "SELECT set_config('search_path', '', false)",
        "CREATE TEMPORARY TABLE t (id integer); SET session_replication_role = replica",
    ] {
        subject.drive(&script(&subject, settings), 1).await.unwrap();
        subject.drive(&backfill(&["id"], TOUCH), 4).await.unwrap();
    }
    let touched = "SELECT (SELECT sum(touched) FROM public.t), (SELECT sum(touched) FROM audit.t)";
    assert_eq!(subject.rows(touched).await, ["30|0"]);

    let subject = Subject::sqlite().await;
    subject.script("CREATE TABLE c (n integer CHECK (n > 0))").await;
    subject
        .drive(&script(&subject, "PRAGMA ignore_check_constraints = ON; INSERT INTO c VALUES (-1)"), 1)
        .await
        .unwrap();
    assert!(subject.attempt("INSERT INTO c VALUES (-2)").await.is_err());
}

#[tokio::test]
async fn statements_of_a_batch_lose_nothing_that_a_user_writes_between_them() {
    let subject = Subject::postgres().await;
    subject
        .script(
            "CREATE TABLE people (id integer primary key, name text); CREATE TABLE names (person integer, name text);
             INSERT INTO people SELECT g, 'old' FROM generate_series(1, 10) g",
        )
        .await;
    let sql = "INSERT INTO names SELECT id, name FROM people WHERE :range; UPDATE people SET name = NULL WHERE :range";
    let definition = BatchDefinition { table: table("people"), key: names(&["id"]), sql: sql.to_owned() };
    let handler = Batch::new(definition, subject.system);
    subject.enqueue().await;
    let user = subject.connect().await;
    user.batch_execute("BEGIN; UPDATE people SET name = 'of the user' WHERE id = 7").await.unwrap();
    let commit = async {
        let deadline = Instant::now() + Duration::from_secs(10);
        while subject.value("SELECT count(*) FROM pg_locks WHERE NOT granted").await == "0" {
            assert!(Instant::now() < deadline, "the batch does not wait for the user");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        user.batch_execute("COMMIT").await.unwrap();
    };
    let mut driven = Driven::default();
    let (met, ()) = tokio::join!(subject.batch(&handler, 100, &mut driven), commit);
    assert_eq!(met.unwrap_err().class(), ErrorClass::Transient);
    subject.batch(&handler, 100, &mut driven).await.unwrap();
    assert_eq!(subject.value("SELECT name FROM names WHERE person = 7").await, "of the user");
    assert_eq!(subject.value("SELECT count(*) FROM names").await, "10");
}

#[tokio::test]
async fn a_constraint_of_the_parent_alone_says_nothing_of_its_children() {
    let subject = Subject::postgres().await;
    subject
        .script(
            "CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (t);
             INSERT INTO t VALUES (1, 1), (2, 9); INSERT INTO child SELECT g, 9 FROM generate_series(10, 30) g;
             ALTER TABLE t ADD CONSTRAINT small CHECK (n < 5) NO INHERIT NOT VALID;",
        )
        .await;
    let handler = ValidateAndDelete::new(ValidateAndDeleteDefinition {
        table: table("t"),
        constraint: "small".to_owned(),
        check: None,
        unique_columns: names(&["id"]),
    });
    subject.drive(&handler, 4).await.unwrap();
    assert_eq!(subject.rows("SELECT (SELECT count(*) FROM ONLY t), count(*) FROM child").await, ["1|21"]);
}

#[tokio::test]
async fn a_policy_hides_no_rows_in_silence() {
    let place = Place::postgres().await;
    drop(place.prepared().await);
    let name = format!("walker_{}", std::process::id());
    place
        .run(&format!(
            "CREATE TABLE t (id integer primary key, tenant integer, touched integer not null default 0);
             INSERT INTO t SELECT g, g FROM generate_series(1, 10) g;
             ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON t USING (tenant = 1);
             DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN;
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name};"
        ))
        .await;
    let database = open(&place.url.replace("postgres@", &format!("{name}@")), Options::new(holder(1))).unwrap();
    let subject = Subject::with(place, database);
    let handler = backfill(&["id"], TOUCH);
    assert!(subject.problems(&handler as &dyn Handler).await.contains("row-level security"));
    let error = subject.drive(&handler, 4).await.unwrap_err().to_string();
    assert!(error.contains("row-level security policy for table \"t\""), "{error}");
    subject.database.close().await;
    subject.script(&format!("DROP OWNED BY {name}; DROP ROLE {name}")).await;
}

#[tokio::test]
async fn a_trigger_that_writes_a_text_in_double_quotes_is_named() {
    let subject = Subject::sqlite().await;
    ten(&subject).await;
    subject
        .script(
            "CREATE TABLE log (word text);
             CREATE TRIGGER notes AFTER UPDATE ON t BEGIN INSERT INTO log VALUES (\"changed\"); END",
        )
        .await;
    let problems = subject.problems(&backfill(&["id"], TOUCH)).await;
    assert!(problems.contains("no such column: \"changed\""), "{problems}");
    assert!(problems.contains("make trigger \"notes\" anew with \"changed\" in single quotes"), "{problems}");
    let misspelt = subject.problems(&backfill(&["id"], "touched = \"chnged\"")).await;
    assert!(!misspelt.contains("anew"), "{misspelt}");
}

#[tokio::test]
async fn a_script_may_deallocate_what_the_host_prepared() {
    let subject = Subject::postgres().await;
    ten(&subject).await;
    for _ in 0..2 {
        subject.drive(&script(&subject, "DEALLOCATE ALL; UPDATE t SET touched = touched + 1"), 1).await.unwrap();
    }
    assert_eq!(subject.value("SELECT count(*) FROM t WHERE touched = 2").await, "10");
}
