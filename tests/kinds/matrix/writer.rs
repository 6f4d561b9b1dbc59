//! The application: it inserts, edits and deletes rows of its own all the while, and logs in the same transaction what it
//! did. What it inserts it writes in the new form.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::plain::{Failure, Plain, Random};
use super::schemas::{ROWS, Table, is_special};
use super::update::Kind;

/// What the writer and the update's driver tell each other.
pub struct Signals {
    /// Set once the update's first batch is committed.
    pub begun: AtomicBool,
    pub stop: AtomicBool,
}

pub struct Writer {
    pub plain: Plain,
    pub table: Table,
    pub kind: Kind,
    pub random: Random,
    pub signals: Arc<Signals>,
    /// The number of operations tried so far.
    pub done: watch::Sender<u64>,
    pub between: Vec<u32>,
    pub inserted: Vec<u32>,
    pub deleted: u32,
}

/// Between two operations, so that a single lock is left to others too.
const PAUSE: Duration = Duration::from_millis(1);
/// More rows than these are neither inserted nor deleted: a walk that follows new rows has to be found for what it does.
const MOST: usize = ROWS as usize;

impl Writer {
    pub fn new(
        plain: Plain,
        table: Table,
        kind: Kind,
        mut random: Random,
        signals: Arc<Signals>,
    ) -> (Self, watch::Receiver<u64>) {
        let (done, watched) = watch::channel(0);
        let mut between: Vec<u32> = (0..ROWS).map(|place| 2 * place + 1).collect();
        for place in (1..between.len()).rev() {
            between.swap(place, random.below(u32::try_from(place + 1).unwrap()) as usize);
        }
        (Self { plain, table, kind, random, signals, done, between, inserted: Vec::new(), deleted: 0 }, watched)
    }

    /// Writes until it is told to stop.
    pub async fn run(mut self) -> Result<(), String> {
        while !self.signals.stop.load(Ordering::SeqCst) {
            match self.transaction().await {
                Ok(()) => {}
                Err(Failure { passing: true, .. }) => self.plain.script("ROLLBACK").await,
                Err(Failure { words, .. }) => return Err(format!("the application's own statement failed: {words}")),
            }
            self.done.send_modify(|done| *done += 1);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn transaction(&mut self) -> Result<(), Failure> {
        let begin = match self.plain {
            Plain::Sqlite(_) => "BEGIN IMMEDIATE",
            Plain::Postgres(_) => "BEGIN",
        };
        self.plain.execute(begin).await?;
        match self.random.below(100) {
            0..35 => self.insert().await?,
            35..75 => self.edit().await?,
            75..88 => self.delete().await?,
            _ => self.rescue().await?,
        }
        self.plain.execute("COMMIT").await?;
        if let Plain::Postgres(_) = self.plain {
            self.plain.execute("SELECT nextval('app_operations')").await?;
        }
        Ok(())
    }

    /// A row to write to: mostly one of those that were there when the update began.
    fn victim(&mut self) -> u32 {
        if !self.inserted.is_empty() && self.random.below(5) == 0 {
            let place = self.random.below(u32::try_from(self.inserted.len()).unwrap());
            return self.inserted[place as usize];
        }
        loop {
            let tag = 2 * (1 + self.random.below(ROWS));
            if !is_special(tag) {
                return tag;
            }
        }
    }

    async fn insert(&mut self) -> Result<(), Failure> {
        let begun = self.signals.begun.load(Ordering::SeqCst);
        if self.inserted.len() >= MOST {
            return Ok(());
        }
        let beyond = begun && self.random.below(2) == 0;
        let tag = match beyond {
            true => {
                let last = self.inserted.iter().copied().filter(|tag| *tag > 2 * ROWS).max().unwrap_or(2 * ROWS);
                (last + 1..).find(|tag| !is_special(*tag)).unwrap()
            }
            false => match self.between.pop() {
                Some(tag) => tag,
                None => return Ok(()),
            },
        };
        let twice = self.kind == Kind::CopyIgnore && self.random.below(2) == 0;
        let moved = self.kind.moves();
        let note = (!moved).then(|| format!("app {tag}"));
        self.plain.execute(&self.table.insert(tag, self.kind, "new", note.as_deref())).await?;
        if moved {
            self.plain.execute(&format!("INSERT INTO moved VALUES ({tag}, 'app {tag}')")).await?;
        }
        if twice {
            self.plain.execute(&self.table.target().insert(tag, self.kind, "new", Some(&format!("app {tag}")))).await?;
        }
        self.log(tag, "insert", &format!("app {tag}"), u8::from(begun)).await?;
        if twice {
            self.log(tag, "both", &format!("app {tag}"), u8::from(begun)).await?;
        }
        self.inserted.push(tag);
        Ok(())
    }

    async fn edit(&mut self) -> Result<(), Failure> {
        let tag = self.victim();
        let note = format!("edit {}", *self.done.borrow());
        let (old, repaired) = match self.kind {
            kind if kind.moves() => (" AND {note} IS NOT NULL", ""),
            Kind::ValidateAndDelete => ("", ", {n} = CASE WHEN {n} < 0 THEN 0 ELSE {n} END"),
            _ => ("", ""),
        };
        let sql = format!(
            "UPDATE {{written}} SET {{note}} = '{note}', {{edits}} = {{edits}} + 1{repaired} WHERE {{tag}} = {tag}{old}"
        );
        let mut changed = self.plain.execute(&self.table.fill(&sql)).await?;
        if changed == 0 && self.kind.moves() {
            // The row has the new form by now.
            changed = self.plain.execute(&format!("UPDATE moved SET note = '{note}' WHERE tag = {tag}")).await?;
            if changed > 0 {
                return self.log(tag, "moved edit", &note, 1).await;
            }
        }
        if changed > 0 {
            self.log(tag, "edit", &note, 1).await?;
        }
        Ok(())
    }

    async fn delete(&mut self) -> Result<(), Failure> {
        if self.deleted >= ROWS / 4 {
            return Ok(());
        }
        let tag = self.victim();
        let sql = self.table.fill(&format!("DELETE FROM {{written}} WHERE {{tag}} = {tag}"));
        if self.plain.execute(&sql).await? > 0 {
            self.deleted += 1;
            self.plain.execute(&format!("DELETE FROM moved WHERE tag = {tag}")).await?;
            self.log(tag, "delete", "", 1).await?;
        }
        Ok(())
    }

    /// Gives a row the new form: whatever the update is about, not this row from now on.
    async fn rescue(&mut self) -> Result<(), Failure> {
        if self.kind == Kind::ValidateAndDelete {
            // A row that breaks the constraint can be repaired, and changed in no other way.
            return Ok(());
        }
        let tag = self.victim();
        let sql = format!("UPDATE {{written}} SET {{state}} = 'new' WHERE {{tag}} = {tag} AND {{state}} = 'old'");
        if self.plain.execute(&self.table.fill(&sql)).await? > 0 {
            self.log(tag, "rescue", "", 1).await?;
        }
        Ok(())
    }

    async fn log(&self, tag: u32, what: &str, note: &str, begun: u8) -> Result<(), Failure> {
        let key = self.table.key(tag);
        let place = *self.done.borrow();
        let sql = format!("INSERT INTO app_log VALUES ({key}, {tag}, '{note}', '{what}', {begun}, {place})");
        self.plain.execute(&sql).await.map(drop)
    }
}
