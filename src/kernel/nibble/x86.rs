//! The scan of nibbles for AVX2 and AVX-512.
#![allow(unsafe_code)]
// Several arrays are walked by one index: registers, queries.
#![allow(clippy::needless_range_loop)]

use super::{AHEAD, FACTORS, NibbleQuery, ROWS, block_bytes, groups, keep, shift};
use std::arch::x86_64::*;

/// # Safety
/// Lengths as checked by `scan`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2")]
pub(super) unsafe fn scan_avx512(
    dim: usize,
    blocks: &[u8],
    first: u32,
    queries: &[&NibbleQuery],
    out: &mut [&mut Vec<u32>],
) {
    // SAFETY: the caller's promise.
    unsafe {
        match (queries, out) {
            ([], []) => {}
            ([a], [x]) => many_avx512(dim, blocks, first, [*a], &mut [x]),
            ([a, b], [x, y]) => many_avx512(dim, blocks, first, [*a, *b], &mut [x, y]),
            ([a, b, c], [x, y, z]) => many_avx512(dim, blocks, first, [*a, *b, *c], &mut [x, y, z]),
            ([a, b, c, d, e, f, g, h], [s, t, u, v, w, x, y, z]) => many_avx512(
                dim,
                blocks,
                first,
                [*a, *b, *c, *d, *e, *f, *g, *h],
                &mut [s, t, u, v, w, x, y, z],
            ),
            ([a, b, c, d, rest @ ..], [w, x, y, z, more @ ..]) => {
                many_avx512(dim, blocks, first, [*a, *b, *c, *d], &mut [w, x, y, z]);
                scan_avx512(dim, blocks, first, rest, more);
            }
            _ => {}
        }
    }
}

/// The scan for `N` queries that share every load.
///
/// # Safety
/// Lengths as checked by `scan`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn many_avx512<const N: usize>(
    dim: usize,
    blocks: &[u8],
    first: u32,
    queries: [&NibbleQuery; N],
    out: &mut [&mut Vec<u32>; N],
) {
    let size = block_bytes(dim);
    let groups = groups(dim);
    let unit = _mm512_set1_ps((1u32 << shift(dim)) as f32);
    let low = _mm512_set1_epi8(15);
    let (zero, one) = (_mm512_setzero_ps(), _mm512_set1_ps(1.0));
    for (b, block) in blocks.chunks_exact(size).enumerate() {
        let p = block.as_ptr();
        let mut acc = [[_mm512_setzero_si512(); 2]; N];
        for g in 0..groups {
            // SAFETY: both lines lie within the block, eight bytes within each query; a prefetch reads nothing.
            unsafe {
                let line = p.add(g * 128);
                _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(AHEAD).cast());
                _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(AHEAD + 64).cast());
                let x = [
                    _mm512_loadu_si512(line.cast()),
                    _mm512_loadu_si512(line.add(64).cast()),
                ];
                for h in 0..2 {
                    let l = _mm512_and_si512(x[h], low);
                    let u = _mm512_and_si512(_mm512_srli_epi16::<4>(x[h]), low);
                    for q in 0..N {
                        let code = queries[q].code.as_ptr().add(g * 8).cast::<i32>();
                        let a = _mm512_set1_epi32(code.read_unaligned());
                        let c = _mm512_set1_epi32(code.add(1).read_unaligned());
                        acc[q][h] = _mm512_dpbusd_epi32(acc[q][h], l, a);
                        acc[q][h] = _mm512_dpbusd_epi32(acc[q][h], u, c);
                    }
                }
            }
        }
        for h in 0..2 {
            // SAFETY: the factors are the last bytes of the block, sixteen of each kind for each half. (Not by `map`, which is not
            // compiled for this instruction set: where it is not inlined either, it took a third of the scan.)
            let (scale, squares, error) = unsafe {
                let at = p.add(size - FACTORS + 32 * h);
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD + 96).cast());
                (
                    _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast())),
                    _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.add(2 * ROWS).cast())),
                    _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.add(4 * ROWS).cast())),
                )
            };
            let scale = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(scale));
            let error = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(error));
            let squares = _mm512_mul_ps(_mm512_cvtepi32_ps(squares), unit);
            let norm = _mm512_mul_ps(_mm512_mul_ps(scale, scale), squares);
            for q in 0..N {
                let bound = &queries[q].bound;
                let dot = _mm512_sub_epi32(
                    _mm512_slli_epi32::<1>(acc[q][h]),
                    _mm512_set1_epi32(queries[q].offset),
                );
                let squares = _mm512_add_ps(_mm512_set1_ps(bound.square), norm);
                let product = _mm512_mul_ps(
                    _mm512_set1_ps(bound.twice_scale),
                    _mm512_mul_ps(scale, _mm512_cvtepi32_ps(dot)),
                );
                let slack = _mm512_set1_ps(bound.slack.squares);
                let within = _mm512_add_ps(
                    _mm512_set1_ps(bound.reach),
                    _mm512_mul_ps(_mm512_set1_ps(bound.slack.error), error),
                );
                let left = _mm512_sub_ps(
                    _mm512_sub_ps(squares, product),
                    _mm512_mul_ps(slack, squares),
                );
                let right = _mm512_add_ps(
                    _mm512_mul_ps(_mm512_mul_ps(within, within), _mm512_add_ps(one, slack)),
                    _mm512_set1_ps(bound.slack.tiny),
                );
                let beyond = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(_mm512_sub_ps(left, right), zero);
                let mut kept = !beyond;
                while kept != 0 {
                    let lane = kept.trailing_zeros();
                    out[q].push(first + (b * ROWS + h * 16) as u32 + lane);
                    kept &= kept - 1;
                }
            }
        }
    }
}

