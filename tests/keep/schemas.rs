//! Tables of every shape: after each write, whoever made it, all rows are as the update makes them.

use tidegate::update::sql::{System, TableName};
use tidegate::update::{Backfill, BackfillDefinition};

use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::run::Run;

/// A table, an update of it, and what an application writes.
struct Schema {
    name: &'static str,
    of: System,
    make: &'static str,
    table: &'static str,
    key: &'static [&'static str],
    set: &'static str,
    filter: Option<&'static str>,
    writes: &'static [&'static str],
    /// The number of rows that are not as they are to be.
    wrong: &'static str,
}

const ITEMS: &str = "create table items (id int primary key not null, a text, n int, b text); insert into items (id, a, n) values (1, 'one', 1), (2, 'two', 2), (3, null, 3)";
const WRITES: &[&str] = &[
    "insert into items (id, a, n) values (10, 'ten', 1), (11, 'eleven', 2)",
    "update items set a = 'uno' where id = 1",
    "update items set b = 'by hand' where id = 2",
    "insert into items (id, a, n) values (2, 'x', 1) on conflict (id) do update set a = 'due', n = excluded.n",
    "update items set id = 20 where id = 2",
];
const WRONG: &str = "select count(*) from items where b is distinct from upper(a)";

const SCHEMAS: &[Schema] = &[
    Schema {
        name: "plain",
        of: System::Postgres,
        make: ITEMS,
        table: "items",
        key: &["id"],
        set: "b = upper(items.a)",
        filter: None,
        writes: WRITES,
        wrong: WRONG,
    },
    Schema {
        name: "partitioned",
        of: System::Postgres,
        make: "create table items (id int not null, part int not null, a text, b text, primary key (id, part)) partition by range (part); \
               create table items_0 partition of items for values from (0) to (10); create table items_1 (b text, id int not null, a text, part int not null); \
               insert into items_1 (id, a, part) values (7, 'seven', 11); alter table items attach partition items_1 for values from (10) to (20); \
               insert into items values (1, 1, 'one'), (2, 12, 'two')",
        table: "items",
        key: &["id", "part"],
        set: "b = upper(a)",
        filter: None,
        writes: &[
            "insert into items values (10, 1, 'ten'), (11, 12, 'eleven')",
            "insert into items_1 (id, a, part) values (12, 'direct', 13)",
            "update items set part = 15 where id = 1",
            "update items_1 set a = 'other' where id = 12",
            "create table items_2 partition of items for values from (20) to (30); insert into items values (30, 25, 'late')",
            "create table items_3 (like items); alter table items attach partition items_3 for values from (30) to (40); insert into items_3 values (40, 35, 'later')",
        ],
        wrong: WRONG,
    },
    Schema {
        name: "inherited",
        of: System::Postgres,
        make: "create table items (id int primary key not null, a text, n int, b text); create schema other; \
               create table other.child (extra text, primary key (id)) inherits (items); create table grandchild (primary key (id)) inherits (other.child); \
               insert into items (id, a) values (1, 'one'); insert into other.child (id, a) values (2, 'two'); insert into grandchild (id, a) values (3, 'three')",
        table: "items",
        key: &["id"],
        set: "b = upper(items.a)",
        filter: None,
        writes: &[
            "insert into items (id, a) values (10, 'ten')",
            "insert into other.child (id, a, extra) values (11, 'eleven', 'x')",
            "insert into grandchild (id, a) values (12, 'twelve')",
            "update items set a = a || '!'",
            "update grandchild set b = 'by hand'",
        ],
        wrong: WRONG,
    },
    Schema {
        name: "another trigger before",
        of: System::Postgres,
        make: "create table items (id int primary key not null, a text, n int, b text); insert into items (id, a) values (1, 'one'), (2, '  two '); \
               create function trims() returns trigger language plpgsql as 'begin new.a = trim(new.a); return new; end'; \
               create trigger trims before insert or update on items for each row execute function trims()",
        table: "items",
        key: &["id"],
        set: "b = upper(a)",
        filter: None,
        writes: &["insert into items (id, a) values (10, '  ten ')", "update items set a = ' uno ' where id = 1"],
        wrong: WRONG,
    },
    Schema {
        name: "quoted",
        of: System::Postgres,
        make: "create table \"My \"\"Table\" (\"Id\" int primary key not null, \"A b\" text, \"B\" text, found int, tg_op text, tidegate_row text); \
               insert into \"My \"\"Table\" values (1, 'one'), (2, 'two')",
        table: "My \"Table",
        key: &["Id"],
        set: "\"B\" = upper(\"My \"\"Table\".\"A b\") || coalesce(tg_op, '') || coalesce(tidegate_row, '')",
        filter: Some("found is null"),
        writes: &[
            "insert into \"My \"\"Table\" values (3, 'three', 'x', null, 'op', 'row')",
            "update \"My \"\"Table\" set \"A b\" = 'uno' where \"Id\" = 1",
        ],
        wrong: "select count(*) from \"My \"\"Table\" where \"B\" is distinct from upper(\"A b\") || coalesce(tg_op, '') || coalesce(tidegate_row, '')",
    },
    Schema {
        name: "another table",
        of: System::Postgres,
        make: "create table items (id int primary key not null, a text, n int, b text); create table teams (id int primary key, name text); \
               insert into teams values (1, 'red'), (2, 'blue'); insert into items (id, n) values (1, 1), (2, 2), (3, 9)",
        table: "items",
        key: &["id"],
        set: "(b, a) = ((select name from teams where teams.id = items.n), n::text)",
        filter: Some("exists (select 1 from teams where teams.id = items.n)"),
        writes: &[
            "insert into items (id, n) values (10, 1), (11, 9)",
            "update items set n = 1 where id in (2, 3)",
            // An application's temporary table is not the one that is meant.
            "create temporary table teams (id int, name text); insert into teams values (1, 'forged'); insert into items (id, n) values (12, 1)",
            "set search_path = pg_temp; create temporary table teams (id int, name text); insert into public.items (id, n) values (13, 2)",
        ],
        wrong: "select count(*) from items left join public.teams on teams.id = n where teams.id is not null and (b, a) is distinct from (name, n::text)",
    },
    Schema {
        name: "types",
        of: System::Postgres,
        make: "create type mood as enum ('sad', 'happy'); create table items (id int primary key not null, a text, j jsonb, r int[], v varchar(9), m mood, \
               t text, at timestamptz, s numeric(9, 2), ts tsvector); insert into items (id, a, at) values (1, 'one', '2020-01-01 00:30:00Z')",
        table: "items",
        key: &["id"],
        set: "j = '{\"x\": 1}', r = '{}', v = upper(a), m = 'happy', t = to_char(at, 'YYYY-MM-DD HH24') || (at::date), s = id / 3.0, ts = to_tsvector(a)",
        filter: None,
        writes: &[
            "set timezone = 'Asia/Tokyo'; set datestyle = 'German'; set default_text_search_config = 'german'; insert into items (id, a, at) values (2, 'two cats', '2020-01-01 00:30:00Z')",
            "set timezone = 'Asia/Tokyo'; update items set a = 'uno' where id = 1",
        ],
        wrong: "select count(*) from items where (j, r, v, m, t, s, ts) is distinct from ('{\"x\": 1}'::jsonb, '{}'::int[], upper(a)::varchar(9), 'happy'::mood, \
                to_char(at, 'YYYY-MM-DD HH24') || (at::date), round(id / 3.0, 2), to_tsvector(a))",
    },
    Schema {
        name: "a generated column",
        of: System::Postgres,
        make: "create table items (id int primary key not null, a text, n int, b text, g text generated always as (b || '!') stored); insert into items (id, a) values (1, 'one')",
        table: "items",
        key: &["id"],
        set: "b = upper(a)",
        filter: None,
        writes: WRITES,
        wrong: "select count(*) from items where b is distinct from upper(a) or g is distinct from b || '!'",
    },
    Schema {
        name: "COPY FROM",
        of: System::Postgres,
        make: ITEMS,
        table: "items",
        key: &["id"],
        set: "b = upper(a)",
        filter: None,
        writes: &["copy items (id, a) from program 'echo 50 fifty' (delimiter ' ')"],
        wrong: WRONG,
    },
    Schema {
        name: "plain",
        of: System::Sqlite,
        make: ITEMS,
        table: "items",
        key: &["id"],
        set: "b = upper(items.a)",
        filter: None,
        writes: WRITES,
        wrong: WRONG,
    },
    Schema {
        name: "triggers that fire themselves",
        of: System::Sqlite,
        make: ITEMS,
        table: "items",
        key: &["id"],
        set: "a = lower(a)",
        filter: Some("a <> lower(a)"),
        writes: &[
            "pragma recursive_triggers = on; insert into items (id, a) values (10, 'TEN')",
            "pragma recursive_triggers = on; update items set a = 'UNO' where id = 1",
            "pragma recursive_triggers = on; insert or replace into items (id, a) values (10, 'Ten')",
        ],
        wrong: "select count(*) from items where a <> lower(a)",
    },
    Schema {
        name: "WITHOUT ROWID",
        of: System::Sqlite,
        make: "create table items (k text not null, id int not null, a text, b text, primary key (k, id)) without rowid; insert into items values ('x', 1, 'one', null), ('y', 1, 'two', null)",
        table: "items",
        key: &["k", "id"],
        set: "b = upper(a)",
        filter: None,
        writes: &[
            "insert into items values ('x', 2, 'three', null)",
            "update items set k = 'z', a = 'moved' where k = 'y'",
            "insert or replace into items values ('x', 2, 'four', null)",
            "insert or ignore into items values ('x', 3, 'five', null), ('x', 2, 'no', null)",
        ],
        wrong: WRONG,
    },
    Schema {
        name: "STRICT",
        of: System::Sqlite,
        make: "create table items (id integer primary key not null, a any, n int, b text) strict; insert into items (id, a) values (1, 'one'), (2, 2.5)",
        table: "items",
        key: &["id"],
        set: "b = upper(a)",
        filter: None,
        writes: WRITES,
        wrong: WRONG,
    },
    Schema {
        name: "no key but the rowid",
        of: System::Sqlite,
        make: "create table items (id int, a text, n int, b text); insert into items (id, a) values (1, 'one'), (1, 'two')",
        table: "items",
        key: &["rowid"],
        set: "b = upper(a)",
        filter: None,
        writes: &[
            "insert into items (id, a) values (1, 'three'), (null, 'four')",
            "update items set a = a || '!' where id = 1",
        ],
        wrong: WRONG,
    },
    Schema {
        name: "quoted",
        of: System::Sqlite,
        make: "create table \"My \"\"Table\" (\"Id\" integer primary key not null, [A b] text, `B` text); insert into \"My \"\"Table\" values (1, 'one', null)",
        table: "My \"Table",
        key: &["id"],
        set: "\"B\" = upper(\"My \"\"Table\".\"A b\") -- so",
        filter: Some("[A b] <> 'x' -- so"),
        writes: &[
            "insert into \"My \"\"Table\" values (3, 'three', 'x')",
            "update \"My \"\"Table\" set \"A b\" = 'uno' where \"Id\" = 1",
        ],
        wrong: "select count(*) from \"My \"\"Table\" where \"B\" is distinct from upper(\"A b\")",
    },
    Schema {
        name: "values of any type, letters that are the same",
        of: System::Sqlite,
        make: "create table items (id int primary key not null, a text collate nocase, n, b text collate nocase, d); \
               insert into items (id, a, n) values (1, 'one', 1), (2, 'two', 2.5), (3, x'00', '7')",
        table: "items",
        key: &["id"],
        set: "b = upper(a), d = n",
        filter: None,
        writes: &[
            "insert into items (id, a, n) values (10, 'ten', '1'), (11, 'eleven', x'01')",
            "update items set b = lower(a), d = cast(n as text)",
            "update items set n = 3.0 where id = 1",
            "pragma recursive_triggers = on; update items set a = 'drei', n = 4 where id = 3",
        ],
        wrong: "select count(*) from items where b collate binary is distinct from upper(a) or d is distinct from n or typeof(d) <> typeof(n)",
    },
    Schema {
        name: "another trigger after, and a generated column that is read",
        of: System::Sqlite,
        make: "create table items (id int primary key not null, a text, n int, g text generated always as (a || '!') virtual, b text); insert into items (id, a) values (1, 'one'); \
               create trigger trims after insert on items begin update items set a = trim(a) where id = new.id; end; \
               create trigger trims_too after update of a on items begin update items set a = trim(a) where id = new.id; end",
        table: "items",
        key: &["id"],
        set: "b = upper(g)",
        filter: None,
        writes: &["insert into items (id, a) values (10, '  ten ')", "update items set a = ' uno ' where id = 1"],
        wrong: "select count(*) from items where b is distinct from upper(a) || '!'",
    },
];

