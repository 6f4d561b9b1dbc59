//! An index is built once, whatever a build before it left behind, and never taken for one that it is not.

use tidegate::update::sql::System;
use tidegate::update::{CreateIndex, CreateIndexDefinition, IndexParts, UpdateError};

use super::subject::{Driven, Subject, names, table};

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
