//! The space the forest works in: one euclidean geometry for every metric, and byte codes with a proven error.
//!
//! A vector x becomes a point w(x): `cosine` x / |x| (0 stays 0); `l2` x * 2^e, the largest norm near 1; `dot`
//! (x / M, sqrt(1 - |x|^2 / M^2)) with M the largest norm, and (q / |q|, 0) for a query (Bachrach et al. 2014). Then
//!
//! ```text
//! cosine  |w(q) - w(x)|^2 = 2 distance        l2  |w(q) - w(x)| = 2^e distance
//! dot     |w(q) - w(x)|^2 = 2 + 2 distance / (M |q|)
//! ```
//!
//! so near is near in all three. The point less the mean of all points, turned ([`super::rotate`]), is p; its code is
//! c = round(127 p / max |p|), in -127..=127, with scale s = max |p| / 127. Stored beside c: s, |s c|^2, and
//! E >= |P(w - mean) - s c| for the true point w and the true turn P, which covers rounding to the grid (measured in
//! f64) and the float error of everything before (2^-17 of |p|: at most 80 steps of 2^-24 each; 1e-14 of the
//! magnitudes for the f64 steps; 1e-30 for underflow).
//!
//! The same code describes a row when the index is built and when it is the query, so a row ranks the leaves as the
//! build did.

use super::rotate::Rotation;
use crate::kernel::dispatch::{self, Task};
use crate::kernel::{codes, level, nibble};
use crate::vector::{Metric, exact};

/// Whether a vector is one of the indexed or the one that is looked for. Only `dot` tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Item,
    Query,
}

/// What is stored beside a code.
#[derive(Debug, Clone, Copy, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Factors {
    /// s: the code times this is the point.
    pub(crate) scale: f32,
    /// |s c|^2.
    pub(crate) norm: f32,
    /// E: distance of the point from its code, at most.
    pub(crate) error: f32,
}

impl Factors {
    /// The code of a record as files have it, and what stands behind it.
    #[inline(always)]
    pub(crate) fn split(record: &[u8]) -> (&[u8], Factors) {
        let (code, factors) = record.split_at(record.len() - size_of::<Factors>());
        (code, bytemuck::pod_read_unaligned(factors))
    }
}

/// The map from vectors to points and codes.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    pub(crate) metric: Metric,
    pub(crate) dim: usize,
    /// What vectors are multiplied with: 2^e for `l2`, 1 / M for `dot`.
    pub(crate) unit: f64,
    /// M.
    pub(crate) max_norm: f64,
    /// `[work]`.
    pub(crate) mean: Vec<f32>,
    mean_norm: f64,
    /// What stands for rounding in an error is multiplied with this: 1, or less in a test that wants it missed.
    pub(crate) float: f64,
    /// The same for rounding in the exact distances.
    pub(crate) rounding: f64,
    /// The mean, turned: adding it to a point in code space gives the point itself, turned.
    turned_mean: Vec<f32>,
    pub(crate) rotation: Rotation,
}

/// Components of a point: one more than the vector has for `dot`.
pub(crate) fn work_dim(metric: Metric, dim: usize) -> usize {
    dim + usize::from(metric == Metric::Dot)
}

/// One vector to be coded.
struct Encode<'a> {
    space: &'a Space,
    x: &'a [f32],
    role: Role,
    p: &'a mut Vec<f32>,
    out: &'a mut [u8],
}

impl Task for Encode<'_> {
    type Output = Option<Factors>;
    #[inline(always)]
    fn run(self) -> Self::Output {
        self.space.encode_here(self.x, self.role, self.p, self.out)
    }
}

/// Sums that a long sum is made of: they need not wait for each other.
const SUMS: usize = 32;

/// Adds [`SUMS`] interleaved sums up.
#[inline(always)]
fn total(sums: [f64; SUMS]) -> f64 {
    let mut eight = [0.0; 8];
    for (k, sum) in eight.iter_mut().enumerate() {
        *sum = (sums[k] + sums[k + 8]) + (sums[k + 16] + sums[k + 24]);
    }
    let [a, b, c, d, e, f, g, h] = eight;
    ((a + e) + (b + f)) + ((c + g) + (d + h))
}

