//! PostgreSQL through PgBouncer: in session mode all is as without it; in transaction mode a host works in sessions that the
//! application is given next, leaves nothing behind there, and goes by nothing that it finds; in statement mode no host works.

use std::sync::Arc;

use tidegate::scheduler::database::{Database, LeaseAttempt};
use tidegate::update::ErrorClass;
use tidegate::update::sql::SqlError;
use tidegate_database::{Options, open};
use tokio::task::JoinSet;

use crate::crash::{PATIENCE, each_touched_once, moved_on, queue_touch, touching};
use crate::support::binary::Folder;
use crate::support::pgbouncer::Pooler;
use crate::support::place::{Place, begin, holder, row};
use crate::support::postgres::connect;
use crate::support::run::make_items;
use crate::support::until;

const ROWS: u32 = 20_000;

/// Where a batch has more to do.
const FEWER: u32 = 4_000;

/// Batches of which there are many.
const SETTINGS: &str = "sleep_duration_ms = 10\npoll_interval_ms = 50\n\
                        default_batch_size = 100\nmin_batch_size = 100\nmax_batch_size = 100";

/// What hosts lock among a database's advisory locks, of all sessions.
const LEASES: &str = "select count(*) from pg_locks where locktype = 'advisory' \
                      and database = (select oid from pg_database where datname = current_database())";

fn through(pooler: &Pooler, place: &Place) -> Arc<dyn Database> {
    open(&pooler.url(&place.url), Options::new(holder(1))).unwrap()
}

/// What a session of the server's is set to, as an application meets it that is given it next.
async fn settings(url: &str) -> Vec<String> {
    let select = "select string_agg(name || '=' || setting, ' ' order by name) from pg_settings \
                  where source = 'session' and name <> 'application_name' and name <> 'client_encoding'";
    let mut found = Vec::new();
    for _ in 0..4 {
        let rows = connect(url).await.simple_query(select).await.unwrap();
        found.extend(rows.iter().filter_map(|row| match row {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        }));
    }
    found
}

/// In statement mode, however it chooses among its sessions, and where options are dropped on the way; and in transaction mode
/// with one session for all.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_nothing_can_be_done_with_is_told_and_left_as_it_was() {
    const NO_BATCHES: [&str; 2] = [
        "is a connection pooler in statement mode: it runs each statement in whatever session",
        "hint: name the PostgreSQL server itself in the `url`, or a pool in transaction or session mode",
    ];
    const FEW: [&str; 2] = [
        "is a connection pooler, and gave no second session of the server's within 8 s",
        "hint: let the pool have more sessions (PgBouncer: default_pool_size)",
    ];
    for (mode, lines, words, code) in [
        ("statement", "", NO_BATCHES, 2),
        ("statement", "default_pool_size = 1", NO_BATCHES, 2),
        ("statement", "server_round_robin = 1", NO_BATCHES, 2),
        ("statement", "ignore_startup_parameters = options", NO_BATCHES, 2),
        ("transaction", "default_pool_size = 1", FEW, 1),
    ] {
        let place = &Place::postgres().await;
        queue_touch(place, 10).await;
        let pooler = Pooler::start(&place.url, mode, lines);
        let url = pooler.url(&place.url);
        let before = settings(&url).await;
        let database = through(&pooler, place);
        let refused = |error: &SqlError| {
            assert!(error.class == ErrorClass::Connection && error.message.contains(words[0]), "{mode}: {error}");
        };
        refused(&database.prepare().await.unwrap_err());
        if code == 2 {
            refused(&database.try_lease(&holder(1)).await.err().expect("no lease"));
            refused(&database.queue().await.unwrap_err());
            refused(&database.begin("touch", "{}").await.err().expect("no batch"));
        }
        let folder = touching(&place.by_way_of(url.clone()), SETTINGS, "touched = touched + 1");
        for (arguments, expected) in [(&["check"][..], code), (&["run", "--until-done"][..], 1)] {
            let (said, code) = folder.tidegate(arguments).await;
            assert!(code == expected && words.iter().all(|words| said.contains(words)), "{code}: {said}");
        }
        assert_eq!((place.rows(LEASES).await, settings(&url).await), (vec!["0".to_owned()], before), "{mode}, {lines}");
        each_touched_once(place, 10).await.unwrap_err();
    }
}

