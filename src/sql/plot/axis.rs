//! An axis: from numbers to pixels, and where its ticks are. Linear or logarithmic, one type for both.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// The most ticks on a linear axis.
const TICKS: f64 = 8.0;

/// A range of numbers with its ticks. Always `low < high`, both finite; both above zero when logarithmic.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    log: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// An axis that shows all `values` (finite; above zero when `log`) and ends at ticks. A linear axis of counts or
    /// times starts at zero, unless that would waste more than half of it.
    pub(super) fn around(values: impl Iterator<Item = f64> + Clone, log: bool) -> Axis {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        match (low <= high, log) {
            (false, true) => Axis::log(1.0, 10.0),
            (false, false) => Axis::linear(0.0, 1.0),
            (true, true) => Axis::log(low, high),
            (true, false) => Axis::linear(low, high),
        }
    }

    fn linear(mut low: f64, mut high: f64) -> Axis {
        if low >= 0.0 && low < high / 2.0 {
            low = 0.0;
        }
        // Numbers that differ by less than this could not be told apart on the labels.
        let least = (low.abs().max(high.abs()) * 1e-5).max(1e-290);
        if high - low < least {
            let pad = least.max(low.abs() * 0.1);
            (low, high) = (low - pad, high + pad);
        }
        let step = nice_step((high - low) / TICKS);
        let first = (low / step).floor();
        let count = ((high / step).ceil() - first).clamp(1.0, 2.0 * TICKS) as usize;
        let ticks: Vec<f64> = (0..=count).map(|i| (first + i as f64) * step).collect();
        Axis {
            low: ticks[0].min(low),
            high: ticks[count].max(high),
            log: false,
            ticks,
        }
    }

    fn log(low: f64, high: f64) -> Axis {
        let bottom = low.log10().floor();
        let top = high.log10().ceil().max(bottom + 1.0);
        let every = ((top - bottom) / TICKS).ceil().max(1.0);
        // Few decades have room for ticks between the powers of ten.
        let inner: &[f64] = if top - bottom <= 3.0 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let mut ticks = Vec::new();
        let mut decade = bottom;
        while decade <= top {
            ticks.extend(inner.iter().map(|m| m * 10f64.powf(decade)));
            decade += every;
        }
        let start = ticks
            .iter()
            .rev()
            .find(|&&t| t <= low)
            .copied()
            .unwrap_or(low);
        let end = ticks.iter().find(|&&t| t >= high).copied().unwrap_or(high);
        let end = if start < end { end } else { start * 10.0 };
        ticks.retain(|t| (start..=end).contains(t));
        Axis {
            low: start,
            high: end,
            log: true,
            ticks,
        }
    }

    /// Where a value lies between the ends: 0 to 1.
    pub(super) fn position(&self, value: f64) -> f64 {
        let at = |v: f64| if self.log { v.ln() } else { v };
        (at(value) - at(self.low)) / (at(self.high) - at(self.low))
    }

    /// How many ticks there are.
    pub(super) fn ticks(&self) -> usize {
        self.ticks.len()
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let at = self.position(*value).clamp(0.0, 1.0);
        from + (f64::from(to - from) * at).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        label(*value)
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|&step| step >= least)
        .unwrap_or(10.0 * power)
}

/// A number as a label: six digits, no trailing zeros, powers of ten where plain digits get long.
fn label(value: f64) -> String {
    if value == 0.0 {
        return "0".to_string();
    }
    let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(value);
    if (1e-4..1e6).contains(&rounded.abs()) {
        format!("{rounded}")
    } else {
        format!("{rounded:e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64], log: bool) -> Vec<String> {
        let axis = Axis::around(values.iter().copied(), log);
        axis.ticks.iter().map(|t| label(*t)).collect()
    }

    #[test]
    fn ticks_are_round_numbers_and_enclose_the_values() {
        assert_eq!(
            labels(&[1.0, 29.0], false),
            ["0", "5", "10", "15", "20", "25", "30"]
        );
        assert_eq!(
            labels(&[0.973, 1.0], false),
            ["0.97", "0.975", "0.98", "0.985", "0.99", "0.995", "1"]
        );
        assert_eq!(
            labels(&[-3.0, 4.0], false),
            ["-3", "-2", "-1", "0", "1", "2", "3", "4"]
        );
        assert_eq!(
            labels(&[1.0, 500.0], true),
            ["1", "2", "5", "10", "20", "50", "100", "200", "500"]
        );
        assert_eq!(
            labels(&[0.001, 2e4], true),
            [
                "0.001", "0.01", "0.1", "1", "10", "100", "1000", "10000", "100000"
            ]
        );
    }

    #[test]
    fn any_finite_values_give_an_axis_with_few_ticks_that_shows_them() {
        let extremes: [f64; 11] = [
            0.0,
            1.0,
            -1.0,
            1e-300,
            5e-324,
            1e300,
            -1e300,
            1e15,
            1e15 + 1.0,
            0.1,
            7.0,
        ];
        for a in extremes {
            for b in extremes {
                for log in [false, true] {
                    if log && a.min(b) < super::super::MIN_LOG_NUMBER {
                        continue;
                    }
                    let axis = Axis::around([a, b].into_iter(), log);
                    assert!(
                        axis.low <= a.min(b) && a.max(b) <= axis.high,
                        "{a} {b} {axis:?}"
                    );
                    assert!((1..=30).contains(&axis.ticks()), "{a} {b} {axis:?}");
                    assert!(axis.position(a).is_finite(), "{a} {b} {axis:?}");
                }
            }
        }
    }
}
