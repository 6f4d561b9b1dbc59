//! One cell of the matrix: a kind of update on a schema, with an application that writes all the while.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate::update::sql::System;
use tidegate::update::{ErrorClass, Handler, Mode, Next, Progress, UpdateError};
use tidegate_database::{Options, Switches, open};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::plain::{Plain, Random};
use super::schemas::{Expected, ROWS, Role, Schema, Table};
use super::update::{Check, Kind};
use super::writer::{Signals, Writer};
use crate::database::poolers::Neighbour;
use crate::kinds::subject::{Driven, Subject};
use crate::support::place::{Place, holder};

/// What a cell is. Its name, as `TIDEGATE_CELL` takes it, says all of it.
#[derive(Clone, Copy)]
pub struct Cell {
    pub kind: Kind,
    pub schema: &'static Schema,
    pub system: System,
    pub seed: u64,
}

/// A safety measure that is taken out, so that the matrix can show that it would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// All are in place.
    Nothing,
    /// A walk follows the rows that come in.
    End,
    /// Policies hide rows in silence.
    RowSecurity,
    /// The statements of a batch see different rows.
    Snapshot,
    /// All are in place, and the host has no session of its own: its way leads through the pooler at this port, whose
    /// sessions others use too.
    Session(u16),
}

impl Without {
    fn switches(self) -> Switches {
        Switches {
            policies_hide: self == Self::RowSecurity,
            without_snapshot: self == Self::Snapshot,
            ..Switches::default()
        }
    }
}

/// What came of a cell that is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Right,
    Refused,
    Stopped,
    /// The server lacks what the schema needs.
    Skipped,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.kind.name(), self.schema.name, system_name(self.system), self.seed)
    }
}

pub fn system_name(system: System) -> &'static str {
    match system {
        System::Sqlite => "sqlite",
        System::Postgres => "postgres",
    }
}

/// No cell takes longer than this, with whatever else the machine does.
const LONGEST: Duration = Duration::from_secs(60);
/// No update has more batches than this: the rows that were there at its beginning are far fewer.
const MOST_BATCHES: usize = 2 * ROWS as usize;
/// How the role that owns nothing, or just the tables, is called.
pub const ROLE: &str = "matrix_role";

/// A function that returns once the application has written some more. A sequence shows it to every snapshot; where the
/// application waits for the one who asks, it returns all the same.
const OTHERS_WRITE: &str = "CREATE SEQUENCE app_operations;
    CREATE FUNCTION others_write() RETURNS void LANGUAGE plpgsql AS $$
    DECLARE began bigint := (SELECT last_value FROM app_operations);
    BEGIN
        FOR patience IN 1..300 LOOP
            EXIT WHEN (SELECT last_value FROM app_operations) >= began + 3;
            PERFORM pg_sleep(0.001);
        END LOOP;
    END $$";

