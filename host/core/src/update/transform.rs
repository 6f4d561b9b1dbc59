//! `transform`: new values for columns of a table's rows, made by a program and not by SQL: by a WebAssembly component, or by
//! a function of whoever embeds the host. It walks along the table's key as a backfill does.
//!
//! Each slice reads its rows, locked where others could write meanwhile, hands them over, and writes what it is answered. A
//! fault is narrowed down: the same slice is tried with half its rows, until it goes through or one row is left, which is then
//! the one to blame.

mod cell;
mod rows;
mod write;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

pub use self::cell::{Cell, Cells, RowFunction, RowOutcome, TransformFault, Transformer};
pub use self::rows::cells_of;
use self::rows::{Read, Shape};
use self::write::Write;
use super::explain::no_column;
use super::field::Field;
use super::names::Names;
use super::plan::Draft;
use super::reach::{Reach, SKIPPED};
use super::sql::{Dialect, Estimate, Operation, Right, Sql, SqlError, TableKind, TableName};
use super::walk::{Batch, Key, Moved, Walk};
use super::{Budget, ErrorClass, Handler, Mode, Plan, Problem, Progress, Step, Trial, UpdateError};

/// How long one slice is tried with fewer rows before the host is left to ask for a smaller one.
const NARROWING: Duration = Duration::from_millis(400);

/// Which rows are transformed, and which columns of them are read and written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransformDefinition {
    /// The table.
    pub table: TableName,
    /// The columns to walk along, NOT NULL and indexed in this order.
    pub key: Vec<String>,
    /// The columns whose values are handed over.
    pub read: Vec<String>,
    /// The columns that are written. They must leave the key alone: a row whose key moves ahead of the walk is met again.
    pub write: Vec<String>,
    /// The condition that a row must meet to be handed over; it does not change which keys are walked.
    pub filter: Option<String>,
    /// What else decides what becomes of the rows, such as settings: only its digest is kept.
    pub settings: Vec<(String, String)>,
}

/// The handler of a transform.
pub struct Transform {
    definition: TransformDefinition,
    walk: Walk,
    transformer: Arc<dyn Transformer>,
    /// Why there is nobody to hand rows to.
    broken: Option<TransformFault>,
}

impl Transform {
    /// A handler for this definition, whose rows are handed to this transformer.
    pub fn new(definition: TransformDefinition, transformer: Arc<dyn Transformer>) -> Self {
        let (read, write) = (quoted(&definition.read), quoted(&definition.write));
        let settings = digest(&definition.settings);
        let (identity, broken) = match transformer.identity() {
            Ok(identity) => (Some(identity), None),
            Err(fault) => (None, Some(fault)),
        };
        let parts = [
            ("kind", Some("transform")),
            ("read", Some(read.as_str())),
            ("write", Some(write.as_str())),
            ("where", definition.filter.as_deref()),
            ("component", identity.as_deref()),
            ("settings", settings.as_deref()),
        ];
        let walk = Walk::new(definition.table.clone(), definition.key.clone()).defined_by(parts);
        Self { definition, walk, transformer, broken }
    }

    /// The same, on which so many may work at once on PostgreSQL.
    pub fn with_workers(self, workers: usize) -> Self {
        Self { walk: self.walk.with_workers(workers), ..self }
    }

    /// The same over the rows that `reach` says.
    pub fn reaching(self, reach: Reach) -> Self {
        Self { walk: self.walk.reaching(reach), ..self }
    }

    /// The problem of a key that changes under the walk.
    async fn moves_key(&self, sql: &mut dyn Sql) -> Result<Option<Problem>, UpdateError> {
        let what = match self.walk.moved_by(sql, &self.definition.write).await? {
            None => return Ok(None),
            Some(Moved::Key(column)) => format!("key column \"{column}\""),
            Some(Moved::Unique(column)) => format!("column \"{column}\", which makes the key unique"),
            Some(Moved::Source(column, of)) => {
                format!("column \"{column}\", from which \"{of}\" of the key is computed")
            }
        };
        Ok(Some(Problem::error(
            "write",
            format!("\"write\" names {what}, and a row that moves ahead is met again"),
            "walk along another key, or write another column",
        )))
    }

    /// What there is to say of columns that are not there, or are named for nothing.
    async fn check_columns(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let dialect = sql.dialect();
        let names = Names(dialect.system());
        let TransformDefinition { table: name, read, write, .. } = &self.definition;
        let Some(table) = dialect.describe(sql, name).await? else { return Ok(Vec::new()) };
        let mut problems = Vec::new();
        for (field, columns) in [("read", read), ("write", write)] {
            if columns.is_empty() {
                problems.push(Problem::error(field, format!("\"{field}\" names no column"), "name one or more"));
            }
            for column in columns {
                if names.key_column(&table, column).is_none()
                    || field == "write" && names.column(&table, column).is_none()
                {
                    problems.push(no_column(field, name, &table, column));
                }
            }
        }
        if table.kind == TableKind::Foreign {
            problems.push(Problem::error(
                "table",
                format!("\"{name}\" is a foreign table, whose rows cannot be told apart while they are transformed"),
                "run the update on the server that has the rows",
            ));
        }
        Ok(problems)
    }

