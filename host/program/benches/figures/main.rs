//! What tidegate costs: figures beside a baseline that was measured in the same run, as a table and as JSON.
//!
//! `make bench` builds what this needs and starts it. It measures and says; it asserts nothing.
#![expect(clippy::print_stdout, reason = "a benchmark tells what it measured")]

mod backfill;
mod bare;
mod book;
mod calls;
mod foreground;
mod gentleness;
mod iterations;
mod lanes;
mod machine;
mod mixed;
mod place;
mod plot;
#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the tests' own harness, of which the benchmark needs a part"
)]
#[path = "../../../../tests/support/postgres.rs"]
mod postgres;
mod processes;
mod report;
mod requests;
mod scale;
mod shadow;
mod steps;
mod transform;
mod work;
mod workers;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use machine::Machine;
use place::Place;
use report::FiguresReport;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measures tidegate.
#[derive(Parser, Clone)]
struct Arguments {
    /// What to measure; without it, all.
    #[arg(value_enum)]
    what: Vec<What>,
    /// The rows of the backfill.
    #[arg(long, default_value_t = 1_000_000)]
    rows: i64,
    /// How long each loop of iterations is measured, in seconds, each time. Below 2 it leaves out a part of what a host
    /// does once a second: reading the queue, writing the history.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Of the loops of iterations, only those whose name has this in it.
    #[arg(long, default_value = "")]
    of: String,
    /// Have what is committed written to the disk. Without this, SQLite's file is in memory where the system has a file
    /// system for that, and PostgreSQL does not wait for the disk: what is measured is the host, and no disk.
    #[arg(long)]
    durable: bool,
    /// The folder for the results; by default `target/bench` of this repository.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Only on this database.
    #[arg(long, value_enum)]
    database: Option<System>,
    /// Put table, plot and figures into the book, as `docs/src/bench.*`.
    #[arg(long)]
    book: bool,
    /// Measure nothing, and take the figures of an earlier run: a file of JSON in the folder for the results.
    #[arg(long)]
    from: Option<PathBuf>,
    /// The figures about hosts of several databases: be one, for the databases that the file at this path lists.
    #[arg(long, hide = true)]
    crowd: Option<PathBuf>,
    #[arg(long, hide = true, default_value_t = 0)]
    sleep_ms: u64,
    /// The baseline of the figures about processes: fills the table of the database at this URL in a bare loop.
    #[arg(long, hide = true)]
    bare: Option<String>,
    /// The service of the figures about gentleness: asks the SQLite database at this URL, so often in a second.
    #[arg(long, hide = true, requires = "rate")]
    foreground: Option<String>,
    /// How often.
    #[arg(long, hide = true)]
    rate: Option<f64>,
    /// What cargo calls every benchmark with.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum System {
    Sqlite,
    Postgres,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// An iteration of an update that does nothing.
    Iterations,
    /// A backfill, and how well it keeps to its target.
    Backfill,
    /// Iterations until the pace fits again after the cost of an item has changed.
    Steps,
    /// Cheap rows before dear ones: the longest batch, and an application's slowest write.
    Mixed,
    /// The calls of an iteration into a controller.
    Calls,
    /// The start of the program, and its memory.
    Processes,
    /// A backfill beside a shadow that traps.
    Shadow,
    /// A backfill by one worker and by two (PostgreSQL).
    Workers,
    /// A backfill while its host is asked for its status all the time.
    Requests,
    /// A backfill and an index build, in one lane and in two.
    Lanes,
    /// A transform by a component beside the same backfill in SQL.
    Transform,
    /// What a row costs in tables of 10^4 to 10^7 rows.
    Rows,
    /// Hosts of 1 to 1,000 databases.
    Databases,
    /// What a backfill costs the service that lives in the database.
    Gentleness,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let (Some(url), Some(rate)) = (&arguments.foreground, arguments.rate) {
        return match foreground::sqlite(url, rate, arguments.seconds) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&*error),
        };
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let done = match (arguments.bare.clone(), arguments.crowd.clone()) {
        (Some(url), _) => runtime.block_on(processes::bare(&url)),
        (_, Some(list)) => runtime.block_on(scale::crowd(&list, arguments.sleep_ms)),
        // On a thread of the runtime's own, where a host's loop runs too.
        _ => runtime.block_on(runtime.spawn(measure(arguments))).map_err(Into::into).flatten(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn Error) -> ExitCode {
    println!("the benchmark failed: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        println!("  because: {error}");
        cause = error.source();
    }
    ExitCode::FAILURE
}

async fn measure(arguments: Arguments) -> Outcome<()> {
    let (report, measured) = match &arguments.from {
        Some(path) => (FiguresReport::read(path)?, Ok(())),
        None => {
            let began = Instant::now();
            let places = Place::both(arguments.durable)?;
            let mut report = FiguresReport::new(arguments.durable, Machine::look(&places).await?, &places);
            let measured = measure_each(&arguments, &places, &mut report, began).await;
            report.took_s = began.elapsed().as_secs_f64();
            step("done", began);
            (report, measured)
        }
    };
    // What was measured before something went wrong is worth something still.
    report.print();
    if arguments.from.is_none() {
        let folder = arguments.results.clone().unwrap_or_else(|| repository().join("target/bench"));
        println!("\nwritten to {}", report.write(&folder)?.display());
    }
    if arguments.book {
        book::write(&report, &repository().join("docs/src"))?;
    }
    measured
}

async fn measure_each(
    arguments: &Arguments,
    places: &[Place],
    report: &mut FiguresReport,
    began: Instant,
) -> Outcome<()> {
    let wanted = |what| arguments.what.is_empty() || arguments.what.contains(&what);
    let loops = Duration::from_secs_f64(arguments.seconds);
    if wanted(What::Calls) {
        step("calls into controllers", began);
        calls::measure(report).await?;
    }
    let chosen = |place: &&Place| arguments.database.is_none_or(|system| place.is(system));
    for place in places.iter().filter(chosen) {
        if wanted(What::Iterations) {
            step(&format!("iterations on {}", place.name()), began);
            iterations::measure(report, place, loops, &arguments.of).await?;
        }
        if wanted(What::Backfill) {
            step(&format!("backfill on {}", place.name()), began);
            backfill::measure(report, place, arguments.rows).await?;
        }
        if wanted(What::Steps) {
            step(&format!("steps of cost on {}", place.name()), began);
            steps::measure(report, place).await?;
        }
        if wanted(What::Mixed) {
            step(&format!("cheap rows before dear ones on {}", place.name()), began);
            mixed::measure(report, place).await?;
        }
        if wanted(What::Processes) {
            step(&format!("processes on {}", place.name()), began);
            processes::measure(report, place).await?;
        }
        if wanted(What::Shadow) {
            step(&format!("a shadow on {}", place.name()), began);
            shadow::measure(report, place, arguments.rows).await?;
        }
        if wanted(What::Workers) {
            step(&format!("several workers on {}", place.name()), began);
            workers::measure(report, place, arguments.rows).await?;
        }
        if wanted(What::Requests) {
            step(&format!("requests to a host on {}", place.name()), began);
            requests::measure(report, place).await?;
        }
        if wanted(What::Lanes) {
            step(&format!("lanes on {}", place.name()), began);
            lanes::measure(report, place, arguments.rows).await?;
        }
        if wanted(What::Transform) {
            step(&format!("rows by a component on {}", place.name()), began);
            transform::measure(report, place, arguments.rows).await?;
        }
        if wanted(What::Databases) {
            step(&format!("hosts of several databases on {}", place.name()), began);
            scale::databases(report, place).await?;
        }
        if wanted(What::Rows) {
            step(&format!("tables of several sizes on {}", place.name()), began);
            scale::rows(report, place).await?;
        }
        if wanted(What::Gentleness) {
            step(&format!("a service beside a backfill on {}", place.name()), began);
            gentleness::measure(report, place).await?;
        }
    }
    Ok(())
}

fn step(what: &str, began: Instant) {
    println!("{:>6.1} s  {what}", began.elapsed().as_secs_f64());
}

fn repository() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.ancestors().nth(2).unwrap_or(crate_folder).to_path_buf()
}

/// A controller's component, as `make guests` leaves it.
fn component(name: &str) -> Outcome<PathBuf> {
    let path = repository().join("guests/target/components").join(name).with_extension("wasm");
    if !path.is_file() {
        return Err(format!("{} is missing: use `make bench`", path.display()).into());
    }
    Ok(path)
}

/// The value in the middle, once they are in order.
fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that a part of the values is at most as large as; not a number where there is none.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
