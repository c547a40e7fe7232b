//! The inner loops of byte codes for AVX2 and AVX-512.
#![allow(unsafe_code)]
// Several arrays are walked by one index: registers, rows, blocks.
#![allow(clippy::needless_range_loop)]

use super::{Blocks, LANES, Second, TILE};
use std::arch::x86_64::*;

/// # Safety
/// As `dots`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2")]
pub(super) unsafe fn dots_avx512(
    codes: *const u8,
    row: impl Fn(usize) -> usize,
    n: usize,
    query: &[i8],
    out: &mut [i32],
) {
    let stride = query.len();
    let full = stride / 64 * 64;
    let mask = (1u64 << (stride % 64)) - 1;
    let g = query.as_ptr();
    // Codes carry +128: take 128 * sum(g) off again.
    let offset = 128 * query.iter().map(|&g| i32::from(g)).sum::<i32>();
    let mut i = 0;
    // SAFETY: full loads stay below `stride` bytes of a row and of the query, masked ones touch only their lanes.
    unsafe {
        while i + 4 <= n {
            let p = [
                codes.add(row(i)),
                codes.add(row(i + 1)),
                codes.add(row(i + 2)),
                codes.add(row(i + 3)),
            ];
            let mut acc = [_mm512_setzero_si512(); 4];
            let mut j = 0;
            while j < full {
                let q = _mm512_loadu_si512(g.add(j).cast());
                for k in 0..4 {
                    let r = _mm512_loadu_si512(p[k].add(j).cast());
                    acc[k] = _mm512_dpbusd_epi32(acc[k], r, q);
                }
                j += 64;
            }
            if mask != 0 {
                let q = _mm512_maskz_loadu_epi8(mask, g.add(j));
                for k in 0..4 {
                    let r = _mm512_maskz_loadu_epi8(mask, p[k].add(j).cast());
                    acc[k] = _mm512_dpbusd_epi32(acc[k], r, q);
                }
            }
            let half = |a: __m512i| {
                _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1))
            };
            let four = sum4(half(acc[0]), half(acc[1]), half(acc[2]), half(acc[3]));
            let four = _mm_sub_epi32(four, _mm_set1_epi32(offset));
            _mm_storeu_si128(out.as_mut_ptr().add(i).cast(), four);
            i += 4;
        }
        while i < n {
            let p = codes.add(row(i));
            let mut acc = _mm512_setzero_si512();
            let mut j = 0;
            while j < full {
                let q = _mm512_loadu_si512(g.add(j).cast());
                acc = _mm512_dpbusd_epi32(acc, _mm512_loadu_si512(p.add(j).cast()), q);
                j += 64;
            }
            if mask != 0 {
                let q = _mm512_maskz_loadu_epi8(mask, g.add(j));
                acc = _mm512_dpbusd_epi32(acc, _mm512_maskz_loadu_epi8(mask, p.add(j).cast()), q);
            }
            out[i] = _mm512_reduce_add_epi32(acc) - offset;
            i += 1;
        }
    }
}

/// Four sums of eight.
#[inline]
#[target_feature(enable = "avx2")]
fn sum4(a: __m256i, b: __m256i, c: __m256i, d: __m256i) -> __m128i {
    let ab = _mm256_hadd_epi32(a, b);
    let cd = _mm256_hadd_epi32(c, d);
    let s = _mm256_hadd_epi32(ab, cd);
    _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1))
}

