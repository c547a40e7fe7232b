//! The inner loops of list scans for AVX2 and AVX-512.
#![allow(unsafe_code)]

use super::{BLOCK, LINE, ScanQuery, finish, prefetch};
use std::arch::x86_64::*;

/// Brings near what the next list has at block `b`.
#[inline(always)]
fn ahead(next: &[u8], b: usize, lines: usize) {
    let size = (lines + 2) * LINE;
    if let Some(block) = next.get(b * size..(b + 1) * size) {
        prefetch(block);
    }
}

/// The last step of `finish` in registers.
///
/// # Safety
/// Twice sixteen numbers at `factors`, room for sixteen at `out`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn store(query: &ScanQuery, sums: __m512i, factors: *const u8, base: f32, out: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let (unit, least) = (_mm512_set1_ps(query.unit), _mm512_set1_ps(query.least));
        let x = _mm512_add_ps(_mm512_mul_ps(unit, _mm512_cvtepi32_ps(sums)), least);
        let fixed = _mm512_add_ps(_mm512_set1_ps(base), _mm512_loadu_ps(factors.cast()));
        let change = _mm512_mul_ps(_mm512_loadu_ps(factors.add(LINE).cast()), x);
        _mm512_storeu_ps(out, _mm512_sub_ps(fixed, change));
    }
}

/// # Safety
/// Lengths as checked by `estimates`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn two_avx512(
    query: &ScanQuery,
    codes: &[u8],
    next: &[u8],
    base: f32,
    out: &mut [f32],
) {
    let lines = query.lines;
    let mask = _mm512_set1_epi8(3);
    let shift = _mm512_set1_epi32(query.shift);
    // SAFETY: every line and every four bytes of the query exist, as `estimates` checked.
    unsafe {
        let g = query.code.as_ptr();
        for b in 0..out.len() / BLOCK {
            let p = codes.as_ptr().add(b * (lines + 2) * LINE);
            ahead(next, b, lines);
            let mut acc = [_mm512_setzero_si512(); 4];
            for line in 0..lines {
                let x = _mm512_loadu_si512(p.add(line * LINE).cast());
                let q = |j: usize| {
                    _mm512_set1_epi32(g.add(line * 16 + j * 4).cast::<i32>().read_unaligned())
                };
                acc[0] = _mm512_dpbusd_epi32(acc[0], _mm512_and_si512(x, mask), q(0));
                let x1 = _mm512_and_si512(_mm512_srli_epi16::<2>(x), mask);
                acc[1] = _mm512_dpbusd_epi32(acc[1], x1, q(1));
                let x2 = _mm512_and_si512(_mm512_srli_epi16::<4>(x), mask);
                acc[2] = _mm512_dpbusd_epi32(acc[2], x2, q(2));
                let x3 = _mm512_and_si512(_mm512_srli_epi16::<6>(x), mask);
                acc[3] = _mm512_dpbusd_epi32(acc[3], x3, q(3));
            }
            let sum = _mm512_add_epi32(
                _mm512_add_epi32(acc[0], acc[1]),
                _mm512_add_epi32(acc[2], acc[3]),
            );
            let sums = _mm512_sub_epi32(_mm512_add_epi32(sum, sum), shift);
            store(
                query,
                sums,
                p.add(lines * LINE),
                base,
                out.as_mut_ptr().add(b * BLOCK),
            );
        }
    }
}

/// # Safety
/// Lengths as checked by `estimates`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn one_avx512(
    query: &ScanQuery,
    codes: &[u8],
    next: &[u8],
    base: f32,
    out: &mut [f32],
) {
    let lines = query.lines;
    let low = _mm512_set1_epi8(15);
    let even = _mm512_set1_epi16(0xff);
    // SAFETY: every line and every table exists, as `estimates` checked.
    unsafe {
        let t = query.tables.as_ptr();
        for b in 0..out.len() / BLOCK {
            let p = codes.as_ptr().add(b * (lines + 2) * LINE);
            ahead(next, b, lines);
            let (mut acc_even, mut acc_odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
            for line in 0..lines {
                let x = _mm512_loadu_si512(p.add(line * LINE).cast());
                let table = t.add(line * 2 * LINE);
                let a =
                    _mm512_shuffle_epi8(_mm512_loadu_si512(table.cast()), _mm512_and_si512(x, low));
                let x = _mm512_and_si512(_mm512_srli_epi16::<4>(x), low);
                let c = _mm512_shuffle_epi8(_mm512_loadu_si512(table.add(LINE).cast()), x);
                // Two entries of seven bits fit eight; sixteen-bit sums of the even and the odd rows.
                let s = _mm512_add_epi8(a, c);
                acc_even = _mm512_add_epi16(acc_even, _mm512_and_si512(s, even));
                acc_odd = _mm512_add_epi16(acc_odd, _mm512_srli_epi16::<8>(s));
            }
            // Four parts of eight rows each: widen, then add the parts.
            let add = |acc: __m512i| {
                let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(acc));
                let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(acc));
                let both = _mm512_add_epi32(low, high);
                _mm256_add_epi32(
                    _mm512_castsi512_si256(both),
                    _mm512_extracti64x4_epi64::<1>(both),
                )
            };
            let (e, o) = (add(acc_even), add(acc_odd));
            let zip = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let sums = _mm512_permutex2var_epi32(
                _mm512_castsi256_si512(e),
                zip,
                _mm512_castsi256_si512(o),
            );
            store(
                query,
                sums,
                p.add(lines * LINE),
                base,
                out.as_mut_ptr().add(b * BLOCK),
            );
        }
    }
}

