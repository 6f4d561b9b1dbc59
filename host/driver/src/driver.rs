//! What a driver has to bring.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use tidegate::scheduler::database::{Begin, Holder, LeaseAttempt, Planned, Remark, Session, Stands, TrialTransaction};
use tidegate::update::Opening;
use tidegate::update::sql::{Dialect, Sql, SqlError};

/// One of the two databases, as a [`Handle`](crate::handle::Handle) works on it.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// See [`Database::dialect`](tidegate::scheduler::database::Database::dialect).
    fn dialect(&self) -> Arc<dyn Dialect>;

    /// What speaks against working on this database at all, before anything is written.
    async fn check_place(&self) -> Result<(), SqlError>;

    /// The connection for the queue and tidegate's own tables, made where there is none, and nobody else's until it is
    /// dropped.
    async fn control(&self) -> Result<Box<dyn Control>, SqlError>;

    /// The connection for what is noted and looked at beside the work: that for the queue, where there is none for it alone.
    async fn aside(&self) -> Result<Box<dyn Control>, SqlError> {
        self.control().await
    }

    /// See [`Database::observe`](tidegate::scheduler::database::Database::observe); without the retry.
    async fn observe(&self) -> Result<Box<dyn Session>, SqlError> {
        self.inspect().await
    }

    /// See [`Database::observes_meanwhile`](tidegate::scheduler::database::Database::observes_meanwhile).
    fn observes_meanwhile(&self) -> bool {
        false
    }

    /// See [`Database::try_lease`](tidegate::scheduler::database::Database::try_lease).
    async fn try_lease(&self, holder: &Holder) -> Result<LeaseAttempt, SqlError>;

    /// See [`Database::lease_holder`](tidegate::scheduler::database::Database::lease_holder).
    async fn lease_holder(&self) -> Result<Option<Holder>, SqlError>;

    /// See [`Database::obstacle`](tidegate::scheduler::database::Database::obstacle); without the retry.
    async fn obstacle(&self) -> Result<Option<String>, SqlError>;

    /// See [`Database::begin_as`](tidegate::scheduler::database::Database::begin_as); without the retry.
    async fn begin(&self, batch: &Planned<'_>) -> Result<Begin, SqlError>;

    /// See [`Database::has_one_writer`](tidegate::scheduler::database::Database::has_one_writer).
    fn has_one_writer(&self) -> bool {
        false
    }

    /// See [`Database::takes_hands`](tidegate::scheduler::database::Database::takes_hands).
    fn takes_hands(&self) -> bool {
        false
    }

    /// See [`Database::begin_part`](tidegate::scheduler::database::Database::begin_part); without the retry.
    async fn begin_part(&self, batch: &Planned<'_>, stands: Stands<'_>) -> Result<Begin, SqlError> {
        let _ = (batch, stands);
        Err(SqlError::permanent("this database has one writer, and an update is done in one part"))
    }

    /// See [`Database::room_for_others`](tidegate::scheduler::database::Database::room_for_others).
    fn room_for_others(&self) -> Duration {
        Duration::ZERO
    }

    /// See [`Database::session_in`](tidegate::scheduler::database::Database::session_in); without the retry.
    async fn session(&self, lane: &str) -> Result<Box<dyn Session>, SqlError>;

    /// See [`Database::begin_trial`](tidegate::scheduler::database::Database::begin_trial); without the retry.
    async fn begin_trial(&self, opening: Opening) -> Result<Box<dyn TrialTransaction>, SqlError>;

    /// See [`Database::inspect`](tidegate::scheduler::database::Database::inspect); without the retry.
    async fn inspect(&self) -> Result<Box<dyn Session>, SqlError>;

    /// See [`Database::vetting`](tidegate::scheduler::database::Database::vetting); without the retry.
    async fn vetting(&self, lane: &str) -> Result<Box<dyn Session>, SqlError> {
        let _ = lane;
        self.inspect().await
    }

    /// True where the connection for the queue can be asked while a batch runs on its own.
    fn asks_meanwhile(&self) -> bool {
        false
    }

    /// Who keeps a batch of this host in a lane waiting, asked over the connection for the queue.
    async fn in_the_way(&self, lane: &str, control: &mut dyn Sql) -> Result<Vec<String>, SqlError> {
        let _ = (lane, control);
        Ok(Vec::new())
    }

    /// Who keeps this host from writing, where that is known without asking the database.
    async fn holders(&self) -> Vec<String> {
        Vec::new()
    }

    /// The driver's part of [`Database::survey`](tidegate::scheduler::database::Database::survey); without the retry.
    async fn survey(&self) -> Result<Vec<Remark>, SqlError>;

    /// Fails where another host may have taken the lease by now that this one holds.
    ///
    /// # Errors
    /// Whatever the database says.
    fn check_lease(&self) -> Result<(), SqlError>;

    /// See [`Database::close`](tidegate::scheduler::database::Database::close).
    async fn close(&self);

    /// See [`Database::is_replaced`](tidegate::scheduler::database::Database::is_replaced).
    fn is_replaced(&self) -> bool {
        false
    }
}

/// A connection in hand: statements commit by themselves, unless a transaction is begun. Dropped within one, it rolls
/// back.
#[async_trait]
pub trait Control: Sql {
    /// Begins a transaction; on SQLite one that may write.
    async fn begin(&mut self) -> Result<(), SqlError>;

    /// The same, and the commit waits for no other server.
    async fn begin_here(&mut self) -> Result<(), SqlError> {
        self.begin().await
    }

    /// Commits it.
    async fn commit(&mut self) -> Result<(), SqlError>;
}
