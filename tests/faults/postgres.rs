//! Causes that PostgreSQL knows.

use std::sync::Arc;

use super::{FINISHED, ROWS, endures, status_with, touching};
use crate::crash::{
    ENDLESS, PATIENCE, drag, dragging, each_touched_once, in_agreement, moved_on, queue_touch, touch_dragged,
};
use crate::support::disk::Disk;
use crate::support::place::Place;
use crate::support::postgres::{Server, Settings};
use crate::support::until;

const TOUCH: &str = "touched = touched + 1";

async fn queued() -> Place {
    let place = Place::postgres().await;
    queue_touch(&place, ROWS).await;
    place
}

/// A session of somebody else's.
async fn other(place: &Place) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&place.url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Ends the program's sessions, those of this role or all.
async fn terminate(place: &Place, role: &str) {
    let ended = place
        .rows(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() \
             and application_name like 'tidegate/%/{role}%'"
        ))
        .await;
    assert!(!ended.is_empty(), "there was nothing to end");
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_held_by_others() {
    // On the table, on rows of it, on the queue's row.
    let locks = [
        "lock table items in exclusive mode",
        "select 1 from items for update",
        "select 1 from background_updates for update",
    ];
    for lock in locks {
        let place = &queued().await;
        let folder = touching(place, "lock_timeout_ms = 100", TOUCH);
        let take = async || {
            let other = other(place).await;
            other.batch_execute(&format!("begin; {lock}")).await.unwrap();
            other
        };
        let reason = ("canceling statement due to lock timeout", 3);
        endures(place, &folder, reason, take, async |other| other.batch_execute("rollback").await.unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_timeout() {
    let place = &queued().await;
    let set = touch_dragged(place).await;
    let folder = touching(place, "statement_timeout_ms = 300", set);
    let reason = ("canceling statement due to statement timeout", 3);
    endures(place, &folder, reason, async || drag(place, ENDLESS).await, async |()| drag(place, 0).await).await;
}

/// The batch is made the last to wait in the circle, and so the one that finds it and is given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock() {
    let place = &queued().await;
    place
        .run(
            "create table gate (closed bool not null); insert into gate values (false); \
             create function gated(n bigint) returns int language plpgsql volatile as $$ begin \
             while n % 200 = 100 and (select closed from gate) loop perform pg_sleep(0.02); end loop; return 0; end $$",
        )
        .await;
    let folder = touching(place, "lock_timeout_ms = 600000", "touched = touched + 1 + gated(id)");
    let deadlock = async || {
        place.run("update gate set closed = true").await;
        let asleep = "select 1 from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep' \
                      and application_name like 'tidegate/%/batch.%'";
        until("a batch waits at the gate", async || !place.rows(asleep).await.is_empty()).await;
        // The batch holds its first rows, and has its last one before it.
        let after = place.rows("select progress_json::json->'after'->>0 from background_updates").await;
        let after: u32 = after[0].parse().unwrap();
        let other = Arc::new(other(place).await);
        let touch = |id: u32| format!("update items set touched = touched where id = {id}");
        other.batch_execute(&format!("set deadlock_timeout = '1h'; begin; {}", touch(after + 200))).await.unwrap();
        let closing = tokio::spawn({
            let (other, first) = (other.clone(), touch(after + 1));
            async move { other.batch_execute(&first).await }
        });
        let waiting = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        until("the other waits for the batch", async || !place.rows(waiting).await.is_empty()).await;
        place.run("update gate set closed = false").await;
        closing.await.unwrap().unwrap();
        other
    };
    let end = async |other: Arc<tokio_postgres::Client>| other.batch_execute("rollback").await.unwrap();
    endures(place, &folder, ("deadlock detected", 1), deadlock, end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_terminated_in_the_middle_of_a_batch() {
    let place = &queued().await;
    let set = touch_dragged(place).await;
    let folder = touching(place, "statement_timeout_ms = 600000", set);
    let cut = async || {
        drag(place, ENDLESS).await;
        dragging(place).await;
        terminate(place, "batch.").await;
    };
    let reason = ("terminating connection due to administrator command", 1);
    endures(place, &folder, reason, cut, async |()| drag(place, 0).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_restart() {
    let server = Server::start(&Settings { fsync: true, ..Settings::default() });
    for stop in [Server::stop, Server::kill] {
        let place = &Place::on(&server).await;
        queue_touch(place, ROWS).await;
        let folder = touching(place, "", TOUCH);
        let mut host = folder.start(&["run", "--until-done"]);
        moved_on(place, Some("{}")).await;
        stop(&server);
        host.repeats("unavailable: ", 2, PATIENCE).await;
        let status = status_with(&folder, "cannot connect to").await;
        assert!(status.contains("hint: see whether the server runs"), "{status}");
        server.start_again();
        assert!(in_agreement(place).await.unwrap().1, "the work was over: it is too little");
        assert_eq!(host.end(FINISHED).await, 0, "{}", host.said());
        each_touched_once(place, ROWS).await.unwrap();
    }
}

/// As after a failover: the sessions are gone, and new ones may only read.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_may_only_be_read() {
    let place = &queued().await;
    let folder = touching(place, "", TOUCH);
    let name = &place.rows("select current_database()").await[0];
    let only_read = async || {
        place.run(&format!("alter database {name} set default_transaction_read_only = on")).await;
        terminate(place, "").await;
    };
    let write = async |()| {
        let other = other(place).await;
        other.batch_execute("set session characteristics as transaction read write").await.unwrap();
        other.batch_execute(&format!("alter database {name} reset default_transaction_read_only")).await.unwrap();
        terminate(place, "").await;
    };
    endures(place, &folder, ("cannot be written to: default_transaction_read_only is on", 3), only_read, write).await;
}

/// The table is on a small disk of its own. (Where the server's own disk is full it stops by itself, and that is the
/// restart above.)
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk() {
    let server = Server::start(&Settings::default());
    let disk = Disk::new(16 << 20);
    let place = &Place::on(&server).await;
    let folder = disk.path().join("tables");
    std::fs::create_dir(&folder).unwrap();
    server.hand_over(&folder);
    let location = folder.display();
    place.run(&format!("create tablespace small location '{location}'")).await;
    queue_touch(place, ROWS).await;
    place.run("alter table items set tablespace small").await;
    let folder = touching(place, "", TOUCH);
    let reason = ("No space left on device", 3);
    endures(place, &folder, reason, async || disk.fill(), async |()| disk.free()).await;
    place.run("alter table items set tablespace pg_default").await;
    place.run("drop tablespace small").await;
}
