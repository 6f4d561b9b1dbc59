//! Pictures of a run: for a terminal, and as SVG.

use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    BLUE, Cartesian2d, ChartBuilder, ChartContext, Color, DrawingArea, GREEN, IntoDrawingArea, LineSeries, RED,
    RGBColor, Rectangle, SVGBackend, WHITE,
};

use super::judge::time;
use super::model::Series;
use super::run::{Run, SimulationError};

/// Columns of a chart for a terminal, and its lines.
const COLUMNS: usize = 64;
const LINES: u32 = 6;

/// The size of a picture, and of a chart in it, in pixels.
const WIDTH: u32 = 960;
const CHART_HEIGHT: u32 = 180;

/// Values of one chart over time, drawn as one line or two.
struct Panel {
    title: String,
    lines: Vec<Vec<(f64, f64)>>,
}

/// What is drawn, in seconds from the start of the run.
fn panels(run: &Run) -> Vec<Panel> {
    let batches = &run.seen.batches;
    let seconds = |at: Duration| at.as_secs_f64();
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let durations = batches.iter().filter_map(|batch| Some((seconds(batch.at), ms(batch.duration?))));
    let targets = batches.iter().filter_map(|batch| Some((seconds(batch.at), ms(batch.target?))));
    let sizes = batches.iter().map(|batch| (seconds(batch.at), batch.batch_size as f64));
    let mut panels = vec![
        Panel {
            title: "batch duration and target, ms".to_owned(),
            lines: vec![targets.collect(), durations.collect()],
        },
        Panel { title: "batch size, items".to_owned(), lines: vec![sizes.collect()] },
    ];
    let latency = Series { name: "foreground latency, ms".to_owned(), ..run.foreground.clone() };
    for Series { name, points } in [&latency].into_iter().chain(&run.signals) {
        let line = points.iter().map(|(at, value)| (seconds(*at), *value)).collect();
        panels.push(Panel { title: name.clone(), lines: vec![line] });
    }
    panels
}

/// When the controller held the update, in seconds: from its answer to what came of it.
fn holds(run: &Run) -> Vec<Range<f64>> {
    let held = run.seen.holds.iter().filter(|hold| !hold.rest);
    held.map(|hold| {
        let next = run.seen.batches.iter().map(|batch| batch.at).find(|at| *at >= hold.at);
        let until = (hold.at + hold.duration).min(next.unwrap_or(run.ended_at)).min(run.ended_at);
        hold.at.as_secs_f64()..until.as_secs_f64()
    })
    .collect()
}

/// A picture of a run in plain text.
pub fn terminal(run: &Run) -> String {
    let length = run.ended_at.as_secs_f64().max(1e-3);
    let mut text = String::new();
    for Panel { title, lines } in panels(run) {
        let columns = lines.iter().map(|line| in_columns(line, length)).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{title}{}", drawn(columns));
    }
    let held = holds(run);
    let width = length / COLUMNS as f64;
    let mark = |column: usize| {
        let (from, until) = (column as f64 * width, (column + 1) as f64 * width);
        if held.iter().any(|hold| hold.start < until && from < hold.end) { '#' } else { '.' }
    };
    let marks: String = (0..COLUMNS).map(mark).collect();
    let _ = write!(text, "held\n{:>11} {marks}\n{:>12}0 to {}", "", "", time(run.ended_at));
    text
}

/// The lines of a panel, below its title; beside it where there is but one value.
fn drawn(mut columns: Vec<Vec<f64>>) -> String {
    round(&mut columns);
    if let Some(value) = constant(&columns) {
        return format!(": {value:.2} throughout");
    }
    let config = rasciigraph::Config::default().with_height(LINES).with_offset(10);
    format!("\n{}", without_padding(&rasciigraph::plot_many(columns, config)))
}

/// Leaves six digits of what a panel shows: rasciigraph counts its rows in `i32`, and does not survive lines whose
/// values differ by their last bits.
fn round(columns: &mut [Vec<f64>]) {
    let largest = columns.iter().flatten().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let step = 10_f64.powf((largest.max(1e-6).log10() - 5.0).floor());
    columns.iter_mut().flatten().for_each(|value| *value = (*value / step).round() * step);
}

