//! Conditions on a walk's key, with the values bound in them.
//!
//! PostgreSQL reckons a comparison of rows by its first column, and each end by itself: in the middle of a walk it takes a
//! batch for a quarter of the table, and reads all of that. And it reads an index on to where the first column changes,
//! whatever stands behind that column. So columns that are the same at both ends are compared for being equal, the first
//! that differs is bounded at both ends once more by itself, and the values are kept from the planner (see
//! [`Dialect::key_apart`]): what it makes of such a range, a small part of the table, depends on no statistics.

use std::ops::Deref;
use std::sync::Arc;

use crate::update::sql::{Column, Dialect, System, Value};

/// The columns that order a walk.
#[derive(Debug, Clone)]
pub(in crate::update) struct Key {
    columns: Arc<[Column]>,
    /// True where the planner has to know the ends, because it chooses the partitions by them.
    partitioned: bool,
}

impl Key {
    pub(super) fn new(columns: Vec<Column>, partitioned: bool) -> Self {
        Self { columns: columns.into(), partitioned }
    }

    /// The value bound as parameter `number` as one of column `part`.
    pub(super) fn value(&self, dialect: &dyn Dialect, number: usize, part: usize) -> String {
        match &self.columns[part] {
            column if self.partitioned => dialect.key_from_text(number, column),
            column => dialect.key_apart(number, column),
        }
    }
}

impl Deref for Key {
    type Target = [Column];

    fn deref(&self) -> &[Column] {
        &self.columns
    }
}

/// An end of a range.
#[derive(Debug, Clone, Copy)]
pub(in crate::update) enum Side<'a> {
    /// A key, or the first parts of one.
    At(&'a [String]),
    /// One that is not known yet.
    Unknown,
}

impl<'a> Side<'a> {
    fn parts(self, key: &Key) -> usize {
        match self {
            Side::At(parts) => parts.len().min(key.len()),
            Side::Unknown => key.len(),
        }
    }

    /// The text of a part, where it is known.
    fn part(self, part: usize) -> Option<&'a str> {
        match self {
            Side::At(parts) => parts.get(part).map(String::as_str),
            Side::Unknown => None,
        }
    }
}

/// Where a range begins.
#[derive(Debug, Clone, Copy)]
pub(in crate::update) struct Lower<'a> {
    side: Side<'a>,
    inclusive: bool,
}

impl<'a> Lower<'a> {
    /// Behind a key.
    pub(in crate::update) fn after(side: Side<'a>) -> Self {
        Self { side, inclusive: false }
    }

    /// True where the key itself is part of the range.
    pub(in crate::update) fn is_inclusive(self) -> bool {
        self.inclusive
    }

    /// At a key.
    pub(super) fn from(key: &'a [String]) -> Self {
        Self { side: Side::At(key), inclusive: true }
    }
}

/// The ends of a range.
#[derive(Debug, Clone, Copy)]
pub(in crate::update) struct Ends<'a> {
    pub(in crate::update) lower: Option<Lower<'a>>,
    pub(in crate::update) upper: Side<'a>,
}

/// One of the two ends, and a part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::update) enum Part {
    Lower(usize),
    Upper(usize),
}

impl Ends<'_> {
    /// The columns, from the first on, that are the same at both ends: all but one at most.
    pub(super) fn common(&self, key: &Key) -> usize {
        let (Some(Lower { side: Side::At(lower), .. }), Side::At(upper)) = (self.lower, self.upper) else { return 0 };
        let most = lower.len().min(key.len()).saturating_sub(1);
        lower.iter().zip(upper).take(most).take_while(|(lower, upper)| lower == upper).count()
    }

    /// The value of a part of an end, as it is bound.
    pub(in crate::update) fn value(&self, dialect: &dyn Dialect, key: &Key, part: Part) -> Value {
        let text = match part {
            Part::Lower(part) => self.lower.and_then(|lower| lower.side.part(part)),
            Part::Upper(part) => self.upper.part(part),
        };
        let (Part::Lower(column) | Part::Upper(column)) = part;
        text.map_or(Value::Null, |text| dialect.key_bound(text, &key[column]))
    }

    /// The condition that a key lies between the ends. `number` says by which parameter a part is bound.
    pub(in crate::update) fn condition(
        &self,
        dialect: &dyn Dialect,
        key: &Key,
        qualifier: Option<&str>,
        number: impl FnMut(Part) -> usize,
    ) -> String {
        self.with_common(dialect, key, qualifier, self.common(key), bound_in(dialect, key, number))
    }

    /// As [`Ends::condition`], where so many columns are the same at both ends. `value` gives the words for a part.
    pub(super) fn with_common(
        &self,
        dialect: &dyn Dialect,
        key: &Key,
        qualifier: Option<&str>,
        common: usize,
        mut value: impl FnMut(Part) -> String,
    ) -> String {
        let columns = quoted(dialect, key, qualifier);
        // SQLite plans by what an index can do, seeks by all columns of a row, and stops by all.
        let planned_by_statistics = dialect.system() == System::Postgres;
        let common = if planned_by_statistics { common } else { 0 };
        let mut parts: Vec<String> =
            (0..common).map(|part| format!("{} = {}", columns[part], value(Part::Lower(part)))).collect();
        if let Some(Lower { side, inclusive }) = self.lower {
            let places = common..side.parts(key);
            let operator = if inclusive { ">=" } else { ">" };
            parts.push(compared(&columns[places.clone()], operator, places.map(|part| value(Part::Lower(part)))));
        }
        parts.push(compared(&columns[common..], "<=", (common..columns.len()).map(|part| value(Part::Upper(part)))));
        if planned_by_statistics && self.lower.is_some() && columns.len() > common + 1 {
            let first = &columns[common];
            parts.push(format!("{first} >= {}", value(Part::Lower(common))));
            parts.push(format!("{first} <= {}", value(Part::Upper(common))));
        }
        parts.join(" AND ")
    }
}

