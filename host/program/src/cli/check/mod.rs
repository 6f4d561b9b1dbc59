//! `tidegate check`.

mod finding;
mod plan;
mod queue;

use std::sync::Arc;

use serde::Serialize;
use tidegate::scheduler::database::{Database, QueueRow};
use tidegate::signal::NoSignals;
use tidegate::update::{Budget, ErrorClass, Handler, Problem, Progress, Sql, SqlError, UpdateError};
use tidegate_config::Config;

use super::error::{CliError, SHARED_SESSION, hint_on};
use super::{Context, output, wiring};
use finding::{Finding, Scene, Severity, number, tally};
use plan::Plan;
use queue::Looked;

/// Check the configuration, the controllers that it names, and the updates that it defines against the databases
///
/// Nothing is changed, in no database. Only errors make it fail: with exit code 2, or with 1 where a database could not
/// be looked at and nothing else is wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Also show, for each update, the statements of a typical batch, how the database would go about them, and how
    /// many batches to expect
    #[arg(long)]
    plan: bool,

    /// Print JSON: an object with `version` (1), `findings` and `plans`; a key's meaning never changes within a version
    #[arg(long)]
    pub(super) json: bool,
}

/// All that is told.
#[derive(Debug, Default, Serialize)]
struct CheckReport {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    /// In the order of their places in the file.
    findings: Vec<Finding>,
    /// In the order of databases and definitions; none unless asked for.
    plans: Vec<Plan>,
}

impl Check {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut report = CheckReport { version: 1, ..CheckReport::default() };
        let config = match context.read() {
            Ok(config) => config,
            Err(diagnostics) if self.json => {
                report.findings.extend(diagnostics.into_iter().map(|wrong| Finding::new(Severity::Error, wrong)));
                output::print_json(&report)?;
                return Err(CliError::usage("the configuration cannot be read"));
            }
            Err(diagnostics) => return Err(CliError::configuration(diagnostics)),
        };
        let warnings = config.warnings.iter().cloned();
        report.findings.extend(warnings.map(|warning| Finding::new(Severity::Warning, warning)));
        report.findings.extend(controllers(&config).await);
        for database in &config.databases {
            let scene = Scene { config: &config, database };
            if let Err(error) = self.database(scene, &mut report).await {
                report.findings.push(cannot_be_checked(scene, &error));
            }
        }
        report.findings.sort_by_key(|finding| (finding.line, finding.column, finding.severity));
        self.tell(&config, &report)
    }

    /// Prints the report, and fails where it has errors.
    fn tell(&self, config: &Config, report: &CheckReport) -> Result<(), CliError> {
        let tally = tally(&report.findings);
        let mut errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error).peekable();
        let in_order = errors.peek().is_none();
        if self.json {
            output::print_json(report)?;
        } else {
            report.findings.iter().for_each(Finding::print);
            for plan in &report.plans {
                output::print(&format!("{}\n", plan.render()))?;
            }
            if in_order {
                output::print(&in_order_with(config, tally.as_deref()))?;
            }
        }
        if in_order {
            return Ok(());
        }
        let message = format!("found {}", tally.unwrap_or_default());
        // A configuration that is known to be wrong counts for more than what is not known.
        Err(if errors.all(|error| error.unknown) { CliError::failure(message) } else { CliError::usage(message) })
    }

    /// Looks at one database. An error is its own: nothing more can be learnt.
    async fn database(&self, scene: Scene<'_>, report: &mut CheckReport) -> Result<(), SqlError> {
        let opened = wiring::open_lazily(scene.database).map_err(|error| SqlError::permanent(error.to_string()))?;
        let looked = self.look(scene, &*opened, report).await;
        opened.close().await;
        looked
    }

    async fn look(&self, scene: Scene<'_>, opened: &dyn Database, report: &mut CheckReport) -> Result<(), SqlError> {
        let remarks = opened.survey().await?;
        let hindered = remarks.iter().any(|remark| remark.hinders);
        for remark in remarks {
            let severity = if remark.hinders { Severity::Error } else { Severity::Warning };
            report.findings.push(scene.about_database(severity, remark.message, Some(remark.hint)));
        }
        let Looked { findings, malformed, rows, finished } = match queue::look(scene, opened).await {
            Ok(looked) => looked,
            // What is missing was told above.
            Err(error) if error.grant_hint().is_some() => Looked::default(),
            Err(error) => return Err(error),
        };
        report.findings.extend(findings);
        report.findings.extend(malformed.filter(|_| !hindered));
        // Last of all: on SQLite a session holds the one connection there is.
        let mut session = opened.inspect().await?;
        for update in scene.config.updates_of(&scene.database.name) {
            let row = rows.iter().find(|row| row.update_name == update.name);
            let first = report.findings.len();
            self.update(scene, session.as_sql(), update, row, report).await?;
            if finished.contains(&update.name) {
                report.findings.iter_mut().skip(first).for_each(Finding::of_what_is_done);
            }
        }
        Ok(())
    }

    /// Holds a definition against the database.
    async fn update(
        &self,
        scene: Scene<'_>,
        sql: &mut dyn Sql,
        update: &tidegate_config::Update,
        row: Option<&QueueRow>,
        report: &mut CheckReport,
    ) -> Result<(), SqlError> {
        let handler = wiring::handler(update, scene.database);
        let as_finding = |problem: Problem| {
            scene.about_definition(update, problem.field, problem.severity.into(), problem.message, problem.hint)
        };
        let problems = handler.check(sql).await.or_else(as_problem)?;
        let in_order = !problems.iter().any(Problem::is_error);
        report.findings.extend(problems.into_iter().map(as_finding));
        if !(self.plan && in_order) {
            return Ok(());
        }
        let progress = progress_of(&*handler, row);
        let settings = &scene.config.background_updates;
        let items = u64::from(settings.default_batch_size.min(settings.max_batch_size));
        match (handler.plan(sql, &progress, Budget { items }).await, handler.mode(&progress)) {
            (Ok(Some(plan)), Ok(mode)) => {
                let warnings = plan.warnings.iter().cloned();
                report.findings.extend(warnings.map(as_finding));
                report.plans.push(Plan::new(&scene.database.name, &update.name, mode, items, plan));
            }
            (Ok(_), _) => {}
            (Err(error), _) => {
                let problems = as_problem(error)?;
                report.findings.extend(problems.into_iter().map(as_finding));
            }
        }
        Ok(())
    }
}

