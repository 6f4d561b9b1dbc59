//! The scenarios that come with the program.

use std::path::Path;

use super::parse_scenario;
use tidegate_simulate::Scenario;

/// Includes a scenario's file.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// The standard scenarios: each one's name and file, in the order in which they are run.
        pub const STANDARD: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../../scenarios/", $name, ".toml")))),*
        ];
    };
}

files![
    "calm",
    "cost-steps",
    "noisy-cost",
    "slow-items",
    "lag-spikes",
    "dead-signal",
    "lost-signal",
    "clock-jumps",
    "night-over-midnight",
    "daylight-saving",
    "busy-foreground",
    "stalls",
    "empty-batches",
    "failure-burst",
    "quarantine",
    "one-shots",
    "operator",
    "restart",
    "odd-names",
    "tiny-updates",
];

/// A standard scenario.
///
/// `None` where there is none of that name.
pub fn standard(name: &str) -> Option<Scenario> {
    let (name, text) = STANDARD.iter().find(|(known, _)| *known == name)?;
    // A test reads them all.
    parse_scenario(text, Path::new(&format!("{name}.toml"))).ok()
}
