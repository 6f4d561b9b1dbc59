//! `tidegate controller test`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tidegate_config::STANDARD;
use tidegate_simulate::judge::time;
use tidegate_simulate::{CallbackUse, Figures, Run, Scenario, Verdict, callback_use, figures, judge, svg, terminal};

use super::super::error::CliError;
use super::super::{Context, output};
use super::junit;
use super::load::Component;
use super::scenario::{Bench, add_update, find};

/// Run a controller through scenarios, on virtual time and without a database
///
/// The scheduler is the one of `tidegate run`; the database is modelled as the scenario says. The same file, scenario
/// and seed give the same output. The exit code is 4 where an expectation was not met, and 1 where a run came to nothing
/// because this machine was too slow for it.
#[derive(Debug, clap::Args)]
pub(super) struct Test {
    #[command(flatten)]
    component: Component,

    /// Scenarios: files, or names of standard ones
    #[arg(value_name = "SCENARIO", required_unless_present = "all_standard")]
    scenarios: Vec<String>,

    /// Run all standard scenarios, too
    #[arg(long)]
    all_standard: bool,

    /// Where chance comes from, instead of the scenario's own seed
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// Have an update of this name in every scenario; may be given several times
    #[arg(long = "update", value_name = "NAME")]
    updates: Vec<String>,

    /// Print the lines that the controller writes to the log
    #[arg(long, conflicts_with = "json")]
    lines: bool,

    /// Draw a chart of every run; of a single one it is drawn without being asked for
    #[arg(long, conflicts_with = "json")]
    chart: bool,

    /// Write a picture of each run, as SVG, into this folder
    #[arg(long, value_name = "FOLDER")]
    svg: Option<PathBuf>,

    /// Write the verdicts to this file, as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Print JSON: an object with `version` (1), `controller`, `sha256`, `passed` and `scenarios`
    #[arg(long)]
    pub(super) json: bool,
}

/// The shape of the JSON.
#[derive(Serialize)]
pub(super) struct TestReport {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    pub(super) controller: String,
    sha256: String,
    /// True where every expectation of every scenario was met.
    passed: bool,
    pub(super) scenarios: Vec<Tried>,
}

/// A scenario that was run.
#[derive(Serialize)]
pub(super) struct Tried {
    pub(super) name: String,
    seed: u64,
    passed: bool,
    figures: Figures,
    pub(super) expectations: Vec<Verdict>,
    callbacks: Vec<CallbackUse>,
}

impl Test {
    pub(super) async fn execute(self, _context: &Context) -> Result<(), CliError> {
        let mut scenarios = Vec::new();
        for named in &self.scenarios {
            scenarios.push(find(named)?);
        }
        if self.all_standard {
            for (name, _) in STANDARD {
                scenarios.push(find(name)?);
            }
        }
        let bench = Bench::load(&self.component).await?;
        let single = scenarios.len() == 1;
        let mut tried = Vec::new();
        let mut drawn = BTreeMap::new();
        for mut scenario in scenarios {
            self.updates.iter().for_each(|name| add_update(&mut scenario, name));
            let run = bench.run(&scenario, self.seed)?;
            let one = Tried::new(&scenario, &run);
            if !self.json {
                output::print(&one.to_string())?;
                let lines = run.seen.lines.iter().filter(|_| self.lines);
                for (at, line) in lines {
                    output::print(&format!("  {} {} {}", time(*at), line.level, line.text))?;
                }
                if self.chart || single {
                    output::print(&format!("\n{}", terminal(&run)))?;
                }
            }
            self.draw(&run, &mut drawn)?;
            tried.push(one);
        }
        let report = TestReport {
            version: 1,
            controller: self.component.name(),
            sha256: bench.artifact.digest().to_owned(),
            passed: tried.iter().all(|tried| tried.passed),
            scenarios: tried,
        };
        if self.json {
            output::print_json(&report)?;
        }
        if let Some(path) = &self.junit {
            junit::write(path, &report)?;
        }
        conclude(&report)
    }

    /// Draws a run into a file of its own: `drawn` is how many there are of each name.
    fn draw(&self, run: &Run, drawn: &mut BTreeMap<String, u32>) -> Result<(), CliError> {
        let Some(folder) = &self.svg else { return Ok(()) };
        let failed = |what: &str| CliError::failure(format!("cannot write {what}"));
        let picture = svg(run).map_err(|error| failed("a picture").because(error))?;
        let mut name = file_name(&run.scenario);
        let same = drawn.entry(name.clone()).or_default();
        *same += 1;
        if *same > 1 {
            name = format!("{name}-{same}");
        }
        let path = folder.join(name).with_added_extension("svg");
        fs::create_dir_all(folder).map_err(|error| failed(&folder.display().to_string()).because(error))?;
        fs::write(&path, picture).map_err(|error| failed(&path.display().to_string()).because(error))
    }
}

/// A scenario's name as a file's: whatever else it holds, it names a file of this folder.
fn file_name(scenario: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let name: String = scenario.chars().map(|letter| if plain(letter) { letter } else { '_' }).take(100).collect();
    match name.trim_start_matches('.') {
        "" => "scenario".to_owned(),
        name => name.to_owned(),
    }
}

fn conclude(report: &TestReport) -> Result<(), CliError> {
    let verdicts = || report.scenarios.iter().flat_map(|tried| &tried.expectations);
    match verdicts().filter(|verdict| !verdict.met).count() {
        0 => Ok(()),
        1 => Err(CliError::unmet("1 expectation was not met")),
        count => Err(CliError::unmet(format!("{count} expectations were not met"))),
    }
}

impl Tried {
    fn new(scenario: &Scenario, run: &Run) -> Self {
        let expectations = judge(scenario, run);
        Self {
            name: run.scenario.clone(),
            seed: run.seed,
            passed: expectations.iter().all(|verdict| verdict.met),
            figures: figures(run),
            expectations,
            callbacks: callback_use(&run.seen.calls),
        }
    }
}

impl std::fmt::Display for Tried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Figures { finished_at_ms, ended_at_ms, batches, items, worst_over_target, .. } = &self.figures;
        let name = output::inline(&self.name);
        let passed = if self.passed { "passed" } else { "FAILED" };
        let end = match finished_at_ms {
            Some(ms) => format!("finished at {}", time(Duration::from_millis(*ms))),
            None => format!("not finished at {}", time(Duration::from_millis(*ended_at_ms))),
        };
        let (items, batches) = (output::count(*items), output::count(*batches as u64));
        write!(
            f,
            "{name}: {passed}; {end}, {items} items in {batches} batches, at worst {worst_over_target:.1} times the target"
        )?;
        for Verdict { expectation, met, expected, measured, first } in &self.expectations {
            let (expected, measured) = (output::inline(expected), output::inline(measured));
            if *met {
                write!(f, "\n  ok    {expectation}: {measured}")?;
                continue;
            }
            write!(f, "\n  FAIL  {expectation}: {measured}; expected {expected}")?;
            if let Some(first) = first {
                write!(f, "\n        first {}", output::inline(&first.to_string()))?;
            }
        }
        Ok(())
    }
}
