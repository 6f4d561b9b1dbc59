//! Pauses: of a database, stored there; and of the host in this process, which no table knows of.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{Host, Operations, Refusal};
use crate::scheduler::database::{Pause, unix_ms};
use crate::scheduler::ledger::{Action, Note};
use crate::scheduler::withdrawal::{Running, in_one_go};
use crate::update::{ErrorClass, SqlError};

/// How long it may take to write into the ledger what is done to a host in any case.
const NOTE_PATIENCE: Duration = Duration::from_secs(5);

impl Operations<'_> {
    /// Lets no batch begin until somebody resumes the database, restarts and takeovers included. The updates that run in one go at
    /// this moment, which go on to their ends, come back.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn pause(&self, reason: Option<String>) -> Result<Vec<String>, Refusal> {
        let pause = Pause { since_ms: unix_ms(SystemTime::now()), reason };
        let stored = match self.database.prepare().await {
            Ok(()) => self.database.set_pause(Some(&pause)).await,
            Err(error) => Err(error),
        };
        let running = self.written(stored).await?;
        if let Some(host) = self.host {
            host.board.note_pause(host.name, Some(pause.reason));
            host.control.wake();
        }
        Ok(running.into_iter().map(|running| running.update_name).collect())
    }

    /// What runs in one go beside what was written, or why it was not.
    async fn written(&self, written: Result<(), SqlError>) -> Result<Vec<Running>, Refusal> {
        let found = async { in_one_go(self.database, &self.look().await?).await };
        match written {
            // It is written, whoever else is at work.
            Ok(()) => Ok(found.await.unwrap_or_default()),
            Err(error) if error.class == ErrorClass::Transient => {
                let running = found.await.unwrap_or_default().into_iter().next();
                Err(running.map_or(Refusal::Database(error), Refusal::Busy))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Lets the host in this process begin no batch until it restarts or is resumed. Another host may take over.
    pub async fn pause_until_restart(&self, reason: Option<String>) {
        if let Some(host) = self.host {
            host.control.set_pause(host.name, Some(reason.clone()));
            host.board.note_pause(host.name, Some(reason.clone()));
            self.note(paused_here(reason.as_deref())).await;
        }
    }

    /// The same of all databases of a host, which are these, at once.
    pub async fn pause_all_until_restart(all: &[Self]) {
        let hosts: Vec<Host<'_>> = all.iter().filter_map(|one| one.host).collect();
        if hosts.iter().any(|host| host.control.is_enabled()) {
            hosts.iter().for_each(|host| host.control.set_enabled(false));
            join_all(all.iter().map(|one| one.note(paused_here(None)))).await;
        }
    }

    /// Writes into the ledger that the host in this process goes on, where that alone was paused: before anything that comes of
    /// it is in there.
    async fn note_going_on(&self) {
        let paused = |host: Host<'_>| !host.control.is_enabled() || host.control.pause_of(host.name).is_some();
        if self.host.is_some_and(paused) {
            self.note(Note::of(Action::Resumed).saying("what was paused until the host restarts")).await;
        }
    }

    /// Writes into the ledger what is done to the host in this process, and in no table. It is done, whatever the database says.
    async fn note(&self, note: Note) {
        let noted = async {
            self.database.prepare().await?;
            self.database.note(&note).await
        };
        let trouble = match timeout(NOTE_PATIENCE, noted).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the database does not answer".to_owned(),
        };
        let database = self.host.map(|host| host.name);
        tracing::warn!(database, trouble, "a pause, or its end, is not in the ledger");
    }

    /// Lifts every pause of the database.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn resume(&self) -> Result<(), Refusal> {
        let disabled = self.host.is_some_and(|host| !host.control.is_enabled());
        if disabled && self.host.is_some_and(|host| !host.alone) {
            return Err(Refusal::WholeHostPaused);
        }
        // To write, SQLite may have to wait for a batch.
        if self.look().await?.pause.is_some() {
            self.written(self.database.set_pause(None).await).await?;
        }
        self.note_going_on().await;
        if let Some(host) = self.host {
            host.board.note_pause(host.name, None);
            host.control.set_pause(host.name, None);
            if disabled {
                host.control.set_enabled(true);
            }
            host.control.wake();
        }
        Ok(())
    }

    /// Lifts every pause of all databases of a host, which are these, and tells of each whether it is. One that does not answer
    /// keeps no other paused.
    pub async fn resume_all(all: &[Self]) -> Vec<Result<(), Refusal>> {
        join_all(all.iter().map(Self::note_going_on)).await;
        for host in all.iter().filter_map(|one| one.host) {
            host.control.set_pause(host.name, None);
            host.control.set_enabled(true);
        }
        join_all(all.iter().map(Self::resume)).await
    }
}

fn paused_here(reason: Option<&str>) -> Note {
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Note::of(Action::Paused).saying(format!("until the host restarts{reason}"))
}
