//! Whom a statement reaches: triggers that skip rows, rules, views, policies, tables that inherit.

use std::sync::Arc;

use async_trait::async_trait;
use tidegate::scheduler::database::Begin;
use tidegate::update::sql::{Dialect, Row, Sql, SqlError, System, Value};
use tidegate::update::{
    Backfill, BackfillDefinition, Budget, Copy, CopyColumn, CopyDefinition, CopySource, Delete, DeleteDefinition,
    Handler, OnConflict, OnSkip, Progress, Reach,
};

use super::subject::{Subject, UPDATE, names, table};

fn backfill(name: &str, reach: Reach) -> Backfill {
    let set = "touched = touched + 1".to_owned();
    Backfill::new(BackfillDefinition { table: table(name), key: names(&["id"]), set, filter: None }).reaching(reach)
}

fn delete(name: &str, filter: &str, reach: Reach) -> Delete {
    let filter = filter.to_owned();
    Delete::new(DeleteDefinition { table: table(name), key: names(&["id"]), filter }).reaching(reach)
}

fn copy(from: &str, into: &str) -> Copy {
    let columns = ["id", "touched"].map(|name| CopyColumn { target: name.to_owned(), source: CopySource::SameName });
    Copy::new(CopyDefinition {
        table: table(from),
        key: names(&["id"]),
        into: table(into),
        columns: columns.to_vec(),
        filter: None,
        on_conflict: OnConflict::Error,
    })
}

const IGNORE: Reach = Reach { only: false, row_security: false, on_skip: OnSkip::Ignore };

/// Tables `t` with the keys 1 to 10, and `u` without rows.
async fn tables(subject: &Subject) {
    subject
        .script(
            "CREATE TABLE t (id integer primary key, touched integer not null default 0);
             CREATE TABLE u (id integer primary key, touched integer not null default 0)",
        )
        .await;
    for id in 1..=10 {
        subject.script(&format!("INSERT INTO t (id) VALUES ({id})")).await;
    }
}

/// A trigger before each operation on a table that skips the rows 3 and 7.
async fn skip(subject: &Subject, name: &str, operation: &str) {
    let row = if operation == "INSERT" { "NEW" } else { "OLD" };
    subject
        .script(&match subject.system {
            System::Sqlite => format!(
                "CREATE TRIGGER skips BEFORE {operation} ON {name} WHEN {row}.id IN (3, 7) BEGIN SELECT RAISE(IGNORE); END"
            ),
            System::Postgres => format!(
                "CREATE FUNCTION skips() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF {row}.id IN (3, 7) THEN RETURN NULL; END IF; RETURN coalesce(NEW, OLD); END $$;
                 CREATE TRIGGER skips BEFORE {operation} ON {name} FOR EACH ROW EXECUTE FUNCTION skips()"
            ),
        })
        .await;
}

#[tokio::test]
async fn a_row_that_a_trigger_skips_fails_its_batch() {
    for (operation, handler, untouched) in [
        (
            "UPDATE",
            Box::new(backfill("t", Reach::default())) as Box<dyn Handler>,
            "SELECT count(*) FROM t WHERE touched = 0",
        ),
        ("DELETE", Box::new(delete("t", "id > 0", Reach::default())), "SELECT count(*) FROM t"),
        ("INSERT", Box::new(copy("t", "u")), "SELECT 10 - count(*) FROM u"),
    ] {
        for subject in Subject::each().await {
            tables(&subject).await;
            skip(&subject, if operation == "INSERT" { "u" } else { "t" }, operation).await;
            let error = subject.drive(handler.as_ref(), 100).await.unwrap_err().to_string();
            assert!(error.contains("2 of 10 rows"), "{operation} on {}: {error}", subject.system);
            assert_eq!(subject.value(untouched).await, "10", "{operation} on {}", subject.system);
            assert_eq!(subject.progress().await.as_deref(), Some("{}"));
        }
    }
}

