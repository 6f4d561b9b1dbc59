//! Work that is interrupted, and what came of it.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::INTERRUPT_PATIENCE;
use crate::scheduler::database::Interrupt;
use crate::update::UpdateError;

/// After what time work that goes on is interrupted again.
const INTERRUPT_AGAIN: Duration = Duration::from_millis(500);

/// What came of work that was interrupted.
pub(super) enum Interrupted<T> {
    /// It came to an end.
    Ended(Result<T, UpdateError>),
    /// It waits for something else than the database. It can be dropped: what it has left in its transaction is whole
    /// statements.
    WaitsElsewhere,
    /// Its statement runs on.
    Runs,
}

/// Interrupts `work` until it ends. An interruption is without effect between two statements, so it is repeated.
pub(super) async fn interrupted<T>(
    interrupt: &dyn Interrupt,
    mut work: Pin<&mut impl Future<Output = Result<T, UpdateError>>>,
) -> Interrupted<T> {
    let end = Instant::now() + INTERRUPT_PATIENCE;
    let mut idle = false;
    loop {
        let attempt = async {
            interrupt.interrupt().await;
            work.as_mut().await
        };
        let again = (Instant::now() + INTERRUPT_AGAIN).min(end);
        if let Ok(result) = timeout_at(again, attempt).await {
            return Interrupted::Ended(result);
        }
        let was_idle = std::mem::replace(&mut idle, !interrupt.statement_runs());
        if idle && was_idle {
            return Interrupted::WaitsElsewhere;
        }
        if Instant::now() >= end {
            return if idle { Interrupted::WaitsElsewhere } else { Interrupted::Runs };
        }
    }
}
