//! The parts of an update's progress that several workers do at once.
//!
//! What is left of a walk may be cut into ranges, which stand in the one progress of its row beside what they have in common
//! (see `walk.rs`). A [`Part`] is the progress of one of them, as its handler takes it: a walk of its own, which
//! ends with its range. What a batch of it comes to is written into the progress as it stands by then, and only where the part
//! stands there as the batch found it.

use serde_json::{Map, Value as Json};

use super::{Progress, UpdateError};

const AFTER: &str = "after";
const RANGES: &str = "ranges";
const ITEMS: &str = "items";
const LEFT_OUT: &str = "left_out";
const SKIPPED: &str = super::tolerance::SKIPPED;
const WALK: &str = "walk";
const END: &str = "end";
const SHARED: &str = "shared";
const FROM: &str = "from";
const TO: &str = "to";
const OWN: &str = "own";

/// A part of what is left of an update.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The progress that its handler goes on from.
    progress: Progress,
}

/// True where what is left of an update is cut into parts.
pub fn is_cut(progress: &Progress) -> bool {
    progress.0.contains_key(RANGES)
}

/// True where an update has begun a walk that is in one part.
pub fn is_whole(progress: &Progress) -> bool {
    progress.0.contains_key(WALK) && !is_cut(progress)
}

/// True where a progress is that of one part of several.
pub fn is_part(progress: &Progress) -> bool {
    progress.0.get(WALK).is_some_and(|walk| walk.get(SHARED).is_some())
}

/// The parts into which what is left of an update is cut; none where it is in one, or has not begun. Progress that no handler
/// wrote has none either: that is for its handler to refuse.
pub fn parts(progress: &Progress) -> Vec<Part> {
    let ranges = progress.0.get(RANGES).and_then(Json::as_array);
    ranges.map(Vec::as_slice).unwrap_or_default().iter().filter_map(|range| Part::of(progress, range)).collect()
}

impl Part {
    fn of(whole: &Progress, range: &Json) -> Option<Self> {
        let [from, after, to] = [range.get(FROM)?.clone(), range.get(AFTER)?.clone(), range.get(TO)?.clone()];
        let mut members = whole.0.clone();
        members.remove(RANGES);
        members.insert(AFTER.to_owned(), after);
        let walk = members.get_mut(WALK)?.as_object_mut()?;
        walk.insert(END.to_owned(), to);
        walk.get_mut(SHARED)?.as_object_mut()?.insert(OWN.to_owned(), from);
        Some(Self { progress: Progress(members) })
    }

    /// The progress that its handler goes on from.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// What tells it from the others for as long as it is not done: its last key.
    pub fn end(&self) -> &Json {
        end(&self.progress.0)
    }

    /// True where its handler has come to its end with this progress.
    pub fn is_done(&self, progress: &Progress) -> bool {
        progress.0.get(AFTER) == Some(self.end())
    }

    /// True where it stands in a progress as it was found.
    pub fn stands_in(&self, whole: &Progress) -> bool {
        common(&whole.0) == common(&self.progress.0) && self.place_in(whole).is_some()
    }

    /// True where `next`, to which a batch of this part has come, is written in a progress.
    pub fn is_written_in(&self, whole: &Progress, next: &Progress) -> bool {
        let after = Self { progress: next.clone() };
        // One that is done stands there no longer, unless it is the last.
        let is_gone = self.is_done(next) && !self.has_place_in(whole);
        after.stands_in(whole) || is_gone && common(&whole.0) == common(&next.0)
    }

    /// True where a progress has a part with its end.
    fn has_place_in(&self, whole: &Progress) -> bool {
        match whole.0.get(RANGES).and_then(Json::as_array) {
            Some(ranges) => ranges.iter().any(|range| range.get(TO) == Some(self.end())),
            None => end(&whole.0) == self.end(),
        }
    }

    /// Where it stands among the ranges of a progress; `Some(None)` where it is all that is left there.
    fn place_in(&self, whole: &Progress) -> Option<Option<usize>> {
        let after = self.progress.0.get(AFTER);
        let Some(ranges) = whole.0.get(RANGES).and_then(Json::as_array) else {
            let is_all = whole.0.get(AFTER) == after && end(&whole.0) == self.end();
            return is_all.then_some(None);
        };
        let same = |range: &Json| range.get(AFTER) == after && range.get(TO) == Some(self.end());
        ranges.iter().position(same).map(Some)
    }

    /// The progress of the whole, once `next` is written into it to which a batch of this part has come; `None` where the part
    /// does not stand there as the batch found it, by somebody else's doing.
    ///
    /// # Errors
    /// What no part of a walk can come to.
    pub fn written_in(&self, whole: &Progress, next: &Progress) -> Result<Option<Progress>, UpdateError> {
        let agreed = common(&whole.0);
        // What the batch itself changed in it another may have changed before in the same way: the definition of now.
        if agreed != common(&self.progress.0) && agreed != common(&next.0) {
            return Ok(None);
        }
        let Some(place) = self.place_in(whole) else { return Ok(None) };
        let (Some(after), Some(walk)) = (next.0.get(AFTER), next.0.get(WALK).and_then(Json::as_object)) else {
            return Err(next.refuse("a part of a walk ends where it ends, and not the whole of it"));
        };
        let mut written = whole.clone();
        let members = &mut written.0;
        for count in [ITEMS, LEFT_OUT, SKIPPED] {
            let done = number(&next.0, count).saturating_sub(number(&self.progress.0, count));
            let sum = number(members, count).saturating_add(done);
            if sum > 0 || count == ITEMS {
                members.insert(count.to_owned(), sum.into());
            }
        }
        if let Some(whole) = members.get_mut(WALK).and_then(Json::as_object_mut) {
            whole.retain(|name, _| name == END || name == SHARED);
            whole.extend(
                walk.iter().filter(|(name, _)| *name != END && *name != SHARED).map(|(n, v)| (n.clone(), v.clone())),
            );
        }
        match (place, members.get_mut(RANGES).and_then(Json::as_array_mut)) {
            (Some(place), Some(ranges)) => {
                if after == self.end() {
                    ranges.remove(place);
                } else if let Some(range) = ranges.get_mut(place).and_then(Json::as_object_mut) {
                    range.insert(AFTER.to_owned(), after.clone());
                }
                if ranges.len() == 1 {
                    let last = ranges.remove(0);
                    join(members, &last);
                }
            }
            _ => drop(members.insert(AFTER.to_owned(), after.clone())),
        }
        Ok(Some(written))
    }
}

