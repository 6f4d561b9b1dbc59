//! `tidegate handler test`.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value as Json;
use tidegate::scheduler::database::Holder;
use tidegate::update::sql::TableName;
use tidegate::update::{Cells, RowOutcome, TransformFault, Transformer, UpdateError, cells_of};
use tidegate_database::Options;
use tidegate_wasm::handler_hint;

use super::super::error::CliError;
use super::super::output;
use super::load::Component;
use super::rows;

/// Hand rows to a transform, and show what it makes of each
///
/// The rows come from a file, or from a table that is read and not written. Nothing is changed. The exit code is 4 where the
/// component fails, or fails a row.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true))]
pub(super) struct Test {
    #[command(flatten)]
    component: Component,

    /// Rows in a file: a JSON array of rows, each an array of the values of `read` in their order
    #[arg(long, value_name = "FILE", group = "source")]
    rows: Option<PathBuf>,

    /// The database whose rows are read, as in `url` of [[database]]
    #[arg(long, value_name = "URL", group = "source", requires = "table", requires = "read")]
    database: Option<String>,

    /// The table
    #[arg(long, value_name = "NAME", requires = "database")]
    table: Option<String>,

    /// The table's schema
    #[arg(long, value_name = "NAME", requires = "database")]
    schema: Option<String>,

    /// The columns that are handed over, in their order
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', requires = "database")]
    read: Vec<String>,

    /// The columns that would be written: what they hold is shown, too
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', requires = "database")]
    write: Vec<String>,

    /// The condition that a row must meet
    #[arg(long = "where", value_name = "SQL", requires = "database")]
    condition: Option<String>,

    /// How many rows are read at most
    #[arg(long, value_name = "NUMBER", default_value_t = 20, requires = "database")]
    limit: u32,

    /// Print JSON: an object with `version` (1), `passed`, `fuel`, `memory_bytes` and `rows`, each with `read`, `before` (null
    /// where it is not known), `outcome`, `write` and `reason`
    #[arg(long)]
    pub(super) json: bool,
}

/// The shape of the JSON.
#[derive(Serialize)]
struct Report {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    /// True where no row failed.
    passed: bool,
    /// What handing over all rows at once used; null where that failed.
    fuel: Option<u64>,
    memory_bytes: Option<u64>,
    rows: Vec<Tried>,
}

/// What was made of a row.
#[derive(Serialize)]
struct Tried {
    read: Vec<Json>,
    /// What the columns that would be written hold.
    before: Option<Vec<Json>>,
    /// "keep", "write", "fail", or "fault" where the component failed.
    outcome: &'static str,
    /// What would be written.
    write: Option<Vec<Json>>,
    /// Why it failed.
    reason: Option<String>,
}

impl Test {
    pub(super) async fn execute(self) -> Result<(), CliError> {
        let given = match (&self.rows, &self.database) {
            (Some(path), _) => rows::read(path)?.into_iter().map(|row| (row, None)).collect(),
            (None, Some(url)) => self.of_database(url).await?,
            (None, None) => Vec::new(),
        };
        let artifact = self.component.artifact().await;
        let artifact = artifact
            .map_err(|fault| CliError::usage(output::inline(&fault.to_string())).hint(handler_hint(fault.kind)))?;
        let transformer = self.component.transformer(artifact);
        let rows: Vec<Cells> = given.iter().map(|(row, _)| row.clone()).collect();
        let (mut tried, mut fault_of_all, mut used) = (Vec::new(), None, None);
        let outcomes: Vec<Result<RowOutcome, TransformFault>> = match transformer.transform(rows.clone()).await {
            Ok(outcomes) => {
                used = Some(transformer.used());
                outcomes.into_iter().map(Ok).collect()
            }
            Err(fault) => {
                // One of them is to blame: each by itself shows which.
                let mut each = Vec::with_capacity(rows.len());
                for row in rows {
                    let alone = transformer.transform(vec![row]).await;
                    each.push(alone.map(|outcomes| outcomes.into_iter().next().unwrap_or(RowOutcome::Keep)));
                }
                fault_of_all = each.iter().all(Result::is_ok).then_some(fault);
                each
            }
        };
        for ((read, before), outcome) in given.into_iter().zip(outcomes) {
            tried.push(Tried::new(&read, before.as_ref(), outcome));
        }
        let failed = tried.iter().filter(|row| row.reason.is_some()).count();
        let report = Report {
            version: 1,
            passed: failed == 0 && fault_of_all.is_none(),
            fuel: used.map(|used| used.fuel),
            memory_bytes: used.map(|used| used.memory_bytes),
            rows: tried,
        };
        match self.json {
            true => output::print_json(&report)?,
            false => output::print(report.to_string().trim_end())?,
        }
        match (fault_of_all, failed) {
            (Some(fault), _) => Err(CliError::unmet(output::inline(&fault.message)).hint(fault.hint)),
            (None, 0) => Ok(()),
            (None, 1) => Err(CliError::unmet("a row failed")),
            (None, failed) => Err(CliError::unmet(format!("{failed} rows failed"))),
        }
    }

