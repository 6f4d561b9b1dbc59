//! A transform that misbehaves as its settings say, to try a host with. Without settings it behaves: what it reads, in
//! capitals where it is a text, goes into the columns that are written.
//!
//! `deed` is what it does; `when` is the text that a row's first column must have for that, and any row does where it is not set.

use std::hash::{BuildHasher as _, RandomState};
use std::time::SystemTime;

wit_bindgen::generate!({ path: "wit", world: "transform" });

use exports::tidegate::handler::transformer::{Guest, Outcome, Row};
use tidegate::handler::values::{OtherValue, Value};
use tidegate::handler::{log, settings, update};

struct Hostile;

impl Guest for Hostile {
    fn transform(rows: Vec<Row>) -> Vec<Outcome> {
        let (deed, when) = (settings::get("deed").unwrap_or_default(), settings::get("when"));
        let bytes: usize = settings::get("bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(100_000_000);
        let is_due = |row: &Row| when.as_ref().is_none_or(|when| matches!(row.first(), Some(Value::Text(text)) if text == when));
        let due = rows.iter().any(is_due);
        match deed.as_str() {
            "trap" if due => panic!("as told"),
            "loop" if due => {
                #[expect(clippy::empty_loop, reason = "as told")]
                loop {}
            }
            "memory" if due => std::mem::forget(std::hint::black_box(vec![1_u8; bytes])),
            "deep" if due => drop(deeper(1)),
            "log" if due => log::write(log::Level::Warn, &format!("update {}, {} rows", update::name(), rows.len())),
            _ => {}
        }
        let mut outcomes: Vec<Outcome> = rows
            .into_iter()
            .map(|row| match (is_due(&row), deed.as_str()) {
                (true, "keep") => Outcome::Keep,
                (true, "fail") => Outcome::Fail("it does not please".to_owned()),
                (true, "columns") => Outcome::Write(Vec::new()),
                (true, "boolean") => of(row, |_| Value::Boolean(true)),
                (true, "other") => of(row, |_| Value::Other(OtherValue { type_name: "point".into(), text: "(1,2)".into() })),
                (true, "huge") => of(row, |_| Value::Text("x".repeat(bytes))),
                (true, "zero") => of(row, |_| Value::Text("a\0b".into())),
                // SAFETY: none; a host has to look for itself.
                (true, "utf8") => of(row, |_| Value::Text(unsafe { String::from_utf8_unchecked(vec![0xff, 0xfe]) })),
                (true, "count") => of(row, |value| match value {
                    Value::Integer(number) => Value::Integer(number + 1),
                    value => value,
                }),
                (true, "world") => of(row, |_| Value::Text(world())),
                (true, "echo") => Outcome::Write(row),
                _ => of(row, |value| match value {
                    Value::Text(text) => Value::Text(text.to_uppercase()),
                    value => value,
                }),
            })
            .collect();
        match deed.as_str() {
            "few" if due => drop(outcomes.pop()),
            "many" if due => outcomes.push(Outcome::Keep),
            _ => {}
        }
        outcomes
    }
}

fn of(row: Row, new: impl Fn(Value) -> Value) -> Outcome {
    Outcome::Write(row.into_iter().map(new).collect())
}

/// What there is to see of the world: the time, chance, files, variables and the network.
fn world() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let chance = RandomState::new().hash_one(0);
    let file = std::fs::read("/etc/passwd").is_ok() || std::fs::read_dir("/").is_ok_and(|mut all| all.next().is_some());
    let variables = std::env::vars().count() + std::env::args().count();
    let network = std::net::TcpStream::connect("127.0.0.1:1").map_err(|error| error.kind());
    format!("{now} {chance:x} file: {file}, variables: {variables}, network: {network:?}")
}

/// Calls itself for ever.
#[expect(unconditional_recursion, reason = "as told")]
fn deeper(level: u64) -> u64 {
    std::hint::black_box(deeper(std::hint::black_box(level + 1))) + level
}

export!(Hostile);
