//! The policy: a batch waits while replicas lag behind, and otherwise aims at a target duration.

wit_bindgen::generate!({ path: "wit", world: "controller" });

use exports::tidegate::controller::pacing::{Admission, Delay, Guest, GuestIteration, Iteration, Outcome};
use tidegate::controller::{log, settings, signals};

/// A reading older than this, in milliseconds, says nothing about now.
const STALE_MS: u32 = 30_000;

/// How long to wait before asking again, in milliseconds.
const WAIT_MS: u32 = 500;

struct Policy;

/// One iteration of one update: it is entered, perhaps several times, until it lets a batch run.
struct Paced {
    database: String,
    target_ms: u32,
    max_lag_ms: u32,
}

impl Guest for Policy {
    type Iteration = Paced;

    fn on_update(_update: String, database: String, _one_shot: bool) -> Result<Iteration, String> {
        let (target_ms, max_lag_ms) = (number("target_ms", 100)?, number("max_lag_ms", 1_000)?);
        Ok(Iteration::new(Paced { database, target_ms, max_lag_ms }))
    }
}

impl GuestIteration for Paced {
    fn enter(&self) -> Result<Admission, String> {
        let Some(lag) = signals::read(&self.database, "replication-lag") else {
            return Ok(Admission::Run(self.target_ms)); // Nobody measures it here.
        };
        if lag.age > STALE_MS {
            return Ok(Admission::Run(self.target_ms / 10)); // Nobody knows: go on, but gently.
        }
        if lag.value > f64::from(self.max_lag_ms) {
            let reason = format!("replication lag {} ms > {} ms", lag.value as u64, self.max_lag_ms);
            return Ok(Admission::Wait(Delay { duration: WAIT_MS, reason }));
        }
        Ok(Admission::Run(self.target_ms))
    }

    fn exit(&self, outcome: Outcome) -> Result<(), String> {
        if let Outcome::Failed(why) = outcome {
            log::write(log::Level::Warn, &format!("the batch failed: {why}"));
        }
        Ok(())
    }
}

/// A setting that the operator may write below [controller.settings]. An error holds the update, and is shown.
fn number(key: &str, default: u32) -> Result<u32, String> {
    let Some(text) = settings::get(key) else { return Ok(default) };
    text.parse().map_err(|_| format!("setting `{key}` is \"{text}\", not a number"))
}

export!(Policy);
