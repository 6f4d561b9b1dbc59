//! The built-in policy's gentle pace: how much of the time updates get follows what the foreground feels.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{Admission, BuiltIn, Controller, Fault, Iteration, Outcome, Source, Subject};
use crate::pace::gentle::{self, Bounds, Latency};
use crate::signal::{FOREGROUND_LATENCY, FOREGROUND_UNDISTURBED, SignalReader};

/// Older readings say nothing.
const STALE_AFTER: Duration = Duration::from_secs(5);

/// Within which bounds the pace is gentle; under the same names in the configuration, where they are explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GentleSettings {
    /// The least part of the time that batches get, in percent, from 1 on.
    pub least_duty_percent: u32,
    /// The most, up to 100.
    pub most_duty_percent: u32,
    /// What batches aim at where the foreground feels them. Where it does not they are as long as those of the steady pace.
    pub shortest_batch: Duration,
    /// The longest rest between two batches.
    pub longest_sleep: Duration,
    /// By how much the undisturbed latency may grow, in percent of itself.
    pub allowed_excess_percent: u32,
    /// By how much it may grow, where that is more.
    pub allowed_excess: Duration,
}

impl Default for GentleSettings {
    fn default() -> Self {
        Self {
            least_duty_percent: 2,
            most_duty_percent: 90,
            shortest_batch: Duration::from_millis(10),
            longest_sleep: Duration::from_secs(10),
            allowed_excess_percent: 25,
            allowed_excess: Duration::from_micros(300),
        }
    }
}

impl GentleSettings {
    fn bounds(&self, steady: &BuiltIn) -> Bounds {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        Bounds {
            least_duty: f64::from(self.least_duty_percent.max(1)) / 100.0,
            most_duty: f64::from(self.most_duty_percent.max(self.least_duty_percent).clamp(1, 100)) / 100.0,
            shortest_batch_ms: ms(self.shortest_batch),
            longest_batch_ms: ms(steady.target),
            longest_sleep_ms: ms(self.longest_sleep),
            plain_sleep_ms: ms(steady.sleep.unwrap_or_default()),
            allowed_excess: f64::from(self.allowed_excess_percent) / 100.0,
            allowed_excess_ms: ms(self.allowed_excess),
            stale_after_ms: ms(STALE_AFTER),
        }
    }
}

/// The gentle pace, to be given to a database that somebody lives in.
///
/// It goes by the signals `foreground-latency` and `foreground-undisturbed`. While there are none it does as the steady
/// pace does: [`BuiltIn`].
#[derive(Clone)]
pub struct Gentle {
    settings: GentleSettings,
    steady: BuiltIn,
    signals: Arc<dyn SignalReader>,
}

impl Gentle {
    /// Goes by these signals, and is as steady as that where there are none.
    pub fn new(settings: GentleSettings, steady: BuiltIn, signals: Arc<dyn SignalReader>) -> Self {
        Self { settings, steady, signals }
    }
}

#[async_trait]
impl Source for Gentle {
    fn name(&self) -> &str {
        "default (gentle)"
    }

    async fn start(&self, database_name: &str) -> Result<Box<dyn Controller>, Fault> {
        let state = Arc::new(Mutex::new(gentle::Gentle::new(self.settings.bounds(&self.steady))));
        Ok(Box::new(Working { gentle: self.clone(), database_name: database_name.to_owned(), state }))
    }
}

/// The pace of one database.
#[derive(Clone)]
struct Working {
    gentle: Gentle,
    database_name: String,
    state: Arc<Mutex<gentle::Gentle>>,
}

impl Working {
    fn state(&self) -> MutexGuard<'_, gentle::Gentle> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latency(&self) -> Option<Latency> {
        let read = |signal| self.gentle.signals.read(&self.database_name, signal);
        let (latency, undisturbed) = (read(FOREGROUND_LATENCY)?, read(FOREGROUND_UNDISTURBED)?);
        let bounds = self.gentle.settings.bounds(&self.gentle.steady);
        let age_ms = latency.age.as_secs_f64() * 1e3;
        let (latency_ms, undisturbed_ms) = (latency.value, undisturbed.value);
        Some(Latency { latency_ms, undisturbed_ms, limit_ms: bounds.limit(undisturbed_ms), age_ms })
    }
}

