//! What PostgreSQL alone has: more types of keys, schemas, concurrent builds and what they leave behind.

use std::time::Duration;

use tidegate::update::sql::{ErrorClass, TableName};
use tidegate::update::{
    Backfill, BackfillDefinition, Batch, BatchDefinition, Copy, CopyColumn, CopyDefinition, CopySource, CreateIndex,
    CreateIndexDefinition, Delete, DeleteDefinition, Handler, IndexParts, OnConflict, UpdateError,
};

use super::subject::{Driven, Subject, UPDATE, names, table};
use crate::support::until;

fn by_room() -> CreateIndexDefinition {
    CreateIndexDefinition {
        table: table("messages"),
        index: "by_room".to_owned(),
        parts: IndexParts::Columns(names(&["room"])),
        unique: false,
        filter: None,
        replaces: None,
        postgres_only: false,
    }
}

const TABLE: &str = "CREATE TABLE messages (id integer primary key, room text not null, deleted boolean);
    INSERT INTO messages SELECT n, 'room' || n % 7, n % 2 = 0 FROM generate_series(1, 100) AS n;";

async fn build(subject: &Subject, definition: CreateIndexDefinition) -> Result<Driven, UpdateError> {
    subject.drive(&CreateIndex::new(definition, subject.system), 100).await
}

/// Each index of that name, as "schema, valid".
async fn indexes(subject: &Subject, name: &str) -> Vec<String> {
    let query = format!(
        "SELECT c.relnamespace::regnamespace || ', ' || i.indisvalid FROM pg_index i \
         JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relname = '{name}' ORDER BY 1"
    );
    subject.rows(&query).await
}

#[tokio::test]
async fn keys_of_any_type_are_walked() {
    let keys = [
        ("uuid", "md5(n::text)::uuid"),
        ("timestamptz", "'2024-03-31 00:30+00'::timestamptz + n * interval '7.000001 minutes'"),
        ("date", "'2024-02-01'::date + n"),
        ("interval", "n * interval '1 month 3 days'"),
        ("bytea", "decode(md5(n::text), 'hex')"),
        ("numeric", "n * 1e30 + 0.1"),
        ("double precision", "1.0 / n - 0.05"),
        ("real", "(1.0 / n)::real"),
        ("boolean", "n % 2 = 0"),
        ("inet", "'10.0.0.0'::inet + n * 300"),
        ("varchar(9) COLLATE \"C\"", "chr(60 + n)"),
        ("text COLLATE \"POSIX\"", "chr(200 + n) || 'x'"),
        ("char(4)", "chr(65 + n)"),
        ("integer[]", "ARRAY[n % 5, n]"),
    ];
    let subject = Subject::postgres().await;
    for (number, (kind, value)) in keys.into_iter().enumerate() {
        let name = format!("t{number}");
        subject
            .script(&format!(
                "CREATE TABLE {name} (k {kind} not null, touched integer not null default 0,
                     id serial primary key);
                 INSERT INTO {name} SELECT {value} FROM generate_series(1, 30) AS n; CREATE INDEX ON {name} (k);"
            ))
            .await;
        let handler = Backfill::new(BackfillDefinition {
            table: table(&name),
            key: names(&["k"]),
            set: "touched = touched + 1".to_owned(),
            filter: None,
        });
        let driven = subject.drive(&handler, 7).await.unwrap();
        assert_eq!(driven.total(), 30, "{kind}: {:?}", driven.items);
        assert_eq!(subject.value(&format!("SELECT count(*) FROM {name} WHERE touched <> 1")).await, "0", "{kind}");
    }
}

#[tokio::test]
async fn a_schema_that_is_named_is_the_one_that_is_meant() {
    let subject = Subject::postgres().await;
    subject.script(TABLE).await;
    subject.script("CREATE SCHEMA \"Öther\"; CREATE TABLE \"Öther\".messages (LIKE messages);").await;
    let there = TableName { schema: Some("Öther".to_owned()), name: "messages".to_owned() };
    for definition in [CreateIndexDefinition { table: there, ..by_room() }, by_room()] {
        for _ in 0..2 {
            build(&subject, definition.clone()).await.unwrap();
        }
    }
    assert_eq!(indexes(&subject, "by_room").await, ["\"Öther\", true", "public, true"]);
}

