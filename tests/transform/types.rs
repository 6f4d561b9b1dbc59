//! Values of every type: read, handed over, handed back and written, they are what they were.

use std::sync::Arc;

use tidegate::update::sql::System;
use tidegate::update::{Cell, RowFunction, RowOutcome};
use tidegate_wasm::HandlerLimits;

use super::{component, transform};
use crate::kinds::subject::Subject;

/// A type, and values of it in SQL.
type Typed = (&'static str, &'static [&'static str]);

const POSTGRES: &[Typed] = &[
    ("boolean", &["true", "false"]),
    ("smallint", &["-32768", "32767"]),
    ("integer", &["-2147483648", "0"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("real", &["0.1", "3.4e38", "'-Infinity'", "'NaN'"]),
    ("double precision", &["0.1", "5e-324", "1.7976931348623157e308", "'Infinity'", "'NaN'"]),
    ("numeric", &["12345678901234567890.000100", "'NaN'", "-1e-20"]),
    ("numeric(10,2)", &["1.50", "-99999999.99"]),
    ("text", &["''", "'é \"{}\\, NULL'", "'NULL'", "e'a\\nb'"]),
    ("varchar(10)", &["'0123456789'"]),
    ("char(5)", &["'ab'", "'abcde'"]),
    ("name", &["'a name'"]),
    ("\"char\"", &["'x'"]),
    ("bytea", &["'\\x'", "'\\x00ff5c22'"]),
    ("uuid", &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    ("json", &["'{\"a\": [1, null, \"é\"]}'"]),
    ("jsonb", &["'{\"a\": [1, null, \"\\u00e9\"]}'", "'null'"]),
    ("timestamptz", &["'2026-02-28 23:59:59.999999+05:30'", "'infinity'", "'4713-01-01 00:00:00+00 BC'"]),
    ("timestamp(3)", &["'2026-02-28 23:59:59.999'"]),
    ("date", &["'2026-02-28'", "'-infinity'"]),
    ("time with time zone", &["'23:59:59.5+05:30'"]),
    ("interval", &["'-1 year 2 days 00:00:00.000001'"]),
    ("interval day to second(3)", &["'2 days 01:02:03.004'"]),
    ("integer[]", &["'{1,NULL,3}'", "'{}'", "'[0:1]={5,6}'"]),
    ("text[]", &["array['a,b', '\"', null, 'NULL', '\\']"]),
    ("varchar(3)[]", &["array['abc']"]),
    ("bit(3)", &["b'101'"]),
    ("bit varying(9)", &["b'10101'"]),
    ("inet", &["'192.168.0.1/24'"]),
    ("int4range", &["'[1,5)'", "'empty'"]),
    ("point", &["'(1,2.5)'"]),
    ("money", &["'-12.34'"]),
    ("xml", &["'<a>b</a>'"]),
    ("tsvector", &["'a:1 b:2'"]),
    ("mood", &["'very happy'"]),
    ("\"Odd type\"", &["'x'"]),
    ("positive", &["7"]),
    ("deeper", &["8"]),
    ("pair", &["row(1, 'a \"b\", c')"]),
];

const SQLITE: &[Typed] = &[
    ("integer", &["-9223372036854775808", "9223372036854775807", "1.5", "'abc'", "x'00ff'"]),
    ("text", &["''", "'é'", "x'ff00'"]),
    ("varchar(3)", &["'longer than three'"]),
    ("real", &["0.1", "5e-324", "1e308", "9e999", "-9e999", "3"]),
    ("blob", &["x''", "x'00ff'", "'a text'", "7"]),
    ("numeric", &["1", "1.5", "'abc'", "x'00'"]),
    ("boolean", &["1", "0"]),
    ("datetime", &["'2026-02-28 23:59:59'"]),
    ("decimal(10,2)", &["1.50"]),
    ("", &["1", "'1'", "1.0", "x'31'"]),
];

/// Table `items`: for each type two columns, of which the first has the values.
async fn items(subject: &Subject, types: &[Typed]) -> (Vec<String>, Vec<String>) {
    if subject.system == System::Postgres {
        subject
            .script(
                "CREATE TYPE mood AS ENUM ('sad', 'very happy'); CREATE TYPE \"Odd type\" AS ENUM ('x'); \
                 CREATE DOMAIN positive AS integer CHECK (value > 0); CREATE DOMAIN deeper AS positive; \
                 CREATE TYPE pair AS (a integer, b text)",
            )
            .await;
    }
    let numbers = 0..types.len();
    let columns: String = numbers
        .clone()
        .zip(types)
        .map(|(number, (kind, _))| format!(", \"A {number}\" {kind}, \"B \"\"{number}\" {kind}"))
        .collect();
    subject.script(&format!("CREATE TABLE items (id integer PRIMARY KEY NOT NULL{columns})")).await;
    let most = types.iter().map(|(_, values)| values.len()).max().unwrap();
    // The last row is of NULLs.
    for row in 0..=most {
        let values: String =
            types.iter().map(|(_, values)| format!(", {}, NULL", values.get(row).unwrap_or(&"NULL"))).collect();
        subject.script(&format!("INSERT INTO items VALUES ({row}{values})")).await;
    }
    (
        numbers.clone().map(|number| format!("A {number}")).collect(),
        numbers.map(|number| format!("B \"{number}")).collect(),
    )
}

/// The types of which a value is not what it was.
async fn wrong(subject: &Subject, types: &[Typed]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, (kind, _)) in types.iter().enumerate() {
        let (a, b) = (format!("\"A {number}\""), format!("\"B \"\"{number}\""));
        let differs = match subject.system {
            System::Sqlite => format!("{a} IS NOT {b} OR typeof({a}) <> typeof({b})"),
            System::Postgres => format!("{a}::text IS DISTINCT FROM {b}::text"),
        };
        let found = subject.rows(&format!("SELECT id FROM items WHERE {differs}")).await;
        wrong.extend(found.iter().map(|row| format!("{kind}, value {row}")));
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_any_type_comes_back_as_it_was() {
    for subject in Subject::each().await {
        let types = if subject.system == System::Sqlite { SQLITE } else { POSTGRES };
        let (read, write) = items(&subject, types).await;
        let read: Vec<&str> = read.iter().map(String::as_str).collect();
        let write: Vec<&str> = write.iter().map(String::as_str).collect();
        for by_component in [false, true] {
            let settings: &[(&str, &str)] = &[("deed", "echo")];
            let by = match by_component {
                true => component("hostile-transform", settings, HandlerLimits::default()),
                false => Arc::new(RowFunction::new("echo", |row: &[Cell]| RowOutcome::Write(row.to_vec()))),
            };
            let handler = transform(&read, &write, settings, by);
            // What a column of SQLite's holds beside its type, no component can write there.
            if subject.system == System::Sqlite {
                subject.script("DELETE FROM items WHERE id > 1 AND id < 5").await;
                subject.script("UPDATE items SET \"A 0\" = 7, \"A 1\" = 'x', \"A 4\" = x'31' WHERE id > 1").await;
            }
            assert_eq!(subject.problems(&handler).await, "");
            subject.drive(&handler, 2).await.unwrap();
            assert_eq!(wrong(&subject, types).await, [""; 0], "{}, by a component: {by_component}", subject.system);
            let empty: String =
                write.iter().map(|name| format!("\"{}\" = NULL, ", name.replace('"', "\"\""))).collect();
            subject.script(&format!("UPDATE items SET {}", empty.trim_end_matches(", "))).await;
            assert!(!wrong(&subject, types).await.is_empty());
        }
    }
}

/// What is written is held to the column's length: a cast would cut it off in silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_too_long_is_an_error_and_no_cut_off_text() {
    let subject = Subject::postgres().await;
    subject
        .script(
            "CREATE TABLE items (id integer PRIMARY KEY, a text, b varchar(3)); INSERT INTO items VALUES (1, 'abcd')",
        )
        .await;
    let echo = RowFunction::new("echo", |row: &[Cell]| RowOutcome::Write(row.to_vec()));
    let error = subject.drive(&transform(&["a"], &["b"], &[], Arc::new(echo)), 10).await.unwrap_err();
    assert!(error.to_string().contains("value too long for type character varying"), "{error}");
    assert_eq!(subject.rows("SELECT count(b) FROM items").await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_definition_gets_wrong_is_told() {
    for subject in Subject::each().await {
        subject.script("CREATE TABLE items (id integer PRIMARY KEY NOT NULL, a text, b text, c text GENERATED ALWAYS AS (a || 'x') STORED)").await;
        for (read, write, told) in [
            (&["a", "no"][..], &["b"][..], "read: table \"items\" has no column \"no\""),
            (&["a"], &["no"], "write: table \"items\" has no column \"no\""),
            (&["a"], &["b", "id"], "write: \"write\" names key column \"id\""),
            (&["a"], &["c"], "write: "),
            (&["c"], &["b"], ""),
        ] {
            let echo = RowFunction::new("echo", |row: &[Cell]| RowOutcome::Write(row.to_vec()));
            let problems = subject.problems(&transform(read, write, &[], Arc::new(echo))).await;
            assert!(
                problems.starts_with(told) && told.is_empty() == problems.is_empty(),
                "{read:?} {write:?}: {problems}"
            );
        }
    }
}
