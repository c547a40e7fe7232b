//! The chart itself: lines with their points, a grid, a legend where it is least in the way.

use anyhow::{Result, anyhow};
use plotters::chart::{ChartBuilder, SeriesLabelPosition};
use plotters::drawing::IntoDrawingArea;
use plotters::element::{Circle, EmptyElement, PathElement, Text};
use plotters::prelude::SVGBackend;
use plotters::series::LineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, ShapeStyle, TRANSPARENT, WHITE};
use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::axis::Axis;

/// Colours that people with any colour vision tell apart (Okabe and Ito, "Color universal design", 2008), in an order
/// that puts the darker ones first.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];
const TEXT: RGBColor = RGBColor(51, 51, 51);
const AXIS: RGBColor = RGBColor(120, 120, 120);
const GRID: RGBColor = RGBColor(228, 228, 228);

/// Lines with more points than this are drawn without a mark at each.
const MAX_MARKS: usize = 60;

/// How a chart is to look.
#[derive(Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a JSON object such as {\"title\":\"Recall\"}"
)]
pub(super) struct Options {
    pub(super) title: String,
    pub(super) x_label: String,
    pub(super) y_label: String,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) log_x: bool,
    pub(super) log_y: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            title: String::new(),
            x_label: String::new(),
            y_label: String::new(),
            width: 800,
            height: 480,
            log_x: false,
            log_y: false,
        }
    }
}

/// A chart as it is collected, row by row.
pub(super) struct Chart {
    pub(super) options: Options,
    lines: Vec<Line>,
    number: FxHashMap<String, usize>,
    points: usize,
}

struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Chart {
    /// A chart without points.
    pub(super) fn new(options: Options) -> Self {
        Chart {
            options,
            lines: Vec::new(),
            number: FxHashMap::default(),
            points: 0,
        }
    }

    /// How many points there are.
    pub(super) fn points(&self) -> usize {
        self.points
    }

    /// Adds a point to the line of this name; returns the number of lines.
    pub(super) fn add(&mut self, name: String, point: (f64, f64)) -> usize {
        let lines = &mut self.lines;
        let i = *self.number.entry(name).or_insert_with_key(|name| {
            lines.push(Line {
                name: printable(name),
                points: Vec::new(),
            });
            lines.len() - 1
        });
        lines[i].points.push(point);
        self.points += 1;
        lines.len()
    }

    /// The SVG text.
    pub(super) fn draw(&mut self) -> Result<String> {
        for line in &mut self.lines {
            line.points
                .sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        }
        let mut svg = String::new();
        self.draw_on(&mut svg)
            .map_err(|e| anyhow!("plot_line: {e}"))?;
        Ok(svg)
    }

    fn draw_on(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error + '_>> {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        let x_axis = Axis::around(all().map(|p| p.0), self.options.log_x);
        let y_axis = Axis::around(all().map(|p| p.1), self.options.log_y);
        let corner = self.emptiest_corner(&x_axis, &y_axis);
        let (x_ticks, y_ticks) = (x_axis.ticks(), y_axis.ticks());

        let root = SVGBackend::with_string(svg, (self.options.width, self.options.height))
            .into_drawing_area();
        root.fill(&WHITE)?;
        let plot = if self.options.title.is_empty() {
            root.clone()
        } else {
            let (head, plot) = root.split_vertically(44);
            let centred = Pos::new(HPos::Center, VPos::Center);
            let style = ("sans-serif", 22).into_font().color(&TEXT).pos(centred);
            let middle = (self.options.width as i32 / 2, 26);
            head.draw(&Text::new(printable(&self.options.title), middle, style))?;
            plot
        };
        let mut builder = ChartBuilder::on(&plot);
        builder
            .margin(12)
            .margin_right(24)
            .x_label_area_size(if self.options.x_label.is_empty() {
                32
            } else {
                50
            })
            .y_label_area_size(if self.options.y_label.is_empty() {
                56
            } else {
                76
            });
        let mut chart = builder.build_cartesian_2d(x_axis, y_axis)?;
        let label = ("sans-serif", 15).into_font().color(&TEXT);
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(AXIS)
            .x_labels(x_ticks)
            .y_labels(y_ticks)
            .label_style(label.clone())
            .axis_desc_style(("sans-serif", 16).into_font().color(&TEXT))
            .x_desc(printable(&self.options.x_label))
            .y_desc(printable(&self.options.y_label))
            .draw()?;

        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let style = ShapeStyle::from(colour).stroke_width(2);
            let drawn = chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
            if !line.name.is_empty() {
                drawn
                    .label(line.name.as_str())
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
            }
            if line.points.len() <= MAX_MARKS {
                let marks = line.points.iter();
                chart.draw_series(marks.map(|&p| Circle::new(p, 3, colour.filled())))?;
            }
        }
        if self.lines.iter().any(|line| !line.name.is_empty()) {
            chart
                .configure_series_labels()
                .position(corner)
                .margin(8)
                .legend_area_size(30)
                .background_style(WHITE.mix(0.85))
                .border_style(GRID)
                .label_font(label.clone())
                .draw()?;
        }
        if self.lines.is_empty() {
            let centred = label.pos(Pos::new(HPos::Center, VPos::Center));
            let (width, height) = chart.plotting_area().dim_in_pixel();
            let (x, y) = chart.plotting_area().get_base_pixel();
            let middle = (x + width as i32 / 2, y + height as i32 / 2);
            root.draw(&(EmptyElement::at(middle) + Text::new("no points", (0, 0), centred)))?;
        }
        root.present()?;
        Ok(())
    }

    /// The corner of the plot where the fewest points are; the upper left one when all are equal.
    fn emptiest_corner(&self, x_axis: &Axis, y_axis: &Axis) -> SeriesLabelPosition {
        let mut near = [0; 4];
        for &(x, y) in self.lines.iter().flat_map(|line| &line.points) {
            let right = x_axis.position(x) > 0.5;
            let low = y_axis.position(y) < 0.5;
            near[2 * usize::from(low) + usize::from(right)] += 1;
        }
        let corners = [
            SeriesLabelPosition::UpperLeft,
            SeriesLabelPosition::UpperRight,
            SeriesLabelPosition::LowerLeft,
            SeriesLabelPosition::LowerRight,
        ];
        let least = near.iter().zip(corners).min_by_key(|(n, _)| **n);
        least.map_or(SeriesLabelPosition::UpperLeft, |(_, corner)| corner)
    }
}

/// A text without the control characters that XML has no way to write.
fn printable(text: &str) -> String {
    text.replace(
        |c: char| c.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&c),
        " ",
    )
}
