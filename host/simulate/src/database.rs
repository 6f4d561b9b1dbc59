//! The database that is only modelled: a queue in memory, behind the trait that the drivers implement.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::model::World;
use tidegate::scheduler::database::{
    Activity, AlreadyQueued, Begin, Database, Failure, Holder, Interrupt, Lease, LeaseAttempt, NewRow, Pause, Planned,
    Queue, QueueRow, Record, Remark, Session, Transaction,
};
use tidegate::scheduler::ledger::Actor;
use tidegate::update::SqlError;
use tidegate::update::plan::Explanation;
use tidegate::update::sql::{Column, Dialect, Estimate, Lacking, Right, Row, Sql, System, Table, TableName, Value};

/// The database.
#[derive(Clone)]
pub(super) struct Memory {
    world: Arc<World>,
    state: Arc<Mutex<Queue>>,
    /// What the batches of each update cost by themselves, in milliseconds.
    openings: Arc<HashMap<String, f64>>,
}

impl Memory {
    pub(super) fn new(world: Arc<World>, openings: HashMap<String, f64>) -> Self {
        Self { world, state: Arc::default(), openings: Arc::new(openings) }
    }

    fn state(&self) -> MutexGuard<'_, Queue> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows that remain.
    pub(super) fn remaining(&self) -> Vec<QueueRow> {
        self.state().rows.clone()
    }

    /// Queues a row, as an application does; one of a name that is there is left as it is.
    pub(super) fn insert(&self, row: &NewRow) -> bool {
        let rows = &mut self.state().rows;
        if rows.iter().any(|queued| queued.update_name == row.update_name) {
            return false;
        }
        let place = rows.partition_point(|queued| {
            (queued.ordering, queued.update_name.as_str()) < (row.ordering, row.update_name.as_str())
        });
        let NewRow { update_name, progress, depends_on, ordering } = row.clone();
        rows.insert(place, QueueRow { update_name, progress, depends_on, ordering, ..QueueRow::default() });
        true
    }

    pub(super) fn pause(&self, pause: Option<&Pause>) {
        self.state().pause = pause.cloned();
    }

    pub(super) fn forget(&self, update_name: &str) -> bool {
        let mut state = self.state();
        let row = state.rows.iter_mut().find(|row| row.update_name == update_name);
        row.is_some_and(|row| row.failure.take().is_some())
    }
}

/// What is said to whoever comes with SQL.
fn no_sql() -> SqlError {
    SqlError::permanent("a modelled database takes no SQL")
}

#[async_trait]
impl Database for Memory {
    fn dialect(&self) -> Arc<dyn Dialect> {
        Arc::new(NoSql)
    }

    fn known_as(&self, _: Actor) -> Arc<dyn Database> {
        Arc::new(self.clone())
    }

    async fn prepare(&self) -> Result<(), SqlError> {
        self.world.answer().await;
        Ok(())
    }

    async fn try_lease(&self, _holder: &Holder) -> Result<LeaseAttempt, SqlError> {
        Ok(LeaseAttempt::Held(Box::new(Leased)))
    }

    async fn lease_holder(&self) -> Result<Option<Holder>, SqlError> {
        Ok(None)
    }

    async fn obstacle(&self) -> Result<Option<String>, SqlError> {
        Ok(None)
    }

    async fn queue(&self) -> Result<Queue, SqlError> {
        self.world.answer().await;
        Ok(self.state().clone())
    }

    async fn look(&self) -> Result<Option<Queue>, SqlError> {
        self.queue().await.map(Some)
    }

    async fn begin_as(&self, batch: &Planned<'_>) -> Result<Begin, SqlError> {
        let Planned { update_name, progress, .. } = *batch;
        self.world.answer().await;
        let found = self.progress(update_name).await?;
        if found.as_deref() != Some(progress) {
            return Ok(Begin::Moved(found));
        }
        self.world.work(self.openings.get(update_name).copied().unwrap_or_default()).await;
        Ok(Begin::Ready(Box::new(Open { memory: self.clone(), update_name: update_name.to_owned(), marked: false })))
    }

    async fn session_in(&self, _lane: &str) -> Result<Box<dyn Session>, SqlError> {
        Ok(Box::new(Open { memory: self.clone(), update_name: String::new(), marked: false }))
    }

    async fn inspect(&self) -> Result<Box<dyn Session>, SqlError> {
        self.session().await
    }

    async fn progress(&self, update_name: &str) -> Result<Option<String>, SqlError> {
        let state = self.state();
        Ok(state.rows.iter().find(|row| row.update_name == update_name).map(|row| row.progress.clone()))
    }

    async fn enqueue(&self, row: &NewRow) -> Result<bool, SqlError> {
        Ok(self.insert(row))
    }

    async fn enqueue_all(&self, rows: &[NewRow]) -> Result<Result<(), AlreadyQueued>, SqlError> {
        let there = self.remaining();
        let is_there = |row: &&NewRow| there.iter().any(|queued| queued.update_name == row.update_name);
        let twice: Vec<String> = rows.iter().filter(is_there).map(|row| row.update_name.clone()).collect();
        if !twice.is_empty() {
            return Ok(Err(AlreadyQueued(twice)));
        }
        rows.iter().for_each(|row| _ = self.insert(row));
        Ok(Ok(()))
    }

