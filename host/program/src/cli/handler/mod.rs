//! `tidegate handler`: what an author of handlers needs. One file per command.

mod check;
mod load;
mod new;
mod rows;
mod test;

use super::Context;
use super::error::CliError;

/// Make, check and try handlers: components that do the work of an update
#[derive(Debug, clap::Args)]
pub(super) struct Handler {
    #[command(subcommand)]
    command: HandlerCommand,
}

#[derive(Debug, clap::Subcommand)]
enum HandlerCommand {
    Check(check::Check),
    New(new::New),
    Test(test::Test),
}

impl Handler {
    /// Whether what is printed is for a program to read.
    pub(super) fn prints_json(&self) -> bool {
        match &self.command {
            HandlerCommand::Check(check) => check.json,
            HandlerCommand::New(new) => new.json,
            HandlerCommand::Test(test) => test.json,
        }
    }

    pub(super) async fn execute(self, _context: &Context) -> Result<(), CliError> {
        match self.command {
            HandlerCommand::Check(check) => check.execute().await,
            HandlerCommand::New(new) => new.execute(),
            HandlerCommand::Test(test) => test.execute().await,
        }
    }
}
