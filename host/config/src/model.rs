//! A configuration that was read and found to be in order: plain data, each part with its place in the file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::admin::Admin;
use super::diagnostic::{Diagnostic, Position};
use super::secret::Secret;
use tidegate::controller::{Fallback, GentleSettings};
use tidegate::pace::Estimator;
use tidegate::signal::{Address, Part, Schedule};
use tidegate::update::sql::{System, TableName};
use tidegate::update::{
    BackfillDefinition, BatchDefinition, CopyDefinition, CreateIndexDefinition, DeleteDefinition, Gate, Reach,
    ScriptDefinition, Settings as Values, Tolerance, TransformDefinition, UnkeepDefinition,
    ValidateAndDeleteDefinition, ValidateConstraintDefinition,
};
use tidegate_wasm::{HandlerLimits, Limits};

/// A whole configuration. Paths in it are already relative to what the configuration file is relative to.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it was read from.
    pub path: PathBuf,
    /// `[background_updates]`
    pub background_updates: BackgroundUpdates,
    /// `[[database]]`, at least one, in order of appearance, no two of one name.
    pub databases: Vec<Database>,
    /// `[[controller]]`, in order of appearance, no two of one name.
    pub controllers: Vec<Controller>,
    /// `[[update]]`, in order of appearance, no two of one name for one database.
    pub updates: Vec<Update>,
    /// `[[job]]`, in order of appearance, no two of one name. Synapse's own are not among them.
    pub jobs: Vec<Job>,
    /// `[admin]`; without it there is no API.
    pub admin: Option<Admin>,
    /// `[signals]`
    pub sampling: SignalSettings,
    /// `[[signal]]`, in order of appearance.
    pub signals: Vec<OwnSignal>,
    /// What is in order, but probably not what was meant.
    pub warnings: Vec<Diagnostic>,
}

impl Config {
    /// The database of that name.
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.iter().find(|database| database.name == name)
    }

    /// The controller that paces a database: the first that names it, or that names none, and is no shadow.
    pub fn controller_of(&self, database_name: &str) -> Option<&Controller> {
        self.controllers.iter().find(|controller| !controller.shadow && controller.databases.include(database_name))
    }

    /// The shadows on a database, in order of appearance.
    pub fn shadows_of<'a>(&'a self, database_name: &'a str) -> impl Iterator<Item = &'a Controller> {
        let include = |controller: &&Controller| controller.shadow && controller.databases.include(database_name);
        self.controllers.iter().filter(include)
    }

    /// The updates defined for a database, in order of appearance.
    pub fn updates_of<'a>(&'a self, database_name: &'a str) -> impl Iterator<Item = &'a Update> {
        self.updates.iter().filter(move |update| update.databases.include(database_name))
    }

    /// A diagnostic about a place in this configuration, e.g. one that [`Places::of`] gave.
    pub fn diagnostic(&self, position: Position, message: String, hint: Option<String>) -> Diagnostic {
        Diagnostic { file: self.path.clone(), position: Some(position), message, hint }
    }
}

/// Where a section and its keys stand in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The section's header.
    pub header: Position,
    /// The keys that were written.
    pub(super) keys: BTreeMap<String, Position>,
}

impl Places {
    /// Where a key stands; where it was left out, the section's header.
    pub fn of(&self, key: &str) -> Position {
        self.keys.get(key).copied().unwrap_or(self.header)
    }
}

/// How fast and how often: the settings for all databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackgroundUpdates {
    /// `background_update_duration_ms`: the built-in policy's target duration of a batch.
    pub target_duration: Duration,
    /// `sleep_enabled`: whether the built-in policy sleeps between batches.
    pub sleep_enabled: bool,
    /// `sleep_duration_ms`: for how long it does after a whole batch; see [`BuiltIn`](tidegate::controller::BuiltIn).
    pub sleep_duration: Duration,
    /// `min_batch_size`: items of any batch but the first, at least; unless the controller says otherwise.
    pub min_batch_size: u32,
    /// `default_batch_size`: items of an update's first batch; unless the controller says otherwise.
    pub default_batch_size: u32,
    /// `max_min_batch_size`: the least that a controller may ask for is cut to it.
    pub max_min_batch_size: u32,
    /// `batch_cut_off_ms`: how long a batch may go on beyond its target for the least number of items.
    pub cut_off: Duration,
    /// `max_batch_size`: items of any batch, at most, whoever says otherwise.
    pub max_batch_size: u32,
    /// `max_target_duration_ms`: target durations above are cut to it.
    pub max_target_duration: Duration,
    /// `poll_interval_ms`: between two looks at the queue.
    pub poll_interval: Duration,
    /// `max_attempts`: failures in a row after which an update is quarantined.
    pub max_attempts: u32,
    /// `shutdown_grace_ms`: for the running batch when the host is told to stop.
    pub shutdown_grace: Duration,
    /// `estimator`: how batches are sized.
    pub estimator: Estimator,
    /// `pace`, and `[background_updates.gentle]`: the bounds where the built-in policy is gentle.
    pub gentle: Option<Gentle>,
}

