//! What people do to a queue, each thing once and by one set of rules: the command line, the API, the page and Synapse's API
//! call these, and put what comes of it into words of their own.
//!
//! The ledger names whom the database is [known as](Database::known_as).

mod pauses;

use serde::{Deserialize, Serialize};

use super::acceptance::{Unaccepted, accept};
use super::board::{Board, DatabaseBoard, InHand, LeaseState, Phase};
use super::choice::{Unfit, check_dependencies, dependents};
use super::database::{AlreadyQueued, Begin, Database, NewRow, Queue};
use super::ledger::{Action, Note};
use super::withdrawal::{Running, Withdrawal, withdraw};
use super::{Control, Handlers};
use crate::update::approval::approve;
use crate::update::keep::Keep;
use crate::update::tolerance::{again, is_again};
use crate::update::{Progress, SqlError, UpdateError};

/// The most characters of a name in the queue. PostgreSQL's index over them takes 2,704 bytes, and a character up to four.
pub const LONGEST_NAME: usize = 500;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Did {
    /// It is in the queue now.
    Queued,
    /// It was in the queue, and stays as it was.
    AlreadyQueued,
    /// It is out of the queue.
    Cancelled,
    /// The triggers that kept its rows are dropped.
    Unkept,
    /// Its failures are forgotten, and it is tried again.
    Retried,
    /// It had not failed.
    NotFailed,
    /// The rows that are left are done under its definition of now.
    Accepted,
    /// Its definition is the one that it began with.
    Unchanged,
    /// It goes on: somebody has approved of it.
    Approved,
    /// It does not wait for approval.
    NotAwaiting,
    /// Its wait is over.
    RunNow,
    /// It does not wait: a batch runs, or is about to.
    Running,
    /// It has skipped no row.
    NothingSkipped,
    /// No batch begins any more.
    Paused,
    /// Batches begin again.
    Resumed,
}

impl Did {
    /// Every one.
    pub const ALL: [Did; 15] = [
        Did::Queued,
        Did::AlreadyQueued,
        Did::Cancelled,
        Did::Unkept,
        Did::Retried,
        Did::NotFailed,
        Did::Accepted,
        Did::Unchanged,
        Did::Approved,
        Did::NotAwaiting,
        Did::RunNow,
        Did::Running,
        Did::NothingSkipped,
        Did::Paused,
        Did::Resumed,
    ];
}

/// Why a thing is not done. Nothing of it was, then.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No update can have this name.
    #[error("the name of the update {0}")]
    Name(String),
    /// No update that another waits for can have this name.
    #[error("the name of the update that it depends on {0}")]
    DependencyName(String),
    /// Nothing defines this update.
    #[error("nothing defines update \"{0}\"")]
    Undefined(String),
    /// Its definition says that it is not done.
    #[error("tidegate does not do update \"{update_name}\": {reason}")]
    Refused {
        /// The update.
        update_name: String,
        /// Why not.
        reason: String,
    },
    /// The update's kind does not know this progress.
    #[error("update \"{update_name}\" cannot begin at that progress: {}", source.in_full())]
    Progress {
        /// The update.
        update_name: String,
        /// What its handler says.
        source: UpdateError,
    },
    /// It cannot wait for what it is to wait for.
    #[error("{}", unfit(depends_on, because))]
    Dependency {
        /// What that is.
        depends_on: String,
        /// Why not.
        because: Unfit,
    },
    /// These are queued already, where all were to be queued or none.
    #[error("already queued: {}", .0.join(", "))]
    AlreadyQueued(Vec<String>),
    /// This update is not queued.
    #[error("update \"{0}\" is not queued")]
    NotQueued(String),
    /// This update is queued, and has its triggers until it is done.
    #[error("update \"{0}\" is queued, and has its trigger until it is done")]
    StillQueued(String),
    /// No trigger keeps the rows of this update.
    #[error("no trigger keeps the rows of update \"{0}\"")]
    NotKept(String),
    /// These depend on what was to be cancelled, and would run without it.
    #[error("others depend on it: {}", .0.join(", "))]
    Dependents(Vec<String>),
    /// It runs in one go, and lets go of nothing yet.
    #[error(transparent)]
    StillRuns(Withdrawal),
    /// The database takes nothing from anybody while an update runs in one go.
    #[error("update \"{}\" runs in one go {}, and nobody can write meanwhile", .0.update_name, .0.since)]
    Busy(Running),
    /// It cannot go on under its definition of now.
    #[error(transparent)]
    Unaccepted(Unaccepted),
    /// Somebody moved the update on meanwhile.
    #[error("update \"{0}\" moved on meanwhile; nothing was changed")]
    Moved(String),
    /// All databases of the host are paused at once, and there are others besides this one.
    #[error("all databases of this host are paused until it restarts")]
    WholeHostPaused,
    /// There is nothing to hurry while updates are paused.
    #[error("updates are paused")]
    Paused,
    /// Nothing in the queue can run.
    #[error("nothing in the queue can run")]
    NothingInHand,
    /// This host does not work on the database.
    #[error("this host does not work on it")]
    NotTheRunner,
    /// The database refuses.
    #[error(transparent)]
    Database(#[from] SqlError),
}

