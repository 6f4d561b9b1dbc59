//! Causes from outside, each brought about in the middle of a run of the program and taken away again. Whatever the
//! cause: the batch is rolled back, `tidegate status` tells the reason, and once the cause is gone the work is finished,
//! each row touched once. What happened to the rows is asked by SQL that owes nothing to the host.
//!
//! All causes are real ones: the full disks are small filesystems of their own, filled; what may only be read may only
//! be read by the user whom the program runs as.

mod dropped;
mod files;
mod index;
mod postgres;
mod sqlite;
mod values;

use std::time::{Duration, Instant};

use crate::crash::{PATIENCE, each_touched_once, in_agreement, moved_on};
use crate::support::binary::Folder;
use crate::support::place::Place;

const ROWS: u32 = 20_000;

/// A hundred batches of one size, each soon after the one before.
const SETTINGS: &str = "sleep_duration_ms = 20\npoll_interval_ms = 50\n\
                        default_batch_size = 200\nmin_batch_size = 200\nmax_batch_size = 200";

/// A folder in which the program knows the update `touch`; `database` is what stands under `[[database]]`.
fn touching(place: &Place, database: &str, set: &str) -> Folder {
    let set = toml::Value::from(set);
    let update =
        format!("[[update]]\nname = \"touch\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = {set}\n");
    Folder::new(place, SETTINGS, database, &update)
}

/// Runs the update `touch` of that folder, with a cause in the middle of it that `begin` brings about and `end` takes
/// away. While it lasts, `tidegate status` has to tell `reason`, and every attempt, of which there are `attempts` at
/// least, is to leave nothing behind.
async fn endures<T>(
    place: &Place,
    folder: &Folder,
    (reason, attempts): (&str, usize),
    begin: impl AsyncFnOnce() -> T,
    end: impl AsyncFnOnce(T),
) {
    let mut host = folder.start(&["run", "--until-done"]);
    moved_on(place, Some("{}")).await;
    let cause = begin().await;
    host.repeats(TRYING, 1, PATIENCE).await;
    let before = in_agreement(place).await.unwrap();
    assert!(before.1, "the work was over before the cause came: it is too little");
    let status = status_with(folder, reason).await;
    host.repeats(TRYING, attempts, PATIENCE).await;
    assert_eq!(in_agreement(place).await.unwrap(), before, "{status}\n{}", host.said());
    assert!(host.ended().is_none(), "{}", host.said());
    end(cause).await;
    assert_eq!(host.end(FINISHED).await, 0, "{status}\n{}", host.said());
    each_touched_once(place, ROWS).await.unwrap();
}

/// The bound on all that is left to do, on a machine that does a dozen other things.
const FINISHED: Duration = Duration::from_secs(240);

/// What the host says of each attempt that failed.
const TRYING: &str = "trying again in";

/// Waits until `tidegate status` tells this.
async fn status_with(folder: &Folder, reason: &str) -> String {
    let since = Instant::now();
    loop {
        let (status, _) = folder.tidegate(&["status"]).await;
        if status.contains(reason) {
            return status;
        }
        assert!(since.elapsed() < PATIENCE, "no \"{reason}\" in the status: {status}");
    }
}
