//! The built-in policy: sleep, then aim at a fixed duration, which is what Synapse does without a module.

use std::time::Duration;

use async_trait::async_trait;

use super::{Admission, Controller, Fault, Iteration, Outcome, Source, Subject};

/// The built-in policy's settings, under Synapse's names in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// How long to sleep before each iteration: `sleep_duration_ms`, or `None` without `sleep_enabled`.
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

#[async_trait]
impl Controller for BuiltIn {
    async fn on_update(&mut self, _: &Subject) -> Result<Box<dyn Iteration>, Fault> {
        Ok(Box::new(Sleeper { sleep: self.sleep, target: self.target }))
    }
}

#[async_trait]
impl Source for BuiltIn {
    fn name(&self) -> &str {
        "default"
    }

    async fn start(&self, _: &str) -> Result<Box<dyn Controller>, Fault> {
        Ok(Box::new(*self))
    }
}

struct Sleeper {
    /// Taken by the first enter.
    sleep: Option<Duration>,
    target: Duration,
}

#[async_trait]
impl Iteration for Sleeper {
    async fn enter(&mut self) -> Result<Admission, Fault> {
        Ok(match self.sleep.take() {
            Some(duration) => Admission::Wait { duration, reason: "sleep between iterations".to_owned() },
            None => Admission::Run(self.target),
        })
    }

    async fn exit(&mut self, _: &Outcome) -> Result<(), Fault> {
        Ok(())
    }
}
