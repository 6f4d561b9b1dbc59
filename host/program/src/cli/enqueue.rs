//! `tidegate enqueue`.

use std::sync::Arc;

use tidegate::scheduler::choice::Unfit;
use tidegate::scheduler::database::{Database, NewRow, QueueRow};
use tidegate::scheduler::operations::{NewUpdates, Operations, Refusal};
use tidegate::update::Progress;
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
struct OnDatabase<'a> {
    database: &'a tidegate_config::Database,
    opened: Arc<dyn Database>,
    new: NewUpdates,
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
        self.progress()?;
        let mut wanted = Vec::new();
        for name in &self.names {
            wanted.push((name.as_str(), self.databases_of(name, &config, &databases)?));
        }
        let mut admitted = Vec::new();
        for database in databases {
            let names = wanted.iter().filter(|(_, on)| on.iter().any(|other| other.name == database.name));
            let rows = names.map(|(name, _)| NewRow {
                update_name: (*name).to_owned(),
                progress: self.progress.clone(),
                depends_on: self.depends_on.clone(),
                ordering: self.ordering.into(),
            });
            let new = NewUpdates { rows: rows.collect(), force: self.force };
            let opened = wiring::acting(database)?;
            let handlers = wiring::handlers(&config, database);
            if let Err(error) = Operations::on(&*opened).admit(&new, &handlers).await {
                let rows = opened.look().await.ok().flatten().unwrap_or_default().rows;
                return Err(self.not_queueable(&database.name, &rows, error));
            }
            admitted.push(OnDatabase { database, opened, new });
        }
        for OnDatabase { database, opened, new } in admitted {
            // One by one: what was queued before a failure is told all the same.
            for row in &new.rows {
                let queued = Operations::on(&*opened).enqueue(std::slice::from_ref(row)).await;
                let queued = queued
                    .map_err(|error| refused(&format!("queue \"{}\"", row.update_name), &database.name, error))?;
                queued.into_iter().try_for_each(|did| results.done(&database.name, &row.update_name, did))?;
            }
            opened.close().await;
        }
        Ok(())
    }

    /// Why nothing is queued, in terms of the command.
    fn not_queueable(&self, database: &str, rows: &[QueueRow], error: Refusal) -> CliError {
        match error {
            error @ Refusal::Refused { .. } => {
                CliError::usage(error.to_string()).hint("`--force` queues it all the same, and it is quarantined")
            }
            error @ Refusal::Progress { .. } => CliError::usage(error.to_string())
                .hint("`tidegate status --json` shows the progress of queued ones; `--force` queues it all the same"),
            Refusal::Dependency { depends_on, because } => {
                let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
                unfit(database, rows, &names, &depends_on, because)
            }
            Refusal::Database(error) => refused("prepare the queue", database, Refusal::Database(error)),
            error => CliError::usage(error.to_string()),
        }
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

/// A dependency on what is not queued, which nothing would wait for, or one that closes a circle, in which nothing would ever
/// run.
pub(super) fn unfit(database: &str, rows: &[QueueRow], names: &[&str], depends_on: &str, because: Unfit) -> CliError {
    match because {
        Unfit::NotQueued => {
            let queued = rows.iter().map(|row| row.update_name.as_str());
            let hint = match output::nearest(depends_on, queued) {
                Some(nearest) => format!("did you mean \"{nearest}\"?"),
                None => {
                    "queue that first; leave `--depends-on` out where it is done; or insist with `--force`".to_owned()
                }
            };
            let message = format!("nothing would be waited for: \"{depends_on}\" is not queued on {database}");
            CliError::failure(message).hint(hint)
        }
        Unfit::Cycle(way) => {
            let first = way.first().cloned().unwrap_or_default();
            let message = format!("each would wait for the next on {database}: {} -> {first}", way.join(" -> "));
            let hint = if names.len() > 1 && names.contains(&depends_on) {
                format!(
                    "`--depends-on` applies to every update that is named: queue \"{depends_on}\" first, then the others"
                )
            } else {
                "let it depend on something else, or on nothing".to_owned()
            };
            CliError::failure(message).hint(hint)
        }
    }
}

fn refused(what: &str, database: &str, error: Refusal) -> CliError {
    CliError::failure(format!("cannot {what} on database \"{database}\"")).because_refused(error)
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
