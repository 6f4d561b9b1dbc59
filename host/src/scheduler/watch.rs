//! A look at a batch that takes long: who keeps it waiting, and whether somebody wants it to leave off.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until, timeout};

use super::control::Control;
use super::database::{Activity, Database, Situation, unix_ms};
use super::event::{EventKind, Events};

/// When a batch is first looked at, and how often from then on.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long a look may take before the database counts as one that does not answer.
const LIMIT: Duration = Duration::from_secs(5);

/// The looks at one attempt.
pub(super) struct Watch<'a> {
    database_name: &'a str,
    database: &'a dyn Database,
    events: &'a Events,
    control: &'a Control,
    update_name: &'a str,
    /// What this host does, as it is written down; changed where somebody is in the way.
    activity: &'a mut Activity,
    due: Instant,
    /// Who was in the way when it was last looked.
    in_the_way: Vec<String>,
    /// Who was in the way last, if anybody was.
    last: Vec<String>,
}

impl<'a> Watch<'a> {
    /// Over an attempt that begins now.
    pub(super) fn new(
        database_name: &'a str,
        database: &'a dyn Database,
        events: &'a Events,
        control: &'a Control,
        update_name: &'a str,
        activity: &'a mut Activity,
    ) -> Self {
        let due = Instant::now() + INTERVAL;
        let (in_the_way, last) = (Vec::new(), Vec::new());
        Self { database_name, database, events, control, update_name, activity, due, in_the_way, last }
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
                Ok(Ok(Situation { in_the_way, .. })) => self.tell(in_the_way).await,
                Ok(Err(error)) => tracing::debug!(update = self.update_name, %error, "a batch could not be looked at"),
                Err(_) => self.tell(vec!["the database, which does not answer".to_owned()]).await,
            }
        }
    }

    /// Who kept the attempt waiting last.
    pub(super) fn last(&self) -> &[String] {
        &self.last
    }

    /// Nobody is in the way of what has ended.
    pub(super) fn end(&mut self) {
        if !std::mem::take(&mut self.in_the_way).is_empty() {
            self.emit(Vec::new());
        }
        self.activity.in_the_way.clear();
    }

    async fn tell(&mut self, in_the_way: Vec<String>) {
        if in_the_way == self.in_the_way {
            return;
        }
        if !in_the_way.is_empty() {
            self.last.clone_from(&in_the_way);
        }
        self.in_the_way.clone_from(&in_the_way);
        self.activity.in_the_way.clone_from(&in_the_way);
        self.activity.at_ms = unix_ms(SystemTime::now());
        self.emit(in_the_way);
        match timeout(LIMIT, self.database.set_activity(Some(&*self.activity))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "who is in the way could not be written down"),
            Err(_) => tracing::debug!("who is in the way could not be written down in time"),
        }
    }

    fn emit(&self, who: Vec<String>) {
        let update_name = self.update_name.to_owned();
        self.events.emit(self.database_name, EventKind::InTheWay { update_name, who });
    }
}
