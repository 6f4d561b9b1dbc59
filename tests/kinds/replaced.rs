//! What an index may be asked for besides its columns: another that it replaces, a schema, and to be of PostgreSQL's.

use tidegate::update::sql::{System, TableName};
use tidegate::update::{CreateIndex, CreateIndexDefinition, IndexParts, Next};

use super::subject::{Driven, Subject, UPDATE, names, table};

const TABLE: &str = "CREATE TABLE messages (id integer not null primary key, body text, room text not null UNIQUE);
    INSERT INTO messages VALUES (1, 'a', '!x'), (2, 'b', '!y'), (3, NULL, '!z');
    CREATE INDEX old ON messages (body);";

fn replacing(replaces: &str) -> CreateIndexDefinition {
    CreateIndexDefinition {
        table: table("messages"),
        index: "new".to_owned(),
        parts: IndexParts::Expressions(names(&["lower(body)", "room DESC"])),
        unique: true,
        filter: Some("body IS NOT NULL".to_owned()),
        replaces: Some(replaces.to_owned()),
        postgres_only: false,
    }
}

/// The valid indexes that CREATE INDEX made.
async fn indexes(subject: &Subject) -> Vec<String> {
    let query = match subject.system {
        System::Sqlite => "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL ORDER BY name",
        System::Postgres => {
            "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
             WHERE i.indisvalid AND c.relname IN ('old', 'new') ORDER BY 1"
        }
    };
    subject.rows(query).await.into_iter().filter(|name| ["old", "new", "Old one"].contains(&name.as_str())).collect()
}

#[tokio::test]
async fn the_old_index_goes_when_the_new_one_is_there() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        let handler = CreateIndex::new(replacing("old"), subject.system);
        // The second time the old one is gone already.
        for _ in 0..2 {
            subject.drive(&handler, 100).await.unwrap();
            assert_eq!(indexes(&subject).await, ["new"], "on {}", subject.system);
        }
    }
}

#[tokio::test]
async fn the_old_index_stays_where_the_new_one_cannot_be_built() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        let twice =
            CreateIndexDefinition { parts: IndexParts::Expressions(names(&["(1)"])), filter: None, ..replacing("old") };
        subject.drive(&CreateIndex::new(twice, subject.system), 100).await.unwrap_err();
        assert_eq!(indexes(&subject).await, ["old"], "on {}", subject.system);
    }
}

#[tokio::test]
async fn a_host_that_died_before_it_dropped_the_old_index_drops_it_the_next_time() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        subject.script("CREATE UNIQUE INDEX new ON messages (lower(body), room DESC) WHERE body IS NOT NULL").await;
        subject.drive(&CreateIndex::new(replacing("old"), subject.system), 100).await.unwrap();
        assert_eq!(indexes(&subject).await, ["new"], "on {}", subject.system);
    }
}

#[tokio::test]
async fn an_index_that_something_else_needs_is_not_dropped() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        let constraint = match subject.system {
            System::Sqlite => "sqlite_autoindex_messages_1",
            System::Postgres => "messages_room_key",
        };
        subject.script("CREATE TABLE others (id integer); CREATE INDEX foreign_one ON others (id)").await;
        for (replaces, why) in [(constraint, "needs it"), ("foreign_one", "another table")] {
            let error = subject.drive(&CreateIndex::new(replacing(replaces), subject.system), 100).await.unwrap_err();
            let error = error.to_string();
            let said = match (subject.system, why) {
                (System::Sqlite, "needs it") => "the table's own definition makes it",
                (System::Sqlite, _) => "it is an index of table \"others\"",
                (System::Postgres, why) => why,
            };
            assert!(error.starts_with(&format!("index \"{replaces}\" cannot be replaced: ")), "{error}");
            assert!(error.contains(said), "{error}");
            subject.database.cancel(&[UPDATE.to_owned()]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_index_for_postgresql_alone_ends_at_once_on_sqlite() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        let definition = CreateIndexDefinition { postgres_only: true, ..replacing("old") };
        subject.enqueue().await;
        let mut driven = Driven::default();
        let handler = CreateIndex::new(definition, subject.system);
        assert_eq!(subject.problems(&handler).await, "");
        assert_eq!(subject.batch(&handler, 100, &mut driven).await.unwrap(), Some(Next::Finished));
        let (items, there) = if subject.system == System::Sqlite { (0, "old") } else { (1, "new") };
        assert_eq!((driven.items, indexes(&subject).await), (vec![items], vec![there.to_owned()]));
    }
}

#[tokio::test]
async fn an_index_and_the_one_it_replaces_are_in_the_schema_that_is_named() {
    for subject in Subject::each().await {
        let schema = match subject.system {
            System::Sqlite => "main",
            System::Postgres => "Öther",
        };
        if subject.system == System::Postgres {
            subject.script("CREATE SCHEMA \"Öther\"").await;
            // Of the same names, and to be left alone.
            subject.script(TABLE).await;
        }
        subject
            .script(&format!(
                "CREATE TABLE \"{schema}\".messages (id integer not null primary key, body text, room text not null)"
            ))
            .await;
        let on = if subject.system == System::Sqlite { "messages" } else { "\"Öther\".messages" };
        subject.script(&format!("CREATE INDEX old ON {on} (body)")).await;
        let there = TableName { schema: Some(schema.to_owned()), name: "messages".to_owned() };
        let handler = CreateIndex::new(CreateIndexDefinition { table: there, ..replacing("old") }, subject.system);
        assert_eq!(subject.problems(&handler).await, "");
        subject.drive(&handler, 100).await.unwrap();
        if subject.system == System::Postgres {
            let all =
                "SELECT schemaname || '.' || indexname FROM pg_indexes WHERE indexname IN ('old', 'new') ORDER BY 1";
            assert_eq!(subject.rows(all).await, ["public.old", "Öther.new"]);
        } else {
            assert_eq!(indexes(&subject).await, ["new"]);
        }
    }
}

#[tokio::test]
async fn a_check_of_an_index_leaves_nothing_behind() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        assert_eq!(subject.problems(&CreateIndex::new(replacing("old"), subject.system)).await, "");
        assert_eq!(indexes(&subject).await, ["old"]);
        let tables = match subject.system {
            System::Sqlite => "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'messages'",
            System::Postgres => "SELECT count(*) FROM pg_class WHERE relname = 'messages'",
        };
        assert_eq!(subject.value(tables).await, "1");
    }
}
