//! The table of all kinds: each on each database, along each type of key, in its first batch, resumed by a handler that
//! knows the progress alone, finished, and failing half-way. What came of it is looked at by SQL of the test's own. The
//! kinds that walk are here, those that do all in one iteration in `one_shots`.

mod one_shots;

use std::sync::Arc;

use tidegate::update::sql::System;
use tidegate::update::{
    Backfill, BackfillDefinition, Batch, BatchDefinition, ConstraintKind, Copy, CopyColumn, CopyDefinition, CopySource,
    Delete, DeleteDefinition, Handler, Next, OnConflict, ValidateAndDelete, ValidateAndDeleteDefinition,
};
use tidegate::update::{Cell as Value, RowFunction, RowOutcome, Transform, TransformDefinition};

use super::subject::{Driven, Subject, UPDATE, table};

/// A type of key: the columns of the primary key with their types, and the key of row `n`, in the order of `n`.
struct Key {
    what: &'static str,
    columns: &'static [(&'static str, &'static str)],
    of_row: fn(u64) -> String,
}

const KEYS: [Key; 3] = [
    Key { what: "integer", columns: &[("id", "integer")], of_row: |n| (n * 3).to_string() },
    Key { what: "text", columns: &[("name", "text")], of_row: |n| format!("'é{n:02}'") },
    Key {
        what: "composite",
        columns: &[("room", "text"), ("at", "integer")],
        of_row: |n| format!("'!{}', {}", n / 4, n % 4),
    },
];