/// # Safety
/// Lengths as checked by `scan`.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn scan_avx2(
    dim: usize,
    blocks: &[u8],
    first: u32,
    queries: &[&NibbleQuery],
    out: &mut [&mut Vec<u32>],
) {
    let size = block_bytes(dim);
    for (b, block) in blocks.chunks_exact(size).enumerate() {
        for (i, (query, out)) in queries.iter().zip(out.iter_mut()).enumerate() {
            // SAFETY: the caller's promise.
            let dots = unsafe { dots_avx2(dim, block, query, i == 0) };
            keep(dim, block, query, &dots, first + (b * ROWS) as u32, out);
        }
    }
}

/// Inner products `sum(g c)` of a block.
///
/// # Safety
/// `block` is one block of dimension `dim`, and the query is of that dimension.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dots_avx2(dim: usize, block: &[u8], query: &NibbleQuery, fresh: bool) -> [i32; ROWS] {
    /// Pairs of products are at most 2 * 15 * 127, two of them a group: four groups fit 16 bits.
    const TOGETHER: usize = 4;
    let low = _mm256_set1_epi8(15);
    let ones = _mm256_set1_epi16(1);
    let mut acc = [_mm256_setzero_si256(); 4];
    let groups = groups(dim);
    let mut g = 0;
    while g < groups {
        let end = (g + TOGETHER).min(groups);
        let mut pairs = [_mm256_setzero_si256(); 4];
        while g < end {
            // SAFETY: the line lies within the block, eight bytes within the query; a prefetch reads nothing.
            unsafe {
                let line = block.as_ptr().add(g * 128);
                if fresh {
                    _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(AHEAD).cast());
                    _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(AHEAD + 64).cast());
                }
                let code = query.code.as_ptr().add(g * 8).cast::<i32>();
                let a = _mm256_set1_epi32(code.read_unaligned());
                let c = _mm256_set1_epi32(code.add(1).read_unaligned());
                for k in 0..4 {
                    let x = _mm256_loadu_si256(line.add(32 * k).cast());
                    let l = _mm256_and_si256(x, low);
                    let u = _mm256_and_si256(_mm256_srli_epi16::<4>(x), low);
                    let both =
                        _mm256_add_epi16(_mm256_maddubs_epi16(l, a), _mm256_maddubs_epi16(u, c));
                    pairs[k] = _mm256_add_epi16(pairs[k], both);
                }
            }
            g += 1;
        }
        for k in 0..4 {
            acc[k] = _mm256_add_epi32(acc[k], _mm256_madd_epi16(pairs[k], ones));
        }
    }
    let mut dots = [0i32; ROWS];
    for k in 0..4 {
        // SAFETY: eight i32 of thirty-two.
        unsafe { _mm256_storeu_si256(dots.as_mut_ptr().add(8 * k).cast(), acc[k]) };
    }
    dots
}
