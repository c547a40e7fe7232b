//! The inner loops of list scans for AVX2 and AVX-512. `B` is the number of bits a dimension.
#![allow(unsafe_code)]

use super::{BLOCK, LINE, STEP, ScanQuery, prefetch};
use std::arch::x86_64::*;

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
/// `tables` holds two lines for each 32 bytes of `code`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn tables_avx512(code: &[i8], per: f32, tables: &mut [u8]) {
    let (per, half) = (_mm512_set1_ps(per), _mm512_set1_ps(0.5));
    for (i, g) in code.as_chunks::<4>().0.iter().enumerate() {
        let g = g.map(i32::from);
        let low = (g[0].min(0) + g[1].min(0)) + (g[2].min(0) + g[3].min(0));
        // Entry n has the dimensions whose bits are set in n.
        let mut sum = _mm512_set1_epi32(-low);
        sum = _mm512_mask_add_epi32(sum, 0xaaaa, sum, _mm512_set1_epi32(g[0]));
        sum = _mm512_mask_add_epi32(sum, 0xcccc, sum, _mm512_set1_epi32(g[1]));
        sum = _mm512_mask_add_epi32(sum, 0xf0f0, sum, _mm512_set1_epi32(g[2]));
        sum = _mm512_mask_add_epi32(sum, 0xff00, sum, _mm512_set1_epi32(g[3]));
        let x = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), per), half);
        let entries = _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(x));
        let (line, i) = (i / 8, i % 8);
        let at = line * 2 * LINE + i % 2 * LINE + i / 2 * 16;
        // SAFETY: table `i` of line `line`, as the caller promises.
        unsafe { _mm_storeu_si128(tables.as_mut_ptr().add(at).cast(), entries) };
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

/// The sixteen integers of a block of one-bit codes.
///
/// # Safety
/// A whole block at `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn one_avx512(query: &ScanQuery, p: *const u8) -> __m512i {
    let low = _mm512_set1_epi8(15);
    let (mut acc_all, mut acc_odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    let (lines, rest) = (query.steps / 4, query.steps % 4);
    // SAFETY: every line, every step and the tables of each exist, as `estimates` and `survivors` checked.
    unsafe {
        let mut line = |i: usize, x: __m512i| {
            let table = query.tables.as_ptr().add(i * 2 * LINE);
            let a = _mm512_shuffle_epi8(_mm512_loadu_si512(table.cast()), _mm512_and_si512(x, low));
            let x = _mm512_and_si512(_mm512_srli_epi16::<4>(x), low);
            let c = _mm512_shuffle_epi8(_mm512_loadu_si512(table.add(LINE).cast()), x);
            // Two entries of seven bits fit eight. Sixteen-bit sums of the odd rows, and of the even ones with 256
            // times the odd ones, which are taken off at the end (modulo 2^16).
            let s = _mm512_add_epi8(a, c);
            acc_all = _mm512_add_epi16(acc_all, s);
            acc_odd = _mm512_add_epi16(acc_odd, _mm512_srli_epi16::<8>(s));
        };
        for i in 0..lines {
            line(i, _mm512_loadu_si512(p.add(i * LINE).cast()));
        }
        if rest > 0 {
            // Entry 0 of the tables behind the last step is 0.
            let there = (1u64 << (rest * STEP)) - 1;
            line(
                lines,
                _mm512_maskz_loadu_epi8(there, p.add(lines * LINE).cast()),
            );
        }
    }
    let acc_even = _mm512_sub_epi16(acc_all, _mm512_slli_epi16::<8>(acc_odd));
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
    let zip = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    _mm512_permutex2var_epi32(
        _mm512_castsi256_si512(add(acc_even)),
        zip,
        _mm512_castsi256_si512(add(acc_odd)),
    )
}

/// The estimates of a block.
///
/// # Safety
/// A whole block at `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn block_avx512<const B: usize>(query: &ScanQuery, p: *const u8, base: __m512) -> __m512 {
    // SAFETY: the caller's promise; constants and gains stand behind the codes.
    unsafe {
        let sums = if B == 1 {
            one_avx512(query, p)
        } else {
            two_avx512(query, p)
        };
        let p = p.add(query.steps * STEP);
        let constant = _mm512_loadu_ps(p.cast());
        let gain = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.add(LINE).cast()));
        let gain = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(gain));
        let (unit, least) = (_mm512_set1_ps(query.unit), _mm512_set1_ps(query.least));
        let x = _mm512_add_ps(_mm512_mul_ps(unit, _mm512_cvtepi32_ps(sums)), least);
        _mm512_sub_ps(_mm512_add_ps(base, constant), _mm512_mul_ps(gain, x))
    }
}

/// # Safety
/// Lengths as checked by `estimates`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn estimates_avx512<const B: usize>(
    query: &ScanQuery,
    codes: &[u8],
    base: f32,
    out: &mut [f32],
) {
    let (size, base) = (query.block_bytes(), _mm512_set1_ps(base));
    for (b, out) in out.chunks_exact_mut(BLOCK).enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let x = block_avx512::<B>(query, codes.as_ptr().add(b * size), base);
            _mm512_storeu_ps(out.as_mut_ptr(), x);
        }
    }
}

