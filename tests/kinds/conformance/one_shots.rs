//! The kinds that do all in one iteration.

use tidegate::update::sql::System;
use tidegate::update::{
    CreateIndex, CreateIndexDefinition, Handler, IndexParts, Next, Noop, Script, ScriptDefinition, ValidateConstraint,
    ValidateConstraintDefinition,
};

use super::super::subject::{Driven, Subject, names, table};
use super::{BATCH, KEYS, Key, NONE, ROWS, STATE, tables};

/// Nothing that can go wrong.
const NO_STONE: (&str, &str) = ("", "");

/// Of no constraint there is nothing to break.
const NO_ROW: &str = "1 = 0";

/// A kind that does all in one iteration.
struct OneShot {
    what: &'static str,
    constraint: (&'static str, &'static str),
    handler: fn(&Key, System) -> Box<dyn Handler>,
    /// What makes it fail, and what mends that.
    stone: (&'static str, &'static str),
    /// What is looked at on SQLite, and on PostgreSQL.
    look: (&'static str, &'static str),
    /// What is seen before, and after; the key's columns in the place of KEY.
    seen: (&'static str, &'static str),
    /// The rows that break the constraint, as a condition.
    breaking: &'static str,
}

fn validate(_: &Key, _: System) -> Box<dyn Handler> {
    let (table, constraint) = (table("t"), "b_is_right".to_owned());
    Box::new(ValidateConstraint::new(ValidateConstraintDefinition { table, constraint }))
}

/// SQLite marks no constraint as valid: there are the rows to look at, and nothing else.
const VALIDATED: (&str, &str) = ("", "SELECT convalidated::text FROM pg_constraint WHERE conname = 'b_is_right'");

fn index(index: &str, columns: Vec<String>, unique: bool, system: System) -> Box<dyn Handler> {
    let definition = CreateIndexDefinition {
        table: table("t"),
        index: index.to_owned(),
        parts: IndexParts::Columns(columns),
        unique,
        filter: None,
        replaces: None,
        postgres_only: false,
    };
    Box::new(CreateIndex::new(definition, system))
}

fn one_shots() -> Vec<OneShot> {
    let validating = |what, constraint, breaking, stone| OneShot {
        what,
        constraint,
        handler: validate,
        stone,
        look: VALIDATED,
        seen: ("false", "true"),
        breaking,
    };
    vec![
        OneShot {
            what: "create-index",
            constraint: NONE,
            handler: |key, system| index("of_key", [key.names(), names(&["body"])].concat(), false, system),
            stone: ("CREATE TABLE of_key (a integer)", "DROP TABLE of_key"),
            look: (
                "SELECT group_concat(name, ', ') FROM (SELECT name FROM pragma_index_info('of_key') ORDER BY seqno)",
                "SELECT string_agg(a.attname::text, ', ' ORDER BY a.attnum) FROM pg_attribute a
                 JOIN pg_index i ON i.indexrelid = a.attrelid JOIN pg_class c ON c.oid = i.indexrelid
                 WHERE c.relname = 'of_key' AND i.indisvalid",
            ),
            seen: ("", "KEY, body"),
            breaking: NO_ROW,
        },
        OneShot {
            what: "create-index, unique",
            constraint: NONE,
            handler: |_, system| index("of_body", names(&["body"]), true, system),
            stone: ("UPDATE t SET body = 'twice' WHERE n IN (6, 7)", "UPDATE t SET body = 'once' WHERE n = 6"),
            look: (
                "SELECT count(*) FROM sqlite_schema WHERE name = 'of_body'",
                "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                 WHERE c.relname = 'of_body' AND i.indisvalid",
            ),
            seen: ("0", "1"),
            breaking: NO_ROW,
        },
        OneShot {
            what: "sql",
            constraint: NONE,
            handler: |_, system| {
                let sql = "INSERT INTO log (n) VALUES (1); -- half of it; and now
                    UPDATE t SET touched = touched + 1, state = nullif(state, 'bad');
                    INSERT INTO log (n) SELECT touched FROM t WHERE body <> ';' AND n = 1;";
                Box::new(Script::new(ScriptDefinition { sql: sql.to_owned() }, system))
            },
            stone: STATE,
            look: (
                "SELECT count(*) || ',' || coalesce(sum(n), 0) FROM log",
                "SELECT count(*) || ',' || coalesce(sum(n), 0) FROM log",
            ),
            seen: ("0,0", "2,2"),
            breaking: NO_ROW,
        },
        validating(
            "validate-constraint, not null",
            ("CHECK (b IS NOT NULL)", "1"),
            "b IS NULL",
            ("UPDATE t SET b = NULL WHERE n = 6", "UPDATE t SET b = 1 WHERE n = 6"),
        ),
        validating(
            "validate-constraint, foreign key",
            ("FOREIGN KEY (b) REFERENCES base (b)", "NULL"),
            "b NOT IN (SELECT base.b FROM base)",
            ("UPDATE t SET b = 500 WHERE n = 6", "UPDATE t SET b = NULL WHERE n = 6"),
        ),
        validating(
            "validate-constraint, check",
            ("CHECK (b < 100)", "NULL"),
            "b >= 100",
            ("UPDATE t SET b = 100 WHERE n = 6", "UPDATE t SET b = 99 WHERE n = 6"),
        ),
        OneShot {
            what: "noop",
            constraint: NONE,
            handler: |_, _| Box::new(Noop),
            stone: NO_STONE,
            look: ("SELECT count(*) FROM t WHERE touched = 0", "SELECT count(*) FROM t WHERE touched = 0"),
            seen: ("10", "10"),
            breaking: NO_ROW,
        },
    ]
}