#[async_trait]
impl Controller for Working {
    async fn on_update(&mut self, _: &Subject) -> Result<Box<dyn Iteration>, Fault> {
        Ok(Box::new(WorkingBatch(self.clone())))
    }

    async fn min_batch_size(&mut self, _: &str, _: &str) -> Result<Option<u32>, Fault> {
        // A least number of items would have batches take longer than the foreground bears.
        Ok(Some(1))
    }
}

struct WorkingBatch(Working);

#[async_trait]
impl Iteration for WorkingBatch {
    async fn enter(&mut self) -> Result<Admission, Fault> {
        let latency = self.0.latency();
        let mut state = self.0.state();
        Ok(match state.rest(latency) {
            Some(rest) => Admission::Wait { duration: duration(rest.ms), reason: rest.reason },
            None => Admission::Run(duration(state.target_ms())),
        })
    }

    async fn exit(&mut self, outcome: &Outcome) -> Result<(), Fault> {
        if let Outcome::Completed(batch) = outcome {
            self.0.state().note_batch(batch.duration.as_secs_f64() * 1e3);
        }
        Ok(())
    }
}

fn duration(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{NoSignals, Reading};

    /// The foreground's latency, and what it is by itself.
    struct Told(Mutex<Option<(f64, f64)>>);

    impl SignalReader for Told {
        fn read(&self, database_name: &str, signal: &str) -> Option<Reading> {
            assert_eq!(database_name, "master");
            let (latency, undisturbed) = (*self.0.lock().unwrap())?;
            let value = if signal == FOREGROUND_LATENCY { latency } else { undisturbed };
            Some(Reading { value, age: Duration::from_millis(20) })
        }
    }

    /// An iteration whose batch takes as long as it aims at: the rests before it, and its target, in milliseconds.
    async fn iterate(controller: &mut dyn Controller) -> (Vec<(u128, String)>, u128) {
        let subject = Subject { update_name: "a".to_owned(), database_name: "master".to_owned(), one_shot: false };
        let mut iteration = controller.on_update(&subject).await.unwrap();
        let mut rests = Vec::new();
        loop {
            match iteration.enter().await.unwrap() {
                Admission::Wait { duration, reason } => rests.push((duration.as_millis(), reason)),
                Admission::Run(target) => {
                    let batch =
                        super::super::CompletedBatch { items: 9, batch_size: 9, duration: target, finished: false };
                    iteration.exit(&Outcome::Completed(batch)).await.unwrap();
                    return (rests, target.as_millis());
                }
            }
        }
    }

    #[tokio::test]
    async fn it_listens_first_and_goes_by_what_it_hears() {
        let told = Arc::new(Told(Mutex::new(None)));
        let gentle = Gentle::new(GentleSettings::default(), BuiltIn::default(), told.clone());
        let mut controller = gentle.start("master").await.unwrap();
        assert_eq!(controller.min_batch_size("a", "master").await, Ok(Some(1)));
        *told.0.lock().unwrap() = Some((4.0, 4.0));
        let (_, target) = iterate(&mut *controller).await;
        assert_eq!(target, 10, "short batches first");
        for _ in 0..3_000 {
            iterate(&mut *controller).await;
        }
        assert_eq!(iterate(&mut *controller).await.1, 100);
        *told.0.lock().unwrap() = Some((40.0, 4.0));
        for _ in 0..300 {
            iterate(&mut *controller).await;
        }
        let (rests, target) = iterate(&mut *controller).await;
        let reason = "foreground latency 40 ms > 5.00 ms: updates get 2.0 % of the time";
        assert_eq!((&rests[..], target), (&[(490, reason.to_owned())][..], 10));
    }

    #[tokio::test]
    async fn where_nothing_is_measured_it_is_steady() {
        let gentle = Gentle::new(GentleSettings::default(), BuiltIn::default(), Arc::new(NoSignals));
        let mut controller = gentle.start("master").await.unwrap();
        let (rests, target) = iterate(&mut *controller).await;
        assert_eq!((rests.len(), target), (3, 100), "{rests:?}");
        for _ in 0..3 {
            let (rests, target) = iterate(&mut *controller).await;
            assert_eq!((rests.len(), rests[0].0, target), (1, 1_000, 100), "{rests:?}");
            assert!(rests[0].1.contains("never read"), "{rests:?}");
        }
    }
}
