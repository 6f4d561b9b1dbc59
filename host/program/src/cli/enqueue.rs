//! `tidegate enqueue`.

use std::sync::Arc;

use tidegate::scheduler::choice::{Unfit, check_dependency};
use tidegate::scheduler::database::{Database, NewRow, QueueRow};
use tidegate::update::{Progress, SqlError};
use tidegate_config::Config;

use super::error::CliError;
use super::remote::{Address, Rows};
use super::results::{Json, Results};
use super::{Context, output, wiring};

/// Queue updates, on every database that they are defined for
///
/// An update that is queued already stays as it is, which is no error. Nothing is queued unless everything can be.
#[derive(Debug, clap::Args)]
pub(super) struct Enqueue {
    /// The updates' names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// Queue them on this database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,

    /// The update that they wait for, which has to be queued
    #[arg(long, value_name = "NAME")]
    depends_on: Option<String>,

    /// Their place: lower ones run first, and those of one place in the order of their names
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true)]
    ordering: i32,

    /// The progress to begin at, a JSON object as an earlier run of the update wrote it; for one update alone
    #[arg(long, value_name = "JSON", default_value = BEGINNING)]
    progress: String,

    /// Queue also what the configuration does not define, at progress that its kind does not know, and behind what is
    /// not queued
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    address: Address,

    #[command(flatten)]
    pub(super) json: Json,
}

/// The progress of an update that has not begun.
const BEGINNING: &str = "{}";

/// What is to be queued on one database.
struct Plan<'a> {
    database: &'a tidegate_config::Database,
    opened: Arc<dyn Database>,
    names: Vec<&'a str>,
    /// The queue as it is.
    rows: Vec<QueueRow>,
}

impl Enqueue {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut results = Results::new(&self.json);
        let outcome = self.enqueue(context, &mut results).await;
        results.end(outcome)
    }

    async fn enqueue(&self, context: &Context, results: &mut Results) -> Result<(), CliError> {
        if let Some(host) = self.address.host()? {
            let new = Rows {
                names: &self.names,
                progress: &self.progress()?,
                depends_on: self.depends_on.as_deref(),
                ordering: self.ordering,
                force: self.force,
            };
            return host.enqueue(&new, self.database.as_deref(), results).await;
        }
        let config = context.config()?;
        let databases = selected(&config, self.database.as_deref())?;
        let progress = self.progress()?;
        let mut wanted = Vec::new();
        for name in &self.names {
            wanted.push((name.as_str(), self.databases_of(name, &config, &databases)?));
        }
        let mut plans = Vec::new();
        for database in databases {
            let names = wanted.iter().filter(|(_, on)| on.iter().any(|other| other.name == database.name));
            let names: Vec<&str> = names.map(|(name, _)| *name).collect();
            self.check_progress(&names, &progress, &config, database)?;
            let plan = plan(database, names).await?;
            self.check_dependency(&plan)?;
            plans.push(plan);
        }
        for plan in plans {
            self.carry_out(&plan, results).await?;
            plan.opened.close().await;
        }
        Ok(())
    }

    /// The progress to begin at.
    fn progress(&self) -> Result<Progress, CliError> {
        if self.progress != BEGINNING && self.names.len() > 1 {
            return Err(CliError::usage(format!("--progress is for one update, and {} are named", self.names.len()))
                .hint("queue them one by one"));
        }
        Progress::parse(&self.progress).map_err(|error| {
            CliError::usage("--progress is no JSON object")
                .because(error)
                .hint("write an object as `tidegate status --json` shows one, or leave `--progress` out to begin anew")
        })
    }

    /// Refuses progress that the update's kind would refuse.
    fn check_progress(
        &self,
        names: &[&str],
        progress: &Progress,
        config: &Config,
        database: &tidegate_config::Database,
    ) -> Result<(), CliError> {
        let updates = config.updates_of(&database.name).filter(|update| names.contains(&update.name.as_str()));
        for update in updates.filter(|_| !self.force) {
            wiring::handler(update, database).mode(progress).map_err(|error| {
                CliError::usage(format!(
                    "update \"{}\" cannot begin at that progress: {}",
                    update.name,
                    error.in_full()
                ))
                .hint("`tidegate status --json` shows the progress of queued ones; `--force` queues it all the same")
            })?;
        }
        Ok(())
    }

    fn check_dependency(&self, plan: &Plan<'_>) -> Result<(), CliError> {
        let Some(depends_on) = self.depends_on.as_deref() else { return Ok(()) };
        check_dependency_on(&plan.database.name, &plan.rows, &plan.names, depends_on, self.force)
    }

    async fn carry_out(&self, plan: &Plan<'_>, results: &mut Results) -> Result<(), CliError> {
        let database = &plan.database.name;
        for name in &plan.names {
            let row = NewRow {
                update_name: (*name).to_owned(),
                progress: self.progress.clone(),
                depends_on: self.depends_on.clone(),
                ordering: self.ordering.into(),
            };
            let queued = plan.opened.enqueue(&row).await;
            let (result, said) =
                match queued.map_err(|error| refused(&format!("queue \"{name}\""), plan.database, error))? {
                    true => ("queued", "queued"),
                    false if self.is_plain() => ("already-queued", "already queued"),
                    false => ("already-queued", "already queued, and left as it is,"),
                };
            results.tell(database, Some(name), result, &format!("{name}: {said} on {database}"))?;
        }
        Ok(())
    }

    /// True where nothing is said of the rows but their names.
    fn is_plain(&self) -> bool {
        self.depends_on.is_none() && self.ordering == 0 && self.progress == BEGINNING
    }

    /// Those of `databases` that an update is to be queued on.
    fn databases_of<'a>(
        &self,
        name: &str,
        config: &'a Config,
        databases: &[&'a tidegate_config::Database],
    ) -> Result<Vec<&'a tidegate_config::Database>, CliError> {
        let defines =
            |database: &tidegate_config::Database| config.updates_of(&database.name).any(|update| update.name == name);
        let defining: Vec<_> = databases.iter().copied().filter(|database| defines(database)).collect();
        match (defining.is_empty(), self.force) {
            (false, _) => Ok(defining),
            (true, true) => Ok(databases.to_vec()),
            (true, false) => Err(undefined(name, config, databases)),
        }
    }
}