/// The one value of all lines, where they have but one.
fn constant(columns: &[Vec<f64>]) -> Option<f64> {
    let first = *columns.first()?.first()?;
    // What two decimals do not tell apart is the same to whoever looks.
    columns.iter().flatten().all(|value| (value - first).abs() < 0.005).then_some(first)
}

fn without_padding(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The greatest value in each column; the last one before where there is none.
fn in_columns(line: &[(f64, f64)], length: f64) -> Vec<f64> {
    let mut columns: Vec<Option<f64>> = vec![None; COLUMNS];
    for (at, value) in line {
        let column = ((at / length * COLUMNS as f64) as usize).min(COLUMNS - 1);
        columns[column] = Some(columns[column].map_or(*value, |known: f64| known.max(*value)));
    }
    let mut last = line.first().map_or(0.0, |(_, value)| *value);
    columns
        .into_iter()
        .map(|column| {
            last = column.unwrap_or(last);
            last
        })
        .collect()
}

/// A picture of a run as SVG: a chart for each thing that has values, holds in grey.
///
/// # Errors
/// [`SimulationError::Failed`] where it cannot be drawn.
pub fn svg(run: &Run) -> Result<String, SimulationError> {
    let mut text = String::new();
    draw(run, &mut text).map_err(|error| SimulationError::Failed(format!("it cannot be drawn: {error}")))?;
    Ok(text)
}

type Drawn = Result<(), Box<dyn std::error::Error + Send + Sync>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(run: &Run, text: &mut String) -> Drawn {
    let panels = panels(run);
    let height = CHART_HEIGHT * u32::try_from(panels.len()).unwrap_or(1);
    let area = SVGBackend::with_string(text, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE).map_err(in_words)?;
    let length = run.ended_at.as_secs_f64().max(1e-3);
    let held = holds(run);
    for (panel, part) in panels.iter().zip(area.split_evenly((panels.len(), 1))) {
        panel.draw(&part, length, &held)?;
    }
    area.present().map_err(in_words)
}

/// The errors of drawing hold what is not to be sent elsewhere.
fn in_words(error: impl std::fmt::Display) -> Box<dyn std::error::Error + Send + Sync> {
    error.to_string().into()
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

impl Panel {
    fn draw(&self, area: &Area<'_>, length: f64, held: &[Range<f64>]) -> Drawn {
        let highest = self.lines.iter().flatten().map(|(_, value)| *value).fold(0.0, f64::max);
        let highest = if highest > 0.0 { highest * 1.05 } else { 1.0 };
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 14))
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..length, 0.0..highest)
            .map_err(in_words)?;
        chart.configure_mesh().light_line_style(WHITE).x_desc("s").draw().map_err(in_words)?;
        let grey = RGBColor(200, 200, 200).mix(0.5).filled();
        let shade = |hold: &Range<f64>| Rectangle::new([(hold.start, 0.0), (hold.end, highest)], grey);
        chart.draw_series(held.iter().map(shade)).map_err(in_words)?;
        self.draw_lines(&mut chart)?;
        Ok(())
    }

    fn draw_lines(&self, chart: &mut Chart<'_, '_>) -> Drawn {
        let colors = if self.lines.len() > 1 { [RED, BLUE] } else { [BLUE, GREEN] };
        for (line, color) in self.lines.iter().zip(colors) {
            chart.draw_series(LineSeries::new(line.iter().copied(), color.stroke_width(1))).map_err(in_words)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_by_their_last_digits_are_drawn() {
        for (value, other, expected) in [
            (7.142857142857142, 7.142857142857143, ": 7.14 throughout"),
            (3e9, 3e9 + 1.0, ": 3000000000.00 throughout"),
            (0.0, 1e-9, ": 0.00 throughout"),
            (3e9, 3e9 + 1e5, "\n"),
            (1e12, 1.0, "\n"),
        ] {
            let drawn = drawn(vec![vec![value, other, value]]);
            assert!(drawn.starts_with(expected), "{value} {other}: {drawn}");
        }
    }
}
