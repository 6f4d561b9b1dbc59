//! Controllers on the bench: scenarios on virtual time, and the commands made of them.

mod commands;
mod files;
mod found;
mod gentle;
mod reality;
mod standard;
mod surroundings;

use std::path::Path;

use tidegate_simulate::Scenario;
use tidegate_testing::parse_scenario;

/// A scenario from its text.
fn scenario(text: &str) -> Scenario {
    parse_scenario(text, Path::new("scenario.toml")).unwrap_or_else(|errors| panic!("{errors:?}"))
}
