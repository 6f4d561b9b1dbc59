//! `create-index`: builds an index, on PostgreSQL concurrently. It is idempotent: a valid index that is the same counts
//! as done, a different one of that name is an error, the leftover of a build that failed is dropped first.

mod postgres;
mod sqlite;

use async_trait::async_trait;

use super::sql::{Dialect, Index, Sql, System, Table, TableName};
use super::walk::{Names, explain, filter_clause, no_column, no_table, one_line};
use super::{Budget, Handler, Mode, Next, Problem, Progress, Step, UpdateError};

/// An index to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateIndexDefinition {
    /// The table.
    pub table: TableName,
    /// The index's name; it lives in the table's schema.
    pub index: String,
    /// What is indexed.
    pub parts: IndexParts,
    /// True where no two rows may have equal columns.
    pub unique: bool,
    /// The condition of a partial index.
    pub filter: Option<String>,
    /// An index of the same table that is dropped once this one is there and valid; gone already, so much the better.
    pub replaces: Option<String>,
    /// True where SQLite needs no such index: there the update ends at once.
    pub postgres_only: bool,
}

/// What an index indexes, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexParts {
    /// Columns, by name.
    Columns(Vec<String>),
    /// What stands between the commas of CREATE INDEX, as SQL: expressions, columns with an order or a collation.
    Expressions(Vec<String>),
}

impl IndexParts {
    fn list(&self, dialect: &dyn Dialect) -> String {
        match self {
            IndexParts::Columns(names) => names.iter().map(|name| dialect.quote(name)).collect::<Vec<_>>().join(", "),
            IndexParts::Expressions(expressions) => listed(expressions),
        }
    }

    /// Whether an index has these parts, as far as its description tells.
    fn resemble(&self, found: &Index, names: Names) -> bool {
        match self {
            IndexParts::Columns(columns) => {
                let same = |(found, wanted): (&Option<String>, &String)| {
                    found.as_ref().is_some_and(|found| names.equal(found, wanted))
                };
                found.columns.len() == columns.len() && found.columns.iter().zip(columns).all(same)
            }
            IndexParts::Expressions(expressions) => found.columns.len() == expressions.len(),
        }
    }
}

impl CreateIndexDefinition {
    /// What the statement that makes the index says after `CREATE [UNIQUE] INDEX`, with names as given.
    fn tail(&self, dialect: &dyn Dialect, index: &str, table: &str) -> String {
        let filter = self.filter.as_deref().map(filter_clause).unwrap_or_default();
        format!("{index} ON {table} ({}){filter}", self.parts.list(dialect))
    }

    fn head(&self) -> &'static str {
        if self.unique { "CREATE UNIQUE INDEX" } else { "CREATE INDEX" }
    }

    /// The error of an index that has the name and is not the one wanted.
    fn differs(&self, found: &str, wanted: &str) -> UpdateError {
        UpdateError::Failed(format!(
            "there is a different index \"{}\" already: found {}, wanted {}",
            self.index,
            one_line(found),
            one_line(wanted)
        ))
    }
}

/// The handler that builds an index.
pub struct CreateIndex {
    definition: CreateIndexDefinition,
    system: System,
}

impl CreateIndex {
    /// A handler for this definition on a database of this system.
    pub fn new(definition: CreateIndexDefinition, system: System) -> Self {
        Self { definition, system }
    }

    fn accept(progress: &Progress) -> Result<(), UpdateError> {
        if progress.0.is_empty() { Ok(()) } else { Err(progress.refuse("building an index has no progress but {}")) }
    }
}

/// The index, once it is there, as one item.
fn finished() -> Step {
    Step { items: 1, next: Next::Finished }
}

/// A list of SQL texts with commas between them: a comment at the end of one cannot swallow what follows.
fn listed(expressions: &[String]) -> String {
    format!("{}\n", expressions.join("\n, "))
}

