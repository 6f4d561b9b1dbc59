//! The policy as a component: what the host calls.

mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        // With one of the two callbacks that are left to choice.
        inline: "package rust:gentle;
            world gentle {
                include tidegate:controller/controller@0.1.0;
                include tidegate:controller/with-min-batch-size@0.1.0;
            }",
        world: "rust:gentle/gentle",
        generate_all,
    });
    use super::Gentle;
    export!(Gentle);
}
use std::cell::RefCell;

use crate::policy::{Policy, Reading};
use bindings::exports::tidegate::controller::pacing::{self, Admission, Delay, GuestIteration, Outcome};
use bindings::tidegate::controller::{settings, signals};

struct Gentle;

thread_local! {
    /// What was learned stays for as long as an instance lives, which is for one database.
    static POLICY: RefCell<Option<Policy>> = const { RefCell::new(None) };
}

fn with<T>(work: impl FnOnce(&mut Policy) -> T) -> Result<T, String> {
    POLICY.with_borrow_mut(|policy| policy.as_mut().map(work).ok_or_else(|| "the settings were not kept".to_owned()))
}

impl pacing::Guest for Gentle {
    type Iteration = Iteration;

    fn on_update(_update_name: String, database_name: String, _one_shot: bool) -> Result<pacing::Iteration, String> {
        POLICY.with_borrow_mut(|policy| {
            if policy.is_none() {
                // Settings that are wrong are not kept, so that each iteration says so again.
                *policy = Some(Policy::new(settings::get)?);
            }
            Ok::<(), String>(())
        })?;
        Ok(pacing::Iteration::new(Iteration { database_name }))
    }
}

impl bindings::exports::tidegate::controller::min_batch_size::Guest for Gentle {
    /// A least number of items would have batches take longer than the foreground bears.
    fn min_batch_size(_update_name: String, _database_name: String) -> u32 {
        1
    }
}

struct Iteration {
    database_name: String,
}

impl GuestIteration for Iteration {
    fn enter(&self) -> Result<Admission, String> {
        with(|policy| {
            let read = |signal: &str| {
                let reading = signals::read(&self.database_name, signal)?;
                Some(Reading { value: reading.value, age_ms: reading.age })
            };
            match policy.rest(read) {
                Some((duration, reason)) => Admission::Wait(Delay { duration, reason }),
                None => Admission::Run(policy.target_ms()),
            }
        })
    }

    fn exit(&self, outcome: Outcome) -> Result<(), String> {
        match outcome {
            Outcome::Completed(batch) => with(|policy| policy.note_batch(batch.duration)),
            Outcome::Failed(_) | Outcome::Cancelled => Ok(()),
        }
    }
}
