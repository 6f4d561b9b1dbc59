//! What `guests/hostile` does at its worst, on both databases: the outcome is the one that is promised, the operator is
//! told, and in the end each row was touched once.

mod held;
mod outcomes;

use crate::controllers::{ITEMS, site_with_batches};
use crate::guests::built;
use crate::support::command::Site;
use crate::support::place::Place;

/// On a slow machine there is time for lines on the pace.
const PACE: (&str, &str) = (r"(?m)^master: touch_items: \d[^\n]*\n", "");

/// A folder whose controller misbehaves as `settings` say, within `limits`. There are ten batches at least.
async fn hostile(place: &Place, settings: &str, limits: &str) -> Site {
    let component = std::fs::read(built("hostile")).unwrap();
    let more = format!("[controller.settings]\n{settings}\n[controller.limits]\n{limits}\n");
    site_with_batches(place, &component, &more, ITEMS / 10).await.sharing_what_is_compiled()
}
