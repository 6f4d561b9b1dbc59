//! A transaction that is rolled back in any case, and what is seen of it meanwhile.
//!
//! Rows are counted by triggers of the connection's own, which are TEMP and in no file: they see what statements, other
//! triggers and foreign keys do, in all tables, and what is undone within the transaction is not counted. The tables in which
//! a virtual table keeps its rows bear no triggers (FTS5 would write into its own until the stack is full): a hook tells of
//! these.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tidegate::update::cells::{integer, text};

use async_trait::async_trait;

use rusqlite::hooks::Action;

use super::connection::Held;
use super::error::sql_error;
use tidegate::scheduler::database::{Interrupt, RowCounts, Seen, TableChange, TrialTransaction};
use tidegate::scheduler::trial::Lock;
use tidegate::update::Opening;
use tidegate::update::sql::{Sql, SqlError, Value};

/// Where rows are counted.
const COUNTS: &str = "tidegate_trial_counts";
/// A log longer than this is not read through.
const LONGEST_LOG: u64 = 256 << 20;

/// The tables that rows are stored in. Those in which a virtual table keeps its rows are `shadow`.
const TABLES: &str = "\
SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow', 'virtual') \
AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";

/// A transaction that is only ever rolled back.
pub(super) struct Trial {
    held: Held,
    path: PathBuf,
    virtuals: Vec<String>,
    /// Tables in which others keep their rows, and that were written to.
    touched: Arc<Mutex<BTreeSet<String>>>,
    notes: Vec<String>,
    before: Before,
}

#[derive(Default)]
struct Before {
    pages: i64,
    log: Option<Frames>,
}

/// What a write-ahead log holds: as SQLite's file format, section 4.1, says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Frames {
    /// What tells this log from the one before, which began at the same place of the file.
    salt: [u8; 8],
    /// All frames that belong to it.
    all: u64,
    /// Those up to the last commit.
    committed: u64,
}

impl Trial {
    pub(super) async fn begin(mut held: Held, path: &Path, opening: Opening) -> Result<Self, SqlError> {
        // Nobody else uses a connection with such triggers.
        held.expect_foreign();
        let tables = held.query(TABLES, &[]).await?;
        held.script(&format!(
            "CREATE TEMP TABLE {COUNTS} (name TEXT PRIMARY KEY, inserted INTEGER NOT NULL DEFAULT 0, \
             updated INTEGER NOT NULL DEFAULT 0, deleted INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID"
        ))
        .await?;
        let (mut virtuals, mut shadows, mut notes) = (Vec::new(), BTreeSet::new(), Vec::new());
        for (number, row) in tables.iter().enumerate() {
            let name = text(row, 0).to_owned();
            match text(row, 1) {
                "virtual" => virtuals.push(name),
                "shadow" => drop(shadows.insert(name)),
                _ => {
                    if let Err(error) = held.script(&counting(number, &name)).await {
                        notes.push(format!("what happens to table \"{name}\" cannot be counted: {error}"));
                    }
                }
            }
        }
        let touched = Arc::new(Mutex::new(BTreeSet::new()));
        let told = Arc::clone(&touched);
        let hook = move |_: Action, database: &str, table: &str, _: i64| {
            if database == "main" && shadows.contains(table) {
                told.lock().unwrap_or_else(PoisonError::into_inner).insert(table.to_owned());
            }
        };
        held.run(move |sqlite| sqlite.update_hook(Some(hook)).map_err(sql_error)).await?;
        if opening == Opening::Rebuild {
            held.without_foreign_keys().await?;
        }
        held.begin_with(|_| Ok(())).await?;
        Ok(Self { held, path: path.to_owned(), virtuals, touched, notes, before: Before::default() })
    }

    /// Pages of the file that hold something.
    async fn pages(&mut self) -> Result<i64, SqlError> {
        let select =
            "SELECT (SELECT page_count FROM pragma_page_count) - (SELECT freelist_count FROM pragma_freelist_count)";
        Ok(self.held.query(select, &[]).await?.first().map_or(0, |row| integer(row, 0)))
    }

    async fn setting(&mut self, pragma: &str) -> Result<Value, SqlError> {
        let rows = self.held.query(pragma, &[]).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).unwrap_or(Value::Null))
    }

    /// Bytes that the transaction has written to the log, or would at its commit, and which log.
    async fn log(&mut self, page_size: u64) -> Result<(Option<u64>, &'static str), SqlError> {
        let mode = self.setting("PRAGMA journal_mode").await?;
        match mode.as_text().unwrap_or_default() {
            "wal" => {
                // What is changed goes into the log as it is now, where no reader sees it before a commit.
                self.held.run(|sqlite| sqlite.cache_flush().map_err(sql_error)).await?;
                let before = self.before.log.unwrap_or_default();
                let now = Frames::of(&self.path).await;
                let new = now
                    .map(|now| if now.salt == before.salt { now.all - before.committed.min(now.all) } else { now.all });
                Ok((new.map(|frames| frames * (page_size + 24)), "write-ahead log, by its frames"))
            }
            "delete" | "truncate" | "persist" => {
                let journal = beside(&self.path, "-journal");
                let size = match std::fs::metadata(journal) {
                    Ok(file) => Some(file.len()),
                    // It is made once a page is another than it was.
                    Err(error) => (error.kind() == ErrorKind::NotFound).then_some(0),
                };
                Ok((size, "rollback journal, by its size"))
            }
            _ => Ok((None, "the journal is in no file")),
        }
    }
}

#[async_trait]
impl TrialTransaction for Trial {
    async fn watch(&mut self) -> Result<(), SqlError> {
        self.held.execute(&format!("UPDATE temp.{COUNTS} SET inserted = 0, updated = 0, deleted = 0"), &[]).await?;
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.before = Before { pages: self.pages().await?, log: Frames::of(&self.path).await };
        Ok(())
    }

