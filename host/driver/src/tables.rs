//! The SQL of the queue table and of tidegate's own tables, written once for both databases.
//!
//! Everything but the queue itself stands in tables of tidegate's own, which all queue tables of a database share: each
//! row says in its column `queue` which queue table it belongs to. Failures and records are stored as JSON, so that a
//! new field needs no migration. How the tables are made is `schema`'s business.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::skipped;
use crate::ledger::Notes;
use tidegate::scheduler::database::{NewRow, Pause, Queue, QueueRow};
use tidegate::scheduler::ledger::{Action, Actor, Note};
use tidegate::update::keep::kept;
use tidegate::update::sql::{Row, Sql, SqlError, System, Value};

/// The key of the pause in `tidegate_state`.
const PAUSE: &str = "pause";
/// The key of the running host's activity in `tidegate_state`.
const ACTIVITY: &str = "activity";
/// What the keys in `tidegate_state` begin with under which somebody asks for an update to be taken out of the queue; its
/// name follows.
const WITHDRAWN: &str = "withdrawn/";

/// What the number of the ledger's last entry comes with.
const LAST_ENTRY: &str = "last entry";

/// What a look at the queue finds besides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// True where failures are stored that no longer belong to the queue.
    pub stale: bool,
    /// The number of the ledger's last entry; empty where there is none.
    pub last_entry: String,
}

/// Locks the rows that a statement gives.
const FOR_UPDATE: &str = " for update";

/// Reads the number of the ledger's last entry, and fails where one of tidegate's own tables is missing.
fn all_there(schema: &str, queue: &str) -> String {
    format!(
        "union all select 'there', h.update_name from {schema}tidegate_version v cross join {schema}tidegate_history h \
         cross join {schema}tidegate_lease l where 1 = 0 \
         union all select '{LAST_ENTRY}', cast(max(id) as text) from {schema}tidegate_ledger where queue = {queue} \
         having max(id) is not null"
    )
}

/// The tables of one queue.
#[derive(Debug, Clone)]
pub struct Tables {
    /// The queue table's name, as configured.
    pub name: String,
    /// The queue table's name, quoted, as it is found in spite of temporary tables of that name.
    pub quoted: String,
    /// What stands before the names of tidegate's own tables: on SQLite a temporary table of the same name, which a
    /// script may make, would come first.
    pub schema: &'static str,
    /// What tidegate's own tables call it: the same for all names of one table.
    key: String,
    /// Whom the ledger names.
    pub by: Actor,
    pub(crate) system: System,
}

impl Tables {
    /// The tables of a queue.
    pub fn new(queue_table: &str, system: System, by: Actor) -> Self {
        let schema = match system {
            System::Sqlite => "main.",
            System::Postgres => "",
        };
        let quoted = format!("{schema}\"{}\"", queue_table.replace('"', "\"\""));
        Self { name: queue_table.to_owned(), quoted, schema, key: key(queue_table, system), by, system }
    }

