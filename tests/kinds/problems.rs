//! What `check` says of a definition that does not fit the database.

use insta::assert_snapshot;
use tidegate::update::sql::System;
use tidegate::update::{
    Backfill, BackfillDefinition, Batch, BatchDefinition, ConstraintKind, Copy, CopyColumn, CopyDefinition, CopySource,
    CreateIndex, CreateIndexDefinition, Delete, DeleteDefinition, Handler, IndexParts, OnConflict, Script,
    ScriptDefinition, ValidateAndDelete, ValidateAndDeleteDefinition, ValidateConstraint, ValidateConstraintDefinition,
};

use super::subject::{Subject, names, table};

const TABLES: &str =
    "CREATE TABLE messages (id integer not null primary key, room text not null, n integer not null, body text);
    CREATE INDEX by_room ON messages (room, n);
    CREATE INDEX partly ON messages (n) WHERE body IS NULL;
    CREATE INDEX mixed ON messages (n, id DESC);
    CREATE TABLE others (id integer not null primary key, room text, digest text not null);
    CREATE INDEX of_others ON others (room);
    CREATE TABLE archive (id integer not null primary key, room text not null, day integer not null);";

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
            backfill("messages", &["idd", "body"], "room = 'a'", None),
            backfill("messages", &["id"], "body = 'a', id = id + 1", None),
            backfill("messages", &["id", "id"], "body = 'a'", None),
            backfill("messages", &["n", "room"], "body = 'a'", None),
            backfill("messages", &["n", "id"], "body = 'a'", None),
            backfill("messages", &["id"], "bodie = 'a'", Some("n > 1")),
            backfill("messages", &["id"], "body = 'a'", Some("n > ")),
            delete(&["id"], "m = 1"),
            index(&subject, "mesages", "new", &["room"], None),
            index(&subject, "messages", "new", &["rom", "n"], None),
            index(&subject, "messages", "by_room", &["n", "room"], None),
            indexed(&subject, &["lower(bodie)"], None),
            indexed(&subject, &["lower(body), "], None),
            indexed(&subject, &["random()"], None),
            indexed(&subject, &["lower(body)"], Some("by_expression")),
            indexed(&subject, &["lower(body)"], Some("of_others")),
            index(&subject, "messages", "new", &["n"], Some("m = 1")),
        ] {
            text.push_str(&subject.problems(&*handler).await);
            text.push('\n');
        }
        assert_snapshot!(format!("problems_{}", subject.system), text);
    }
}

fn indexed(subject: &Subject, expressions: &[&str], replaces: Option<&str>) -> Box<dyn Handler> {
    let definition = CreateIndexDefinition {
        table: table("messages"),
        index: "by_expression".to_owned(),
        parts: IndexParts::Expressions(names(expressions)),
        unique: false,
        filter: None,
        replaces: replaces.map(str::to_owned),
        postgres_only: false,
    };
    Box::new(CreateIndex::new(definition, subject.system))
}

fn copy(into: &str, columns: &[(&str, Option<&str>)], filter: Option<&str>) -> Box<dyn Handler> {
    let column = |(target, expression): &(&str, Option<&str>)| CopyColumn {
        target: (*target).to_owned(),
        source: expression.map_or(CopySource::SameName, |sql| CopySource::Expression(sql.to_owned())),
    };
    Box::new(Copy::new(CopyDefinition {
        table: table("messages"),
        key: names(&["id"]),
        into: table(into),
        columns: columns.iter().map(column).collect(),
        filter: filter.map(str::to_owned),
        on_conflict: OnConflict::Ignore,
    }))
}

fn batch(subject: &Subject, key: &[&str], sql: &str) -> Box<dyn Handler> {
    let definition = BatchDefinition { table: table("messages"), key: names(key), sql: sql.to_owned() };
    Box::new(Batch::new(definition, subject.system))
}

fn script(subject: &Subject, sql: &str) -> Box<dyn Handler> {
    Box::new(Script::new(ScriptDefinition { sql: sql.to_owned() }, subject.system))
}