/// # Safety
/// As `dots`.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn dots_avx2(
    codes: *const u8,
    row: impl Fn(usize) -> usize,
    n: usize,
    query: &[i8],
    out: &mut [i32],
) {
    let stride = query.len();
    let full = stride / 32 * 32;
    let flip = _mm256_set1_epi8(-128);
    let ones = _mm256_set1_epi16(1);
    let g = query.as_ptr();
    // |g| as unsigned times c with g's sign: both within 127, so pairs fit an i16 and nothing saturates.
    let step = |acc: __m256i, r: __m256i, q: __m256i| {
        let c = _mm256_sign_epi8(_mm256_xor_si256(r, flip), q);
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(q), c);
        _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, ones))
    };
    // SAFETY: full loads stay below `stride` bytes of a row and of the query; the tail is read through slices.
    unsafe {
        for (i, out) in out[..n].iter_mut().enumerate() {
            let p = codes.add(row(i));
            let mut acc = _mm256_setzero_si256();
            let mut j = 0;
            while j < full {
                let q = _mm256_loadu_si256(g.add(j).cast());
                acc = step(acc, _mm256_loadu_si256(p.add(j).cast()), q);
                j += 32;
            }
            let zero = _mm256_setzero_si256();
            let s = sum4(acc, zero, zero, zero);
            let mut total = _mm_cvtsi128_si32(s);
            let tail = std::slice::from_raw_parts(p.add(full), stride - full);
            for (&c, &g) in tail.iter().zip(&query[full..]) {
                total += (i32::from(c) - 128) * i32::from(g);
            }
            *out = total;
        }
    }
}

/// Scores of `n` blocks, sixteen for each.
///
/// # Safety
/// `block(i)` for `i < n` must be blocks, `out` must hold `n` times sixteen, `row` one code.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn scores_avx2(
    b: &Blocks,
    n: usize,
    block: impl Fn(usize) -> usize,
    row: &[u8],
    factor: f32,
    out: &mut [f32],
) {
    let ones = _mm256_set1_epi16(1);
    let factor = _mm256_set1_ps(factor);
    for i in 0..n {
        let block = block(i);
        let mut acc = [_mm256_setzero_si256(); 2];
        for four in 0..b.stride / 4 {
            let r = i32::from_le_bytes([
                row[four * 4],
                row[four * 4 + 1],
                row[four * 4 + 2],
                row[four * 4 + 3],
            ]);
            let r = _mm256_set1_epi32(r ^ 0x8080_8080_u32 as i32);
            let size = _mm256_abs_epi8(r);
            for (half, acc) in acc.iter_mut().enumerate() {
                // SAFETY: block, four and half index 32 of the block's 16 * stride bytes.
                let c = unsafe {
                    let at = block * LANES * b.stride + four * 64 + half * 32;
                    _mm256_loadu_si256(b.codes.as_ptr().add(at).cast())
                };
                let pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(c, r));
                *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(pairs, ones));
            }
        }
        for (half, acc) in acc.into_iter().enumerate() {
            let at = block * LANES + half * 8;
            // SAFETY: eight leaves of the block, eight places of `out`.
            unsafe {
                let scale = _mm256_loadu_ps(b.scale.as_ptr().add(at));
                let norm = _mm256_loadu_ps(b.norm.as_ptr().add(at));
                let product = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(acc));
                let score = _mm256_sub_ps(norm, _mm256_mul_ps(factor, product));
                _mm256_storeu_ps(out.as_mut_ptr().add(i * LANES + half * 8), score);
            }
        }
    }
}

/// Scaled dot products `scale[j] * dot` of `N` blocks, for `R` rows.
///
/// # Safety
/// The blocks and rows must exist.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn products<const R: usize, const N: usize>(
    b: &Blocks,
    blocks: [usize; N],
    rows: [*const u8; R],
) -> [[__m512; N]; R] {
    let mut acc = [[_mm512_setzero_si512(); N]; R];
    let size = LANES * b.stride;
    // SAFETY: the caller's promise; each step reads 64 bytes of a block and four of a row.
    unsafe {
        let base = blocks.map(|block| b.codes.as_ptr().add(block * size));
        for four in 0..b.stride / 4 {
            let mut c = [_mm512_setzero_si512(); N];
            for n in 0..N {
                c[n] = _mm512_loadu_si512(base[n].add(four * 64).cast());
            }
            for r in 0..R {
                let q = _mm512_set1_epi32(rows[r].add(four * 4).cast::<i32>().read_unaligned());
                for n in 0..N {
                    acc[r][n] = _mm512_dpbusd_epi32(acc[r][n], q, c[n]);
                }
            }
        }
        let mut out = [[_mm512_setzero_ps(); N]; R];
        for n in 0..N {
            let at = blocks[n] * LANES;
            let scale = _mm512_loadu_ps(b.scale.as_ptr().add(at));
            let offset = _mm512_slli_epi32(_mm512_loadu_si512(b.sum.as_ptr().add(at).cast()), 7);
            for r in 0..R {
                out[r][n] = _mm512_mul_ps(
                    scale,
                    _mm512_cvtepi32_ps(_mm512_sub_epi32(acc[r][n], offset)),
                );
            }
        }
        out
    }
}

