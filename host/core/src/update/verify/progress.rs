//! The progress of a look at rows that are done.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::VERIFY;
use crate::update::{Progress, UpdateError};

/// The progress of an update that begins by verifying at its rows, and repairs those that are wrong where that is said.
pub fn verification(repair: bool) -> Progress {
    Verifying { repair, ..Verifying::default() }.into_progress()
}

/// True where a progress says that rows are looked at, and not that they are done.
pub fn is_verification(progress: &Progress) -> bool {
    progress.0.contains_key(VERIFY)
}

/// Rows that a look has counted as skipped so far, and all that it has looked at.
pub(in crate::update) fn skipped_of_looked(progress: &Progress) -> Option<(u64, u64)> {
    let verifying = progress.0.get(VERIFY)?;
    let number = |member: &str| verifying.get(member).and_then(Json::as_u64).unwrap_or(0);
    Some((number("skipped"), number("looked")))
}

/// How far a look at the rows has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Verifying {
    /// The progress of the walk that looks.
    pub(super) walk: Map<String, Json>,
    /// Rows that were looked at.
    pub(super) looked: u64,
    /// Those of them that were wrong.
    pub(super) wrong: u64,
    /// Others that were, and that the update has skipped.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) skipped: u64,
    /// The keys of the first of those that were wrong.
    pub(super) keys: Vec<Vec<String>>,
    /// True where rows that are wrong are done again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) repair: bool,
    /// Rows that were done again.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) repaired: u64,
    /// True once all were looked at.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) ended: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Verifying {
    /// What a progress says of it; `None` for one of the update's own work.
    pub(super) fn of(progress: &Progress) -> Result<Option<Self>, UpdateError> {
        let Some(verifying) = progress.0.get(VERIFY) else { return Ok(None) };
        if progress.0.len() > 1 {
            return Err(progress.refuse_shape("\"verify\" stands alone in a progress"));
        }
        serde_json::from_value(verifying.clone()).map(Some).map_err(|error| progress.refuse_shape(error))
    }

    pub(super) fn into_progress(self) -> Progress {
        // A struct of texts and numbers is an object: there is nothing to fail.
        let verifying = serde_json::to_value(self).unwrap_or_default();
        Progress(Map::from_iter([(VERIFY.to_owned(), verifying)]))
    }

    pub(super) fn place(&self) -> Progress {
        Progress(self.walk.clone())
    }
}
