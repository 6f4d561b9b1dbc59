//! The file of an SQLite database moved, replaced or removed under a host at work.

use std::fs;
use std::path::{Path, PathBuf};

use super::{FINISHED, ROWS, touching};
use crate::crash::{PATIENCE, each_touched_once, in_agreement, moved_on, queue_touch};
use crate::support::place::Place;

const TOUCH: &str = "touched = touched + 1";

/// A database of its own folder, with `touch` queued.
async fn queued(folder: &Path, mode: &str) -> Place {
    let place = Place::sqlite_in(folder);
    place.run(&format!("pragma journal_mode = {mode}")).await;
    queue_touch(&place, ROWS).await;
    place
}

/// Moves a database to another folder, with what lies beside it and is its own.
fn carry(from: &Place, to: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let name = |folder: &Path| PathBuf::from(format!("{}{suffix}", folder.join("app.db").display()));
        let _ = fs::rename(name(from.file().parent().unwrap()), name(to));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_takes_anothers_place_is_a_database_of_its_own() {
    for (mode, alone) in [("delete", false), ("wal", false), ("wal", true)] {
        let (home, away, next) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = &queued(home.path(), mode).await;
        let other = queued(next.path(), mode).await;
        let folder = touching(place, "", TOUCH);
        let mut host = folder.start(&["run", "--until-done"]);
        moved_on(place, Some("{}")).await;
        if alone {
            // As `mv` does it, the log left where it was.
            fs::hard_link(place.file(), away.path().join("app.db")).unwrap();
            fs::rename(other.file(), place.file()).unwrap();
        } else {
            carry(place, away.path());
            fs::rename(other.file(), place.file()).unwrap();
        }
        host.says("lease lost: the database file", PATIENCE).await;
        assert_eq!(host.end(FINISHED).await, 0, "{mode}: {}", host.said());
        each_touched_once(place, ROWS).await.unwrap_or_else(|problem| panic!("{mode}: {problem}\n{}", host.said()));
        // Its history is about it, and about nothing before.
        let told = place.rows("select sum(json_extract(record, '$.items')) from tidegate_history").await;
        assert_eq!(told, [ROWS.to_string()], "{mode}: {}", host.said());
        // The old one stands at its last batch.
        let old = Place::sqlite_in(away.path());
        let (done, remains) = in_agreement(&old).await.unwrap();
        assert!(remains && done > 0 && done < u64::from(ROWS), "{mode}: {done}");
        // A host that works on it goes on from there.
        let folder = touching(&old, "", TOUCH);
        let (said, code) = folder.tidegate(&["run", "--until-done"]).await;
        assert_eq!(code, 0, "{said}");
        each_touched_once(&old, ROWS).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_taken_away_is_waited_for() {
    for mode in ["delete", "wal"] {
        let (home, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = &queued(home.path(), mode).await;
        let folder = touching(place, "", TOUCH);
        let mut host = folder.start(&["run", "--until-done"]);
        moved_on(place, Some("{}")).await;
        carry(place, away.path());
        host.says("was moved away, to \"", PATIENCE).await;
        host.repeats("does not exist, and tidegate makes none; trying again in", 2, PATIENCE).await;
        let (status, code) = folder.tidegate(&["status"]).await;
        assert!(code == 1 && status.contains("does not exist"), "{code}: {status}");
        assert!(host.ended().is_none(), "{}", host.said());
        // Told once, not with each attempt to write it.
        assert!(host.said().matches("the history could not be written").count() < 2, "{}", host.said());
        let old = Place::sqlite_in(away.path());
        in_agreement(&old).await.unwrap();
        carry(&old, home.path());
        assert_eq!(host.end(FINISHED).await, 0, "{}", host.said());
        each_touched_once(place, ROWS).await.unwrap();
    }
}
