//! Kernels for AVX-512 (F, BW, VL, DQ, VNNI, VPOPCNTDQ): 16 lanes of f32, 64 bytes of integers, tails by mask.
//!
//! A masked load touches no byte outside the mask and fills the rest with zeros, which add nothing to any sum here.
//! [`x86_kernels!`] makes the safe table of the `*_inner` functions.
#![allow(unsafe_code)]

use super::table::x86_kernels;
use super::{Level, Parts};
use half::f16;
use std::arch::x86_64::*;

x86_kernels!(Level::Avx512);

/// A component that loads as f32, up to sixteen at a time.
trait Lane: Copy {
    /// # Safety
    /// AVX-512 F, BW, VL; at `from`, a component for each set bit of `mask`.
    unsafe fn load(from: *const Self, mask: u16) -> __m512;
}

impl Lane for f32 {
    #[inline]
    #[target_feature(enable = "avx512bw,avx512vl")]
    unsafe fn load(from: *const f32, mask: u16) -> __m512 {
        // SAFETY: the caller guarantees a component for each set bit.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
}

impl Lane for f16 {
    #[inline]
    #[target_feature(enable = "avx512bw,avx512vl")]
    unsafe fn load(from: *const f16, mask: u16) -> __m512 {
        // SAFETY: the caller guarantees a component of two bytes for each set bit.
        _mm512_cvtph_ps(unsafe { _mm256_maskz_loadu_epi16(mask, from.cast()) })
    }
}

/// The mask of the first `n` lanes, n <= 16.
fn first_lanes(n: usize) -> u16 {
    debug_assert!(n <= 16);
    ((1u32 << n) - 1) as u16
}

/// Runs `step` over both vectors with four accumulators.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn fold<T: Lane>(a: &[T], b: &[T], step: impl Fn(__m512, __m512, __m512) -> __m512) -> f32 {
    let n = a.len().min(b.len());
    let (a, b) = (a.as_ptr(), b.as_ptr());
    let mut sums = [_mm512_setzero_ps(); 4];
    let mut i = 0;
    while i + 64 <= n {
        for (k, sum) in sums.iter_mut().enumerate() {
            let at = i + 16 * k;
            // SAFETY: at + 16 <= i + 64 <= n, the length of the shorter slice.
            let (x, y) = unsafe { (T::load(a.add(at), u16::MAX), T::load(b.add(at), u16::MAX)) };
            *sum = step(*sum, x, y);
        }
        i += 64;
    }
    for sum in &mut sums {
        if i >= n {
            break;
        }
        let mask = first_lanes((n - i).min(16));
        // SAFETY: the mask ends at n.
        let (x, y) = unsafe { (T::load(a.add(i), mask), T::load(b.add(i), mask)) };
        *sum = step(*sum, x, y);
        i += 16;
    }
    _mm512_reduce_add_ps(_mm512_add_ps(
        _mm512_add_ps(sums[0], sums[1]),
        _mm512_add_ps(sums[2], sums[3]),
    ))
}

#[target_feature(enable = "avx512bw,avx512vl")]
fn dot_inner<T: Lane>(a: &[T], b: &[T]) -> f32 {
    fold(a, b, |sum, x, y| _mm512_fmadd_ps(x, y, sum))
}

#[target_feature(enable = "avx512bw,avx512vl")]
fn squared_l2_inner<T: Lane>(a: &[T], b: &[T]) -> f32 {
    fold(a, b, |sum, x, y| {
        let d = _mm512_sub_ps(x, y);
        _mm512_fmadd_ps(d, d, sum)
    })
}

#[target_feature(enable = "avx512bw,avx512vl")]
fn l1_inner<T: Lane>(a: &[T], b: &[T]) -> f32 {
    fold(a, b, |sum, x, y| {
        _mm512_add_ps(sum, _mm512_abs_ps(_mm512_sub_ps(x, y)))
    })
}

/// Runs `step` over both vectors, for several sums at once: with two accumulators each, so that there are chains enough to hide
/// the latency of FMA.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn fold_sums<T: Lane, const N: usize>(
    a: &[T],
    b: &[T],
    step: impl Fn([__m512; N], __m512, __m512) -> [__m512; N],
) -> [f32; N] {
    let n = a.len().min(b.len());
    let (a, b) = (a.as_ptr(), b.as_ptr());
    let mut sums = [[_mm512_setzero_ps(); N]; 2];
    let mut i = 0;
    while i + 16 <= n {
        // SAFETY: i + 16 <= n, the length of the shorter slice.
        let (x, y) = unsafe { (T::load(a.add(i), u16::MAX), T::load(b.add(i), u16::MAX)) };
        sums = [sums[1], step(sums[0], x, y)];
        i += 16;
    }
    if i < n {
        let mask = first_lanes(n - i);
        // SAFETY: the mask ends at n.
        let (x, y) = unsafe { (T::load(a.add(i), mask), T::load(b.add(i), mask)) };
        sums[0] = step(sums[0], x, y);
    }
    std::array::from_fn(|k| _mm512_reduce_add_ps(_mm512_add_ps(sums[0][k], sums[1][k])))
}

#[target_feature(enable = "avx512bw,avx512vl")]
fn cosine_inner<T: Lane>(a: &[T], b: &[T]) -> Parts<f32> {
    let [dot, aa, bb] = fold_sums(a, b, |[dot, aa, bb], x, y| {
        [
            _mm512_fmadd_ps(x, y, dot),
            _mm512_fmadd_ps(x, x, aa),
            _mm512_fmadd_ps(y, y, bb),
        ]
    });
    Parts { dot, aa, bb }
}