fn validate(name: &str, constraint: &str) -> Box<dyn Handler> {
    let definition = ValidateConstraintDefinition { table: table(name), constraint: constraint.to_owned() };
    Box::new(ValidateConstraint::new(definition))
}

fn validate_and_delete(constraint: &str, check: Option<ConstraintKind>, columns: &[&str]) -> Box<dyn Handler> {
    Box::new(ValidateAndDelete::new(ValidateAndDeleteDefinition {
        table: table("checked"),
        constraint: constraint.to_owned(),
        check,
        unique_columns: names(columns),
    }))
}

/// A table whose constraints have names.
const CHECKED: &str = "CREATE TABLE checked (a integer not null primary key, b integer,
    CONSTRAINT b_small CHECK (b < 100), CONSTRAINT b_known FOREIGN KEY (b) REFERENCES others (id),
    CONSTRAINT b_once UNIQUE (b));";

#[tokio::test]
async fn a_definition_of_a_later_kind_in_order_has_no_problems() {
    for subject in Subject::each().await {
        subject.script(&format!("{TABLES} {CHECKED}")).await;
        for handler in [
            copy("archive", &[("id", None), ("room", None), ("day", Some("n / 7"))], Some("n > 3 -- or so")),
            copy("archive", &[("id", Some("id + 1000")), ("room", Some("room")), ("day", Some("0 -- none"))], None),
            batch(&subject, &["id"], "UPDATE messages SET body = ':nothing' WHERE :range AND n < :batch_size"),
            batch(&subject, &["id"], "DELETE FROM messages WHERE (:after IS NULL OR id > :after) AND id <= :upto;"),
            batch(
                &subject,
                &["room", "n"],
                "SELECT 1 FROM messages WHERE (room, n) > (coalesce(:after_1, ''), :after_2)
                AND n <= :upto_2",
            ),
            batch(
                &subject,
                &["id"],
                "CREATE TABLE IF NOT EXISTS made (id integer); INSERT INTO made SELECT id FROM messages
                WHERE :range",
            ),
            script(
                &subject,
                "UPDATE messages SET body = 'BEGIN; COMMIT' WHERE id = 1; ALTER TABLE messages ADD COLUMN c text;
                UPDATE messages SET c = 'a'; CREATE INDEX of_c ON messages (c)",
            ),
            validate("checked", "b_small"),
            validate("checked", "b_known"),
            validate_and_delete("b_small", None, &["a"]),
            validate_and_delete("b_known", Some(ConstraintKind::ForeignKey), &["a"]),
            indexed(&subject, &["lower(body) DESC", "n -- that too"], Some("partly")),
            indexed(&subject, &["lower(body)"], Some("not_there_any_more")),
        ] {
            assert_eq!(subject.problems(&*handler).await, "", "on {}", subject.system);
        }
    }
}

#[tokio::test]
async fn what_does_not_fit_of_the_later_kinds_is_named_with_a_hint() {
    for subject in Subject::each().await {
        subject.script(&format!("{TABLES} {CHECKED}")).await;
        let mut text = String::new();
        let one_of_its_own = if subject.system == System::Sqlite { "?1" } else { "$1" };
        for handler in [
            copy("archiv", &[("id", None)], None),
            copy("messages", &[("id", None)], None),
            copy("archive", &[("id", None), ("rom", None), ("day", None)], None),
            copy("archive", &[("id", None), ("day", Some("m / 7"))], None),
            copy("archive", &[("id", None)], Some("m = 1")),
            batch(&subject, &["id"], "UPDATE messages SET body = :bodie WHERE :range"),
            batch(&subject, &["id"], &format!("UPDATE messages SET body = {one_of_its_own} WHERE :range")),
            batch(&subject, &["room", "n"], "UPDATE messages SET body = 'a' WHERE room > :after AND n <= :upto_3"),
            batch(&subject, &["id"], "UPDATE messages SET body = 'a' LIMIT :batch_size"),
            batch(&subject, &["id"], "UPDATE messages SET body = 'a' WHERE id > :after AND id <= :upto"),
            batch(&subject, &["id"], "UPDATE messages SET bodie = 'a' WHERE :range"),
            batch(&subject, &["id"], "SELECT 1 WHERE :range AND; SELECT 2"),
            batch(&subject, &["idd"], " -- nothing ; at all"),
            script(&subject, "BEGIN; UPDATE messages SET body = 'a'; COMMIT"),
            script(&subject, "UPDATE messages SET bodie = 'a'"),
            script(&subject, "CREATE TABLE x (a integer; DROP TABLE x"),
            script(&subject, "DROP TABLE others; VACUUM"),
            script(&subject, "/* nothing */ ;"),
            validate("chekked", "b_small"),
            validate("checked", "b_smal"),
            validate("messages", "b_small"),
            validate("checked", "b_once"),
            validate_and_delete("b_smal", None, &["b"]),
            validate_and_delete("b_small", Some(ConstraintKind::NotNull), &["a"]),
        ] {
            text.push_str(&subject.problems(&*handler).await);
            text.push('\n');
        }
        assert_snapshot!(format!("later_problems_{}", subject.system), text);
    }
}

