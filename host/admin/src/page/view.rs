//! What the page shows, gathered from the board and, once a second at most, from the databases.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::state::{Site, State};
use tidegate::controller::{ShadowReport, Usage};
use tidegate::scheduler::acceptance::is_redefined;
use tidegate::scheduler::board::{
    ControllerBoard, DatabaseBoard, FallbackBoard, InHand, LaneBoard, LeaseState, Phase, Retry,
};
use tidegate::scheduler::choice::{Standing, assess};
use tidegate::scheduler::database::{Queue, QueueRow, Record, unix_ms};
use tidegate::scheduler::report::{Doing, accepts_skipped};
use tidegate::scheduler::update_state::{Stand, Stands, UpdateState};
use tidegate::signal::SignalStatus;
use tidegate::update::keep::Keep;

/// How old what is shown may be.
const FRESH: Duration = Duration::from_millis(900);

/// How long a database may take to show its queue.
const QUEUE_LIMIT: Duration = Duration::from_millis(2_000);

/// Faults of a controller that are shown.
const FAULTS: usize = 3;

/// Rows of a queue that are shown, for the page is sent anew every second; and so many of those behind them that are in
/// trouble.
const ROWS: usize = 200;

/// All that the page shows.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    pub databases: Vec<DatabaseView>,
    pub controllers: Vec<ControllerFile>,
}

/// A database.
#[derive(Debug, Clone)]
pub(super) struct DatabaseView {
    pub name: String,
    pub system: String,
    /// Who works on it, in words.
    pub runner: String,
    /// Why nothing happens, where nothing does: in words, the most important first.
    pub obstacles: Vec<String>,
    /// True while it is paused, by whomever.
    pub paused: bool,
    /// What is done in each lane, the first one first.
    pub lanes: Vec<LaneView>,
    /// Its first rows, and of the others the one in hand and those in trouble; `None` where the database does not show it.
    pub queue: Option<Vec<RowView>>,
    /// How many rows are left out.
    pub more_rows: usize,
    /// How many rows updates have skipped, by name.
    pub skipped: Vec<(String, u64)>,
    pub signals: Vec<SignalStatus>,
    /// The triggers that keep the rows of updates, a sentence each.
    pub kept: Vec<String>,
}

/// A lane, and what is done in it.
#[derive(Debug, Clone)]
pub(super) struct LaneView {
    /// `None` for the first.
    pub name: Option<String>,
    pub in_hand: Option<InHandView>,
    pub controller: ControllerView,
}

/// The update in hand.
#[derive(Debug, Clone)]
pub(super) struct InHandView {
    pub name: String,
    pub one_shot: bool,
    /// What happens with it, in words.
    pub phase: String,
    /// Why it waits, where it does.
    pub reason: Option<String>,
    pub done: Option<f64>,
    pub items_per_s: Option<f64>,
    pub eta: Option<Duration>,
    pub items: u64,
    /// Its last batches, the newest last.
    pub batches: Vec<BatchView>,
}

/// A batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchView {
    pub duration_ms: f64,
    pub target_ms: Option<u64>,
    pub items: u64,
    pub committed: bool,
}

/// A row of the queue.
#[derive(Debug, Clone)]
pub(super) struct RowView {
    pub name: String,
    pub state: UpdateState,
    pub reason: Option<String>,
    pub attempts: u32,
    pub quarantined: bool,
    /// True where its definition is not the one that it began with.
    pub redefined: bool,
}

/// Who sets a database's pace.
#[derive(Debug, Clone)]
pub(super) struct ControllerView {
    pub name: String,
    /// Who took over, and why.
    pub fallback: Option<String>,
    /// The last faults, the newest first: how long ago, what, and what to do.
    pub faults: Vec<(Duration, String, &'static str)>,
    pub usage: Usage,
    /// The controllers that are asked beside it.
    pub shadows: Vec<ShadowReport>,
}

/// A controller's file.
#[derive(Debug, Clone)]
pub(super) struct ControllerFile {
    pub name: String,
    pub path: String,
    pub databases: Vec<String>,
    pub shadow: bool,
    /// Its digest and contract, or why it is not loaded; `None` while it is being loaded.
    pub state: Option<Result<(String, String), String>>,
}

/// Gathers views, and keeps the last one for those who ask at the same time.
#[derive(Clone, Default)]
pub(super) struct Viewer(Arc<Mutex<Option<Gathered>>>);

/// A view, and when it was gathered.
struct Gathered(Instant, Arc<View>);

impl Viewer {
    /// What is to be shown now.
    pub(super) async fn view(&self, state: &State) -> Arc<View> {
        let mut last = self.0.lock().await;
        match &*last {
            Some(Gathered(at, view)) if at.elapsed() < FRESH => view.clone(),
            _ => {
                let view = Arc::new(gather(state).await);
                *last = Some(Gathered(Instant::now(), view.clone()));
                view
            }
        }
    }