#[tokio::test]
async fn a_row_that_a_rule_skips_fails_its_batch() {
    for (handler, changed) in [
        (Box::new(backfill("t", Reach::default())) as Box<dyn Handler>, "SELECT count(*) FROM t WHERE touched > 0"),
        (Box::new(delete("t", "id > 0", Reach::default())), "SELECT 10 - count(*) FROM t"),
    ] {
        let subject = Subject::postgres().await;
        tables(&subject).await;
        subject.enqueue().await;
        let mut driven = super::subject::Driven::default();
        subject.batch(handler.as_ref(), 2, &mut driven).await.unwrap();
        // By now `check` looks no more.
        subject
            .script(
                "CREATE RULE keeps AS ON DELETE TO t WHERE OLD.id = 3 DO INSTEAD NOTHING;
                 CREATE RULE stays AS ON UPDATE TO t WHERE OLD.id = 3 DO INSTEAD NOTHING",
            )
            .await;
        let error = subject.batch(handler.as_ref(), 100, &mut driven).await.unwrap_err().to_string();
        assert!(error.contains("rule of table \"t\" (one of \"keeps\", \"stays\") kept 1 of 8 rows"), "{error}");
        assert_eq!(subject.value(changed).await, "2");
    }
}

/// Rows of somebody else's, which come in as soon as a batch has locked its own.
struct Between<'a> {
    sql: &'a mut dyn Sql,
    subject: &'a Subject,
    rows: &'static str,
}

#[async_trait]
impl Sql for Between<'_> {
    fn dialect(&self) -> Arc<dyn Dialect> {
        self.sql.dialect()
    }

    fn connection(&self) -> Option<u64> {
        self.sql.connection()
    }

    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, SqlError> {
        self.sql.execute(sql, parameters).await
    }

    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, SqlError> {
        let found = self.sql.query(sql, parameters).await;
        if sql.contains("FOR UPDATE") {
            self.subject.script(self.rows).await;
        }
        found
    }

    async fn script(&mut self, sql: &str) -> Result<(), SqlError> {
        self.sql.script(sql).await
    }
}

#[tokio::test]
async fn a_row_that_comes_in_meanwhile_makes_up_for_none_that_a_trigger_skips() {
    let subject = Subject::postgres().await;
    tables(&subject).await;
    subject.script("DELETE FROM t WHERE id IN (5, 6)").await;
    skip(&subject, "t", "UPDATE").await;
    subject.enqueue().await;
    let Begin::Ready(mut transaction) = subject.database.begin(UPDATE, "{}").await.unwrap() else { panic!("it moved") };
    let rows = "INSERT INTO t (id) VALUES (5), (6)";
    let mut sql = Between { sql: transaction.as_sql(), subject: &subject, rows };
    let handler = backfill("t", Reach::default());
    let error = handler.run(&mut sql, &Progress::default(), Budget { items: 100 }).await.unwrap_err().to_string();
    assert!(error.contains("2 of 8 rows"), "{error}");
    transaction.rollback().await.unwrap();
}

#[tokio::test]
async fn a_copy_of_rows_with_one_key_misses_none_that_a_trigger_skips() {
    let subject = Subject::postgres().await;
    tables(&subject).await;
    subject
        .script(
            "CREATE TABLE child (PRIMARY KEY (id)) INHERITS (t); INSERT INTO child SELECT g, 1 FROM generate_series(1, 10) g;
             ALTER TABLE u DROP CONSTRAINT u_pkey;
             CREATE FUNCTION skips() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.id = 3 AND NEW.touched = 1 THEN RETURN NULL; END IF; RETURN NEW; END $$;
             CREATE TRIGGER skips BEFORE INSERT ON u FOR EACH ROW EXECUTE FUNCTION skips()",
        )
        .await;
    let error = subject.drive(&copy("t", "u"), 1).await.unwrap_err().to_string();
    assert!(error.contains("did not take 1 of 2 rows"), "{error}");
    assert_eq!(subject.value("SELECT count(*) FROM u").await, "4");
}

