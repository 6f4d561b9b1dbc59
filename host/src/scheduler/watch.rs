//! A look at a batch that takes long: who keeps it waiting, and whether somebody wants it to leave off.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until, timeout};

use super::control::Control;
use super::database::{Activity, Database, Situation, unix_ms};
use super::event::{EventKind, Events};
use crate::update::{ErrorClass, SqlError, UpdateError};

/// When a batch is first looked at, and how often from then on.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long a look may take before the database counts as one that does not answer.
const LIMIT: Duration = Duration::from_secs(5);

/// The looks at one attempt.
pub(super) struct Watch<'a> {
    pub(super) database_name: &'a str,
    pub(super) database: &'a dyn Database,
    pub(super) events: &'a Events,
    pub(super) control: &'a Control,
    pub(super) update_name: &'a str,
    /// What this host does; who is in the way stands in it.
    pub(super) activity: &'a mut Activity,
    /// The same as it was last written down.
    pub(super) written: &'a mut Option<Activity>,
    pub(super) due: Instant,
    /// Who was in the way last, if anybody was.
    pub(super) last: Vec<String>,
}

impl Watch<'_> {
    /// When the first look is due at an attempt that begins now.
    pub(super) fn first_look() -> Instant {
        Instant::now() + INTERVAL
    }

    /// Resolves when somebody wants the update to be taken out of the queue. Tells, until then, who keeps it waiting.
    pub(super) async fn withdrawn(&mut self) {
        loop {
            sleep_until(self.due).await;
            self.due = Instant::now() + INTERVAL;
            if self.control.is_withdrawn(self.database_name, self.update_name) {
                return;
            }
            match timeout(LIMIT, self.database.situation(self.update_name)).await {
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
                timeout(LIMIT, self.database.situation(self.update_name)).await
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
        if !std::mem::take(&mut self.activity.in_the_way).is_empty() {
            self.emit(Vec::new());
        }
    }

    async fn tell(&mut self, in_the_way: Vec<String>, writable: bool) {
        if in_the_way == self.activity.in_the_way {
            return;
        }
        if !in_the_way.is_empty() {
            self.last.clone_from(&in_the_way);
        }
        self.activity.in_the_way.clone_from(&in_the_way);
        self.emit(in_the_way);
        if !writable {
            return;
        }
        let (signals, at_ms) = (self.control.measured(self.database_name), unix_ms(SystemTime::now()));
        let now = Activity { at_ms, signals, ..self.activity.clone() };
        match timeout(LIMIT, self.database.set_activity(Some(&now))).await {
            Ok(Ok(())) => *self.written = Some(now),
            Ok(Err(error)) => tracing::debug!(%error, "who is in the way could not be written down"),
            Err(_) => tracing::debug!("who is in the way could not be written down in time"),
        }
    }

    fn emit(&self, who: Vec<String>) {
        let update_name = self.update_name.to_owned();
        self.events.emit(self.database_name, EventKind::InTheWay { update_name, who });
    }
}
