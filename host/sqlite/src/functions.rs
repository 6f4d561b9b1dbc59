//! Functions of text that PostgreSQL has and SQLite has not: its own lower() leaves all letters but ASCII as they are.
//!
//! Only statements that are given to this connection can call them. A view, a trigger or an index that did would be of no
//! use to the application, whose connections do not have them.

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use unicode_normalization::UnicodeNormalization as _;

/// Gives a connection the functions.
pub(super) fn add(sqlite: &rusqlite::Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    sqlite.create_scalar_function("unicode_lower", 1, flags, |call| of_text(call, |text| Ok(text.to_lowercase())))?;
    sqlite.create_scalar_function("unicode_upper", 1, flags, |call| of_text(call, |text| Ok(text.to_uppercase())))?;
    sqlite.create_scalar_function("unicode_normalize", 2, flags, |call| {
        let form: String = call.get(1)?;
        of_text(call, |text| normalized(text, &form))
    })
}

/// What becomes of the first argument: of a text what `change` makes of it, and everything else as it is.
fn of_text(call: &Context<'_>, change: impl FnOnce(&str) -> rusqlite::Result<String>) -> rusqlite::Result<Value> {
    match call.get_raw(0) {
        ValueRef::Text(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|error| rusqlite::Error::UserFunctionError(error.into()))?;
            change(text).map(Value::Text)
        }
        other => Value::try_from(other).map_err(Into::into),
    }
}

fn normalized(text: &str, form: &str) -> rusqlite::Result<String> {
    match form.to_ascii_uppercase().as_str() {
        "NFC" => Ok(text.nfc().collect()),
        "NFD" => Ok(text.nfd().collect()),
        "NFKC" => Ok(text.nfkc().collect()),
        "NFKD" => Ok(text.nfkd().collect()),
        _ => {
            let problem = "unicode_normalize knows the forms NFC, NFD, NFKC and NFKD, and no others";
            Err(rusqlite::Error::UserFunctionError(problem.into()))
        }
    }
}
