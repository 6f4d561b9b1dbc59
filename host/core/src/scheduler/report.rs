//! What a database and its queue come to for somebody who looks: how each row stands, how far it has come, how fast it
//! goes. The command line and the API tell it, each in its own shape.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use super::Handlers;
use super::board::{DatabaseBoard, InHand, Phase};
use super::database::{Activity, Database, Holder, IterationOutcome, Queue, QueueRow, Record, Work, unix_ms};
use super::update_state::{LaneState, UpdateState};
use crate::controller::SLEEP;
use crate::pace::eta;
use crate::update::sql::Estimate;
use crate::update::{Progress, SqlError};

/// Iterations that a throughput is taken from.
pub const RECENT: u32 = 50;

/// Rows, the first of a queue, whose pace is looked up beside that of the row in hand: each costs the database a question
/// or two.
const MOST_PACED: usize = 100;

/// What a database says of itself.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Its queue.
    pub queue: Queue,
    /// The host that works on it.
    pub runner: Option<Holder>,
    /// By update name.
    pub paces: HashMap<String, UpdatePace>,
}

/// How far an update has come and how fast it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct UpdatePace {
    /// How far; `None` where that cannot be estimated.
    pub estimate: Option<Estimate>,
    /// Items per millisecond over the last iterations, waiting included.
    pub items_per_ms: Option<f64>,
}

impl UpdatePace {
    /// What is left, at that pace.
    pub fn time_left(&self) -> Option<Duration> {
        time_left(self.estimate?, self.items_per_ms?)
    }
}

/// Looks at a database, writing nothing; `None` where it has no queue.
///
/// # Errors
/// Whatever the database says.
pub async fn look(database: &dyn Database, handlers: &Handlers) -> Result<Option<Snapshot>, SqlError> {
    let Some(mut queue) = database.look().await? else { return Ok(None) };
    queue.accept_skipped(&|name| accepts_skipped(handlers, name));
    let runner = database.lease_holder().await?;
    let mut paces: HashMap<String, UpdatePace> = HashMap::new();
    let works = queue.activity.iter().flat_map(Activity::works);
    let in_hand: HashSet<&str> = works.filter_map(|(_, work)| work.update_name.as_deref()).collect();
    let is_paced = |place: usize, row: &QueueRow| place < MOST_PACED || in_hand.contains(&*row.update_name);
    let rows = || queue.rows.iter().enumerate().filter(|(place, row)| is_paced(*place, row)).map(|(_, row)| row);
    for row in rows() {
        let records = database.history(Some(&row.update_name), RECENT).await?;
        // What is older is of an earlier update of that name.
        let of_this_row = records.iter().take_while(|record| record.outcome != IterationOutcome::Finished);
        paces.entry(row.update_name.clone()).or_default().items_per_ms = throughput(of_this_row);
    }
    // Last of all: on SQLite a session holds the one connection there is.
    let mut session = database.inspect().await?;
    for row in rows() {
        let handler = handlers.get(&row.update_name);
        let Some((handler, progress)) = handler.zip(Progress::parse(&row.progress).ok()) else { continue };
        // An estimate that fails is none: whoever runs the update meets the same error, and `check` tells it.
        let estimate = handler.estimate(session.as_sql(), &progress).await.unwrap_or_default();
        paces.entry(row.update_name.clone()).or_default().estimate = estimate;
    }
    drop(session);
    Ok(Some(Snapshot { queue, runner, paces }))
}

/// True where an update runs though rows of what it depends on were skipped.
pub fn accepts_skipped(handlers: &Handlers, update_name: &str) -> bool {
    handlers.get(update_name).is_some_and(|handler| handler.accepts_skipped())
}

/// What the host that works on a database does with an update that it has begun: the state of its row, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doing {
    /// The update.
    pub update_name: String,
    /// The state of its row.
    pub state: UpdateState,
    /// Why, where it waits; that it runs in one go, and for how long, where it does.
    pub reason: Option<String>,
    /// True where it runs in one go at this moment, paused or not.
    pub in_one_go: bool,
    /// True where others keep it waiting: whatever its pace was, it is none now.
    pub stuck: bool,
}

/// That an update rests between two batches, in words, and why where that says more.
pub(super) fn resting(reason: &str) -> String {
    match reason {
        SLEEP => "resting between batches".to_owned(),
        _ => format!("resting between batches: {reason}"),
    }
}

