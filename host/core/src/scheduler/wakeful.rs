//! Waits for a database that are spent awake where they are short.

use std::num::NonZero;
use std::pin::pin;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use futures_util::future::poll_immediate;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::yield_now;

/// The longest that a wait is spent awake. A thread that sleeps is woken late and finds the processor's caches cold: on
/// a virtual machine that cost some 10 µs a wait. On one machine answers take some 10 µs (SQLite) to 100 µs (PostgreSQL).
/// Twice in a batch of 100 ms, this is at most 0.4 % of one processor.
const AWAKE: Duration = Duration::from_micros(200);

/// How much it takes until waits are slept through: so many that were longer, less those that were not.
const TOO_LONG: u8 = 3;

/// One kind of wait, spent awake where it is likely to be short.
#[derive(Debug)]
pub(super) struct Wakeful {
    allowed: bool,
    /// Long waits less short ones, from 0 to [`TOO_LONG`].
    long: u8,
}

impl Wakeful {
    /// For waits on this runtime. A runtime of one thread is everybody's, and on one processor whoever stays awake keeps
    /// it from the one that it waits for: there, none is.
    pub(super) fn new() -> Self {
        let own_thread = Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread;
        Self::allowed(own_thread && available_parallelism().map_or(1, NonZero::get) > 1)
    }

    /// For waits of which none is spent awake.
    pub(super) fn asleep() -> Self {
        Self::allowed(false)
    }

    fn allowed(allowed: bool) -> Self {
        Self { allowed, long: TOO_LONG }
    }

    /// Awaits an answer. What else the thread has to do is done meanwhile.
    pub(super) async fn until<T>(&mut self, answer: impl Future<Output = T>) -> T {
        // The machine's own clock: tokio's may be stopped.
        let began = Instant::now();
        let mut answer = pin!(answer);
        let mut found = None;
        while self.allowed && self.long < TOO_LONG && found.is_none() && began.elapsed() < AWAKE {
            found = poll_immediate(answer.as_mut()).await;
            if found.is_none() {
                yield_now().await;
            }
        }
        let answer = match found {
            Some(answer) => answer,
            None => answer.await,
        };
        self.long = if began.elapsed() < AWAKE { self.long.saturating_sub(1) } else { TOO_LONG.min(self.long + 1) };
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::sync::oneshot;

    use super::*;

    const LONG: Duration = Duration::from_millis(20);
    /// More looks than a wait takes that is slept through.
    const MANY: u32 = 10;
    /// Where the processor is taken away, what should be short is long: so often it is tried again.
    const TRIES: u32 = 1_000;

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

    async fn know_short_ones(wakeful: &mut Wakeful) {
        for _ in 0..TRIES {
            if wakeful.long == 0 {
                return;
            }
            wakeful.until(async {}).await;
        }
        panic!("no wait was short");
    }

    /// Runs a test on a worker of the runtime, as the loop of a database does: outside, tasks take turns otherwise.
    async fn on_the_worker<T: Send + 'static>(test: impl Future<Output = T> + Send + 'static) -> T {
        tokio::spawn(test).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn waits_are_spent_awake_until_too_many_were_long() {
        let mut wakeful = Wakeful::allowed(true);
        let (unknown, awake, asleep) = on_the_worker(async move {
            let unknown = looks(&mut wakeful, LONG).await;
            let mut awake = 0;
            for _ in 0..TRIES {
                know_short_ones(&mut wakeful).await;
                awake = looks(&mut wakeful, LONG).await;
                if awake > MANY {
                    break;
                }
            }
            for _ in 1..TOO_LONG {
                looks(&mut wakeful, LONG).await;
            }
            (unknown, awake, looks(&mut wakeful, LONG).await)
        })
        .await;
        assert!(unknown < MANY && awake > MANY && asleep < MANY, "{unknown} {awake} {asleep}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_else_the_thread_has_to_do_is_done_meanwhile() {
        let mut wakeful = Wakeful::allowed(true);
        let answered_while_awake = on_the_worker(async move {
            for _ in 0..TRIES {
                know_short_ones(&mut wakeful).await;
                let (sender, receiver) = oneshot::channel();
                tokio::spawn(async { sender.send(()) });
                wakeful.until(receiver).await.unwrap();
                if wakeful.long == 0 {
                    return true;
                }
            }
            false
        })
        .await;
        assert!(answered_while_awake);
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_is_not_kept_busy() {
        let mut wakeful = Wakeful::new();
        know_short_ones(&mut wakeful).await;
        assert!(looks(&mut wakeful, LONG).await < MANY);
    }
}