    async fn seen(&mut self) -> Result<Seen, SqlError> {
        let select = format!(
            "SELECT name, inserted, updated, deleted FROM temp.{COUNTS} WHERE inserted + updated + deleted > 0"
        );
        let mut changes: BTreeMap<String, TableChange> = BTreeMap::new();
        for row in self.held.query(&select, &[]).await? {
            let name = text(&row, 0).to_owned();
            let [inserted, updated, deleted] = [1, 2, 3].map(|at| u64::try_from(integer(&row, at)).unwrap_or(0));
            let rows = Some(RowCounts { inserted, updated, deleted });
            changes.insert(name.clone(), TableChange { table: name, rows, note: None });
        }
        for part in &*self.touched.lock().unwrap_or_else(PoisonError::into_inner) {
            // How many rows of these change says nothing.
            let of = self.virtuals.iter().filter(|of| is_part(part, of)).max_by_key(|of| of.len());
            let table = of.unwrap_or(part).clone();
            let note = Some("a virtual table, whose rows are not counted".to_owned());
            changes.insert(table.clone(), TableChange { table, rows: None, note });
        }
        let size = self.setting("PRAGMA page_size").await?.as_integer().and_then(|size| u64::try_from(size).ok());
        let size = size.unwrap_or(0);
        let growth = u64::try_from(self.pages().await? - self.before.pages).unwrap_or(0) * size;
        let (log, log_source) = self.log(size).await?;
        let lock = Lock { relation: "main".to_owned(), kind: "database", mode: "write lock".to_owned() };
        Ok(Seen {
            changes: changes.into_values().collect(),
            locks: vec![lock],
            sequences: Vec::new(),
            log,
            log_source,
            growth,
            page: size,
            growth_source: "pages of the file in use",
            dead_rows: 0,
            notes: self.notes.clone(),
        })
    }

    async fn rollback(self: Box<Self>) -> Result<(), SqlError> {
        self.held.rollback().await
    }

    fn interrupter(&self) -> Arc<dyn Interrupt> {
        self.held.interrupter()
    }

    fn as_sql(&mut self) -> &mut dyn Sql {
        &mut self.held
    }
}

/// What counts what happens to a table's rows. A trigger has the conflict clause of the statement that fires it, or of a
/// foreign key: it is to meet no conflict.
fn counting(number: usize, table: &str) -> String {
    let (quoted, literal) = (table.replace('"', "\"\""), table.replace('\'', "''"));
    let mut script = format!("INSERT INTO temp.{COUNTS} (name) VALUES ('{literal}');\n");
    for (operation, column) in [("INSERT", "inserted"), ("UPDATE", "updated"), ("DELETE", "deleted")] {
        script += &format!(
            "CREATE TEMP TRIGGER tidegate_trial_{number}_{column} AFTER {operation} ON main.\"{quoted}\" BEGIN \
             UPDATE {COUNTS} SET {column} = {column} + 1 WHERE name = '{literal}'; END;\n"
        );
    }
    script
}

/// True for one of the tables in which a virtual table keeps its rows, by its name.
fn is_part(table: &str, of: &str) -> bool {
    let begins = table.get(..of.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(of));
    begins && table.get(of.len()..).is_some_and(|rest| rest.starts_with('_'))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut file = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
    file.push(suffix);
    file.into()
}

impl Frames {
    /// What the log beside a database holds; `None` where there is none that can be read.
    async fn of(path: &Path) -> Option<Self> {
        let path = beside(path, "-wal");
        tokio::task::spawn_blocking(move || Self::read(&path)).await.ok()?
    }

    fn read(path: &Path) -> Option<Self> {
        let size = std::fs::metadata(path).ok()?.len();
        if size > LONGEST_LOG {
            return None;
        }
        let mut bytes = Vec::new();
        File::open(path).ok()?.read_to_end(&mut bytes).ok()?;
        Self::parse(&bytes)
    }

    fn parse(log: &[u8]) -> Option<Self> {
        let number = |bytes: &[u8], at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let header = log.get(..32)?;
        let big_endian = number(header, 0)? & 1 == 1;
        let page = number(header, 8)? as usize;
        let salt: [u8; 8] = header.get(16..24)?.try_into().ok()?;
        let mut sum = checksum(header.get(..24)?, [0, 0], big_endian)?;
        if sum != [number(header, 24)?, number(header, 28)?] || page == 0 {
            return None;
        }
        let mut frames = Self { salt, ..Self::default() };
        for frame in log.get(32..)?.chunks_exact(page + 24) {
            if frame.get(8..16)? != salt {
                break;
            }
            sum = checksum(frame.get(..8)?, sum, big_endian)?;
            sum = checksum(frame.get(24..)?, sum, big_endian)?;
            if sum != [number(frame, 16)?, number(frame, 20)?] {
                break;
            }
            frames.all += 1;
            // The size of the database after it, where a transaction ends with it.
            if number(frame, 4)? > 0 {
                frames.committed = frames.all;
            }
        }
        Some(frames)
    }
}

/// SQLite's checksum of so many bytes, going on from that of those before.
fn checksum(bytes: &[u8], [mut one, mut two]: [u32; 2], big_endian: bool) -> Option<[u32; 2]> {
    for pair in bytes.chunks_exact(8) {
        let word = |at: usize| {
            let bytes: [u8; 4] = pair.get(at..at + 4)?.try_into().ok()?;
            Some(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
        };
        one = one.wrapping_add(word(0)?).wrapping_add(two);
        two = two.wrapping_add(word(4)?).wrapping_add(one);
    }
    Some([one, two])
}
