//! Updates taken out of the queue, whatever they do at the moment.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::database::{Database, Holder, Queue, unix_ms};
use crate::update::{ErrorClass, SqlError};

/// How long a host may take to leave off what it does with an update that is to go.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often it is looked whether it has.
const INTERVAL: Duration = Duration::from_millis(200);

/// Why updates are not taken out of the queue.
#[derive(Debug, thiserror::Error)]
pub enum Withdrawal {
    /// One of them runs in one go, and lets go of nothing yet.
    #[error("update \"{update_name}\" runs in one go {since}, and has not left off: nothing was cancelled")]
    Runs {
        /// The update.
        update_name: String,
        /// Since when, in words.
        since: String,
        /// True where the host was asked, and takes the update out once it can.
        asked: bool,
    },
    /// The database refuses.
    #[error(transparent)]
    Sql(#[from] SqlError),
}

/// Takes updates out of the queue. A host that works on one of them is asked to leave off and waited for: nothing that is
/// called cancelled goes on. The names that were there come back.
///
/// # Errors
/// See [`Withdrawal`].
pub async fn withdraw(database: &dyn Database, names: &[String]) -> Result<Vec<String>, Withdrawal> {
    let queue = look(database).await?;
    let is_there = |name: &&String| queue.rows.iter().any(|row| row.update_name == **name);
    let there: Vec<String> = names.iter().filter(is_there).cloned().collect();
    let deadline = Instant::now() + PATIENCE;
    let asked = match database.withdraw(names).await {
        Ok(()) => true,
        // SQLite lets nobody write while something runs in one go.
        Err(error) if error.class == ErrorClass::Transient => false,
        Err(error) => return Err(error.into()),
    };
    loop {
        let queue = look(database).await?;
        let running =
            in_one_go(database, &queue).await?.into_iter().find(|running| names.contains(&running.update_name));
        let problem = match running {
            None => match database.cancel(names).await {
                // What the host took out meanwhile is gone as well.
                Ok(_) => return Ok(there),
                // A batch holds the row.
                Err(error) if error.class == ErrorClass::Transient => Withdrawal::Sql(error),
                Err(error) => return Err(error.into()),
            },
            Some(Running { update_name, since }) => Withdrawal::Runs { update_name, since, asked },
        };
        if Instant::now() >= deadline || !asked {
            return Err(problem);
        }
        sleep(INTERVAL).await;
    }
}

async fn look(database: &dyn Database) -> Result<Queue, SqlError> {
    Ok(database.look().await?.unwrap_or_default())
}

/// An update that runs in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The update.
    pub update_name: String,
    /// Since when, and who runs it, in words.
    pub since: String,
}

/// The updates that a living host runs in one go at this moment.
///
/// # Errors
/// Whatever the database says.
pub async fn in_one_go(database: &dyn Database, queue: &Queue) -> Result<Vec<Running>, SqlError> {
    let Some(activity) = &queue.activity else { return Ok(Vec::new()) };
    let is_queued = |name: &str| queue.rows.iter().any(|row| row.update_name == name);
    let found: Vec<(&str, i64)> = activity.in_one_go().filter(|(name, _)| is_queued(name)).collect();
    if found.is_empty() || database.lease_holder().await?.as_ref() != Some(&activity.holder) {
        return Ok(Vec::new());
    }
    let running = found.into_iter().map(|(name, since_ms)| {
        let Holder { host, pid } = &activity.holder;
        let seconds = unix_ms(SystemTime::now()).saturating_sub(since_ms).max(0) / 1_000;
        Running { update_name: name.to_owned(), since: format!("for {seconds} s (process {pid} on {host})") }
    });
    Ok(running.collect())
}
