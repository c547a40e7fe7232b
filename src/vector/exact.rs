//! The distances that searches return, by definition: plain f64 loops over the f32 components, first to last.
//!
//! Every answer of `knn_exact` and `knn_annoy` is one of these numbers, bit for bit, on every machine: whatever a
//! search computes on the way (codes, f32 kernels, bounds), the rows it returns are scored here or by a kernel that
//! is tested to return the same bits. Anyone can check an answer with five lines of their own.
//!
//! A product of two f32 is exact in f64, so a dot product has one rounding for each addition, with or without FMA.
//! A difference squared does not: there FMA would change bits, and is not used.

use super::Metric;

/// Inner product, summed in f64 from the first component to the last.
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .fold(0.0, |sum, (&x, &y)| sum + f64::from(x) * f64::from(y))
}

/// Squared euclidean distance (no root), summed in f64 from the first component to the last.
#[must_use]
pub fn squared_l2(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).fold(0.0, |sum, (&x, &y)| {
        let d = f64::from(x) - f64::from(y);
        sum + d * d
    })
}

/// Sum of absolute differences, in f64 from the first component to the last.
#[must_use]
pub fn l1(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).fold(0.0, |sum, (&x, &y)| {
        sum + (f64::from(x) - f64::from(y)).abs()
    })
}

/// Cosine distance from an inner product and the two squared norms; 1 when either vector is zero.
///
/// `sqrt(s * s)` is exactly `s`, so a vector is at distance 0 from itself and from its copies.
#[must_use]
pub fn cosine_from(dot: f64, aa: f64, bb: f64) -> f64 {
    let norms = (aa * bb).sqrt();
    if norms == 0.0 {
        1.0
    } else {
        (1.0 - dot / norms).clamp(0.0, 2.0)
    }
}

/// The distance between two f32 vectors of one length. For [`Metric::Hamming`]: the number of components whose signs
/// differ (a component counts as set when it is above zero), as `vec_quantize_binary` would make of them.
#[must_use]
pub fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    match metric {
        Metric::Cosine => cosine_from(dot(a, b), dot(a, a), dot(b, b)),
        Metric::L2 => squared_l2(a, b).sqrt(),
        Metric::Dot => -dot(a, b),
        Metric::L1 => l1(a, b),
        Metric::Hamming => a
            .iter()
            .zip(b)
            .filter(|(x, y)| (**x > 0.0) != (**y > 0.0))
            .count() as f64,
    }
}