fn unfit(depends_on: &str, because: &Unfit) -> String {
    match because {
        Unfit::NotQueued => format!("nothing would be waited for: \"{depends_on}\" is not queued"),
        Unfit::Cycle(way) => {
            let first = way.first().cloned().unwrap_or_default();
            format!("each would wait for the next: {} -> {first}", way.join(" -> "))
        }
    }
}

/// Updates to be queued.
#[derive(Debug, Clone)]
pub struct NewUpdates {
    /// Their rows.
    pub rows: Vec<NewRow>,
    /// True to queue also what is not defined, at progress that its kind does not know, and behind what is not queued.
    pub force: bool,
}

/// Whose failures are to be forgotten.
#[derive(Debug, Clone, Copy)]
pub enum Failed<'a> {
    /// These updates'.
    Named(&'a [String]),
    /// Everyone's.
    All,
}

/// The host in this process, where there is one.
#[derive(Clone, Copy)]
struct Host<'a> {
    name: &'a str,
    control: &'a Control,
    board: &'a Board,
    alone: bool,
}

/// What can be done to a database's queue.
#[derive(Clone, Copy)]
pub struct Operations<'a> {
    database: &'a dyn Database,
    host: Option<Host<'a>>,
}

impl<'a> Operations<'a> {
    /// From outside of any host. One that works on the queue notices within a second.
    pub fn on(database: &'a dyn Database) -> Self {
        Self { database, host: None }
    }

    /// From within the process of a host, which knows the database as `name` and notices at once. `alone` where the host has no
    /// other.
    pub fn within(self, name: &'a str, control: &'a Control, board: &'a Board, alone: bool) -> Self {
        Self { host: Some(Host { name, control, board, alone }), ..self }
    }

    async fn look(&self) -> Result<Queue, SqlError> {
        Ok(self.database.look().await?.unwrap_or_default())
    }

    fn wake(&self) {
        if let Some(host) = self.host {
            host.control.wake();
        }
    }

    /// Looks whether updates can be queued, and makes the database ready for them: of several databases nothing is to be queued
    /// on one before all are ready.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn admit(&self, new: &NewUpdates, handlers: &Handlers) -> Result<(), Refusal> {
        let NewUpdates { rows, force } = new;
        for row in rows {
            check_name(&row.update_name).map_err(Refusal::Name)?;
            if let Some(other) = &row.depends_on {
                check_name(other).map_err(Refusal::DependencyName)?;
            }
            if !force {
                check_definition(row, handlers)?;
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        self.database.prepare().await?;
        if rows.iter().all(|row| row.depends_on.is_none()) {
            return Ok(());
        }
        let queue = self.database.queue().await?;
        let wanted: Vec<(&str, Option<&str>)> =
            rows.iter().map(|row| (row.update_name.as_str(), row.depends_on.as_deref())).collect();
        check_dependencies(&queue.rows, &wanted, *force)
            .map_err(|(depends_on, because)| Refusal::Dependency { depends_on, because })
    }

    /// Queues updates that [`Operations::admit`] let in, each that is not queued already: those stay as they are. What became of
    /// each comes back.
    ///
    /// # Errors
    /// Where the database refuses; those before are queued.
    pub async fn enqueue(&self, rows: &[NewRow]) -> Result<Vec<Did>, Refusal> {
        let mut done = Vec::new();
        for row in rows {
            done.push(if self.database.enqueue(row).await? { Did::Queued } else { Did::AlreadyQueued });
        }
        self.wake();
        Ok(done)
    }

    /// The same in one transaction: all of them, or none where one is queued already.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn enqueue_together(&self, rows: &[NewRow]) -> Result<(), Refusal> {
        let queued = self.database.enqueue_all(rows).await?;
        queued.map_err(|AlreadyQueued(names)| Refusal::AlreadyQueued(names))?;
        self.wake();
        Ok(())
    }

