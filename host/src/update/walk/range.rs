//! Conditions on a walk's key, with the values bound in them.

use crate::update::sql::{Column, Dialect, Value};

/// A condition on the key, with the values bound in it.
pub(super) struct Range {
    pub(super) condition: String,
    pub(super) parameters: Vec<Value>,
}

impl Range {
    /// The keys in (`after`, `upto`]. Its text depends on whether there is an `after` and on nothing else: from the second
    /// batch on a statement is prepared once.
    pub(super) fn new(dialect: &dyn Dialect, key: &[Column], after: Option<&[String]>, upto: &[String]) -> Self {
        let parts = after.map_or(0, |after| after.len().min(key.len()));
        let lower = after.map(|_| comparison(dialect, &key[..parts], None, ">", 1));
        let upper = comparison(dialect, key, None, "<=", parts + 1);
        let both: Vec<String> = lower.into_iter().chain([upper]).collect();
        Self { condition: both.join(" AND "), parameters: texts(after).chain(texts(Some(upto))).collect() }
    }

    pub(super) fn clause(&self, filter: Option<&str>) -> String {
        let parts: Vec<String> = [self.condition.clone()].into_iter().chain(filter.map(parenthesised)).collect();
        format!("\nWHERE {}", parts.join("\nAND "))
    }
}

/// The WHERE clause of a condition alone.
pub(in crate::update) fn filter_clause(filter: &str) -> String {
    format!("\nWHERE {}", parenthesised(filter))
}

/// A condition that somebody wrote, kept apart from what stands around it: a comment at its end cannot swallow the
/// parenthesis.
fn parenthesised(filter: &str) -> String {
    format!("({filter}\n)")
}

/// Compares the key with the one bound from parameter `first` on: row by row where it has several columns.
pub(super) fn comparison(
    dialect: &dyn Dialect,
    key: &[Column],
    qualifier: Option<&str>,
    operator: &str,
    first: usize,
) -> String {
    let numbers: Vec<usize> = (first..).take(key.len()).collect();
    compare_with(dialect, key, qualifier, operator, &numbers)
}

/// As [`comparison`], with the number of each parameter.
pub(in crate::update) fn compare_with(
    dialect: &dyn Dialect,
    key: &[Column],
    qualifier: Option<&str>,
    operator: &str,
    numbers: &[usize],
) -> String {
    let columns = quoted(dialect, key, qualifier);
    let values: Vec<String> =
        key.iter().zip(numbers).map(|(column, number)| dialect.key_from_text(*number, column)).collect();
    match (columns.as_slice(), values.as_slice()) {
        ([column], [value]) => format!("{column} {operator} {value}"),
        _ => format!("({}) {operator} ({})", columns.join(", "), values.join(", ")),
    }
}

pub(super) fn quoted(dialect: &dyn Dialect, key: &[Column], qualifier: Option<&str>) -> Vec<String> {
    let qualifier = qualifier.map(|qualifier| format!("{qualifier}.")).unwrap_or_default();
    key.iter().map(|column| format!("{qualifier}{}", dialect.quote(&column.name))).collect()
}

pub(super) fn texts(key: Option<&[String]>) -> impl Iterator<Item = Value> {
    key.unwrap_or_default().iter().map(|part| Value::from(part.as_str()))
}
