//! `check --plan`: what it finds, what it shows, and that it changes nothing.

use std::collections::BTreeSet;

use serde_json::Value;
use tidegate::update::sql::System;

use crate::assert_told;
use crate::support::command::Site;
use crate::support::on_both;
use crate::support::place::Place;

/// What the planner reckons differs between versions and machines.
const MASKS: &[(&str, &str)] = &[(r"\(cost=[^)]*\)", "(cost)"), (r"_test_\d+", "_[database]")];

/// Definitions in order, of each kind: (update, its keys).
const SOUND: [(&str, &str); 11] = [
    ("fill", "kind = 'backfill'\ntable = 't01'\nkey = 'id'\nset = 'body = lower(body)'"),
    (
        "fill_some",
        "kind = 'backfill'\ntable = 't02'\nkey = ['room', 'n']\nwhere = 'body IS NULL'\nset = 'body = (SELECT max(o.body) FROM t30 o WHERE o.id = t02.n)'",
    ),
    ("prune", "kind = 'delete'\ntable = 't06'\nkey = 'id'\nwhere = 'n > 1000'"),
    (
        "copies",
        "kind = 'copy'\ntable = 't04'\nkey = 'room'\ninto = 't29'\non_conflict = 'ignore'\ncolumns = { id = 'id + 1000', room = \"'copy of ' || room\", n = 'n' }",
    ),
    (
        "batches",
        "kind = 'batch'\ntable = 't05'\nkey = 'id'\nsql = 'UPDATE t05 SET n = (SELECT count(*) FROM t04 o WHERE o.n < t05.n) WHERE :range; DELETE FROM t28 WHERE id > :upto AND id < :upto + :batch_size'",
    ),
    (
        "index",
        "kind = 'create-index'\ntable = 't08'\nindex = 'lower_body'\nexpressions = ['lower(body) DESC']\nunique = true\nwhere = 'n > 3'\nreplaces = 't08_by_body'",
    ),
    (
        "index_that_is_there",
        "kind = 'create-index'\ntable = 't03'\nindex = 't03_by_body'\ncolumns = ['body']\nwhere = 'n > 5'",
    ),
    ("validates", "kind = 'validate-constraint'\ntable = 't18'\nconstraint = 'n_small'"),
    (
        "validates_and_deletes",
        "kind = 'validate-constraint-and-delete'\ntable = 't19'\nconstraint = 'n_small'\nunique_columns = 'id'",
    ),
    ("script", "kind = 'sql'\nsql = \"UPDATE t20 SET body = 'x' WHERE id = 1; DROP TABLE t21\""),
    ("gone", "kind = 'noop'"),
];

/// Definitions with a fault each, and a part of what is to be said of it.
const FAULTY: [(&str, &str, &str); 8] = [
    ("unknown_table", "kind = 'validate-constraint'\ntable = 't31'\nconstraint = 'x'", "there is no table \"t31\""),
    (
        "unknown_column",
        "kind = 'copy'\ntable = 't09'\nkey = 'id'\ninto = 't29'\ncolumns = { id = 'id', rom = 'room' }",
        "table \"t29\" has no column \"rom\"",
    ),
    (
        "key_may_be_null",
        "kind = 'batch'\ntable = 't10'\nkey = 'body'\nsql = 'DELETE FROM t10 WHERE :range'",
        "\"body\" may be NULL",
    ),
    (
        "key_not_indexed",
        "kind = 'delete'\ntable = 't11'\nkey = 'n'\nwhere = 'n = 1'",
        "no index of table \"t11\" gives its rows in the order of the key (n)",
    ),
    ("does_not_prepare", "kind = 'sql'\nsql = 'UPDATE t12 SET bodi = room'", "bodi"),
    (
        "other_index",
        "kind = 'create-index'\ntable = 't13'\nindex = 't13_by_body'\ncolumns = ['body']\nwhere = 'n > 5'",
        "different index \"t13_by_body\"",
    ),
    ("name_taken", "kind = 'create-index'\ntable = 't14'\nindex = 't15'\ncolumns = ['body']", "a table bears it"),
    (
        "reads_too_much",
        "kind = 'backfill'\ntable = 't16'\nkey = 'id'\nset = 'n = (SELECT count(*) FROM t30 o WHERE o.n = t16.n)'",
        "t30\", which has more than",
    ),
];

