//! What holds for SQLite alone.

use std::time::{Duration, Instant};

use tidegate::scheduler::database::{LeaseAttempt, Pause};
use tidegate::update::ErrorClass;
use tidegate_database::{Options, open};

use crate::support::command::Site;
use crate::support::place::{Place, begin, holder, row};
use crate::support::run::{Run, make_items, row_after, touch, touched};

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

/// SQLite keeps any bytes in any column, whatever its type says.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_no_text_is_named_and_skipped() {
    let place = &Place::sqlite();
    make_items(place, 100).await;
    let run = Run::on(place, &[row("fine"), row_after("waits", "blob")]).await;
    place
        .run(
            "insert into background_updates (update_name, progress_json, depends_on) values \
             (x'626c6f62', '{}', null), (cast(x'62ff' as text), '{}', null), \
             ('bad_progress', cast(x'7bff7d' as text), null), ('bad_dependency', '{}', x'66696e65')",
        )
        .await;
    let names = ["fine", "waits", "blob", "bad_progress", "bad_dependency"];
    let story = names.into_iter().fold(run, |run, name| run.define(name, touch())).until_done().await;
    assert_eq!(story.finished(), ["fine", "waits"]);
    assert_eq!(
        story.remaining(),
        [
            ("bad_dependency", "its depends_on is not text: change or delete the row by SQL"),
            ("bad_progress", "its progress_json is not UTF-8: change or delete the row by SQL"),
            ("x'626c6f62'", "its update_name is not text: change or delete the row by SQL"),
            ("x'62ff'", "its update_name is not UTF-8: change or delete the row by SQL"),
        ]
    );
    assert_eq!(touched(place).await, ["2|100"]);
    let site = Site::new(&format!("[[database]]\nurl = \"{}\"\n", place.url));
    let status = site.tidegate(&["status"]).await;
    assert!(status.code == 0 && status.out.contains("x'62ff'"), "{}", status.all());
    // One whose name can be written can be taken out by it.
    let cancelled = site.tidegate(&["cancel", "bad_progress"]).await;
    assert_eq!(cancelled.all(), "bad_progress: cancelled on master\nexit code 0");
}

#[tokio::test]
async fn names_of_a_queue_table_that_differ_in_case_are_one_queue() {
    for (one, other) in [("background_updates", "Background_Updates"), ("jobs", "JOBS")] {
        let place = Place::sqlite();
        let open = |name: &str| place.open_with(|options| options.queue_table = name.to_owned());
        let (first, second) = (open(one), open(other));
        first.prepare().await.unwrap();
        second.prepare().await.unwrap();
        let LeaseAttempt::Held(_lease) = first.try_lease(&holder(1)).await.unwrap() else { panic!("taken") };
        assert!(
            matches!(second.try_lease(&holder(2)).await.unwrap(), LeaseAttempt::Taken(Some(by)) if by == holder(1))
        );
        second.set_pause(Some(&Pause { since_ms: 1, reason: None })).await.unwrap();
        assert!(first.queue().await.unwrap().pause.is_some(), "{one}");
    }
}

/// What a host of before locked: it counted nothing, and may well be alive.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_whose_holder_never_counted_is_left_alone() {
    let place = Place::sqlite();
    let database = place.prepared().await;
    let lock_file = format!("{}.tidegate-lock", place.file().display());
    let lock = |said: &str| {
        std::fs::write(&lock_file, said).unwrap();
        let file = std::fs::File::open(&lock_file).unwrap();
        file.try_lock().unwrap();
        file
    };
    let older = lock(r#"{"host":"machine.example","pid":7}"#);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(8) {
        let attempt = database.try_lease(&holder(1)).await.unwrap();
        assert!(matches!(attempt, LeaseAttempt::Taken(Some(by)) if by == holder(7)));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(older);
    // One that has counted, and does not go on.
    let stopped = lock(r#"{"host":"machine.example","pid":7,"beat":3}"#);
    let since = Instant::now();
    let lease = loop {
        match database.try_lease(&holder(1)).await.unwrap() {
            LeaseAttempt::Held(lease) => break lease,
            LeaseAttempt::Taken(by) => assert_eq!(by, Some(holder(7))),
        }
        assert!(since.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(since.elapsed() > Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!(place.rows("select queue, epoch from tidegate_lease").await, ["background_updates|1"]);
    let said = std::fs::read_to_string(&lock_file).unwrap();
    assert!(said.contains("\"pid\":1,"), "{said}");
    drop(stopped);
    let LeaseAttempt::Taken(Some(by)) = place.open().try_lease(&holder(2)).await.unwrap() else { panic!("two leases") };
    assert_eq!(by, holder(1));
    lease.release().await;
}
