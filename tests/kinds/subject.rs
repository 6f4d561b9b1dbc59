//! A database to try a kind of update on: tidegate's driver for it, and a plain connection that knows nothing of
//! tidegate to arrange it with and to look at what came of it.

use std::sync::Arc;

use async_trait::async_trait;
use tidegate::scheduler::database::{Begin, Database, Planned};
use tidegate::update::sql::{Dialect, Row, Sql, SqlError, System, TableName, Value};
use tidegate::update::{Budget, Handler, Mode, Next, Progress, UpdateError};
use tidegate_database::{Options, open};

use crate::support::place::{Place, holder, row};

pub const UPDATE: &str = "the update";

pub struct Subject {
    pub system: System,
    pub database: Arc<dyn Database>,
    place: Arc<Place>,
}

/// What came of driving an update.
#[derive(Debug, Default)]
pub struct Driven {
    /// The items of each batch.
    pub items: Vec<u64>,
    /// The statements of all batches.
    pub statements: Vec<String>,
}

impl Driven {
    pub fn total(&self) -> u64 {
        self.items.iter().sum()
    }
}

impl Subject {
    /// One of each database, empty but for the queue.
    pub async fn each() -> Vec<Subject> {
        vec![Self::sqlite().await, Self::postgres().await]
    }

    pub async fn sqlite() -> Subject {
        Self::at(Place::sqlite()).await
    }

    pub async fn postgres() -> Subject {
        Self::at(Place::postgres().await).await
    }

    async fn at(place: Place) -> Subject {
        if place.system() == System::Sqlite {
            // One flush to the disk a commit instead of several: these tests make thousands.
            place.run("PRAGMA journal_mode = wal").await;
        }
        let database = place.prepared().await;
        Self::with(place, database)
    }

    /// A database that a handle was opened for.
    pub fn with(place: Place, database: Arc<dyn Database>) -> Subject {
        Self::sharing(Arc::new(place), database)
    }

    /// The same for one that others use too.
    pub fn sharing(place: Arc<Place>, database: Arc<dyn Database>) -> Subject {
        Subject { system: place.system(), database, place }
    }

    /// Executes statements.
    pub async fn script(&self, sql: &str) {
        self.place.run(sql).await;
    }

    /// The rows of a query, as texts.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        self.place.rows(sql).await
    }

    /// The one value of a query.
    pub async fn value(&self, sql: &str) -> String {
        self.rows(sql).await.remove(0)
    }

    /// A plain connection to a PostgreSQL database.
    pub async fn connect(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.place.url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// The same database through the host's driver, as another role.
    pub async fn as_role(&self, role: &str) -> Subject {
        let url = self.place.url.replacen("postgres@", &format!("{role}@"), 1);
        assert_ne!(url, self.place.url);
        let database = open(&url, Options::new(holder(2))).unwrap();
        Self { system: self.system, database, place: Arc::clone(&self.place) }
    }

    /// Executes statements as the host would; the database's words where it refuses.
    pub async fn attempt(&self, sql: &str) -> Result<(), String> {
        let mut session = self.database.session().await.unwrap();
        session.as_sql().script(sql).await.map_err(|error| error.to_string())
    }

    /// The errors that `check` finds.
    pub async fn problems(&self, handler: &dyn Handler) -> String {
        let mut session = self.database.inspect().await.unwrap();
        let problems = handler.check(session.as_sql()).await.unwrap();
        problems
            .iter()
            .filter(|problem| problem.is_error())
            .map(|problem| format!("{}: {}\n  hint: {}\n", problem.field, problem.message, problem.hint))
            .collect()
    }

    pub async fn enqueue(&self) {
        assert!(self.database.enqueue(&row(UPDATE)).await.unwrap());
    }

    pub async fn progress(&self) -> Option<String> {
        self.database.progress(UPDATE).await.unwrap()
    }

    /// Does one batch as the scheduler does it. None where the update is not queued any more.
    pub async fn batch(
        &self,
        handler: &dyn Handler,
        items: u64,
        driven: &mut Driven,
    ) -> Result<Option<Next>, UpdateError> {
        let Some(text) = self.progress().await else { return Ok(None) };
        let progress = Progress::parse(&text)?;
        let step = match handler.mode(&progress)? {
            Mode::OneShotOutside => {
                let mut session = self.database.session().await?;
                let step = handler.run_outside(session.as_sql(), &progress).await?;
                drop(session);
                let Begin::Ready(transaction) = self.database.begin(UPDATE, &text).await? else {
                    panic!("somebody else moved the update");
                };
                transaction.commit(written(&step.next).as_deref()).await?;
                step
            }
            Mode::Batched | Mode::OneShot => {
                let planned = Planned { opening: handler.opening(), ..Planned::of(UPDATE, &text) };
                let mut transaction = match self.database.begin_as(&planned).await? {
                    Begin::Ready(transaction) => transaction,
                    Begin::Failed(error) => return Err(error.into()),
                    Begin::Moved(_) => panic!("somebody else moved the update"),
                };
                let mut recorder = Recorder { sql: transaction.as_sql(), statements: &mut driven.statements };
                match handler.run(&mut recorder, &progress, Budget { items }).await {
                    Ok(step) => {
                        transaction.commit(written(&step.next).as_deref()).await?;
                        step
                    }
                    Err(error) => {
                        transaction.rollback().await?;
                        return Err(error);
                    }
                }
            }
        };
        driven.items.push(step.items);
        Ok(Some(step.next))
    }

    /// Queues the update and drives it to its end.
    pub async fn drive(&self, handler: &dyn Handler, items: u64) -> Result<Driven, UpdateError> {
        self.enqueue().await;
        self.drive_queued(handler, items).await
    }

    /// Drives the update to its end where it is queued.
    pub async fn drive_queued(&self, handler: &dyn Handler, items: u64) -> Result<Driven, UpdateError> {
        let mut driven = Driven::default();
        while let Some(Next::Continue(_)) = self.batch(handler, items, &mut driven).await? {
            assert!(driven.items.len() < 10_000, "the update loops");
        }
        Ok(driven)
    }
}

/// The progress to be written; `None` where the update is done.
fn written(next: &Next) -> Option<String> {
    match next {
        Next::Continue(progress) => Some(progress.to_json()),
        Next::Finished => None,
    }
}

/// Writes down what a handler says to the database.
struct Recorder<'a> {
    sql: &'a mut dyn Sql,
    statements: &'a mut Vec<String>,
}

#[async_trait]
impl Sql for Recorder<'_> {
    fn dialect(&self) -> Arc<dyn Dialect> {
        self.sql.dialect()
    }

    fn connection(&self) -> Option<u64> {
        self.sql.connection()
    }

    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, SqlError> {
        self.statements.push(sql.to_owned());
        self.sql.execute(sql, parameters).await
    }

    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, SqlError> {
        self.statements.push(sql.to_owned());
        self.sql.query(sql, parameters).await
    }

    async fn execute_each(&mut self, sql: &str, rows: Vec<Row>) -> Result<u64, SqlError> {
        self.statements.push(sql.to_owned());
        self.sql.execute_each(sql, rows).await
    }

    async fn script(&mut self, sql: &str) -> Result<(), SqlError> {
        self.statements.push(sql.to_owned());
        self.sql.script(sql).await
    }

    fn expect_foreign(&mut self) {
        self.sql.expect_foreign();
    }
}

pub fn table(name: &str) -> TableName {
    TableName { schema: None, name: name.to_owned() }
}

pub fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
