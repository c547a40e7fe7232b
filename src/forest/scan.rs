//! Rows that are in no index, one after the other: the exact distance of those that can still matter.
//!
//! An f32 kernel scores the row first. Its error is bounded (Higham, "Accuracy and Stability of Numerical Algorithms",
//! section 3.1): with u = 2^-24 and g = (dim + 2) u / (1 - (dim + 2) u), a sum of products, squared differences or
//! absolute differences is off by at most g times the sum of the terms' magnitudes, in whatever order it is summed. For
//! products that is at most g |x| |q| (Cauchy and Schwarz). If even the kernel's value less twice that error lies
//! beyond the k-th best distance so far, the row is out; else [`exact::distance`] decides. So the answer is exact, and
//! the f64 loop runs for a few rows only. Squares are compared, which takes neither a root nor a division; what that rounds
//! (some 2^-50) is less than the second g.
//!
//! Outside of [1e-30, 1e30] (squared norms) f32 sums may underflow or overflow, and the f64 loop decides at once; so it
//! does for NaN, for which every comparison is false. Underflow inside that range adds up to dim 2^-149, which is less
//! than the second g.

use std::borrow::Cow;
use std::cell::Cell;

use super::topk::{Hit, TopK};
use crate::kernel::dispatch::{self, Task};
use crate::kernel::{Kernels, kernels, level};
use crate::vector::{Metric, exact};

/// Squared norms for which f32 sums can be relied on.
const SAFE: std::ops::RangeInclusive<f64> = 1e-30..=1e30;

/// x^2 with the sign of x: in the order of x, and no branch takes sides, which half of all rows would take.
fn signed_square(x: f64) -> f64 {
    x * x.abs()
}

/// How many components have another sign than the query's ([`exact::distance`]); `None` when one is not finite.
struct Signs<'a> {
    query: &'a [f32],
    row: &'a [f32],
}

impl Task for Signs<'_> {
    type Output = Option<u32>;
    #[inline(always)]
    fn run(self) -> Option<u32> {
        let (mut differ, mut bad) = (0u32, 0u32);
        for (q, x) in self.query.iter().zip(self.row) {
            differ += u32::from((*q > 0.0) != (*x > 0.0));
            bad |= u32::from(x.to_bits() & 0x7f80_0000 == 0x7f80_0000);
        }
        (bad == 0).then_some(differ)
    }
}

/// A scan of rows for one query.
pub struct RowScan<'q> {
    metric: Metric,
    query: Cow<'q, [f32]>,
    /// |q|^2, when it is in the safe range.
    square: Option<f64>,
    /// Twice g.
    slack: f64,
    kernels: &'static Kernels,
    scored: Cell<u64>,
}

impl<'q> RowScan<'q> {
    /// A scan that scores rows against `query`.
    #[must_use]
    pub fn new(metric: Metric, query: impl Into<Cow<'q, [f32]>>) -> Self {
        let query = query.into();
        let square = exact::dot(&query, &query);
        let terms = (query.len() + 2) as f64 / f64::from(1 << 24);
        RowScan {
            metric,
            query,
            square: SAFE.contains(&square).then_some(square),
            slack: 2.0 * terms / (1.0 - terms),
            kernels: kernels(),
            scored: Cell::new(0),
        }
    }

    /// Scores a row, which must have as many components as the query, and gives it to `best` if it may belong there.
    /// `false`: the row has a NaN or an infinity, and no distance.
    #[must_use]
    pub fn push(&self, rowid: i64, row: &[f32], best: &mut TopK) -> bool {
        self.is_out(row, best) || self.score(rowid, row, best)
    }

    /// Whether the kernels tell that a row does not belong to `best`; then its components are finite.
    #[must_use]
    #[inline]
    pub fn is_out(&self, row: &[f32], best: &TopK) -> bool {
        // A distance like the k-th best still counts, since the rowid decides. There may be no limit yet: infinity.
        let limit = best.limit();
        let Some(own) = self.square else {
            return false;
        };
        let query = &self.query;
        match self.metric {
            Metric::Cosine => {
                let [dot, square] = (self.kernels.dot_and_norm)(query, row).map(f64::from);
                // 1 - dot / norms - slack > limit, that is, dot < least norms.
                let least = 1.0 - self.slack - limit;
                SAFE.contains(&square) && signed_square(dot) < signed_square(least) * own * square
            }
            Metric::Dot => {
                let [dot, square] = (self.kernels.dot_and_norm)(query, row).map(f64::from);
                // -dot - slack norms > limit.
                let room = -dot - limit;
                SAFE.contains(&square)
                    && signed_square(room) > self.slack * self.slack * own * square
            }
            Metric::L2 => {
                let square = f64::from((self.kernels.f32.squared_l2)(query, row));
                SAFE.contains(&square) && square * (1.0 - self.slack) > signed_square(limit)
            }
            Metric::L1 => {
                let sum = f64::from((self.kernels.f32.l1)(query, row));
                // Below the root of the smallest square that is safe.
                SAFE.contains(&(sum * sum)) && sum * (1.0 - self.slack) > limit
            }
            Metric::Hamming => false,
        }
    }

