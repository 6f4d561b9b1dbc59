//! The log: what the library traces, to standard error and around the progress bars.

use std::io::{self, Write};

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;

use super::error::CliError;
use super::output;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Starts logging what `filter` lets through.
pub(super) fn start(filter: Option<&str>, format: Format, bars: &MultiProgress) -> Result<(), CliError> {
    let filter = filter.unwrap_or(match format {
        Format::Human => "warn",
        Format::Json => "warn,tidegate=info",
    });
    let parsed = EnvFilter::try_new(filter).map_err(|error| {
        CliError::usage(format!("\"{filter}\" is not a filter for the log"))
            .because(error)
            .hint("write a level (error, warn, info, debug, trace), or levels by module: \"tidegate=debug,warn\"")
    })?;
    let bars = bars.clone();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_ansi(output::colors_errors())
        .with_writer(move || AroundBars(bars.clone()));
    match format {
        Format::Human => lines.init(),
        Format::Json => {
            lines.json().flatten_event(true).init();
            output::log_everything();
        }
    }
    Ok(())
}

/// Standard error, the bars taken away while something is written to it.
struct AroundBars(MultiProgress);

impl Write for AroundBars {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
