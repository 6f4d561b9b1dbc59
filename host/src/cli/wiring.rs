//! Where the parts meet: from what a configuration says to what does it. The only place that names drivers, kinds of
//! update and the sandbox.

use std::path::PathBuf;
use std::sync::Arc;

use tidegate::config::{self, Config, Target, UpdateKind};
use tidegate::controller::Fault;
use tidegate::database::{self, Options};
use tidegate::sandbox::{Artifact, ComponentSource, LoadOptions};
use tidegate::scheduler::Handlers;
use tidegate::scheduler::database::{Database, Holder};
use tidegate::update::{Backfill, CreateIndex, Delete, Handler, Noop};

use super::error::CliError;

/// A database as the scheduler knows it. It connects when it is first used.
pub(super) fn open(database: &config::Database) -> Result<Arc<dyn Database>, CliError> {
    let mut options = Options::new(Holder::this_process());
    options.queue_table.clone_from(&database.queue_table);
    let url = match &database.target {
        Target::Sqlite { path, busy_timeout } => {
            options.sqlite.busy_timeout = *busy_timeout;
            format!("sqlite:{}", path.display())
        }
        Target::Postgres { url, lock_timeout, statement_timeout, idle_in_transaction_timeout } => {
            options.postgres.lock_timeout = *lock_timeout;
            options.postgres.statement_timeout = *statement_timeout;
            options.postgres.idle_in_transaction_timeout = *idle_in_transaction_timeout;
            url.reveal().to_owned()
        }
    };
    database::open(&url, options)
        .map_err(|error| CliError::usage(format!("cannot use database \"{}\"", database.name)).because(error))
}

/// What does an update's work on a database.
pub(super) fn handler(update: &config::Update, database: &config::Database) -> Arc<dyn Handler> {
    match update.kind.clone() {
        UpdateKind::Backfill(definition) => Arc::new(Backfill::new(definition)),
        UpdateKind::Delete(definition) => Arc::new(Delete::new(definition)),
        UpdateKind::CreateIndex(definition) => Arc::new(CreateIndex::new(definition, database.target.system())),
        UpdateKind::Noop => Arc::new(Noop),
    }
}

/// What does the work of all updates that are defined for a database.
pub(super) fn handlers(config: &Config, database: &config::Database) -> Handlers {
    let updates = config.updates_of(&database.name);
    updates.map(|update| (update.name.clone(), handler(update, database))).collect()
}

/// A controller's component, read, compiled and linked.
pub(super) async fn controller(controller: &config::Controller) -> Result<Arc<ComponentSource>, Fault> {
    let options = LoadOptions {
        sha256: controller.sha256,
        limits: controller.limits.clone(),
        cache_directory: cache_directory(),
    };
    let artifact = Artifact::load(&controller.path, &options).await?;
    let settings = controller.settings.0.clone().into_iter().collect();
    Ok(Arc::new(ComponentSource::new(controller.name.clone(), artifact).with_settings(settings)))
}

/// Where compiled controllers are kept: what systemd gives a service, or else the user's own cache.
fn cache_directory() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    folder("CACHE_DIRECTORY").or_else(|| Some(user()?.join("tidegate")))
}
