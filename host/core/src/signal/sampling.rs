//! Having signals sampled, each at its own interval, so that none waits for another.

use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{Sample, Sampler, Scope, Signals};

/// When a sampler is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// From the beginning of one sample to the next, at least.
    pub interval: Duration,
    /// After how long without an answer that is told as an error.
    pub timeout: Duration,
}

impl Default for Schedule {
    /// Every 1,000 ms, with 1,000 ms for an answer.
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), timeout: Duration::from_secs(1) }
    }
}

/// A sampler to be asked, and for whom.
pub struct Task {
    /// Whose signals these are.
    pub scope: Scope,
    /// Who measures them.
    pub sampler: Box<dyn Sampler>,
    /// When.
    pub schedule: Schedule,
}

/// Samples in the background until it is dropped: on the tokio runtime that it is used on, a task for each sampler.
pub struct Sampling {
    signals: Signals,
    tasks: Mutex<JoinSet<()>>,
}

impl Sampling {
    /// Samples nothing yet; what is measured will be found in `signals`.
    pub fn new(signals: Signals) -> Self {
        Self { signals, tasks: Mutex::default() }
    }

    /// Where the readings are.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Samples this from now on, and nothing else. A signal that was there before keeps its reading, and its age.
    pub fn replace(&self, tasks: Vec<Task>) {
        let mut running = JoinSet::new();
        self.define(&tasks);
        for task in tasks {
            running.spawn(sample_for_ever(self.signals.clone(), task));
        }
        // The old ones end where they are dropped.
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }

    /// Samples this twice, `pause` apart, and then nothing any more: what is measured between two samples has a reading
    /// by then. A sampler that does not answer within `limit` is left alone.
    pub async fn look(&self, tasks: Vec<Task>, pause: Duration, limit: Duration) {
        self.define(&tasks);
        let mut running = JoinSet::new();
        for mut task in tasks {
            let signals = self.signals.clone();
            running.spawn(async move {
                let twice = async {
                    sample(&signals, &mut task).await;
                    sleep(pause).await;
                    sample(&signals, &mut task).await;
                };
                // What it did not answer is told already.
                let _ = timeout(limit, twice).await;
            });
        }
        while running.join_next().await.is_some() {}
    }

    fn define(&self, tasks: &[Task]) {
        let mut definitions = Vec::new();
        for Task { scope, sampler, .. } in tasks {
            definitions.extend(sampler.definitions().into_iter().map(|signal| (scope.clone(), signal)));
        }
        self.signals.define(definitions);
    }
}

async fn sample_for_ever(signals: Signals, mut task: Task) {
    // An interval of nothing would panic.
    let mut ticks = interval(task.schedule.interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        sample(&signals, &mut task).await;
    }
}

/// Samples once. One that takes too long is told, and waited for: no second one begins beside it.
async fn sample(signals: &Signals, task: &mut Task) {
    let Task { scope, sampler, schedule } = task;
    let definitions = sampler.definitions();
    let mut measured = std::pin::pin!(AssertUnwindSafe(sampler.sample()).catch_unwind());
    let samples: Result<Vec<Sample>, _> = match timeout(schedule.timeout, &mut measured).await {
        Ok(samples) => samples,
        Err(_) => {
            let limit = schedule.timeout.as_millis();
            signals.note_error(scope, &definitions, &format!("no answer within {limit} ms"));
            measured.await
        }
    };
    match samples {
        Ok(samples) => signals.note(scope, &samples),
        Err(_) => signals.note_error(scope, &definitions, "the sampler panicked"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;

    use super::super::{Definition, Sample, Sampler, Scope, SignalReader, Signals};
    use super::{Sampling, Schedule, Task};

    /// Counts its samples, and from the third on does as it is told.
    struct Counter {
        name: &'static str,
        count: f64,
        then: fn(),
    }

    #[async_trait]
    impl Sampler for Counter {
        fn definitions(&self) -> Vec<Definition> {
            vec![Definition { name: self.name.to_owned(), unit: String::new(), source: "a test".to_owned() }]
        }

        async fn sample(&mut self) -> Vec<Sample> {
            self.count += 1.0;
            if self.count > 2.0 {
                (self.then)();
                std::future::pending::<()>().await;
            }
            vec![Sample::new(self.name, Ok::<_, String>(self.count))]
        }
    }

    fn task(name: &'static str, then: fn()) -> Task {
        let sampler = Box::new(Counter { name, count: 0.0, then });
        Task { scope: Scope::database("one"), sampler, schedule: Schedule::default() }
    }

    fn error(signals: &Signals, name: &str) -> Option<String> {
        let found = signals.all().into_iter().find(|signal| signal.definition.name == name);
        found.and_then(|signal| signal.error).map(|(error, _)| error)
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_or_panics_only_ages() {
        let sampling = Sampling::new(Signals::default());
        sampling.replace(vec![task("hangs", || ()), task("panics", || panic!("on purpose"))]);
        tokio::time::sleep(Duration::from_millis(60_500)).await;
        let signals = sampling.signals();
        for name in ["hangs", "panics"] {
            let reading = signals.read("one", name).unwrap();
            assert_eq!(reading.value, 2.0);
            assert!((Duration::from_secs(59)..Duration::from_secs(60)).contains(&reading.age), "{:?}", reading.age);
        }
        assert_eq!(error(signals, "hangs").as_deref(), Some("no answer within 1000 ms"));
        assert_eq!(error(signals, "panics").as_deref(), Some("the sampler panicked"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_has_two_samples_and_waits_for_nobody_for_ever() {
        let sampling = Sampling::new(Signals::default());
        let began = tokio::time::Instant::now();
        sampling.look(vec![task("counts", || ())], Duration::from_millis(300), Duration::from_secs(9)).await;
        assert_eq!(sampling.signals().read("one", "counts").unwrap().value, 2.0);
        assert_eq!(began.elapsed(), Duration::from_millis(300));
        let mut hanging = task("hangs", || ());
        let sampler = Box::new(Counter { name: "hangs", count: 2.0, then: || () });
        hanging.sampler = sampler;
        sampling.look(vec![hanging], Duration::from_millis(300), Duration::from_secs(9)).await;
        assert_eq!(error(sampling.signals(), "hangs").as_deref(), Some("no answer within 1000 ms"));
    }
}