    /// Takes updates out of the queue, whatever they do, and with `with_dependents` what depends on them, directly or not. The
    /// names that were there come back.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn cancel(&self, names: &[String], with_dependents: bool) -> Result<Vec<String>, Refusal> {
        let queue = self.look().await?;
        if !queue.rows.iter().any(|row| names.contains(&row.update_name)) {
            return Ok(Vec::new());
        }
        let dependents = dependents(&queue.rows, names);
        if !dependents.is_empty() && !with_dependents {
            return Err(Refusal::Dependents(dependents));
        }
        let names = [names, &dependents].concat();
        // The host in this process need not be asked through the database, which SQLite would not let anybody write to meanwhile.
        if let Some(Host { name, control, .. }) = self.host {
            names.iter().for_each(|update| control.withdraw_for(name, update, self.database.actor()));
        }
        let withdrawn = match self.database.prepare().await {
            Ok(()) => withdraw(self.database, &names).await,
            Err(error) => Err(error.into()),
        };
        if let Some(Host { name, control, .. }) = self.host {
            names.iter().for_each(|update| control.forget_withdrawal(name, update));
        }
        self.wake();
        withdrawn.map_err(|error| match error {
            Withdrawal::Sql(error) => Refusal::Database(error),
            error @ Withdrawal::Runs { .. } => Refusal::StillRuns(error),
        })
    }

    /// Drops the triggers that keep the rows of an update, which need not be defined any more. Those that were there come back.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn unkeep(&self, update_name: &str) -> Result<Vec<Keep>, Refusal> {
        let queue = self.look().await?;
        if queue.rows.iter().any(|row| row.update_name == update_name) {
            return Err(Refusal::StillQueued(update_name.to_owned()));
        }
        match self.database.unkeep(update_name).await? {
            dropped if dropped.is_empty() => Err(Refusal::NotKept(update_name.to_owned())),
            dropped => Ok(dropped),
        }
    }

    /// Has updates tried again as if they had never failed; where one waits for its next attempt, the wait is over. Those that
    /// are queued come back, with what became of each.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn retry(&self, which: Failed<'_>) -> Result<Vec<(String, Did)>, Refusal> {
        let rows = self.look().await?.rows.into_iter().filter(|row| match which {
            Failed::Named(names) => names.contains(&row.update_name),
            Failed::All => row.failure.is_some(),
        });
        let names: Vec<String> = rows.map(|row| row.update_name).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        self.database.prepare().await?;
        let mut done = Vec::new();
        for name in names {
            let forgotten = self.database.forget_failures(&name).await?;
            done.push((name, if forgotten { Did::Retried } else { Did::NotFailed }));
        }
        if let Some(host) = self.host {
            let board = host.board.database(host.name).unwrap_or_default();
            if done.iter().any(|(name, _)| board.put_off.contains_key(name)) {
                host.control.hurry(host.name);
            }
        }
        self.wake();
        Ok(done)
    }

    /// Queues an update for the rows that it skipped, and for no others; one that has failed at these is tried again. What became
    /// of it comes back.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn retry_skipped(&self, update_name: &str, handlers: &Handlers) -> Result<Did, Refusal> {
        if !handlers.contains_key(update_name) {
            return Err(Refusal::Undefined(update_name.to_owned()));
        }
        let queue = self.look().await?;
        let queued = queue.rows.iter().find(|row| row.update_name == update_name);
        let did = match queued {
            Some(row) => {
                let tries_them = Progress::parse(&row.progress).is_ok_and(|progress| is_again(&progress));
                let failed = tries_them && row.failure.is_some();
                let retried =
                    if failed { self.retry(Failed::Named(&[update_name.to_owned()])).await? } else { Vec::new() };
                retried.first().map_or(Did::AlreadyQueued, |(_, did)| *did)
            }
            None if queue.skipped_by(update_name) == 0 => Did::NothingSkipped,
            None => {
                self.database.prepare().await?;
                let row = NewRow {
                    update_name: update_name.to_owned(),
                    progress: again().to_json(),
                    depends_on: None,
                    ordering: 0,
                };
                self.enqueue(&[row]).await?.first().copied().unwrap_or(Did::AlreadyQueued)
            }
        };
        Ok(did)
    }

    /// Ends the wait that the update in hand is in, once, or that of one that is tried again. Which it is comes back, and whether
    /// it waited.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn run_now(&self) -> Result<(String, Did), Refusal> {
        let Some(Host { name, control, board, .. }) = self.host else { return Err(Refusal::NotTheRunner) };
        let board = board.database(name).unwrap_or_default();
        if pause_of(control, name, &board).is_some() {
            return Err(Refusal::Paused);
        }
        // Of a hurry that ended no wait, the next one would take advantage.
        let waits = |in_hand: &&InHand| {
            in_hand.rest.is_some() || matches!(in_hand.phase, Phase::Held { .. } | Phase::BackingOff { .. })
        };
        let waiting = board.in_hand().find(waits).map(|in_hand| &in_hand.update_name);
        if let Some(update) =
            waiting.or_else(|| board.put_off.keys().next().filter(|_| board.in_hand().next().is_none()))
        {
            control.hurry(name);
            return Ok((update.clone(), Did::RunNow));
        }
        control.wake();
        match (board.in_hand().next(), &board.lease) {
            (Some(in_hand), _) => Ok((in_hand.update_name.clone(), Did::Running)),
            (None, LeaseState::Runner) => Err(Refusal::NothingInHand),
            (None, _) => Err(Refusal::NotTheRunner),
        }
    }

    /// Has an update go on that stopped for approval. False where it does not wait for any.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn approve(&self, update_name: &str) -> Result<bool, Refusal> {
        let queue = self.look().await?;
        let row = queue.rows.iter().find(|row| row.update_name == update_name);
        let row = row.ok_or_else(|| Refusal::NotQueued(update_name.to_owned()))?;
        let Some(progress) = Progress::parse(&row.progress).ok().as_ref().and_then(approve) else { return Ok(false) };
        self.database.prepare().await?;
        match self.database.begin(update_name, &row.progress).await? {
            Begin::Moved(_) => return Err(Refusal::Moved(update_name.to_owned())),
            Begin::Failed(error) => return Err(error.into()),
            Begin::Ready(mut transaction) => {
                transaction.note(Note::of(Action::Approved));
                transaction.commit(Some(&progress.to_json())).await?;
            }
        }
        self.wake();
        Ok(true)
    }

    /// Has an update go on under its definition of now. What changed comes back; `None` where nothing did.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn accept(&self, update_name: &str, handlers: &Handlers) -> Result<Option<String>, Refusal> {
        let queue = self.look().await?;
        let row = queue.rows.iter().find(|row| row.update_name == update_name);
        let row = row.ok_or_else(|| Refusal::NotQueued(update_name.to_owned()))?;
        let handler = handlers.get(update_name).ok_or_else(|| Refusal::Undefined(update_name.to_owned()))?;
        self.database.prepare().await?;
        let changes = accept(self.database, row, &**handler).await.map_err(|error| match error {
            Unaccepted::Sql(error) => Refusal::Database(error),
            error @ (Unaccepted::Moved(_) | Unaccepted::CannotGoOn { .. }) => Refusal::Unaccepted(error),
        })?;
        self.wake();
        Ok(changes)
    }
}

