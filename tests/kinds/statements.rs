//! Statements that somebody wrote: in batches, with the batch's place bound in them and nothing else touched; and as a
//! script in one transaction.

use std::time::Duration;

use tidegate::update::sql::{ErrorClass, System, TableName};
use tidegate::update::{
    Backfill, BackfillDefinition, Batch, BatchDefinition, Copy, CopyColumn, CopyDefinition, CopySource, Handler,
    OnConflict, Script, ScriptDefinition,
};

use super::subject::{Driven, Subject, UPDATE, names, table};
use crate::support::place::Place;

const TABLE: &str = "CREATE TABLE t (id integer not null primary key, body text, touched integer not null default 0);
    INSERT INTO t (id, body) VALUES (1, 'a'), (2, 'b'), (5, 'c'), (7, 'd'), (11, 'e');";

fn batch(subject: &Subject, sql: &str) -> Batch {
    let definition = BatchDefinition { table: table("t"), key: names(&["id"]), sql: sql.to_owned() };
    Batch::new(definition, subject.system)
}

fn script(subject: &Subject, sql: &str) -> Script {
    Script::new(ScriptDefinition { sql: sql.to_owned() }, subject.system)
}

#[tokio::test]
async fn what_looks_like_a_placeholder_and_is_none_is_left_alone() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        let own = match subject.system {
            System::Sqlite => "CREATE TABLE IF NOT EXISTS [:upto] (a integer); DROP TABLE `:upto`; ",
            System::Postgres => {
                "CREATE OR REPLACE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN ':after;'; END $$;
                 UPDATE t SET body = f() || E'\\':upto;' || (ARRAY[id, id])[1:2]::text WHERE :range; "
            }
        };
        let sql = format!(
            "{own} UPDATE t SET body = coalesce(body, '') || ':range;' || /* :after */ \"body\" -- ' :upto ;
             , touched = touched + CAST(1 AS integer) WHERE :range AND id >= 0 AND ':batch_size' <> \"body\"; ;"
        );
        subject.drive(&batch(&subject, &sql), 2).await.unwrap();
        assert_eq!(subject.value("SELECT count(*) FROM t WHERE touched <> 1").await, "0");
        let body = subject.value("SELECT body FROM t WHERE id = 11").await;
        let expected = match subject.system {
            System::Sqlite => "e:range;e",
            System::Postgres => ":after;':upto;{11,11}:range;:after;':upto;{11,11}",
        };
        assert_eq!(body, expected);
    }
}

#[tokio::test]
async fn a_key_is_a_value_of_its_own_type_wherever_it_stands() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        subject.script("CREATE TABLE log (after integer, upto integer, next integer, kind text)").await;
        let kind = if subject.system == System::Sqlite { "typeof(:upto)" } else { "pg_typeof(:upto)::text" };
        let sql = format!(
            "INSERT INTO log SELECT :after, :upto, :upto + 1, {kind} WHERE :after IS NULL OR abs(:upto) > :after"
        );
        subject.drive(&batch(&subject, &sql), 2).await.unwrap();
        let log = subject.rows("SELECT after, upto, next, kind FROM log ORDER BY upto").await;
        assert_eq!(log, ["|2|3|integer", "2|7|8|integer", "7|11|12|integer"], "on {}", subject.system);
    }
}

#[tokio::test]
async fn statements_that_would_miss_rows_are_not_executed() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        for (sql, problem) in [
            ("UPDATE t SET touched = 1 WHERE id > :after AND id <= :upto", ":after is NULL in the first batch"),
            ("UPDATE t SET touched = 1", "no statement says which rows the batch has"),
            ("UPDATE t SET touched = 1 WHERE :range AND id <> :missing", "unknown placeholder :missing"),
        ] {
            let error = subject.drive(&batch(&subject, sql), 2).await.unwrap_err().to_string();
            assert!(error.starts_with(problem), "{error}");
            subject.database.cancel(&[UPDATE.to_owned()]).await.unwrap();
        }
        assert_eq!(subject.value("SELECT sum(touched) FROM t").await, "0");
    }
}

#[tokio::test]
async fn an_empty_table_needs_no_statement() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        subject.script("DELETE FROM t; CREATE TABLE log (n integer)").await;
        let sql = "INSERT INTO log VALUES (1); DELETE FROM t WHERE :range";
        assert_eq!(subject.drive(&batch(&subject, sql), 2).await.unwrap().items, [0]);
        assert_eq!(subject.value("SELECT count(*) FROM log").await, "0");
    }
}