    /// The queue, and what is found besides.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn queue(&self, sql: &mut dyn Sql) -> Result<(Queue, Found), SqlError> {
        let parameter = p(sql, 1);
        let more = format!("{} {}", self.counting_skipped(&parameter), all_there(self.schema, &parameter));
        self.read_queue(sql, &more).await
    }

    pub(crate) async fn read_queue(&self, sql: &mut dyn Sql, more: &str) -> Result<(Queue, Found), SqlError> {
        let select = format!(
            "select {}, f.progress, f.failure \
             from {} q left join {}tidegate_failures f on f.queue = {} and f.update_name = q.update_name",
            queue_columns(sql.dialect().system()),
            self.quoted,
            self.schema,
            p(sql, 1)
        );
        let (rows, stale) = queue_rows(sql.query(&select, &[self.queue_value()]).await?)?;
        let mut found = Found { stale, ..Found::default() };
        let mut queue = Queue { rows, ..Queue::default() };
        let select = format!(
            "select key, value from {schema}tidegate_state where queue = {first} union all \
             select 'gone', f.update_name from {schema}tidegate_failures f where f.queue = {first} \
             and not exists (select 1 from {} q where q.update_name = f.update_name) {more}",
            self.quoted,
            schema = self.schema,
            first = p(sql, 1)
        );
        for row in sql.query(&select, &[self.queue_value()]).await? {
            match (text(&row, 0)?, text(&row, 1)?) {
                (PAUSE, json) => queue.pause = Some(from_json("pause", json)?),
                // Written by another version, it is merely unknown: it is only there to be looked at.
                (ACTIVITY, json) => queue.activity = serde_json::from_str(json).ok(),
                ("gone", _) => found.stale = true,
                (LAST_ENTRY, id) => id.clone_into(&mut found.last_entry),
                (key, value) => drop(skipped::counted(key, value, &mut queue.skipped)),
            }
        }
        let Queue { rows, skipped, .. } = &mut queue;
        for row in rows {
            let before = row.depends_on.as_deref().and_then(|other| skipped.get(other));
            row.skipped_before = before.copied().unwrap_or(0);
            row.skipped = skipped.get(&row.update_name).copied().unwrap_or(0);
        }
        queue.kept = kept(sql).await?;
        Ok((queue, found))
    }

    /// See [`Database::look`](tidegate::scheduler::database::Database::look).
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn look(&self, sql: &mut dyn Sql) -> Result<Option<Queue>, SqlError> {
        let made = self.made(sql).await?;
        if !made.queue_table {
            return Ok(None);
        }
        if made.own_tables {
            let more = if made.skipped { self.counting_skipped(&p(sql, 1)) } else { String::new() };
            return self.read_queue(sql, &more).await.map(|(queue, _)| Some(queue));
        }
        let select = format!("select {} from {} q", queue_columns(sql.dialect().system()), self.quoted);
        let (rows, _) = queue_rows(sql.query(&select, &[]).await?)?;
        Ok(Some(Queue { rows, ..Queue::default() }))
    }

    /// The SQL that reads an update's progress: parameter 1 is its name.
    pub fn select_progress(&self, parameter: &str) -> String {
        format!("select cast(progress_json as text) from {} where update_name = {parameter}", self.quoted)
    }

    /// The SQL that deletes an update's row: parameter 1 is its name.
    pub fn delete_row(&self, parameter: &str) -> String {
        format!("delete from {} where update_name = {parameter}", self.quoted)
    }

    /// The SQL that writes an update's progress: parameter 1 is its name, parameter 2 the progress.
    pub fn update_progress(&self, name: &str, progress: &str) -> String {
        format!("update {} set progress_json = {progress} where update_name = {name}", self.quoted)
    }

    /// PostgreSQL: locks an update's row and reads its progress, leaves a mark that lasts as long as the transaction, and
    /// says which process of the server does it. Parameter 1 is the update's name.
    pub fn lock_row(&self) -> String {
        format!(
            "select progress_json, set_config('tidegate.batch', 'open', true), pg_backend_pid() \
             from {} where update_name = $1{FOR_UPDATE}",
            self.quoted
        )
    }

    /// PostgreSQL: the same under a lease (parameter 2 is what it is on, parameter 3 its epoch), which nobody can take
    /// from then on until the transaction has ended. The last column is NULL where somebody has.
    pub fn lock_row_under_lease(&self) -> String {
        format!(
            "select progress_json, set_config('tidegate.batch', 'open', true), pg_backend_pid(), \
             (select true from tidegate_lease where queue = $2 and epoch = $3 for key share) \
             from {} where update_name = $1{FOR_UPDATE}",
            self.quoted
        )
    }

    /// PostgreSQL: as [`Tables::lock_row`] and [`Tables::lock_row_under_lease`], without a lock on the update's row.
    pub fn read_row(&self, under_lease: bool) -> String {
        let lock = if under_lease { self.lock_row_under_lease() } else { self.lock_row() };
        lock.strip_suffix(FOR_UPDATE).unwrap_or(&lock).to_owned()
    }

    /// PostgreSQL: writes the progress (parameter 2) of the row that [`Tables::lock_row`] locked. Divides by zero
    /// where the row is not there, or the transaction is not the one that was marked: the commit travels with this
    /// statement, and only an error keeps it from happening.
    pub fn write_locked_row(&self) -> LockedRow {
        LockedRow(self.update_progress("$1", "$2"))
    }

    /// PostgreSQL: deletes the row that [`Tables::lock_row`] locked, or divides by zero.
    pub fn delete_locked_row(&self) -> LockedRow {
        LockedRow(self.delete_row("$1"))
    }

    /// See [`Database::progress`](tidegate::scheduler::database::Database::progress).
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn progress(&self, sql: &mut dyn Sql, update_name: &str) -> Result<Option<String>, SqlError> {
        let select = self.select_progress(&p(sql, 1));
        let rows = sql.query(&select, &[update_name.into()]).await?;
        rows.first().map(|row| text(row, 0).map(str::to_owned)).transpose()
    }

    /// See [`Database::enqueue`](tidegate::scheduler::database::Database::enqueue).
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn enqueue(&self, sql: &mut dyn Sql, row: &NewRow) -> Result<bool, SqlError> {
        let insert = format!(
            "insert into {} (update_name, progress_json, depends_on, ordering) values ({}, {}, {}, {}) \
             on conflict do nothing",
            self.quoted,
            p(sql, 1),
            p(sql, 2),
            p(sql, 3),
            p(sql, 4)
        );
        let depends_on = row.depends_on.as_deref().map_or(Value::Null, Value::from);
        let values = [row.update_name.as_str().into(), row.progress.as_str().into(), depends_on, row.ordering.into()];
        self.catch_up(sql, Some(&row.update_name)).await?;
        let inserted = sql.execute(&insert, &values).await? > 0;
        if inserted {
            self.forget_failures(sql, &row.update_name).await?;
            self.set_state::<()>(sql, &withdrawn(&row.update_name), None).await?;
            self.append(sql, Some(&row.update_name), &[Note::of(Action::Queued)], &self.by).await?;
        }
        Ok(inserted)
    }

    /// See [`Database::withdraw`](tidegate::scheduler::database::Database::withdraw).
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn withdraw(&self, sql: &mut dyn Sql, names: &[String]) -> Result<(), SqlError> {
        for name in names {
            self.set_state(sql, &withdrawn(name), Some(&self.by)).await?;
        }
        Ok(())
    }

    /// Whether somebody asked for an update to be taken out of the queue.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn is_withdrawn(&self, sql: &mut dyn Sql, update_name: &str) -> Result<bool, SqlError> {
        let (schema, first, second) = (self.schema, p(sql, 1), p(sql, 2));
        let select = format!("select 1 from {schema}tidegate_state where queue = {first} and key = {second}");
        let rows = sql.query(&select, &[self.queue_value(), Value::from(withdrawn(update_name))]).await?;
        Ok(!rows.is_empty())
    }

    /// See [`Database::cancel`](tidegate::scheduler::database::Database::cancel).
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn cancel(&self, sql: &mut dyn Sql, names: &[String]) -> Result<Vec<String>, SqlError> {
        let delete = self.delete_row(&p(sql, 1));
        let mut cancelled = Vec::new();
        for name in names {
            self.catch_up(sql, Some(name)).await?;
            if sql.execute(&delete, &[name.as_str().into()]).await? > 0 {
                // The host takes out what somebody asked it to.
                let asked = self.withdrawn_by(sql, name).await?;
                let by = asked.as_ref().unwrap_or(&self.by);
                self.append(sql, Some(name), &[Note::of(Action::Cancelled)], by).await?;
                cancelled.push(name.clone());
            }
            self.forget_failures(sql, name).await?;
            self.set_state::<()>(sql, &withdrawn(name), None).await?;
        }
        Ok(cancelled)
    }

    /// Stores or removes the pause.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn set_pause(&self, sql: &mut dyn Sql, pause: Option<&Pause>) -> Result<(), SqlError> {
        self.lock_ledger(sql).await?;
        let before = self.state(sql, PAUSE).await?;
        let after = pause.map(serde_json::to_string).transpose().ok().flatten();
        if before == after {
            return Ok(());
        }
        self.set_state(sql, PAUSE, pause).await?;
        let note = match pause {
            Some(pause) => Note { words: pause.reason.clone(), ..Note::of(Action::Paused) },
            None => Note::of(Action::Resumed),
        };
        self.append(sql, None, &[note], &self.by).await
    }

    /// On whose behalf an update is to be taken out of the queue, where somebody asked the host for it.
    async fn withdrawn_by(&self, sql: &mut dyn Sql, name: &str) -> Result<Option<Actor>, SqlError> {
        let asked = self.state(sql, &withdrawn(name)).await?;
        // A version of before wrote `true`.
        Ok(asked.and_then(|json| serde_json::from_str(&json).ok()))
    }

    async fn state(&self, sql: &mut dyn Sql, key: &str) -> Result<Option<String>, SqlError> {
        let (schema, first, second) = (self.schema, p(sql, 1), p(sql, 2));
        let select = format!("select value from {schema}tidegate_state where queue = {first} and key = {second}");
        let rows = sql.query(&select, &[self.queue_value(), key.into()]).await?;
        rows.first().map(|row| text(row, 0).map(str::to_owned)).transpose()
    }

    /// Stores or removes the running host's activity.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn set_activity<T: Serialize + Sync>(
        &self,
        sql: &mut dyn Sql,
        activity: Option<&T>,
    ) -> Result<(), SqlError> {
        self.set_state(sql, ACTIVITY, activity).await
    }

    async fn set_state<T: Serialize + Sync>(
        &self,
        sql: &mut dyn Sql,
        key: &str,
        value: Option<&T>,
    ) -> Result<(), SqlError> {
        let (queue, key) = (self.queue_value(), Value::from(key));
        let Some(value) = value else {
            let (schema, first, second) = (self.schema, p(sql, 1), p(sql, 2));
            let delete = format!("delete from {schema}tidegate_state where queue = {first} and key = {second}");
            return sql.execute(&delete, &[queue, key]).await.map(drop);
        };
        let upsert = format!(
            "insert into {}tidegate_state (queue, key, value) values ({}, {}, {}) \
             on conflict (queue, key) do update set value = excluded.value",
            self.schema,
            p(sql, 1),
            p(sql, 2),
            p(sql, 3)
        );
        sql.execute(&upsert, &[queue, key, to_json(value)?]).await.map(drop)
    }

    pub(super) fn queue_value(&self) -> Value {
        Value::from(self.key.as_str())
    }
}

