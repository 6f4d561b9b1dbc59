//! The ledger: what was done to updates, by whom and when, as rows that are only ever added.
//!
//! What tidegate does itself is written where it is done, in the same transaction. What others do to the queue's table is found
//! by comparing the queue with the last entries ([`Tables::catch_up`]).
//!
//! Their order is that of their numbers, which only grow. The times of entries may be equal, and come from clocks that differ.
//!
//! On SQLite there is one writer. On PostgreSQL, two transactions could find the same row without an entry: all that write
//! entries begin with a lock (`Tables::lock_ledger`), but for batches, which hold the lock on their row.

use std::time::SystemTime;

use super::tables::{Tables, p, text};
use tidegate::scheduler::database::unix_ms;
use tidegate::scheduler::ledger::{Action, Actor, Entry, Note, Wanted};
use tidegate::update::sql::{Row, Sql, SqlError, System, Value};

/// The ledger's table. Hosts of before made none, and whoever only looks does without.
pub const LEDGER: &str = "tidegate_ledger";
/// The view in which applications look whether an update is done.
const DONE: &str = "tidegate_done";
/// With a queue's name, what those lock who write entries.
const LEDGER_LOCK: i64 = 0x3c1f_70e2_9a5b_4d86;
/// For entries that come with no other statement.
pub const ONE_ROW: &str = "(select 1) as one";
/// The actions that say whether an update is in the queue.
const PRESENCE: &str = "('queued', 'finished', 'cancelled')";

/// What a batch has the ledger told by its commit.
#[derive(Debug, Clone)]
pub struct Notes {
    update_name: String,
    by: Actor,
    notes: Vec<Note>,
}

impl Notes {
    /// Nothing yet, of a batch of this update.
    pub fn of(update_name: &str, by: Actor) -> Self {
        Self { update_name: update_name.to_owned(), by, notes: Vec::new() }
    }

    /// Adds an entry.
    pub fn add(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// Names somebody else.
    pub fn known_as(&mut self, actor: Actor) {
        self.by = actor;
    }

    /// The statement that writes the entries, for each row of `from` (once, where it is [`ONE_ROW`]); `None` where there is
    /// nothing to write. Its values are added to those that are there.
    pub fn insert(&self, tables: &Tables, from: &str, values: &mut Vec<Value>) -> Option<String> {
        tables.insert(Some(&self.update_name), &self.notes, &self.by, from, values)
    }
}

/// Makes the ledger's table and the view.
pub(crate) fn first_version(schema: &str, system: System) -> String {
    // No number is given twice, not even where somebody deleted the last entries.
    let (identity, finished_at) = match system {
        System::Sqlite => {
            ("integer primary key autoincrement", "strftime('%Y-%m-%dT%H:%M:%fZ', l.at_ms / 1000.0, 'unixepoch')")
        }
        System::Postgres => ("bigint generated always as identity primary key", "to_timestamp(l.at_ms / 1000.0)"),
    };
    format!(
        "create table {schema}{LEDGER} (id {identity}, queue text not null, update_name text, action text not null, \
         actor text not null, at_ms bigint not null, items bigint, seconds double precision, definition text, words text);
         create index {schema}tidegate_ledger_update on {LEDGER} (queue, update_name, id);
         create index {schema}tidegate_ledger_queue on {LEDGER} (queue, id);
         drop view if exists {schema}{DONE};
         create view {schema}{DONE} as select l.queue, l.update_name as name, \
         case l.action when 'finished' then 'done' when 'quarantined' then 'failed' when 'cancelled' then 'cancelled' \
         else 'pending' end as state, case l.action when 'finished' then {finished_at} end as finished_at \
         from {LEDGER} l where l.update_name is not null and not exists (select 1 from {LEDGER} m \
         where m.queue = l.queue and m.update_name = l.update_name and m.id > l.id)"
    )
}

impl Tables {
    /// Keeps everybody else from writing entries until the transaction has ended, but for batches.
    ///
    /// # Errors
    /// Whatever the database says.
    pub(crate) async fn lock_ledger(&self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        if sql.dialect().system() == System::Postgres {
            let lock = format!("select pg_advisory_xact_lock(hashtextextended($1::text, {LEDGER_LOCK}))");
            sql.query(&lock, &[self.queue_value()]).await?;
        }
        Ok(())
    }

    /// See [`Database::note`](tidegate::scheduler::database::Database::note).
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn note(&self, sql: &mut dyn Sql, note: &Note) -> Result<(), SqlError> {
        self.lock_ledger(sql).await?;
        self.append(sql, None, std::slice::from_ref(note), &self.by).await
    }

