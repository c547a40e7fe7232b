//! The inner loops of list scans for AVX2 and AVX-512. `B` is the number of bits a dimension.
#![allow(unsafe_code)]

use super::{BLOCK, LINE, Line, STEP, ScanQuery, prefetch, signs};
use std::arch::x86_64::*;

/// Blocks that are looked at together: a group of one-bit codes.
const AT_ONCE: usize = 4;
/// How much of each block of the next list is brought near; what follows it the processor fetches.
const AHEAD: usize = 7 * LINE;

/// Brings near what the next list has at block `b`.
#[inline(always)]
fn ahead(next: &[u8], b: usize, size: usize) {
    if let Some(block) = next.get(b * size..b * size + size.min(AHEAD)) {
        prefetch(block);
    }
}

/// Four bytes of the query, in every lane.
///
/// # Safety
/// The step must exist.
#[inline(always)]
unsafe fn four(query: &ScanQuery, step: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        query
            .code
            .as_ptr()
            .add(step * 4)
            .cast::<i32>()
            .read_unaligned()
    }
}

/// The tables of a one-bit query.
///
/// # Safety
/// `tables` holds four for each triple of `code`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn tables_avx512(code: &[i8], tables: &mut [Line]) {
    // Entries whose bit k is set.
    const SET: [u64; 6] = [
        0xaaaa_aaaa_aaaa_aaaa,
        0xcccc_cccc_cccc_cccc,
        0xf0f0_f0f0_f0f0_f0f0,
        0xff00_ff00_ff00_ff00,
        0xffff_0000_ffff_0000,
        0xffff_ffff_0000_0000,
    ];
    for (i, triple) in code.as_chunks().0.iter().enumerate() {
        for t in 0..4 {
            let g = signs::of_table(triple, t);
            let least = g.iter().map(|g| (*g).min(0)).sum::<i8>();
            let mut sum = _mm512_set1_epi8(-least);
            for (g, set) in g.into_iter().zip(SET) {
                sum = _mm512_mask_add_epi8(sum, set, sum, _mm512_set1_epi8(g));
            }
            // SAFETY: table `t` of triple `i`, as the caller promises; lines are aligned.
            unsafe { _mm512_store_si512(tables.as_mut_ptr().add(i * 4 + t).cast(), sum) };
        }
    }
}

/// The sixteen integers of a block of two-bit codes.
///
/// # Safety
/// A whole block at `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn two_avx512(query: &ScanQuery, p: *const u8) -> __m512i {
    let mask = _mm512_set1_epi8(3);
    let (lines, rest) = (query.steps / 4, query.steps % 4);
    let (mut even, mut odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    // SAFETY: every line and every step of the query exist, as `estimates` and `survivors` checked.
    unsafe {
        let q = |step: usize| _mm512_set1_epi32(four(query, step));
        for line in 0..lines {
            let x = _mm512_loadu_si512(p.add(line * LINE).cast());
            even = _mm512_dpbusd_epi32(even, _mm512_and_si512(x, mask), q(line * 4));
            let x1 = _mm512_and_si512(_mm512_srli_epi16::<2>(x), mask);
            odd = _mm512_dpbusd_epi32(odd, x1, q(line * 4 + 1));
            let x2 = _mm512_and_si512(_mm512_srli_epi16::<4>(x), mask);
            even = _mm512_dpbusd_epi32(even, x2, q(line * 4 + 2));
            let x3 = _mm512_and_si512(_mm512_srli_epi16::<6>(x), mask);
            odd = _mm512_dpbusd_epi32(odd, x3, q(line * 4 + 3));
        }
        let p = p.add(lines * LINE);
        for step in 0..rest {
            // Four fields of two bits, from one byte to one each of four.
            let x = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.add(step * STEP).cast()));
            let low = _mm512_or_si512(x, _mm512_slli_epi32::<6>(x));
            let x = _mm512_or_si512(low, _mm512_slli_epi32::<12>(low));
            let x = _mm512_and_si512(x, mask);
            odd = _mm512_dpbusd_epi32(odd, x, q(lines * 4 + step));
        }
    }
    let sum = _mm512_add_epi32(even, odd);
    _mm512_sub_epi32(_mm512_add_epi32(sum, sum), _mm512_set1_epi32(query.shift))
}

