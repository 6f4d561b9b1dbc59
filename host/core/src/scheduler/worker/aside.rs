//! What is done beside the loop: how far the update in hand has come is estimated, and what the host does is written down.
//!
//! Where a database has a connection for that, no batch waits for it: it is done by a task, one at a time for each lane,
//! whose findings the loop takes at its next look at the queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::super::activity::Work;
use super::super::common::Common;
use super::super::database::Database;
use super::super::event::EventKind;
use super::{PARTING_LIMIT, Worker};
use crate::pace::eta;
use crate::update::sql::Estimate;
use crate::update::{Handler, Progress, UpdateError};

/// How often it is estimated how far the update in hand has come.
const ESTIMATE_INTERVAL: Duration = Duration::from_secs(2);
/// How long that may take: an estimate that has to wait for somebody's lock is not worth the wait.
const ESTIMATE_LIMIT: Duration = Duration::from_millis(500);

/// What is to be looked at and written.
struct Look {
    common: Arc<Common>,
    lane: Arc<str>,
    estimate: Option<Wanted>,
}

/// An estimate that is wanted.
struct Wanted {
    update_name: String,
    handler: Arc<dyn Handler>,
    progress: Progress,
    /// Items a millisecond.
    rate: f64,
}

/// What came of a look.
#[derive(Debug, Default)]
pub(super) struct Told {
    estimated: Option<Estimated>,
}

#[derive(Debug)]
struct Estimated {
    update_name: String,
    done: f64,
    eta: Option<Duration>,
}

impl Look {
    async fn take(self) -> Told {
        let Self { common, lane, estimate } = self;
        let estimated = match estimate {
            Some(wanted) => wanted.estimate(&*common.database).await,
            None => None,
        };
        if let Some(estimated) = &estimated {
            common.tell(&lane, |work| estimated.note_in(work));
        }
        common.write_activity().await;
        Told { estimated }
    }
}

impl Wanted {
    async fn estimate(self, database: &dyn Database) -> Option<Estimated> {
        let Self { update_name, handler, progress, rate } = self;
        let estimate = async {
            let mut session = database.observe().await?;
            handler.estimate(session.as_sql(), &progress).await
        };
        let estimate: Result<Option<Estimate>, UpdateError> =
            timeout(ESTIMATE_LIMIT, estimate).await.unwrap_or(Ok(None));
        match estimate {
            Ok(estimate) => estimate.map(|Estimate { done, rows }| {
                let eta = eta((1.0 - done) * rows, rate);
                Estimated { update_name, done, eta }
            }),
            Err(error) => {
                tracing::debug!(update = update_name, %error, "its progress could not be estimated");
                None
            }
        }
    }
}

impl Estimated {
    fn note_in(&self, work: &mut Work) {
        if work.update_name.as_ref() == Some(&self.update_name) {
            work.done = Some(self.done);
            work.eta_ms = self.eta.map(|eta| eta.as_millis().try_into().unwrap_or(u64::MAX));
        }
    }
}

impl Worker {
    /// Estimates and writes down what is to be, beside the loop where that can be. While the last look is not done there is
    /// no other.
    pub(super) async fn look_aside(&mut self) {
        if self.aside.is_some() {
            return;
        }
        let estimate = self.wanted();
        let look = self.look(estimate);
        if self.common.database.observes_meanwhile() {
            self.aside = Some(tokio::spawn(look.take()));
        } else {
            let told = look.take().await;
            self.note_told(told);
        }
    }

    /// Writes what this host does, at once.
    pub(super) async fn write_activity(&mut self) {
        self.wait_aside().await;
        let told = self.look(None).take().await;
        self.note_told(told);
    }

    fn look(&mut self, estimate: Option<Wanted>) -> Look {
        let put_off = self.told_put_off();
        self.tell(|work| work.put_off = put_off);
        Look { common: Arc::clone(&self.common), lane: Arc::clone(&self.lane), estimate }
    }

    /// The estimate that is wanted now: one of the update in hand, now and then.
    fn wanted(&mut self) -> Option<Wanted> {
        if self.estimated.is_some_and(|at| at.elapsed() < ESTIMATE_INTERVAL) {
            return None;
        }
        let update_name = self.current.clone()?;
        self.estimated = Some(Instant::now());
        let progress = Progress::parse(&self.common.state().roster.get(&update_name)?.progress).ok()?;
        let handler = Arc::clone(self.means.with.handlers.get(&update_name)?);
        let pace = self.pace(&update_name);
        let rate = pace.items as f64 / (pace.since.elapsed().as_secs_f64() * 1e3);
        Some(Wanted { update_name, handler, progress, rate })
    }

    /// Takes what the last look found, where it is done.
    pub(super) async fn take_aside(&mut self) {
        if self.aside.as_ref().is_some_and(JoinHandle::is_finished) {
            self.wait_aside().await;
        }
    }

    /// Waits for the look that is under way: it has an end.
    async fn wait_aside(&mut self) {
        if let Some(look) = self.aside.take() {
            let told = look.await.unwrap_or_default();
            self.note_told(told);
        }
    }

    /// The same before this host leaves; what takes too long is cut off.
    pub(in super::super) async fn end_aside(&mut self) {
        let Some(mut look) = self.aside.take() else { return };
        if timeout(PARTING_LIMIT, &mut look).await.is_err() {
            look.abort();
        }
    }

    fn note_told(&mut self, told: Told) {
        if let Some(estimated) = told.estimated
            && self.current.as_ref() == Some(&estimated.update_name)
        {
            let Estimated { update_name, done, eta } = estimated;
            self.emit(EventKind::Progress { update_name, done, eta });
        }
    }
}
