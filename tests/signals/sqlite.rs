//! What is measured of an SQLite database.

use super::{LIMIT, error, fails, reads, sampled, value};
use crate::support::place::Place;
use crate::support::run::make_items;
use crate::support::until;

fn limit() -> f64 {
    LIMIT.as_secs_f64() * 1e3
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_keeps_the_lock_is_felt_until_it_lets_go() {
    let place = Place::sqlite();
    make_items(&place, 10).await;
    place.recommended().await;
    let sampling = sampled(&place, |options| options.probe_writes = true);
    reads(&sampling, "write-lock", |ms| ms < limit() / 2.0).await;
    reads(&sampling, "probe-latency", |ms| ms < limit() / 2.0).await;
    let writer = rusqlite::Connection::open(place.file()).unwrap();
    writer.execute_batch("begin immediate").unwrap();
    reads(&sampling, "write-lock", |ms| ms >= limit()).await;
    reads(&sampling, "busy-retries", |retries| retries > 5.0).await;
    reads(&sampling, "probe-latency", |ms| ms >= limit()).await;
    writer.execute_batch("rollback").unwrap();
    reads(&sampling, "write-lock", |ms| ms < limit() / 2.0).await;
    reads(&sampling, "busy-retries", |retries| retries == 0.0).await;
    reads(&sampling, "probe-latency", |ms| ms < limit() / 2.0).await;
    assert_eq!(place.rows("select count(*) from tidegate_probe").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_write_ahead_log_is_as_large_as_its_file() {
    let place = Place::sqlite();
    make_items(&place, 10).await;
    let sampling = sampled(&place, |_| ());
    reads(&sampling, "wal-size", |bytes| bytes == 0.0).await;
    place.recommended().await;
    // A reader that stays keeps the log from being emptied.
    let reader = rusqlite::Connection::open(place.file()).unwrap();
    reader.execute_batch("begin; select count(*) from items").unwrap();
    place.run("update items set touched = 1").await;
    reads(&sampling, "wal-size", |bytes| bytes >= 4_096.0).await;
    reader.execute_batch("rollback; pragma wal_checkpoint(truncate)").unwrap();
    reads(&sampling, "wal-size", |bytes| bytes == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_is_told_and_found_once_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let sampling = super::sampled_at(&format!("sqlite:{}", file.display()), |_| ());
    for name in ["write-lock", "busy-retries", "wal-size", "probe-latency"] {
        fails(&sampling, name, "does not exist").await;
        assert_eq!(value(&sampling, name), None);
    }
    assert!(!file.exists(), "a sampler makes no database");
    rusqlite::Connection::open(&file).unwrap().execute_batch("create table t (a)").unwrap();
    for name in ["write-lock", "busy-retries", "wal-size", "probe-latency"] {
        reads(&sampling, name, |_| true).await;
        until("it fails no more", async || error(&sampling, name).is_none()).await;
    }
}

/// A connection goes on with the file that it opened, and what is measured is the one that is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_takes_anothers_place_is_measured() {
    for mode in ["delete", "wal"] {
        let (place, other) = (Place::sqlite(), Place::sqlite());
        for place in [&place, &other] {
            place.run(&format!("pragma journal_mode = {mode}; create table items (id integer)")).await;
        }
        let sampling = sampled(&place, |options| options.probe_writes = true);
        reads(&sampling, "write-lock", |ms| ms < limit() / 2.0).await;
        reads(&sampling, "probe-latency", |ms| ms < limit() / 2.0).await;
        let writer = rusqlite::Connection::open(other.file()).unwrap();
        writer.execute_batch("begin immediate").unwrap();
        std::fs::rename(place.file(), place.file().with_extension("old")).unwrap();
        for suffix in ["", "-wal", "-shm"] {
            let name = |place: &Place| format!("{}{suffix}", place.file().display());
            let _ = std::fs::rename(name(&other), name(&place));
        }
        reads(&sampling, "write-lock", |ms| ms >= limit()).await;
        reads(&sampling, "probe-latency", |ms| ms >= limit()).await;
    }
}