impl Key {
    fn names(&self) -> Vec<String> {
        self.columns.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    fn list(&self) -> String {
        self.names().join(", ")
    }
}

const ROWS: u64 = 10;
const BATCH: u64 = 4;

/// Of `b` in these rows the constraints disapprove.
const BREAKING: [u64; 4] = [2, 6, 7, 10];

/// Makes table `t` of ten rows, and what the kinds write to. `n` numbers the rows; `b` is subject to `constraint`,
/// which has the value `breaking` in the way; the constraint is one that looks at no row that is there.
fn tables(key: &Key, system: System, constraint: &str, breaking: &str) -> String {
    let columns: String = key.columns.iter().map(|(name, kind)| format!("{name} {kind} NOT NULL, ")).collect();
    let (inline, later) = match (system, constraint) {
        (_, "") => (String::new(), String::new()),
        (System::Sqlite, _) => (format!(", CONSTRAINT b_is_right {constraint}"), String::new()),
        (System::Postgres, _) => {
            (String::new(), format!("ALTER TABLE t ADD CONSTRAINT b_is_right {constraint} NOT VALID;"))
        }
    };
    let list = key.list();
    let mut script = String::new();
    if system == System::Sqlite {
        script.push_str("PRAGMA foreign_keys = off; PRAGMA ignore_check_constraints = on;");
    }
    script.push_str(&format!(
        "DROP TABLE IF EXISTS child; DROP TABLE IF EXISTS copied; DROP TABLE IF EXISTS log; DROP TABLE IF EXISTS t;
         DROP TABLE IF EXISTS base; CREATE TABLE base (b integer NOT NULL PRIMARY KEY);
         CREATE TABLE t ({columns}n integer NOT NULL UNIQUE, body text, state text NOT NULL DEFAULT 'good',
             touched integer NOT NULL DEFAULT 0, b integer, PRIMARY KEY ({list}){inline});
         CREATE TABLE child (n integer REFERENCES t (n));
         CREATE TABLE copied ({columns}n integer NOT NULL, body text CHECK (body <> 'BAD'), PRIMARY KEY ({list}));
         CREATE TABLE log (n integer, batch_size integer, first integer);"
    ));
    for n in 1..=ROWS {
        let row = (key.of_row)(n);
        let b = if BREAKING.contains(&n) { breaking.to_owned() } else { n.to_string() };
        script.push_str(&format!(
            "INSERT INTO base VALUES ({n}); INSERT INTO t ({list}, n, body, b) VALUES ({row}, {n}, 'body {n}', {b});"
        ));
    }
    script + &later
}

/// A kind that walks.
struct Walking {
    what: &'static str,
    /// The constraint on `b`, and the value of `b` that breaks it.
    constraint: (&'static str, &'static str),
    /// SQL that is executed before.
    before: &'static str,
    handler: fn(&Key, System) -> Box<dyn Handler>,
    /// What puts a stone in the way of the batch with row 6, and what takes it out.
    stone: (&'static str, &'static str),
    /// What is looked at.
    look: &'static str,
    /// What is seen there when rows up to this have been walked.
    seen: fn(u64) -> Vec<String>,
    /// Iterations without rows of their own before the walk and after it.
    around: (usize, usize),
}

fn columns(key: &Key, others: &[(&str, &str)]) -> Vec<CopyColumn> {
    let same = key.names().into_iter().map(|target| CopyColumn { target, source: CopySource::SameName });
    let others = others.iter().map(|(target, expression)| CopyColumn {
        target: (*target).to_owned(),
        source: CopySource::Expression((*expression).to_owned()),
    });
    same.chain(others).collect()
}

fn copy(key: &Key, on_conflict: OnConflict, filter: Option<&str>) -> Box<dyn Handler> {
    Box::new(Copy::new(CopyDefinition {
        table: table("t"),
        key: key.names(),
        into: table("copied"),
        columns: columns(key, &[("n", "n"), ("body", "upper(body) -- in capitals")]),
        filter: filter.map(str::to_owned),
        on_conflict,
    }))
}

fn batch(key: &Key, system: System, sql: &str) -> Box<dyn Handler> {
    Box::new(Batch::new(BatchDefinition { table: table("t"), key: key.names(), sql: sql.to_owned() }, system))
}

/// Statements that say themselves where the batch is.
fn spelt_out(key: &Key, system: System) -> Box<dyn Handler> {
    let bounds = match key.what {
        "composite" => {
            "(:after_1 IS NULL OR (room, at) > (:after_1, :after_2)) AND (room, at) <= (:upto_1, :upto_2)".to_owned()
        }
        _ => format!("(:after IS NULL OR {0} > :after) AND {0} <= :upto", key.list()),
    };
    let after = if key.what == "composite" { ":after_2" } else { ":after" };
    batch(
        key,
        system,
        &format!(
            "UPDATE t SET touched = touched + 1, state = nullif(state, 'bad') WHERE {bounds};
             INSERT INTO log SELECT n, :batch_size, CASE WHEN {after} IS NULL THEN 1 ELSE 0 END FROM t WHERE {bounds};"
        ),
    )
}

fn validate_and_delete(key: &Key, check: ConstraintKind) -> Box<dyn Handler> {
    Box::new(ValidateAndDelete::new(ValidateAndDeleteDefinition {
        table: table("t"),
        constraint: "b_is_right".to_owned(),
        check: Some(check),
        unique_columns: key.names(),
    }))
}

fn numbers(meets: impl Fn(u64) -> bool) -> Vec<String> {
    (1..=ROWS).filter(|n| meets(*n)).map(|n| n.to_string()).collect()
}

const STATE: (&str, &str) = ("UPDATE t SET state = 'bad' WHERE n = 6", "UPDATE t SET state = 'mended' WHERE n = 6");
const TRIGGER: (&str, &str) = (
    "CREATE TRIGGER stone BEFORE DELETE ON t WHEN old.n = 6 BEGIN SELECT raise(abort, 'a stone'); END",
    "DROP TRIGGER stone",
);
const CHILD: (&str, &str) = ("INSERT INTO child VALUES (6)", "DELETE FROM child");
/// No constraint; `b` is NULL in the rows that others break theirs with.
const NONE: (&str, &str) = ("", "NULL");

fn walking() -> Vec<Walking> {
    let kind = |what, handler| Walking {
        what,
        constraint: NONE,
        before: "",
        handler,
        stone: STATE,
        look: "",
        seen: |_| Vec::new(),
        around: (0, 0),
    };
    let validating = |what, constraint, handler| Walking {
        constraint,
        stone: CHILD,
        look: "SELECT n FROM t ORDER BY n",
        seen: |upto| numbers(|n| n > upto || !BREAKING.contains(&n)),
        around: (1, 1),
        ..kind(what, handler)
    };
    vec![
        Walking {
            look: "SELECT n, touched FROM t WHERE touched <> 0 ORDER BY n",
            seen: |upto| numbers(|n| n <= upto && n % 5 != 0).iter().map(|n| format!("{n}|1")).collect(),
            ..kind("backfill", |key, _| {
                Box::new(Backfill::new(BackfillDefinition {
                    table: table("t"),
                    key: key.names(),
                    set: "touched = touched + 1, state = nullif(state, 'bad')".to_owned(),
                    filter: Some("n % 5 <> 0".to_owned()),
                }))
            })
        },
        Walking {
            look: "SELECT n, touched FROM t WHERE touched <> 0 ORDER BY n",
            seen: |upto| numbers(|n| n <= upto && n % 5 != 0).iter().map(|n| format!("{n}|1")).collect(),
            ..kind("transform", |key, _| {
                let definition = TransformDefinition {
                    table: table("t"),
                    key: key.names(),
                    read: vec!["touched".to_owned(), "state".to_owned()],
                    write: vec!["touched".to_owned()],
                    filter: Some("n % 5 <> 0 -- most".to_owned()),
                    settings: Vec::new(),
                };
                let touch = RowFunction::new("touch", |row: &[Value]| match row {
                    [_, Value::Text(state)] if state == "bad" => RowOutcome::Fail("it is bad".to_owned()),
                    [Value::Integer(touched), _] => RowOutcome::Write(vec![Value::Integer(touched + 1)]),
                    other => panic!("{other:?}"),
                });
                Box::new(Transform::new(definition, Arc::new(touch)))
            })
        },
        Walking {
            stone: CHILD,
            look: "SELECT n FROM t ORDER BY n",
            seen: |upto| numbers(|n| n > upto || n % 2 != 0),
            ..kind("delete", |key, _| {
                Box::new(Delete::new(DeleteDefinition {
                    table: table("t"),
                    key: key.names(),
                    filter: "n % 2 = 0".to_owned(),
                }))
            })
        },
        Walking {
            stone: ("UPDATE t SET body = 'bad' WHERE n = 6", "UPDATE t SET body = 'body 6' WHERE n = 6"),
            look: "SELECT n, body FROM copied ORDER BY n",
            seen: |upto| numbers(|n| n <= upto).iter().map(|n| format!("{n}|BODY {n}")).collect(),
            ..kind("copy", |key, _| copy(key, OnConflict::Error, None))
        },
        Walking {
            before: "INSERT INTO copied SELECT KEY, n, 'here before' FROM t WHERE n IN (3, 6)",
            // Beside the row that is ignored: that one stays what it was, whatever comes of the batch.
            stone: ("UPDATE t SET body = 'bad' WHERE n = 7", "UPDATE t SET body = 'body 7' WHERE n = 7"),
            look: "SELECT n, body FROM copied ORDER BY n",
            seen: |upto| {
                let before = |n: u64| n == 3 || n == 6;
                let body = |n: u64| if before(n) { "here before".to_owned() } else { format!("BODY {n}") };
                (1..=ROWS)
                    .filter(|n| before(*n) || (*n <= upto && n % 5 != 0))
                    .map(|n| format!("{n}|{}", body(n)))
                    .collect()
            },
            ..kind("copy, ignoring what is there", |key, _| copy(key, OnConflict::Ignore, Some("n % 5 <> 0")))
        },
        Walking {
            look: "SELECT t.n, touched, batch_size FROM t JOIN log ON log.n = t.n ORDER BY t.n",
            seen: |upto| numbers(|n| n <= upto).iter().map(|n| format!("{n}|1|{BATCH}")).collect(),
            ..kind("batch", |key, system| {
                batch(
                    key,
                    system,
                    "UPDATE t SET touched = touched + 1, state = nullif(state, 'bad') WHERE :range AND body <> ':range';
                     INSERT INTO log (n, batch_size) SELECT n, :batch_size FROM t WHERE :range",
                )
            })
        },
        Walking {
            look: "SELECT t.n, touched, batch_size, first FROM t JOIN log ON log.n = t.n ORDER BY t.n",
            seen: |upto| {
                let first = |n| u64::from(n <= BATCH);
                (1..=upto).map(|n| format!("{n}|1|{BATCH}|{}", first(n))).collect()
            },
            ..kind("batch, spelt out", spelt_out)
        },
        validating("validate and delete, not null", ("CHECK (b IS NOT NULL)", "NULL"), |key, _| {
            validate_and_delete(key, ConstraintKind::NotNull)
        }),
        validating("validate and delete, foreign key", ("FOREIGN KEY (b) REFERENCES base (b)", "500"), |key, _| {
            validate_and_delete(key, ConstraintKind::ForeignKey)
        }),
        validating("validate and delete, check", ("CHECK (b < 100 -- few\n)", "100"), |key, _| {
            validate_and_delete(key, ConstraintKind::Check)
        }),
    ]
}

/// A run of one cell of the table.
struct Cell<'a> {
    subject: &'a Subject,
    key: &'a Key,
    kind: &'a Walking,
    driven: Driven,
}