/// The pause of a database, of whatever sort, as far as its host knows without a question to the database: the reason, where one
/// was given.
pub fn pause_of(control: &Control, name: &str, board: &DatabaseBoard) -> Option<Option<String>> {
    // A pause of all has no reason, where one of the database may.
    let disabled = || (!control.is_enabled()).then_some(None);
    board.pause.clone().or_else(|| control.pause_of(name)).or_else(disabled)
}

/// What speaks against a name in the queue: PostgreSQL knows no NUL.
///
/// # Errors
/// In words that go on from "the name".
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".to_owned());
    }
    if name.chars().count() > LONGEST_NAME {
        return Err(format!("is longer than {LONGEST_NAME} characters"));
    }
    if name.contains('\0') {
        return Err("has a NUL character in it".to_owned());
    }
    Ok(())
}

/// Refuses what would never run.
fn check_definition(row: &NewRow, handlers: &Handlers) -> Result<(), Refusal> {
    let name = &row.update_name;
    let handler = handlers.get(name).ok_or_else(|| Refusal::Undefined(name.clone()))?;
    if let Some(reason) = handler.refusal() {
        return Err(Refusal::Refused { update_name: name.clone(), reason: reason.to_owned() });
    }
    let known = Progress::parse(&row.progress).and_then(|progress| handler.mode(&progress));
    known.map(|_| ()).map_err(|source| Refusal::Progress { update_name: name.clone(), source })
}
