//! A look at a batch that takes long: who keeps it waiting, and whether somebody wants it to leave off.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::common::Common;
use super::database::Situation;
use super::event::EventKind;
use crate::update::{ErrorClass, SqlError, UpdateError};

/// When a batch is first looked at, and how often from then on.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long a look may take before the database counts as one that does not answer.
const LIMIT: Duration = Duration::from_secs(5);

/// The looks at one attempt.
pub(super) struct Watch<'a> {
    common: &'a Common,
    lane: &'a Arc<str>,
    /// The lane whose connection the attempt takes.
    line: &'a str,
    update_name: &'a str,
    /// True where another speaks for the lane.
    silent: bool,
    due: Instant,
    /// Who was in the way last, if anybody was.
    last: Vec<String>,
}

impl<'a> Watch<'a> {
    /// At an attempt that begins now.
    pub(super) fn new(common: &'a Common, lane: &'a Arc<str>, update_name: &'a str) -> Self {
        let due = Instant::now() + INTERVAL;
        Self { common, lane, line: lane, update_name, silent: false, due, last: Vec::new() }
    }

    /// The same at an attempt over another connection than the lane's, for which another speaks.
    pub(super) fn over(self, line: &'a str) -> Self {
        Self { line, silent: true, ..self }
    }

    /// Resolves when somebody wants the update to be taken out of the queue. Tells, until then, who keeps it waiting.
    pub(super) async fn withdrawn(&mut self) {
        loop {
            sleep_until(self.due).await;
            self.due = Instant::now() + INTERVAL;
            if self.common.control.is_withdrawn(&self.common.name, self.update_name) {
                return;
            }
            match timeout(LIMIT, self.common.database.situation(self.line, self.update_name)).await {
                Ok(Ok(Situation { withdrawn: true, .. })) => return,
                Ok(Ok(Situation { in_the_way, writable, .. })) => self.tell(in_the_way, writable).await,
                Ok(Err(error)) => tracing::debug!(update = self.update_name, %error, "a batch could not be looked at"),
                Err(_) => self.tell(vec!["the database, which does not answer".to_owned()], true).await,
            }
        }
    }

    /// Looks who is in the way of what has just failed, where it failed before the first look.
    pub(super) async fn look_back(&mut self, error: &UpdateError) {
        if error.class() == ErrorClass::Transient
            && self.last.is_empty()
            && let Ok(Ok(Situation { in_the_way, .. })) =
                timeout(LIMIT, self.common.database.situation(self.line, self.update_name)).await
        {
            self.last = in_the_way;
        }
    }

    /// A failure that others are to blame for, with who was in the way last.
    pub(super) fn explained(&self, error: UpdateError) -> UpdateError {
        match error {
            UpdateError::Sql(error) if error.class == ErrorClass::Transient && !self.last.is_empty() => {
                let message = format!("{}; in the way: {}", error.message, self.last.join(", "));
                SqlError { message, ..error }.into()
            }
            error => error,
        }
    }

    /// Nobody is in the way of what has ended.
    pub(super) fn end(&mut self) {
        if !self.silent && !self.common.tell(self.lane, |work| std::mem::take(&mut work.in_the_way)).is_empty() {
            self.emit(Vec::new());
        }
    }

    async fn tell(&mut self, in_the_way: Vec<String>, writable: bool) {
        if !in_the_way.is_empty() {
            self.last.clone_from(&in_the_way);
        }
        if self.silent {
            return;
        }
        let before = self.common.tell(self.lane, |work| std::mem::replace(&mut work.in_the_way, in_the_way.clone()));
        if before == in_the_way {
            return;
        }
        self.emit(in_the_way);
        if writable {
            self.common.write_activity().await;
        }
    }

    fn emit(&self, who: Vec<String>) {
        let update_name = self.update_name.to_owned();
        self.common.events.emit_in(&self.common.name, self.lane, EventKind::InTheWay { update_name, who });
    }
}
