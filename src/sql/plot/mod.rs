//! `plot_line(x, y [, series [, options]])`: an aggregate that draws its rows as a chart and returns the SVG text.
//!
//! ```sql
//! SELECT writefile('recall.svg', plot_line(trees, recall)) FROM curve;
//! SELECT plot_line(trees, seconds, name, '{"title":"Build time", "log_x":true}') FROM runs;
//! ```
//!
//! One line for each value of `series`, in order of appearance; within a line the points are sorted by x, because an
//! aggregate sees its rows in no certain order. A row whose x or y is NULL is left out. No rows give an empty chart
//! that says so, never NULL: a script that plots goes on. Options are read from the first row. The text of the chart
//! is left to the viewer's fonts, so none are needed here.

mod axis;
mod chart;

use anyhow::{Result, bail};
use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context};
use rusqlite::types::{Type, ValueRef};

use super::values::options_error;

use chart::{Chart, Options};

/// More points than this make an SVG that no viewer opens.
const MAX_POINTS: usize = 1_000_000;
/// More lines than this can't be told apart, by far.
const MAX_SERIES: usize = 1_000;
/// Sizes that a chart can have.
const PIXELS: std::ops::RangeInclusive<u32> = 100..=10_000;
/// Numbers outside of these ends are refused: sums and logarithms of them leave the range of f64.
const MAX_NUMBER: f64 = 1e300;
const MIN_LOG_NUMBER: f64 = 1e-290;

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    for arguments in 2..=4 {
        conn.create_aggregate_function("plot_line", arguments, super::PURE, PlotLine)?;
    }
    Ok(())
}

struct PlotLine;

impl Aggregate<Chart, String> for PlotLine {
    fn init(&self, ctx: &mut Context<'_>) -> rusqlite::Result<Chart> {
        let options = match ctx.len() {
            4 => ctx.get_raw(3),
            _ => ValueRef::Null,
        };
        read_options(options).map_err(super::function_error)
    }

    fn step(&self, ctx: &mut Context<'_>, chart: &mut Chart) -> rusqlite::Result<()> {
        let series = match ctx.len() {
            2 => ValueRef::Null,
            _ => ctx.get_raw(2),
        };
        add(chart, ctx.get_raw(0), ctx.get_raw(1), series).map_err(super::function_error)
    }

    fn finalize(&self, _: &mut Context<'_>, chart: Option<Chart>) -> rusqlite::Result<String> {
        let mut chart = chart.unwrap_or_else(|| Chart::new(Options::default()));
        chart.draw().map_err(super::function_error)
    }
}

/// Adds one row.
fn add(chart: &mut Chart, x: ValueRef<'_>, y: ValueRef<'_>, series: ValueRef<'_>) -> Result<()> {
    let (Some(x), Some(y)) = (
        number("x", x, chart.options.log_x)?,
        number("y", y, chart.options.log_y)?,
    ) else {
        return Ok(());
    };
    let name = match series {
        ValueRef::Null => String::new(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(r) => r.to_string(),
        ValueRef::Text(t) => String::from_utf8_lossy(t).into_owned(),
        ValueRef::Blob(_) => bail!("plot_line: series: expected a name, got a blob"),
    };
    if chart.points() == MAX_POINTS {
        bail!(
            "plot_line: more than {MAX_POINTS} points: plot averages (GROUP BY) or a part of the rows"
        );
    }
    if chart.add(name, (x, y)) > MAX_SERIES {
        bail!(
            "plot_line: more than {MAX_SERIES} different values of series: is it the name of a line?"
        );
    }
    Ok(())
}

/// A coordinate; None for NULL.
fn number(axis: &str, value: ValueRef<'_>, log: bool) -> Result<Option<f64>> {
    let number = match value {
        ValueRef::Null => return Ok(None),
        ValueRef::Integer(n) => n as f64,
        ValueRef::Real(r) => r,
        ValueRef::Text(_) | ValueRef::Blob(_) => {
            let kind = if value.data_type() == Type::Text {
                "a text"
            } else {
                "a blob"
            };
            bail!("plot_line: {axis}: expected a number, got {kind}")
        }
    };
    if number.abs() > MAX_NUMBER {
        bail!("plot_line: {axis}: expected a number from -1e300 to 1e300, got {number:e}");
    }
    if log && number < MIN_LOG_NUMBER {
        bail!(
            "plot_line: {axis}: expected a number above zero because of log_{axis}, got {number}"
        );
    }
    Ok(Some(number))
}

/// The empty chart that the options describe.
fn read_options(options: ValueRef<'_>) -> Result<Chart> {
    let options: Options = match options {
        ValueRef::Null => Options::default(),
        ValueRef::Text(text) => {
            serde_json::from_slice(text).map_err(|e| options_error("plot_line", &e))?
        }
        other => bail!(
            "plot_line options must be JSON such as {{\"title\":\"Recall\"}}, got {}",
            other.data_type()
        ),
    };
    for (name, pixels) in [("width", options.width), ("height", options.height)] {
        if !PIXELS.contains(&pixels) {
            bail!(
                "plot_line: option {name}: expected pixels from {} to {}, got {pixels}",
                PIXELS.start(),
                PIXELS.end()
            );
        }
    }
    Ok(Chart::new(options))
}