/// # Safety
/// Whole blocks, and room in both lists for sixteen more than there are rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,popcnt")]
pub(super) unsafe fn survivors_avx512<const B: usize>(
    query: &ScanQuery,
    codes: &[u8],
    next: &[u8],
    (base, limit): (f32, f32),
    first: u32,
    slots: &mut Vec<u32>,
    found: &mut Vec<f32>,
) {
    let size = query.block_bytes();
    let (base, limit) = (_mm512_set1_ps(base), _mm512_set1_ps(limit));
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let mut at = _mm512_add_epi32(_mm512_set1_epi32(first as i32), lanes);
    let mut len = slots.len();
    debug_assert_eq!(len, found.len());
    for b in 0..codes.len() / size {
        ahead(next, b, size);
        // SAFETY: block `b` exists; no more is stored than there are rows, and the last store has sixteen to spare.
        unsafe {
            let x = block_avx512::<B>(query, codes.as_ptr().add(b * size), base);
            let near = _mm512_cmp_ps_mask(x, limit, _CMP_LE_OQ);
            if near != 0 {
                let to = slots.as_mut_ptr().add(len).cast();
                _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(near, at));
                let to = found.as_mut_ptr().add(len);
                _mm512_storeu_ps(to, _mm512_maskz_compress_ps(near, x));
                len += near.count_ones() as usize;
            }
        }
        at = _mm512_add_epi32(at, _mm512_set1_epi32(BLOCK as i32));
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

/// The integers of rows 0..8 and 8..16 of a block of one-bit codes.
///
/// # Safety
/// A whole block at `p`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn one_avx2(query: &ScanQuery, p: *const u8) -> [__m256i; 2] {
    let low = _mm256_set1_epi8(15);
    let (mut acc_all, mut acc_odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    let (halves, rest) = (query.steps / 2, query.steps % 2);
    // SAFETY: every step and the tables of each line exist, as `estimates` and `survivors` checked.
    unsafe {
        let mut half = |i: usize, x: __m256i| {
            let table = query.tables.as_ptr().add(i / 2 * 2 * LINE + i % 2 * 32);
            let a = _mm256_shuffle_epi8(_mm256_loadu_si256(table.cast()), _mm256_and_si256(x, low));
            let x = _mm256_and_si256(_mm256_srli_epi16::<4>(x), low);
            let c = _mm256_shuffle_epi8(_mm256_loadu_si256(table.add(LINE).cast()), x);
            let s = _mm256_add_epi8(a, c);
            acc_all = _mm256_add_epi16(acc_all, s);
            acc_odd = _mm256_add_epi16(acc_odd, _mm256_srli_epi16::<8>(s));
        };
        for i in 0..halves {
            half(i, _mm256_loadu_si256(p.add(i * 32).cast()));
        }
        if rest > 0 {
            // Entry 0 of the tables behind the last step is 0.
            let x = _mm_loadu_si128(p.add(halves * 32).cast());
            half(halves, _mm256_zextsi128_si256(x));
        }
    }
    let acc_even = _mm256_sub_epi16(acc_all, _mm256_slli_epi16::<8>(acc_odd));
    let add = |acc: __m256i| {
        _mm256_add_epi32(
            _mm256_cvtepu16_epi32(_mm256_castsi256_si128(acc)),
            _mm256_cvtepu16_epi32(_mm256_extracti128_si256::<1>(acc)),
        )
    };
    let (e, o) = (add(acc_even), add(acc_odd));
    let (low, high) = (_mm256_unpacklo_epi32(e, o), _mm256_unpackhi_epi32(e, o));
    [
        _mm256_permute2x128_si256::<0x20>(low, high),
        _mm256_permute2x128_si256::<0x31>(low, high),
    ]
}

/// The estimates of a block.
///
/// # Safety
/// A whole block at `p`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn block_avx2<const B: usize>(query: &ScanQuery, p: *const u8, base: f32) -> [__m256; 2] {
    let (unit, least) = (_mm256_set1_ps(query.unit), _mm256_set1_ps(query.least));
    // SAFETY: the caller's promise; constants and gains stand behind the codes.
    unsafe {
        let sums = if B == 1 {
            one_avx2(query, p)
        } else {
            two_avx2(query, p)
        };
        let mut out = [_mm256_setzero_ps(); 2];
        for (half, out) in out.iter_mut().enumerate() {
            let p = p.add(query.steps * STEP);
            let constant = _mm256_loadu_ps(p.add(half * 32).cast());
            let gain = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(LINE + half * 16).cast()));
            let gain = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(gain));
            let x = _mm256_add_ps(_mm256_mul_ps(unit, _mm256_cvtepi32_ps(sums[half])), least);
            let fixed = _mm256_add_ps(_mm256_set1_ps(base), constant);
            *out = _mm256_sub_ps(fixed, _mm256_mul_ps(gain, x));
        }
        out
    }
}

/// # Safety
/// Lengths as checked by `estimates`.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn estimates_avx2<const B: usize>(
    query: &ScanQuery,
    codes: &[u8],
    base: f32,
    out: &mut [f32],
) {
    let size = query.block_bytes();
    for (b, out) in out.chunks_exact_mut(BLOCK).enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let x = block_avx2::<B>(query, codes.as_ptr().add(b * size), base);
            _mm256_storeu_ps(out.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), x[1]);
        }
    }
}

/// # Safety
/// Whole blocks.
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
    let size = query.block_bytes();
    let limit = _mm256_set1_ps(limit);
    for b in 0..codes.len() / size {
        ahead(next, b, size);
        // SAFETY: the caller's promise.
        let x = unsafe { block_avx2::<B>(query, codes.as_ptr().add(b * size), base) };
        let near = x.map(|x| _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(x, limit)) as u32);
        let mut near = near[0] | near[1] << 8;
        if near == 0 {
            continue;
        }
        let mut values = [0.0f32; BLOCK];
        // SAFETY: twice eight floats.
        unsafe {
            _mm256_storeu_ps(values.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(values.as_mut_ptr().add(8), x[1]);
        }
        while near != 0 {
            let v = near.trailing_zeros();
            slots.push(first + b as u32 * BLOCK as u32 + v);
            found.push(values[v as usize % BLOCK]);
            near &= near - 1;
        }
    }
}