/// The bounds of the gentle pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gentle {
    /// What is said of every database.
    pub settings: GentleSettings,
    /// True where nothing is said of `allowed_excess_ms`, whose default depends on the database.
    pub usual_excess: bool,
}

impl Gentle {
    /// What a wait for SQLite's one writer may add by default: about two of the shortest batches.
    const SQLITE_EXCESS: Duration = Duration::from_millis(20);

    /// The bounds on a database of that system.
    pub fn on(&self, system: System) -> GentleSettings {
        let is_usual = self.usual_excess && system == System::Sqlite;
        let allowed_excess = if is_usual { Self::SQLITE_EXCESS } else { self.settings.allowed_excess };
        GentleSettings { allowed_excess, ..self.settings }
    }
}

/// A database to work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// What it is called everywhere.
    pub name: String,
    /// Where it is and how it is spoken to.
    pub target: Target,
    /// The queue's table.
    pub queue_table: String,
    /// Where it stands in the file.
    pub places: Places,
}

/// Where a database is and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A SQLite file.
    Sqlite {
        /// The file.
        path: PathBuf,
        /// How long to wait for another's lock.
        busy_timeout: Duration,
    },
    /// A PostgreSQL server.
    Postgres {
        /// A URL or a string of key=value pairs, as libpq takes them.
        url: Secret,
        /// `lock_timeout` of every session.
        lock_timeout: Duration,
        /// `statement_timeout` of batches.
        statement_timeout: Duration,
        /// `idle_in_transaction_session_timeout` of every session.
        idle_in_transaction_timeout: Duration,
    },
}

impl Target {
    /// Which system it is.
    pub fn system(&self) -> System {
        match self {
            Target::Sqlite { .. } => System::Sqlite,
            Target::Postgres { .. } => System::Postgres,
        }
    }
}

/// The databases that something is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Databases {
    /// Every one.
    All,
    /// Those of these names.
    Named(Vec<String>),
}

impl Databases {
    /// True where the database of that name is among them.
    pub fn include(&self, name: &str) -> bool {
        match self {
            Databases::All => true,
            Databases::Named(names) => names.iter().any(|named| named == name),
        }
    }

    /// True where some database is among both.
    pub fn overlap(&self, other: &Databases) -> bool {
        match (self, other) {
            (Databases::Named(names), other) | (other, Databases::Named(names)) => {
                names.iter().any(|name| other.include(name))
            }
            (Databases::All, Databases::All) => true,
        }
    }
}

/// How a database's load is sampled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalSettings {
    /// `enabled`: whether it is.
    pub enabled: bool,
    /// `interval_ms` and `timeout_ms`: how often, and how long an answer may take.
    pub schedule: Schedule,
    /// `probe_write`: whether the probe writes, too, where something is said of it.
    pub probe_writes: Option<bool>,
    /// `probe_interval_ms`: how often the probe is done while an update is in hand, for what the foreground feels; `None`
    /// where nobody goes by that.
    pub probe_interval: Option<Duration>,
}

/// A signal of the operator's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnSignal {
    /// What controllers read it as.
    pub name: String,
    /// What is shown beside its values.
    pub unit: String,
    /// The databases that it is read for.
    pub databases: Databases,
    /// Where its values come from.
    pub source: SignalSource,
    /// How often it is sampled, and how long an answer may take.
    pub schedule: Schedule,
    /// Where it stands in the file.
    pub places: Places,
}

/// Where a signal's values come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignalSource {
    /// `sql`: a query on the database.
    Sql(String),
    /// `http` and `prometheus`: what a server answers.
    Http {
        /// What is asked for.
        address: Address,
        /// A bearer token.
        token: Option<Secret>,
        /// What of the answer is the value.
        part: Part,
    },
    /// `file`: a number in a file.
    File(PathBuf),
}