#[tokio::test]
async fn a_batch_that_deletes_its_rows_walks_on() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        let sql = "DELETE FROM t WHERE :range AND id <> 5";
        assert_eq!(subject.drive(&batch(&subject, sql), 2).await.unwrap().items, [2, 2, 1]);
        assert_eq!(subject.rows("SELECT id FROM t").await, ["5"]);
    }
}

#[tokio::test]
async fn the_range_of_a_batch_is_sought_and_not_scanned() {
    let subject = Subject::sqlite().await;
    subject.script(TABLE).await;
    let driven = subject.drive(&batch(&subject, "UPDATE t SET touched = 1 WHERE :range"), 2).await.unwrap();
    let resumed = driven.statements.iter().find(|sql| sql.starts_with("UPDATE") && sql.contains('>')).unwrap();
    let plan = subject.rows(&format!("EXPLAIN QUERY PLAN {}", resumed.replace("?1", "1").replace("?2", "2"))).await;
    assert!(plan.join("; ").contains("(rowid>? AND rowid<?)"), "{plan:?}: {resumed}");
}

#[tokio::test]
async fn a_batch_may_leave_nothing_of_what_the_host_prepared_and_set() {
    let subject = Subject::postgres().await;
    subject.script(TABLE).await;
    let touch = "UPDATE t SET touched = touched + 1 WHERE :range";
    let foreign = format!("DEALLOCATE ALL; {touch}; SET search_path = nowhere; SET bytea_output = 'escape'");
    let (set, key) = ("body = upper(body)".to_owned(), names(&["id"]));
    let own = Backfill::new(BackfillDefinition { table: table("t"), key, set, filter: None });
    for touched in 1..=3 {
        let items = subject.drive(&batch(&subject, &foreign), 2).await.unwrap().items;
        assert_eq!(items, [2, 2, 1]);
        // Its statements stay prepared from its second batch on.
        subject.drive(&own, 1).await.unwrap();
        assert_eq!(subject.rows("SELECT DISTINCT touched FROM t").await, [touched.to_string()]);
    }
}

#[tokio::test]
async fn a_batch_ends_no_transaction_of_the_hosts() {
    let subject = Subject::postgres().await;
    subject.script(TABLE).await;
    for end in ["COMMIT", "COMMIT; BEGIN", "ROLLBACK", "ROLLBACK; BEGIN"] {
        let sql = format!("SELECT 1 FROM t WHERE :range; {end}");
        let error = subject.drive(&batch(&subject, &sql), 2).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Permanent, "{end}: {error}");
        assert_eq!(subject.value("SELECT progress_json FROM background_updates").await, "{}", "{end}");
        subject.database.cancel(&[UPDATE.to_owned()]).await.unwrap();
    }
}

#[tokio::test]
async fn the_first_of_several_statements_to_fail_is_the_one_that_is_told() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        let sql = "UPDATE t SET touched = 1 WHERE :range; INSERT INTO t (id) SELECT id FROM t WHERE :range;
                   INSERT INTO missing VALUES (1)";
        let error = subject.drive(&batch(&subject, sql), 2).await.unwrap_err().to_string().to_lowercase();
        assert!(error.contains("unique"), "{error}");
        assert_eq!(subject.value("SELECT sum(touched) FROM t").await, "0");
        subject.database.cancel(&[UPDATE.to_owned()]).await.unwrap();
    }
}

