//! `tidegate controller fuel`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidegate_simulate::{CallbackUse, callback_use};

use super::super::error::CliError;
use super::super::{Context, output};
use super::load::Component;
use super::scenario::{Bench, find};

/// Tell what each callback of a controller costs, and compare it with an earlier build
///
/// Fuel and memory are those of every call of a run, least, median and most. The exit code is 4 where fuel or memory
/// have grown by more than `--growth` since the figures that `--against` names.
#[derive(Debug, clap::Args)]
pub(super) struct Fuel {
    #[command(flatten)]
    component: Component,

    /// The scenario to run: a file, or the name of a standard one
    #[arg(value_name = "SCENARIO", default_value = "calm")]
    scenario: String,

    /// Where chance comes from, instead of the scenario's own seed
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// Write the figures to this file, for `--against`
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    /// Compare with the figures in this file
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,

    /// By how many percent median and most may have grown
    #[arg(long, value_name = "PERCENT", default_value_t = 10, requires = "against")]
    growth: u32,

    /// Print JSON: an object with `version` (1), `scenario`, `seed` and `callbacks`, as `--save` writes it
    #[arg(long)]
    pub(super) json: bool,
}

/// The figures, as they are printed and saved.
#[derive(Serialize, Deserialize)]
struct Saved {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    scenario: String,
    seed: u64,
    callbacks: Vec<CallbackUse>,
}

/// The version that is written and read.
const VERSION: u32 = 1;

impl Fuel {
    pub(super) async fn execute(self, _context: &Context) -> Result<(), CliError> {
        let scenario = find(&self.scenario)?;
        let before = self.against.as_deref().map(read).transpose()?;
        let bench = Bench::load(&self.component).await?;
        let run = bench.run(&scenario, self.seed)?;
        let callbacks = callback_use(&run.seen.calls);
        let now = Saved { version: VERSION, scenario: run.scenario.clone(), seed: run.seed, callbacks };
        if let Some(before) = before.as_ref().filter(|before| before.scenario != now.scenario) {
            let message = format!("the figures are of scenario {}, and this one is {}", before.scenario, now.scenario);
            return Err(CliError::usage(message).hint("compare runs of one scenario"));
        }
        if self.json {
            output::print_json(&now)?;
        } else {
            output::print(&table(&now.callbacks, before.as_ref().map(|before| &*before.callbacks)))?;
        }
        if let Some(path) = &self.save {
            write(path, &now)?;
        }
        match before {
            Some(before) => self.compare(&before.callbacks, &now.callbacks),
            None => Ok(()),
        }
    }

    fn compare(&self, before: &[CallbackUse], now: &[CallbackUse]) -> Result<(), CliError> {
        let mut grown = Vec::new();
        for now in now {
            let Some(before) = of(before, &now.callback) else { continue };
            let pairs = [("fuel, median", 1, before.fuel, now.fuel), ("fuel, most", 2, before.fuel, now.fuel)];
            let memory = ("memory, most", 2, before.memory_bytes, now.memory_bytes);
            for (what, place, before, after) in pairs.into_iter().chain([memory]) {
                let (before, after) = (before[place], after[place]);
                let most = before.saturating_add(before.saturating_mul(self.growth.into()) / 100);
                if after > most {
                    let numbers = format!("{} to {}", output::count(before), output::count(after));
                    grown.push(format!("{}: {what}, from {numbers}", now.callback));
                }
            }
        }
        match grown.is_empty() {
            true => Ok(()),
            false => Err(CliError::unmet(format!("grown by more than {} %: {}", self.growth, grown.join("; ")))),
        }
    }
}

fn of<'a>(callbacks: &'a [CallbackUse], callback: &str) -> Option<&'a CallbackUse> {
    callbacks.iter().find(|known| known.callback == callback)
}

fn table(callbacks: &[CallbackUse], before: Option<&[CallbackUse]>) -> String {
    let headings = [
        "Callback",
        "Calls",
        "Fuel: least",
        "median",
        "most",
        "Memory: least",
        "median",
        "most",
        "fuel before: median",
    ];
    let mut table = output::table(if before.is_some() { &headings } else { &headings[..8] });
    for CallbackUse { callback, calls, fuel, memory_bytes } in callbacks {
        let numbers = [*calls].into_iter().chain(*fuel).chain(*memory_bytes).map(output::count);
        let earlier = before.map(|before| of(before, callback).map_or("-".to_owned(), |of| output::count(of.fuel[1])));
        table.add_row([callback.clone()].into_iter().chain(numbers).chain(earlier));
    }
    table.to_string()
}

fn read(path: &Path) -> Result<Saved, CliError> {
    let failed = || CliError::usage(format!("cannot read the figures in {}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| failed().because(error))?;
    let saved: Saved = serde_json::from_str(&text)
        .map_err(|error| failed().because(error).hint("name a file that `controller fuel --save` wrote"))?;
    match saved.version {
        VERSION => Ok(saved),
        other => Err(failed().hint(format!("it is of version {other}, this program reads version {VERSION}"))),
    }
}

fn write(path: &Path, figures: &Saved) -> Result<(), CliError> {
    let failed = || CliError::failure(format!("cannot write {}", path.display()));
    let text = serde_json::to_string_pretty(figures).map_err(|error| failed().because(error))?;
    fs::write(path, text + "\n").map_err(|error| failed().because(error))
}