    /// Has the next view gathered anew: somebody did something and wants to see it.
    pub(super) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

async fn gather(state: &State) -> View {
    let mut databases = Vec::new();
    for site in state.sites() {
        databases.push(database(state, site).await);
    }
    let live = state.live();
    let controllers = live.controllers.iter().map(|controller| ControllerFile {
        name: controller.name.clone(),
        path: controller.path.clone(),
        databases: controller.databases.clone(),
        shadow: controller.shadow,
        state: controller.component.as_ref().map(|component| match component {
            Ok(component) => Ok((component.sha256.clone(), component.contract_version.clone())),
            Err(fault) => Err(format!("{fault} ({})", fault.kind.hint())),
        }),
    });
    View { databases, controllers: controllers.collect() }
}

async fn database(state: &State, site: &Site) -> DatabaseView {
    // The queue first: what the board says afterwards is at least as new.
    let looked = timeout(QUEUE_LIMIT, site.database.look()).await;
    let board = state.board().database(&site.name).unwrap_or_default();
    let mut obstacles = Vec::new();
    obstacles.extend(board.unavailable.as_ref().map(|error| format!("the database does not answer: {error}")));
    let queue = match looked {
        Ok(Ok(queue)) => Some(queue.unwrap_or_default()),
        Ok(Err(error)) => {
            obstacles.push(format!("its queue cannot be read: {error}"));
            None
        }
        Err(_) => {
            obstacles.push("its queue cannot be read: the database takes too long to answer".to_owned());
            None
        }
    };
    let stored = queue.as_ref().and_then(|queue| queue.pause.as_ref());
    let pause = state.pause_in_force(&site.name, &board, stored);
    obstacles.extend(pause.as_ref().map(|reason| match reason {
        Some(reason) => format!("paused: {reason}"),
        None => "paused".to_owned(),
    }));
    let queued = queue.as_ref().map_or(0, |queue| queue.rows.len());
    let kept = queue.as_ref().map(|queue| kept(&queue.kept)).unwrap_or_default();
    let skipped = queue.as_ref().map(|queue| queue.skipped.clone()).unwrap_or_default();
    let queue = queue.map(|mut queue| {
        let live = state.live();
        let handlers = live.handlers.get(&site.name);
        queue.accept_skipped(&|name| handlers.is_some_and(|handlers| accepts_skipped(handlers, name)));
        queue
    });
    let queue = queue.map(|queue| rows(state, site, &queue, &board, pause.as_ref()));
    DatabaseView {
        name: site.name.clone(),
        skipped: skipped.into_iter().collect(),
        system: site.system.clone(),
        runner: runner(&board.lease),
        obstacles,
        paused: pause.is_some(),
        lanes: board
            .all_lanes()
            .map(|(name, lane)| lane_view(state, site, name, lane, &board, pause.as_ref()))
            .collect(),
        more_rows: queued - queue.as_ref().map_or(0, Vec::len),
        queue,
        signals: state.live().signals.of(&site.name),
        kept,
    }
}

/// What keeps the rows of updates, and since when.
fn kept(keeps: &[Keep]) -> Vec<String> {
    let now = unix_ms(SystemTime::now());
    let told = keeps.iter().map(|keep| {
        let since = Duration::from_millis(now.saturating_sub(keep.made_ms).try_into().unwrap_or(0));
        let disabled = if keep.enabled { "" } else { "; somebody has disabled it" };
        let triggers = keep.triggers.join(" and ");
        format!(
            "Rows of {} are kept as {} makes them, by {triggers} for {}{disabled}.",
            keep.table,
            keep.update,
            words(since)
        )
    });
    told.collect()
}

fn runner(lease: &LeaseState) -> String {
    match lease {
        LeaseState::None => "nobody works on it yet".to_owned(),
        LeaseState::Runner => "this host works on it".to_owned(),
        LeaseState::StandingBy(Some(holder)) => {
            format!("process {} on {} works on it; this host stands by", holder.pid, holder.host)
        }
        LeaseState::StandingBy(None) => "another host works on it; this host stands by".to_owned(),
    }
}

fn lane_view(
    state: &State,
    site: &Site,
    name: Option<&str>,
    lane: &LaneBoard,
    board: &DatabaseBoard,
    pause: Option<&Option<String>>,
) -> LaneView {
    LaneView {
        name: name.map(str::to_owned),
        in_hand: lane.in_hand.as_ref().map(|in_hand| in_hand_view(in_hand, board, pause)),
        controller: controller(state, site, &lane.controller),
    }
}

fn in_hand_view(in_hand: &InHand, board: &DatabaseBoard, pause: Option<&Option<String>>) -> InHandView {
    let totals = board.totals.get(&in_hand.update_name).copied().unwrap_or_default();
    let waiting = match &in_hand.phase {
        Phase::Held { duration, .. } | Phase::BackingOff { duration, .. } => {
            let over = SystemTime::now().duration_since(in_hand.phase_since).unwrap_or_default();
            Some(duration.saturating_sub(over))
        }
        _ => None,
    };
    let Stand { state, reason } = Stand::begun(&Doing::seen_in_hand(in_hand), pause);
    let phase = match (state, waiting) {
        (UpdateState::Held, Some(left)) => format!("held for another {}", words(left)),
        (UpdateState::BackingOff, Some(left)) => format!("failed; tried again in {}", words(left)),
        _ => state.to_string(),
    };
    let working = SystemTime::now().duration_since(in_hand.since).unwrap_or_default();
    let items_per_s = (totals.items > 0 && !working.is_zero()).then(|| totals.items as f64 / working.as_secs_f64());
    InHandView {
        name: in_hand.update_name.clone(),
        one_shot: in_hand.one_shot,
        phase,
        reason,
        done: in_hand.done,
        items_per_s,
        eta: in_hand.eta,
        items: totals.items,
        batches: batches(board, &in_hand.update_name).collect(),
    }
}

/// The last batches of an update; where there is one lane, of all that it had in hand.
fn batches(board: &DatabaseBoard, update_name: &str) -> impl Iterator<Item = BatchView> {
    let counts = move |record: &&Arc<Record>| board.lanes.is_empty() || record.update_name == update_name;
    board.recent.iter().filter(counts).map(|record| BatchView {
        duration_ms: record.duration_ms,
        target_ms: record.target_ms,
        items: record.items,
        committed: record.is_committed(),
    })
}

fn rows(
    state: &State,
    site: &Site,
    queue: &Queue,
    board: &DatabaseBoard,
    pause: Option<&Option<String>>,
) -> Vec<RowView> {
    let live = state.live();
    let handlers = live.handlers.get(&site.name);
    let standings = assess(&queue.rows, &|name| handlers.is_some_and(|handlers| handlers.contains_key(name)));
    let in_hand = |name: &str| board.in_hand().find(|in_hand| in_hand.update_name == name);
    let doing = Doing::seen(board);
    let stands = Stands::new(&doing, pause);
    let row = |(row, standing): (&QueueRow, &Standing)| {
        let Stand { state, reason } = stands.of(row, standing);
        let failure = row.failure.as_ref();
        RowView {
            name: row.update_name.clone(),
            state,
            reason,
            attempts: failure.map_or(0, |failure| failure.attempts),
            quarantined: failure.is_some_and(|failure| failure.quarantined),
            redefined: failure.is_some()
                && handlers
                    .and_then(|handlers| handlers.get(&row.update_name))
                    .is_some_and(|handler| is_redefined(row, &**handler)),
        }
    };
    let (first, others) = queue.rows.split_at(ROWS.min(queue.rows.len()));
    let (of_first, of_others) = standings.split_at(first.len());
    let others = others.iter().zip(of_others);
    let (now, others): (Vec<_>, Vec<_>) = others.partition(|(row, _)| in_hand(&row.update_name).is_some());
    let in_trouble = |(row, standing): &(&QueueRow, &Standing)| {
        row.failure.is_some() || !matches!(standing, Standing::Ready | Standing::DependsOn(_))
    };
    let others = others.into_iter().filter(in_trouble).take(ROWS);
    first.iter().zip(of_first).chain(now).chain(others).map(row).collect()
}

fn controller(state: &State, site: &Site, board: &ControllerBoard) -> ControllerView {
    let live = state.live();
    let name = live.controllers.iter().find(|controller| controller.paces(&site.name));
    let faults = board.faults.iter().rev().take(FAULTS).map(|(at, fault)| {
        (SystemTime::now().duration_since(*at).unwrap_or_default(), fault.to_string(), fault.kind.hint())
    });
    ControllerView {
        name: name.map_or_else(|| "the built-in policy".to_owned(), |controller| controller.name.clone()),
        fallback: board.fallback.as_ref().map(fallback),
        faults: faults.collect(),
        usage: board.usage,
        shadows: board.shadows.values().map(|shadow| shadow.report.clone()).collect(),
    }
}

/// Who took over from a controller, and when it is tried again.
fn fallback(board: &FallbackBoard) -> String {
    let FallbackBoard { fallback, reason, needs_reload, retry } = board;
    let effect = match (fallback.as_str(), needs_reload) {
        ("hold", true) => "updates are held until it is mended and reloaded",
        ("hold", false) => "updates are held",
        _ => "the built-in policy took over",
    };
    if *needs_reload {
        return format!("{reason}; {effect}");
    }
    let when = match retry {
        None => "for the next update".to_owned(),
        Some(Retry { update_name, at }) => match at.duration_since(SystemTime::now()) {
            Ok(left) if !left.is_zero() => format!("for {update_name} in {}", words(left)),
            _ => format!("for {update_name} now"),
        },
    };
    format!("{reason}; {effect}; the controller is tried again {when}")
}

/// A duration in words.
pub(super) fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..=59 => format!("{seconds} s"),
        60..=3_599 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..=86_399 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}
