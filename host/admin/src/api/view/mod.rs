//! What the API tells, as data: the shapes of its JSON, and how they are made from what the host knows.
//!
//! Names of keys: durations end in `_ms`, points in time in `_at_ms` or are called `since_ms`; both are milliseconds, the
//! latter since the Unix epoch, in UTC. What is not known is `null`. New keys may come at any time.

mod controller;
mod database;
mod event;
mod ledger;
mod queue;
mod signal;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::{Object, ObjectBuilder, Type};

pub use controller::{
    ControllerFault, ControllerOn, Controllers, LoadedComponent, NamedController, Shadow, ShadowDifference, Used,
};
pub use database::{Database, DatabaseController, Databases, Lane, Lease, Totals, UpdateInHand};
pub use event::{BlockedRow, EventData, HostEvent};
pub use ledger::{Ledger, LedgerEntry, Required, RequiredState, RequiredUpdate};
pub use queue::{Defined, EndedUpdate, Iteration, KeptRows, Queue, QueuedUpdate, SkippedKey, SkippedRows, StoredPause};
pub use signal::{Signal, Signals};

use crate::Role;
use tidegate::scheduler::database::Holder;
use tidegate::scheduler::database::IterationOutcome;
pub use tidegate::scheduler::operations::Did;
use tidegate::scheduler::update_state::UpdateState;

/// A process that works on a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Process {
    /// The machine's name.
    #[schema(example = "tide-1")]
    pub host: String,
    /// The process's number there.
    #[schema(example = 4242)]
    pub pid: u32,
}

impl From<Holder> for Process {
    fn from(Holder { host, pid }: Holder) -> Self {
        Self { host, pid }
    }
}

/// The host that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// "tidegate".
    #[schema(example = "tidegate")]
    pub product: String,
    /// Its version.
    #[schema(example = "0.1.0")]
    pub version: String,
    /// Where it runs.
    pub process: Process,
    /// When it started.
    #[schema(example = 1_700_000_000_000_i64)]
    pub started_at_ms: i64,
    /// False while all its databases are paused until it restarts.
    pub enabled: bool,
    /// True once it was told to stop.
    pub stopping: bool,
    /// What whoever asks may do.
    #[schema(schema_with = role)]
    pub role: Role,
}

/// What was done, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Results {
    /// Each thing done.
    pub results: Vec<Done>,
}

/// One thing done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// The database.
    #[schema(example = "master")]
    pub database: String,
    /// The update; `null` where the whole database is meant.
    #[schema(example = "messages_search_body")]
    pub update: Option<String>,
    /// What was done to it.
    #[schema(schema_with = did)]
    pub result: Did,
    /// What is not as it was in the definition that is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "set was \"n = 1\" and is \"n = 2\"")]
    pub changes: Option<String>,
    /// Where a database is paused: the updates that run in one go and go on to their ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!([]))]
    pub goes_on: Vec<String>,
}

/// A duration as whole milliseconds.
fn ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// A duration as milliseconds with the microseconds behind the point.
fn exact_ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// The schema of a role.
fn role() -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["viewer", "admin"])).build()
}

/// The schema of what was done.
fn did() -> Object {
    let values = Did::ALL.map(|did| serde_json::to_value(did).unwrap_or_default());
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values)).build()
}

/// The schema of a row's state.
fn state() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(UpdateState::ALL.map(UpdateState::spelling)))
        .build()
}

/// The schema of what came of an iteration.
fn outcome() -> Object {
    let values = IterationOutcome::ALL.map(IterationOutcome::as_str);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values)).build()
}
