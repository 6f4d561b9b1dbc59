//! `try`: what it shows is what then happens, and nothing of it stays.

mod estimates;
mod manners;
mod matrix;
mod schemas;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tidegate::update::sql::System;

use crate::support::command::{Site, Told};
use crate::support::place::Place;

/// A configuration with one update, `x`.
fn site(place: &Place, definition: &str) -> Site {
    let url = &place.url;
    Site::new(&format!(
        "[background_updates]\nsleep_enabled = false\nmax_attempts = 1\npoll_interval_ms = 50\n\n[[database]]\nname = \
         \"app\"\nurl = \"{url}\"\n\n[[update]]\nname = \"x\"\n{definition}\n"
    ))
}

/// Tries `x`, and reads what is told of it.
async fn tried(site: &Site, arguments: &[&str]) -> Value {
    let told = site.tidegate(&[&["try", "x", "--json"], arguments].concat()).await;
    assert_eq!(told.code, 0, "{}", told.all());
    let report: Value = serde_json::from_str(&told.out).unwrap();
    report["tried"][0].clone()
}

/// Does `x` to its end.
async fn done(site: &Site) {
    let queued = site.tidegate(&["enqueue", "x"]).await;
    assert_eq!(queued.code, 0, "{}", queued.all());
    let Told { code, out, err } = site.tidegate(&["run", "--until-done"]).await;
    assert_eq!(code, 0, "{out}{err}");
}

/// All rows of all tables, those of the queue and of tidegate's own left out: by table the versions of its rows. Told by SQL
/// that owes nothing to the program.
async fn dump(place: &Place) -> BTreeMap<String, BTreeSet<String>> {
    let own = |name: &str| name.starts_with("tidegate_") || name == "background_updates";
    let names = place.either(
        "select name from pragma_table_list where schema = 'main' and type in ('table', 'virtual') \
         and name not like 'sqlite_%'",
        "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema') order by 1",
    );
    let mut dump = BTreeMap::new();
    for name in place.rows(names).await.into_iter().filter(|name| !own(name)) {
        let rows = match place.system() {
            // A version of a row is told from the next by its place and by who wrote it.
            System::Postgres => format!("select ctid::text, xmin::text, r::text from only {name} r"),
            System::Sqlite => format!("select * from \"{name}\""),
        };
        let rows = place.rows(&rows).await.into_iter().collect();
        dump.insert(name, rows);
    }
    dump
}

/// Everything that the catalogue knows of.
async fn catalogue(place: &Place) -> Vec<String> {
    place
        .rows(place.either(
            "select type, name, tbl_name, sql from sqlite_schema order by 1, 2",
            "select c.oid::text, c.relname, c.relkind::text, c.relhastriggers::text from pg_class c \
             join pg_namespace n on n.oid = c.relnamespace \
             where n.nspname not in ('pg_catalog', 'information_schema') order by 1",
        ))
        .await
}
