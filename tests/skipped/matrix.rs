//! Each kind that walks, along keys of several types, with bad rows that a seed chooses.

use super::{does, named, site};
use crate::support::on_both;
use crate::support::place::Place;

/// The columns of a key, their values by a number `n`, and the key's text as it is named, by the columns.
struct Key {
    columns: &'static [(&'static str, &'static str, &'static str)],
}

const KEYS: [Key; 4] = [
    Key { columns: &[("id", "bigint", "n")] },
    Key { columns: &[("kind", "text", "'k \"' || (n % 7)"), ("id", "bigint", "n")] },
    Key { columns: &[("uid", "UUID", "substr(HEX, 1, 8) || '-0000-4000-8000-' || substr(HEX, 1, 12)")] },
    Key { columns: &[("Odd Name", "text", "'é' || n"), ("at", "bigint", "-n")] },
];

/// What each kind does to rows, by its definition, and which rows it has done.
const KINDS: [(&str, &str, &str); 4] = [
    ("backfill", "set = 'b = a, n = n + 1'", "b = a and n = 1"),
    ("delete", "where = 'a <> 0'", "false"),
    ("copy", "into = 'others'\ncolumns = ['num', 'a']", "num in (select num from others)"),
    ("batch", "sql = 'update items set b = a, n = n + 1 where :range'", "b = a and n = 1"),
];

const ROWS: u32 = 1_200;

on_both! {
    async fn what_is_bad_is_named_and_all_else_is_done(place: Place) {
        let mut seed = 0x5eed_u64;
        for key in &KEYS {
            for (kind, what, done) in KINDS {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                one(place, key, (kind, what, done), seed >> 40).await;
            }
        }
    }
}

async fn one(place: &Place, key: &Key, (kind, what, done): (&str, &str, &str), seed: u64) {
    let about = format!("{kind} along {:?}, seed {seed}", key.columns);
    let quoted: Vec<String> = key.columns.iter().map(|(name, ..)| format!("\"{name}\"")).collect();
    let types = key.columns.iter().map(|(name, kind, _)| {
        let kind = if *kind == "UUID" { place.either("text", "uuid") } else { kind };
        format!("\"{name}\" {kind} not null")
    });
    let types: Vec<String> = types.collect();
    let hex = place.either("printf('%012x', n * 7919)", "lpad(to_hex(n * 7919), 12, '0')");
    let values = key.columns.iter().map(|(_, kind, value)| {
        let value = value.replace("HEX", hex);
        if *kind == "UUID" { format!("cast({value} as {})", place.either("text", "uuid")) } else { value }
    });
    let values: Vec<String> = values.collect();
    let numbers = place.either(
        "with recursive n(n) as (select 1 union all select n + 1 from n where n < ROWS) select n from n",
        "select n from generate_series(1, ROWS) as n",
    );
    let numbers = numbers.replace("ROWS", &ROWS.to_string());
    let (quoted, types, values) = (quoted.join(", "), types.join(", "), values.join(", "));
    // Bad rows come alone, and several in a row.
    let is_bad = format!("((n * 7919 + {seed}) % 97 = 0 or (n + {seed}) % 400 < 3)");
    place
        .run(&format!(
            "drop table if exists refers; drop table if exists others; drop table if exists items; \
             create table items ({types}, num int not null unique, a int not null, b int, n int not null default 0, \
             check (b is null or b > 0), primary key ({quoted})); \
             create table others (num int primary key, a int check (a > 0)); \
             create table refers (num int not null references items (num)); \
             insert into items ({quoted}, num, a) select {values}, n, case when {is_bad} then -1 else 1 end from ({numbers}) as x; \
             insert into refers select num from items where a < 0"
        ))
        .await;
    let columns: Vec<String> = key.columns.iter().map(|(name, ..)| format!("\"{name}\"")).collect();
    let update = format!(
        "[[update]]\nname = \"work\"\nkind = \"{kind}\"\ntable = \"items\"\nkey = [{}]\n{what}\non_error = \"skip\"\nmax_skipped = \"50%\"\n",
        columns.join(", ")
    );
    let site = site(place, &update);
    does(&site, &["enqueue", "work"]).await;
    does(&site, &["run", "--until-done"]).await;
    let wanted = |place: &Place| {
        let texts: Vec<String> = key.columns.iter().map(|(name, ..)| format!("cast(\"{name}\" as text)")).collect();
        match place.system() {
            tidegate::update::sql::System::Sqlite => format!("json_array({})", texts.join(", ")),
            tidegate::update::sql::System::Postgres => format!("array_to_json(array[{}])", texts.join(", ")),
        }
    };
    let mut bad = place.rows(&format!("select {} from items where a < 0", wanted(place))).await;
    bad.sort();
    assert!(!bad.is_empty(), "{about}");
    let mut found = named(place, "work").await;
    found.sort();
    assert_eq!(found, bad, "{about}");
    let undone = format!(
        "select (select count(*) from items where a > 0 and not ({done})), (select count(*) from items where a < 0 and ({done}))"
    );
    assert_eq!(place.rows(&undone).await, ["0|0"], "{about}");

    // Mended, they are done, once, and nothing else is.
    place.run("delete from refers; update items set a = 2 where a < 0").await;
    does(&site, &["retry", "work", "--skipped"]).await;
    does(&site, &["run", "--until-done"]).await;
    assert_eq!(named(place, "work").await, Vec::<String>::new(), "{about}");
    let undone = format!("select count(*) from items where not ({done})");
    assert_eq!(place.rows(&undone).await, ["0"], "{about}");
    if kind == "copy" {
        assert_eq!(
            place.rows("select count(*), count(distinct num) from others").await,
            [format!("{ROWS}|{ROWS}")],
            "{about}"
        );
    }
}