#[tokio::test]
async fn a_script_ends_no_transaction_of_the_hosts() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        for sql in ["UPDATE t SET touched = 1; COMMIT", "UPDATE t SET touched = 1; COMMIT; BEGIN"] {
            let driven = subject.drive(&script(&subject, sql), 1).await;
            assert!(driven.is_err(), "{sql} on {}", subject.system);
            assert_eq!(subject.value("SELECT sum(touched) FROM t").await, "0", "{sql} on {}", subject.system);
            subject.database.cancel(&[UPDATE.to_owned()]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_script_may_take_longer_than_a_batch() {
    let place = Place::postgres().await;
    let database = place.open_with(|options| options.postgres.statement_timeout = Duration::from_millis(100));
    database.prepare().await.unwrap();
    let subject = Subject::with(place, database);
    let slow = |subject: &Subject| script(subject, "SELECT pg_sleep(0.4); CREATE TABLE made (a integer)");
    subject.drive(&slow(&subject), 1).await.unwrap();
    assert_eq!(subject.value("SELECT count(*) FROM made").await, "0");
    // The limit is back for whatever comes next.
    subject.script(TABLE).await;
    let late = batch(&subject, "SELECT pg_sleep(0.4) FROM t WHERE :range");
    let error = subject.drive(&late, 1).await.unwrap_err().to_string();
    assert!(error.contains("statement timeout"), "{error}");
}

#[tokio::test]
async fn a_trigger_with_statements_of_its_own_is_part_of_a_script() {
    let subject = Subject::sqlite().await;
    subject.script(TABLE).await;
    let sql = "CREATE TRIGGER of_t AFTER UPDATE OF body ON t BEGIN
            UPDATE t SET touched = CASE WHEN touched > 5 THEN 5 ELSE touched + 1 END WHERE id = new.id;
            UPDATE t SET touched = touched + 10 WHERE id = new.id AND id = 2; END;
        UPDATE t SET body = 'x'";
    assert_eq!(subject.problems(&script(&subject, sql)).await, "");
    subject.drive(&script(&subject, sql), 1).await.unwrap();
    assert_eq!(subject.rows("SELECT DISTINCT touched FROM t ORDER BY 1").await, ["1", "11"]);
}

#[tokio::test]
async fn a_script_has_no_progress() {
    for subject in Subject::each().await {
        subject.enqueue().await;
        subject.script("UPDATE background_updates SET progress_json = '{\"state\": 1}'").await;
        let error = subject.batch(&script(&subject, "SELECT 1"), 1, &mut Driven::default()).await.unwrap_err();
        assert!(error.to_string().contains("a script has no progress"), "{error}");
    }
}

#[tokio::test]
async fn a_copy_goes_from_one_schema_into_another() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        let (from, into) = match subject.system {
            System::Sqlite => ("main", "main"),
            System::Postgres => ("public", "Ärchive"),
        };
        if subject.system == System::Postgres {
            subject.script("CREATE SCHEMA \"Ärchive\"").await;
        }
        subject
            .script(&format!(
                "CREATE TABLE \"{into}\".\"kept \"\"one\" (\"The id\" integer primary key, \"select\" text)"
            ))
            .await;
        let column = |target: &str, expression: &str| CopyColumn {
            target: target.to_owned(),
            source: CopySource::Expression(expression.to_owned()),
        };
        let handler = Copy::new(CopyDefinition {
            table: TableName { schema: Some(from.to_owned()), name: "t".to_owned() },
            key: names(&["id"]),
            into: TableName { schema: Some(into.to_owned()), name: "kept \"one".to_owned() },
            columns: vec![column("The id", "id"), column("select", "body || '-' || (SELECT count(*) FROM t)")],
            filter: Some("id > 1 OR id < 0".to_owned()),
            on_conflict: OnConflict::Error,
        });
        assert_eq!(subject.problems(&handler).await, "");
        assert_eq!(subject.drive(&handler, 2).await.unwrap().items, [2, 2, 1]);
        let copied = subject.rows(&format!("SELECT * FROM \"{into}\".\"kept \"\"one\" ORDER BY 1")).await;
        assert_eq!(copied, ["2|b-5", "5|c-5", "7|d-5", "11|e-5"]);
    }
}

#[tokio::test]
async fn a_conflict_is_ignored_and_any_other_violation_is_not() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        subject
            .script(
                "CREATE TABLE copied (id integer primary key, body text not null); INSERT INTO t VALUES (20, NULL, 0)",
            )
            .await;
        let same = |name: &str| CopyColumn { target: name.to_owned(), source: CopySource::SameName };
        let handler: Box<dyn Handler> = Box::new(Copy::new(CopyDefinition {
            table: table("t"),
            key: names(&["id"]),
            into: table("copied"),
            columns: vec![same("id"), same("body")],
            filter: None,
            on_conflict: OnConflict::Ignore,
        }));
        let error = subject.drive(&*handler, 100).await.unwrap_err().to_string().to_lowercase();
        assert!(error.contains("not null") || error.contains("not-null"), "{error}");
        assert_eq!(subject.value("SELECT count(*) FROM copied").await, "0");
    }
}

#[tokio::test]
async fn a_key_of_bytes_is_bound_as_bytes() {
    let subject = Subject::sqlite().await;
    subject
        .script(
            "CREATE TABLE t (id blob not null primary key, touched integer not null default 0);
                 INSERT INTO t (id) VALUES (x'00'), (x'0a'), (x'ff'), (x'ff00'), (x'')",
        )
        .await;
    let sql = "UPDATE t SET touched = touched + 1 WHERE (:after IS NULL OR id > :after) AND id <= :upto";
    assert_eq!(subject.drive(&batch(&subject, sql), 2).await.unwrap().items, [2, 2, 1]);
    assert_eq!(subject.value("SELECT count(*) FROM t WHERE touched <> 1").await, "0");
}
