//! The book's page about what it costs: a table and a plot of the figures of one run, and these as JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::Outcome;
use super::plot;
use super::report::{Figure, FiguresReport, HEADER};

/// What stands above the tables.
const INTRODUCTION: &str = "\
# What it costs

`make bench BENCH=--book` measures this and writes this page; `make bench` alone measures and prints it. A figure is of the
same run as what it is compared with: a *ratio* is a figure by its baseline, the one that stands in its row
behind *to*. Other programs that run meanwhile disturb them: they are medians where something is measured more than once, and
still only as good as the machine was quiet.

The baselines do by hand, over the same drivers, what a host does for a batch. *The same statements* are those of a host;
*the least* are those that one writes first. A bare loop of 1000 fills the table in batches of 1,000 rows. No durations are
asserted anywhere: what is asked of a figure is said beside it, and whether it was so in this run.

What bounds some of them: on SQLite a batch that lasts 100 ms is some 300,000 of these rows, and costs a few per cent more a row
than one of 20,000, whoever executes it: see the bare loop of 300000. An iteration on SQLite is two turns of the connection's
thread, and three looks at file names of about 1 µs each. Where programs compete for the processors, waiting awake for short
answers does not help, and the bare loops, which sleep, come off better.
";

/// Writes the page, its plot and the figures.
pub(super) fn write(report: &FiguresReport, folder: &Path) -> Outcome<()> {
    fs::write(folder.join("bench.json"), report.json()?)?;
    fs::write(folder.join("bench.svg"), plot::svg(report)?)?;
    fs::write(folder.join("bench.md"), page(report)?)?;
    Ok(())
}

fn page(report: &FiguresReport) -> Outcome<String> {
    let mut page = INTRODUCTION.to_owned();
    for line in report.circumstances() {
        write!(page, "\n- {line}")?;
    }
    page.push_str("\n- The same figures for programs: [bench.json](bench.json)\n");
    page.push_str("\n![What is asked and what was measured](bench.svg)\n");
    let asked: Vec<&Figure> = report.figures.iter().filter(|figure| figure.asked.is_some()).collect();
    if !asked.is_empty() {
        write!(page, "\n## What is asked\n\n{}", table(&asked))?;
    }
    let mut title = "";
    let mut section = Vec::new();
    for figure in &report.figures {
        if figure.figure != title {
            page.push_str(&part(title, &section));
            (title, section) = (&figure.figure, Vec::new());
        }
        section.push(figure);
    }
    page.push_str(&part(title, &section));
    Ok(page)
}

/// The figures about one thing, below its name.
fn part(title: &str, figures: &[&Figure]) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let database = figures.first().map_or("", |figure| &figure.database);
    let on = if database.is_empty() { String::new() } else { format!(", {database}") };
    format!("\n## {}{on}\n\n{}", title.trim_start_matches("... "), table(figures))
}

fn table(figures: &[&Figure]) -> String {
    let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rows: String = figures.iter().map(|figure| row(&figure.columns())).collect();
    let alignment = "| --- | --- | --- | ---: | --- | ---: | --- | --- |\n";
    format!("{}{alignment}{rows}", row(&HEADER.map(str::to_owned)))
}
