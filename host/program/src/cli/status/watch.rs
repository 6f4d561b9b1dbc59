//! `tidegate status --watch`: a table that keeps itself up to date on a terminal, one after the other elsewhere.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

use super::render;
use super::report::StatusReport;
use super::source::Source;
use crate::cli::error::CliError;
use crate::cli::output;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows what is to be seen again and again, until interrupted. A first look that fails is the end; later ones are told
/// in the table's place.
pub(super) async fn watch(source: &Source, json: bool) -> Result<(), CliError> {
    let view = View::new(json);
    let mut looks = interval(INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut first = true;
    let watched = async {
        loop {
            looks.tick().await;
            match source.report().await {
                Ok((report, _)) => view.show(&report)?,
                Err(error) if first => return Err(error),
                Err(error) => view.fail(&error)?,
            }
            first = false;
        }
    };
    let outcome = tokio::select! {
        outcome = watched => outcome,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(|error| CliError::failure("cannot listen for signals").because(error))
        }
    };
    view.end();
    outcome
}

/// Where it is shown.
enum View {
    /// In place. A bar, for want of which there would be nothing that knows how to draw over itself.
    Terminal(ProgressBar),
    /// One after the other.
    Text,
    /// One after the other, a line each.
    Json,
}

impl View {
    fn new(json: bool) -> Self {
        if json {
            return View::Json;
        }
        if !io::stdout().is_terminal() {
            return View::Text;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
        // The template is right, and a wrong one would cost the looks alone.
        let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        View::Terminal(bar.with_style(style))
    }

    fn show(&self, report: &StatusReport) -> Result<(), CliError> {
        match self {
            View::Terminal(bar) => {
                bar.set_message(output::visible(&render::report(report)));
                bar.tick();
                Ok(())
            }
            View::Text => output::print(&format!("{}\n", render::report(report))),
            View::Json => output::print_json_line(report),
        }
    }

    fn fail(&self, error: &CliError) -> Result<(), CliError> {
        match self {
            View::Terminal(bar) => {
                bar.set_message(output::visible(&error.to_string()));
                bar.tick();
            }
            View::Text | View::Json => error.print(),
        }
        Ok(())
    }

    fn end(self) {
        if let View::Terminal(bar) = self {
            bar.abandon();
        }
    }
}
