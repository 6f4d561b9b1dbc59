//! An SQLite database whose file is moved, replaced or removed, or whose log is, while it is open: nothing more is
//! committed, and nothing is taken to be what it was, until all is closed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate::scheduler::database::{Database, Lease, LeaseAttempt};
use tidegate::update::ErrorClass;
use tidegate::update::sql::SqlError;
use tidegate_database::{Options, open};

use crate::support::place::{Place, begin, holder, row};

const UPDATE: &str = "update items set n = n + 1";

/// A database that is open, under a link to its file.
struct Linked {
    place: Place,
    folder: tempfile::TempDir,
    database: Arc<dyn Database>,
}

/// A table `items` of one row, and the update `a` queued.
async fn filled(mode: &str) -> Place {
    let place = Place::sqlite();
    place
        .run(&format!("pragma journal_mode = {mode}; create table items (n integer); insert into items values (0)"))
        .await;
    let database = place.prepared().await;
    database.enqueue(&row("a")).await.unwrap();
    database.close().await;
    place
}

impl Linked {
    async fn new(mode: &str) -> Self {
        let (place, folder) = (filled(mode).await, tempfile::tempdir().unwrap());
        let link = folder.path().join("link.db");
        symlink(place.file(), &link).unwrap();
        let database = open(&format!("sqlite:{}", link.display()), Options::new(holder(1))).unwrap();
        database.prepare().await.unwrap();
        Self { place, folder, database }
    }

    async fn lease(&self) -> Box<dyn Lease> {
        match self.database.try_lease(&holder(1)).await.unwrap() {
            LeaseAttempt::Held(lease) => lease,
            LeaseAttempt::Taken(by) => panic!("taken by {by:?}"),
        }
    }
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", file.display()))
}

/// Moves a database, with its log where it has one; returns where it is then.
fn moved(file: &Path) -> PathBuf {
    let to = file.with_extension("moved");
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::rename(beside(file, suffix), beside(&to, suffix));
    }
    to
}

/// What happens to a file, by name; returns where the file is then, if anywhere, and what is said of it.
const CAUSES: [&str; 4] = ["moved", "replaced", "removed", "linked elsewhere"];

async fn bring_about(cause: &str, at: &Linked) -> (Option<PathBuf>, &'static str) {
    let file = at.place.file();
    match cause {
        "moved" => (Some(moved(file)), "was moved away, to \""),
        "replaced" => {
            let other = filled("delete").await;
            let to = moved(file);
            fs::copy(other.file(), file).unwrap();
            (Some(to), "was replaced by another (the one that was worked on is \"")
        }
        "removed" => {
            for suffix in ["", "-wal", "-shm"] {
                let _ = fs::remove_file(beside(file, suffix));
            }
            (None, "was removed: restore it")
        }
        _ => {
            let (link, other) = (at.folder.path().join("link.db"), at.folder.path().join("other.db"));
            fs::copy(filled("delete").await.file(), &other).unwrap();
            fs::remove_file(&link).unwrap();
            symlink(&other, &link).unwrap();
            (Some(file.clone()), "was replaced by another (the one that was worked on is \"")
        }
    }
}

