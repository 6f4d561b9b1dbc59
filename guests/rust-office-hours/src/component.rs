//! The policy as a component: what the host calls, and the clock.

mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        inline: "
            package tidegate:office-hours;

            world office-hours {
                include tidegate:controller/controller@0.1.0;
                import wasi:clocks/wall-clock@0.2.0;
            }
        ",
        world: "tidegate:office-hours/office-hours",
        generate_all,
    });

    use super::OfficeHours;
    export!(OfficeHours);
}
use std::cell::OnceCell;
use std::rc::Rc;

use jiff::Timestamp;

use crate::policy::{Answer, Policy};
use bindings::exports::tidegate::controller::pacing::{self, Admission, Delay, GuestIteration, Outcome};
use bindings::tidegate::controller::settings;
use bindings::wasi::clocks::wall_clock;

struct OfficeHours;

thread_local! {
    /// Settings stay as they are for as long as an instance lives: they are read once.
    static POLICY: OnceCell<Rc<Policy>> = const { OnceCell::new() };
}

impl pacing::Guest for OfficeHours {
    type Iteration = Iteration;

    fn on_update(_update_name: String, _database_name: String, _one_shot: bool) -> Result<pacing::Iteration, String> {
        POLICY.with(|policy| {
            if policy.get().is_none() {
                // Settings that are wrong are not kept, so that each iteration says so again.
                let _ = policy.set(Rc::new(Policy::new(settings::get)?));
            }
            let policy = policy.get().cloned().ok_or("the settings were not kept")?;
            Ok(pacing::Iteration::new(Iteration { policy }))
        })
    }
}

struct Iteration {
    policy: Rc<Policy>,
}

impl GuestIteration for Iteration {
    fn enter(&self) -> Result<Admission, String> {
        Ok(match self.policy.answer(now()?)? {
            Answer::Run { target_ms } => Admission::Run(target_ms),
            Answer::Wait { ms, reason } => Admission::Wait(Delay { duration: ms, reason }),
        })
    }

    fn exit(&self, _outcome: Outcome) -> Result<(), String> {
        Ok(())
    }
}

fn now() -> Result<Timestamp, String> {
    let wall_clock::Datetime { seconds, nanoseconds } = wall_clock::now();
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::new(seconds, nanoseconds.try_into().ok()?).ok())
        .ok_or_else(|| format!("the clock is {seconds} s past 1970, beyond any calendar"))
}