/// The words for a part by the number of its parameter.
fn bound_in(dialect: &dyn Dialect, key: &Key, mut number: impl FnMut(Part) -> usize) -> impl FnMut(Part) -> String {
    move |part| {
        let (Part::Lower(column) | Part::Upper(column)) = part;
        key.value(dialect, number(part), column)
    }
}

/// Compares columns with values: as rows, where there are several.
pub(super) fn compared(columns: &[String], operator: &str, values: impl Iterator<Item = String>) -> String {
    let values: Vec<String> = values.collect();
    match (columns, values.as_slice()) {
        ([column], [value]) => format!("{column} {operator} {value}"),
        _ => format!("({}) {operator} ({})", columns.join(", "), values.join(", ")),
    }
}

/// A condition on the key, with the values bound in it.
pub(super) struct Range {
    pub(super) condition: String,
    pub(super) parameters: Vec<Value>,
}

impl Range {
    /// Without any key.
    pub(super) fn empty() -> Self {
        Self { condition: "1 = 0".to_owned(), parameters: Vec::new() }
    }

    /// The keys between `ends`. Its text depends on what these have in common and on nothing else: as long as that stays the
    /// same, a statement is prepared once.
    pub(super) fn new(dialect: &dyn Dialect, key: &Key, ends: Ends<'_>) -> Self {
        let mut bound = Vec::new();
        let condition = ends.condition(dialect, key, None, |part| number(&mut bound, part));
        Self { condition, parameters: bound.into_iter().map(|part| ends.value(dialect, key, part)).collect() }
    }

    /// The same, never by what the ends have in common: for a statement that reads no further than to some row, where the
    /// number of keys that have it is nothing to reckon with.
    pub(super) fn unshaped(dialect: &dyn Dialect, key: &Key, ends: Ends<'_>, qualifier: Option<&str>) -> Self {
        let mut bound = Vec::new();
        let value = bound_in(dialect, key, |part| number(&mut bound, part));
        let condition = ends.with_common(dialect, key, qualifier, 0, value);
        Self { condition, parameters: bound.into_iter().map(|part| ends.value(dialect, key, part)).collect() }
    }

    pub(super) fn clause(&self, filter: Option<&str>) -> String {
        clause(&self.condition, filter)
    }
}

/// The WHERE clause of the rows that a condition on the key speaks of, of those that meet `filter`.
pub(super) fn clause(condition: &str, filter: Option<&str>) -> String {
    let parts: Vec<String> = [condition.to_owned()].into_iter().chain(filter.map(parenthesised)).collect();
    format!("\nWHERE {}", parts.join("\nAND "))
}

/// The number of the parameter by which a part is bound: none is bound twice, and none without being used.
pub(super) fn number(bound: &mut Vec<Part>, part: Part) -> usize {
    if let Some(known) = bound.iter().position(|known| *known == part) {
        return known + 1;
    }
    bound.push(part);
    bound.len()
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

/// The condition that a row has the key bound from parameter 1 on.
pub(super) fn same(dialect: &dyn Dialect, key: &Key) -> String {
    let columns = quoted(dialect, key, None);
    compared(&columns, "=", key.iter().zip(1..).map(|(column, number)| dialect.key_from_text(number, column)))
}

pub(super) fn quoted(dialect: &dyn Dialect, key: &[Column], qualifier: Option<&str>) -> Vec<String> {
    let qualifier = qualifier.map(|qualifier| format!("{qualifier}.")).unwrap_or_default();
    key.iter().map(|column| format!("{qualifier}{}", dialect.quote(&column.name))).collect()
}

pub(super) fn texts(key: Option<&[String]>) -> impl Iterator<Item = Value> {
    key.unwrap_or_default().iter().map(|part| Value::from(part.as_str()))
}