impl Cell<'_> {
    async fn prepare(&self) {
        let (subject, kind) = (self.subject, self.kind);
        subject.script(&tables(self.key, subject.system, kind.constraint.0, kind.constraint.1)).await;
        subject.script(&self.sql(kind.before)).await;
        subject.database.cancel(&[UPDATE.to_owned()]).await.unwrap();
        subject.enqueue().await;
        let handler = (kind.handler)(self.key, subject.system);
        assert_eq!(subject.problems(&*handler).await, "", "{}", self.name());
    }

    /// What puts the stone in the way, and what takes it out.
    fn stone(&self) -> (String, String) {
        // SQLite counts what breaks foreign keys before and after a statement: a row that goes and broke one itself
        // makes up for a row that refers to it.
        let (put, take) = match (self.subject.system, self.kind.what) {
            (System::Sqlite, "validate and delete, foreign key") => TRIGGER,
            _ => self.kind.stone,
        };
        (self.sql(put), self.sql(take))
    }

    fn sql(&self, sql: &str) -> String {
        sql.replace("KEY", &self.key.list())
    }

    fn name(&self) -> String {
        format!("{}, {} key, {}", self.kind.what, self.key.what, self.subject.system)
    }

    /// One iteration by a handler that knows nothing of those before.
    async fn iteration(&mut self) -> Result<Option<Next>, String> {
        let handler = (self.kind.handler)(self.key, self.subject.system);
        let done = self.subject.batch(&*handler, BATCH, &mut self.driven).await;
        done.map_err(|error| error.to_string())
    }

    async fn iterations(&mut self, count: usize) {
        for _ in 0..count {
            self.iteration().await.unwrap_or_else(|error| panic!("{}: {error}", self.name()));
        }
    }

    async fn assert_seen(&self, upto: u64, when: &str) {
        let seen = self.subject.rows(&self.sql(self.kind.look)).await;
        assert_eq!(seen, (self.kind.seen)(upto), "{}, {when}", self.name());
    }
}

