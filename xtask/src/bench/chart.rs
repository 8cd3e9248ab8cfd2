//! The figure of docs/performance.md: what a statement costs along each scale.

use super::figures::Point;
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::collections::BTreeMap;

/// An SVG with a panel for each scale.
pub(super) fn draw(growth: &BTreeMap<String, Vec<Point>>) -> Result<String> {
    let mut svg = String::new();
    let rows = growth.len().div_ceil(COLUMNS).max(1);
    {
        let size = (PANEL.0 * u32::try_from(COLUMNS)?, PANEL.1 * u32::try_from(rows)?);
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        for (panel, (name, points)) in area.split_evenly((rows, COLUMNS)).iter().zip(growth) {
            draw_panel(panel, name, points)?;
        }
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

/// One of a point's figures.
type Of = fn(&Point) -> f64;

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_panel(area: &Area<'_>, name: &str, points: &[Point]) -> Result<()> {
    let ends = |of: fn(f64, f64) -> f64| points.iter().map(|point| point.at).reduce(of).unwrap_or(1.0);
    // A scale with one point still has a width.
    let across = ends(f64::min)..ends(f64::max).max(ends(f64::min) * 2.0);
    let top =
        points.iter().map(|point| point.agent_us.max(point.kernel_us)).fold(1.0, f64::max) * ROOM_FOR_LABELS;
    let decimals = usize::from(top < 10.0);
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .caption(format!("µs a statement, by {name}"), ("sans-serif", 15))
        .x_label_area_size(28)
        .y_label_area_size(38)
        .build_cartesian_2d(across.log_scale(), 0.0..top)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_label_formatter(&|at| thousands(*at))
        .y_label_formatter(&|us| format!("{us:.decimals$}"))
        .x_labels(6)
        .y_labels(5)
        .label_style(("sans-serif", 11))
        .draw()
        .map_err(failed)?;
    let lines: [(&str, RGBColor, Of); 2] =
        [("agent", AGENT, |point| point.agent_us), ("kernel side", KERNEL, |point| point.kernel_us)];
    for (label, color, of) in lines {
        let line = points.iter().map(move |point| (point.at, of(point)));
        chart
            .draw_series(LineSeries::new(line.clone(), color.stroke_width(2)).point_size(3))
            .map_err(failed)?
            .label(label)
            .legend(move |(x, y)| Rectangle::new([(x, y - 1), (x + 14, y + 1)], color.filled()));
        chart.draw_series(line.map(|at| Circle::new(at, 3, color.filled()))).map_err(failed)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 11))
        .draw()
        .map_err(failed)
}

/// `10k` for ten thousand.
fn thousands(number: f64) -> String {
    if number >= 1_000.0 { format!("{:.0}k", number / 1_000.0) } else { format!("{number:.0}") }
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("the figure cannot be drawn: {error}")
}

/// How far the scale goes beyond the highest point, so that the lines' names hide none.
const ROOM_FOR_LABELS: f64 = 1.4;
const COLUMNS: usize = 2;
const PANEL: (u32, u32) = (420, 260);
const AGENT: RGBColor = RGBColor(31, 96, 163);
const KERNEL: RGBColor = RGBColor(200, 92, 30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scale_has_a_panel_with_both_lines() {
        let point =
            |at| Point { at, rate: 1.0, agent_us: 2.0, kernel_us: 1.0, bytes: 13.0, peak_mib: 60.0, lost: 0 };
        let growth = BTreeMap::from([
            ("cores".to_owned(), vec![point(1.0)]),
            ("sessions".to_owned(), vec![point(1.0), point(1_000.0)]),
        ]);
        let svg = draw(&growth).unwrap();
        assert!(svg.contains("by cores") && svg.contains("by sessions"));
        assert_eq!(svg.matches("kernel side").count(), 2);
        assert_eq!(thousands(30_000.0), "30k");
    }
}
