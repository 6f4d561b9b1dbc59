//! A database of a test's own, SQLite's or PostgreSQL's, and a way to look into it that owes nothing to the drivers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate::scheduler::database::{Begin, Database, Holder, NewRow, Transaction};
use tidegate::update::sql::System;
use tidegate_database::{Options, open};

use super::postgres::{self, Server, TestDatabase};

/// A fresh database.
pub struct Place {
    pub url: String,
    backend: Backend,
}

enum Backend {
    Sqlite { file: PathBuf, _folder: tempfile::TempDir },
    Postgres(TestDatabase),
}

impl Place {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("app.db");
        rusqlite::Connection::open(&file).unwrap().execute_batch("vacuum").unwrap();
        Self { url: format!("sqlite:{}", file.display()), backend: Backend::Sqlite { file, _folder: folder } }
    }

    /// An SQLite database in this folder.
    pub fn sqlite_in(folder: &Path) -> Self {
        let file = folder.join("app.db");
        rusqlite::Connection::open(&file).unwrap().execute_batch("vacuum").unwrap();
        let own = tempfile::tempdir().unwrap();
        Self { url: format!("sqlite:{}", file.display()), backend: Backend::Sqlite { file, _folder: own } }
    }

    pub async fn postgres() -> Self {
        let database = postgres::server().passing_database().await;
        Self { url: database.url.clone(), backend: Backend::Postgres(database) }
    }

    /// A database on this server.
    pub async fn on(server: &Server) -> Self {
        let database = server.database().await;
        Self { url: database.url.clone(), backend: Backend::Postgres(database) }
    }

    /// The same database by another way to its server.
    pub fn by_way_of(&self, url: String) -> Self {
        Self { url: url.clone(), backend: Backend::Postgres(TestDatabase::at(url)) }
    }

    /// Another fresh one, on the same system.
    pub async fn another(&self) -> Self {
        match self.system() {
            System::Sqlite => Self::sqlite(),
            System::Postgres => Self::postgres().await,
        }
    }

    pub fn system(&self) -> System {
        match self.backend {
            Backend::Sqlite { .. } => System::Sqlite,
            Backend::Postgres(_) => System::Postgres,
        }
    }

    /// The one of two that suits this database.
    pub fn either<'a>(&self, sqlite: &'a str, postgres: &'a str) -> &'a str {
        match self.system() {
            System::Sqlite => sqlite,
            System::Postgres => postgres,
        }
    }

    /// The file of an SQLite database.
    pub fn file(&self) -> &PathBuf {
        match &self.backend {
            Backend::Sqlite { file, .. } => file,
            Backend::Postgres(_) => panic!("PostgreSQL has no file"),
        }
    }

    /// A handle, not prepared.
    pub fn open(&self) -> Arc<dyn Database> {
        self.open_with(|_| ())
    }

    /// A handle, not prepared, its options changed.
    pub fn open_with(&self, change: impl FnOnce(&mut Options)) -> Arc<dyn Database> {
        let mut options = Options::new(holder(1));
        change(&mut options);
        open(&self.url, options).unwrap()
    }

    /// A handle, ready for use.
    pub async fn prepared(&self) -> Arc<dyn Database> {
        let database = self.open();
        database.prepare().await.unwrap();
        database
    }

    /// Sets the journal mode that `check` recommends, where there is one.
    pub async fn recommended(&self) {
        self.run(self.either("pragma journal_mode = wal", "select 1")).await;
    }

    /// Executes a script over a connection that no driver knows of.
    pub async fn run(&self, sql: &str) {
        match &self.backend {
            Backend::Sqlite { file, .. } => rusqlite::Connection::open(file).unwrap().execute_batch(sql).unwrap(),
            Backend::Postgres(database) => database.connect().await.batch_execute(sql).await.unwrap(),
        }
    }

    /// Locks the table `items` against everybody else until what comes back is dropped; on SQLite the whole database.
    pub async fn lock_items(&self) -> Box<dyn Send> {
        match &self.backend {
            Backend::Sqlite { file, .. } => {
                let connection = rusqlite::Connection::open(file).unwrap();
                connection.busy_timeout(Duration::from_secs(10)).unwrap();
                connection.execute_batch("begin exclusive").unwrap();
                Box::new(connection)
            }
            Backend::Postgres(_) => self.hold("lock table items in access exclusive mode").await,
        }
    }

    /// Executes a script in a transaction that stays open until what comes back is dropped (PostgreSQL).
    pub async fn hold(&self, sql: &str) -> Box<dyn Send> {
        let Backend::Postgres(database) = &self.backend else { panic!("only PostgreSQL locks rows") };
        let client = database.connect().await;
        client.batch_execute(&format!("begin; {sql}")).await.unwrap();
        Box::new(client)
    }

    /// The rows of a query, each as its columns' texts with a "|" between them, over a connection that no driver knows.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        match &self.backend {
            Backend::Sqlite { file, .. } => sqlite_rows(file, sql),
            Backend::Postgres(database) => postgres_rows(database, sql).await,
        }
    }

    /// The same database as a role of its own sees it, which may work on what is there; with the role's name.
    pub async fn as_own_role(&self) -> (Self, String) {
        self.prepared().await.close().await;
        let role = self.rows("select 'worker_of_' || current_database()").await.remove(0);
        self.run(&format!(
            "create role {role} login; grant all on all tables in schema public to {role}; \
             grant all on all sequences in schema public to {role}"
        ))
        .await;
        (self.by_way_of(self.url.replace("postgres@", &format!("{role}@"))), role)
    }

    /// How many rows of a table were read by looks through all of it, where the database counts that.
    pub async fn looked_through(&self, table: &str) -> Option<u64> {
        let Backend::Postgres(_) = self.backend else { return None };
        let read = self.rows(&format!("select seq_tup_read from pg_stat_user_tables where relname = '{table}'")).await;
        Some(read[0].parse().unwrap())
    }

    /// Everything that the catalogue knows of the queue table.
    pub async fn queue_table(&self) -> Vec<String> {
        self.rows(self.either(
            "select type, name, sql from sqlite_schema where tbl_name = 'background_updates'",
            "select c.oid::text || c.relfilenode::text || coalesce(c.reloptions::text, ''), a.attname, \
             format_type(a.atttypid, a.atttypmod), a.attnotnull::text, pg_get_expr(d.adbin, d.adrelid), \
             (select string_agg(pg_get_constraintdef(k.oid), ',' order by k.oid) from pg_constraint k \
              where k.conrelid = c.oid) \
             from pg_class c join pg_attribute a on a.attrelid = c.oid \
             left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum \
             where c.oid = 'background_updates'::regclass and a.attnum > 0 order by a.attnum",
        ))
        .await
    }
}

