//! `copy`: inserts the rows of a table into another, walking along its key.
//!
//! Its progress is the walk's, with the rows that conflicts kept out so far as `left_out`, where there are any.

use async_trait::async_trait;

use super::plan::Draft;
use serde_json::Value as Json;

use super::sql::{Dialect, Estimate, Right, Sql, System, TableName, Value};
use super::walk::plan::check_rights;
use super::walk::{self, Batch, Names, Walk};
use super::{Budget, Handler, Mode, Next, Opening, Plan, Problem, Progress, Step, UpdateError};

/// What a copy copies, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyDefinition {
    /// The table that is copied from.
    pub table: TableName,
    /// The columns to walk along, NOT NULL and indexed in this order.
    pub key: Vec<String>,
    /// The table that is copied into.
    pub into: TableName,
    /// What is copied, in the order of the INSERT; at least one column.
    pub columns: Vec<CopyColumn>,
    /// The condition that a row must meet to be copied; it does not change which keys are walked.
    pub filter: Option<String>,
    /// What becomes of a row that the target has already.
    pub on_conflict: OnConflict,
}

/// A column of the target, and what is written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyColumn {
    /// The column's name in the target.
    pub target: String,
    /// What is written there.
    pub source: CopySource,
}

/// What is written to a column of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// The column of the same name.
    SameName,
    /// An expression in SQL.
    Expression(String),
}

/// What becomes of a row that breaks a unique constraint of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// The batch fails.
    #[default]
    Error,
    /// The row that is there stays, and the batch goes on.
    Ignore,
}

impl CopyColumn {
    fn source(&self, dialect: &dyn Dialect) -> String {
        match &self.source {
            CopySource::SameName => dialect.quote(&self.target),
            // A comment at its end cannot swallow what follows.
            CopySource::Expression(expression) => format!("{expression}\n"),
        }
    }
}

/// The handler of a copy.
pub struct Copy {
    definition: CopyDefinition,
    walk: Walk,
}

impl Copy {
    /// A handler for this definition.
    pub fn new(definition: CopyDefinition) -> Self {
        let walk = Walk::new(definition.table.clone(), definition.key.clone());
        Self { definition, walk }
    }

    /// The INSERT of the rows that meet `clause`.
    fn statement(&self, dialect: &dyn Dialect, clause: &str) -> String {
        let CopyDefinition { table, into, columns, on_conflict, .. } = &self.definition;
        let targets: Vec<String> = columns.iter().map(|column| dialect.quote(&column.target)).collect();
        let sources: Vec<String> = columns.iter().map(|column| column.source(dialect)).collect();
        // Without a WHERE clause SQLite takes "ON" for the beginning of a join.
        let clause = if clause.is_empty() { "\nWHERE true" } else { clause };
        let conflict = match on_conflict {
            OnConflict::Error => "",
            OnConflict::Ignore => "\nON CONFLICT DO NOTHING",
        };
        // PostgreSQL's GENERATED ALWAYS AS IDENTITY refuses values that are not asked for so.
        let overriding = match dialect.system() {
            System::Sqlite => "",
            System::Postgres => " OVERRIDING SYSTEM VALUE",
        };
        format!(
            "INSERT INTO {} ({}){overriding}\nSELECT {}\nFROM {}{clause}{conflict}",
            dialect.table(into),
            targets.join(", "),
            sources.join(", "),
            dialect.table(table)
        )
    }

    /// What a batch executes, to be looked at.
    fn drafts(&self, dialect: &dyn Dialect, batch: &Batch) -> Vec<Draft> {
        let statement = self.statement(dialect, &batch.clause(self.definition.filter.as_deref()));
        vec![Draft::of("columns", statement, batch)]
    }

    /// Sequences that copied values leave behind: PostgreSQL's next insert without a value would meet one of these.
    async fn check_sequences(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        const SEQUENCE: &str = "SELECT pg_get_serial_sequence($1::text, $2::text)";
        let dialect = sql.dialect();
        if dialect.system() != System::Postgres {
            return Ok(Vec::new());
        }
        let into = &self.definition.into;
        let mut problems = Vec::new();
        for column in &self.definition.columns {
            let values = [Value::from(dialect.table(into)), Value::from(column.target.as_str())];
            let rows = sql.query(SEQUENCE, &values).await?;
            let Some(sequence) = rows.first().and_then(|row| row.first()).and_then(Value::as_text) else { continue };
            problems.push(Problem::warning(
                "columns",
                format!(
                    "sequence {sequence} of column \"{}\" of table \"{into}\" stays behind the values that are copied",
                    column.target
                ),
                format!(
                    "move it before the application inserts there: SELECT setval('{sequence}', (SELECT max({}) FROM {}))",
                    dialect.quote(&column.target),
                    dialect.table(into)
                ),
            ));
        }
        Ok(problems)
    }