/// The integers of the rows of a group of one-bit codes, sixteen in each; what is behind its `rows` means nothing.
///
/// # Safety
/// A group of so many rows at `p`, with its numbers behind it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
unsafe fn signs_avx512(query: &ScanQuery, p: *const u8, rows: usize) -> [__m512i; 4] {
    let (two, four) = (_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0f));
    let (mut all, mut odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    let (triples, rest) = (query.steps / 3, query.steps % 3);
    // SAFETY: every step and the tables of each triple exist, as `survivors` checked; a load beyond the rows of the last
    // step ends within the 6 * rows bytes of numbers, since 64 <= rows + 6 * rows.
    unsafe {
        let mut p = p;
        let mut step = || {
            let x = _mm512_loadu_si512(p.cast());
            p = p.add(rows);
            x
        };
        let mut tables = query.tables.as_ptr().cast::<__m512i>();
        let mut triple = |x: [__m512i; 3]| {
            let table = |t: usize| _mm512_load_si512(tables.add(t));
            // The upper two bits of each byte, side by side in the lower six; a permutation ignores the rest.
            let (a, b) = (_mm512_srli_epi16::<6>(x[0]), _mm512_srli_epi16::<4>(x[1]));
            let ab = _mm512_ternarylogic_epi64::<0xca>(two, a, b);
            let c = _mm512_srli_epi16::<2>(x[2]);
            let abc = _mm512_ternarylogic_epi64::<0xca>(four, ab, c);
            let s = _mm512_add_epi8(
                _mm512_add_epi8(
                    _mm512_permutexvar_epi8(x[0], table(0)),
                    _mm512_permutexvar_epi8(x[1], table(1)),
                ),
                _mm512_add_epi8(
                    _mm512_permutexvar_epi8(x[2], table(2)),
                    _mm512_permutexvar_epi8(abc, table(3)),
                ),
            );
            // Four entries of six bits fit eight. Sixteen-bit sums of the odd rows, and of the even ones with 256 times
            // the odd ones, which are taken off at the end (modulo 2^16).
            all = _mm512_add_epi16(all, s);
            odd = _mm512_add_epi16(odd, _mm512_srli_epi16::<8>(s));
            tables = tables.add(4);
        };
        for _ in 0..triples {
            triple([step(), step(), step()]);
        }
        // Entry 0 of a table counts nothing, and the dimensions of steps that are not there are 0.
        let none = _mm512_setzero_si512();
        match rest {
            1 => triple([step(), none, none]),
            2 => triple([step(), step(), none]),
            _ => {}
        }
    }
    let even = _mm512_sub_epi16(all, _mm512_slli_epi16::<8>(odd));
    // Rows 16 i .. 16 i + 8 and the eight after them, in lane i of each.
    let (low, high) = (
        _mm512_unpacklo_epi16(even, odd),
        _mm512_unpackhi_epi16(even, odd),
    );
    let (a, b) = (
        _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high),
        _mm512_permutex2var_epi64(low, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), high),
    );
    let wide = _mm512_cvtepu16_epi32;
    [
        wide(_mm512_castsi512_si256(a)),
        wide(_mm512_extracti64x4_epi64::<1>(a)),
        wide(_mm512_castsi512_si256(b)),
        wide(_mm512_extracti64x4_epi64::<1>(b)),
    ]
}

