//! Backfill and delete walk along a key: every row once, whatever the key, the batches and the interruptions.

use std::ops::RangeInclusive;

use insta::assert_snapshot;
use tidegate::update::sql::System;
use tidegate::update::{Backfill, BackfillDefinition, Delete, DeleteDefinition, ErrorClass, Handler, Next, Noop};

use super::subject::{Driven, Subject, names, table};

/// A table to walk along, in SQL that both databases take.
struct Case {
    what: &'static str,
    table: &'static str,
    /// Each key column and its type.
    key: &'static [(&'static str, &'static str)],
    /// The keys of the rows, as SQL.
    rows: Vec<String>,
    /// Whether no two rows have the same key.
    unique: bool,
}

fn cases() -> Vec<Case> {
    let case = |what, key, rows| Case { what, table: "t", key, rows, unique: true };
    let texts = ["", " ", "a", "A", "é", "ß", "it''s", "\"", "100%", "\\", "日本", "🌊", "z\n", "-1", "10", "9"];
    vec![
        case("integers", &[("id", "integer")], numbers(1..=50, |n| (n * 3).to_string())),
        case("negative integers", &[("id", "integer")], numbers(1..=20, |n| (n - 10).to_string())),
        case("large integers", &[("id", "bigint")], numbers(1..=20, |n| (i64::MAX - n * 1_000_000_007).to_string())),
        case("texts", &[("name", "text")], texts.map(|text| format!("'{text}'")).to_vec()),
        case("reals", &[("x", "double precision")], numbers(1..=30, |n| format!("{n} / 7.0e0"))),
        case("numerics", &[("x", "numeric(20, 3)")], numbers(1..=30, |n| format!("{n}.125"))),
        case(
            "a text and an integer",
            &[("room", "text"), ("n", "integer")],
            numbers(0..=44, |n| format!("'!{}', {}", n / 7, n % 7 - 3)),
        ),
        case(
            "three columns",
            &[("a", "integer"), ("b", "text"), ("c", "bigint")],
            numbers(0..=44, |n| format!("{}, 'é{}', {}", n / 20, n / 5 % 4, n % 5)),
        ),
        Case {
            table: "Tàble \"of\" select",
            ..case(
                "odd names",
                &[("Key's \"one\"", "integer"), ("ORDER", "text")],
                numbers(1..=12, |n| format!("{}, 'x{n}'", n / 3)),
            )
        },
        Case { unique: false, ..case("ties", &[("day", "integer")], numbers(0..=39, |n| (n / 6).to_string())) },
        Case {
            unique: false,
            ..case(
                "ties of two columns",
                &[("room", "text"), ("day", "integer")],
                numbers(0..=39, |n| format!("'!{}', {}", n / 20, n / 6)),
            )
        },
        Case { unique: false, ..case("all the same", &[("day", "integer")], numbers(1..=10, |_| "7".to_owned())) },
        case("no rows", &[("id", "integer")], Vec::new()),
    ]
}

fn numbers(range: RangeInclusive<i64>, row: impl Fn(i64) -> String) -> Vec<String> {
    range.map(row).collect()
}

fn case(what: &str) -> Case {
    cases().into_iter().find(|case| case.what == what).unwrap()
}

impl Case {
    fn quoted(&self) -> String {
        quoted(self.table)
    }

    fn key_list(&self) -> String {
        self.key.iter().map(|(name, _)| quoted(name)).collect::<Vec<_>>().join(", ")
    }

    /// Makes the table anew. `touched` counts how often a row was met, `n` numbers the rows.
    async fn fill(&self, subject: &Subject) {
        let (table, key) = (self.quoted(), self.key_list());
        let columns: String =
            self.key.iter().map(|(name, kind)| format!("{} {kind} not null, ", quoted(name))).collect();
        let primary = if self.unique { format!(", PRIMARY KEY ({key})") } else { String::new() };
        // Where the key is not unique, another column tells rows apart.
        let tie = if self.unique { "" } else { " not null primary key" };
        let mut script = format!(
            "DROP TABLE IF EXISTS {table};
             CREATE TABLE {table} ({columns}number integer{tie}, touched integer not null default 0 {primary});"
        );
        if !self.unique {
            script.push_str(&format!("CREATE INDEX walked ON {table} ({key});"));
        }
        for (number, row) in self.rows.iter().enumerate() {
            script.push_str(&format!("INSERT INTO {table} ({key}, number) VALUES ({row}, {number});"));
        }
        subject.script(&script).await;
    }