/// A controller: a WebAssembly component that sets the pace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// What it is called everywhere.
    pub name: String,
    /// The component's file.
    pub path: PathBuf,
    /// The SHA-256 digest that the file must have.
    pub sha256: Option<[u8; 32]>,
    /// The databases that it paces, or on which it is a shadow.
    pub databases: Databases,
    /// True where it is a shadow: asked beside the one that paces, and heard by nobody.
    pub shadow: bool,
    /// What stands in for it when it fails.
    pub fallback: Fallback,
    /// Faults in a row after which the fallback takes over.
    pub max_faults: u32,
    /// What the controller reads as its settings.
    pub settings: Settings,
    /// What it may use.
    pub limits: Limits,
    /// Where it stands in the file.
    pub places: Places,
}

/// A controller's settings: they may hold secrets, so that `Debug` shows their keys alone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Settings(pub BTreeMap<String, String>);

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settings")?;
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// An update's definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// `update_name` in the queue.
    pub name: String,
    /// The databases that it is defined for.
    pub databases: Databases,
    /// The lane that it is worked on in.
    pub lane: String,
    /// What it does.
    pub kind: UpdateKind,
    /// `[settings]`: what its statements may use.
    pub settings: Values,
    /// Which rows of its table it is about.
    pub reach: Reach,
    /// How many may work on it at once.
    pub workers: usize,
    /// True where its rows are looked at again before it ends.
    pub verify: bool,
    /// Where it stops for approval.
    pub gate: Gate,
    /// True where a trigger keeps its rows.
    pub keep: bool,
    /// How many rows may be left behind that the database refuses; `None` where the first such ends the batch.
    pub tolerance: Option<Tolerance>,
    /// True where it runs though rows of what it depends on were left behind.
    pub skipped_ok: bool,
    /// Where it stands in the file.
    pub places: Places,
}

/// What a transform does, and by which component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransformUpdate {
    /// Which rows and columns; its settings are those of `settings`.
    pub definition: TransformDefinition,
    /// The component's file.
    pub component: PathBuf,
    /// The SHA-256 digest that the file must have.
    pub sha256: Option<[u8; 32]>,
    /// What the component reads as its settings.
    pub settings: Settings,
    /// What it may use.
    pub limits: HandlerLimits,
    /// True where it meets the machine's own clock and chance.
    pub impure: bool,
}

/// A job: rows that are queued together.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// What it is.
    pub definition: tidegate_admin::Job,
    /// Where it stands in the file.
    pub places: Places,
}

/// What an update does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateKind {
    /// `backfill`: sets columns of rows in the order of a key.
    Backfill(BackfillDefinition),
    /// `delete`: deletes rows in the order of a key.
    Delete(DeleteDefinition),
    /// `copy`: inserts rows into another table in the order of a key.
    Copy(CopyDefinition),
    /// `batch`: executes statements for each batch of a walk along a key.
    Batch(BatchDefinition),
    /// `create-index`: builds an index.
    CreateIndex(CreateIndexDefinition),
    /// `validate-constraint`: validates a constraint.
    ValidateConstraint(ValidateConstraintDefinition),
    /// `validate-constraint-and-delete`: validates a constraint, deleting the rows that break it where need be.
    ValidateAndDelete(ValidateAndDeleteDefinition),
    /// `sql`: executes a script once.
    Script(ScriptDefinition),
    /// `unkeep`: drops the triggers that keep an update's rows.
    Unkeep(UnkeepDefinition),
    /// `transform`: has a component make new values for columns of rows, in the order of a key.
    Transform(Box<TransformUpdate>),
    /// `noop`: ends at once.
    Noop,
    /// `refuse`: is not done, for this reason.
    Refuse(String),
}

impl UpdateKind {
    /// The table that it works on, where it is about one.
    pub fn table(&self) -> Option<&TableName> {
        match self {
            UpdateKind::Backfill(definition) => Some(&definition.table),
            UpdateKind::Delete(definition) => Some(&definition.table),
            UpdateKind::Copy(definition) => Some(&definition.table),
            UpdateKind::Batch(definition) => Some(&definition.table),
            UpdateKind::CreateIndex(definition) => Some(&definition.table),
            UpdateKind::ValidateConstraint(definition) => Some(&definition.table),
            UpdateKind::ValidateAndDelete(definition) => Some(&definition.table),
            UpdateKind::Transform(transform) => Some(&transform.definition.table),
            UpdateKind::Script(_) | UpdateKind::Unkeep(_) | UpdateKind::Noop | UpdateKind::Refuse(_) => None,
        }
    }
}
