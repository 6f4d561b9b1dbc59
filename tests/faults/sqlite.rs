//! Causes that SQLite knows.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{FINISHED, ROWS, endures, status_with, touching};
use crate::crash::{
    ENDLESS, PATIENCE, drag, dragging, each_touched_once, in_agreement, moved_on, queue_touch, touch_dragged,
};
use crate::support::disk::Disk;
use crate::support::place::Place;

const TOUCH: &str = "touched = touched + 1";
const IMPATIENT: &str = "busy_timeout_ms = 100";

/// A database in each journal mode that is common, with `touch` queued.
async fn queued(mode: &str) -> Place {
    let place = Place::sqlite();
    ready(&place, mode).await;
    place
}

async fn ready(place: &Place, mode: &str) {
    place.run(&format!("pragma journal_mode = {mode}")).await;
    queue_touch(place, ROWS).await;
}

/// A connection that waits for its locks as long as it takes.
fn other(place: &Place) -> rusqlite::Connection {
    let other = rusqlite::Connection::open(place.file()).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_lock_held_for_longer_than_the_busy_timeout() {
    for mode in ["delete", "wal"] {
        let place = &queued(mode).await;
        let folder = touching(place, IMPATIENT, TOUCH);
        let lock = async || {
            let other = other(place);
            other.execute_batch("begin immediate").unwrap();
            other
        };
        let unlock = async |other: rusqlite::Connection| other.execute_batch("rollback").unwrap();
        // This process is the one, and the kernel tells it.
        let reason = format!("cannot be written to: database is locked; in the way: process {} (", std::process::id());
        endures(place, &folder, (&reason, 3), lock, unlock).await;
    }
}

/// With a rollback journal readers keep a writer from committing, and from writing down why.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_end() {
    let place = &queued("delete").await;
    let folder = touching(place, IMPATIENT, TOUCH);
    let read = async || {
        let other = other(place);
        other.execute_batch("begin; select count(*) from items").unwrap();
        other
    };
    let stop = async |other: rusqlite::Connection| other.execute_batch("rollback").unwrap();
    endures(place, &folder, ("cannot be written to: database is locked", 3), read, stop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_keeps_a_commit_waiting_is_named() {
    let place = &queued("delete").await;
    let folder = touching(place, "busy_timeout_ms = 3000", TOUCH);
    let reader = other(place);
    reader.execute_batch("begin; select count(*) from items").unwrap();
    let mut host = folder.start(&["run", "--until-done"]);
    host.says(&format!("touch: waits for process {} (", std::process::id()), PATIENCE).await;
    reader.execute_batch("rollback").unwrap();
    assert_eq!(host.end(FINISHED).await, 0, "{}", host.said());
    each_touched_once(place, ROWS).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk() {
    for mode in ["delete", "wal"] {
        let disk = Disk::new(8 << 20);
        let place = &Place::sqlite_in(disk.path());
        ready(place, mode).await;
        let folder = touching(place, "", TOUCH);
        let reason = ("cannot be written to: the disk is full: 0 KiB are free", 3);
        endures(place, &folder, reason, async || disk.fill(), async |()| disk.free()).await;
    }
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A folder that the program's user may write to, with a database in it.
async fn owned(home: &tempfile::TempDir) -> Place {
    let place = Place::sqlite_in(home.path());
    ready(&place, "delete").await;
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_becomes_read_only() {
    let home = tempfile::tempdir().unwrap();
    let place = &owned(&home).await;
    let folder = touching(place, "", TOUCH).without_privileges();
    fs::read_dir(home.path()).unwrap().for_each(|file| folder.hand_over(&file.unwrap().path()));
    folder.hand_over(home.path());
    allow(home.path(), 0o755);
    let reason = ("where SQLite's journal has to be, is read-only", 3);
    endures(place, &folder, reason, async || allow(home.path(), 0o555), async |()| allow(home.path(), 0o755)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_read_only() {
    let home = tempfile::tempdir().unwrap();
    let place = &owned(&home).await;
    let folder = touching(place, "", TOUCH).without_privileges();
    fs::read_dir(home.path()).unwrap().for_each(|file| folder.hand_over(&file.unwrap().path()));
    folder.hand_over(home.path());
    allow(home.path(), 0o755);
    let file = place.file();
    allow(file, 0o444);
    let (told, code) = folder.tidegate(&["run", "--until-done"]).await;
    assert!(code == 1 && told.contains("is read-only for this user"), "{code}: {told}");
    assert!(told.contains("hint: let this user write to the file and to its folder"), "{told}");
    // A host that is to go on waits for it.
    let mut host = folder.start(&["run"]);
    host.repeats("is read-only for this user; trying again in", 2, PATIENCE).await;
    let reason = format!("cannot be written to: the file \"{}\" is read-only, at least for this user", file.display());
    status_with(&folder, &reason).await;
    assert_eq!(in_agreement(place).await, Ok((0, true)));
    allow(file, 0o644);
    host.says("touch: finished", FINISHED).await;
    each_touched_once(place, ROWS).await.unwrap();
    // What was opened before stays open; whoever looks is told all the same.
    allow(file, 0o444);
    status_with(&folder, &reason).await;
}

/// Where no host could ever begin there is no queue yet, and nobody tells why but whoever looks.
#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_the_first_host_from_starting() {
    for (mode, reason) in [("delete", "is read-only, at least for this user"), ("wal", "is read-only for this user")] {
        let home = tempfile::tempdir().unwrap();
        let place = &Place::sqlite_in(home.path());
        place.run(&format!("pragma journal_mode = {mode}; create table items (id integer primary key)")).await;
        let folder = touching(place, "", TOUCH).without_privileges();
        // In WAL mode the application keeps its files there, so that the database can be opened.
        let application = other(place);
        application.execute_batch("insert into items values (1)").unwrap();
        fs::read_dir(home.path()).unwrap().for_each(|file| folder.hand_over(&file.unwrap().path()));
        folder.hand_over(home.path());
        let (path, locked) = if mode == "wal" { (home.path(), 0o555) } else { (place.file().as_path(), 0o444) };
        allow(home.path(), 0o755);
        allow(path, locked);
        let (told, code) = folder.tidegate(&["run", "--until-done"]).await;
        assert!(code == 1 && told.contains("is read-only for this user"), "{mode}: {code}: {told}");
        let (status, code) = folder.tidegate(&["status"]).await;
        assert!(code == 0 && status.contains("there is no table \"background_updates\" yet"), "{mode}: {status}");
        assert!(status.contains("cannot be written to: the ") && status.contains(reason), "{mode}: {status}");
        allow(home.path(), 0o755);
    }
}

/// A batch that takes longer than `status` waits for its lock is the host's own, and no obstacle to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_batch_of_its_own_is_not_blamed_on_others() {
    for mode in ["delete", "wal"] {
        let place = &queued(mode).await;
        let set = touch_dragged(place).await;
        let folder = touching(place, IMPATIENT, set);
        let mut host = folder.start(&["run"]);
        moved_on(place, Some("{}")).await;
        drag(place, ENDLESS).await;
        dragging(place).await;
        let (status, code) = folder.tidegate(&["status"]).await;
        assert!(code == 0 && status.contains("worked on by process"), "{mode}: {status}");
        assert!(!status.contains("cannot be written to"), "{mode}: {status}");
        // The same lock in somebody else's hand is one.
        host.kill();
        drag(place, 0).await;
        let mut host = folder.start(&["run"]);
        host.says("working on this database", PATIENCE).await;
        let other = other(place);
        other.execute_batch("begin immediate").unwrap();
        status_with(&folder, "cannot be written to: database is locked").await;
        other.execute_batch("rollback").unwrap();
        drop(other);
        host.says("touch: finished", FINISHED).await;
        each_touched_once(place, ROWS).await.unwrap();
    }
}
