//! How a running host is steered from within its process.

use std::sync::Arc;

use tokio::sync::watch;

/// Steers a running host; clones steer the same one.
#[derive(Debug, Clone)]
pub struct Control {
    enabled: Arc<watch::Sender<bool>>,
    stopping: Arc<watch::Sender<bool>>,
    /// Counts wake-ups, so that none is lost on a loop that is busy.
    wakes: Arc<watch::Sender<u64>>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            enabled: Arc::new(watch::Sender::new(true)),
            stopping: Arc::new(watch::Sender::new(false)),
            wakes: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Control {
    /// Pauses (`false`) or resumes all databases of this host before the next batch, until it restarts: Synapse's
    /// `enabled`. A pause stored in a database is apart from this one; both must be lifted.
    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.send_replace(enabled);
        self.wake();
    }

    /// False while [`Control::set_enabled`] paused this host.
    pub fn is_enabled(&self) -> bool {
        *self.enabled.borrow()
    }

    /// Looks at the queues now, not only when they are next polled.
    pub fn wake(&self) {
        self.wakes.send_modify(|wakes| *wakes = wakes.wrapping_add(1));
    }

    /// Asks the host to stop; safe to call twice.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// True once the host was asked to stop.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves once the host was asked to stop.
    pub(super) async fn stopped(&self) {
        // The sender lives as long as `self`, so that an error cannot be.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Sees every wake-up from now on.
    pub(super) fn wakes(&self) -> watch::Receiver<u64> {
        self.wakes.subscribe()
    }
}