/// However it chooses among its sessions, and while others use them so that none is free for long: the host keeps nothing in
/// a session, and holds no lock there.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_transaction_mode_is_found_out() {
    for lines in [
        "",
        "default_pool_size = 2",
        "default_pool_size = 3",
        "default_pool_size = 3\nserver_round_robin = 1",
        "ignore_startup_parameters = options",
    ] {
        let place = &Place::postgres().await;
        place.prepared().await.enqueue(&row("a")).await.unwrap();
        let pooler = Pooler::start(&place.url, "transaction", lines);
        let mut application = JoinSet::new();
        for number in 0..6 {
            let client = connect(&pooler.url(&place.url)).await;
            application.spawn(async move {
                loop {
                    // Each as often as no other.
                    client.simple_query(&format!("select pg_sleep(0.000{})", 5 + number % 5)).await.unwrap();
                }
            });
        }
        for _ in 0..10 {
            let database = through(&pooler, place);
            let LeaseAttempt::Held(lease) = database.try_lease(&holder(1)).await.unwrap() else { panic!("taken") };
            let LeaseAttempt::Taken(_) = through(&pooler, place).try_lease(&holder(2)).await.unwrap() else {
                panic!("a lease that was taken twice")
            };
            begin(&*database, "a", "{}").await.rollback().await.unwrap();
            assert_eq!(place.rows(LEASES).await, ["0"], "a lock stands in a session of others: {lines}");
            lease.release().await;
            database.close().await;
        }
        application.shutdown().await;
    }
}

/// Another client of the same sessions, who sets them to whatever leads astray, transaction after transaction.
pub struct Neighbour {
    task: tokio::task::JoinHandle<()>,
}

impl Neighbour {
    pub async fn move_in(url: &str) -> Self {
        let client = connect(url).await;
        let task = tokio::spawn(async move {
            for turn in 0.. {
                let set = [
                    "set search_path = elsewhere",
                    "set role pg_monitor",
                    "set statement_timeout = 40",
                    "set default_transaction_read_only = on",
                    "set default_transaction_isolation = 'serializable'",
                    "set session_replication_role = replica",
                    "set row_security = on; set timezone = 'Pacific/Apia'; set datestyle = 'SQL, DMY'",
                    "set standard_conforming_strings = off; set bytea_output = 'escape'; set extra_float_digits = -5",
                    "create temp table if not exists items (id bigint, touched int); \
                     create temp table if not exists background_updates (update_name text, progress_json text); \
                     create temp table if not exists t (id bigint, n int); create temp table if not exists u (id bigint)",
                    "set lock_timeout = 1; set idle_in_transaction_session_timeout = 60",
                    "prepare s0 as select 1; prepare s1 as select 2",
                    "set enable_indexscan = off; set client_min_messages = error; set work_mem = '64kB'",
                ][turn % 12];
                // What is not allowed in the state that one of before has brought about is left out.
                let _ = client.simple_query(&format!("begin read write; reset role; {set}; commit")).await;
                let _ = client.simple_query("rollback").await;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        });
        Self { task }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What others have set in the sessions of a pool leads no batch astray, and stays as they have set it.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_others_set_a_host_does_each_row_once() {
    for lines in ["default_pool_size = 2", "default_pool_size = 3\nserver_round_robin = 1", ""] {
        let place = &Place::postgres().await;
        queue_touch(place, FEWER).await;
        // A batch that lasts longer than the neighbour's limits, and a trigger that its settings would keep from running.
        place
            .run(
                "create schema elsewhere; create table elsewhere.items (id bigint primary key, touched int not null); \
                 create table seen (id bigint); \
                 create function note() returns trigger language plpgsql as $$ begin \
                 insert into seen values (new.id); if new.id % 1000 = 0 then perform pg_sleep(0.06); end if; \
                 return new; end $$; \
                 create trigger notes before update on items for each row execute function note()",
            )
            .await;
        let pooler = Pooler::start(&place.url, "transaction", lines);
        let url = pooler.url(&place.url);
        let neighbours = [Neighbour::move_in(&url).await, Neighbour::move_in(&url).await];
        let folder = touching(&place.by_way_of(url.clone()), SETTINGS, "touched = touched + 1");
        let (said, code) = folder.tidegate(&["check"]).await;
        assert_eq!(code, 0, "{said}");
        let mut host = folder.start(&["run", "--until-done"]);
        assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
        drop(neighbours);
        each_touched_once(place, FEWER).await.unwrap();
        assert_eq!(place.rows("select count(*), count(distinct id) from seen").await, [format!("{FEWER}|{FEWER}")]);
    }
}

/// A script's own settings, role and temporary tables end with its transaction; what others have in the session stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_leaves_a_session_of_others_as_it_was() {
    const LOOK: &str = "select current_setting('search_path'), current_setting('work_mem'), current_setting('role'), \
                        current_setting('timezone'), current_setting('statement_timeout'), \
                        (select string_agg(relname, ',') from pg_class where relnamespace = pg_my_temp_schema() and relkind = 'r')";
    let place = &Place::postgres().await;
    place.run("create table done (what text)").await;
    place.prepared().await.enqueue(&row("script")).await.unwrap();
    // Two sessions, both known.
    let pooler = Pooler::start(&place.url, "transaction", "default_pool_size = 2\nserver_round_robin = 1");
    let url = pooler.url(&place.url);
    let (one, other) = (connect(&url).await, connect(&url).await);
    let both = async |sql: &str| {
        let mut said = Vec::new();
        one.batch_execute("begin").await.unwrap();
        other.batch_execute("begin").await.unwrap();
        for client in [&one, &other] {
            let rows = client.simple_query(sql).await.unwrap();
            let row = rows.iter().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|at| row.get(at).unwrap_or("-").to_owned()).collect::<Vec<_>>().join("|"))
                }
                _ => None,
            });
            said.extend(row);
        }
        one.batch_execute("commit").await.unwrap();
        other.batch_execute("commit").await.unwrap();
        said
    };
    both("set search_path = somewhere; set work_mem = '77MB'; set role pg_monitor; create temp table theirs (a int)")
        .await;
    let before = both(LOOK).await;
    assert!(before.iter().all(|said| said.starts_with("somewhere|77MB|pg_monitor|")), "{before:?}");
    let script = "set search_path = pg_catalog; reset work_mem; set timezone = 'Asia/Tokyo'; set role pg_read_all_data; \
                  reset role; create temp table ours (a int); create temp view our_view as select 1 as one; \
                  insert into ours values (1); insert into public.done select 'ours ' || a from ours; \
                  set session authorization default; set statement_timeout = 1234";
    let script = toml::Value::from(script);
    let update = format!("[[update]]\nname = \"script\"\nkind = \"sql\"\nsql = {script}\n");
    let folder = Folder::new(&place.by_way_of(url), "", "", &update);
    let (said, code) = folder.tidegate(&["run", "--until-done"]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(place.rows("select what from done").await, ["ours 1"]);
    assert_eq!(place.rows("select count(*) from background_updates").await, ["0"]);
    assert_eq!(both(LOOK).await, before);
    assert_eq!(both("select count(*) from pg_class where relname like 'our%'").await, ["0", "0"]);
}

