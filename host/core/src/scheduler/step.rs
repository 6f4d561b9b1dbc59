//! What a handler does in one call, whatever it does.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use crate::pace::Slice;
use crate::update::sql::Sql;
use crate::update::{Budget, Handler, LeftBehind, Next, Progress, Step, UpdateError, is_verification};

/// Runs one slice.
pub(super) async fn run_slice(
    handler: &dyn Handler,
    sql: &mut dyn Sql,
    from: &Progress,
    slice: Slice,
    left: &dyn LeftBehind,
) -> Result<Step, UpdateError> {
    let budget = Budget { items: slice.items };
    let step = match is_verification(from) {
        true => unwound(handler.verify(sql, from, budget, left)).await?,
        false => unwound(handler.run(sql, from, budget)).await?,
    };
    moved_on(from, step)
}

/// What two slices did, one after the other.
pub(super) fn followed_by(before: Step, after: Step) -> Step {
    let mut notes = before.notes;
    for note in after.notes {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    Step { items: before.items.saturating_add(after.items), next: after.next, notes }
}

/// Turns a handler's panic into its failure: one bad handler must not end the host.
pub(super) async fn unwound<T>(work: impl Future<Output = Result<T, UpdateError>>) -> Result<T, UpdateError> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<&str>().map(ToString::to_string);
        let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(UpdateError::Detailed { message: "the handler panicked".to_owned(), detail: message })
    })
}

/// Refuses a step that would be done again and again.
pub(super) fn moved_on(start: &Progress, step: Step) -> Result<Step, UpdateError> {
    match &step.next {
        Next::Continue(progress) if progress == start => Err(UpdateError::NoProgress),
        _ => Ok(step),
    }
}