/// The fault that only one of the systems can have.
const OF_SQLITE: (&str, &str, &str) = (
    "by_another_index",
    "kind = 'delete'\ntable = 't17'\nkey = 'id'\nwhere = 'n = 1'",
    "by index \"t17_by_n\", not by the range of its key",
);
const OF_POSTGRES: (&str, &str, &str) =
    ("no_right", "kind = 'backfill'\ntable = 't17'\nkey = 'id'\nset = 'n = 1'", "lacks UPDATE on table \"t17\"");

/// Faults of the queue itself.
const OF_THE_QUEUE: [(&str, &str); 3] = [
    ("nobody_defines_this", "nothing defines it"),
    ("prune", "depends on \"pruned\", which is neither queued nor defined"),
    ("fill", "in a dependency cycle: fill -> fill_some -> fill"),
];

/// What the kinds that validate are about.
const CONSTRAINT: &str = ", constraint n_small check (n < 100)";

fn definition((name, keys): (&str, &str)) -> String {
    format!("[[update]]\nname = '{name}'\n{keys}\n\n")
}

/// 30 tables, 20 definitions, 12 faults; and the url to look at them by.
async fn plant(place: &Place) -> Site {
    let of_system = if place.system() == System::Sqlite { OF_SQLITE } else { OF_POSTGRES };
    let faulty: Vec<_> = FAULTY.into_iter().chain([of_system]).map(|(name, keys, _)| (name, keys)).collect();
    let definitions: Vec<_> = SOUND.into_iter().chain(faulty).collect();
    assert_eq!(definitions.len(), 20);
    let (begin, url) = role(place).await;
    let tables = (1..=30).map(|number| {
        // SQLite has constraints from the beginning alone, and PostgreSQL knows those to be valid.
        let constraint = if (18..=19).contains(&number) { place.either(CONSTRAINT, "") } else { "" };
        format!(
            "create table t{number:02} (id integer not null primary key, room text not null unique, n integer not null, \
             body text, unique (room, n) {constraint});
             {numbers} insert into t{number:02} select g, 'room ' || g, g % 7, 'Body' from numbers;",
            numbers = numbers(if number == 30 { 10_500 } else { 300 }),
        )
    });
    let indexes = "create index t03_by_body on t03 (body) where n > 5; create index t10_by_body on t10 (body);
         create index t08_by_body on t08 (body);
         create index t13_by_body on t13 (body) where n > 6; create index t17_by_n on t17 (n);";
    let constraints = place.either(
        "",
        "alter table t18 add constraint n_small check (n < 100) not valid;
         alter table t19 add constraint n_small check (n < 100) not valid",
    );
    let journal = place.either("pragma journal_mode = wal;", "");
    place.run(&format!("{journal} {begin} {} {indexes} {constraints}", tables.collect::<String>())).await;
    place.run(place.either("select 1", "analyze")).await;
    let sections: String = definitions.iter().copied().map(definition).collect();
    let site = Site::new(&format!("[[database]]\nurl = \"{url}\"\n\n{sections}"));
    let names: Vec<&str> = ["enqueue"].into_iter().chain(definitions.iter().map(|(name, _)| *name)).collect();
    let queued = site.tidegate(&names).await;
    assert_eq!(queued.code, 0, "{}", queued.all());
    place
        .run(
            "insert into background_updates (update_name, progress_json) values ('nobody_defines_this', '{}');
             update background_updates set depends_on = 'pruned' where update_name = 'prune';
             update background_updates set depends_on = 'fill' where update_name = 'fill_some';
             update background_updates set depends_on = 'fill_some' where update_name = 'fill';",
        )
        .await;
    if place.system() == System::Postgres {
        let host = place.rows("select tableowner from pg_tables where tablename = 't17'").await.remove(0);
        place.run(&format!("alter table t17 owner to postgres; grant select, delete on t17 to {host}")).await;
    }
    site
}

/// A role of the test's own, on PostgreSQL: the script that becomes it, and the url by which it connects.
async fn role(place: &Place) -> (String, String) {
    if place.system() == System::Sqlite {
        return (String::new(), place.url.clone());
    }
    let name = format!("host_of_{}", place.rows("select current_database()").await.remove(0));
    let begin = format!("create role {name} login; grant create on schema public to {name}; set role {name};");
    (begin, place.url.replace("postgres@", &format!("{name}@")))
}