    /// Gives a row to `best` if it belongs there. `false`: the row has a NaN or an infinity, and no distance.
    #[must_use]
    pub fn score(&self, rowid: i64, row: &[f32], best: &mut TopK) -> bool {
        if self.metric == Metric::Hamming {
            let query = &self.query;
            let Some(differ) = dispatch::run(level(), Signs { query, row }) else {
                return false;
            };
            self.scored.set(self.scored.get() + 1);
            let distance = f64::from(differ);
            best.push(Hit { rowid, distance });
            return true;
        }
        self.scored.set(self.scored.get() + 1);
        let distance = exact::distance(self.metric, &self.query, row);
        // Sums of finite f32 components stay finite in f64; signs are counted whatever the components are.
        if !distance.is_finite() {
            return false;
        }
        best.push(Hit { rowid, distance });
        true
    }

    /// Rows that took the f64 loop so far.
    #[must_use]
    pub fn scored(&self) -> u64 {
        self.scored.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    /// Rows that try the bound: scales from subnormal to huge, exact duplicates of the query, neighbours one ulp apart.
    fn row(kind: u32, query: &[f32], rng: &mut StdRng) -> Vec<f32> {
        let scale = 10f32.powi(rng.random_range(-44..=37));
        query
            .iter()
            .map(|&q| match kind {
                0 => rng.random_range(-1.0f32..1.0),
                1 => q,
                2 => f32::from_bits(q.to_bits().wrapping_add(rng.random_range(0..2))),
                3 => q * 3.0,
                4 => rng.random_range(-1.0f32..1.0) * scale,
                5 => 0.0,
                _ => q + rng.random_range(-1e-6f32..1e-6),
            })
            .collect()
    }

    #[test]
    fn a_row_that_is_not_finite_is_reported_by_every_metric() {
        let query = [0.5, -1.0, 0.0, 2.0];
        for metric in Metric::ALL {
            let scan = RowScan::new(metric, query.as_slice());
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for i in 0..4 {
                    let mut best = TopK::new(1);
                    assert!(scan.push(1, &query, &mut best));
                    let mut row = query;
                    row[i] = bad;
                    assert!(!scan.push(2, &row, &mut best), "{metric:?} {bad} at {i}");
                }
            }
        }
    }

    #[test]
    fn a_scan_gives_the_rows_of_a_plain_loop_bit_for_bit() {
        let seed = 20_261_122;
        eprintln!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        for round in 0..600 {
            let dim = rng.random_range(1..200);
            let query: Vec<f32> = (0..dim)
                .map(|_| rng.random_range(-1.0f32..1.0) * if round % 7 == 0 { 1e-20 } else { 1.0 })
                .collect();
            let kinds = rng.random_range(1..=7);
            let rows: Vec<Vec<f32>> = (0..200)
                .map(|_| row(rng.random_range(0..kinds), &query, &mut rng))
                .collect();
            for metric in Metric::ALL {
                let mut truth: Vec<Hit> = rows
                    .iter()
                    .enumerate()
                    .map(|(i, row)| Hit {
                        rowid: i as i64,
                        distance: exact::distance(metric, &query, row),
                    })
                    .collect();
                let within = match rng.random_range(0..8) {
                    0 => -truth[0].distance,
                    1 => 0.0,
                    2 => f64::NEG_INFINITY,
                    3..=5 => truth[rng.random_range(0..200)].distance,
                    _ => f64::INFINITY,
                };
                truth.retain(|hit| hit.distance <= within);
                truth.sort();
                let k = rng.random_range(1..30);
                let scan = RowScan::new(metric, query.as_slice());
                let mut best = TopK::within(k, within);
                for (i, row) in rows.iter().enumerate() {
                    assert!(scan.push(i as i64, row, &mut best));
                }
                let best = best.into_sorted();
                assert_eq!(best.len(), k.min(truth.len()), "{metric:?} {within}");
                for (a, b) in best.iter().zip(&truth) {
                    assert_eq!(
                        (a.rowid, (a.distance + 0.0).to_bits()),
                        (b.rowid, (b.distance + 0.0).to_bits()),
                        "{metric:?} round {round}"
                    );
                }
            }
        }
    }
}
