//! `tidegate require`.

use std::time::Duration;

use serde::Serialize;
use tidegate::scheduler::ledger::completion;
use tidegate_admin::api::view::{Required, RequiredState, RequiredUpdate};
use tidegate_config::Config;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::enqueue::selected;
use super::error::CliError;
use super::remote::{Address, Remote};
use super::{Context, output, wiring};

/// How long is waited before the second look.
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// How long is waited between two looks at most.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// Tell whether updates are done, for what must not begin before: exit code 0 if so, 3 if not yet, 4 if one failed
///
/// No host has to run. An update that is quarantined, or was taken out of the queue before it was finished, has failed.
#[derive(Debug, clap::Args)]
pub(super) struct Require {
    /// The updates' names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// Wait until they are done or one has failed, for this long at most: "90s", "30m", "2h"
    #[arg(long, value_name = "TIME", value_parser = time)]
    wait: Option<Duration>,

    /// On this database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,

    /// Print JSON: an object with `version` (1), `state` and `updates`
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    address: Address,
}

/// The shape of the JSON.
#[derive(Serialize)]
struct Report<'a> {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    #[serde(flatten)]
    required: &'a Required,
}

/// Where is asked.
enum Source {
    Host(Remote),
    Databases(Box<Config>),
}

impl Require {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let source = match self.address.host()? {
            Some(host) => Source::Host(host),
            None => Source::Databases(Box::new(context.config()?)),
        };
        let deadline = self.wait.map(|wait| Instant::now() + wait);
        let required = self.look(&source, deadline).await?;
        if self.json {
            output::print_json(&Report { version: 1, required: &required })?;
        } else {
            let lines: Vec<String> = required.updates.iter().map(line).collect();
            output::print(&lines.join("\n"))?;
        }
        self.judge(&required, &source)
    }

    /// Looks, and where it is to wait looks again until nothing is to be waited for.
    async fn look(&self, source: &Source, deadline: Option<Instant>) -> Result<Required, CliError> {
        let Some(deadline) = deadline else { return self.ask(source).await };
        let mut delay = FIRST_DELAY;
        // What does not answer within the time may be an answer's last word; one look there is in any case.
        let mut last = self.ask(source).await;
        loop {
            let waits = match &last {
                Ok(required) => matches!(required.state, RequiredState::Pending | RequiredState::NotQueued),
                // A database that restarts, or a host, will be there again.
                Err(error) => error.is_failure(),
            };
            if !waits || Instant::now() >= deadline {
                return last;
            }
            sleep_until(deadline.min(Instant::now() + delay)).await;
            delay = (delay * 3 / 2).min(LONGEST_DELAY);
            match timeout_at(deadline + LONGEST_DELAY, self.ask(source)).await {
                Ok(asked) => last = asked,
                Err(_) => return last,
            }
        }
    }

    async fn ask(&self, source: &Source) -> Result<Required, CliError> {
        let config = match source {
            Source::Host(host) => return host.require(&self.names, self.database.as_deref()).await,
            Source::Databases(config) => config,
        };
        let mut found: Vec<Vec<RequiredUpdate>> = vec![Vec::new(); self.names.len()];
        for database in selected(config, self.database.as_deref())? {
            let refused = || CliError::failure(format!("cannot tell what is done on database \"{}\"", database.name));
            let opened = wiring::open(database)?;
            for (name, found) in self.names.iter().zip(&mut found) {
                let is_defined = config.updates_of(&database.name).any(|update| update.name == *name);
                let report = completion(&*opened, name).await.map_err(|error| refused().because_of_database(error))?;
                found.extend(RequiredUpdate::of(name, &database.name, report, is_defined));
            }
            opened.close().await;
        }
        let updates = self.names.iter().zip(found).flat_map(|(name, found)| match found.is_empty() {
            true => vec![RequiredUpdate::unknown(name)],
            false => found,
        });
        Ok(Required::of(updates.collect()))
    }

    /// What the exit code is to say.
    fn judge(&self, required: &Required, source: &Source) -> Result<(), CliError> {
        let worst = required.updates.iter().filter(|update| update.state == required.state);
        let names: Vec<&str> = worst.map(|update| update.name.as_str()).collect();
        let names = names.join(", ");
        match required.state {
            RequiredState::Done => Ok(()),
            RequiredState::Pending => Err(CliError::not_yet(format!("not done yet: {names}"))
                .hint("`tidegate status` shows what holds it; `--wait` waits for it")),
            RequiredState::NotQueued => Err(CliError::not_yet(format!("not done yet, and not even queued: {names}"))
                .hint("`tidegate enqueue` queues it")),
            RequiredState::Failed => {
                Err(CliError::unmet(format!("failed: {names}"))
                    .hint("`tidegate ledger` shows what happened; `tidegate retry` has it tried again"))
            }
            RequiredState::Unknown => Err(CliError::usage(format!(
                "unknown: {names} was never queued, as far as the ledger and the history of seven days tell, and nothing \
                 defines it"
            ))
            .hint(self.meant(source))),
        }
    }

    /// What may have been meant by a name that nobody knows.
    fn meant(&self, source: &Source) -> String {
        let otherwise = "`tidegate status` shows what is queued, and the configuration what is defined".to_owned();
        let Source::Databases(config) = source else { return otherwise };
        let known = || config.updates.iter().map(|update| update.name.as_str());
        let unknown = self.names.iter().filter(|name| known().all(|known| known != name.as_str()));
        let nearest = unknown.filter_map(|name| output::nearest(name, known())).next();
        nearest.map_or(otherwise, |nearest| format!("did you mean \"{nearest}\"?"))
    }
}

fn line(update: &RequiredUpdate) -> String {
    let on = update.database.as_deref().map(|database| format!(" on {database}")).unwrap_or_default();
    let state = match update.state {
        RequiredState::Done => "done",
        RequiredState::Pending | RequiredState::NotQueued => "not yet",
        RequiredState::Failed => "failed",
        RequiredState::Unknown => "unknown",
    };
    output::inline(&format!("{}{on}: {state}: {}", update.name, update.words))
}

/// A time in words: a number and "s", "m" or "h".
fn time(text: &str) -> Result<Duration, String> {
    const WRONG: &str = "write a number and a unit, as in 90s, 30m or 2h";
    let seconds = [('s', 1), ('m', 60), ('h', 3_600)];
    let (_, seconds) = seconds.into_iter().find(|(unit, _)| text.ends_with(*unit)).ok_or(WRONG)?;
    let number: u64 = text.get(..text.len() - 1).and_then(|number| number.parse().ok()).ok_or(WRONG)?;
    let longest = 365 * 24 * 3_600;
    let wait = number.checked_mul(seconds).filter(|wait| *wait <= longest).ok_or("a year is the most")?;
    Ok(Duration::from_secs(wait))
}
