//! Kernels for AVX2, FMA and F16C: 8 lanes of f32, 32 bytes of integers.
//!
//! Every `*_inner` function carries the instruction set in its type; [`x86_kernels!`] makes the safe table of them.
#![allow(unsafe_code)]

use super::table::x86_kernels;
use super::{Level, Parts};
use half::f16;
use std::arch::x86_64::*;

x86_kernels!(Level::Avx2);

/// A component that loads as f32, eight at a time.
trait Lane: Copy + Default {
    /// # Safety
    /// AVX2, F16C; eight components at `from`.
    unsafe fn load(from: *const Self) -> __m256;
}

impl Lane for f32 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: the caller guarantees eight components.
        unsafe { _mm256_loadu_ps(from) }
    }
}

impl Lane for f16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(from: *const f16) -> __m256 {
        // SAFETY: the caller guarantees eight components of two bytes.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(from.cast()) })
    }
}

/// The last, short block, filled up with zeros, which add nothing to any sum here.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_tail<T: Lane>(tail: &[T]) -> __m256 {
    let mut eight = [T::default(); 8];
    eight[..tail.len()].copy_from_slice(tail);
    // SAFETY: the array has eight components.
    unsafe { T::load(eight.as_ptr()) }
}

/// Runs `step` over both vectors with four accumulators.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fold<T: Lane>(a: &[T], b: &[T], step: impl Fn(__m256, __m256, __m256) -> __m256) -> f32 {
    let n = a.len().min(b.len());
    let (pa, pb) = (a.as_ptr(), b.as_ptr());
    let mut sums = [_mm256_setzero_ps(); 4];
    let mut i = 0;
    while i + 32 <= n {
        for (k, sum) in sums.iter_mut().enumerate() {
            // SAFETY: i + 8 k + 8 <= i + 32 <= n, the length of the shorter slice.
            let (x, y) = unsafe { (T::load(pa.add(i + 8 * k)), T::load(pb.add(i + 8 * k))) };
            *sum = step(*sum, x, y);
        }
        i += 32;
    }
    while i + 8 <= n {
        // SAFETY: i + 8 <= n.
        let (x, y) = unsafe { (T::load(pa.add(i)), T::load(pb.add(i))) };
        sums[(i / 8) % 4] = step(sums[(i / 8) % 4], x, y);
        i += 8;
    }
    if i < n {
        sums[3] = step(sums[3], load_tail(&a[i..n]), load_tail(&b[i..n]));
    }
    total(_mm256_add_ps(
        _mm256_add_ps(sums[0], sums[1]),
        _mm256_add_ps(sums[2], sums[3]),
    ))
}

#[inline]
#[target_feature(enable = "avx2")]
fn total(v: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_inner<T: Lane>(a: &[T], b: &[T]) -> f32 {
    fold(a, b, |sum, x, y| _mm256_fmadd_ps(x, y, sum))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn squared_l2_inner<T: Lane>(a: &[T], b: &[T]) -> f32 {
    fold(a, b, |sum, x, y| {
        let d = _mm256_sub_ps(x, y);
        _mm256_fmadd_ps(d, d, sum)
    })
}

#[target_feature(enable = "avx2,fma,f16c")]
fn l1_inner<T: Lane>(a: &[T], b: &[T]) -> f32 {
    let sign = _mm256_set1_ps(-0.0);
    fold(a, b, |sum, x, y| {
        _mm256_add_ps(sum, _mm256_andnot_ps(sign, _mm256_sub_ps(x, y)))
    })
}

/// Runs `step` over both vectors, for several sums at once: with two accumulators each, so that there are chains enough to hide
/// the latency of FMA.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fold_sums<T: Lane, const N: usize>(
    a: &[T],
    b: &[T],
    step: impl Fn([__m256; N], __m256, __m256) -> [__m256; N],
) -> [f32; N] {
    let n = a.len().min(b.len());
    let mut sums = [[_mm256_setzero_ps(); N]; 2];
    let mut i = 0;
    while i + 8 <= n {
        // SAFETY: i + 8 <= n, the length of the shorter slice.
        let (x, y) = unsafe { (T::load(a.as_ptr().add(i)), T::load(b.as_ptr().add(i))) };
        sums = [sums[1], step(sums[0], x, y)];
        i += 8;
    }
    if i < n {
        sums[0] = step(sums[0], load_tail(&a[i..n]), load_tail(&b[i..n]));
    }
    std::array::from_fn(|k| total(_mm256_add_ps(sums[0][k], sums[1][k])))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn cosine_inner<T: Lane>(a: &[T], b: &[T]) -> Parts<f32> {
    let [dot, aa, bb] = fold_sums(a, b, |[dot, aa, bb], x, y| {
        [
            _mm256_fmadd_ps(x, y, dot),
            _mm256_fmadd_ps(x, x, aa),
            _mm256_fmadd_ps(y, y, bb),
        ]
    });
    Parts { dot, aa, bb }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_and_norm_inner(a: &[f32], b: &[f32]) -> [f32; 2] {
    fold_sums(a, b, |[dot, bb], x, y| {
        [_mm256_fmadd_ps(x, y, dot), _mm256_fmadd_ps(y, y, bb)]
    })
}

/// Components of i8 vectors between two moves of the 32-bit sums into i64: 2^15 terms of at most 255^2 each stay
/// below 2^31.
const I8_BLOCK: usize = 1 << 15;

/// Runs `step` over 32 signed bytes at a time and sums the 32-bit lanes of its `K` accumulators.
#[inline]
#[target_feature(enable = "avx2")]
fn fold_i8<const K: usize>(
    a: &[i8],
    b: &[i8],
    step: impl Fn([__m256i; K], __m256i, __m256i) -> [__m256i; K],
) -> [i64; K] {
    let mut totals = [0i64; K];
    for (a, b) in a.chunks(I8_BLOCK).zip(b.chunks(I8_BLOCK)) {
        let mut sums = [_mm256_setzero_si256(); K];
        let n = a.len().min(b.len());
        let (a, a_tail) = a[..n].as_chunks::<32>();
        let (b, b_tail) = b[..n].as_chunks::<32>();
        for (a, b) in a.iter().zip(b) {
            sums = step(sums, load_bytes(a), load_bytes(b));
        }
        if !a_tail.is_empty() {
            let (mut x, mut y) = ([0i8; 32], [0i8; 32]);
            x[..a_tail.len()].copy_from_slice(a_tail);
            y[..b_tail.len()].copy_from_slice(b_tail);
            sums = step(sums, load_bytes(&x), load_bytes(&y));
        }
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total += i64::from(total_i32(sum));
        }
    }
    totals
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_bytes<T: bytemuck::Pod>(bytes: &[T; 32]) -> __m256i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 32 items of one byte.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn total_i32(v: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    _mm_cvtsi128_si32(two) + _mm_extract_epi32::<1>(two)
}

#[inline]
#[target_feature(enable = "avx2")]
fn total_i64(v: __m256i) -> i64 {
    let two = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    _mm_cvtsi128_si64(two) + _mm_extract_epi64::<1>(two)
}

/// Both halves of 32 signed bytes as 16-bit lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(v: __m256i) -> [__m256i; 2] {
    [
        _mm256_cvtepi8_epi16(_mm256_castsi256_si128(v)),
        _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(v)),
    ]
}

/// Adds the products of 16-bit lanes, in pairs, to 32-bit lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn add_products(sum: __m256i, x: [__m256i; 2], y: [__m256i; 2]) -> __m256i {
    _mm256_add_epi32(
        sum,
        _mm256_add_epi32(_mm256_madd_epi16(x[0], y[0]), _mm256_madd_epi16(x[1], y[1])),
    )
}

