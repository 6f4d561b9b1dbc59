//! Which update is next: how the rows of the queue stand, a pure function of the queue and of what is defined, and what
//! changes in that while they are worked through.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::database::{Failure, QueueRow};
use super::lanes::Lanes;
use crate::update::approval::{AWAITING, awaits_approval};

/// Whether a row of the queue can run, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is in its way but its turn.
    Ready,
    /// It waits for another row.
    DependsOn(String),
    /// It waits for rows that another has skipped: so many keys.
    Skipped(String, u64),
    /// It waits for itself, by way of these rows, itself the first.
    Cycle(Vec<String>),
    /// Nobody has a definition for it.
    Undefined,
    /// It failed too often.
    Quarantined,
    /// It has stopped for somebody to approve of it; why, in words.
    AwaitsApproval(String),
    /// What stands in the row cannot be read; why, in words.
    Unreadable(String),
}

impl Standing {
    /// Why a row does not run, in words; `None` where nothing is in its way.
    pub fn explain(&self, row: &QueueRow) -> Option<String> {
        Some(match self {
            Standing::Ready => return None,
            Standing::DependsOn(other) => format!("waits for {other}"),
            Standing::Skipped(other, keys) => waits_for_skipped(other, *keys),
            Standing::Cycle(way) => {
                let first = way.first().cloned().unwrap_or_default();
                format!("in a dependency cycle: {} -> {first}", way.join(" -> "))
            }
            Standing::Undefined => "no definition".to_owned(),
            Standing::Unreadable(problem) => problem.clone(),
            Standing::AwaitsApproval(reason) => format!("{AWAITING}: {reason}"),
            Standing::Quarantined => match &row.failure {
                Some(Failure { attempts: 1, error, .. }) => format!("quarantined after 1 attempt: {error}"),
                Some(Failure { attempts, error, .. }) => format!("quarantined after {attempts} attempts: {error}"),
                None => "quarantined".to_owned(),
            },
        })
    }
}

/// How each row stands, in the rows' order. A row that is ready runs before the ready rows after it.
pub fn assess(rows: &[QueueRow], defined: &dyn Fn(&str) -> bool) -> Vec<Standing> {
    let dependencies: HashMap<&str, &str> =
        rows.iter().filter_map(|row| Some((row.update_name.as_str(), dependency(row)?))).collect();
    let queued: HashSet<&str> = rows.iter().map(|row| row.update_name.as_str()).collect();
    let in_cycles = in_cycles(&dependencies);
    rows.iter()
        .map(|row| {
            if let Some(problem) = &row.problem {
                return Standing::Unreadable(problem.clone());
            }
            if row.failure.as_ref().is_some_and(|failure| failure.quarantined) {
                return Standing::Quarantined;
            }
            if !defined(&row.update_name) {
                return Standing::Undefined;
            }
            if in_cycles.contains(row.update_name.as_str()) {
                return Standing::Cycle(cycle(&row.update_name, &dependencies));
            }
            match dependency(row) {
                Some(other) if queued.contains(other) => Standing::DependsOn(other.to_owned()),
                Some(other) if row.skipped_before > 0 => Standing::Skipped(other.to_owned(), row.skipped_before),
                _ => alone(row),
            }
        })
        .collect()
}

/// How a row stands that nothing else is in the way of.
fn alone(row: &QueueRow) -> Standing {
    awaits_approval(&row.progress).map_or(Standing::Ready, Standing::AwaitsApproval)
}

/// Why an update waits for another that has ended.
fn waits_for_skipped(other: &str, keys: u64) -> String {
    let rows = if keys == 1 { "1 row".to_owned() } else { format!("{keys} rows") };
    format!("waits for {rows} that {other} skipped: `tidegate retry {other} --skipped`, or skipped_ok = true")
}

/// The rows of a queue as they were last read, and how each stands, kept up with what becomes of them since: what ends
/// costs no look at all the others.
#[derive(Debug, Default)]
pub(super) struct Roster {
    /// In the queue's order; `None` where a row is gone.
    rows: Vec<Option<(QueueRow, Standing)>>,
    /// Where each row is that can be worked on.
    places: HashMap<String, usize>,
    /// Who waits for whom.
    waiting: HashMap<String, Vec<usize>>,
    lanes: Arc<Lanes>,
    /// The rows that are ready, by the numbers of their lanes.
    ready: Vec<BTreeSet<usize>>,
    /// What has become of rows while the queue is read anew; `None` while it is not.
    meanwhile: Option<Vec<Change>>,
}

/// What becomes of a row.
#[derive(Debug, Clone)]
enum Change {
    Gone(String, bool),
    MovedOn(String, String),
    Failed(String, Failure),
}

