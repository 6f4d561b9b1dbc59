//! Waits for a database that are spent awake where they are short.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::poll_immediate;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::yield_now;

/// The longest that a wait is spent awake. A thread that sleeps is woken late, on a virtual machine by tens of
/// microseconds, and finds the processor's caches cold; meanwhile a batch holds its locks for nothing. On one machine
/// answers take some 10 µs (SQLite) to 100 µs (PostgreSQL). Twice in a batch of 100 ms, this is at most 0.4 % of one
/// processor.
const AWAKE: Duration = Duration::from_micros(200);

/// After so many waits in a row that were longer, the next ones are slept through, until one is short.
const LONG_IN_A_ROW: u8 = 3;

/// One kind of wait, spent awake where it is likely to be short.
#[derive(Debug)]
pub(super) struct Wakeful {
    allowed: bool,
    /// Long waits since the last short one, up to [`LONG_IN_A_ROW`].
    long: u8,
}

impl Wakeful {
    /// For waits on this runtime. A runtime of one thread is everybody's: there none is spent awake.
    pub(super) fn new() -> Self {
        let allowed = Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread;
        Self { allowed, long: LONG_IN_A_ROW }
    }

    /// Awaits an answer. What else the thread has to do is done meanwhile.
    pub(super) async fn until<T>(&mut self, answer: impl Future<Output = T>) -> T {
        // The machine's own clock: tokio's may be stopped.
        let began = Instant::now();
        let mut answer = pin!(answer);
        let mut found = None;
        while self.allowed && self.long < LONG_IN_A_ROW && found.is_none() && began.elapsed() < AWAKE {
            found = poll_immediate(answer.as_mut()).await;
            if found.is_none() {
                yield_now().await;
            }
        }
        let answer = match found {
            Some(answer) => answer,
            None => answer.await,
        };
        self.long = if began.elapsed() < AWAKE { 0 } else { LONG_IN_A_ROW.min(self.long + 1) };
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    /// How often an answer is looked for that takes so long.
    async fn looks(wakeful: &mut Wakeful, answer: Duration) -> u32 {
        let (mut looks, until) = (0, Instant::now() + answer);
        let mut sleep = pin!(tokio::time::sleep(answer));
        let answer = poll_fn(|context| {
            looks += 1;
            if Instant::now() >= until { Poll::Ready(()) } else { sleep.as_mut().poll(context) }
        });
        wakeful.until(answer).await;
        looks
    }

    const LONG: Duration = Duration::from_millis(20);
    /// More looks than a wait takes that is slept through.
    const MANY: u32 = 10;

    async fn become_awake(wakeful: &mut Wakeful) {
        // On a busy machine even this may take long.
        while wakeful.long > 0 {
            wakeful.until(async {}).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn waits_are_spent_awake_until_too_many_were_long() {
        let mut wakeful = Wakeful::new();
        assert!(looks(&mut wakeful, LONG).await < MANY, "nothing is known yet");
        // Where the processor is taken away, a wait is over before there were many looks.
        loop {
            become_awake(&mut wakeful).await;
            if looks(&mut wakeful, LONG).await > MANY {
                break;
            }
        }
        for _ in 1..LONG_IN_A_ROW {
            looks(&mut wakeful, LONG).await;
        }
        assert!(looks(&mut wakeful, LONG).await < MANY);
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_is_not_kept_busy() {
        let mut wakeful = Wakeful::new();
        become_awake(&mut wakeful).await;
        assert!(looks(&mut wakeful, LONG).await < MANY);
    }
}