#[tokio::test]
async fn rows_that_a_trigger_may_skip_are_counted() {
    for subject in Subject::each().await {
        tables(&subject).await;
        skip(&subject, "t", "UPDATE").await;
        subject.enqueue().await;
        let handler = backfill("t", IGNORE);
        let mut driven = super::subject::Driven::default();
        subject.batch(&handler, 4, &mut driven).await.unwrap();
        assert!(subject.progress().await.unwrap().contains("\"left_out\":1"), "{:?}", subject.progress().await);
        while subject.batch(&handler, 4, &mut driven).await.unwrap().is_some() {}
        assert_eq!(subject.value("SELECT count(*) FROM t WHERE touched = 1").await, "8", "on {}", subject.system);
    }
}

#[tokio::test]
async fn a_trigger_that_spares_writes_which_change_nothing_skips_no_row() {
    let subject = Subject::postgres().await;
    tables(&subject).await;
    subject
        .script(
            "CREATE TRIGGER spares BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
             CREATE TRIGGER touches BEFORE DELETE ON t FOR EACH STATEMENT EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        )
        .await;
    let set = "touched = 0".to_owned();
    let handler = Backfill::new(BackfillDefinition { table: table("t"), key: names(&["id"]), set, filter: None });
    assert_eq!(subject.drive(&handler, 3).await.unwrap().total(), 10);
}

#[tokio::test]
async fn a_trigger_of_a_partition_alone_is_met_too() {
    let subject = Subject::postgres().await;
    subject
        .script(
            "CREATE TABLE t (id integer primary key, touched integer not null default 0) PARTITION BY RANGE (id);
             CREATE TABLE first PARTITION OF t FOR VALUES FROM (0) TO (6); CREATE TABLE rest PARTITION OF t DEFAULT;
             INSERT INTO t SELECT g FROM generate_series(1, 10) g",
        )
        .await;
    skip(&subject, "rest", "UPDATE").await;
    let error = subject.drive(&backfill("t", Reach::default()), 100).await.unwrap_err().to_string();
    assert!(error.contains("\"skips\"") && error.contains("1 of 10 rows"), "{error}");
}

#[tokio::test]
async fn views_and_what_rules_replace_are_refused_with_a_reason() {
    for subject in Subject::each().await {
        tables(&subject).await;
        subject.script("CREATE VIEW v AS SELECT * FROM t").await;
        for problems in [
            subject.problems(&backfill("v", Reach::default())).await,
            subject.problems(&delete("v", "id > 0", Reach::default())).await,
            subject.problems(&copy("t", "v")).await,
        ] {
            assert!(problems.contains("\"v\" is a view, and an update changes the rows of a table"), "{problems}");
        }
    }
    let subject = Subject::postgres().await;
    tables(&subject).await;
    subject.script("CREATE RULE keeps AS ON DELETE TO t WHERE OLD.id = 3 DO INSTEAD NOTHING").await;
    let problems = subject.problems(&delete("t", "id > 0", Reach::default())).await;
    assert!(
        problems.contains("rule \"keeps\" of table \"t\" puts something else in the place of DELETE"),
        "{problems}"
    );
    assert_eq!(subject.problems(&backfill("t", Reach::default())).await, "", "the rule is for another operation");
}

#[tokio::test]
async fn a_definition_may_ask_for_the_rows_that_policies_let_through() {
    let subject = Subject::postgres().await;
    tables(&subject).await;
    let role = format!("reach_{}", std::process::id());
    subject
        .script(&format!(
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY even ON t USING (id % 2 = 0);
             DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"
        ))
        .await;
    let bound = subject.as_role(&role).await;
    let refused = bound.drive(&backfill("t", Reach::default()), 3).await.unwrap_err().to_string();
    assert!(refused.contains("row-level security policy"), "{refused}");
    assert!(bound.problems(&backfill("t", Reach::default())).await.contains("row_security = true"));
    let asked = backfill("t", Reach { row_security: true, ..Reach::default() });
    assert_eq!(bound.problems(&asked).await, "");
    while bound.batch(&asked, 3, &mut super::subject::Driven::default()).await.unwrap().is_some() {}
    assert_eq!(subject.value("SELECT count(*) FROM t WHERE touched = 1 AND id % 2 = 0").await, "5");
    assert_eq!(subject.value("SELECT count(*) FROM t WHERE touched > 0 AND id % 2 = 1").await, "0");
}

