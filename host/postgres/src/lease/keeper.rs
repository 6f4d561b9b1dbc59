//! A lease that is held, and whoever renews it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::Site;
use super::line::{Line, expiry, literal};
use crate::error::silent;
use crate::name;
use tidegate::scheduler::database::{Holder, Lease};
use tidegate::update::sql::SqlError;
use tidegate_driver::fence::{self, Apart, OVERTAKEN, RENEWAL, TERM};

/// How long the server may take to renew the lease before another connection is tried.
const RENEWAL_LIMIT: Duration = Duration::from_secs(3);
/// How soon a renewal that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How long giving the lease up may take before the connection is just closed.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// A lease that is held.
pub(crate) struct RowLease {
    /// Set once, to the reason, when the lease is lost.
    lost: watch::Receiver<Option<String>>,
    /// Tells the keeper to leave off.
    end: Option<oneshot::Sender<()>>,
    keeper: Apart<Keeper>,
}

/// Renews a lease.
struct Keeper {
    site: Site,
    holder: Holder,
    /// `None` where another connection is to be made.
    line: Option<Arc<Line>>,
    epoch: i64,
    /// True where the connection's session holds the advisory lock.
    locked: bool,
}

impl RowLease {
    pub(super) fn keep(site: Site, holder: Holder, line: Arc<Line>, epoch: i64, locked: bool) -> Self {
        let (report, lost) = watch::channel(None);
        let (end, ended) = oneshot::channel();
        let keeper = Keeper { site, holder, line: Some(line), epoch, locked };
        Self { lost, end: Some(end), keeper: Apart(fence::thread().spawn(keeper.keep(ended, report))) }
    }
}

impl Keeper {
    /// Renews the lease until it is told to leave off, or the lease is lost.
    async fn keep(mut self, mut end: oneshot::Receiver<()>, report: watch::Sender<Option<String>>) -> Self {
        let mut wait = RENEWAL;
        loop {
            tokio::select! {
                _ = &mut end => return self,
                () = sleep(wait) => {}
                // What it held is to be had by others now.
                () = self.cut() => {}
            }
            let renewed = tokio::select! {
                _ = &mut end => return self,
                renewed = self.renew() => renewed,
            };
            let reason = match renewed {
                Ok(None) => {
                    wait = RENEWAL;
                    continue;
                }
                Ok(Some(reason)) => reason,
                Err(error) if self.site.fence.left(self.epoch).is_zero() => {
                    format!("it could not be renewed for {} s: {error}", TERM.as_secs())
                }
                Err(error) => {
                    tracing::debug!(%error, "the lease could not be renewed yet");
                    wait = RETRY;
                    continue;
                }
            };
            if let Some(line) = self.line.take().filter(|_| self.locked) {
                let _ = timeout(RELEASE_LIMIT, line.unlock()).await;
            }
            let _ = report.send(Some(reason));
            return self;
        }
    }

    /// Resolves when the connection has ended.
    async fn cut(&self) {
        match &self.line {
            Some(line) => drop(line.connection.ended().await),
            None => std::future::pending().await,
        }
    }

    /// One attempt; the reason, where the lease is another's.
    async fn renew(&mut self) -> Result<Option<String>, SqlError> {
        let line = match self.line.take().filter(|line| !line.connection.is_closed()) {
            Some(line) => line,
            None => {
                self.locked = false;
                let limit = self.site.fence.left(self.epoch).max(RENEWAL_LIMIT);
                let opened = timeout(limit, Line::open(&self.site, &self.holder)).await;
                Arc::new(opened.map_err(|_| silent(limit))??)
            }
        };
        let since = Instant::now();
        let session = match self.locked {
            _ if line.connection.sharing.is_some() => "null".to_owned(),
            true => line.connection.backend.to_string(),
            false => format!("case when pg_try_advisory_lock({}) then pg_backend_pid() end", line.key.number),
        };
        let statement = format!(
            "update tidegate_lease set expires = {}, session = {session} where queue = {} and epoch = {} \
             returning coalesce(session, 0)",
            expiry(),
            literal(&line.key.queue),
            self.epoch
        );
        // A crash of the server may forget it: then the lease is over sooner, and that is all.
        let renewed = timeout(RENEWAL_LIMIT, line.trip("off", &statement)).await;
        let Some(session) = renewed.map_err(|_| silent(RENEWAL_LIMIT))?? else {
            self.line = Some(line);
            return Ok(Some(OVERTAKEN.to_owned()));
        };
        self.site.fence.renew(self.epoch, since);
        self.locked = session != "0";
        let rival = if self.locked { None } else { self.rival(&line).await? };
        self.line = Some(line);
        Ok(rival)
    }

    /// Why the advisory lock is not to be had, where that ends the lease.
    async fn rival(&self, line: &Line) -> Result<Option<String>, SqlError> {
        for lock in line.locks().await?.iter().filter(|lock| lock.exclusive) {
            if lock.is_of_before() {
                return Ok(Some("a host of an earlier version has taken its place".to_owned()));
            }
            // A session of this host's own, from before it was cut off, which the server does not know to be gone.
            if name::is_of(&lock.name, &self.holder) {
                let _ = line.query("select pg_terminate_backend($1::int)", &[lock.process.into()]).await;
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl Lease for RowLease {
    async fn lost(&mut self) -> String {
        match self.lost.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "nobody watches over it any more".to_owned(),
        }
    }

    async fn release(mut self: Box<Self>) {
        drop(self.end.take());
        let given_up = async {
            // One that is lost is nobody's to give up.
            let keeper = (&mut self.keeper).await.ok()?;
            let line = keeper.line.filter(|_| self.lost.borrow().is_none())?;
            keeper.site.fence.lower(keeper.epoch);
            line.give_up(keeper.epoch).await.ok()?;
            line.unlock().await;
            Some(())
        };
        if !matches!(timeout(RELEASE_LIMIT, given_up).await, Ok(Some(()))) {
            tracing::debug!("the lease ends with its session, or with its term");
        }
    }
}