/// Inner product in f64, summed in one order everywhere.
#[inline(always)]
pub(crate) fn dot32(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0f64; SUMS];
    let ((a32, a), (b32, b)) = (a.as_chunks::<SUMS>(), b.as_chunks::<SUMS>());
    for (a, b) in a32.iter().zip(b32) {
        for k in 0..SUMS {
            sums[k] += f64::from(a[k]) * f64::from(b[k]);
        }
    }
    let ((a8, a), (b8, b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a8.iter().zip(b8) {
        for k in 0..8 {
            sums[k] += f64::from(a[k]) * f64::from(b[k]);
        }
    }
    total(sums) + exact::dot(a, b)
}

impl Space {
    /// The space of a metric, once its parameters are known.
    pub(crate) fn new(
        metric: Metric,
        dim: usize,
        max_norm: f64,
        mean: Vec<f32>,
        seed: u64,
    ) -> Self {
        let work = work_dim(metric, dim);
        debug_assert_eq!(mean.len(), work);
        let rotation = Rotation::new(work, seed);
        let mut turned_mean = mean.clone();
        rotation.apply(&mut turned_mean);
        let mean_norm = dot32(&mean, &mean).sqrt();
        Space {
            metric,
            dim,
            unit: Self::unit(metric, max_norm),
            max_norm,
            mean,
            mean_norm,
            float: 1.0,
            rounding: 1.0,
            turned_mean,
            rotation,
        }
    }

    /// What vectors are multiplied with when the largest norm is `max_norm`.
    pub(crate) fn unit(metric: Metric, max_norm: f64) -> f64 {
        match metric {
            Metric::L2 if max_norm > 0.0 => (-max_norm.log2().ceil()).exp2(),
            Metric::Dot if max_norm > 0.0 => 1.0 / max_norm,
            _ => 1.0,
        }
    }

    /// Components of a point.
    pub(crate) fn work(&self) -> usize {
        self.mean.len()
    }

    /// Bytes of a code.
    pub(crate) fn stride(&self) -> usize {
        codes::stride(self.work())
    }

    /// Bytes of a code with its factors behind it: a search wants both at once.
    pub(crate) fn record(&self) -> usize {
        self.stride() + size_of::<Factors>()
    }

    /// What a vector is multiplied with to become a point.
    #[inline(always)]
    pub(crate) fn multiplier(metric: Metric, unit: f64, x: &[f32], role: Role) -> f64 {
        match (metric, role) {
            (Metric::L2, _) | (Metric::Dot, Role::Item) => unit,
            _ => {
                let norm = dot32(x, x).sqrt();
                if norm > 0.0 { 1.0 / norm } else { 0.0 }
            }
        }
    }

    /// The last component of an item's point under `dot`.
    #[inline(always)]
    pub(crate) fn lift(unit: f64, x: &[f32]) -> f64 {
        let inside = dot32(x, x).sqrt() * unit;
        (1.0 - inside * inside).max(0.0).sqrt()
    }

    /// The code of `x` into `out` (`stride` bytes), by way of `p` (any length; holds the turned point afterwards).
    /// `None` when the point is too far out for f32 or not finite: then nothing is known about it.
    pub(crate) fn encode(
        &self,
        x: &[f32],
        role: Role,
        p: &mut Vec<f32>,
        out: &mut [u8],
    ) -> Option<Factors> {
        let task = Encode {
            space: self,
            x,
            role,
            p,
            out,
        };
        dispatch::run(level(), task)
    }

    #[inline(always)]
    fn encode_here(
        &self,
        x: &[f32],
        role: Role,
        p: &mut Vec<f32>,
        out: &mut [u8],
    ) -> Option<Factors> {
        let by = Self::multiplier(self.metric, self.unit, x, role);
        p.clear();
        p.extend(
            x.iter()
                .zip(&self.mean)
                .map(|(&x, &m)| (f64::from(x) * by - f64::from(m)) as f32),
        );
        if self.metric == Metric::Dot {
            let last = match role {
                Role::Item => Self::lift(self.unit, x),
                Role::Query => 0.0,
            };
            p.push((last - f64::from(self.mean[self.dim])) as f32);
        }
        self.rotation.apply(p);
        let norm = dot32(p, p).sqrt();
        // 1e15 squared is far from f32's end.
        if norm.is_nan() || norm >= 1e15 {
            return None;
        }
        let (scale, codes_squared) = quantise(p, out);
        let mut squares = [0.0f64; SUMS];
        let off = |p: f32, c: u8| {
            let e = f64::from(p) - f64::from(scale) * f64::from(i32::from(c) - 128);
            e * e
        };
        let (p32, rest) = p.as_chunks::<SUMS>();
        for (p, c) in p32.iter().zip(out.as_chunks::<SUMS>().0) {
            for k in 0..SUMS {
                squares[k] += off(p[k], c[k]);
            }
        }
        for (k, (&p, &c)) in rest.iter().zip(&out[p32.len() * SUMS..]).enumerate() {
            squares[k] += off(p, c);
        }
        let error = self.error(total(squares), norm);
        Some(Factors {
            scale,
            norm: (f64::from(scale) * f64::from(scale) * codes_squared as f64) as f32,
            error,
        })
    }

    /// How far a point can be from its code, given the sum of squares of what its turned image in f32 leaves and that
    /// image's norm.
    #[inline(always)]
    fn error(&self, rest: f64, norm: f64) -> f32 {
        let float = norm * 2f64.powi(-17) + (norm + self.mean_norm) * 1e-14 + 1e-30;
        let error = rest.sqrt() * (1.0 + 1e-6) + self.float * float;
        // One f32 step up, so that rounding to f32 never lowers the bound.
        (error * (1.0 + 2f64.powi(-22))) as f32
    }

    /// The four-bit code of a turned point, as [`Space::encode`] leaves it, and what stands beside it.
    pub(crate) fn encode_nibbles(&self, p: &[f32], code: &mut [[u8; 4]]) -> nibble::Factors {
        let (factors, rest) = nibble::encode(level(), p, code);
        let error = self.error(rest, dot32(p, p).sqrt());
        nibble::Factors {
            error: nibble::narrow_up(error),
            ..factors
        }
    }

    /// Makes a centroid of unit norm where points are unit vectors, as the mean of directions is a direction.
    pub(crate) fn normalise(&self, centroid: &mut [f32]) {
        if self.metric == Metric::L2 {
            return;
        }
        for (c, m) in centroid.iter_mut().zip(&self.turned_mean) {
            *c += m;
        }
        let norm = dot32(centroid, centroid).sqrt();
        let by = if norm > 1e-6 {
            (1.0 / norm) as f32
        } else {
            1.0
        };
        for (c, m) in centroid.iter_mut().zip(&self.turned_mean) {
            *c = *c * by - m;
        }
    }

    /// |q|, which turns inner products into distances between points under `dot`.
    pub(crate) fn query_norm(q: &[f32]) -> f64 {
        dot32(q, q).sqrt()
    }

    /// The largest distance between points, rounded up, at which a row can still have the distance `tau` or less to
    /// the query. The f64 sum that defines a distance is off by at most `dim` roundings of 2^-53 of the norms.
    pub(crate) fn reach(&self, tau: f64, query_norm: f64) -> f32 {
        let rounding = self.rounding * (self.dim + 16) as f64 * 2f64.powi(-50);
        let reach = match self.metric {
            Metric::L2 => tau * self.unit * (1.0 + rounding),
            // Without a direction or without norms nothing can be said.
            Metric::Dot if self.max_norm == 0.0 || query_norm == 0.0 => f64::INFINITY,
            Metric::Dot => (2.0 + 2.0 * tau / (self.max_norm * query_norm) + rounding)
                .max(0.0)
                .sqrt(),
            _ => (2.0 * tau + rounding).sqrt(),
        };
        (reach * (1.0 + self.rounding * 1e-6) + self.rounding * 1e-30) as f32
    }
}

/// The code of `p` into `out`, its scale, and the sum of squares of the code.
#[inline(always)]
pub(crate) fn quantise(p: &[f32], out: &mut [u8]) -> (f32, i64) {
    let largest = dispatch::largest(p);
    out.fill(128);
    // Below this 127 / largest overflows; the whole vector goes into the error instead.
    if largest < 1e-30 {
        return (0.0, 0);
    }
    let by = 127.0 / largest;
    // Added to 1.5 * 2^23 a number is rounded to the nearest integer, ties to even, which then stands in the last bits.
    const ROUND: f32 = 12_582_912.0;
    let mut sum = 0i64;
    for (p, out) in p.chunks(1024).zip(out.chunks_mut(1024)) {
        let mut part = 0i32;
        for (&p, out) in p.iter().zip(out) {
            let c = ((p * by + ROUND).to_bits() as i32) - ROUND.to_bits() as i32;
            part += c * c;
            *out = (c + 128) as u8;
        }
        sum += i64::from(part);
    }
    (largest / 127.0, sum)
}
