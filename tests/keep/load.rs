//! An application that writes a thousand times a second all the while: before the update is queued, while it runs, and after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidegate::controller::BuiltIn;
use tidegate::scheduler::event::EventKind;
use tidegate::update::{Backfill, Handler};
use tokio::task::JoinHandle;

use super::{FILTER, UNLIKE, WRONG, copied, copy, definition, make};
use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::postgres::connect;
use crate::support::run::Run;
use crate::support::until;

/// Writes a second, of all writers together.
const RATE: u64 = 1_000;

/// Writes that come after the update has finished, unless the environment says how many.
const AFTERWARDS: u64 = 2_000;

/// The application.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    writers: Vec<JoinHandle<()>>,
}

/// Numbers that a seed decides.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// One write among so many items: into them, and beyond.
fn write(random: &mut Random, items: u64) -> String {
    let id = random.below(11 * items);
    let item = 10 * (1 + random.below(items));
    let n = random.below(9);
    match random.below(100) {
        0..30 => format!("insert into items (id, a, n) values ({id}, 'in {id}', {n}) on conflict (id) do nothing"),
        30..40 => format!(
            "insert into items (id, a, n) values ({item}, 'up {id}', {n}) on conflict (id) do update set a = excluded.a, n = excluded.n"
        ),
        40..70 => format!("update items set a = 'ed {id}' where id = {item}"),
        70..80 => format!("update items set b = 'by hand', n = {n} where id = {id}"),
        80..90 => format!("update items set n = {n}, a = a || '+' where id between {item} and {item} + 20"),
        90..95 => {
            format!("update items set id = {id} where id = {item} and not exists (select 1 from items where id = {id})")
        }
        _ => format!("delete from items where id = {id}"),
    }
}

impl Load {
    async fn begin(place: &Place, items: u64) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut writers = Vec::new();
        let many = if place.url.starts_with("sqlite:") { 1 } else { 4 };
        for writer in 0..many {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (writer + 1));
            let pause = Duration::from_nanos(1_000_000_000 * many / RATE);
            if place.url.starts_with("sqlite:") {
                let file = place.file().clone();
                writers.push(tokio::task::spawn_blocking(move || {
                    let connection = rusqlite::Connection::open(file).unwrap();
                    connection.busy_timeout(Duration::from_secs(30)).unwrap();
                    connection.execute_batch("pragma synchronous = off").unwrap();
                    while !stop.load(Ordering::SeqCst) {
                        let sql = write(&mut random, items);
                        connection.execute(&sql, []).unwrap_or_else(|error| panic!("{error}: {sql}"));
                        done.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(pause);
                    }
                }));
                continue;
            }
            let client = connect(&place.url).await;
            writers.push(tokio::spawn(async move {
                let mut ticks = tokio::time::interval(pause);
                while !stop.load(Ordering::SeqCst) {
                    ticks.tick().await;
                    let sql = write(&mut random, items);
                    match client.batch_execute(&sql).await {
                        // A key that another took, or a deadlock with a batch: the application's own affair.
                        Err(error) if error.code().is_some_and(|code| ["23505", "40P01"].contains(&code.code())) => {}
                        result => result.unwrap_or_else(|error| panic!("{error:?}: {sql}")),
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                }
            }));
        }
        Self { stop, done, writers }
    }

    /// Waits for so many more writes.
    async fn more(&self, writes: u64) {
        let wanted = self.done.load(Ordering::SeqCst) + writes;
        for _ in 0..=writes / (10 * RATE) {
            let done =
                || self.done.load(Ordering::SeqCst) >= wanted || self.writers.iter().any(JoinHandle::is_finished);
            until("the application has written", || async { done() }).await;
        }
    }

    async fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        for writer in std::mem::take(&mut self.writers) {
            writer.await.unwrap();
        }
        self.done.load(Ordering::SeqCst)
    }
}

impl Drop for Load {
    /// A test that fails must not leave a writer behind, for which its runtime would wait for ever.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Runs an update beside the application; no row is wrong when it finishes, nor afterwards.
async fn beside_writes(place: &Place, update: &str, handler: Arc<dyn Handler>, wrong: &str) {
    const ITEMS: u32 = 20_000;
    let afterwards =
        std::env::var("TIDEGATE_KEEP_WRITES").ok().and_then(|writes| writes.parse().ok()).unwrap_or(AFTERWARDS);
    make(place, ITEMS).await;
    place.recommended().await;
    let mut run = Run::on(place, &[]).await.define(update, handler).for_ever();
    run.settings.max_batch_size = 200;
    // Where there is one writer, it needs its time too.
    run.supervision.builtin = BuiltIn { sleep: Some(Duration::from_millis(20)), target: Duration::from_millis(10) };
    let database = run.database.clone();
    let load = Load::begin(place, ITEMS.into()).await;
    load.more(RATE / 2).await;
    let before = load.done.load(Ordering::SeqCst);
    assert!(database.enqueue(&row(update)).await.unwrap());
    let mut running = run.start();
    running.next("the end", |event| matches!(event, EventKind::UpdateFinished { .. }).then_some(())).await;
    assert_eq!(place.rows(wrong).await, ["0"], "as it finished");
    let meanwhile = load.done.load(Ordering::SeqCst) - before;
    load.more(afterwards).await;
    assert_eq!(place.rows(wrong).await, ["0"], "after {afterwards} more writes");
    load.end().await;
    assert_eq!(place.rows(wrong).await, ["0"], "at last");
    running.stop().await;
    assert!(meanwhile > 100, "{meanwhile} writes are too few to show anything");
    println!("{meanwhile} writes came in while it ran");
}

on_both! {
    async fn no_row_of_a_backfill_is_wrong(place: Place) {
        beside_writes(place, "fill", Arc::new(super::fill("b = upper(a)", FILTER)), WRONG).await;
    }

    async fn no_row_of_a_copy_is_wrong(place: Place) {
        beside_writes(place, "copy", Arc::new(copy(FILTER)), UNLIKE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_is_wrong_where_three_work_on_it() {
    let place = Place::postgres().await;
    let handler = Backfill::new(definition("items", "b = upper(a)", FILTER)).with_workers(3).kept("fill", true);
    beside_writes(&place, "fill", Arc::new(handler), WRONG).await;
    place.run("drop table items, copies").await;
    let handler = tidegate::update::Copy::new(copied(FILTER)).with_workers(3).kept("copy");
    beside_writes(&place, "copy", Arc::new(handler), UNLIKE).await;
}