/// The estimates of sixteen rows from their integers, constants and gains.
///
/// # Safety
/// Sixteen numbers at each pointer.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn finish_avx512(
    query: &ScanQuery,
    sums: __m512i,
    (constants, gains): (*const u8, *const u8),
    base: __m512,
) -> __m512 {
    // SAFETY: the caller's promise.
    let (constant, gain) = unsafe {
        (
            _mm512_loadu_ps(constants.cast()),
            _mm512_cvtepu16_epi32(_mm256_loadu_si256(gains.cast())),
        )
    };
    let gain = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(gain));
    let (unit, least) = (_mm512_set1_ps(query.unit), _mm512_set1_ps(query.least));
    let x = _mm512_add_ps(_mm512_mul_ps(unit, _mm512_cvtepi32_ps(sums)), least);
    _mm512_sub_ps(_mm512_add_ps(base, constant), _mm512_mul_ps(gain, x))
}

/// # Safety
/// Whole blocks, and room in both lists for all rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,popcnt")]
pub(super) unsafe fn survivors_avx512<const B: usize>(
    query: &ScanQuery,
    codes: &[u8],
    next: &[u8],
    (base, limit): (f32, f32),
    first: u32,
    slots: &mut Vec<u32>,
    found: &mut Vec<f32>,
) {
    let block = query.block_bytes();
    let (base, limit) = (_mm512_set1_ps(base), _mm512_set1_ps(limit));
    let mut len = slots.len();
    debug_assert_eq!(len, found.len());
    let blocks = codes.len() / block;
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for b in (0..blocks).step_by(AT_ONCE) {
        let here = AT_ONCE.min(blocks - b);
        for b in b..b + here {
            ahead(next, b, block);
        }
        let rows = here * BLOCK;
        // SAFETY: the blocks exist (of one bit: they are a group), and with them their numbers; there is room in both lists
        // for all rows.
        unsafe {
            let p = codes.as_ptr().add(b * block);
            // Where the numbers of block i stand: constants, and behind those of all blocks of a group their gains.
            let (mut sums, constants, [constant, gain, gains]) = if B == 1 {
                let sums = signs_avx512(query, p, rows);
                let constants = p.add(query.steps * rows);
                (sums, constants, [LINE, LINE / 2, 4 * rows])
            } else {
                let sums = [_mm512_setzero_si512(); AT_ONCE];
                (sums, p.add(query.steps * STEP), [block, block, LINE])
            };
            for (i, sums) in sums.iter_mut().enumerate().take(here) {
                if B == 2 {
                    *sums = two_avx512(query, p.add(i * block));
                }
                let factors = (constants.add(i * constant), constants.add(gains + i * gain));
                let x = finish_avx512(query, *sums, factors, base);
                let near = _mm512_cmp_ps_mask(x, limit, _CMP_LE_OQ);
                let row = first as usize + (b + i) * BLOCK;
                let rows = _mm512_add_epi32(_mm512_set1_epi32(row as i32), lanes);
                // Sixteen are stored each time, those that are near first; the next store begins behind these. How many are near
                // nobody can guess, and a branch that is guessed wrong keeps the next blocks from being sent for.
                let to = (slots.as_mut_ptr().add(len), found.as_mut_ptr().add(len));
                _mm512_storeu_si512(to.0.cast(), _mm512_maskz_compress_epi32(near, rows));
                _mm512_storeu_ps(to.1, _mm512_maskz_compress_ps(near, x));
                len += near.count_ones() as usize;
            }
        }
    }
    // SAFETY: so many were stored.
    unsafe {
        slots.set_len(len);
        found.set_len(len);
    }
}

