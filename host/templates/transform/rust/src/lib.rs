//! What becomes of a row: an e-mail address is trimmed and put in small letters.

wit_bindgen::generate!({ path: "wit", world: "transform" });

use exports::tidegate::handler::transformer::{Guest, Outcome, Row};
use tidegate::handler::values::Value;

struct Transform;

impl Guest for Transform {
    fn transform(rows: Vec<Row>) -> Vec<Outcome> {
        rows.into_iter().map(one).collect()
    }
}

/// The row has the columns of `read`, in their order; what is written are those of `write`.
fn one(row: Row) -> Outcome {
    match row.as_slice() {
        [Value::Text(address)] => match normal(address) {
            Some(normal) => Outcome::Write(vec![Value::Text(normal)]),
            None => Outcome::Fail("an address without an @".to_owned()),
        },
        [Value::Null] => Outcome::Keep,
        _ => Outcome::Fail("`read` is to name one column of texts".to_owned()),
    }
}

/// The address as it is to be; `None` where it is none.
fn normal(address: &str) -> Option<String> {
    let address = address.trim();
    address.contains('@').then(|| address.to_lowercase())
}

export!(Transform);
