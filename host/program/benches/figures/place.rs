//! The databases: a SQLite file and a PostgreSQL server, both of the benchmark's own.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidegate::controller::BuiltIn;
use tidegate::update::{Backfill, BackfillDefinition};
use tidegate::{DatabaseSpec, Host, HostBuilder};
use tidegate_database::Url;
use tokio_postgres::NoTls;

use super::bare::Bare;
use super::postgres::{Server, Settings};
use super::{Outcome, System};

/// Where Linux keeps files in memory.
const IN_MEMORY: &str = "/dev/shm";

/// A system to measure on.
pub(super) enum Place {
    Sqlite { folder: TempDir },
    Postgres { server: Server, durable: bool },
}

/// A fresh database.
pub(super) struct Database {
    pub(super) url: String,
    /// What is removed with it.
    file: Option<PathBuf>,
}

/// The queue's table as Synapse makes it.
const QUEUE: &str = "CREATE TABLE background_updates (
    update_name TEXT NOT NULL UNIQUE, progress_json TEXT NOT NULL, depends_on TEXT, ordering INT NOT NULL DEFAULT 0
)";

impl Place {
    /// One of each.
    pub(super) fn both(durable: bool) -> Outcome<[Self; 2]> {
        let memory = Path::new(IN_MEMORY);
        let folder = match !durable && memory.is_dir() {
            true => tempfile::tempdir_in(memory)?,
            false => tempfile::tempdir()?,
        };
        let parameters = vec![
            ("max_wal_size", "8GB".to_owned()),
            ("shared_buffers", "256MB".to_owned()),
            ("max_connections", "400".to_owned()),
        ];
        let server = Server::start(&Settings { fsync: durable, parameters, ..Settings::default() });
        Ok([Self::Sqlite { folder }, Self::Postgres { server, durable }])
    }

    pub(super) fn is(&self, system: System) -> bool {
        match self {
            Self::Sqlite { .. } => system == System::Sqlite,
            Self::Postgres { .. } => system == System::Postgres,
        }
    }

    /// Where its files are.
    pub(super) fn folder(&self) -> PathBuf {
        match self {
            Self::Sqlite { folder } => folder.path().to_owned(),
            Self::Postgres { .. } => std::env::temp_dir(),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "SQLite",
            Self::Postgres { .. } => "PostgreSQL",
        }
    }

    /// How it is set up, for the report.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Sqlite { folder } if folder.path().starts_with(IN_MEMORY) => {
                "SQLite: WAL, its file in memory".to_owned()
            }
            Self::Sqlite { .. } => "SQLite: WAL, its file on the disk".to_owned(),
            Self::Postgres { durable: true, .. } => "PostgreSQL: commits wait for the disk".to_owned(),
            Self::Postgres { durable: false, .. } => "PostgreSQL: commits do not wait for the disk".to_owned(),
        }
    }

    /// A database with an empty queue.
    pub(super) async fn fresh(&self) -> Outcome<Database> {
        let database = match self {
            Self::Sqlite { folder } => {
                let file = folder.path().join("bench.db");
                remove(&file);
                Database { url: format!("sqlite:{}", file.display()), file: Some(file) }
            }
            Self::Postgres { server, .. } => Database { url: server.database().await.url.clone(), file: None },
        };
        database.run("PRAGMA journal_mode = wal", "").await?;
        database.run(QUEUE, QUEUE).await?;
        Ok(database)
    }

    /// So many databases that have an update queued. On SQLite their files are in the folder that comes with them.
    pub(super) async fn several(&self, count: usize) -> Outcome<(Vec<String>, Option<TempDir>)> {
        let first = self.fresh().await?;
        first.enqueue("bench").await?;
        let Self::Sqlite { folder } = self else {
            let mut urls = vec![first.url.clone()];
            while urls.len() < count {
                let next = self.fresh().await?;
                next.enqueue("bench").await?;
                urls.push(next.url.clone());
            }
            return Ok((urls, None));
        };
        first.run("PRAGMA wal_checkpoint(TRUNCATE)", "").await?;
        let (folder, source) = (tempfile::tempdir_in(folder)?, first.url.trim_start_matches("sqlite:"));
        let copies = (0..count).map(|number| {
            let file = folder.path().join(format!("{number}.db"));
            std::fs::copy(source, &file)?;
            Ok(format!("sqlite:{}", file.display()))
        });
        let urls = copies.collect::<Outcome<Vec<String>>>()?;
        Ok((urls, Some(folder)))
    }
}

