//! Steering a host: what is said is what the same command says of a database.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;
use tidegate::scheduler::choice::{check_dependencies, dependents};
use tidegate::scheduler::database::QueueRow;
use tidegate::update::Progress;
use tidegate_admin::api::view::{QueuedUpdate, Results as Answer};

use super::super::enqueue::unfit;
use super::super::results::{Results, of_skipped};
use super::{CliError, Remote};

/// Rows to be queued.
pub(crate) struct Rows<'a> {
    pub names: &'a [String],
    /// The progress that each begins at.
    pub progress: &'a Progress,
    pub depends_on: Option<&'a str>,
    pub ordering: i32,
    /// Whether what would never run is queued, too.
    pub force: bool,
}

impl Remote {
    /// Stores a pause on one database or on all.
    pub(crate) async fn pause(
        &self,
        database: Option<&str>,
        reason: Option<String>,
        results: &mut Results,
    ) -> Result<(), CliError> {
        let body = json!({ "persist": true, "reason": reason });
        tell(&self.post(&place(database, "pause"), Some(&body)).await?, results)
    }

    /// Lifts the pauses of one database or of all.
    pub(crate) async fn resume(&self, database: Option<&str>, results: &mut Results) -> Result<(), CliError> {
        tell(&self.post(&place(database, "resume"), None::<&()>).await?, results)
    }

    /// Queues updates, on every database that they are defined for.
    pub(crate) async fn enqueue(
        &self,
        rows: &Rows<'_>,
        database: Option<&str>,
        results: &mut Results,
    ) -> Result<(), CliError> {
        let databases = self.databases(database).await?;
        // Nothing is queued unless everything can be.
        let mut planned = Vec::new();
        for name in rows.names {
            let mut defining = Vec::new();
            for database in &databases {
                let update = self.update(&database.name, name, 0).await?;
                if update.is_some_and(|update| update.defined) {
                    defining.push(&database.name);
                }
            }
            match (defining.is_empty(), rows.force) {
                (false, _) => {}
                (true, true) => defining.extend(databases.iter().map(|database| &database.name)),
                (true, false) => {
                    return Err(CliError::usage(format!("there is no definition of update \"{name}\""))
                        .hint("define it in [[update]] and reload the host, or queue it all the same with `--force`"));
                }
            }
            planned.extend(defining.into_iter().map(|database| (database, name)));
        }
        if let Some(depends_on) = rows.depends_on {
            for database in &databases {
                let names = planned.iter().filter(|(on, _)| **on == database.name);
                let names: Vec<&str> = names.map(|(_, name)| name.as_str()).collect();
                let queued: Vec<QueueRow> = self.rows(&database.name).await?.into_iter().map(row).collect();
                let wanted: Vec<_> = names.iter().map(|name| (*name, Some(depends_on))).collect();
                check_dependencies(&queued, &wanted, rows.force)
                    .map_err(|(depends_on, because)| unfit(&database.name, &queued, &names, &depends_on, because))?;
            }
        }
        for (database, name) in planned {
            let body = json!({
                "name": name,
                "progress": rows.progress.0,
                "depends_on": rows.depends_on,
                "ordering": rows.ordering,
                "force": rows.force,
            });
            tell(&self.post(&["databases", database, "updates"], Some(&body)).await?, results)?;
        }
        Ok(())
    }

    /// Has updates tried again: those named, or every one that failed.
    pub(crate) async fn retry(
        &self,
        names: &[String],
        all: bool,
        database: Option<&str>,
        results: &mut Results,
    ) -> Result<(), CliError> {
        let mut met = BTreeSet::new();
        for database in self.databases(database).await? {
            for row in self.rows(&database.name).await? {
                let asked = if all { row.last_error.is_some() } else { names.contains(&row.name) };
                if asked {
                    let path = ["databases", &database.name, "updates", &row.name, "retry"];
                    tell(&self.post(&path, None::<&()>).await?, results)?;
                    met.insert(row.name);
                }
            }
        }
        if all && met.is_empty() {
            return results.remark("no update has failed");
        }
        all_met(names, &met)
    }

    /// Has the rows tried again that updates skipped, on every database that they are defined for.
    pub(crate) async fn retry_skipped(
        &self,
        names: &[String],
        database: Option<&str>,
        results: &mut Results,
    ) -> Result<(), CliError> {
        let databases = self.databases(database).await?;
        for name in names {
            let mut defined = false;
            for database in &databases {
                let update = self.update(&database.name, name, 0).await?;
                if update.is_some_and(|update| update.defined) {
                    defined = true;
                    let (path, query) =
                        (["databases", &database.name, "updates", name, "retry"], [("skipped", "true".to_owned())]);
                    let answer: Answer = self.ask(Method::POST, &path, &query, None::<&()>).await?;
                    answer.results.iter().try_for_each(|done| results.tell_as(done, &of_skipped(done)))?;
                }
            }
            if !defined {
                return Err(CliError::usage(format!("there is no definition of update \"{name}\""))
                    .hint("define it in [[update]] and reload the host"));
            }
        }
        Ok(())
    }