fn sqlite_rows(file: &PathBuf, sql: &str) -> Vec<String> {
    let connection = rusqlite::Connection::open(file).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let text = |column| row.get::<_, rusqlite::types::Value>(column).map(sqlite_text);
        Ok((0..columns).map(text).collect::<Result<Vec<_>, _>>()?.join("|"))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn sqlite_text(value: rusqlite::types::Value) -> String {
    match value {
        rusqlite::types::Value::Null => String::new(),
        rusqlite::types::Value::Integer(number) => number.to_string(),
        rusqlite::types::Value::Real(number) => number.to_string(),
        rusqlite::types::Value::Text(text) => text,
        rusqlite::types::Value::Blob(bytes) => format!("{bytes:x?}"),
    }
}

async fn postgres_rows(database: &TestDatabase, sql: &str) -> Vec<String> {
    let messages = database.connect().await.simple_query(sql).await.unwrap();
    let row = |message: &tokio_postgres::SimpleQueryMessage| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => {
            let texts: Vec<&str> = (0..row.len()).map(|column| row.get(column).unwrap_or_default()).collect();
            Some(texts.join("|"))
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

/// A holder that differs by its number.
pub fn holder(number: u32) -> Holder {
    Holder { host: "machine.example".to_owned(), pid: number }
}

/// A row to be queued, without progress, dependency or a place of its own.
pub fn row(update_name: &str) -> NewRow {
    NewRow { update_name: update_name.to_owned(), progress: "{}".to_owned(), depends_on: None, ordering: 0 }
}

/// A batch that can go on.
pub async fn begin(database: &dyn Database, update_name: &str, progress: &str) -> Box<dyn Transaction> {
    match database.begin(update_name, progress).await.unwrap() {
        Begin::Ready(transaction) => transaction,
        Begin::Moved(found) => panic!("{update_name} moved on to {found:?}"),
        Begin::Failed(error) => panic!("{update_name} cannot be begun: {error}"),
    }
}
