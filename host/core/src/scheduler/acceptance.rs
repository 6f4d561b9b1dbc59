//! An update under whose walk the definition changed, and which is to go on under the one of now.

use super::database::{Begin, Database, QueueRow};
use super::ledger::{Action, Note};
use crate::update::{Handler, Progress, SqlError, UpdateError, accept_definition};

/// Why an update does not go on under another definition.
#[derive(Debug, thiserror::Error)]
pub enum Unaccepted {
    /// More than the definition changed: the place of the walk would mean nothing, or there is no place that can be read.
    #[error("update \"{update_name}\" cannot go on")]
    CannotGoOn {
        /// The update.
        update_name: String,
        /// What its handler says.
        source: UpdateError,
    },
    /// Somebody moved the update on meanwhile.
    #[error("update \"{0}\" moved on meanwhile; nothing was changed")]
    Moved(String),
    /// The database refuses.
    #[error(transparent)]
    Sql(#[from] SqlError),
}

/// True where a row's definition is not the one that its update began with.
pub fn is_redefined(row: &QueueRow, handler: &dyn Handler) -> bool {
    let mode = Progress::parse(&row.progress).and_then(|progress| handler.mode(&progress));
    matches!(mode, Err(UpdateError::Redefined { .. }))
}

/// Has the rows that are left of an update done under its definition of now, and lets it run again. What changed comes
/// back; `None` where nothing did.
///
/// # Errors
/// See [`Unaccepted`].
pub async fn accept(
    database: &dyn Database,
    row: &QueueRow,
    handler: &dyn Handler,
) -> Result<Option<String>, Unaccepted> {
    let name = &row.update_name;
    let changed = changed(row, handler);
    let changed = changed.map_err(|source| Unaccepted::CannotGoOn { update_name: name.clone(), source })?;
    let Some((changes, accepted)) = changed else { return Ok(None) };
    match database.begin(name, &row.progress).await? {
        Begin::Moved(_) => return Err(Unaccepted::Moved(name.clone())),
        Begin::Failed(error) => return Err(error.into()),
        Begin::Ready(mut transaction) => {
            transaction.note(Note::of(Action::Accepted).saying(&changes));
            transaction.commit(Some(&accepted.to_json())).await?;
        }
    }
    database.clear_failures(name).await?;
    Ok(Some(changes))
}

/// What changed in the definition of a row, and the progress to go on with; `None` where nothing did.
fn changed(row: &QueueRow, handler: &dyn Handler) -> Result<Option<(String, Progress)>, UpdateError> {
    let progress = Progress::parse(&row.progress)?;
    let quarantined = row.failure.as_ref().is_some_and(|failure| failure.quarantined);
    match (handler.mode(&progress), accept_definition(&progress)) {
        (Err(UpdateError::Redefined { changes }), Some(accepted)) => {
            handler.mode(&accepted)?;
            Ok(Some((changes, accepted)))
        }
        // The types of columns are known to the database alone: the host has met that they changed.
        (Ok(_), Some(accepted)) if quarantined => Ok(Some(("what the last failure names".to_owned(), accepted))),
        (Ok(_), _) => Ok(None),
        (Err(error), _) => Err(error),
    }
}