on_both! {
    async fn whatever_the_table_is_its_rows_are_kept(place: Place) {
        let mut wrong = Vec::new();
        for schema in SCHEMAS.iter().filter(|schema| schema.of == place.system()) {
            let Schema { name, .. } = schema;
            let place = place.another().await;
            place.run(schema.make).await;
            let definition = BackfillDefinition {
                table: TableName::from(schema.table),
                key: schema.key.iter().map(|name| (*name).to_owned()).collect(),
                set: schema.set.to_owned(),
                filter: schema.filter.map(str::to_owned),
            };
            let run = Run::on(&place, &[row("fill")]).await;
            let handler = Backfill::new(definition).kept("fill", false);
            let story = run.define("fill", std::sync::Arc::new(handler)).until_done().await;
            let remaining = story.remaining();
            if !remaining.is_empty() || place.rows(schema.wrong).await != ["0"] {
                wrong.push(format!("{name}: after the update {remaining:?}"));
                continue;
            }
            for write in schema.writes {
                place.run(write).await;
                if place.rows(schema.wrong).await != ["0"] {
                    wrong.push(format!("{name}: after {write}"));
                }
            }
            let rows = schema.wrong.split(" where ").next().unwrap();
            assert_ne!(place.rows(rows).await, ["0"], "{name}");
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