    /// The statements of a slice, to be looked at.
    fn drafts(&self, dialect: &dyn Dialect, batch: &Batch, shape: &Shape) -> Vec<Draft> {
        let filter = self.definition.filter.as_deref();
        let source = self.walk.source(dialect);
        let select = shape.select(dialect, &source, &batch.key, &batch.clause(filter));
        let (update, parameters) = shape.draft_of_write(dialect, &source, &names_of(&batch.key));
        vec![
            Draft::of(if filter.is_some() { "where" } else { "read" }, select, batch),
            Draft { field: "write", sql: update, parameters, explained: true },
        ]
    }

    /// Reads, transforms and writes the rows of the batch. The rows that a trigger or a rule kept as they were.
    async fn work(&self, sql: &mut dyn Sql, batch: &Batch) -> Result<u64, Trouble> {
        let shape = self.shape(sql).await?;
        let source = self.walk.source(&*sql.dialect());
        let Read { places, rows } = shape.read(sql, &source, batch, self.definition.filter.as_deref()).await?;
        let count = rows.len();
        if count == 0 {
            return Ok(0);
        }
        let outcomes = self.transformer.transform(rows).await.map_err(|fault| Trouble::of_fault(fault, count))?;
        if outcomes.len() != count {
            let message = format!("it answered {} for {}", number(outcomes.len(), "outcome"), number(count, "row"));
            let fault = TransformFault::of_rows(message, None, "answer one outcome for each row, in the same order");
            return Err(Trouble::of_fault(fault, count));
        }
        let mut writes = Vec::new();
        for (place, outcome) in places.into_iter().zip(outcomes) {
            let values = match outcome {
                RowOutcome::Keep => continue,
                RowOutcome::Write(cells) => shape.values(cells, sql.dialect().system()),
                // Where rows are to be skipped rather than to fail, this is the place to take note of one.
                RowOutcome::Fail(reason) => Err((Failing::Reason, reason)),
            };
            match values {
                Ok(values) => writes.push((place, values)),
                Err((failing, words)) => {
                    let key = shape.key_of(sql, &source, &batch.key, &place).await?;
                    return Err(self.failed(failing, &words, &key).into());
                }
            }
        }
        if writes.is_empty() {
            return Ok(0);
        }
        let key = names_of(&batch.key);
        Ok(self.walk.write_in_place(sql, batch, &Write { shape: &shape, source, key, writes }).await?)
    }

    /// How rows are read and written on this database.
    async fn shape(&self, sql: &mut dyn Sql) -> Result<Shape, UpdateError> {
        let table = self.walk.table(sql).await?;
        let TransformDefinition { table: name, read, write, .. } = &self.definition;
        let dialect = sql.dialect();
        let fields = dialect.fields(sql, name).await?;
        let names = Names(dialect.system());
        let field = |column: &String| -> Result<Field, UpdateError> {
            let found = fields.iter().find(|field| names.equal(&field.name, column)).cloned();
            let numbered = || names.key_column(&table, column).map(|column| Field::of_rowid(&column.name));
            found
                .or_else(numbered)
                .ok_or_else(|| UpdateError::Failed(format!("table \"{name}\" has no column \"{column}\"")))
        };
        let read = read.iter().map(field).collect::<Result<Vec<_>, _>>()?;
        let write = write.iter().map(field).collect::<Result<Vec<_>, _>>()?;
        Ok(Shape::new(dialect.system(), &table, read, write))
    }

    /// The error of a row that cannot be done: its key, and what was said of it, are for the operator's log alone.
    fn failed(&self, failing: Failing, words: &str, key: &[String]) -> UpdateError {
        let key = format!("the row has {} = {}", self.definition.key.join(", "), key.join(", "));
        match failing {
            Failing::Reason => UpdateError::Detailed {
                message: "the component failed a row; the host's log has its key and the reason".to_owned(),
                detail: format!("{key}; the reason: {words}"),
            },
            Failing::Answer => UpdateError::Detailed {
                message: format!("the component's answer does not fit the table: it gave {words}"),
                detail: key,
            },
        }
    }
}

/// How a row failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failing {
    /// The transformer said so.
    Reason,
    /// What it answered cannot be written.
    Answer,
}

/// What keeps a slice from being done.
enum Trouble {
    /// Fewer rows may go through: of so many something is to blame.
    Rows(TransformFault, usize),
    /// Anything else.
    Other(UpdateError),
}

impl Trouble {
    fn of_fault(fault: TransformFault, rows: usize) -> Self {
        match fault.of_rows {
            true => Trouble::Rows(fault, rows),
            false => Trouble::Other(refused(fault)),
        }
    }
}

impl<E: Into<UpdateError>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Trouble::Other(error.into())
    }
}

