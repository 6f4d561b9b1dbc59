//! The definition that stands in a walk's progress, and how another one is told from it.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use crate::update::explain::one_line;
use crate::update::names::Names;
use crate::update::reach::{OnSkip, Reach};
use crate::update::scan::{self, Kind};
use crate::update::sql::{System, Table};
use crate::update::verify::VERIFY;
use crate::update::{Progress, UpdateError};

/// The characters of a text that stand in the progress as they are; of a longer one its digest does, since the progress is
/// written anew with each batch.
const LONGEST: usize = 200;

/// A definition as it is written down.
pub(super) fn written(definition: &BTreeMap<String, String>, reach: Reach) -> BTreeMap<String, String> {
    let parts = definition.iter().map(|(name, text)| (name.clone(), shortened(text)));
    let said = [
        ("only", reach.only.then_some("true")),
        ("row_security", reach.row_security.then_some("true")),
        ("on_skip", (reach.on_skip == OnSkip::Ignore).then_some("ignore")),
    ];
    parts.chain(said.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.to_owned())))).collect()
}

/// The digest of a definition, given as texts.
pub(in crate::update) fn digest<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut digest = Sha256::new();
    for text in texts {
        // With its length, so that no two lists of texts are one.
        digest.update(text.len().to_le_bytes());
        digest.update(text.as_bytes());
    }
    digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn shortened(text: &str) -> String {
    let length = text.chars().count();
    if length <= LONGEST {
        return text.to_owned();
    }
    let digest = Sha256::digest(text.as_bytes());
    let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let beginning: String = one_line(text).chars().take(60).collect();
    format!("{beginning}… ({length} characters, SHA-256 {digest}…)")
}

/// The types of the columns that a definition's texts name.
pub(super) fn columns(
    definition: &BTreeMap<String, String>,
    system: System,
    table: &Table,
) -> BTreeMap<String, String> {
    let names = Names(system);
    let mut found = BTreeMap::new();
    for text in definition.values() {
        let code = scan::code(text, system);
        for token in code.iter().filter(|token| matches!(token.kind, Kind::Word | Kind::Quoted)) {
            let named = token.name(system).and_then(|name| names.column(table, &name));
            found.extend(named.map(|column| (column.name.clone(), column.sql_type.clone())));
        }
    }
    found
}

/// Refuses a definition in which anything is not as it was.
pub(super) fn same(
    was: &BTreeMap<String, String>,
    is: &BTreeMap<String, String>,
    what: &str,
) -> Result<(), UpdateError> {
    let names = was.keys().chain(is.keys().filter(|name| !was.contains_key(*name)));
    let quoted = |text: &String| format!("\"{}\"", one_line(text));
    let changes: Vec<String> = names
        .filter_map(|name| match (was.get(name), is.get(name)) {
            (Some(was), Some(is)) if was == is => None,
            (was, is) => {
                let told = |text: Option<&String>| text.map_or_else(|| "left out".to_owned(), quoted);
                Some(format!("{what}{name} was {} and is {}", told(was), told(is)))
            }
        })
        .collect();
    if changes.is_empty() { Ok(()) } else { Err(UpdateError::Redefined { changes: changes.join("; ") }) }
}

/// The progress with which an update goes on under another definition than it began with; `None` where it holds no
/// definition.
pub fn accept_definition(progress: &Progress) -> Option<Progress> {
    let mut accepted = progress.clone();
    // A look at the rows that are done is a walk as well, within what it has seen.
    let members = match accepted.0.get_mut(VERIFY) {
        Some(looking) => looking.get_mut("walk")?.as_object_mut()?,
        None => &mut accepted.0,
    };
    let walk = members.get_mut("walk").and_then(Json::as_object_mut)?;
    let definition = walk.remove("definition");
    let columns = walk.remove("columns");
    (definition.is_some() || columns.is_some()).then_some(accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_what_was_and_what_is() {
        let map = |parts: &[(&str, &str)]| {
            parts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let error = same(&map(&[("set", "a = 1"), ("where", "b")]), &map(&[("only", "true"), ("set", "a = 2")]), "");
        assert_eq!(
            error,
            Err(UpdateError::Redefined {
                changes: "set was \"a = 1\" and is \"a = 2\"; where was \"b\" and is left out; only was left out and is \"true\""
                    .to_owned()
            })
        );
        assert_eq!(same(&map(&[("set", "a")]), &map(&[("set", "a")]), ""), Ok(()));
    }

    #[test]
    fn long_texts_that_differ_at_their_end_are_not_the_same() {
        let long = "x".repeat(300);
        assert_ne!(shortened(&format!("{long}a")), shortened(&format!("{long}b")));
        assert!(shortened(&long).chars().count() < LONGEST);
    }
}
