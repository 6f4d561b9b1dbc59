//! An index on SQLite, and the comparison with one that is there already.

use super::CreateIndexDefinition;
use crate::update::UpdateError;
use crate::update::sql::{Dialect, Sql, Value};

/// Builds the index, unless it is there.
pub(super) async fn build(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<(), UpdateError> {
    let statement = statement(&*sql.dialect(), wanted);
    match find(sql, wanted).await? {
        None => {
            sql.execute(&statement, &[]).await?;
            Ok(())
        }
        Some(found) if found.same => Ok(()),
        Some(found) => Err(wanted.differs(&found.definition, &statement)),
    }
}

/// The statement that makes the index. SQLite takes the schema with the index's name and forbids it with the table's.
pub(super) fn statement(dialect: &dyn Dialect, wanted: &CreateIndexDefinition) -> String {
    let (name, table) = (dialect.quote(&wanted.index), dialect.quote(&wanted.table.name));
    format!("{} {}{}", wanted.head(), schema(dialect, wanted), wanted.tail(dialect, &name, &table))
}

/// An index as it was found.
pub(super) struct Found {
    /// True where it is the one wanted.
    pub(super) same: bool,
    pub(super) definition: String,
}

/// Finds the index by its name, among those of any table.
pub(super) async fn find(sql: &mut dyn Sql, wanted: &CreateIndexDefinition) -> Result<Option<Found>, UpdateError> {
    let dialect = sql.dialect();
    let schema = schema(&*dialect, wanted);
    let question = format!("SELECT sql FROM {schema}sqlite_master WHERE type = 'index' AND name = ?1 COLLATE NOCASE");
    let rows = sql.query(&question, &[Value::from(wanted.index.as_str())]).await?;
    let Some(row) = rows.into_iter().next() else { return Ok(None) };
    let (name, table) = (dialect.quote(&wanted.index), dialect.quote(&wanted.table.name));
    // SQLite stores a statement without the schema.
    let stored = format!("{} {}", wanted.head(), wanted.tail(&*dialect, &name, &table));
    Ok(Some(match row.into_iter().next() {
        Some(Value::Text(definition)) => Found { same: tokens(&definition) == tokens(&stored), definition },
        _ => Found { same: false, definition: "one that the table's own definition makes".to_owned() },
    }))
}

fn schema(dialect: &dyn Dialect, wanted: &CreateIndexDefinition) -> String {
    wanted.table.schema.as_ref().map(|schema| format!("{}.", dialect.quote(schema))).unwrap_or_default()
}

/// The words of a statement, so that two texts can be compared: SQLite keeps a definition as it was typed. Spaces,
/// comments, the quotes around names and the case of letters outside literals are left out; so are parentheses around
/// the whole condition. Texts that agree mean the same; some that mean the same do not agree, and those count as
/// different.
fn tokens(sql: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = token_length(rest, first);
        let (token, remainder) = rest.split_at(length);
        rest = remainder;
        match first {
            _ if first.is_whitespace() || token.starts_with("--") || token.starts_with("/*") => {}
            '"' | '`' => tokens.push(unquoted(token, first)),
            '[' => tokens.push(token.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()),
            '\'' => tokens.push(token.to_owned()),
            _ => tokens.push(token.to_ascii_lowercase()),
        }
    }
    without_outer_parentheses(tokens)
}

/// The bytes of the token that `rest` begins with; `first` is its first character.
fn token_length(rest: &str, first: char) -> usize {
    let until = |end: &str| rest.find(end).map_or(rest.len(), |at| at + end.len());
    match first {
        '"' | '`' | '\'' => quoted_length(rest, first),
        '[' => until("]"),
        '-' if rest.starts_with("--") => until("\n"),
        '/' if rest.starts_with("/*") => until("*/"),
        _ if is_word(first) => rest.find(|c: char| !is_word(c)).unwrap_or(rest.len()),
        _ => first.len_utf8(),
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// The bytes of a quoted token: a quote that is doubled does not end it.
fn quoted_length(rest: &str, quote: char) -> usize {
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        if c == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return at + c.len_utf8();
        }
    }
    rest.len()
}

fn unquoted(token: &str, quote: char) -> String {
    let inner = token.strip_prefix(quote).unwrap_or(token);
    let inner = inner.strip_suffix(quote).unwrap_or(inner);
    inner.replace(&format!("{quote}{quote}"), &quote.to_string()).to_ascii_lowercase()
}

/// Takes off the parentheses that hold all that follows WHERE.
fn without_outer_parentheses(mut tokens: Vec<String>) -> Vec<String> {
    while let Some(start) = tokens.iter().position(|token| token == "where").map(|at| at + 1) {
        if tokens.get(start).is_none_or(|token| token != "(") || closing(&tokens, start) != Some(tokens.len() - 1) {
            break;
        }
        tokens.pop();
        tokens.remove(start);
    }
    tokens
}

/// Where the parenthesis that opens at `start` closes.
fn closing(tokens: &[String], start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.as_str() {
            "(" => depth += 1,
            ")" if depth == 1 => return Some(at),
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}
