//! What an index on PostgreSQL is, and whether it is the one wanted.
//!
//! A catalogue keeps an expression in PostgreSQL's own words, and a definition has it in its author's. Both are put into
//! one SELECT over the table, which PostgreSQL plans without running it: in the plan, the same expression has the same
//! words. Nothing is made for that, so that no right to make temporary tables is needed, and a function may take a row
//! of the table itself.

use serde::Deserialize;
use serde_json::Value as Json;

use crate::update::UpdateError;
use crate::update::create_index::{CreateIndexDefinition, IndexParts, PLANNING};
use crate::update::reach::within_reach;
use crate::update::scan::{self, Kind, Token};
use crate::update::sql::{Sql, SqlError, System, Value};

/// An index as the catalogue tells it.
#[derive(Debug, Deserialize)]
pub(super) struct Shape {
    method: String,
    unique: bool,
    /// Its columns with those that are only included.
    columns: usize,
    nulls_equal: bool,
    condition: Option<String>,
    keys: Vec<Key>,
}

/// A column of an index.
#[derive(Debug, Deserialize)]
struct Key {
    expression: String,
    /// The sum of 1 for descending and 2 for NULLs first (`indoption`).
    options: i64,
    class: String,
    class_schema: String,
    /// True where the operator class is its type's default.
    default_class: bool,
}

const DESCENDING: i64 = 1;
const NULLS_FIRST: i64 = 2;

/// A part of an index's list as somebody wrote it: `expression [COLLATE …] [class] [ASC | DESC] [NULLS FIRST | LAST]`.
#[derive(Debug, PartialEq, Eq)]
struct Part<'a> {
    expression: &'a str,
    collation: Option<&'a str>,
    class: Vec<String>,
    options: i64,
}

/// The part that a text is.
fn part(text: &str) -> Part<'_> {
    let code = scan::code(text, System::Postgres);
    let between = |from: usize, to: usize| match (code.get(from), to.checked_sub(1).and_then(|last| code.get(last))) {
        (Some(first), Some(last)) if to > from => &text[first.start..last.end()],
        _ => "",
    };
    let is = |at: usize, word: &str| code.get(at).is_some_and(|token| token.is(word));
    let mut end = name_end(&code, 0);
    if code.get(end).is_some_and(|token| token.is_symbol("(")) {
        end = closing(&code, end) + 1;
    }
    let expression = between(0, end);
    let mut collation = None;
    if is(end, "collate") {
        let last = name_end(&code, end + 1);
        collation = Some(between(end + 1, last));
        end = last;
    }
    let mut class = Vec::new();
    if code.get(end).is_some_and(is_name) && !["asc", "desc", "nulls"].iter().any(|word| is(end, word)) {
        let last = name_end(&code, end);
        class = code[end..last].iter().filter_map(|token| token.name(System::Postgres)).collect();
        end = last;
    }
    let mut options = 0;
    if is(end, "asc") || is(end, "desc") {
        // NULLs come first in the reverse order, unless something else is said.
        options = if is(end, "desc") { DESCENDING | NULLS_FIRST } else { 0 };
        end += 1;
    }
    if is(end, "nulls") {
        options = (options & DESCENDING) | if is(end + 1, "first") { NULLS_FIRST } else { 0 };
    }
    Part { expression, collation, class, options }
}

fn is_name(token: &Token<'_>) -> bool {
    matches!(token.kind, Kind::Word | Kind::Quoted)
}

/// Where a name that begins at `start`, with dots in it perhaps, has ended.
fn name_end(code: &[Token<'_>], start: usize) -> usize {
    let mut end = start;
    while code.get(end).is_some_and(is_name) {
        end += 1;
        if !code.get(end).is_some_and(|token| token.is_symbol(".")) {
            break;
        }
        end += 1;
    }
    end
}

/// Where the parenthesis that opens at `start` closes.
fn closing(code: &[Token<'_>], start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in code.iter().enumerate().skip(start) {
        if token.is_symbol("(") {
            depth += 1;
        } else if token.is_symbol(")") {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return at;
            }
        }
    }
    code.len().saturating_sub(1)
}

/// The parts of an index's list in a statement that makes it, as PostgreSQL writes one.
fn parts_of(definition: &str) -> Vec<&str> {
    let code = scan::code(definition, System::Postgres);
    let Some(open) = code.iter().position(|token| token.is("using")).map(|using| using + 2) else { return Vec::new() };
    let close = closing(&code, open);
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, open + 1);
    for at in open + 1..=close {
        let Some(token) = code.get(at) else { break };
        if depth == 0 && (token.is_symbol(",") || at == close) {
            if let (Some(first), Some(last)) = (code.get(start), code.get(at - 1)) {
                parts.push(&definition[first.start..last.end()]);
            }
            start = at + 1;
        } else if token.is_symbol("(") {
            depth += 1;
        } else if token.is_symbol(")") {
            depth = depth.saturating_sub(1);
        }
    }
    parts
}

impl CreateIndexDefinition {
    /// The parts of its list, as texts.
    fn texts(&self, sql: &mut dyn Sql) -> Vec<String> {
        match &self.parts {
            IndexParts::Columns(names) => names.iter().map(|name| sql.dialect().quote(name)).collect(),
            IndexParts::Expressions(expressions) => expressions.clone(),
        }
    }
}