    /// Adds entries.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn append(
        &self,
        sql: &mut dyn Sql,
        update_name: Option<&str>,
        notes: &[Note],
        by: &Actor,
    ) -> Result<(), SqlError> {
        let mut values = Vec::new();
        match self.insert(update_name, notes, by, ONE_ROW, &mut values) {
            Some(insert) => sql.execute(&insert, &values).await.map(drop),
            None => Ok(()),
        }
    }

    /// The statement that adds entries. That an update started is written once for each time that it was queued; how long
    /// it took is told from there.
    fn insert(
        &self,
        update_name: Option<&str>,
        notes: &[Note],
        by: &Actor,
        from: &str,
        values: &mut Vec<Value>,
    ) -> Option<String> {
        if notes.is_empty() {
            return None;
        }
        let mut add = |value: Value, sql_type: &str| {
            values.push(value);
            match self.system {
                System::Sqlite => format!("?{}", values.len()),
                System::Postgres => format!("${}::{sql_type}", values.len()),
            }
        };
        let schema = self.schema;
        let queue = add(self.queue_value(), "text");
        let name = add(update_name.map_or(Value::Null, Value::from), "text");
        let actor = add(by.as_str().into(), "text");
        let at_ms = add(unix_ms(SystemTime::now()).into(), "bigint");
        let since = |what: &str| {
            format!(
                "(select {what} from {schema}{LEDGER} s where s.queue = {queue} and s.update_name = {name} \
                 and s.action = 'started' and s.id > (select coalesce(max(q.id), 0) from {schema}{LEDGER} q \
                 where q.queue = {queue} and q.update_name = {name} and q.action = 'queued'))"
            )
        };
        // The clock of whoever wrote that it started may be ahead.
        let earlier = format!("case when max(s.at_ms) > {at_ms} then {at_ms} else max(s.at_ms) end");
        let mut rows = Vec::new();
        for (number, note) in notes.iter().enumerate() {
            let action = note.action.as_str();
            let items = note.items.map_or(Value::Null, |items| i64::try_from(items).unwrap_or(i64::MAX).into());
            let items = add(items, "bigint");
            let seconds = add(note.seconds.map_or(Value::Null, Value::Real), "double precision");
            let seconds = match note.action {
                Action::Finished => format!("coalesce(({at_ms} - {}) / 1000.0, {seconds})", since(&earlier)),
                _ => seconds,
            };
            let definition = add(note.definition.as_deref().map_or(Value::Null, Value::from), "text");
            let words = add(note.words.as_deref().map_or(Value::Null, |words| clean(words).into()), "text");
            let once = match note.action {
                Action::Started => format!(" where not exists {}", since("1")),
                _ => String::new(),
            };
            rows.push(format!(
                "select {number} as place, '{action}' as action, {items} as items, {seconds} as seconds, \
                 {definition} as definition, {words} as words{once}"
            ));
        }
        Some(format!(
            "insert into {schema}{LEDGER} (queue, update_name, action, actor, at_ms, items, seconds, definition, words) \
             select {queue}, {name}, e.action, {actor}, {at_ms}, e.items, e.seconds, e.definition, e.words \
             from ({}) e cross join {from} order by e.place",
            rows.join(" union all ")
        ))
    }