impl OneShot {
    /// Looks at what came of it, and at the rows: none may be gone, and so many break the constraint.
    async fn assert_seen(&self, subject: &Subject, key: &Key, seen: &str, broken: u64, when: &str) {
        let look = if subject.system == System::Sqlite { self.look.0 } else { self.look.1 };
        if !look.is_empty() {
            assert_eq!(subject.value(look).await, seen.replace("KEY", &key.list()), "{when}");
        }
        let rows = format!("SELECT count(*), count(CASE WHEN {} THEN 1 END) FROM t", self.breaking);
        assert_eq!(subject.rows(&rows).await, [format!("{ROWS}|{broken}")], "{when}");
    }

    /// The stone, on its way past a constraint that would refuse it.
    fn stone(&self, system: System) -> String {
        let stone = self.stone.0;
        match (system, self.constraint) {
            (_, NONE) => stone.to_owned(),
            (System::Sqlite, _) => format!("PRAGMA foreign_keys = off; PRAGMA ignore_check_constraints = on; {stone}"),
            (System::Postgres, (constraint, _)) => format!(
                "ALTER TABLE t DROP CONSTRAINT b_is_right; {stone};
                 ALTER TABLE t ADD CONSTRAINT b_is_right {constraint} NOT VALID"
            ),
        }
    }
}

#[tokio::test]
async fn each_kind_of_one_iteration_is_done_and_may_be_done_again() {
    for subject in Subject::each().await {
        for key in &KEYS {
            for kind in &one_shots() {
                let name = format!("{}, {} key, {}", kind.what, key.what, subject.system);
                subject.script(&tables(key, subject.system, kind.constraint.0, kind.constraint.1)).await;
                let handler = (kind.handler)(key, subject.system);
                assert_eq!(subject.problems(&*handler).await, "", "{name}");
                kind.assert_seen(&subject, key, kind.seen.0, 0, &format!("{name} before")).await;
                subject.drive(&*handler, BATCH).await.unwrap_or_else(|error| panic!("{name}: {error}"));
                kind.assert_seen(&subject, key, kind.seen.1, 0, &format!("{name} after")).await;
                if kind.what != "sql" {
                    subject.drive(&*handler, BATCH).await.unwrap_or_else(|error| panic!("{name} again: {error}"));
                    kind.assert_seen(&subject, key, kind.seen.1, 0, &format!("{name} again")).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn each_kind_of_one_iteration_that_fails_leaves_nothing_behind() {
    for subject in Subject::each().await {
        for key in &KEYS {
            for kind in one_shots().iter().filter(|kind| kind.stone != NO_STONE) {
                let name = format!("{}, {} key, {}", kind.what, key.what, subject.system);
                subject.script(&tables(key, subject.system, kind.constraint.0, kind.constraint.1)).await;
                subject.script(&kind.stone(subject.system)).await;
                subject.enqueue().await;
                let handler = (kind.handler)(key, subject.system);
                for _ in 0..2 {
                    subject.batch(&*handler, BATCH, &mut Driven::default()).await.expect_err(&name);
                    assert_eq!(subject.progress().await.as_deref(), Some("{}"), "{name}");
                    let broken = u64::from(kind.constraint != NONE);
                    kind.assert_seen(&subject, key, kind.seen.0, broken, &format!("{name} after it failed")).await;
                }
                subject.script(kind.stone.1).await;
                let next = subject.batch(&*handler, BATCH, &mut Driven::default()).await;
                assert_eq!(next.unwrap_or_else(|error| panic!("{name}: {error}")), Some(Next::Finished), "{name}");
                kind.assert_seen(&subject, key, kind.seen.1, 0, &format!("{name} after it was mended")).await;
            }
        }
    }
}