/// Scores of `N` blocks, for `R` rows.
///
/// # Safety
/// The blocks and rows must exist.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn tile<const R: usize, const N: usize>(
    b: &Blocks,
    blocks: [usize; N],
    rows: [*const u8; R],
    factor: [__m512; R],
) -> [[__m512; N]; R] {
    // SAFETY: the caller's promise.
    let mut out = unsafe { products::<R, N>(b, blocks, rows) };
    for n in 0..N {
        // SAFETY: as above.
        let norm = unsafe { _mm512_loadu_ps(b.norm.as_ptr().add(blocks[n] * LANES)) };
        for r in 0..R {
            out[r][n] = _mm512_sub_ps(norm, _mm512_mul_ps(factor[r], out[r][n]));
        }
    }
    out
}

/// # Safety
/// Lengths as checked by `second_leaf`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn second_avx512(b: &Blocks, s: &Second) -> u32 {
    let n = b.leaves() / LANES;
    let rows = [s.row.as_ptr(), s.residual.as_ptr()];
    let factor = _mm512_set1_ps(s.factor);
    let (along, scale) = (_mm512_set1_ps(s.along), _mm512_set1_ps(s.residual_scale));
    let not = _mm512_set1_ps(s.own);
    let mut best = _mm512_set1_ps(f32::INFINITY);
    let mut at = _mm512_setzero_si512();
    let mut keep = |block: usize, p: __m512, r: __m512| {
        // SAFETY: the block exists.
        let norm = unsafe { _mm512_loadu_ps(b.norm.as_ptr().add(block * LANES)) };
        let score = _mm512_sub_ps(norm, _mm512_mul_ps(factor, p));
        let side = _mm512_sub_ps(along, _mm512_mul_ps(scale, r));
        let loss = _mm512_add_ps(score, _mm512_mul_ps(side, side));
        let other = _mm512_cmp_ps_mask(score, not, _CMP_NEQ_OQ);
        let less = _mm512_mask_cmp_ps_mask(other, loss, best, _CMP_LT_OQ);
        best = _mm512_mask_mov_ps(best, less, loss);
        at = _mm512_mask_mov_epi32(at, less, _mm512_set1_epi32(block as i32));
    };
    let mut block = 0;
    // SAFETY: `block` stays below the number of blocks.
    unsafe {
        while block + 4 <= n {
            let p = products::<2, 4>(b, [block, block + 1, block + 2, block + 3], rows);
            for k in 0..4 {
                keep(block + k, p[0][k], p[1][k]);
            }
            block += 4;
        }
        while block < n {
            let p = products::<2, 1>(b, [block], rows);
            keep(block, p[0][0], p[1][0]);
            block += 1;
        }
    }
    least(best, at, u32::MAX)
}

/// The place of the smallest of all lanes, the first of equals; `none` when all are infinite.
#[inline]
#[target_feature(enable = "avx512f")]
fn least(best: __m512, at: __m512i, none: u32) -> u32 {
    let smallest = _mm512_reduce_min_ps(best);
    if smallest == f32::INFINITY {
        return none;
    }
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let places = _mm512_add_epi32(_mm512_slli_epi32(at, 4), lanes);
    let those = _mm512_cmp_ps_mask(best, _mm512_set1_ps(smallest), _CMP_EQ_OQ);
    _mm512_mask_reduce_min_epu32(those, places)
}

/// Scores of `n` blocks, sixteen for each.
///
/// # Safety
/// `block(i)` for `i < n` must be blocks, `out` must hold `n` times sixteen, `row` one code.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn scores_avx512(
    b: &Blocks,
    n: usize,
    block: impl Fn(usize) -> usize,
    row: &[u8],
    factor: f32,
    out: &mut [f32],
) {
    let (rows, factor) = ([row.as_ptr()], [_mm512_set1_ps(factor)]);
    let mut i = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while i + 4 <= n {
            let four = [block(i), block(i + 1), block(i + 2), block(i + 3)];
            let s = tile::<1, 4>(b, four, rows, factor);
            for k in 0..4 {
                _mm512_storeu_ps(out.as_mut_ptr().add((i + k) * LANES), s[0][k]);
            }
            i += 4;
        }
        while i < n {
            let s = tile::<1, 1>(b, [block(i)], rows, factor);
            _mm512_storeu_ps(out.as_mut_ptr().add(i * LANES), s[0][0]);
            i += 1;
        }
    }
}

