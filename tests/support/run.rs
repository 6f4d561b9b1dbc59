//! Hosts that run within the test's own process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate::controller::{BuiltIn, Policy, ShadowPolicy, Source, SupervisorSettings, Witness};
use tidegate::scheduler::board::Board;
use tidegate::scheduler::database::{Database, NewRow, Record};
use tidegate::scheduler::event::{Event, EventKind};
use tidegate::scheduler::{Control, End, Handlers, Host, Lanes, Replacement, Settings, Summary, Workload};
use tidegate::update::Handler;
use tidegate::update::sql::TableName;
use tidegate::update::{Backfill, BackfillDefinition};
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinHandle;

use super::place::{Place, holder, row};

/// The built-in policy without its sleep.
pub fn without_sleep() -> SupervisorSettings {
    let builtin = BuiltIn { sleep: None, target: Duration::from_millis(20) };
    SupervisorSettings { builtin, ..SupervisorSettings::default() }
}

/// A table `items` of `rows` rows, each untouched.
pub async fn make_items(place: &Place, rows: u32) {
    let numbers = place.either(
        "with recursive n(id) as (select 1 union all select id + 1 from n where id < ROWS) select id from n",
        "select generate_series(1, ROWS)",
    );
    let numbers = numbers.replace("ROWS", &rows.to_string());
    place.run("create table items (id bigint primary key not null, touched int not null default 0)").await;
    place.run(&format!("insert into items (id) {numbers}")).await;
}

/// How many items were touched how often: "times|rows", in order.
pub async fn touched(place: &Place) -> Vec<String> {
    place.rows("select touched, count(*) from items group by touched order by touched").await
}

/// Touches each item once.
pub fn touch() -> Arc<dyn Handler> {
    backfill("touched = touched + 1")
}

/// A backfill of `items`.
pub fn backfill(set: &str) -> Arc<dyn Handler> {
    Arc::new(Backfill::new(BackfillDefinition {
        table: TableName { schema: None, name: "items".to_owned() },
        key: vec!["id".to_owned()],
        set: set.to_owned(),
        filter: None,
    }))
}

/// A row that waits for another.
pub fn row_after(update_name: &str, depends_on: &str) -> NewRow {
    NewRow { depends_on: Some(depends_on.to_owned()), ..row(update_name) }
}

/// A host to be.
pub struct Run {
    pub database: Arc<dyn Database>,
    pub handlers: Handlers,
    pub lanes: Lanes,
    pub policy: Policy,
    pub supervision: SupervisorSettings,
    pub shadows: Vec<ShadowPolicy>,
    pub witnesses: Vec<Arc<dyn Witness>>,
    pub settings: Settings,
}

impl Run {
    /// On a database whose tables are made, with `rows` queued.
    pub async fn on(place: &Place, rows: &[NewRow]) -> Self {
        let database = place.prepared().await;
        for row in rows {
            assert!(database.enqueue(row).await.unwrap(), "{} was queued before", row.update_name);
        }
        Self::with(database)
    }

    /// On a database as it is.
    pub fn with(database: Arc<dyn Database>) -> Self {
        let settings = Settings {
            poll_interval: Duration::from_millis(50),
            max_attempts: 2,
            until_done: true,
            ..Settings::new(holder(std::process::id()))
        };
        Self {
            database,
            handlers: HashMap::new(),
            lanes: Lanes::default(),
            policy: Policy::BuiltIn,
            supervision: without_sleep(),
            shadows: Vec::new(),
            witnesses: Vec::new(),
            settings,
        }
    }

    pub fn define(mut self, update_name: &str, handler: Arc<dyn Handler>) -> Self {
        self.handlers.insert(update_name.to_owned(), handler);
        self
    }

    pub fn controller(mut self, source: Arc<dyn Source>) -> Self {
        self.policy = Policy::Controller(source);
        self
    }

    /// Puts an update in a lane.
    pub fn lane(mut self, update_name: &str, lane: &str) -> Self {
        self.lanes.put(update_name, lane);
        self
    }

    /// Goes on until it is told to stop.
    pub fn for_ever(mut self) -> Self {
        self.settings.until_done = false;
        self
    }

    /// What a running host can be given instead.
    pub fn replacement(&self) -> Replacement {
        Replacement {
            handlers: self.handlers.clone(),
            lanes: self.lanes.clone(),
            policy: self.policy.clone(),
            supervision: self.supervision,
            shadows: self.shadows.clone(),
            settings: self.settings.clone(),
        }
    }

    /// Runs until nothing can run.
    pub async fn until_done(self) -> Story {
        self.start().end().await
    }

    /// Runs while the test does other things.
    pub fn start(self) -> Running {
        let database = self.database.clone();
        let workload = Workload {
            name: "master".to_owned(),
            database: self.database,
            handlers: self.handlers,
            lanes: self.lanes,
            policy: self.policy,
            supervision: self.supervision,
            shadows: self.shadows,
            witnesses: self.witnesses,
        };
        let host = Host::new(vec![workload], self.settings);
        let (events, control, board) = (host.events().subscribe(), host.control(), host.board());
        let task = tokio::spawn(host.run(std::future::pending()));
        Running { events, control, board, task, database, seen: Vec::new() }
    }
}

/// A host at work.
pub struct Running {
    events: Receiver<Arc<Event>>,
    pub control: Control,
    pub board: Board,
    pub task: JoinHandle<Vec<Summary>>,
    database: Arc<dyn Database>,
    seen: Vec<EventKind>,
}

impl Running {
    /// The first event from now on that `wanted` makes something of.
    pub async fn next<T>(&mut self, what: &str, wanted: impl Fn(&EventKind) -> Option<T>) -> T {
        let found = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                let kind = self.events.recv().await.expect("the host ended").kind.clone();
                self.seen.push(kind.clone());
                if let Some(found) = wanted(&kind) {
                    return found;
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("waited in vain for {what}; seen: {:#?}", self.seen))
    }

    /// Tells it to stop and waits until it has.
    pub async fn stop(self) -> Story {
        self.control.stop();
        self.end().await
    }

    /// Waits until it ends by itself.
    pub async fn end(mut self) -> Story {
        let ended = tokio::time::timeout(Duration::from_secs(60), self.task).await;
        let mut summaries = ended.expect("the host does not end").unwrap();
        while let Ok(event) = self.events.try_recv() {
            self.seen.push(event.kind.clone());
        }
        assert_eq!(summaries.len(), 1);
        Story { end: summaries.remove(0).end, events: self.seen, database: self.database }
    }
}

/// What became of a host.
pub struct Story {
    pub end: End,
    pub events: Vec<EventKind>,
    pub database: Arc<dyn Database>,
}

impl Story {
    /// What remains in the queue, each row with its reason.
    pub fn remaining(&self) -> Vec<(&str, &str)> {
        match &self.end {
            End::Done { remaining } => remaining.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect(),
            other => panic!("it did not run until done: {other:?}"),
        }
    }

    /// The updates that finished, in order.
    pub fn finished(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|event| match event {
                EventKind::UpdateFinished { update_name } => Some(update_name.as_str()),
                _ => None,
            })
            .collect()
    }

    /// The iterations, in order.
    pub fn iterations(&self) -> Vec<&Record> {
        self.events
            .iter()
            .filter_map(|event| match event {
                EventKind::IterationEnded { record, .. } => Some(&**record),
                _ => None,
            })
            .collect()
    }

    /// The iterations as the database keeps them, the oldest first.
    pub async fn history(&self) -> Vec<Record> {
        let mut history = self.database.history(None, 10_000).await.unwrap();
        history.reverse();
        history
    }
}