/// # Safety
/// Lengths as checked by `estimates`.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn two_avx2(
    query: &ScanQuery,
    codes: &[u8],
    next: &[u8],
    base: f32,
    out: &mut [f32],
) {
    let lines = query.lines;
    let mask = _mm256_set1_epi8(3);
    let ones = _mm256_set1_epi16(1);
    for b in 0..out.len() / BLOCK {
        ahead(next, b, lines);
        let mut sums = [0i32; BLOCK];
        // SAFETY: every line and every four bytes of the query exist, as `estimates` checked.
        unsafe {
            let g = query.code.as_ptr();
            let p = codes.as_ptr().add(b * (lines + 2) * LINE);
            for half in 0..2 {
                let mut acc = _mm256_setzero_si256();
                for line in 0..lines {
                    let x = _mm256_loadu_si256(p.add(line * LINE + half * 32).cast());
                    let mut step = |x: __m256i, j: usize| {
                        let q = _mm256_set1_epi32(
                            g.add(line * 16 + j * 4).cast::<i32>().read_unaligned(),
                        );
                        let pairs = _mm256_maddubs_epi16(_mm256_and_si256(x, mask), q);
                        acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, ones));
                    };
                    step(x, 0);
                    step(_mm256_srli_epi16::<2>(x), 1);
                    step(_mm256_srli_epi16::<4>(x), 2);
                    step(_mm256_srli_epi16::<6>(x), 3);
                }
                _mm256_storeu_si256(sums.as_mut_ptr().add(half * 8).cast(), acc);
            }
        }
        let sums = sums.map(|s| 2 * s - query.shift);
        let block = &codes[b * (lines + 2) * LINE..][..(lines + 2) * LINE];
        finish(query, &sums, block, base, &mut out[b * BLOCK..][..BLOCK]);
    }
}

/// # Safety
/// Lengths as checked by `estimates`.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn one_avx2(
    query: &ScanQuery,
    codes: &[u8],
    next: &[u8],
    base: f32,
    out: &mut [f32],
) {
    let lines = query.lines;
    let low = _mm256_set1_epi8(15);
    let even = _mm256_set1_epi16(0xff);
    for b in 0..out.len() / BLOCK {
        ahead(next, b, lines);
        let (mut acc_even, mut acc_odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        // SAFETY: every line and every table exists, as `estimates` checked.
        unsafe {
            let p = codes.as_ptr().add(b * (lines + 2) * LINE);
            for half in 0..lines * 2 {
                let x = _mm256_loadu_si256(p.add(half * 32).cast());
                let table = query
                    .tables
                    .as_ptr()
                    .add(half / 2 * 2 * LINE + half % 2 * 32);
                let a =
                    _mm256_shuffle_epi8(_mm256_loadu_si256(table.cast()), _mm256_and_si256(x, low));
                let x = _mm256_and_si256(_mm256_srli_epi16::<4>(x), low);
                let c = _mm256_shuffle_epi8(_mm256_loadu_si256(table.add(LINE).cast()), x);
                let s = _mm256_add_epi8(a, c);
                acc_even = _mm256_add_epi16(acc_even, _mm256_and_si256(s, even));
                acc_odd = _mm256_add_epi16(acc_odd, _mm256_srli_epi16::<8>(s));
            }
        }
        let (mut e, mut o) = ([0u16; 16], [0u16; 16]);
        // SAFETY: sixteen u16 each.
        unsafe {
            _mm256_storeu_si256(e.as_mut_ptr().cast(), acc_even);
            _mm256_storeu_si256(o.as_mut_ptr().cast(), acc_odd);
        }
        let mut sums = [0i32; BLOCK];
        for i in 0..8 {
            sums[2 * i] = i32::from(e[i]) + i32::from(e[i + 8]);
            sums[2 * i + 1] = i32::from(o[i]) + i32::from(o[i + 8]);
        }
        let block = &codes[b * (lines + 2) * LINE..][..(lines + 2) * LINE];
        finish(query, &sums, block, base, &mut out[b * BLOCK..][..BLOCK]);
    }
}
