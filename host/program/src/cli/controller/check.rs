//! `tidegate controller check`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidegate::controller::{Callback, Fault, FaultKind, Subject};
use tidegate_simulate::{DryCall, DrySignals, dry_run};
use tidegate_wasm::{Artifact, Limits, Reading};

use super::super::error::CliError;
use super::super::{Context, output};
use super::load::Component;

/// The contract, for the lines that hints name.
const CONTRACT: &str = include_str!("../../../../../wit/controller.wit");

/// What signals read as whose readings nobody gave: fresh, and of a size that is nothing special.
const SOME_READING: Reading = Reading { value: 1.0, age: Duration::ZERO };

/// Load a controller as a host would, and tell all that its author needs to know
///
/// It is compiled and linked under the limits that hold where a configuration sets none, and taken through one iteration
/// of an update, without a database: first without a reading of any signal; then, where it reads signals, once more with
/// readings, those of --signal, or else 1 for each. The exit code is 2 where something is wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    component: Component,

    /// The name of the update that it is asked about
    #[arg(long, value_name = "NAME", default_value = "update")]
    update: String,

    /// What a signal reads as in the second iteration, and how old that is in milliseconds (0 where it is not said); may be
    /// given several times. A signal that is not named has no reading then
    #[arg(long = "signal", value_name = "NAME=VALUE[@AGE]", value_parser = signal)]
    signals: Vec<(String, Reading)>,

    /// Print JSON: an object with `version` (1), `file`, `component` (null where it cannot be loaded), `calls`, `signals`,
    /// `calls_with_signals` and `problems`
    #[arg(long)]
    pub(super) json: bool,
}

/// The shape of the JSON.
#[derive(Serialize)]
struct ControllerReport {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    file: String,
    component: Option<About>,
    /// The calls of a dry iteration without readings, in order.
    calls: Vec<CallReport>,
    /// The signals that it reads, or that were given a reading, each with what it has in the second iteration.
    signals: Vec<SignalReport>,
    /// The calls of that one; none where it reads no signal.
    calls_with_signals: Vec<CallReport>,
    /// What is wrong; where there is anything, the command fails.
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct About {
    /// What to pin with `sha256`.
    sha256: String,
    size_bytes: usize,
    compile_ms: u64,
    contract_version: String,
    exports: Vec<Export>,
    imports: Vec<Import>,
}

#[derive(Serialize)]
struct Export {
    name: &'static str,
    exported: bool,
    /// What is used where it is not exported.
    instead: Option<&'static str>,
}

#[derive(Serialize)]
struct Import {
    name: String,
    /// What the guest gets by it.
    granted: &'static str,
}

#[derive(Serialize)]
struct CallReport {
    callback: Callback,
    /// `None` where it failed.
    answer: Option<String>,
    fuel: Option<u64>,
    memory_bytes: Option<u64>,
}

#[derive(Serialize)]
struct SignalReport {
    name: String,
    /// `None` where it has no reading.
    value: Option<f64>,
    age_ms: Option<u64>,
    /// False where it was given a reading, and nothing read it.
    read: bool,
}

#[derive(Serialize, PartialEq)]
struct Problem {
    kind: FaultKind,
    callback: Callback,
    message: String,
    hint: String,
}

impl Check {
    pub(super) async fn execute(self, _context: &Context) -> Result<(), CliError> {
        let report = self.look().await;
        if self.json {
            output::print_json(&report)?;
        } else {
            output::print(report.to_string().trim_end())?;
            for problem in &report.problems {
                output::error(&output::inline(&problem.message));
                output::hint(&output::inline(&problem.hint));
            }
        }
        match report.problems.len() {
            0 => Ok(()),
            1 => Err(CliError::usage("the controller has a problem")),
            count => Err(CliError::usage(format!("the controller has {count} problems"))),
        }
    }

