//! Where an update stops: for approval, and before it leaves too many rows behind.

use tidegate::update::{Canary, Tolerance};
use toml::Spanned;

use super::raw;
use super::resolve::one_of;
use super::section::{Reader, Section};

/// After how many rows an update stops for approval.
pub(super) fn canary(reader: &mut Reader<'_>, value: Option<&Spanned<raw::NumberOrText>>) -> Option<Canary> {
    let value = value?;
    match value.get_ref().0.parse() {
        Ok(canary) => Some(canary),
        Err(wrong) => {
            reader.error(reader.at(value), format!("\"canary\": {wrong}"), None);
            None
        }
    }
}

/// How many rows may be left behind; `Some(None)` where none may.
pub(super) fn tolerance(reader: &mut Reader<'_>, section: &Section<raw::Update>) -> Option<Option<Tolerance>> {
    let raw = &section.values;
    let skips = match &raw.on_error {
        Some(word) => one_of(reader, "on_error", word, &["stop", "skip"])? == "skip",
        None => false,
    };
    let Some(most) = &raw.max_skipped else { return Some(skips.then(Tolerance::default)) };
    if !skips {
        let hint = "say on_error = \"skip\", or leave \"max_skipped\" out".to_owned();
        reader.error(reader.at(most), "\"max_skipped\" is for updates that skip rows, and this one stops", Some(hint));
        return None;
    }
    let tolerance = match most.get_ref() {
        toml::Value::Integer(rows) => u64::try_from(*rows).ok().map(Tolerance::Rows),
        toml::Value::String(part) => percentage(part).map(Tolerance::Part),
        _ => None,
    };
    if tolerance.is_none() {
        let hint = "write a number of rows, as 500, or a part of those walked, as \"0.5%\"".to_owned();
        reader.error(reader.at(most), "\"max_skipped\" is neither a number of rows nor a part of them", Some(hint));
    }
    tolerance.map(Some)
}

/// The part that a text such as "1%" says, in millionths.
fn percentage(text: &str) -> Option<u32> {
    let number: f64 = text.trim().strip_suffix('%')?.trim().parse().ok()?;
    (0.0..=100.0).contains(&number).then_some((number * 10_000.0).round() as u32)
}
