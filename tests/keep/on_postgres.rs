//! What PostgreSQL alone does to triggers: locks, rights, policies, replication.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::scheduler::event::EventKind;
use tidegate::update::sql::TableName;
use tidegate::update::{Backfill, BackfillDefinition, Reach};

use super::{FILTER, UNLIKE, WRONG, copy, fill, make, problems};
use crate::support::place::{Place, row};
use crate::support::postgres::connect;
use crate::support::run::Run;

fn transient(event: &EventKind) -> Option<String> {
    match event {
        EventKind::TransientFailure { error, .. } => Some(error.clone()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_waited_for_shortly_and_its_holder_named_both_ways() {
    let place = Place::postgres().await;
    make(&place, 100).await;
    let run = Run::on(&place, &[row("fill")]).await.define("fill", Arc::new(fill("b = upper(a)", FILTER))).for_ever();
    let database = run.database.clone();
    let held = place.hold("set application_name = 'a long report'; update items set a = 'held' where id = 10").await;
    let mut running = run.start();
    let why = running.next("a failure", transient).await;
    assert!(why.contains("could not be locked for its trigger within 100 ms"), "{why}");
    assert!(
        why.contains("; in the way: process ") && why.contains("(a long report, user postgres, idle in transaction"),
        "{why}"
    );
    // Nobody is made to wait behind it.
    let client = connect(&place.url).await;
    client.batch_execute("set lock_timeout = '2s'").await.unwrap();
    for id in 0..20 {
        client
            .batch_execute(&format!("insert into items (id, a, n) values ({}, 'meanwhile', 1)", 5001 + id))
            .await
            .unwrap();
    }
    drop(held);
    running.next("the end", |event| matches!(event, EventKind::UpdateFinished { .. }).then_some(())).await;
    assert_eq!(place.rows(WRONG).await, ["0"]);
    running.stop().await;

    let held = place.hold("set application_name = 'a reader'; select count(*) from items").await;
    let error = database.unkeep("fill").await.unwrap_err();
    assert!(error.message.contains("(a reader, user postgres"), "{error}");
    drop(held);
    let began = Instant::now();
    while database.unkeep("fill").await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30));
    }
    assert!(database.look().await.unwrap().unwrap().kept.is_empty());
    assert_eq!(place.rows("select proname from pg_proc where proname like 'zz_tidegate%'").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_began_before_the_trigger_writes_what_is_right() {
    let place = Place::postgres().await;
    make(&place, 100).await;
    place.run("create table teams (id int)").await;
    for (update, handler, wrong) in
        [("fill", Arc::new(fill("b = upper(a)", FILTER)), WRONG), ("copy", Arc::new(copy(FILTER)), UNLIKE)]
    {
        let client = connect(&place.url).await;
        let prepared = client.prepare("insert into items (id, a, n) values ($1, 'from before', 1)").await.unwrap();
        // It has its snapshot, and no lock on the table yet.
        client.batch_execute("begin isolation level repeatable read; select count(*) from teams").await.unwrap();
        let run = Run::on(&place, &[row(update)]).await;
        let story = run.define(update, handler).until_done().await;
        assert_eq!(story.remaining(), []);
        // Rows that no batch has written: of others it could not see what it would change.
        let (id, other) = if update == "fill" { (5_i64, 30) } else { (6, 60) };
        client.execute(&prepared, &[&id]).await.unwrap();
        client.batch_execute(&format!("update items set n = 1 where id = {other}; commit")).await.unwrap();
        assert_eq!(place.rows(wrong).await, ["0"], "{update}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_write_the_rows_needs_no_right_to_what_the_trigger_reads_and_writes() {
    let place = Place::postgres().await;
    make(&place, 50).await;
    let run = Run::on(&place, &[row("copy")]).await;
    let story = run.define("copy", Arc::new(copy(FILTER))).until_done().await;
    assert_eq!(story.remaining(), []);
    let role = place.rows("select 'app_of_' || current_database()").await.remove(0);
    place.run(&format!("create role {role} login; grant select, insert, update, delete on items to {role}; grant create on schema public to {role}")).await;
    let app = place.by_way_of(place.url.replace("postgres@", &format!("{role}@")));
    // A temporary table of the name is not the one that is meant.
    app.run("create temporary table copies (id bigint primary key, c text); insert into items (id, a, n) values (7, 'theirs', 1); update items set a = 'theirs too' where id = 10; delete from items where id = 20").await;
    assert_eq!(place.rows(UNLIKE).await, ["0"]);
    // Nobody else makes a trigger of the function, which would write as its owner for them.
    let client = connect(&app.url).await;
    client.batch_execute("create table mine (id bigint, a text, n int)").await.unwrap();
    let made = client
        .batch_execute("create trigger mine after insert on mine for each row execute function zz_tidegate_keep_copy()")
        .await;
    assert_eq!(made.unwrap_err().code().unwrap().code(), "42501");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_trigger_can_keep_here_is_refused() {
    let place = Place::postgres().await;
    place.run("create table items (id int primary key not null, a text, n int, b text, g text generated always as (a || '!') stored)").await;
    let told = problems(&place, &fill("b = upper(g)", None)).await;
    assert!(told.iter().any(|told| told.starts_with("Error keep: \"g\" is computed from other columns")), "{told:?}");
    // So does a host, before it makes anything.
    let run = Run::on(&place, &[row("fill")]).await;
    let story = run.define("fill", Arc::new(fill("b = upper(g)", None))).until_done().await;
    assert!(story.remaining()[0].1.contains("\"g\" is computed from other columns"), "{:?}", story.remaining());
    assert!(story.database.look().await.unwrap().unwrap().kept.is_empty());
    let reach = Reach { row_security: true, ..Reach::default() };
    let of_policies =
        Backfill::new(super::definition("items", "b = upper(a)", None)).reaching(reach).kept("fill", false);
    let told = problems(&place, &of_policies).await;
    assert!(told.iter().any(|told| told.starts_with("Error keep: \"keep\" and row_security")), "{told:?}");
    place
        .run(
            "create function last() returns trigger language plpgsql as 'begin new.b = ''last''; return new; end'; \
         create trigger zzz before insert on items for each row execute function last()",
        )
        .await;
    let told = problems(&place, &fill("b = upper(a)", None)).await;
    assert!(
        told.iter().any(|told| told.starts_with("Warning keep: trigger \"zzz\" of table \"items\" runs after")),
        "{told:?}"
    );
    place
        .run(
            "create table parts (id int not null, part int not null, primary key (id, part)) partition by range (part)",
        )
        .await;
    let definition = BackfillDefinition {
        table: TableName::from("parts"),
        key: vec!["id".to_owned(), "part".to_owned()],
        set: "part = 1".to_owned(),
        filter: None,
    };
    let told = problems(&place, &Backfill::new(definition).kept("fill", false)).await;
    assert!(told.iter().any(|told| told.starts_with("Error")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_trigger_is_known_and_a_replica_s_writes_are_not_kept() {
    let place = Place::postgres().await;
    make(&place, 10).await;
    let run = Run::on(&place, &[row("fill")]).await;
    let story = run.define("fill", Arc::new(fill("b = upper(a)", FILTER))).until_done().await;
    assert_eq!(story.remaining(), []);
    place.run("set session_replication_role = replica; insert into items (id, a, n) values (5, 'applied', 1)").await;
    assert_eq!(place.rows(WRONG).await, ["1"]);
    place.run("alter table items disable trigger zz_tidegate_keep_fill").await;
    assert!(!story.database.look().await.unwrap().unwrap().kept[0].enabled);
}
