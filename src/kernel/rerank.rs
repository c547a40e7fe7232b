//! Exact f64 scores of many rows against one query, with the bits of the plain loops in [`crate::vector::exact`].
//!
//! Those loops add from the first component to the last, one addition after the other, so a single row can't be
//! summed in lanes: another order has other bits. But rows are independent. Here each of 8 rows owns one lane, and
//! each lane runs its own chain in the plain order: 4 components of 8 rows are loaded, transposed in registers, widened
//! to f64 and added. Eight chains side by side cost what one costs: the latency of an addition for each component.
//!
//! FMA where it can't change bits: a product of two f32 is exact in f64 (48 of 53 bits, no under- or overflow), so
//! dot products round once for each addition either way. The square of a difference is rounded by the plain loop,
//! so there multiplication and addition stay apart.
//!
//! Contract: as many scores as rows; every row as long as the query. (Checked in debug builds; in release builds the
//! shortest length and the shorter list count, and scores beyond it are left alone.)
#![allow(unsafe_code)]

use super::table::Rerank;

/// Rows scored side by side.
const ROWS: usize = 8;

pub(super) const PORTABLE: Rerank = Rerank {
    dot: portable::dot,
    dot_and_norm: portable::dot_and_norm,
    squared_l2: portable::squared_l2,
    l1: portable::l1,
};

#[cfg(target_arch = "x86_64")]
pub(super) const AVX2: Rerank = Rerank {
    dot: avx2::dot,
    dot_and_norm: avx2::dot_and_norm,
    squared_l2: avx2::squared_l2,
    l1: avx2::l1,
};

/// Cuts `rows` into blocks of 8 and writes what `block` makes of each: `K` scores a row. A short last block repeats
/// its first row, whose extra scores are dropped. `block` gets rows cut to the length of the query, or all to less.
#[inline(always)]
fn by_blocks<const K: usize>(
    query: &[f32],
    rows: &[&[f32]],
    mut scores: [&mut [f64]; K],
    block: impl Fn(&[f32], [&[f32]; ROWS]) -> [[f64; ROWS]; K],
) {
    debug_assert!(rows.iter().all(|r| r.len() == query.len()));
    debug_assert!(scores.iter().all(|s| s.len() == rows.len()));
    for (b, rows) in rows.chunks(ROWS).enumerate() {
        let n = rows.iter().map(|r| r.len()).fold(query.len(), usize::min);
        let mut eight = [&rows[0][..n]; ROWS];
        for (place, row) in eight.iter_mut().zip(rows) {
            *place = &row[..n];
        }
        let values = block(&query[..n], eight);
        for (scores, values) in scores.iter_mut().zip(values) {
            let places = scores.iter_mut().skip(b * ROWS);
            for (score, value) in places.zip(&values[..rows.len()]) {
                *score = *value;
            }
        }
    }
}

mod portable {
    use super::{ROWS, by_blocks};

    /// Chains `step(sums, row component, query component)` for each row, from where `sums` stand.
    #[inline(always)]
    pub(super) fn chains<const K: usize>(
        query: &[f32],
        rows: [&[f32]; ROWS],
        mut sums: [[f64; ROWS]; K],
        step: impl Fn([f64; K], f64, f64) -> [f64; K],
    ) -> [[f64; ROWS]; K] {
        for (i, &q) in query.iter().enumerate() {
            for (r, row) in rows.iter().enumerate() {
                let mut mine = [0.0; K];
                for k in 0..K {
                    mine[k] = sums[k][r];
                }
                mine = step(mine, f64::from(row[i]), f64::from(q));
                for k in 0..K {
                    sums[k][r] = mine[k];
                }
            }
        }
        sums
    }

    pub(super) fn dot_step([sum]: [f64; 1], x: f64, q: f64) -> [f64; 1] {
        [sum + x * q]
    }

    pub(super) fn dot_and_norm_step([dot, norm]: [f64; 2], x: f64, q: f64) -> [f64; 2] {
        [dot + x * q, norm + x * x]
    }

    pub(super) fn squared_l2_step([sum]: [f64; 1], x: f64, q: f64) -> [f64; 1] {
        [sum + (q - x) * (q - x)]
    }

    pub(super) fn l1_step([sum]: [f64; 1], x: f64, q: f64) -> [f64; 1] {
        [sum + (q - x).abs()]
    }

    pub(super) fn dot(query: &[f32], rows: &[&[f32]], scores: &mut [f64]) {
        by_blocks(query, rows, [scores], |q, r| {
            chains(q, r, [[0.0; ROWS]], dot_step)
        });
    }

    pub(super) fn dot_and_norm(
        query: &[f32],
        rows: &[&[f32]],
        dots: &mut [f64],
        norms: &mut [f64],
    ) {
        by_blocks(query, rows, [dots, norms], |q, r| {
            chains(q, r, [[0.0; ROWS]; 2], dot_and_norm_step)
        });
    }

    pub(super) fn squared_l2(query: &[f32], rows: &[&[f32]], scores: &mut [f64]) {
        by_blocks(query, rows, [scores], |q, r| {
            chains(q, r, [[0.0; ROWS]], squared_l2_step)
        });
    }

    pub(super) fn l1(query: &[f32], rows: &[&[f32]], scores: &mut [f64]) {
        by_blocks(query, rows, [scores], |q, r| {
            chains(q, r, [[0.0; ROWS]], l1_step)
        });
    }
}

