//! Users who write while a component has their rows: what they wrote stays, whoever was first.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidegate::update::sql::System;
use tidegate::update::{Cell, Cells, RowOutcome, TransformFault, Transformer};
use tokio::sync::Semaphore;

use super::transform;
use crate::kinds::subject::{Driven, Subject};
use crate::support::until;

/// Capitals, once somebody lets it.
struct Gate {
    entered: Semaphore,
    open: Semaphore,
}

#[async_trait]
impl Transformer for Gate {
    fn identity(&self) -> Result<String, TransformFault> {
        Ok("gate".to_owned())
    }

    async fn transform(&self, rows: Vec<Cells>) -> Result<Vec<RowOutcome>, TransformFault> {
        self.entered.add_permits(1);
        self.open.acquire().await.unwrap().forget();
        let upper = |row: Cells| match row.as_slice() {
            [Cell::Text(text)] => RowOutcome::Write(vec![Cell::Text(text.to_uppercase())]),
            other => panic!("{other:?}"),
        };
        Ok(rows.into_iter().map(upper).collect())
    }
}

async fn arrange(subject: &Subject) -> Arc<Gate> {
    subject.script("CREATE TABLE items (id integer PRIMARY KEY NOT NULL, a text NOT NULL, b text)").await;
    subject.script("INSERT INTO items (id, a) VALUES (1, 'one'), (2, 'two'), (3, 'three')").await;
    subject.enqueue().await;
    Arc::new(Gate { entered: Semaphore::new(0), open: Semaphore::new(0) })
}

/// Whether somebody waits for a lock of the batch's.
async fn is_waiting(subject: &Subject) -> bool {
    let waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    !subject.rows(waits).await.is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_writes_while_the_component_has_the_row_is_not_overwritten() {
    for subject in Subject::each().await {
        let gate = arrange(&subject).await;
        let handler = transform(&["a"], &["b"], &[], gate.clone());
        let subject = Arc::new(subject);
        let host = subject.clone();
        let batch = tokio::spawn(async move { host.batch(&handler, 10, &mut Driven::default()).await.unwrap() });
        gate.entered.acquire().await.unwrap().forget();
        let user = subject.clone();
        let written = tokio::spawn(async move { user.script("UPDATE items SET b = 'mine' WHERE id = 2").await });
        match subject.system {
            System::Postgres => until("the user waits", || is_waiting(&subject)).await,
            // Nothing shows who waits for the file: the user had time to.
            System::Sqlite => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        assert!(!written.is_finished(), "the rows were not locked");
        gate.open.add_permits(1);
        batch.await.unwrap();
        written.await.unwrap();
        assert_eq!(subject.rows("SELECT id, b FROM items ORDER BY id").await, ["1|ONE", "2|mine", "3|THREE"]);
    }
}

/// On SQLite the batch cannot begin before the user has committed; on PostgreSQL it waits for the row, and must see it as it is
/// by then, and not as it was when it began to look.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_wrote_first_is_what_the_component_sees() {
    let subject = Arc::new(Subject::postgres().await);
    let gate = arrange(&subject).await;
    gate.open.add_permits(10);
    let handler = transform(&["a"], &["b"], &[], gate);
    let user = subject.connect().await;
    user.batch_execute("BEGIN; UPDATE items SET a = 'changed' WHERE id = 2; DELETE FROM items WHERE id = 3")
        .await
        .unwrap();
    let host = subject.clone();
    let batch = tokio::spawn(async move { host.batch(&handler, 10, &mut Driven::default()).await.unwrap() });
    until("the batch waits", || is_waiting(&subject)).await;
    user.batch_execute("COMMIT").await.unwrap();
    batch.await.unwrap();
    assert_eq!(subject.rows("SELECT id, a, b FROM items ORDER BY id").await, ["1|one|ONE", "2|changed|CHANGED"]);
}

/// Rows that come to refer to those of a batch are not kept waiting.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_refers_to_one_of_the_batch_waits_for_nothing() {
    let subject = Arc::new(Subject::postgres().await);
    let gate = arrange(&subject).await;
    subject.script("CREATE TABLE parts (item integer REFERENCES items)").await;
    let handler = transform(&["a"], &["b"], &[], gate.clone());
    let host = subject.clone();
    let batch = tokio::spawn(async move { host.batch(&handler, 10, &mut Driven::default()).await.unwrap() });
    gate.entered.acquire().await.unwrap().forget();
    subject.script("SET lock_timeout = '10s'; INSERT INTO parts VALUES (2)").await;
    assert!(!batch.is_finished());
    gate.open.add_permits(1);
    batch.await.unwrap();
}