#[tokio::test]
async fn the_right_to_lock_rows_that_a_trigger_may_skip_is_asked_for() {
    let subject = Subject::postgres().await;
    tables(&subject).await;
    let role = format!("holds_{}", std::process::id());
    subject
        .script(&format!(
            "DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}; REVOKE UPDATE ON t FROM {role}"
        ))
        .await;
    let handler = delete("t", "id > 5", Reach::default());
    let bound = subject.as_role(&role).await;
    assert_eq!(bound.problems(&handler).await, "", "without a trigger nothing is locked");
    skip(&subject, "t", "DELETE").await;
    let problems = bound.problems(&handler).await;
    assert!(problems.contains(&format!("role \"{role}\" lacks UPDATE on table \"t\"")), "{problems}");
    subject.script(&format!("GRANT UPDATE ON t TO {role}")).await;
    assert_eq!(bound.problems(&handler).await, "");
}

#[tokio::test]
async fn a_definition_may_ask_for_the_rows_of_the_table_alone() {
    let subject = Subject::postgres().await;
    tables(&subject).await;
    subject
        .script("CREATE TABLE child (primary key (id)) INHERITS (t); INSERT INTO child SELECT g FROM generate_series(11, 20) g")
        .await;
    subject.drive(&backfill("t", Reach { only: true, ..Reach::default() }), 3).await.unwrap();
    assert_eq!(subject.value("SELECT count(*) FROM t WHERE touched = 1").await, "10");
    subject.drive(&backfill("t", Reach::default()), 3).await.unwrap();
    assert_eq!(subject.value("SELECT sum(touched) FROM child").await, "10");
}

#[tokio::test]
async fn a_plan_tells_what_explain_hides() {
    for subject in Subject::each().await {
        tables(&subject).await;
        let trigger = match subject.system {
            System::Sqlite => "CREATE TRIGGER audits AFTER DELETE ON t BEGIN DELETE FROM u WHERE id = OLD.id; END",
            System::Postgres => {
                "CREATE FUNCTION audits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
                 CREATE TRIGGER audits AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION audits()"
            }
        };
        subject
            .script(&format!(
                "{trigger}; CREATE TABLE lines (id integer primary key, t integer references t (id) on delete cascade);
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10001)
                 INSERT INTO lines SELECT i, 1 + i % 10 FROM n"
            ))
            .await;
        let plan = async |handler: &dyn Handler| {
            let mut session = subject.database.inspect().await.unwrap();
            let plan =
                handler.plan(session.as_sql(), &Progress::default(), Budget { items: 100 }).await.unwrap().unwrap();
            plan.warnings.iter().map(|problem| format!("{}\n{}\n", problem.message, problem.hint)).collect::<String>()
        };
        let told = plan(&delete("t", "id > 0", Reach::default())).await;
        assert!(told.contains("the whole of table \"") && told.contains("lines\""), "{told}");
        assert!(told.contains("trigger \"audits\" of table \"t\" runs for each row"), "{told}");
        assert_eq!(plan(&backfill("t", Reach::default())).await, "");
        subject.script("CREATE INDEX lines_t ON lines (t)").await;
        let told = plan(&delete("t", "id > 0", Reach::default())).await;
        assert!(!told.contains("lines"), "{told}");
    }
}

#[tokio::test]
async fn an_index_of_another_collation_does_not_serve_a_walk() {
    let subject = Subject::sqlite().await;
    subject
        .script(
            "CREATE TABLE t (name text not null, touched integer not null default 0);
             CREATE UNIQUE INDEX by_name ON t (name COLLATE NOCASE); INSERT INTO t (name) VALUES ('a'), ('B')",
        )
        .await;
    let set = "touched = 1".to_owned();
    let handler = Backfill::new(BackfillDefinition { table: table("t"), key: names(&["name"]), set, filter: None });
    let problems = subject.problems(&handler).await;
    assert!(problems.contains("no index of table \"t\" gives its rows in the order of the key (name)"), "{problems}");
    subject.script("DROP INDEX by_name; CREATE UNIQUE INDEX by_name ON t (name)").await;
    assert_eq!(subject.problems(&handler).await, "");
}