/// Each kind that walks, over the table `messages` of the schema "Öther".
fn walking(subject: &Subject) -> [(&'static str, Box<dyn Handler>); 4] {
    let there = || TableName { schema: Some("Öther".to_owned()), name: "messages".to_owned() };
    let key = || names(&["id"]);
    let deleted = || "deleted".to_owned();
    let same = |name: &str| CopyColumn { target: name.to_owned(), source: CopySource::SameName };
    let (set, sql) = ("room = 'set'", "UPDATE \"Öther\".messages SET room = 'set' WHERE :range");
    let backfill = BackfillDefinition { table: there(), key: key(), set: set.to_owned(), filter: Some(deleted()) };
    let delete = DeleteDefinition { table: there(), key: key(), filter: deleted() };
    let batch = BatchDefinition { table: there(), key: key(), sql: sql.to_owned() };
    let copy = CopyDefinition {
        table: there(),
        key: key(),
        into: table("copied"),
        columns: vec![same("id"), same("room")],
        filter: None,
        on_conflict: OnConflict::Error,
    };
    [
        ("backfill", Box::new(Backfill::new(backfill))),
        ("delete", Box::new(Delete::new(delete))),
        ("batch", Box::new(Batch::new(batch, subject.system))),
        ("copy", Box::new(Copy::new(copy))),
    ]
}

/// Some keys are in both schemas, others in one alone: neither may be taken for the other.
#[tokio::test]
async fn the_rows_of_the_schema_that_is_named_are_walked_and_no_others() {
    let subject = Subject::postgres().await;
    let tables = format!(
        "DROP SCHEMA IF EXISTS \"Öther\" CASCADE; DROP TABLE IF EXISTS messages, copied; {TABLE}
         CREATE SCHEMA \"Öther\"; CREATE TABLE \"Öther\".messages (LIKE messages INCLUDING INDEXES);
         INSERT INTO \"Öther\".messages SELECT id * 3, 'there', deleted FROM messages;
         CREATE TABLE copied (id integer primary key, room text)"
    );
    let public = "SELECT * FROM public.messages ORDER BY id";
    let there = "SELECT room, deleted, count(*) FROM \"Öther\".messages GROUP BY 1, 2 ORDER BY 2";
    let looks = [
        (there, "there|f|50, set|t|50"),
        (there, "there|f|50"),
        (there, "set|f|50, set|t|50"),
        ("SELECT room, count(*), max(id) FROM copied GROUP BY 1", "there|100|300"),
    ];
    for ((kind, handler), (look, seen)) in walking(&subject).into_iter().zip(looks) {
        subject.script(&tables).await;
        let before = subject.rows(public).await;
        assert_eq!(subject.problems(&*handler).await, "", "{kind}");
        assert_eq!(subject.drive(&*handler, 7).await.unwrap().total(), 100, "{kind}");
        assert_eq!(subject.rows(look).await.join(", "), seen, "{kind}");
        assert_eq!(subject.rows(public).await, before, "{kind}");
    }
}

#[tokio::test]
async fn the_leftover_of_a_build_that_failed_is_dropped_first() {
    let subject = Subject::postgres().await;
    subject.script(TABLE).await;
    // Another definition even: what is invalid was nobody's.
    subject.script("CREATE INDEX by_room ON messages (id)").await;
    subject.script("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'by_room'::regclass").await;
    build(&subject, by_room()).await.unwrap();
    assert_eq!(indexes(&subject, "by_room").await, ["public, true"]);
    let definition = subject.value("SELECT pg_get_indexdef('by_room'::regclass)").await;
    assert_eq!(definition, "CREATE INDEX by_room ON public.messages USING btree (room)");
}

#[tokio::test]
async fn a_condition_is_compared_as_postgresql_understands_it() {
    let subject = Subject::postgres().await;
    subject.script(TABLE).await;
    subject.script("CREATE INDEX by_room ON messages (room) WHERE deleted AND id IN (1, 2) AND room = 'a  b'").await;
    let with = |filter: &str| CreateIndexDefinition { filter: Some(filter.to_owned()), ..by_room() };
    for same in [
        "messages.deleted and (id = ANY (ARRAY[1,2])) AND (room = 'a  b'::text)",
        "(deleted /* gone */ AND id in (1,2)) and room='a  b' -- and so on",
    ] {
        build(&subject, with(same)).await.unwrap();
    }
    for different in ["deleted AND id IN (1, 2) AND room = 'a b'", "deleted AND id IN (2, 1) AND room = 'a  b'"] {
        build(&subject, with(different)).await.unwrap_err();
        subject.database.cancel(&[UPDATE.to_owned()]).await.unwrap();
    }
    // Nothing of the comparison stays behind.
    assert_eq!(subject.value("SELECT count(*) FROM pg_class WHERE relname = 'messages'").await, "1");
}

#[tokio::test]
async fn an_index_with_another_collation_or_method_is_a_different_one() {
    let subject = Subject::postgres().await;
    for made in ["(room COLLATE \"POSIX\")", "(room text_pattern_ops)", "USING hash (room)", "(room) INCLUDE (id)"] {
        subject
            .script(&format!("DROP TABLE IF EXISTS messages; {TABLE} CREATE INDEX by_room ON messages {made}"))
            .await;
        let error = build(&subject, by_room()).await.unwrap_err().to_string();
        assert!(error.starts_with("there is a different index"), "{made}: {error}");
        subject.database.cancel(&[UPDATE.to_owned()]).await.unwrap();
    }
}

#[tokio::test]
async fn a_build_outlasts_an_old_transaction() {
    let subject = Subject::postgres().await;
    subject.script(TABLE).await;
    let old = subject.connect().await;
    old.batch_execute("BEGIN; DELETE FROM messages WHERE id = 1").await.unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                 AND query LIKE 'CREATE INDEX CONC%' AND wait_event_type = 'Lock'";
    let building = build(&subject, by_room());
    let ending = async {
        until("the build waits", async || subject.value(waits).await == "1").await;
        // Longer than the lock timeout of batches, which would end the build and leave its half behind.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        old.batch_execute("COMMIT").await.unwrap();
    };
    let (built, ()) = tokio::join!(building, ending);
    built.unwrap();
    assert_eq!(indexes(&subject, "by_room").await, ["public, true"]);
}

#[tokio::test]
async fn a_build_by_somebody_else_is_waited_for_and_not_dropped() {
    let subject = Subject::postgres().await;
    subject.script(TABLE).await;
    let (old, other) = (subject.connect().await, subject.connect().await);
    old.batch_execute("BEGIN; DELETE FROM messages WHERE id = 1").await.unwrap();
    let building = other.batch_execute("CREATE INDEX CONCURRENTLY by_room ON messages (room)");
    let trying = async {
        until("the other build is on its way", async || indexes(&subject, "by_room").await == ["public, false"]).await;
        let error = build(&subject, by_room()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient, "{error}");
        old.batch_execute("COMMIT").await.unwrap();
    };
    let (built, ()) = tokio::join!(building, trying);
    built.unwrap();
    subject.batch(&CreateIndex::new(by_room(), subject.system), 100, &mut Driven::default()).await.unwrap();
    assert_eq!(indexes(&subject, "by_room").await, ["public, true"]);
}

#[tokio::test]
async fn a_name_that_postgresql_would_cut_off_is_refused() {
    let subject = Subject::postgres().await;
    subject.script(TABLE).await;
    let long = CreateIndexDefinition { index: "é".repeat(32), ..by_room() };
    let error = build(&subject, long).await.unwrap_err().to_string();
    assert!(error.ends_with("is longer than 63 bytes"), "{error}");
}
