//! What controllers are asked, written down while a host runs, and asked again.

pub mod inputs;
mod program;
mod reading;
mod writing;

use std::path::Path;

use serde_json::Value;

/// The lines of a trace.
pub fn lines(trace: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(trace).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}
