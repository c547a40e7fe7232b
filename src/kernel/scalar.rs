//! The reference: each kernel as one plain loop in f64. Tests judge every other version by these, and distances fall
//! back on them where an f32 sum over- or underflows.

use super::Parts;

/// Inner product.
#[must_use]
pub fn dot<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> f64 {
    pairs(a, b).map(|(x, y)| x * y).sum()
}

/// Squared euclidean distance (no root).
#[must_use]
pub fn squared_l2<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> f64 {
    pairs(a, b).map(|(x, y)| (x - y) * (x - y)).sum()
}

/// Sum of absolute differences.
#[must_use]
pub fn l1<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> f64 {
    pairs(a, b).map(|(x, y)| (x - y).abs()).sum()
}

/// Inner product and both squared norms.
#[must_use]
pub fn cosine<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> Parts<f64> {
    Parts {
        dot: dot(a, b),
        aa: dot(a, a),
        bb: dot(b, b),
    }
}

/// Number of bits that differ.
#[must_use]
pub fn hamming(a: &[u8], b: &[u8]) -> u64 {
    a.iter()
        .zip(b)
        .map(|(x, y)| u64::from((x ^ y).count_ones()))
        .sum()
}

/// The components of both vectors side by side. f32, f16 and i8 are exact in f64, and so is any product of two.
fn pairs<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> impl Iterator<Item = (f64, f64)> {
    a.iter().zip(b).map(|(&x, &y)| (x.into(), y.into()))
}
