//! `tidegate controller`: what an author of controllers needs. One file per command.

pub(super) mod check;
mod fuel;
mod junit;
pub(super) mod load;
pub(super) mod new;
mod replay;
mod scenario;
mod test;

use super::Context;
use super::error::CliError;

/// Make, check and try controllers, without a database
#[derive(Debug, clap::Args)]
pub(super) struct Controller {
    #[command(subcommand)]
    command: ControllerCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ControllerCommand {
    Check(check::Check),
    New(new::New),
    Test(test::Test),
    Fuel(fuel::Fuel),
    Replay(replay::Replay),
}

impl Controller {
    /// Whether what is printed is for a program to read.
    pub(super) fn prints_json(&self) -> bool {
        match &self.command {
            ControllerCommand::Check(check) => check.json,
            ControllerCommand::New(new) => new.json,
            ControllerCommand::Test(test) => test.json,
            ControllerCommand::Fuel(fuel) => fuel.json,
            ControllerCommand::Replay(replay) => replay.json,
        }
    }

    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        match self.command {
            ControllerCommand::Check(check) => check.execute(context).await,
            ControllerCommand::New(new) => new.execute(),
            ControllerCommand::Test(test) => test.execute(context).await,
            ControllerCommand::Fuel(fuel) => fuel.execute(context).await,
            ControllerCommand::Replay(replay) => replay.execute().await,
        }
    }
}
