//! What is left of a walk in parts: cut, done at once over several connections, and every row once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use tidegate::scheduler::database::{Begin, Database, PartCommit, Planned};
use tidegate::update::parts::{Part, is_cut, parts};
use tidegate::update::{
    Backfill, BackfillDefinition, Budget, Copy, CopyColumn, CopyDefinition, CopySource, Delete, DeleteDefinition,
    Handler, Next, OnConflict, Progress,
};

use super::subject::{names, table};
use crate::support::place::{Place, begin, row};

const UPDATE: &str = "fill";

fn fill(key: &[&str]) -> Arc<dyn Handler> {
    let set = "touched = touched + 1".to_owned();
    let definition = BackfillDefinition { table: table("t"), key: names(key), set, filter: None };
    Arc::new(Backfill::new(definition).with_workers(2))
}

/// The lane whose connection a hand takes.
fn line(hand: usize) -> String {
    format!("hand {hand}")
}

fn planned_by(line: &str) -> Planned<'_> {
    Planned { lane: line, ..Planned::of(UPDATE, "") }
}

async fn stored(database: &dyn Database) -> Option<Progress> {
    let progress = database.progress(UPDATE).await.unwrap();
    progress.map(|progress| Progress::parse(&progress).unwrap())
}

/// A batch of all that there is, as one worker does it. False where the update is done.
async fn batch(database: &dyn Database, handler: &dyn Handler, items: u64) -> bool {
    let Some(progress) = stored(database).await else { return false };
    let mut transaction = begin(database, UPDATE, &progress.to_json()).await;
    match handler.run(transaction.as_sql(), &progress, Budget { items }).await.unwrap().next {
        Next::Continue(next) => transaction.commit(Some(&next.to_json())).await.unwrap(),
        Next::Finished => {
            transaction.commit(None).await.unwrap();
            return false;
        }
    }
    true
}

/// Cuts what is left, where it is to be cut.
async fn cut(database: &dyn Database, handler: &dyn Handler, into: usize) -> usize {
    let progress = stored(database).await.unwrap();
    let mut session = database.inspect().await.unwrap();
    let cut = handler.cut(session.as_sql(), &progress, into).await.unwrap();
    drop(session);
    let Some(cut) = cut else { return 1 };
    assert!(is_cut(&cut));
    // Whoever reads the progress takes it.
    handler.mode(&cut).unwrap();
    begin(database, UPDATE, &progress.to_json()).await.commit(Some(&cut.to_json())).await.unwrap();
    parts(&cut).len()
}

/// What came of a batch of a part.
async fn part_batch(
    database: &dyn Database,
    handler: &dyn Handler,
    part: &Part,
    hand: usize,
    items: u64,
) -> Option<PartCommit> {
    let stands = |found: &str| part.stands_in(&Progress::parse(found).unwrap());
    let begun = database.begin_part(&planned_by(&line(hand)), &stands).await.unwrap();
    let Begin::Ready(mut transaction) = begun else { return None };
    let step = handler.run(transaction.as_sql(), part.progress(), Budget { items }).await.unwrap();
    let Next::Continue(next) = step.next else { panic!("a part ended the whole") };
    let merge = |found: &str| {
        let found = Progress::parse(found).unwrap();
        part.written_in(&found, &next).unwrap().map(|written| written.to_json())
    };
    Some(transaction.commit_part(&merge).await.unwrap())
}

/// Does parts that nobody else does until none is left.
async fn hand(
    database: Arc<dyn Database>,
    handler: Arc<dyn Handler>,
    claims: Arc<Mutex<HashSet<String>>>,
    number: usize,
) -> u64 {
    let mut batches = 0;
    loop {
        let Some(progress) = stored(&*database).await.filter(is_cut) else { return batches };
        let mut all = parts(&progress).into_iter();
        let Some(mut part) = all.find(|part| claims.lock().unwrap().insert(part.end().to_string())) else {
            return batches;
        };
        loop {
            let done = part_batch(&*database, &*handler, &part, number, 97).await;
            let Some(PartCommit::Committed(progress)) = done else { panic!("{done:?}") };
            batches += 1;
            let progress = Progress::parse(&progress).unwrap();
            match parts(&progress).into_iter().find(|next| next.end() == part.end()) {
                Some(next) => part = next,
                None => break,
            }
        }
    }
}

/// Does the whole update with two hands; returns the number of parts, and of batches that each hand did.
async fn run(place: &Place, handler: Arc<dyn Handler>, into: usize) -> (usize, Vec<u64>) {
    let database = place.prepared().await;
    database.enqueue(&row(UPDATE)).await.unwrap();
    if !batch(&*database, &*handler, 10).await {
        return (0, Vec::new());
    }
    let number = cut(&*database, &*handler, into).await;
    let claims = Arc::default();
    let hands = [0, 1].map(|number| tokio::spawn(hand(database.clone(), handler.clone(), Arc::clone(&claims), number)));
    let mut done = Vec::new();
    for hand in hands {
        done.push(hand.await.unwrap());
    }
    while batch(&*database, &*handler, 1_000).await {}
    database.close().await;
    (number, done)
}

