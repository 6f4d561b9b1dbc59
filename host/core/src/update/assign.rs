//! What stands after SET, taken apart: which columns are assigned, and what to each.

use super::scan::{self, Token};
use super::sql::System;

/// One assignment: `b = upper(a)`, or `(b, c) = (1, 2)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// What stands before the `=`.
    pub(super) target: String,
    /// The columns that are named there.
    pub(super) columns: Vec<String>,
    /// What stands behind it.
    pub(super) value: String,
}

/// How deep in parentheses or brackets a text is after a token.
fn depth_after(depth: usize, token: &Token<'_>) -> usize {
    match () {
        () if token.is_symbol("(") || token.is_symbol("[") => depth + 1,
        () if token.is_symbol(")") || token.is_symbol("]") => depth.saturating_sub(1),
        () => depth,
    }
}

/// The assignments of a text, in its order.
pub(super) fn assignments(set: &str, system: System) -> Vec<Assignment> {
    let (mut all, mut depth, mut in_value) = (Vec::new(), 0, false);
    let empty = || Assignment { target: String::new(), columns: Vec::new(), value: String::new() };
    let mut current = empty();
    for token in scan::tokens(set, system) {
        depth = depth_after(depth, &token);
        match () {
            () if depth == 0 && token.is_symbol(",") => {
                all.push(std::mem::replace(&mut current, empty()));
                in_value = false;
                continue;
            }
            () if depth == 0 && !in_value && token.is_symbol("=") => {
                in_value = true;
                continue;
            }
            () if in_value => current.value += token.text,
            () => {
                current.columns.extend(token.name(system));
                current.target += token.text;
            }
        }
    }
    all.push(current);
    for assignment in &mut all {
        assignment.target = assignment.target.trim().to_owned();
        assignment.value = assignment.value.trim().to_owned();
    }
    all
}

/// The parts of a text in parentheses that commas part; `None` where it is none, or a query.
pub(super) fn listed(text: &str, system: System) -> Option<Vec<String>> {
    let tokens = scan::code(text, system);
    let tokens = match tokens.as_slice() {
        [row, rest @ ..] if row.is("ROW") => rest,
        all => all,
    };
    let [open, inner @ .., close] = tokens else { return None };
    let is_query = inner.first().is_some_and(|first| ["SELECT", "WITH", "VALUES"].iter().any(|word| first.is(word)));
    if !open.is_symbol("(") || !close.is_symbol(")") || is_query {
        return None;
    }
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0, open.end());
    for token in inner {
        depth = depth_after(depth, token);
        if depth == 0 && token.is_symbol(",") {
            parts.push(text[begin..token.start].trim().to_owned());
            begin = token.end();
        }
    }
    parts.push(text[begin..close.start].trim().to_owned());
    // Of `(a), (b)` the first and the last do not belong together.
    (depth == 0).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(set: &str, system: System) -> Vec<(String, Vec<String>, String)> {
        assignments(set, system).into_iter().map(|one| (one.target, one.columns, one.value)).collect()
    }

    #[test]
    fn assigned_columns_are_told_from_those_that_are_read() {
        let cases = [
            ("a = b, c = (SELECT d = e, f), g = 'h, i = 1'", &["a", "c", "g"][..]),
            ("(a, \"B\") = (b, id), c = d -- , e = 1", &["a", "B", "c"]),
            ("a=id=2,b=f(c, d)", &["a", "b"]),
        ];
        for (set, expected) in cases {
            for system in [System::Sqlite, System::Postgres] {
                let columns: Vec<String> =
                    assignments(set, system).into_iter().flat_map(|assignment| assignment.columns).collect();
                assert_eq!(columns, expected, "{set} on {system}");
            }
        }
        let columns = |set, system| told(set, system).into_iter().flat_map(|one| one.1).collect::<Vec<_>>();
        assert_eq!(columns("a[id] = 1, [b] = 2", System::Sqlite), ["a", "id", "b"]);
        assert_eq!(columns("A[1] = ARRAY[1, 2], b = 2", System::Postgres), ["a", "b"]);
    }

    #[test]
    fn values_are_what_stands_behind_the_first_sign_of_equality() {
        let owned = |target: &str, columns: &[&str], value: &str| {
            (target.to_owned(), columns.iter().map(|&name| name.to_owned()).collect(), value.to_owned())
        };
        assert_eq!(
            told("a = b = 1, (c, d) = (1, f(2, 3))", System::Postgres),
            [owned("a", &["a"], "b = 1"), owned("(c, d)", &["c", "d"], "(1, f(2, 3))")]
        );
    }

    #[test]
    fn a_list_is_told_from_a_query_and_from_two_lists() {
        let list = |text| listed(text, System::Postgres);
        assert_eq!(list("(1, f(2, 3), 'a,b')"), Some(vec!["1".into(), "f(2, 3)".into(), "'a,b'".into()]));
        assert_eq!(list("ROW(1, 2)"), Some(vec!["1".into(), "2".into()]));
        assert_eq!(list("(SELECT 1, 2)"), None);
        assert_eq!(list("a"), None);
    }
}
