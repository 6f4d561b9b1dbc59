//! `tidegate recipe`: a change of the schema as a chain of ordinary updates, to be reviewed.

mod chain;
mod look;
mod not_null;
mod rename;
mod split;
mod widen;

use tidegate::scheduler::database::Session;
use tidegate::update::SqlError;
use tidegate::update::sql::{System, TableName};

use super::enqueue::selected;
use super::error::CliError;
use super::{Context, output, wiring};
use chain::Chain;

/// Print a change of a table as ordinary updates, for the database as it is, to be reviewed and added to the configuration
///
/// Nothing is changed. The updates run one after the other, as a job or as they are queued; where the application has to be
/// deployed in between, the text says so.
#[derive(Debug, clap::Args)]
pub(super) struct Recipe {
    #[command(subcommand)]
    which: Which,
}

#[derive(Debug, clap::Subcommand)]
enum Which {
    /// Make a primary key of type integer a bigint, while the application writes (PostgreSQL)
    WidenKey {
        /// The column: TABLE.COLUMN, or SCHEMA.TABLE.COLUMN
        column: String,
        #[command(flatten)]
        on: On,
    },
    /// Give a column another name, over two deploys of the application
    RenameColumn {
        /// The column: TABLE.COLUMN, or SCHEMA.TABLE.COLUMN
        column: String,
        /// Its new name
        new: String,
        #[command(flatten)]
        on: On,
    },
    /// Fill a column where it is NULL, and forbid NULL there without a look at all rows under a lock (PostgreSQL)
    AddNotNull {
        /// The column: TABLE.COLUMN, or SCHEMA.TABLE.COLUMN
        column: String,
        /// What stands there in place of NULL, as SQL; the column's default where it has one
        #[arg(long, value_name = "SQL")]
        value: Option<String>,
        #[command(flatten)]
        on: On,
    },
    /// Move columns of a table to one of their own with the same key, over two deploys of the application
    SplitTable {
        /// The table: TABLE, or SCHEMA.TABLE
        table: String,
        /// The new table's name
        into: String,
        /// The columns that move
        #[arg(long, value_name = "COLUMNS", value_delimiter = ',', required = true)]
        columns: Vec<String>,
        #[command(flatten)]
        on: On,
    },
}

/// On which database.
#[derive(Debug, clap::Args)]
struct On {
    /// For this database; the first where nothing is said
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
}

/// Why there is no recipe.
enum Refusal {
    /// It does not fit what is there.
    Unfit(CliError),
    Sql(SqlError),
}

impl Refusal {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unfit(CliError::usage(message.into()).hint(hint.into()))
    }
}

impl From<SqlError> for Refusal {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

/// A column, by name.
struct ColumnName {
    table: TableName,
    column: String,
}

impl Recipe {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let (Which::WidenKey { on, .. }
        | Which::RenameColumn { on, .. }
        | Which::AddNotNull { on, .. }
        | Which::SplitTable { on, .. }) = &self.which;
        let config = context.config()?;
        let databases = selected(&config, on.database.as_deref())?;
        let Some(database) = databases.first() else {
            return Err(CliError::usage("the configuration has no database").hint("add a [[database]]"));
        };
        let refused = || CliError::failure(format!("cannot look at database \"{}\"", database.name));
        let opened = wiring::open(database)?;
        let session = opened.inspect().await;
        let chain = match session {
            Ok(mut session) => self.chain(&mut *session, database.target.system()).await,
            Err(error) => Err(error.into()),
        };
        opened.close().await;
        let chain = chain.map_err(|refusal| match refusal {
            Refusal::Unfit(error) => error,
            Refusal::Sql(error) => refused().because_of_database(error),
        })?;
        let known = config.updates_of(&database.name).map(|update| update.name.clone()).collect::<Vec<_>>();
        let only = (config.databases.len() > 1).then_some(database.name.as_str());
        output::print(chain.told(only, &known).trim_end())
    }

    async fn chain(&self, session: &mut dyn Session, system: System) -> Result<Chain, Refusal> {
        let sql = session.as_sql();
        match &self.which {
            Which::WidenKey { column, .. } => widen::chain(sql, &column_name(column, system)?).await,
            Which::RenameColumn { column, new, .. } => rename::chain(sql, &column_name(column, system)?, new).await,
            Which::AddNotNull { column, value, .. } => {
                not_null::chain(sql, &column_name(column, system)?, value.as_deref()).await
            }
            Which::SplitTable { table, into, columns, .. } => {
                let mut names = look::names(table, system);
                let (name, schema) = (names.pop(), names.pop());
                let Some(name) = name.filter(|_| names.is_empty()) else {
                    return Err(Refusal::new(format!("\"{table}\" names no table"), "write TABLE, or SCHEMA.TABLE"));
                };
                split::chain(sql, &TableName { schema, name }, into, columns).await
            }
        }
    }
}

fn column_name(text: &str, system: System) -> Result<ColumnName, Refusal> {
    let mut names = look::names(text, system);
    match (names.pop(), names.pop(), names.pop()) {
        (Some(column), Some(name), schema) if names.is_empty() => {
            Ok(ColumnName { table: TableName { schema, name }, column })
        }
        _ => Err(Refusal::new(format!("\"{text}\" names no column"), "write TABLE.COLUMN, or SCHEMA.TABLE.COLUMN")),
    }
}