    async fn look(&self) -> ControllerReport {
        let file = self.component.file.display().to_string();
        let artifact = match self.component.artifact(Limits::default()).await {
            Ok(artifact) => artifact,
            Err(fault) => {
                let problems = vec![problem(&fault)];
                return ControllerReport { problems, ..ControllerReport::of(file) };
            }
        };
        let subject = Subject { update_name: self.update.clone(), database_name: "master".to_owned(), one_shot: false };
        let run = async |signals: &Arc<DrySignals>| {
            let source = self.component.source(artifact.clone()).with_signals(signals.clone());
            dry_run(source, &subject).await
        };
        let none = Arc::new(DrySignals::default());
        let without = run(&none).await;
        let given: BTreeMap<String, Reading> = self.signals.iter().cloned().collect();
        let others = given.is_empty().then_some(SOME_READING);
        let some = Arc::new(DrySignals::new(given, others));
        let with = if none.names().is_empty() && self.signals.is_empty() { Vec::new() } else { run(&some).await };
        let mut problems: Vec<Problem> = Vec::new();
        for fault in without.iter().chain(&with).filter_map(|call| call.answer.as_ref().err()) {
            let problem = problem(fault);
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        ControllerReport {
            component: Some(About::of(&artifact)),
            calls: without.into_iter().map(CallReport::from).collect(),
            signals: self.signals(&none, &some),
            calls_with_signals: with.into_iter().map(CallReport::from).collect(),
            problems,
            ..ControllerReport::of(file)
        }
    }

    fn signals(&self, none: &DrySignals, some: &DrySignals) -> Vec<SignalReport> {
        let read = &none.names() | &some.names();
        let named = &read | &self.signals.iter().map(|(name, _)| name.clone()).collect();
        let report = |name: String| {
            let reading = some.reading(&name);
            SignalReport {
                value: reading.map(|reading| reading.value),
                age_ms: reading.map(|reading| reading.age.as_millis().try_into().unwrap_or(u64::MAX)),
                read: read.contains(&name),
                name,
            }
        };
        named.into_iter().map(report).collect()
    }
}

/// A signal and its reading, from the command line.
fn signal(text: &str) -> Result<(String, Reading), String> {
    let usage = || "write it as NAME=VALUE or NAME=VALUE@AGE, a number, and its age in milliseconds".to_owned();
    let (name, reading) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(usage)?;
    let (value, age) = reading.split_once('@').unwrap_or((reading, "0"));
    let value = value.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(usage)?;
    let age = age.parse().map_err(|_| usage())?;
    Ok((name.to_owned(), Reading { value, age: Duration::from_millis(age) }))
}

impl ControllerReport {
    /// Of a file of which nothing is known yet.
    fn of(file: String) -> Self {
        Self {
            version: 1,
            file,
            component: None,
            calls: Vec::new(),
            signals: Vec::new(),
            calls_with_signals: Vec::new(),
            problems: Vec::new(),
        }
    }
}

impl About {
    fn of(artifact: &Artifact) -> Self {
        let optional = |name, exported, instead| Export { name, exported, instead: (!exported).then_some(instead) };
        Self {
            sha256: artifact.digest().to_owned(),
            size_bytes: artifact.size(),
            compile_ms: artifact.compile_time().as_millis().try_into().unwrap_or(u64::MAX),
            contract_version: artifact.contract_version().to_owned(),
            exports: vec![
                Export { name: "pacing", exported: true, instead: None },
                optional(
                    "default-batch-size",
                    artifact.exports_default_batch_size(),
                    "the configuration's `default_batch_size` (100) counts",
                ),
                optional(
                    "min-batch-size",
                    artifact.exports_min_batch_size(),
                    "the configuration's `min_batch_size` (100) counts",
                ),
            ],
            imports: artifact
                .imports()
                .iter()
                .map(|name| Import { granted: granted(name), name: name.clone() })
                .collect(),
        }
    }
}

/// What a guest gets by an import.
pub(in crate::cli) fn granted(import: &str) -> &'static str {
    let of = |prefix: &str| import.starts_with(prefix);
    if ["tidegate:", "wasi:clocks/", "wasi:random/", "wasi:io/"].into_iter().any(of) {
        "granted"
    } else if of("wasi:cli/stdout") || of("wasi:cli/stderr") {
        "granted: lines go to the log"
    } else if of("wasi:filesystem/") {
        "linked, nothing granted: there are no files"
    } else if of("wasi:sockets/") {
        "linked, nothing granted: there is no network"
    } else if of("wasi:cli/environment") {
        "linked, nothing granted: no variables, no arguments"
    } else if of("wasi:cli/stdin") {
        "linked, nothing granted: it is at its end"
    } else if of("wasi:cli/exit") {
        "granted: it costs the instance, as a trap does"
    } else if of("wasi:cli/terminal") {
        "linked, nothing granted: there is no terminal"
    } else {
        "linked"
    }
}

impl From<DryCall> for CallReport {
    fn from(call: DryCall) -> Self {
        Self {
            callback: call.callback,
            answer: call.answer.ok(),
            fuel: call.used.map(|used| used.fuel),
            memory_bytes: call.used.map(|used| used.memory_bytes),
        }
    }
}

fn problem(fault: &Fault) -> Problem {
    let hint = match line_of(fault) {
        Some(line) => format!("{}; see wit/controller.wit, line {line}", fault.kind.hint()),
        None => fault.kind.hint().to_owned(),
    };
    Problem { kind: fault.kind, callback: fault.callback, message: fault.to_string(), hint }
}

/// The line of the contract that a fault is about; `None` where it is about a limit, which the hint names.
fn line_of(fault: &Fault) -> Option<usize> {
    let declared = match (fault.kind, fault.callback) {
        (FaultKind::Incompatible, _) if fault.message.contains("default-batch-size") => "interface default-batch-size",
        (FaultKind::Incompatible, _) if fault.message.contains("min-batch-size") => "interface min-batch-size",
        (FaultKind::Incompatible, _) if fault.message.contains("import") => "world controller {",
        (FaultKind::Incompatible, _) => "on-update: func",
        (FaultKind::ErrorReturned | FaultKind::Trap, Callback::OnUpdate) => "on-update: func",
        (FaultKind::ErrorReturned | FaultKind::Trap, Callback::Enter) => "enter: func",
        (FaultKind::ErrorReturned | FaultKind::Trap, Callback::Exit) => "exit: func",
        (FaultKind::Trap, Callback::DefaultBatchSize) => "default-batch-size: func",
        (FaultKind::Trap, Callback::MinBatchSize) => "min-batch-size: func",
        (FaultKind::Trap, Callback::Drop) => "resource iteration {",
        _ => return None,
    };
    CONTRACT.lines().position(|line| line.trim_start().starts_with(declared)).map(|index| index + 1)
}

impl std::fmt::Display for ControllerReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(about) = &self.component else {
            return writeln!(f, "{}: it cannot be loaded", self.file);
        };
        writeln!(f, "{}", self.file)?;
        let (size, compile) = (output::count(about.size_bytes as u64), about.compile_ms);
        writeln!(
            f,
            "  {size} bytes, compiled in {compile} ms, for version {} of the contract",
            about.contract_version
        )?;
        writeln!(f, "  sha256 = \"{}\"\n\nExports", about.sha256)?;
        for Export { name, instead, .. } in &about.exports {
            match instead {
                None => writeln!(f, "  {name}")?,
                Some(instead) => writeln!(f, "  {name}: absent, {instead}")?,
            }
        }
        f.write_str("\nImports\n")?;
        for Import { name, granted } in &about.imports {
            writeln!(f, "  {name}: {granted}")?;
        }
        if about.imports.is_empty() {
            f.write_str("  none\n")?;
        }
        if !self.signals.is_empty() {
            f.write_str("\nSignals\n")?;
        }
        for signal in &self.signals {
            writeln!(f, "  {}: {}", output::inline(&signal.name), signal.words())?;
        }
        match (self.calls.is_empty(), self.calls_with_signals.is_empty()) {
            (true, _) => Ok(()),
            (false, true) => writeln!(f, "\nOne iteration\n{}", table(&self.calls)),
            (false, false) => {
                writeln!(f, "\nOne iteration without readings\n{}", table(&self.calls))?;
                writeln!(f, "\nOne iteration with readings\n{}", table(&self.calls_with_signals))
            }
        }
    }
}

fn table(calls: &[CallReport]) -> impl std::fmt::Display {
    let mut table = output::table(&["Callback", "Fuel", "Memory", "Answer"]);
    for call in calls {
        let number = |number: Option<u64>| number.map(output::count).unwrap_or_default();
        table.add_row([
            call.callback.to_string(),
            number(call.fuel),
            number(call.memory_bytes),
            output::inline(call.answer.as_deref().unwrap_or("failed")),
        ]);
    }
    table
}

impl SignalReport {
    fn words(&self) -> String {
        let reading = match (self.value, self.age_ms) {
            (Some(value), Some(age_ms)) => format!("{value}, {} ms old", output::count(age_ms)),
            _ => "no reading (give it one with --signal)".to_owned(),
        };
        if self.read { reading } else { format!("{reading}; it is never read") }
    }
}
