//! Where the parts meet: from what a configuration says to what does it. The only place that names drivers, kinds of
//! update and the sandbox.

use std::sync::Arc;

use async_trait::async_trait;
use rustix::system::uname;
use tidegate::config;
use tidegate::controller::{Callback, Fault, FaultKind, Source};
use tidegate::scheduler::database::{Database, Holder};
use tidegate::update::{Budget, Handler, Mode, Progress, Sql, Step, UpdateError};

use super::error::CliError;

/// A database as the scheduler knows it. It connects when it is first used.
pub(super) fn open(database: &config::Database) -> Result<Arc<dyn Database>, CliError> {
    Err(CliError::failure(format!("this build has no driver for {}", database.target.system())))
}

/// This process, as the holder of leases.
pub(super) fn holder() -> Holder {
    Holder { host: uname().nodename().to_string_lossy().into_owned(), pid: std::process::id() }
}

/// What does an update's work on a database.
pub(super) fn handler(update: &config::Update, database: &config::Database) -> Arc<dyn Handler> {
    let _ = (&update.kind, database.target.system());
    Arc::new(Unwired)
}

/// A controller's component, read, compiled and linked.
pub(super) async fn controller(controller: &config::Controller) -> Result<Arc<dyn Source>, Fault> {
    let message = format!("this build has no sandbox to load {} into", controller.path.display());
    Err(Fault { kind: FaultKind::Incompatible, callback: Callback::Load, message })
}

/// Stands where the handler of each kind goes.
struct Unwired;

#[async_trait]
impl Handler for Unwired {
    fn mode(&self, _: &Progress) -> Result<Mode, UpdateError> {
        Ok(Mode::Batched)
    }

    async fn run(&self, _: &mut dyn Sql, _: &Progress, _: Budget) -> Result<Step, UpdateError> {
        Err(UpdateError::Failed("this build has no handlers".to_owned()))
    }
}
