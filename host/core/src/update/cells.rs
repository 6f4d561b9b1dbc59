//! What stands in a column of a row that the host itself asked for.

use super::sql::Value;

/// The text in a column, by its number from 0; empty where there is none.
pub fn text(row: &[Value], column: usize) -> &str {
    row.get(column).and_then(Value::as_text).unwrap_or_default()
}

/// The whole number in a column, by its number from 0; 0 where there is none.
pub fn integer(row: &[Value], column: usize) -> i64 {
    row.get(column).and_then(Value::as_integer).unwrap_or(0)
}