    /// Takes updates out of the queues.
    pub(crate) async fn cancel(
        &self,
        names: &[String],
        with_dependents: bool,
        database: Option<&str>,
        results: &mut Results,
    ) -> Result<(), CliError> {
        let mut met = BTreeSet::new();
        for database in self.databases(database).await? {
            let rows: Vec<QueueRow> = self.rows(&database.name).await?.into_iter().map(row).collect();
            let dependents = dependents(&rows, names);
            if !dependents.is_empty() && !with_dependents {
                let (name, dependents) = (&database.name, dependents.join(", "));
                let message = format!(
                    "what depends on them on {name} would run without them: {dependents}; nothing was cancelled there"
                );
                return Err(CliError::failure(message).hint("cancel them too, with `--with-dependents`"));
            }
            // One may go with another that it depends on.
            let mut gone: BTreeSet<String> = BTreeSet::new();
            for row in rows.iter().filter(|row| names.contains(&row.update_name)) {
                if !gone.contains(&row.update_name) {
                    let answer = self.cancel_one(&database.name, &row.update_name).await?;
                    tell(&answer, results)?;
                    gone.extend(answer.results.into_iter().filter_map(|done| done.update));
                }
            }
            met.extend(gone);
        }
        all_met(names, &met)
    }

    async fn cancel_one(&self, database: &str, name: &str) -> Result<Answer, CliError> {
        let query = [("with_dependents", "true".to_owned())];
        self.ask(Method::DELETE, &["databases", database, "updates", name], &query, None::<&()>).await
    }

    /// Does `action` to each of these updates: "accept", "approve".
    pub(crate) async fn act(
        &self,
        action: &str,
        names: &[String],
        database: Option<&str>,
        results: &mut Results,
    ) -> Result<BTreeSet<String>, CliError> {
        let mut met = BTreeSet::new();
        for database in self.databases(database).await? {
            for row in self.rows(&database.name).await?.into_iter().filter(|row| names.contains(&row.name)) {
                let path = ["databases", &database.name, "updates", &row.name, action];
                tell(&self.post(&path, None::<&()>).await?, results)?;
                met.insert(row.name);
            }
        }
        Ok(met)
    }

    /// Has the triggers dropped that keep the rows of these updates.
    pub(crate) async fn unkeep(
        &self,
        names: &[String],
        database: Option<&str>,
        results: &mut Results,
    ) -> Result<(), CliError> {
        let mut met = BTreeSet::new();
        for database in self.databases(database).await? {
            let kept = self.queue(&database.name).await?.map_err(CliError::failure)?.kept;
            let kept: BTreeSet<String> = kept.into_iter().map(|kept| kept.update).collect();
            for name in kept.into_iter().filter(|name| names.contains(name)) {
                let path = ["databases", &database.name, "updates", &name, "unkeep"];
                tell(&self.post(&path, None::<&()>).await?, results)?;
                met.insert(name);
            }
        }
        match names.iter().find(|name| !met.contains(*name)) {
            Some(name) => Err(CliError::failure(format!("no trigger keeps the rows of update \"{name}\""))
                .hint("`tidegate status` shows what is kept")),
            None => Ok(()),
        }
    }

    async fn rows(&self, database: &str) -> Result<Vec<QueuedUpdate>, CliError> {
        let queue = self.queue(database).await?;
        queue.map(|queue| queue.updates).map_err(CliError::failure)
    }
}

fn row(update: QueuedUpdate) -> QueueRow {
    QueueRow { update_name: update.name, depends_on: update.depends_on, ..QueueRow::default() }
}

pub(crate) fn all_met(names: &[String], met: &BTreeSet<String>) -> Result<(), CliError> {
    match names.iter().find(|name| !met.contains(*name)) {
        Some(name) => Err(CliError::failure(format!("update \"{name}\" is not queued"))
            .hint("`tidegate status` shows what is; `tidegate enqueue` queues it")),
        None => Ok(()),
    }
}

/// Where a command for one database or for all is posted.
fn place<'a>(database: Option<&'a str>, command: &'a str) -> Vec<&'a str> {
    match database {
        Some(name) => vec!["databases", name, command],
        None => vec![command],
    }
}

/// Tells what was done.
fn tell(answer: &Answer, results: &mut Results) -> Result<(), CliError> {
    answer.results.iter().try_for_each(|done| results.tell(done))
}