/// The integers of rows 0..8 and 8..16 of a block of two-bit codes.
///
/// # Safety
/// A whole block at `p`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn two_avx2(query: &ScanQuery, p: *const u8) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(3);
    let ones = _mm256_set1_epi16(1);
    let shift = _mm256_set1_epi32(query.shift);
    let lines = query.steps / 4;
    let mut out = [_mm256_setzero_si256(); 2];
    for (half, out) in out.iter_mut().enumerate() {
        let mut acc = _mm256_setzero_si256();
        let mut short = _mm256_setzero_si256();
        // SAFETY: every line and every step of the query exist, as `estimates` and `survivors` checked.
        unsafe {
            // One product is at most 2 * 3 * 127 = 762: sixteen bits hold 43 of them.
            let add = |short: __m256i, x: __m256i, step: usize| {
                let q = _mm256_set1_epi32(four(query, step));
                _mm256_add_epi16(short, _mm256_maddubs_epi16(_mm256_and_si256(x, mask), q))
            };
            for line in 0..lines {
                let x = _mm256_loadu_si256(p.add(line * LINE + half * 32).cast());
                short = add(short, x, line * 4);
                short = add(short, _mm256_srli_epi16::<2>(x), line * 4 + 1);
                short = add(short, _mm256_srli_epi16::<4>(x), line * 4 + 2);
                short = add(short, _mm256_srli_epi16::<6>(x), line * 4 + 3);
                if line % 10 == 9 {
                    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(short, ones));
                    short = _mm256_setzero_si256();
                }
            }
            for step in lines * 4..query.steps {
                let x = _mm_loadl_epi64(p.add(step * STEP + half * 8).cast());
                let x = _mm256_cvtepu8_epi32(x);
                let low = _mm256_or_si256(x, _mm256_slli_epi32::<6>(x));
                let high = _mm256_or_si256(_mm256_slli_epi32::<12>(x), _mm256_slli_epi32::<18>(x));
                short = add(short, _mm256_or_si256(low, high), step);
            }
        }
        let acc = _mm256_add_epi32(acc, _mm256_madd_epi16(short, ones));
        *out = _mm256_sub_epi32(_mm256_add_epi32(acc, acc), shift);
    }
    out
}

/// The integers of 32 rows of a group of one-bit codes, from `p` on; a step has `rows` bytes. What is behind the group
/// means nothing.
///
/// # Safety
/// Rows of each step at `p`, and the group's numbers behind the last step.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn signs_avx2(query: &ScanQuery, p: *const u8, rows: usize) -> [[__m256i; 2]; 2] {
    let half = _mm256_set1_epi8(15);
    let (mut all, mut odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    for s in 0..query.steps {
        // SAFETY: the step and its tables exist, as `survivors` checked; a load beyond the rows of the last step ends
        // within their numbers.
        let (x, low, high) = unsafe {
            let table = query.tables.as_ptr().cast::<__m128i>().add(2 * s);
            (
                _mm256_loadu_si256(p.add(s * rows).cast()),
                _mm256_broadcastsi128_si256(_mm_loadu_si128(table)),
                _mm256_broadcastsi128_si256(_mm_loadu_si128(table.add(1))),
            )
        };
        let a = _mm256_shuffle_epi8(low, _mm256_and_si256(x, half));
        let x = _mm256_and_si256(_mm256_srli_epi16::<4>(x), half);
        // A low half has dimensions of one table of six, a high half of two: 63 + 126 fit a byte.
        let both = _mm256_add_epi8(a, _mm256_shuffle_epi8(high, x));
        all = _mm256_add_epi16(all, both);
        odd = _mm256_add_epi16(odd, _mm256_srli_epi16::<8>(both));
    }
    let even = _mm256_sub_epi16(all, _mm256_slli_epi16::<8>(odd));
    // Rows 0..8 and 16..24 in the lanes of one, 8..16 and 24..32 in those of the other.
    let (a, b) = (
        _mm256_unpacklo_epi16(even, odd),
        _mm256_unpackhi_epi16(even, odd),
    );
    let wide = _mm256_cvtepu16_epi32;
    [
        [
            wide(_mm256_castsi256_si128(a)),
            wide(_mm256_castsi256_si128(b)),
        ],
        [
            wide(_mm256_extracti128_si256::<1>(a)),
            wide(_mm256_extracti128_si256::<1>(b)),
        ],
    ]
}

