//! What a service manager is told: that the host is ready, that it lives, that it reloads, that it stops. Without a
//! service manager, told by the variable `NOTIFY_SOCKET`, nothing is said.

use sd_notify::NotifyState;
use tidegate::scheduler::Control;
use tokio::task::JoinHandle;

/// Says that the host is ready, and from then on that it lives, until it is told to stop, which is said too.
pub(super) fn start(control: Control) -> JoinHandle<()> {
    ready();
    tokio::spawn(async move {
        // Twice in the time after which the service manager would end the process.
        match sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|interval| !interval.is_zero()) {
            None => control.stopped().await,
            Some(interval) => {
                let mut ticks = tokio::time::interval(interval);
                loop {
                    tokio::select! {
                        _ = ticks.tick() => say(&[NotifyState::Watchdog]),
                        () = control.stopped() => break,
                    }
                }
            }
        }
        say(&[NotifyState::Stopping]);
    })
}

/// Says that the host works.
pub(super) fn ready() {
    say(&[NotifyState::Ready]);
}

/// Says that the host reads its configuration again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the service manager could not be told of a reload"),
    }
}

fn say(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
