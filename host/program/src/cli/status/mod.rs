//! `tidegate status`.

mod render;
mod report;
mod source;
mod watch;

use super::error::CliError;
use super::remote::Address;
use super::{Context, output};
use source::Source;

/// Show every queue: who works on it, the state of each update, what holds it, how long it will take
///
/// It only reads: no table is made, and rights to read are enough.
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Print JSON: an object with `version` (1) and `databases`; a key's meaning never changes within a version
    #[arg(long)]
    pub(super) json: bool,

    /// This database alone
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    /// Show it again every second, in place on a terminal, until interrupted
    #[arg(long)]
    watch: bool,

    #[command(flatten)]
    address: Address,
}

impl Status {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let source = match self.address.host()? {
            Some(host) => Source::Host(host, self.database),
            None => Source::databases(context.config()?, self.database.as_deref())?,
        };
        let outcome = match self.watch {
            true => watch::watch(&source, self.json).await,
            false => show(&source, self.json).await,
        };
        source.close().await;
        outcome
    }
}

/// Shows what is to be seen now.
async fn show(source: &Source, json: bool) -> Result<(), CliError> {
    let (report, unavailable) = source.report().await?;
    match json {
        true => output::print_json(&report)?,
        false => output::print(&render::report(&report))?,
    }
    unavailable
}
