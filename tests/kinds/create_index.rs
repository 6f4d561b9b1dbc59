//! An index is built once, whatever a build before it left behind, and never taken for one that it is not.

use tidegate::update::sql::System;
use tidegate::update::{CreateIndex, CreateIndexDefinition, ErrorClass, IndexParts, UpdateError};

use super::subject::{Driven, Subject, names, table};
use crate::support::until;

const TABLE: &str =
    "CREATE TABLE messages (id integer not null primary key, body text, room text not null, deleted integer);
    INSERT INTO messages VALUES (1, 'a', '!x', 0), (2, 'b', '!x', 1), (3, 'c', '!y', NULL);";

fn wanted() -> CreateIndexDefinition {
    CreateIndexDefinition {
        table: table("messages"),
        index: "by_room".to_owned(),
        parts: IndexParts::Columns(names(&["room", "id"])),
        unique: false,
        filter: None,
        replaces: None,
        postgres_only: false,
    }
}

fn expressions(expressions: &[&str]) -> CreateIndexDefinition {
    CreateIndexDefinition { parts: IndexParts::Expressions(names(expressions)), ..wanted() }
}

fn partial(filter: &str) -> CreateIndexDefinition {
    CreateIndexDefinition { filter: Some(filter.to_owned()), ..wanted() }
}

async fn build(subject: &Subject, definition: CreateIndexDefinition) -> Result<Driven, UpdateError> {
    let outcome = subject.drive(&CreateIndex::new(definition, subject.system), 100).await;
    if outcome.is_err() {
        subject.database.cancel(&[super::subject::UPDATE.to_owned()]).await.unwrap();
    }
    outcome
}

/// The valid indexes of that name.
async fn indexes(subject: &Subject, name: &str) -> String {
    let query = match subject.system {
        System::Sqlite => format!("SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND name = '{name}'"),
        System::Postgres => format!(
            "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
             WHERE c.relname = '{name}' AND i.indisvalid"
        ),
    };
    subject.value(&query).await
}

#[tokio::test]
async fn an_index_is_built_and_met_again() {
    let definitions = [
        wanted(),
        CreateIndexDefinition { unique: true, ..wanted() },
        partial("deleted = 1 OR body IS NULL -- those that are hidden"),
        expressions(&["lower(body)", "room DESC"]),
        expressions(&["(id + 1) -- the next"]),
        CreateIndexDefinition { index: "By \"Röom\"".to_owned(), ..wanted() },
    ];
    for subject in Subject::each().await {
        for definition in &definitions {
            subject.script(&format!("DROP TABLE IF EXISTS messages; {TABLE}")).await;
            for _ in 0..2 {
                let driven = build(&subject, definition.clone()).await.unwrap();
                assert_eq!(driven.items, [1]);
                assert_eq!(indexes(&subject, &definition.index).await, "1");
            }
        }
    }
}

