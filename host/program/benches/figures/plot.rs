//! The plot of a run: what is asked beside what was measured, and how costs grow.

use plotters::coord::Shift;
use plotters::prelude::{
    BLACK, BLUE, ChartBuilder, Circle, Color, DrawingArea, EmptyElement, GREEN, IntoDrawingArea, IntoLogRange,
    LineSeries, PathElement, RED, RGBColor, Rectangle, SVGBackend, Text, WHITE,
};
use plotters::style::{IntoFont, ShapeStyle};

use super::Outcome;
use super::report::{Figure, FiguresReport, number};

/// In pixels.
const WIDTH: u32 = 960;
const BAR: u32 = 22;
const HEAD: u32 = 56;
const CHART: u32 = 260;
const FONT: &str = "sans-serif";
/// Where the bars begin, and where one ends that takes all that is allowed.
const NAMES: i32 = 560;
const ALLOWED: i32 = 300;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A chart of figures over a number that stands in what they are of.
struct Growth {
    title: &'static str,
    /// The beginning of the figures' name.
    figure: &'static str,
    x: &'static str,
    y: &'static str,
}

const GROWTHS: [Growth; 3] = [
    Growth {
        title: "A row of a backfill in batches of 1000, by the rows of its table",
        figure: "a row of a backfill",
        x: "rows",
        y: "ns",
    },
    Growth {
        title: "A host's resident memory, by its databases",
        figure: "a host of several databases: resident memory",
        x: "databases",
        y: "MiB",
    },
    Growth {
        title: "A host's iterations a second without sleep, by its databases",
        figure: "... iterations of all together",
        x: "databases",
        y: "1/s",
    },
];

pub(super) fn svg(report: &FiguresReport) -> Outcome<String> {
    let asked: Vec<&Figure> = report.figures.iter().filter(|figure| figure.asked.is_some()).collect();
    let growths: Vec<(&Growth, Vec<Line>)> =
        GROWTHS.iter().map(|growth| (growth, lines(report, growth.figure))).collect();
    let growths: Vec<_> = growths.into_iter().filter(|(_, lines)| !lines.is_empty()).collect();
    let bars = HEAD + BAR * u32::try_from(asked.len())?;
    let height = bars + CHART * u32::try_from(growths.len())?;
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE).map_err(in_words)?;
        let (above, below) = area.split_vertically(bars);
        draw_asked(&above, &asked)?;
        for ((growth, lines), part) in growths.iter().zip(below.split_evenly((growths.len().max(1), 1))) {
            draw_growth(&part, growth, lines)?;
        }
        area.present().map_err(in_words)?;
    }
    Ok(text)
}

/// The errors of drawing hold what is not to be sent elsewhere.
fn in_words(error: impl std::fmt::Display) -> Box<dyn std::error::Error + Send + Sync> {
    error.to_string().into()
}

/// A bar for each figure of which something is asked: how much of what is allowed it takes.
fn draw_asked(area: &Area<'_>, figures: &[&Figure]) -> Outcome<()> {
    let write = |text: String, x: i32, y: i32, size: i32| {
        area.draw(&Text::new(text, (x, y), (FONT, size).into_font().color(&BLACK))).map_err(in_words)
    };
    write(
        "How much of what is allowed each figure takes (less is better; the line is all of it)".to_owned(),
        12,
        10,
        16,
    )?;
    for (figure, y) in figures.iter().zip((0..).map(|row| (HEAD + BAR * row) as i32)) {
        let [name, database, subject, ..] = figure.columns();
        write(
            format!("{name}: {subject} {}", if database.is_empty() { String::new() } else { format!("({database})") }),
            12,
            y,
            12,
        )?;
        let Some(used) = figure.used() else {
            write("not measured".to_owned(), NAMES, y, 12)?;
            continue;
        };
        let end = NAMES + (f64::from(ALLOWED) * used.min(1.2)) as i32;
        let color = if used <= 1.0 { GREEN.mix(0.5) } else { RED.mix(0.6) };
        area.draw(&Rectangle::new([(NAMES, y - 2), (end, y + 14)], color.filled())).map_err(in_words)?;
        let measured = figure.ratio.filter(|_| !figure.columns()[7].starts_with('≤')).or(figure.value);
        write(measured.map(number).unwrap_or_default(), NAMES + 4, y, 12)?;
    }
    let line = vec![(NAMES + ALLOWED, HEAD as i32 - 8), (NAMES + ALLOWED, (HEAD + BAR * figures.len() as u32) as i32)];
    area.draw(&PathElement::new(line, ShapeStyle::from(&BLACK).stroke_width(1))).map_err(in_words)
}

/// What one database shows.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// The figures by the number that stands in what they are of.
fn lines(report: &FiguresReport, figure: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for found in report.figures.iter().filter(|found| found.figure.starts_with(figure)) {
        let bare = found.subject.starts_with("bare");
        let behind = found.subject.rsplit("of ").next().unwrap_or_default();
        let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
        let (Ok(x), Some(y)) = (digits.parse(), found.value) else { continue };
        let name = format!("{}{}", found.database, if bare { ", bare loop" } else { "" });
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) if line.points.contains(&(x, y)) => {}
            Some(line) => line.points.push((x, y)),
            None => lines.push(Line { name, points: vec![(x, y)] }),
        }
    }
    lines
}

fn draw_growth(area: &Area<'_>, growth: &Growth, lines: &[Line]) -> Outcome<()> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (least, most) = points().fold((f64::INFINITY, 1.0_f64), |(least, most), (x, _)| (least.min(*x), most.max(*x)));
    let highest = points().map(|(_, y)| *y).fold(0.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption(growth.title, (FONT, 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d((least..most * 3.0).log_scale(), 0.0..highest.max(1.0))
        .map_err(in_words)?;
    let whole = |number: &f64| format!("{number:.0}");
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(WHITE).x_desc(growth.x).y_desc(growth.y).x_label_formatter(&whole).y_label_formatter(&whole);
    mesh.draw().map_err(in_words)?;
    let colors = [BLUE, RED, RGBColor(120, 160, 255), RGBColor(255, 160, 120)];
    // Bare loops in lighter colours, behind those that they are compared with.
    let (bare, hosted): (Vec<&Line>, Vec<&Line>) = lines.iter().partition(|line| line.name.ends_with("bare loop"));
    let bare = bare.into_iter().zip(colors[2..].iter().copied());
    for (line, color) in bare.chain(hosted.into_iter().zip(colors)) {
        chart.draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2))).map_err(in_words)?;
        let dots = line.points.iter().map(|point| Circle::new(*point, 3, color.filled()));
        chart.draw_series(dots).map_err(in_words)?;
        if let Some(last) = line.points.last() {
            // One below the other, where the lines end side by side.
            let below = if line.name.ends_with("bare loop") { 4 } else { -12 };
            let text = Text::new(line.name.clone(), (6, below), (FONT, 12).into_font().color(&color));
            let name = EmptyElement::at(*last) + text;
            chart.draw_series([name]).map_err(in_words)?;
        }
    }
    Ok(())
}