    /// Writes down what others did to the queue's table: rows that came or went with no entry. `only` is one update's name.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn catch_up(&self, sql: &mut dyn Sql, only: Option<&str>) -> Result<(), SqlError> {
        self.lock_ledger(sql).await?;
        self.catch_up_as(sql, only, &Actor::sql()).await
    }

    async fn catch_up_as(&self, sql: &mut dyn Sql, only: Option<&str>, by: &Actor) -> Result<(), SqlError> {
        let (schema, first, second) = (self.schema, p(sql, 1), p(sql, 2));
        let mut values = vec![self.queue_value()];
        values.extend(only.map(Value::from));
        let of = |column: &str| only.map(|_| format!(" and {column} = {second}")).unwrap_or_default();
        // A row that a batch holds is no news: it was in the queue before.
        let (is_text, lock) = match sql.dialect().system() {
            System::Sqlite => (" and typeof(q.update_name) = 'text'", ""),
            System::Postgres => ("", " for update of q skip locked"),
        };
        let came = format!(
            "select q.update_name from {} q where q.update_name is not null{is_text}{} and coalesce((select l.action \
             from {schema}{LEDGER} l where l.queue = {first} and l.update_name = q.update_name and l.action in {PRESENCE} \
             order by l.id desc limit 1), '') <> 'queued'",
            self.quoted,
            of("q.update_name")
        );
        let came = sql.query(&format!("{came}{lock}"), &values).await?;
        let went = format!(
            "select l.update_name from {schema}{LEDGER} l where l.queue = {first} and l.action = 'queued'{} and not exists \
             (select 1 from {} q where q.update_name = l.update_name) and not exists (select 1 from {schema}{LEDGER} m \
             where m.queue = l.queue and m.update_name = l.update_name and m.id > l.id and m.action in {PRESENCE})",
            of("l.update_name"),
            self.quoted
        );
        let went = sql.query(&went, &values).await?;
        for (rows, action) in [(came, Action::Queued), (went, Action::Cancelled)] {
            let mut names = rows.iter().map(|row| text(row, 0)).collect::<Result<Vec<_>, _>>()?;
            names.sort_unstable();
            for name in names {
                self.append(sql, Some(name), &[Note::of(action)], by).await?;
            }
        }
        Ok(())
    }

    /// Writes down that updates are tried again whose progress somebody changed by SQL after they were quarantined.
    ///
    /// # Errors
    /// Whatever the database says.
    pub(crate) async fn note_released(&self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        self.lock_ledger(sql).await?;
        let (schema, first) = (self.schema, p(sql, 1));
        let select = format!(
            "select f.update_name from {schema}tidegate_failures f join {} q on q.update_name = f.update_name \
             where f.queue = {first} and cast(q.progress_json as text) <> f.progress and (select l.action \
             from {schema}{LEDGER} l where l.queue = f.queue and l.update_name = f.update_name order by l.id desc limit 1) \
             = 'quarantined'",
            self.quoted
        );
        for row in sql.query(&select, &[self.queue_value()]).await? {
            self.append(sql, Some(text(&row, 0)?), &[Note::of(Action::Retried)], &Actor::sql()).await?;
        }
        Ok(())
    }

    /// The first entries of a ledger that was just made: what is queued, and what is quarantined.
    ///
    /// # Errors
    /// Whatever the database says.
    pub(crate) async fn begin_ledger(&self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        let before = Actor::before();
        self.catch_up_as(sql, None, &before).await?;
        let (queue, _) = self.read_queue(sql, "").await?;
        for row in queue.rows.iter().filter(|row| row.problem.is_none()) {
            if let Some(failure) = row.failure.as_ref().filter(|failure| failure.quarantined) {
                let note = Note::of(Action::Quarantined).saying(&failure.error);
                self.append(sql, Some(&row.update_name), &[note], &before).await?;
            }
        }
        Ok(())
    }

    /// True where the ledger is there.
    async fn has_ledger(&self, sql: &mut dyn Sql) -> Result<bool, SqlError> {
        super::schema::exists(sql, LEDGER).await
    }

    /// See [`Database::ledger`](tidegate::scheduler::database::Database::ledger).
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn ledger(&self, sql: &mut dyn Sql, wanted: &Wanted<'_>, limit: u32) -> Result<Vec<Entry>, SqlError> {
        if !self.has_ledger(sql).await? {
            return Ok(Vec::new());
        }
        let mut values = vec![self.queue_value(), i64::from(limit).into()];
        let (first, second) = (p(sql, 1), p(sql, 2));
        let mut only = String::new();
        if let Some(name) = wanted.update_name {
            values.push(name.into());
            only += &format!(" and update_name = {}", p(sql, values.len()));
        }
        if let Some(before) = wanted.before {
            values.push(before.into());
            only += &format!(" and id < {}", p(sql, values.len()));
        }
        if wanted.presence {
            only += &format!(" and action in {PRESENCE}");
        }
        let select = format!(
            "select id, at_ms, update_name, action, actor, items, seconds, definition, words \
             from {}{LEDGER} where queue = {first}{only} order by id desc limit {second}",
            self.schema
        );
        sql.query(&select, &values).await?.iter().map(entry).collect()
    }
}

/// PostgreSQL's texts hold no NUL.
fn clean(words: &str) -> String {
    words.replace('\0', "�")
}

fn entry(row: &Row) -> Result<Entry, SqlError> {
    let integer = |column: usize| row.get(column).and_then(Value::as_integer);
    let words = |column: usize| row.get(column).and_then(Value::as_text).map(str::to_owned);
    Ok(Entry {
        id: integer(0).unwrap_or_default(),
        at_ms: integer(1).unwrap_or_default(),
        update_name: words(2),
        action: text(row, 3)?.to_owned(),
        by: text(row, 4)?.to_owned(),
        items: integer(5).and_then(|items| items.try_into().ok()),
        seconds: match row.get(6) {
            Some(Value::Real(seconds)) => Some(*seconds),
            _ => None,
        },
        definition: words(7),
        words: words(8),
    })
}
