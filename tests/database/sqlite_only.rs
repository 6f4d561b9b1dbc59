//! What holds for SQLite alone.

use std::time::Duration;

use tidegate::database::{Options, open};
use tidegate::scheduler::database::LeaseAttempt;
use tidegate::update::ErrorClass;

use crate::support::place::{Place, begin, holder, row};

#[tokio::test]
async fn a_missing_file_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("missing.db");
    let database = open(&format!("sqlite:{}", file.display()), Options::new(holder(1))).unwrap();
    let error = database.prepare().await.unwrap_err();
    assert_eq!((error.class, error.code.as_deref()), (ErrorClass::Connection, Some("SQLITE_CANTOPEN")));
    assert!(error.message.contains("does not exist, and tidegate makes none"), "{error}");
    assert!(!file.exists());
    rusqlite::Connection::open(&file).unwrap().execute_batch("vacuum").unwrap();
    database.prepare().await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "to do\n".repeat(500)).unwrap();
    let error =
        open(&format!("sqlite:{}", file.display()), Options::new(holder(1))).unwrap().prepare().await.unwrap_err();
    assert_eq!((error.class, error.code.as_deref()), (ErrorClass::Permanent, Some("SQLITE_NOTADB")));
}

#[tokio::test]
async fn the_journal_mode_stays() {
    for mode in ["delete", "wal"] {
        let place = Place::sqlite();
        place.run(&format!("pragma journal_mode = {mode}")).await;
        let database = place.prepared().await;
        database.enqueue(&row("a")).await.unwrap();
        begin(&*database, "a", "{}").await.commit(None).await.unwrap();
        assert_eq!(place.rows("pragma journal_mode").await, [mode]);
    }
}

#[tokio::test]
async fn a_link_to_a_database_leads_to_the_same_lease() {
    let place = Place::sqlite();
    let database = place.prepared().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link.db");
    std::os::unix::fs::symlink(place.file(), &link).unwrap();
    let linked = open(&format!("sqlite://{}", link.display()), Options::new(holder(1))).unwrap();
    let LeaseAttempt::Held(_lease) = database.try_lease(&holder(1)).await.unwrap() else { panic!("taken") };
    assert!(matches!(linked.try_lease(&holder(2)).await.unwrap(), LeaseAttempt::Taken(Some(by)) if by == holder(1)));
}

#[tokio::test]
async fn a_lock_file_taken_away_is_a_lease_lost() {
    for replace in [false, true] {
        let place = Place::sqlite();
        let database = place.prepared().await;
        let LeaseAttempt::Held(mut lease) = database.try_lease(&holder(1)).await.unwrap() else { panic!("taken") };
        let lock_file = format!("{}.tidegate-lock", place.file().display());
        if replace {
            std::fs::rename(&lock_file, format!("{lock_file}.old")).unwrap();
            std::fs::write(&lock_file, "").unwrap();
        } else {
            std::fs::remove_file(&lock_file).unwrap();
        }
        let lost = tokio::time::timeout(Duration::from_secs(20), lease.lost()).await.expect("noticed");
        assert!(lost.contains(".tidegate-lock"), "{lost}");
    }
}

#[tokio::test]
async fn an_automatic_rollback_ends_the_batch() {
    let place = Place::sqlite();
    let database = place.prepared().await;
    database.enqueue(&row("a")).await.unwrap();
    place.run("create table items (n integer primary key)").await;
    let mut batch = begin(&*database, "a", "{}").await;
    batch.execute("insert into items values (1)", &[]).await.unwrap();
    let failed = batch.execute("insert or rollback into items values (1)", &[]).await.unwrap_err();
    assert_eq!(failed.code.as_deref(), Some("SQLITE_CONSTRAINT_PRIMARYKEY"));
    // What follows must not commit by itself.
    assert_eq!(batch.execute("insert into items values (2)", &[]).await.unwrap_err(), failed);
    assert_eq!(batch.commit(Some("{\"n\":1}")).await.unwrap_err(), failed);
    assert!(place.rows("select n from items").await.is_empty());
    assert_eq!(database.progress("a").await.unwrap().as_deref(), Some("{}"));
}

#[test]
fn urls_that_make_no_sense_are_explained() {
    let cases = [
        ("sqlite:", "names no database file"),
        ("sqlite::memory:", "names no database file"),
        ("sqlite://host/file", "names no database file"),
        ("mysql://root:secret@host/db", "begins with \"mysql:\""),
        ("root:secret@host", "begins with \"root:\""),
        ("", "begins with"),
    ];
    for (url, part) in cases {
        let error = open(url, Options::new(holder(1))).err().expect(url).to_string();
        assert!(error.contains(part), "{url}: {error}");
        assert!(!error.contains("secret"), "{url}: {error}");
    }
}
