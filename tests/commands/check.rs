//! `check` holds definitions against the database, and says where in the file they are wrong.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use tidegate::update::sql::System;

use crate::assert_told;
use crate::support::command::{Site, Told};
use crate::support::on_both;
use crate::support::place::Place;
use crate::support::run::make_items;

const DEFINITIONS: &str = r#"
[[update]]
name = "unknown_table"
kind = "backfill"
table = "mesages"
key = "id"
set = "body = 'a'"

[[update]]
name = "unknown_column"
kind = "delete"
table = "messages"
key = "idd"
where = "room = 'x'"

[[update]]
name = "key_may_be_null"
kind = "delete"
table = "messages"
key = "body"
where = "room = 'x'"

[[update]]
name = "key_not_indexed"
kind = "delete"
table = "messages"
key = "n"
where = "room = 'x'"

[[update]]
name = "sql_that_does_not_prepare"
kind = "backfill"
table = "messages"
key = "id"
set = "bodi = lower(body)"

[[update]]
name = "syntax"
kind = "backfill"
table = "messages"
key = "id"
set = "body = 'a'"
where = "n > "

[[update]]
name = "unknown_placeholder"
kind = "batch"
table = "messages"
key = "id"
sql = "UPDATE messages SET body = :bodie WHERE :range"

[[update]]
name = "unknown_constraint"
kind = "validate-constraint"
table = "messages"
constraint = "body_short"
"#;

