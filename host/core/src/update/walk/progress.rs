//! A walk's progress: how far it has come, and which walk it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Walk, pin};
use crate::update::sql::Column;
use crate::update::{Progress, UpdateError};

/// How far a walk has come, as its progress says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// The last key done. Empty where what is left is cut into ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) after: Vec<String>,
    pub(super) items: u64,
    /// Rows that were to be written and could not be, by a conflict or a trigger, where that is no error.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) left_out: u64,
    /// `None` in progress of version 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) walk: Option<Course>,
    /// What is left, where it is cut into ranges for several workers: two or more, in the key's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ranges: Vec<Span>,
}

/// A part of a walk: the keys behind one key, up to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Span {
    /// Where it began, exclusive.
    pub(super) from: Vec<String>,
    /// The last key done.
    pub(super) after: Vec<String>,
    /// Its last key.
    pub(super) to: Vec<String>,
}

/// Where the parts of a walk lie that several workers do at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shared {
    /// Where the first of them began, exclusive.
    pub(super) from: Vec<String>,
    /// The last key of the last.
    pub(super) to: Vec<String>,
    /// Where the one began that this progress is of, exclusive; none in the progress of all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) own: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a walk is, fixed by its first batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Course {
    pub(super) table: String,
    pub(super) key: Vec<String>,
    /// The types of all columns that order the walk: those of `key`, and those that make it unique. A stored key is text
    /// that a cast turns into a key again: with another type it may mean another place.
    pub(super) types: Vec<String>,
    /// By what each of these is ordered, where that is not by its type alone: the place of a key among others depends on it.
    /// Empty in progress that earlier builds wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) collations: Vec<Option<String>>,
    /// The last key that was there when the walk began.
    pub(super) end: Vec<String>,
    /// The definition that the walk began with, long texts as their digests. Empty where none was written down, or another
    /// one was accepted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) definition: BTreeMap<String, String>,
    /// The types of the columns that the definition names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) columns: BTreeMap<String, String>,
    /// Set where this is a part of the walk, or is in several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) shared: Option<Shared>,
}

impl Position {
    /// What is left of the walk, with the last key of each: the one range of it, or the parts into which it is cut. None for
    /// progress that says nothing of an end.
    pub(super) fn left(&self) -> Vec<(&[String], &[String])> {
        match (&self.walk, self.ranges.as_slice()) {
            (Some(course), []) => vec![(self.after.as_slice(), course.end.as_slice())],
            (_, ranges) => ranges.iter().map(|span| (span.after.as_slice(), span.to.as_slice())).collect(),
        }
    }

    pub(super) fn into_progress(self) -> Progress {
        match serde_json::to_value(self) {
            Ok(Json::Object(members)) => Progress(members),
            // A struct of texts and numbers is an object: there is nothing to fail.
            _ => Progress::default(),
        }
    }
}

impl Course {
    /// Refuses a key whose columns are of other types, or in another order, than when the walk began.
    pub(super) fn must_have(&self, key: &[Column]) -> Result<(), UpdateError> {
        let changed = key.iter().zip(&self.types).find(|(column, was)| column.sql_type != **was);
        if let Some((column, was)) = changed {
            return Err(UpdateError::Failed(format!(
                "the type of key column \"{}\" changed from {was} to {} during the walk, and the place of the walk may mean \
                 another row now: cancel the update and queue it again to begin anew",
                column.name, column.sql_type
            )));
        }
        let reordered = key.iter().zip(&self.collations).find(|(column, was)| column.collation != **was);
        if let Some((column, was)) = reordered {
            let told = |collation: &Option<String>| collation.clone().unwrap_or_else(|| "none".to_owned());
            return Err(UpdateError::Failed(format!(
                "the collation of key column \"{}\" changed from {} to {} during the walk, and rows that it has yet to do may \
                 stand before its place now: cancel the update and queue it again to begin anew",
                column.name,
                told(was),
                told(&column.collation)
            )));
        }
        if key.len() != self.types.len() {
            return Err(UpdateError::Failed(format!(
                "the indexes of table \"{}\" changed during the walk, and another column makes its key unique now: cancel the \
                 update and queue it again to begin anew",
                self.table
            )));
        }
        Ok(())
    }
}

/// The collations of a key's columns, for the progress; empty where there are none.
pub(super) fn collations(key: &[Column]) -> Vec<Option<String>> {
    match key.iter().any(|column| column.collation.is_some()) {
        true => key.iter().map(|column| column.collation.clone()).collect(),
        false => Vec::new(),
    }
}

impl Walk {
    /// The definition as it is written down.
    pub(super) fn pinned(&self) -> BTreeMap<String, String> {
        pin::written(&self.definition, self.reach)
    }

    /// The digest of the definition.
    pub(in crate::update) fn digest(&self) -> String {
        let reach = format!("{:?}", pin::written(&BTreeMap::new(), self.reach));
        let table = self.table.to_string();
        let parts = self.definition.iter().flat_map(|(name, text)| [name.as_str(), text.as_str()]);
        let key = self.key.iter().map(String::as_str);
        pin::digest([table.as_str()].into_iter().chain(key).chain(parts).chain([reach.as_str()]))
    }

    pub(super) fn position(&self, progress: &Progress) -> Result<Option<Position>, UpdateError> {
        if progress.0.is_empty() {
            return Ok(None);
        }
        let position: Position =
            serde_json::from_value(Json::Object(progress.0.clone())).map_err(|error| progress.refuse_shape(error))?;
        if let Some(course) = &position.walk {
            self.must_be(course).map_err(|problem| progress.refuse(problem))?;
            if !course.definition.is_empty() {
                pin::same(&course.definition, &self.pinned(), "")?;
            }
        }
        let (found, wanted) = (position.after.len(), self.key.len());
        if position.ranges.is_empty() {
            let fits = match &position.walk {
                Some(course) => {
                    [position.after.len(), course.types.len()].iter().all(|parts| *parts <= course.end.len())
                }
                None => found == wanted,
            };
            if !fits || found < wanted {
                return Err(progress.refuse(format!("\"after\" has {found} parts, and the key has {wanted}")));
            }
            return Ok(Some(position));
        }
        let columns = position.walk.as_ref().map_or(0, |course| course.types.len());
        let is_key = |key: &[String]| (wanted..=columns).contains(&key.len());
        let is_whole = |span: &Span| is_key(&span.from) && is_key(&span.after) && span.to.len() == columns;
        if found > 0 || position.ranges.len() < 2 || !position.ranges.iter().all(is_whole) {
            return Err(
                progress.refuse(format!("its \"ranges\" are not parts of a walk along a key of {columns} columns"))
            );
        }
        Ok(Some(position))
    }

    /// Refuses the progress of a walk over another table or along another key: its place means nothing in this one.
    fn must_be(&self, course: &Course) -> Result<(), String> {
        if course.table == self.table.to_string() && course.key == self.key {
            return Ok(());
        }
        Err(format!(
            "it belongs to a walk over table \"{}\" along the key ({}), and the definition says table \"{}\" and key \
             ({}): put the definition back, or cancel the update and queue it again to begin anew",
            course.table,
            course.key.join(", "),
            self.table,
            self.key.join(", ")
        ))
    }
}