/// # Safety
/// Lengths as checked by `row_scores`, `TILE` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn tile_scores_avx512(b: &Blocks, rows: &[u8], factors: &[f32], out: &mut [f32]) {
    let n = b.leaves() / LANES;
    let mut p = [rows.as_ptr(); TILE];
    let mut factor = [_mm512_setzero_ps(); TILE];
    for r in 0..TILE {
        // SAFETY: `TILE` rows, as the caller promises.
        p[r] = unsafe { rows.as_ptr().add(r * b.stride) };
        factor[r] = _mm512_set1_ps(factors[r]);
    }
    let mut block = 0;
    // SAFETY: `block` stays below the number of blocks, `out` holds sixteen floats for each and row.
    unsafe {
        let out = out.as_mut_ptr();
        let put = |r: usize, block: usize, s: __m512| {
            _mm512_storeu_ps(out.add(r * b.leaves() + block * LANES), s);
        };
        while block + 4 <= n {
            let four = [block, block + 1, block + 2, block + 3];
            let s = tile::<TILE, 4>(b, four, p, factor);
            for r in 0..TILE {
                for k in 0..4 {
                    put(r, block + k, s[r][k]);
                }
            }
            block += 4;
        }
        while block < n {
            let s = tile::<TILE, 1>(b, [block], p, factor);
            for r in 0..TILE {
                put(r, block, s[r][0]);
            }
            block += 1;
        }
    }
}

/// # Safety
/// Lengths as checked by `nearest_leaves`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn nearest_avx512(b: &Blocks, rows: &[u8], factors: &[f32], out: &mut [u32]) {
    let n = factors.len();
    let mut i = 0;
    // SAFETY: rows i..i+4 (or i alone) exist.
    unsafe {
        while i + 4 <= n {
            nearest_tile::<4>(b, rows, factors, out, i);
            i += 4;
        }
        while i < n {
            nearest_tile::<1>(b, rows, factors, out, i);
            i += 1;
        }
    }
}

/// # Safety
/// Rows `i..i + R` must exist.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn nearest_tile<const R: usize>(
    b: &Blocks,
    rows: &[u8],
    factors: &[f32],
    out: &mut [u32],
    i: usize,
) {
    let n = b.leaves() / LANES;
    let mut p = [rows.as_ptr(); R];
    let mut factor = [_mm512_setzero_ps(); R];
    for r in 0..R {
        // SAFETY: the caller's promise.
        p[r] = unsafe { rows.as_ptr().add((i + r) * b.stride) };
        factor[r] = _mm512_set1_ps(factors[i + r]);
    }
    let mut best = [_mm512_set1_ps(f32::INFINITY); R];
    let mut at = [_mm512_setzero_si512(); R];
    let mut keep = |block: usize, r: usize, s: __m512| {
        let less = _mm512_cmp_ps_mask(s, best[r], _CMP_LT_OQ);
        best[r] = _mm512_mask_mov_ps(best[r], less, s);
        at[r] = _mm512_mask_mov_epi32(at[r], less, _mm512_set1_epi32(block as i32));
    };
    let mut block = 0;
    // SAFETY: `block` stays below the number of blocks.
    unsafe {
        while block + 4 <= n {
            let s = tile::<R, 4>(b, [block, block + 1, block + 2, block + 3], p, factor);
            for r in 0..R {
                for k in 0..4 {
                    keep(block + k, r, s[r][k]);
                }
            }
            block += 4;
        }
        while block < n {
            let s = tile::<R, 1>(b, [block], p, factor);
            for r in 0..R {
                keep(block, r, s[r][0]);
            }
            block += 1;
        }
    }
    for r in 0..R {
        out[i + r] = least(best[r], at[r], 0);
    }
}
