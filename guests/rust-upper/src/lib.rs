//! A transform: the first column that is read, in capitals, goes into the first that is written. By Unicode's rules, which
//! `upper` of SQLite does not know.

wit_bindgen::generate!({ path: "wit", world: "transform" });

use exports::tidegate::handler::transformer::{Guest, Outcome, Row};
use tidegate::handler::values::Value;

struct Upper;

impl Guest for Upper {
    fn transform(rows: Vec<Row>) -> Vec<Outcome> {
        rows.into_iter().map(upper).collect()
    }
}

fn upper(row: Row) -> Outcome {
    match row.into_iter().next() {
        Some(Value::Text(text)) => Outcome::Write(vec![Value::Text(capitals(text))]),
        Some(Value::Null) => Outcome::Write(vec![Value::Null]),
        _ => Outcome::Fail("the column holds no text".to_owned()),
    }
}

/// Most texts are ASCII, and are changed where they stand.
fn capitals(mut text: String) -> String {
    if text.is_ascii() {
        text.make_ascii_uppercase();
        return text;
    }
    text.to_uppercase()
}

export!(Upper);
