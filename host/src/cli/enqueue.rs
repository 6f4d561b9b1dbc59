//! `tidegate enqueue`.

use tidegate::config::{self, Config};
use tidegate::scheduler::database::NewRow;

use super::error::CliError;
use super::remote::Address;
use super::{Context, output, wiring};

/// Queue updates, on every database that they are defined for
///
/// An update that is queued already stays as it is, which is no error.
#[derive(Debug, clap::Args)]
pub(super) struct Enqueue {
    /// The updates' names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// Queue them on this database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,

    /// Queue also what the configuration does not define: it waits until it does
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    address: Address,
}

impl Enqueue {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        if let Some(host) = self.address.host()? {
            return host.enqueue(&self.names, self.database.as_deref(), self.force).await;
        }
        let config = context.config()?;
        let databases = selected(&config, self.database.as_deref())?;
        // Nothing is queued unless everything can be.
        let mut planned = Vec::new();
        for name in &self.names {
            planned.push((name, self.databases_of(name, &config, &databases)?));
        }
        for database in databases {
            let names = planned.iter().filter(|(_, on)| on.iter().any(|other| other.name == database.name));
            enqueue(database, names.map(|(name, _)| name.as_str())).await?;
        }
        Ok(())
    }

    /// Those of `databases` that an update is to be queued on.
    fn databases_of<'a>(
        &self,
        name: &str,
        config: &'a Config,
        databases: &[&'a config::Database],
    ) -> Result<Vec<&'a config::Database>, CliError> {
        let defines = |database: &config::Database| config.updates_of(&database.name).any(|update| update.name == name);
        let defining: Vec<_> = databases.iter().copied().filter(|database| defines(database)).collect();
        match (defining.is_empty(), self.force) {
            (false, _) => Ok(defining),
            (true, true) => Ok(databases.to_vec()),
            (true, false) => Err(undefined(name, config, databases)),
        }
    }
}

fn undefined(name: &str, config: &Config, databases: &[&config::Database]) -> CliError {
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

async fn enqueue(database: &config::Database, names: impl Iterator<Item = &str>) -> Result<(), CliError> {
    let refused = |what: String| CliError::failure(format!("cannot {what} on database \"{}\"", database.name));
    let opened = wiring::open(database)?;
    opened.prepare().await.map_err(|error| refused("prepare the queue".to_owned()).because_of_database(error))?;
    for name in names {
        let row = NewRow { update_name: name.to_owned(), progress: "{}".to_owned(), depends_on: None, ordering: 0 };
        let queued = opened.enqueue(&row).await;
        let said = match queued.map_err(|error| refused(format!("queue \"{name}\"")).because_of_database(error))? {
            true => "queued",
            false => "already queued",
        };
        output::print(&format!("{name}: {said} on {}", database.name))?;
    }
    opened.close().await;
    Ok(())
}

/// The databases that a command is for: the one named, or all.
pub(super) fn selected<'a>(config: &'a Config, name: Option<&str>) -> Result<Vec<&'a config::Database>, CliError> {
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
