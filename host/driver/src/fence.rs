//! What is common to the leases on both databases.
//!
//! A lease is a row with an epoch, which grows whenever somebody takes it, and a sign of life that its holder gives about
//! once a second. One without such a sign for [`TERM`] may be taken by another. Each batch compares the epoch in its own
//! transaction: whoever was overtaken, and does not know it yet, can commit nothing.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use tidegate::update::sql::{ErrorClass, SqlError};

/// How long a lease lasts without a sign of its holder's life.
pub const TERM: Duration = Duration::from_secs(6);
/// How often the holder gives one: several have to fail before the lease is another's.
pub const RENEWAL: Duration = Duration::from_secs(1);

/// The lease that a handle on a database holds, or held last; the same for all clones.
#[derive(Debug, Clone, Default)]
pub struct Fence(Arc<Mutex<Option<Hold>>>);

/// A lease that is held, or was until another took it.
#[derive(Debug, Clone)]
pub struct Hold {
    /// What it is a lease on, as the row calls it.
    pub queue: Arc<str>,
    /// Which of the leases on it this one is.
    pub epoch: i64,
    /// Until when nobody else can have taken it, by this process's own clock.
    until: Instant,
}

impl Fence {
    fn lock(&self) -> MutexGuard<'_, Option<Hold>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease under which batches are done; `None` where none was taken.
    pub fn hold(&self) -> Option<Hold> {
        self.lock().clone()
    }

    /// From now on batches are done under this lease, which was asked for at `since`.
    pub fn raise(&self, queue: &Arc<str>, epoch: i64, since: Instant) {
        *self.lock() = Some(Hold { queue: Arc::clone(queue), epoch, until: since + TERM });
    }

    /// The lease was renewed by what was sent at `since`.
    pub fn renew(&self, epoch: i64, since: Instant) {
        if let Some(hold) = self.lock().as_mut().filter(|hold| hold.epoch == epoch) {
            hold.until = since + TERM;
        }
    }

    /// The lease was given up in good order: what is done from now on is done under none. One that is lost stays, so that
    /// nothing more is done under it.
    pub fn lower(&self, epoch: i64) {
        let mut held = self.lock();
        if held.as_ref().is_some_and(|hold| hold.epoch == epoch) {
            *held = None;
        }
    }

    /// How long nobody else can take the lease of this epoch, by this process's own clock.
    pub fn left(&self, epoch: i64) -> Duration {
        let held = self.lock();
        let until = held.as_ref().filter(|hold| hold.epoch == epoch).map(|hold| hold.until);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Fails where another may have taken the lease by now: what a host says of itself is then for that one to say.
    ///
    /// # Errors
    /// Whatever the database says.
    pub fn check(&self) -> Result<(), SqlError> {
        match &*self.lock() {
            Some(hold) if hold.until <= Instant::now() => Err(overtaken()),
            _ => Ok(()),
        }
    }
}

/// Another host has taken the lease.
pub fn overtaken() -> SqlError {
    SqlError::new(ErrorClass::Overtaken, OVERTAKEN)
}

/// Why a lease is lost that another has taken.
pub const OVERTAKEN: &str = "this host gave no sign of life for too long, and another has taken its place";

/// Does work that nothing may hold up, such as renewing a lease: on a thread that all databases of the process share, and
/// that no handler, controller or statement runs on. Dropped, it is given up.
///
/// # Errors
/// Whatever the database says.
pub async fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T, SqlError>> + Send + 'static,
) -> Result<T, SqlError> {
    let done = Apart(thread().spawn(work)).await;
    done.unwrap_or_else(|error| Err(SqlError::new(ErrorClass::Connection, error.to_string())))
}

/// Where [`apart`] does its work.
pub fn thread() -> Handle {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let built = Builder::new_multi_thread().worker_threads(1).thread_name("tidegate-lease").enable_all().build();
        built.inspect_err(|error| tracing::warn!(%error, "leases get no thread of their own")).ok()
    });
    runtime.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
}

/// A task that ends where nobody waits for it any more.
pub struct Apart<T>(pub JoinHandle<T>);

impl<T> Future for Apart<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for Apart<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::{Fence, TERM};
    use tidegate::update::sql::ErrorClass;

    #[test]
    fn a_lease_that_was_not_renewed_is_in_doubt_until_it_is_given_up() {
        let (fence, queue) = (Fence::default(), Arc::from("queue"));
        assert!(fence.hold().is_none() && fence.check().is_ok());
        let now = Instant::now();
        fence.raise(&queue, 7, now);
        assert!(fence.check().is_ok() && fence.left(7) > TERM / 2 && fence.left(6).is_zero());
        // As if it had been asked for long ago.
        fence.raise(&queue, 8, now - 2 * TERM);
        assert_eq!(fence.check().unwrap_err().class, ErrorClass::Overtaken);
        // What came too late for another one.
        fence.renew(7, now);
        assert!(fence.check().is_err());
        fence.renew(8, now);
        assert!(fence.check().is_ok());
        fence.lower(7);
        assert_eq!(fence.hold().map(|hold| hold.epoch), Some(8));
        fence.lower(8);
        assert!(fence.hold().is_none());
    }
}
