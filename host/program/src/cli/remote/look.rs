//! Looking at a host: its databases, their queues, the history of an update.

use reqwest::Method;
use tidegate_admin::api::view::{
    Database, Databases, Defined, Iteration, Ledger, LedgerEntry, Queue, Required, Signal, Signals, SkippedKey,
};

use super::{CliError, Remote, output};

impl Remote {
    /// The databases that a command is for: the one named, or all.
    pub(crate) async fn databases(&self, name: Option<&str>) -> Result<Vec<Database>, CliError> {
        let Databases { databases } = self.get(&["databases"], &[]).await?;
        let Some(name) = name else { return Ok(databases) };
        if let Some(database) = databases.iter().find(|database| database.name == name) {
            return Ok(vec![database.clone()]);
        }
        let known = databases.iter().map(|database| database.name.as_str());
        let hint = match output::nearest(name, known.clone()) {
            Some(nearest) => format!("did you mean \"{nearest}\"?"),
            None => format!("there is {}", known.collect::<Vec<_>>().join(", ")),
        };
        Err(CliError::usage(format!("the host at {} has no database \"{name}\"", self.address)).hint(hint))
    }

    /// The queue of a database; the inner error is what the host, or its database, said.
    pub(crate) async fn queue(&self, database: &str) -> Result<Result<Queue, String>, CliError> {
        let queue = self.try_ask(Method::GET, &["databases", database, "updates"], &[], None::<&()>).await?;
        match queue {
            // The database does not answer, and the host does.
            Err(problem) if problem.kind.ends_with(":database") => Ok(Err(problem.detail)),
            Err(problem) => Err(super::refusal(problem)),
            Ok(queue) => Ok(Ok(queue)),
        }
    }

    /// An update; `None` where the host does not know the name.
    pub(super) async fn update(&self, database: &str, name: &str, limit: u32) -> Result<Option<Defined>, CliError> {
        let query = [("iterations", limit.to_string())];
        let path = ["databases", database, "updates", name];
        match self.try_ask(Method::GET, &path, &query, None::<&()>).await? {
            Ok(update) => Ok(Some(update)),
            Err(problem) if problem.kind.ends_with(":unknown-update") => Ok(None),
            Err(problem) => Err(super::refusal(problem)),
        }
    }

    /// The latest readings: those that can be had for one database, or all.
    pub(crate) async fn signals(&self, database: Option<&str>) -> Result<Vec<Signal>, CliError> {
        let Signals { signals } = match database {
            None => self.get(&["signals"], &[]).await?,
            Some(name) => self.get(&["databases", name, "signals"], &[]).await?,
        };
        Ok(signals)
    }

    /// Entries of a database's ledger, the newest first.
    pub(crate) async fn ledger(
        &self,
        database: &str,
        name: Option<&str>,
        limit: u32,
    ) -> Result<Vec<LedgerEntry>, CliError> {
        const PAGE: u32 = 1_000;
        let mut entries: Vec<LedgerEntry> = Vec::new();
        let mut before = None;
        loop {
            let left = limit.saturating_sub(entries.len().try_into().unwrap_or(u32::MAX));
            if left == 0 {
                return Ok(entries);
            }
            let mut query = vec![("limit", left.min(PAGE).to_string())];
            query.extend(name.map(|name| ("update", name.to_owned())));
            query.extend(before.map(|before: i64| ("before", before.to_string())));
            let page: Ledger = self.get(&["databases", database, "ledger"], &query).await?;
            entries.extend(page.entries);
            before = page.next_before;
            if before.is_none() {
                return Ok(entries);
            }
        }
    }

    /// Whether updates are done.
    pub(crate) async fn require(&self, names: &[String], database: Option<&str>) -> Result<Required, CliError> {
        let mut query: Vec<(&str, String)> = names.iter().map(|name| ("name", name.clone())).collect();
        query.extend(database.map(|database| ("database", database.to_owned())));
        self.get(&["require"], &query).await
    }

    /// The last iterations of an update on a database, the newest first, and the rows that it skipped.
    pub(crate) async fn history(
        &self,
        database: &str,
        name: &str,
        limit: u32,
    ) -> Result<(Vec<Iteration>, Vec<SkippedKey>), CliError> {
        let update = self.update(database, name, limit).await?;
        Ok(update.map(|update| (update.iterations, update.skipped)).unwrap_or_default())
    }
}
