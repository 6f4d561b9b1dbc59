//! The program killed, frozen, told to stop, and cut off from its database: nothing is lost, nothing is done twice.
//!
//! Most of these tests run the binary itself. What they rely on in the end is SQL of their own, which owes nothing to
//! what the host says of itself.

mod commits;
mod hands;
mod in_one_go;
mod index;
mod killed;
mod lanes;
mod ledger;
mod outages;
mod redefined;
mod signals;
mod takeover;
mod two_hosts;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::support::binary::Folder;
use crate::support::place::{Place, row};
use crate::support::run::{make_items, touched};
use crate::support::until;

/// Time that is enough for anything but a failure, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Batches without a pause between them.
const WITHOUT_SLEEP: &str = "sleep_enabled = false";

/// Queues the update `touch` over a table of `rows` items.
pub async fn queue_touch(place: &Place, rows: u32) {
    make_items(place, rows).await;
    let database = place.prepared().await;
    database.enqueue(&row("touch")).await.unwrap();
    database.close().await;
}

/// A folder in which the binary knows the update `touch`, which touches each item once.
pub fn touching(place: &Place, background: &str, set: &str) -> Folder {
    let set = toml::Value::from(set);
    let update =
        format!("[[update]]\nname = \"touch\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = {set}\n");
    let patient = place.either("", "statement_timeout_ms = 600000");
    Folder::new(place, background, patient, &update)
}

/// Touches an item, and takes some microseconds for it.
fn touch_slowly(place: &Place) -> &'static str {
    match place.system() {
        tidegate::update::sql::System::Sqlite => {
            "touched = touched + 1 + (with recursive n(i) as \
             (select 1 union all select i + 1 from n where i < 30 + items.id % 2) select 0 * count(*) from n)"
        }
        tidegate::update::sql::System::Postgres => {
            "touched = touched + 1 + (select 0 * count(*) from generate_series(1, 100 + items.id % 2))::int"
        }
    }
}

/// The committed progress of `touch`; `None` once it is finished.
pub async fn progress(place: &Place) -> Option<String> {
    place.rows("select progress_json from background_updates where update_name = 'touch'").await.pop()
}

/// Waits until a batch is committed.
pub async fn moved_on(place: &Place, from: Option<&str>) {
    until("a batch is committed", async || progress(place).await.as_deref() != from).await;
}

/// Whether every item was touched exactly once, and the queue is empty.
pub async fn each_touched_once(place: &Place, rows: u32) -> Result<(), String> {
    let found = touched(place).await;
    if found != [format!("1|{rows}")] {
        return Err(format!("of {rows} items, by how often they were touched (times|items): {found:?}"));
    }
    match progress(place).await {
        None => Ok(()),
        Some(progress) => Err(format!("all is done, and the queue holds {progress} still")),
    }
}

/// Whether, at this instant, the items that are touched are those that the progress says are done. Returns how many
/// these are, and whether the update is queued still.
pub async fn in_agreement(place: &Place) -> Result<(u64, bool), String> {
    in_agreement_on(place, "items", "touch").await
}

/// The same of an update that touches another table.
async fn in_agreement_on(place: &Place, table: &str, update_name: &str) -> Result<(u64, bool), String> {
    // One statement, and so one snapshot.
    let select = format!(
        "select (select count(*) from {table} where touched = 1), (select max(id) from {table} where touched > 0), \
         (select count(*) from {table} where touched > 1), (select max(id) from {table}), \
         (select progress_json from background_updates where update_name = '{update_name}')"
    );
    let rows = place.rows(&select).await;
    let columns: Vec<&str> = rows[0].splitn(5, '|').collect();
    let number = |column: usize| columns[column].parse::<u64>().unwrap_or_default();
    let (once, last, more, all, progress) = (number(0), number(1), number(2), number(3), columns[4]);
    let said = match progress {
        "" => all,
        "{}" => 0,
        _ => {
            let json: serde_json::Value = serde_json::from_str(progress).map_err(|error| error.to_string())?;
            json["after"][0].as_str().and_then(|key| key.parse().ok()).ok_or_else(|| progress.to_owned())?
        }
    };
    if more > 0 || once != last || last != said {
        return Err(format!(
            "{once} items touched once, {more} more often, the last one is {last}, the progress is {progress}"
        ));
    }
    Ok((once, !progress.is_empty()))
}

/// Touches an item, the first one of a batch only once [`drag`] lets it.
pub async fn touch_dragged(place: &Place) -> &'static str {
    place.run("create table drag (steps bigint not null); insert into drag values (0)").await;
    match place.system() {
        tidegate::update::sql::System::Sqlite => {
            "touched = touched + 1 + (with recursive n(i) as \
             (select 1 union all select i + 1 from n where i < (select steps from drag)) select 0 * count(*) from n)"
        }
        tidegate::update::sql::System::Postgres => {
            place
                .run(
                    "create function dragged() returns int language plpgsql volatile as $$ begin \
                     while (select steps > 0 from drag) loop perform pg_sleep(0.02); end loop; return 0; end $$",
                )
                .await;
            "touched = touched + 1 + dragged()"
        }
    }
}

/// Makes batches last: on SQLite as many steps as it says, on PostgreSQL until it is called with 0.
pub async fn drag(place: &Place, steps: u64) {
    place.run(&format!("update drag set steps = {steps}")).await;
}

/// More steps than anybody waits for.
pub const ENDLESS: u64 = 1_000_000_000_000;

/// Waits until a batch that [`drag`] makes last is running.
pub async fn dragging(place: &Place) {
    let runs = "select 1 from pg_stat_activity where datname = current_database() and state = 'active' \
                and application_name like 'tidegate/%/batch.%' and query like '%UPDATE \"%'";
    let looks = AtomicU64::new(0);
    until("a batch runs", async || match place.system() {
        tidegate::update::sql::System::Postgres => !place.rows(runs).await.is_empty(),
        // Nobody but a batch keeps the lock for long.
        tidegate::update::sql::System::Sqlite => {
            let other = rusqlite::Connection::open(place.file()).unwrap();
            other.busy_timeout(Duration::ZERO).unwrap();
            match other.execute_batch("begin immediate; rollback") {
                Ok(()) => looks.store(0, Ordering::Relaxed),
                Err(_) => drop(looks.fetch_add(1, Ordering::Relaxed)),
            }
            looks.load(Ordering::Relaxed) >= 20
        }
    })
    .await;
}

/// Numbers that look random, the same for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    /// From `TIDEGATE_SEED`, or else from the clock. The seed is printed, and so seen where a test fails.
    fn seeded() -> Self {
        let seed = match std::env::var("TIDEGATE_SEED") {
            Ok(seed) => seed.parse().expect("TIDEGATE_SEED is a number"),
            Err(_) => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64,
        };
        println!("again with the same instants: TIDEGATE_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Up to `most`, to the microsecond.
    fn duration(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.next() % (most.as_micros() as u64 + 1))
    }
}