    /// The rows of a table, with what the columns hold that would be written.
    async fn of_database(&self, url: &str) -> Result<Vec<(Cells, Option<Cells>)>, CliError> {
        let failed = || CliError::failure("the rows cannot be read");
        let opened = tidegate_database::open(url, Options::new(Holder::this_process()))
            .map_err(|error| CliError::usage("cannot use the database").because(error))?;
        let table = TableName { schema: self.schema.clone(), name: self.table.clone().unwrap_or_default() };
        let columns: Vec<String> = self.read.iter().chain(&self.write).cloned().collect();
        let read = async {
            let mut session = opened.inspect().await?;
            let sql = session.as_sql();
            // A function in the condition may write: nothing of that stays.
            sql.begin_rehearsal().await?;
            let rows = cells_of(sql, &table, &columns, self.condition.as_deref(), self.limit).await;
            sql.end_rehearsal().await?;
            rows
        };
        let rows: Result<Vec<Cells>, UpdateError> = read.await;
        opened.close().await;
        let rows = rows.map_err(|error| match error {
            UpdateError::Sql(error) => failed().because_of_database(error),
            error => CliError::usage(error.to_string()),
        })?;
        let split = |mut row: Cells| {
            let written = row.split_off(self.read.len().min(row.len()));
            (row, (!self.write.is_empty()).then_some(written))
        };
        Ok(rows.into_iter().map(split).collect())
    }
}

impl Tried {
    fn new(read: &Cells, before: Option<&Cells>, outcome: Result<RowOutcome, TransformFault>) -> Self {
        let told = |cells: &Cells| cells.iter().map(rows::to_json).collect::<Vec<Json>>();
        let (outcome, write, reason) = match outcome {
            Ok(RowOutcome::Keep) => ("keep", None, None),
            Ok(RowOutcome::Write(cells)) => ("write", Some(told(&cells)), None),
            Ok(RowOutcome::Fail(reason)) => ("fail", None, Some(reason)),
            Err(fault) => {
                let detail = fault.detail.map(|detail| format!("; {detail}")).unwrap_or_default();
                ("fault", None, Some(format!("{}{detail}", fault.message)))
            }
        };
        Self { read: told(read), before: before.map(told), outcome, write, reason }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let told = |values: &[Json]| {
            let values: Vec<String> = values.iter().map(|value| output::inline(&value.to_string())).collect();
            values.join(", ")
        };
        for row in &self.rows {
            let read = told(&row.read);
            match (&row.write, &row.reason, &row.before) {
                (Some(write), _, Some(before)) => writeln!(f, "{read}: {} -> {}", told(before), told(write))?,
                (Some(write), _, None) => writeln!(f, "{read} -> {}", told(write))?,
                (None, Some(reason), _) => writeln!(f, "{read}: {}: {}", row.outcome, output::inline(reason))?,
                (None, None, _) => writeln!(f, "{read}: left as it is")?,
            }
        }
        if let (Some(fuel), Some(memory)) = (self.fuel, self.memory_bytes) {
            let rows = self.rows.len() as u64;
            let a_row = fuel.checked_div(rows).unwrap_or(fuel);
            writeln!(
                f,
                "\n{} rows at once: {} of fuel, {} a row; {} bytes of memory",
                output::count(rows),
                output::count(fuel),
                output::count(a_row),
                output::count(memory)
            )?;
        }
        Ok(())
    }
}