#[tokio::test]
async fn on_postgresql_an_index_whose_order_is_another_does_not_serve_a_walk() {
    let subject = Subject::postgres().await;
    let orders = [
        ("USING btree (n)", true),
        ("(n DESC)", true),
        ("(n) INCLUDE (id)", true),
        ("(n DESC NULLS LAST)", false),
        ("USING hash (n)", false),
        ("USING brin (n)", false),
        ("(n) WHERE n > 3", false),
        ("((n + 0))", false),
    ];
    for (index, serves) in orders {
        subject
            .script("DROP TABLE IF EXISTS t; CREATE TABLE t (id serial primary key, n integer not null, name text not null)")
            .await;
        subject.script(&format!("CREATE INDEX ON t {index}")).await;
        let problems = subject.problems(&*backfill("t", &["n"], "name = 'a'", None)).await;
        assert_eq!(problems.is_empty(), serves, "{index}: {problems}");
    }
    for (index, serves) in [("(name)", true), ("(name COLLATE \"C\")", false), ("(name text_pattern_ops)", false)] {
        subject
            .script(&format!("DROP TABLE t; CREATE TABLE t (id serial primary key, n integer, name text not null); CREATE INDEX ON t {index}"))
            .await;
        let problems = subject.problems(&*backfill("t", &["name"], "n = 1", None)).await;
        assert_eq!(problems.is_empty(), serves, "{index}: {problems}");
    }
}

#[tokio::test]
async fn an_index_of_mixed_directions_does_not_serve_a_walk() {
    for subject in Subject::each().await {
        for (index, serves) in [
            ("(a DESC, b DESC)", true),
            ("(a, b DESC)", false),
            ("(a DESC, b)", false),
            ("(a, b) WHERE c IS NULL", false),
        ] {
            subject.script("DROP TABLE IF EXISTS t").await;
            subject
                .script(&format!(
                    "CREATE TABLE t (id integer primary key, a integer not null, b integer not null, c text); CREATE INDEX i ON t {index}"
                ))
                .await;
            let problems = subject.problems(&*backfill("t", &["a", "b"], "c = 'a'", None)).await;
            assert_eq!(problems.is_empty(), serves, "{index} on {}: {problems}", subject.system);
        }
    }
}

#[tokio::test]
async fn an_index_on_a_partitioned_table_is_refused_with_a_hint() {
    let subject = Subject::postgres().await;
    subject
        .script(
            "CREATE TABLE messages (id integer, room text) PARTITION BY RANGE (id);
                 CREATE TABLE early PARTITION OF messages FOR VALUES FROM (0) TO (100)",
        )
        .await;
    assert_snapshot!(subject.problems(&*index(&subject, "messages", "by_room", &["room"], None)).await);
    assert_eq!(subject.problems(&*index(&subject, "early", "by_room", &["room"], None)).await, "");
}
