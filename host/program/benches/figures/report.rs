//! What was measured, for people and for programs.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use super::Outcome;
use super::machine::Machine;
use super::place::Place;

/// One figure.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Figure {
    /// What was measured.
    pub(super) figure: String,
    /// Where; empty where no database was in play.
    pub(super) database: String,
    /// Of what.
    pub(super) subject: String,
    /// None where nothing could be measured.
    pub(super) value: Option<f64>,
    pub(super) unit: String,
    /// What it is to be compared with; `None` for a baseline itself.
    pub(super) baseline: Option<String>,
    /// `value` by the baseline's.
    pub(super) ratio: Option<f64>,
    /// What it is to be, where something is asked of it.
    #[serde(default)]
    pub(super) asked: Option<Asked>,
    /// Whether it is.
    #[serde(default)]
    pub(super) holds: Option<bool>,
}

/// What is asked of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Asked {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    ValueAtMost(f64),
}

/// All figures of a run.
#[derive(Serialize, Deserialize)]
pub(super) struct FiguresReport {
    version: u32,
    /// When the run began, in milliseconds since the Unix epoch.
    at_ms: u64,
    pub(super) machine: Machine,
    optimised: bool,
    /// True where what is committed was written to the disk.
    durable: bool,
    /// How long the run took, in seconds.
    pub(super) took_s: f64,
    pub(super) databases: Vec<String>,
    pub(super) figures: Vec<Figure>,
}

/// A value that others are compared with.
#[derive(Debug, Clone)]
pub(super) struct Baseline {
    pub(super) name: String,
    pub(super) value: f64,
}

impl Figure {
    /// Says what it is to be.
    pub(super) fn asked(&mut self, asked: Asked) {
        self.asked = Some(asked);
        self.holds = Some(self.used().is_some_and(|used| used <= 1.0));
    }

    /// How much of what is allowed it takes: 1 is all of it.
    pub(super) fn used(&self) -> Option<f64> {
        match self.asked? {
            Asked::RatioAtLeast(least) => self.ratio.map(|ratio| least / ratio),
            Asked::RatioAtMost(most) => self.ratio.map(|ratio| ratio / most),
            Asked::ValueAtMost(most) => self.value.map(|value| value / most),
        }
    }

    /// The columns of a table.
    pub(super) fn columns(&self) -> [String; 8] {
        let asked = self.asked.map_or_else(String::new, |asked| match asked {
            Asked::RatioAtLeast(least) => format!("ratio ≥ {least}"),
            Asked::RatioAtMost(most) => format!("ratio ≤ {most}"),
            Asked::ValueAtMost(most) => format!("≤ {most} {}", self.unit),
        });
        let holds = self.holds.map_or("", |holds| if holds { ": yes" } else { ": NO" });
        [
            self.figure.clone(),
            self.database.clone(),
            self.subject.clone(),
            self.value.map_or_else(|| "–".to_owned(), number),
            self.unit.clone(),
            self.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            self.baseline.clone().unwrap_or_default(),
            format!("{asked}{holds}"),
        ]
    }
}

impl FiguresReport {
    pub(super) fn new(durable: bool, machine: Machine, places: &[Place]) -> Self {
        Self {
            version: 2,
            at_ms: unix_ms(),
            machine,
            optimised: !cfg!(debug_assertions),
            durable,
            took_s: 0.0,
            databases: places.iter().map(Place::describe).collect(),
            figures: Vec::new(),
        }
    }

    /// A report that was written before.
    pub(super) fn read(path: &Path) -> Outcome<Self> {
        Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
    }

    /// A part of the report about one figure and one database.
    pub(super) fn section(&mut self, figure: &'static str, unit: &'static str, database: &'static str) -> Section<'_> {
        Section { figures: &mut self.figures, figure, unit, database }
    }

    /// Where and how it was measured, a line for each.
    pub(super) fn circumstances(&self) -> Vec<String> {
        let mut lines = self.machine.describe();
        lines.extend(self.databases.iter().cloned());
        let build = if self.optimised { "optimised" } else { "NOT optimised" };
        lines.push(format!("This build is {build}; all figures took {:.0} s", self.took_s));
        lines
    }

    /// Writes the tables to standard output.
    pub(super) fn print(&self) {
        println!();
        for line in self.circumstances() {
            println!("{line}");
        }
        println!("\n{self}");
        let asked: Vec<&Figure> = self.figures.iter().filter(|figure| figure.asked.is_some()).collect();
        if !asked.is_empty() {
            println!("\nWhat is asked:\n{}", table(asked.into_iter()));
        }
    }

    /// Writes the report as JSON into a file of its own.
    pub(super) fn write(&self, folder: &Path) -> Outcome<PathBuf> {
        fs::create_dir_all(folder)?;
        let path = folder.join(format!("run-{}.json", self.at_ms));
        fs::write(&path, self.json()?)?;
        Ok(path)
    }

    pub(super) fn json(&self) -> Outcome<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl fmt::Display for FiguresReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", table(self.figures.iter()))
    }
}

fn table<'a>(figures: impl Iterator<Item = &'a Figure>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_BORDERS_ONLY_CONDENSED);
    table.set_header(HEADER);
    for figure in figures {
        table.add_row(figure.columns());
    }
    for column in [3, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// What stands above [`Figure::columns`].
pub(super) const HEADER: [&str; 8] = ["figure", "database", "of", "value", "unit", "ratio", "to", "asked"];

/// Takes figures of one kind.
pub(super) struct Section<'a> {
    figures: &'a mut Vec<Figure>,
    figure: &'static str,
    unit: &'static str,
    database: &'static str,
}

impl Section<'_> {
    /// Adds what others are compared with.
    pub(super) fn baseline(&mut self, name: &str, value: f64) -> Baseline {
        self.push(name.to_owned(), value, None);
        Baseline { name: name.to_owned(), value }
    }

    /// Adds a figure beside its baseline.
    pub(super) fn add(&mut self, subject: impl Into<String>, value: f64, baseline: &Baseline) -> &mut Figure {
        self.push(subject.into(), value, Some(baseline))
    }

    fn push(&mut self, subject: String, value: f64, baseline: Option<&Baseline>) -> &mut Figure {
        let finite = |value: f64| value.is_finite().then_some(value);
        self.figures.push_mut(Figure {
            figure: self.figure.to_owned(),
            database: self.database.to_owned(),
            subject,
            value: finite(value),
            unit: self.unit.to_owned(),
            baseline: baseline.map(|baseline| baseline.name.clone()),
            ratio: baseline.and_then(|baseline| finite(value / baseline.value)),
            asked: None,
            holds: None,
        })
    }
}

/// A number as a person wants it: no more digits than mean something.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_millis().try_into().unwrap_or(u64::MAX))
}
