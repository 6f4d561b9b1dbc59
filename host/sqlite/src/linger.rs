//! Keeping a connection's thread awake for a moment.
//!
//! A thread that sleeps is woken late, and finds the processor's caches cold: on a virtual machine that cost an iteration some
//! 15 µs. Where a controller does not rest, the next transaction begins some microseconds after a commit. So the thread stays
//! awake that long, as long as that has been so lately. On one processor it would keep out whoever it waits for, and does not.

use std::hint::spin_loop;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// The longest that a thread stays awake. Components take some microseconds to decide, those in scripting languages some tens.
const AWAKE: Duration = Duration::from_micros(50);

/// How much it takes until a thread sleeps at once: so many pauses that were longer, less those that were not.
const TOO_LONG: u8 = 3;

/// Whether it is worth while to stay awake after a transaction.
pub(super) struct Linger(Mutex<LingerState>);

struct LingerState {
    allowed: bool,
    /// When the last transaction ended.
    ended: Option<Instant>,
    /// Long pauses less short ones, from 0 to [`TOO_LONG`].
    long: u8,
}

impl Linger {
    pub(super) fn new() -> Self {
        Self::allowed(available_parallelism().map_or(1, NonZero::get) > 1)
    }

    fn allowed(allowed: bool) -> Self {
        Self(Mutex::new(LingerState { allowed, ended: None, long: TOO_LONG }))
    }

    fn state(&self) -> MutexGuard<'_, LingerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction is to begin.
    pub(super) fn begins(&self, now: Instant) {
        let mut state = self.state();
        let Some(ended) = state.ended.take() else { return };
        let is_short = now.saturating_duration_since(ended) <= AWAKE;
        state.long = if is_short { state.long.saturating_sub(1) } else { TOO_LONG.min(state.long + 1) };
    }

    /// A transaction has ended: true where the next one is likely to begin at once.
    pub(super) fn ended(&self, now: Instant) -> bool {
        let mut state = self.state();
        state.ended = Some(now);
        state.allowed && state.long < TOO_LONG
    }
}

/// Stays awake until another job is given than the last one, or for [`AWAKE`].
pub(super) fn stay_awake(given: &AtomicU64, last: u64) {
    let began = Instant::now();
    while given.load(Ordering::Relaxed) == last && began.elapsed() < AWAKE {
        spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a thread stays awake after each of several transactions, by the pauses before these in microseconds.
    fn awake(linger: &Linger, pauses: &[u64]) -> Vec<bool> {
        let mut now = Instant::now();
        let each = pauses.iter().map(|pause| {
            now += Duration::from_micros(*pause);
            linger.begins(now);
            now += Duration::from_millis(100);
            linger.ended(now)
        });
        each.collect()
    }

    #[test]
    fn a_thread_stays_awake_where_transactions_follow_each_other_at_once() {
        let pauses = [0, 10, 40, 9_000, 10, 9_000, 10, 9_000, 9_000, 9_000, 10, 1_000_000];
        // A pause now and then is no reason to sleep; one after each is.
        let expected = [false, true, true, true, true, true, true, true, false, false, true, false];
        assert_eq!(awake(&Linger::allowed(true), &pauses), expected);
    }

    #[test]
    fn on_one_processor_none_does() {
        assert_eq!(awake(&Linger::allowed(false), &[0; 8]), [false; 8]);
    }

    #[test]
    fn a_thread_is_awake_no_longer_than_until_there_is_something_to_do() {
        let given = AtomicU64::new(7);
        stay_awake(&given, 6);
        stay_awake(&given, 7);
    }
}