/// The value and the progress in a file, asked of it by nobody's path but its own.
fn contents(file: &Path) -> (i64, String) {
    let select = "select n, (select progress_json from background_updates where update_name = 'a') from items";
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.query_row(select, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

fn told(error: &SqlError, words: &str, cause: &str) {
    assert_eq!(error.class, ErrorClass::Replaced, "{cause}: {error}");
    assert!(error.message.contains(words) && error.message.contains("link.db"), "{cause}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_not_committed_to_a_file_that_is_not_in_its_place() {
    for mode in ["delete", "wal"] {
        for cause in CAUSES {
            for next in [Some("{\"n\":1}"), None] {
                let at = Linked::new(mode).await;
                let mut batch = begin(&*at.database, "a", "{}").await;
                batch.execute(UPDATE, &[]).await.unwrap();
                let (now, words) = bring_about(cause, &at).await;
                told(&batch.commit(next).await.unwrap_err(), words, cause);
                if let Some(now) = now {
                    assert_eq!(contents(&now), (0, "{}".to_owned()), "{mode}, {cause}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_begun_or_asked_until_all_is_closed() {
    for mode in ["delete", "wal"] {
        for cause in CAUSES {
            let at = Linked::new(mode).await;
            let mut lease = at.lease().await;
            begin(&*at.database, "a", "{}").await.commit(Some("{\"n\":1}")).await.unwrap();
            let (now, words) = bring_about(cause, &at).await;
            let begun = at.database.begin("a", "{\"n\":1}").await;
            told(&begun.err().expect("begun"), words, cause);
            told(&at.database.queue().await.unwrap_err(), words, cause);
            told(&at.database.prepare().await.unwrap_err(), words, cause);
            assert!(at.database.enqueue(&row("b")).await.is_err() && at.database.is_replaced(), "{cause}");
            let lost = tokio::time::timeout(Duration::from_secs(20), lease.lost()).await.expect("noticed");
            assert!(lost.contains(words), "{cause}: {lost}");
            lease.release().await;
            at.database.close().await;
            // What is there then is another database, at its own beginning.
            let queue = match cause {
                "moved" | "removed" => {
                    let error = at.database.prepare().await.unwrap_err();
                    assert_eq!(error.class, ErrorClass::Connection, "{cause}: {error}");
                    assert!(error.message.contains("does not exist"), "{cause}: {error}");
                    let Some(now) = &now else { continue };
                    fs::rename(now, at.place.file()).unwrap();
                    let _ = fs::rename(beside(now, "-wal"), beside(at.place.file(), "-wal"));
                    at.database.prepare().await.unwrap();
                    at.database.queue().await.unwrap()
                }
                _ => {
                    at.database.prepare().await.unwrap();
                    at.database.queue().await.unwrap()
                }
            };
            let progress = if cause == "moved" { "{\"n\":1}" } else { "{}" };
            assert_eq!(queue.rows[0].progress, progress, "{mode}, {cause}");
            drop(at.lease().await);
        }
    }
}

/// An idle host hears of it, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_on_a_file_that_is_gone_is_lost() {
    for cause in CAUSES {
        let at = Linked::new("wal").await;
        let mut lease = at.lease().await;
        let (_, words) = bring_about(cause, &at).await;
        let lost = tokio::time::timeout(Duration::from_secs(20), lease.lost()).await.expect("noticed");
        assert!(lost.contains(words), "{cause}: {lost}");
    }
}

/// What was committed into a log whose name is gone is saved, and a log of others is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_taken_away_is_noticed() {
    for replaced in [false, true] {
        let at = Linked::new("wal").await;
        let file = at.place.file().clone();
        begin(&*at.database, "a", "{}").await.commit(Some("{\"n\":1}")).await.unwrap();
        let batch = begin(&*at.database, "a", "{\"n\":1}").await;
        fs::remove_file(beside(&file, "-wal")).unwrap();
        if replaced {
            fs::write(beside(&file, "-wal"), "somebody else's").unwrap();
        }
        let error = batch.commit(None).await.unwrap_err();
        let what =
            if replaced { "app.db-wal\" was replaced while" } else { "app.db-wal\" was moved away or removed while" };
        assert!(error.class == ErrorClass::Replaced && error.message.contains(what), "{error}");
        at.database.close().await;
        if replaced {
            assert_eq!(fs::read(beside(&file, "-wal")).unwrap(), b"somebody else's");
        } else {
            at.database.prepare().await.unwrap();
            assert_eq!(at.database.progress("a").await.unwrap().as_deref(), Some("{\"n\":1}"));
            assert_eq!(at.place.rows("pragma integrity_check").await, ["ok"]);
        }
    }
}

/// A new file is put where the old one's log still lies: it is emptied into its own database; or where somebody reads
/// from it, nothing is done until it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_left_behind_is_not_taken_for_the_new_files() {
    for read in [false, true] {
        let at = Linked::new("wal").await;
        let file = at.place.file().clone();
        begin(&*at.database, "a", "{}").await.commit(Some("{\"n\":1}")).await.unwrap();
        let reader = rusqlite::Connection::open(&file).unwrap();
        if read {
            reader.execute_batch("begin; select * from items").unwrap();
        }
        let (old, other) = (file.with_extension("moved"), filled("delete").await);
        fs::rename(&file, &old).unwrap();
        fs::copy(other.file(), &file).unwrap();
        assert_eq!(at.database.queue().await.unwrap_err().class, ErrorClass::Replaced);
        at.database.close().await;
        if read {
            let error = at.database.prepare().await.unwrap_err();
            assert_eq!(error.class, ErrorClass::Connection, "{error}");
            assert!(
                error.message.contains("app.db-wal\" is that of the database file that was here before"),
                "{error}"
            );
            drop(reader);
            fs::rename(beside(&file, "-wal"), beside(&old, "-wal")).unwrap();
        }
        at.database.prepare().await.unwrap();
        assert_eq!(at.database.progress("a").await.unwrap().as_deref(), Some("{}"));
        at.database.close().await;
        assert_eq!((contents(&file), contents(&old)), ((0, "{}".to_owned()), (0, "{\"n\":1}".to_owned())));
    }
}
