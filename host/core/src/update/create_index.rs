//! `create-index`: builds an index, on PostgreSQL concurrently. It is idempotent: a valid index that is the same counts
//! as done, a different one of that name is an error, the leftover of a build that failed is dropped first.

mod postgres;
mod sqlite;

use async_trait::async_trait;

use super::explain::{explain, no_column, no_table, one_line};
use super::names::Names;
use super::plan::Planned;
use super::reach::{OnSkip, Reach, within_reach};
use super::sql::{Dialect, Right, Sql, System, Table, TableKind, TableName};
use super::walk::plan::check_rights;
use super::walk::{digest, filter_clause};
use super::{Budget, Handler, Mode, Plan, Problem, Progress, Step, Trial, UpdateError};

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

    /// The problem of such an index.
    fn occupied(&self, found: &str) -> Problem {
        Problem::error(
            "index",
            format!("there is a different index \"{}\" already: {found}", self.index),
            "take another name, or drop the index that is there",
        )
    }
}

/// How statements that are only planned reach the table: they read no row, and an index holds every row, whoever builds it.
/// So no policy has a say.
const PLANNING: Reach = Reach { only: false, row_security: true, on_skip: OnSkip::Error };

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

    /// True where the definition wants no such index on this system.
    fn is_not_for_here(&self) -> bool {
        self.system == System::Sqlite && self.definition.postgres_only
    }

    fn accept(progress: &Progress) -> Result<(), UpdateError> {
        if progress.0.is_empty() { Ok(()) } else { Err(progress.refuse("building an index has no progress but {}")) }
    }
}

/// The index, once it is there, as one item.
fn finished() -> Step {
    Step::finished(1)
}

/// A list of SQL texts with commas between them: a comment at the end of one cannot swallow what follows.
fn listed(expressions: &[String]) -> String {
    format!("{}\n", expressions.join("\n, "))
}

#[async_trait]
impl Handler for CreateIndex {
    fn digest(&self) -> Option<String> {
        Some(digest([format!("{:?}", self.definition).as_str()]))
    }

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
        if self.is_not_for_here() {
            return Ok(Step::finished(0));
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

    async fn abandon(&self, sql: &mut dyn Sql) -> Result<Option<String>, UpdateError> {
        match self.system {
            System::Sqlite => Ok(None),
            System::Postgres => postgres::abandon(sql, &self.definition).await,
        }
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let wanted = &self.definition;
        if self.is_not_for_here() {
            return Ok(Vec::new());
        }
        let dialect = sql.dialect();
        let Some(table) = dialect.describe(sql, &wanted.table).await? else {
            return Ok(vec![no_table("table", "schema", &wanted.table)]);
        };
        let names = Names(self.system);
        let mut problems = self.check_columns(&table, names);
        problems.extend(self.check_table(&table));
        problems.extend(self.check_name(sql).await?);
        problems.extend(self.check_replaced(sql, names).await?);
        problems.extend(check_rights(sql, &wanted.table, &[Right::Own, Right::Create]).await?);
        if let (true, Some(filter)) = (problems.is_empty(), &wanted.filter) {
            let reading = format!("SELECT 1 FROM {}{}", dialect.table(&wanted.table), filter_clause(filter));
            problems.extend(within_reach!(PLANNING, sql, explain(sql, "where", &reading))?);
        }
        if problems.is_empty() {
            problems.extend(self.check_statement(sql).await?);
        }
        Ok(problems)
    }

    async fn trial(&self, _sql: &mut dyn Sql, _place: f64, _budget: Budget) -> Result<Trial, UpdateError> {
        let (why, hint) = match self.system {
            System::Postgres => (
                "PostgreSQL builds an index concurrently in no transaction, and so in none that could be rolled back",
                "build it on a copy of the database, or on a standby promoted for that; `tidegate check --plan` shows the \
                 statement",
            ),
            System::Sqlite => (
                "SQLite builds an index in one go, and nobody could write meanwhile",
                "build it on a copy of the file (VACUUM INTO 'copy.db'); `tidegate check --plan` shows the statement",
            ),
        };
        Ok(Trial::Refused(Problem::error("kind", why, hint)))
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, _budget: Budget) -> Result<Option<Plan>, UpdateError> {
        Self::accept(progress)?;
        let (dialect, wanted) = (sql.dialect(), &self.definition);
        if self.is_not_for_here() {
            return Ok(Some(Plan::nothing()));
        }
        // One that is there and different is a problem, and no plan.
        let (there, creates, drops) = match self.system {
            System::Sqlite => (
                sqlite::find(sql, wanted).await?.is_some(),
                sqlite::statement(&*dialect, wanted),
                sqlite::replaced(sql, wanted).await?.map(|index| sqlite::drop_statement(&index)),
            ),
            System::Postgres => (
                postgres::is_there(sql, wanted).await?,
                postgres::statement(&*dialect, wanted),
                postgres::replaced(sql, wanted).await?.map(|index| postgres::drop_statement(&index)),
            ),
        };
        let statements: Vec<Planned> =
            (!there).then_some(creates).into_iter().chain(drops).map(Planned::unexplained).collect();
        if statements.is_empty() {
            return Ok(Some(Plan::nothing()));
        }
        // An index that is there already leaves no row to go over.
        let estimate = if there { None } else { Plan::rows_of(sql, &wanted.table).await? };
        Ok(Some(Plan { statements, estimate, warnings: Vec::new() }))
    }
}

impl CreateIndex {
    fn check_columns(&self, table: &Table, names: Names) -> Vec<Problem> {
        let IndexParts::Columns(columns) = &self.definition.parts else { return Vec::new() };
        let unknown = columns.iter().filter(|name| names.column(table, name).is_none());
        unknown.map(|name| no_column("columns", &self.definition.table, table, name)).collect()
    }