/// The expressions and the condition of the index wanted, in PostgreSQL's words.
///
/// # Errors
/// What PostgreSQL says of a name that is not there.
pub(super) async fn written(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<Vec<String>, UpdateError> {
    within_reach!(PLANNING, sql, words(sql, wanted))
}

async fn words(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<Vec<String>, UpdateError> {
    let texts = wanted.texts(sql);
    let expressions: Vec<&str> = texts.iter().map(|text| part(text).expression).collect();
    planned(sql, wanted, &expressions, wanted.filter.as_deref()).await
}

/// True where an index is the one wanted.
pub(super) async fn is_wanted(
    sql: &mut dyn Sql,
    wanted: &CreateIndexDefinition,
    found: &Shape,
    definition: &str,
) -> Result<bool, UpdateError> {
    within_reach!(PLANNING, sql, compare(sql, wanted, found, definition))
}

async fn compare(
    sql: &mut dyn Sql,
    wanted: &CreateIndexDefinition,
    found: &Shape,
    definition: &str,
) -> Result<bool, UpdateError> {
    let texts = wanted.texts(sql);
    let parts: Vec<Part<'_>> = texts.iter().map(|text| part(text)).collect();
    let there: Vec<Part<'_>> = parts_of(definition).into_iter().map(part).collect();
    let plain = found.method == "btree" && !found.nulls_equal && found.columns == found.keys.len();
    let alike = plain
        && found.unique == wanted.unique
        && found.condition.is_some() == wanted.filter.is_some()
        && [parts.len(), there.len()] == [found.keys.len(); 2]
        && parts.iter().zip(&found.keys).all(|(part, key)| part.options == key.options && key.has_class(&part.class));
    if !alike {
        return Ok(false);
    }
    let expressions: Vec<&str> = found.keys.iter().map(|key| key.expression.as_str()).collect();
    if words(sql, wanted).await? != planned(sql, wanted, &expressions, found.condition.as_deref()).await? {
        return Ok(false);
    }
    for (part, there) in parts.iter().zip(&there) {
        if part.collation != there.collation
            && collation(sql, wanted, part).await? != collation(sql, wanted, there).await?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Key {
    /// True where its operator class is the one named, or the default where none is.
    fn has_class(&self, named: &[String]) -> bool {
        match named {
            [] => self.default_class,
            [class] => *class == self.class,
            [.., schema, class] => *class == self.class && *schema == self.class_schema,
        }
    }
}

/// What a SELECT of these expressions gives, in PostgreSQL's words.
async fn planned(
    sql: &mut dyn Sql,
    wanted: &CreateIndexDefinition,
    expressions: &[&str],
    condition: Option<&str>,
) -> Result<Vec<String>, UpdateError> {
    let table = sql.dialect().table(&wanted.table);
    let listed: Vec<String> = expressions.iter().copied().chain(condition).map(|one| format!("({one}\n)")).collect();
    let statement = format!("EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) SELECT {} FROM ONLY {table}", listed.join(", "));
    let rows = sql.query(&statement, &[]).await?;
    let text = rows.first().and_then(|row| row.first()).and_then(Value::as_text).unwrap_or_default();
    let json: Json =
        serde_json::from_str(text).map_err(|error| SqlError::permanent(format!("the plan is no JSON: {error}")))?;
    let output = json[0]["Plan"]["Output"].as_array().cloned().unwrap_or_default();
    Ok(output.iter().map(|one| one.as_str().unwrap_or_default().to_owned()).collect())
}

/// The collation by which a part is ordered. It is derived from the types alone: the row that is asked has none but NULLs.
async fn collation(
    sql: &mut dyn Sql,
    wanted: &CreateIndexDefinition,
    part: &Part<'_>,
) -> Result<Option<String>, UpdateError> {
    let table = sql.dialect().table(&wanted.table);
    let with = part.collation.map(|name| format!(" COLLATE {name}")).unwrap_or_default();
    let statement = format!(
        "SELECT pg_collation_for(({}\n){with}) FROM (SELECT 1) AS tidegate_one LEFT JOIN {table} ON false",
        part.expression
    );
    let rows = sql.query(&statement, &[]).await?;
    Ok(rows.first().and_then(|row| row.first()).and_then(Value::as_text).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_split_where_its_expression_ends() {
        let cases = [
            ("a", "a", None, &[][..], 0),
            ("\"A b\" DESC", "\"A b\"", None, &[], 3),
            ("lower(a) text_pattern_ops", "lower(a)", None, &["text_pattern_ops"], 0),
            ("s.f(a, (b)) COLLATE \"C\" DESC NULLS LAST", "s.f(a, (b))", Some("\"C\""), &[], 1),
            (
                "(a || ')' || b) collate pg_catalog.\"C\" pg_catalog.text_ops",
                "(a || ')' || b)",
                Some("pg_catalog.\"C\""),
                &["pg_catalog", "text_ops"],
                0,
            ),
            ("a nulls first", "a", None, &[], 2),
            ("a asc nulls last", "a", None, &[], 0),
            ("a -- , (\n desc", "a", None, &[], 3),
            ("f(\n)", "f(\n)", None, &[], 0),
        ];
        for (text, expression, collation, class, options) in cases {
            let class = class.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(part(text), Part { expression, collation, class, options }, "{text}");
        }
    }

    #[test]
    fn the_parts_of_a_definition_are_told_apart() {
        let definition = "CREATE UNIQUE INDEX \"using x\" ON s.\"a (b\" USING btree (a, f(b, ','), ((c || ')'::text)) DESC) \
                          WHERE (d > 1)";
        assert_eq!(parts_of(definition), ["a", "f(b, ',')", "((c || ')'::text)) DESC"]);
        assert_eq!(parts_of("nothing of the kind"), [""; 0]);
    }
}
