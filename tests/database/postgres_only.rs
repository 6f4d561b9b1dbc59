//! What holds for PostgreSQL alone.

use std::time::Duration;

use tidegate::scheduler::database::LeaseAttempt;
use tidegate::update::ErrorClass;
use tidegate::update::sql::{TableName, Value};
use tidegate_database::{Options, open};

use crate::support::place::{Place, begin, holder, row};
use crate::support::until;

fn table(name: &str) -> TableName {
    TableName { schema: None, name: name.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_say_whose_they_are() {
    let place = Place::postgres().await;
    let database = place.prepared().await;
    database.enqueue(&row("a")).await.unwrap();
    let LeaseAttempt::Held(lease) = database.try_lease(&holder(1)).await.unwrap() else { panic!("taken") };
    begin(&*database, "a", "{}").await.rollback().await.unwrap();
    drop(database.session().await.unwrap());
    begin(&*database, "a", "{}").await.rollback().await.unwrap();
    let names = "select regexp_replace(application_name, '[0-9a-f]{8}$', 'KEY') from pg_stat_activity \
                 where datname = current_database() and application_name like 'tidegate/%' order by 1";
    let prefix = "tidegate/machine.example/1";
    let expected = [format!("{prefix}/batch.KEY"), format!("{prefix}/control"), format!("{prefix}/lease.KEY")];
    assert_eq!(place.rows(names).await, expected);
    lease.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_built_concurrently_while_others_poll() {
    let place = Place::postgres().await;
    place.run("create table items as select n from generate_series(1, 5000) n").await;
    let (database, standby) = (place.prepared().await, place.prepared().await);
    let LeaseAttempt::Held(lease) = database.try_lease(&holder(1)).await.unwrap() else { panic!("taken") };
    let mut session = database.session().await.unwrap();
    let build = async {
        session.execute("create index concurrently items_n on items (n)", &[]).await.unwrap();
        session.execute("drop index concurrently items_n", &[]).await.unwrap();
        session.execute("create index concurrently items_n on items (n)", &[]).await.unwrap();
    };
    let poll = async {
        loop {
            assert!(matches!(standby.try_lease(&holder(2)).await.unwrap(), LeaseAttempt::Taken(_)));
            standby.queue().await.unwrap();
            database.queue().await.unwrap();
        }
    };
    tokio::select! {
        built = tokio::time::timeout(Duration::from_secs(60), build) => built.expect("the index is built"),
        () = poll => {}
    }
    lease.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leftover_of_a_failed_build_shows_as_invalid() {
    let place = Place::postgres().await;
    place.run("create table items (n int, x text) ; insert into items values (1), (1)").await;
    let database = place.prepared().await;
    let mut session = database.session().await.unwrap();
    let build = "create unique index concurrently items_n on items (n) include (x)";
    let error = session.execute(build, &[]).await.unwrap_err();
    assert_eq!((error.class, error.code.as_deref()), (ErrorClass::Permanent, Some("23505")));
    let found = session.dialect().describe(session.as_sql(), &table("items")).await.unwrap().unwrap();
    let index = &found.indexes[0];
    assert_eq!((index.valid, index.unique, index.columns.len()), (false, true, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_outlives_changes_to_its_table() {
    let place = Place::postgres().await;
    place.run("create table items as select 1 as n").await;
    let database = place.prepared().await;
    database.enqueue(&row("a")).await.unwrap();
    let all = "select * from items";
    let mut session = database.session().await.unwrap();
    assert_eq!(session.query(all, &[]).await.unwrap()[0].len(), 1);
    place.run("alter table items add column x text").await;
    assert_eq!(session.query(all, &[]).await.unwrap()[0].len(), 2);
    drop(session);
    place.run("alter table items add column y text").await;
    // A transaction cannot be mended, but it can be done again.
    let error = begin(&*database, "a", "{}").await.query(all, &[]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert_eq!(begin(&*database, "a", "{}").await.query(all, &[]).await.unwrap()[0].len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_hands_its_connection_back_as_it_was() {
    let place = Place::postgres().await;
    let database = place.prepared().await;
    database.enqueue(&row("a")).await.unwrap();
    let settings = "select current_setting('lock_timeout'), current_setting('statement_timeout'), \
                    current_setting('client_connection_check_interval'), current_setting('search_path')";
    let texts = |values: &[&str]| -> Vec<Value> { values.iter().map(|text| Value::from(*text)).collect() };
    let usual = texts(&["2s", "1min", "2s", "\"$user\", public"]);
    assert_eq!(begin(&*database, "a", "{}").await.query(settings, &[]).await.unwrap(), std::slice::from_ref(&usual));
    let mut session = database.session().await.unwrap();
    session.script("set search_path = pg_temp").await.unwrap();
    assert_eq!(session.query(settings, &[]).await.unwrap(), [texts(&["0", "0", "2s", "pg_temp"])]);
    drop(session);
    assert_eq!(begin(&*database, "a", "{}").await.query(settings, &[]).await.unwrap(), [usual]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_shot_dropped_ends_on_the_server_too() {
    let place = Place::postgres().await;
    let database = place.prepared().await;
    let mut session = database.session().await.unwrap();
    let cut_short = tokio::time::timeout(Duration::from_millis(200), session.query("select pg_sleep(60)", &[])).await;
    assert!(cut_short.is_err());
    drop(session);
    let running = "select 1 from pg_stat_activity where datname = current_database() and query like 'select pg_sleep%' \
                   and state = 'active'";
    until("it has ended", || async { place.rows(running).await.is_empty() }).await;
    assert_eq!(database.session().await.unwrap().query("select 1", &[]).await.unwrap(), [[Value::Integer(1)]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_cannot_be_read_are_named() {
    let place = Place::postgres().await;
    let mut session = place.open().session().await.unwrap();
    let error = session.query("select now() as seen", &[]).await.unwrap_err();
    assert!(error.message.contains("\"seen\" of the result is of type timestamptz"), "{error}");
    assert!(error.message.contains("\"seen\"::text"), "{error}");
    let row = session.query("select true, 1::int2, 'x'::name, '{\"a\":1}'::jsonb, 1.5::float4", &[]).await.unwrap();
    let expected =
        [Value::Integer(1), Value::Integer(1), Value::from("x"), Value::from("{\"a\": 1}"), Value::Real(1.5)];
    assert_eq!(row, [expected]);
    let error = session.query("select $1::text", &[Value::from("a\0b")]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Permanent);
    let error = session.query("select $1::int2", &[Value::Integer(40_000)]).await.unwrap_err();
    assert_eq!(error.code.as_deref(), Some("22003"));
}

#[tokio::test(flavor = "multi_thread")]
async fn estimates_for_other_keys_come_from_statistics() {
    let place = Place::postgres().await;
    place
        .run(
            "create table walk as select lpad(n::text, 6, '0') as k from generate_series(1, 20000) n; \
              create table fresh (k text)",
        )
        .await;
    let database = place.open();
    let mut session = database.session().await.unwrap();
    let dialect = session.dialect();
    let walk = table("walk");
    let key = dialect.describe(session.as_sql(), &walk).await.unwrap().unwrap().columns;
    let after = ["005000".to_owned()];
    assert_eq!(dialect.estimate(session.as_sql(), &walk, &key, Some(&after)).await.unwrap(), None);
    place.run("analyze walk").await;
    let found = dialect.estimate(session.as_sql(), &walk, &key, Some(&after)).await.unwrap().unwrap();
    assert!((found.done - 0.25).abs() < 0.05 && found.rows == 20_000.0, "{found:?}");
    let found = dialect.estimate(session.as_sql(), &walk, &key, None).await.unwrap().unwrap();
    assert_eq!((found.done, found.rows), (0.0, 20_000.0));
    let fresh = table("fresh");
    assert_eq!(dialect.estimate(session.as_sql(), &fresh, &key, None).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_rights_to_create_can_use_what_is_there() {
    let place = Place::postgres().await;
    place.prepared().await.enqueue(&row("a")).await.unwrap();
    let name = place.rows("select 'worker_of_' || current_database()").await.remove(0);
    place
        .run(&format!(
            "create role {name} login; grant select, insert, update, delete on all tables in schema public to {name}"
        ))
        .await;
    let url = place.url.replace("postgres@", &format!("{name}@"));
    let database = open(&url, Options::new(holder(1))).unwrap();
    database.prepare().await.unwrap();
    begin(&*database, "a", "{}").await.commit(None).await.unwrap();
    let LeaseAttempt::Held(lease) = database.try_lease(&holder(1)).await.unwrap() else { panic!("taken") };
    lease.release().await;
    let other = open(&url, Options { queue_table: "not_there".to_owned(), ..Options::new(holder(1)) }).unwrap();
    assert_eq!(other.prepare().await.unwrap_err().code.as_deref(), Some("42501"));
}

#[test]
fn urls_that_make_no_sense_are_explained() {
    let cases = [
        ("postgres://me:secret@host/db?sslmode=maybe", "sslmode \"maybe\" is not one of"),
        (
            "postgres://me:secret@host/db?sslmode=verify-full&sslrootcert=/no/such/file",
            "\"/no/such/file\" cannot be read",
        ),
        ("postgres://me:secret@host/db?sslcert=x", "\"sslcert\" is not supported"),
        ("postgres://me:secret@host/db?colour=red", "colour"),
        ("postgres://me:secret@host:port/db", "port"),
        ("postgres:///db?user=me&password=secret", "names no host"),
    ];
    for (url, part) in cases {
        let error = open(url, Options::new(holder(1))).err().expect(url).to_string();
        assert!(error.contains(part), "{url}: {error}");
        assert!(!error.contains("secret"), "{url}: {error}");
    }
}

/// Directly, and through a pooler that refuses such options when a session begins.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_looks_after_its_end_of_a_connection() {
    let place = Place::postgres().await;
    let pooler = crate::support::pgbouncer::Pooler::start(&place.url, "session", "");
    for url in [place.url.clone(), pooler.url(&place.url)] {
        let database = place.by_way_of(url).open();
        let mut session = database.inspect().await.unwrap();
        let set = "select current_setting('tcp_user_timeout'), current_setting('tcp_keepalives_idle'), \
                   current_setting('tcp_keepalives_interval'), current_setting('tcp_keepalives_count'), \
                   current_setting('client_connection_check_interval')";
        let row = session.query(set, &[]).await.unwrap().remove(0);
        let texts: Vec<&str> = row.iter().filter_map(|value| value.as_text()).collect();
        assert_eq!(texts, ["15000", "10", "3", "3", "2s"]);
        drop(session);
        database.close().await;
    }
}
