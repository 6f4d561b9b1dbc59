//! The built-in policy: sleep, then aim at a fixed duration, which is what Synapse does without a module.
//!
//! Unlike Synapse it owes a whole sleep only after a whole batch. What ended its update in a part of the target owes that
//! part of a sleep, and what ended it without an item, within the target, owes none: thousands of short updates would
//! be slept through, otherwise.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{Admission, CompletedBatch, Controller, Fault, Iteration, Outcome, Source, Subject};

/// Why it lets an update rest before each batch, in Synapse's terms.
pub(crate) const SLEEP: &str = "sleep between iterations";

/// The built-in policy's settings, under Synapse's names in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// How long to sleep after each whole batch, and before the first one: `sleep_duration_ms`, or `None` without `sleep_enabled`.
    pub sleep: Option<Duration>,
    /// The target duration of a batch: `background_update_duration_ms`.
    pub target: Duration,
}

impl Default for BuiltIn {
    /// Synapse's defaults.
    fn default() -> Self {
        Self { sleep: Some(Duration::from_millis(1_000)), target: Duration::from_millis(100) }
    }
}

impl BuiltIn {
    /// What is owed after an iteration.
    fn owed_after(&self, outcome: &Outcome) -> Duration {
        let sleep = self.sleep.unwrap_or_default();
        match outcome {
            Outcome::Completed(CompletedBatch { finished: true, duration, items, .. }) if *duration < self.target => {
                match items {
                    0 => Duration::ZERO,
                    _ => sleep.mul_f64(duration.as_secs_f64() / self.target.as_secs_f64()),
                }
            }
            _ => sleep,
        }
    }
}

/// What is still to be slept, from one iteration to the next.
#[derive(Clone)]
struct Debt(Arc<Mutex<Duration>>);

impl Debt {
    fn lock(&self) -> MutexGuard<'_, Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The policy at work on one database.
struct Working {
    settings: BuiltIn,
    debt: Debt,
}

#[async_trait]
impl Controller for Working {
    async fn on_update(&mut self, _: &Subject) -> Result<Box<dyn Iteration>, Fault> {
        Ok(Box::new(Sleeper { settings: self.settings, debt: self.debt.clone(), slept: false }))
    }
}

#[async_trait]
impl Source for BuiltIn {
    fn name(&self) -> &str {
        "default"
    }

    async fn start(&self, _: &str) -> Result<Box<dyn Controller>, Fault> {
        // Nobody knows what was done before.
        let debt = Debt(Arc::new(Mutex::new(self.sleep.unwrap_or_default())));
        Ok(Box::new(Working { settings: *self, debt }))
    }
}

struct Sleeper {
    settings: BuiltIn,
    debt: Debt,
    /// True once this iteration was had to sleep. Until it is entered again, the sleep may be cut short.
    slept: bool,
}

impl Sleeper {
    /// The sleep that is due, if any is: less than a tenth of one is saved up.
    fn due(&self) -> Option<Duration> {
        let sleep = self.settings.sleep.filter(|sleep| !sleep.is_zero())?;
        let owed = (*self.debt.lock()).min(sleep);
        (owed * 10 >= sleep).then_some(owed)
    }
}

#[async_trait]
impl Iteration for Sleeper {
    async fn enter(&mut self) -> Result<Admission, Fault> {
        if std::mem::take(&mut self.slept) {
            *self.debt.lock() = Duration::ZERO;
        } else if let Some(duration) = self.due() {
            self.slept = true;
            return Ok(Admission::Wait { duration, reason: SLEEP.to_owned() });
        }
        Ok(Admission::Run(self.settings.target))
    }

    async fn exit(&mut self, outcome: &Outcome) -> Result<(), Fault> {
        *self.debt.lock() += self.settings.owed_after(outcome);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_batches_owe_a_sleep_and_short_ends_their_part() {
        let policy = BuiltIn::default();
        let batch = |items, ms, finished| {
            Outcome::Completed(CompletedBatch { items, batch_size: 100, duration: Duration::from_millis(ms), finished })
        };
        for (outcome, owed) in [
            (batch(100, 90, false), 1_000),
            (batch(0, 1, false), 1_000),
            (batch(100, 100, true), 1_000),
            (batch(100, 7_000, true), 1_000),
            (batch(3, 20, true), 200),
            (batch(0, 20, true), 0),
            (batch(0, 20_000, true), 1_000),
            (Outcome::Failed("no".to_owned()), 1_000),
            (Outcome::Cancelled, 1_000),
        ] {
            assert_eq!(policy.owed_after(&outcome).as_millis(), owed, "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn little_debts_are_saved_up() {
        let subject = Subject { update_name: "a".to_owned(), database_name: "master".to_owned(), one_shot: false };
        let mut policy = BuiltIn::default().start("master").await.unwrap();
        let short = CompletedBatch { items: 1, batch_size: 100, duration: Duration::from_millis(4), finished: true };
        let mut slept = Vec::new();
        for _ in 0..6 {
            let mut iteration = policy.on_update(&subject).await.unwrap();
            let mut admission = iteration.enter().await.unwrap();
            if let Admission::Wait { duration, .. } = admission {
                slept.push(duration.as_millis());
                admission = iteration.enter().await.unwrap();
            } else {
                slept.push(0);
            }
            assert_eq!(admission, Admission::Run(Duration::from_millis(100)));
            iteration.exit(&Outcome::Completed(short)).await.unwrap();
            iteration.close().await.unwrap();
        }
        assert_eq!(slept, [1_000, 0, 0, 120, 0, 0]);
    }
}