/// The estimates of sixteen rows from their integers, constants and gains.
///
/// # Safety
/// Sixteen numbers at each pointer.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn finish_avx2(
    query: &ScanQuery,
    sums: [__m256i; 2],
    (constants, gains): (*const u8, *const u8),
    base: f32,
) -> [__m256; 2] {
    let (unit, least) = (_mm256_set1_ps(query.unit), _mm256_set1_ps(query.least));
    let mut out = [_mm256_setzero_ps(); 2];
    for (half, out) in out.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let (constant, gain) = unsafe {
            (
                _mm256_loadu_ps(constants.add(half * 32).cast()),
                _mm256_cvtepu16_epi32(_mm_loadu_si128(gains.add(half * 16).cast())),
            )
        };
        let gain = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(gain));
        let x = _mm256_add_ps(_mm256_mul_ps(unit, _mm256_cvtepi32_ps(sums[half])), least);
        let fixed = _mm256_add_ps(_mm256_set1_ps(base), constant);
        *out = _mm256_sub_ps(fixed, _mm256_mul_ps(gain, x));
    }
    out
}

/// # Safety
/// Whole blocks, and room in both lists for all rows.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn survivors_avx2<const B: usize>(
    query: &ScanQuery,
    codes: &[u8],
    next: &[u8],
    (base, limit): (f32, f32),
    first: u32,
    slots: &mut Vec<u32>,
    found: &mut Vec<f32>,
) {
    let block = query.block_bytes();
    let limit = _mm256_set1_ps(limit);
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let mut len = slots.len();
    debug_assert_eq!(len, found.len());
    let blocks = codes.len() / block;
    let (group, together) = if B == 1 { (4, 2) } else { (1, 1) };
    for b in (0..blocks).step_by(together) {
        ahead(next, b, block);
        ahead(next, b + 1, if B == 1 { block } else { 0 });
        // The group of this block, and its place there.
        let (start, i) = (b / group * group, b % group);
        let here = group.min(blocks - start);
        let rows = here * BLOCK;
        // SAFETY: the group exists, and there is room in both lists for all rows.
        unsafe {
            let p = codes.as_ptr().add(start * block);
            let sums = if B == 1 {
                signs_avx2(query, p.add(i * BLOCK), rows)
            } else {
                [two_avx2(query, p); 2]
            };
            let constants = p.add(query.steps * rows);
            for (k, &sums) in sums[..together.min(here - i)].iter().enumerate() {
                let (constants, gains) = (
                    constants.add((i + k) * LINE),
                    constants.add(4 * rows + (i + k) * 32),
                );
                let x = finish_avx2(query, sums, (constants, gains), base);
                // As above, by eight.
                for (half, x) in x.into_iter().enumerate() {
                    let near = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(x, limit));
                    let row = first as usize + (b + k) * BLOCK + half * 8;
                    let rows = _mm256_add_epi32(_mm256_set1_epi32(row as i32), lanes);
                    let order = _mm_loadl_epi64(PLACES[near as usize & 255].as_ptr().cast());
                    let order = _mm256_cvtepu8_epi32(order);
                    let to = (slots.as_mut_ptr().add(len), found.as_mut_ptr().add(len));
                    _mm256_storeu_si256(to.0.cast(), _mm256_permutevar8x32_epi32(rows, order));
                    _mm256_storeu_ps(to.1, _mm256_permutevar8x32_ps(x, order));
                    len += near.count_ones() as usize;
                }
            }
        }
    }
    // SAFETY: so many were stored.
    unsafe {
        slots.set_len(len);
        found.set_len(len);
    }
}

/// The places of the bits that are set in a byte, in order.
static PLACES: [[u8; 8]; 256] = {
    let mut all = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut bit, mut at) = (0, 0);
        while bit < 8 {
            if byte >> bit & 1 == 1 {
                all[byte][at] = bit;
                at += 1;
            }
            bit += 1;
        }
        byte += 1;
    }
    all
};