/// What stands before a statement that reads the numbers from 1 to `count`, as `g` from `numbers`.
fn numbers(count: u32) -> String {
    format!("with recursive numbers (g) as (select 1 union all select g + 1 from numbers where g < {count})")
}

const CONSTRAINT_OF_ALL: &str = ", constraint n_small check (n < 10000)";

/// Definitions in order, whose plans are shown.
const PLANNED: [(&str, &str); 14] = [
    ("fill", "kind = 'backfill'\ntable = 'items'\nkey = 'id'\nset = 'body = lower(room)'\nwhere = 'body IS NULL'"),
    ("prune", "kind = 'delete'\ntable = 'items'\nkey = 'id'\nwhere = 'body IS NULL'"),
    ("copies", "kind = 'copy'\ntable = 'items'\nkey = 'id'\ninto = 'archive'\ncolumns = ['id', 'room']"),
    (
        "batches",
        "kind = 'batch'\ntable = 'items'\nkey = 'id'\nsql = 'DELETE FROM archive WHERE id = :upto; CREATE TABLE IF NOT EXISTS made (id integer); INSERT INTO made SELECT id FROM items WHERE :range LIMIT :batch_size'",
    ),
    ("index", "kind = 'create-index'\ntable = 'items'\nindex = 'by_room'\ncolumns = ['room']"),
    (
        "index_instead",
        "kind = 'create-index'\ntable = 'items'\nindex = 'by_body'\ncolumns = ['body']\nreplaces = 'old'",
    ),
    (
        "index_on_postgres",
        "kind = 'create-index'\ntable = 'items'\nindex = 'only'\ncolumns = ['body', 'room']\npostgres_only = true",
    ),
    ("validates", "kind = 'validate-constraint'\ntable = 'checked'\nconstraint = 'n_small'"),
    (
        "validates_and_deletes",
        "kind = 'validate-constraint-and-delete'\ntable = 'checked'\nconstraint = 'n_small'\nunique_columns = 'id'",
    ),
    (
        "validates_half_way",
        "kind = 'validate-constraint-and-delete'\ntable = 'checked'\nconstraint = 'n_small'\nunique_columns = 'id'",
    ),
    (
        "script",
        "kind = 'sql'\nsql = \"UPDATE items SET body = 'x' WHERE id = 1; CREATE TABLE later (id integer); INSERT INTO later SELECT id FROM items\"",
    ),
    ("nothing_there", "kind = 'delete'\ntable = 'empty'\nkey = 'id'\nwhere = 'body IS NULL'"),
    ("batches_nothing", "kind = 'batch'\ntable = 'empty'\nkey = 'id'\nsql = 'DELETE FROM empty WHERE :range'"),
    ("gone", "kind = 'noop'"),
];

/// Everything that is in a database and everything that it knows of itself.
async fn dump(place: &Place) -> Vec<String> {
    let (catalogue, names) = match place.system() {
        System::Sqlite => (
            "select type, name, tbl_name, rootpage, sql from sqlite_schema union all \
             select 'version', (select * from pragma_schema_version), (select * from pragma_journal_mode), null, null",
            "select name, 'rowid, *' from sqlite_schema where type = 'table'",
        ),
        System::Postgres => (
            "select c.oid, c.xmin, relname, relkind, relowner, relfilenode, relacl, pg_get_indexdef(c.oid) from pg_class c \
             where relnamespace = 'public'::regnamespace",
            "select tablename, 'xmin, *' from pg_tables where schemaname = 'public'",
        ),
    };
    let mut all = place.rows(catalogue).await;
    for table in place.rows(names).await {
        let (name, columns) = table.split_once('|').unwrap();
        all.extend(place.rows(&format!("select '{name}', {columns} from {name}")).await);
    }
    all.sort();
    all
}

/// The findings of a report, as (severity, update, message).
fn findings(report: &Value) -> Vec<(String, String, String)> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let found = report["findings"].as_array().unwrap().iter();
    found.map(|finding| (text(finding, "severity"), text(finding, "update"), text(finding, "message"))).collect()
}

