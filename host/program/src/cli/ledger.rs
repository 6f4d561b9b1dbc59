//! `tidegate ledger`.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use tidegate::scheduler::database::unix_ms;
use tidegate::scheduler::ledger::Wanted;
use tidegate_admin::api::view::LedgerEntry;

use super::enqueue::selected;
use super::error::CliError;
use super::remote::Address;
use super::{Context, output, wiring};

/// Show what was done to updates, by whom and when: queued, started, finished, failed, retried, paused, cancelled
#[derive(Debug, clap::Args)]
pub(super) struct Ledger {
    /// This update alone
    name: Option<String>,

    /// On this database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,

    /// Entries to show of each database, the newest
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,

    /// Print JSON: an object with `version` (1) and `databases`, each with its entries, the newest first
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    address: Address,
}

/// The shape of the JSON.
#[derive(Serialize)]
struct Report {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    /// In the configuration's order.
    databases: Vec<DatabaseLedger>,
}

#[derive(Serialize)]
struct DatabaseLedger {
    name: String,
    /// The newest first, each as the API tells it.
    entries: Vec<LedgerEntry>,
}

impl Ledger {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut databases = Vec::new();
        match self.address.host()? {
            Some(host) => {
                for database in host.databases(self.database.as_deref()).await? {
                    let entries = host.ledger(&database.name, self.name.as_deref(), self.limit).await?;
                    databases.push(DatabaseLedger { name: database.name, entries });
                }
            }
            None => {
                let config = context.config()?;
                for database in selected(&config, self.database.as_deref())? {
                    databases.push(DatabaseLedger { name: database.name.clone(), entries: self.of(database).await? });
                }
            }
        }
        if self.json {
            return output::print_json(&Report { version: 1, databases });
        }
        databases.retain(|database| !database.entries.is_empty());
        if databases.is_empty() {
            let of = self.name.as_deref().map(|name| format!(" of \"{name}\"")).unwrap_or_default();
            return Err(CliError::failure(format!("the ledger has no entry{of}"))
                .hint("it begins with the first command or host of this version that writes to the database"));
        }
        let now = unix_ms(SystemTime::now());
        let parts: Vec<String> = databases.iter().map(|database| render(database, now)).collect();
        output::print(&parts.join("\n\n"))
    }

    /// The entries that one database keeps.
    async fn of(&self, database: &tidegate_config::Database) -> Result<Vec<LedgerEntry>, CliError> {
        let refused = || CliError::failure(format!("cannot read the ledger of database \"{}\"", database.name));
        let opened = wiring::open(database)?;
        let wanted = Wanted { update_name: self.name.as_deref(), ..Wanted::default() };
        let entries = opened.ledger(&wanted, self.limit).await;
        opened.close().await;
        let entries = entries.map_err(|error| refused().because_of_database(error))?;
        Ok(entries.into_iter().map(LedgerEntry::from).collect())
    }
}

fn render(database: &DatabaseLedger, now_ms: i64) -> String {
    let mut table = output::table(&["AGO", "UPDATE", "ACTION", "BY", "ITEMS", "TOOK", "WORDS"]);
    for entry in &database.entries {
        let age = now_ms.saturating_sub(entry.at_ms).try_into().unwrap_or(0);
        let took = entry.seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        table.add_row([
            output::duration(Duration::from_millis(age)),
            entry.update.as_deref().map(output::inline).unwrap_or_default(),
            output::inline(&entry.action),
            output::inline(&entry.by),
            entry.items.map(output::count).unwrap_or_default(),
            took.map(output::duration).unwrap_or_default(),
            entry.words.as_deref().map(output::inline).unwrap_or_default(),
        ]);
    }
    format!("{}\n{}", output::inline(&database.name), table.trim_fmt())
}