on_both! {
    async fn a_definition_whose_update_has_finished_is_no_error_any_more(place: Place) {
        make_items(place, 10).await;
        let touch = "[[update]]\nname = \"touch\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = \"touched = 1\"\n";
        let site = Site::new(&format!("[[database]]\nurl = \"{}\"\n{touch}", place.url));
        assert_eq!(site.tidegate(&["enqueue", "touch"]).await.code, 0);
        assert_eq!(site.tidegate(&["run", "--until-done"]).await.code, 0);
        place.run("drop table items").await;
        let told = site.tidegate(&["check"]).await;
        assert!(told.code == 0 && told.err.contains("it has finished; queued again, it could not run"), "{}", told.all());
        assert!(told.err.contains("items"), "{}", told.all());
        // Queued again, it is wrong again.
        assert_eq!(site.tidegate(&["enqueue", "touch"]).await.code, 0);
        let told = site.tidegate(&["check"]).await;
        assert!(told.code == 2 && !told.err.contains("it has finished"), "{}", told.all());
    }

    async fn what_does_not_fit_is_told_with_its_place_in_the_file(place: Place) {
        place.run("create table messages (id integer not null primary key, room text not null, n integer not null, \
                   body text)").await;
        place.run("create index by_body on messages (body)").await;
        let site = Site::new(&format!("[[database]]\nurl = \"{}\"\n{DEFINITIONS}", place.url));
        let told = site.tidegate(&["check"]).await;
        assert_eq!(told.code, 2);
        assert_told!(&[], place.either("sqlite", "postgres"), told.all());
    }

    async fn what_fits_is_in_order(place: Place) {
        place.run("create table items (id integer not null primary key, touched int not null)").await;
        place.recommended().await;
        let told = super::site(place).tidegate(&["check"]).await;
        let in_order = "tidegate.toml is in order: 1 database, 0 controllers, 3 updates (3 notes)\n";
        assert_eq!((told.code, told.out.as_str()), (0, in_order), "{}", told.all());
        let none: [String; 0] = [];
        assert_eq!(place.rows(place.either(
            "select name from sqlite_schema where name like '%tidegate%' or name = 'background_updates'",
            "select relname from pg_class where relname like '%tidegate%' or relname = 'background_updates'",
        )).await, none);
    }

    async fn a_queue_that_cannot_go_on_is_told(place: Place) {
        make_items(place, 10).await;
        place.recommended().await;
        let site = super::site(place);
        site.tidegate(&["enqueue", "touch_items", "other", "fails"]).await;
        // The third is quarantined by a run.
        site.tidegate(&["run", "--until-done"]).await;
        site.tidegate(&["enqueue", "touch_items", "other"]).await;
        place.run("update background_updates set progress_json = 'not json' where update_name = 'touch_items';
                   update background_updates set progress_json = '{\"min_id\": 7}' where update_name = 'other';
                   insert into background_updates (update_name, progress_json) values ('tuch_items', '{}')").await;
        let told = site.tidegate(&["check"]).await;
        assert_told!(NOT_NULL, "queue", told.all());
    }

    async fn an_index_that_cannot_be_made_is_told(place: Place) {
        place.run("create table t (id integer not null primary key, a text, b text); create view seen as select * from t;
                   create table taken (id integer); create index of_b on t (b); create index of_taken on taken (id)").await;
        place.run(place.either(
            "pragma journal_mode = wal",
            "create table parted (id integer not null primary key, a text) partition by range (id); create sequence number",
        )).await;
        let index = |name: &str, table: &str, keys: &str| {
            let head = format!("[[update]]\nname = \"{name} on {table}, {keys}\"\nkind = 'create-index'\n");
            format!("{head}table = '{table}'\nindex = '{name}'\n{}\n\n", keys.replace("; ", "\n"))
        };
        let mut definitions = [
            index("taken", "t", "columns = ['a']"),
            index("of_taken", "t", "columns = ['a']"),
            index("of_b", "t", "columns = ['b']"),
            index("of_b", "t", "columns = ['b']; unique = true"),
            index("of_b", "t", "columns = ['b']; where = 'b > 1'"),
            index("of_b", "t", "expressions = ['b DESC']"),
            index("new", "t", "expressions = ['lowr(b)']"),
            index("new", "t", "expressions = ['random()']"),
            index("new", "t", "expressions = ['lower(b)', 'a DESC']; unique = true; where = 'a IS NOT NULL'"),
            index("new", "seen", "columns = ['a']"),
        ].concat();
        if place.system() == System::Postgres {
            definitions += &index("new", "parted", "columns = ['a']");
            definitions += &index("number", "t", "columns = ['a']");
        }
        let site = Site::new(&format!("[[database]]\nurl = \"{}\"\n{definitions}", place.url));
        let told = site.tidegate(&["check"]).await;
        let without_notes = without_notes(&told);
        assert_told!(&[], place.either("indexes_sqlite", "indexes_postgres"), without_notes);
    }

    async fn a_batch_that_hides_its_key_from_the_index_reads_the_whole_table(place: Place) {
        make_items(place, 300).await;
        let site = Site::new(&format!(
            "[[database]]\nurl = '{}'\n[[update]]\nname = 'hides'\nkind = 'batch'\ntable = 'items'\nkey = 'id'\n\
             sql = 'DELETE FROM items WHERE (:after IS NULL OR id + 0 > :after) AND id + 0 <= :upto'\n",
            place.url,
        ));
        let told = site.tidegate(&["check", "--plan"]).await.err;
        assert!(told.contains("\"hides\" on database \"master\": each batch reads the whole of table \"items\""), "{told}");
    }

    async fn json_tells_what_is_wrong_with_a_file_too(place: Place) {
        let site = Site::new(&format!("[[database]]\nurl = \"{}\"\nqueue_tabel = 'q'\n", place.url));
        let told = site.tidegate(&["check", "--json"]).await;
        let report: Value = serde_json::from_str(&told.out).unwrap();
        let finding = &report["findings"][0];
        assert_eq!((told.code, &report["version"], &finding["line"]), (2, &1.into(), &3.into()));
        assert_eq!(finding["message"], "unknown key \"queue_tabel\" in [[database]]");
        assert_eq!((&finding["severity"], &report["plans"]), (&"error".into(), &Value::Array(Vec::new())));
    }
}

/// The systems' own words for the same.
const NOT_NULL: &[(&str, &str)] = &[
    (r"NOT NULL constraint failed: items\.touched \(permanent, SQLITE_CONSTRAINT_NOTNULL\)", "[not null]"),
    (r"null value in column .* violates not-null constraint \(permanent, SQLSTATE 23502\)", "[not null]"),
];

/// What is told, but for the notes.
fn without_notes(told: &Told) -> String {
    let mut kept = String::new();
    let mut note = false;
    for line in told.all().lines() {
        note = if line.starts_with("  ") { note } else { line.starts_with("note:") };
        if !note {
            kept.push_str(&format!("{line}\n"));
        }
    }
    kept
}

#[tokio::test]
async fn a_file_or_a_folder_that_can_only_be_read() {
    let site = Site::new("[[database]]\nurl = 'sqlite:data/app.db'\n");
    let folder = site.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("app.db");
    rusqlite::Connection::open(&file).unwrap().execute_batch("create table t (id integer primary key)").unwrap();
    let mut told = Vec::new();
    for (of_folder, of_file) in [(0o777, 0o444), (0o555, 0o666), (0o777, 0o666)] {
        set_permissions(&file, Permissions::from_mode(of_file)).unwrap();
        set_permissions(&folder, Permissions::from_mode(of_folder)).unwrap();
        let check = site.tidegate_without_privileges(&["check"]).await;
        told.push(format!("folder {of_folder:o}, file {of_file:o}\n{}", check.all()));
    }
    assert_told!(&[(r#""[^"]*/data""#, "\"[folder]/data\"")], "read_only_file", told.join("\n\n"));
}

#[tokio::test]
async fn a_role_that_lacks_rights_is_told_which() {
    let place = Place::postgres().await;
    make_items(&place, 10).await;
    let host = format!("poor_{}", place.rows("select current_database()").await.remove(0));
    place
        .run(&format!(
            "create role {host} login; create schema hidden; create table hidden.t (id integer primary key);
                        create table deletable (id integer primary key); grant select on deletable to {host};
                        alter table deletable add constraint small check (id < 100) not valid"
        ))
        .await;
    assert_eq!(super::site(&place).tidegate(&["enqueue", "other"]).await.code, 0);
    place.run(&format!("grant select on background_updates, tidegate_state to {host}")).await;
    let url = place.url.replace("postgres@", &format!("{host}@"));
    let definitions = "
        [[update]]
        name = 'index'
        kind = 'create-index'
        table = 'items'
        index = 'new'
        columns = ['touched']
        [[update]]
        name = 'hidden'
        kind = 'delete'
        schema = 'hidden'
        table = 't'
        key = 'id'
        where = 'id = 1'
        [[update]]
        name = 'delete'
        kind = 'delete'
        table = 'deletable'
        key = 'id'
        where = 'id = 1'
        [[update]]
        name = 'copy'
        kind = 'copy'
        table = 'deletable'
        key = 'id'
        into = 'items'
        columns = ['id']
        [[update]]
        name = 'batch'
        kind = 'batch'
        table = 'deletable'
        key = 'id'
        sql = 'DELETE FROM deletable WHERE :range'
        [[update]]
        name = 'script'
        kind = 'sql'
        sql = 'DELETE FROM deletable'
        [[update]]
        name = 'validate'
        kind = 'validate-constraint'
        table = 'deletable'
        constraint = 'small'
        [[update]]
        name = 'validate and delete'
        kind = 'validate-constraint-and-delete'
        table = 'deletable'
        constraint = 'small'
        unique_columns = 'id'";
    let site = Site::new(&format!("{}{definitions}", super::configuration(&url)));
    let masks = &[(r"poor_test_\d+", "[role]")];
    let lacking = without_notes(&site.tidegate(&["check", "--plan"]).await);
    place.run(&format!("alter role {host} set default_transaction_read_only = on")).await;
    let read_only = without_notes(&site.tidegate(&["check"]).await);
    assert_told!(masks, "rights", format!("{lacking}\n{read_only}"));
}

/// A file whose pages are not what they should be, before a run and once that has put the update aside.
#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_file_is_told_whatever_became_of_its_update() {
    let place = &Place::sqlite();
    make_items(place, 20_000).await;
    place.recommended().await;
    let site = super::site(place);
    assert_eq!(site.tidegate(&["enqueue", "touch_items"]).await.code, 0);
    // What is in the log would be read in place of what is in the file.
    place.run("pragma wal_checkpoint(truncate); pragma journal_mode = delete").await;
    let mut bytes = std::fs::read(place.file()).unwrap();
    let middle = bytes.len() / 8192 * 4096;
    bytes[middle..middle + 4096].fill(0xff);
    std::fs::write(place.file(), bytes).unwrap();
    let told = site.tidegate(&["check"]).await;
    assert!(told.code == 2 && told.err.contains("the file is malformed: "), "{}", told.all());
    assert!(told.err.contains("restore a backup"), "{}", told.all());
    let run = site.tidegate(&["run", "--until-done"]).await;
    assert!(run.code == 3 && run.all().contains("quarantined"), "{}", run.all());
    let told = site.tidegate(&["check"]).await;
    assert!(told.code == 2 && told.err.contains("quarantined after"), "{}", told.all());
    assert_eq!(told.err.matches("the file is malformed: ").count(), 1, "{}", told.all());
}
