//! `tidegate controller replay`.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use serde::Serialize;
use tidegate_simulate::trace::format::{ControllerFacts, Header, Line};
use tidegate_simulate::trace::{self, Difference, Reader, TraceError};

use super::super::error::CliError;
use super::super::{output, wiring};
use super::load::Component;

/// Ask a controller what another was asked while `tidegate run --record` wrote it down, and show where it decides
/// otherwise
///
/// It is asked the same questions in the same order, under the limits and with the settings that were in force then;
/// signals, clocks and random numbers are those that were read then. Where the recorded controller did not read a signal,
/// the last recorded reading of it counts. The exit code is 4 where it decides otherwise.
#[derive(Debug, clap::Args)]
pub(super) struct Replay {
    #[command(flatten)]
    component: Component,

    /// What `tidegate run --record` wrote
    #[arg(value_name = "TRACE")]
    trace: PathBuf,

    /// Ask only what was asked on this database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,

    /// Take a trace without its end, of a host that was killed or still runs, as far as it goes
    #[arg(long)]
    partial: bool,

    /// Print JSON: an object with `version` (1), `trace`, `file`, `controllers` as recorded, `complete` and what came of
    /// it
    #[arg(long)]
    pub(super) json: bool,
}

/// The shape of the JSON.
#[derive(Serialize)]
struct Told {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    trace: String,
    file: String,
    /// Who was recorded.
    controllers: Vec<Recorded>,
    /// False where the trace breaks off.
    complete: bool,
    #[serde(flatten)]
    report: trace::ReplayReport,
}

/// A controller that was recorded.
#[derive(Serialize)]
struct Recorded {
    name: String,
    sha256: Option<String>,
}

impl Replay {
    pub(super) async fn execute(self) -> Result<(), CliError> {
        let path = self.trace.display().to_string();
        let unreadable = |error: TraceError| {
            let hint = error.hint();
            CliError::failure(format!("cannot replay {path}")).because(error).hint(hint)
        };
        let file = File::open(&self.trace).map_err(|source| unreadable(TraceError::Io { line: 1, source }))?;
        let mut reader = Reader::new(BufReader::new(file)).map_err(unreadable)?;
        let header = reader.header().clone();
        let (report, complete) = self.replay(&header, &mut reader, &unreadable).await?;
        let recorded = |facts: &ControllerFacts| Recorded { name: facts.name.clone(), sha256: facts.sha256.clone() };
        let told = Told {
            version: 1,
            trace: path.clone(),
            file: self.component.file.display().to_string(),
            controllers: header.controllers.iter().map(recorded).collect(),
            complete,
            report,
        };
        if self.json {
            output::print_json(&told)?
        } else {
            output::print(told.to_string().trim_end())?
        }
        match told.report.different() {
            0 => Ok(()),
            1 => Err(CliError::unmet("the controller decides otherwise once")),
            times => Err(CliError::unmet(format!("the controller decides otherwise {} times", output::count(times)))),
        }
    }

    async fn replay(
        &self,
        header: &Header,
        reader: &mut Reader<BufReader<File>>,
        unreadable: &impl Fn(TraceError) -> CliError,
    ) -> Result<(trace::ReplayReport, bool), CliError> {
        let file = self.component.file.display();
        let component = tokio::fs::read(&self.component.file).await.map_err(|error| {
            CliError::failure(format!("cannot read {file}")).because(error).hint("name the component's file first")
        })?;
        let mut replay = trace::Replay::new(component, self.component.settings.clone(), wiring::cache_directory())
            .compiled_by(wiring::compiler());
        replay.begin(&header.controllers);
        let mut complete = true;
        loop {
            let (number, line) = match reader.next_line() {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(TraceError::Truncated { .. }) if self.partial => {
                    complete = false;
                    break;
                }
                Err(error) => return Err(unreadable(error)),
            };
            if !self.asks(&line) {
                continue;
            }
            replay.take(number, line).await.map_err(|fault| {
                let hint = fault.kind.hint();
                CliError::failure(format!("the controller {file} cannot be loaded")).because(fault).hint(hint)
            })?;
        }
        Ok((replay.report(), complete))
    }

    fn asks(&self, line: &Line) -> bool {
        match (line, &self.database) {
            (Line::Call(call), Some(database)) => call.database == *database,
            _ => true,
        }
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let report = &self.report;
        let names: Vec<String> = self.controllers.iter().map(|recorded| output::inline(&recorded.name)).collect();
        let of = if names.is_empty() { "the built-in policy".to_owned() } else { names.join(", ") };
        writeln!(f, "{}: {} calls of {of}", self.trace, output::count(report.calls + report.not_asked))?;
        if report.lost > 0 {
            writeln!(f, "  it lacks {} calls that could not be written", output::count(report.lost))?;
        }
        if !self.complete {
            writeln!(f, "  it breaks off: the host was killed, or still runs")?;
        }
        if report.not_asked > 0 {
            writeln!(f, "  {} calls could not be asked again", output::count(report.not_asked))?;
        }
        for (signal, times) in &report.unrecorded_signals {
            let (signal, times) = (output::inline(signal), output::count(*times));
            writeln!(
                f,
                "  signal {signal} was read {times} times where it was not recorded: the last reading counted"
            )?;
        }
        let (then, now) = (output::count(report.recorded_fuel), output::count(report.fuel));
        writeln!(f, "  fuel: {then} recorded, {now} now")?;
        let Some(Difference { line, database, update, callback, recorded, now, .. }) = report.differences.first()
        else {
            return writeln!(f, "no difference");
        };
        let update = update.as_ref().map(|name| format!("{}, ", output::inline(name))).unwrap_or_default();
        writeln!(f, "first difference: line {line}, {}, {update}{callback}", output::inline(database))?;
        writeln!(f, "  recorded: {}\n  now:      {}", output::inline(recorded), output::inline(now))?;
        let counts =
            report.changes.iter().map(|(change, times)| format!("{} {}", change.words(), output::count(*times)));
        writeln!(f, "differences: {}", counts.collect::<Vec<_>>().join(", "))
    }
}