/// The writer's task, which does not outlive the cell.
struct Task(JoinHandle<Result<(), String>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Cell {
    /// Does it, on a database of which nothing else is needed.
    pub async fn run(self, place: Arc<Place>, without: Without) -> Result<Outcome, String> {
        let done = tokio::spawn(tokio::time::timeout(LONGEST, self.attempt(place, without))).await;
        match done {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(format!("it does not end within {LONGEST:?}")),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => Err(panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_else(|| "it panicked".to_owned())),
                Err(error) => Err(error.to_string()),
            },
        }
    }

    async fn attempt(self, place: Arc<Place>, without: Without) -> Result<Outcome, String> {
        let table = Table::of(self.schema, self.system);
        let plain = Plain::to(&place).await;
        if let Some(lacks) = self.empty(&plain).await {
            println!("{self} is left out: {lacks}");
            return Ok(Outcome::Skipped);
        }
        drop(place.prepared().await);
        self.arrange(&plain, &table).await;
        let mut url = match self.schema.role {
            Role::Superuser => place.url.clone(),
            Role::Other | Role::Owner => place.url.replacen("postgres@", &format!("{ROLE}@"), 1),
        };
        let mut neighbours = Vec::new();
        if let Without::Session(pooler) = without {
            let (front, name) = (url.split('@').next().unwrap_or_default(), url.rsplit('/').next().unwrap_or_default());
            url = format!("{front}@127.0.0.1:{pooler}/{name}");
            neighbours.push(Neighbour::move_in(&url).await);
        }
        let mut options = Options::new(holder(1));
        options.switches = without.switches();
        let subject = Subject::sharing(Arc::clone(&place), open(&url, options).unwrap());
        let bystanders = self.bystanders(&plain, &table).await;
        let handler = self.kind.handler(&table, without == Without::End);
        let refused = subject.problems(handler.as_ref()).await;

        let signals = Arc::new(Signals { begun: AtomicBool::new(false), stop: AtomicBool::new(false) });
        let random = Random::of(self.seed, &[self.kind.name(), self.schema.name, system_name(self.system)]);
        let connection = Plain::to(&place).await;
        let (writer, watched) = Writer::new(connection, table, self.kind, random.clone(), Arc::clone(&signals));
        let mut task = Task(tokio::spawn(writer.run()));
        if !refused.is_empty() {
            hold(&plain, self.kind.untouched(&table)).await?;
        }
        // Where it is refused too: who runs it all the same gets what is right, or an error.
        let driver = Driver { subject: &subject, handler: handler.as_ref(), random, signals: &signals, watched };
        let driven = driver.drive().await;
        signals.stop.store(true, Ordering::SeqCst);
        (&mut task.0).await.map_err(|error| error.to_string())??;
        subject.database.close().await;
        drop(neighbours);

        if bystanders != self.bystanders(&plain, &table).await {
            return Err("rows changed that the update is not about".to_owned());
        }
        let finished = driven.is_ok().then(|| self.kind.finished(&table)).into_iter().flatten();
        hold(&plain, self.kind.always(&table).into_iter().chain(finished)).await?;
        let error = driven.err().unwrap_or_default();
        match (self.schema.expected)(self.kind) {
            Expected::Right if refused.is_empty() && error.is_empty() => Ok(Outcome::Right),
            Expected::Refused(words) if !refused.is_empty() && refused.contains(words) => Ok(Outcome::Refused),
            Expected::Stops(words) if refused.is_empty() && !error.is_empty() && error.contains(words) => {
                Ok(Outcome::Stopped)
            }
            expected if !refused.is_empty() => Err(format!("expected {expected:?}, and it was refused: {refused}")),
            expected if !error.is_empty() => Err(format!("expected {expected:?}, and it stopped: {error}")),
            expected => Err(format!("expected {expected:?}, and it finished")),
        }
    }

    /// Empties the database; the reason where the schema cannot be made on it.
    async fn empty(&self, plain: &Plain) -> Option<String> {
        if self.system == System::Sqlite {
            plain.script("PRAGMA journal_mode = wal").await;
            return None;
        }
        plain
            .script(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid();
                 SET client_min_messages = warning;
                 DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE, CREATE ON SCHEMA public TO {ROLE}"
            ))
            .await;
        let extension = self.schema.before.strip_prefix("CREATE EXTENSION ")?;
        let known = plain.rows(&format!("SELECT 1 FROM pg_available_extensions WHERE name = '{extension}'")).await;
        known.is_empty().then(|| format!("the server has no extension {extension}"))
    }

    /// Makes the tables and their rows.
    async fn arrange(&self, plain: &Plain, table: &Table) {
        let (kind, schema) = (self.kind, self.schema);
        plain.script(schema.before).await;
        plain.script(&table.make(kind)).await;
        if self.system == System::Sqlite {
            plain.script("PRAGMA ignore_check_constraints = ON").await;
        }
        let rows = (1..=ROWS).map(|place| table.insert(2 * place, kind, "old", Some(&format!("note {}", 2 * place))));
        plain.script(&format!("BEGIN; {}; COMMIT", rows.collect::<Vec<_>>().join("; "))).await;
        plain.script(&table.fill(schema.after)).await;
        if kind.copies() {
            plain.script(&table.target().make(kind)).await;
            plain.script(&table.target().fill(schema.after)).await;
        }
        if self.system == System::Postgres && kind.validates() {
            let name = super::update::CONSTRAINT;
            plain
                .script(
                    &table.fill(&format!("ALTER TABLE {{written}} ADD CONSTRAINT {name} CHECK ({{n}} >= 0) NOT VALID")),
                )
                .await;
        }
        let meant = (schema.meant)(kind);
        plain
            .script(&table.fill(&format!(
                "CREATE TABLE start AS SELECT {{id}} AS id, {{tag}} AS tag, {{n}} AS n, {{note}} AS note,
                 CASE WHEN {meant} THEN 1 ELSE 0 END AS meant FROM {{written}};
                 CREATE TABLE app_log AS SELECT id, tag, note, note AS op, 0 AS phase, 0 AS place FROM start WHERE 1 = 0;
                 CREATE TABLE moved (tag integer PRIMARY KEY, note text NOT NULL)"
            )))
            .await;
        if self.system == System::Postgres {
            plain.script(OTHERS_WRITE).await;
        }
        if schema.role != Role::Superuser {
            plain
                .script(&format!(
                    "GRANT ALL ON ALL TABLES IN SCHEMA public TO {ROLE}; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {ROLE}"
                ))
                .await;
        }
        if schema.role == Role::Owner {
            plain.script(&table.fill(&format!("ALTER TABLE {{t}} OWNER TO {ROLE}"))).await;
            if kind.copies() {
                plain.script(&table.fill(&format!("ALTER TABLE {{u}} OWNER TO {ROLE}"))).await;
            }
        }
    }

    async fn bystanders(&self, plain: &Plain, table: &Table) -> Vec<String> {
        match self.schema.bystander {
            Some(query) => plain.rows(&table.fill(query)).await,
            None => Vec::new(),
        }
    }
}

