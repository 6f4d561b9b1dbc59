//! What a database says of its tables, and keys on their way through text.

use tidegate::scheduler::database::Session;
use tidegate::update::sql::{Column, Dialect, Estimate, Index, Sql, Table, TableName, Value};

use crate::support::place::Place;

fn table(name: &str) -> TableName {
    TableName { schema: None, name: name.to_owned() }
}

async fn describe(session: &mut dyn Session, name: &TableName) -> Option<Table> {
    session.dialect().describe(session.as_sql(), name).await.unwrap()
}

async fn estimate(session: &mut dyn Session, name: &str, after: Option<&str>) -> Option<Estimate> {
    let described = describe(session, &table(name)).await.unwrap();
    let after = after.map(|text| vec![text.to_owned()]);
    let dialect = session.dialect();
    dialect.estimate(session.as_sql(), &table(name), &described.columns[..1], after.as_deref()).await.unwrap()
}

fn index<'a>(table: &'a Table, name: &str) -> &'a Index {
    table.indexes.iter().find(|index| index.name == name).unwrap_or_else(|| panic!("{name} in {:?}", table.indexes))
}

fn columns(index: &Index) -> Vec<Option<&str>> {
    index.columns.iter().map(Option::as_deref).collect()
}

crate::support::on_both! {
    async fn tables_are_described(place: Place) {
        place.run(place.either("create table \"It's\" (\"Id\" integer primary key, a varchar(20) not null, b text unique)",
            "create table \"It's\" (\"Id\" bigint primary key, a varchar(20) not null, b text unique)")).await;
        place.run("create index \"by a\" on \"It's\" (a, b); create unique index partly on \"It's\" (lower(a), b) where a > 'x'").await;
        let database = place.prepared().await;
        let mut session = database.session().await.unwrap();
        assert_eq!(describe(&mut *session, &table("it's")).await.is_some(), place.either("yes", "") == "yes");
        assert_eq!(describe(&mut *session, &table("unknown")).await, None);
        let schema = Some(place.either("main", "public").to_owned());
        let qualified = TableName { schema, name: "It's".to_owned() };
        let found = describe(&mut *session, &qualified).await.unwrap();
        assert_eq!(describe(&mut *session, &table("It's")).await.unwrap(), found);
        let collated = |sql_type: &str| match sql_type.contains("int") {
            true => None,
            false => Some(place.either("BINARY", "pg_catalog.\"default\"").to_owned()),
        };
        let column = |name: &str, sql_type: &str, not_null| Column { name: name.into(), sql_type: sql_type.into(), not_null, collation: collated(sql_type) };
        let a_type = place.either("varchar(20)", "character varying(20)");
        let id_type = place.either("INTEGER", "bigint").to_ascii_lowercase();
        let mut lower = found.columns.clone();
        lower[0].sql_type.make_ascii_lowercase();
        lower[2].sql_type.make_ascii_lowercase();
        assert_eq!(lower, [column("Id", &id_type, true), column("a", a_type, true), column("b", "text", false)]);
        assert_eq!(found.indexes.len(), 4);
        let key = found.indexes.iter().find(|index| columns(index) == [Some("Id")]).unwrap();
        assert!(key.unique && key.valid && !key.partial);
        let by_a = index(&found, "by a");
        assert_eq!((columns(by_a), by_a.unique, by_a.partial), (vec![Some("a"), Some("b")], false, false));
        assert!(by_a.definition.as_ref().unwrap().contains("\"by a\""));
        let partly = index(&found, "partly");
        assert_eq!((columns(partly), partly.unique, partly.partial), (vec![None, Some("b")], true, true));
    }

    async fn estimates_come_from_the_range_of_keys(place: Place) {
        place.run("create table walk (id integer primary key, x text); create table none (id integer primary key)").await;
        place.run(place.either(
            "with recursive c(n) as (select 101 union all select n + 1 from c where n < 1100) insert into walk select n, n from c",
            "insert into walk select n, n from generate_series(101, 1100) n",
        )).await;
        let database = place.prepared().await;
        let mut session = database.session().await.unwrap();
        for (after, done) in [(None, 0.0), (Some("100"), 0.0), (Some("350"), 0.25), (Some("1100"), 1.0), (Some("5000"), 1.0)] {
            let found = estimate(&mut *session, "walk", after).await.unwrap();
            assert_eq!((found.done, found.rows), (done, 1000.0), "{after:?}");
        }
        assert_eq!(estimate(&mut *session, "none", Some("5")).await, Some(Estimate { done: 1.0, rows: 0.0 }));
        place.run("delete from walk where id % 2 = 0 and id <> 1100; analyze walk").await;
        let found = estimate(&mut *session, "walk", Some("600")).await.unwrap();
        assert_eq!((found.done, found.rows), (0.5, 501.0));
    }

    async fn keys_survive_the_way_through_text(place: Place) {
        let cases: &[(&str, &str, &[&str])] = &[
            ("bigint", "bigint", &["-9223372036854775808", "-1", "0", "9223372036854775807"]),
            ("text", "text", &["''", "' x'", "'1'", "'1.0'", "'É''\"'", "'é'"]),
            ("real", "double precision", &["-1e300", "0.1", "0.30000000000000004", "123456789.12345679"]),
            ("datetime", "timestamptz", &["'1999-12-31 23:59:59.123456'", "'2024-02-29 12:00:00'"]),
            ("decimal(20, 3)", "numeric(20, 3)", &["-5.125", "7", "12345678.125"]),
            ("blob", "bytea", &[place.either("x''", "''"), place.either("x'00ff'", "'\\x00ff'"), place.either("x'27'", "'\\x27'")]),
            ("varchar(3)", "uuid", &[place.either("'abc'", "'9d9a3b8e-0000-4000-8000-000000000001'")]),
            ("boolean", "boolean", &["false", "true"]),
        ];
        let database = place.prepared().await;
        let mut session = database.session().await.unwrap();
        let dialect = session.dialect();
        for (number, (sqlite, postgres, values)) in cases.iter().enumerate() {
            let name = format!("keys_{number}");
            let create = format!("create table {name} (k {} not null primary key)", place.either(sqlite, postgres));
            session.execute(&create, &[]).await.unwrap();
            for value in *values {
                session.execute(&format!("insert into {name} values ({value})"), &[]).await.unwrap();
            }
            let key = describe(&mut *session, &table(&name)).await.unwrap().columns.remove(0);
            walk(session.as_sql(), &*dialect, &name, &key, values.len()).await;
        }
    }
}

/// Walks a table row by row, each key found by the text of the last.
async fn walk(sql: &mut dyn Sql, dialect: &dyn Dialect, name: &str, key: &Column, rows: usize) {
    let (as_text, from_text) = (dialect.key_as_text("k"), dialect.key_from_text(1, key));
    let first = format!("select {as_text} from {name} order by k limit 1");
    let next = format!("select {as_text} from {name} where k > {from_text} order by k limit 1");
    let same = format!("select count(*) from {name} where k = {from_text}");
    let mut found = sql.query(&first, &[]).await.unwrap();
    for n in 1..=rows {
        let text = found[0][0].clone();
        assert!(text.as_text().is_some(), "{name}: {text:?}");
        let count = sql.query(&same, std::slice::from_ref(&text)).await.unwrap();
        assert_eq!(count, [[Value::Integer(1)]], "{name}: key {n}, {text:?}");
        found = sql.query(&next, &[text]).await.unwrap();
        assert_eq!(found.len(), usize::from(n < rows), "{name}: after key {n}");
    }
}
