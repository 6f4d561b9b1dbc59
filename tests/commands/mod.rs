//! The commands against real databases, as an operator types them.

mod approve;
mod check;
mod enqueue;
mod init;
mod json;
mod plan;
mod queue;
mod terminal;
mod trial;
mod trouble;
mod verify;

use crate::support::command::Site;
use crate::support::place::Place;

/// A configuration that defines `touch_items`, `other` and `fails` for a database.
fn configuration(url: &str) -> String {
    let backfill = |name: &str, set: &str| {
        format!(
            "[[update]]\nname = \"{name}\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = \"{set}\"\n"
        )
    };
    format!(
        "[background_updates]\nsleep_enabled = false\nmax_attempts = 1\nmax_batch_size = 100\npoll_interval_ms = 50\n
[[database]]\nurl = \"{url}\"\n\n{}\n{}\n{}",
        backfill("touch_items", "touched = touched + 1"),
        backfill("other", "touched = touched"),
        backfill("fails", "touched = null"),
    )
}

/// A folder with that configuration.
fn site(place: &Place) -> Site {
    Site::new(&configuration(&place.url))
}