/// Where the update stands, or where it would begin.
fn progress_of(handler: &dyn Handler, row: Option<&QueueRow>) -> Progress {
    let stored = row.and_then(|row| Progress::parse(&row.progress).ok());
    stored.filter(|progress| handler.mode(progress).is_ok()).unwrap_or_default()
}

/// What the database says of one update alone is that update's problem.
fn as_problem(error: UpdateError) -> Result<Vec<Problem>, SqlError> {
    let hint = match error {
        UpdateError::Sql(error) if error.class == ErrorClass::Connection => return Err(error),
        UpdateError::Sql(ref error) => error
            .grant_hint()
            .or_else(|| hint_on(error))
            .unwrap_or("check again, and if it stays so, mend the definition"),
        _ => "mend the definition, or what it stands on",
    };
    Ok(vec![Problem::error("table", error.to_string(), hint)])
}

fn cannot_be_checked(scene: Scene<'_>, error: &SqlError) -> Finding {
    let hint = hint_on(error).unwrap_or("see what the database's `url` names");
    let message = format!("it cannot be checked: {error}");
    // Where a pooler is named, the configuration is known to be wrong.
    let unknown = error.code.as_deref() != Some(SHARED_SESSION);
    Finding { unknown, ..scene.about_database(Severity::Error, message, Some(hint.to_owned())) }
}

/// Loads every controller.
async fn controllers(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for controller in &config.controllers {
        if let Err(fault) = wiring::controller(controller, Arc::new(NoSignals)).await {
            let message = format!("controller \"{}\": {fault}", controller.name);
            let hint = fault.kind.hint().to_owned();
            let wrong = config.diagnostic(controller.places.of("path"), message, Some(hint));
            findings.push(Finding::new(Severity::Error, wrong));
        }
    }
    findings
}

fn in_order_with(config: &Config, tally: Option<&str>) -> String {
    let tally = tally.map(|tally| format!(" ({tally})")).unwrap_or_default();
    format!(
        "{} is in order: {}, {}, {}{tally}",
        config.path.display(),
        number(config.databases.len(), "database"),
        number(config.controllers.len(), "controller"),
        number(config.updates.len(), "update"),
    )
}
