//! The schemas of SQLite.

use super::*;

const SQLITE_TRIGGER: &str =
    "CREATE TRIGGER {c1} BEFORE INSERT ON {t} WHEN NEW.{tag} % 100 = 14 BEGIN SELECT WHAT; END;
    CREATE TRIGGER {c2} BEFORE UPDATE OF {touched} ON {t} WHEN NEW.{tag} % 100 = 14 BEGIN SELECT WHAT; END;
    CREATE TRIGGER {f} BEFORE DELETE ON {t} WHEN OLD.{tag} % 100 = 14 BEGIN SELECT WHAT; END;";

pub(super) fn on_sqlite() -> Vec<Schema> {
    let leak = |text: String| -> &'static str { text.leak() };
    let trigger = |what: &str| leak(SQLITE_TRIGGER.replace("WHAT", what));
    let generated = |name, how: &str| Schema {
        name,
        table: leak(format!(
            "CREATE TABLE {{t}} ({{columns}}, doubled integer GENERATED ALWAYS AS ({{n}} * 2) {how}, PRIMARY KEY ({{id}}){{constraint}})"
        )),
        sound: Some("SELECT {tag} FROM {t} WHERE doubled <> {n} * 2"),
        ..PLAIN
    };
    vec![
        PLAIN,
        QUOTED,
        Schema {
            name: "rowid",
            id: Some("rowid"),
            key: &["rowid"],
            table: "CREATE TABLE {t} ({others}{constraint})",
            target: Some("CREATE TABLE {t} ({others}, UNIQUE ({tag}))"),
            ..PLAIN
        },
        Schema {
            name: "strict",
            table: "CREATE TABLE {t} ({columns}, PRIMARY KEY ({id}){constraint}) STRICT",
            ..PLAIN
        },
        Schema {
            name: "strict-any-key",
            table: "CREATE TABLE {t} ({columns}, PRIMARY KEY ({id}){constraint}) STRICT",
            late: false,
            expected: |kind| if kind.walks() { Stops("") } else { Right },
            ..keys("", "ANY", |tag| match tag % 4 {
                0 => tag.to_string(),
                1 => format!("x'{tag:06x}'"),
                2 => format!("'{tag}'"),
                _ => format!("{tag}.5"),
            })
        },
        Schema {
            name: "without-rowid",
            table: "CREATE TABLE {t} ({columns}, PRIMARY KEY ({id}){constraint}) WITHOUT ROWID",
            ..PLAIN
        },
        Schema {
            table: "CREATE TABLE {t} ({columns}, PRIMARY KEY ({id}, {tag}){constraint}) STRICT, WITHOUT ROWID",
            ..keys("strict-without-rowid", "text", nasty)
        },
        Schema {
            name: "fts5",
            id: Some("rowid"),
            key: &["rowid"],
            table: "CREATE VIRTUAL TABLE {t} USING fts5 ({tag} UNINDEXED, {n} UNINDEXED, {state}, {touched} UNINDEXED, \
                    {edits} UNINDEXED, {note})",
            expected: |kind| match kind {
                Kind::CopyIgnore => Refused("UPSERT not implemented for virtual table"),
                Kind::CreateIndex => Refused("virtual"),
                Kind::Validate | Kind::ValidateAndDelete => Refused("has no constraint"),
                _ => Right,
            },
            ..PLAIN
        },
        SQLITE_VIEW,
        generated("generated-stored", "STORED"),
        generated("generated-virtual", "VIRTUAL"),
        Schema {
            name: "generated-key",
            value: |tag| (3 * tag).to_string(),
            given: false,
            table: "CREATE TABLE {t} ({id} integer NOT NULL GENERATED ALWAYS AS (3 * {tag}) STORED, {others}, \
                    PRIMARY KEY ({tag}){constraint}); CREATE UNIQUE INDEX {c1} ON {t} ({id})",
            ..PLAIN
        },
        Schema {
            name: "autoincrement",
            table: "CREATE TABLE {t} ({id} INTEGER PRIMARY KEY AUTOINCREMENT, {others}{constraint})",
            ..PLAIN
        },
        Schema {
            name: "trigger-touches",
            table: "CREATE TABLE {t} ({columns}, stamp integer NOT NULL DEFAULT 0, PRIMARY KEY ({id}){constraint});
                    CREATE TABLE {p} (tag integer NOT NULL)",
            after: "CREATE TRIGGER {c1} AFTER UPDATE OF {touched}, {edits} ON {t}
                        BEGIN UPDATE {t} SET stamp = stamp + 1 WHERE {id} = NEW.{id}; END;
                    CREATE TRIGGER {c2} AFTER DELETE ON {t} BEGIN INSERT INTO {p} VALUES (OLD.{tag}); END",
            sound: Some(
                "SELECT {tag} FROM {t} WHERE stamp <> {touched} + {edits} UNION ALL SELECT tag FROM start \
                 WHERE tag NOT IN (SELECT {tag} FROM {t}) AND tag NOT IN (SELECT tag FROM {p})",
            ),
            ..PLAIN
        },
        Schema { name: "trigger-skips", after: trigger("RAISE(IGNORE)"), expected: skipped, meant: spared, ..PLAIN },
        Schema {
            name: "trigger-skips-ignored",
            after: trigger("RAISE(IGNORE)"),
            reach: IGNORING,
            expected: skipped_and_ignored,
            meant: spared,
            ..PLAIN
        },
        Schema { name: "trigger-raises", after: trigger("RAISE(ABORT, 'hands off')"), expected: raised, ..PLAIN },
        Schema {
            name: "trigger-moves-key",
            value: |tag| (10 * tag).to_string(),
            after: "CREATE TRIGGER {c1} AFTER UPDATE OF {touched} ON {t}
                    BEGIN UPDATE {t} SET {id} = {id} + 355 WHERE {id} = NEW.{id}; END",
            expected: moved_ahead,
            ..PLAIN
        },
        COMPOSITE,
        NOT_UNIQUE,
        DESCENDING,
        TEXT,
        keys("blob-key", "blob", |tag| if tag == 14 { "x''".to_owned() } else { format!("x'{:08x}'", scattered(tag)) }),
        keys("real-key", "real", |tag| format!("{tag} / 7.0")),
        Schema {
            expected: |kind| if kind.walks() { Stops("not of the type") } else { Right },
            ..keys("real-infinity-key", "real", |tag| match tag {
                14 => "9e999".to_owned(),
                114 => "-9e999".to_owned(),
                _ => format!("{tag} / 7.0"),
            })
        },
        keys("numeric-key", "decimal(10, 3)", |tag| if tag % 6 == 0 { format!("{tag}.25") } else { tag.to_string() }),
        keys("integer-extremes", "integer", |tag| match tag {
            14 => "-9223372036854775808".to_owned(),
            114 => "9223372036854775807".to_owned(),
            _ => (i64::from(tag) * 1_000_000_007).to_string(),
        }),
        Schema {
            expected: |kind| if kind.walks() { Stops("not of the type") } else { Right },
            ..keys("text-key-with-a-blob", "text", |tag| {
                if is_special(tag) { format!("x'{tag:06x}'") } else { format!("'{tag}'") }
            })
        },
        Schema {
            key: &["tag", "id"],
            table: "CREATE TABLE {t} ({columns}, PRIMARY KEY ({tag}, {id}){constraint})",
            expected: |kind| no_walk(kind, "not of the type"),
            ..keys("key-with-a-blob-behind", "text", |tag| {
                if is_special(tag) { format!("x'{tag:06x}'") } else { format!("'{tag}'") }
            })
        },
        Schema {
            expected: |kind| no_walk(kind, "no index of table"),
            table: "CREATE TABLE {t} ({columns}, PRIMARY KEY ({tag}){constraint}); \
                    CREATE UNIQUE INDEX {c1} ON {t} ({id} COLLATE NOCASE)",
            ..keys("index-of-another-collation", "text", |tag| format!("'k{tag}'"))
        },
        Schema {
            late: false,
            ..keys("nocase-key", "text COLLATE NOCASE", |tag| {
                if tag % 4 == 0 { format!("'Key{tag}'") } else { format!("'kEY{tag}'") }
            })
        },
        Schema {
            expected: |kind| no_walk(kind, "may be NULL"),
            table: "CREATE TABLE {t} ({id} integer, {others}{constraint}); CREATE UNIQUE INDEX {c1} ON {t} ({id})",
            ..keys("key-that-may-be-null", "integer", number)
        },
    ]
}
