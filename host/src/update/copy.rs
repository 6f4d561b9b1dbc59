//! `copy`: inserts the rows of a table into another, walking along its key.

use async_trait::async_trait;

use super::plan::Draft;
use super::sql::{Dialect, Estimate, Right, Sql, TableName};
use super::walk::plan::check_rights;
use super::walk::{self, Batch, Names, Walk};
use super::{Budget, Handler, Mode, Plan, Problem, Progress, Step, UpdateError};

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
        format!(
            "INSERT INTO {} ({})\nSELECT {}\nFROM {}{clause}{conflict}",
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
        self.walk.accept(progress)?;
        Ok(Mode::Batched)
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let batch = self.walk.batch(sql, progress, budget).await?;
        if batch.items > 0 {
            let statement = self.statement(&*sql.dialect(), &batch.clause(self.definition.filter.as_deref()));
            sql.execute(&statement, batch.parameters()).await?;
        }
        Ok(Step::new(batch.items, batch.next))
    }

    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        self.walk.estimate(sql, progress).await
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let mut problems = self.walk.check(sql).await?;
        problems.extend(self.check_names(sql).await?);
        if problems.is_empty() {
            let lacking = check_rights(sql, &self.definition.into, &[Right::Insert]).await?;
            problems.extend(lacking.map(|problem| Problem { field: "into", ..problem }));
        }
        if !problems.is_empty() {
            return Ok(problems);
        }
        let drafts = |dialect: &dyn Dialect, batch: &Batch| {
            let reading = self.definition.filter.as_deref().map(|filter| {
                let table = dialect.table(&self.definition.table);
                Draft::of("where", format!("SELECT 1 FROM {table}{}", batch.clause(Some(filter))), batch)
            });
            reading.into_iter().chain(self.drafts(dialect, batch)).collect()
        };
        self.walk.check_with(sql, &[Right::Select], drafts).await
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Option<Plan>, UpdateError> {
        self.walk.plan(sql, progress, budget, |dialect, batch| self.drafts(dialect, batch)).await.map(Some)
    }
}