/// The key under which somebody asks for an update to be taken out of the queue.
fn withdrawn(update_name: &str) -> String {
    format!("{WITHDRAWN}{update_name}")
}

/// What names a queue table among a database's: SQLite takes names that differ in ASCII case for one.
pub fn key(queue_table: &str, system: System) -> String {
    match system {
        System::Sqlite => queue_table.to_ascii_lowercase(),
        System::Postgres => queue_table.to_owned(),
    }
}

/// The columns of a queue's row that [`queue_row`] reads. On SQLite anything can stand in any column: texts are read as
/// the bytes that they are, and those that are none are told apart.
fn queue_columns(system: System) -> &'static str {
    match system {
        System::Sqlite => {
            "cast(q.update_name as blob), typeof(q.update_name) <> 'text', cast(q.progress_json as blob), \
             cast(q.depends_on as blob), typeof(q.depends_on) not in ('text', 'null'), q.ordering"
        }
        System::Postgres => "q.update_name, false, cast(q.progress_json as text), q.depends_on, false, q.ordering",
    }
}

/// The rows of the queue in their order, and whether a stored failure is not about its row as it is.
fn queue_rows(rows: Vec<Row>) -> Result<(Vec<QueueRow>, bool), SqlError> {
    let mut stale = false;
    let mut rows = rows.into_iter().map(|row| queue_row(row, &mut stale)).collect::<Result<Vec<_>, _>>()?;
    // Ordered here, because databases collate differently.
    rows.sort_by(|a, b| (a.ordering, &a.update_name).cmp(&(b.ordering, &b.update_name)));
    Ok((rows, stale))
}

