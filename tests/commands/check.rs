//! `check` holds definitions against the database, and says where in the file they are wrong.

use crate::assert_told;
use crate::support::command::Site;
use crate::support::on_both;
use crate::support::place::Place;

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
"#;

on_both! {
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
        place.run(place.either("pragma journal_mode = wal", "select 1")).await;
        let told = super::site(place).tidegate(&["check"]).await;
        let in_order = "tidegate.toml is in order: 1 database, 0 controllers, 3 updates (3 notes)\n";
        assert_eq!((told.code, told.out.as_str()), (0, in_order), "{}", told.all());
        let none: [String; 0] = [];
        assert_eq!(place.rows(place.either(
            "select name from sqlite_schema where name like '%tidegate%' or name = 'background_updates'",
            "select relname from pg_class where relname like '%tidegate%' or relname = 'background_updates'",
        )).await, none);
    }
}
