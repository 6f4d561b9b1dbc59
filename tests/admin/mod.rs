//! The API of a running host, over HTTP.

mod health;
mod metrics;
mod page;
mod service;
mod synapse;
mod synapse_jobs;
mod synapse_table;
mod synapse_wire;
mod tokens;
