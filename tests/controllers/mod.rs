//! Controllers from the file to the operator: what they are asked, what their faults look like, and that the work is
//! done whatever they do.

mod back;
mod faults;
mod guests;
mod late;
mod life;
mod log;
mod shadow;

use crate::support::command::Site;
use crate::support::place::Place;
use crate::support::run::{make_items, touched};

/// Items of the table that is worked on.
pub const ITEMS: u32 = 1_000;

/// A folder whose configuration has a controller `guest.wasm`, with `more` lines of its own, for a queue in which
/// `touch_items` stands. However fast the machine, there are ten batches at least.
async fn site(place: &Place, component: &[u8], more: &str) -> Site {
    site_with_batches(place, component, more, ITEMS / 10).await
}

/// The same, where no batch is larger than this.
pub async fn site_with_batches(place: &Place, component: &[u8], more: &str, max_batch_size: u32) -> Site {
    make_items(place, ITEMS).await;
    place.recommended().await;
    let site = Site::new(&format!(
        "[background_updates]
sleep_enabled = false
poll_interval_ms = 50
max_batch_size = {max_batch_size}

[[database]]
url = \"{}\"

[[update]]
name = \"touch_items\"
kind = \"backfill\"
table = \"items\"
key = \"id\"
set = \"touched = touched + 1\"

[[controller]]
name = \"guest\"
path = \"guest.wasm\"
{more}",
        place.url
    ));
    site.write("guest.wasm", component);
    let told = site.tidegate(&["enqueue", "touch_items"]).await;
    assert_eq!(told.all(), "touch_items: queued on master\nexit code 0");
    site
}

/// Each item was touched once, as independent SQL sees it.
pub async fn assert_done(place: &Place, case: &str) {
    assert_eq!(touched(place).await, [format!("1|{ITEMS}")], "{case}");
    let left: [String; 0] = [];
    assert_eq!(place.rows("select update_name from background_updates").await, left, "{case}");
}