impl Roster {
    pub(super) fn new(rows: Vec<QueueRow>, lanes: Arc<Lanes>, defined: &dyn Fn(&str) -> bool) -> Self {
        let ready = vec![BTreeSet::new(); lanes.names().len()];
        let mut roster = Self { lanes, ready, ..Self::default() };
        let standings = assess(&rows, defined);
        for (place, (row, standing)) in rows.into_iter().zip(standings).enumerate() {
            match &standing {
                Standing::Ready => roster.make_ready(place, &row.update_name),
                Standing::DependsOn(other) => roster.waiting.entry(other.clone()).or_default().push(place),
                _ => {}
            }
            // What is told of a row that cannot be read is not its name, and may be another's.
            if row.problem.is_none() {
                roster.places.insert(row.update_name.clone(), place);
            }
            roster.rows.push(Some((row, standing)));
        }
        roster
    }

    fn make_ready(&mut self, place: usize, update_name: &str) {
        if let Some(ready) = self.ready.get_mut(self.lanes.number_of(update_name)) {
            ready.insert(place);
        }
    }

    /// From now on it is kept in mind what becomes of rows, for [`Roster::renew`].
    pub(super) fn watch(&mut self) {
        self.meanwhile = Some(Vec::new());
    }

    /// Takes in the queue as it was read since [`Roster::watch`]: what has become of rows meanwhile may not be in it.
    pub(super) fn renew(&mut self, rows: Vec<QueueRow>, lanes: Arc<Lanes>, defined: &dyn Fn(&str) -> bool) {
        let meanwhile = self.meanwhile.take().unwrap_or_default();
        *self = Self::new(rows, lanes, defined);
        for change in meanwhile {
            match change {
                Change::Gone(update_name, may_have_skipped) => self.remove(&update_name, may_have_skipped),
                Change::MovedOn(update_name, progress) => self.move_on(&update_name, progress),
                Change::Failed(update_name, failure) => self.fail(&update_name, failure),
            }
        }
    }

    fn keep_in_mind(&mut self, change: impl FnOnce() -> Change) {
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile.push(change());
        }
    }

    /// All rows and how they stand, in the queue's order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&QueueRow, &Standing)> {
        self.rows.iter().flatten().map(|(row, standing)| (row, standing))
    }

    /// The rows of a lane that are ready, in the queue's order.
    pub(super) fn ready(&self, lane: &str) -> impl Iterator<Item = &QueueRow> {
        self.ready_in(lane).into_iter().flatten().filter_map(|place| self.at(*place))
    }

    fn ready_in(&self, lane: &str) -> Option<&BTreeSet<usize>> {
        self.ready.get(self.lanes.number(lane)?)
    }

    /// A row that can be worked on, by its name.
    pub(super) fn get(&self, update_name: &str) -> Option<&QueueRow> {
        self.at(*self.places.get(update_name)?)
    }

    /// The place of a row of a lane that is ready: who comes before whom.
    pub(super) fn place_of_ready(&self, update_name: &str, lane: &str) -> Option<usize> {
        let ready = self.ready_in(lane)?;
        self.places.get(update_name).copied().filter(|place| ready.contains(place))
    }

    /// The row at a place.
    pub(super) fn at(&self, place: usize) -> Option<&QueueRow> {
        self.rows.get(place)?.as_ref().map(|(row, _)| row)
    }

    /// Takes note that a row is gone: who waited for it is ready, unless rows may have been skipped.
    pub(super) fn remove(&mut self, update_name: &str, may_have_skipped: bool) {
        self.keep_in_mind(|| Change::Gone(update_name.to_owned(), may_have_skipped));
        let Some(place) = self.places.remove(update_name) else { return };
        self.ready.iter_mut().for_each(|ready| _ = ready.remove(&place));
        if let Some(row) = self.rows.get_mut(place) {
            *row = None;
        }
        for waiting in self.waiting.remove(update_name).unwrap_or_default() {
            if let Some(Some((row, standing @ Standing::DependsOn(_)))) = self.rows.get_mut(waiting) {
                // What it skipped of late is known once the queue is read again.
                if may_have_skipped && !row.accepts_skipped {
                    continue;
                }
                *standing = alone(row);
                if *standing == Standing::Ready {
                    let name = row.update_name.clone();
                    self.make_ready(waiting, &name);
                }
            }
        }
    }

    /// Takes note of a batch that was committed.
    pub(super) fn move_on(&mut self, update_name: &str, progress: String) {
        self.keep_in_mind(|| Change::MovedOn(update_name.to_owned(), progress.clone()));
        let Some(place) = self.change(update_name, |row| (row.progress, row.failure) = (progress, None)) else {
            return;
        };
        if let Some(Some((row, standing))) = self.rows.get_mut(place)
            && let awaits @ Standing::AwaitsApproval(_) = alone(row)
        {
            *standing = awaits;
            self.ready.iter_mut().for_each(|ready| _ = ready.remove(&place));
        }
    }

    /// Takes note of what others wrote for an update that this one works on as well.
    pub(super) fn keep_up(&mut self, update_name: &str, progress: String) {
        self.change(update_name, |row| row.progress = progress);
    }

    /// Takes note of a failure.
    pub(super) fn fail(&mut self, update_name: &str, failure: Failure) {
        self.keep_in_mind(|| Change::Failed(update_name.to_owned(), failure.clone()));
        let quarantined = failure.quarantined;
        let Some(place) = self.change(update_name, |row| row.failure = Some(failure)) else { return };
        if quarantined && let Some(Some((_, standing))) = self.rows.get_mut(place) {
            *standing = Standing::Quarantined;
            self.ready.iter_mut().for_each(|ready| _ = ready.remove(&place));
        }
    }

    fn change(&mut self, update_name: &str, change: impl FnOnce(&mut QueueRow)) -> Option<usize> {
        let place = *self.places.get(update_name)?;
        change(&mut self.rows.get_mut(place)?.as_mut()?.0);
        Some(place)
    }
}