on_both! {
    async fn twelve_planted_faults_are_found_and_nothing_else(place: Place) {
        let site = plant(place).await;
        let before = dump(place).await;
        assert!(before.len() > 30 * 300, "the dump misses something: {} rows", before.len());
        let json = site.tidegate(&["check", "--plan", "--json"]).await;
        let told = site.tidegate(&["check", "--plan"]).await;
        assert_eq!(dump(place).await, before);

        let report: Value = serde_json::from_str(&json.out).unwrap();
        let of_system = if place.system() == System::Sqlite { OF_SQLITE } else { OF_POSTGRES };
        let planted = FAULTY.into_iter().chain([of_system]).map(|(name, _, message)| (name, message));
        let planted: Vec<(&str, &str)> = planted.chain(OF_THE_QUEUE).collect();
        assert_eq!(planted.len(), 12);
        let found = findings(&report);
        for (name, message) in &planted {
            let hits = found.iter().filter(|(_, update, said)| update == name && said.contains(message)).count();
            assert_eq!(hits, 1, "{name}: {message}\n{}", told.all());
        }
        assert_eq!(found.len(), 12, "{}", told.all());
        for finding in report["findings"].as_array().unwrap() {
            assert!(finding["line"].is_u64() && finding["column"].is_u64() && finding["hint"].is_string(), "{finding}");
            assert_eq!((&finding["file"], &finding["database"]), (&"tidegate.toml".into(), &"master".into()));
        }
        assert_eq!((json.code, told.code), (2, 2));
        assert_told!(MASKS, place.either("twelve_sqlite", "twelve_postgres"), told.err);

        // Everything that is in order has a plan; what is not, as far as it can be told, has one too.
        let plans = report["plans"].as_array().unwrap().iter().map(|plan| plan["update"].as_str().unwrap());
        let sound = SOUND.iter().map(|(name, _)| *name).chain(["reads_too_much"]);
        let sound = sound.chain((place.system() == System::Sqlite).then_some(OF_SQLITE.0));
        assert_eq!(plans.collect::<BTreeSet<_>>(), sound.collect());
    }

    async fn a_plan_shows_the_statements_of_a_batch_with_the_range_of_the_key(place: Place) {
        place.run(&format!(
            "create table items (id integer not null primary key, room text not null, body text);
             {numbers} insert into items select g, 'room ' || g, null from numbers;
             create table empty (id integer not null primary key, body text);
             create table archive (id integer not null primary key, room text);
             create index old on items (room, body);
             create table checked (id integer not null primary key, room text, n integer {constraint});
             {numbers} insert into checked select g, 'room', g from numbers; {not_valid}",
            constraint = place.either(CONSTRAINT_OF_ALL, ""),
            not_valid = place.either("", "alter table checked add constraint n_small check (n < 10000) not valid"),
            numbers = numbers(5_000),
        )).await;
        place.run(place.either("pragma journal_mode = wal", "analyze")).await;
        let definitions: String = PLANNED.into_iter().map(definition).collect();
        let settings = "[background_updates]\ndefault_batch_size = 250\n";
        let site = Site::new(&format!("{settings}\n[[database]]\nurl = \"{}\"\n\n{definitions}", place.url));
        let names: Vec<&str> = ["enqueue"].into_iter().chain(PLANNED.iter().map(|(name, _)| *name)).collect();
        assert_eq!(site.tidegate(&names).await.code, 0);
        // Half-way: what is left is planned, and not what was done.
        place.run(r#"update background_updates set progress_json = '{"after": ["2500"], "items": 2500}' where update_name = 'prune'"#).await;
        place.run(
            r#"update background_updates set progress_json = '{"state": "delete", "after": ["1000"], "items": 1000}'
               where update_name = 'validates_half_way'"#,
        ).await;
        let before = dump(place).await;
        let told = site.tidegate(&["check", "--plan"]).await;
        assert_eq!(told.code, 0, "{}", told.all());
        assert_told!(MASKS, place.either("plan_sqlite", "plan_postgres"), told.all());
        let json = site.tidegate(&["check", "--plan", "--json"]).await;
        assert_told!(MASKS, place.either("plan_json_sqlite", "plan_json_postgres"), json.all());
        assert_eq!(dump(place).await, before);
    }
}