#[tokio::test]
async fn an_index_that_somebody_else_made_counts_where_it_is_the_same() {
    let same = [
        ("create index BY_ROOM on messages(room,id)", wanted()),
        ("CREATE INDEX by_room ON messages (\"room\" , id) WHERE deleted=1", partial("(deleted = 1)")),
        (
            "CREATE INDEX by_room ON messages (room, id) WHERE (body IS NULL) or ((deleted = 1))",
            partial("body is null or (deleted=1)"),
        ),
        ("CREATE INDEX by_room ON messages (lower(body))", expressions(&["LOWER(body)"])),
    ];
    for subject in Subject::each().await {
        for (made, definition) in &same {
            subject.script(&format!("DROP TABLE IF EXISTS messages; {TABLE} {made}")).await;
            // The third differs in parentheses inside the condition, which SQLite keeps as they were typed.
            if subject.system == System::Sqlite && made.contains("((") {
                continue;
            }
            build(&subject, definition.clone()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_different_index_of_that_name_is_an_error_and_stays() {
    let different = [
        "CREATE INDEX by_room ON messages (room)",
        "CREATE INDEX by_room ON messages (id, room)",
        "CREATE INDEX by_room ON messages (room, id DESC)",
        "CREATE UNIQUE INDEX by_room ON messages (room, id)",
        "CREATE INDEX by_room ON messages (room, id) WHERE deleted = 1",
        "CREATE INDEX by_room ON messages (lower(room), id)",
        "CREATE TABLE others (room text, id integer); CREATE INDEX by_room ON others (room, id)",
    ];
    for subject in Subject::each().await {
        for made in different {
            subject
                .script(&format!("DROP TABLE IF EXISTS others; DROP TABLE IF EXISTS messages; {TABLE} {made}"))
                .await;
            let error = build(&subject, wanted()).await.unwrap_err().to_string();
            assert!(error.starts_with("there is a different index \"by_room\" already: found "), "{error}");
            assert!(error.contains(" wanted CREATE INDEX "), "{error}");
            assert_eq!(indexes(&subject, "by_room").await, "1");
        }
        let (found, wanted) = ("deleted = 'a  b'", "deleted = 'a b'");
        if subject.system == System::Sqlite {
            let made = format!("CREATE INDEX by_room ON messages (room, id) WHERE {found}");
            subject.script(&format!("DROP TABLE others; DROP TABLE messages; {TABLE} {made}")).await;
            build(&subject, partial(wanted)).await.unwrap_err();
        }
    }
}

#[tokio::test]
async fn a_name_that_a_table_has_is_an_error() {
    for subject in Subject::each().await {
        subject.script(&format!("{TABLE} CREATE TABLE by_room (id integer)")).await;
        build(&subject, wanted()).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_unique_index_over_equal_rows_fails_and_leaves_nothing_behind() {
    let unique = CreateIndexDefinition { parts: IndexParts::Columns(names(&["room"])), unique: true, ..wanted() };
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        build(&subject, unique.clone()).await.unwrap_err();
        let all = match subject.system {
            System::Sqlite => "SELECT count(*) FROM sqlite_schema WHERE name = 'by_room'",
            System::Postgres => "SELECT count(*) FROM pg_class WHERE relname = 'by_room'",
        };
        assert_eq!(subject.value(all).await, "0", "on {}", subject.system);
        subject.script("DELETE FROM messages WHERE id = 2").await;
        build(&subject, unique.clone()).await.unwrap();
        assert_eq!(indexes(&subject, "by_room").await, "1");
    }
}

#[tokio::test]
async fn an_index_has_no_progress() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        subject.enqueue().await;
        subject.script("UPDATE background_updates SET progress_json = '{\"after\": [\"1\"], \"items\": 1}'").await;
        let handler = CreateIndex::new(wanted(), subject.system);
        let error = subject.batch(&handler, 100, &mut Driven::default()).await.unwrap_err();
        assert!(matches!(error, UpdateError::Progress { .. }), "{error}");
    }
}

/// What PostgreSQL can index, said in two ways.
#[tokio::test]
async fn an_index_of_whatever_postgresql_indexes_is_recognised() {
    const FUNCTION: &str =
        "CREATE FUNCTION full_name(m messages) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT m.room || m.body';";
    // What is made, the list of the definition, and whether they are the same.
    let cases = [
        ("full_name(messages)", &["\"full_name\" ( messages )"][..], true),
        ("full_name(messages)", &["full_name(messages) DESC"], false),
        ("room COLLATE \"C\"", &["room collate pg_catalog.\"C\""], true),
        ("room COLLATE \"C\"", &["room"], false),
        ("room", &["room COLLATE \"C\""], false),
        ("room", &["room COLLATE \"default\""], true),
        ("room text_pattern_ops", &["room pg_catalog.text_pattern_ops"], true),
        ("room text_pattern_ops", &["room"], false),
        ("room text_ops", &["room"], true),
        ("room DESC, (id + 1)", &["room desc nulls first", "(1 + id - 0)"], false),
        ("room DESC, (id + 1)", &["room desc nulls first", "((id)+1)"], true),
        ("room NULLS FIRST", &["room"], false),
        ("coalesce(body, room)", &["COALESCE(body,room)"], true),
        ("(body || ',' || room) DESC NULLS LAST", &["(body||','||room) desc nulls last"], true),
        ("(CASE WHEN deleted = 1 THEN room END)", &["(case deleted=1 when true then room end)"], false),
        ("id) INCLUDE (room", &["id"], false),
    ];
    let subject = Subject::postgres().await;
    for (made, list, same) in cases {
        subject
            .script(&format!(
                "DROP TABLE IF EXISTS messages CASCADE; {TABLE} {FUNCTION} CREATE INDEX by_room ON messages ({made})"
            ))
            .await;
        let problems = subject.problems(&CreateIndex::new(expressions(list), subject.system)).await;
        assert_eq!(problems.is_empty(), same, "{made} and {list:?}: {problems}");
        assert_eq!(build(&subject, expressions(list)).await.is_ok(), same, "{made} and {list:?}");
    }
    let made = "CREATE INDEX by_room ON messages USING hash (room)";
    subject.script(&format!("DROP TABLE IF EXISTS messages CASCADE; {TABLE} {made}")).await;
    build(&subject, expressions(&["room"])).await.unwrap_err();
}

#[tokio::test]
async fn what_cannot_be_indexed_is_told_before_the_build() {
    let subject = Subject::postgres().await;
    subject.script(TABLE).await;
    for (list, words) in [
        (&["(now()::text)"][..], "must be marked IMMUTABLE"),
        (&["absent(room)"], "function absent(text) does not exist"),
        (&["room absent_ops"], "operator class \"absent_ops\" does not exist"),
        (&["(point(1, id))"], "no default operator class"),
    ] {
        let problems = subject.problems(&CreateIndex::new(expressions(list), subject.system)).await;
        assert!(problems.contains(words), "{list:?}: {problems}");
    }
}

#[tokio::test]
async fn an_index_that_something_needs_is_not_replaced() {
    let on_postgres = [
        ("ALTER TABLE messages REPLICA IDENTITY USING INDEX old", "table \"messages\" is replicated by it"),
        ("ALTER TABLE messages CLUSTER ON old", "table \"messages\" is clustered by it"),
        (
            "CREATE TABLE lines (room text REFERENCES messages (room))",
            "constraint \"lines_room_fkey\" of table \"lines\" needs it",
        ),
        (
            "ALTER TABLE messages ADD CONSTRAINT one_room UNIQUE USING INDEX old",
            "constraint \"one_room\" of table \"messages\" needs it",
        ),
    ];
    let on_sqlite = [(
        "CREATE TABLE lines (room text REFERENCES messages (room))",
        "a foreign key of table \"lines\" refers to its columns",
    )];
    for subject in Subject::each().await {
        let cases = match subject.system {
            System::Sqlite => &on_sqlite[..],
            System::Postgres => &on_postgres,
        };
        for (needs, words) in cases {
            subject
                .script(&format!(
                    "DROP TABLE IF EXISTS lines; DROP TABLE IF EXISTS messages; {TABLE} DELETE FROM messages WHERE id = 2; \
                     CREATE UNIQUE INDEX old ON messages (room); {needs}"
                ))
                .await;
            let index = if needs.contains("one_room") { "one_room" } else { "old" };
            let replacing = CreateIndexDefinition { replaces: Some(index.to_owned()), ..wanted() };
            let problems = subject.problems(&CreateIndex::new(replacing.clone(), subject.system)).await;
            assert!(problems.contains(words), "{needs}: {problems}");
            let error = build(&subject, replacing).await.unwrap_err().to_string();
            assert!(error.contains(words), "{needs}: {error}");
            assert_eq!(indexes(&subject, "by_room").await, "0", "{needs}: it was built in vain");
            assert_eq!(indexes(&subject, index).await, "1", "{needs}: the old one is gone");
        }
    }
    let sqlite = Subject::sqlite().await;
    sqlite
        .script(&format!(
            "{TABLE} DELETE FROM messages WHERE id = 2; CREATE UNIQUE INDEX old ON messages (room); \
             CREATE TABLE lines (room text REFERENCES messages (room))"
        ))
        .await;
    let parts = IndexParts::Columns(names(&["Room"]));
    build(&sqlite, CreateIndexDefinition { parts, unique: true, replaces: Some("old".to_owned()), ..wanted() })
        .await
        .unwrap();
    assert_eq!(indexes(&sqlite, "old").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_somebody_else_builds_is_left_alone() {
    let subject = Subject::postgres().await;
    subject.script(TABLE).await;
    let writer = subject.connect().await;
    writer.batch_execute("BEGIN; UPDATE messages SET body = 'z' WHERE id = 1").await.unwrap();
    let builder = subject.connect().await;
    let build_by_hand = "SET application_name = 'by hand'";
    builder.batch_execute(build_by_hand).await.unwrap();
    let building =
        tokio::spawn(
            async move { builder.batch_execute("CREATE INDEX CONCURRENTLY by_room ON messages (room, id)").await },
        );
    let begun = "SELECT count(*) FROM pg_class WHERE relname = 'by_room'";
    until("the other build has begun", async || subject.value(begun).await == "1").await;
    let error = build(&subject, wanted()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert!(error.to_string().contains("(by hand, user "), "{error}");
    assert!(!building.is_finished(), "the other build was disturbed");
    writer.batch_execute("COMMIT").await.unwrap();
    building.await.unwrap().unwrap();
    build(&subject, wanted()).await.unwrap();
    assert_eq!(indexes(&subject, "by_room").await, "1");
}
