//! The durations of the last batches against their targets, as a small chart that needs neither script nor style of
//! its own: SVG whose colours come from the style sheet.

use maud::{Markup, html};

use super::view::BatchView;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 80.0;

/// Below this, two points make no line.
const FEWEST: usize = 2;

/// The chart; nothing where there are too few batches.
pub(super) fn durations(batches: &[BatchView], database: &str) -> Markup {
    if batches.len() < FEWEST {
        return html! {};
    }
    let highest = batches.iter().map(|batch| batch.duration_ms.max(batch.target_ms.unwrap_or(0) as f64));
    let highest = highest.fold(1.0, f64::max) * 1.1;
    let x = |index: usize| index as f64 / (batches.len() - 1) as f64 * WIDTH;
    let y = |milliseconds: f64| HEIGHT - milliseconds / highest * HEIGHT;
    let line = |value: &dyn Fn(&BatchView) -> Option<f64>| {
        let points = batches.iter().enumerate();
        let points = points.filter_map(|(index, batch)| Some(format!("{:.1},{:.1}", x(index), y(value(batch)?))));
        points.collect::<Vec<_>>().join(" ")
    };
    let took = line(&|batch| Some(batch.duration_ms));
    let target = line(&|batch| batch.target_ms.map(|target| target as f64));
    let failed = batches.iter().enumerate().filter(|(_, batch)| !batch.committed);
    let last = batches.last().map_or(0.0, |batch| batch.duration_ms);
    html! {
        figure.chart {
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                aria-label={ "Durations of the last " (batches.len()) " batches on " (database) ", the last " (format!("{last:.0}")) " ms" } {
                polyline.target points=(target) {}
                polyline.took points=(took) {}
                @for (index, batch) in failed {
                    circle.failed cx=(format!("{:.1}", x(index))) cy=(format!("{:.1}", y(batch.duration_ms))) r="3" {}
                }
            }
            figcaption.small {
                span.key.took { "batch duration" } " " span.key.target { "target" }
                " of the last " (batches.len()) " batches; up to " (format!("{highest:.0}")) " ms"
            }
        }
    }
}
