//! The host as a whole.

use std::collections::HashSet;
use std::time::Duration;

use super::error::{BuildError, TooSmall, at_least_one};
use super::spec::DatabaseSpec;
use crate::pace::Estimator;
use crate::scheduler::database::Holder;
use crate::scheduler::{Host, Settings};

/// The shortest time between two looks at a queue: as in the configuration file. A shorter one would keep a database
/// busy with nothing else.
const SHORTEST_POLL: Duration = Duration::from_millis(10);

/// Puts a [`Host`] together. Its settings have the same defaults as in the configuration file.
#[must_use = "a builder does nothing until `build` is called"]
pub struct HostBuilder {
    databases: Vec<DatabaseSpec>,
    settings: Settings,
}

impl Host {
    /// Begins a host: it needs a database, all else has defaults.
    pub fn builder() -> HostBuilder {
        HostBuilder { databases: Vec::new(), settings: Settings::new(Holder::this_process()) }
    }
}

impl HostBuilder {
    /// Adds a database; each is worked on by itself, at the same time as the others.
    pub fn database(mut self, database: DatabaseSpec) -> Self {
        self.databases.push(database);
        self
    }

    /// Says how this host is known to others as the one runner of a database. Default: [`Holder::this_process`].
    pub fn holder(mut self, holder: Holder) -> Self {
        self.settings.holder = holder;
        self
    }

    /// Sets how often a queue is polled. Default: 1,000 ms; at least 10 ms.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.settings.poll_interval = interval;
        self
    }

    /// Sets the most items of a batch, whatever a controller says. Default: 1,000,000; at least 1.
    pub fn max_batch_size(mut self, items: u64) -> Self {
        self.settings.max_batch_size = items;
        self
    }

    /// Sets how the batches of an update are sized. Default: [`Estimator::Slices`].
    pub fn estimator(mut self, estimator: Estimator) -> Self {
        self.settings.estimator = estimator;
        self
    }

    /// Sets how long a batch may go on beyond its target for the least number of items that its controller asks for. One
    /// item is always done. Default: 1 s.
    pub fn cut_off(mut self, limit: Duration) -> Self {
        self.settings.cut_off = limit;
        self
    }

    /// Sets after how many failures in a row an update is quarantined. Default: 5; at least 1.
    pub fn max_attempts(mut self, failures: u32) -> Self {
        self.settings.max_attempts = failures;
        self
    }

    /// Sets how long a running batch may go on once the host was asked to stop; then it is rolled back. Default: 10 s.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.settings.shutdown_grace = grace;
        self
    }

    /// Lets the host end once nothing can run. Otherwise it goes on until it is asked to stop.
    pub fn until_done(self) -> Self {
        self.end_when_done(true)
    }

    /// As [`HostBuilder::until_done`], where it depends.
    pub fn end_when_done(mut self, until_done: bool) -> Self {
        self.settings.until_done = until_done;
        self
    }

    /// The host, which does nothing until it is [run](Host::run). Whether the databases are there shows then.
    ///
    /// # Errors
    /// [`BuildError`] names the first part that is wrong: no database, two of one name, two updates of one name for one
    /// database, an empty name, a URL that cannot be used, a setting out of its range.
    pub fn build(self) -> Result<Host, BuildError> {
        self.check_names()?;
        self.check_settings().map_err(|TooSmall { setting, given, least }| BuildError::Setting {
            setting,
            given,
            least,
        })?;
        let holder = &self.settings.holder;
        let workloads = self.databases.into_iter().map(|database| database.into_workload(holder));
        let workloads = workloads.collect::<Result<_, _>>()?;
        Ok(Host::new(workloads, self.settings))
    }

    fn check_names(&self) -> Result<(), BuildError> {
        if self.databases.is_empty() {
            return Err(BuildError::NoDatabase);
        }
        let mut seen = HashSet::new();
        for DatabaseSpec { name, .. } in &self.databases {
            if name.is_empty() {
                return Err(BuildError::UnnamedDatabase);
            }
            if !seen.insert(name) {
                return Err(BuildError::DatabaseTwice { database: name.clone() });
            }
        }
        Ok(())
    }

    fn check_settings(&self) -> Result<(), TooSmall> {
        let Settings { poll_interval, max_batch_size, max_attempts, .. } = &self.settings;
        if *poll_interval < SHORTEST_POLL {
            let (given, least) = (format!("{poll_interval:?}"), format!("{SHORTEST_POLL:?}"));
            return Err(TooSmall { setting: "poll_interval", given, least });
        }
        at_least_one("max_batch_size", *max_batch_size)?;
        at_least_one("max_attempts", (*max_attempts).into())
    }
}
