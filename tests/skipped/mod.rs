//! Rows that the database refuses: each is left behind and named, and all others are done. Which they are is known to SQL of
//! the tests' own.

mod crash;
mod matrix;
mod refused;
mod tried;
mod verified;

use crate::support::command::{Site, Told};
use crate::support::place::Place;

/// Settings under which batches are small, and follow each other at once.
const SETTINGS: &str = "[background_updates]\nsleep_enabled = false\npoll_interval_ms = 50\nmax_attempts = 1\n\
                        background_update_duration_ms = 20\n";

/// A folder with these updates on a database.
fn site(place: &Place, updates: &str) -> Site {
    Site::new(&format!("{SETTINGS}[[database]]\nurl = \"{}\"\n{updates}", place.url))
}

/// A backfill of `items` that skips.
fn fill(set: &str, more: &str) -> String {
    format!(
        "[[update]]\nname = \"fill\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = {}\non_error = \"skip\"\n{more}\n",
        toml::Value::from(set)
    )
}

/// A table of so many items, of which every `nth` cannot be filled.
async fn items(place: &Place, rows: u32, nth: u32) {
    let numbers = place.either(
        "with recursive n(id) as (select 1 union all select id + 1 from n where id < ROWS) select id from n",
        "select id from generate_series(1, ROWS) as id",
    );
    let numbers = numbers.replace("ROWS", &rows.to_string());
    place
        .run(&format!(
            "create table items (id bigint primary key not null, a int not null, b int, n int not null default 0, \
             check (b is null or b > 0)); \
             insert into items (id, a) select id, case when id % {nth} = 3 then -1 else 1 end from ({numbers}) as numbers"
        ))
        .await;
}

/// What a command tells that has to succeed.
async fn does(site: &Site, arguments: &[&str]) -> Told {
    let told = site.tidegate(arguments).await;
    assert_eq!(told.code, 0, "{arguments:?}: {}", told.all());
    told
}

/// Queues `fill` and runs it to its end.
async fn fills(site: &Site) -> Told {
    does(site, &["enqueue", "fill"]).await;
    does(site, &["run", "--until-done"]).await
}

/// The keys that are named, in order.
async fn named(place: &Place, update: &str) -> Vec<String> {
    place.rows(&format!("select key from tidegate_skipped where update_name = '{update}' order by key")).await
}
