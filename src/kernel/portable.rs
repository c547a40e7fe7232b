//! Kernels for any processor: f32 and f16 on 8 lanes of the `wide` crate (SSE2 or NEON underneath), integers as plain
//! loops that the compiler vectorises, because integer sums may be reordered.

use super::Parts;
use half::f16;
use wide::{f32x8, u16x8, u32x8};

const LANES: usize = 8;

/// A component that widens to f32, eight at a time.
pub(super) trait Lane: Copy + Default {
    fn widen(eight: [Self; LANES]) -> f32x8;
}

impl Lane for f32 {
    #[inline(always)]
    fn widen(eight: [f32; LANES]) -> f32x8 {
        f32x8::from(eight)
    }
}

impl Lane for f16 {
    /// Exact, without tables or branches: the bits moved into an f32 are the value times 2^-112, subnormals included,
    /// and one multiplication corrects that. Infinity and NaN (exponent 31) come out as 65536 or more, which no finite
    /// f16 reaches; their exponent is then filled up.
    #[inline(always)]
    fn widen(eight: [f16; LANES]) -> f32x8 {
        let bits = u32x8::from(bytemuck::cast::<[f16; LANES], u16x8>(eight));
        let sign: u32x8 = (bits & u32x8::splat(0x8000)) << 16;
        let magnitude: u32x8 = (bits & u32x8::splat(0x7fff)) << 13;
        let value = bytemuck::cast::<u32x8, f32x8>(magnitude)
            * f32x8::splat(f32::from_bits((127 + 112) << 23));
        let special = value.simd_ge(f32x8::splat(65536.0)) & f32x8::splat(f32::INFINITY);
        value | special | bytemuck::cast::<u32x8, f32x8>(sign)
    }
}

/// Runs `step` over both vectors in blocks of 8 with four independent accumulators (the latency of an addition is
/// about four of its throughputs), zero-padding the last block: no `step` adds anything for two zeros.
#[inline(always)]
fn fold<T: Lane>(a: &[T], b: &[T], step: impl Fn(f32x8, f32x8, f32x8) -> f32x8) -> f32 {
    debug_assert_eq!(a.len(), b.len());
    let n = a.len().min(b.len());
    let (a, a_tail) = a[..n].as_chunks::<LANES>();
    let (b, b_tail) = b[..n].as_chunks::<LANES>();
    let (a4, a1) = a.as_chunks::<4>();
    let (b4, b1) = b.as_chunks::<4>();
    let mut sums = [f32x8::ZERO; 4];
    for (a, b) in a4.iter().zip(b4) {
        for i in 0..4 {
            sums[i] = step(sums[i], T::widen(a[i]), T::widen(b[i]));
        }
    }
    for (i, (&a, &b)) in a1.iter().zip(b1).enumerate() {
        sums[i] = step(sums[i], T::widen(a), T::widen(b));
    }
    if !a_tail.is_empty() {
        sums[3] = step(sums[3], padded(a_tail), padded(b_tail));
    }
    ((sums[0] + sums[1]) + (sums[2] + sums[3])).reduce_add()
}

#[inline(always)]
fn padded<T: Lane>(tail: &[T]) -> f32x8 {
    let mut eight = [T::default(); LANES];
    eight[..tail.len()].copy_from_slice(tail);
    T::widen(eight)
}

pub(super) fn dot<T: Lane>(a: &[T], b: &[T]) -> f32 {
    fold(a, b, |sum, x, y| x.mul_add(y, sum))
}

pub(super) fn squared_l2<T: Lane>(a: &[T], b: &[T]) -> f32 {
    fold(a, b, |sum, x, y| (x - y).mul_add(x - y, sum))
}

pub(super) fn l1<T: Lane>(a: &[T], b: &[T]) -> f32 {
    fold(a, b, |sum, x, y| sum + (x - y).abs())
}

/// Runs `step` over both vectors, for several sums at once.
#[inline(always)]
fn fold_sums<T: Lane, const N: usize>(
    a: &[T],
    b: &[T],
    step: impl Fn([f32x8; N], f32x8, f32x8) -> [f32x8; N],
) -> [f32; N] {
    debug_assert_eq!(a.len(), b.len());
    let n = a.len().min(b.len());
    let (a, a_tail) = a[..n].as_chunks::<LANES>();
    let (b, b_tail) = b[..n].as_chunks::<LANES>();
    let mut sums = [f32x8::ZERO; N];
    for (&a, &b) in a.iter().zip(b) {
        sums = step(sums, T::widen(a), T::widen(b));
    }
    if !a_tail.is_empty() {
        sums = step(sums, padded(a_tail), padded(b_tail));
    }
    sums.map(|sum| sum.reduce_add())
}

pub(super) fn cosine<T: Lane>(a: &[T], b: &[T]) -> Parts<f32> {
    let [dot, aa, bb] = fold_sums(a, b, |[dot, aa, bb], x, y| {
        [x.mul_add(y, dot), x.mul_add(x, aa), y.mul_add(y, bb)]
    });
    Parts { dot, aa, bb }
}

pub(super) fn dot_and_norm(a: &[f32], b: &[f32]) -> [f32; 2] {
    fold_sums(a, b, |[dot, bb], x, y| {
        [x.mul_add(y, dot), y.mul_add(y, bb)]
    })
}

/// Sums 32-bit terms in blocks short enough that no 32-bit sum of terms up to 2^16 overflows, and the blocks in i64.
#[inline(always)]
fn fold_i8(a: &[i8], b: &[i8], term: impl Fn(i32, i32) -> i32) -> i64 {
    const BLOCK: usize = 1 << 14;
    debug_assert_eq!(a.len(), b.len());
    a.chunks(BLOCK)
        .zip(b.chunks(BLOCK))
        .map(|(a, b)| {
            let terms = a.iter().zip(b);
            i64::from(terms.map(|(&x, &y)| term(x.into(), y.into())).sum::<i32>())
        })
        .sum()
}

pub(super) fn dot_i8(a: &[i8], b: &[i8]) -> i64 {
    fold_i8(a, b, |x, y| x * y)
}

pub(super) fn squared_l2_i8(a: &[i8], b: &[i8]) -> i64 {
    fold_i8(a, b, |x, y| (x - y) * (x - y))
}

pub(super) fn l1_i8(a: &[i8], b: &[i8]) -> i64 {
    fold_i8(a, b, |x, y| (x - y).abs())
}

pub(super) fn cosine_i8(a: &[i8], b: &[i8]) -> Parts<i64> {
    Parts {
        dot: dot_i8(a, b),
        aa: dot_i8(a, a),
        bb: dot_i8(b, b),
    }
}

pub(super) fn hamming(a: &[u8], b: &[u8]) -> u64 {
    debug_assert_eq!(a.len(), b.len());
    let n = a.len().min(b.len());
    let (a, a_tail) = a[..n].as_chunks::<8>();
    let (b, b_tail) = b[..n].as_chunks::<8>();
    let words = a.iter().zip(b);
    let whole: u64 = words
        .map(|(a, b)| u64::from((u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b)).count_ones()))
        .sum();
    let rest = a_tail.iter().zip(b_tail);
    whole
        + rest
            .map(|(x, y)| u64::from((x ^ y).count_ones()))
            .sum::<u64>()
}