    async fn cancel(&self, update_names: &[String]) -> Result<Vec<String>, SqlError> {
        let gone = self.state().rows.extract_if(.., |row| update_names.contains(&row.update_name)).collect::<Vec<_>>();
        Ok(gone.into_iter().map(|row| row.update_name).collect())
    }

    async fn record_failure(&self, update_name: &str, progress: &str, failure: &Failure) -> Result<(), SqlError> {
        let mut state = self.state();
        let mut rows = state.rows.iter_mut();
        if let Some(row) = rows.find(|row| row.update_name == update_name && row.progress == progress) {
            row.failure = Some(failure.clone());
        }
        Ok(())
    }

    async fn forget_failures(&self, update_name: &str) -> Result<bool, SqlError> {
        Ok(self.forget(update_name))
    }

    async fn set_pause(&self, pause: Option<&Pause>) -> Result<(), SqlError> {
        self.pause(pause);
        Ok(())
    }

    async fn set_activity(&self, _activity: Option<&Activity>) -> Result<(), SqlError> {
        Ok(())
    }

    async fn add_history(&self, _records: &[Arc<Record>]) -> Result<(), SqlError> {
        Ok(())
    }

    async fn history(&self, _update_name: Option<&str>, _limit: u32) -> Result<Vec<Record>, SqlError> {
        Ok(Vec::new())
    }

    async fn survey(&self) -> Result<Vec<Remark>, SqlError> {
        Ok(Vec::new())
    }

    async fn close(&self) {}
}

/// The right to be the one runner, which nobody disputes.
struct Leased;

#[async_trait]
impl Lease for Leased {
    async fn lost(&mut self) -> String {
        std::future::pending().await
    }

    async fn release(self: Box<Self>) {}
}

/// An open transaction, or a session.
struct Open {
    memory: Memory,
    update_name: String,
    marked: bool,
}

#[async_trait]
impl Transaction for Open {
    async fn commit(self: Box<Self>, progress: Option<&str>) -> Result<(), SqlError> {
        self.memory.world.answer().await;
        let rows = &mut self.memory.state().rows;
        match progress {
            Some(progress) => {
                if let Some(row) = rows.iter_mut().find(|row| row.update_name == self.update_name) {
                    progress.clone_into(&mut row.progress);
                }
            }
            None => rows.retain(|row| row.update_name != self.update_name),
        }
        Ok(())
    }

    async fn mark(&mut self) -> Result<(), SqlError> {
        self.marked = true;
        Ok(())
    }

    async fn undo(&mut self) -> Result<bool, SqlError> {
        // Work is done by handlers, who keep nothing in mind: what they did is what is written in the end.
        Ok(self.marked)
    }

    async fn rollback(self: Box<Self>) -> Result<(), SqlError> {
        Ok(())
    }

    fn interrupter(&self) -> Arc<dyn Interrupt> {
        Arc::new(Interrupter(self.memory.world.clone()))
    }

    fn as_sql(&mut self) -> &mut dyn Sql {
        self
    }
}

#[async_trait]
impl Session for Open {
    fn interrupter(&self) -> Arc<dyn Interrupt> {
        Arc::new(Interrupter(self.memory.world.clone()))
    }

    fn as_sql(&mut self) -> &mut dyn Sql {
        self
    }
}

struct Interrupter(Arc<World>);

#[async_trait]
impl Interrupt for Interrupter {
    async fn interrupt(&self) {
        self.0.interrupted.notify_waiters();
    }

    fn statement_runs(&self) -> bool {
        false
    }
}

#[async_trait]
impl Sql for Open {
    fn dialect(&self) -> Arc<dyn Dialect> {
        Arc::new(NoSql)
    }

    async fn execute(&mut self, _sql: &str, _parameters: &[Value]) -> Result<u64, SqlError> {
        Err(no_sql())
    }

    async fn query(&mut self, _sql: &str, _parameters: &[Value]) -> Result<Vec<Row>, SqlError> {
        Err(no_sql())
    }

    async fn script(&mut self, _sql: &str) -> Result<(), SqlError> {
        Err(no_sql())
    }
}

/// The dialect of a database that takes no SQL.
struct NoSql;

#[async_trait]
impl Dialect for NoSql {
    fn system(&self) -> System {
        System::Sqlite
    }

    fn parameter(&self, number: usize) -> String {
        format!("?{number}")
    }

    fn key_as_text(&self, column: &str) -> String {
        column.to_owned()
    }

    fn key_from_text(&self, number: usize, _column: &Column) -> String {
        self.parameter(number)
    }

    async fn describe(&self, _sql: &mut dyn Sql, _table: &TableName) -> Result<Option<Table>, SqlError> {
        Ok(None)
    }

    fn token(&self, _table: &TableName) -> String {
        String::new()
    }

    async fn estimate(
        &self,
        _sql: &mut dyn Sql,
        _table: &TableName,
        _key: &[Column],
        _after: Option<&[String]>,
    ) -> Result<Option<Estimate>, SqlError> {
        Ok(None)
    }

    async fn explain(&self, _sql: &mut dyn Sql, _: &str, _: &[Value]) -> Result<Explanation, SqlError> {
        Err(no_sql())
    }

    async fn lacking(
        &self,
        _sql: &mut dyn Sql,
        _table: &TableName,
        _rights: &[Right],
    ) -> Result<Option<Lacking>, SqlError> {
        Ok(None)
    }

    async fn bearer(&self, _sql: &mut dyn Sql, _: &TableName, _: &str) -> Result<Option<String>, SqlError> {
        Ok(None)
    }
}
