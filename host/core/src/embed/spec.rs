//! One database of a host that is being built.

use std::collections::HashSet;
use std::sync::Arc;

use super::error::{BuildError, TooSmall, at_least_one};
use crate::controller::{BuiltIn, Fallback, Policy, ShadowPolicy, Source, SupervisorSettings, Witness};
use crate::scheduler::database::{Holder, Open};
use crate::scheduler::{Lanes, Workload};
use crate::update::Handler;

/// A database for [`HostBuilder::database`](super::HostBuilder::database): where it is, what is to be done there, and
/// who sets the pace. Without a controller it is the built-in policy: a sleep of 1,000 ms, then a batch of 100 ms.
///
/// Nothing is looked at before [`HostBuilder::build`](super::HostBuilder::build), and nothing connects before
/// [`Host::run`](crate::scheduler::Host::run).
#[must_use = "a database does nothing until it is given to HostBuilder::database"]
pub struct DatabaseSpec {
    pub(super) name: String,
    place: Box<dyn Open>,
    /// In the order in which they were given, twins included: they are found when the host is built.
    updates: Vec<(String, Arc<dyn Handler>)>,
    lanes: Lanes,
    policy: Policy,
    supervision: SupervisorSettings,
    shadows: Vec<ShadowPolicy>,
    witnesses: Vec<Arc<dyn Witness>>,
}

impl DatabaseSpec {
    /// A database, by the name that controllers and operators are to see ("master" where there is but one), and what opens
    /// it: a driver, such as `tidegate_sqlite::Sqlite` or `tidegate_postgres::Postgres`, or a database that is open already.
    ///
    /// A program that opens it by itself, and keeps a clone, can queue updates, look at the queue, and pause it while the
    /// host works.
    pub fn new(name: impl Into<String>, place: impl Open + 'static) -> Self {
        Self {
            name: name.into(),
            place: Box::new(place),
            updates: Vec::new(),
            lanes: Lanes::default(),
            policy: Policy::BuiltIn,
            supervision: SupervisorSettings::default(),
            shadows: Vec::new(),
            witnesses: Vec::new(),
        }
    }

    /// Defines an update: what is to be done where the queue has a row of this name. It may be a handler of one's own, or
    /// one of the kinds in [`update`](crate::update), e.g. a [`Backfill`](crate::update::Backfill).
    pub fn update(mut self, update_name: impl Into<String>, handler: impl Handler + 'static) -> Self {
        self.updates.push((update_name.into(), Arc::new(handler)));
        self
    }

    /// Defines any number of updates whose handlers may be shared, e.g. with another database.
    pub fn updates(mut self, handlers: impl IntoIterator<Item = (String, Arc<dyn Handler>)>) -> Self {
        self.updates.extend(handlers);
        self
    }

    /// Puts an update in a lane, where it goes on beside the updates of other lanes: each lane has one update in hand at a
    /// time, with a controller instance and a connection of its own. What is put nowhere is in the first lane,
    /// [`Lanes::FIRST`]. On SQLite, which takes one writer at a time, lanes take turns.
    pub fn lane(mut self, update_name: impl Into<String>, lane: &str) -> Self {
        self.lanes.put(update_name, lane);
        self
    }

    /// Says of all updates in which lane each is; see [`DatabaseSpec::lane`].
    pub fn lanes(mut self, lanes: Lanes) -> Self {
        self.lanes = lanes;
        self
    }

    /// Lets a controller set the pace: a `tidegate_wasm::ComponentSource`, which is a WebAssembly component, or one written in
    /// Rust, by way of [`Native`](crate::controller::Native).
    pub fn controller(self, source: impl Source + 'static) -> Self {
        self.policy(Policy::Controller(Arc::new(source)))
    }

    /// Says who sets the pace, in all the ways that there are; of several calls the last counts.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the built-in policy's sleep and target duration. It sets the pace where there is no controller, and where one
    /// failed whose fallback it is.
    pub fn built_in(mut self, built_in: BuiltIn) -> Self {
        self.supervision.builtin = built_in;
        self
    }

    /// Says who takes over from a controller that fails. Default: [`Fallback::Default`], the built-in policy.
    pub fn fallback(mut self, fallback: Fallback) -> Self {
        self.supervision.fallback = fallback;
        self
    }

    /// Sets all that bounds whoever sets the pace: batch sizes, the longest target duration, when the fallback takes
    /// over; the built-in policy and the fallback included.
    pub fn supervision(mut self, supervision: SupervisorSettings) -> Self {
        self.supervision = supervision;
        self
    }

    /// Has controllers asked what whoever sets the pace is asked, on tasks of their own. What they answer is told, as
    /// [`EventKind::Shadow`](crate::scheduler::event::EventKind::Shadow), and done by nobody.
    pub fn shadows(mut self, shadows: impl IntoIterator<Item = ShadowPolicy>) -> Self {
        self.shadows.extend(shadows);
        self
    }

    /// Shows every call of whoever sets the pace to these, e.g. a `tidegate_simulate::trace::Recorder`.
    pub fn witnesses(mut self, witnesses: impl IntoIterator<Item = Arc<dyn Witness>>) -> Self {
        self.witnesses.extend(witnesses);
        self
    }

    /// The database as the scheduler takes it, found to be in order.
    pub(super) fn into_workload(self, holder: &Holder) -> Result<Workload, BuildError> {
        self.check_updates()?;
        self.check_supervision().map_err(|TooSmall { setting, given, least }| {
            let database = self.name.clone();
            BuildError::DatabaseSetting { database, setting, given, least }
        })?;
        let database = self.place.open(holder);
        let database = database.map_err(|source| BuildError::Database { database: self.name.clone(), source })?;
        Ok(Workload {
            name: self.name,
            database,
            handlers: self.updates.into_iter().collect(),
            lanes: self.lanes,
            policy: self.policy,
            supervision: self.supervision,
            shadows: self.shadows,
            witnesses: self.witnesses,
        })
    }

    fn check_updates(&self) -> Result<(), BuildError> {
        let mut seen = HashSet::new();
        for (update_name, _) in &self.updates {
            let (database, update_name) = (self.name.clone(), update_name.clone());
            if update_name.is_empty() {
                return Err(BuildError::UnnamedUpdate { database });
            }
            if !seen.insert(update_name.clone()) {
                return Err(BuildError::UpdateTwice { database, update_name });
            }
        }
        Ok(())
    }

    fn check_supervision(&self) -> Result<(), TooSmall> {
        at_least_one("max_faults", self.supervision.max_faults.into())?;
        at_least_one("default_batch_size", self.supervision.default_batch_size.into())?;
        at_least_one("min_batch_size", self.supervision.min_batch_size.into())
    }
}
