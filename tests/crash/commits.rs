//! Commits whose answer is lost: what became of them is found out, and told to nobody before.

use std::sync::atomic::{AtomicUsize, Ordering};

use tidegate::scheduler::database::Record;

use super::{
    ENDLESS, PATIENCE, WITHOUT_SLEEP, drag, each_touched_once, progress, queue_touch, touch_dragged, touching,
};
use crate::support::place::Place;
use crate::support::postgres::{Server, Settings};
use crate::support::until;

fn durable() -> Server {
    Server::start(&Settings { fsync: true, ..Settings::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_the_server_did_not_live_to_do_is_done_again() {
    let server = durable();
    let place = &Place::on(&server).await;
    queue_touch(place, 300).await;
    touch_dragged(place).await;
    // The commit itself waits, for a trigger that fires no sooner: on the queue, since those on the table that is walked are
    // run before a batch is looked through.
    place
        .run(
            "create function drag_commit() returns trigger language plpgsql as \
             $$ begin perform dragged(); return null; end $$; \
             create constraint trigger drag after update or delete on background_updates deferrable initially deferred \
             for each row execute function drag_commit()",
        )
        .await;
    drag(place, ENDLESS).await;
    let folder = touching(place, WITHOUT_SLEEP, "touched = touched + 1");
    let mut host = folder.start(&["run", "--until-done"]);
    let commits = "select 1 from pg_stat_activity where datname = current_database() and state = 'active' \
                   and application_name like 'tidegate/%/batch.%' and query = 'commit'";
    until("the commit is under way", async || !place.rows(commits).await.is_empty()).await;
    server.stop();
    host.says("unavailable: ", PATIENCE).await;
    server.start_again();
    assert_eq!(progress(place).await.as_deref(), Some("{}"));
    drag(place, 0).await;
    assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
    each_touched_once(place, 300).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_was_done_but_not_answered_is_not_done_again() {
    let server = durable();
    let place = &Place::on(&server).await;
    queue_touch(place, 1_000).await;
    let folder = touching(place, "sleep_enabled = false\nmax_batch_size = 100", "touched = touched + 1");
    // A server that has committed waits with its answer for a second server, which does not exist.
    place.run("alter system set synchronous_standby_names = 'nobody'").await;
    place.run("select pg_reload_conf()").await;
    until("it is so", async || place.rows("show synchronous_standby_names").await == ["nobody"]).await;
    let mut host = folder.start(&["run", "--until-done"]);
    let waiting = "select application_name, pg_terminate_backend(pid) from pg_stat_activity \
                   where datname = current_database() and wait_event = 'SyncRep'";
    let unanswered = AtomicUsize::new(0);
    until("five batches are committed and not answered", async || {
        let cut = place.rows(waiting).await;
        let batches = cut.iter().filter(|process| process.contains("/batch.")).count();
        unanswered.fetch_add(batches, Ordering::Relaxed) + batches >= 5
    })
    .await;
    place.run("alter system reset synchronous_standby_names").await;
    place.run("select pg_reload_conf()").await;
    assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
    each_touched_once(place, 1_000).await.unwrap();
    // The host knows that they were done: none of them was a failure, and none was taken for another host's work.
    let history = place.prepared().await.history(None, 100).await.unwrap();
    assert!(history.iter().all(Record::is_committed), "{history:#?}");
    assert!(!host.said().contains("somebody else"), "{}", host.said());
}
