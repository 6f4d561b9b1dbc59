//! What `check` says of a definition that does not fit the database.

use insta::assert_snapshot;
use tidegate::update::{
    Backfill, BackfillDefinition, CreateIndex, CreateIndexDefinition, Delete, DeleteDefinition, Handler, IndexParts,
};

use super::subject::{Subject, names, table};

const TABLES: &str =
    "CREATE TABLE messages (id integer not null primary key, room text not null, n integer not null, body text);
    CREATE INDEX by_room ON messages (room, n);
    CREATE INDEX partly ON messages (n) WHERE body IS NULL;";

fn backfill(name: &str, key: &[&str], set: &str, filter: Option<&str>) -> Box<dyn Handler> {
    let filter = filter.map(str::to_owned);
    Box::new(Backfill::new(BackfillDefinition { table: table(name), key: names(key), set: set.to_owned(), filter }))
}

fn delete(key: &[&str], filter: &str) -> Box<dyn Handler> {
    Box::new(Delete::new(DeleteDefinition { table: table("messages"), key: names(key), filter: filter.to_owned() }))
}

fn index(subject: &Subject, name: &str, index: &str, columns: &[&str], filter: Option<&str>) -> Box<dyn Handler> {
    let definition = CreateIndexDefinition {
        table: table(name),
        index: index.to_owned(),
        parts: IndexParts::Columns(names(columns)),
        unique: false,
        filter: filter.map(str::to_owned),
        replaces: None,
        postgres_only: false,
    };
    Box::new(CreateIndex::new(definition, subject.system))
}

#[tokio::test]
async fn a_definition_in_order_has_no_problems() {
    for subject in Subject::each().await {
        subject.script(TABLES).await;
        for handler in [
            backfill("messages", &["id"], "body = lower(body)", Some("room = 'x' -- or so")),
            backfill("messages", &["room", "n"], "body = 'a'", None),
            backfill("messages", &["room"], "body = 'a'", None),
            delete(&["id"], "body IS NULL"),
            index(&subject, "messages", "new", &["body", "room"], Some("n > 3")),
            index(&subject, "messages", "by_room", &["room", "n"], None),
        ] {
            assert_eq!(subject.problems(&*handler).await, "", "on {}", subject.system);
        }
    }
}

#[tokio::test]
async fn what_does_not_fit_is_named_with_a_hint() {
    for subject in Subject::each().await {
        subject.script(TABLES).await;
        let mut text = String::new();
        for handler in [
            backfill("mesages", &["id"], "body = 'a'", None),
            backfill("messages", &[], "body = 'a'", None),
            backfill("messages", &["idd", "body"], "body = 'a'", None),
            backfill("messages", &["id", "id"], "body = 'a'", None),
            backfill("messages", &["n"], "body = 'a'", None),
            backfill("messages", &["n", "room"], "body = 'a'", None),
            backfill("messages", &["id"], "bodie = 'a'", Some("n > 1")),
            backfill("messages", &["id"], "body = 'a'", Some("n > ")),
            delete(&["id"], "m = 1"),
            index(&subject, "mesages", "new", &["room"], None),
            index(&subject, "messages", "new", &["rom", "n"], None),
            index(&subject, "messages", "by_room", &["n", "room"], None),
            index(&subject, "messages", "new", &["n"], Some("m = 1")),
        ] {
            text.push_str(&subject.problems(&*handler).await);
            text.push('\n');
        }
        assert_snapshot!(format!("problems_{}", subject.system), text);
    }
}