/// That an update runs in one go, and who keeps it waiting, in words.
fn running(one_shot_ms: Option<i64>, in_the_way: &[String]) -> Option<String> {
    let one_shot = one_shot_ms.map(|ms| format!("in one go for {}", lasting(ms)));
    let waits = (!in_the_way.is_empty()).then(|| format!("waits for {}", in_the_way.join(", ")));
    let parts: Vec<String> = one_shot.into_iter().chain(waits).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// A time in milliseconds, for people who wait.
fn lasting(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

impl Doing {
    /// As a host wrote it down for others: of the updates in hand, and of those that give way to them.
    pub fn told(activity: &Activity) -> Vec<Self> {
        activity.works().flat_map(|(_, work)| Self::told_in_lane(work)).collect()
    }

    fn told_in_lane(work: &Work) -> Vec<Self> {
        let gives_way = work.update_name.is_some();
        let others = work.put_off.iter().map(|waiting| {
            let left = waiting.until_ms.saturating_sub(unix_ms(SystemTime::now()));
            Self::put_off(&waiting.update_name, &waiting.reason, left, gives_way)
        });
        Self::told_in_hand(work).into_iter().chain(others).collect()
    }

    fn told_in_hand(work: &Work) -> Option<Self> {
        let state = match work.state {
            LaneState::Update(state) => state,
            LaneState::Idle | LaneState::Stopped => UpdateState::Running,
        };
        let since = work.one_shot_since_ms.map(|since| unix_ms(SystemTime::now()).saturating_sub(since));
        let reason = work.reason.clone().or_else(|| running(since, &work.in_the_way));
        let (in_one_go, stuck) = (since.is_some(), !work.in_the_way.is_empty());
        Some(Self { update_name: work.update_name.clone()?, state, reason, in_one_go, stuck })
    }

    /// As this host's own events told it.
    pub fn seen(board: &DatabaseBoard) -> Vec<Self> {
        let in_hand: HashSet<&str> = board.in_hand().map(|in_hand| in_hand.update_name.as_str()).collect();
        let others = board.put_off.iter().filter(|(name, _)| !in_hand.contains(name.as_str()));
        let others = others.map(|(name, put_off)| {
            let left = put_off.until.duration_since(SystemTime::now()).unwrap_or_default();
            let left = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
            Self::put_off(name, &put_off.error, left, !in_hand.is_empty())
        });
        board.in_hand().map(Self::seen_in_hand).chain(others).collect()
    }

    /// An update that is tried again, and gives way to another until then, where one is in hand.
    fn put_off(update_name: &str, error: &str, left_ms: i64, gives_way: bool) -> Self {
        let what = if gives_way { "gives way to others, and is tried again" } else { "tried again" };
        let when = match left_ms {
            ..1_000 => "at once".to_owned(),
            _ => format!("in {}", lasting(left_ms)),
        };
        Self {
            update_name: update_name.to_owned(),
            state: UpdateState::BackingOff,
            reason: Some(format!("{what} {when}: {error}")),
            in_one_go: false,
            stuck: false,
        }
    }

    /// Of the update in hand.
    pub fn seen_in_hand(in_hand: &InHand) -> Self {
        let (state, reason) = match &in_hand.phase {
            Phase::Between => {
                let waits = running(None, &in_hand.in_the_way);
                (UpdateState::Running, waits.or_else(|| in_hand.rest.as_ref().map(|(_, reason)| resting(reason))))
            }
            Phase::Running { .. } => {
                let since = in_hand.phase_since.elapsed().unwrap_or_default();
                let since = in_hand.one_shot.then(|| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
                (UpdateState::Running, running(since, &in_hand.in_the_way))
            }
            Phase::Held { reason, .. } => (UpdateState::Held, Some(reason.clone())),
            Phase::BackingOff { error, .. } => (UpdateState::BackingOff, Some(error.clone())),
        };
        let in_one_go = in_hand.one_shot && matches!(in_hand.phase, Phase::Running { .. });
        let stuck = !in_hand.in_the_way.is_empty();
        Self { update_name: in_hand.update_name.clone(), state, reason, in_one_go, stuck }
    }
}

/// Items per millisecond over some iterations, waiting included: what a queue really advances by. `None` where no
/// item was processed.
pub fn throughput<'a>(records: impl Iterator<Item = &'a Record>) -> Option<f64> {
    let (items, elapsed_ms) = records.fold((0, 0.0), |(items, elapsed), record| {
        (items + record.items, elapsed + record.duration_ms + record.waited_ms)
    });
    (items > 0 && elapsed_ms > 0.0).then(|| items as f64 / elapsed_ms)
}

/// How long the rest of a walk takes at a pace, in items per millisecond.
pub fn time_left(estimate: Estimate, items_per_ms: f64) -> Option<Duration> {
    eta(estimate.rows * (1.0 - estimate.done), items_per_ms)
}