    fn check_table(&self, table: &Table) -> Option<Problem> {
        let problem = || {
            Problem::error(
                "table",
                format!(
                    "table \"{}\" is partitioned, and PostgreSQL builds no index on all partitions concurrently",
                    self.definition.table
                ),
                "define an update for each partition; then CREATE INDEX on the table itself takes theirs for its own, at once",
            )
        };
        (table.kind == TableKind::Partitioned).then(problem)
    }

    /// Whether the name is to be had.
    async fn check_name(&self, sql: &mut dyn Sql) -> Result<Option<Problem>, UpdateError> {
        let index = &self.definition.index;
        if self.system == System::Postgres && index.len() > postgres::LONGEST_NAME {
            return Ok(Some(Problem::error(
                "index",
                format!("\"{index}\" is longer than the {} bytes of a name", postgres::LONGEST_NAME),
                "take a shorter name: PostgreSQL would cut it off",
            )));
        }
        let bearer = sql.dialect().bearer(sql, &self.definition.table, index).await?;
        Ok(bearer.map(|bearer| {
            Problem::error("index", format!("the name \"{index}\" is taken: {bearer} bears it"), "take another name")
        }))
    }

    /// Whether the statement can be executed, and whether a different index of that name is there.
    async fn check_statement(&self, sql: &mut dyn Sql) -> Result<Option<Problem>, UpdateError> {
        let wanted = &self.definition;
        let field = match wanted.parts {
            IndexParts::Columns(_) => "columns",
            IndexParts::Expressions(_) => "expressions",
        };
        if self.system == System::Postgres {
            let problem = postgres::check(sql, wanted, field).await?;
            return Ok(match problem {
                None if sql.shares_session() && postgres::is_needed(sql, wanted).await? => {
                    let [message, hint] = postgres::SHARED;
                    Some(Problem::error("index", message, hint))
                }
                problem => problem,
            });
        }
        match sqlite::find(sql, wanted).await? {
            None => {
                let statement = sqlite::statement(&*sql.dialect(), wanted);
                explain(sql, field, &statement).await
            }
            Some(found) => Ok((!found.same).then(|| wanted.occupied(&one_line(&found.definition)))),
        }
    }

    async fn check_replaced(&self, sql: &mut dyn Sql, names: Names) -> Result<Option<Problem>, UpdateError> {
        let Some(replaced) = &self.definition.replaces else { return Ok(None) };
        let problem = |message: String, hint: &str| Ok(Some(Problem::error("replaces", message, hint)));
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
}

/// The error of an index that is to be replaced and cannot be.
fn not_replaceable(index: &str, why: &str) -> UpdateError {
    UpdateError::Failed(format!("index \"{index}\" cannot be replaced: {why}"))
}
