//! The command line: what a person types and reads. One file per command; here what they have in common.

mod cancel;
mod check;
mod enqueue;
mod error;
mod history;
mod log;
mod openapi;
mod output;
mod pause;
mod remote;
mod retry;
mod run;
mod status;
mod wiring;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ColorChoice, Parser, Subcommand};
use indicatif::MultiProgress;
use tidegate::config::Config;

use error::CliError;

/// Runs background updates over SQLite and PostgreSQL in small batches.
#[derive(Debug, Parser)]
#[command(version, after_long_help = error::EXIT_CODES)]
struct Cli {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = "tidegate.toml")]
    config: PathBuf,

    /// What is logged to standard error, e.g. "info" or "tidegate=debug,warn".
    #[arg(long, global = true, value_name = "FILTER", default_value = "warn")]
    log: String,

    /// Whether to colour what is printed.
    #[arg(long, global = true, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Enqueue(enqueue::Enqueue),
    Status(status::Status),
    History(history::History),
    Retry(retry::Retry),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Cancel(cancel::Cancel),
    #[command(name = "openapi")]
    OpenApi(openapi::OpenApi),
}

/// What every command has at hand.
struct Context {
    /// The configuration file.
    config: PathBuf,
    /// The progress bars there are: whatever else is written to standard error goes around them.
    bars: MultiProgress,
}

impl Context {
    /// The configuration. What is doubtful in it is printed.
    fn config(&self) -> Result<Config, CliError> {
        let config = Config::load(&self.config, &environment).map_err(CliError::configuration)?;
        for warning in &config.warnings {
            output::warn(&warning.to_string());
        }
        Ok(config)
    }
}

/// The value of a variable of this process's environment.
fn environment(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// Does what the command line says.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    output::set_color(cli.color);
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            error.exit_code()
        }
    }
}

fn execute(cli: Cli) -> Result<(), CliError> {
    let context = Context { config: cli.config, bars: MultiProgress::new() };
    log::start(&cli.log, &context.bars)?;
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| CliError::failure("cannot start the async runtime").because(error))?;
    runtime.block_on(async {
        match cli.command {
            Command::Run(run) => run.execute(&context).await,
            Command::Check(check) => check.execute(&context).await,
            Command::Enqueue(enqueue) => enqueue.execute(&context).await,
            Command::Status(status) => status.execute(&context).await,
            Command::History(history) => history.execute(&context).await,
            Command::Retry(retry) => retry.execute(&context).await,
            Command::Pause(pause) => pause.execute(&context).await,
            Command::Resume(resume) => resume.execute(&context).await,
            Command::Cancel(cancel) => cancel.execute(&context).await,
            Command::OpenApi(openapi) => openapi.execute(),
        }
    })
}