/// Refuses a dependency on what is not queued, which nothing would wait for, and one that closes a circle, in which
/// nothing would ever run.
pub(super) fn check_dependency_on(
    database: &str,
    rows: &[QueueRow],
    names: &[&str],
    depends_on: &str,
    force: bool,
) -> Result<(), CliError> {
    match check_dependency(rows, names, depends_on, force) {
        Ok(()) => Ok(()),
        Err(Unfit::NotQueued) => {
            let queued = rows.iter().map(|row| row.update_name.as_str());
            let hint = match output::nearest(depends_on, queued) {
                Some(nearest) => format!("did you mean \"{nearest}\"?"),
                None => {
                    "queue that first; leave `--depends-on` out where it is done; or insist with `--force`".to_owned()
                }
            };
            let message = format!("nothing would be waited for: \"{depends_on}\" is not queued on {database}");
            Err(CliError::failure(message).hint(hint))
        }
        Err(Unfit::Cycle(way)) => {
            let first = way.first().cloned().unwrap_or_default();
            let message = format!("each would wait for the next on {database}: {} -> {first}", way.join(" -> "));
            let hint = if names.len() > 1 && names.contains(&depends_on) {
                format!(
                    "`--depends-on` applies to every update that is named: queue \"{depends_on}\" first, then the others"
                )
            } else {
                "let it depend on something else, or on nothing".to_owned()
            };
            Err(CliError::failure(message).hint(hint))
        }
    }
}

/// Makes a database ready and looks at its queue. One that nothing is to be queued on is not asked.
async fn plan<'a>(database: &'a tidegate_config::Database, names: Vec<&'a str>) -> Result<Plan<'a>, CliError> {
    let opened = wiring::open(database)?;
    let mut rows = Vec::new();
    if !names.is_empty() {
        opened.prepare().await.map_err(|error| refused("prepare the queue", database, error))?;
        rows = opened.queue().await.map_err(|error| refused("read the queue", database, error))?.rows;
    }
    Ok(Plan { database, opened, names, rows })
}

fn refused(what: &str, database: &tidegate_config::Database, error: SqlError) -> CliError {
    CliError::failure(format!("cannot {what} on database \"{}\"", database.name)).because_of_database(error)
}

pub(super) fn undefined(name: &str, config: &Config, databases: &[&tidegate_config::Database]) -> CliError {
    let elsewhere = config.updates.iter().any(|update| update.name == name);
    let known = databases.iter().flat_map(|database| config.updates_of(&database.name));
    let nearest = output::nearest(name, known.map(|update| update.name.as_str()));
    let hint = match nearest {
        _ if elsewhere => "it is defined for other databases: see its `databases`".to_owned(),
        Some(nearest) => format!("did you mean \"{nearest}\"?"),
        None => "define it in [[update]], or queue it all the same with `--force`".to_owned(),
    };
    CliError::usage(format!("there is no definition of update \"{name}\"")).hint(hint)
}

/// The databases that a command is for: the one named, or all.
pub(super) fn selected<'a>(
    config: &'a Config,
    name: Option<&str>,
) -> Result<Vec<&'a tidegate_config::Database>, CliError> {
    let Some(name) = name else { return Ok(config.databases.iter().collect()) };
    config.database(name).map(|database| vec![database]).ok_or_else(|| {
        let known = config.databases.iter().map(|database| database.name.as_str());
        let hint = match output::nearest(name, known.clone()) {
            Some(nearest) => format!("did you mean \"{nearest}\"?"),
            None => format!("there is {}", known.collect::<Vec<_>>().join(", ")),
        };
        CliError::usage(format!("there is no [[database]] named \"{name}\"")).hint(hint)
    })
}
