//! What was measured, for people and for programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::Outcome;
use super::place::Place;

/// One figure.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    /// What was measured.
    figure: &'static str,
    /// Where; empty where no database was in play.
    database: &'static str,
    /// Of what.
    subject: String,
    value: f64,
    unit: &'static str,
    /// What it is to be compared with; `None` for a baseline itself.
    baseline: Option<String>,
    /// `value` by the baseline's.
    ratio: Option<f64>,
}

/// All figures of a run.
#[derive(Serialize)]
pub(super) struct Report {
    version: u32,
    /// When the run began, in milliseconds since the Unix epoch.
    at_ms: u64,
    processors: usize,
    optimised: bool,
    /// True where what is committed was written to the disk.
    durable: bool,
    databases: Vec<String>,
    figures: Vec<Figure>,
}

/// A value that others are compared with.
#[derive(Debug, Clone)]
pub(super) struct Baseline {
    pub(super) name: String,
    pub(super) value: f64,
}

impl Report {
    pub(super) fn new(durable: bool, places: &[Place]) -> Self {
        Self {
            version: 1,
            at_ms: unix_ms(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            optimised: !cfg!(debug_assertions),
            durable,
            databases: places.iter().map(Place::describe).collect(),
            figures: Vec::new(),
        }
    }

    /// A part of the report about one figure and one database.
    pub(super) fn section(&mut self, figure: &'static str, unit: &'static str, database: &'static str) -> Section<'_> {
        Section { figures: &mut self.figures, figure, unit, database }
    }

    /// Writes the table to standard output.
    pub(super) fn print(&self) {
        println!();
        for line in &self.databases {
            println!("{line}");
        }
        let build = if self.optimised { "optimised" } else { "NOT optimised" };
        println!("{} processors; this build is {build}\n", self.processors);
        let mut table = Table::new();
        table.load_style(presets::ASCII_BORDERS_ONLY_CONDENSED);
        table.set_header(["figure", "database", "of", "value", "unit", "ratio", "to"]);
        for figure in &self.figures {
            table.add_row([
                figure.figure.to_owned(),
                figure.database.to_owned(),
                figure.subject.clone(),
                number(figure.value),
                figure.unit.to_owned(),
                figure.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
                figure.baseline.clone().unwrap_or_default(),
            ]);
        }
        for column in [3, 5] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{table}");
    }

    /// Writes the report as JSON into a file of its own.
    pub(super) fn write(&self, folder: &Path) -> Outcome<PathBuf> {
        fs::create_dir_all(folder)?;
        let path = folder.join(format!("run-{}.json", self.at_ms));
        fs::write(&path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(path)
    }
}

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
    pub(super) fn add(&mut self, subject: impl Into<String>, value: f64, baseline: &Baseline) {
        self.push(subject.into(), value, Some(baseline));
    }

    fn push(&mut self, subject: String, value: f64, baseline: Option<&Baseline>) {
        self.figures.push(Figure {
            figure: self.figure,
            database: self.database,
            subject,
            value,
            unit: self.unit,
            baseline: baseline.map(|baseline| baseline.name.clone()),
            ratio: baseline.map(|baseline| value / baseline.value),
        });
    }
}

/// A number as a person wants it: no more digits than mean something.
fn number(value: f64) -> String {
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