/// |x - y| of signed bytes, as unsigned bytes: up to 255.
#[inline]
#[target_feature(enable = "avx2")]
fn absolute_difference(x: __m256i, y: __m256i) -> __m256i {
    _mm256_sub_epi8(_mm256_max_epi8(x, y), _mm256_min_epi8(x, y))
}

#[target_feature(enable = "avx2")]
fn dot_i8_inner(a: &[i8], b: &[i8]) -> i64 {
    let [dot] = fold_i8(a, b, |[sum], x, y| [add_products(sum, widen(x), widen(y))]);
    dot
}

#[target_feature(enable = "avx2")]
fn squared_l2_i8_inner(a: &[i8], b: &[i8]) -> i64 {
    let zero = _mm256_setzero_si256();
    let [sum] = fold_i8(a, b, |[sum], x, y| {
        let d = absolute_difference(x, y);
        // In which order the bytes are widened does not matter to a sum.
        let wide = [_mm256_unpacklo_epi8(d, zero), _mm256_unpackhi_epi8(d, zero)];
        [add_products(sum, wide, wide)]
    });
    sum
}

#[target_feature(enable = "avx2")]
fn l1_i8_inner(a: &[i8], b: &[i8]) -> i64 {
    let zero = _mm256_setzero_si256();
    let [sum] = fold_i8(a, b, |[sum], x, y| {
        // Eight bytes give at most 2040: the upper half of each 64-bit sum stays zero within a block.
        let eights = _mm256_sad_epu8(absolute_difference(x, y), zero);
        [_mm256_add_epi32(sum, eights)]
    });
    sum
}

#[target_feature(enable = "avx2")]
fn cosine_i8_inner(a: &[i8], b: &[i8]) -> Parts<i64> {
    let [dot, aa, bb] = fold_i8(a, b, |[dot, aa, bb], x, y| {
        let (x, y) = (widen(x), widen(y));
        [
            add_products(dot, x, y),
            add_products(aa, x, x),
            add_products(bb, y, y),
        ]
    });
    Parts { dot, aa, bb }
}

/// Counts the bits of each nibble by table look-up in a register (Muła, Kurz, Lemire: "Faster population counts using
/// AVX2 instructions", 2018).
#[target_feature(enable = "avx2")]
fn hamming_inner(a: &[u8], b: &[u8]) -> u64 {
    let n = a.len().min(b.len());
    let (a, a_tail) = a[..n].as_chunks::<32>();
    let (b, b_tail) = b[..n].as_chunks::<32>();
    let mut sum = _mm256_setzero_si256();
    for (a, b) in a.iter().zip(b) {
        sum = _mm256_add_epi64(sum, count_differences(a, b));
    }
    if !a_tail.is_empty() {
        let (mut x, mut y) = ([0u8; 32], [0u8; 32]);
        x[..a_tail.len()].copy_from_slice(a_tail);
        y[..b_tail.len()].copy_from_slice(b_tail);
        sum = _mm256_add_epi64(sum, count_differences(&x, &y));
    }
    total_i64(sum).cast_unsigned()
}

#[inline]
#[target_feature(enable = "avx2")]
fn count_differences(a: &[u8; 32], b: &[u8; 32]) -> __m256i {
    let counts = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
    ));
    let nibble = _mm256_set1_epi8(15);
    let bits = _mm256_xor_si256(load_bytes(a), load_bytes(b));
    let low = _mm256_shuffle_epi8(counts, _mm256_and_si256(bits, nibble));
    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bits), nibble);
    let each = _mm256_add_epi8(low, _mm256_shuffle_epi8(counts, high));
    _mm256_sad_epu8(each, _mm256_setzero_si256())
}