/// The tables, and the key that each is walked along; the least number of parts of eight that its rows are worth.
const TABLES: &[(&str, &[&str], usize, &str)] = &[
    (
        "even",
        &["id"],
        8,
        "create table t (id bigint primary key, touched int not null default 0); \
         insert into t (id) select generate_series(1, 20000)",
    ),
    (
        "never analysed, and few rows",
        &["id"],
        2,
        "create table t (id bigint primary key, touched int not null default 0) with (autovacuum_enabled = off); \
         insert into t (id) select generate_series(1, 2500)",
    ),
    (
        "all rows in a tenth of the keys",
        &["id"],
        8,
        "create table t (id bigint primary key, touched int not null default 0); insert into t (id) values (1); \
         insert into t (id) select 900000 + g from generate_series(1, 20000) g; insert into t (id) values (1000000); \
         analyze t",
    ),
    (
        "texts, in the order of a language",
        &["name"],
        8,
        "create table t (name text collate \"und-x-icu\" primary key, touched int not null default 0); \
         insert into t (name) select (array['a','B','ä','Z','é','1','-',' '])[1 + g % 8] || md5(g::text) \
         from generate_series(1, 20000) g",
    ),
    (
        "texts, in the order of bytes",
        &["name"],
        8,
        "create table t (name text collate \"C\" primary key, touched int not null default 0); \
         insert into t (name) select (array['a','B','ä','Z','é','1','-',' '])[1 + g % 8] || md5(g::text) \
         from generate_series(1, 20000) g",
    ),
    (
        "several columns, one of them of few values",
        &["room", "id"],
        8,
        "create table t (id uuid not null, room text not null, touched int not null default 0, primary key (room, id)); \
         insert into t (id, room) select gen_random_uuid(), 'room ' || least(g / 18000, 3) from generate_series(1, 20000) g",
    ),
    (
        "not unique by itself",
        &["room"],
        8,
        "create table t (id bigint primary key, room int not null, touched int not null default 0); \
         insert into t (id, room) select g, g % 3 from generate_series(1, 20000) g; create index on t (room)",
    ),
    (
        "numbers at random",
        &["id"],
        8,
        "create table t (id uuid primary key, touched int not null default 0); \
         insert into t (id) select gen_random_uuid() from generate_series(1, 20000)",
    ),
    (
        "partitioned",
        &["id"],
        8,
        "create table t (id bigint primary key, touched int not null default 0) partition by range (id); \
         create table t_1 partition of t for values from (0) to (15000); \
         create table t_2 partition of t for values from (15000) to (100000); \
         insert into t (id) select generate_series(1, 20000)",
    ),
    (
        "inherited, with the same keys",
        &["id"],
        8,
        "create table t (id bigint primary key, touched int not null default 0); \
         create table below (primary key (id)) inherits (t); \
         insert into t (id) select generate_series(1, 10000); insert into below (id) select generate_series(1, 10000)",
    ),
    (
        "with a trigger, and a column that no one should call so",
        &["tidegate_many", "order"],
        8,
        "create table t (tidegate_many int not null, \"order\" timestamptz not null, touched int not null default 0, \
         primary key (tidegate_many, \"order\")); \
         insert into t select g % 50, '2020-01-01'::timestamptz + g * interval '1 second' from generate_series(1, 20000) g; \
         create function mend() returns trigger language plpgsql as 'begin return new; end'; \
         create trigger mends before update on t for each row execute function mend()",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn two_hands_do_each_row_once_whatever_the_keys() {
    for (name, key, least, schema) in TABLES {
        let place = Place::postgres().await;
        place.run(schema).await;
        let (number, batches) = run(&place, fill(key), 8).await;
        assert!(number >= *least, "{name}: {number} parts");
        let times = place.rows("select touched, count(*) = (select count(*) from t) from t group by touched").await;
        assert_eq!(times, ["1|t"], "{name}");
        assert!(batches.iter().all(|batches| *batches > 0), "{name}: {batches:?}");
        assert_eq!(place.rows("select count(*) from background_updates").await, ["0"], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_little_stays_in_one_part() {
    for rows in [0, 1, 2, 11, 500] {
        let place = Place::postgres().await;
        place
            .run(&format!(
                "create table t (id bigint primary key, touched int not null default 0); \
                 insert into t (id) select generate_series(1, {rows})"
            ))
            .await;
        let (number, _) = run(&place, fill(&["id"]), 8).await;
        assert!(number <= 1, "{rows} rows: {number} parts");
        assert_eq!(place.rows("select count(*) from t where touched <> 1").await, ["0"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_and_a_copy_take_parts_as_well() {
    let place = Place::postgres().await;
    place
        .run(
            "create table t (id bigint primary key, state int not null); create table u (id bigint primary key); \
             insert into t select g, g % 3 from generate_series(1, 20000) g; \
             create table log (id bigint); create function log() returns trigger language plpgsql as \
             'begin insert into log values (old.id); return old; end'; \
             create trigger logs after delete on t for each row execute function log()",
        )
        .await;
    let copy = CopyDefinition {
        table: table("t"),
        key: names(&["id"]),
        into: table("u"),
        columns: vec![CopyColumn { target: "id".to_owned(), source: CopySource::SameName }],
        filter: Some("state = 1".to_owned()),
        on_conflict: OnConflict::Error,
    };
    let (number, _) = run(&place, Arc::new(Copy::new(copy).with_workers(2)), 8).await;
    assert_eq!(number, 8);
    assert_eq!(place.rows("select count(*) from u").await, ["6667"]);
    let delete = DeleteDefinition { table: table("t"), key: names(&["id"]), filter: "state = 1".to_owned() };
    let (number, _) = run(&place, Arc::new(Delete::new(delete).with_workers(2)), 8).await;
    assert_eq!(number, 8);
    assert_eq!(place.rows("select count(*), count(distinct id) from log").await, ["6667|6667"]);
    assert_eq!(place.rows("select count(*) from t").await, ["13333"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_two_parts_are_open_at_once_and_neither_undoes_the_other() {
    let place = Place::postgres().await;
    place
        .run(
            "create table t (id bigint primary key, touched int not null default 0); \
             insert into t (id) select generate_series(1, 4000)",
        )
        .await;
    let (database, handler) = (place.prepared().await, fill(&["id"]));
    database.enqueue(&row(UPDATE)).await.unwrap();
    assert!(batch(&*database, &*handler, 10).await);
    assert_eq!(cut(&*database, &*handler, 2).await, 2);
    let planned = parts(&stored(&*database).await.unwrap());
    let open = |hand: usize| {
        let (database, handler, part) = (database.clone(), handler.clone(), planned[hand].clone());
        async move {
            let stands = |found: &str| part.stands_in(&Progress::parse(found).unwrap());
            let begun = database.begin_part(&planned_by(&line(hand)), &stands).await.unwrap();
            let Begin::Ready(mut transaction) = begun else { panic!("it is there") };
            let step = handler.run(transaction.as_sql(), part.progress(), Budget { items: 100 }).await.unwrap();
            let Next::Continue(next) = step.next else { panic!("it ended") };
            (transaction, part, next)
        }
    };
    let merged = |part: Part, next: Progress| {
        move |found: &str| {
            part.written_in(&Progress::parse(found).unwrap(), &next).unwrap().map(|written| written.to_json())
        }
    };
    // Both have changed rows before either commits.
    let ((one, first, next_of_first), (two, second, next_of_second)) = (open(0).await, open(1).await);
    let committed = two.commit_part(&merged(second.clone(), next_of_second.clone())).await.unwrap();
    assert!(matches!(committed, PartCommit::Committed(_)));
    let committed = one.commit_part(&merged(first.clone(), next_of_first)).await.unwrap();
    assert!(matches!(committed, PartCommit::Committed(_)));
    assert_eq!(place.rows("select touched, count(*) from t group by 1 order by 1").await, ["0|3790", "1|210"]);
    // What was planned from the progress of before does not begin, and does not commit.
    let stale = part_batch(&*database, &*handler, &first, 0, 100).await;
    assert_eq!(stale, None);
    // A row that somebody changes, or takes away, while a batch is open is noticed at its commit.
    for (change, gone) in
        [("update background_updates set progress_json = '{}'", false), ("delete from background_updates", true)]
    {
        database.enqueue(&row(UPDATE)).await.unwrap();
        let progress = database.progress(UPDATE).await.unwrap().unwrap();
        if progress == "{}" {
            let cut = stored_cut(&first);
            place.run(&format!("update background_updates set progress_json = '{cut}'")).await;
        }
        let part = parts(&stored(&*database).await.unwrap()).remove(0);
        let stands = |found: &str| part.stands_in(&Progress::parse(found).unwrap());
        let begun = database.begin_part(&planned_by(&line(0)), &stands).await.unwrap();
        let Begin::Ready(mut transaction) = begun else { panic!("it is there") };
        let step = handler.run(transaction.as_sql(), part.progress(), Budget { items: 100 }).await.unwrap();
        let Next::Continue(next) = step.next else { panic!("it ended") };
        place.run(change).await;
        let committed = transaction.commit_part(&merged(part, next)).await.unwrap();
        assert_eq!(committed, PartCommit::Moved { gone }, "{change}");
    }
    assert_eq!(place.rows("select touched, count(*) from t group by 1 order by 1").await, ["0|3790", "1|210"]);
    // The connections are fit for use afterwards.
    assert_eq!(database.progress(UPDATE).await.unwrap(), None);
}

/// Progress in two parts, of which one stands where this one does.
fn stored_cut(part: &Part) -> String {
    let mut members = part.progress().0.clone();
    let after = members.remove("after").unwrap();
    let (to, far) = (part.end().clone(), serde_json::json!(["4000"]));
    let ranges = serde_json::json!([{"from": after, "after": after, "to": to}, {"from": to, "after": to, "to": far}]);
    members.insert("ranges".to_owned(), ranges);
    Progress(members).to_json()
}