#[async_trait]
impl Handler for CreateIndex {
    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        Self::accept(progress)?;
        Ok(match self.system {
            System::Sqlite => Mode::OneShot,
            System::Postgres => Mode::OneShotOutside,
        })
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, _budget: Budget) -> Result<Step, UpdateError> {
        Self::accept(progress)?;
        if self.system == System::Postgres {
            return Err(UpdateError::Failed("PostgreSQL builds no index concurrently in a transaction".to_owned()));
        }
        if self.definition.postgres_only {
            return Ok(Step { items: 0, next: Next::Finished });
        }
        sqlite::build(sql, &self.definition).await?;
        Ok(finished())
    }

    async fn run_outside(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Step, UpdateError> {
        Self::accept(progress)?;
        if self.system == System::Sqlite {
            return Err(UpdateError::Failed("SQLite builds an index in a transaction".to_owned()));
        }
        postgres::build(sql, &self.definition).await?;
        Ok(finished())
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        if self.system == System::Sqlite && self.definition.postgres_only {
            return Ok(Vec::new());
        }
        let dialect = sql.dialect();
        let Some(table) = dialect.describe(sql, &self.definition.table).await? else {
            return Ok(vec![no_table(&self.definition.table)]);
        };
        let names = Names(dialect.system());
        let mut problems = self.check_columns(&table, names);
        problems.extend(self.check_table(&table));
        problems.extend(self.check_name(&table, names));
        problems.extend(self.check_replaced(sql, names).await?);
        if let (true, Some(filter)) = (problems.is_empty(), &self.definition.filter) {
            let reading = format!("SELECT 1 FROM {}{}", dialect.table(&self.definition.table), filter_clause(filter));
            problems.extend(explain(sql, "where", &reading).await?);
        }
        if problems.is_empty() {
            let refused = match self.system {
                System::Sqlite => sqlite::rehearse(sql, &self.definition).await?,
                System::Postgres => postgres::rehearse(sql, &self.definition).await?,
            };
            problems.extend(refused.map(|message| self.refused(&message)));
        }
        Ok(problems)
    }
}

impl CreateIndex {
    fn check_columns(&self, table: &Table, names: Names) -> Vec<Problem> {
        let IndexParts::Columns(columns) = &self.definition.parts else { return Vec::new() };
        let unknown = columns.iter().filter(|name| names.column(table, name).is_none());
        unknown.map(|name| no_column("columns", &self.definition.table, table, name)).collect()
    }

    fn check_table(&self, table: &Table) -> Option<Problem> {
        table.partitioned.then(|| Problem {
            field: "table",
            message: format!(
                "table \"{}\" is partitioned, and PostgreSQL builds no index on all partitions concurrently",
                self.definition.table
            ),
            hint:
                "define an update for each partition; then CREATE INDEX on the table itself takes theirs for its own, \
                   at once"
                    .to_owned(),
        })
    }

    fn check_name(&self, table: &Table, names: Names) -> Option<Problem> {
        let index = &self.definition.index;
        if names.0 == System::Postgres && index.len() > postgres::LONGEST_NAME {
            return Some(Problem {
                field: "index",
                message: format!("\"{index}\" is longer than the {} bytes of a name", postgres::LONGEST_NAME),
                hint: "take a shorter name: PostgreSQL would cut it off".to_owned(),
            });
        }
        let found = table.indexes.iter().find(|found| names.equal(&found.name, index))?;
        (found.valid && !self.resembles(found, names)).then(|| Problem {
            field: "index",
            message: format!(
                "there is a different index \"{index}\" already: {}",
                found
                    .definition
                    .as_deref()
                    .map_or_else(|| "one that the table's definition makes".to_owned(), one_line)
            ),
            hint: "take another name, or drop the index that is there".to_owned(),
        })
    }

    /// Whether an index is the one wanted, as far as its description tells: its condition is not compared.
    fn resembles(&self, found: &Index, names: Names) -> bool {
        let wanted = &self.definition;
        found.unique == wanted.unique && found.partial == wanted.filter.is_some() && wanted.parts.resemble(found, names)
    }

    async fn check_replaced(&self, sql: &mut dyn Sql, names: Names) -> Result<Option<Problem>, UpdateError> {
        let Some(replaced) = &self.definition.replaces else { return Ok(None) };
        let problem = |message, hint: &str| Ok(Some(Problem { field: "replaces", message, hint: hint.to_owned() }));
        if names.equal(replaced, &self.definition.index) {
            let message = format!("index \"{replaced}\" cannot replace itself");
            return problem(message, "give the new index another name");
        }
        let obstacle = match self.system {
            System::Sqlite => sqlite::replaced(sql, &self.definition).await,
            System::Postgres => postgres::replaced(sql, &self.definition).await,
        };
        match obstacle {
            Ok(_) => Ok(None),
            Err(UpdateError::Failed(message)) => problem(message, "name an index of this table, or leave the key out"),
            Err(error) => Err(error),
        }
    }

    /// The problem of an index that the database would not build.
    fn refused(&self, message: &str) -> Problem {
        let field = match self.definition.parts {
            IndexParts::Columns(_) => "columns",
            IndexParts::Expressions(_) => "expressions",
        };
        Problem {
            field,
            message: one_line(message),
            hint: "this is what the database says to such an index on a copy of the table without rows".to_owned(),
        }
    }
}

/// The error of an index that is to be replaced and cannot be.
fn not_replaceable(index: &str, why: &str) -> UpdateError {
    UpdateError::Failed(format!("index \"{index}\" cannot be replaced: {why}"))
}