#[tokio::test]
async fn each_kind_that_walks_does_each_row_once() {
    for subject in Subject::each().await {
        for key in &KEYS {
            for kind in &walking() {
                let mut cell = Cell { subject: &subject, key, kind, driven: Driven::default() };
                cell.prepare().await;
                cell.iterations(kind.around.0).await;
                cell.assert_seen(0, "before the first batch").await;
                cell.iterations(1).await;
                cell.assert_seen(4, "after the first batch").await;
                cell.iterations(1).await;
                cell.assert_seen(8, "resumed").await;
                cell.iterations(1).await;
                cell.assert_seen(10, "after the last batch").await;
                cell.iterations(kind.around.1).await;
                assert_eq!(subject.progress().await, None, "{} is not finished", cell.name());
                let walked = &cell.driven.items[kind.around.0..kind.around.0 + 3];
                assert_eq!(walked, [4, 4, 2], "{}", cell.name());
                cell.assert_seen(10, "finished").await;
            }
        }
    }
}

#[tokio::test]
async fn each_kind_that_walks_fails_half_way_and_goes_on_from_there() {
    for subject in Subject::each().await {
        for key in &KEYS {
            for kind in &walking() {
                let mut cell = Cell { subject: &subject, key, kind, driven: Driven::default() };
                cell.prepare().await;
                let (put, take) = cell.stone();
                subject.script(&put).await;
                cell.iterations(kind.around.0 + 1).await;
                let progress = subject.progress().await;
                for _ in 0..2 {
                    cell.iteration().await.expect_err(&cell.name());
                    assert_eq!(subject.progress().await, progress, "{}", cell.name());
                    cell.assert_seen(4, "after a batch that failed").await;
                }
                subject.script(&take).await;
                cell.iterations(2 + kind.around.1).await;
                assert_eq!(subject.progress().await, None, "{} is not finished", cell.name());
                cell.assert_seen(10, "finished").await;
            }
        }
    }
}
