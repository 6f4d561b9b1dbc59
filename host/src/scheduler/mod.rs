//! The scheduler: for each database one loop that chooses an update, asks the controller, runs a batch and reports.

pub mod database;
pub mod event;
