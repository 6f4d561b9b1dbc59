//! What the API and the page do to a queue in the same way.

use super::state::{Site, State};
use tidegate::scheduler::acceptance::{Unaccepted, accept};
use tidegate::scheduler::withdrawal::{Withdrawal, withdraw};

/// Why an update is not taken for what it is defined as now.
pub(super) enum NotAccepted {
    /// It is not queued.
    NotQueued,
    /// Nothing defines it.
    Undefined,
    /// What stands in the way.
    Because(Unaccepted),
}

/// Takes updates out of the queue, whatever they do. The names that were there come back.
pub(super) async fn cancel(state: &State, site: &Site, names: &[String]) -> Result<Vec<String>, Withdrawal> {
    // This host itself need not be asked through the database, which SQLite would not let anybody write to meanwhile.
    for name in names {
        state.control().withdraw(&site.name, name);
    }
    let withdrawn = match site.database.prepare().await {
        Ok(()) => withdraw(&*site.database, names).await,
        Err(error) => Err(error.into()),
    };
    for name in names {
        state.control().forget_withdrawal(&site.name, name);
    }
    state.control().wake();
    withdrawn
}

/// Has an update go on under its definition of now. What changed comes back; `None` where nothing did.
pub(super) async fn accept_definition(state: &State, site: &Site, update: &str) -> Result<Option<String>, NotAccepted> {
    let because = |error: Unaccepted| NotAccepted::Because(error);
    let queue = site.database.look().await.map_err(|error| because(error.into()))?.unwrap_or_default();
    let row = queue.rows.iter().find(|row| row.update_name == update).ok_or(NotAccepted::NotQueued)?;
    let live = state.live();
    let handler = live.handlers.get(&site.name).and_then(|handlers| handlers.get(update));
    let handler = handler.ok_or(NotAccepted::Undefined)?;
    site.database.prepare().await.map_err(|error| because(error.into()))?;
    let changes = accept(&*site.database, row, &**handler).await.map_err(because)?;
    state.control().wake();
    Ok(changes)
}
