//! Which scenarios a controller is tried in, and what it is there.

use std::path::Path;
use std::sync::Arc;

use tidegate::controller::Fault;
use tidegate_config::{STANDARD, load_scenario, standard};
use tidegate_simulate::scenario::Update;
use tidegate_simulate::{Candidate, Run, Scenario, SimulationError, simulate};
use tidegate_wasm::{Artifact, Limits};

use super::super::error::CliError;
use super::super::output;
use super::load::Component;

/// A scenario: a file, or the name of a standard one.
pub(super) fn find(named: &str) -> Result<Scenario, CliError> {
    let path = Path::new(named);
    if !path.exists()
        && let Some(scenario) = standard(named)
    {
        return Ok(scenario);
    }
    load_scenario(path).map_err(|diagnostics| {
        let nearest = output::nearest(named, STANDARD.iter().map(|(name, _)| *name));
        match nearest {
            Some(nearest) if !path.exists() => {
                let message = format!("there is no scenario \"{named}\": neither a file nor a standard one");
                CliError::usage(message).hint(format!("did you mean \"{nearest}\"?"))
            }
            _ => CliError::scenario(diagnostics),
        }
    })
}

/// Adds an update of this name to a scenario, where it has none: as the first of it, with 500 items.
pub(super) fn add_update(scenario: &mut Scenario, name: &str) {
    if scenario.updates.iter().any(|update| update.name == name) {
        return;
    }
    if let Some(first) = scenario.updates.first().cloned() {
        let none = (Vec::new(), 0, false);
        let (failures, empty_every, one_shot) = none;
        let name = name.to_owned();
        let like = Update { count: 1, items: 500, failures, empty_every, one_shot, depends_on: String::new(), ..first };
        scenario.updates.push(Update { name, ..like });
    }
}

/// The file on the bench.
pub(super) struct Bench {
    pub(super) artifact: Arc<Artifact>,
    candidate: Candidate,
}

impl Bench {
    pub(super) async fn load(component: &Component) -> Result<Self, CliError> {
        let artifact = component.artifact(Limits::default()).await.map_err(|fault| refused(component, &fault))?;
        let candidate = Candidate::Component {
            name: component.name(),
            artifact: artifact.clone(),
            settings: component.settings.clone(),
        };
        Ok(Self { artifact, candidate })
    }

    pub(super) fn run(&self, scenario: &Scenario, seed: Option<u64>) -> Result<Run, CliError> {
        simulate(&self.candidate, scenario, seed).map_err(|error| {
            let told = CliError::failure(format!("scenario {} came to nothing", scenario.name));
            let too_slow = matches!(error, SimulationError::TooSlow { .. });
            let told = told.because(error);
            match too_slow {
                true => {
                    told.hint("run it on a machine with less to do, or raise `deadline_ms` in [limits] of the scenario")
                }
                false => told,
            }
        })
    }
}

fn refused(component: &Component, fault: &Fault) -> CliError {
    CliError::usage(format!("{} cannot be loaded", component.file.display()))
        .because(fault.clone())
        .hint(format!("{}; `tidegate controller check` tells more", fault.kind.hint()))
}