/// A row of the queue; `stale` is set where the stored failure is not about the row as it is.
fn queue_row(row: Row, stale: &mut bool) -> Result<QueueRow, SqlError> {
    let (update_name, name_problem) = words(&row, 0, Some(1), "update_name");
    let (progress, progress_problem) = words(&row, 2, None, "progress_json");
    let (depends_on, dependency_problem) = words(&row, 3, Some(4), "depends_on");
    let progress = progress.unwrap_or_default();
    let failure = match (row.get(6), row.get(7)) {
        (Some(Value::Text(recorded)), Some(Value::Text(json))) if *recorded == progress => {
            Some(from_json("failure", json)?)
        }
        (Some(Value::Text(_)), _) => {
            *stale = true;
            None
        }
        _ => None,
    };
    let missing = update_name.is_none().then(|| "its update_name is NULL: change or delete the row by SQL".to_owned());
    Ok(QueueRow {
        update_name: update_name.unwrap_or_else(|| "NULL".to_owned()),
        progress,
        depends_on: depends_on.filter(|name| !name.is_empty()),
        ordering: row.get(5).and_then(Value::as_integer).unwrap_or(0),
        failure,
        skipped: 0,
        skipped_before: 0,
        accepts_skipped: false,
        problem: name_problem.or(missing).or(progress_problem).or(dependency_problem),
    })
}

