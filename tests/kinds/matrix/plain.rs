//! A connection that knows nothing of tidegate, and random numbers that a seed decides.

use std::sync::Mutex;
use std::time::Duration;

use tokio_postgres::SimpleQueryMessage;

use crate::support::place::Place;
use crate::support::postgres;

/// A connection to one of the databases.
pub enum Plain {
    Sqlite(Mutex<rusqlite::Connection>),
    Postgres(tokio_postgres::Client),
}

/// Why a statement failed.
#[derive(Debug)]
pub struct Failure {
    /// True where doing it again may do: a deadlock, a serialization failure.
    pub passing: bool,
    pub words: String,
}

impl Plain {
    pub async fn to(place: &Place) -> Self {
        if !place.url.starts_with("sqlite:") {
            return Self::Postgres(postgres::connect(&place.url).await);
        }
        let connection = rusqlite::Connection::open(place.file()).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
        Self::Sqlite(Mutex::new(connection))
    }

    /// Executes one statement, and says how many rows it changed.
    pub async fn execute(&self, sql: &str) -> Result<u64, Failure> {
        match self {
            Self::Sqlite(connection) => connection
                .lock()
                .unwrap()
                .execute(sql, [])
                .map(|changed| changed as u64)
                .map_err(|error| Failure { passing: false, words: format!("{error}: {sql}") }),
            Self::Postgres(client) => {
                let count = |messages: Vec<SimpleQueryMessage>| {
                    messages.into_iter().find_map(|message| match message {
                        SimpleQueryMessage::CommandComplete(count) => Some(count),
                        _ => None,
                    })
                };
                let done = client.simple_query(sql).await.map(count);
                done.map(Option::unwrap_or_default).map_err(|error| failure(&error, sql))
            }
        }
    }

    /// Executes statements.
    pub async fn script(&self, sql: &str) {
        match self {
            Self::Sqlite(connection) => {
                connection.lock().unwrap().execute_batch(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
            }
            Self::Postgres(client) => {
                client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{}: {sql}", failure(&error, sql).words));
            }
        }
    }

    /// The rows of a query, each as its columns' texts with a "|" between them.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        match self {
            Self::Sqlite(connection) => {
                let connection = connection.lock().unwrap();
                let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
                let columns = statement.column_count();
                let rows = statement.query_map([], |row| {
                    let text = |column| row.get::<_, rusqlite::types::Value>(column).map(|value| format!("{value:?}"));
                    Ok((0..columns).map(text).collect::<Result<Vec<_>, _>>()?.join("|"))
                });
                rows.unwrap().map(|row| row.unwrap_or_else(|error| panic!("{error}: {sql}"))).collect()
            }
            Self::Postgres(client) => {
                let messages = client.simple_query(sql).await;
                let messages = messages.unwrap_or_else(|error| panic!("{}", failure(&error, sql).words));
                let row = |message: &SimpleQueryMessage| match message {
                    SimpleQueryMessage::Row(row) => {
                        let texts = (0..row.len()).map(|column| row.get(column).unwrap_or("NULL"));
                        Some(texts.collect::<Vec<_>>().join("|"))
                    }
                    _ => None,
                };
                messages.iter().filter_map(row).collect()
            }
        }
    }
}

fn failure(error: &tokio_postgres::Error, sql: &str) -> Failure {
    const PASSING: [&str; 2] = ["40001", "40P01"];
    let code = error.code().map(tokio_postgres::error::SqlState::code);
    let words = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
    Failure { passing: code.is_some_and(|code| PASSING.contains(&code)), words: format!("{words}: {sql}") }
}

/// Numbers that look random and follow from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// One that differs by its texts.
    pub fn of(seed: u64, texts: &[&str]) -> Self {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(texts.iter().flat_map(|text| text.bytes().chain([0])).fold(seed ^ 0xcbf2_9ce4_8422_2325, mix))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `below` - 1.
    pub fn below(&mut self, below: u32) -> u32 {
        u32::try_from(self.next() % u64::from(below)).unwrap()
    }
}