/// For AVX2 and up. The lanes of one 256-bit register hold four chains, two registers the eight. AVX-512 gains nothing:
/// eight chains in one register have the same latency, and as many shuffles.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::portable::{dot_and_norm_step, dot_step, l1_step, squared_l2_step};
    use super::{ROWS, by_blocks, portable};
    use std::arch::x86_64::*;

    /// Components `i` to `i + 3` of a row as f64.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn four(row: &[f32], i: usize) -> __m256d {
        let four: &[f32] = &row[i..i + 4];
        // SAFETY: four components, checked by the slicing above.
        _mm256_cvtps_pd(unsafe { _mm_loadu_ps(four.as_ptr()) })
    }

    /// Components `i` to `i + 3` of four rows as f64: register c holds component i + c of each row. (Without `map`, which has
    /// not this function's instructions and is a call for each row where nothing is optimised across units of code.)
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn transposed([a, b, c, d]: [&[f32]; 4], i: usize) -> [__m256d; 4] {
        let (a, b, c, d) = (four(a, i), four(b, i), four(c, i), four(d, i));
        let (ab_even, ab_odd) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
        let (cd_even, cd_odd) = (_mm256_unpacklo_pd(c, d), _mm256_unpackhi_pd(c, d));
        [
            _mm256_permute2f128_pd::<0x20>(ab_even, cd_even),
            _mm256_permute2f128_pd::<0x20>(ab_odd, cd_odd),
            _mm256_permute2f128_pd::<0x31>(ab_even, cd_even),
            _mm256_permute2f128_pd::<0x31>(ab_odd, cd_odd),
        ]
    }

    /// Chains `step(sums, row components, query component)` over all whole fours, then `rest` over what remains.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn chains<const K: usize>(
        query: &[f32],
        rows: [&[f32]; ROWS],
        step: impl Fn([__m256d; K], __m256d, __m256d) -> [__m256d; K],
        rest: impl Fn([f64; K], f64, f64) -> [f64; K],
    ) -> [[f64; ROWS]; K] {
        let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
        let (mut low, mut high) = ([_mm256_setzero_pd(); K], [_mm256_setzero_pd(); K]);
        let (fours, tail) = query.as_chunks::<4>();
        for (i, four) in fours.iter().enumerate() {
            let x_low = transposed([r0, r1, r2, r3], 4 * i);
            let x_high = transposed([r4, r5, r6, r7], 4 * i);
            for (c, &q) in four.iter().enumerate() {
                let q = _mm256_set1_pd(f64::from(q));
                low = step(low, x_low[c], q);
                high = step(high, x_high[c], q);
            }
        }
        let mut sums = [[0.0; ROWS]; K];
        for (k, sums) in sums.iter_mut().enumerate() {
            // SAFETY: eight f64 are two registers.
            unsafe {
                _mm256_storeu_pd(sums.as_mut_ptr(), low[k]);
                _mm256_storeu_pd(sums.as_mut_ptr().add(4), high[k]);
            }
        }
        let done = query.len() - tail.len();
        portable::chains(tail, rows.map(|row| &row[done..]), sums, rest)
    }

    #[target_feature(enable = "avx2,fma")]
    fn dot_block(query: &[f32], rows: [&[f32]; ROWS]) -> [[f64; ROWS]; 1] {
        let step = |[sum]: [__m256d; 1], x, q| [_mm256_fmadd_pd(x, q, sum)];
        chains(query, rows, step, dot_step)
    }

    #[target_feature(enable = "avx2,fma")]
    fn dot_and_norm_block(query: &[f32], rows: [&[f32]; ROWS]) -> [[f64; ROWS]; 2] {
        let step = |[dot, norm]: [__m256d; 2], x, q| {
            [_mm256_fmadd_pd(x, q, dot), _mm256_fmadd_pd(x, x, norm)]
        };
        chains(query, rows, step, dot_and_norm_step)
    }

    #[target_feature(enable = "avx2,fma")]
    fn squared_l2_block(query: &[f32], rows: [&[f32]; ROWS]) -> [[f64; ROWS]; 1] {
        let step = |[sum]: [__m256d; 1], x, q| {
            let d = _mm256_sub_pd(q, x);
            [_mm256_add_pd(sum, _mm256_mul_pd(d, d))]
        };
        chains(query, rows, step, squared_l2_step)
    }

    #[target_feature(enable = "avx2,fma")]
    fn l1_block(query: &[f32], rows: [&[f32]; ROWS]) -> [[f64; ROWS]; 1] {
        let sign = _mm256_set1_pd(-0.0);
        let step = |[sum]: [__m256d; 1], x, q| {
            let d = _mm256_andnot_pd(sign, _mm256_sub_pd(q, x));
            [_mm256_add_pd(sum, d)]
        };
        chains(query, rows, step, l1_step)
    }

    pub(super) fn dot(query: &[f32], rows: &[&[f32]], scores: &mut [f64]) {
        // SAFETY: `Kernels::at` asked the processor before it handed out a table with this function; so below.
        by_blocks(query, rows, [scores], |q, r| unsafe { dot_block(q, r) });
    }

    pub(super) fn dot_and_norm(
        query: &[f32],
        rows: &[&[f32]],
        dots: &mut [f64],
        norms: &mut [f64],
    ) {
        // SAFETY: as for `dot`.
        by_blocks(query, rows, [dots, norms], |q, r| unsafe {
            dot_and_norm_block(q, r)
        });
    }

    pub(super) fn squared_l2(query: &[f32], rows: &[&[f32]], scores: &mut [f64]) {
        // SAFETY: as for `dot`.
        by_blocks(query, rows, [scores], |q, r| unsafe {
            squared_l2_block(q, r)
        });
    }

    pub(super) fn l1(query: &[f32], rows: &[&[f32]], scores: &mut [f64]) {
        // SAFETY: as for `dot`.
        by_blocks(query, rows, [scores], |q, r| unsafe { l1_block(q, r) });
    }
}
