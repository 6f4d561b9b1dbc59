//! Constraints are validated; the rows that break one are deleted where that was asked for, those alone, and afterwards
//! the constraint is in force.

use tidegate::scheduler::database::Record;
use tidegate::update::sql::{System, TableName};
use tidegate::update::{
    ConstraintKind, Handler, Progress, UpdateError, ValidateAndDelete, ValidateAndDeleteDefinition, ValidateConstraint,
    ValidateConstraintDefinition,
};

use super::subject::{Driven, Subject, UPDATE, names, table};
use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::recorder::Recorder;
use crate::support::run::Run;

fn handler(check: Option<ConstraintKind>) -> ValidateAndDelete {
    ValidateAndDelete::new(ValidateAndDeleteDefinition {
        table: table("test_constraint"),
        constraint: "the_constraint".to_owned(),
        check,
        unique_columns: names(&["a"]),
    })
}

/// The tables of Synapse's own tests of its helper: `base_table` has 1 and 3.
fn tables(system: System, constraint: &str, rows: &str) -> String {
    let (inline, later) = match system {
        System::Sqlite => (format!(", CONSTRAINT the_constraint {constraint}"), String::new()),
        System::Postgres => {
            (String::new(), format!("ALTER TABLE test_constraint ADD CONSTRAINT the_constraint {constraint} NOT VALID"))
        }
    };
    let off = match system {
        System::Sqlite => "PRAGMA foreign_keys = off; PRAGMA ignore_check_constraints = on;",
        System::Postgres => "",
    };
    format!(
        "{off} CREATE TABLE base_table (b integer not null primary key); INSERT INTO base_table VALUES (1), (3);
         CREATE TABLE test_constraint (a integer not null primary key, b integer, c integer{inline});
         INSERT INTO test_constraint (a, b) VALUES {rows}; {later}"
    )
}

const SYNAPSE: [(ConstraintKind, &str, &str, &str); 2] = [
    (ConstraintKind::NotNull, "CHECK (b IS NOT NULL)", "(1, 1), (2, NULL), (3, 3)", "(4, NULL)"),
    (ConstraintKind::ForeignKey, "FOREIGN KEY (b) REFERENCES base_table (b)", "(1, 1), (2, 2), (3, 3)", "(4, 2)"),
];

/// The end of a walk in the words of its iterations.
fn told(record: &Record) -> String {
    format!("{} {} {}", if record.one_shot { "one-shot" } else { "batch" }, record.items, record.outcome)
}

on_both! {
    async fn the_rows_remain_that_synapse_leaves_and_new_ones_must_be_right(place: Place) {
        for (check, constraint, rows, wrong) in SYNAPSE {
            place.run("DROP TABLE IF EXISTS test_constraint; DROP TABLE IF EXISTS base_table").await;
            place.run(&tables(place.system(), constraint, rows)).await;
            let recorder = Recorder::running();
            let run = Run::on(place, &[row(UPDATE)]).await.define(UPDATE, std::sync::Arc::new(handler(Some(check))));
            let database = run.database.clone();
            let story = run.controller(std::sync::Arc::new(recorder.clone())).until_done().await;
            let iterations: Vec<String> = story.iterations().into_iter().map(told).collect();
            assert_eq!(iterations, ["one-shot 0 completed", "batch 3 completed", "one-shot 1 finished"], "{constraint}");
            let asked: Vec<String> = recorder.calls().into_iter().filter(|call| call.starts_with("on-update")).collect();
            let on_update = |one_shot| format!("on-update {UPDATE} master {one_shot}");
            assert_eq!(asked, [on_update(true), on_update(false), on_update(true)]);
            assert_eq!(place.rows("SELECT a, b FROM test_constraint ORDER BY a").await, ["1|1", "3|3"], "{constraint}");
            let mut session = database.session().await.unwrap();
            let insert = |row: &str| format!("INSERT INTO test_constraint (a, b) VALUES {row}");
            session.as_sql().script(&insert(wrong)).await.expect_err(constraint);
            session.as_sql().script(&insert("(5, 3)")).await.unwrap();
            drop(session);
            let valid = place.either(
                "SELECT 'true' WHERE NOT EXISTS (SELECT 1 FROM pragma_foreign_key_check)
                 AND (SELECT quick_check FROM pragma_quick_check) = 'ok'",
                "SELECT convalidated::text FROM pg_constraint WHERE conname = 'the_constraint'",
            );
            assert_eq!(place.rows(valid).await, ["true"], "{constraint}");
        }
    }

    async fn rows_that_are_right_are_validated_in_one_iteration(place: Place) {
        place.run(&tables(place.system(), "CHECK (b > 0)", "(1, 1), (2, NULL)")).await;
        let run = Run::on(place, &[row(UPDATE)]).await.define(UPDATE, std::sync::Arc::new(handler(None)));
        let story = run.until_done().await;
        assert_eq!(story.iterations().into_iter().map(told).collect::<Vec<_>>(), ["one-shot 1 finished"]);
        assert_eq!(place.rows("SELECT a FROM test_constraint ORDER BY a").await, ["1", "2"]);
    }
}

