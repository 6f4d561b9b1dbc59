//! The demo's database, filled and asked by plain SQL, without a word of tidegate's.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::Outcome;
use super::postgres::{Server, Settings};

/// The database that the demo works on.
pub(super) enum Store {
    Sqlite { path: PathBuf },
    Postgres(Box<Postgres>),
}

/// A PostgreSQL server of the demo's own, stopped and removed when this is dropped.
pub(super) struct Postgres {
    client: Client,
    url: String,
    _server: Server,
}

/// Every so many messages one was redacted: its body is empty.
const REDACTED: u64 = 33;

/// How many of the messages from 1 to `rows` were redacted.
pub(super) fn redacted(rows: u64) -> u64 {
    rows / REDACTED
}

const TABLE: &str = "CREATE TABLE messages (
    id INTEGER PRIMARY KEY, room TEXT NOT NULL, sender TEXT NOT NULL, body TEXT NOT NULL, sent_ts BIGINT NOT NULL,
    search_body TEXT, touched INTEGER NOT NULL DEFAULT 0
)";

/// The queue's table as Synapse makes it: tidegate takes it as it is.
const QUEUE: &str = "CREATE TABLE background_updates (
    update_name TEXT NOT NULL UNIQUE, progress_json TEXT NOT NULL, depends_on TEXT, ordering INT NOT NULL DEFAULT 0
)";

/// What an application's schema migration does to queue updates.
const ENQUEUE: &str = "INSERT INTO background_updates (update_name, progress_json, depends_on, ordering) VALUES
    ('messages_search_body', '{}', NULL, 1),
    ('messages_search_body_index', '{}', 'messages_search_body', 2),
    ('messages_redacted', '{}', NULL, 3)";

impl Store {
    /// A new SQLite database in place of an older one.
    pub(super) fn sqlite(path: &Path) -> Outcome<Self> {
        for suffix in ["", "-wal", "-shm"] {
            let mut file = path.as_os_str().to_owned();
            file.push(suffix);
            if Path::new(&file).exists() {
                fs::remove_file(&file)?;
            }
        }
        let connection = rusqlite::Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        Ok(Self::Sqlite { path: path.canonicalize()? })
    }

    /// A new PostgreSQL server with an empty database.
    pub(super) async fn postgres() -> Self {
        // What it commits is on the disk, as in earnest: the durations are to mean something.
        let server = Server::start(&Settings { fsync: true, ..Settings::default() });
        let database = server.database().await;
        Self::Postgres(Box::new(Postgres {
            client: database.connect().await,
            url: database.url.clone(),
            _server: server,
        }))
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    /// Where tidegate finds it.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Sqlite { path } => format!("sqlite:{}", path.display()),
            Self::Postgres(postgres) => postgres.url.clone(),
        }
    }

    /// Makes the table, and `rows` messages in it.
    pub(super) async fn fill(&self, rows: u64) -> Outcome<()> {
        self.query(TABLE).await?;
        let numbers = match self {
            Self::Sqlite { .. } => format!(
                "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows}) \
                 SELECT n FROM numbers"
            ),
            Self::Postgres(_) => format!("SELECT n FROM generate_series(1::bigint, {rows}) AS numbers(n)"),
        };
        let fill = format!(
            "INSERT INTO messages (id, room, sender, body, sent_ts)
             SELECT n, '!room' || (n * 7919 % 500) || ':example.org', '@user' || (n * 104729 % 2000) || ':example.org',
                    CASE WHEN n % {REDACTED} = 0 THEN '' ELSE 'Message ' || n || ': See You at the Tide Gate' END,
                    1700000000000 + n * 1500
             FROM ({numbers}) AS numbered"
        );
        self.query(&fill).await?;
        self.query("ANALYZE").await.map(drop)
    }

    /// Queues the updates.
    pub(super) async fn enqueue(&self) -> Outcome<()> {
        self.query(QUEUE).await?;
        self.query(ENQUEUE).await.map(drop)
    }

    /// Counts the index on search_body, where it can be used.
    pub(super) fn index_query(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => {
                "SELECT count(*) FROM pragma_index_info('messages_search_body') WHERE name = 'search_body'"
            }
            Self::Postgres(_) => {
                "SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('messages_search_body') AND indisvalid"
            }
        }
    }

    /// Executes a statement and returns its rows, each value as text; an empty one for NULL.
    pub(super) async fn query(&self, sql: &str) -> Outcome<Vec<Vec<String>>> {
        match self {
            Self::Sqlite { path } => {
                let connection = rusqlite::Connection::open(path)?;
                let mut statement = connection.prepare(sql)?;
                let columns = statement.column_count();
                let mut rows = statement.query([])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    let values = (0..columns).map(|column| row.get_ref(column).map(text));
                    found.push(values.collect::<Result<_, _>>()?);
                }
                Ok(found)
            }
            Self::Postgres(postgres) => {
                let rows = postgres.client.simple_query(sql).await?.into_iter().filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some(row),
                    _ => None,
                });
                Ok(rows
                    .map(|row| (0..row.len()).map(|column| row.get(column).unwrap_or_default().to_owned()).collect())
                    .collect())
            }
        }
    }
}

fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}
