//! Synapse's own pace as a controller: before each iteration a pause, then one batch that aims at a duration.
//!
//! The settings have the names and the defaults of Synapse's `background_updates` section.

mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "controller-full" });
    use super::Steady;
    export!(Steady);
}
mod settings;

use std::cell::Cell;
use std::sync::OnceLock;

use bindings::exports::tidegate::controller::pacing::{self, Admission, Delay, GuestIteration, Milliseconds, Outcome};
use bindings::exports::tidegate::controller::{default_batch_size, min_batch_size};
use bindings::tidegate::controller::log;

struct Steady;

impl pacing::Guest for Steady {
    type Iteration = Iteration;

    fn on_update(_update_name: String, _database_name: String, _one_shot: bool) -> Result<pacing::Iteration, String> {
        let Settings { pause, target, .. } = *settings()?;
        Ok(pacing::Iteration::new(Iteration { pause: Cell::new(pause), target }))
    }
}

/// What the operator configured.
struct Settings {
    pause: Option<Milliseconds>,
    target: Milliseconds,
    default_batch_size: u32,
    min_batch_size: u32,
}

/// The settings, which stay the same as long as this instance lives: they are read once, for each look is a call.
fn settings() -> Result<&'static Settings, String> {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    if let Some(settings) = SETTINGS.get() {
        return Ok(settings);
    }
    let sleep = settings::flag("sleep_enabled", true)?;
    let sleep_duration = settings::number("sleep_duration_ms", 1_000)?;
    let read = Settings {
        pause: (sleep && sleep_duration > 0).then_some(sleep_duration),
        target: settings::number("background_update_duration_ms", 100)?,
        default_batch_size: settings::number("default_batch_size", 100)?,
        min_batch_size: settings::number("min_batch_size", 100)?,
    };
    Ok(SETTINGS.get_or_init(|| read))
}

struct Iteration {
    /// The pause that is still to be made; none once it was answered.
    pause: Cell<Option<Milliseconds>>,
    target: Milliseconds,
}

impl GuestIteration for Iteration {
    fn enter(&self) -> Result<Admission, String> {
        Ok(match self.pause.take() {
            Some(duration) => Admission::Wait(Delay { duration, reason: "sleep between iterations".to_owned() }),
            None => Admission::Run(self.target),
        })
    }

    fn exit(&self, outcome: Outcome) -> Result<(), String> {
        if let Outcome::Failed(why) = outcome {
            log::write(log::Level::Warn, &format!("the batch failed: {why}"));
        }
        Ok(())
    }
}

impl default_batch_size::Guest for Steady {
    fn default_batch_size(_update_name: String, _database_name: String) -> u32 {
        settings().map_or(100, |settings| settings.default_batch_size)
    }
}

impl min_batch_size::Guest for Steady {
    fn min_batch_size(_update_name: String, _database_name: String) -> u32 {
        settings().map_or(100, |settings| settings.min_batch_size)
    }
}