/// Drives the update over tables like these; the rows that remain.
async fn remaining(subject: &Subject, constraint: &str, rows: &str) -> Vec<String> {
    subject.script("DROP TABLE IF EXISTS test_constraint; DROP TABLE IF EXISTS base_table").await;
    subject.script(&tables(subject.system, constraint, rows)).await;
    subject.drive(&handler(None), 2).await.unwrap_or_else(|error| panic!("{constraint}: {error}"));
    subject.rows("SELECT a FROM test_constraint ORDER BY a").await
}

#[tokio::test]
async fn no_row_is_deleted_that_the_database_would_take() {
    for subject in Subject::each().await {
        let foreign_key = "FOREIGN KEY (b) REFERENCES base_table (b)";
        // NULL refers to nothing, and a condition that is NULL is met.
        assert_eq!(remaining(&subject, foreign_key, "(1, 1), (2, NULL), (3, 7), (4, 3)").await, ["1", "2", "4"]);
        assert_eq!(
            remaining(&subject, "CHECK (b > 2 OR a = 1)", "(1, 1), (2, NULL), (3, 1), (4, 3)").await,
            ["1", "2", "4"]
        );
        assert_eq!(remaining(&subject, "CHECK (b <> 2 -- two\n)", "(1, 1), (2, 2)").await, ["1"]);
        assert_eq!(remaining(&subject, "CHECK (test_constraint.b <> 2)", "(1, 1), (2, 2)").await, ["1"]);
        let to_itself = "FOREIGN KEY (b) REFERENCES test_constraint (a)";
        assert_eq!(remaining(&subject, to_itself, "(1, 1), (2, 1), (3, 7)").await, ["1", "2"]);
    }
}

#[tokio::test]
async fn a_foreign_key_of_several_columns_is_understood() {
    for subject in Subject::each().await {
        let (inline, later, off) = match subject.system {
            System::Sqlite => {
                (", CONSTRAINT pair FOREIGN KEY (x, y) REFERENCES pairs", "", "PRAGMA foreign_keys = off;")
            }
            System::Postgres => {
                ("", "ALTER TABLE t ADD CONSTRAINT pair FOREIGN KEY (x, y) REFERENCES pairs MATCH FULL NOT VALID;", "")
            }
        };
        subject
            .script(&format!(
                "{off} CREATE TABLE pairs (p text, q integer, primary key (p, q)); INSERT INTO pairs VALUES ('a', 1);
                 CREATE TABLE t (a integer not null primary key, x text, y integer{inline});
                 INSERT INTO t VALUES (1, 'a', 1), (2, 'a', 2), (3, NULL, NULL), (4, 'b', NULL); {later}"
            ))
            .await;
        let handler = ValidateAndDelete::new(ValidateAndDeleteDefinition {
            table: table("t"),
            constraint: "pair".to_owned(),
            check: Some(ConstraintKind::ForeignKey),
            unique_columns: names(&["a"]),
        });
        subject.drive(&handler, 100).await.unwrap();
        // MATCH FULL, which SQLite does not know, forbids a NULL beside a value.
        let remain: &[&str] = if subject.system == System::Sqlite { &["1", "3", "4"] } else { &["1", "3"] };
        assert_eq!(subject.rows("SELECT a FROM t ORDER BY a").await, remain);
    }
}

#[tokio::test]
async fn on_sqlite_a_not_null_of_a_column_is_looked_at_and_not_believed() {
    let subject = Subject::sqlite().await;
    subject
        .script(
            "CREATE TABLE test_constraint (a integer not null primary key, b integer);
             INSERT INTO test_constraint VALUES (1, 1), (2, NULL), (3, 3);
             PRAGMA writable_schema = on;
             UPDATE sqlite_schema SET sql = 'CREATE TABLE test_constraint (a integer not null primary key,
                 b integer CONSTRAINT the_constraint NOT NULL)' WHERE name = 'test_constraint'",
        )
        .await;
    subject.drive(&handler(Some(ConstraintKind::NotNull)), 100).await.unwrap();
    assert_eq!(subject.rows("SELECT a FROM test_constraint ORDER BY a").await, ["1", "3"]);
    subject.attempt("INSERT INTO test_constraint VALUES (4, NULL)").await.unwrap_err();
}

#[tokio::test]
async fn a_constraint_of_another_kind_than_was_said_deletes_nothing() {
    for subject in Subject::each().await {
        subject.script(&tables(subject.system, "CHECK (b < 3)", "(1, 1), (3, 3)")).await;
        let error = subject.drive(&handler(Some(ConstraintKind::ForeignKey)), 100).await.unwrap_err().to_string();
        assert_eq!(error, "constraint \"the_constraint\" is of kind \"check\", not \"foreign-key\"");
        assert_eq!(subject.value("SELECT count(*) FROM test_constraint").await, "2");
    }
}