/// What no transaction can hold cannot be given what it needs: it is told before anything is built, and what is there counts.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_built_through_no_pooler_in_transaction_mode() {
    let place = &Place::postgres().await;
    make_items(place, 10).await;
    place.prepared().await.enqueue(&row("index")).await.unwrap();
    let pooler = Pooler::start(&place.url, "transaction", "");
    let update = "[[update]]\nname = \"index\"\nkind = \"create-index\"\nindex = \"by_touched\"\n\
                  table = \"items\"\ncolumns = [\"touched\"]\nwhere = \"items.touched > 3\"\n";
    let folder = Folder::new(&place.by_way_of(pooler.url(&place.url)), "max_attempts = 1", "", update);
    const WORDS: &str = "a connection pooler in transaction mode runs that in whatever session is free";
    let (said, code) = folder.tidegate(&["check"]).await;
    assert!(
        code == 2 && said.contains(WORDS) && said.contains("name the server itself in the `url`"),
        "{code}: {said}"
    );
    let (said, code) = folder.tidegate(&["run", "--until-done"]).await;
    assert!(code != 0 && said.contains(WORDS), "{code}: {said}");
    assert_eq!(place.rows("select count(*) from pg_indexes where indexname = 'by_touched'").await, ["0"]);
    place.run("create index by_touched on items (touched) where touched > 3").await;
    let (said, code) = folder.tidegate(&["check"]).await;
    assert_eq!(code, 0, "{said}");
    let (said, code) = folder.tidegate(&["retry", "index"]).await;
    assert_eq!(code, 0, "{said}");
    let (said, code) = folder.tidegate(&["run", "--until-done"]).await;
    assert_eq!(code, 0, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_through_a_pooler_in_transaction_mode_takes_three_trips() {
    let place = Place::postgres().await;
    let pooler = Pooler::start(&place.url, "transaction", "");
    assert_eq!(crate::scheduler::trips::of_touching(&place.by_way_of(pooler.url(&place.url))).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_through_a_pooler_take_turns() {
    for (mode, locks) in [("session", "1"), ("transaction", "0")] {
        let place = &Place::postgres().await;
        queue_touch(place, ROWS).await;
        let pooler = Pooler::start(&place.url, mode, "");
        let folder = touching(&place.by_way_of(pooler.url(&place.url)), SETTINGS, "touched = touched + 1");
        let mut first = folder.start(&["run", "--until-done"]);
        first.says("working on this database", PATIENCE).await;
        let mut second = folder.start(&["run", "--until-done"]);
        second.says("standing by: process", PATIENCE).await;
        moved_on(place, Some("{}")).await;
        assert_eq!(place.rows(LEASES).await, [locks]);
        // The pooler gives a session to others only after it has let go of all.
        first.kill();
        second.says("working on this database", PATIENCE).await;
        assert_eq!(second.end(PATIENCE).await, 0, "{}", second.said());
        each_touched_once(place, ROWS).await.unwrap();
        until("no lease is left", async || place.rows(LEASES).await == ["0"]).await;
    }
}

/// A stop in good order leaves no lease in a session that stays open.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_given_back_to_a_pooler() {
    // Without a reset between two clients it is only the host who can.
    let place = &Place::postgres().await;
    let pooler = Pooler::start(&place.url, "session", "server_reset_query =");
    let database = through(&pooler, place);
    database.prepare().await.unwrap();
    database.enqueue(&row("a")).await.unwrap();
    let LeaseAttempt::Held(lease) = database.try_lease(&holder(1)).await.unwrap() else { panic!("taken") };
    begin(&*database, "a", "{}").await.commit(None).await.unwrap();
    assert_eq!(place.rows(LEASES).await, ["1"]);
    lease.release().await;
    assert_eq!(place.rows(LEASES).await, ["0"]);
    database.close().await;
}

/// The lock stays in a session that was not reset: whoever is given that session next does not take it to be his own.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_somebody_left_behind_is_nobodys() {
    let place = &Place::postgres().await;
    let pooler = Pooler::start(&place.url, "session", "server_reset_query =\ndefault_pool_size = 5");
    let database = through(&pooler, place);
    database.prepare().await.unwrap();
    let LeaseAttempt::Held(lease) = database.try_lease(&holder(1)).await.unwrap() else { panic!("taken") };
    drop(lease);
    database.close().await;
    until("the session is free", async || {
        let idle = "select count(*) from pg_stat_activity where state = 'active' and datname = current_database()";
        place.rows(idle).await == ["1"]
    })
    .await;
    for _ in 0..5 {
        let next = through(&pooler, place);
        match next.try_lease(&holder(2)).await {
            Ok(LeaseAttempt::Taken(_)) => {}
            Ok(LeaseAttempt::Held(_)) => panic!("a lease that was taken twice"),
            Err(error) => assert!(error.message.contains("the lease's session holds the lease already"), "{error}"),
        }
        next.close().await;
    }
}

/// Were a pooler not found out, a lease would still be taken once, and given back, or not be had.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_was_not_found_out_gives_no_lease_twice() {
    for lines in ["default_pool_size = 1", "", "server_round_robin = 1"] {
        let place = &Place::postgres().await;
        place.prepared().await.enqueue(&row("a")).await.unwrap();
        let pooler = Pooler::start(&place.url, "transaction", lines);
        let trusting = |number| {
            let mut options = Options::new(holder(number));
            options.switches.trust_sessions = true;
            open(&pooler.url(&place.url), options).unwrap()
        };
        let (one, other) = (trusting(1), trusting(2));
        let mut leases = Vec::new();
        for database in [&one, &other, &one, &other] {
            match database.try_lease(&holder(1)).await {
                Ok(LeaseAttempt::Held(lease)) => leases.push(lease),
                // Whatever is met in the sessions of others: what was prepared is not there, or the lease is held there already.
                Ok(LeaseAttempt::Taken(_)) | Err(_) => {}
            }
            assert!(leases.len() < 2, "two leases at once: {lines}");
        }
        for lease in leases {
            assert_eq!(place.rows(LEASES).await, ["1"]);
            lease.release().await;
        }
        assert_eq!(place.rows(LEASES).await, ["0"], "{lines}");
        for database in [one, other] {
            database.close().await;
        }
    }
}
