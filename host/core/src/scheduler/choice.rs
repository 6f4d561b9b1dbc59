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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(name: &str, depends_on: &str) -> QueueRow {
        QueueRow { update_name: name.to_owned(), depends_on: Some(depends_on.to_owned()), ..QueueRow::default() }
    }

    fn quarantined(mut row: QueueRow) -> QueueRow {
        row.failure = Some(Failure { attempts: 5, error: "no".to_owned(), code: None, at_ms: 0, quarantined: true });
        row
    }

    #[test]
    fn each_row_stands_for_itself() {
        let rows = [
            row("a", ""),
            row("b", "a"),
            row("gone", "finished long ago"),
            row("x", "y"),
            row("y", "z"),
            row("z", "x"),
            row("behind the circle", "x"),
            row("itself", "itself"),
            row("unknown", ""),
            quarantined(row("bad", "")),
            row("after the bad one", "bad"),
            QueueRow { progress: r#"{"approval": {"awaited": {"reason": "look"}}}"#.to_owned(), ..row("stopped", "") },
            QueueRow { progress: r#"{"approval": "given"}"#.to_owned(), ..row("approved", "") },
            QueueRow { problem: Some("its name is no text".to_owned()), ..row("x'ff'", "") },
        ];
        let cycle = |names: &[&str]| Standing::Cycle(names.iter().map(|&name| name.to_owned()).collect());
        let after = |name: &str| Standing::DependsOn(name.to_owned());
        assert_eq!(
            assess(&rows, &|name| name != "unknown"),
            [
                Standing::Ready,
                after("a"),
                Standing::Ready,
                cycle(&["x", "y", "z"]),
                cycle(&["y", "z", "x"]),
                cycle(&["z", "x", "y"]),
                after("x"),
                cycle(&["itself"]),
                Standing::Undefined,
                Standing::Quarantined,
                after("bad"),
                Standing::AwaitsApproval("look".to_owned()),
                Standing::Ready,
                Standing::Unreadable("its name is no text".to_owned()),
            ]
        );
    }

    #[test]
    fn what_would_wait_for_nothing_or_for_itself_is_not_queued() {
        let rows = [row("a", ""), row("b", "c")];
        let cycle = |names: &[&str]| Err(Unfit::Cycle(names.iter().map(|&name| name.to_owned()).collect()));
        let check = |names: &[&str], depends_on: &str, force: bool| {
            let wanted: Vec<_> = names.iter().map(|name| (*name, Some(depends_on))).collect();
            check_dependencies(&rows, &wanted, force).map_err(|(behind, why)| {
                assert_eq!(behind, depends_on);
                why
            })
        };
        assert_eq!(check(&["new"], "a", false), Ok(()));
        assert_eq!(check(&["new"], "gone", false), Err(Unfit::NotQueued));
        assert_eq!(check(&["new"], "gone", true), Ok(()));
        assert_eq!(check(&["new"], "new", false), cycle(&["new"]));
        assert_eq!(check(&["c"], "b", true), cycle(&["c", "b"]));
        assert_eq!(check(&["d", "c"], "b", false), cycle(&["c", "b"]));
        assert_eq!(check(&["b"], "gone", false), Ok(()), "it is queued, and stays as it is");
        let job = [("first", None), ("second", Some("first")), ("third", Some("second"))];
        assert_eq!(check_dependencies(&rows, &job, false), Ok(()), "each waits for one that is queued with it");
    }

    #[test]
    fn a_long_circle_is_told_by_its_beginning() {
        let name = |number: usize| format!("u{}", number % 30);
        let rows: Vec<QueueRow> = (0..30).map(|number| row(&name(number), &name(number + 1))).collect();
        let mut told: Vec<String> = (7..27).map(name).collect();
        told.push("\u{2026}".to_owned());
        assert_eq!(assess(&rows, &|_| true)[7], Standing::Cycle(told));
    }

    #[test]
    fn a_roster_says_what_a_look_at_the_queue_would() {
        let rows = vec![row("a", ""), row("b", "a"), row("c", "b"), row("d", "unheard of"), row("e", "a")];
        let ready = |roster: &Roster| roster.ready(Lanes::FIRST).map(|row| row.update_name.clone()).collect::<Vec<_>>();
        let mut roster = Roster::new(rows, Arc::default(), &|name| name != "e");
        assert_eq!(ready(&roster), ["a", "d"]);
        roster.move_on("a", "{\"n\":1}".to_owned());
        assert_eq!(roster.get("a").map(|row| row.progress.as_str()), Some("{\"n\":1}"));
        roster.remove("a", false);
        assert_eq!(ready(&roster), ["b", "d"], "and not what nobody has defined");
        roster.move_on("d", r#"{"approval": {"awaited": {"reason": "look"}}}"#.to_owned());
        assert_eq!(ready(&roster), ["b"], "and not what awaits approval");
        let rows = roster.iter().map(|(row, _)| row.clone()).map(|mut row| {
            row.progress = if row.update_name == "d" { r#"{"approval": "given"}"#.to_owned() } else { row.progress };
            row
        });
        let mut roster = Roster::new(rows.collect(), Arc::default(), &|name| name != "e");
        assert_eq!(ready(&roster), ["b", "d"]);
        roster.fail("b", Failure { attempts: 5, error: "no".to_owned(), code: None, at_ms: 0, quarantined: true });
        assert_eq!(ready(&roster), ["d"]);
        let told: Vec<_> = roster.iter().filter_map(|(row, standing)| standing.explain(row)).collect();
        assert_eq!(told, ["quarantined after 5 attempts: no", "waits for b", "no definition"]);
    }

    #[test]
    fn a_queue_read_anew_is_not_behind_what_was_done_meanwhile() {
        let mut lanes = Lanes::default();
        lanes.put("index", "indexes");
        let lanes = Arc::new(lanes);
        let rows = vec![row("a", ""), row("index", "a"), row("b", "index"), row("c", "")];
        let ready =
            |roster: &Roster, lane: &str| roster.ready(lane).map(|row| row.update_name.clone()).collect::<Vec<_>>();
        let mut roster = Roster::new(rows.clone(), Arc::clone(&lanes), &|_| true);
        assert_eq!(
            (ready(&roster, Lanes::FIRST), ready(&roster, "indexes")),
            (vec!["a".to_owned(), "c".to_owned()], vec![])
        );
        roster.watch();
        roster.remove("a", false);
        roster.move_on("c", "{\"n\":2}".to_owned());
        roster.renew(rows.clone(), Arc::clone(&lanes), &|_| true);
        assert_eq!(
            (ready(&roster, Lanes::FIRST), ready(&roster, "indexes")),
            (vec!["c".to_owned()], vec!["index".to_owned()])
        );
        assert_eq!(roster.get("c").map(|row| row.progress.as_str()), Some("{\"n\":2}"));
        roster.watch();
        roster.renew(rows, lanes, &|_| true);
        assert_eq!(ready(&roster, Lanes::FIRST), ["a", "c"], "what was done before the queue was read is in it");
    }

    proptest! {
        /// Whatever ends, in whatever order, leaves what reading the rest of the queue would find.
        #[test]
        fn a_roster_is_kept_up(links in prop::collection::vec(prop::option::of(0_usize..12), 12), ends in prop::collection::vec(0_usize..12, 12)) {
            let link = |link: &Option<usize>| link.map_or(String::new(), |to| to.to_string());
            let rows: Vec<QueueRow> = links.iter().enumerate().map(|(n, to)| row(&format!("{n}"), &link(to))).collect();
            let mut roster = Roster::new(rows.clone(), Arc::default(), &|_| true);
            let mut left = rows;
            for end in ends {
                let name = end.to_string();
                // What is part of a circle does not run, and so does not end.
                if roster.place_of_ready(&name, Lanes::FIRST).is_none() {
                    continue;
                }
                roster.remove(&name, false);
                left.retain(|row| row.update_name != name);
                let standings = assess(&left, &|_| true);
                let found: Vec<_> = roster.iter().collect();
                prop_assert_eq!(found, left.iter().zip(&standings).collect::<Vec<_>>());
            }
        }

        /// Run whatever is first until nothing is: what remains is a circle or waits for one.
        #[test]
        fn a_queue_runs_dry_but_for_circles(links in prop::collection::vec(prop::option::of(0_usize..12), 12)) {
            let mut rows: Vec<QueueRow> = links
                .iter()
                .enumerate()
                .map(|(number, link)| row(&number.to_string(), &link.map_or(String::new(), |to| to.to_string())))
                .collect();
            while let Some(next) = assess(&rows, &|_| true).iter().position(|standing| *standing == Standing::Ready) {
                let name = rows[next].update_name.clone();
                let unmet = rows.iter().any(|other| dependency(&rows[next]) == Some(&other.update_name));
                prop_assert!(!unmet, "{name} ran before what it depends on");
                rows.remove(next);
            }
            let standings = assess(&rows, &|_| true);
            let circle = standings.iter().any(|standing| matches!(standing, Standing::Cycle(_)));
            prop_assert!(rows.is_empty() || circle);
        }
    }
}
