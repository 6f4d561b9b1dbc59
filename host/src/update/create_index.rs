//! `create-index`: builds an index, on PostgreSQL concurrently. It is idempotent: a valid index that is the same counts
//! as done, a different one of that name is an error, the leftover of a build that failed is dropped first.

mod postgres;
mod sqlite;

use async_trait::async_trait;

use super::sql::{Dialect, Index, Sql, System, Table, TableName};
use super::walk::{Names, explain, filter_clause, no_table, one_line};
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
            // A comment at the end of one cannot swallow what follows.
            IndexParts::Expressions(expressions) => format!("{}\n", expressions.join("\n, ")),
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
        let dialect = sql.dialect();
        let Some(table) = dialect.describe(sql, &self.definition.table).await? else {
            return Ok(vec![no_table(&self.definition.table)]);
        };
        let names = Names(dialect.system());
        let mut problems = self.check_columns(&table, names);
        problems.extend(self.check_name(&table, names));
        if let (true, Some(filter)) = (problems.is_empty(), &self.definition.filter) {
            let reading = format!("SELECT 1 FROM {}{}", dialect.table(&self.definition.table), filter_clause(filter));
            problems.extend(explain(sql, "where", &reading).await?);
        }
        Ok(problems)
    }
}

impl CreateIndex {
    fn check_columns(&self, table: &Table, names: Names) -> Vec<Problem> {
        let IndexParts::Columns(columns) = &self.definition.parts else { return Vec::new() };
        let known: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        let unknown = columns.iter().filter(|name| names.column(table, name).is_none());
        unknown
            .map(|name| Problem {
                field: "columns",
                message: format!("table \"{}\" has no column \"{name}\"", self.definition.table),
                hint: format!("its columns are {}", known.join(", ")),
            })
            .collect()
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
}