    fn backfill<'a>(&self, set: &str, filter: Option<&str>) -> Box<dyn Handler + 'a> {
        Box::new(Backfill::new(BackfillDefinition {
            table: table(self.table),
            key: self.key.iter().map(|(name, _)| (*name).to_owned()).collect(),
            set: set.to_owned(),
            filter: filter.map(str::to_owned),
        }))
    }

    fn delete<'a>(&self, filter: &str) -> Box<dyn Handler + 'a> {
        Box::new(Delete::new(DeleteDefinition {
            table: table(self.table),
            key: self.key.iter().map(|(name, _)| (*name).to_owned()).collect(),
            filter: filter.to_owned(),
        }))
    }

    /// The items that a walk counts: each row once. With ties a batch is larger than asked, never smaller, but for
    /// the last one.
    fn assert_items(&self, driven: &Driven, budget: u64) {
        assert_eq!(driven.total(), self.rows.len() as u64, "{}: {:?}", self.what, driven.items);
        let (_, whole) = driven.items.split_last().unwrap();
        for items in whole {
            assert!(if self.unique { *items == budget } else { *items >= budget }, "{}: {:?}", self.what, driven.items);
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

const TOUCH: &str = "touched = touched + 1";

#[tokio::test]
async fn a_backfill_meets_every_row_once() {
    for subject in Subject::each().await {
        for case in cases() {
            for budget in [1, 7, 1_000] {
                case.fill(&subject).await;
                let handler = case.backfill(TOUCH, None);
                let driven = subject.drive(&*handler, budget).await.unwrap();
                case.assert_items(&driven, budget);
                let wrong = format!("SELECT count(*) FROM {} WHERE touched <> 1", case.quoted());
                assert_eq!(subject.value(&wrong).await, "0", "{} on {}", case.what, subject.system);
                assert_eq!(subject.progress().await, None);
            }
        }
    }
}

#[tokio::test]
async fn a_walk_is_resumed_by_a_process_that_knows_its_progress_alone() {
    for subject in Subject::each().await {
        for case in cases() {
            case.fill(&subject).await;
            subject.enqueue().await;
            let mut driven = Driven::default();
            while let Some(Next::Continue(_)) =
                subject.batch(&*case.backfill(TOUCH, None), 3, &mut driven).await.unwrap()
            {}
            case.assert_items(&driven, 3);
            let wrong = format!("SELECT count(*) FROM {} WHERE touched <> 1", case.quoted());
            assert_eq!(subject.value(&wrong).await, "0", "{} on {}", case.what, subject.system);
        }
    }
}

#[tokio::test]
async fn a_condition_chooses_rows_and_leaves_the_walk_alone() {
    // An OR must not reach out of its parentheses, and a comment not swallow them.
    let filter = "number % 3 = 0 OR number % 5 = 0 -- of those in the batch";
    for subject in Subject::each().await {
        for case in cases() {
            case.fill(&subject).await;
            let driven = subject.drive(&*case.backfill(TOUCH, Some(filter)), 4).await.unwrap();
            case.assert_items(&driven, 4);
            let wrong = format!(
                "SELECT count(*) FROM {} WHERE touched <> CASE WHEN number % 3 = 0 OR number % 5 = 0 THEN 1 ELSE 0 END",
                case.quoted()
            );
            assert_eq!(subject.value(&wrong).await, "0", "{} on {}", case.what, subject.system);
        }
    }
}

#[tokio::test]
async fn a_deletion_deletes_what_meets_its_condition_and_walks_over_the_rest() {
    for subject in Subject::each().await {
        for case in cases() {
            for (filter, left) in [("number % 3 = 0", "number % 3 <> 0"), ("1 = 1", "1 = 0"), ("1 = 0", "1 = 1")] {
                case.fill(&subject).await;
                let rows = format!("SELECT number FROM {}", case.quoted());
                let before = subject.rows(&format!("{rows} WHERE {left} ORDER BY number")).await;
                let driven = subject.drive(&*case.delete(filter), 4).await.unwrap();
                case.assert_items(&driven, 4);
                let after = subject.rows(&format!("{rows} ORDER BY number")).await;
                assert_eq!(after, before, "{} on {}", case.what, subject.system);
            }
        }
    }
}

#[tokio::test]
async fn a_batch_that_fails_leaves_nothing_and_is_done_again() {
    for subject in Subject::each().await {
        subject
            .script(
                "CREATE TABLE t (id integer not null primary key, state text not null, touched integer not null);
                 INSERT INTO t VALUES (1, 'good', 0), (2, 'good', 0), (3, 'good', 0), (4, 'bad', 0), (5, 'good', 0);",
            )
            .await;
        subject.enqueue().await;
        // NULL, which the column refuses, for the bad row alone.
        let handler = case("integers").backfill("touched = touched + 1, state = nullif(state, 'bad')", None);
        let mut driven = Driven::default();
        subject.batch(&*handler, 2, &mut driven).await.unwrap();
        let progress = subject.progress().await.unwrap();
        assert!(progress.starts_with(r#"{"after":["2"],"items":2,"walk":"#), "{progress}");
        for _ in 0..2 {
            let error = subject.batch(&*handler, 2, &mut driven).await.unwrap_err();
            assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
            assert_eq!(subject.progress().await.as_deref(), Some(progress.as_str()));
            assert_eq!(subject.value("SELECT sum(touched) FROM t").await, "2");
        }
        subject.script("UPDATE t SET state = 'mended' WHERE state = 'bad'").await;
        while let Some(Next::Continue(_)) = subject.batch(&*handler, 2, &mut driven).await.unwrap() {}
        assert_eq!(driven.items, [2, 2, 1]);
        assert_eq!(subject.value("SELECT count(*) FROM t WHERE touched <> 1").await, "0");
    }
}

#[tokio::test]
async fn a_key_without_a_value_is_refused() {
    for subject in Subject::each().await {
        subject.script("CREATE TABLE t (id integer, touched integer not null default 0);").await;
        let error = subject.drive(&*case("integers").backfill(TOUCH, None), 5).await.unwrap_err();
        assert_eq!(error.to_string(), "key column \"id\" may be NULL");
    }
}

#[tokio::test]
async fn progress_that_no_walk_wrote_is_refused() {
    let one = case("integers").backfill(TOUCH, None);
    let two = case("a text and an integer").delete("1 = 1");
    let refused = |handler: &dyn Handler, text: &str| {
        let progress = tidegate::update::Progress::parse(text).unwrap();
        handler.mode(&progress).unwrap_err().in_full()
    };
    let mut errors = String::new();
    for text in [
        r#"{"after": ["5"]}"#,
        r#"{"items": 5}"#,
        r#"{"after": "5", "items": 5}"#,
        r#"{"after": [5], "items": 5}"#,
        r#"{"after": ["5"], "items": -5}"#,
        r#"{"after": ["5", "6"], "items": 5}"#,
        r#"{"after": [], "items": 5}"#,
        r#"{"after": ["5"], "items": 5, "min_stream_id": 7}"#,
        r#"{"target_min_stream_id_inclusive": 7}"#,
    ] {
        errors.push_str(&format!("{}\n", refused(&*one, text)));
    }
    errors.push_str(&refused(&*two, r#"{"after": ["5"], "items": 5}"#));
    assert_snapshot!(errors);
}

#[tokio::test]
async fn a_key_of_another_type_than_before_is_refused() {
    for subject in Subject::each().await {
        let case = case("integers");
        case.fill(&subject).await;
        subject.enqueue().await;
        let handler = case.backfill(TOUCH, None);
        let mut driven = Driven::default();
        subject.batch(&*handler, 5, &mut driven).await.unwrap();
        subject
            .script(
                "ALTER TABLE t RENAME TO t_old;
                 CREATE TABLE t (id text not null primary key, number integer, touched integer not null default 0);
                 INSERT INTO t SELECT id, number, touched FROM t_old; DROP TABLE t_old;",
            )
            .await;
        let mut error = subject.batch(&*handler, 5, &mut driven).await.unwrap_err();
        if error.class() == ErrorClass::Transient {
            // PostgreSQL refuses the statement, and the next attempt asks what the table is now.
            assert!(
                error.to_string().ends_with("(table \"t\" may have been altered, and is looked at anew)"),
                "{error}"
            );
            error = subject.batch(&*handler, 5, &mut driven).await.unwrap_err();
        }
        assert!(error.to_string().starts_with("the type of key column \"id\" changed from"), "{error}");
        assert_eq!(subject.value("SELECT sum(touched) FROM t").await, "5");
    }
}

#[tokio::test]
async fn a_key_of_another_collation_than_before_is_refused() {
    for subject in Subject::each().await {
        let case = case("texts");
        case.fill(&subject).await;
        subject.enqueue().await;
        let handler = case.backfill(TOUCH, None);
        let mut driven = Driven::default();
        subject.batch(&*handler, 5, &mut driven).await.unwrap();
        // Progress of an earlier build, which does not say by what its keys were ordered, is taken, and says it from then on.
        let progress = subject.progress().await.unwrap();
        let mut earlier: serde_json::Value = serde_json::from_str(&progress).unwrap();
        assert!(earlier["walk"].as_object_mut().unwrap().remove("collations").is_some(), "{progress}");
        let earlier = earlier.to_string().replace('\'', "''");
        subject.script(&format!("UPDATE background_updates SET progress_json = '{earlier}'")).await;
        subject.batch(&*handler, 3, &mut driven).await.unwrap();
        let progress = subject.progress().await.unwrap();
        assert!(progress.contains("collations"), "{progress}");
        let (collated, told) = match subject.system {
            System::Sqlite => (
                "ALTER TABLE t RENAME TO t_old;
                 CREATE TABLE t (name text COLLATE nocase not null, number integer, touched integer not null default 0);
                 INSERT INTO t SELECT name, number, touched FROM t_old WHERE name <> 'A'; DROP TABLE t_old;
                 CREATE UNIQUE INDEX by_name ON t (name)",
                "the collation of key column \"name\" changed from BINARY to NOCASE during the walk",
            ),
            System::Postgres => (
                "ALTER TABLE t ALTER name TYPE text COLLATE \"C\"",
                "the collation of key column \"name\" changed from pg_catalog.\"default\" to pg_catalog.\"C\" during the walk",
            ),
        };
        subject.script(collated).await;
        let mut error = subject.batch(&*handler, 5, &mut driven).await.unwrap_err().to_string();
        if error.ends_with("may have been altered, and is looked at anew)") {
            // A statement that was prepared before fails first, on PostgreSQL.
            error = subject.batch(&*handler, 5, &mut driven).await.unwrap_err().to_string();
        }
        assert!(error.starts_with(told), "{error}");
        assert_eq!(subject.progress().await.unwrap(), progress);
    }
}

#[tokio::test]
async fn a_value_of_another_type_in_a_later_column_of_the_key_is_found_before_the_first_row() {
    // SQLite alone stores what a column does not declare.
    for (column, value) in [("text", "x'00ff'"), ("real", "9e999"), ("integer", "x'05'"), ("blob", "'text'")] {
        let subject = Subject::sqlite().await;
        let own = if column == "blob" { "x'05'" } else { "5" };
        subject
            .script(&format!(
                "CREATE TABLE t (room integer not null, n {column} not null, touched integer not null default 0,
                 PRIMARY KEY (room, n)); INSERT INTO t (room, n) VALUES (1, {own}), (2, {own}), (2, {value}), (3, {own})"
            ))
            .await;
        let backfill = Backfill::new(BackfillDefinition {
            table: table("t"),
            key: names(&["room", "n"]),
            set: TOUCH.to_owned(),
            filter: None,
        });
        let problem = subject.problems(&backfill).await;
        let told = "key column \"n\" holds a value that is not of the type that it declares";
        assert!(problem.contains(told), "{column}: {problem}");
        subject.script(&format!("DELETE FROM t WHERE n IS NOT {own}")).await;
        let problem = subject.problems(&backfill).await;
        assert!(!problem.contains(told), "{column}: {problem}");
    }
}

/// Beyond the rows that `check` looks at, the walk meets them: wherever a batch ends at one it is refused with nothing changed,
/// and one within a batch is in that batch and in no other.
#[tokio::test]
async fn a_value_of_another_type_in_a_later_column_is_met_once_or_refused() {
    let mut refused = 0;
    for (column, odd) in [
        ("text", &["x'00ff'", "x''", "x'7a'"][..]),
        ("real", &["9e999", "-9e999", "x'05'", "'text'"]),
        ("integer", &["x'05'", "'text'", "5.5", "''"]),
        ("numeric", &["9e999", "x'05'", "'text'"]),
        ("blob", &["'text'", "5", "5.5"]),
    ] {
        let odd: Vec<String> =
            (1..=4).flat_map(|room| odd.iter().map(move |value| format!("({room}, {value})"))).collect();
        let own = |n: u32| if column == "blob" { format!("x'{n:02}'") } else { n.to_string() };
        let usual: Vec<String> = (1..=4)
            .flat_map(|room| (3..=7).map(move |n| (room, n)))
            .map(|(room, n)| format!("({room}, {})", own(n)))
            .collect();
        for items in 1..=12 {
            let subject = Subject::sqlite().await;
            subject
                .script(&format!(
                    "CREATE TABLE t (room integer not null, n {column} not null, touched integer not null default 0,
                     PRIMARY KEY (room, n)); INSERT INTO t (room, n) VALUES {}, {}",
                    usual.join(", "),
                    odd.join(", ")
                ))
                .await;
            let backfill = Backfill::new(BackfillDefinition {
                table: table("t"),
                key: names(&["room", "n"]),
                set: TOUCH.to_owned(),
                filter: None,
            });
            let driven = subject.drive(&backfill, items).await;
            let touched = subject.rows("SELECT DISTINCT touched FROM t ORDER BY 1").await;
            match driven {
                Ok(_) => assert_eq!(touched, ["1"], "{column}, {items}"),
                Err(error) => {
                    refused += 1;
                    let told = error.told();
                    assert!(told.contains("not of the type that it declares") || column == "blob", "{told}");
                    assert!(
                        touched.iter().all(|touched| ["0", "1"].contains(&touched.as_str())),
                        "{column}: {touched:?}"
                    );
                }
            }
        }
    }
    assert!(refused > 10, "{refused}");
}

#[tokio::test]
async fn a_key_that_its_text_does_not_give_back_is_refused() {
    // SQLite alone stores what a column does not declare.
    let subject = Subject::sqlite().await;
    subject.script("CREATE TABLE t (id integer not null unique, touched integer not null default 0);").await;
    subject.script("INSERT INTO t (id) VALUES (-3), (x'00ff'), (5)").await;
    let driven = subject.drive(&*case("integers").backfill(TOUCH, None), 1).await;
    let touched = subject.value("SELECT max(touched) FROM t").await;
    assert_eq!(touched, "0", "before the first row");
    let error = driven.unwrap_err();
    assert_eq!(error.to_string(), "key column id holds a value that is not of the type that it declares");
    assert_eq!(error.detail(), Some("the value is 00FF"));
}

#[tokio::test]
async fn the_statements_of_a_walk_are_the_same_in_every_batch() {
    for subject in Subject::each().await {
        let mut text = String::new();
        let (one, two, ties) = (case("integers"), case("a text and an integer"), case("ties"));
        for (case, handler) in [
            (&one, one.backfill(TOUCH, None)),
            (&two, two.delete("number > 3")),
            (&ties, ties.backfill(TOUCH, Some("number > 3"))),
        ] {
            case.fill(&subject).await;
            let driven = subject.drive(&*handler, 9).await.unwrap();
            let mut texts: Vec<String> = Vec::new();
            for statement in driven.statements.into_iter().filter(|statement| statement.contains("\"t\"")) {
                if !texts.contains(&statement) {
                    texts.push(statement);
                }
            }
            text.push_str(&format!("-- {}\n{};\n\n", case.what, texts.join(";\n")));
        }
        assert_snapshot!(format!("statements_{}", subject.system), text);
    }
}

#[tokio::test]
async fn a_noop_ends_whatever_its_row_says() {
    for subject in Subject::each().await {
        subject.enqueue().await;
        subject.script("UPDATE background_updates SET progress_json = '{\"whatever\": [1]}'").await;
        let next = subject.batch(&Noop, 100, &mut Driven::default()).await.unwrap();
        assert_eq!(next, Some(Next::Finished));
        assert_eq!(subject.progress().await, None);
    }
}

#[tokio::test]
async fn a_walk_along_several_columns_seeks_by_all_of_them() {
    // A seek by the first column alone would go over the rest of the walk's rows again in every batch.
    let subject = Subject::sqlite().await;
    let case = case("a text and an integer");
    case.fill(&subject).await;
    let driven = subject.drive(&*case.backfill(TOUCH, None), 9).await.unwrap();
    let resumed = driven.statements.iter().filter(|sql| sql.contains("\"t\"") && sql.contains('>'));
    for statement in resumed {
        let bound = (1..=5).fold(statement.clone(), |sql, number| sql.replace(&format!("?{number}"), "'1'"));
        let plan = subject.rows(&format!("EXPLAIN QUERY PLAN {bound}")).await.join("; ");
        assert!(plan.contains("(room,n)>(?,?)"), "{plan}: {statement}");
    }
}
