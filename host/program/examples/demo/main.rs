//! The demo: a chat server's table of a million messages, three background updates over it, and the real `tidegate`
//! with a WebAssembly controller to run them. Afterwards plain SQL looks whether every row is right.
//!
//! `make demo` builds what it needs and starts it.
#![expect(clippy::print_stdout, reason = "it is here to tell a person what happens")]

#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the tests' own harness, of which the demo needs a part"
)]
#[path = "../../../../tests/support/postgres.rs"]
mod postgres;
mod report;
mod store;

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use store::Store;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The exit code of what Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Runs background updates over a table of messages and checks what came of it.
#[derive(Parser)]
struct Arguments {
    /// The database to show it on.
    #[arg(long, value_enum, default_value = "sqlite")]
    database: System,
    /// How many messages there are.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// The folder for the database and the configuration.
    #[arg(long, default_value = "target/demo")]
    folder: PathBuf,
    /// The controller's component.
    #[arg(long, default_value = "guests/target/components/rust-steady.wasm")]
    controller: PathBuf,
    /// The tidegate program; by default the one built beside this demo.
    #[arg(long)]
    tidegate: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum System {
    Sqlite,
    Postgres,
}

#[tokio::main]
async fn main() -> ExitCode {
    match demo(&Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            println!("\nThe demo failed: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn demo(arguments: &Arguments) -> Outcome<ExitCode> {
    let tidegate = arguments.tidegate.clone().map_or_else(beside_this_demo, Ok)?;
    require(&tidegate, "the tidegate program")?;
    require(&arguments.controller, "the controller's component")?;
    fs::create_dir_all(&arguments.folder)?;

    announce(arguments.rows);
    let began = Instant::now();
    let store = match arguments.database {
        System::Sqlite => Store::sqlite(&arguments.folder.join("messages.sqlite"))?,
        System::Postgres => Store::postgres().await,
    };
    store.fill(arguments.rows).await?;
    store.enqueue().await?;
    let configuration = arguments.folder.join("tidegate.toml");
    fs::write(&configuration, configuration_text(&store.url(), &arguments.controller)?)?;
    println!(
        "{} rows in {} after {:.1} s; the configuration is {}.\n",
        arguments.rows,
        store.name(),
        began.elapsed().as_secs_f64(),
        configuration.display()
    );

    let trace = arguments.folder.join("trace.jsonl");
    let status = match run(&tidegate, &configuration, &trace).await? {
        Run::Ended(status) => status,
        Run::Interrupted => {
            println!("\nInterrupted. What was committed stays, the batch in hand was rolled back.");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    println!();
    report::print(&store).await?;
    let wrong = report::check(&store, arguments.rows).await?;
    if !status.success() {
        return Err(format!("tidegate ended with {status}").into());
    }
    println!(
        "\nWhat the controller was asked and what it answered is written down. To ask another one the same:\n  \
         {} controller replay FILE.wasm {}",
        tidegate.display(),
        trace.display()
    );
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An error and what is behind it: PostgreSQL's own words are among the causes.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn announce(rows: u64) {
    println!(
        "A table \"messages\" of {rows} rows, as a chat server has them, and three background updates:
  messages_search_body        fills the column search_body, and counts in \"touched\" how often it met each row
  messages_search_body_index  indexes it, once it is filled
  messages_redacted           deletes the messages that were redacted
A WebAssembly controller paces them: batches of 100 ms, and 20 ms of rest between them, where the default is a second;
so the demo ends within a minute or two.
"
    );
}

fn require(file: &Path, what: &str) -> Outcome<()> {
    if file.is_file() { Ok(()) } else { Err(format!("{what} is not at {}: use `make demo`", file.display()).into()) }
}

/// The program that cargo built in the folder above the examples'.
fn beside_this_demo() -> Outcome<PathBuf> {
    let this = env::current_exe()?;
    let folder = this.parent().and_then(Path::parent).ok_or("this program is in no folder")?;
    Ok(folder.join("tidegate"))
}

fn configuration_text(url: &str, controller: &Path) -> Outcome<String> {
    // Text in TOML is quoted as JSON quotes it.
    let quote = |text: &str| serde_json::to_string(text);
    let controller = controller.canonicalize()?;
    Ok(format!(
        r#"# Written by the demo.

[[database]]
url = {url}

[[controller]]
name = "steady"
path = {controller}

[controller.settings]
background_update_duration_ms = "100"
sleep_duration_ms = "20"

[[update]]
name = "messages_search_body"
kind = "backfill"
table = "messages"
key = "id"
set = "search_body = lower(body), touched = touched + 1"

[[update]]
name = "messages_search_body_index"
kind = "create-index"
table = "messages"
index = "messages_search_body"
columns = ["search_body"]

[[update]]
name = "messages_redacted"
kind = "delete"
table = "messages"
key = "id"
where = "body = ''"
"#,
        url = quote(url)?,
        controller = quote(&controller.to_string_lossy())?,
    ))
}

enum Run {
    Ended(ExitStatus),
    Interrupted,
}

/// Runs tidegate until nothing is left to do, or until somebody has enough.
///
/// It has a process group of its own: Ctrl-C reaches this demo alone, which passes it on once, waits, and then stops
/// the database that it started.
async fn run(tidegate: &Path, configuration: &Path, trace: &Path) -> Outcome<Run> {
    let mut child = Command::new(tidegate)
        .args(["run", "--until-done", "--config"])
        .arg(configuration)
        .args(["--record-overwrite", "--record"])
        .arg(trace)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        status = child.wait() => return Ok(Run::Ended(status?)),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    stop(&mut child).await?;
    Ok(Run::Interrupted)
}

/// Tells tidegate to stop, and waits until it has.
async fn stop(child: &mut Child) -> Outcome<()> {
    if let Some(pid) = child.id() {
        Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
    }
    child.wait().await?;
    Ok(())
}
