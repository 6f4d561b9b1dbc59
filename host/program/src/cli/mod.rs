//! The command line: what a person types and reads. One file per command; here what they have in common.

mod accept;
mod approve;
mod cancel;
mod check;
mod completions;
mod controller;
mod enqueue;
mod error;
mod handler;
mod history;
mod init;
mod ledger;
mod log;
mod openapi;
mod output;
mod pause;
mod recipe;
mod remote;
mod require;
mod results;
mod retry;
mod run;
mod sampling;
mod signals;
mod status;
mod token;
mod trial;
mod unkeep;
mod verify;
mod wiring;

use std::env;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{self, ExitCode};

use clap::{ColorChoice, Parser, Subcommand};
use indicatif::MultiProgress;
use tidegate_config::{Config, Diagnostic};

use error::{CliError, Finding};

/// Runs background updates over SQLite and PostgreSQL in small batches.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_long_help = error::EXIT_CODES)]
struct Cli {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = "tidegate.toml")]
    config: PathBuf,

    /// What is logged to standard error, e.g. "info" or "tidegate=debug,warn"; as JSON "warn,tidegate=info" where
    /// nothing is said, and otherwise "warn".
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,

    /// How log lines are written.
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = log::Format::Human)]
    log_format: log::Format,

    /// Whether to colour what is printed.
    #[arg(long, global = true, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    Run(run::Run),
    Check(check::Check),
    Try(trial::Try),
    Enqueue(enqueue::Enqueue),
    Status(status::Status),
    Signals(signals::Signals),
    History(history::History),
    Ledger(ledger::Ledger),
    Require(require::Require),
    Retry(retry::Retry),
    Accept(accept::Accept),
    Approve(approve::Approve),
    Verify(verify::Verify),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Cancel(cancel::Cancel),
    Unkeep(unkeep::Unkeep),
    Recipe(recipe::Recipe),
    Controller(controller::Controller),
    Handler(handler::Handler),
    #[command(name = "openapi")]
    OpenApi(openapi::OpenApi),
    Token(token::Token),
    Completions(completions::Completions),
    Reference(completions::Reference),
    /// Compile a component from standard input into a cache, for the process that started this one
    #[command(name = "compile-component", hide = true)]
    Compile {
        /// The stack that its instances may use, in bytes
        stack_bytes: usize,
        /// Whether fuel is counted
        #[arg(action = clap::ArgAction::Set)]
        metered: bool,
        /// The cache
        cache: PathBuf,
    },
}

impl Command {
    /// Whether what is printed is for a program to read.
    fn prints_json(&self) -> bool {
        match self {
            Command::Init(init) => init.json,
            Command::Run(run) => run.json,
            Command::Enqueue(enqueue) => enqueue.json.json,
            Command::Status(status) => status.json,
            Command::Signals(signals) => signals.json,
            Command::History(history) => history.json,
            Command::Ledger(ledger) => ledger.json,
            Command::Require(require) => require.json,
            Command::Retry(retry) => retry.json.json,
            Command::Accept(accept) => accept.json.json,
            Command::Approve(approve) => approve.json.json,
            Command::Verify(verify) => verify.json.json,
            Command::Pause(pause) => pause.json.json,
            Command::Resume(resume) => resume.json.json,
            Command::Cancel(cancel) => cancel.json.json,
            Command::Unkeep(unkeep) => unkeep.json.json,
            Command::Check(check) => check.json,
            Command::Try(trial) => trial.json,
            Command::Controller(controller) => controller.prints_json(),
            Command::Handler(handler) => handler.prints_json(),
            Command::Token(token) => token.prints_json(),
            Command::OpenApi(_) | Command::Recipe(_) | Command::Completions(_) | Command::Reference(_) => false,
            Command::Compile { .. } => false,
        }
    }
}

/// What every command has at hand.
struct Context {
    /// The configuration file.
    config: PathBuf,
    /// The progress bars there are: whatever else is written to standard error goes around them.
    bars: MultiProgress,
    /// Whether what is printed is for a program to read.
    json: bool,
}

impl Context {
    /// The configuration. What is doubtful in it is printed.
    fn config(&self) -> Result<Config, CliError> {
        let config = self.read().map_err(CliError::configuration)?;
        for warning in &config.warnings {
            match self.json {
                true => output::json_line("warning", &Finding::from(warning)),
                false => output::warn(&warning.to_string()),
            }
        }
        Ok(config)
    }

    /// The configuration, or all that is wrong with it, urls that no driver understands included.
    fn read(&self) -> Result<Config, Vec<Diagnostic>> {
        let config = Config::load(&self.config, &environment)?;
        let wrong: Vec<Diagnostic> =
            config.databases.iter().filter_map(|database| wiring::refused_url(&config, database)).collect();
        if wrong.is_empty() { Ok(config) } else { Err(wrong) }
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
    let json = cli.command.prints_json();
    match execute(cli, json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if json {
                error.print_json()
            } else {
                error.print()
            }
            error.exit_code()
        }
    }
}

fn execute(cli: Cli, json: bool) -> Result<(), CliError> {
    if let Command::Compile { stack_bytes, metered, cache } = &cli.command {
        let code = tidegate_wasm::compile_from_stdin(*stack_bytes, *metered, cache).map_or_else(
            |(words, code)| {
                // Whoever started this reads it; where nobody does any more, nobody has to.
                let _ = writeln!(io::stderr(), "{words}");
                code
            },
            |()| 0,
        );
        process::exit(code);
    }
    let context = Context { config: cli.config, bars: MultiProgress::new(), json };
    log::start(cli.log.as_deref(), cli.log_format, &context.bars)?;
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| CliError::failure("cannot start the async runtime").because(error))?;
    let done = runtime.block_on(async {
        match cli.command {
            Command::Init(init) => init.execute(&context).await,
            Command::Run(run) => run.execute(&context).await,
            Command::Check(check) => check.execute(&context).await,
            Command::Try(trial) => trial.execute(&context).await,
            Command::Enqueue(enqueue) => enqueue.execute(&context).await,
            Command::Status(status) => status.execute(&context).await,
            Command::Signals(signals) => signals.execute(&context).await,
            Command::History(history) => history.execute(&context).await,
            Command::Ledger(ledger) => ledger.execute(&context).await,
            Command::Require(require) => require.execute(&context).await,
            Command::Retry(retry) => retry.execute(&context).await,
            Command::Accept(accept) => accept.execute(&context).await,
            Command::Approve(approve) => approve.execute(&context).await,
            Command::Verify(verify) => verify.execute(&context).await,
            Command::Pause(pause) => pause.execute(&context).await,
            Command::Resume(resume) => resume.execute(&context).await,
            Command::Cancel(cancel) => cancel.execute(&context).await,
            Command::Unkeep(unkeep) => unkeep.execute(&context).await,
            Command::Controller(controller) => controller.execute(&context).await,
            Command::Recipe(recipe) => recipe.execute(&context).await,
            Command::Handler(handler) => handler.execute(&context).await,
            Command::OpenApi(openapi) => openapi.execute(),
            Command::Token(token) => token.execute(),
            Command::Completions(completions) => completions.execute(),
            Command::Reference(reference) => reference.execute(),
            // Done before there was a runtime.
            Command::Compile { .. } => Ok(()),
        }
    });
    // Whatever still waits for a file or a name server is not waited for.
    runtime.shutdown_background();
    done
}