/// Makes sure that the queries give no rows.
async fn hold(plain: &Plain, checks: impl IntoIterator<Item = Check>) -> Result<(), String> {
    let mut wrong = Vec::new();
    for check in checks {
        let rows = plain.rows(&check.query).await;
        if !rows.is_empty() {
            let (count, some) = (rows.len(), rows[..rows.len().min(8)].join(", "));
            wrong.push(format!("{} ({count}: {some})\n    {}", check.wrong, check.query));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n  ")) }
}

/// Does an update batch by batch, as the scheduler does it, while the application writes.
struct Driver<'a> {
    subject: &'a Subject,
    handler: &'a dyn Handler,
    random: Random,
    signals: &'a Signals,
    watched: watch::Receiver<u64>,
}

impl Driver<'_> {
    async fn drive(mut self) -> Result<(), String> {
        self.subject.enqueue().await;
        let at_once = self.handler.mode(&Progress::default()).map_err(|error| error.to_string())? != Mode::Batched;
        self.wait(if at_once { 10 } else { 1 }).await?;
        let deadline = Instant::now() + LONGEST / 2;
        let mut driven = Driven::default();
        loop {
            let items = u64::from(3 + self.random.below(22));
            match self.subject.batch(self.handler, items, &mut driven).await {
                Ok(Some(Next::Continue(_))) => self.signals.begun.store(true, Ordering::SeqCst),
                Ok(Some(Next::Finished) | None) => break,
                // The scheduler does it again, after a while.
                Err(error) if error.class() == ErrorClass::Transient && Instant::now() < deadline => {}
                Err(error) => return Err(told(&error)),
            }
            if driven.items.len() > MOST_BATCHES {
                return Err(format!("the walk does not end: {} batches", driven.items.len()));
            }
            self.wait(1).await?;
        }
        self.wait(if at_once { 10 } else { 1 }).await
    }

    /// Waits until the application has done something more.
    async fn wait(&mut self, operations: u64) -> Result<(), String> {
        let until = *self.watched.borrow() + operations;
        // An application that ended says why by itself.
        self.watched.wait_for(|done| *done >= until).await.map(drop).map_err(|_| "the application ended".to_owned())
    }
}

fn told(error: &UpdateError) -> String {
    format!("{error} ({:?})", error.class())
}
