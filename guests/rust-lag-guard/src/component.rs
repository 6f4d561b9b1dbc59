//! The policy as a component: what the host calls.

mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "controller" });
    use super::LagGuard;
    export!(LagGuard);
}
use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use crate::policy::{Policy, Reading};
use bindings::exports::tidegate::controller::pacing::{self, Admission, Delay, GuestIteration, Outcome};
use bindings::tidegate::controller::{settings, signals};

struct LagGuard;

thread_local! {
    /// Settings stay as they are for as long as an instance lives, and so does what is held: an instance is for one
    /// database.
    static POLICY: OnceCell<Rc<Policy>> = const { OnceCell::new() };
}

impl pacing::Guest for LagGuard {
    type Iteration = Iteration;

    fn on_update(_update_name: String, database_name: String, _one_shot: bool) -> Result<pacing::Iteration, String> {
        POLICY.with(|policy| {
            if policy.get().is_none() {
                // Settings that are wrong are not kept, so that each iteration says so again.
                let _ = policy.set(Rc::new(Policy::new(settings::get)?));
            }
            let policy = policy.get().cloned().ok_or("the settings were not kept")?;
            let rest = Cell::new(policy.rest_ms());
            Ok(pacing::Iteration::new(Iteration { policy, database_name, rest }))
        })
    }
}

struct Iteration {
    policy: Rc<Policy>,
    database_name: String,
    /// The rest before this batch that is still to be made, in milliseconds.
    rest: Cell<u32>,
}

impl GuestIteration for Iteration {
    fn enter(&self) -> Result<Admission, String> {
        let rest = self.rest.take();
        if rest > 0 {
            return Ok(Admission::Wait(Delay { duration: rest, reason: "rest between batches".to_owned() }));
        }
        let read = |signal: &str| {
            let reading = signals::read(&self.database_name, signal)?;
            Some(Reading { value: reading.value, age_ms: reading.age })
        };
        Ok(match self.policy.hold(read) {
            Some(reason) => Admission::Wait(Delay { duration: self.policy.check_ms(), reason }),
            None => Admission::Run(self.policy.target_ms()),
        })
    }

    fn exit(&self, _outcome: Outcome) -> Result<(), String> {
        Ok(())
    }
}
