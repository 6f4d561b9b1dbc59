//! An update written in Rust: what no SQL does, here the SHA-256 of each message's body, computed in this process.
//!
//! A handler is given a position, a budget and a transaction. All that it remembers from batch to batch is the
//! progress that it returns, which is committed with the rows that it changed.
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::path::Path;

use async_trait::async_trait;
use serde_json::{Map, json};
use sha2::{Digest, Sha256};
use tidegate::controller::BuiltIn;
use tidegate::update::sql::{Sql, Value};
use tidegate::update::{Budget, Handler, Mode, Next, Progress, Step, UpdateError};
use tidegate::{DatabaseSpec, Host};
use tidegate_sqlite::Sqlite;

/// Fills `messages.body_sha256`, walking along `id`. Its progress is `{"id": N}`, the last one done.
struct HashBodies;

impl HashBodies {
    fn last_id(progress: &Progress) -> Result<i64, UpdateError> {
        match progress.0.get("id") {
            None if progress.0.is_empty() => Ok(0),
            Some(id) if progress.0.len() == 1 => id.as_i64().ok_or_else(|| progress.refuse("\"id\" is not a number")),
            // Never a fresh start: somebody else's progress means that this is somebody else's update.
            _ => Err(progress.refuse("it is not {\"id\": N}")),
        }
    }
}

#[async_trait]
impl Handler for HashBodies {
    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        Self::last_id(progress)?;
        Ok(Mode::Batched)
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let mut last = Self::last_id(progress)?;
        let dialect = sql.dialect();
        let (one, two) = (dialect.parameter(1), dialect.parameter(2));
        let limit = i64::try_from(budget.items).unwrap_or(i64::MAX);

        let select = format!("SELECT id, body FROM messages WHERE id > {one} ORDER BY id LIMIT {two}");
        let rows = sql.query(&select, &[Value::Integer(last), Value::Integer(limit)]).await?;
        let update = format!("UPDATE messages SET body_sha256 = {one} WHERE id = {two}");
        for row in &rows {
            let [Value::Integer(id), Value::Text(body)] = row.as_slice() else {
                return Err(UpdateError::Failed(format!("a message that is not an id and a body: {row:?}")));
            };
            sql.execute(&update, &[Value::Text(digest(body)), Value::Integer(*id)]).await?;
            last = *id;
        }

        let items = rows.len() as u64;
        let next = if items < budget.items {
            Next::Finished
        } else {
            Next::Continue(Progress(Map::from_iter([("id".to_owned(), json!(last))])))
        };
        Ok(Step::new(items, next))
    }
}

fn digest(body: &str) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A database with a thousand messages and the update queued, as an application's migration does it.
fn application(path: &Path) -> rusqlite::Result<()> {
    let connection = rusqlite::Connection::open(path)?;
    connection.execute_batch(
        "CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT NOT NULL, body_sha256 TEXT);
         WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000)
         INSERT INTO messages (id, body) SELECT n, 'message ' || n FROM numbers;
         CREATE TABLE background_updates (
             update_name TEXT NOT NULL UNIQUE, progress_json TEXT NOT NULL, depends_on TEXT,
             ordering INT NOT NULL DEFAULT 0
         );
         INSERT INTO background_updates (update_name, progress_json) VALUES ('messages_body_sha256', '{}');",
    )
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("chat.db");
    application(&path)?;

    let database = DatabaseSpec::new("master", Sqlite::at(&path))
        .update("messages_body_sha256", HashBodies)
        // The application is not in use here, so that no sleep is needed to leave it room.
        .built_in(BuiltIn { sleep: None, ..BuiltIn::default() });
    let host = Host::builder().database(database).until_done().build()?;
    let summaries = host.run(std::future::pending()).await;

    let connection = rusqlite::Connection::open(&path)?;
    let missing: i64 =
        connection.query_row("SELECT count(*) FROM messages WHERE body_sha256 IS NULL", [], |row| row.get(0))?;
    println!("{summaries:?}; {missing} messages have no digest");
    if missing == 0 { Ok(()) } else { Err("messages were left out".into()) }
}
