//! `tidegate controller check`.

use serde::Serialize;
use tidegate::controller::{Callback, Fault, FaultKind, Subject};
use tidegate::sandbox::{Artifact, Limits};
use tidegate::simulate::{DryCall, dry_run};

use super::super::error::CliError;
use super::super::{Context, output};
use super::load::Component;

/// The contract, for the lines that hints name.
const CONTRACT: &str = include_str!("../../../../wit/controller.wit");

/// Load a controller as a host would, and tell all that its author needs to know
///
/// It is compiled and linked under the limits that hold where a configuration sets none, and taken through one iteration
/// of an update, without a database. The exit code is 2 where something is wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    component: Component,

    /// The name of the update that it is asked about
    #[arg(long, value_name = "NAME", default_value = "update")]
    update: String,

    /// Print JSON: an object with `version` (1), `file`, `component` (null where it cannot be loaded), `calls` and
    /// `problems`
    #[arg(long)]
    pub(super) json: bool,
}

/// The shape of the JSON.
#[derive(Serialize)]
struct Report {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    file: String,
    component: Option<About>,
    /// The calls of a dry iteration, in order.
    calls: Vec<CallReport>,
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

    async fn look(&self) -> Report {
        let file = self.component.file.display().to_string();
        let artifact = match self.component.artifact(Limits::default()).await {
            Ok(artifact) => artifact,
            Err(fault) => {
                let problems = vec![problem(&fault)];
                return Report { version: 1, file, component: None, calls: Vec::new(), problems };
            }
        };
        let subject = Subject { update_name: self.update.clone(), database_name: "master".to_owned(), one_shot: false };
        let calls = dry_run(self.component.source(artifact.clone()), &subject).await;
        let problems = calls.iter().filter_map(|call| call.answer.as_ref().err()).map(problem).collect();
        let calls = calls.into_iter().map(CallReport::from).collect();
        Report { version: 1, file, component: Some(About::of(&artifact)), calls, problems }
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
fn granted(import: &str) -> &'static str {
    let of = |prefix: &str| import.starts_with(prefix);
    if ["tidegate:controller/", "wasi:clocks/", "wasi:random/", "wasi:io/"].into_iter().any(of) {
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

impl std::fmt::Display for Report {
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
        if !self.calls.is_empty() {
            let mut table = output::table(&["Callback", "Fuel", "Memory", "Answer"]);
            for call in &self.calls {
                let number = |number: Option<u64>| number.map(output::count).unwrap_or_default();
                table.add_row([
                    call.callback.to_string(),
                    number(call.fuel),
                    number(call.memory_bytes),
                    output::inline(call.answer.as_deref().unwrap_or("failed")),
                ]);
            }
            writeln!(f, "\nOne iteration\n{table}")?;
        }
        Ok(())
    }
}