/// What a row depends on; an empty text counts as nothing.
fn dependency(row: &QueueRow) -> Option<&str> {
    row.depends_on.as_deref().filter(|name| !name.is_empty())
}

/// The rows that depend on the named ones, directly or not, and are not named themselves.
pub fn dependents(rows: &[QueueRow], names: &[String]) -> Vec<String> {
    let mut waiting: HashMap<&str, Vec<&str>> = HashMap::new();
    for row in rows {
        if let Some(other) = dependency(row) {
            waiting.entry(other).or_default().push(&row.update_name);
        }
    }
    let queued: HashSet<&str> = rows.iter().map(|row| row.update_name.as_str()).collect();
    let mut reached: Vec<&str> = names.iter().map(String::as_str).filter(|name| queued.contains(name)).collect();
    let mut seen: HashSet<&str> = reached.iter().copied().collect();
    let mut next = 0;
    while let Some(name) = reached.get(next).copied() {
        let more = waiting.get(name).into_iter().flatten().copied();
        reached.extend(more.filter(|name| seen.insert(name)));
        next += 1;
    }
    let named: HashSet<&str> = names.iter().map(String::as_str).collect();
    reached.into_iter().filter(|name| !named.contains(name)).map(str::to_owned).collect()
}

/// Why updates cannot be queued behind another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// The other is not queued: nothing would be waited for.
    NotQueued,
    /// Each of these would wait for the next, and the last for the first: none would ever run.
    Cycle(Vec<String>),
}

/// Looks whether updates can be queued, each behind another or none, which may be one of them. Those that are queued already
/// stay as they are. With `force` they may also stand behind what is not queued.
///
/// # Errors
/// What cannot be waited for first, and why.
pub fn check_dependencies(
    rows: &[QueueRow],
    wanted: &[(&str, Option<&str>)],
    force: bool,
) -> Result<(), (String, Unfit)> {
    let queued: HashSet<&str> = rows.iter().map(|row| row.update_name.as_str()).collect();
    let new = wanted.iter().filter(|(name, _)| !queued.contains(name));
    let new: Vec<(&str, &str)> = new.filter_map(|(name, depends_on)| Some((*name, (*depends_on)?))).collect();
    let is_there = |name: &str| queued.contains(name) || wanted.iter().any(|(other, _)| *other == name);
    if !force && let Some((_, missing)) = new.iter().find(|(_, depends_on)| !is_there(depends_on)) {
        return Err(((*missing).to_owned(), Unfit::NotQueued));
    }
    let dependencies = rows.iter().filter_map(|row| Some((row.update_name.as_str(), dependency(row)?)));
    let dependencies: HashMap<&str, &str> = dependencies.chain(new.iter().copied()).collect();
    let in_cycles = in_cycles(&dependencies);
    match new.iter().find(|(name, _)| in_cycles.contains(*name)) {
        Some((name, depends_on)) => Err(((*depends_on).to_owned(), Unfit::Cycle(cycle(name, &dependencies)))),
        None => Ok(()),
    }
}

/// The names that are part of a circle. Each row depends on one other at most, so that there is but one way to follow,
/// and every row is passed once.
fn in_cycles<'a>(dependencies: &HashMap<&'a str, &'a str>) -> HashSet<&'a str> {
    let (mut done, mut found) = (HashSet::new(), HashSet::new());
    for start in dependencies.keys().copied() {
        let mut way = Vec::new();
        let mut passed = HashSet::new();
        let mut here = Some(start);
        while let Some(name) = here.filter(|name| !done.contains(name)) {
            if !passed.insert(name) {
                // Here the way comes back to itself: the circle begins where it first passed.
                found.extend(way.iter().skip_while(|passed| **passed != name).copied());
                break;
            }
            way.push(name);
            here = dependencies.get(name).copied();
        }
        done.extend(way);
    }
    found
}

/// The circle that `start` is part of, from there on; of a long one the beginning.
fn cycle(start: &str, dependencies: &HashMap<&str, &str>) -> Vec<String> {
    /// Names that a person still reads.
    const LONGEST: usize = 20;
    let next = |name: &&str| dependencies.get(*name).copied().filter(|next| *next != start);
    let mut way: Vec<String> = std::iter::successors(Some(start), next).take(LONGEST + 1).map(str::to_owned).collect();
    if way.len() > LONGEST {
        way.truncate(LONGEST);
        way.push("\u{2026}".to_owned());
    }
    way
}

#[cfg(test)]
mod tests;
