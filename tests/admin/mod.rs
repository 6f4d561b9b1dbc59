//! The API of a running host, over HTTP.

mod api;
mod controllers;
mod events;
mod health;
mod in_the_way;
mod lanes;
mod limits;
mod metrics;
mod openapi;
mod operations;
mod page;
mod remote;
mod service;
pub mod synapse;
mod synapse_jobs;
mod synapse_table;
mod synapse_wire;
mod table;
mod tokens;

/// Updates over `items`: one that works, one that waits for nothing else, and one that fails.
const UPDATES: &str = "
[[update]]
name = \"touch_items\"
kind = \"backfill\"
table = \"items\"
key = \"id\"
set = \"touched = touched + 1\"

[[update]]
name = \"other\"
kind = \"noop\"

[[update]]
name = \"fails\"
kind = \"backfill\"
table = \"items\"
key = \"id\"
set = \"touched = null\"
";

/// Batches without rests, and one failure for a quarantine.
const FAST: &str = "sleep_enabled = false\npoll_interval_ms = 50\nmax_attempts = 1\nmax_batch_size = 10\n";

/// A rest before each batch that nobody waits out.
const SLOW: &str = "sleep_duration_ms = 3600000\npoll_interval_ms = 50\nmax_attempts = 1\ndefault_batch_size = 10\n";

/// The rest of a configuration: an API with both tokens, and the updates.
fn with_updates() -> String {
    format!("{}{UPDATES}", crate::support::api::with_tokens())
}