#[target_feature(enable = "avx512bw,avx512vl")]
fn dot_and_norm_inner(a: &[f32], b: &[f32]) -> [f32; 2] {
    fold_sums(a, b, |[dot, bb], x, y| {
        [_mm512_fmadd_ps(x, y, dot), _mm512_fmadd_ps(y, y, bb)]
    })
}

/// Components of i8 vectors between two moves of the 32-bit sums into i64: 2^15 terms of at most 255^2 each stay
/// below 2^31.
const I8_BLOCK: usize = 1 << 15;

/// Runs `step` over 64 signed bytes at a time and sums the 32-bit lanes of its `K` accumulators.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn fold_i8<const K: usize>(
    a: &[i8],
    b: &[i8],
    step: impl Fn([__m512i; K], __m512i, __m512i) -> [__m512i; K],
) -> [i64; K] {
    let mut totals = [0i64; K];
    for (a, b) in a.chunks(I8_BLOCK).zip(b.chunks(I8_BLOCK)) {
        let n = a.len().min(b.len());
        let (a, b) = (a.as_ptr(), b.as_ptr());
        // Two accumulators for each sum, by turns.
        let mut sums = [[_mm512_setzero_si512(); K]; 2];
        let mut i = 0;
        while i + 64 <= n {
            // SAFETY: i + 64 <= n, the length of the shorter block.
            let (x, y) = unsafe { (_mm512_loadu_epi8(a.add(i)), _mm512_loadu_epi8(b.add(i))) };
            sums = [sums[1], step(sums[0], x, y)];
            i += 64;
        }
        if i < n {
            let mask = u64::MAX >> (64 - (n - i));
            // SAFETY: the mask ends at n.
            let (x, y) = unsafe {
                (
                    _mm512_maskz_loadu_epi8(mask, a.add(i)),
                    _mm512_maskz_loadu_epi8(mask, b.add(i)),
                )
            };
            sums[0] = step(sums[0], x, y);
        }
        for (k, total) in totals.iter_mut().enumerate() {
            let both = _mm512_add_epi32(sums[0][k], sums[1][k]);
            *total += i64::from(_mm512_reduce_add_epi32(both));
        }
    }
    totals
}

/// |x - y| of signed bytes, as unsigned bytes: up to 255.
#[inline]
#[target_feature(enable = "avx512bw")]
fn absolute_difference(x: __m512i, y: __m512i) -> __m512i {
    _mm512_sub_epi8(_mm512_max_epi8(x, y), _mm512_min_epi8(x, y))
}

/// `vpdpbusd` multiplies unsigned by signed bytes, so the left side is shifted up by 128 (its top bit flipped), and
/// 128 times the sum of the right side taken off at the end.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn dot_i8_inner(a: &[i8], b: &[i8]) -> i64 {
    let (top, ones) = (_mm512_set1_epi8(i8::MIN), _mm512_set1_epi8(1));
    let [shifted, sum_b] = fold_i8(a, b, |[shifted, sum_b], x, y| {
        [
            _mm512_dpbusd_epi32(shifted, _mm512_xor_si512(x, top), y),
            _mm512_dpbusd_epi32(sum_b, ones, y),
        ]
    });
    shifted - 128 * sum_b
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn squared_l2_i8_inner(a: &[i8], b: &[i8]) -> i64 {
    let zero = _mm512_setzero_si512();
    let [sum] = fold_i8(a, b, |[sum], x, y| {
        let d = absolute_difference(x, y);
        // In which order the bytes are widened does not matter to a sum.
        let (low, high) = (_mm512_unpacklo_epi8(d, zero), _mm512_unpackhi_epi8(d, zero));
        [_mm512_dpwssd_epi32(
            _mm512_dpwssd_epi32(sum, low, low),
            high,
            high,
        )]
    });
    sum
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn l1_i8_inner(a: &[i8], b: &[i8]) -> i64 {
    let ones = _mm512_set1_epi8(1);
    let [sum] = fold_i8(a, b, |[sum], x, y| {
        [_mm512_dpbusd_epi32(sum, absolute_difference(x, y), ones)]
    });
    sum
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn cosine_i8_inner(a: &[i8], b: &[i8]) -> Parts<i64> {
    let (top, ones) = (_mm512_set1_epi8(i8::MIN), _mm512_set1_epi8(1));
    let [ab, aa, bb, sum_a, sum_b] = fold_i8(a, b, |[ab, aa, bb, sum_a, sum_b], x, y| {
        let (shifted_x, shifted_y) = (_mm512_xor_si512(x, top), _mm512_xor_si512(y, top));
        [
            _mm512_dpbusd_epi32(ab, shifted_x, y),
            _mm512_dpbusd_epi32(aa, shifted_x, x),
            _mm512_dpbusd_epi32(bb, shifted_y, y),
            _mm512_dpbusd_epi32(sum_a, ones, x),
            _mm512_dpbusd_epi32(sum_b, ones, y),
        ]
    });
    Parts {
        dot: ab - 128 * sum_b,
        aa: aa - 128 * sum_a,
        bb: bb - 128 * sum_b,
    }
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vpopcntdq")]
fn hamming_inner(a: &[u8], b: &[u8]) -> u64 {
    let n = a.len().min(b.len());
    let mut sum = _mm512_setzero_si512();
    let mut i = 0;
    while i < n {
        let mask = u64::MAX >> (64 - (n - i).min(64));
        // SAFETY: the mask ends at n, the length of the shorter slice.
        let (x, y) = unsafe {
            (
                _mm512_maskz_loadu_epi8(mask, a.as_ptr().add(i).cast()),
                _mm512_maskz_loadu_epi8(mask, b.as_ptr().add(i).cast()),
            )
        };
        sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_xor_si512(x, y)));
        i += 64;
    }
    _mm512_reduce_add_epi64(sum).cast_unsigned()
}