impl Database {
    /// Executes a script, each database its own.
    pub(super) async fn run(&self, sqlite: &str, postgres: &str) -> Outcome<()> {
        match &self.file {
            Some(file) => Ok(rusqlite::Connection::open(file)?.execute_batch(sqlite)?),
            None => {
                let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
                tokio::spawn(connection);
                Ok(client.batch_execute(postgres).await?)
            }
        }
    }

    /// The number that a query answers.
    pub(super) async fn number(&self, sql: &str) -> Outcome<Option<i64>> {
        match &self.file {
            Some(file) => Ok(rusqlite::Connection::open(file)?.query_row(sql, [], |row| row.get(0))?),
            None => {
                let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
                tokio::spawn(connection);
                Ok(client.query_one(sql, &[]).await?.try_get(0)?)
            }
        }
    }

    /// The server's version.
    pub(super) async fn version(&self) -> Outcome<String> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client.query_one("SHOW server_version", &[]).await?.try_get(0)?)
    }

    /// Queues an update, in place of an older row.
    pub(super) async fn enqueue(&self, update_name: &str) -> Outcome<()> {
        let sql = format!(
            "DELETE FROM background_updates;
             INSERT INTO background_updates (update_name, progress_json) VALUES ('{update_name}', '{{}}');"
        );
        self.run(&sql, &sql).await
    }

    /// Makes the table `items` of (id, a, b), in place of an older one.
    pub(super) async fn make_items(&self, rows: i64) -> Outcome<()> {
        let table = "DROP TABLE IF EXISTS items;
             CREATE TABLE items (id BIGINT PRIMARY KEY NOT NULL, a TEXT NOT NULL, b TEXT);";
        // SQLite's own way to say that the key is the row's number.
        let sqlite_table = table.replace("BIGINT PRIMARY KEY NOT NULL", "INTEGER PRIMARY KEY");
        let sqlite = format!(
            "{sqlite_table}
             WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows})
             INSERT INTO items (id, a) SELECT n, 'item number ' || n FROM numbers;
             PRAGMA wal_checkpoint(TRUNCATE);"
        );
        let postgres = format!(
            "{table}
             INSERT INTO items (id, a) SELECT n, 'item number ' || n FROM generate_series(1, {rows}) AS numbers(n);"
        );
        self.run(&sqlite, &postgres).await?;
        // These cannot be part of a script, which PostgreSQL takes for one transaction.
        self.run("", "VACUUM ANALYZE items").await?;
        self.run("", "CHECKPOINT").await
    }

    /// A connection of the driver, and nothing else.
    pub(super) async fn bare(&self) -> Outcome<Bare> {
        Bare::connect(&self.url).await
    }

    /// A database for a host, without sleep between batches.
    pub(super) fn spec(&self, built_in: BuiltIn) -> DatabaseSpec {
        DatabaseSpec::new("master", Url::new(&self.url)).built_in(built_in)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            remove(file);
        }
    }
}

/// Removes a SQLite database; what is not there needs no removing.
fn remove(file: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut path = file.as_os_str().to_owned();
        path.push(suffix);
        let _ = std::fs::remove_file(PathBuf::from(path));
    }
}

/// `b = upper(a)` in every row of `items`.
pub(super) fn fill_b() -> Backfill {
    Backfill::new(BackfillDefinition {
        table: "items".into(),
        key: vec!["id".to_owned()],
        set: "b = upper(a)".to_owned(),
        filter: None,
    })
}

/// A host that works on a database until nothing can run.
pub(super) fn host(database: DatabaseSpec) -> HostBuilder {
    Host::builder().database(database).until_done()
}
