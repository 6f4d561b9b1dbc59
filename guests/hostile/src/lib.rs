//! A controller that misbehaves as its settings say, to try a host with. Without settings it behaves: it runs batches
//! of 100 ms (`target_ms`) and of 100 items.

mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "controller-full" });
    use super::Hostile;
    export!(Hostile);
}
mod deeds;
mod plan;

use bindings::exports::tidegate::controller::pacing::{self, Admission, Delay, GuestIteration, Outcome};
use bindings::exports::tidegate::controller::{default_batch_size, min_batch_size};
use plan::{Callback, Deed};

struct Hostile;

impl pacing::Guest for Hostile {
    type Iteration = Iteration;

    fn on_update(update_name: String, _database_name: String, _one_shot: bool) -> Result<pacing::Iteration, String> {
        match plan::due(Callback::OnUpdate, &update_name) {
            Some((Deed::Error, bytes)) => Err(deeds::text(bytes)),
            Some((Deed::BadHandle, _)) => Ok(deeds::bad_handle()),
            due => {
                deeds::act(due);
                Ok(pacing::Iteration::new(Iteration { update_name }))
            }
        }
    }
}

struct Iteration {
    update_name: String,
}

impl GuestIteration for Iteration {
    fn enter(&self) -> Result<Admission, String> {
        Ok(match plan::due(Callback::Enter, &self.update_name) {
            Some((Deed::Error, bytes)) => return Err(deeds::text(bytes)),
            Some((Deed::Target, ms)) => Admission::Run(number(ms)),
            Some((Deed::Wait, ms)) => wait(number(ms), "as told".to_owned()),
            Some((Deed::Reason, bytes)) => wait(20, deeds::text(bytes)),
            Some((Deed::BadAnswer, _)) => wait(20, deeds::bad_answer()),
            due => {
                deeds::act(due);
                Admission::Run(number(plan::setting("target_ms").unwrap_or(100)))
            }
        })
    }

    fn exit(&self, _outcome: Outcome) -> Result<(), String> {
        match plan::due(Callback::Exit, &self.update_name) {
            Some((Deed::Error, bytes)) => return Err(deeds::text(bytes)),
            due => deeds::act(due),
        }
        Ok(())
    }
}

impl Drop for Iteration {
    fn drop(&mut self) {
        deeds::act(plan::due(Callback::Drop, &self.update_name));
    }
}

impl default_batch_size::Guest for Hostile {
    fn default_batch_size(update_name: String, _database_name: String) -> u32 {
        batch_size(Callback::DefaultBatchSize, &update_name)
    }
}

impl min_batch_size::Guest for Hostile {
    fn min_batch_size(update_name: String, _database_name: String) -> u32 {
        batch_size(Callback::MinBatchSize, &update_name)
    }
}

fn batch_size(callback: Callback, update_name: &str) -> u32 {
    match plan::due(callback, update_name) {
        Some((Deed::BatchSize, items)) => number(items),
        due => {
            deeds::act(due);
            100
        }
    }
}

fn wait(duration: u32, reason: String) -> Admission {
    Admission::Wait(Delay { duration, reason })
}

fn number(amount: u64) -> u32 {
    u32::try_from(amount).expect("`amount` is below 2^32 here")
}