/// The error of a fault that no choice of rows helps against.
fn refused(fault: TransformFault) -> UpdateError {
    let message = format!("{} ({})", fault.message, fault.hint);
    match fault.detail {
        Some(detail) => UpdateError::Detailed { message, detail },
        None => UpdateError::Failed(message),
    }
}

#[async_trait]
impl Handler for Transform {
    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        match self.broken {
            // What it is, nobody knows: that is told before a row is touched.
            Some(_) => {}
            None => self.walk.accept(progress)?,
        }
        Ok(Mode::Batched)
    }

    fn workers(&self) -> usize {
        self.walk.workers()
    }

    async fn cut(&self, sql: &mut dyn Sql, progress: &Progress, parts: usize) -> Result<Option<Progress>, UpdateError> {
        match self.broken {
            Some(_) => Ok(None),
            None => self.walk.cut(sql, progress, parts).await,
        }
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        if let Some(fault) = &self.broken {
            return Err(refused(fault.clone()));
        }
        let began = Instant::now();
        let mut items = budget.items;
        loop {
            let batch = self.walk.batch(sql, progress, Budget { items }).await?;
            let (fault, rows) = match self.work(sql, &batch).await {
                Ok(skipped) => return Ok(batch.step(skipped, SKIPPED)),
                Err(Trouble::Other(error)) => return Err(error),
                Err(Trouble::Rows(fault, rows)) => (fault, rows),
            };
            if items == 1 || rows == 1 {
                return Err(self.to_blame(sql, &batch, fault).await?);
            }
            if began.elapsed() >= NARROWING {
                let message = format!("{}, and is tried with fewer rows", fault.message);
                return Err(SqlError { detail: fault.detail, ..SqlError::new(ErrorClass::Transient, message) }.into());
            }
            items = batch.items.min(items).div_ceil(2);
        }
    }

    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        match self.broken {
            Some(_) => Ok(None),
            None => self.walk.estimate(sql, progress).await,
        }
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let ready = match &self.broken {
            Some(fault) => Err(fault.clone()),
            None => self.transformer.prepare().await,
        };
        let mut problems: Vec<Problem> = Vec::new();
        problems.extend(ready.err().map(|fault| Problem::error("component", fault.message, fault.hint)));
        problems.extend(self.walk.check(sql, Some(Operation::Update)).await?);
        problems.extend(self.check_columns(sql).await?);
        if problems.iter().any(Problem::is_error) {
            return Ok(problems);
        }
        if let Some(problem) = self.moves_key(sql).await? {
            problems.push(problem);
            return Ok(problems);
        }
        let shape = self.shape(sql).await?;
        let drafts = |dialect: &dyn Dialect, batch: &Batch| self.drafts(dialect, batch, &shape);
        self.walk.check_on(sql, problems, &[Right::Select, Right::Update], drafts).await
    }

    async fn trial(&self, sql: &mut dyn Sql, place: f64, budget: Budget) -> Result<Trial, UpdateError> {
        if let Some(fault) = &self.broken {
            return Ok(Trial::Refused(Problem::error("component", fault.message.clone(), fault.hint.clone())));
        }
        Ok(Trial::Batch(self.walk.ahead(sql, place, budget).await?.0))
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Option<Plan>, UpdateError> {
        let shape = self.shape(sql).await?;
        self.walk.plan(sql, progress, budget, |dialect, batch| self.drafts(dialect, batch, &shape)).await.map(Some)
    }
}

impl Transform {
    /// The error of the one row that is left of a batch, which is to blame for the fault.
    async fn to_blame(
        &self,
        sql: &mut dyn Sql,
        batch: &Batch,
        fault: TransformFault,
    ) -> Result<UpdateError, UpdateError> {
        let shape = self.shape(sql).await?;
        let source = self.walk.source(&*sql.dialect());
        let Read { places, .. } = shape.read(sql, &source, batch, self.definition.filter.as_deref()).await?;
        let mut keys = Vec::new();
        for place in &places {
            keys.push(shape.key_of(sql, &source, &batch.key, place).await?.join(", "));
        }
        let key = format!("the row has {} = {}", self.definition.key.join(", "), keys.join("; "));
        let detail = fault.detail.into_iter().fold(key, |told, detail| format!("{told}; {detail}"));
        let message = format!("one row, whose key the host's log has: {} ({})", fault.message, fault.hint);
        Ok(UpdateError::Detailed { message, detail })
    }
}

fn names_of(key: &Key) -> Vec<String> {
    key.iter().map(|column| column.name.clone()).collect()
}

/// Names as the pinned definition keeps them: whatever is in one, it is read as that name.
fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect::<Vec<_>>().join(", ")
}

/// What settings are told apart by: they may be secrets.
fn digest(settings: &[(String, String)]) -> Option<String> {
    if settings.is_empty() {
        return None;
    }
    let mut sha = Sha256::new();
    for part in settings.iter().flat_map(|(key, value)| [key, value]) {
        sha.update(part.len().to_le_bytes());
        sha.update(part.as_bytes());
    }
    Some(sha.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

fn number(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