/// Has a progress whose last range is left be of one walk again.
fn join(members: &mut Map<String, Json>, last: &Json) {
    members.remove(RANGES);
    let of = |name: &str| last.get(name).cloned().unwrap_or_default();
    members.insert(AFTER.to_owned(), of(AFTER));
    if let Some(walk) = members.get_mut(WALK).and_then(Json::as_object_mut) {
        walk.insert(END.to_owned(), of(TO));
        walk.remove(SHARED);
    }
}

/// What the progress of all parts has in common.
fn common(members: &Map<String, Json>) -> Map<String, Json> {
    let mut common = members.clone();
    for own in [AFTER, RANGES, ITEMS, LEFT_OUT, SKIPPED] {
        common.remove(own);
    }
    if let Some(walk) = common.get_mut(WALK).and_then(Json::as_object_mut) {
        walk.remove(END);
        walk.remove(SHARED);
    }
    common
}

fn end(members: &Map<String, Json>) -> &Json {
    members.get(WALK).and_then(|walk| walk.get(END)).unwrap_or(&Json::Null)
}

fn number(members: &Map<String, Json>, name: &str) -> u64 {
    members.get(name).and_then(Json::as_u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn progress(json: Json) -> Progress {
        Progress::parse(&json.to_string()).unwrap()
    }

    fn cut() -> Progress {
        progress(json!({
            "items": 10, "state": "delete",
            "ranges": [{"from": ["0"], "after": ["0"], "to": ["5"]}, {"from": ["5"], "after": ["7"], "to": ["9"]}],
            "walk": {"table": "t", "key": ["id"], "end": ["9"], "shared": {"from": ["0"], "to": ["9"]}}
        }))
    }

    /// What a batch of a part comes to.
    fn batch(part: &Part, after: &str, items: u64) -> Progress {
        let mut next = part.progress().clone();
        next.0.insert(AFTER.to_owned(), json!([after]));
        next.0.insert(ITEMS.to_owned(), (number(&next.0, ITEMS) + items).into());
        next
    }

    #[test]
    fn each_part_is_a_walk_of_its_own_and_the_last_one_the_walk() {
        let whole = cut();
        let [first, second] = <[Part; 2]>::try_from(parts(&whole)).unwrap();
        assert_eq!(
            first.progress().to_json(),
            json!({
                "after": ["0"], "items": 10, "state": "delete",
                "walk": {"table": "t", "key": ["id"], "end": ["5"], "shared": {"from": ["0"], "to": ["9"], "own": ["0"]}}
            })
            .to_string()
        );
        // Both go on, one after the other: neither has read what the other writes.
        let once = first.written_in(&whole, &batch(&first, "3", 3)).unwrap().unwrap();
        let twice = second.written_in(&once, &batch(&second, "8", 1)).unwrap().unwrap();
        assert_eq!((number(&twice.0, ITEMS), twice.0[RANGES][0]["after"][0].as_str()), (14, Some("3")));
        // What is written already is not written again.
        assert_eq!(first.written_in(&twice, &batch(&first, "3", 3)).unwrap(), None);
        assert!(!first.stands_in(&twice) && first.stands_in(&whole));
        let [first, second] = <[Part; 2]>::try_from(parts(&twice)).unwrap();
        let last = batch(&second, "9", 1);
        assert!(second.is_done(&last) && !first.is_done(&last));
        assert!(!second.is_written_in(&twice, &last));
        let joined = second.written_in(&twice, &last).unwrap().unwrap();
        assert_eq!(
            joined.to_json(),
            json!({
                "after": ["3"], "items": 15, "state": "delete", "walk": {"table": "t", "key": ["id"], "end": ["5"]}
            })
            .to_string()
        );
        assert!(second.is_written_in(&joined, &last) && !second.stands_in(&joined));
        // Who had the last one in hand meanwhile goes on.
        let joined = first.written_in(&joined, &batch(&first, "5", 2)).unwrap().unwrap();
        assert_eq!((joined.0[AFTER][0].as_str(), number(&joined.0, ITEMS)), (Some("5"), 17));
        assert!(parts(&joined).is_empty() && !is_cut(&joined));
    }

    #[test]
    fn what_somebody_changed_is_noticed() {
        let whole = cut();
        let part = parts(&whole).remove(0);
        let next = batch(&part, "3", 3);
        for changed in [
            json!({}),
            json!({"after": ["0"], "items": 0, "state": "delete", "walk": {"table": "t", "key": ["id"], "end": ["7"]}}),
            json!({"after": ["0"], "items": 0, "state": "delete", "walk": {"table": "u", "key": ["id"], "end": ["5"]}}),
            json!({"state": "validate", "items": 3}),
        ] {
            assert_eq!(part.written_in(&progress(changed.clone()), &next).unwrap(), None, "{changed}");
        }
        assert!(part.written_in(&whole, &Progress::default()).is_err());
    }
}