    /// What is wrong with the tables and the columns.
    async fn check_names(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let CopyDefinition { table, into, columns, .. } = &self.definition;
        let dialect = sql.dialect();
        let names = Names(dialect.system());
        let Some(target) = dialect.describe(sql, into).await? else {
            return Ok(vec![walk::no_table("into", "into_schema", into)]);
        };
        if names.equal(&table.name, &into.name) && table.schema == into.schema {
            return Ok(vec![Problem::error(
                "into",
                format!("table \"{table}\" would be copied into itself"),
                "name another table: the walk would meet the rows that it inserts",
            )]);
        }
        let unknown = columns.iter().filter(|column| names.column(&target, &column.target).is_none());
        let mut problems: Vec<Problem> =
            unknown.map(|column| walk::no_column("columns", into, &target, &column.target)).collect();
        if let Some(source) = dialect.describe(sql, table).await? {
            let same = columns.iter().filter(|column| column.source == CopySource::SameName);
            let unknown = same.filter(|column| names.column(&source, &column.target).is_none());
            problems.extend(unknown.map(|column| walk::no_column("columns", table, &source, &column.target)));
        }
        Ok(problems)
    }
}

#[async_trait]
impl Handler for Copy {
    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        self.walk.accept(&apart(progress)?.0)?;
        Ok(Mode::Batched)
    }

    fn opening(&self) -> Opening {
        Opening::Snapshot
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let CopyDefinition { into, filter, on_conflict, .. } = &self.definition;
        let (walked, mut left_out) = apart(progress)?;
        let batch = self.walk.batch(sql, &walked, budget).await?;
        let mut notes = batch.notes.clone();
        if batch.items > 0 {
            let statement = self.statement(&*sql.dialect(), &batch.clause(filter.as_deref()));
            let written = sql.execute(&statement, batch.parameters()).await?;
            // Where all rows of the batch were written, none has to be counted.
            let asked = if written >= batch.items {
                written
            } else {
                self.walk.matching(sql, &batch, filter.as_deref()).await?
            };
            let missing = asked.saturating_sub(written);
            match on_conflict {
                OnConflict::Error if missing > 0 => {
                    return Err(UpdateError::Failed(format!(
                        "table \"{into}\" did not take {missing} of {asked} rows, and gave no error: look at its triggers and rules"
                    )));
                }
                OnConflict::Ignore if missing > 0 => {
                    notes.push(format!(
                        "left out {missing} of {asked} rows of this batch, which conflict with rows of \"{into}\""
                    ));
                }
                _ => {}
            }
            left_out += missing;
        }
        let next = match batch.next {
            Next::Continue(walked) => Next::Continue(together(walked, left_out)),
            Next::Finished => {
                if left_out > 0 {
                    notes.push(format!(
                        "{left_out} rows in all were not copied, because they conflict with rows that \"{into}\" has: compare the tables"
                    ));
                }
                Next::Finished
            }
        };
        Ok(Step::new(batch.items, next).noting(notes))
    }

    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        self.walk.estimate(sql, &apart(progress)?.0).await
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let mut problems = self.walk.check(sql).await?;
        problems.extend(self.check_names(sql).await?);
        if !problems.iter().any(Problem::is_error) {
            let lacking = check_rights(sql, &self.definition.into, &[Right::Insert]).await?;
            problems.extend(lacking.map(|problem| Problem { field: "into", ..problem }));
        }
        if problems.iter().any(Problem::is_error) {
            return Ok(problems);
        }
        let sequences = self.check_sequences(sql).await?;
        let drafts = |dialect: &dyn Dialect, batch: &Batch| {
            let reading = self.definition.filter.as_deref().map(|filter| {
                let table = dialect.table(&self.definition.table);
                Draft::of("where", format!("SELECT 1 FROM {table}{}", batch.clause(Some(filter))), batch)
            });
            reading.into_iter().chain(self.drafts(dialect, batch)).collect()
        };
        let found = self.walk.check_with(sql, &[Right::Select], drafts).await?;
        Ok(found.into_iter().chain(sequences).collect())
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Option<Plan>, UpdateError> {
        self.walk.plan(sql, &apart(progress)?.0, budget, |dialect, batch| self.drafts(dialect, batch)).await.map(Some)
    }
}

/// The member of a copy's progress that is not the walk's.
const LEFT_OUT: &str = "left_out";

/// The walk's progress, and the rows left out so far.
fn apart(progress: &Progress) -> Result<(Progress, u64), UpdateError> {
    let mut walked = progress.clone();
    let left_out = match walked.0.remove(LEFT_OUT) {
        None => 0,
        Some(number) => number.as_u64().ok_or_else(|| progress.refuse("\"left_out\" is not a number of rows"))?,
    };
    Ok((walked, left_out))
}

/// The progress of the copy.
fn together(mut walked: Progress, left_out: u64) -> Progress {
    if left_out > 0 {
        walked.0.insert(LEFT_OUT.to_owned(), Json::from(left_out));
    }
    walked
}