/// The text of a column; and what is wrong with what stands there instead of one, with that as SQL writes it. `flag` is
/// the column that is true where it is no text for the database.
fn words(row: &Row, column: usize, flag: Option<usize>, name: &str) -> (Option<String>, Option<String>) {
    let is_none = flag.and_then(|flag| row.get(flag)).and_then(Value::as_integer) == Some(1);
    let bytes = match row.get(column) {
        Some(Value::Text(text)) => return (Some(text.clone()), None),
        Some(Value::Blob(bytes)) => bytes,
        _ => return (None, None),
    };
    match std::str::from_utf8(bytes) {
        Ok(text) if !is_none => (Some(text.to_owned()), None),
        _ => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let what = if is_none { "not text" } else { "not UTF-8" };
            (Some(format!("x'{digits}'")), Some(format!("its {name} is {what}: change or delete the row by SQL")))
        }
    }
}

/// PostgreSQL: a statement on the row that a batch has locked.
pub struct LockedRow(String);

impl LockedRow {
    /// The statement, which divides by zero where it finds no row, together with those that write `notes` into the ledger.
    pub fn with(&self, notes: &Notes, tables: &Tables, values: &mut Vec<Value>) -> String {
        let noted = notes.insert(tables, "written", values).map(|insert| format!(", noted as ({insert})"));
        format!(
            "with written as ({} and current_setting('tidegate.batch', true) = 'open' returning 1){} \
             select 1 / count(*) from written",
            self.0,
            noted.unwrap_or_default()
        )
    }
}

/// The placeholder of parameter `number`.
pub(super) fn p(sql: &mut dyn Sql, number: usize) -> String {
    sql.dialect().parameter(number)
}

pub(super) fn text(row: &Row, column: usize) -> Result<&str, SqlError> {
    let value = row.get(column).and_then(Value::as_text);
    value.ok_or_else(|| SqlError::permanent(format!("column {} of a row holds no text where it has to", column + 1)))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<Value, SqlError> {
    let json = serde_json::to_string(value);
    json.map(Value::Text).map_err(|error| SqlError::permanent(format!("cannot be written as JSON: {error}")))
}

pub(super) fn from_json<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, SqlError> {
    serde_json::from_str(json)
        .map_err(|error| SqlError::permanent(format!("the {what} stored in tidegate's tables cannot be read: {error}")))
}