#[tokio::test]
async fn a_constraint_in_a_schema_is_found_there() {
    for subject in Subject::each().await {
        let schema = if subject.system == System::Sqlite { "main" } else { "Öther" };
        if subject.system == System::Postgres {
            subject.script("CREATE SCHEMA \"Öther\"").await;
        }
        let (inline, later) = match subject.system {
            System::Sqlite => (", CONSTRAINT the_constraint CHECK (b < 3)", String::new()),
            System::Postgres => {
                ("", format!("ALTER TABLE \"{schema}\".t ADD CONSTRAINT the_constraint CHECK (b < 3) NOT VALID;"))
            }
        };
        let off = if subject.system == System::Sqlite { "PRAGMA ignore_check_constraints = on;" } else { "" };
        subject
            .script(&format!(
                "{off} CREATE TABLE \"{schema}\".t (a integer not null primary key, b integer{inline});
                 INSERT INTO \"{schema}\".t VALUES (1, 1), (3, 3); {later}"
            ))
            .await;
        let there = TableName { schema: Some(schema.to_owned()), name: "t".to_owned() };
        let constraint = "the_constraint".to_owned();
        let validate = ValidateConstraintDefinition { table: there.clone(), constraint: constraint.clone() };
        let error = subject.drive(&ValidateConstraint::new(validate.clone()), 100).await.unwrap_err().to_string();
        assert!(error.contains("violated by some row"), "{error}");
        subject.database.cancel(&[UPDATE.to_owned()]).await.unwrap();
        let delete = ValidateAndDelete::new(ValidateAndDeleteDefinition {
            table: there,
            constraint,
            check: None,
            unique_columns: names(&["a"]),
        });
        assert_eq!(subject.problems(&delete).await, "");
        subject.drive(&delete, 100).await.unwrap();
        assert_eq!(subject.rows(&format!("SELECT a FROM \"{schema}\".t")).await, ["1"]);
        subject.drive(&ValidateConstraint::new(validate), 100).await.unwrap();
    }
}

#[tokio::test]
async fn rows_that_stay_in_the_way_after_the_walk_are_an_error_and_no_loop() {
    for subject in Subject::each().await {
        subject.script(&tables(subject.system, "CHECK (b < 3)", "(1, 1), (3, 3)")).await;
        subject.enqueue().await;
        subject.script("UPDATE background_updates SET progress_json = '{\"state\": \"validate\", \"items\": 2}'").await;
        for _ in 0..2 {
            let error = subject.batch(&handler(None), 100, &mut Driven::default()).await.unwrap_err().to_string();
            assert!(error.contains("violated by some row"), "{error}");
        }
    }
}

#[test]
fn progress_that_is_not_its_own_is_refused() {
    for text in [
        r#"{"state": "check", "lower_bound": [7]}"#,
        r#"{"after": ["7"], "items": 7}"#,
        r#"{"state": "delete", "after": ["7"]}"#,
        r#"{"state": "delete", "after": ["7", "8"], "items": 7}"#,
        r#"{"state": "validate", "after": ["7"], "items": 7}"#,
        r#"{"state": 3}"#,
    ] {
        let error = handler(None).mode(&Progress::parse(text).unwrap()).unwrap_err();
        assert!(matches!(error, UpdateError::Progress { .. }), "{text}: {error}");
    }
}

#[tokio::test]
async fn a_constraint_that_is_not_there_is_named() {
    for subject in Subject::each().await {
        subject.script("CREATE TABLE test_constraint (a integer not null primary key)").await;
        let error = subject.drive(&handler(None), 100).await.unwrap_err().to_string();
        assert!(error.starts_with("table \"test_constraint\" has no constraint \"the_constraint\"; "), "{error}");
    }
}

#[tokio::test]
async fn a_check_that_names_no_column_is_a_constraint_like_any_other() {
    let subject = Subject::postgres().await;
    subject
        .script(
            "CREATE TABLE whole (id integer primary key, n integer); INSERT INTO whole VALUES (1, 1), (2, NULL), (3, 3);
             CREATE FUNCTION odd(w whole) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT w.id % 2 = 1';
             ALTER TABLE whole ADD CONSTRAINT all_there CHECK (whole IS NOT NULL) NOT VALID;
             ALTER TABLE whole ADD CONSTRAINT all_odd CHECK (odd(whole)) NOT VALID;
             ALTER TABLE whole ADD CONSTRAINT none CHECK (true) NO INHERIT NOT VALID",
        )
        .await;
    for constraint in ["all_there", "all_odd"] {
        let handler = ValidateAndDelete::new(ValidateAndDeleteDefinition {
            table: table("whole"),
            constraint: constraint.to_owned(),
            check: Some(ConstraintKind::Check),
            unique_columns: names(&["id"]),
        });
        subject.drive(&handler, 10).await.unwrap();
    }
    let none = ValidateConstraintDefinition { table: table("whole"), constraint: "none".to_owned() };
    assert_eq!(subject.problems(&ValidateConstraint::new(none.clone())).await, "");
    subject.drive(&ValidateConstraint::new(none), 10).await.unwrap();
    assert_eq!(subject.rows("SELECT id FROM whole ORDER BY id").await, ["1", "3"]);
    let valid =
        "SELECT count(*) FROM pg_constraint WHERE conrelid = 'whole'::regclass AND contype = 'c' AND convalidated";
    assert_eq!(subject.value(valid).await, "3");
}
